"""The pages: the lists, and one schedule."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.staticfiles import StaticFiles

from delaystream.codec.event import EventType
from delaystream.console.api.asking import Asked
from delaystream.console.api.reading import UPCOMING, one_schedule
from delaystream.console.api.rendering import definition_body
from delaystream.console.replica.catalog import Filter, Sort
from delaystream.console.replica.pending import Wanted
from delaystream.console.where import Search
from delaystream.core.instants import format_instant
from delaystream.query.partition import StoredSchedule
from delaystream.query.view import view_of

_HERE: Final = Path(__file__).parent
_SHOWN: Final = 50

router = APIRouter(include_in_schema=False)


def _time(time_ms: int | None) -> str:
    return "" if time_ms is None else format_instant(time_ms)


def _text(content: bytes | None) -> str:
    return "" if content is None else content.decode("utf-8", "backslashreplace")


def _link(found: StoredSchedule) -> str:
    return f"/schedules/{quote(found.id, safe='')}?{urlencode({'request_topic': found.tenant})}"


_templates = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= {"time": _time, "text": _text}
_templates.globals["link"] = _link


def install(app: FastAPI) -> None:
    """Have the pages and what they need served."""
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=_HERE / "static"), name="static")


def _page(template: str, **values: object) -> HTMLResponse:
    return HTMLResponse(_templates.get_template(template).render(**values))


@router.get("/")
async def lists(console: Asked, q: str = "") -> HTMLResponse:
    """What is pending, what fired last, and where something is."""
    catalog, pending = console.catalog, console.pending
    found = []
    if q:
        found = await Search(console).find(q)
    return _page(
        "lists.html",
        q=q,
        found=found,
        schedules=catalog.page(Filter(), Sort.NEXT, _SHOWN).items,
        total=catalog.total(Filter()),
        pending=pending.page(Wanted(), _SHOWN).items,
        fires=await asyncio.to_thread(console.history.last, [EventType.FIRED], _SHOWN),
        fresh=console.freshness,
    )


@router.get("/schedules/{id:whole}")
async def schedule(console: Asked, id: str, request_topic: str | None = None) -> HTMLResponse:
    """One schedule."""
    found = one_schedule(console, id, request_topic)
    view = view_of(found.id, found.row, UPCOMING)
    definition = definition_body(view.definition).model_dump(exclude_none=True, exclude={"destination"})
    events = await asyncio.to_thread(
        console.history.of_schedule, found.tenant, found.id, _SHOWN, None, tuple(EventType)
    )
    return _page(
        "schedule.html",
        q="",
        schedule=found,
        view=view,
        definition=definition.items(),
        events=events.items,
        fresh=console.freshness,
    )
