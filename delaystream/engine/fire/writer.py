"""Deliveries of named schedules: the record on the destination, and the row of the schedule."""

from __future__ import annotations

from msgspec.structs import replace

from delaystream.codec.envelope import Fire, Schedule, Status, encode
from delaystream.codec.outgoing import Delivery, delivery_headers
from delaystream.dialects import filled
from delaystream.engine.fire.cursor import WheelCursor
from delaystream.engine.fire.due import DueFire
from delaystream.engine.output.events import Delivered
from delaystream.engine.schedules.arming import Arming
from delaystream.engine.state.step import Step

# Naming a member through its class is slow (Python 3.11).
_FIRED = Status.FIRED
_PAUSED = Status.PAUSED


class FireWriter:
    """Writes deliveries, and stores their schedules as they are afterwards."""

    def __init__(self, arming: Arming) -> None:
        self._arming = arming

    def deliver(
        self,
        step: Step,
        cursor: WheelCursor,
        due: DueFire,
        delivery: Delivery,
        lateness_ms: int,
    ) -> Delivered:
        """Write a delivery."""
        entry, topic = due.payload, cursor.topic
        own = entry.headers
        if due.schedule.recurrence is not None:
            own = filled(own, delivery.due_ms, delivery.next_ms)
        if due.schedule.status is _PAUSED and delivery.next_ms is not None:
            # While it is paused, nobody knows when it goes on.
            delivery = replace(delivery, next_ms=None)
        headers = delivery_headers(own, delivery, step.fired_at)
        schedule = due.schedule
        fireable_ms = max(cursor.fireable_ms, schedule.timestamp_ms, schedule.updated_ms, schedule.resumed_ms)
        partition = step.writes_to(topic, cursor.partitions).deliver(
            entry,
            headers,
            step.now_ms - lateness_ms,
            fireable_ms,
            entry.destination_partition,
            due.key,
        )
        return Delivered(delivery, lateness_ms, topic, partition, entry.headers)

    def end(self, step: Step, due: DueFire, delivered: Delivered, history: list[Fire]) -> Schedule:
        """Store a one-time schedule of which the last fire was delivered, and nothing else is ahead.

        What `store` makes of it, with one copy of the record: most schedules end like this.
        """
        schedule = due.schedule
        if schedule.payload is None:
            self._arming.drop_payload(step, schedule.topic, due.id, schedule)
        schedule = replace(
            schedule,
            status=_FIRED,
            pending=[],
            fire_count=delivered.delivery.fire_count,
            last_fire_id=delivered.delivery.fire_id,
            forget_key=self._arming.forget(step, due.id, schedule),
            history=history,
            payload=None,
            once=None,
            last_fired_ms=step.now_ms,
        )
        step.changes[due.schedule_key] = encode(schedule)
        return schedule

    def store(self, step: Step, due: DueFire, schedule: Schedule, over: Status) -> Schedule:
        """Store a schedule after a fire; it is over if no fire is ahead."""
        if not schedule.over:
            step.changes[due.schedule_key] = encode(schedule)
            return schedule
        self._arming.drop_payload(step, schedule.topic, due.id, schedule)
        if schedule.recurrence is None and schedule.fire_count:
            over = _FIRED
        return self._arming.finish(step, due.id, schedule, over)
