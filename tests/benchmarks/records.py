"""The records that the benchmarks send; when each is due travels in its value."""

from __future__ import annotations

from struct import Struct
from typing import Final

VALUE_BYTES: Final = 150
#: due time in ms, sequence number; the rest of the value is padding
STAMP: Final = Struct(">qq")
PADDING: Final = bytes(33 + i % 94 for i in range(VALUE_BYTES - STAMP.size))

Header = tuple[str, bytes]


def value(due_ms: int, sequence: int) -> bytes:
    """150 bytes that say when the record is due and which one it is."""
    return STAMP.pack(due_ms, sequence) + PADDING


def key(sequence: int) -> bytes:
    """A key as an order service would have it: distinct, so that records spread over the partitions."""
    return b"order-%08d" % sequence


def headers(destination: str, when: Header) -> list[Header]:
    """The control headers of one request and a foreign one that must pass through."""
    return [("delaystream-destination", destination.encode()), when, ("content-type", b"application/json")]
