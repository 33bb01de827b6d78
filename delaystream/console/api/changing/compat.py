"""Writes in the words of other schedulers: the same calls as under `/v1`."""

from __future__ import annotations

from decimal import Decimal
from http import HTTPStatus
from typing import Annotated, Any, NoReturn

from fastapi import APIRouter, Body, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from delaystream.console.api.asking import Asked
from delaystream.console.api.changing.answers import REQUESTS_PATH, WRITES, Responses, answer, told
from delaystream.console.api.changing.bodies import Body as Sent
from delaystream.console.api.changing.bodies import Changed, delivered
from delaystream.console.api.changing.conditions import Conditioned, Conditions
from delaystream.console.api.changing.guard import guard
from delaystream.console.api.models import HeaderBytes, Json, Model
from delaystream.console.api.problems import ProblemError, invalid
from delaystream.console.api.reading import compat
from delaystream.console.api.reading.compat import CompatSchedule
from delaystream.console.service import Console
from delaystream.console.writing.outcomes import Progress

router = APIRouter(dependencies=[Depends(guard)])


class CompatRequest(Sent):
    """A schedule to make, or what is to change of one."""

    id: str | None = Field(None, description="The console generates one if none is given.")
    tenant: str | None = Field(None, description="`request_topic`.")
    name: str | None = None
    description: str | None = None
    cron_expression: str | None = Field(None, description="`cron`.")
    interval_seconds: int | float | None = Field(None, gt=0, lt=1e11, description="`every`.")
    scheduled_at: str | None = Field(None, description="`at`.")
    delay_seconds: int | float | None = Field(None, ge=0, lt=1e11, description="`delay`.")
    timezone: str | None = None
    topic: str | None = Field(None, description="`destination`.")
    key: str | None = None
    payload: Any = Field(None, description="`value_json`.")
    headers: dict[str, str] | None = None
    tags: list[str] | None = None
    is_active: bool | None = Field(None, description="False: paused.")
    max_executions: int | None = Field(None, description="`max_fires`.")
    start_at: str | None = None
    end_at: str | None = None


class CompatExecuted(Model):
    """A fire that was asked for."""

    execution_id: str | None = Field(description="`fire_id`.")
    schedule_id: str


class CompatToggled(Sent):
    """Whether a schedule fires."""

    enabled: bool


_OPTIONS = {
    "topic": "destination",
    "cron_expression": "cron",
    "scheduled_at": "at",
    "timezone": "timezone",
    "max_executions": "max_fires",
    "start_at": "start",
    "end_at": "end",
    "name": "name",
    "description": "description",
    "tags": "tags",
}


def _options(body: CompatRequest) -> Json:
    options: Json = {
        ours: value for theirs, ours in _OPTIONS.items() if (value := getattr(body, theirs)) is not None
    }
    for theirs, ours in (("interval_seconds", "every"), ("delay_seconds", "delay")):
        if (seconds := getattr(body, theirs)) is not None:
            options[ours] = f"{Decimal(str(seconds)):f}s" if seconds else "0"
    return options


def _payload(body: CompatRequest) -> Changed:
    headers: list[list[str | HeaderBytes | None]] | None
    headers = None if body.headers is None else [[name, value] for name, value in body.headers.items()]
    return Changed(value_json=body.payload, key=body.key, headers=headers)


async def _settled(on: Conditions, body: CompatRequest, id: str, progress: Progress) -> Progress:
    """With `is_active`: as it says, also where the schedule stays as it was."""
    if body.is_active is None or progress.outcome not in {"updated", "unchanged", "kept"}:
        return progress
    action = "resume" if body.is_active else "pause"
    return await told(on.writing.command(on.following(progress.request_topic), action, id))


class CompatUnderWay(Model):
    """A write that was taken, and is not shown yet: the same once more would be another one."""

    id: str = Field(description="The schedule's.")
    request_id: str = Field(description="`GET /v1/requests/{request_id}` tells what came of it.")
    outcome: str | None = Field(description="As under `/v1`; null: nothing is decided yet.")
    detail: str


def _answered(
    console: Console, response: Response, request: Request, progress: Progress
) -> CompatSchedule | JSONResponse:
    """The schedule as it is now. 202 where that cannot be shown yet, and no error: errors are tried again."""
    written = answer(console, response, request, progress)
    if written.schedule is not None:
        found = console.catalog.get(progress.request_topic, written.schedule.id)
        if found is not None:
            return compat.schedule_body(found)
    return _under_way(response, progress)


def _under_way(response: Response, progress: Progress) -> JSONResponse:
    place = REQUESTS_PATH + progress.request_id
    body = CompatUnderWay(
        id=progress.about,
        request_id=progress.request_id,
        outcome=progress.outcome,
        detail=f"The request was taken, and is not shown yet: {place} tells of it.",
    )
    headers = {"Location": place}
    if (position := response.headers.get("Position")) is not None:
        headers["Position"] = position
    return JSONResponse(body.model_dump(), HTTPStatus.ACCEPTED, headers)


