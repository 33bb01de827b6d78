"""Places in a list, as they travel: the server keeps nothing.

A place may be that of something that the caller does not see, and names it then. So cursors are sealed: what
is in one cannot be read, nor made, nor used by another caller or for another question (AES-SIV, RFC 5297).
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from hashlib import blake2b

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from delaystream.console.access.caller import Caller
from delaystream.console.api.problems import invalid

_KEY_BYTES = 64
_PURPOSE = b"cursors"
_MOST_CHARACTERS = 8_192


class Cursors:
    """The cursors of one caller. The secret is that of all consoles that one cursor may come to."""

    def __init__(self, secret: bytes, caller: Caller) -> None:
        self._seal = AESSIV(blake2b(secret[:_KEY_BYTES], digest_size=_KEY_BYTES, person=_PURPOSE).digest())
        self._caller = caller.who.unique.encode("utf-8", "surrogatepass")

    def cursor(self, place: bytes | None, asked: object) -> str | None:
        """A place as text; it goes with what was ``asked`` alone."""
        if place is None:
            return None
        return urlsafe_b64encode(self._seal.encrypt(place, self._of(asked))).rstrip(b"=").decode()

    def place(self, cursor: str | None, asked: object) -> bytes | None:
        """The place of a cursor. Raises ProblemError for what is none of this caller's and question's."""
        if cursor is None:
            return None
        try:
            sealed = urlsafe_b64decode(cursor[:_MOST_CHARACTERS] + "=" * (-len(cursor) % 4))
            return self._seal.decrypt(sealed, self._of(asked))
        except (ValueError, Error, InvalidTag):
            raise invalid(
                "invalid-cursor",
                "cursor does not belong to this list: expected the next_cursor of an answer with the same "
                "filters, "
                "to the same caller.",
            ) from None

    def _of(self, asked: object) -> list[bytes]:
        return [self._caller, repr(asked).encode("utf-8", "surrogatepass")]
