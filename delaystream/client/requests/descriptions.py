"""A schedule's definition and state, as `describe` tells them."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

from delaystream.client.requests.outcomes import Receipt, UnavailableError
from delaystream.client.requests.timing import aware, length
from delaystream.core.request import Header


@dataclass(frozen=True, kw_only=True)
class ScheduleDefinition:
    """A schedule's definition, without its payload. None: not given."""

    destination: str
    due_at: tuple[datetime, ...] = ()
    """One-time: the due times that are still ahead."""
    cron: str | None = None
    every: timedelta | None = None
    timezone: str | None = None
    dst_gap: str | None = None
    dst_overlap: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    max_fires: int | None = None
    jitter: timedelta | None = None
    catch_up: str | None = None
    grace: timedelta | None = None
    name: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PastTimes:
    """The outcome of one due time, or of several in a row, in a schedule's history.

    `kind` is `fired` or `triggered`, with a fire id, or `missed` or `skipped`.
    """

    kind: str
    due_at: datetime
    """The first of them."""
    last_due_at: datetime
    """The last of them: of a fire the same."""
    count: int
    decided_at: datetime
    """When it fired, or was decided on."""
    fire_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Payload:
    """The payload of a schedule."""

    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
    """Names that are not UTF-8 are escaped."""


@dataclass(frozen=True, kw_only=True)
class ScheduleDescription:
    """A schedule, or a request without an id, as it stands; None is what is not known, or not so."""

    schedule_id: str
    """Its id, or the coordinates of the request."""
    id: str | None
    status: str
    """`pending`, `paused`, `fired`, `completed`, `cancelled`, ..."""
    version: int | None
    source: str
    """`topic/partition/offset` of the request that asked for it last."""
    definition: ScheduleDefinition
    next_at: datetime | None
    """The earliest time that it fires at, with its jitter; None while it is paused."""
    upcoming_at: tuple[datetime, ...]
    """Times ahead without jitter, ten at most; of what is paused those that it would have."""
    revision: int | None
    fire_count: int
    missed_count: int
    triggered: int
    """Triggered fires that are still to come."""
    last_fire_id: str | None
    history: tuple[PastTimes, ...]
    """The outcomes of its last due times, the latest last."""
    actor: str | None
    note: str | None
    declared_by: str | None
    deploy: int | None
    on_late: str | None
    """Of a request without an id."""
    paused_at: datetime | None
    until: datetime | None
    """When its pause ends by itself."""
    held_by: str | None
    created_at: datetime | None
    """Of a request without an id."""
    forget_at: datetime | None
    """When an id that is over is forgotten."""
    payload: Payload | None
    """None where the workers do not tell it (`describe_payload`)."""
    receipt: Receipt
    """All of it as it was told."""

    @classmethod
    def of(cls, receipt: Receipt) -> Self | None:
        """By the receipt of a `describe`; None where it tells of no schedule.

        Raises UnavailableError for one that no worker has written: whoever may write to its topic may write
        anything.
        """
        told = receipt.body.get("schedule")
        if not isinstance(told, Mapping):
            return None
        try:
            return cls._told(receipt, told)
        except (AttributeError, TypeError, ValueError, OverflowError):
            raise UnavailableError(f"The answer is not a description: {receipt.json[:200]!r}.") from None

    @classmethod
    def _told(cls, receipt: Receipt, told: Mapping[str, Any]) -> Self:
        return cls(
            schedule_id=receipt.schedule_id,
            id=receipt.body.get("id"),
            status=receipt.status or "",
            version=receipt.version,
            source=told.get("source", ""),
            definition=_definition(told.get("definition") or {}),
            next_at=_time(told, "next_at_ms"),
            upcoming_at=_times(told, "upcoming_at_ms"),
            revision=told.get("revision"),
            fire_count=told.get("fire_count", 0),
            missed_count=told.get("missed_count", 0),
            triggered=told.get("triggered", 0),
            last_fire_id=told.get("last_fire_id"),
            history=tuple(_past(entry) for entry in told.get("history", ())),
            actor=told.get("actor"),
            note=told.get("note"),
            declared_by=told.get("declared_by"),
            deploy=told.get("deploy"),
            on_late=told.get("on_late"),
            paused_at=_time(told, "paused_at_ms"),
            until=_time(told, "until_ms"),
            held_by=told.get("held_by"),
            created_at=_time(told, "created_at_ms"),
            forget_at=_time(told, "forget_at_ms"),
            payload=_payload(told.get("payload")),
            receipt=receipt,
        )


def _definition(told: Mapping[str, Any]) -> ScheduleDefinition:
    return ScheduleDefinition(
        destination=told.get("destination", ""),
        due_at=_times(told, "due_at_ms"),
        cron=told.get("cron"),
        every=_length(told, "every_ms"),
        timezone=told.get("timezone"),
        dst_gap=told.get("dst_gap"),
        dst_overlap=told.get("dst_overlap"),
        start=_time(told, "start_at_ms"),
        end=_time(told, "end_at_ms"),
        max_fires=told.get("max_fires"),
        jitter=_length(told, "jitter_ms"),
        catch_up=told.get("catch_up"),
        grace=_length(told, "grace_ms"),
        name=told.get("name"),
        description=told.get("description"),
        tags=tuple(told.get("tags", ())),
    )


def _past(told: Mapping[str, Any]) -> PastTimes:
    first_ms = told.get("due_at_ms", told.get("from_ms", 0))
    return PastTimes(
        kind=told.get("kind", "fired"),
        due_at=aware(first_ms),
        last_due_at=aware(told.get("to_ms", first_ms)),
        count=told.get("count", 1),
        decided_at=aware(told.get("fired_at_ms", told.get("decided_at_ms", 0))),
        fire_id=told.get("fire_id"),
    )


def _payload(told: Mapping[str, Any] | None) -> Payload | None:
    if told is None:
        return None
    return Payload(
        key=_bytes(told.get("key_base64")),
        value=_bytes(told.get("value_base64")),
        headers=tuple((name, _bytes(value)) for name, value in told.get("headers", ())),
    )


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)


def _time(told: Mapping[str, Any], name: str) -> datetime | None:
    time_ms = told.get(name)
    return None if time_ms is None else aware(time_ms)


def _times(told: Mapping[str, Any], name: str) -> tuple[datetime, ...]:
    return tuple(map(aware, told.get(name, ())))


def _length(told: Mapping[str, Any], name: str) -> timedelta | None:
    length_ms = told.get(name)
    return None if length_ms is None else length(length_ms)
