"""Fires of named schedules: each changes the schedule's record, and the last one ends it."""

from __future__ import annotations

from collections.abc import Iterable

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
from delaystream.codec.keys import due_of, payload_key, schedule_key, split_wheel_key
from delaystream.core.identity import fire_id, trigger_index
from delaystream.core.misfire import Run
from delaystream.core.request import ON_LATE_DROP
from delaystream.engine.arming import Arming
from delaystream.engine.bulk import Bulks
from delaystream.engine.drain import Drain
from delaystream.engine.events import Delivered, Events
from delaystream.engine.fire_records import FireRecords
from delaystream.engine.read_ahead import NOTHING_AHEAD, Ahead, ReadAhead
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
        self._state = state
        self.ahead = ReadAhead(state.store)
        self._withheld = withheld
        self._events = events
        self._bulks = bulks
        self._records = FireRecords(arming)
        self._recurring = RecurringFires(settings, arming, withheld, events, self._records)

    def _read(self, step: Step, key: bytes, ahead: Ahead) -> bytes | None:
        """A value, as the step has left it so far."""
        return ahead[key] if key in ahead and key not in step.changes else self._state.get(step, key)

    def payload(self, step: Step, pointer: Pointer | Trigger, ahead: Ahead = NOTHING_AHEAD) -> Envelope:
        """What is to be delivered."""
        stored = self._read(step, payload_key(pointer.tenant, pointer.id), ahead)
        assert stored is not None, "a pending entry has its payload"
        step.size_bytes += len(stored)
        return decode_envelope(stored)

    def fire(
        self,
        step: Step,
        drain: Drain,
        key: bytes,
        pointer: Pointer | Trigger,
        partitions: int,
        ahead: Ahead = NOTHING_AHEAD,
    ) -> None:
        """Take an entry out of its wheel: delivered, dropped, moved, given up; re-armed if it recurs.

        ``ahead`` is what the entry points to, if it was read since the last step was applied.
        """
        tenant, id = pointer.tenant, pointer.id
        stored = self._read(step, schedule_key(tenant, id), ahead)
        assert stored is not None, "a pending entry has its schedule"
        schedule = decode_schedule(stored)
        step.size_bytes += len(stored)
        entry = self.payload(step, pointer, ahead)
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
            self._recurring.fire(step, drain, key, id, schedule, entry, partitions)

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
        fire = fire_id(schedule.topic, 0, 0, index, due_ms, id, schedule.revision)
        schedule = replace(schedule, pending=[other for other in schedule.pending if other != key])
        if drain.topic == schedule.destination and withheld.is_late(step, drain, due_ms, entry):
            if entry.on_late == ON_LATE_DROP:
                step.missed["expired", drain.topic] += 1
                schedule = replace(schedule, missed_count=schedule.missed_count + 1)
                schedule = self._records.store(step, id, schedule, Status.DROPPED)
                self._events.passed(
                    step, id, schedule, type=EventType.EXPIRED, run=Run(due_ms, due_ms, 1), reason="late"
                )
            else:
                pointer = encode(Pointer(schedule.topic, id, schedule.revision))
                moved = withheld.move(step, key, pointer, entry.on_late)
                schedule = replace(schedule, pending=[*schedule.pending, moved])
                step.changes[schedule_key(schedule.topic, id)] = encode(schedule)
                step.missed["moved", drain.topic] += 1
                self._events.moved(step, id, schedule, due_ms=due_ms, fire_id=fire, destination=entry.on_late)
            return
        reason = withheld.reason(step, drain, key, due_ms, entry, partitions)
        if reason is not None:
            withheld.quarantine_named(step, drain, key, entry, reason, id, schedule, fire, due_ms)
            schedule = self._records.store(step, id, schedule, Status.QUARANTINED)
            self._events.gave_up(
                step, id, schedule, due_ms=due_ms, fire_id=fire, destination=drain.topic, detail=reason
            )
            return
        remembered = Fire(due_ms, step.now_ms, schedule.revision, index)
        self._go_out(step, drain, key, id, schedule, entry, partitions, fire, remembered, Status.FIRED)

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
        due_ms = due_of(key)
        schedule = replace(schedule, triggers=[other for other in schedule.triggers if other != key])
        over = Status.FIRED if schedule.recurrence is None else Status.COMPLETED
        index = trigger_index(trigger.partition, trigger.offset)
        fire = fire_id(trigger.tenant, 0, 0, index, due_ms, id, trigger.revision)
        reason = self._withheld.reason(step, drain, key, due_ms, entry, partitions)
        if reason is not None:
            self._withheld.quarantine_named(step, drain, key, entry, reason, id, schedule, fire, due_ms)
            given_up = Status.QUARANTINED if schedule.recurrence is None else over
            schedule = self._records.store(step, id, schedule, given_up)
            self._events.gave_up(
                step, id, schedule, due_ms=due_ms, fire_id=fire, destination=drain.topic, detail=reason
            )
            self._tell_completed(step, id, schedule)
            return
        remembered = Fire(due_ms, step.now_ms, trigger.revision, index)
        schedule = self._go_out(step, drain, key, id, schedule, entry, partitions, fire, remembered, over)
        self._tell_completed(step, id, schedule)

    # -- both ---------------------------------------------------------------------------------

    def _go_out(
        self,
        step: Step,
        drain: Drain,
        key: bytes,
        id: str,
        schedule: Schedule,
        entry: Envelope,
        partitions: int,
        fire: str,
        remembered: Fire,
        over: Status,
    ) -> Schedule:
        """Deliver a fire, store what is left of its schedule, and tell; returns what is left."""
        due_ms = remembered.due_ms
        schedule = self._records.fired(schedule, fire, remembered)
        partition = self._records.deliver(step, drain, key, id, schedule, entry, partitions, fire, due_ms)
        lateness_ms = step.now_ms - due_ms
        step.fired[drain.topic].append(lateness_ms)
        schedule = self._records.store(step, id, schedule, over)
        delivered = Delivered(fire, due_ms, lateness_ms, drain.topic, partition, schedule.fire_count)
        self._events.fired(step, id, delivered, schedule)
        return schedule

    def _tell_completed(self, step: Step, id: str, schedule: Schedule) -> None:
        """Tell that a recurring schedule, which had no further time but this fire, is over."""
        if schedule.status is Status.COMPLETED:
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
