"""What the command line asks a console, over HTTP."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import orjson

from delaystream.cli.rendering import printable
from delaystream.config import ConfigurationError, Settings

_TIMEOUT_S: Final = 15.0
#: Longest answer that is read, bytes.
_MOST: Final = 64 * 1024 * 1024


class ConsoleUnavailableError(Exception):
    """No console answers there, or what answers is none."""


class ConsoleRefusedError(Exception):
    """The console answered with a problem: its `code`, and a sentence."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


def url_of_console(settings: Settings) -> str:
    """Where the console is, without a slash at its end. Raises ConfigurationError."""
    if settings.console_url is None:
        host = settings.console_http_host
        return f"http://{f'[{host}]' if ':' in host else host}:{settings.console_http_port}"
    parts = urlsplit(settings.console_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigurationError(["console_url is no http:// or https:// address."])
    return settings.console_url.rstrip("/")


def ask(url: str, path: str, parameters: Mapping[str, object]) -> dict[str, Any]:
    """The answer to one question; parameters that are None are left out.

    Raises ConsoleUnavailableError and ConsoleRefusedError.
    """
    with opened(url, path, parameters) as answer:
        try:
            read = orjson.loads(answer.read(_MOST))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _unavailable(url, error) from None
    if not isinstance(read, dict):
        raise ConsoleUnavailableError(f"What answers at {url} is no console.")
    return read


def opened(
    url: str, path: str, parameters: Mapping[str, object], *, timeout_s: float = _TIMEOUT_S
) -> http.client.HTTPResponse:
    """The answer to one question, to be read; parameters that are None are left out.

    Raises ConsoleUnavailableError and ConsoleRefusedError.
    """
    query = urlencode({name: value for name, value in parameters.items() if value is not None}, doseq=True)
    try:
        answer: http.client.HTTPResponse = urllib.request.urlopen(
            f"{url}{path}{f'?{query}' if query else ''}", timeout=timeout_s
        )
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
        return ConsoleUnavailableError(f"What answers at {url} is no console: it says {error.code}.")
