"""What due entries point to, read together: RocksDB's MultiGet costs two thirds of single gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from delaystream.codec.envelope import Entry, Pointer
from delaystream.codec.keys import payload_key, schedule_key
from delaystream.engine.ports import StateStore

#: What is stored under keys.
Ahead: TypeAlias = Mapping[bytes, bytes | None]

NOTHING_AHEAD: Final[Ahead] = {}

#: Most entries whose schedules and payloads are read at once, and about how many bytes of payloads.
_AT_ONCE: Final = 32
_AT_ONCE_BYTES: Final = 2 * 1024 * 1024


class ReadAhead:
    """Schedules and payloads of one chunk of entries at a time, a few entries ahead of their use.

    How few is bounded by how large the payloads before them were: what is read and not used, because the
    step is full, is read again in the next one.
    """

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._at_once = _AT_ONCE
        self._entries: Sequence[Entry] = ()
        self._stop = 0
        self._found: Ahead = NOTHING_AHEAD

    def of(self, entries: Sequence[Entry]) -> ReadAhead:
        """Go on to another chunk; what was read before is forgotten."""
        self._entries = entries
        self._stop = 0
        self._found = NOTHING_AHEAD
        return self

    def at(self, place: int) -> Ahead:
        """What the chunk's entry of that number points to, as it is stored; places must not go back."""
        if place >= self._stop:
            self._read(place)
        return self._found

    def _read(self, start: int) -> None:
        self._stop = start + self._at_once
        keys: dict[bytes, None] = {}
        for entry in self._entries[start : self._stop]:
            if type(entry) is Pointer:
                keys[schedule_key(entry.tenant, entry.id)] = None
                keys[payload_key(entry.tenant, entry.id)] = None
        found = self._store.get_many([*keys])
        largest = max([len(value) for value in found if value is not None], default=0)
        self._at_once = max(1, min(_AT_ONCE, _AT_ONCE_BYTES // max(1, largest)))
        self._found = dict(zip(keys, found, strict=True))
