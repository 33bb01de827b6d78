"""The read paths of schedulers that teams come from, in their words: `docs/api-compat.md` translates."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from delaystream.codec.envelope import LIVE, Status
from delaystream.codec.event import EventType
from delaystream.console.api.asking import Asked, Cursored, Entered
from delaystream.console.api.models import Health, Model, Stats, Summary, Time
from delaystream.console.api.reading.overview import health, summarized
from delaystream.console.api.reading.schedules import (
    LIMIT,
    PLACE,
    Limit,
    Text,
    numbers,
    one_schedule,
    place_of,
)
from delaystream.console.history.queries import Told
from delaystream.console.replica.catalog import Filter, Sort
from delaystream.query.partition import StoredSchedule

PREFIXES = ("", "/admin", "/api/v1", "/api/v1/admin")
"""Under `/compat`: all of them have the same paths."""

_MS = 1_000


class CompatSchedule(Model):
    """A named schedule."""

    id: str
    tenant: str = Field(description="`request_topic`.")
    name: str | None
    description: str | None
    type: Literal["cron", "interval", "one-time"]
    cron_expression: str | None = Field(description="`definition.cron`.")
    interval_seconds: float | None = Field(description="`definition.every`.")
    timezone: str | None
    topic: str = Field(description="`definition.destination`.")
    tags: list[str]
    is_active: bool = Field(description="`status` is `pending`.")
    status: str
    next_execution_at: Time | None = Field(description="`next_at`; of what is paused null.")
    last_execution_at: Time | None = Field(description="`last_fired_at`.")
    execution_count: int = Field(description="`fired`.")
    missed_count: int = Field(description="`missed`.")
    max_executions: int | None = Field(description="`definition.max_fires`.")
    start_at: Time | None
    end_at: Time | None
    created_at: Time | None
    created_by: str | None
    updated_at: Time | None
    updated_by: str | None


class CompatList(Model):
    """A page of schedules."""

    schedules: list[CompatSchedule]
    total: int
    total_is_exact: bool
    limit: int
    next_cursor: str | None


class CompatExecution(Model):
    """What became of a due time."""

    execution_id: str | None = Field(description="`fire_id`.")
    schedule_id: str
    scheduled_at: Time | None = Field(description="`due_at_ms`.")
    executed_at: Time = Field(description="`fired_at_ms`, or when it was decided.")
    status: Literal["success", "missed", "failed"] = Field(
        description="`fired`; `skipped`, `missed`, `expired`; `moved`, `quarantined`."
    )
    lateness_ms: int | None
    error: str | None = Field(description="`code`.")


class CompatExecutions(Model):
    """A page of executions, the latest first."""

    executions: list[CompatExecution]
    limit: int
    next_cursor: str | None


_STATUS: dict[EventType, Literal["success", "missed", "failed"]] = {
    EventType.FIRED: "success",
    EventType.SKIPPED: "missed",
    EventType.MISSED: "missed",
    EventType.EXPIRED: "missed",
    EventType.MOVED: "failed",
    EventType.QUARANTINED: "failed",
}

router = APIRouter()


@router.get("/schedules/monitoring/health")
async def monitoring_health(console: Asked, entrance: Entered) -> Health:
    """As `/v1/health`."""
    return await health(console, entrance)


@router.get("/schedules/monitoring/stats")
async def monitoring_stats(console: Asked) -> Stats:
    """As `/v1/stats`."""
    return numbers(console)


@router.get("/schedules/monitoring/analytics/summary")
async def monitoring_summary(console: Asked, start: str | None = None, end: str | None = None) -> Summary:
    """As `/v1/analytics/summary`, by destination."""
    return await summarized(console, (start, end), "destination", None, None)


@router.get("/schedules/monitoring/metrics")
async def monitoring_metrics(console: Asked) -> dict[str, float]:
    """The numbers of `/metrics` that are about schedules, as JSON."""
    counted = numbers(console)
    status = counted.schedules
    return {
        "total_schedules": sum(status.values()),
        "active_schedules": status.get(Status.PENDING.value, 0),
        "paused_schedules": status.get(Status.PAUSED.value, 0),
        "pending_events": counted.unnamed,
    }


@router.get("/schedules")
async def list_schedules(
    console: Asked,
    cursors: Cursored,
    tenant: str | None = None,
    is_active: Annotated[bool | None, Query(description="True: pending ones; false: paused ones.")] = None,
    topic: Text = None,
    tag: Text = None,
    limit: Limit = LIMIT,
    cursor: str | None = None,
) -> CompatList:
    """Schedules that may still fire, by id."""
    statuses = LIVE if is_active is None else (Status.PENDING,) if is_active else (Status.PAUSED,)
    tenants = None if tenant is None else frozenset({tenant})
    wanted = Filter(tenants=tenants, statuses=statuses, destination=topic, tag=tag)
    asked = ("compat", tenant, is_active, topic, tag)
    page, total = console.catalog.listed(wanted, Sort.ID, limit, cursors.place(cursor, asked))
    return CompatList(
        schedules=[schedule_body(found) for found in page.items],
        total=total.count,
        total_is_exact=total.exact,
        limit=limit,
        next_cursor=cursors.cursor(page.next, asked),
    )


@router.get("/schedules/{id:whole}/executions")
async def list_executions(
    console: Asked,
    cursors: Cursored,
    id: str,
    tenant: str | None = None,
    limit: Limit = LIMIT,
    cursor: str | None = None,
) -> CompatExecutions:
    """What became of a schedule's due times, the latest first."""
    topic = one_schedule(console, id, tenant).tenant
    asked = ("executions", topic, id)
    place = place_of(cursors, cursor, asked)
    page = await asyncio.to_thread(console.history.of_schedule, topic, id, limit, place)
    return CompatExecutions(
        executions=[_execution(told) for told in page.items],
        limit=limit,
        next_cursor=cursors.cursor(None if page.next is None else PLACE.pack(*page.next), asked),
    )


