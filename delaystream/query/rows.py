"""A partition's rows in key order, for all readers: from a local store or a copy of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from delaystream.codec.envelope import Envelope, Schedule, decode_envelope
from delaystream.codec.keys import payload_key


class Rows(Protocol):
    """An ordered byte-to-byte map that can be read."""

    def get(self, key: bytes) -> bytes | None:
        """The value stored under a key."""
        ...

    def scan(self, start: bytes, stop: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Up to ``limit`` entries with ``start <= key < stop``, in key order."""
        ...


def everything(rows: Rows, start: bytes, stop: bytes, chunk: int = 1000) -> Iterator[tuple[bytes, bytes]]:
    """Every entry with ``start <= key < stop``, in key order, a chunk at a time."""
    while entries := rows.scan(start, stop, chunk):
        yield from entries
        start = entries[-1][0] + b"\0"


def payload_of(get: Callable[[bytes], bytes | None], id: str, schedule: Schedule) -> Envelope | None:
    """A schedule's payload, from its own row or from its payload row; None once it is over."""
    stored = schedule.payload or get(payload_key(schedule.topic, id))
    return None if stored is None else decode_envelope(stored)
