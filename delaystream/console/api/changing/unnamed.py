"""Writes about one request without an id, by its coordinates."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Request, Response

from delaystream.console.api.asking import Asked
from delaystream.console.api.changing.answers import WRITES, answer, told
from delaystream.console.api.changing.bodies import Noted
from delaystream.console.api.changing.conditions import Conditioned
from delaystream.console.api.changing.guard import guard
from delaystream.console.api.models import WrittenBody
from delaystream.core.request import Coordinates

router = APIRouter(tags=["writing"], dependencies=[Depends(guard)])


class Moved(Noted):
    """Another time; one of the two."""

    delay: str | None = None
    at: str | int | None = None


class Where:
    """The request, from the path."""

    def __init__(
        self,
        topic: Annotated[str, Path(description="The request topic; `topic@origin` of what was moved here.")],
        partition: Annotated[int, Path(ge=0, lt=2**31)],
        offset: Annotated[int, Path(ge=0, lt=2**63)],
    ) -> None:
        name, _, origin = topic.partition("@")
        self.topic = name
        self.about = Coordinates(name, partition, offset, origin)


At = Annotated[Where, Depends()]


@router.delete("/pending/{topic}/{partition}/{offset}", responses=WRITES)
async def cancel_pending(
    console: Asked, request: Request, response: Response, on: Conditioned, at: At, note: str | None = None
) -> WrittenBody:
    """Cancel a request without an id."""
    progress = await told(on.writing.command(on.of_topic(note, at.topic), "cancel", at.about))
    return answer(console, response, request, progress)


@router.post("/pending/{topic}/{partition}/{offset}/trigger", responses=WRITES)
async def trigger_pending(
    console: Asked,
    request: Request,
    response: Response,
    on: Conditioned,
    at: At,
    body: Annotated[Noted | None, Body()] = None,
) -> WrittenBody:
    """Deliver a request without an id now, in place of its time."""
    asked = on.of_topic(None if body is None else body.note, at.topic)
    return answer(console, response, request, await told(on.writing.command(asked, "trigger", at.about)))


@router.post("/pending/{topic}/{partition}/{offset}/reschedule", responses=WRITES)
async def reschedule_pending(
    console: Asked,
    request: Request,
    response: Response,
    on: Conditioned,
    at: At,
    body: Annotated[Moved, Body()],
) -> WrittenBody:
    """Give a request without an id another time."""
    times = {name: str(value) for name in ("delay", "at") if (value := getattr(body, name)) is not None}
    work = on.writing.command(on.of_topic(body.note, at.topic), "reschedule", at.about, times)
    return answer(console, response, request, await told(work))
