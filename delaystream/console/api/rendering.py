"""What is stored, as the interface answers it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import msgspec

from delaystream.codec.envelope import Envelope, PartitionStatus
from delaystream.codec.event import Definition
from delaystream.console.agenda import Planned
from delaystream.console.api.models import (
    ActBody,
    AuditBody,
    ClockChangeBody,
    DefinitionBody,
    EventBody,
    FoundBody,
    Fresh,
    HeaderBytes,
    LetterBody,
    LetterPlaceBody,
    Missing,
    PartitionBody,
    Payload,
    PendingBody,
    PlannedBody,
    ScheduleBody,
    TimeBody,
)
from delaystream.console.audit.acts import Entry
from delaystream.console.history.queries import Told
from delaystream.console.letters.acts import Act, Standing
from delaystream.console.letters.latest import Letter
from delaystream.console.replica.follower import CopyStatus
from delaystream.console.replica.pending import PendingEvent
from delaystream.console.service import Freshness
from delaystream.console.times import Time, changes
from delaystream.console.where import Found
from delaystream.core.durations import format_duration
from delaystream.core.instants import format_instant
from delaystream.core.request import ON_LATE_FIRE
from delaystream.query.partition import StoredSchedule
from delaystream.query.view import view_of


def definition_body(definition: Definition, payload: Envelope | None = None) -> DefinitionBody:
    """A definition in the words of the header contract, and what its payload knows."""
    grace_ms = definition.grace_ms
    on_late = partition = key = None
    if payload is not None:
        if grace_ms is None and payload.grace_ms >= 0:
            grace_ms = payload.grace_ms
        on_late = None if payload.on_late == ON_LATE_FIRE else payload.on_late
        partition = payload.destination_partition if payload.destination_partition >= 0 else None
        if payload.has_destination_key:
            # The contract has it as text.
            key, _ = text_or_base64(payload.destination_key)
    return DefinitionBody(
        destination=definition.destination,
        at=list(definition.due_at_ms) or None,
        cron=definition.cron,
        every=format_duration(definition.every_ms) if definition.every_ms else None,
        timezone=definition.timezone,
        dst_gap=definition.dst_gap,
        dst_overlap=definition.dst_overlap,
        start=definition.start_at_ms or None,
        end=definition.end_at_ms,
        max_fires=definition.max_fires or None,
        jitter=format_duration(definition.jitter_ms) if definition.jitter_ms else None,
        catch_up=definition.catch_up,
        on_late=on_late,
        grace=None if grace_ms is None else format_duration(grace_ms),
        destination_partition=partition,
        destination_key=key,
        name=definition.name,
        description=definition.description,
        tags=list(definition.tags) or None,
    )


def schedule_body(found: StoredSchedule, *, upcoming: int = 0, payload: bool = False) -> ScheduleBody:
    """A named schedule, with so many times ahead at most."""
    view = view_of(found.id, found.row, upcoming)
    key, key_base64 = text_or_base64(found.row.key)
    return ScheduleBody(
        id=found.id,
        request_topic=found.tenant,
        status=view.status.value,
        version=view.version,
        revision=view.revision,
        definition=definition_body(view.definition, found.payload),
        source=view.source.text,
        next_at=view.next_at_ms,
        upcoming=list(view.upcoming_at_ms),
        last_fired_at=view.last_fired_at_ms,
        last_fire_id=view.last_fire_id,
        fired=view.fire_count,
        missed=view.missed_count,
        triggered=view.triggered,
        created_at=view.created_at_ms,
        created_by=view.created_by,
        updated_at=view.updated_at_ms,
        updated_by=view.updated_by,
        note=view.note,
        paused_at=view.paused_at_ms,
        until=view.until_ms,
        held_by=view.held_by,
        declared_by=view.declared_by,
        deploy=view.deploy,
        forget_at=view.forget_at_ms,
        key=key,
        key_base64=key_base64,
        payload=None if not payload or found.payload is None else payload_body(found.payload),
    )


def payload_body(envelope: Envelope) -> Payload:
    """What the record held, byte for byte."""
    return payload_of(envelope.key, envelope.value, envelope.headers)


def payload_of(
    key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]
) -> Payload:
    """A key, a value and headers, byte for byte."""
    key_text, key_base64 = text_or_base64(key)
    value_text, value_base64 = text_or_base64(value)
    return Payload(
        key=key_text,
        key_base64=key_base64,
        value=value_text,
        value_base64=value_base64,
        headers=[(header_name(name), header_value(content)) for name, content in headers],
    )


def pending_body(event: PendingEvent) -> PendingBody:
    """A fire to come."""
    key, key_base64 = text_or_base64(event.key)
    return PendingBody(
        due_at=event.due_at_ms,
        destination=event.destination,
        request_topic=event.request_topic,
        id=event.id,
        source=event.source,
        status="pending" if event.held_by is None else "held",
        held_by=event.held_by,
        note=event.held_note,
        key=key,
        key_base64=key_base64,
        tags=list(event.tags),
    )


def event_body(told: Told) -> EventBody:
    """Something that happened."""
    event = told.event
    return EventBody(
        partition=told.partition,
        offset=told.offset,
        type=event.type.value,
        at=event.at_ms,
        event=msgspec.to_builtins(event),
        actor_verified=told.actor_verified,
    )


def streamed(told: Told) -> bytes:
    """Something that happened, as a stream has it: the event with what is known of its actor, as JSON."""
    body = msgspec.json.encode(told.event)
    if told.event.actor is None:
        return body
    return b'%b,"actor_verified":%b}' % (body[:-1], b"true" if told.actor_verified else b"false")


def audit_body(entry: Entry) -> AuditBody:
    """An entry of the audit log."""
    who, act, outcome = entry.act.who, entry.act, entry.outcome
    return AuditBody(
        number=entry.number,
        at=entry.at_ms,
        name=who.name,
        kind=who.kind.value,
        subject=who.subject,
        issuer=who.issuer,
        address=who.address,
        action=act.action,
        request_topic=act.request_topic,
        about=act.about,
        note=act.note,
        request_id=act.request_id,
        outcome=outcome.word,
        code=outcome.code,
        source=outcome.source,
    )


def found_body(found: Found) -> FoundBody:
    """One thing that a word may mean."""
    return FoundBody(
        by=found.by,
        state=found.state,
        detail=found.detail,
        by_elimination=found.by_elimination,
        code=_code(found),
        letter=None
        if found.letter is None
        else LetterPlaceBody(
            partition=found.letter.partition, offset=found.letter.offset, code=found.letter.code
        ),
        schedule=None if found.schedule is None else schedule_body(found.schedule),
        pending=None if found.pending is None else pending_body(found.pending),
        event=None if found.told is None else event_body(found.told),
    )


def _code(found: Found) -> str | None:
    if found.letter is not None:
        return found.letter.code
    return None if found.told is None else found.told.event.code


def time_body(time: Time) -> TimeBody:
    """A time to come."""
    return TimeBody(at=time.at_ms, local=time.local, offset=time.offset, note=time.note)


def change_bodies(times: Sequence[Time]) -> list[ClockChangeBody]:
    """Where the clocks change between times."""
    return [
        ClockChangeBody(
            at=change.at_ms,
            before=change.before,
            after=change.after,
            note=f"clocks change before {format_instant(change.at_ms)}: its offset from UTC is "
            f"{change.after} from then on, and was {change.before}",
        )
        for change in changes(times)
    ]


def planned_body(planned: Planned) -> PlannedBody:
    """A fire to come."""
    event = planned.event
    return PlannedBody(
        due_at=event.due_at_ms,
        destination=event.destination,
        request_topic=event.request_topic,
        id=event.id,
        source=event.source,
        status="pending" if event.held_by is None else "held",
        expected=planned.expected,
    )


def act_body(act: Act) -> ActBody:
    """What was done about a dead letter."""
    return ActBody(
        act=act.does.value,
        number=act.number,
        actor=act.actor,
        note=act.note,
        asked_at=act.asked_ms,
        run=act.run,
        request_id=act.request_id,
        request_topic=act.request_topic,
        about=act.about,
        changed=list(act.changed),
        stage=None if act.stage is None else act.stage.value,
        source=act.source,
        outcome=act.outcome,
        code=act.code,
        detail=act.detail,
        letter=act.letter,
    )


def letter_body(letter: Letter, act: Act | None) -> LetterBody:
    """A dead letter, and the last that was done about it."""
    key, key_base64 = text_or_base64(letter.key)
    return LetterBody(
        place=letter.name,
        kind=letter.kind.value,
        standing=(Standing.OPEN if act is None else act.standing).value,
        last_act=None if act is None else act_body(act),
        partition=letter.partition,
        offset=letter.offset,
        at=letter.at_ms,
        code=letter.code,
        detail=letter.detail,
        request_topic=letter.request_topic,
        source=letter.source,
        source_at=letter.source_at_ms,
        delivery=letter.delivery,
        id=letter.id,
        destination=letter.destination,
        key=key,
        key_base64=key_base64,
        value_bytes=letter.value_bytes,
        headers=header_texts(letter.headers),
        headers_cut=letter.headers_cut,
        headers_hidden=letter.headers_hidden,
    )


def header_texts(headers: Sequence[tuple[str, bytes | None]]) -> list[tuple[str, str | None]]:
    """Headers as text; what is no UTF-8 is escaped."""
    return [
        (
            header_name(name),
            None if content is None else content.decode("utf-8", "backslashreplace"),
        )
        for name, content in headers
    ]


def header_name(name: str) -> str:
    """A header's name as text; what is no UTF-8 is escaped."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def header_value(content: bytes | None) -> str | HeaderBytes | None:
    """A header's value as text where it is UTF-8."""
    text, encoded = text_or_base64(content)
    return text if encoded is None else HeaderBytes(base64=encoded)


