"""The parameters of a route: its caller, and the console as that caller sees it.

`require_callers` holds every route to it, so that none can answer without knowing whom.

All of it is asynchronous although nothing waits: FastAPI would have a thread do it otherwise, several times
for each answer, and each time it might wait for whoever fills the history.
"""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Depends, FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts

from delaystream.console.access.caller import Caller
from delaystream.console.access.entrance import Entrance
from delaystream.console.access.gate import CALLER
from delaystream.console.access.refused import forbidden
from delaystream.console.api.cursors import Cursors
from delaystream.console.service import Console

CALLERLESS: Final = frozenset(
    {
        "/health/live",
        "/health/ready",
        # The same for every caller: nothing that is stored has a part in it.
        "/static",
        "/static/vendored/htmx.org-4.0.1.min.js",
        "/v1/docs",
        "/v1/docs/rapidoc-9.3.8.min.js",
        "/v1/openapi.json",
    }
)
"""Paths of routes that take no caller. The gate lets nobody reach them unasked, but for `gate.PUBLIC`."""


async def caller(request: Request) -> Caller:
    """Whoever asks, as the gate found out."""
    found: Caller = request.scope[CALLER]
    return found


async def seen(request: Request, caller: Annotated[Caller, Depends(caller)]) -> Console:
    """The console as the caller sees it."""
    found: Console = request.app.state.console
    return found.seen_by(caller)


async def entrance(request: Request) -> Entrance:
    """Where callers come in."""
    found: Entrance = request.app.state.entrance
    return found


async def cursors(
    entrance: Annotated[Entrance, Depends(entrance)], caller: Annotated[Caller, Depends(caller)]
) -> Cursors:
    """The caller's cursors."""
    return Cursors(entrance.secret, caller)


async def whole(console: Annotated[Console, Depends(seen)]) -> Console:
    """The same, for what cannot be divided by request topic. Raises Refused where it sees only some."""
    if not console.caller.sees_everything:
        raise forbidden(
            "every-topic-needed",
            f"{console.caller.name} may not see every request topic, and the answer covers all of them: it "
            "needs the role viewer on '*'.",
        )
    return console


CallerOf = Annotated[Caller, Depends(caller)]
"""Of a parameter: whoever asks."""
Asked = Annotated[Console, Depends(seen)]
"""Of a parameter: the console as the caller sees it."""
AskedWhole = Annotated[Console, Depends(whole)]
"""Of a parameter: the console, for callers that see every request topic."""

Cursored = Annotated[Cursors, Depends(cursors)]
"""Of a parameter: the caller's cursors."""

Entered = Annotated[Entrance, Depends(entrance)]
"""Of a parameter: where callers come in."""


def require_callers(app: FastAPI) -> None:
    """Raises RuntimeError when a route of an application takes no caller, and is not among `CALLERLESS`."""
    for route in iter_route_contexts(app.routes):
        if route.path in CALLERLESS:
            continue
        if not _takes_caller(getattr(route, "dependant", None)):
            raise RuntimeError(f"{route.path} does not know who asks: it takes no Asked and no CallerOf")


def _takes_caller(dependant: Dependant | None) -> bool:
    if dependant is None:
        return False
    return dependant.call is caller or any(map(_takes_caller, dependant.dependencies))
