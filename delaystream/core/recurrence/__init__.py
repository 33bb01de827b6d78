"""Recurring schedules: which times a cron expression or an interval means. Pure: time is an argument."""

from delaystream.core.recurrence.fires import Misses, jittered_ms, misses, next_after
from delaystream.core.recurrence.recurrence import DstGap, DstOverlap, Recurrence
from delaystream.core.recurrence.validation import check

__all__ = ["DstGap", "DstOverlap", "Misses", "Recurrence", "check", "jittered_ms", "misses", "next_after"]
