"""Fires of recurring schedules: what has come due is decided, delivered, told, and the next time armed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

import msgspec
from msgspec.structs import replace

from delaystream.codec.envelope import Fire, Schedule, Status
from delaystream.codec.event import EventType
from delaystream.core.identity import named_fire_id
from delaystream.core.misfire import DEFAULT_GRACE_MS, Verdict, settle
from delaystream.core.recurrence import CronError, UnknownZoneError
from delaystream.core.request import CatchUp
from delaystream.engine.arming import Arming
from delaystream.engine.drain import Drain
from delaystream.engine.due_fire import DueFire
from delaystream.engine.events import Events
from delaystream.engine.fire_records import FireRecords
from delaystream.engine.settings import EngineSettings
from delaystream.engine.step import Step
from delaystream.engine.withheld import Withheld

#: most deliveries of one schedule in one step, when it catches up on all that it has missed
_CAUGHT_UP_AT_ONCE: Final = 100

#: what is told once it is known how the schedule ends up
_Told: TypeAlias = Callable[[Schedule], None]

# Naming a member through its class is slow (Python 3.11).
_NONE: Final = CatchUp.NONE
_COMPLETED: Final = Status.COMPLETED


class _Account(msgspec.Struct):
    """What a step changes in the record of one schedule, fire by fire, and what is to be told of it."""

    fire_count: int
    run_count: int
    missed_count: int
    skipped: int
    last_fire_id: str | None
    history: list[Fire]
    told: list[_Told]


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

    def fire(self, step: Step, drain: Drain, due: DueFire) -> None:
        """Decide on every scheduled time up to now, and arm the next one."""
        schedule, now_ms = due.schedule, step.now_ms
        recurrence, catch_up = schedule.recurrence, schedule.catch_up
        assert recurrence is not None
        grace_ms = schedule.grace_ms if schedule.grace_ms >= 0 else DEFAULT_GRACE_MS
        if catch_up is _NONE:
            grace_ms = min(grace_ms, self._settings.misfire_threshold_ms)
        moment = self._moments(due)
        account = _Account(
            schedule.fire_count,
            schedule.run_count,
            schedule.missed_count,
            schedule.skipped,
            schedule.last_fire_id,
            schedule.history,
            [],
        )
        try:
            verdict = settle(recurrence, schedule.next_ms, now_ms, catch_up, grace_ms, moment)
        except (CronError, UnknownZoneError) as error:
            self._unreadable(step, drain, due, error)
            return
        for _ in range(_CAUGHT_UP_AT_ONCE):
            if verdict.missed is not None or verdict.skipped is not None:
                self._passed(step, drain, due, verdict, account)
            scheduled_ms, next_ms = verdict.fire_ms, verdict.next_ms
            if scheduled_ms is not None:
                due_ms = moment(scheduled_ms)
                reason = self._withheld.reason(step, drain, due.key, due_ms, due.payload)
                if reason is not None:
                    self._give_up(step, drain, due, scheduled_ms, reason, account)
                elif not drain.partitions:
                    # The destination cannot be written yet, and this fire has not waited for long enough.
                    next_ms = scheduled_ms
                    break
                else:
                    if recurrence.max_fires and account.run_count + 1 >= recurrence.max_fires:
                        next_ms = None
                    self._run(step, drain, due, scheduled_ms, now_ms - due_ms, next_ms, account)
            if (
                next_ms is None
                or moment(next_ms) > now_ms
                or step.size_bytes >= step.max_bytes
                or len(step.fired[drain.topic]) >= drain.most_fired
            ):
                break
            verdict = settle(recurrence, next_ms, now_ms, catch_up, grace_ms, moment)
        pending = []
        if next_ms is not None:
            pending.append(self._arming.point(step, schedule, moment(next_ms), due.pointer))
        self._close(step, due, account, pending, next_ms)

    def _moments(self, due: DueFire) -> Callable[[int], int]:
        """When each scheduled time is due; the one whose entry this is, when that entry says."""
        schedule, entry_ms = due.schedule, due.due_ms
        recurrence = schedule.recurrence
        if recurrence is None or not recurrence.jitter_ms:
            return _on_schedule
        armed_ms, due_of = schedule.next_ms, partial(self._arming.due, due.id, schedule)
        return lambda scheduled_ms: entry_ms if scheduled_ms == armed_ms else due_of(scheduled_ms)

    def _close(
        self, step: Step, due: DueFire, account: _Account, pending: list[bytes], next_ms: int | None
    ) -> None:
        """Store what is left of a schedule, and tell what has happened to it."""
        schedule = replace(
            due.schedule,
            pending=pending,
            next_ms=-1 if next_ms is None else next_ms,
            fire_count=account.fire_count,
            run_count=account.run_count,
            missed_count=account.missed_count,
            skipped=account.skipped,
            last_fire_id=account.last_fire_id,
            history=account.history,
        )
        schedule = self._records.store(step, due, schedule, _COMPLETED)
        for tell in account.told:
            tell(schedule)
        if schedule.status is _COMPLETED:
            self._events.completed(step, due.id, schedule)

    def _unreadable(self, step: Step, drain: Drain, due: DueFire, error: Exception) -> None:
        """Give a schedule up: a newer release stored it, or a zone database with more zones did."""
        reason = f"when it recurs cannot be read any more: {error}"
        scheduled_ms = due.schedule.next_ms
        left = replace(due.schedule, pending=[], next_ms=-1)
        fire = self._fire_id(due, scheduled_ms)
        self._records.give_up(step, drain, due, left, Status.QUARANTINED, fire, scheduled_ms, reason)

    def _give_up(
        self, step: Step, drain: Drain, due: DueFire, scheduled_ms: int, reason: str, account: _Account
    ) -> None:
        """Put one scheduled time among the dead letters."""
        fire = self._fire_id(due, scheduled_ms)
        self._withheld.quarantine_named(step, drain, due, fire, scheduled_ms, reason)
        account.told.append(
            partial(
                self._events.gave_up,
                step,
                due.id,
                due_ms=scheduled_ms,
                fire_id=fire,
                destination=drain.topic,
                detail=reason,
            )
        )

    @staticmethod
    def _fire_id(due: DueFire, scheduled_ms: int) -> str:
        schedule = due.schedule
        return named_fire_id(schedule.topic, schedule.revision, 0, scheduled_ms, due.id)

    def _passed(self, step: Step, drain: Drain, due: DueFire, verdict: Verdict, account: _Account) -> None:
        """Count and tell the scheduled times that do not fire."""
        for run, type in ((verdict.missed, EventType.MISSED), (verdict.skipped, EventType.SKIPPED)):
            if run is None:
                continue
            if run.to_ms <= due.schedule.resumed_ms:
                reason = "paused"
            else:
                reason = "late" if drain.trouble is None else "destination"
            missed = type is EventType.MISSED
            step.missed[reason if missed else "skipped", drain.topic] += run.number
            account.missed_count += run.number
            if not missed:
                account.skipped += run.number
            account.told.append(partial(self._events.passed, step, due.id, type=type, run=run, reason=reason))

    def _run(
        self,
        step: Step,
        drain: Drain,
        due: DueFire,
        scheduled_ms: int,
        lateness_ms: int,
        next_ms: int | None,
        account: _Account,
    ) -> None:
        """Deliver one scheduled time."""
        fire = self._fire_id(due, scheduled_ms)
        account.fire_count += 1
        account.run_count += 1
        account.last_fire_id = fire
        account.history = self._arming.remembered(
            account.history, Fire(scheduled_ms, step.now_ms, due.schedule.revision)
        )
        delivered = self._records.deliver(
            step, drain, due, fire, scheduled_ms, account.fire_count, lateness_ms, account.skipped, next_ms
        )
        account.skipped = 0
        account.told.append(partial(self._events.fired, step, due.id, delivered))
