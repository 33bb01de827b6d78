"""Writes about named schedules."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Request, Response
from msgspec.structs import replace

from delaystream.client.requests.composing import CheckedRequest
from delaystream.console.api.asking import Asked
from delaystream.console.api.changing.answers import WRITES, answer, made, request_body, told
from delaystream.console.api.changing.bodies import (
    Changed,
    Created,
    Noted,
    Paused,
    Replaced,
    Rescheduled,
    Resumed,
    Toggled,
    changes,
    command_options,
    delivered,
    reschedule_options,
    schedule_options,
)
from delaystream.console.api.changing.conditions import Conditioned, writing_of
from delaystream.console.api.changing.guard import guard
from delaystream.console.api.models import CheckedBody, Json, RequestBody, WrittenBody
from delaystream.console.api.problems import unknown
from delaystream.console.api.rendering import header_texts, text_or_base64
from delaystream.console.writing.outcomes import remembered
from delaystream.console.writing.positions import parse_position

router = APIRouter(tags=["writing"], dependencies=[Depends(guard)])
asking = APIRouter(tags=["writing"])
_CREATES = {
    **WRITES,
    201: {"model": WrittenBody, "description": "There was no such schedule, and now there is."},
}


@router.post("/schedules", responses=_CREATES)
async def create_schedule(
    console: Asked, request: Request, response: Response, on: Conditioned, body: Annotated[Created, Body()]
) -> WrittenBody:
    """Create a schedule; 409 where its id is in use, unless `if_exists` says otherwise."""
    asked = on.of_topic(body.note)
    options = {"if_exists": "reject", **schedule_options(body)}
    id = asked.made_up_id if body.id is None else body.id
    progress = await told(on.writing.schedule(asked, id, delivered(body), options))
    return answer(console, response, request, progress)


@router.post("/requests/check")
async def check_request(console: Asked, on: Conditioned, body: Annotated[Created, Body()]) -> CheckedBody:
    """What creating a schedule would send, held to the header contract; nothing is sent."""
    asked = on.of_topic(body.note)
    id = asked.made_up_id if body.id is None else body.id
    what = delivered(body)

    def checked() -> CheckedRequest:
        options = {"if_exists": "reject", **schedule_options(body)}
        return on.writing.checked(on.writing.schedule_record(asked, id, what, options))

    request = made(checked)
    record = request.record
    due = request.checker.due_at(record, console.clock.now_ms())
    key, key_base64 = text_or_base64(record.key)
    return CheckedBody(
        request_topic=record.topic,
        id=id,
        key=key,
        key_base64=key_base64,
        headers=header_texts(record.headers),
        value_bytes=None if record.value is None else len(record.value),
        due_at=[round(at.timestamp() * 1000) for at in due],
    )


@asking.get("/requests/{request_id}")
async def get_request(console: Asked, request_id: str) -> RequestBody:
    """A request that was written here within the last day, and what came of it."""
    progress = await writing_of(console).find(request_id)
    if progress is None or not console.caller.sees(progress.request_topic):
        raise unknown(f"No request {request_id[:60]!r} is known.")
    found = console.catalog.get(progress.request_topic, progress.about)
    progress = progress if found is None else remembered(progress, found.row)
    if progress.position is not None and not progress.shown:
        # Nobody waits for it any more: whether it is read here was not stored.
        progress = replace(progress, shown=console.has_passed(parse_position(progress.position)))
    return request_body(progress)


@router.post("/schedules/{id:whole}/pause", responses=WRITES)
async def pause_schedule(
    console: Asked,
    request: Request,
    response: Response,
    on: Conditioned,
    id: str,
    body: Annotated[Paused | None, Body()] = None,
) -> WrittenBody:
    """Keep a schedule from firing until it is resumed, or `until` a time."""
    said = body or Paused()
    work = on.writing.command(on.of_schedule(id, said.note), "pause", id, command_options(said))
    return answer(console, response, request, await told(work))


@router.post("/schedules/{id:whole}/resume", responses=WRITES)
async def resume_schedule(
    console: Asked,
    request: Request,
    response: Response,
    on: Conditioned,
    id: str,
    body: Annotated[Resumed | None, Body()] = None,
) -> WrittenBody:
    """End a pause; what was missed meanwhile is treated as the schedule says, or as said here."""
    said = body or Resumed()
    work = on.writing.command(on.of_schedule(id, said.note), "resume", id, command_options(said))
    return answer(console, response, request, await told(work))


@router.post("/schedules/{id:whole}/trigger", responses=WRITES)
async def trigger_schedule(
    console: Asked,
    request: Request,
    response: Response,
    on: Conditioned,
    id: str,
    body: Annotated[Noted | None, Body()] = None,
) -> WrittenBody:
    """Fire a schedule now, beside its own times."""
    work = on.writing.command(on.of_schedule(id, None if body is None else body.note), "trigger", id)
    return answer(console, response, request, await told(work))


@router.post("/schedules/{id:whole}/reschedule", responses=WRITES)
async def reschedule_schedule(
    console: Asked,
    request: Request,
    response: Response,
    on: Conditioned,
    id: str,
    body: Annotated[Rescheduled, Body()],
) -> WrittenBody:
    """Give a schedule other times; what it delivers, and where, stays."""
    work = on.writing.command(on.of_schedule(id, body.note), "reschedule", id, reschedule_options(body))
    return answer(console, response, request, await told(work))


@router.post("/schedules/{id:whole}/toggle", responses=WRITES)
async def toggle_schedule(
    console: Asked,
    request: Request,
    response: Response,
    on: Conditioned,
    id: str,
    body: Annotated[Toggled, Body()],
) -> WrittenBody:
    """Set whether a schedule fires: a resume, or a pause."""
    action = "resume" if body.enabled else "pause"
    work = on.writing.command(on.of_schedule(id, body.note), action, id)
    return answer(console, response, request, await told(work))


@router.put("/schedules/{id:whole}", responses=_CREATES)
async def replace_schedule(
    console: Asked,
    request: Request,
    response: Response,
    on: Conditioned,
    id: str,
    body: Annotated[Replaced, Body()],
) -> WrittenBody:
    """Replace a schedule, or create it. The same again changes nothing."""
    asked = on.of_topic(body.note)
    progress = await told(on.writing.schedule(asked, id, delivered(body), schedule_options(body)))
    return answer(console, response, request, progress)


@router.patch("/schedules/{id:whole}", responses=WRITES)
async def update_schedule(
    console: Asked,
    request: Request,
    response: Response,
    on: Conditioned,
    id: str,
    body: Annotated[Changed, Body()],
) -> WrittenBody:
    """Change what is given, and keep the rest (RFC 7396): null takes away what can be without a value."""
    what: Json = changes(body)
    progress = await told(on.writing.update(on.of_schedule(id, body.note), id, what))
    return answer(console, response, request, progress)


@router.delete("/schedules/{id:whole}", responses=WRITES)
async def cancel_schedule(
    console: Asked,
    request: Request,
    response: Response,
    on: Conditioned,
    id: str,
    note: str | None = None,
) -> WrittenBody:
    """Cancel a schedule."""
    progress = await told(on.writing.command(on.of_schedule(id, note), "cancel", id))
    return answer(console, response, request, progress)
