"""The web application: routes, answers to what goes wrong, and the pages."""

from __future__ import annotations

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse

from delaystream import __version__
from delaystream.console.access.entrance import Entrance
from delaystream.console.access.gate import CALLER, Gate
from delaystream.console.api import metrics, paths, problems
from delaystream.console.api.asking import require_callers
from delaystream.console.api.changing import compat as compat_writes
from delaystream.console.api.changing import destinations, letters, operations, unnamed
from delaystream.console.api.changing import schedules as changed_schedules
from delaystream.console.api.described import description, page
from delaystream.console.api.positions import reached
from delaystream.console.api.reading import audit, compat, happening, overview, planning, schedules
from delaystream.console.audit.recording import Recording
from delaystream.console.pages import views
from delaystream.console.pages.appearance import Appearance
from delaystream.console.service import Console


def application(
    console: Console, entrance: Entrance | None = None, appearance: Appearance | None = None
) -> FastAPI:
    """What answers for a console; it is called in the event loop that the console runs in.

    Without an ``entrance`` it asks nobody who they are, and bounds no rates.
    """
    entrance = Entrance(console.clock.now_ms) if entrance is None else entrance
    app = FastAPI(
        title="delaystream",
        version=__version__,
        summary="What is pending, what fired, and where an event is.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        # FastAPI would make spans of its own as soon as there is an SDK.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.console = console
    app.state.entrance = entrance
    app.add_middleware(Gate, entrance=entrance, answer=problems.refusal)
    app.add_middleware(Recording, log=console.audit)
    description.install(app)
    problems.install(app)
    for router in (planning.router, happening.router, audit.router, overview.router, schedules.router):
        app.include_router(router, prefix="/v1", dependencies=[Depends(reached)])
    for router in (
        changed_schedules.router,
        changed_schedules.asking,
        unnamed.router,
        destinations.router,
        destinations.asking,
        letters.router,
        letters.asking,
        operations.router,
        operations.asking,
    ):
        app.include_router(router, prefix="/v1")
    for prefix in compat.PREFIXES:
        # One description is enough of what is the same four times.
        shown = not prefix
        for router in (compat.router, compat_writes.router):
            app.include_router(router, prefix=f"/compat{prefix}", tags=["compat"], include_in_schema=shown)
    metrics.install(app, console, entrance)
    paths.install(app)
    page.install(app)
    views.install(app, appearance or Appearance())

    @app.get("/health/live", include_in_schema=False)
    async def live() -> JSONResponse:
        return JSONResponse({"live": True})

    @app.get("/health/ready", include_in_schema=False)
    async def ready(request: Request) -> JSONResponse:
        status = 200 if console.ready else 503
        if not request.scope[CALLER].sees_everything:
            return JSONResponse({"ready": console.ready}, status)
        partitions = [
            {
                "partition": s.partition,
                "phase": s.phase,
                "position": s.position,
                "end": s.end,
                "problem": s.problem,
            }
            for s in console.statuses
        ]
        return JSONResponse({"ready": console.ready, "partitions": partitions}, status)

    require_callers(app)
    return app
