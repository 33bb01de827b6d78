"""What can be read: schedules, what is pending, where an event is, numbers."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections import Counter
from http import HTTPStatus
from struct import Struct
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Response
from msgspec.structs import replace
from starlette.convertors import register_url_convertor

from delaystream.codec.envelope import LIVE, Status
from delaystream.console import times
from delaystream.console.api.asking import Asked, AskedWhole, Cursored
from delaystream.console.api.cursors import Cursors
from delaystream.console.api.models import (
    CountBody,
    EventList,
    PartitionList,
    PendingList,
    ScheduleBody,
    ScheduleList,
    Stats,
    TotalBody,
    UpcomingList,
    WhereList,
)
from delaystream.console.api.paths import Whole
from delaystream.console.api.problems import ProblemError, invalid, unknown
from delaystream.console.api.rendering import (
    change_bodies,
    event_body,
    found_body,
    fresh,
    partition_body,
    pending_body,
    schedule_body,
    time_body,
)
from delaystream.console.replica.catalog import Filter, Sort
from delaystream.console.replica.pending import Wanted
from delaystream.console.service import Console
from delaystream.console.where import Search
from delaystream.core.instants import InstantError, parse_instant
from delaystream.query.partition import StoredSchedule

UNNAMED = "unnamed"
UPCOMING = 10
PLACE = Struct(">qIq")
"""Of an event: when it was, partition, offset."""
LIMIT = 50
MOST = 500
LONGEST = 1_024
"""Characters of what is asked for."""

register_url_convertor("whole", Whole())
router = APIRouter()


def time_ms(name: str, text: str | None) -> int | None:
    """The time that a parameter says, ms. Raises ProblemError."""
    if text is None:
        return None
    try:
        return parse_instant(text)
    except InstantError as error:
        raise invalid("invalid-at", f"{name} is {text!r}: {error}") from None


def key_bytes(key: str | None, key_base64: str | None) -> bytes | None:
    """The key that one of two parameters says. Raises ProblemError."""
    if key_base64 is None:
        return None if key is None else key.encode()
    try:
        return b64decode(key_base64, validate=True)
    except ValueError:
        raise invalid("invalid-key", "key_base64 is not base64 (RFC 4648).") from None


def place_of(cursors: Cursors, cursor: str | None, asked: object) -> tuple[int, int, int] | None:
    """The place of a cursor among events or letters. Raises ProblemError."""
    place = cursors.place(cursor, asked)
    if place is None:
        return None
    if len(place) != PLACE.size:
        raise invalid("invalid-cursor", "cursor does not belong to this list.")
    at_ms, partition, offset = PLACE.unpack(place)
    return at_ms, partition, offset


Limit = Annotated[int, Query(ge=1, le=MOST)]
Text = Annotated[str | None, Query(max_length=LONGEST)]


@router.get("/schedules")
async def list_schedules(
    console: Asked,
    cursors: Cursored,
    request_topic: Annotated[list[str] | None, Query()] = None,
    status: Annotated[list[Status] | None, Query()] = None,
    destination: Text = None,
    key: str | None = None,
    key_base64: str | None = None,
    tag: Text = None,
    correlation_id: Text = None,
    id_prefix: Annotated[str, Query(max_length=LONGEST)] = "",
    q: Annotated[str, Query(max_length=LONGEST, description="Words of id, name or description.")] = "",
    next_from: str | None = None,
    next_to: str | None = None,
    sort: Sort = Sort.NEXT,
    limit: Limit = LIMIT,
    cursor: str | None = None,
) -> ScheduleList:
    """Named schedules that match; pending and paused ones unless others are asked for."""
    wanted = Filter(
        None if request_topic is None else frozenset(request_topic),
        LIVE if status is None else tuple(dict.fromkeys(status)),
        destination,
        key_bytes(key, key_base64),
        tag,
        id_prefix,
        q,
        time_ms("next_from", next_from),
        time_ms("next_to", next_to),
        None if correlation_id is None else correlation_id.encode(),
    )
    asked = (request_topic, replace(wanted, tenants=None), sort)
    page, total = console.catalog.listed(wanted, sort, limit, cursors.place(cursor, asked))
    return ScheduleList(
        items=[schedule_body(found) for found in page.items],
        next_cursor=cursors.cursor(page.next, asked),
        total=TotalBody(count=total.count, relation="exact" if total.exact else "at_least"),
        **fresh(console.freshness),
    )


@router.get("/schedules/{id:whole}/fires")
async def list_fires(
    console: Asked,
    cursors: Cursored,
    id: str,
    request_topic: str | None = None,
    limit: Limit = LIMIT,
    cursor: str | None = None,
) -> EventList:
    """What became of a schedule's due times, the latest first, as far as the history goes."""
    topic = one_schedule(console, id, request_topic).tenant
    asked = ("fires", topic, id)
    place = place_of(cursors, cursor, asked)
    history = console.history
    page = await asyncio.to_thread(history.of_schedule, topic, id, limit, place)
    return EventList(
        items=[event_body(told) for told in page.items],
        next_cursor=cursors.cursor(None if page.next is None else PLACE.pack(*page.next), asked),
        kept_since=await asyncio.to_thread(history.kept_since_ms),
        **fresh(console.freshness),
    )


