"""Fires that do not go out: too late, moved to the topic for late ones, or given up as impossible."""

from __future__ import annotations

from typing import Final, Literal

from msgspec.structs import replace

from delaystream.codec.envelope import (
    UNREADABLE,
    Envelope,
    Pointer,
    Schedule,
    Trigger,
    decode_entry,
    decode_schedule,
    encode,
)
from delaystream.codec.event import EventType
from delaystream.codec.keys import (
    due_of,
    in_wheel,
    payload_key,
    schedule_key,
    source_of,
    split_wheel_key,
    wheel_of,
)
from delaystream.codec.outgoing import DUE_AT, FIRE_ID, SCHEDULE_ID
from delaystream.codec.requests.names import PREFIX
from delaystream.core.record import Record
from delaystream.core.rejection import Code, Rejection
from delaystream.core.request import ON_LATE_DROP, ON_LATE_FIRE, Coordinates, Header
from delaystream.engine.fire.cursor import WheelCursor
from delaystream.engine.fire.due import DueFire
from delaystream.engine.output.events import Events, Undelivered
from delaystream.engine.output.letters import Letters
from delaystream.engine.policy.context import Context
from delaystream.engine.state.step import Step

# Naming a member through its class is slow (Python 3.11).
_QUARANTINED: Final = EventType.QUARANTINED


