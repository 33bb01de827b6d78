"""Fires of named schedules: each changes the schedule's record, and the last one ends it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, TypeAlias

from msgspec.structs import replace

from delaystream.codec.envelope import (
    Envelope,
    Fire,
    Forget,
    Pointer,
    Schedule,
    Status,
    Sweep,
    Trigger,
    decode_entry,
    decode_envelope,
    decode_schedule,
    encode,
)
from delaystream.codec.event import EventType
from delaystream.codec.keys import payload_key, schedule_key, split_wheel_key
from delaystream.codec.outgoing import delivery_headers
from delaystream.core.identity import fire_id, schedule_id, trigger_index
from delaystream.core.misfire import DEFAULT_GRACE_MS, Run, Verdict, settle
from delaystream.core.recurrence import next_after
from delaystream.core.request import ON_LATE_DROP, CatchUp
from delaystream.dialects import filled
from delaystream.engine.arming import Arming
from delaystream.engine.bulk import Bulks
from delaystream.engine.drain import Drain
from delaystream.engine.events import Events
from delaystream.engine.settings import EngineSettings
from delaystream.engine.state import PartitionState
from delaystream.engine.step import Step
from delaystream.engine.withheld import Withheld

#: most deliveries of one schedule in one step, when it catches up on all that it has missed
_CAUGHT_UP_AT_ONCE: Final = 100


class NamedFires:
    """Carries out the entries that point to a named schedule, and those of the housekeeping wheel."""

    def __init__(
        self,
        settings: EngineSettings,
        state: PartitionState,
        arming: Arming,
        withheld: Withheld,
        events: Events,
        bulks: Bulks,
    ) -> None:
        self._settings = settings
        self._state = state
        self._arming = arming
        self._withheld = withheld
        self._events = events
        self._bulks = bulks

    def payload(self, step: Step, pointer: Pointer | Trigger) -> Envelope:
        """What is to be delivered."""
        stored = self._state.get(step, payload_key(pointer.tenant, pointer.id))
        assert stored is not None, "a pending entry has its payload"
        step.size_bytes += len(stored)
        return decode_envelope(stored)

    def fire(self, step: Step, drain: Drain, key: bytes, pointer: Pointer | Trigger, partitions: int) -> None:
        """Take an entry out of its wheel: delivered, dropped, moved, given up; re-armed if it recurs."""
        tenant, id = pointer.tenant, pointer.id
        stored = self._state.get(step, schedule_key(tenant, id))
        assert stored is not None, "a pending entry has its schedule"
        schedule = decode_schedule(stored)
        step.size_bytes += len(stored)
        entry = self.payload(step, pointer)
        self._state.remove_entry(step, key)
        if type(pointer) is Trigger:
            assert key in schedule.triggers, "a triggered fire is known to its schedule"
            self._fire_trigger(step, drain, key, pointer, schedule, entry, partitions)
            return
        assert key in schedule.pending, "a wheel entry is known to its schedule"
        assert schedule.revision == pointer.revision, "a replaced schedule leaves no entry behind"
        if schedule.recurrence is None:
            self._fire_one(step, drain, key, id, schedule, entry, partitions)
        else:
            self._fire_recurring(step, drain, key, id, schedule, entry, partitions)

    # -- one-time -----------------------------------------------------------------------------

    def _fire_one(
        self,
        step: Step,
        drain: Drain,
        key: bytes,
        id: str,
        schedule: Schedule,
        entry: Envelope,
        partitions: int,
    ) -> None:
        withheld = self._withheld
        _, due_ms, _, _, index = split_wheel_key(key)
        schedule = replace(schedule, pending=[other for other in schedule.pending if other != key])
        if drain.topic == schedule.destination and withheld.is_late(step, drain, due_ms, entry):
            if entry.on_late == ON_LATE_DROP:
                step.missed["expired", drain.topic] += 1
                schedule = replace(schedule, missed_count=schedule.missed_count + 1)
                schedule = self._store(step, id, schedule, Status.DROPPED)
                self._events.passed(
                    step, id, schedule, type=EventType.EXPIRED, run=Run(due_ms, due_ms, 1), reason="late"
                )
            else:
                pointer = encode(Pointer(schedule.topic, id, schedule.revision))
                moved = withheld.move(step, key, pointer, entry.on_late)
                schedule = replace(schedule, pending=[*schedule.pending, moved])
                step.changes[schedule_key(schedule.topic, id)] = encode(schedule)
            return
        reason = withheld.reason(step, drain, key, due_ms, entry, partitions)
        if reason is not None:
            withheld.quarantine(step, drain, key, entry, reason, id)
            schedule = self._store(step, id, schedule, Status.QUARANTINED)
            self._events.gave_up(step, id, schedule, due_ms=due_ms, destination=drain.topic, detail=reason)
            return
        fire = fire_id(schedule.topic, 0, 0, index, due_ms, id, schedule.revision)
        schedule = self._fired(schedule, fire, Fire(due_ms, step.now_ms, schedule.revision, index))
        partition = self._deliver(step, drain, key, id, schedule, entry, partitions, fire, due_ms)
        lateness_ms = step.now_ms - due_ms
        step.fired[drain.topic].append(lateness_ms)
        schedule = self._store(step, id, schedule, Status.FIRED)
        self._events.fired(
            step,
            id,
            schedule,
            fire_id=fire,
            due_ms=due_ms,
            lateness_ms=lateness_ms,
            destination=drain.topic,
            partition=partition,
            fire_count=schedule.fire_count,
        )

    # -- recurring ----------------------------------------------------------------------------

    def _fire_recurring(
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
        if schedule.catch_up is CatchUp.NONE:
            grace_ms = min(grace_ms, self._settings.misfire_threshold_ms)
        due = partial(self._arming.due, id, schedule)
        told: list[_Told] = []
        next_ms: int | None = schedule.next_ms
        schedule = replace(schedule, pending=[], next_ms=-1)
        for _ in range(_CAUGHT_UP_AT_ONCE):
            assert next_ms is not None, "a recurring schedule in a wheel has a next time"
            verdict = settle(recurrence, next_ms, step.now_ms, schedule.catch_up, grace_ms, due)
            schedule = self._passed(step, drain, id, schedule, verdict, told)
            next_ms = verdict.next_ms
            if verdict.fire_ms is not None:
                due_ms = due(verdict.fire_ms)
                reason = self._withheld.reason(step, drain, key, due_ms, entry, partitions)
                if reason is not None:
                    self._withheld.quarantine(step, drain, key, entry, reason, id)
                    told.append(
                        partial(
                            self._events.gave_up,
                            step,
                            id,
                            due_ms=verdict.fire_ms,
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
        if next_ms is not None:
            schedule = self._arming.arm(step, id, schedule, next_ms)
        schedule = self._store(step, id, schedule, Status.COMPLETED)
        for tell in told:
            tell(schedule)
        if schedule.status is Status.COMPLETED:
            self._events.completed(step, id, schedule)

    def _passed(
        self, step: Step, drain: Drain, id: str, schedule: Schedule, verdict: Verdict, told: list[_Told]
    ) -> Schedule:
        """Count and tell the scheduled times that do not fire."""
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
        fire = fire_id(schedule.topic, 0, 0, 0, scheduled_ms, id, schedule.revision)
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
        partition = self._deliver(
            step, drain, key, id, schedule, entry, partitions, fire, scheduled_ms, skipped
        )
        step.fired[drain.topic].append(lateness_ms)
        told.append(
            partial(
                self._events.fired,
                step,
                id,
                fire_id=fire,
                due_ms=scheduled_ms,
                lateness_ms=lateness_ms,
                destination=drain.topic,
                partition=partition,
                fire_count=schedule.fire_count,
                skipped=skipped,
            )
        )
        return schedule

    # -- triggered ----------------------------------------------------------------------------

    def _fire_trigger(
        self,
        step: Step,
        drain: Drain,
        key: bytes,
        trigger: Trigger,
        schedule: Schedule,
        entry: Envelope,
        partitions: int,
    ) -> None:
        id = trigger.id
        _, due_ms, _, _, _ = split_wheel_key(key)
        schedule = replace(schedule, triggers=[other for other in schedule.triggers if other != key])
        over = Status.FIRED if schedule.recurrence is None else Status.COMPLETED
        reason = self._withheld.reason(step, drain, key, due_ms, entry, partitions)
        if reason is not None:
            self._withheld.quarantine(step, drain, key, entry, reason, id)
            given_up = Status.QUARANTINED if schedule.recurrence is None else over
            schedule = self._store(step, id, schedule, given_up)
            self._events.gave_up(step, id, schedule, due_ms=due_ms, destination=drain.topic, detail=reason)
            return
        index = trigger_index(trigger.partition, trigger.offset)
        fire = fire_id(trigger.tenant, 0, 0, index, due_ms, id, trigger.revision)
        schedule = self._fired(schedule, fire, Fire(due_ms, step.now_ms, trigger.revision, index))
        partition = self._deliver(step, drain, key, id, schedule, entry, partitions, fire, due_ms)
        lateness_ms = step.now_ms - due_ms
        step.fired[drain.topic].append(lateness_ms)
        schedule = self._store(step, id, schedule, over)
        self._events.fired(
            step,
            id,
            schedule,
            fire_id=fire,
            due_ms=due_ms,
            lateness_ms=lateness_ms,
            destination=drain.topic,
            partition=partition,
            fire_count=schedule.fire_count,
        )

    # -- all ----------------------------------------------------------------------------------

    def _fired(self, schedule: Schedule, fire: str, remembered: Fire) -> Schedule:
        return replace(
            schedule,
            fire_count=schedule.fire_count + 1,
            last_fire_id=fire,
            history=self._arming.remembered(schedule.history, remembered),
        )

    def _deliver(
        self,
        step: Step,
        drain: Drain,
        key: bytes,
        id: str,
        schedule: Schedule,
        entry: Envelope,
        partitions: int,
        fire: str,
        due_ms: int,
        skipped: int = 0,
    ) -> int:
        """Write a delivery; the partition that it goes to."""
        own = entry.headers
        if schedule.recurrence is not None:
            own = filled(own, due_ms, partial(_following, schedule, due_ms))
        headers = delivery_headers(
            own,
            id,
            fire,
            due_ms,
            step.now_ms,
            schedule_id(schedule.topic, schedule.partition, schedule.offset),
            schedule.fire_count,
            skipped,
        )
        return step.outlet(drain.topic, partitions).write(
            entry.destination_key if entry.has_destination_key else entry.key,
            entry.value,
            headers,
            step.now_ms,
            entry.destination_partition,
            key,
        )

    def _store(self, step: Step, id: str, schedule: Schedule, over: Status) -> Schedule:
        """Store what is left of a schedule, which is over if nothing of it is ahead any more."""
        tenant = schedule.topic
        if not schedule.over:
            step.changes[schedule_key(tenant, id)] = encode(schedule)
            return schedule
        step.changes[payload_key(tenant, id)] = None
        if schedule.recurrence is None and schedule.fire_count:
            over = Status.FIRED
        return self._arming.finish(step, id, replace(schedule, status=over))

    def housekeep(self, step: Step, entries: Iterable[tuple[bytes, bytes]]) -> bytes | None:
        """Forget ids whose time of being remembered is over, and go on with bulk commands."""
        last: bytes | None = None
        for key, stored in entries:
            last = key
            if key in step.changes:
                continue
            entry = decode_entry(stored)
            step.changes[key] = None
            if type(entry) is Sweep:
                self._bulks.sweep(step, key, entry)
            else:
                assert type(entry) is Forget
                step.changes[schedule_key(entry.tenant, entry.id)] = None
        return last


def _following(schedule: Schedule, scheduled_ms: int) -> int | None:
    """The scheduled time after this one; None after the last."""
    recurrence = schedule.recurrence
    assert recurrence is not None
    if schedule.next_ms >= 0:
        return schedule.next_ms
    if recurrence.max_fires and schedule.run_count >= recurrence.max_fires:
        return None
    return next_after(recurrence, scheduled_ms)


_Told: TypeAlias = Callable[[Schedule], None]