@router.get("/schedules/{id:whole}/upcoming")
async def list_upcoming(
    console: Asked,
    id: str,
    request_topic: str | None = None,
    count: Annotated[int, Query(ge=1, le=times.MOST)] = UPCOMING,
) -> UpcomingList:
    """Scheduled times that are ahead, with local time; of what is paused those that it would have."""
    found = one_schedule(console, id, request_topic)
    ahead = await asyncio.to_thread(times.upcoming, found.row, count)
    recurrence = found.row.recurrence
    return UpcomingList(
        id=found.id,
        request_topic=found.tenant,
        status=found.row.status.value,
        timezone="UTC" if recurrence is None else recurrence.timezone,
        items=[time_body(time) for time in ahead],
        clock_changes=change_bodies(ahead),
        **fresh(console.freshness),
    )


@router.get("/schedules/{id:whole}")
async def get_schedule(
    console: Asked,
    response: Response,
    id: str,
    request_topic: str | None = None,
    payload: bool = False,
) -> ScheduleBody:
    """One schedule, whatever its status; 409 where several request topics have the id and none is named."""
    found = one_schedule(console, id, request_topic)
    if payload and not console.caller.reads_payload(found.tenant):
        detail = f"{console.caller.name} may not see payloads: ask without payload=true."
        raise ProblemError(HTTPStatus.FORBIDDEN, "payload-not-allowed", detail)
    response.headers["ETag"] = f'"{found.row.version}"'
    return schedule_body(found, upcoming=UPCOMING, payload=payload)


def one_schedule(console: Console, id: str, request_topic: str | None) -> StoredSchedule:
    """The schedule of an id. Raises ProblemError: there is none, or several."""
    catalog = console.catalog
    topics = [request_topic] if request_topic is not None else sorted(catalog.tenants())
    found = [one for topic in topics if (one := catalog.get(topic, id)) is not None]
    if len(found) > 1:
        names = ", ".join(one.tenant for one in found)
        detail = f"{names} have a schedule {id!r} each: name one as request_topic."
        raise ProblemError(HTTPStatus.CONFLICT, "ambiguous-id", detail)
    if not found:
        raise unknown(f"No schedule {id!r} is known.")
    return found[0]


@router.get("/pending")
async def list_pending(
    console: Asked,
    cursors: Cursored,
    request_topic: Annotated[list[str] | None, Query()] = None,
    destination: Text = None,
    key: str | None = None,
    key_base64: str | None = None,
    tag: Text = None,
    correlation_id: Text = None,
    due_from: str | None = None,
    due_to: str | None = None,
    limit: Limit = LIMIT,
    cursor: str | None = None,
) -> PendingList:
    """Everything that is to come, in due order."""
    wanted = Wanted(
        None if request_topic is None else frozenset(request_topic),
        destination,
        key_bytes(key, key_base64),
        tag,
        time_ms("due_from", due_from),
        time_ms("due_to", due_to),
        None if correlation_id is None else correlation_id.encode(),
    )
    asked = (request_topic, replace(wanted, tenants=None))
    page = console.pending.page(wanted, limit, cursors.place(cursor, asked))
    return PendingList(
        items=[pending_body(event) for event in page.items],
        next_cursor=cursors.cursor(page.next, asked),
        **fresh(console.freshness),
    )


@router.get("/where")
async def where(console: Asked, q: Annotated[str, Query(min_length=1, max_length=LONGEST)]) -> WhereList:
    """Where an event is: by an id, a key, a tag, a correlation id, a fire id or a request's coordinates."""
    found = await Search(console).find(q)
    return WhereList(items=[found_body(one) for one in found], **fresh(console.freshness))


@router.get("/stats")
async def stats(console: Asked) -> Stats:
    """What is pending, in numbers."""
    return numbers(console)


def numbers(console: Console) -> Stats:
    """What is pending, in numbers."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for topic, destination, status, count in console.catalog.counts():
        counts[topic, destination, status.value] += count
    for topic, destination, count in console.pending.counts():
        counts[topic, destination, UNNAMED] += count
    schedules: Counter[str] = Counter()
    for (_, _, status_name), count in counts.items():
        schedules[status_name] += count
    unnamed = schedules.pop(UNNAMED, 0)
    return Stats(
        schedules=dict(schedules),
        unnamed=unnamed,
        by_destination=[
            CountBody(request_topic=topic, destination=destination, status=status_name, count=count)
            for (topic, destination, status_name), count in sorted(counts.items())
        ],
        **fresh(console.freshness),
    )


@router.get("/partitions")
async def partitions(console: AskedWhole) -> PartitionList:
    """Who owns each partition, and how far this console is."""
    return PartitionList(
        items=[partition_body(status, owner) for status, owner in console.owners()],
        history=[msgspec.to_builtins(status) for status in console.history_statuses],
    )
