"""A partition's rows in key order, for all readers: from a local store or a copy of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final, Protocol

from delaystream.codec.envelope import Envelope, Schedule, decode_envelope
from delaystream.codec.keys import payload_key


class Rows(Protocol):
    """An ordered byte-to-byte map that can be read."""

    def get(self, key: bytes) -> bytes | None:
        """The value stored under a key."""
        ...

    def scan(
        self, start: bytes, stop: bytes, limit: int, most_bytes: int | None = None
    ) -> list[tuple[bytes, bytes]]:
        """Up to ``limit`` entries with ``start <= key < stop``, in key order.

        With ``most_bytes``, no more are read once their values come to that: `is_cut` says so. It is passed
        by `PIECE` entries at most.
        """
        ...


PIECE: Final = 32
"""Entries that are read before their bytes are looked at."""

CHUNK_BYTES: Final = 2 * 1024 * 1024
"""Bytes that are read at once, where an entry may hold a payload of any size."""


def size_of(entries: Sequence[tuple[bytes, bytes]]) -> int:
    """Bytes of the values."""
    return sum([len(value) for _, value in entries])


def is_cut(entries: Sequence[tuple[bytes, bytes]], most_bytes: int | None) -> bool:
    """Whether a scan ended because of its bytes: there may be more."""
    return most_bytes is not None and size_of(entries) >= most_bytes


def taken(
    items: Iterator[tuple[bytes, bytes]], limit: int, most_bytes: int | None
) -> list[tuple[bytes, bytes]]:
    """What `Rows.scan` tells of the entries that an iterator has."""
    if most_bytes is None:
        return list(islice(items, limit))
    entries: list[tuple[bytes, bytes]] = []
    size = 0
    while size < most_bytes and (piece := list(islice(items, min(PIECE, limit - len(entries))))):
        entries += piece
        size += size_of(piece)
    return entries


def everything(rows: Rows, start: bytes, stop: bytes, chunk: int = 1000) -> Iterator[tuple[bytes, bytes]]:
    """Every entry with ``start <= key < stop``, in key order, a chunk at a time."""
    while entries := rows.scan(start, stop, chunk, CHUNK_BYTES):
        yield from entries
        start = entries[-1][0] + b"\0"


def payload_of(get: Callable[[bytes], bytes | None], id: str, schedule: Schedule) -> Envelope | None:
    """A schedule's payload, from its own row or from its payload row; None once it is over."""
    stored = schedule.payload or get(payload_key(schedule.topic, id))
    return None if stored is None else decode_envelope(stored)
