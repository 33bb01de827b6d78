"""What due entries point to, read together: RocksDB's MultiGet costs two thirds of single gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from delaystream.codec.envelope import Entry, Pointer, Trigger
from delaystream.codec.keys import payload_key, schedule_key
from delaystream.engine.state import PartitionState
from delaystream.engine.step import Step

#: A schedule's key, its record and its payload.
Stored: TypeAlias = tuple[bytes, bytes, bytes]

#: Most entries whose schedules and payloads are read at once, and about how many bytes of payloads.
_AT_ONCE: Final = 32
_AT_ONCE_BYTES: Final = 2 * 1024 * 1024
#: in place of a number of keys: not read ahead
_ALONE: Final = -1


class ReadAhead:
    """Schedules and payloads of one chunk of entries at a time, a few entries ahead of their use.

    How few is bounded by how large the payloads before them were: what is read and not used, because the
    step is full, is read again in the next one.
    """

    def __init__(self, state: PartitionState) -> None:
        self._state = state
        self._at_once = _AT_ONCE
        self._entries: Sequence[Entry] = ()
        self._start = 0
        self._stop = 0
        #: for each entry that was read ahead, where its schedule's key is; that of the payload is behind it
        self._places: list[int] = []
        self._keys: list[bytes] = []
        self._found: list[bytes | None] = []

    def of(self, entries: Sequence[Entry]) -> ReadAhead:
        """Go on to another chunk; what was read before is forgotten."""
        self._entries = entries
        self._start = self._stop = 0
        self._keys, self._found = [], []
        return self

    def at(self, step: Step, number: int) -> Stored:
        """What the chunk's entry of that number points to, as the step has left it; never backwards."""
        if number >= self._stop:
            self._read(number)
        place = self._places[number - self._start]
        if place == _ALONE:
            entry = self._entries[number]
            assert type(entry) is Trigger
            return self.alone(step, entry)
        changes, keys = step.changes, self._keys
        at, under = keys[place], keys[place + 1]
        schedule = changes[at] if at in changes else self._found[place]
        payload = changes[under] if under in changes else self._found[place + 1]
        assert schedule is not None, "a pending entry has its schedule"
        assert payload is not None, "a pending entry has its payload"
        return at, schedule, payload

    def alone(self, step: Step, entry: Pointer | Trigger) -> Stored:
        """What an entry points to, as the step has left it; read by itself."""
        at = schedule_key(entry.tenant, entry.id)
        schedule = self._state.get(step, at)
        payload = self._state.get(step, payload_key(entry.tenant, entry.id))
        assert schedule is not None, "a pending entry has its schedule"
        assert payload is not None, "a pending entry has its payload"
        return at, schedule, payload

    def _read(self, start: int) -> None:
        self._start, self._stop = start, start + self._at_once
        keys = self._keys = []
        places = self._places = []
        last: Pointer | None = None
        for entry in self._entries[start : self._stop]:
            if type(entry) is not Pointer:
                places.append(_ALONE)
                continue
            # The fires of one schedule that are due at one time follow each other: they are read once.
            if last is None or entry.id != last.id or entry.tenant != last.tenant:
                keys += (schedule_key(entry.tenant, entry.id), payload_key(entry.tenant, entry.id))
                last = entry
            places.append(len(keys) - 2)
        self._found = self._state.store.get_many(keys)
        largest = max([len(value) for value in self._found if value is not None], default=0)
        self._at_once = max(1, min(_AT_ONCE, _AT_ONCE_BYTES // max(1, largest)))
