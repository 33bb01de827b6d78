"""When a schedule would fire, worked out here as a worker does: no Kafka is asked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Unpack

from delaystream.client.requests.checking import Checker, wall_ms
from delaystream.client.requests.numbers import whole_number
from delaystream.client.requests.options import Clear, Timing
from delaystream.client.requests.records import schedule_request
from delaystream.client.requests.timing import aware, instant_ms, zone_name
from delaystream.core.instants import LATEST_MS

MOST_TIMES: Final = 100_000
"""That are told at once."""


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

    `n` is at most `MOST_TIMES`, `after` from the year 1971 to 9999. Raises RejectedError where a worker would
    refuse the schedule at that time, ValueError, TypeError for what is out of these bounds and for a local
    time of no place.
    """
    from delaystream.core.recurrence.occurrences import occurrences
    from delaystream.core.recurrence.zones import zone

    n = whole_number("n", n, 0, MOST_TIMES)
    topic = "preview"
    at_ms = wall_ms() if after is None else instant_ms("after", after)
    recurs = timing.get("cron") is not None or timing.get("every") is not None
    request = schedule_request(topic, "previewed", id=topic if recurs else None, **timing)
    parsed = Checker.of(topic, now_ms=lambda: at_ms).check(request, at_ms)
    if parsed.recurrence is None:
        found = sorted(due_ms for due_ms in parsed.due_ms if at_ms < due_ms <= LATEST_MS)[:n]
        given = timing.get("timezone")
        clock = UTC if given is None or isinstance(given, Clear) else zone(zone_name(given))
        return tuple(Occurrence(at, at.astimezone(clock)) for at in map(aware, found))
    most = n if parsed.recurrence.max_fires <= 0 else min(n, parsed.recurrence.max_fires)
    return tuple(
        Occurrence(aware(one.due_ms), one.local, one.note)
        for one in occurrences(parsed.recurrence, at_ms, most)
    )
