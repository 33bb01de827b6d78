"""What came of a request: a notice above the page that its form leads to, and a page of its own."""

from __future__ import annotations

from dataclasses import replace

from fastapi import Request
from markupsafe import Markup
from starlette.responses import Response

from delaystream.console.api.asking import Asked
from delaystream.console.api.changing.schedules import get_request
from delaystream.console.api.problems import ProblemError
from delaystream.console.pages.acting.told import SHOWN_MS, Notice, notice
from delaystream.console.pages.answering import page_router
from delaystream.console.pages.rendering import pages_of
from delaystream.console.service import Console

router = page_router()


async def told_of(console: Console, request_id: str, *, again: bool = False) -> Notice | None:
    """What came of a request of the last minutes; None where nothing is known, or it is no news any more."""
    if not request_id or not console.writes:
        return None
    try:
        request = await get_request(console, request_id)
    except ProblemError:
        return None
    if console.clock.now_ms() - request.asked_at > SHOWN_MS:
        return None
    found = notice(request)
    if again:
        found = replace(
            found,
            text=Markup("This form had been sent before; nothing was sent again. {}").format(found.text),
        )
    return found


@router.get("/requests/{request_id}")
async def one_request(request: Request, console: Asked, request_id: str) -> Response:
    """A request, and what came of it."""
    found = await get_request(console, request_id)
    values = {"section": "", "request": found, "notice": notice(found), "here": "/requests/{}".format}
    return pages_of(request).page("request.html", console, values)
