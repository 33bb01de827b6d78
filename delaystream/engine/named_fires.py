"""Fires of named schedules: each changes the schedule's record, and the last one ends it."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from delaystream.codec.envelope import (
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
from delaystream.codec.keys import schedule_key, split_wheel_key
from delaystream.core.identity import named_fire_id, schedule_id, trigger_index
from delaystream.core.misfire import Run
from delaystream.core.request import ON_LATE_DROP
from delaystream.engine.arming import Arming
from delaystream.engine.bulk import Bulks
from delaystream.engine.drain import Drain
from delaystream.engine.due_fire import DueFire
from delaystream.engine.events import Events
from delaystream.engine.fire_records import FireRecords
from delaystream.engine.read_ahead import ReadAhead, Stored
from delaystream.engine.recurring_fires import RecurringFires
from delaystream.engine.settings import EngineSettings
from delaystream.engine.state import PartitionState
from delaystream.engine.step import Step
from delaystream.engine.withheld import Withheld


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
        self.ahead = ReadAhead(state)
        self._arming = arming
        self._withheld = withheld
        self._events = events
        self._bulks = bulks
        self._records = FireRecords(arming)
        self._recurring = RecurringFires(settings, arming, withheld, events, self._records)

    def due(
        self, key: bytes, due_ms: int, pointer: bytes, entry: Pointer | Trigger, stored: Stored
    ) -> DueFire:
        """An entry that came due, with what it points to."""
        at, record, payload = stored
        schedule = decode_schedule(record)
        return DueFire(
            key,
            due_ms,
            entry,
            pointer,
            entry.id,
            at,
            schedule,
            decode_envelope(payload),
            schedule_id(schedule.topic, schedule.partition, schedule.offset),
            len(record) + len(payload),
        )

    def fire(self, step: Step, drain: Drain, due: DueFire) -> None:
        """Fire an entry that is out of its wheel: delivered, dropped, moved or given up; re-armed, too."""
        schedule, entry = due.schedule, due.entry
        step.size_bytes += due.size_bytes
        if type(entry) is Trigger:
            assert due.key in schedule.triggers, "a triggered fire is known to its schedule"
            self._fire_trigger(step, drain, due, entry, schedule)
            return
        assert due.key in schedule.pending, "a wheel entry is known to its schedule"
        assert schedule.revision == entry.revision, "a replaced schedule leaves no entry behind"
        if schedule.recurrence is None:
            self._fire_one(step, drain, due)
        else:
            self._recurring.fire(step, drain, due)

    # -- one-time -----------------------------------------------------------------------------

    def _fire_one(self, step: Step, drain: Drain, due: DueFire) -> None:
        withheld = self._withheld
        schedule, id, due_ms = due.schedule, due.id, due.due_ms
        index = split_wheel_key(due.key)[4]
        fire = named_fire_id(schedule.topic, schedule.revision, index, due_ms, id)
        left = [other for other in schedule.pending if other != due.key]
        if drain.topic == schedule.destination and withheld.is_late(step, drain, due_ms, due.payload):
            self._pass(step, drain, due, replace(schedule, pending=left), fire)
            return
        reason = withheld.reason(step, drain, due.key, due_ms, due.payload)
        if reason is not None:
            withheld.quarantine_named(step, drain, due, fire, due_ms, reason)
            schedule = self._records.store(step, due, replace(schedule, pending=left), Status.QUARANTINED)
            self._events.gave_up(
                step, id, schedule, due_ms=due_ms, fire_id=fire, destination=drain.topic, detail=reason
            )
            return
        remembered = Fire(due_ms, step.now_ms, schedule.revision, index)
        delivered = self._records.deliver(
            step, drain, due, fire, due_ms, schedule.fire_count + 1, step.now_ms - due_ms
        )
        schedule = replace(
            schedule,
            pending=left,
            fire_count=delivered.fire_count,
            last_fire_id=fire,
            history=self._arming.remembered(schedule.history, remembered),
        )
        self._events.fired(step, id, delivered, self._records.store(step, due, schedule, Status.FIRED))

    def _pass(self, step: Step, drain: Drain, due: DueFire, schedule: Schedule, fire: str) -> None:
        """Drop a fire that is too late, or file it under the topic for late ones."""
        id, due_ms, on_late = due.id, due.due_ms, due.payload.on_late
        if on_late == ON_LATE_DROP:
            step.missed["expired", drain.topic] += 1
            schedule = replace(schedule, missed_count=schedule.missed_count + 1)
            schedule = self._records.store(step, due, schedule, Status.DROPPED)
            self._events.passed(
                step, id, schedule, type=EventType.EXPIRED, run=Run(due_ms, due_ms, 1), reason="late"
            )
            return
        moved = self._withheld.move(step, due.key, due.pointer, on_late)
        schedule = replace(schedule, pending=[*schedule.pending, moved])
        step.changes[due.schedule_key] = encode(schedule)
        step.missed["moved", drain.topic] += 1
        self._events.moved(step, id, schedule, due_ms=due_ms, fire_id=fire, destination=on_late)

    # -- triggered ----------------------------------------------------------------------------

    def _fire_trigger(
        self, step: Step, drain: Drain, due: DueFire, trigger: Trigger, schedule: Schedule
    ) -> None:
        id, due_ms, records = due.id, due.due_ms, self._records
        left = [other for other in schedule.triggers if other != due.key]
        over = Status.FIRED if schedule.recurrence is None else Status.COMPLETED
        index = trigger_index(trigger.partition, trigger.offset)
        fire = named_fire_id(trigger.tenant, trigger.revision, index, due_ms, id)
        reason = self._withheld.reason(step, drain, due.key, due_ms, due.payload)
        if reason is not None:
            self._withheld.quarantine_named(step, drain, due, fire, due_ms, reason)
            given_up = Status.QUARANTINED if schedule.recurrence is None else over
            schedule = records.store(step, due, replace(schedule, triggers=left), given_up)
            self._events.gave_up(
                step, id, schedule, due_ms=due_ms, fire_id=fire, destination=drain.topic, detail=reason
            )
        else:
            remembered = Fire(due_ms, step.now_ms, trigger.revision, index)
            count, lateness_ms = schedule.fire_count + 1, step.now_ms - due_ms
            next_ms = schedule.next_ms if schedule.next_ms >= 0 else None
            delivered = records.deliver(step, drain, due, fire, due_ms, count, lateness_ms, next_ms=next_ms)
            schedule = replace(
                schedule,
                triggers=left,
                fire_count=count,
                last_fire_id=fire,
                history=self._arming.remembered(schedule.history, remembered),
            )
            schedule = records.store(step, due, schedule, over)
            self._events.fired(step, id, delivered, schedule)
        if schedule.status is Status.COMPLETED:
            # It had no further time but this fire.
            self._events.completed(step, id, schedule)

    # -- housekeeping ----------------------------------------------------------------------------

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
