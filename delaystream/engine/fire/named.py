"""Fires of named schedules: each changes the schedule's record, and the last one ends it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace

from delaystream.codec.envelope import (
    Entry,
    Envelope,
    Fire,
    Forget,
    HoldEnd,
    Past,
    Pointer,
    Schedule,
    Status,
    Sweep,
    Trigger,
    Triggered,
    Wake,
    decode_entry,
    decode_envelope,
    decode_schedule,
    encode,
)
from delaystream.codec.event import EventType, WhyPassed
from delaystream.codec.keys import payload_key, schedule_key, split_wheel_key
from delaystream.codec.outgoing import Delivery
from delaystream.core.identity import named_fire_id, place, trigger_index
from delaystream.core.misfire import Run
from delaystream.core.rejection import Rejection
from delaystream.core.request import ON_LATE_DROP
from delaystream.engine.accept.bulk import Bulks
from delaystream.engine.fire.cursor import WheelCursor
from delaystream.engine.fire.due import DueFire, ReadAhead, Stored
from delaystream.engine.fire.recurring import RecurringFires
from delaystream.engine.fire.undeliverable import Undeliverable
from delaystream.engine.fire.writer import FireWriter
from delaystream.engine.output.events import Events, Passed, Undelivered
from delaystream.engine.policy.context import Context
from delaystream.engine.policy.lateness import for_once
from delaystream.engine.schedules.schedules import Schedules
from delaystream.engine.state.step import Step

# Naming a member through its class is slow (Python 3.11).
_TRIGGERED: Final = Past.TRIGGERED
_MISSED: Final = Past.MISSED
_FIRED: Final = Status.FIRED


class NamedFires:
    """Carries out the entries that point to a named schedule, and those of the housekeeping wheel."""

    def __init__(
        self,
        context: Context,
        schedules: Schedules,
        bulks: Bulks,
        undeliverable: Undeliverable,
        events: Events,
    ) -> None:
        self._commands = schedules.commands
        self._state = context.state
        self.ahead = ReadAhead(context.state)
        self._arming = schedules.arming
        self._undeliverable = undeliverable
        self._events = events
        self._bulks = bulks
        self._writer = FireWriter(schedules.arming)
        self._recurring = RecurringFires(
            context.settings, schedules.arming, undeliverable, events, self._writer
        )

    def due(
        self, step: Step, key: bytes, pointer: bytes, entry: Pointer | Trigger, stored: Stored
    ) -> DueFire:
        """An entry that came due, with what it points to."""
        at, record = stored
        _, due_ms, _, _, index = split_wheel_key(key)
        schedule = decode_schedule(record)
        payload = schedule.payload
        size_bytes = len(record)
        if payload is None:
            payload = self._state.get(step, payload_key(entry.tenant, entry.id))
            assert payload is not None, "a pending entry has its payload"
            size_bytes += len(payload)
        return DueFire(
            key,
            due_ms,
            index,
            entry,
            pointer,
            entry.id,
            at,
            schedule,
            decode_envelope(payload),
            schedule.source_text,
            size_bytes,
        )

    @property
    def bulks_at_work(self) -> bool:
        """Whether commands for many are at work: ask `called_off` before anything fires."""
        return self._bulks.busy

    def called_off(self, step: Step, key: bytes, stored: bytes, entry: Entry) -> bool:
        """Carry out such commands on an entry, or on its schedule; whether that took the entry out."""
        if type(entry) is Envelope:
            return self._bulks.flush_entry(step, key, stored, entry)
        if type(entry) is Pointer or type(entry) is Trigger or type(entry) is Wake:
            self._bulks.flush(step, entry.tenant, entry.id)
        return key in step.local

    def with_swept(self, key: bytes, entry: Envelope) -> Envelope:
        """An entry without an id as it goes to the topic for late ones, after `called_off` was asked."""
        return self._bulks.with_swept(key, entry) if self._bulks.busy else entry

    def rekeyed(self, step: Step, old: bytes, new: bytes, entry: Envelope) -> None:
        """An entry without an id has another key: whoever counts entries takes notice."""
        if self._bulks.busy:
            self._bulks.rekeyed(step, old, new, entry)

    def fire(self, step: Step, cursor: WheelCursor, due: DueFire) -> None:
        """Fire an entry that is out of its wheel: delivered, dropped, moved or given up; re-armed, too."""
        schedule, entry = due.schedule, due.entry
        step.size_bytes += due.size_bytes
        if type(entry) is Trigger:
            assert any(waiting.key == due.key for waiting in schedule.triggers), "a trigger is known"
            self._fire_trigger(step, cursor, due, entry)
            return
        assert due.key in schedule.pending, "a wheel entry is known to its schedule"
        assert schedule.revision == entry.revision, "a replaced schedule leaves no entry behind"
        if schedule.recurrence is None:
            self._fire_one(step, cursor, due)
        else:
            self._recurring.fire(step, cursor, due)

    def requeue(self, step: Step, cursor: WheelCursor, due: DueFire) -> None:
        """Put an entry that is out of its wheel in the tenant's own one for the same destination."""
        step.size_bytes += due.size_bytes
        schedule = due.schedule
        new = self._undeliverable.requeue(step, due.key, due.pointer, cursor.topic, pointer=True)
        schedule = replace(
            schedule,
            pending=[new if key == due.key else key for key in schedule.pending],
            triggers=[
                replace(waiting, key=new) if waiting.key == due.key else waiting
                for waiting in schedule.triggers
            ],
        )
        step.changes[due.schedule_key] = encode(schedule)

    def give_up(self, step: Step, due: DueFire, rejection: Rejection) -> None:
        """Put the fire of an entry that is out of its wheel among the dead letters; its schedule goes on."""
        step.size_bytes += due.size_bytes
        if type(due.entry) is Trigger or due.schedule.recurrence is None:
            self._give_up(step, due, rejection)
        else:
            self._recurring.give_up(step, due, rejection)

    def _give_up(self, step: Step, due: DueFire, rejection: Rejection) -> None:
        """The same for a fire that has its own entry: a triggered one, or one of a one-time schedule."""
        schedule, entry = due.schedule, due.entry
        if type(entry) is Trigger:
            fire, _, triggers = self._triggered(due, entry)
            left = replace(schedule, triggers=triggers)
        else:
            fire, _, pending = self._own(due)
            left = replace(schedule, pending=pending)
        undelivered = self._undeliverable.quarantine_named(step, due, fire, due.due_ms, rejection)
        over = Status.QUARANTINED if schedule.recurrence is None else Status.COMPLETED
        stored = self._writer.store(step, due, left, over)
        self._events.undelivered(step, due.id, undelivered, stored)
        self._completed(step, due, stored)

    # -- one-time -----------------------------------------------------------------------------

    def _fire_one(self, step: Step, cursor: WheelCursor, due: DueFire) -> None:
        schedule, due_ms = due.schedule, due.due_ms
        fire, index, pending = self._own(due)
        if schedule.once is not None and due_ms <= schedule.resumed_ms:
            due = replace(due, payload=for_once(due.payload, schedule.once))
        payload, rejection = due.payload, None
        if (
            payload.grace_ms >= 0
            and cursor.topic == schedule.destination
            and self._undeliverable.is_late(step, cursor, due_ms, payload)
        ):
            self._apply_on_late(step, cursor, due, replace(schedule, pending=pending), fire)
            return
        if cursor.suspicious or payload.destination_partition >= cursor.partitions:
            rejection = self._undeliverable.refusal(step, cursor, due.key, due_ms, payload)
        if rejection is not None:
            self._give_up(step, due, rejection)
        else:
            remembered = Fire(due_ms, step.now_ms, schedule.revision, index, schedule.revision_origin)
            if pending or schedule.held or schedule.triggers or schedule.until_key is not None:
                self._go_out(step, cursor, due, fire, remembered, _FIRED, pending=pending)
            else:
                count, last_ms = schedule.fire_count + 1, schedule.last_fired_ms
                delivery = Delivery(due.id, fire, due_ms, due.source, count, 0, last_ms)
                delivered = self._writer.deliver(step, cursor, due, delivery, step.now_ms - due_ms)
                history = self._arming.remembered(schedule.history, remembered)
                ended = self._writer.end(step, due, delivered, history)
                self._events.fired(step, delivered, ended)

    @staticmethod
    def _own(due: DueFire) -> tuple[str, int, list[bytes]]:
        """Fire id and list index of a one-time fire, and the other entries of its schedule."""
        schedule, index = due.schedule, due.index
        fire = named_fire_id(schedule.revision_place, schedule.revision, index, due.due_ms, due.id)
        pending = schedule.pending
        return fire, index, [key for key in pending if key != due.key] if len(pending) > 1 else []

    def _apply_on_late(
        self, step: Step, cursor: WheelCursor, due: DueFire, schedule: Schedule, fire: str
    ) -> None:
        """Drop a fire that is too late, or requeue it for the topic for late ones."""
        id, due_ms, on_late = due.id, due.due_ms, due.payload.on_late
        if on_late == ON_LATE_DROP:
            step.missed[EventType.EXPIRED, cursor.topic] += 1
            remembered = Fire(
                due_ms, step.now_ms, schedule.revision, 0, schedule.revision_origin, _MISSED, due_ms
            )
            schedule = replace(
                schedule,
                missed_count=schedule.missed_count + 1,
                history=self._arming.remembered(schedule.history, remembered),
            )
            schedule = self._writer.store(step, due, schedule, Status.DROPPED)
            run, headers = Run(due_ms, due_ms, 1), due.payload.headers
            passed = Passed(EventType.EXPIRED, run, WhyPassed.LATE, headers)
            self._events.passed(step, id, passed, schedule)
            return
        new = self._undeliverable.requeue(step, due.key, due.pointer, on_late, pointer=True)
        schedule = replace(schedule, pending=[*schedule.pending, new])
        step.changes[due.schedule_key] = encode(schedule)
        step.missed[EventType.MOVED, cursor.topic] += 1
        undelivered = Undelivered(EventType.MOVED, fire, due_ms, on_late, due.payload.headers)
        self._events.undelivered(step, id, undelivered, schedule)

    # -- triggered ----------------------------------------------------------------------------

    def _fire_trigger(self, step: Step, cursor: WheelCursor, due: DueFire, trigger: Trigger) -> None:
        rejection = self._undeliverable.refusal(step, cursor, due.key, due.due_ms, due.payload)
        if rejection is not None:
            self._give_up(step, due, rejection)
            return
        fire, index, triggers = self._triggered(due, trigger)
        remembered = Fire(
            due.due_ms, step.now_ms, trigger.revision, index, trigger.revision_origin, _TRIGGERED
        )
        over = _FIRED if due.schedule.recurrence is None else Status.COMPLETED
        stored = self._go_out(step, cursor, due, fire, remembered, over, triggers=triggers)
        self._completed(step, due, stored)

    @staticmethod
    def _triggered(due: DueFire, trigger: Trigger) -> tuple[str, str, list[Triggered]]:
        """Fire id and index of a triggered fire, and the others of its schedule that wait."""
        index = trigger_index(trigger.partition, trigger.offset, trigger.origin)
        revised = place(trigger.tenant, trigger.revision_origin)
        fire = named_fire_id(revised, trigger.revision, index, due.due_ms, due.id)
        return fire, index, [waiting for waiting in due.schedule.triggers if waiting.key != due.key]

    def _completed(self, step: Step, due: DueFire, schedule: Schedule) -> None:
        """Tell that a recurring schedule had no further time but a triggered one."""
        if schedule.status is Status.COMPLETED:
            self._events.completed(step, due.id, schedule)

    # -- both ---------------------------------------------------------------------------------

    def _go_out(
        self,
        step: Step,
        cursor: WheelCursor,
        due: DueFire,
        fire: str,
        remembered: Fire,
        over: Status,
        **left: list[bytes] | list[Triggered],
    ) -> Schedule:
        """Deliver a fire, store its schedule with what is `left` of it, and tell; as it is stored."""
        schedule, now_ms, due_ms = due.schedule, step.now_ms, due.due_ms
        count, next_ms = schedule.fire_count + 1, schedule.next_ms
        ahead_ms = next_ms if next_ms >= 0 else None
        delivery = Delivery(due.id, fire, due_ms, due.source, count, 0, schedule.last_fired_ms, ahead_ms)
        delivered = self._writer.deliver(step, cursor, due, delivery, now_ms - due_ms)
        schedule = replace(
            schedule,
            fire_count=count,
            last_fire_id=fire,
            last_fired_ms=now_ms,
            history=self._arming.remembered(schedule.history, remembered),
            **left,
        )
        schedule = self._writer.store(step, due, schedule, over)
        self._events.fired(step, delivered, schedule)
        return schedule

    # -- housekeeping ----------------------------------------------------------------------------

    def housekeep(
        self, step: Step, cursor: WheelCursor, entries: Iterable[tuple[bytes, bytes]]
    ) -> bytes | None:
        """Forget ids whose time of being remembered is over, end pauses and holds, go on with bulk commands.

        All of these are entries of the housekeeping wheel; the last that was taken out of it.
        """
        last: bytes | None = None
        for key, stored in entries:
            if last is not None and step.full:
                break
            last = cursor.at = key
            step.records += 1
            if key in step.local:
                continue
            entry = decode_entry(stored)
            if self.bulks_at_work and self.called_off(step, key, stored, entry):
                continue
            step.local[key] = None
            if type(entry) is Sweep:
                self._bulks.sweep(step, key, entry)
            elif type(entry) is Wake:
                self._commands.wake(step, key, entry)
            elif type(entry) is HoldEnd:
                self._bulks.end_hold(step, key, entry)
            else:
                assert type(entry) is Forget
                step.changes[schedule_key(entry.tenant, entry.id)] = None
                if not entry.revision:
                    # Only what was never known has none.
                    self._state.counts.forestall(entry.tenant, -1)
        return last
