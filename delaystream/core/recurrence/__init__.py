"""Recurring schedules: the times of a cron expression or an interval. Pure: time is an argument."""

from delaystream.core.recurrence.fields import CronError
from delaystream.core.recurrence.fires import Misses, carried_on, due_ms, jittered_ms, misses, next_after
from delaystream.core.recurrence.recurrence import DstGap, DstOverlap, Recurrence
from delaystream.core.recurrence.scheduled import LocalClock, calendar_ends
from delaystream.core.recurrence.timing import NO_TIMING, Timing, retimed
from delaystream.core.recurrence.validation import check, zone_problem, zone_refusal
from delaystream.core.recurrence.zones import UnknownZoneError

__all__ = [
    "NO_TIMING",
    "CronError",
    "DstGap",
    "DstOverlap",
    "LocalClock",
    "Misses",
    "Recurrence",
    "Timing",
    "UnknownZoneError",
    "calendar_ends",
    "carried_on",
    "check",
    "due_ms",
    "jittered_ms",
    "misses",
    "next_after",
    "retimed",
    "zone_problem",
    "zone_refusal",
]