@router.get("/schedules/{id:whole}")
async def get_schedule(console: Asked, id: str, tenant: str | None = None) -> CompatSchedule:
    """One schedule; 409 where several tenants have the id and none is named."""
    return schedule_body(one_schedule(console, id, tenant))


def schedule_body(found: StoredSchedule) -> CompatSchedule:
    """A named schedule in these words."""
    view = found.view
    definition = view.definition
    return CompatSchedule(
        id=found.id,
        tenant=found.tenant,
        name=definition.name,
        description=definition.description,
        type="cron" if definition.cron else "interval" if definition.every_ms else "one-time",
        cron_expression=definition.cron,
        interval_seconds=definition.every_ms / _MS if definition.every_ms else None,
        timezone=definition.timezone,
        topic=definition.destination,
        tags=list(definition.tags),
        is_active=view.status is Status.PENDING,
        status=view.status.value,
        next_execution_at=view.next_at_ms,
        last_execution_at=view.last_fired_at_ms,
        execution_count=view.fire_count,
        missed_count=view.missed_count,
        max_executions=definition.max_fires or None,
        start_at=definition.start_at_ms or None,
        end_at=definition.end_at_ms,
        created_at=view.created_at_ms,
        created_by=view.created_by,
        updated_at=view.updated_at_ms,
        updated_by=view.updated_by,
    )


def _execution(told: Told) -> CompatExecution:
    event = told.event
    return CompatExecution(
        execution_id=event.fire_id,
        schedule_id=event.schedule_id or "",
        scheduled_at=event.due_at_ms if event.due_at_ms is not None else event.from_ms,
        executed_at=event.fired_at_ms if event.fired_at_ms is not None else event.at_ms,
        status=_STATUS.get(event.type, "failed"),
        lateness_ms=event.lateness_ms,
        error=event.code,
    )
