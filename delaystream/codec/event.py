"""Events of schedules and destinations, as records on the events topic: JSON, with a schema.

`docs/events.schema.json` and, in the package, `codec/event.schema.json` hold `json_schema()`. Fields that do
not apply are left out. A field is never removed and never changes its meaning within a schema version; new
ones, and new types, may be added: a reader takes no notice of those it does not know.
"""

from base64 import b64encode
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from delaystream.codec.envelope import Schedule
from delaystream.codec.keys import due_of
from delaystream.core.misfire import DEFAULT_GRACE_MS
from delaystream.core.request import Coordinates

SCHEMA_VERSION: Final = 2


class EventType(StrEnum):
    """The type of an event."""

    SCHEDULED = "scheduled"
    REPLACED = "replaced"
    RESCHEDULED = "rescheduled"
    UPDATED = "updated"
    PAUSED = "paused"
    RESUMED = "resumed"
    TRIGGERED = "triggered"
    FIRED = "fired"
    SKIPPED = "skipped"
    MISSED = "missed"
    EXPIRED = "expired"
    MOVED = "moved"
    QUARANTINED = "quarantined"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    KEPT = "kept"
    UNCHANGED = "unchanged"
    REPEATED = "repeated"
    TOO_LATE = "too-late"
    UNKNOWN = "unknown"
    BULK = "bulk"
    RATE = "rate"
    PARKED = "parked"
    RELEASED = "released"


class WhyPassed(StrEnum):
    """Why a due time passed without a delivery of its own: the reason in events."""

    LATE = "late"
    PAUSED = "paused"
    DESTINATION = "destination"
    REPLACED = "replaced"
    TOO_MANY = "too-many"


Unfired: TypeAlias = WhyPassed | Literal[EventType.EXPIRED, EventType.MOVED, EventType.SKIPPED]
"""As what a due time without a delivery of its own is counted."""

UNFIRED: Final[dict[Unfired, str]] = {
    WhyPassed.LATE: "",
    WhyPassed.PAUSED: "",
    WhyPassed.DESTINATION: "",
    WhyPassed.REPLACED: "another definition took its place",
    WhyPassed.TOO_MANY: "beyond `max_catch_up`",
    EventType.EXPIRED: "`on-late: drop`",
    EventType.MOVED: "`on-late: <topic>`",
    EventType.SKIPPED: "a later delivery stands for it",
}
"""Each of them, with what its name does not say."""

EVENT_DESCRIPTIONS: Final[dict[EventType, str]] = {
    EventType.SCHEDULED: "A request was accepted; with an id it has the `definition`.",
    EventType.REPLACED: "The id has a new definition, `revision` and payload; nothing of the old one fires.",
    EventType.RESCHEDULED: "The schedule has new times and a new `revision`; what it delivers is the same.",
    EventType.UPDATED: "What the request gave has changed, and nothing else; the `revision` is a new one.",
    EventType.PAUSED: "Nothing of the schedule fires until it is resumed.",
    EventType.RESUMED: "The schedule fires again; what passed meanwhile follows as events of its own.",
    EventType.TRIGGERED: "A fire beside those of the schedule is on its way; `fired` follows.",
    EventType.FIRED: "A record was delivered.",
    EventType.SKIPPED: "Scheduled times passed, and the next fire stands for them (`catch-up: latest`).",
    EventType.MISSED: "Scheduled times passed that will never fire: beyond `grace`, by `catch-up: none`, or "
    "`replaced`.",
    EventType.EXPIRED: "A one-time fire was later than `grace` and dropped (`on-late: drop`).",
    EventType.MOVED: "A one-time fire was later than `grace` and goes to its topic for late ones.",
    EventType.QUARANTINED: "A fire proved impossible and is among the dead letters.",
    EventType.COMPLETED: "A recurring schedule has no further time.",
    EventType.CANCELLED: "The schedule has no fire ahead any more.",
    EventType.REJECTED: "A request was refused and is among the dead letters; nothing changed.",
    EventType.KEPT: "`if-exists: keep` found the id in use; nothing changed.",
    EventType.UNCHANGED: "The schedule was what was asked for: the same definition, paused, or running.",
    EventType.REPEATED: "A request with this `request-id` was carried out before; it is answered as then.",
    EventType.TOO_LATE: "A command found that the schedule was over; `fire_id` is the last fire.",
    EventType.UNKNOWN: "A command found no such id. A cancel is remembered.",
    EventType.BULK: "A bulk command is done on every partition; each schedule has an event of its own.",
    EventType.PARKED: "A partition has set aside a destination that cannot be written to; belongs to no "
    "schedule.",
    EventType.RELEASED: "A partition writes to a parked destination again; belongs to no schedule.",
    EventType.RATE: "A command's rate for a destination is in force on every partition; belongs to no "
    "schedule.",
}
"""The meaning of each type, for people; the documentation's table is generated from it."""