def fresh(freshness: Freshness) -> dict[str, Any]:
    """The fields of :class:`Fresh`."""
    missing = [
        Missing(
            partition=status.partition,
            phase=status.phase.value,
            position=status.position,
            end=status.end,
            problem=status.problem,
        )
        for status in freshness.missing
    ]
    body = Fresh(
        as_of=freshness.as_of_ms,
        lag_ms=freshness.lag_ms,
        complete=not missing,
        missing_partitions=missing,
    )
    return {name: getattr(body, name) for name in Fresh.model_fields}


def text_or_base64(content: bytes | None) -> tuple[str | None, str | None]:
    """As text where it is UTF-8, else as base64 (RFC 4648)."""
    if content is None:
        return None, None
    try:
        return content.decode(), None
    except UnicodeDecodeError:
        return None, b64encode(content).decode()


def partition_body(status: CopyStatus, owner: PartitionStatus | None) -> PartitionBody:
    """One partition, by its owner's word and by this console's copy."""
    return PartitionBody(
        partition=status.partition,
        owner=None if owner is None else owner.owner,
        host=None if owner is None else owner.host,
        told_at=None if owner is None else owner.written_ms,
        phase=status.phase.value,
        position=status.position,
        end=status.end,
        as_of=status.as_of_ms,
        problem=status.problem,
        parked=[] if owner is None else [parked.destination for parked in owner.parked],
    )
