"""A fire of a named schedule on its way out of its wheel."""

from __future__ import annotations

import msgspec

from delaystream.codec.envelope import Envelope, Pointer, Schedule, Trigger


class DueFire(msgspec.Struct, frozen=True):
    """A due entry that points to a named schedule, and what it points to."""

    #: of the wheel entry
    key: bytes
    #: of the wheel entry: of a recurring schedule with its jitter
    due_ms: int
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
