"""Fires of named schedules: each changes the schedule's record, and the last one ends it."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from delaystream.codec.envelope import (
    Envelope,
    Forget,
    Pointer,
    Schedule,
    Status,
    decode_entry,
    decode_envelope,
    decode_schedule,
    encode,
)
from delaystream.codec.keys import payload_key, schedule_key, split_wheel_key
from delaystream.codec.outgoing import delivery_headers
from delaystream.core.identity import fire_id
from delaystream.core.request import ON_LATE_DROP
from delaystream.engine.control import Control
from delaystream.engine.drain import Drain
from delaystream.engine.state import PartitionState
from delaystream.engine.step import Step
from delaystream.engine.withheld import Withheld


class NamedFires:
    """Carries out the entries that point to a named schedule."""

    def __init__(self, state: PartitionState, control: Control, withheld: Withheld) -> None:
        self._state = state
        self._control = control
        self._withheld = withheld

    def payload(self, step: Step, pointer: Pointer) -> Envelope:
        """What is to be delivered."""
        stored = self._state.get(step, payload_key(pointer.tenant, pointer.id))
        assert stored is not None, "a pending entry has its payload"
        step.size_bytes += len(stored)
        return decode_envelope(stored)

    def fire(self, step: Step, drain: Drain, key: bytes, pointer: Pointer, partitions: int) -> None:
        """Take an entry out of its wheel: delivered, dropped, moved, or given up."""
        state, withheld = self._state, self._withheld
        tenant, id = pointer.tenant, pointer.id
        stored = state.get(step, schedule_key(tenant, id))
        assert stored is not None, "a pending entry has its schedule"
        schedule = decode_schedule(stored)
        step.size_bytes += len(stored)
        entry = self.payload(step, pointer)
        assert key in schedule.pending, "a wheel entry is known to its schedule"
        assert schedule.revision == pointer.revision, "a replaced schedule leaves no entry behind"
        _, due_ms, source, offset, index = split_wheel_key(key)
        now_ms = step.now_ms
        state.remove_entry(step, key)
        schedule = replace(schedule, pending=[other for other in schedule.pending if other != key])
        if drain.topic == schedule.destination and withheld.is_late(step, drain, due_ms, entry):
            if entry.on_late == ON_LATE_DROP:
                step.dropped[drain.topic] += 1
                self._over(step, pointer, schedule, Status.DROPPED)
            else:
                moved = withheld.move(step, key, encode(pointer), entry.on_late)
                schedule = replace(schedule, pending=[*schedule.pending, moved])
                step.changes[schedule_key(tenant, id)] = encode(schedule)
            return
        reason = withheld.reason(step, drain, key, due_ms, entry, partitions)
        if reason is not None:
            withheld.quarantine(step, drain, key, entry, reason, id)
            self._over(step, pointer, schedule, Status.QUARANTINED)
            return
        fire = fire_id(tenant, schedule.partition, offset, index, due_ms, id, schedule.revision)
        schedule = replace(schedule, fire_count=schedule.fire_count + 1, last_fire_id=fire)
        headers = delivery_headers(
            entry.headers,
            id,
            fire,
            due_ms,
            now_ms,
            f"{state.source_texts[source].decode()}{offset}",
            schedule.fire_count,
        )
        step.outlet(drain.topic, partitions).write(
            entry.destination_key if entry.has_destination_key else entry.key,
            entry.value,
            headers,
            now_ms,
            entry.destination_partition,
            key,
        )
        step.fired[drain.topic].append(now_ms - due_ms)
        self._over(step, pointer, schedule, Status.FIRED)

    def _over(self, step: Step, pointer: Pointer, schedule: Schedule, status: Status) -> None:
        """Store what is left of a schedule, which is over if nothing is pending any more."""
        tenant, id = pointer.tenant, pointer.id
        if schedule.pending:
            step.changes[schedule_key(tenant, id)] = encode(schedule)
            return
        step.changes[payload_key(tenant, id)] = None
        if schedule.fire_count:
            status = Status.FIRED
        self._control.finish(step, tenant, id, replace(schedule, status=status))

    def forget(self, step: Step, entries: Iterable[tuple[bytes, bytes]]) -> bytes | None:
        """Forget ids whose time of being remembered is over."""
        last: bytes | None = None
        for key, stored in entries:
            last = key
            if key in step.changes:
                continue
            entry = decode_entry(stored)
            assert type(entry) is Forget
            step.changes[schedule_key(entry.tenant, entry.id)] = None
            step.changes[key] = None
        return last
