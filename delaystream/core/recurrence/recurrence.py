"""What makes a schedule recur: the value that is parsed once, checked, and stored with the schedule."""

from typing import Literal

import msgspec

DstGap = Literal["shift", "skip"]
"""What becomes of a local time that does not exist: the first instant after the gap, or nothing."""
DstOverlap = Literal["first", "second", "both"]
"""Which of the two instants a local time means that happens twice."""


class Recurrence(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A cron expression or an interval, with its bounds. Stored by position: fields are only ever appended.

    The times that it means are its *scheduled* times: nothing but these fields decides them, neither when an
    earlier fire really happened nor the jitter.
    """

    cron: str | None
    """As it was written; None for an interval."""
    every_ms: int
    """The interval; 0 with `cron`."""
    timezone: str = "UTC"
    """IANA name; cron fields are local times of it. Means nothing to an interval."""
    dst_gap: DstGap = "shift"
    dst_overlap: DstOverlap = "first"
    start_ms: int = 0
    """No scheduled time is earlier. An interval is anchored here: at it, and every `every_ms` after it."""
    end_ms: int | None = None
    """No scheduled time is later; None: for ever."""
    max_fires: int = 0
    """Fires after which the schedule is over, counted by the caller; 0: no bound."""
    jitter_ms: int = 0
    """Longest delay of a fire beyond its scheduled time, see `due_ms`."""
