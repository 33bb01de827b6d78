"""What the interface takes and answers. Names are those of the header contract, with ``_`` for ``-``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from delaystream.core.instants import format_instant

Time = Annotated[
    int,
    PlainSerializer(format_instant, return_type=str),
    Field(json_schema_extra={"type": "string", "format": "date-time"}),
]


Json = dict[str, Any]


class Model(BaseModel):
    """Something that is answered."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DefinitionBody(Model):
    """What a schedule is; exactly what a request to replace it takes."""

    destination: str
    at: list[Time] | None = Field(None, description="One-time: the due times that are still ahead.")
    cron: str | None = None
    every: str | None = Field(None, description="A duration, such as `15m`.")
    timezone: str | None = None
    dst_gap: str | None = None
    dst_overlap: str | None = None
    start: Time | None = None
    end: Time | None = None
    max_fires: int | None = None
    jitter: str | None = None
    catch_up: str | None = None
    grace: str | None = None
    name: str | None = None
    description: str | None = None
    tags: list[str] | None = None


class Payload(Model):
    """What is delivered. Of `value`, `value_json` and `value_base64` there is one; null is a tombstone."""

    key: str | None = None
    key_base64: str | None = None
    value: str | None = None
    value_base64: str | None = None
    headers: list[tuple[str, str | None]] = Field(description="Name and value; what is no UTF-8 is escaped.")


class ScheduleBody(Model):
    """A named schedule."""

    id: str
    request_topic: str
    status: str
    version: int | None
    revision: int | None
    definition: DefinitionBody
    source: str = Field(description="Coordinates of the request that asked for it last.")
    next_at: Time | None
    upcoming: list[Time] = Field(default=[], description="Scheduled times ahead, without jitter.")
    last_fired_at: Time | None
    last_fire_id: str | None
    fired: int
    missed: int
    triggered: int = Field(description="Triggered fires that are still to come.")
    created_at: Time | None
    created_by: str | None
    updated_at: Time | None
    updated_by: str | None
    note: str | None
    paused_at: Time | None
    until: Time | None = Field(description="When its pause ends by itself.")
    held_by: str | None = Field(description="The hold that keeps it back.")
    declared_by: str | None
    deploy: int | None
    forget_at: Time | None = Field(description="When an id that is over is forgotten.")
    key: str | None
    key_base64: str | None
    payload: Payload | None = None


class Missing(Model):
    """A partition whose copy cannot be asked yet."""

    partition: int
    phase: str
    position: int
    end: int
    problem: str | None


class Fresh(Model):
    """How old an answer is."""

    as_of: Time | None = Field(description="Nothing that was committed before is missing.")
    lag_ms: int | None
    complete: bool = Field(description="Whether all partitions have a part in it.")
    missing_partitions: list[Missing] = []


class TotalBody(Model):
    """How many match."""

    count: int
    relation: Literal["exact", "at_least"]


class ScheduleList(Fresh):
    """A page of schedules."""

    items: list[ScheduleBody]
    next_cursor: str | None
    total: TotalBody


class PendingBody(Model):
    """One fire to come."""

    due_at: Time
    destination: str
    request_topic: str
    id: str | None = Field(description="None: it has no id, and is known by its coordinates.")
    source: str = Field(description="Coordinates of the request.")
    status: Literal["pending", "held"]
    held_by: str | None
    note: str | None
    key: str | None
    key_base64: str | None
    tags: list[str]


class PendingList(Fresh):
    """A page of what is pending, in due order."""

    items: list[PendingBody]
    next_cursor: str | None


class EventBody(Model):
    """Something that happened, as the event has it (docs/events.md)."""

    partition: int
    offset: int
    type: str
    at: Time
    event: Json


class EventList(Fresh):
    """A page of events, the latest first."""

    items: list[EventBody]
    next_cursor: str | None
    kept_since: Time | None = Field(description="The day of the first event that is still kept.")


class FoundBody(Model):
    """One thing that the word may mean."""

    by: Literal["id", "coordinates", "fire-id", "key", "tag"]
    state: str
    detail: str | None
    schedule: ScheduleBody | None = None
    pending: PendingBody | None = None
    event: EventBody | None = None


class WhereList(Fresh):
    """All that is known under one word."""

    items: list[FoundBody]


class CountBody(Model):
    """How many there are."""

    request_topic: str
    destination: str
    status: str = Field(description="Of named schedules; `unnamed`: pending events without an id.")
    count: int


class Stats(Fresh):
    """What is pending, in numbers."""

    schedules: dict[str, int] = Field(description="Named schedules by status.")
    unnamed: int = Field(description="Pending events without an id.")
    by_destination: list[CountBody]


class PartitionBody(Model):
    """One partition: who owns it, by its own word, and how far this console's copy is."""

    partition: int
    owner: str | None
    host: str | None
    told_at: Time | None = Field(description="When the owner last wrote of itself; it may be gone since.")
    phase: str
    position: int
    end: int
    as_of: Time | None
    problem: str | None
    parked: list[str]


class PartitionList(Model):
    """Every partition."""

    items: list[PartitionBody]
    history: list[Json] = Field(description="How far the history of each partition of the events' topic is.")


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    code: str = Field(description="Stable; those of the header contract where a request is refused.")
    detail: str

    model_config = ConfigDict(json_schema_extra={"examples": [{"title": "Not found", "status": 404}]})
