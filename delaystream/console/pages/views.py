"""Has the pages and what they need served."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from delaystream.console.pages import audit, coming, first, happened, schedules, signing, surroundings
from delaystream.console.pages.acting import (
    destinations,
    editing,
    letter_runs,
    letters,
    operations,
    requests,
    unnamed,
)
from delaystream.console.pages.acting import schedules as acted
from delaystream.console.pages.answering import router
from delaystream.console.pages.appearance import Appearance
from delaystream.console.pages.rendering import Pages
from delaystream.console.vendored import HTMX

_HERE: Final = Path(__file__).parent
#: Modules whose pages the router has because they were imported.
ROOMS: Final = (audit, first, schedules, coming, happened, signing, surroundings)


ACTING: Final = (
    editing.router,
    acted.router,
    destinations.router,
    unnamed.router,
    requests.router,
    operations.router,
    # Their paths end where those of one letter begin.
    letter_runs.router,
    letters.router,
)
"""What changes something."""


class _Static(StaticFiles):
    """Files that are asked about each time, and answered in full only when they changed."""

    async def get_response(self, path: str, scope: MutableMapping[str, Any]) -> Response:
        """See Starlette."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def install(app: FastAPI, appearance: Appearance) -> None:
    """Have the pages and what they need served."""
    app.state.pages = Pages(appearance)
    # Their paths go on behind an id, which may hold anything.
    for acting_router in ACTING:
        app.include_router(acting_router)
    app.include_router(router)

    # Before the directory whose path begins alike.
    @app.get(f"/static/vendored/{HTMX.name}", include_in_schema=False)
    async def htmx() -> FileResponse:
        headers = {
            "Cache-Control": "public, max-age=31536000, immutable",
            "X-Content-Type-Options": "nosniff",
        }
        return FileResponse(HTMX, media_type="text/javascript", headers=headers)

    app.mount("/static", _Static(directory=_HERE / "static"), name="static")
