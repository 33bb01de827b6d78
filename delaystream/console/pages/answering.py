"""The router of the pages: what goes wrong on one of them is a page, too, that says what to try."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from delaystream.console.access import attempts
from delaystream.console.access.gate import CALLER
from delaystream.console.access.refused import Refused
from delaystream.console.api.problems import ProblemError
from delaystream.console.history.database import DatabaseError
from delaystream.console.pages.advice import advice
from delaystream.console.pages.rendering import pages_of, where_address


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
        "try": advice(code),
        "search": where_address(id) if id and code == "unknown" else None,
    }
    return pages_of(request).page("problem.html", console, values, status)


def page_router() -> APIRouter:
    """A router of pages."""
    return APIRouter(include_in_schema=False, route_class=_PageRoute)


router = page_router()
"""Every page that is only read is a route of this one."""
