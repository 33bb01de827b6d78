"""The scheduled times of a recurrence: the next one, the number missed, and the jitter."""

from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from msgspec.structs import replace

from delaystream.core.recurrence.expression import parse_cron
from delaystream.core.recurrence.recurrence import DstGap, DstOverlap, Recurrence
from delaystream.core.recurrence.scheduled import scheduled


class Misses(NamedTuple):
    """Scheduled times within a span; `first_ms` and `last_ms` are None when `number` is 0."""

    number: int
    first_ms: int | None
    last_ms: int | None


def next_after(recurrence: Recurrence, after_ms: int) -> int | None:
    """The first scheduled time strictly after `after_ms`, within start and end; None when there is none.

    Pass the scheduled time of the last fire, not the time at which it happened, so that nothing drifts. The
    caller counts `max_fires`. `recurrence` has passed `check`. If it did so in a release that could read
    more, this raises ValueError (CronError, UnknownZoneError).
    """
    after_ms = max(after_ms, recurrence.start_ms - 1)
    if recurrence.cron is None:
        every_ms, start_ms = recurrence.every_ms, recurrence.start_ms
        next_ms = start_ms + ((after_ms - start_ms) // every_ms + 1) * every_ms
    else:
        next_s = _next_cron(
            recurrence.cron, recurrence.timezone, recurrence.dst_gap, recurrence.dst_overlap, after_ms // 1000
        )
        if next_s is None:
            return None
        next_ms = next_s * 1000
    return next_ms if recurrence.end_ms is None or next_ms <= recurrence.end_ms else None


def misses(recurrence: Recurrence, after_ms: int, until_ms: int) -> Misses:
    """Count the scheduled times in (`after_ms`, `until_ms`], within start and end, without visiting them.

    The work grows with the years in the span, not with the times: a month of seconds costs as much as a day.
    Raises as `next_after` does.
    """
    after_ms = max(after_ms, recurrence.start_ms - 1)
    if recurrence.end_ms is not None:
        until_ms = min(until_ms, recurrence.end_ms)
    first_ms = next_after(recurrence, after_ms)
    if first_ms is None or first_ms > until_ms:
        return Misses(0, None, None)
    if recurrence.cron is None:
        further = (until_ms - first_ms) // recurrence.every_ms
        return Misses(further + 1, first_ms, first_ms + further * recurrence.every_ms)
    further, last_s = _count_cron(
        recurrence.cron,
        recurrence.timezone,
        recurrence.dst_gap,
        recurrence.dst_overlap,
        first_ms // 1000,
        until_ms // 1000,
    )
    return Misses(further + 1, first_ms, last_s * 1000)


def due_ms(recurrence: Recurrence, scheduled_ms: int, fire_id: str) -> int:
    """The due time of a scheduled time: with its jitter, which is always the same for one fire id.

    It is before the next scheduled time, and not after `end_ms`. At a clock change two times may be closer
    than anywhere in the pattern. Then the jitter of the first is shortened in proportion. So due times have
    the order of their scheduled times. Raises as `next_after` does.
    """
    jitter_ms = recurrence.jitter_ms
    if not jitter_ms:
        return scheduled_ms
    drawn_ms = jittered_ms(scheduled_ms, fire_id, jitter_ms)
    next_ms = next_after(recurrence, scheduled_ms)
    if next_ms is not None:
        room_ms = next_ms - 1 - scheduled_ms
    elif recurrence.end_ms is not None:
        room_ms = recurrence.end_ms - scheduled_ms
    else:
        return drawn_ms
    if room_ms >= jitter_ms:
        return drawn_ms
    # In proportion: schedules that share a time stay spread, and none is due later than before.
    return scheduled_ms + (drawn_ms - scheduled_ms) * (room_ms + 1) // (jitter_ms + 1)


def carried_on(
    recurrence: Recurrence, asked_ms: int, old: Recurrence, undecided_ms: int
) -> tuple[Recurrence, int] | None:
    """A recurrence that continues an old one with the same times, and its first scheduled time.

    It goes on at the old one's position, `undecided_ms`. A time before the request that its jitter holds back
    is not lost. A time that was decided while the request was on its way is not decided again. None when the
    new one begins from its start: its times differ, or the old one had not begun.

    An interval has the same times if it has the same start. An interval without a start (then it is
    `asked_ms`) keeps the old start, so a repeated request keeps its rhythm. The start of a cron expression is
    only a bound; without one, the old start stays, too.
    """
    if recurrence.cron is None:
        if recurrence.every_ms != old.every_ms:
            return None
        if recurrence.start_ms != old.start_ms:
            if recurrence.start_ms != asked_ms or old.start_ms > asked_ms:
                return None
            recurrence = replace(recurrence, start_ms=old.start_ms)
    elif (recurrence.cron, recurrence.timezone, recurrence.dst_gap, recurrence.dst_overlap) != (
        old.cron,
        old.timezone,
        old.dst_gap,
        old.dst_overlap,
    ):
        return None
    elif recurrence.start_ms == asked_ms:
        if old.start_ms > asked_ms:
            return None
        recurrence = replace(recurrence, start_ms=old.start_ms)
    first_ms: int | None = undecided_ms
    if undecided_ms < recurrence.start_ms:
        first_ms = next_after(recurrence, undecided_ms)
    elif recurrence.end_ms is not None and undecided_ms > recurrence.end_ms:
        first_ms = None
    return None if first_ms is None else (recurrence, first_ms)


def jittered_ms(scheduled_ms: int, fire_id: str, jitter_ms: int) -> int:
    """From `scheduled_ms` to `scheduled_ms + jitter_ms`, the same for one fire id; `due_ms` bounds it."""
    if jitter_ms == 0:
        return scheduled_ms
    drawn = int.from_bytes(blake2b(fire_id.encode(), digest_size=8).digest(), "big")
    return scheduled_ms + drawn % (jitter_ms + 1)


# Schedules that share an expression are due together, and their next time is computed once.
@lru_cache(maxsize=65_536)
def _next_cron(cron: str, zone: str, gap: DstGap, overlap: DstOverlap, after_s: int) -> int | None:
    return scheduled(parse_cron(cron), zone, gap, overlap).next_after(after_s)


@lru_cache(maxsize=4096)
def _count_cron(
    cron: str, zone: str, gap: DstGap, overlap: DstOverlap, after_s: int, until_s: int
) -> tuple[int, int]:
    """The number of instants in (`after_s`, `until_s`], and the last of them; `after_s` if there is none."""
    times = scheduled(parse_cron(cron), zone, gap, overlap)
    last_s = times.last_until(until_s, after_s)
    return times.count(after_s, until_s), after_s if last_s is None else last_s
