"""Tokens for SASL's OAUTHBEARER (KIP-255, KIP-768, KIP-1139): from a token endpoint, or from a file.

The endpoint gets the client's id and secret (RFC 6749, section 4.4). A file serves tokens that something else
renews, such as a service account's token, which Kubernetes projects. It is read at each login.
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from aiokafka.abc import AbstractTokenProvider

ENDPOINT_TIMEOUT_S: Final = 10.0
"""Longest wait for the token endpoint."""

_ANSWER_MAX_BYTES: Final = 1024 * 1024
_REUSED_SHARE: Final = 0.8
"""A token is reused for this share of its life, like Java's sasl.login.refresh.window.factor."""
_UNKNOWN_LIFETIME_S: Final = 60.0
"""Assumed life of a token that does not say when it ends."""


class TokenUnavailable(OSError):
    """No token is available now. The message says why, and holds no secret."""


class Token(NamedTuple):
    """A token, and when it ends: seconds since the epoch."""

    text: str
    expires_s: float


@dataclass(frozen=True, repr=False)
class Endpoint:
    """A token endpoint, and the client that asks it."""

    url: str
    client_id: str
    client_secret: str
    scope: str | None

    def fetch(self) -> Token:
        """Ask for a token; blocks for `ENDPOINT_TIMEOUT_S` at most. Raises TokenUnavailable."""
        form = {"grant_type": "client_credentials"} | ({"scope": self.scope} if self.scope else {})
        request = urllib.request.Request(
            self.url,
            data=urllib.parse.urlencode(form).encode(),
            headers={
                "Authorization": "Basic "
                + base64.b64encode(f"{self.client_id}:{self.client_secret}".encode()).decode(),
                "Accept": "application/json",
            },
        )
        try:
            with _opener.open(request, timeout=ENDPOINT_TIMEOUT_S) as answer:
                content = json.loads(answer.read(_ANSWER_MAX_BYTES))
            text = content["access_token"]
            lifetime_s = float(content.get("expires_in") or 0)
        except urllib.error.HTTPError as error:
            raise TokenUnavailable(
                f"the token endpoint {self.url} answered {error.code}{_code(error)}"
            ) from None
        except (OSError, ValueError) as error:
            raise TokenUnavailable(f"the token endpoint {self.url} gave no token: {error}") from None
        except (KeyError, TypeError):
            raise TokenUnavailable(
                f"the token endpoint {self.url} answered without an access_token"
            ) from None
        if not isinstance(text, str) or not text:
            raise TokenUnavailable(f"the token endpoint {self.url} answered without an access_token")
        return Token(text, time.time() + lifetime_s if lifetime_s > 0 else _expiry(text))


@dataclass(frozen=True)
class TokenFile:
    """A file that holds a token and nothing else."""

    path: Path

    def fetch(self) -> Token:
        """Read it. Raises TokenUnavailable."""
        try:
            text = self.path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not ASCII"
            raise TokenUnavailable(f"the token file {self.path} cannot be read: {why}") from None
        if not text:
            raise TokenUnavailable(f"the token file {self.path} is empty")
        return Token(text, _expiry(text))


class TokenLogin(AbstractTokenProvider):  # type: ignore[misc]
    """SASL with tokens; one object serves all clients of a process, from any thread."""

    mechanism: Final = "OAUTHBEARER"

    def __init__(self, source: Endpoint | TokenFile, now_s: Callable[[], float] = time.time) -> None:
        self._source = source
        self._now_s = now_s
        self._lock = threading.Lock()
        self._kept: Token | None = None
        self._use_until_s = 0.0

    def current(self) -> Token:
        """A token that is good for a while; blocks while one is fetched. Raises TokenUnavailable."""
        if isinstance(self._source, TokenFile):
            return self._source.fetch()
        with self._lock:
            now_s = self._now_s()
            if self._kept is None or now_s >= self._use_until_s:
                self._kept = self._source.fetch()
                self._use_until_s = now_s + (self._kept.expires_s - now_s) * _REUSED_SHARE
            return self._kept

    async def token(self) -> str:
        """A token for aiokafka, at each of its logins."""
        return (await asyncio.to_thread(self.current)).text

    def confluent(self, _: str) -> tuple[str, float]:
        """A token for confluent-kafka's `oauth_cb`, and when it ends."""
        return self.current()


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the client's secret is for one address."""

    def redirect_request(self, *_: Any) -> None:
        """Report the redirect as an error."""


_opener: Final = urllib.request.build_opener(_NoRedirects)


def _code(error: urllib.error.HTTPError) -> str:
    """Only the error's code (RFC 6749, section 5.2): the rest of the answer may echo secrets."""
    try:
        code = json.loads(error.read(_ANSWER_MAX_BYTES))["error"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return (
        f" ({code})" if isinstance(code, str) and code.isascii() and code.replace("_", "").isalnum() else ""
    )


def _expiry(text: str) -> float:
    """The expiry in a JSON Web Token (RFC 7519); soon, if it has none."""
    try:
        payload = text.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"])
    except (IndexError, ValueError, KeyError, TypeError):
        return time.time() + _UNKNOWN_LIFETIME_S


def checked_url(url: str) -> str | None:
    """The fault of a token endpoint's address, worded to follow the address; None when it is usable."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "file":
        return (
            None if parts.path.startswith("/") and not parts.netloc else "does not name a file: file:///path"
        )
    if parts.scheme == "https" and parts.hostname:
        return None
    if parts.scheme == "http" and parts.hostname in {"localhost", "127.0.0.1", "::1"}:
        return None
    return "must begin with https:// or file:/// (http:// only on this machine: the secret would be readable)"


def source_of(url: str, client_id: str, client_secret: str, scope: str | None) -> Endpoint | TokenFile:
    """The source of tokens, for an address that `checked_url` accepted."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "file":
        return TokenFile(Path(urllib.parse.unquote(parts.path)))
    return Endpoint(url, client_id, client_secret, scope)


__all__ = ["Endpoint", "TokenFile", "TokenLogin", "TokenUnavailable", "checked_url", "source_of"]
