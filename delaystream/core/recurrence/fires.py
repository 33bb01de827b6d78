"""The scheduled times of a recurrence: the next one, how many were missed, and the spread around them."""

from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from croniter import CroniterBadDateError, croniter

from delaystream.core.recurrence.recurrence import Recurrence

_MISSES_COUNTED = 100_000


class Misses(NamedTuple):
    """Scheduled times within a span; `first_ms` and `last_ms` are None when `number` is 0."""

    number: int
    first_ms: int | None
    last_ms: int | None


def next_after(recurrence: Recurrence, after_ms: int) -> int | None:
    """The first scheduled time strictly after `after_ms`, within start and end; None when there is none.

    `max_fires` is counted by the caller. `recurrence` has passed `check`.
    """
    after_ms = max(after_ms, recurrence.start_ms - 1)
    if recurrence.cron is None:
        every_ms = recurrence.every_ms
        next_ms = recurrence.start_ms + ((after_ms - recurrence.start_ms) // every_ms + 1) * every_ms
    else:
        found = _next_cron(recurrence.cron, recurrence.timezone, after_ms // 1000)
        if found is None:
            return None
        next_ms = found * 1000
    return next_ms if recurrence.end_ms is None or next_ms <= recurrence.end_ms else None


def misses(recurrence: Recurrence, after_ms: int, until_ms: int) -> Misses:
    """The scheduled times in (`after_ms`, `until_ms`]."""
    count, first_ms, last_ms = 0, None, None
    while count < _MISSES_COUNTED:
        next_ms = next_after(recurrence, after_ms)
        if next_ms is None or next_ms > until_ms:
            break
        count += 1
        first_ms = next_ms if first_ms is None else first_ms
        after_ms = last_ms = next_ms
    return Misses(count, first_ms, last_ms)


def jittered_ms(scheduled_ms: int, fire_id: str, jitter_ms: int) -> int:
    """When a fire is due: from `scheduled_ms` to `scheduled_ms + jitter_ms`, the same for one fire id."""
    if jitter_ms == 0:
        return scheduled_ms
    drawn = int.from_bytes(blake2b(fire_id.encode(), digest_size=8).digest(), "big")
    return scheduled_ms + drawn % (jitter_ms + 1)


@lru_cache(maxsize=65_536)
def _next_cron(expression: str, timezone: str, after_s: int) -> int | None:
    start: Any = datetime.fromtimestamp(after_s, ZoneInfo(timezone))
    try:
        found: float = croniter(expression, start, second_at_beginning=True).get_next(float)
    except CroniterBadDateError:
        return None
    return int(found)
