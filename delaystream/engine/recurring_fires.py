"""Fires of recurring schedules: what has come due is decided, delivered, told, and the next time armed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

from msgspec.structs import replace

from delaystream.codec.envelope import Envelope, Fire, Schedule, Status
from delaystream.codec.event import EventType
from delaystream.core.identity import fire_id
from delaystream.core.misfire import DEFAULT_GRACE_MS, Verdict, settle
from delaystream.core.recurrence import CronError, UnknownZoneError
from delaystream.core.request import CatchUp
from delaystream.engine.arming import Arming
from delaystream.engine.drain import Drain
from delaystream.engine.events import Delivered, Events
from delaystream.engine.fire_records import FireRecords
from delaystream.engine.settings import EngineSettings
from delaystream.engine.step import Step
from delaystream.engine.withheld import Withheld

#: most deliveries of one schedule in one step, when it catches up on all that it has missed
_CAUGHT_UP_AT_ONCE: Final = 100

#: what is told once it is known how the schedule ends up
_Told: TypeAlias = Callable[[Schedule], None]


_NONE: Final = CatchUp.NONE


def _on_schedule(scheduled_ms: int) -> int:
    """When a scheduled time without jitter is due."""
    return scheduled_ms


class RecurringFires:
    """Carries out the one entry that a recurring schedule has in the wheels."""

    def __init__(
        self,
        settings: EngineSettings,
        arming: Arming,
        withheld: Withheld,
        events: Events,
        records: FireRecords,
    ) -> None:
        self._settings = settings
        self._arming = arming
        self._withheld = withheld
        self._events = events
        self._records = records

    def fire(
        self,
        step: Step,
        drain: Drain,
        key: bytes,
        id: str,
        schedule: Schedule,
        entry: Envelope,
        partitions: int,
    ) -> None:
        """Decide on every scheduled time up to now, and arm the next one."""
        recurrence = schedule.recurrence
        assert recurrence is not None
        grace_ms = schedule.grace_ms if schedule.grace_ms >= 0 else DEFAULT_GRACE_MS
        if schedule.catch_up is _NONE:
            grace_ms = min(grace_ms, self._settings.misfire_threshold_ms)
        due = partial(self._arming.due, id, schedule) if recurrence.jitter_ms else _on_schedule
        try:
            verdict = settle(recurrence, schedule.next_ms, step.now_ms, schedule.catch_up, grace_ms, due)
        except (CronError, UnknownZoneError) as error:
            self._unreadable(step, drain, key, id, schedule, entry, error)
            return
        told: list[_Told] = []
        schedule = replace(schedule, pending=[], next_ms=-1)
        for _ in range(_CAUGHT_UP_AT_ONCE):
            schedule = self._passed(step, drain, id, schedule, verdict, told)
            next_ms = verdict.next_ms
            if verdict.fire_ms is not None:
                due_ms = due(verdict.fire_ms)
                reason = self._withheld.reason(step, drain, key, due_ms, entry, partitions)
                if reason is not None:
                    fire = self._fire_id(id, schedule, verdict.fire_ms)
                    self._withheld.quarantine_named(
                        step, drain, key, entry, reason, id, schedule, fire, verdict.fire_ms
                    )
                    told.append(
                        partial(
                            self._events.gave_up,
                            step,
                            id,
                            due_ms=verdict.fire_ms,
                            fire_id=fire,
                            destination=drain.topic,
                            detail=reason,
                        )
                    )
                elif not partitions:
                    # The destination cannot be written yet, and this fire has not waited for long enough.
                    next_ms = verdict.fire_ms
                    break
                else:
                    schedule = self._run(
                        step, drain, key, id, schedule, entry, partitions, verdict.fire_ms, due_ms, told
                    )
                    if recurrence.max_fires and schedule.run_count >= recurrence.max_fires:
                        next_ms = None
            full = step.size_bytes >= step.max_bytes or len(step.fired[drain.topic]) >= drain.most_fired
            if next_ms is None or due(next_ms) > step.now_ms or full:
                break
            verdict = settle(recurrence, next_ms, step.now_ms, schedule.catch_up, grace_ms, due)
        if next_ms is not None:
            schedule = self._arming.arm(step, id, schedule, next_ms)
        schedule = self._records.store(step, id, schedule, Status.COMPLETED)
        for tell in told:
            tell(schedule)
        if schedule.status is Status.COMPLETED:
            self._events.completed(step, id, schedule)

    def _unreadable(
        self,
        step: Step,
        drain: Drain,
        key: bytes,
        id: str,
        schedule: Schedule,
        entry: Envelope,
        error: Exception,
    ) -> None:
        """Give a schedule up: a newer release stored it, or a zone database with more zones did."""
        reason = f"when it recurs cannot be read any more: {error}"
        due_ms = schedule.next_ms
        fire = self._fire_id(id, schedule, due_ms)
        self._withheld.quarantine_named(step, drain, key, entry, reason, id, schedule, fire, due_ms)
        schedule = self._records.store(
            step, id, replace(schedule, pending=[], next_ms=-1), Status.QUARANTINED
        )
        self._events.gave_up(
            step, id, schedule, due_ms=due_ms, fire_id=fire, destination=drain.topic, detail=reason
        )

    @staticmethod
    def _fire_id(id: str, schedule: Schedule, scheduled_ms: int) -> str:
        return fire_id(schedule.topic, 0, 0, 0, scheduled_ms, id, schedule.revision)

    def _passed(
        self, step: Step, drain: Drain, id: str, schedule: Schedule, verdict: Verdict, told: list[_Told]
    ) -> Schedule:
        """Count and tell the scheduled times that do not fire."""
        if verdict.missed is None and verdict.skipped is None:
            return schedule
        for run, type in ((verdict.missed, EventType.MISSED), (verdict.skipped, EventType.SKIPPED)):
            if run is None:
                continue
            if run.to_ms <= schedule.resumed_ms:
                reason = "paused"
            else:
                reason = "late" if drain.trouble is None else "destination"
            missed = type is EventType.MISSED
            step.missed[reason if missed else "skipped", drain.topic] += run.number
            schedule = replace(
                schedule,
                missed_count=schedule.missed_count + run.number,
                skipped=schedule.skipped if missed else schedule.skipped + run.number,
            )
            told.append(partial(self._events.passed, step, id, type=type, run=run, reason=reason))
        return schedule

    def _run(
        self,
        step: Step,
        drain: Drain,
        key: bytes,
        id: str,
        schedule: Schedule,
        entry: Envelope,
        partitions: int,
        scheduled_ms: int,
        due_ms: int,
        told: list[_Told],
    ) -> Schedule:
        """Deliver one scheduled time."""
        fire = self._fire_id(id, schedule, scheduled_ms)
        lateness_ms = step.now_ms - due_ms
        skipped = schedule.skipped
        schedule = replace(
            schedule,
            fire_count=schedule.fire_count + 1,
            last_fire_id=fire,
            history=self._arming.remembered(
                schedule.history, Fire(scheduled_ms, step.now_ms, schedule.revision)
            ),
            run_count=schedule.run_count + 1,
            skipped=0,
        )
        partition = self._records.deliver(
            step, drain, key, id, schedule, entry, partitions, fire, scheduled_ms, skipped
        )
        step.fired[drain.topic].append(lateness_ms)
        delivered = Delivered(
            fire, scheduled_ms, lateness_ms, drain.topic, partition, schedule.fire_count, skipped
        )
        told.append(partial(self._events.fired, step, id, delivered))
        return schedule
