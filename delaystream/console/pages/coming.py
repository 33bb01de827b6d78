"""What is to come: everything that is pending in due order, and the agenda by day and hour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, Final

from fastapi import Query, Request
from starlette.responses import Response

from delaystream.console.api.asking import Asked, Cursored
from delaystream.console.api.models import PlannedBody
from delaystream.console.api.reading import planning, schedules
from delaystream.console.api.reading.schedules import Text, time_ms
from delaystream.console.pages.answering import router
from delaystream.console.pages.rendering import address, instant, pages_of
from delaystream.core.instants import EARLIEST_MS, LATEST_MS, format_instant

SHOWN: Final = 50
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS


@router.get("/pending")
async def list_pending(
    request: Request,
    console: Asked,
    cursors: Cursored,
    request_topic: Text = None,
    destination: Text = None,
    key: Text = None,
    tag: Text = None,
    due_from: Annotated[str, Query(max_length=40)] = "",
    due_to: Annotated[str, Query(max_length=40)] = "",
    cursor: str | None = None,
) -> Response:
    """Fires to come, the earliest first."""
    page = await schedules.list_pending(
        console,
        cursors,
        request_topic=[request_topic] if request_topic else None,
        destination=destination or None,
        key=key or None,
        tag=tag or None,
        due_from=due_from or None,
        due_to=due_to or None,
        limit=SHOWN,
        cursor=cursor or None,
    )
    chosen = {
        "request_topic": request_topic,
        "destination": destination,
        "key": key,
        "tag": tag,
        "due_from": due_from,
        "due_to": due_to,
    }
    numbers = await schedules.stats(console)
    return pages_of(request).page(
        "pending.html",
        console,
        {
            "section": "pending",
            "page": page,
            "chosen": chosen,
            "filtered": any(chosen.values()),
            "numbers": numbers,
            "next": address("/pending", **chosen, cursor=page.next_cursor) if page.next_cursor else None,
            "first": address("/pending", **chosen) if cursor else None,
        },
    )


@dataclass(frozen=True)
class Entry:
    """One or more fires of one thing within an hour."""

    what: PlannedBody
    last_ms: int
    count: int
    #: how many of them are not armed yet
    expected: int


@dataclass(frozen=True)
class Hour:
    """One hour of the agenda, on the clock of UTC."""

    start_ms: int
    entries: list[Entry]
    #: whether it is the first one of its day
    opens_day: bool

    @property
    def day(self) -> str:
        """Its date."""
        return instant(self.start_ms)[:10]

    @property
    def clock(self) -> str:
        """When it begins."""
        return instant(self.start_ms)[11:16]

    @property
    def count(self) -> int:
        """Fires in it."""
        return sum(entry.count for entry in self.entries)


@router.get("/agenda")
async def agenda(
    request: Request,
    console: Asked,
    start: Annotated[str, Query(alias="from", max_length=40)] = "",
    request_topic: Text = None,
    destination: Text = None,
    tag: Text = None,
) -> Response:
    """A day from a time on."""
    from_ms = time_ms("from", start or None)
    if from_ms is None:
        from_ms = console.clock.now_ms()
    to_ms = min(from_ms + _DAY_MS, LATEST_MS)
    asked = planning.Range.model_validate(
        {
            "from": format_instant(from_ms),
            "to": format_instant(to_ms),
            "request_topic": [request_topic] if request_topic else None,
            "destination": destination or None,
            "tag": tag or None,
            "limit": planning.MOST,
        }
    )
    found = await planning.agenda(console, asked)
    hours = list(_hours(found.items))
    chosen = {"request_topic": request_topic, "destination": destination, "tag": tag}
    until_ms = to_ms if found.next_from is None else found.next_from

    def at(time_ms: int) -> str:
        inside = min(max(time_ms, EARLIEST_MS), LATEST_MS - 1)
        return address("/agenda", **chosen, **{"from": format_instant(inside)})

    return pages_of(request).page(
        "agenda.html",
        console,
        {
            "section": "agenda",
            "hours": hours,
            "count": len(found.items),
            "more": found.next_from,
            "partial": found.partial,
            "from_ms": from_ms,
            "until_ms": until_ms,
            "chosen": chosen,
            "start": start,
            "filtered": any(chosen.values()),
            "most": max((hour.count for hour in hours), default=0),
            "earlier": at(from_ms - _DAY_MS),
            "later": at(until_ms),
            "now": address("/agenda", **chosen),
            "calendar": address("/v1/agenda.ics", **chosen, **{"from": start or None}),
        },
    )


def _hours(items: Sequence[PlannedBody]) -> Iterator[Hour]:
    """Hours with anything in them; what a schedule fires again and again within one is one entry."""
    last_day = None
    for start_ms, within in groupby(items, lambda one: one.due_at - one.due_at % _HOUR_MS):
        grouped: dict[tuple[str, str, str, str], list[PlannedBody]] = {}
        for one in within:
            what = one.id if one.id is not None else ""
            place = (one.request_topic, what, one.destination, "" if what else one.destination)
            grouped.setdefault(place, []).append(one)
        yield Hour(
            start_ms,
            [
                Entry(some[0], some[-1].due_at, len(some), sum(one.expected for one in some))
                for some in grouped.values()
            ],
            opens_day=start_ms // _DAY_MS != last_day,
        )
        last_day = start_ms // _DAY_MS
