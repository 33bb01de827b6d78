"""The entries of named schedules in the wheels: armed, taken out, and in the end forgotten."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace

from delaystream.codec.envelope import (
    INLINE_BYTES,
    LIVE,
    Envelope,
    Fire,
    Forget,
    Past,
    Pointer,
    Schedule,
    Status,
    Triggered,
    Wake,
    encode,
)
from delaystream.codec.keys import HOUSEKEEPING, payload_key, schedule_key, wheel_key
from delaystream.codec.requests.timing import first_after
from delaystream.core.identity import named_fire_id
from delaystream.core.recurrence import (
    CronError,
    Recurrence,
    UnknownZoneError,
    carried_on,
    due_ms,
    jittered_ms,
)
from delaystream.core.request import Coordinates
from delaystream.engine.settings import EngineSettings
from delaystream.engine.state.partition_state import PartitionState
from delaystream.engine.state.pointers import trigger_of
from delaystream.engine.state.step import Step

# Naming a member through its class is slow (Python 3.11).
_MISSED: Final = Past.MISSED


class Arming:
    """Keeps the records of named schedules and their wheel entries in step.

    Where a method takes a schedule and returns one, the caller stores what it returns.
    """

    def __init__(self, settings: EngineSettings, state: PartitionState) -> None:
        self._settings = settings
        self._state = state

    @staticmethod
    def begun(old: Schedule | None, recurrence: Recurrence, timestamp_ms: int) -> tuple[Recurrence, int, int]:
        """A recurrence that was asked for at `timestamp_ms`, as it is stored, and its first scheduled time.

        The third is for how many earlier times that one stands.

        It carries on a live schedule `old` whose times are the same: whoever sends a schedule again, as
        services do whenever they start, loses none of its times and gets none of them twice.
        """
        if old is not None and old.status in LIVE and old.recurrence is not None and old.next_ms >= 0:
            carried = carried_on(recurrence, timestamp_ms, old.recurrence, old.next_ms)
            if carried is not None:
                return *carried, old.skipped
        first_ms = first_after(recurrence, timestamp_ms)
        assert first_ms is not None, "a schedule that never fires was refused"
        return recurrence, first_ms, 0

    def due(self, id: str, schedule: Schedule, scheduled_ms: int) -> int:
        """When a scheduled time of a recurring schedule is due: with its jitter."""
        recurrence = schedule.recurrence
        assert recurrence is not None
        return jittered(recurrence, schedule.revision_place, schedule.revision, id, scheduled_ms)

    def arm(self, step: Step, id: str, schedule: Schedule, scheduled_ms: int) -> Schedule:
        """Put the next fire of a recurring schedule in its wheel, its only one there."""
        pointer = encode(Pointer(schedule.topic, id, schedule.revision))
        key = self.point(step, schedule, self.due(id, schedule, scheduled_ms), pointer)
        return replace(schedule, pending=[key], next_ms=scheduled_ms)

    def point(self, step: Step, schedule: Schedule, due_ms: int, pointer: bytes, index: int = 0) -> bytes:
        """Put an entry in the wheel of a schedule's destination; its key."""
        state = self._state
        number = state.source(step, schedule.topic, schedule.partition, schedule.origin)
        wheel = state.wheel_number(step, schedule.destination, schedule.topic)
        key = wheel_key(wheel, due_ms, number, schedule.offset, index)
        state.add_pointer(step, key, pointer, wheel, due_ms, number)
        return key

    def arm_all(self, step: Step, id: str, schedule: Schedule, fires: Iterable[tuple[int, int]]) -> Schedule:
        """Put fires, as (due_ms, list index), in the wheel of the schedule's destination."""
        pending = self.entries(step, id, schedule.source, schedule.destination, schedule.revision, fires)
        return replace(schedule, pending=pending)

    def entries(
        self,
        step: Step,
        id: str,
        source: Coordinates,
        destination: str,
        revision: int,
        fires: Iterable[tuple[int, int]],
    ) -> list[bytes]:
        """Put fires, as (due_ms, list index), of a revision in the wheel of a destination; their keys."""
        state, topic, offset = self._state, source.topic, source.offset
        number = state.source(step, topic, source.partition, source.origin)
        wheel = state.wheel_number(step, destination, topic)
        pointer = encode(Pointer(topic, id, revision))
        keys: list[bytes] = []
        for at_ms, index in fires:
            key = wheel_key(wheel, at_ms, number, offset, index)
            state.add_pointer(step, key, pointer, wheel, at_ms, number)
            keys.append(key)
        return keys

    def arm_trigger(self, step: Step, id: str, schedule: Schedule, command: Coordinates) -> Schedule:
        """Put a fire that is due now in the wheel, beside those of the schedule."""
        state = self._state
        number = state.source(step, command.topic, command.partition, command.origin)
        wheel = state.wheel_number(step, schedule.destination, schedule.topic)
        key = wheel_key(wheel, step.now_ms, number, command.offset, 0)
        waiting = Triggered(
            key, schedule.revision, command.partition, command.origin, schedule.revision_origin
        )
        pointer = encode(trigger_of(schedule.topic, id, waiting))
        state.add_pointer(step, key, pointer, wheel, step.now_ms, number)
        return replace(schedule, triggers=[*schedule.triggers, waiting])

    def disarm(self, step: Step, schedule: Schedule) -> Schedule:
        """Take the schedule's own fires out of the wheels; triggered ones stay."""
        for key in schedule.pending:
            self._state.remove_pointer(step, key)
        return replace(schedule, pending=[])

    def wake(self, step: Step, id: str, schedule: Schedule, until_ms: int | None) -> Schedule:
        """Have a paused schedule resumed at `until_ms`; None: not by itself."""
        if schedule.until_key is not None:
            self._state.remove_pointer(step, schedule.until_key)
        key = None
        if until_ms is not None:
            number = self._state.source(step, schedule.topic, schedule.partition, schedule.origin)
            # Beside the entry by which it is forgotten, which has index 0.
            key = wheel_key(HOUSEKEEPING, until_ms, number, schedule.offset, 1)
            entry = encode(Wake(schedule.topic, id))
            self._state.add_pointer(step, key, entry, HOUSEKEEPING, until_ms, number)
        return replace(schedule, until_key=key)

    def clear(self, step: Step, tenant: str, id: str, old: Schedule) -> None:
        """Take out everything that belongs to an old revision but its record."""
        for key in (*old.pending, *[waiting.key for waiting in old.triggers]):
            self._state.remove_pointer(step, key)
        for housekeeping in (old.forget_key, old.until_key):
            if housekeeping is not None:
                self._state.remove_pointer(step, housekeeping)
        self._state.counts.add_paused(old.topic, -old.paused_fires)
        if old.status is Status.FORESTALLED:
            self._state.counts.forestall(tenant, -1)
        if old.status in LIVE:
            self.drop_payload(step, tenant, id, old)

    @staticmethod
    def keep_payload(step: Step, tenant: str, id: str, payload: Envelope) -> bytes | None:
        """Keep what a schedule delivers: as its `payload` if it is small, else in a row of its own (None)."""
        stored = encode(payload)
        if len(stored) <= INLINE_BYTES:
            return stored
        step.changes[payload_key(tenant, id)] = stored
        return None

    @staticmethod
    def drop_payload(step: Step, tenant: str, id: str, schedule: Schedule) -> None:
        """Take out the row of a schedule's payload, if it has one; the schedule's own is the caller's."""
        if schedule.payload is None:
            step.changes[payload_key(tenant, id)] = None

    def count_paused(self, old: Schedule, new: Schedule) -> None:
        """Count what a pause keeps out of the wheels: still its tenant's, though nothing of it is due."""
        self._state.counts.add_paused(old.topic, new.paused_fires - old.paused_fires)

    def remembered(self, history: list[Fire], fire: Fire) -> list[Fire]:
        """The history with one more fire or run, and without what is more than it may hold.

        A run that follows another one of its kind, of the same revision, makes it longer.
        """
        length = self._settings.history_length
        if length == 0:
            return []
        if fire.kind >= _MISSED and history:
            last = history[-1]
            if (last.kind, last.revision, last.origin) == (fire.kind, fire.revision, fire.origin):
                longer = replace(
                    last, fired_ms=fire.fired_ms, to_ms=fire.to_ms, count=last.count + fire.count
                )
                return [*history[:-1], longer]
        return [*history[max(0, len(history) - length + 1) :], fire]

    def forget(self, step: Step, id: str, schedule: Schedule) -> bytes:
        """Have an id that is over forgotten in time; the key of its entry, which its record holds."""
        state, tenant = self._state, schedule.topic
        number = state.source(step, tenant, schedule.partition, schedule.origin)
        due_ms = step.now_ms + self._settings.id_retention_ms
        key = wheel_key(HOUSEKEEPING, due_ms, number, schedule.offset, 0)
        entry = encode(Forget(tenant, id, schedule.revision))
        state.add_pointer(step, key, entry, HOUSEKEEPING, due_ms, number)
        return key

    def finish(self, step: Step, id: str, schedule: Schedule, status: Status) -> Schedule:
        """Store the record of an id that is over, with its last status, to be forgotten in time."""
        state = self._state
        if status is Status.FORESTALLED:
            state.counts.forestall(schedule.topic, 1)
        if schedule.until_key is not None and step.local.get(schedule.until_key, b"") is not None:
            # A triggered fire was all that was ahead of it, and is out: there is no pause any more to end.
            state.remove_pointer(step, schedule.until_key)
        schedule = replace(
            schedule,
            status=status,
            pending=[],
            held=[],
            triggers=[],
            next_ms=-1,
            payload=None,
            forget_key=self.forget(step, id, schedule),
            until_key=None,
            once=None,
        )
        step.changes[schedule_key(schedule.topic, id)] = encode(schedule)
        return schedule


def jittered(recurrence: Recurrence, place: str, revision: int, id: str, scheduled_ms: int) -> int:
    """When a scheduled time of a revision is due: with its jitter, which follows from the fire's id."""
    if not recurrence.jitter_ms:
        return scheduled_ms
    fire = named_fire_id(place, revision, 0, scheduled_ms, id)
    try:
        return due_ms(recurrence, scheduled_ms, fire)
    except (CronError, UnknownZoneError):
        # Firing pauses it: it cannot be read any more.
        return jittered_ms(scheduled_ms, fire, recurrence.jitter_ms)
