"""Named schedules: their list, and one of them with all that is known of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Query, Request
from starlette.responses import Response

from delaystream.codec.envelope import LIVE, Status
from delaystream.codec.event import EventType
from delaystream.console.api.asking import Asked, Cursored, Entered
from delaystream.console.api.models import DefinitionBody, EventBody, ScheduleBody
from delaystream.console.api.reading import schedules
from delaystream.console.api.reading.schedules import LONGEST, Text
from delaystream.console.api.rendering import event_body
from delaystream.console.history.queries import OUTCOMES
from delaystream.console.pages.acting.deeds import DEEDS
from delaystream.console.pages.acting.forms import stamp
from delaystream.console.pages.acting.operations import pick_of
from delaystream.console.pages.acting.panels import Around
from delaystream.console.pages.acting.requests import told_of
from delaystream.console.pages.answering import router
from delaystream.console.pages.bars import by_lateness
from delaystream.console.pages.happened import last_events
from delaystream.console.pages.rendering import address, instant, length, pages_of, schedule_address
from delaystream.console.pages.snippets import Target, snippets
from delaystream.console.replica.catalog import Sort
from delaystream.console.service import Console
from delaystream.console.words import cron_in_words, every_in_words
from delaystream.core.durations import DurationError, parse_duration
from delaystream.query.partition import StoredSchedule

SHOWN: Final = 50
_BARS: Final = 60
LATE_MS: Final = 1_000
"""What comes later than that is called late."""
_OUTCOMES: Final = frozenset(type.value for type in OUTCOMES)
_SORTS: Final = {
    Sort.NEXT: "next fire, the earliest first",
    Sort.LAST: "last fire, the latest first",
    Sort.CREATED: "created, the latest first",
    Sort.ID: "id",
}


def in_words(definition: DefinitionBody) -> str | None:
    """When it fires, in words; None for a cron expression that this version does not read."""
    if definition.cron is not None:
        told = cron_in_words(definition.cron)
        return None if told is None else f"{told}, in {definition.timezone or 'UTC'}"
    if definition.every is not None:
        try:
            return every_in_words(parse_duration(definition.every))
        except DurationError:
            return f"every {definition.every}"
    count = len(definition.at or ())
    return "once" if count == 1 else f"at {count} times" if count else "no time is left"


@dataclass(frozen=True)
class Outcome:
    """How late what was delivered lately was, in one line."""

    fired: int
    passed: int
    #: ms
    median: int | None
    worst: int | None
    worst_at: int | None


@router.get("/schedules")
async def list_schedules(
    request: Request,
    console: Asked,
    cursors: Cursored,
    entrance: Entered,
    request_topic: Text = None,
    status: Annotated[str, Query(max_length=20)] = "",
    destination: Text = None,
    key: Text = None,
    tag: Text = None,
    id_prefix: Annotated[str, Query(max_length=LONGEST)] = "",
    q: Annotated[str, Query(max_length=LONGEST)] = "",
    sort: Sort = Sort.NEXT,
    cursor: str | None = None,
) -> Response:
    """The list: everything that is chosen is in the address."""
    known = {one.value: one for one in Status}
    page = await schedules.list_schedules(
        console,
        cursors,
        request_topic=[request_topic] if request_topic else None,
        status=[known[status]] if status in known else list(Status) if status == "all" else None,
        destination=destination or None,
        key=key or None,
        tag=tag or None,
        id_prefix=id_prefix,
        q=q,
        sort=sort,
        limit=SHOWN,
        cursor=cursor or None,
    )
    chosen = {
        "request_topic": request_topic,
        "status": status,
        "destination": destination,
        "key": key,
        "tag": tag,
        "id_prefix": id_prefix,
        "q": q,
        "sort": "" if sort is Sort.NEXT else sort.value,
    }
    numbers = await schedules.stats(console)
    return pages_of(request).page(
        "schedules.html",
        console,
        {
            "section": "schedules",
            "page": page,
            "pick_of": pick_of,
            "stamp": stamp(entrance, console.caller, console.clock.now_ms()),
            "chosen": chosen,
            "filtered": any(value for name, value in chosen.items() if name not in {"status", "sort"}),
            "words": in_words,
            "sorts": {sort.value: text for sort, text in _SORTS.items()},
            "statuses": [one.value for one in Status],
            "live": sum(numbers.schedules.get(one.value, 0) for one in LIVE),
            "counts": numbers.schedules,
            "next": address("/schedules", **chosen, cursor=page.next_cursor) if page.next_cursor else None,
            "first": address("/schedules", **chosen) if cursor else None,
            "status_address": lambda value: address("/schedules", **{**chosen, "status": value}),
        },
    )


@router.get("/schedules/{id:whole}")
async def one_schedule(
    request: Request,
    console: Asked,
    id: str,
    request_topic: str | None = None,
    payload: bool = False,
    told: Annotated[str, Query(max_length=LONGEST)] = "",
    again: bool = False,
) -> Response:
    """One schedule."""
    found = schedules.one_schedule(console, id, request_topic)
    notice = await told_of(console, told, again=again)
    return await schedule_page(request, console, found, Around(notice=notice), payload=payload)


async def schedule_page(
    request: Request, console: Console, found: StoredSchedule, around: Around, *, payload: bool = False
) -> Response:
    """The page of a schedule."""
    may_read = console.caller.reads_payload(found.tenant)
    shown = await schedules.get_schedule(console, Response(), found.id, found.tenant, payload=may_read)
    upcoming = await schedules.list_upcoming(console, shown.id, shown.request_topic, count=schedules.UPCOMING)
    events = await events_of(console, shown, tuple(EventType), SHOWN)
    fires = await events_of(console, shown, OUTCOMES, _BARS)
    pages = pages_of(request)
    values = {
        "section": "schedules",
        "schedule": shown,
        "words": in_words(shown.definition),
        "definition": definition_rows(shown.definition),
        "upcoming": upcoming,
        "events": events,
        "fires": fires,
        "bars": by_lateness([_bar(told) for told in reversed(fires)], _BARS),
        "outcome": _outcome(fires),
        "reasons": await _reasons(console, shown.definition.destination, fires),
        "may_read": may_read,
        "show_payload": payload,
        "snippets": snippets(
            shown,
            shown.payload if payload else None,
            target_of(request, console),
        ),
        "deeds": [deed for deed in DEEDS if deed.fits(found)],
        **around.values,
        "here": lambda told: f"{schedule_address(shown.id, shown.request_topic)}&told={told}",
    }
    return pages.page("schedule.html", console, values, around.status)


def target_of(request: Request, console: Console) -> Target:
    """Where a request that is copied goes to."""
    servers = pages_of(request).appearance.bootstrap_servers
    return Target(servers, str(request.base_url).rstrip("/"), writes=console.writes)


async def events_of(
    console: Asked, schedule: ScheduleBody, types: tuple[EventType, ...], limit: int
) -> list[EventBody]:
    """What happened to it, the latest first."""
    page = await asyncio.to_thread(
        console.history.of_schedule, schedule.request_topic, schedule.id, limit, None, types
    )
    return [event_body(one) for one in page.items]


async def _reasons(console: Console, destination: str, fires: list[EventBody]) -> list[tuple[int, int, str]]:
    """What stood in the way of what was late: times at which its destination was parked."""
    late = [told.event for told in fires if (told.event.get("lateness_ms") or 0) > LATE_MS]
    if not late:
        return []
    told = await last_events(console, [EventType.PARKED, EventType.RELEASED], schedules.MOST)
    changes = [one for one in reversed(told) if one.event.get("destination") == destination]
    reasons = []
    begun: EventBody | None = None
    for change in changes:
        if change.type == EventType.PARKED.value:
            begun = change
            continue
        if begun is None:
            continue
        since_ms = begun.event.get("since_ms", begun.at)
        if any(one["due_at_ms"] <= change.at and since_ms <= one["fired_at_ms"] for one in late):
            why = begun.event.get("detail") or begun.event.get("reason") or "it could not be written to"
            reasons.append((since_ms, change.at, why))
        begun = None
    return reasons


def definition_rows(definition: DefinitionBody) -> list[tuple[str, object]]:
    """What it says beside its times, by the names of the contract; times as numbers."""
    told = definition.model_dump(
        exclude_none=True, exclude={"destination", "at", "name", "description", "tags"}, mode="python"
    )
    return [(name, getattr(definition, name)) for name in told]


def _bar(told: EventBody) -> tuple[str, int | None, str]:
    lateness_ms = told.event.get("lateness_ms")
    if told.type == EventType.FIRED.value:
        late = lateness_ms or 0
        return "fired" if late <= LATE_MS else "late", late, f"{instant(told.at)} UTC: {length(late)} late"
    return "passed", None, f"{instant(told.at)} UTC: {told.type}"


def _outcome(fires: list[EventBody]) -> Outcome:
    fired = [told for told in fires if told.type == EventType.FIRED.value]
    by_lateness = sorted(fired, key=lambda told: told.event.get("lateness_ms") or 0)
    late = [told.event.get("lateness_ms") or 0 for told in by_lateness]
    return Outcome(
        len(fired),
        len(fires) - len(fired),
        late[len(late) // 2] if late else None,
        late[-1] if late else None,
        by_lateness[-1].at if late else None,
    )
