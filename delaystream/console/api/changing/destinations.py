"""How fast destinations get records, and what is kept back from them."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Query, Request, Response
from pydantic import Field

from delaystream.codec.envelope import Hold
from delaystream.console.access.caller import Role
from delaystream.console.api.asking import Asked
from delaystream.console.api.changing.answers import WRITES, answer, told
from delaystream.console.api.changing.bodies import Noted, key_of
from delaystream.console.api.changing.conditions import Conditioned
from delaystream.console.api.changing.guard import guard
from delaystream.console.api.models import Fresh, HoldBody, Json, RateBody, WrittenBody
from delaystream.console.api.problems import invalid, unknown
from delaystream.console.api.reading.overview import rates_of
from delaystream.console.api.rendering import fresh, text_or_base64
from delaystream.console.service import Console

router = APIRouter(tags=["writing"], dependencies=[Depends(guard)])
asking = APIRouter(tags=["writing"])

_ONE_KIND = "destination, key, tags or id_prefix"


class RateList(Fresh):
    """The rates of a destination."""

    destination: str
    items: list[RateBody] = Field(
        description="The rates of commands and of the workers' settings; the lowest applies."
    )


class HoldDetail(HoldBody):
    """A bulk pause that stands, and what it keeps back: what meets all that is given."""

    destination: str | None = Field(description="A topic or a glob.")
    key: str | None = Field(description="Null also where the caller may not see keys.")
    key_base64: str | None
    tags: list[str]
    id_prefix: str | None
    arriving: bool = Field(description="Whether what arrives later is kept back, too.")


class HoldList(Fresh):
    """Holds that stand, the latest first."""

    items: list[HoldDetail]


class RateSet(Noted):
    """How fast a destination gets the records of a request topic."""

    rate: float | str | None = Field(
        description="Records a second, or `600/m`, `36/h`; null: as the workers' settings say."
    )


class HoldMade(Noted):
    """What is kept back: at least one of destination, key, tags and id prefix; all that are given."""

    destination: str | None = Field(None, description="A topic or a glob.")
    key: str | None = None
    key_base64: str | None = None
    tags: list[str] | None = None
    id_prefix: str | None = None
    until: str | int | None = Field(
        None, description="When it ends by itself; null: it stays until a release."
    )
    arriving: bool = Field(True, description="Whether what arrives later is kept back, too.")


class Released(Noted):
    """A release, and what it says of fires that are late by then."""

    catch_up: str | None = None
    on_late: str | None = None
    grace: str | None = None


@asking.get("/destinations/{destination}/rate")
async def get_rate(console: Asked, destination: str) -> RateList:
    """What bounds how fast a destination gets records."""
    rates = rates_of(console, destination)
    return RateList(destination=destination, items=rates, **fresh(console.freshness))


@router.put("/destinations/{destination}/rate", responses=WRITES)
async def set_rate(
    console: Asked,
    request: Request,
    response: Response,
    on: Conditioned,
    destination: str,
    body: Annotated[RateSet, Body()],
) -> WrittenBody:
    """Set how fast a destination gets the records of a request topic, on every partition."""
    rate = (
        "none"
        if body.rate is None
        else body.rate
        if isinstance(body.rate, str)
        else f"{Decimal(str(body.rate)):f}"
    )
    options: Json = {"destination": destination, "rate": rate}
    progress = await told(on.writing.command(on.of_topic(body.note, role=Role.ADMIN), "rate", None, options))
    return answer(console, response, request, progress)


@asking.get("/holds")
async def list_holds(console: Asked, request_topic: Annotated[list[str] | None, Query()] = None) -> HoldList:
    """Bulk pauses that stand, the latest first."""
    found = [
        _detail(hold) for hold in standing(console) if request_topic is None or hold.tenant in request_topic
    ]
    found.sort(key=lambda hold: (-hold.since, hold.name))
    return HoldList(items=found, **fresh(console.freshness))


@router.post("/holds", responses=WRITES)
async def make_hold(
    console: Asked,
    request: Request,
    response: Response,
    on: Conditioned,
    body: Annotated[HoldMade, Body()],
) -> WrittenBody:
    """Keep everything back that matches: of a destination, of a key, of tags, or of ids with a prefix."""
    options: Json = {
        name: value
        for name, value in (
            ("match_destination", body.destination),
            ("match_key", key_of(body.key, body.key_base64, "key")),
            ("match_tags", body.tags),
            ("match_id_prefix", body.id_prefix),
            ("until", None if body.until is None else str(body.until)),
        )
        if value is not None
    }
    if not options.keys() - {"until"}:
        raise invalid("invalid-match", f"The hold selects nothing; expected {_ONE_KIND}.")
    options["match_new"] = body.arriving
    progress = await told(on.writing.command(on.of_topic(body.note, role=Role.ADMIN), "pause", None, options))
    return answer(console, response, request, progress)


@router.post("/holds/{name:whole}/release", responses=WRITES)
async def release_hold(
    console: Asked,
    request: Request,
    response: Response,
    on: Conditioned,
    name: str,
    body: Annotated[Released | None, Body()] = None,
) -> WrittenBody:
    """End a hold: a resume of what it matches. Its name is that of the list."""
    hold = next((hold for hold in console.whole_holds() if hold.name == name), None)
    if hold is None:
        raise unknown(f"No hold {name[:120]!r} stands.")
    said = body or Released()
    asked = on.of_topic(said.note, hold.tenant, Role.ADMIN)
    match = hold.match
    options: Json = {
        option: value
        for option, value in (
            ("match_destination", match.destination),
            ("match_key", match.key),
            ("match_tags", list(match.tags) or None),
            ("match_id_prefix", match.id_prefix),
            ("catch_up", said.catch_up),
            ("on_late", said.on_late),
            ("grace", said.grace),
        )
        if value is not None
    }
    return answer(console, response, request, await told(on.writing.command(asked, "resume", None, options)))


def standing(console: Console) -> list[Hold]:
    """The holds that the caller sees, each once."""
    return list({(hold.tenant, hold.name): hold for hold in console.holds()}.values())


def _detail(hold: Hold) -> HoldDetail:
    match = hold.match
    key, key_base64 = text_or_base64(match.key)
    return HoldDetail(
        name=hold.name,
        request_topic=hold.tenant,
        since=hold.since_ms,
        until=hold.until_ms,
        actor=hold.actor,
        note=hold.note,
        destination=match.destination,
        key=key,
        key_base64=key_base64,
        tags=list(match.tags),
        id_prefix=match.id_prefix,
        arriving=match.arriving,
    )
