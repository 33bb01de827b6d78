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
    on_late: str | None = None
    grace: str | None = None
    destination_partition: int | None = None
    destination_key: str | None = Field(None, description="What takes the place of the key.")
    name: str | None = None
    description: str | None = None
    tags: list[str] | None = None


class HeaderBytes(Model):
    """A header's value that is no UTF-8."""

    base64: str


class Payload(Model):
    """What the record held. Of `value` and `value_base64` there is one; both null are a tombstone.

    Beside the fields of the `definition` it is the body of a request to replace the schedule.
    """

    key: str | None = None
    key_base64: str | None = None
    value: str | None = None
    value_base64: str | None = None
    headers: list[tuple[str, str | HeaderBytes | None]] = Field(
        description="Name and value; null is null in Kafka."
    )


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


class FireBody(Model):
    """A fire that a request has scheduled."""

    due_at: Time
    fire_id: str


class RequestBody(Model):
    """A request that this console wrote to Kafka, and what came of it."""

    request_id: str
    request_topic: str
    action: str
    about: str | None = Field(description="The id or the coordinates; null where it is about several.")
    asked_at: Time
    stage: Literal["begun", "sent", "decided", "failed"] = Field(
        description="`begun`: about to be sent, or perhaps was; `sent`: it stands at `source`; "
        "`decided`: there is an `outcome`; `failed`: Kafka did not take it."
    )
    shown: bool = Field(description="Whether what this console answers has it already.")
    source: str | None = Field(description="Coordinates of the request.")
    position: str | None = Field(description="For `If-Position`, where another console is asked next.")
    outcome: str | None = Field(description="As in the receipt.")
    code: str | None = Field(description="Why it was rejected.")
    detail: str | None
    status: str | None = Field(description="Of the schedule, after it.")
    version: int | None = Field(description="Of the schedule, after it.")
    repeated: bool = Field(description="It had been carried out before, and is answered as then.")
    fires: list[FireBody]
    fires_at_once: int | None = Field(description="Of a resume: fires that are due now.")
    count: int | None = Field(description="Of a request about several: schedules that it changed.")
    matched: int | None
    anonymous: int | None = Field(description="Fires without an id that it was about.")


class WrittenBody(RequestBody):
    """What came of a request, with the schedule as it is now."""

    schedule: ScheduleBody | None = None


class CheckedBody(Model):
    """The record that a request would be; nothing was sent."""

    request_topic: str
    id: str
    key: str | None
    key_base64: str | None
    headers: list[tuple[str, str | None]]
    value_bytes: int | None
    due_at: list[Time] = Field(
        description="Due times if it were sent now; of a recurring schedule the first."
    )


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
    actor_verified: bool = Field(
        description="Whether a console has written for the event's `actor` what the event is the outcome of: "
        "its audit log has that `source`. False: any producer may have written that name, or there is none."
    )


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


class ActBody(Model):
    """What was done about a dead letter, and by whom."""

    act: Literal["redrive", "discard", "reopen"]
    number: int
    actor: str
    note: str | None
    asked_at: Time
    run: str | None = Field(description="Of those that were asked for together.")
    request_id: str | None
    request_topic: str | None = Field(description="Where it was sent to.")
    about: str | None = Field(description="The id that it was sent with.")
    changed: list[str] = Field(description="What was repaired.")
    stage: str | None = Field(description="How far a redrive is: begun, sent, decided or failed.")
    source: str | None = Field(description="Where the request stands that it became.")
    outcome: str | None = Field(description="That of the receipt.")
    code: str | None
    detail: str | None
    letter: str | None = Field(description="The new letter, where it was refused again.")


class LetterBody(Model):
    """A dead letter; its value is on the topic alone."""

    place: str = Field(description="Its name: `partition.offset` on the dead letters' topic.")
    kind: str = Field(
        description="What it is of: a `request` that was refused, a `fire` that proved impossible, a "
        "`delivery` that a consumer gave up; `other` cannot be sent again."
    )
    standing: str = Field(
        description="`open`; `sending`, `accepted`, `unchanged`, `rejected` or `failed` after a redrive; "
        "`discarded`."
    )
    last_act: ActBody | None
    partition: int
    offset: int
    at: Time
    code: str = Field(description="Of the header contract; empty where no worker wrote it.")
    detail: str
    request_topic: str | None
    source: str | None = Field(description="Coordinates of the record that was refused.")
    source_at: Time | None
    delivery: str | None = Field(description="Where a delivery stood that was given up.")
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


