"""What becomes of the scheduled times of a recurring schedule that have passed: fired, skipped or missed.

Whenever a recurring schedule is looked at, its scheduled times from the earliest undecided one up to now are
decided at once::

    now      09:05, every minute, last fired at 09:00, grace 15 min
    latest   09:05 fires; 09:01 to 09:04 are *skipped*: the one fire stands for them
    all      09:01, 09:02, … 09:05 fire one after the other
    none     as latest, with a grace of `misfire_threshold_ms` at most

A time that is later than its grace is *missed* and never fires; and so are, with `all`, those before the last
`max_catch_up`. Lateness counts from the end of the jitter.
A time whose jitter has not passed yet is not decided, nor is any after it. So every scheduled time either
fires, not before it is due, or lies in exactly one run of skipped or missed ones; and their order is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from delaystream.core.recurrence import Recurrence, misses, next_after
from delaystream.core.request import CatchUp

DEFAULT_GRACE_MS: Final = 15 * 60 * 1000
"""Of a recurring schedule without `delaystream-grace`."""


class Run(msgspec.Struct, frozen=True, gc=False):
    """Consecutive scheduled times, both ends included."""

    from_ms: int
    to_ms: int
    number: int


class Verdict(msgspec.Struct, frozen=True):
    """What to do about the scheduled times up to now; the next one may be due already, with catch-up all."""

    fire_ms: int | None
    """The scheduled time to deliver now."""
    next_ms: int | None
    """The earliest scheduled time that is not decided yet; None: there is none."""
    skipped: Run | None = None
    """They came before `fire_ms`, which stands for them."""
    missed: Run | None = None
    """They came before everything else."""


def settle(
    recurrence: Recurrence,
    scheduled_ms: int,
    now_ms: int,
    catch_up: CatchUp,
    grace_ms: int,
    due: Callable[[int], int],
    most: int | None = None,
) -> Verdict:
    """Decide on `scheduled_ms`, which is due, and on what has come due since.

    `due` puts the jitter on a scheduled time: from 0 to `recurrence.jitter_ms`. With catch-up all, `most`
    scheduled times up to now are left to fire, at least 1; those before them are missed. The work is that of
    `misses`, which counts and does not visit: a month of seconds is one verdict.
    """
    next_ms = next_after(recurrence, scheduled_ms)
    # Scheduled before this, and it is missed.
    horizon_ms = now_ms - grace_ms - recurrence.jitter_ms
    if next_ms is None or due(next_ms) > now_ms:
        if scheduled_ms < horizon_ms:
            return Verdict(None, next_ms, missed=Run(scheduled_ms, scheduled_ms, 1))
        return Verdict(scheduled_ms, next_ms)
    if catch_up is CatchUp.ALL:
        if most is not None:
            horizon_ms = max(horizon_ms, _first_of_last(recurrence, scheduled_ms, now_ms, most))
        if scheduled_ms >= horizon_ms:
            return Verdict(scheduled_ms, next_ms)
        missed = run_until(recurrence, scheduled_ms, horizon_ms - 1)
        return Verdict(None, next_after(recurrence, missed.to_ms), missed=missed)
    next_ms = _ahead(recurrence, next_ms, now_ms, due)
    # All of these are due: the first one that is not comes after them.
    passed = run_until(recurrence, scheduled_ms, now_ms if next_ms is None else next_ms - 1)
    if passed.to_ms < horizon_ms:
        return Verdict(None, next_ms, missed=passed)
    return Verdict(passed.to_ms, next_ms, skipped=run_until(recurrence, scheduled_ms, passed.to_ms - 1))


def _ahead(recurrence: Recurrence, passed_ms: int, now_ms: int, due: Callable[[int], int]) -> int | None:
    """The earliest scheduled time after `passed_ms` that is not due yet; None: there is none.

    Only those of the last `jitter_ms` have to be asked: jitter is shorter than the distance of two times, but
    where clocks change it may hold back several.
    """
    ahead_ms = next_after(recurrence, max(passed_ms, now_ms - recurrence.jitter_ms))
    while ahead_ms is not None and due(ahead_ms) <= now_ms:
        ahead_ms = next_after(recurrence, ahead_ms)
    return ahead_ms


def _first_of_last(recurrence: Recurrence, first_ms: int, until_ms: int, most: int) -> int:
    """Of the scheduled times from `first_ms`, which is one, to `until_ms`: the first of the last `most`."""
    number = run_until(recurrence, first_ms, until_ms).number
    if number <= most:
        return first_ms
    if recurrence.cron is None:
        return first_ms + (number - most) * recurrence.every_ms
    # Times are whole seconds: the last second after which there are as many as that.
    before_s, behind_s = first_ms // 1000, until_ms // 1000
    while behind_s - before_s > 1:
        middle_s = (before_s + behind_s) // 2
        if misses(recurrence, middle_s * 1000, until_ms).number >= most:
            before_s = middle_s
        else:
            behind_s = middle_s
    earliest_ms = next_after(recurrence, before_s * 1000)
    assert earliest_ms is not None
    return earliest_ms


def run_until(recurrence: Recurrence, first_ms: int, until_ms: int) -> Run:
    """The scheduled times from `first_ms`, which is one, to `until_ms`."""
    rest = misses(recurrence, first_ms, until_ms)
    return Run(first_ms, first_ms if rest.last_ms is None else rest.last_ms, 1 + rest.number)
