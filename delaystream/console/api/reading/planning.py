"""What comes between two times, and when a definition would fire."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Body, Query, Response
from pydantic import ConfigDict, Field

from delaystream.console import agenda as planning
from delaystream.console import times
from delaystream.console.agenda import Agenda
from delaystream.console.api.asking import Asked
from delaystream.console.api.models import AgendaList, Model, PreviewBody
from delaystream.console.api.problems import ProblemError, invalid
from delaystream.console.api.reading.schedules import LONGEST, key_bytes, time_ms
from delaystream.console.api.rendering import change_bodies, fresh, planned_body, time_body
from delaystream.console.replica.pending import Wanted
from delaystream.console.service import Console
from delaystream.core.durations import format_duration
from delaystream.core.rejection import Rejection

MOST = 1_000
_DAY_MS = 86_400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FOLDED_BYTES = 75
_DISPLAYED = 100

router = APIRouter()


class AsTold(Model):
    """A definition as people write it: every field is the header of the same name, with `_` for `-`."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "dst_gap": "skip"},
                {"every": "15m", "start": "2030-01-01T00:00:00Z", "max_fires": 8},
                {"at": ["2030-01-01T09:00:00+01:00", "2030-01-02T09:00:00+01:00"]},
            ]
        },
    )

    destination: str | None = None
    delay: str | None = None
    at: list[str | int] | str | int | None = None
    cron: str | None = None
    every: str | None = None
    timezone: str | None = None
    dst_gap: str | None = None
    dst_overlap: str | None = None
    start: str | int | None = None
    end: str | int | None = None
    max_fires: int | None = None
    jitter: str | None = None
    catch_up: str | None = None
    on_late: str | None = None
    grace: str | None = None
    destination_partition: int | None = None
    destination_key: str | None = None
    name: str | None = None
    description: str | None = None
    tags: list[str] | None = Field(None, max_length=100)

    @property
    def headers(self) -> dict[str, str]:
        """The same as texts, by the names of the contract without prefix."""
        told: dict[str, str] = {}
        for name, value in self.model_dump(exclude_none=True).items():
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            told[name.replace("_", "-")] = text
        return told


@router.post("/preview")
async def preview(
    console: Asked,
    definition: Annotated[AsTold, Body()],
    count: Annotated[int, Query(ge=1, le=times.MOST)] = 10,
    after: Annotated[str | None, Query(description="Times after this one; now, unless it is given.")] = None,
) -> PreviewBody:
    """The next times of a definition, without making anything of it.

    It is held to the contract and its own limits; a worker may have others. What is refused is answered with
    422 and the code of the contract. Times are without jitter.
    """
    return await previewed(console, definition.headers, time_ms("after", after), count)


async def previewed(
    console: Console, headers: Mapping[str, str], after_ms: int | None, count: int
) -> PreviewBody:
    """The same of a definition as headers say it, without prefix. Raises ProblemError."""
    now_ms = console.clock.now_ms()
    request = times.parsed(headers, now_ms)
    if isinstance(request, Rejection):
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, request.code.value, request.detail)
    found = await asyncio.to_thread(times.preview, request, now_ms if after_ms is None else after_ms, count)
    return PreviewBody(
        timezone=found.timezone,
        items=[time_body(time) for time in found.times],
        clock_changes=change_bodies(found.times),
        jitter=format_duration(found.jitter_ms) if found.jitter_ms else None,
        more=found.more,
    )


class Range(Model):
    """Two times, and what is meant between them."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    from_: str | None = Field(None, alias="from", description="Now, unless it is given.")
    to: str | None = Field(None, description="Up to without it; a day later, unless it is given.")
    request_topic: list[str] | None = None
    destination: str | None = Field(None, max_length=LONGEST)
    key: str | None = None
    key_base64: str | None = None
    tag: str | None = Field(None, max_length=LONGEST)
    limit: int = Field(200, ge=1, le=MOST)


Ranged = Annotated[Range, Query()]


async def _agenda(console: Asked, asked: Range) -> Agenda:
    from_ms = time_ms("from", asked.from_)
    if from_ms is None:
        from_ms = console.clock.now_ms()
    to_ms = time_ms("to", asked.to)
    if to_ms is None:
        to_ms = from_ms + _DAY_MS
    if to_ms <= from_ms:
        raise invalid("invalid-end", "to is not after from.")
    wanted = Wanted(
        None if asked.request_topic is None else frozenset(asked.request_topic),
        asked.destination,
        key_bytes(asked.key, asked.key_base64),
        asked.tag,
        from_ms,
        to_ms,
    )
    return await planning.agenda(console, wanted, asked.limit)


@router.get("/agenda")
async def agenda(console: Asked, asked: Ranged) -> AgendaList:
    """All fires between two times, also those that recurring schedules come to; none of what is paused."""
    found = await _agenda(console, asked)
    return AgendaList(
        items=[planned_body(planned) for planned in found.items],
        next_from=found.next_from_ms,
        partial=found.partial,
        **fresh(console.freshness),
    )


@router.get(
    "/agenda.ics",
    response_class=Response,
    responses={
        200: {"content": {"text/calendar": {"schema": {"type": "string"}}}, "description": "iCalendar"}
    },
)
async def calendar(console: Asked, asked: Ranged) -> Response:
    """The same as a calendar (RFC 5545), for whatever shows one."""
    found = await _agenda(console, asked)
    stamp = _utc(console.clock.now_ms())
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//delaystream//console//EN"]
    for planned in found.items:
        event = planned.event
        what = event.id if event.id is not None else event.source
        start = _utc(event.due_at_ms)
        lines += [
            "BEGIN:VEVENT",
            f"UID:{_text(f'{event.request_topic}/{what}/{event.index}/{event.due_at_ms}')}",
            f"DTSTAMP:{stamp}",
            f"DTSTART:{start}",
            f"SUMMARY:{_text(f'{what[:_DISPLAYED]} to {event.destination}')}",
            f"DESCRIPTION:{_text(f'{event.request_topic}: {event.source}')}",
            f"STATUS:{'TENTATIVE' if planned.expected else 'CONFIRMED'}",
            "TRANSP:TRANSPARENT",
            "END:VEVENT",
        ]
    lines.append("END:VCALENDAR")
    content = b"".join(folded for line in lines for folded in _folded(line.encode()))
    return Response(content, media_type="text/calendar; charset=utf-8")


def _utc(time_ms: int) -> str:
    at = _EPOCH + timedelta(milliseconds=time_ms)
    return f"{at:%Y%m%dT%H%M%SZ}"


def _text(text: str) -> str:
    """A text value, section 3.3.11: nothing in it ends the line, or begins another value."""
    escaped = text.replace("\\", "\\\\").replace(";", "\\;").replace(",", "\\,").replace("\n", "\\n")
    return "".join(one if one.isprintable() else "?" for one in escaped)


def _folded(line: bytes) -> list[bytes]:
    """Lines of at most 75 bytes, section 3.1, cut between characters."""
    found = []
    while len(line) > _FOLDED_BYTES:
        at = _FOLDED_BYTES
        while line[at] & 0xC0 == 0x80:
            at -= 1
        found.append(line[:at] + b"\r\n")
        line = b" " + line[at:]
    return [*found, line + b"\r\n"]