class Undeliverable:
    """Takes out of the wheels what is not to be delivered as it was asked for."""

    def __init__(self, context: Context, letters: Letters, events: Events) -> None:
        self._settings = context.settings
        self._state = context.state
        self._health = context.health
        self._letters = letters
        self._events = events

    # -- late ---------------------------------------------------------------------------------

    def is_late(self, step: Step, cursor: WheelCursor, due_ms: int, entry: Envelope) -> bool:
        """Whether a fire has outlived its grace, and something else than firing was asked for then."""
        return (
            entry.grace_ms >= 0
            and step.now_ms - due_ms > entry.grace_ms
            and entry.on_late not in (ON_LATE_FIRE, cursor.topic)
        )

    def apply_on_late(self, step: Step, cursor: WheelCursor, key: bytes, entry: Envelope) -> None:
        """Drop an anonymous fire that is late, or requeue it for the topic for late ones.

        The caller has taken it out of its wheel, here as below.
        """
        type: Literal[EventType.EXPIRED, EventType.MOVED] = EventType.EXPIRED
        destination = cursor.topic
        if entry.on_late != ON_LATE_DROP:
            type, destination = EventType.MOVED, entry.on_late
            self.requeue(step, key, encode(replace(entry, on_late=ON_LATE_FIRE)), destination)
        step.missed[type, cursor.topic] += 1
        pending = self._state.fire(key)
        fire = Undelivered(type, pending.fire_id, pending.due_at_ms, destination, entry.headers)
        self._events.undelivered_anonymous(step, pending.source, fire, entry)

    def requeue(self, step: Step, key: bytes, stored: bytes, topic: str, *, pointer: bool = False) -> bytes:
        """Put an entry in the wheel of another destination, where it is due at once; its new key."""
        wheel = self._state.wheel_number(step, topic, self._state.sources[source_of(key)][0])
        new = in_wheel(key, wheel)
        add = self._state.add_pointer if pointer else self._state.add_entry
        add(step, new, stored, wheel, due_of(key))
        return new

    # -- impossible ---------------------------------------------------------------------------

    def refusal(
        self, step: Step, cursor: WheelCursor, key: bytes, due_ms: int, entry: Envelope
    ) -> Rejection | None:
        """Why a fire is given up; None while it is worth trying."""
        if not cursor.suspicious and entry.destination_partition < cursor.partitions:
            return None
        detail = self._impossible(step, cursor, key, due_ms, entry)
        return None if detail is None else Rejection(Code.QUARANTINED, detail)

    def _impossible(
        self, step: Step, cursor: WheelCursor, key: bytes, due_ms: int, entry: Envelope
    ) -> str | None:
        partitions = cursor.partitions
        if key in self._health.poisoned:
            return f"{cursor.topic} refuses the record: {self._health.poisoned[key]}"
        if partitions and entry.destination_partition >= partitions:
            return (
                f"destination-partition is {entry.destination_partition}, and {cursor.topic} has partitions "
                f"0 to {partitions - 1}"
            )
        denial = cursor.denial
        if denial.anyone and denial.of(self._state.sources[source_of(key)][0]):
            return f"{cursor.topic} is no longer among the allowed destinations"
        trouble = cursor.trouble
        if trouble is not None:
            waited_ms = step.now_ms - max(due_ms, trouble.since_ms, cursor.released_ms)
            if trouble.parked_at is not None:
                # A wrong clock may be why: set right, it jumps, and nothing has waited for so long.
                waited_ms = min(waited_ms, int(step.loop_ms - trouble.parked_at))
            if waited_ms >= self._settings.destination_timeout_ms:
                return f"{cursor.topic} could not be written for {waited_ms} ms: {trouble.reason}"
        return None

    def quarantine(
        self, step: Step, cursor: WheelCursor, key: bytes, entry: Envelope, rejection: Rejection
    ) -> None:
        """Put a fire without an id among the dead letters, and tell of it."""
        pending = self._state.fire(key)
        source, due_ms = pending.source, pending.due_at_ms
        fire = Undelivered(_QUARANTINED, pending.fire_id, due_ms, cursor.topic, entry.headers, rejection)
        self._dead_letter(step, key, _delivered(entry, source), source.text, fire)
        self._events.undelivered_anonymous(step, source, fire, entry)

    def quarantine_named(
        self, step: Step, due: DueFire, fire_id: str, due_ms: int, rejection: Rejection
    ) -> Undelivered:
        """Put a fire of a named schedule among the dead letters; the caller tells of it."""
        # A trigger's key has the coordinates of its command, but it delivers the schedule's payload.
        schedule, payload = due.schedule, due.payload
        rejection = replace(rejection, id=due.id)
        fire = Undelivered(_QUARANTINED, fire_id, due_ms, self._topic(due.key), payload.headers, rejection)
        # The timestamp of the request that asked for it last: it may have been sent again as it was.
        record = _delivered(replace(payload, timestamp_ms=schedule.timestamp_ms), schedule.source)
        self._dead_letter(step, due.key, record, due.id, fire)
        return fire

    def _dead_letter(
        self, step: Step, key: bytes, record: Record, schedule_id: str, fire: Undelivered
    ) -> None:
        assert fire.rejection is not None
        step.quarantined.append(key)
        whose = _addressed(fire.destination, schedule_id, fire.fire_id, fire.due_ms)
        self._letters.dead_letter(step, record, fire.rejection, whose)

    def _topic(self, key: bytes) -> str:
        return self._state.destinations[wheel_of(key)]

    def dead_letter_bytes(self, step: Step, key: bytes, stored: bytes, rejection: Rejection) -> None:
        """Put an entry that cannot be read, or not be dealt with, among the dead letters as it is stored.

        Its schedule goes with it: the payload is in the letter.
        """
        _, _, number, offset, _ = split_wheel_key(key)
        value, id = stored, None
        if (entry := _pointer(stored)) is not None:
            id = entry.id
            at, under = schedule_key(entry.tenant, entry.id), payload_key(entry.tenant, entry.id)
            row = self._state.get(step, at)
            value = self._state.get(step, under) or row or stored
            if (schedule := _schedule(row)) is not None:
                value = schedule.payload or value
                for other in (*schedule.pending, *[waiting.key for waiting in schedule.triggers]):
                    if other != key:
                        self._state.remove_pointer(step, other)
                self._state.counts.add_paused(schedule.topic, -schedule.paused_fires)
            step.changes[at] = step.changes[under] = None
        source = self._state.coordinates(number, offset)
        stands_for = Record(source, -1, None, value, ())
        self._letters.dead_letter(step, stands_for, replace(rejection, id=id))


def _delivered(entry: Envelope, source: Coordinates) -> Record:
    """The record that a fire would have delivered."""
    return Record(source, entry.timestamp_ms, entry.key, entry.value, entry.headers)


def _pointer(stored: bytes) -> Pointer | Trigger | None:
    try:
        entry = decode_entry(stored)
    except UNREADABLE:
        return None
    return entry if isinstance(entry, Pointer | Trigger) else None


def _schedule(stored: bytes | None) -> Schedule | None:
    try:
        return None if stored is None else decode_schedule(stored)
    except UNREADABLE:
        return None


def _addressed(destination: str, schedule: str, fire: str, due_ms: int) -> list[Header]:
    """Headers with which a dead letter is a request again, once a delay is added."""
    return [
        (PREFIX + "destination", destination.encode()),
        (SCHEDULE_ID, schedule.encode()),
        (FIRE_ID, fire.encode()),
        (DUE_AT, b"%d" % due_ms),
    ]
