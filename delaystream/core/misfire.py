"""Decides about scheduled times of a recurring schedule that have passed: fired, skipped or missed.

Each check of a recurring schedule decides at once about all scheduled times from the earliest undecided one
up to now::

    now      09:05, every minute, last fired at 09:00, grace 15 min
    latest   09:05 fires; 09:01 to 09:04 are *skipped*: the one fire stands for them
    all      09:01, 09:02, … 09:05 fire one after the other
    none     as latest, with a grace of `misfire_threshold_ms` at most

A time that is later than its grace is *missed* and never fires. With `all`, the times before the last
`max_catch_up` are missed, too. Lateness counts from the end of the jitter. A time whose jitter has not passed
stays undecided, and so do all later ones. So every scheduled time either fires, never early, or belongs to
exactly one run of skipped or missed times. The order of the times is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from delaystream.core.recurrence import Recurrence, misses, next_after
from delaystream.core.request import CatchUp

DEFAULT_GRACE_MS: Final = 15 * 60 * 1000
"""The grace of a recurring schedule without `delaystream-grace`."""


class MisfirePolicy(NamedTuple):
    """The rule for scheduled times that have passed."""

    catch_up: CatchUp
    grace_ms: int
    """How late a time may be and still fire, at least 0."""


class Run(msgspec.Struct, frozen=True, gc=False):
    """Consecutive scheduled times, both ends included."""

    from_ms: int
    to_ms: int
    number: int


class Verdict(msgspec.Struct, frozen=True):
    """The decision about scheduled times up to now. With catch-up all, the next one may already be due."""

    fire_ms: int | None
    """The scheduled time to deliver now."""
    next_ms: int | None
    """The earliest undecided scheduled time; None: there is none."""
    skipped: Run | None = None
    """The times before `fire_ms` that its fire covers."""
    missed: Run | None = None
    """The missed times; they are earlier than all others."""


def decide_passed(
    recurrence: Recurrence,
    scheduled_ms: int,
    now_ms: int,
    policy: MisfirePolicy,
    due: Callable[[int], int],
    most: int | None = None,
) -> Verdict:
    """Decide about `scheduled_ms`, which is due, and about all times that have come due since.

    `due` adds the jitter to a scheduled time: from 0 to `recurrence.jitter_ms`. With catch-up all, the last
    `most` scheduled times up to now may fire, at least 1; earlier ones are missed. The work is that of
    `misses`, which counts times without visiting them: a month of seconds is one verdict.
    """
    catch_up, grace_ms = policy
    next_ms = next_after(recurrence, scheduled_ms)
    # A time scheduled before this is missed.
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
    # All of these are due. The first time that is not due comes after them.
    passed = run_until(recurrence, scheduled_ms, now_ms if next_ms is None else next_ms - 1)
    if passed.to_ms < horizon_ms:
        return Verdict(None, next_ms, missed=passed)
    return Verdict(passed.to_ms, next_ms, skipped=run_until(recurrence, scheduled_ms, passed.to_ms - 1))


def _ahead(recurrence: Recurrence, passed_ms: int, now_ms: int, due: Callable[[int], int]) -> int | None:
    """The earliest scheduled time after `passed_ms` that is not yet due; None: there is none.

    Only the times of the last `jitter_ms` have to be checked. Jitter is shorter than the distance of two
    times, but at a clock change it may hold back several.
    """
    ahead_ms = next_after(recurrence, max(passed_ms, now_ms - recurrence.jitter_ms))
    while ahead_ms is not None and due(ahead_ms) <= now_ms:
        ahead_ms = next_after(recurrence, ahead_ms)
    return ahead_ms


def _first_of_last(recurrence: Recurrence, first_ms: int, until_ms: int, most: int) -> int:
    """The first of the last `most` scheduled times from `first_ms`, which is one, to `until_ms`."""
    number = run_until(recurrence, first_ms, until_ms).number
    if number <= most:
        return first_ms
    if recurrence.cron is None:
        return first_ms + (number - most) * recurrence.every_ms
    # Times are whole seconds. Find the last second that has `most` times after it.
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
