"""When a schedule would fire, worked out here as a worker does: no Kafka is asked."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Unpack

from delaystream.client.requests.checking import Checker
from delaystream.client.requests.options import Clear, Timing
from delaystream.client.requests.records import schedule_request
from delaystream.client.requests.timing import aware, epoch_ms, zone_name


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A time that a schedule fires at."""

    at: datetime
    """In UTC."""
    local: datetime
    """The same on the clock of the schedule's time zone."""
    note: str | None = None
    """What the local clock has to do with it: a gap or an overlap."""


def preview(
    n: int = 10, *, after: datetime | None = None, **timing: Unpack[Timing]
) -> tuple[Occurrence, ...]:
    """The next `n` times of a schedule, jitter left out; fewer where it ends. Without `after`, from now on.

    Raises RejectedError where a worker would refuse it, ValueError for a local time of no place, and for less
    than none.
    """
    from delaystream.core.recurrence.occurrences import occurrences
    from delaystream.core.recurrence.zones import zone

    if n < 0:
        raise ValueError(f"n is {n}; expected how many times, 0 or more.")
    if after is not None and after.utcoffset() is None:
        raise ValueError(f"after={after!r} has no offset: write datetime(..., tzinfo=UTC).")
    topic = "preview"
    at_ms = time.time_ns() // 1_000_000 if after is None else epoch_ms(after)
    recurs = timing.get("cron") is not None or timing.get("every") is not None
    request = schedule_request(topic, "previewed", id=topic if recurs else None, **timing)
    parsed = Checker.of(topic).check(request, at_ms)
    if parsed.recurrence is None:
        found = sorted(due_ms for due_ms in parsed.due_ms if due_ms > at_ms)[:n]
        given = timing.get("timezone")
        clock = UTC if given is None or isinstance(given, Clear) else zone(zone_name(given))
        return tuple(Occurrence(at, at.astimezone(clock)) for at in map(aware, found))
    most = n if parsed.recurrence.max_fires <= 0 else min(n, parsed.recurrence.max_fires)
    return tuple(
        Occurrence(aware(one.due_ms), one.local, one.note)
        for one in occurrences(parsed.recurrence, at_ms, most)
    )
