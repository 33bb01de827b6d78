"""The records that the benchmarks send; when each is due travels in its value."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from struct import Struct
from typing import Final

VALUE_BYTES: Final = 150
#: due time in ms, sequence number; the rest of the value is padding
STAMP: Final = Struct(">qq")
PADDING: Final = bytes(33 + i % 94 for i in range(VALUE_BYTES - STAMP.size))

Header = tuple[str, str | bytes | None]


def value(due_ms: int, sequence: int) -> bytes:
    """150 bytes that say when the record is due and which one it is."""
    return STAMP.pack(due_ms, sequence) + PADDING


def key(sequence: int) -> bytes:
    """A key as an order service would have it: distinct, so that records spread over the partitions."""
    return b"order-%08d" % sequence


def headers(destination: str, when: Header) -> list[Header]:
    """The control headers of one request and a foreign one that must pass through."""
    return [("delaystream-destination", destination.encode()), when, ("content-type", b"application/json")]


@lru_cache(maxsize=1 << 18)
def cron(minute_ms: int, number: int) -> bytes:
    """One of 250,000 different expressions: all fire in that minute, and none in the ten on either side."""
    at = datetime.fromtimestamp(minute_ms / 1000, UTC)
    number, minute = divmod(number, 38)
    number, hour = divmod(number, 23)
    number, day = divmod(number, 27)
    return b"%d,%d %d,%d %d,%d %d,%d *" % (
        at.minute,
        (at.minute + 11 + minute) % 60,
        at.hour,
        (at.hour + 1 + hour) % 24,
        at.day,
        (at.day + 1 + day) % 28 + 1 if at.day <= 28 else day + 1,
        at.month,
        (at.month + number % 11) % 12 + 1,
    )