_WRITES: Responses = {
    200: WRITES[200],
    202: {"model": CompatUnderWay, "description": "It was taken, and is not shown yet."},
}
_CREATES: Responses = {
    **_WRITES,
    201: {"model": CompatSchedule, "description": "There was no such schedule, and now there is."},
}


def _nothing_to_do(what: str) -> NoReturn:
    raise ProblemError(HTTPStatus.GONE, "gone", what)


@router.post("/schedules/monitoring/sync")
async def sync() -> None:
    """410: there is nothing to bring together."""
    _nothing_to_do("There is nothing to sync: the changelog has all schedules, and consoles follow it.")


@router.post("/schedules/monitoring/cleanup")
@router.delete("/schedules/monitoring/cleanup")
async def cleanup() -> None:
    """410: what is over goes by itself."""
    _nothing_to_do(
        "There is nothing to clean up: what is over is forgotten after the workers' id_retention_ms."
    )


@router.post("/schedules", responses=_CREATES, response_model=CompatSchedule)
async def create_schedule(
    console: Asked,
    request: Request,
    response: Response,
    on: Conditioned,
    body: Annotated[CompatRequest, Body()],
) -> CompatSchedule | JSONResponse:
    """Create a schedule; 409 where its id is in use."""
    asked = on.of_topic(topic=body.tenant)
    id = asked.made_up_id if body.id is None else body.id
    options: Json = {"if_exists": "reject", **_options(body)}
    if body.is_active is not None:
        options["status"] = "pending" if body.is_active else "paused"
    progress = await told(on.writing.schedule(asked, id, delivered(_payload(body)), options))
    return _answered(console, response, request, progress)


@router.put("/schedules/{id:whole}", responses=_WRITES, response_model=CompatSchedule)
async def update_schedule(
    console: Asked,
    request: Request,
    response: Response,
    on: Conditioned,
    id: str,
    body: Annotated[CompatRequest, Body()],
) -> CompatSchedule | JSONResponse:
    """Change what is given of a schedule; key, payload and headers go together."""
    if body.id not in (None, id):
        raise invalid(
            "invalid-id", f"id is {body.id!r}, and the path says another; expected none, or the same."
        )
    options = _options(body)
    asked = on.of_schedule(id, topic=body.tenant)
    given = body.model_fields_set
    if "payload" in given:
        what = delivered(_payload(body))
        options |= {"value": what.value, "key": what.key, "headers": what.headers}
    elif given & {"key", "headers"}:
        raise invalid(
            "invalid-payload", "key and headers belong to a new payload; expected the payload, too."
        )
    if not options and body.is_active is not None:
        action = "resume" if body.is_active else "pause"
        progress = await told(on.writing.command(asked, action, id))
    else:
        progress = await told(on.writing.update(asked, id, options))
        progress = await _settled(on, body, id, progress)
    return _answered(console, response, request, progress)


@router.delete("/schedules/{id:whole}", responses=_WRITES, response_model=CompatSchedule)
async def delete_schedule(
    console: Asked, request: Request, response: Response, on: Conditioned, id: str, tenant: str | None = None
) -> CompatSchedule | JSONResponse:
    """Cancel a schedule; it is shown as it is then."""
    work = on.writing.command(on.of_schedule(id, topic=tenant), "cancel", id)
    return _answered(console, response, request, await told(work))


@router.post("/schedules/{id:whole}/execute", responses=_WRITES, response_model=CompatExecuted)
async def execute_schedule(
    console: Asked, request: Request, response: Response, on: Conditioned, id: str, tenant: str | None = None
) -> CompatExecuted | JSONResponse:
    """Fire a schedule now, beside its own times."""
    progress = await told(on.writing.command(on.of_schedule(id, topic=tenant), "trigger", id))
    written = answer(console, response, request, progress)
    if response.status_code == HTTPStatus.ACCEPTED:
        return _under_way(response, progress)
    return CompatExecuted(
        execution_id=written.fires[0].fire_id if written.fires else None,
        schedule_id=id,
    )


@router.post("/schedules/{id:whole}/toggle", responses=_WRITES, response_model=CompatSchedule)
async def toggle_schedule(
    console: Asked,
    request: Request,
    response: Response,
    on: Conditioned,
    id: str,
    body: Annotated[CompatToggled, Body()],
    tenant: str | None = None,
) -> CompatSchedule | JSONResponse:
    """Set whether a schedule fires."""
    work = on.writing.command(on.of_schedule(id, topic=tenant), "resume" if body.enabled else "pause", id)
    return _answered(console, response, request, await told(work))
