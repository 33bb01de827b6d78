"""From the outcome of a request to the answer over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import quote

from fastapi import Request, Response

from delaystream.client.requests.outcomes import MissingPartitionError, RejectedError, UnavailableError
from delaystream.console.api.models import FireBody, RequestBody, WrittenBody
from delaystream.console.api.problems import ProblemError, invalid, unknown
from delaystream.console.api.rendering import schedule_body
from delaystream.console.service import Console
from delaystream.console.writing.outcomes import (
    Busy,
    KeyReused,
    Progress,
    ReadOnly,
    Stage,
    UnknownTopic,
)
from delaystream.core.rejection import USED_UP, Code

REQUESTS_PATH: Final = "/v1/requests/"
_CONFLICTS: Final = frozenset({Code.ALREADY_EXISTS, Code.CANCELLED_EARLIER, Code.DEPLOY_SUPERSEDED})
_CREATED: Final = frozenset({"scheduled"})

Responses: TypeAlias = dict[int | str, dict[str, Any]]

WRITES: Final[Responses] = {
    200: {"description": "It is carried out, and shown here."},
    202: {"model": WrittenBody, "description": "It is under way: `Location` has the outcome."},
}
"""The answers of each route that writes, beside problems."""

T = TypeVar("T")


async def told(work: Coroutine[Any, Any, T]) -> T:
    """What a call of writing returns. Raises ProblemError for what it raises."""
    try:
        return await work
    except RejectedError as rejected:
        raise refusal(rejected.code, rejected.detail) from None
    except UnknownTopic as error:
        raise ProblemError(HTTPStatus.NOT_FOUND, "unknown-request-topic", str(error)) from None
    except ReadOnly as error:
        raise ProblemError(HTTPStatus.FORBIDDEN, "read-only", str(error)) from None
    except KeyReused as error:
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "idempotency-key-reused", str(error)) from None
    except Busy as error:
        raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "busy", str(error)) from None
    except MissingPartitionError as error:
        raise unknown(str(error)) from None
    except UnavailableError as error:
        raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "kafka-unavailable", str(error)) from None
    except (ValueError, TypeError) as error:
        raise invalid("invalid-parameter", _sentence(str(error))) from None


def made(work: Callable[[], T]) -> T:
    """The same of what is not awaited."""
    try:
        return work()
    except RejectedError as rejected:
        raise refusal(rejected.code, rejected.detail) from None
    except UnknownTopic as error:
        raise ProblemError(HTTPStatus.NOT_FOUND, "unknown-request-topic", str(error)) from None
    except (ValueError, TypeError) as error:
        raise invalid("invalid-parameter", _sentence(str(error))) from None


def refusal(code: str, detail: str) -> ProblemError:
    """The problem of a request that is refused, before it was sent or by the worker."""
    status = HTTPStatus.BAD_REQUEST
    if code == Code.VERSION_CHANGED:
        status = HTTPStatus.PRECONDITION_FAILED
    elif code in _CONFLICTS:
        status = HTTPStatus.CONFLICT
    elif code in USED_UP:
        status = HTTPStatus.TOO_MANY_REQUESTS
    elif code == Code.INTERNAL_ERROR:
        status = HTTPStatus.SERVICE_UNAVAILABLE
    return ProblemError(status, code, _sentence(detail))


def answer(console: Console, response: Response, request: Request, progress: Progress) -> WrittenBody:
    """The answer to a request. Raises ProblemError where it came to nothing."""
    body = request_body(progress)
    if progress.stage is Stage.DECIDED:
        if progress.outcome == "rejected":
            raise refusal(body.code or "", body.detail or "")
        if progress.outcome == "unknown":
            raise unknown(f"No schedule or request {progress.about!r} is known.")
        if progress.outcome == "too-late":
            detail = f"{progress.about!r} is over: nothing of it is pending."
            raise ProblemError(HTTPStatus.CONFLICT, "too-late", detail)
    if progress.position is not None:
        response.headers["Position"] = progress.position
    if progress.stage is not Stage.DECIDED or not progress.shown:
        response.status_code = HTTPStatus.ACCEPTED
        response.headers["Location"] = REQUESTS_PATH + progress.request_id
        return WrittenBody(**dict(body))
    # What is about coordinates or about several has no id.
    named = progress.receipt is not None and "id" in progress.receipt
    found = console.catalog.get(progress.request_topic, progress.about) if named else None
    if found is not None:
        response.headers["ETag"] = f'"{found.row.version}"'
        if progress.outcome in _CREATED and request.method in {"POST", "PUT"}:
            response.status_code = HTTPStatus.CREATED
            response.headers["Location"] = f"/v1/schedules/{quote(progress.about, safe='')}"
    return WrittenBody(**dict(body), schedule=None if found is None else schedule_body(found))


def request_body(progress: Progress) -> RequestBody:
    """A request, and how far it is."""
    receipt: Mapping[str, Any] = progress.receipt or {}
    return RequestBody(
        request_id=progress.request_id,
        request_topic=progress.request_topic,
        action=progress.action,
        about=progress.about or None,
        asked_at=progress.asked_ms,
        stage=progress.stage.value,
        shown=progress.shown,
        source=progress.source,
        position=progress.position,
        outcome=progress.outcome,
        code=receipt.get("code"),
        detail=receipt.get("detail", progress.problem),
        status=receipt.get("status"),
        version=receipt.get("version"),
        repeated=receipt.get("repeated", False),
        fires=[
            FireBody(due_at=fire["due_at_ms"], fire_id=fire["fire_id"]) for fire in receipt.get("fires", ())
        ],
        fires_at_once=receipt.get("fires_at_once"),
        count=receipt.get("count"),
        matched=receipt.get("matched"),
        anonymous=receipt.get("anonymous"),
    )


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
