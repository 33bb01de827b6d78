"""The interface of a dialect: the function that translates a record, and its types.

A translation changes the headers, and the key if the other system has the delivered key in a header. It never
changes the value. It has no state and no clock: the same record always gives the same translation. So a
record travels unchanged to the partition that owns its id, or to the dead letters, and is translated where it
is parsed.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, Final, TypeAlias

import msgspec

from delaystream.core.record import Record
from delaystream.core.rejection import Code, Rejection, shown
from delaystream.core.request import Coordinates, Header

PREFIX: Final = "delaystream-"
"""The prefix of our own control headers, as in `delaystream.codec.requests.names`."""

UNLIMITED: Final = "36500d"
"""A grace without an end, for systems that fire missed times however late."""


Fill: TypeAlias = Callable[[int, int | None], bytes]
"""The value of a header at a fire, from its scheduled time and the next one; None after the last."""

TO_FILL: Final = b"\0delaystream fills this in\0"
"""Placeholder for a header value that is known only at the fire; no producer would send it."""


class Translated(msgspec.Struct, frozen=True, gc=False):
    """A record in our own header names."""

    key: bytes | None
    """The key to deliver with."""
    headers: list[Header]
    """Our control headers, and the headers that the other system would deliver, with its own outgoing ones.
    """


class Row(msgspec.Struct, frozen=True):
    """One row of the table that the documentation shows."""

    theirs: str
    ours: str
    """The control header, without prefix, or a description in words."""
    notes: str = ""


class Dialect(ABC):
    """One other system's header language."""

    name: ClassVar[str]
    """Its name in the setting."""
    system: ClassVar[str]
    """Its name for people."""
    table: ClassVar[tuple[Row, ...]]
    """Every header that it reads, in the order of its documentation."""
    outgoing: ClassVar[tuple[Row, ...]]
    """The headers that it adds to deliveries."""
    fills: ClassVar[Mapping[str, Fill]] = {}
    """Headers of recurring schedules whose values are known only at a fire. A translation adds placeholders.
    """

    def translate(self, record: Record) -> Translated | Rejection | None:
        """The record in our header names. None: it has no header of this dialect, and is read as ours.

        The record has a timestamp. A translation looks at all of it but the value's bytes. A rejection names
        the other system's header. No input makes it raise.
        """
        try:
            return self._translated(record)
        except DialectError as refused:
            return Rejection(refused.code, refused.detail)

    @abstractmethod
    def _translated(self, record: Record) -> Translated | None:
        """As `translate`; raises `DialectError`."""


class DialectError(Exception):
    """One record is refused. The error stays inside the dialects."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def missing(name: str, what: str) -> DialectError:
    """A header, or the key, that the other system requires is not there."""
    return DialectError(Code.DIALECT_MISSING, f"{name} is missing; expected {what}.")


def invalid(name: str, value: str | bytes, expected: str) -> DialectError:
    """A header's value is not what the other system accepts."""
    return DialectError(Code.DIALECT_INVALID, f"{name} is {shown(value)}; expected {expected}.")


def unsupported(what: str, instead: str) -> DialectError:
    """The other system supports it, but delaystream does not."""
    return DialectError(Code.DIALECT_UNSUPPORTED, f"{what}, which delaystream does not carry out; {instead}.")


class Spoken:
    """The other system's headers of one record, by name, and all the others in order."""

    def __init__(self, headers: Iterable[Header], names: frozenset[str]) -> None:
        self.rest: list[Header] = []
        self._found: dict[str, bytes] = {}
        for name, content in headers:
            if name not in names:
                self.rest.append((name, content))
                continue
            if content is None:
                raise DialectError(Code.NULL_HEADER, f"{name} is null; expected UTF-8 text.")
            if name in self._found:
                raise DialectError(Code.DUPLICATE_HEADER, f"{name} is given twice; expected it once.")
            self._found[name] = content

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def __bool__(self) -> bool:
        return bool(self._found)

    def content(self, name: str) -> bytes | None:
        """A header's bytes, None when it is not given."""
        return self._found.get(name)

    def text(self, name: str) -> str | None:
        """A header's text, None when it is not given."""
        content = self._found.get(name)
        return None if content is None else utf8(name, content)

    def required(self, name: str, what: str) -> str:
        """The text of a header that must be there, and not be empty."""
        content = self.text(name)
        if not content:
            raise missing(name, what)
        return content


def utf8(name: str, content: bytes) -> str:
    """`content` as text."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise DialectError(
            Code.NOT_UTF8, f"{name} is {shown(content)}: not UTF-8; expected UTF-8 text."
        ) from None


def control(name: str, value: str) -> Header:
    """One of our own headers."""
    return PREFIX + name, value.encode()


def coordinates_id(source: Coordinates) -> str:
    """The id of a schedule whose own system gives it none: the coordinates of its request."""
    return source.text


def whole_number(name: str, text: str, least: int, expected: str) -> int:
    """An integer in ASCII digits, `least` or more."""
    digits = text[1:] if text[:1] in {"-", "+"} else text
    if digits.isascii() and digits.isdigit() and len(digits) <= 18 and (number := int(text)) >= least:
        return number
    raise invalid(name, text, expected)


def seconds_as_instant(name: str, text: str) -> str:
    """Seconds since the epoch, as the milliseconds of our `at`."""
    seconds = whole_number(name, text, 0, "whole seconds since 1970")
    if seconds >= _MILLISECONDS_FROM:
        raise invalid(name, text, "whole seconds since 1970, not milliseconds")
    return str(seconds * 1000)


_MILLISECONDS_FROM: Final = 10**11
"""Epoch seconds reach it in the year 5138; epoch milliseconds did in 1973."""


def names_ours(headers: Iterable[Header]) -> bool:
    """Whether any header has our prefix."""
    return any(name[: len(PREFIX)].lower() == PREFIX for name, _ in headers)
