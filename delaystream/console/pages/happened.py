"""What happened: the search for one event, events as they come, and dead letters."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from fastapi import Query, Request
from starlette.responses import Response

from delaystream.codec.event import EventType
from delaystream.console.api.asking import Asked, Cursored, Entered
from delaystream.console.api.changing import letters
from delaystream.console.api.models import EventBody
from delaystream.console.api.reading import happening, schedules
from delaystream.console.api.reading.schedules import LONGEST, Text
from delaystream.console.api.rendering import event_body
from delaystream.console.letters.acts import Standing
from delaystream.console.pages.acting.forms import stamp
from delaystream.console.pages.answering import router
from delaystream.console.pages.rendering import address, pages_of
from delaystream.console.where import By
from delaystream.core.instants import format_instant

SHOWN: Final = 50
RUNS_SHOWN: Final = 5
RUNS_SHOWN_MS: Final = 24 * 3_600_000
"""So long those that were sent again together stand below the list of letters."""


@router.get("/where")
async def where(
    request: Request, console: Asked, q: Annotated[str, Query(max_length=LONGEST)] = ""
) -> Response:
    """Where an event is."""
    word = q.strip()
    key = word.encode("utf-8", "surrogatepass")
    items = (await schedules.where(console, q=word)).items if word else []
    return pages_of(request).page(
        "where.html",
        console,
        {
            "section": "where",
            "q": q,
            "word": word,
            "found": items,
            "by_key": any(one.by is By.KEY for one in items),
            "hold": next((hold for hold in console.holds() if hold.match.key == key), None),
            "states": Counter(one.state.value for one in items).most_common(),
        },
    )


async def last_events(console: Asked, types: Sequence[EventType], limit: int) -> list[EventBody]:
    """The latest events of some types."""
    return [event_body(told) for told in await asyncio.to_thread(console.history.last, types, limit)]


@router.get("/live")
async def live(
    request: Request,
    console: Asked,
    type: Annotated[list[str] | None, Query()] = None,
    request_topic: Text = None,
    destination: Text = None,
    id: Text = None,
) -> Response:
    """The last events, and with script those that come. An unknown type is as if it were not said."""
    types = [one for one in EventType if one.value in (type or ())]
    wanted = happening.Watched(
        frozenset(types) if types else None,
        frozenset({request_topic}) if request_topic else None,
        destination or None,
        id or None,
    )
    told = await asyncio.to_thread(console.history.last, types or list(EventType), schedules.MOST)
    events = [event_body(one) for one in told if wanted.fits(one)][:SHOWN]
    chosen = {
        "type": [one.value for one in types],
        "request_topic": request_topic,
        "destination": destination,
        "id": id,
    }
    return pages_of(request).page(
        "live.html",
        console,
        {
            "section": "live",
            "events": events,
            "chosen": chosen,
            "filtered": any(chosen.values()),
            "types": [one.value for one in EventType],
            "stream": address("/v1/events", **chosen),
        },
    )


@router.get("/dead-letters")
async def dead_letters(
    request: Request,
    console: Asked,
    cursors: Cursored,
    entrance: Entered,
    code: Text = None,
    request_topic: Text = None,
    destination: Text = None,
    id: Text = None,
    at_from: Text = None,
    at_to: Text = None,
    standing: Standing | Literal["all", ""] = "",
    cursor: str | None = None,
) -> Response:
    """Dead letters, the latest first; without `standing` those about which there is something to do."""
    chosen = {
        "code": code,
        "request_topic": request_topic,
        "destination": destination,
        "id": id,
        "at_from": at_from,
        "at_to": at_to,
    }
    filters: dict[str, Any] = {name: text or None for name, text in chosen.items()}
    filters["request_topic"] = [request_topic] if request_topic else None
    page = await happening.list_dead_letters(
        console,
        cursors,
        **filters,
        standing=[standing] if standing else None,
        limit=SHOWN,
        cursor=cursor or None,
    )
    runs = [] if console.runs is None else (await letters.list_runs(console)).items
    now_ms = console.clock.now_ms()
    here = {**chosen, "standing": str(standing)}
    return pages_of(request).page(
        "dead_letters.html",
        console,
        {
            "section": "dead-letters",
            "page": page,
            "chosen": chosen,
            "standing": str(standing),
            "standings": [one.value for one in Standing],
            "filtered": any(chosen.values()),
            "counts": sorted(page.counts.items(), key=lambda pair: -pair[1]),
            "code_address": lambda value: address("/dead-letters", **{**here, "code": value}),
            "standing_address": lambda value: address("/dead-letters", **{**here, "standing": value}),
            "next": address("/dead-letters", **here, cursor=page.next_cursor) if page.next_cursor else None,
            "first": address("/dead-letters", **here) if cursor else None,
            "runs": [run for run in runs if now_ms - run.asked_at < RUNS_SHOWN_MS][:RUNS_SHOWN],
            # Letters that come after this page was shown are not meant by it.
            "until": at_to or format_instant(now_ms),
            "stamp": stamp(entrance, console.caller, now_ms),
        },
    )
