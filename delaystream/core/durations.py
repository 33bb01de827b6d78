"""Lengths of time as text: `delaystream-delay` and `delaystream-grace`.

Two notations, and `0`:

    compact    `15m`, `1h30m`, `500ms`, `1.5h`     units d, h, m, s, ms, in this order, each at most once
    ISO 8601   `PT15M`, `P1DT2H`, `PT0.5S`         days and below: a month or a year has no fixed length

A unit is required (is `30` seconds or milliseconds?). The last number may have a fraction, as
`java.time.Duration` and Go's `time.Duration` print it. The sum must be a whole number of milliseconds.
"""

import re
from typing import Final

LONGEST_MS: Final = 36_500 * 24 * 60 * 60 * 1000
"""A century. No longer duration is stored, so that each fits into its field."""
EXPECTED_LONG: Final = "a duration with units such as '15m', '1h30m', '500ms' or 'PT15M'"
"""The same, if a duration of 0 is not allowed."""
EXPECTED: Final = f"{EXPECTED_LONG}, or '0'"

# Milliseconds of each unit, in the order of the groups of both expressions below.
_UNITS_MS: Final = (86_400_000, 3_600_000, 60_000, 1000, 1)
_NUMBER = r"([0-9]{1,18}(?:\.[0-9]{1,9})?)"
_COMPACT = re.compile(
    rf"(?:{_NUMBER}d)?(?:{_NUMBER}h)?(?:{_NUMBER}m(?!s))?(?:{_NUMBER}s)?(?:{_NUMBER}ms)?", re.ASCII
)
_ISO = re.compile(
    rf"P(?:{_NUMBER}D)?(?:T(?=[0-9])(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?()",
    re.ASCII | re.IGNORECASE,
)
_BARE_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?", re.ASCII)
_CALENDAR = re.compile(r"P[0-9.]+[YMW].*", re.ASCII | re.IGNORECASE)


class DurationError(ValueError):
    """The text is not a duration; the message says why, worded to follow the text."""


_SIMPLE_UNITS_MS: Final = {b"d": 86_400_000, b"h": 3_600_000, b"m": 60_000, b"s": 1000}
_SIMPLE_DIGITS: Final = 15


def simple_duration(content: bytes) -> int | None:
    """Milliseconds of one number and one unit, the notation that programs write; None for any other.

    It costs a tenth of `parse_duration`. Delays are seldom the same twice, so a cache would not help.
    """
    if content[-2:] == b"ms":
        number, unit_ms = content[:-2], 1
    else:
        number, unit_ms = content[:-1], _SIMPLE_UNITS_MS.get(content[-1:], 0)
    if unit_ms and number.isdigit() and len(number) <= _SIMPLE_DIGITS:
        return int(number) * unit_ms
    return None


def parse_duration(text: str) -> int:
    """Milliseconds, never negative; spaces around `text` are ignored. Raises `DurationError`."""
    text = text.strip()
    match = _COMPACT.fullmatch(text) or _ISO.fullmatch(text)
    if match is None or not any(match.groups()):
        if text == "0":
            return 0
        raise DurationError(_complaint(text))
    written = [(number, unit_ms) for number, unit_ms in zip(match.groups(), _UNITS_MS, strict=True) if number]
    if any("." in number for number, _ in written[:-1]):
        raise DurationError("has a fraction before its last number")
    return sum(_milliseconds(number, unit_ms) for number, unit_ms in written)


def format_duration(duration_ms: int) -> str:
    """The compact notation of a duration that is not negative: `1h30m`; `0` for zero."""
    if duration_ms == 0:
        return "0"
    parts = []
    for unit_ms, unit in zip(_UNITS_MS, ("d", "h", "m", "s", "ms"), strict=True):
        count, duration_ms = divmod(duration_ms, unit_ms)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def _milliseconds(number: str, unit_ms: int) -> int:
    whole, _, fraction = number.partition(".")
    scale = int("1" + "0" * len(fraction))
    milliseconds, rest = divmod(int(whole + fraction) * unit_ms, scale)
    if rest:
        raise DurationError("is not a whole number of milliseconds")
    return milliseconds


def _complaint(text: str) -> str:
    if not text:
        return "is empty"
    if text[0] == "-" or text.upper().startswith(("PT-", "P-")):
        return "is negative"
    if _BARE_NUMBER.fullmatch(text):
        return "has no unit"
    if _CALENDAR.fullmatch(text):
        return "counts in years, months or weeks"
    return "is not a duration"
