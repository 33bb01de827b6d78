"""Sessions of people, as the entrance knows them: a cookie with a secret, and what is stored of it. Pure.

The cookie is for the console's own host alone: `__Host-` and Secure (RFC 6265bis, section 4.1.3), but for a
console that a browser reaches by plain HTTP on this machine. It is `SameSite=Lax` and not Strict: a browser
that comes back from a provider of identities has been sent by another site.
"""

from __future__ import annotations

import re
from hashlib import sha256
from secrets import token_urlsafe
from typing import Final, Protocol

import msgspec

from delaystream.console.access.caller import Kind

_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_RANDOM_BYTES: Final = 32
_LONGEST_PATH: Final = 2_048
SESSION: Final = "delaystream-session"
"""The cookie of a session, without its prefix."""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who has signed in."""

    #: of the secret, in hexadecimal digits: no secret itself
    digest: str
    #: `TOKEN`, or `OIDC`
    kind: Kind
    name: str
    #: within the issuer's; of a token its hash, in hexadecimal digits
    subject: str
    issuer: str | None = None
    #: of the claim of roles, as the provider said when they signed in
    roles: tuple[str, ...] = ()
    #: from when on it is over, whatever happens, ms
    expires_ms: int = 0


class Sessions(Protocol):
    """Where sessions are kept. Methods block."""

    def find(self, secret: str) -> Session | None:
        """The session of a cookie's secret, which is used now; None where there is none, or no more.

        Raises Refused where it cannot be looked up.
        """

    def stands(self, digest: str) -> bool:
        """Whether a session is not over."""


class Cookies(msgspec.Struct, frozen=True):
    """How a console names and sets its cookies."""

    #: they travel by TLS alone
    secure: bool = True

    def name(self, plain: str) -> str:
        """The whole name of a cookie."""
        return f"__Host-{plain}" if self.secure else plain

    def made(self, plain: str, value: str, seconds: int) -> str:
        """A `Set-Cookie` that a browser keeps for so long; 0: it forgets."""
        secure = "; Secure" if self.secure else ""
        return f"{self.name(plain)}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"

    def found(self, plain: str, header: str | None) -> str | None:
        """The secret that a `Cookie` header has under a name; None where there is none of the right form."""
        # The others are other people's, and need not be what RFC 6265 calls a cookie.
        pairs = [pair.partition("=") for pair in (header or "").split(";")]
        values = {value.strip() for name, _, value in pairs if name.strip() == self.name(plain)}
        # Which of two is the own one, and which was planted, nobody can tell.
        value = values.pop() if len(values) == 1 else ""
        return value if _SECRET.fullmatch(value) else None


def new_secret() -> str:
    """256 random bits."""
    return token_urlsafe(_RANDOM_BYTES)


def secret_digest(secret: str) -> str:
    """What is kept of a secret: a plain hash is enough of so many random bits."""
    return sha256(secret.encode()).hexdigest()


def local_path(text: str | None) -> str:
    """Where a browser goes after it has signed in: a path of this console; `/` for what is none.

    A path that browsers take for another host is replaced, too: `//host`, a backslash, and controls, which
    they drop.
    """
    if not text or not text.startswith("/") or len(text) > _LONGEST_PATH:
        return "/"
    if text[1:2] in {"/", "\\"} or "\\" in text or not text.isascii() or not text.isprintable():
        return "/"
    return text
