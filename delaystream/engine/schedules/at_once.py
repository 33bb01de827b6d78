"""How much goes out in the moment in which a pause ends."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from delaystream.codec.envelope import Schedule
from delaystream.core.misfire import decide_passed, run_until
from delaystream.core.recurrence import CronError, UnknownZoneError
from delaystream.core.request import CatchUp
from delaystream.engine.policy.lateness import misfire_policy
from delaystream.engine.schedules.arming import jittered
from delaystream.engine.settings import EngineSettings


def fires_at_once(settings: EngineSettings, id: str, schedule: Schedule, now_ms: int) -> int:
    """How many fires of a schedule that is resumed are due now; where all catch up, at most so many."""
    recurrence = schedule.recurrence
    if recurrence is None:
        return sum(due_ms <= now_ms for due_ms, _ in schedule.ahead)
    if not 0 <= schedule.next_ms <= now_ms:
        return 0
    policy = misfire_policy(schedule, settings)
    due = partial(jittered, recurrence, schedule.revision_place, schedule.revision, id)
    with suppress(CronError, UnknownZoneError):
        first_ms: int | None = schedule.next_ms
        if due(schedule.next_ms) <= now_ms:
            verdict = decide_passed(recurrence, schedule.next_ms, now_ms, policy, due, settings.max_catch_up)
            if policy.catch_up is not CatchUp.ALL:
                return int(verdict.fire_ms is not None)
            first_ms = verdict.next_ms if verdict.fire_ms is None else verdict.fire_ms
        if first_ms is not None and first_ms <= now_ms:
            number = run_until(recurrence, first_ms, now_ms).number
            left = recurrence.max_fires - schedule.run_count
            return min(number, left) if recurrence.max_fires else number
    return 0
