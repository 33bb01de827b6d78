"""A due fire of a named schedule: the entry, and the schedule that it points to.

Schedules are read together, ahead of their use: RocksDB's MultiGet costs two thirds of single gets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec

from delaystream.codec.envelope import Entry, Envelope, Pointer, Schedule, Trigger
from delaystream.codec.keys import schedule_key
from delaystream.engine.state.partition_state import PartitionState
from delaystream.engine.state.step import Step


class DueFire(msgspec.Struct, frozen=True):
    """A due entry of a named schedule, with that schedule."""

    #: of the wheel entry
    key: bytes
    #: of the wheel entry: of a recurring schedule with its jitter
    due_ms: int
    #: of the wheel entry: the position in a list of due times, from 0
    index: int
    entry: Pointer | Trigger
    #: the entry as it is stored
    pointer: bytes
    id: str
    #: the key of the schedule's record
    schedule_key: bytes
    #: as it was before this fire
    schedule: Schedule
    payload: Envelope
    #: the request that made the schedule: `topic/partition/offset`
    source: str
    #: of what was read for it
    size_bytes: int


#: A schedule's key and its record.
Stored: TypeAlias = tuple[bytes, bytes]

#: Most entries whose schedules are read at once.
_AT_ONCE: Final = 32
#: in place of a number of keys: not read ahead
_ALONE: Final = -1


class ReadAhead:
    """The records of the schedules of one chunk of entries, a few entries ahead of their use.

    Records that a full step does not use are read again in the next one.
    """

    def __init__(self, state: PartitionState) -> None:
        self._state = state
        self._entries: Sequence[Entry] = ()
        self._start = 0
        self._stop = 0
        #: for each entry that was read ahead, where its schedule's key is
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
        """The schedule of the chunk's entry of that number, with the step's changes; numbers only go up."""
        if number >= self._stop:
            self._read(number)
        place = self._places[number - self._start]
        if place == _ALONE:
            entry = self._entries[number]
            assert type(entry) is Trigger
            return self.alone(step, entry)
        changes, at = step.changes, self._keys[place]
        schedule = changes[at] if at in changes else self._found[place]
        assert schedule is not None, "a pending entry has its schedule"
        return at, schedule

    def alone(self, step: Step, entry: Pointer | Trigger) -> Stored:
        """The schedule of an entry, with the step's changes; read by itself."""
        at = schedule_key(entry.tenant, entry.id)
        schedule = self._state.get(step, at)
        assert schedule is not None, "a pending entry has its schedule"
        return at, schedule

    def _read(self, start: int) -> None:
        self._start, self._stop = start, start + _AT_ONCE
        keys = self._keys = []
        places = self._places = []
        last: Pointer | None = None
        for entry in self._entries[start : self._stop]:
            if type(entry) is not Pointer:
                places.append(_ALONE)
                continue
            # The fires of one schedule that are due at one time follow each other: they are read once.
            if last is None or entry.id != last.id or entry.tenant != last.tenant:
                keys.append(schedule_key(entry.tenant, entry.id))
                last = entry
            places.append(len(keys) - 1)
        self._found = self._state.store.get_many(keys)
