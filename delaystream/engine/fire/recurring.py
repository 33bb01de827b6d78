"""Fires of recurring schedules: what has come due is decided, delivered, told, and the next time armed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple, TypeAlias

import msgspec
from msgspec.structs import replace

from delaystream.codec.envelope import Fire, Past, Schedule, Status, encode
from delaystream.codec.event import EventType, WhyPassed
from delaystream.codec.keys import due_at
from delaystream.codec.outgoing import Delivery
from delaystream.core.identity import named_fire_id
from delaystream.core.misfire import Run, Verdict, decide_passed
from delaystream.core.recurrence import CronError, Recurrence, UnknownZoneError, next_after
from delaystream.core.rejection import Code, Rejection, shown
from delaystream.core.request import CatchUp
from delaystream.engine.failures import about_the_record
from delaystream.engine.fire.cursor import WheelCursor
from delaystream.engine.fire.due import DueFire
from delaystream.engine.fire.undeliverable import Undeliverable
from delaystream.engine.fire.writer import FireWriter
from delaystream.engine.output.events import Events, Passed
from delaystream.engine.policy.lateness import misfire_policy
from delaystream.engine.schedules.arming import Arming
from delaystream.engine.settings import EngineSettings
from delaystream.engine.state.step import Step

#: most deliveries of one schedule in one step, when it catches up on all that it has missed
_CAUGHT_UP_AT_ONCE: Final = 100

#: what is told once it is known how the schedule ends up
_Told: TypeAlias = Callable[[Schedule], None]

# Naming a member through its class is slow (Python 3.11).
_COMPLETED: Final = Status.COMPLETED


class _Time(NamedTuple):
    """One scheduled time that fires."""

    scheduled_ms: int
    #: with its jitter
    due_ms: int
    #: the scheduled time after it; None: there is none
    next_ms: int | None


class _Account(msgspec.Struct):
    """The changes of a step to one schedule, fire by fire, and the events that follow."""

    fire_count: int
    run_count: int
    missed_count: int
    skipped: int
    last_fire_id: str | None
    last_fired_ms: int
    history: list[Fire]
    told: list[_Told]
    #: scheduled times that have left a record in this step: a delivery, or a dead letter
    records: int = 0


def _account_of(schedule: Schedule) -> _Account:
    return _Account(
        schedule.fire_count,
        schedule.run_count,
        schedule.missed_count,
        schedule.skipped,
        schedule.last_fire_id,
        schedule.last_fired_ms,
        schedule.history,
        [],
    )


def _on_schedule(scheduled_ms: int) -> int:
    """When a scheduled time without jitter is due."""
    return scheduled_ms


def _counted(step: Step, due: DueFire, due_ms: int, account: _Account) -> DueFire:
    """One more scheduled time leaves a record in the step; the entry that it would have had as its own.

    The first one has its entry, and was counted with it.
    """
    account.records += 1
    if account.records == 1:
        return due
    step.records += 1
    step.size_bytes += due.size_bytes
    return replace(due, key=due_at(due.key, due_ms), due_ms=due_ms)


def _enough(step: Step, cursor: WheelCursor, account: _Account) -> bool:
    """Whether the next scheduled time has to wait for another step."""
    return (
        step.full
        or step.fires(cursor.topic) >= cursor.most_fired
        or (cursor.limit is not None and account.records >= cursor.limit)
    )


class RecurringFires:
    """Carries out the one entry that a recurring schedule has in the wheels."""

    def __init__(
        self,
        settings: EngineSettings,
        arming: Arming,
        undeliverable: Undeliverable,
        events: Events,
        writer: FireWriter,
    ) -> None:
        self._settings = settings
        self._arming = arming
        self._undeliverable = undeliverable
        self._events = events
        self._writer = writer

    def fire(self, step: Step, cursor: WheelCursor, due: DueFire) -> None:
        """Decide on every scheduled time up to now, and arm the next one."""
        schedule, now_ms = due.schedule, step.now_ms
        recurrence = schedule.recurrence
        assert recurrence is not None
        policy = misfire_policy(schedule, self._settings)
        moment = self._moments(due)
        try:
            most = self._settings.max_catch_up
            verdict = decide_passed(recurrence, schedule.next_ms, now_ms, policy, moment, most)
        except (CronError, UnknownZoneError) as error:
            # A newer release stored it, or a zone database with more zones did.
            code = error.code if isinstance(error, CronError) else Code.INVALID_TIMEZONE
            self._pause(step, due, Rejection(code, f"when it recurs cannot be read any more: {error}"))
            return
        if self._fired_on_time(step, cursor, due, recurrence, verdict, moment):
            return
        account = _account_of(schedule)
        for _ in range(_CAUGHT_UP_AT_ONCE):
            if verdict.missed is not None or verdict.skipped is not None:
                self._passed(step, cursor, due, verdict, account)
            scheduled_ms, next_ms = verdict.fire_ms, verdict.next_ms
            if scheduled_ms is not None:
                due_ms = moment(scheduled_ms)
                due = _counted(step, due, due_ms, account)
                rejection = self._undeliverable.refusal(step, cursor, due.key, due_ms, due.payload)
                if rejection is not None:
                    self._give_up(step, due, scheduled_ms, rejection, account)
                elif not cursor.partitions:
                    # The destination cannot be written yet, and this fire has not waited for long enough.
                    next_ms = scheduled_ms
                    break
                else:
                    if recurrence.max_fires and account.run_count + 1 >= recurrence.max_fires:
                        next_ms = None
                    self._run(step, cursor, due, _Time(scheduled_ms, due_ms, next_ms), account)
            if next_ms is None or moment(next_ms) > now_ms or _enough(step, cursor, account):
                break
            verdict = decide_passed(recurrence, next_ms, now_ms, policy, moment)
        pending = []
        if next_ms is not None:
            pending.append(self._arming.point(step, schedule, moment(next_ms), due.pointer))
        self._close(step, due, account, pending, next_ms)

    def _fired_on_time(
        self,
        step: Step,
        cursor: WheelCursor,
        due: DueFire,
        recurrence: Recurrence,
        verdict: Verdict,
        moment: Callable[[int], int],
    ) -> bool:
        """Deliver the one scheduled time that is due and arm the one after it, where that is all there is.

        Most fires are like this, and it takes no account of them. False: nothing was done.
        """
        schedule, next_ms = due.schedule, verdict.next_ms
        if (
            verdict.fire_ms is None
            or next_ms is None
            or verdict.skipped is not None
            or verdict.missed is not None
            or schedule.skipped
            or schedule.once is not None
            or recurrence.max_fires
            or not cursor.partitions
            or (next_due_ms := moment(next_ms)) <= step.now_ms
        ):
            return False
        scheduled_ms = verdict.fire_ms
        due_ms, payload = moment(scheduled_ms), due.payload
        if (
            cursor.suspicious or payload.destination_partition >= cursor.partitions
        ) and self._undeliverable.refusal(step, cursor, due.key, due_ms, payload) is not None:
            return False
        fire, count, now_ms = self._fire_id(due, scheduled_ms), schedule.fire_count + 1, step.now_ms
        remembered = Fire(scheduled_ms, now_ms, schedule.revision, origin=schedule.revision_origin)
        delivery = Delivery(due.id, fire, scheduled_ms, due.source, count, 0, schedule.last_fired_ms, next_ms)
        delivered = self._writer.deliver(step, cursor, due, delivery, now_ms - due_ms)
        schedule = replace(
            schedule,
            pending=[self._arming.point(step, schedule, next_due_ms, due.pointer)],
            fire_count=count,
            last_fire_id=fire,
            next_ms=next_ms,
            run_count=schedule.run_count + 1,
            history=self._arming.remembered(schedule.history, remembered),
            last_fired_ms=now_ms,
        )
        step.changes[due.schedule_key] = encode(schedule)
        self._events.fired(step, delivered, schedule)
        return True

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
            last_fired_ms=account.last_fired_ms,
            history=account.history,
            once=None if next_ms is None or next_ms > due.schedule.resumed_ms else due.schedule.once,
        )
        schedule = self._writer.store(step, due, schedule, _COMPLETED)
        for tell in account.told:
            tell(schedule)
        if schedule.status is _COMPLETED:
            self._events.completed(step, due.id, schedule)

    def give_up(self, step: Step, due: DueFire, rejection: Rejection) -> None:
        """Give up the scheduled time that is due, and go on with the next.

        The schedule is paused, and nothing of it given up, where the next cannot be worked out.
        """
        schedule = due.schedule
        assert schedule.recurrence is not None
        try:
            next_ms = next_after(schedule.recurrence, schedule.next_ms)
            due_ms = 0 if next_ms is None else self._arming.due(due.id, schedule, next_ms)
        except Exception as failure:
            if not about_the_record(failure):
                raise
            told = f"its next time cannot be worked out: {type(failure).__name__}: {failure}"
            self._pause(step, due, Rejection(Code.INTERNAL_ERROR, told))
            return
        account = _account_of(schedule)
        self._give_up(step, due, schedule.next_ms, rejection, account)
        pending = []
        if next_ms is not None:
            pending.append(self._arming.point(step, schedule, due_ms, due.pointer))
        self._close(step, due, account, pending, next_ms)

    def _pause(self, step: Step, due: DueFire, why: Rejection) -> None:
        """Take a schedule out of its wheel, its undecided times kept, until somebody resumes it."""
        schedule = replace(due.schedule, status=Status.PAUSED, pending=[], paused_ms=step.now_ms)
        self._arming.count_paused(due.schedule, schedule)
        step.changes[due.schedule_key] = encode(schedule)
        step.warnings.append(f"schedule {shown(due.id)} of {schedule.topic} is paused: {why.detail}")
        self._events.paused(step, due.id, schedule, why)

    def _give_up(
        self, step: Step, due: DueFire, scheduled_ms: int, rejection: Rejection, account: _Account
    ) -> None:
        """Put one scheduled time among the dead letters."""
        fire = self._fire_id(due, scheduled_ms)
        undelivered = self._undeliverable.quarantine_named(step, due, fire, scheduled_ms, rejection)
        account.told.append(partial(self._events.undelivered, step, due.id, undelivered))

    @staticmethod
    def _fire_id(due: DueFire, scheduled_ms: int) -> str:
        schedule = due.schedule
        return named_fire_id(schedule.revision_place, schedule.revision, 0, scheduled_ms, due.id)

    def _in_time(self, step: Step, schedule: Schedule, run: Run) -> bool:
        """Whether a run that is missed reaches up to what its grace would have let fire."""
        assert schedule.recurrence is not None
        catch_up, grace_ms = misfire_policy(schedule, self._settings)
        horizon_ms = step.now_ms - grace_ms - schedule.recurrence.jitter_ms
        return catch_up is CatchUp.ALL and run.to_ms >= horizon_ms

    def _passed(
        self, step: Step, cursor: WheelCursor, due: DueFire, verdict: Verdict, account: _Account
    ) -> None:
        """Count and tell the scheduled times that do not fire."""
        for run, type in ((verdict.missed, EventType.MISSED), (verdict.skipped, EventType.SKIPPED)):
            if run is None:
                continue
            if type is EventType.MISSED and self._in_time(step, due.schedule, run):
                reason = WhyPassed.TOO_MANY
            elif run.to_ms <= due.schedule.resumed_ms:
                reason = WhyPassed.PAUSED
            else:
                reason = WhyPassed.LATE if cursor.trouble is None else WhyPassed.DESTINATION
            missed = type is EventType.MISSED
            step.missed[reason if missed else EventType.SKIPPED, cursor.topic] += run.number
            account.missed_count += run.number
            if not missed:
                account.skipped += run.number
            account.history = self._arming.remembered(
                account.history,
                Fire(
                    run.from_ms,
                    step.now_ms,
                    due.schedule.revision,
                    0,
                    due.schedule.revision_origin,
                    Past.MISSED if missed else Past.SKIPPED,
                    run.to_ms,
                    run.number,
                ),
            )
            passed = Passed(type, run, reason)
            account.told.append(partial(self._events.passed, step, due.id, passed))

    def _run(
        self,
        step: Step,
        cursor: WheelCursor,
        due: DueFire,
        time: _Time,
        account: _Account,
    ) -> None:
        """Deliver one scheduled time."""
        fire = self._fire_id(due, time.scheduled_ms)
        account.fire_count += 1
        account.run_count += 1
        account.last_fire_id = fire
        account.history = self._arming.remembered(
            account.history,
            Fire(time.scheduled_ms, step.now_ms, due.schedule.revision, origin=due.schedule.revision_origin),
        )
        delivery = Delivery(
            due.id,
            fire,
            time.scheduled_ms,
            due.source,
            account.fire_count,
            account.skipped,
            account.last_fired_ms,
            time.next_ms,
        )
        delivered = self._writer.deliver(step, cursor, due, delivery, step.now_ms - time.due_ms)
        account.skipped = 0
        account.last_fired_ms = step.now_ms
        account.told.append(partial(self._events.fired, step, delivered))
