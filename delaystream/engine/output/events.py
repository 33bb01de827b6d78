"""Lifecycle events: what happened to a schedule, told on the events topic in the transaction that does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from delaystream.codec.correlation import correlation_id
from delaystream.codec.envelope import (
    Bulk,
    Envelope,
    Gathering,
    Hold,
    Parked,
    Schedule,
    delivered_key,
    kept_key,
)
from delaystream.codec.event import (
    SCHEMA_VERSION,
    Event,
    EventType,
    FiredEvent,
    WhyPassed,
    asked_at,
    decode_event,
    definition_of,
    encode_event,
    event_of_request,
    key_told,
    next_at_ms,
    shortened,
)
from delaystream.codec.outgoing import Delivery
from delaystream.core.misfire import Run
from delaystream.core.recurrence import CronError, UnknownZoneError, next_after
from delaystream.core.rejection import Rejection
from delaystream.core.request import NO_TERMS, Action, Coordinates, Header, Request
from delaystream.engine.failures import LogUnavailable
from delaystream.engine.policy.context import Context
from delaystream.engine.state.step import Step, TopicWrites
from delaystream.query.view import PendingFire

_DEFINING = frozenset({
    EventType.SCHEDULED, EventType.REPLACED, EventType.RESCHEDULED, EventType.UPDATED, EventType.RESUMED,
})  # fmt: skip
#: The longest id that can be configured.
_KEY_BYTES: Final = 4 * 1024
# Naming a member through its class is slow (Python 3.11).
_FIRED: Final = EventType.FIRED


class Delivered(msgspec.Struct, frozen=True, gc=False):
    """One delivery of a named schedule, for its event."""

    delivery: Delivery
    lateness_ms: int
    destination: str
    partition: int
    #: as the request had them
    headers: Sequence[Header] = ()


class Undelivered(msgspec.Struct, frozen=True, gc=False):
    """One fire that is not delivered as its request asked, for its event: expired, moved or quarantined."""

    type: EventType
    fire_id: str
    due_ms: int
    #: where it was to go; of a moved one the topic for late fires, where it goes instead
    destination: str
    #: as the request had them
    headers: Sequence[Header]
    #: of a quarantined one
    rejection: Rejection | None = None


class Passed(msgspec.Struct, frozen=True, gc=False):
    """A run of scheduled times that do not fire: skipped, missed, or a due time that expired."""

    type: EventType
    run: Run
    reason: WhyPassed
    #: those of the record that would have been delivered, where that is known
    headers: Sequence[Header] = ()


class Events:
    """Writes events into steps; each method does nothing when events are off."""

    def __init__(self, context: Context) -> None:
        self._tenants = context.tenants
        #: by request topic: whether its events hold keys
        self._with_keys: dict[str, bool] = {}
        self._topic = context.settings.events_topic
        #: of an event's value; its key is an id, at most
        self._most_bytes = context.settings.own_record_max_bytes - _KEY_BYTES
        self._destinations = context.destinations
        self.on = context.settings.events
        #: whether any tenant's requests without an id, and their fires, are told too
        self.anonymous = context.settings.events and context.tenants.tell_anonymous(
            context.settings.events_anonymous
        )
        self._anonymous_unless_said = context.settings.events_anonymous

    def emit(self, step: Step, event: Event) -> None:
        """Write an event; its key is the schedule id, or the destination of one that is of no schedule."""
        key = event.schedule_id or event.destination
        assert key is not None
        self._write(step, key, encode_event(event))

    def _write(self, step: Step, key: str, value: bytes) -> None:
        """Write an event, shortened where it is too large for its topic."""
        if len(value) > self._most_bytes:
            value = encode_event(shortened(decode_event(value)))
        step.size_bytes += len(value)
        topic_writes = step.by_topic.get(self._topic) or self._begun(step)
        topic_writes.write(key.encode(), value, (), step.now_ms)

    def _begun(self, step: Step) -> TopicWrites:
        """Where the first event of a step goes, and all others of it."""
        partitions = self._destinations.partitions(self._topic)
        if not partitions:
            problem = self._destinations.problem(self._topic) or "unknown"
            raise LogUnavailable(f"{self._topic}: {problem}; without it events would be lost")
        return step.writes_to(self._topic, partitions)

    def _key(self, tenant: str, key: bytes | None) -> tuple[str | None, str | None]:
        """`key` and `key_base64` of an event about a request topic's request; `key` is cut already."""
        if key is None:
            return None, None
        with_keys = self._with_keys.get(tenant)
        if with_keys is None:
            with_keys = self._with_keys[tenant] = self._tenants.of(tenant).events.key
        return key_told(key) if with_keys else (None, None)

    def _correlation(self, tenant: str, headers: Sequence[Header]) -> str | None:
        """`correlation_id` of an event about something with these headers."""
        if not headers or not self._tenants.of(tenant).events.correlation_id:
            return None
        return correlation_id(headers)

    def _of_schedule(self, step: Step, type: EventType, id: str, schedule: Schedule, **told: Any) -> Event:
        """An event of a named schedule, as it stands after what is told; `told` are further fields."""
        key, key_base64 = self._key(schedule.topic, schedule.key)
        event = Event(
            schema_version=SCHEMA_VERSION,
            type=type,
            at_ms=step.now_ms,
            request_topic=schedule.topic,
            schedule_id=id,
            source=schedule.source.text,
            id=id,
            status=schedule.status,
            revision=schedule.revision,
            key=key,
            key_base64=key_base64,
            created_at_ms=asked_at(schedule.created_ms),
            updated_at_ms=asked_at(schedule.updated_ms),
            next_at_ms=next_at_ms(schedule),
            **told,
        )
        return _signed(event, schedule)

    def answered(
        self,
        step: Step,
        request: Request,
        type: EventType,
        schedule: Schedule | None,
        fire: tuple[int | None, str] | None = None,
        no_receipt: str | None = None,
    ) -> None:
        """A request about an id was decided; `fire` is the (due_ms, fire id) that it is about, if any."""
        if not self.on:
            return
        assert request.id is not None
        told: dict[str, Any] | None = None
        if request.actor is not None or request.terms is not NO_TERMS:
            terms = request.terms
            told = {"actor": request.actor, "note": terms.note, "request_id": terms.request_id}
        if fire is not None or no_receipt is not None:
            due_ms, fire_id = (None, None) if fire is None else fire
            told = {**(told or {}), "fire_id": fire_id, "due_at_ms": due_ms, "no_receipt": no_receipt}
        if (correlated := self._correlation(request.source.topic, request.headers)) is not None:
            told = {**(told or {}), "correlation_id": correlated}
        self._changed(step, request.source, request.id, type, schedule, told)

    def changed(
        self,
        step: Step,
        id: str,
        type: EventType,
        schedule: Schedule,
        bulk: Bulk | None = None,
    ) -> None:
        """A schedule was changed by a bulk command; without one by itself, at the end of its pause."""
        if bulk is None:
            source, actor, note = schedule.source, None, None
        else:
            source, actor, note = bulk.source, bulk.actor, bulk.note
        if self.on:
            self._changed(step, source, id, type, schedule, {"actor": actor, "note": note})

    def _changed(
        self,
        step: Step,
        source: Coordinates,
        id: str,
        type: EventType,
        schedule: Schedule | None,
        told: dict[str, Any] | None,
    ) -> None:
        at_ms, where = step.now_ms, source.text
        if schedule is None:
            event = Event(SCHEMA_VERSION, type, at_ms, source.topic, id, where, id)
        else:
            key, key_base64 = self._key(schedule.topic, schedule.key)
            created_ms, updated_ms, until_ms = schedule.created_ms, schedule.updated_ms, schedule.until_ms
            event = Event(
                SCHEMA_VERSION,
                type,
                at_ms,
                source.topic,
                id,
                where,
                id,
                schedule.status,
                schedule.revision,
                None,
                key,
                key_base64,
                created_ms if created_ms >= 0 else None,
                schedule.created_by,
                updated_ms if updated_ms >= 0 else None,
                schedule.updated_by,
                schedule.version or None,
                None,
                until_ms,
                None,
                schedule.declared_by,
                schedule.deploy if schedule.deploy >= 0 and schedule.declared_by is not None else None,
                definition_of(schedule) if type in _DEFINING else None,
                next_at_ms(schedule),
            )
        self.emit(step, replace(event, **told) if told else event)

    def fired(self, step: Step, delivered: Delivered, schedule: Schedule) -> None:
        """A fire of a named schedule goes out; `schedule` is what it is at the end of that."""
        if not self.on:
            return
        delivery, at_ms = delivered.delivery, step.now_ms
        id, created_ms, updated_ms = delivery.schedule_id, schedule.created_ms, schedule.updated_ms
        key, key_base64 = self._key(schedule.topic, schedule.key)
        event = FiredEvent(
            SCHEMA_VERSION,
            _FIRED,
            at_ms,
            schedule.topic,
            id,
            delivery.source,
            id,
            schedule.status,
            schedule.revision,
            key,
            key_base64,
            created_ms if created_ms >= 0 else None,
            schedule.created_by,
            updated_ms if updated_ms >= 0 else None,
            schedule.updated_by,
            next_at_ms(schedule) if schedule.pending else None,
            delivery.due_ms,
            at_ms,
            delivered.lateness_ms,
            delivery.fire_id,
            delivery.fire_count,
            delivery.skipped,
            delivered.destination,
            delivered.partition,
            self._correlation(schedule.topic, delivered.headers),
        )
        self._write(step, id, encode_event(event))

    def passed(self, step: Step, id: str, passed: Passed, schedule: Schedule) -> None:
        """Scheduled times of a schedule do not fire; `schedule` is its record after that."""
        run = passed.run
        if self.on:
            self.emit(
                step,
                self._of_schedule(
                    step,
                    passed.type,
                    id,
                    schedule,
                    destination=schedule.destination,
                    from_ms=run.from_ms,
                    to_ms=run.to_ms,
                    count=run.number,
                    reason=passed.reason,
                    correlation_id=self._correlation(schedule.topic, passed.headers),
                ),
            )

    def undelivered(self, step: Step, id: str, fire: Undelivered, schedule: Schedule) -> None:
        """A fire of a named schedule is moved or quarantined; `schedule` is its record after that."""
        if self.on:
            rejection = fire.rejection
            self.emit(
                step,
                self._of_schedule(
                    step,
                    fire.type,
                    id,
                    schedule,
                    due_at_ms=fire.due_ms,
                    lateness_ms=step.now_ms - fire.due_ms if fire.type is EventType.MOVED else None,
                    fire_id=fire.fire_id,
                    destination=fire.destination,
                    code=None if rejection is None else rejection.code.value,
                    detail=None if rejection is None else rejection.detail,
                    correlation_id=self._correlation(schedule.topic, fire.headers),
                ),
            )

    def paused(self, step: Step, id: str, schedule: Schedule, why: Rejection) -> None:
        """A schedule was paused by the worker itself: its next time cannot be worked out."""
        if self.on:
            self.emit(
                step,
                self._of_schedule(
                    step, EventType.PAUSED, id, schedule, code=why.code.value, detail=why.detail
                ),
            )

    def completed(self, step: Step, id: str, schedule: Schedule) -> None:
        """A recurring schedule has no further time, and why."""
        if self.on:
            self.emit(
                step,
                self._of_schedule(
                    step,
                    EventType.COMPLETED,
                    id,
                    schedule,
                    fire_count=schedule.fire_count,
                    reason=_why_completed(schedule),
                ),
            )

    def refused(
        self,
        step: Step,
        source: Coordinates,
        rejection: Rejection,
        headers: Sequence[Header],
        no_receipt: str | None,
    ) -> None:
        """A request with these headers was rejected."""
        if self.on:
            self.emit(
                step,
                Event(
                    schema_version=SCHEMA_VERSION,
                    type=EventType.REJECTED,
                    at_ms=step.now_ms,
                    request_topic=source.topic,
                    schedule_id=source.text if rejection.id is None else rejection.id,
                    source=source.text,
                    id=rejection.id,
                    actor=rejection.actor,
                    note=rejection.note,
                    code=rejection.code.value,
                    detail=rejection.detail,
                    no_receipt=no_receipt,
                    correlation_id=self._correlation(source.topic, headers),
                ),
            )

    def bulk(self, step: Step, source: Coordinates, gathered: Gathering, no_receipt: str | None) -> None:
        """A bulk command has reached every schedule of every partition."""
        if self.on:
            self.emit(
                step,
                event_of_request(
                    step.now_ms,
                    EventType.BULK,
                    source,
                    actor=gathered.actor,
                    note=gathered.note,
                    action=gathered.action.value,
                    count=gathered.count,
                    matched=gathered.matched,
                    anonymous=gathered.anonymous,
                    holds=gathered.holds,
                    until_ms=gathered.until_ms if gathered.until_ms >= 0 else None,
                    no_receipt=no_receipt,
                ),
            )

    def hold_ended(self, step: Step, hold: Hold, partition: int) -> None:
        """The hold of a bulk pause has ended by itself, on one partition."""
        if self.on:
            self.emit(
                step,
                event_of_request(
                    step.now_ms,
                    EventType.RESUMED,
                    hold.source,
                    action=Action.PAUSE.value,
                    partition=partition,
                    until_ms=hold.until_ms,
                ),
            )

    def of_destination(self, step: Step, type: EventType, partition: int, parked: Parked) -> None:
        """A partition has set a destination aside, or has it in use again."""
        over = type is EventType.RELEASED
        self.emit(
            step,
            Event(
                schema_version=SCHEMA_VERSION,
                type=type,
                at_ms=step.now_ms,
                destination=parked.destination,
                partition=partition,
                since_ms=parked.since_ms,
                reason=None if over else parked.reason,
            ),
        )

    def rate_set(self, step: Step, source: Coordinates, gathered: Gathering, no_receipt: str | None) -> None:
        """A rate is in force on every partition."""
        if self.on:
            self.emit(
                step,
                Event(
                    schema_version=SCHEMA_VERSION,
                    type=EventType.RATE,
                    at_ms=step.now_ms,
                    request_topic=source.topic,
                    source=source.text,
                    actor=gathered.actor,
                    note=gathered.note,
                    destination=gathered.destination,
                    rate=gathered.rate,
                    no_receipt=no_receipt,
                ),
            )

    # -- without an id ------------------------------------------------------------------------

    def undelivered_anonymous(
        self, step: Step, source: Coordinates, fire: Undelivered, entry: Envelope
    ) -> None:
        """A fire without an id expires, is moved or is quarantined."""
        if self.on:
            key, key_base64 = self._key(source.topic, kept_key(entry.delivered_key))
            rejection = fire.rejection
            self.emit(
                step,
                event_of_request(
                    step.now_ms,
                    fire.type,
                    source,
                    key=key,
                    key_base64=key_base64,
                    created_at_ms=entry.timestamp_ms,
                    due_at_ms=fire.due_ms,
                    lateness_ms=step.now_ms - fire.due_ms,
                    fire_id=fire.fire_id,
                    destination=fire.destination,
                    code=None if rejection is None else rejection.code.value,
                    detail=None if rejection is None else rejection.detail,
                    correlation_id=self._correlation(source.topic, fire.headers),
                ),
            )

    def _tells_anonymous(self, tenant: str) -> bool:
        own = self._tenants.of(tenant).events.anonymous
        return self._anonymous_unless_said if own is None else own

    def cancelled_anonymous(self, step: Step, fire: PendingFire, bulk: Bulk) -> None:
        """A command has cancelled a fire without an id."""
        if self.on:
            self.emit(
                step,
                event_of_request(
                    step.now_ms,
                    EventType.CANCELLED,
                    fire.source,
                    actor=bulk.actor,
                    note=bulk.note,
                    due_at_ms=fire.due_at_ms,
                    fire_id=fire.fire_id,
                    destination=fire.destination,
                ),
            )

    def about_one(
        self,
        step: Step,
        bulk: Bulk,
        type: EventType,
        *,
        count: int,
        next_at_ms: int | None,
        no_receipt: str | None,
    ) -> None:
        """A command about one request without an id, its subject, was decided."""
        assert bulk.subject is not None
        partition, offset, origin = bulk.subject
        if self.on:
            self.emit(
                step,
                Event(
                    schema_version=SCHEMA_VERSION,
                    type=type,
                    at_ms=step.now_ms,
                    request_topic=bulk.tenant,
                    schedule_id=Coordinates(bulk.tenant, partition, offset, origin).text,
                    source=bulk.source.text,
                    actor=bulk.actor,
                    note=bulk.note,
                    action=bulk.action.value,
                    count=count,
                    next_at_ms=next_at_ms,
                    no_receipt=no_receipt,
                ),
            )

    def accepted(self, step: Step, request: Request, no_receipt: str | None) -> None:
        """A request without an id was accepted; only where `anonymous` is on, and its tenant's is."""
        if not self._tells_anonymous(request.source.topic):
            return
        key, key_base64 = self._key(request.source.topic, kept_key(delivered_key(request)))
        self.emit(
            step,
            event_of_request(
                step.now_ms,
                EventType.SCHEDULED,
                request.source,
                actor=request.actor,
                note=request.terms.note,
                key=key,
                key_base64=key_base64,
                created_at_ms=request.timestamp_ms,
                created_by=request.actor,
                next_at_ms=min(request.due_ms),
                destination=request.destination,
                no_receipt=no_receipt,
                correlation_id=self._correlation(request.source.topic, request.headers),
            ),
        )

    def fired_anonymous(
        self, step: Step, fire: PendingFire, partition: int, request: Envelope | Request
    ) -> None:
        """A fire without an id goes out; only where `anonymous` is on, and its tenant's is."""
        source = fire.source
        if not self._tells_anonymous(source.topic):
            return
        key, key_base64 = self._key(source.topic, kept_key(delivered_key(request)))
        self.emit(
            step,
            event_of_request(
                step.now_ms,
                EventType.FIRED,
                source,
                key=key,
                key_base64=key_base64,
                created_at_ms=request.timestamp_ms,
                due_at_ms=fire.due_at_ms,
                fired_at_ms=step.now_ms,
                lateness_ms=step.now_ms - fire.due_at_ms,
                fire_id=fire.fire_id,
                destination=fire.destination,
                destination_partition=partition,
                correlation_id=self._correlation(source.topic, request.headers),
            ),
        )


def _signed(event: Event, schedule: Schedule) -> Event:
    """An event with who made and who changed its schedule, where they said who they are."""
    if schedule.created_by is None and schedule.updated_by is None:
        return event
    return replace(event, created_by=schedule.created_by, updated_by=schedule.updated_by)


def _why_completed(schedule: Schedule) -> str:
    """Why a recurring schedule that is over has no further time."""
    recurrence = schedule.recurrence
    assert recurrence is not None
    if recurrence.max_fires and schedule.run_count >= recurrence.max_fires:
        return "max-fires"
    if recurrence.end_ms is None:
        return "no-more-times"
    try:
        later_ms = next_after(replace(recurrence, end_ms=None), recurrence.end_ms)
    except (CronError, UnknownZoneError):
        # It was read when its last time was decided; a trigger may have outlived the zone since.
        return "end"
    return "no-more-times" if later_ms is None else "end"
