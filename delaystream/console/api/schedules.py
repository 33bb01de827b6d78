"""Named schedules: one, and lists of them; and everything that is pending."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from msgspec.structs import replace

from delaystream.codec.envelope import LIVE, Status
from delaystream.console.api import cursors
from delaystream.console.api.models import PendingList, ScheduleBody, ScheduleList, TotalBody
from delaystream.console.api.problems import ProblemError, invalid, unknown
from delaystream.console.api.rendering import fresh, pending_body, schedule_body
from delaystream.console.replica.catalog import Filter, Sort
from delaystream.console.replica.pending import Wanted
from delaystream.console.service import Console
from delaystream.core.instants import InstantError, parse_instant

UPCOMING = 10
LIMIT = 50
MOST = 500

router = APIRouter()


def console(request: Request) -> Console:
    """What answers."""
    found: Console = request.app.state.console
    return found


def _time(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_instant(text)
    except InstantError as error:
        raise invalid("invalid-at", f"{name} is {text!r}: {error}") from None


def _key(key: str | None, key_base64: str | None) -> bytes | None:
    if key_base64 is None:
        return None if key is None else key.encode()
    try:
        return b64decode(key_base64, validate=True)
    except Error:
        raise invalid("invalid-key", "key_base64 is not base64 (RFC 4648).") from None


Asked = Annotated[Console, Depends(console)]
Limit = Annotated[int, Query(ge=1, le=MOST)]


@router.get("/schedules")
async def list_schedules(
    console: Asked,
    request_topic: Annotated[list[str] | None, Query()] = None,
    status: Annotated[list[Status] | None, Query()] = None,
    destination: str | None = None,
    key: str | None = None,
    key_base64: str | None = None,
    tag: str | None = None,
    id_prefix: str = "",
    q: Annotated[str, Query(description="Words of id, name or description.")] = "",
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
        _key(key, key_base64),
        tag,
        id_prefix,
        q,
        _time("next_from", next_from),
        _time("next_to", next_to),
    )
    asked = (request_topic, replace(wanted, tenants=None), sort)
    catalog = console.catalog
    page = catalog.page(wanted, sort, limit, cursors.place(cursor, asked))
    total = catalog.total(wanted)
    return ScheduleList(
        items=[schedule_body(found) for found in page.items],
        next_cursor=cursors.cursor(page.next, asked),
        total=TotalBody(count=total.count, relation="exact" if total.exact else "at_least"),
        **fresh(console.freshness),
    )


@router.get("/schedules/{id:path}")
async def get_schedule(
    console: Asked,
    response: Response,
    id: str,
    request_topic: str | None = None,
    payload: bool = False,
) -> ScheduleBody:
    """One schedule, whatever its status; 409 where several request topics have the id and none is named."""
    catalog = console.catalog
    topics = [request_topic] if request_topic is not None else sorted(catalog.tenants())
    found = [one for topic in topics if (one := catalog.get(topic, id)) is not None]
    if len(found) > 1:
        names = ", ".join(one.tenant for one in found)
        raise ProblemError(
            HTTPStatus.CONFLICT,
            "ambiguous-id",
            f"{names} have a schedule {id!r} each: name one as request_topic.",
        )
    if not found:
        raise unknown(f"No schedule {id!r} is known.")
    response.headers["ETag"] = f'"{found[0].row.version}"'
    return schedule_body(found[0], upcoming=UPCOMING, payload=payload)


@router.get("/pending")
async def list_pending(
    console: Asked,
    request_topic: Annotated[list[str] | None, Query()] = None,
    destination: str | None = None,
    key: str | None = None,
    key_base64: str | None = None,
    tag: str | None = None,
    due_from: str | None = None,
    due_to: str | None = None,
    limit: Limit = LIMIT,
    cursor: str | None = None,
) -> PendingList:
    """Everything that is to come, in due order."""
    wanted = Wanted(
        None if request_topic is None else frozenset(request_topic),
        destination,
        _key(key, key_base64),
        tag,
        _time("due_from", due_from),
        _time("due_to", due_to),
    )
    asked = (request_topic, replace(wanted, tenants=None))
    page = console.pending.page(wanted, limit, cursors.place(cursor, asked))
    return PendingList(
        items=[pending_body(event) for event in page.items],
        next_cursor=cursors.cursor(page.next, asked),
        **fresh(console.freshness),
    )
