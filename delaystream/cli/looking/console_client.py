"""What the command line asks a console, over HTTP."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import msgspec
import orjson

from delaystream.config import ConfigurationError, Settings
from delaystream.printable import printable

_TIMEOUT_S: Final = 15.0
#: An outcome is waited for there.
_CHANGE_S: Final = 75.0
#: Longest answer that is read, bytes.
_MOST: Final = 64 * 1024 * 1024
_TOKEN_BYTES: Final = 8_192


class ConsoleUnavailableError(Exception):
    """No console answers there, or what answers is none."""


class ConsoleRefusedError(Exception):
    """The console answered with a problem: its `code`, and a sentence."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class ConsoleAt(msgspec.Struct, frozen=True):
    """A console, and what it is shown."""

    url: str
    token: str | None = None

    def __repr__(self) -> str:
        """Without the token: this may come to stand in a traceback or a log."""
        return f"ConsoleAt({self.url!r})"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A console redirects nobody; whoever does would be shown the token."""

    def redirect_request(self, *_: object, **__: object) -> None:
        """None: the answer stands as it is."""


_open: Final = urllib.request.build_opener(_NoRedirects()).open


def token_of(path: Path) -> str:
    """The token in a file, without the line's end. Raises ConfigurationError."""
    try:
        text = path.read_bytes()[:_TOKEN_BYTES].decode()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigurationError([f"The file of the token, {path}, cannot be read: {reason}."]) from None
    return text.removesuffix("\n").removesuffix("\r")


def console_at(settings: Settings) -> ConsoleAt:
    """The console that the settings name, with their token. Raises ConfigurationError."""
    return ConsoleAt(url_of_console(settings), settings.console_token)


def url_of_console(settings: Settings) -> str:
    """Where the console is, without a slash at its end. Raises ConfigurationError."""
    if settings.console_url is None:
        host = settings.console_http_host
        return f"http://{f'[{host}]' if ':' in host else host}:{settings.console_http_port}"
    parts = urlsplit(settings.console_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigurationError(["console_url is no http:// or https:// address."])
    return settings.console_url.rstrip("/")


def ask(at: ConsoleAt, path: str, parameters: Mapping[str, object]) -> dict[str, Any]:
    """The answer to one question; parameters that are None are left out.

    Raises ConsoleUnavailableError and ConsoleRefusedError.
    """
    with opened(at, path, parameters) as answer:
        return _read(at, answer)


def change(
    at: ConsoleAt, path: str, body: Mapping[str, object], headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The answer to a request that something be changed; fields that are None are left out.

    Raises ConsoleUnavailableError and ConsoleRefusedError.
    """
    said = orjson.dumps({name: value for name, value in body.items() if value is not None})
    whole = {"Content-Type": "application/json", **(headers or {})}
    with opened(at, path, {}, timeout_s=_CHANGE_S, body=said, headers=whole) as answer:
        return _read(at, answer)


def _read(at: ConsoleAt, answer: http.client.HTTPResponse) -> dict[str, Any]:
    try:
        read = orjson.loads(answer.read(_MOST))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _unavailable(at.url, error) from None
    if not isinstance(read, dict):
        raise ConsoleUnavailableError(f"{at.url} is not a console.")
    return read


def opened(
    at: ConsoleAt,
    path: str,
    parameters: Mapping[str, object],
    *,
    timeout_s: float = _TIMEOUT_S,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> http.client.HTTPResponse:
    """The answer to one question, or to a POST of a body, to be read; parameters that are None are left out.

    Raises ConsoleUnavailableError and ConsoleRefusedError.
    """
    query = urlencode({name: value for name, value in parameters.items() if value is not None}, doseq=True)
    url = at.url
    asked = urllib.request.Request(f"{url}{path}{f'?{query}' if query else ''}", body, dict(headers or {}))
    if at.token is not None:
        asked.add_unredirected_header("Authorization", f"Bearer {at.token}")
    try:
        answer: http.client.HTTPResponse = _open(asked, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        raise _problem(url, error) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _unavailable(url, error) from None
    return answer


def _unavailable(url: str, error: Exception) -> ConsoleUnavailableError:
    reason = getattr(error, "reason", error)
    return ConsoleUnavailableError(f"No console answers at {url}: {printable(str(reason))}.")


def _problem(url: str, error: urllib.error.HTTPError) -> Exception:
    try:
        read = orjson.loads(error.read(_MOST))
        return ConsoleRefusedError(str(read["code"]), printable(str(read["detail"])))
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return ConsoleUnavailableError(f"{url} is not a console: it answered {error.code}.")
