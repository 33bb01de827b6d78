"""What a request says of when a schedule recurs, as a change to what it had before."""

from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from delaystream.core.recurrence.recurrence import DstGap, DstOverlap, Recurrence


class Timing(msgspec.Struct, frozen=True, gc=False):
    """The fields of a recurrence: UNSET is not given and stays as it was, None is cleared.

    At most one of `every_ms` and `cron` is given. It is read alone: what a schedule has to be for it (a time
    zone needs a cron expression) is not known yet.
    """

    every_ms: int | UnsetType = UNSET
    cron: str | UnsetType = UNSET
    timezone: str | UnsetType | None = UNSET
    dst_gap: DstGap | UnsetType = UNSET
    dst_overlap: DstOverlap | UnsetType = UNSET
    start_ms: int | UnsetType = UNSET
    end_ms: int | UnsetType | None = UNSET
    max_fires: int | UnsetType | None = UNSET
    jitter_ms: int | UnsetType | None = UNSET

    @property
    def recurs(self) -> bool:
        """Whether it says by itself how a schedule recurs."""
        return self.every_ms is not UNSET or self.cron is not UNSET


NO_TIMING: Final = Timing()


def retimed(old: Recurrence | None, timing: Timing, asked_ms: int, default_zone: str = "UTC") -> Recurrence:
    """What `timing` makes of a recurrence; without one (None), what it means of its own.

    It then begins at `asked_ms`, unless it says when, and `timing.recurs` must hold. Whether the outcome can
    be accepted says `check`. A time zone means nothing to an interval, and is dropped where one begins; a
    cron expression that has none to keep, or whose zone is cleared, is in the `default_zone`.
    """
    if old is None:
        old = Recurrence(None, 0, start_ms=asked_ms)
    cron, every_ms = old.cron, old.every_ms
    if timing.cron is not UNSET:
        cron, every_ms = timing.cron, 0
    elif timing.every_ms is not UNSET:
        cron, every_ms = None, timing.every_ms
    timezone, dst_gap, dst_overlap = old.timezone, old.dst_gap, old.dst_overlap
    if cron is None:
        timezone, dst_gap, dst_overlap = "UTC", "shift", "first"
    elif timing.timezone is not UNSET:
        timezone = default_zone if timing.timezone is None else timing.timezone
    elif old.cron is None:
        timezone = default_zone
    return Recurrence(
        cron,
        every_ms,
        timezone,
        dst_gap if timing.dst_gap is UNSET else timing.dst_gap,
        dst_overlap if timing.dst_overlap is UNSET else timing.dst_overlap,
        old.start_ms if timing.start_ms is UNSET else timing.start_ms,
        old.end_ms if timing.end_ms is UNSET else timing.end_ms,
        old.max_fires if timing.max_fires is UNSET else timing.max_fires or 0,
        old.jitter_ms if timing.jitter_ms is UNSET else timing.jitter_ms or 0,
    )
