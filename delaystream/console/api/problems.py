"""What went wrong, as RFC 9457 has it."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from delaystream.console.access import attempts
from delaystream.console.access.refused import Refused
from delaystream.console.api.models import Problem
from delaystream.console.history.database import DatabaseError

MEDIA_TYPE = "application/problem+json"
_RETRY_AFTER_S = "2"
_LATER = frozenset({HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.TOO_EARLY})
"""The same may be answered otherwise in a moment."""


class ProblemError(Exception):
    """An answer that is a problem."""

    def __init__(self, status: HTTPStatus, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail


def unknown(what: str) -> ProblemError:
    """404."""
    return ProblemError(HTTPStatus.NOT_FOUND, "unknown", what)


def invalid(code: str, detail: str) -> ProblemError:
    """400."""
    return ProblemError(HTTPStatus.BAD_REQUEST, code, detail)


def install(app: FastAPI) -> None:
    """Have everything that goes wrong answered as a problem."""

    @app.exception_handler(Refused)
    async def not_let(_: Request, error: Refused) -> JSONResponse:
        return refusal(error)

    @app.exception_handler(ProblemError)
    async def told(_: Request, error: ProblemError) -> JSONResponse:
        answer = _answer(error.status, error.code, error.detail)
        if error.status in _LATER:
            answer.headers["Retry-After"] = _RETRY_AFTER_S
        return answer

    @app.exception_handler(DatabaseError)
    async def not_now(_: Request, error: DatabaseError) -> JSONResponse:
        answer = _answer(HTTPStatus.SERVICE_UNAVAILABLE, "history-unavailable", str(error))
        answer.headers["Retry-After"] = _RETRY_AFTER_S
        return answer

    @app.exception_handler(RequestValidationError)
    async def not_valid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "the request"
        return _answer(HTTPStatus.BAD_REQUEST, "invalid-parameter", f"{where}: {first['msg']}.")

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        status = HTTPStatus(error.status_code)
        return _answer(status, status.phrase.lower().replace(" ", "-"), f"{error.detail}.")


def refusal(refused: Refused) -> JSONResponse:
    """The answer to a request that is refused."""
    answer = _answer(refused.status, refused.code, refused.detail)
    answer.headers.update(refused.headers or {})
    return answer


def _answer(status: HTTPStatus, code: str, detail: str) -> JSONResponse:
    attempts.refused(code)
    problem = Problem(title=status.phrase, status=status, code=code, detail=detail)
    return JSONResponse(problem.model_dump(), status, media_type=MEDIA_TYPE)
