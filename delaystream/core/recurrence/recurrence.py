"""The recurrence of a schedule: a value that is parsed once, checked, and stored with the schedule."""

from typing import Literal

import msgspec

DstGap = Literal["shift", "skip"]
"""The meaning of a local time that does not exist: the first instant after the gap, or none."""
DstOverlap = Literal["first", "second", "both"]
"""The meaning of a local time that occurs twice: its first instant, its second one, or both."""


class Recurrence(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A cron expression or an interval, with its bounds. Stored by position: fields are only ever appended.

    Its times are the *scheduled* times. Only these fields decide them. The actual time of an earlier fire and
    the jitter have no influence.
    """

    cron: str | None
    """The expression as written; None for an interval."""
    every_ms: int
    """The interval; 0 with `cron`."""
    timezone: str = "UTC"
    """IANA name; cron fields are local times of it. It has no meaning for an interval."""
    dst_gap: DstGap = "shift"
    dst_overlap: DstOverlap = "first"
    start_ms: int = 0
    """No scheduled time is earlier. An interval fires at this time, and every `every_ms` after it."""
    end_ms: int | None = None
    """No scheduled time is later; None: for ever."""
    max_fires: int = 0
    """The schedule is over after this number of fires, which the caller counts; 0: no bound."""
    jitter_ms: int = 0
    """Longest delay of a fire beyond its scheduled time, see `due_ms`."""