Ms = Annotated[int, Meta(description="Milliseconds since the epoch.", ge=0)]
Count = Annotated[int, Meta(ge=0)]
Where = Annotated[str, Meta(description="Kafka coordinates: topic/partition/offset.")]


class Definition(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The definition of a schedule, without its payload and its headers."""

    destination: str
    due_at_ms: Annotated[list[Ms], Meta(description="One-time: the due times that are still ahead.")] = []
    cron: str | None = None
    every_ms: Count = 0
    timezone: str | None = None
    dst_gap: str | None = None
    dst_overlap: str | None = None
    start_at_ms: Ms | None = None
    end_at_ms: Ms | None = None
    max_fires: Count = 0
    jitter_ms: Count = 0
    catch_up: str | None = None
    grace_ms: Count | None = None
    name: str | None = None
    description: str | None = None
    tags: list[str] = []


# Frequent events are made with their fields in order: to name a field costs as much as to write it.
class Event(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One thing that happened."""

    schema_version: Literal[2]
    type: EventType
    at_ms: Annotated[int, Meta(description="When the worker decided it.", ge=0)]
    request_topic: Annotated[
        str | None,
        Meta(description="An id belongs to its request topic. Absent in events that belong to none."),
    ] = None
    schedule_id: Annotated[
        str | None,
        Meta(
            description="The id, or the request's coordinates; also the record's key. Absent in events "
            "without a schedule: their record's key is the destination."
        ),
    ] = None
    source: Annotated[
        Where | None,
        Meta(description="The request or command that led to this; otherwise the schedule's request."),
    ] = None
    id: str | None = None
    status: Annotated[str | None, Meta(description="Where the schedule stands after this.")] = None
    revision: Annotated[int | None, Meta(description="Changes with each new definition of the id.")] = None
    actor: Annotated[
        str | None,
        Meta(
            description="Who asked, as the request or command said; not verified. Absent in events that no "
            "request caused."
        ),
    ] = None
    key: Annotated[
        str | None, Meta(description="The key that is delivered, 256 bytes at most, cut between characters.")
    ] = None
    key_base64: Annotated[str | None, Meta(description="The same in base64, if it is not UTF-8.")] = None
    created_at_ms: Annotated[
        int | None, Meta(description="Timestamp of the request that made the schedule.")
    ] = None
    created_by: Annotated[str | None, Meta(description="The beginning of that request's `actor`.")] = None
    updated_at_ms: Annotated[
        int | None, Meta(description="Timestamp of the last request or command that changed the schedule.")
    ] = None
    updated_by: Annotated[str | None, Meta(description="The beginning of that request's `actor`.")] = None
    version: Annotated[
        int | None,
        Meta(description="The schedule's version: changes with each request that is accepted for it."),
    ] = None
    note: Annotated[
        str | None,
        Meta(description="Why, as the request or command said. Absent in events that no request caused."),
    ] = None
    until_ms: Annotated[int | None, Meta(description="When a pause ends by itself.")] = None
    request_id: Annotated[str | None, Meta(description="The request's `request-id`.")] = None
    declared_by: Annotated[str | None, Meta(description="The set of schedules that it belongs to.")] = None
    deploy: Annotated[int | None, Meta(description="The deployment of that set.")] = None
    definition: Definition | None = None
    next_at_ms: Annotated[
        int | None, Meta(description="The next due time; absent when none is ahead, or while paused.")
    ] = None
    due_at_ms: Ms | None = None
    fired_at_ms: Ms | None = None
    lateness_ms: Annotated[int | None, Meta(description="Beyond the due time and the jitter.")] = None
    fire_id: str | None = None
    fire_count: Count | None = None
    skipped: Annotated[int, Meta(description="Earlier scheduled times that this fire stands for.", ge=0)] = 0
    destination: str | None = None
    destination_partition: Annotated[
        int | None,
        Meta(description="The offset is not known before the transaction that holds this is over."),
    ] = None
    from_ms: Annotated[int | None, Meta(description="First scheduled time of a run.")] = None
    to_ms: Annotated[int | None, Meta(description="Last scheduled time of a run.")] = None
    count: Annotated[
        int | None,
        Meta(
            description="Scheduled times of a run; schedules that a bulk command has changed; fires that a "
            "command about one request without an id found."
        ),
    ] = None
    reason: Annotated[
        str | None,
        Meta(
            description=f"Why a run was missed or skipped: {', '.join(WhyPassed)}. Why a schedule completed: "
            "max-fires, end or no-more-times. Why a destination is parked."
        ),
    ] = None
    since_ms: Annotated[
        int | None, Meta(description="Since when a parked destination could not be written to.")
    ] = None
    partition: Annotated[
        int | None,
        Meta(
            description="The request partition whose schedules wait for a parked destination, or on which "
            "the hold of a bulk pause has ended by itself."
        ),
    ] = None
    rate: Annotated[
        float | None,
        Meta(description="Records a second, as the command says. Absent: the settings hold again."),
    ] = None
    action: Annotated[
        str | None,
        Meta(description="The action of a bulk command, or of a command about one request without an id."),
    ] = None
    shortened: Annotated[
        bool,
        Meta(
            description="Texts and times ahead were left out, because the event was too large for its topic."
        ),
    ] = False
    code: Annotated[str | None, Meta(description="Why it was refused or given up.")] = None
    detail: str | None = None
    no_receipt: Annotated[
        str | None, Meta(description="Why the request got no receipt although it asked for one.")
    ] = None
    matched: Annotated[
        int | None, Meta(description="Schedules with an id that a bulk command was about, changed or not.")
    ] = None
    anonymous: Annotated[
        int | None, Meta(description="Fires without an id that a bulk command was about.")
    ] = None
    holds: Annotated[
        int | None, Meta(description="Holds that a bulk pause has begun or renewed, or a bulk resume ended.")
    ] = None
    correlation_id: Annotated[
        str | None,
        Meta(
            description="The first correlation id among the headers of the request or command, or of what is "
            "delivered; 256 bytes at most, cut between characters. Absent in runs of missed and skipped "
            "times."
        ),
    ] = None


class FiredEvent(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """An `Event` of the type `fired`, of a named schedule: as JSON the same, and cheaper to make.

    It has those fields of an event that such a one may have, in their order.
    """

    schema_version: Literal[2]
    type: EventType
    at_ms: int
    request_topic: str | None = None
    schedule_id: str | None = None
    source: str | None = None
    id: str | None = None
    status: str | None = None
    revision: int | None = None
    key: str | None = None
    key_base64: str | None = None
    created_at_ms: int | None = None
    created_by: str | None = None
    updated_at_ms: int | None = None
    updated_by: str | None = None
    next_at_ms: int | None = None
    due_at_ms: int | None = None
    fired_at_ms: int | None = None
    lateness_ms: int | None = None
    fire_id: str | None = None
    fire_count: int | None = None
    skipped: int = 0
    destination: str | None = None
    destination_partition: int | None = None
    correlation_id: str | None = None


_SHORT: Final = 200
"""Characters of a text that is left in an event which would be too large."""


def shortened(event: Event) -> Event:
    """An event without what makes it large: lists, and texts, which JSON may make six times as long."""
    definition = event.definition
    if definition is not None:
        definition = replace(
            definition,
            due_at_ms=definition.due_at_ms[:1],
            name=_short(definition.name),
            description=None,
            tags=[],
        )
    return replace(
        event,
        definition=definition,
        actor=_short(event.actor),
        created_by=_short(event.created_by),
        updated_by=_short(event.updated_by),
        note=_short(event.note),
        detail=_short(event.detail),
        no_receipt=_short(event.no_receipt),
        shortened=True,
    )


def _short(text: str | None) -> str | None:
    return None if text is None else text[:_SHORT]


_encoder = msgspec.json.Encoder()
encode_event = _encoder.encode
decode_event = msgspec.json.Decoder(Event).decode


def event_of_request(at_ms: int, type: EventType, source: Coordinates, **told: Any) -> Event:
    """An event of a request that has no id but its coordinates; `told` are further fields."""
    where = source.text
    return Event(
        schema_version=SCHEMA_VERSION,
        type=type,
        at_ms=at_ms,
        request_topic=source.topic,
        schedule_id=where,
        source=where,
        **told,
    )


def asked_at(timestamp_ms: int) -> int | None:
    """A row's timestamp as an event tells it; -1 is not known."""
    return timestamp_ms if timestamp_ms >= 0 else None


def key_told(key: bytes | None) -> tuple[str | None, str | None]:
    """A key, cut already, as `key` and `key_base64` of an event."""
    if key is None:
        return None, None
    try:
        return key.decode(), None
    except UnicodeDecodeError:
        return None, b64encode(key).decode()


def definition_of(schedule: Schedule) -> Definition:
    """The events of a schedule: with this and the events since, the list of schedules can be rebuilt."""
    recurrence = schedule.recurrence
    if recurrence is None:
        ahead = [due_of(key) for key in schedule.pending]
        if schedule.held:
            ahead += [due_ms for due_ms, _ in schedule.held]
        if schedule.name is None and schedule.description is None and not schedule.tags:
            return Definition(schedule.destination, ahead)
        return Definition(
            schedule.destination,
            ahead,
            name=schedule.name,
            description=schedule.description,
            tags=schedule.tags,
        )
    calendar = recurrence.cron is not None
    return Definition(
        schedule.destination,
        cron=recurrence.cron,
        every_ms=recurrence.every_ms,
        timezone=recurrence.timezone if calendar else None,
        dst_gap=recurrence.dst_gap if calendar else None,
        dst_overlap=recurrence.dst_overlap if calendar else None,
        start_at_ms=recurrence.start_ms,
        end_at_ms=recurrence.end_ms,
        max_fires=recurrence.max_fires,
        jitter_ms=recurrence.jitter_ms,
        catch_up=schedule.catch_up.value,
        # One that a command has made recurring may have none of its own.
        grace_ms=schedule.grace_ms if schedule.grace_ms >= 0 else DEFAULT_GRACE_MS,
        name=schedule.name,
        description=schedule.description,
        tags=schedule.tags,
    )


def next_at_ms(schedule: Schedule) -> int | None:
    """The earliest due time of what is in the wheels for a schedule, that of a trigger aside."""
    pending = schedule.pending
    if not pending:
        return None
    return due_of(pending[0]) if len(pending) == 1 else min([due_of(key) for key in pending])


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of an event's value."""
    schema = msgspec.json.schema(Event)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "delaystream event"} | schema
