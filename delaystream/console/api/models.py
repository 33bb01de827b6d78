"""What the interface takes and answers. Names are those of the header contract, with ``_`` for ``-``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from delaystream.console.where import By, State
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


class LetterPlaceBody(Model):
    """Where a dead letter is."""

    partition: int
    offset: int
    code: str


class FoundBody(Model):
    """One thing that the word may mean."""

    by: By
    state: State
    detail: str | None
    by_elimination: bool = Field(description="Nobody has told of it: it follows from what is not there.")
    code: str | None = Field(description="Why it was rejected, where it was.")
    letter: LetterPlaceBody | None = None
    schedule: ScheduleBody | None = None
    pending: PendingBody | None = None
    event: EventBody | None = None


class WhereList(Fresh):
    """All that is known under one word."""

    items: list[FoundBody]


class TimeBody(Model):
    """One time to come."""

    at: Time
    local: str = Field(description="The same with the offset of the schedule's zone, RFC 3339.")
    offset: str = Field(description="Of the zone from UTC then.", examples=["+02:00"])
    note: str | None = Field(
        description="What a change of the clocks does: `gap: …` of a local time that does not exist, "
        "`fold: …` of one that comes twice."
    )


class ClockChangeBody(Model):
    """The clocks change between two of the times: from there on it fires at another time of UTC."""

    at: Time = Field(description="The first time after the change.")
    before: str
    after: str
    note: str


class PreviewBody(Model):
    """When a definition fires."""

    timezone: str
    items: list[TimeBody]
    clock_changes: list[ClockChangeBody]
    jitter: str | None = Field(description="Each fire is put off by so much at most.")
    more: bool = Field(description="Whether there are further times.")


class UpcomingList(Fresh):
    """Scheduled times of a schedule, without jitter."""

    id: str
    request_topic: str
    status: str
    timezone: str
    items: list[TimeBody]
    clock_changes: list[ClockChangeBody]


class PlannedBody(Model):
    """A fire to come."""

    due_at: Time
    destination: str
    request_topic: str
    id: str | None
    source: str
    status: Literal["pending", "held"]
    expected: bool = Field(
        description="Not armed yet: its recurring schedule comes to it if it stays as it is."
    )


class AgendaList(Fresh):
    """All fires between two times, in due order."""

    items: list[PlannedBody]
    next_from: Time | None = Field(description="There may be more from here on: the next `from`.")
    partial: bool = Field(
        description="Schedules were left out: more have fires before `from` than are looked at."
    )


class LetterBody(Model):
    """A dead letter; its value is on the topic alone."""

    partition: int
    offset: int
    at: Time
    code: str = Field(description="Of the header contract; empty where no worker wrote it.")
    detail: str
    request_topic: str | None
    source: str | None = Field(description="Coordinates of the record that was refused.")
    source_at: Time | None
    id: str | None
    destination: str | None
    key: str | None
    key_base64: str | None
    value_bytes: int | None
    headers: list[tuple[str, str | None]]
    headers_cut: bool = Field(description="Whether there are more headers than are kept here.")
    headers_hidden: bool = Field(
        description="Whether headers are left out that the caller has no right to: all but delaystream's own."
    )


class LetterReading(Model):
    """How far one partition of the dead letters' topic is read."""

    partition: int
    position: int
    end: int
    kept_from: int = Field(description="Letters before this offset are on the topic alone.")
    skipped: int = Field(
        description="Offsets from there on that are in batches which cannot be read: so many letters at most "
        "are left out."
    )
    problem: str | None


class LetterList(Model):
    """A page of dead letters, the latest first."""

    items: list[LetterBody]
    next_cursor: str | None
    counts: dict[str, int] = Field(description="By code, of all that are kept here and may be seen.")
    reading: list[LetterReading]


class ParkedBody(Model):
    """A partition that has set the destination aside."""

    partition: int
    since: Time
    reason: str


class RateBody(Model):
    """How fast the destination gets records."""

    request_topic: str | None = Field(description="None: of all together.")
    destination: str = Field(description="A topic or a glob.")
    per_second: float | None = Field(description="None: not bounded by the command.")
    by: Literal["command", "settings"]
    note: str | None


class HoldBody(Model):
    """A bulk pause that stands."""

    name: str
    request_topic: str
    since: Time
    until: Time | None
    actor: str | None
    note: str | None


class DestinationBody(Model):
    """One destination."""

    destination: str
    schedules: dict[str, int] = Field(description="Named schedules by status.")
    unnamed: int
    parked: list[ParkedBody]
    rates: list[RateBody]
    holds: list[HoldBody] = Field(description="Holds that are about this destination or about all.")


class DestinationList(Fresh):
    """A page of destinations, by name."""

    items: list[DestinationBody]
    next_cursor: str | None


class SummaryBody(Model):
    """What happened, added up."""

    destination: str | None = None
    request_topic: str | None = None
    schedule_id: str | None = Field(
        None, description="An id, or the coordinates of a request without one; with `request_topic`."
    )
    counts: dict[str, int] = Field(description="By event type.")
    lateness_mean_ms: float | None
    lateness_max_ms: int | None
    within: dict[str, float] = Field(description="Share of fires that were no later, by bound in ms.")


class SeriesBody(Model):
    """What happened in one span."""

    start: Time
    counts: dict[str, int]


class Summary(Model):
    """What happened between two times."""

    start: Time = Field(description="The range, on whole spans.")
    end: Time
    span_s: int
    total: SummaryBody
    items: list[SummaryBody]
    series: list[SeriesBody]
    by: Literal["destination", "request_topic", "schedule"]
    partial: bool = Field(
        False, description="There are more events or schedules in the range than were counted or listed."
    )


class Health(Model):
    """Whether this console can be relied on."""

    version: str
    ready: bool
    authentication: Literal["none", "tokens"]
    as_of: Time | None
    lag_ms: int | None
    problems: list[str]


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
