"""What each delivery of a named schedule leaves: the record on its destination, and the schedule's own."""

from __future__ import annotations

from functools import partial

from msgspec.structs import replace

from delaystream.codec.envelope import Envelope, Fire, Schedule, Status, encode
from delaystream.codec.keys import payload_key, schedule_key
from delaystream.codec.outgoing import delivery_headers
from delaystream.core.identity import schedule_id
from delaystream.core.recurrence import next_after
from delaystream.dialects import filled
from delaystream.engine.arming import Arming
from delaystream.engine.drain import Drain
from delaystream.engine.step import Step


class FireRecords:
    """Writes deliveries, and stores what is left of their schedules."""

    def __init__(self, arming: Arming) -> None:
        self._arming = arming

    def fired(self, schedule: Schedule, fire: str, remembered: Fire) -> Schedule:
        """The schedule with one more delivery in its record."""
        return replace(
            schedule,
            fire_count=schedule.fire_count + 1,
            last_fire_id=fire,
            history=self._arming.remembered(schedule.history, remembered),
        )

    def deliver(
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
            step.fired_at,
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

    def store(self, step: Step, id: str, schedule: Schedule, over: Status) -> Schedule:
        """Store what is left of a schedule, which is over if nothing of it is ahead any more."""
        tenant = schedule.topic
        if not schedule.over:
            step.changes[schedule_key(tenant, id)] = encode(schedule)
            return schedule
        step.changes[payload_key(tenant, id)] = None
        if schedule.recurrence is None and schedule.fire_count:
            over = Status.FIRED
        return self._arming.finish(step, id, replace(schedule, status=over))


def _following(schedule: Schedule, scheduled_ms: int) -> int | None:
    """The scheduled time after this one; None after the last."""
    recurrence = schedule.recurrence
    assert recurrence is not None
    if schedule.next_ms >= 0:
        return schedule.next_ms
    if recurrence.max_fires and schedule.run_count >= recurrence.max_fires:
        return None
    return next_after(recurrence, scheduled_ms)
