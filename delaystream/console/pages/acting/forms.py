"""Forms, as a browser sends them: their fields, and the stamp that this console has put into them.

The stamp is against pages of other sites (CSRF), beside what the gate looks at: nobody else can make one for
the caller. It names the request that the form asks for, too, so a form that is sent twice asks once.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from secrets import token_bytes
from struct import Struct
from typing import Annotated, Final
from urllib.parse import parse_qs

from fastapi import Depends, Request

from delaystream.console.access.caller import Caller
from delaystream.console.access.entrance import Entrance
from delaystream.console.api.asking import Asked, Entered
from delaystream.console.api.problems import ProblemError, invalid

LASTS_MS: Final = 12 * 3_600_000
"""A form may be sent so long after it was shown: within the time for which its request is remembered."""
FIELDS: Final = 200
"""So many fields a form may have."""
STAMP: Final = "stamp"
"""The field of the stamp."""
_MEDIA_TYPE: Final = "application/x-www-form-urlencoded"
_HEAD: Final = Struct(">q16s")


@dataclass(frozen=True)
class Stamp:
    """What a form says of itself."""

    #: when it was shown, ms
    shown_ms: int
    #: names what it asks for: an idempotency key
    key: str


@dataclass(frozen=True)
class Form:
    """What was filled in; a field that is not there is as one that is empty."""

    fields: Mapping[str, Sequence[str]]
    stamp: Stamp

    def text(self, name: str) -> str:
        """A field, with line breaks as they were before the browser sent them."""
        return self.fields.get(name, [""])[0].replace("\r\n", "\n")

    def word(self, name: str) -> str | None:
        """A field without the spaces around it; None where it is empty."""
        return self.text(name).strip() or None

    @property
    def texts(self) -> dict[str, str]:
        """Every field, to be shown again."""
        return {name: self.text(name) for name in self.fields if name != STAMP}


def stamp(entrance: Entrance, caller: Caller, now_ms: int) -> str:
    """What a form that is shown to a caller now has in its field `STAMP`."""
    head = _HEAD.pack(now_ms, token_bytes(16))
    return urlsafe_b64encode(head + _mac(entrance, caller, head)).decode()


async def read_fields(request: Request) -> Mapping[str, Sequence[str]]:
    """The fields of a form. Raises ProblemError, and Refused where it is too large or too slow."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != _MEDIA_TYPE:
        raise ProblemError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            f"Content-Type is {media_type[:60]!r}; expected {_MEDIA_TYPE}.",
        )
    body = await request.body()
    try:
        return parse_qs(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=FIELDS)
    except ValueError:
        raise invalid(
            "invalid-form", f"The form cannot be read: expected {FIELDS} fields at most, in UTF-8."
        ) from None


async def _posted(request: Request, console: Asked, entrance: Entered) -> Form:
    fields = await read_fields(request)
    written = fields.get(STAMP, [""])[0]
    return Form(fields, _checked(entrance, console.caller, written, console.clock.now_ms()))


Posted = Annotated[Form, Depends(_posted)]
"""Of a parameter: a form that this console has shown to the caller. Raises ProblemError for another."""


def _checked(entrance: Entrance, caller: Caller, written: str, now_ms: int) -> Stamp:
    try:
        raw = urlsafe_b64decode(written.encode())
    except ValueError:
        raw = b""
    head, mac = raw[: _HEAD.size], raw[_HEAD.size :]
    if not hmac.compare_digest(mac, _mac(entrance, caller, head)):
        raise _not_taken(
            "The form has no stamp of this console for you: it was made for somebody else, or before the "
            "console was started again."
        )
    shown_ms, name = _HEAD.unpack(head)
    if now_ms - shown_ms > LASTS_MS:
        raise _not_taken("The form is older than 12 hours.")
    return Stamp(shown_ms, f"form-{name.hex()}")


def _mac(entrance: Entrance, caller: Caller, head: bytes) -> bytes:
    said = (caller.who.unique, caller.credential, caller.session)
    who = [part.encode("utf-8", "surrogatepass") for part in said]
    told = b"".join(b"%d:%b" % (len(part), part) for part in (b"form", *who, head))
    return hmac.new(entrance.secret, told, hashlib.sha256).digest()


def _not_taken(why: str) -> ProblemError:
    return ProblemError(HTTPStatus.FORBIDDEN, "form-not-taken", f"{why} Nothing was changed.")
