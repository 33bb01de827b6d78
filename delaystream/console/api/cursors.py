"""Places in a list, as they travel: the server keeps nothing."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from hashlib import blake2b

from delaystream.console.api.problems import invalid

_DIGEST_BYTES = 6


def cursor(place: bytes | None, asked: object) -> str | None:
    """A place as text; it goes with what was ``asked`` alone."""
    return None if place is None else urlsafe_b64encode(_digest(asked) + place).rstrip(b"=").decode()


def place(cursor: str | None, asked: object) -> bytes | None:
    """The place of a cursor. Raises ProblemError for what is none of this question's."""
    if cursor is None:
        return None
    try:
        content = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except (ValueError, Error):
        content = b""
    if content[:_DIGEST_BYTES] != _digest(asked):
        raise invalid(
            "invalid-cursor",
            "cursor is none of this list's: expected the next_cursor of an answer with the same filters.",
        )
    return content[_DIGEST_BYTES:]


def _digest(asked: object) -> bytes:
    return blake2b(repr(asked).encode(), digest_size=_DIGEST_BYTES).digest()
