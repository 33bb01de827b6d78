"""The router of the pages: what goes wrong on one of them is a page, too, that says what to try."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from delaystream.console.access import attempts
from delaystream.console.access.gate import CALLER
from delaystream.console.access.refused import Refused
from delaystream.console.api.problems import ProblemError
from delaystream.console.history.database import DatabaseError
from delaystream.console.pages.rendering import pages_of, where_address

_TRY: Final = {
    "unknown": "Search for it: it may be known by its key, by a tag, or by the coordinates of its request.",
    "ambiguous-id": "Choose the request topic that you mean.",
    "invalid-cursor": "Begin at the first page: filters or order are others than those of the link.",
    "history-unavailable": "Reload in a few seconds. What is pending can be asked meanwhile.",
}
_TRY_ELSE: Final = "Correct the address, or go back and choose again."


class _PageRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See FastAPI."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except ProblemError as error:
                return problem(request, error.status, error.code, error.detail)
            except Refused as error:
                return problem(request, error.status, error.code, error.detail)
            except DatabaseError as error:
                status = HTTPStatus.SERVICE_UNAVAILABLE
                return problem(request, status, "history-unavailable", str(error))
            except RequestValidationError as error:
                wrong = error.errors()[0]
                where = ".".join(str(part) for part in wrong["loc"][1:]) or "the request"
                detail = f"{where}: {wrong['msg']}."
                return problem(request, HTTPStatus.BAD_REQUEST, "invalid-parameter", detail)

        return answer


def problem(request: Request, status: HTTPStatus, code: str, detail: str) -> Response:
    """A page about what went wrong."""
    attempts.refused(code)
    console = request.app.state.console.seen_by(request.scope[CALLER])
    id = request.path_params.get("id", "")
    values = {
        "status": status.value,
        "title": status.phrase,
        "code": code,
        "detail": detail,
        "try": _TRY.get(code, _TRY_ELSE),
        "search": where_address(id) if id and code == "unknown" else None,
    }
    return pages_of(request).page("problem.html", console, values, status)


router = APIRouter(include_in_schema=False, route_class=_PageRoute)
"""Every page is a route of this one."""
