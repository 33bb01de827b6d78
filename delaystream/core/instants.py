"""Points in time as text: `delaystream-at`.

RFC 3339 with its offset (`2026-03-29T02:30:00+01:00`, `...Z`), or milliseconds since the epoch. A fraction
finer than a millisecond is rounded up, so nothing fires early. The leap second `:60` counts as the next
second. A text without an offset is a local time, which needs a zone to be an instant. Seconds may be left out
of a local time.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

EXPECTED: Final = (
    "RFC 3339 with an offset such as '2030-01-31T09:00:00Z' or '2030-01-31T09:00:00+01:00', "
    "or epoch milliseconds"
)

EARLIEST_MS: Final = 31_536_000_000
"""1971-01-01T00:00:00Z. All epoch seconds of the present and of the next 900 years are below it."""
LATEST_MS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999. Epoch microseconds and nanoseconds of the present are above it."""

_FIRST_MS: Final = -62_135_596_800_000
"""The first millisecond of the year 1."""

_RFC_3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,18}))?(?:[Zz]|([+-])(\d\d):(\d\d))",
    re.ASCII,
)
_LOCAL = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,18}))?)?",
    re.ASCII,
)
_EPOCH_MS = re.compile(r"[+-]?[0-9]{1,30}", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class InstantError(ValueError):
    """The text is not a point in time; the message says why, worded to follow the text."""


class NoOffsetError(InstantError):
    """The text is a local time."""


class NotMillisecondsError(InstantError):
    """Only a mix-up of seconds, milliseconds and microseconds gives this instant."""


def parse_instant(text: str) -> int:
    """Milliseconds since the epoch, from `EARLIEST_MS` to `LATEST_MS`; ignores spaces around `text`.

    Raises `InstantError`, and its subclasses: `NotMillisecondsError` when the value is out of those bounds,
    `NoOffsetError` for a local time.
    """
    text = text.strip()
    return _bounded(int(text) if _EPOCH_MS.fullmatch(text) else _parse_rfc_3339(text))


def parse_local(text: str) -> int:
    """Milliseconds since 1970-01-01 00:00:00 on a local clock, in the bounds of `parse_instant`.

    Raises `InstantError` as that does, and also for a text that is no local time.
    """
    match = _LOCAL.fullmatch(text.strip())
    if match is None:
        raise InstantError("is not a local time")
    return _bounded(_milliseconds(match.groups("0"), timedelta()))


def _bounded(instant_ms: int) -> int:
    if instant_ms < EARLIEST_MS:
        raise NotMillisecondsError(
            "is in 1970 or before it, which is what epoch seconds read as milliseconds look like"
        )
    if instant_ms > LATEST_MS:
        raise NotMillisecondsError(
            f"is in the year {max(10_000, 1970 + instant_ms // 31_556_952_000)}, "
            "which is what microseconds or nanoseconds read as milliseconds look like"
        )
    return instant_ms


def format_instant(instant_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds; epoch milliseconds outside of its years 1 to 9999."""
    if not _FIRST_MS <= instant_ms <= LATEST_MS:
        return str(instant_ms)
    at = _EPOCH + timedelta(milliseconds=instant_ms)
    return at.strftime("%Y").rjust(4, "0") + at.strftime("-%m-%dT%H:%M:%S.") + f"{instant_ms % 1000:03d}Z"


def _parse_rfc_3339(text: str) -> int:
    match = _RFC_3339.fullmatch(text)
    if match is None:
        if _LOCAL.fullmatch(text):
            raise NoOffsetError("has no offset from UTC")
        raise InstantError("is empty" if not text else "is not a point in time")
    *written, sign, offset_hours, offset_minutes = match.groups()
    offset = timedelta()
    if sign is not None:
        if int(offset_hours) > 23 or int(offset_minutes) > 59:
            raise InstantError("has an offset that does not exist")
        offset = timedelta(hours=int(offset_hours), minutes=int(offset_minutes))
    return _milliseconds(written, -offset if sign == "-" else offset)


def _milliseconds(written: Sequence[str | None], offset: timedelta) -> int:
    """Milliseconds since the epoch of year, month, day, … and fraction on a clock `offset` ahead."""
    *date_and_time, fraction = written
    year, month, day, hour, minute, second = (int(number or "") for number in date_and_time)
    leap = second == 60
    try:
        local = datetime(year, month, day, hour, minute, 59 if leap else second, tzinfo=UTC)
    except ValueError as error:
        raise InstantError(f"is not a date and time that exists ({error})") from None
    # Whole days and seconds: a float of seconds would lose milliseconds of far years.
    since = (local - _EPOCH) - offset + timedelta(seconds=leap)
    milliseconds = (since.days * 86_400 + since.seconds) * 1000
    if fraction:
        milliseconds += -(-int(fraction) * 1000 // 10 ** len(fraction))
    return milliseconds
