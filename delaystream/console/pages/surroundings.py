"""What the events go through: destinations, partitions, settings."""

from __future__ import annotations

from typing import Final

from fastapi import Request
from starlette.responses import Response

from delaystream.console.api.asking import Asked, AskedWhole, Cursored, Entered
from delaystream.console.api.cursors import Cursors
from delaystream.console.api.reading import overview, schedules
from delaystream.console.api.reading.schedules import Text
from delaystream.console.pages.acting.panels import Around
from delaystream.console.pages.acting.requests import told_of
from delaystream.console.pages.answering import router
from delaystream.console.pages.rendering import address, pages_of
from delaystream.console.service import Console

SHOWN: Final = 50


@router.get("/destinations")
async def list_destinations(
    request: Request,
    console: Asked,
    cursors: Cursored,
    destination: Text = None,
    cursor: str | None = None,
    told: str = "",
    again: bool = False,
) -> Response:
    """Destinations by name, with what stands in the way of each."""
    around = Around(notice=await told_of(console, told, again=again))
    return await destinations_page(request, (console, cursors), around, destination, cursor)


async def destinations_page(
    request: Request,
    asked: tuple[Console, Cursors],
    around: Around,
    destination: str | None = None,
    cursor: str | None = None,
) -> Response:
    """The page of destinations, with what is asked back and what came of it."""
    console, cursors = asked
    page = await overview.list_destinations(
        console, cursors, destination=destination or None, limit=SHOWN, cursor=cursor or None
    )
    day = await overview.summary(console)
    values = {
        "section": "destinations",
        "page": page,
        "destination": destination or "",
        "day": {one.destination: one for one in day.items},
        "next": address("/destinations", destination=destination, cursor=page.next_cursor)
        if page.next_cursor
        else None,
        "first": address("/destinations", destination=destination) if cursor else None,
        **around.values,
        "here": lambda told: address("/destinations", destination=destination, told=told),
    }
    return pages_of(request).page("destinations.html", console, values, around.status)


@router.get("/partitions")
async def partitions(request: Request, console: AskedWhole, entrance: Entered) -> Response:
    """Who owns each partition, and how far this console is."""
    page = await schedules.partitions(console)
    health = await overview.health(console, entrance)
    return pages_of(request).page(
        "partitions.html", console, {"section": "partitions", "page": page, "health": health}
    )


@router.get("/settings")
async def settings(request: Request, console: AskedWhole, q: str = "") -> Response:
    """Every setting of this console, and where its value came from."""
    pages = pages_of(request)
    word = q.strip().lower()
    shown = [
        one
        for one in pages.appearance.settings
        if not word or word in one.name.lower() or word in (one.meaning or "").lower()
    ]
    changed = [one for one in shown if one.origin != "default"]
    return pages.page(
        "settings.html",
        console,
        {
            "section": "settings",
            "q_setting": q,
            "changed": changed,
            "rest": [one for one in shown if one.origin == "default"],
        },
    )