class DifferenceBody(Model):
    """One thing that is another in what would be sent; what has no text is escaped."""

    name: str = Field(description="Of a header, or `key` or `value`.")
    header: bool
    before: list[str | None] = Field(description="Of a header its values; empty: it is not there.")
    after: list[str | None]


class LetterCheck(Model):
    """What would be sent of a dead letter, and why nothing would be; nothing was sent."""

    sendable: bool
    code: str | None = Field(description="Why it would be refused.")
    detail: str | None
    request_topic: str | None = Field(description="Where it would be sent to.")
    id: str | None = Field(description="The id that it would have.")
    headers: list[tuple[str, str | None]]
    differences: list[DifferenceBody] = Field(description="From the letter, as it stands.")
    due_at: list[Time] = Field(description="If it were sent now; of a recurring schedule the first.")


class LetterDetail(LetterBody):
    """One dead letter, as it stands on its topic."""

    payload: Payload | None = Field(None, description="Key, value and headers; only with `payload=true`.")
    advice: str = Field(description="What would be right, or what to do.")
    as_it_is: LetterCheck | None = Field(
        None, description="What sending it again without a repair would be; None where nothing writes."
    )
    acts: list[ActBody] = Field(description="Everything that was done about it, in order.")


class LetterSample(Model):
    """One of the letters that would be sent again."""

    letter: LetterBody
    check: LetterCheck


class LettersLook(Model):
    """What sending several letters again would do; nothing was sent."""

    total: int
    refused: dict[str, int] = Field(description="Those that would not be sent, by code.")
    samples: list[LetterSample]
    at_to: Time = Field(description="Letters up to then are meant: with it a run has no others.")


class LetterRun(Model):
    """Letters that are sent again together, and how far that is."""

    run: str
    stage: Literal["running", "done", "stopped", "failed", "interrupted"]
    actor: str
    note: str | None
    asked_at: Time
    total: int
    standing: dict[str, int] = Field(description="Those that were sent, by how they stand.")
    refused: dict[str, int] = Field(description="Those that were not, by code.")


class LetterRuns(Model):
    """What was sent again together lately."""

    items: list[LetterRun]


class LettersDone(Model):
    """How many letters something was done about."""

    count: int


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
    counts: dict[str, int] = Field(
        description="By code, of all that are kept here, may be seen, and stand as asked for."
    )
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
    authentication: Literal["none", "tokens", "oidc"] = Field(
        description="How callers say who they are. With `oidc` tokens of the file may be taken, too."
    )
    as_of: Time | None
    lag_ms: int | None
    problems: list[str]


class AuditBody(Model):
    """Something that somebody did, or tried, with a console."""

    number: int = Field(description="Grows from entry to entry.")
    at: Time
    name: str = Field(description="Who, and the actor of events.")
    kind: Literal["anonymous", "unknown", "token", "oidc", "service", "console"] = Field(
        description="How they showed who they are: nobody was asked; nothing that is taken; a token of the "
        "file; signed in with the provider; a service's token of the provider; the console itself."
    )
    subject: str = Field(description="Who, within the issuer.")
    issuer: str | None = Field(description="The provider; null: this console.")
    address: str
    action: str = Field(description="A verb; method and path of a request that came to nothing.")
    request_topic: str | None
    about: str | None = Field(description="The id, or the coordinates.")
    note: str | None
    request_id: str | None
    outcome: str = Field(
        description="`begun`, `sent`, `failed`, `refused`, `done`; or that of the receipt, such as "
        "`cancelled` or `rejected`."
    )
    code: str | None = Field(description="Why it was refused or rejected.")
    source: str | None = Field(description="Where the record stands that was written for it.")


class AuditList(Model):
    """A page of the audit log, the latest first."""

    items: list[AuditBody]
    next_cursor: str | None


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
