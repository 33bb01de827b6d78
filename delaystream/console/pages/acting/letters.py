"""One dead letter: why it is one, what can be done about it, and what would be sent; asked back first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.responses import RedirectResponse, Response

from delaystream.console.access import attempts
from delaystream.console.access.caller import Role
from delaystream.console.access.rights import permit
from delaystream.console.api.asking import Asked, Entered
from delaystream.console.api.changing import letters as changing
from delaystream.console.api.changing.conditions import Conditions
from delaystream.console.api.changing.letters import Discarded, Opened, OpenedLetter, Redriven
from delaystream.console.api.models import Json, LetterCheck, LetterDetail
from delaystream.console.api.problems import ProblemError, invalid
from delaystream.console.letters.acts import Standing
from delaystream.console.letters.repair import is_dropped, unsendable
from delaystream.console.pages.acting import repairs
from delaystream.console.pages.acting.forms import Form, Posted, stamp
from delaystream.console.pages.acting.panels import Around, Panel, Trouble, note, with_problem
from delaystream.console.pages.answering import page_router
from delaystream.console.pages.rendering import letter_address, pages_of, said
from delaystream.console.service import Console

router = page_router()

_Body = TypeVar("_Body", bound=BaseModel)

_OPEN: Final = frozenset({Standing.OPEN, Standing.FAILED, Standing.REJECTED})
"""Letters that are sent again without being asked whether once more."""


# -- looked at ---------------------------------------------------------------------------------------------


async def _page(
    request: Request, console: Console, opened: OpenedLetter, around: Around, *, payload: bool = False
) -> Response:
    topic = opened.original.letter.request_topic
    may_read = console.caller.reads_payload(topic)
    detail = await changing.detail_of(console, opened, payload=payload and may_read)
    values = {
        "section": "dead-letters",
        "letter": detail,
        "headers": [pair for pair in detail.headers if not is_dropped(pair[0])],
        "may_read": may_read,
        "may_send": changing.may_send(console, opened.original.letter),
        "may_set_aside": console.writes and console.caller.may(Role.OPERATOR, topic),
        "never": unsendable(opened.original.letter),
        **around.values,
    }
    return pages_of(request).page("letter.html", console, values, around.status)


@router.get("/dead-letters/{place}")
async def one_letter(request: Request, console: Asked, opened: Opened, payload: bool = False) -> Response:
    """A dead letter, and what was done about it."""
    return await _page(request, console, opened, Around(), payload=payload)


# -- sent again --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Step:
    """Where somebody is between a letter and what is sent of it."""

    detail: LetterDetail
    #: names of the headers that no line of the form holds
    odd: list[str]
    texts: Mapping[str, str]
    #: key and value are in the form
    payload: bool
    topics: list[str]
    check: LetterCheck | None = None
    trouble: Trouble | None = None
    status: HTTPStatus = HTTPStatus.OK


def _topics(console: Console, opened: OpenedLetter) -> list[str]:
    """The request topics to choose from, where the letter does not say it itself."""
    topics = changing.topics_to_choose(console, opened.original.letter)
    return [topic for topic in topics if console.caller.may(Role.OPERATOR, topic)]


def _conditions(console: Console, topics: list[str], form: Form | None = None) -> Conditions:
    chosen = None if form is None else form.word("request_topic")
    key = None if form is None else form.stamp.key
    return Conditions(console, request_topic=chosen or (topics[0] if topics else None), idempotency_key=key)


def _before(console: Console, opened: OpenedLetter, *, payload: bool) -> dict[str, str]:
    may_read = console.caller.reads_payload(opened.original.letter.request_topic)
    return repairs.texts_of(opened.original, every_header=may_read, payload=payload and may_read)


def _odd(console: Console, opened: OpenedLetter) -> list[str]:
    may_read = console.caller.reads_payload(opened.original.letter.request_topic)
    return repairs.odd_names(opened.original, every_header=may_read)


def _shown(request: Request, console: Console, entrance: Entered, step: _Step) -> Response:
    """What is sent, to be agreed to; or, where that is not known yet, the form."""
    place, trouble = step.detail.place, step.trouble
    inputs = repairs.inputs_of(step.texts, step.odd, step.topics)
    if trouble is not None:
        inputs = with_problem(inputs, trouble.code, trouble.detail)
    values = {
        "section": "dead-letters",
        "letter": step.detail,
        "payload": step.payload,
        "may_read": console.caller.reads_payload(step.detail.request_topic),
        "inputs": inputs,
        "trouble": trouble,
        "check": step.check,
        "changes": [] if step.check is None else repairs.changes_of(step.check.differences),
        "once_more": step.detail.standing not in _OPEN,
        "address": letter_address(place, "redrive", payload="true" if step.payload else None),
        "kept": [(name, text) for name, text in step.texts.items() if name not in {"step", "note", "again"}],
        "note": note(),
        "stamp": stamp(entrance, console.caller, console.clock.now_ms()),
    }
    template = "letter_repair.html" if step.check is None else "letter_review.html"
    return pages_of(request).page(template, console, values, step.status)


@router.get("/dead-letters/{place}/redrive")
async def ask_redrive(
    request: Request,
    console: Asked,
    entrance: Entered,
    opened: Opened,
    repair: bool = False,
    payload: bool = False,
) -> Response:
    """What would be sent as it is; with `repair`, or where that would be refused, the form."""
    topics = _topics(console, opened)
    letter = opened.original.letter
    # Whoever may not is told so before something is written into a form.
    changing.asked_for(console, _conditions(console, topics), letter, None)
    detail = await changing.detail_of(console, opened)
    texts = _before(console, opened, payload=payload)
    as_it_is = detail.as_it_is
    agreed = not repair and as_it_is is not None and as_it_is.sendable
    step = _Step(detail, _odd(console, opened), texts, payload, topics, as_it_is if agreed else None)
    return _shown(request, console, entrance, step)


@router.post("/dead-letters/{place}/redrive")
async def redrive(
    request: Request,
    console: Asked,
    entrance: Entered,
    opened: Opened,
    form: Posted,
    payload: bool = False,
) -> Response:
    """Look at what a repair makes of it, or send that."""
    topics = _topics(console, opened)
    on = _conditions(console, topics, form)
    detail = await changing.detail_of(console, opened)
    step = _Step(detail, _odd(console, opened), form.texts, payload, topics)
    if form.text("step") == "edit":
        attempts.asks()
        return _shown(request, console, entrance, step)
    try:
        body = repairs.repair_body(_before(console, opened, payload=payload), form.texts)
        if form.text("step") == "send":
            said_so = {"note": form.word("note"), "again": bool(form.text("again"))}
            asked = read_body(Redriven, {**body, **said_so})
            await changing.redrive_dead_letter(console, request, Response(), on, opened, asked)
            return _led_to(detail.place)
        check = await changing.check_dead_letter(console, on, opened, read_body(Redriven, body))
    except ProblemError as problem:
        # Somebody else may have done something meanwhile.
        now = await changing.detail_of(console, opened)
        step = replace(step, detail=now, trouble=Trouble(problem.code, problem.detail), status=problem.status)
        return _shown(request, console, entrance, step)
    if check.sendable:
        step = replace(step, check=check)
    else:
        trouble = Trouble(check.code or "", check.detail or "")
        step = replace(step, trouble=trouble, status=HTTPStatus.BAD_REQUEST)
    return _shown(request, console, entrance, step)


# -- set aside ---------------------------------------------------------------------------------------------


def _aside_panel(detail: LetterDetail, does: str) -> Panel:
    place = detail.place
    if does == "discard":
        return Panel(
            title=said("Discard the letter {}?", place),
            says=[
                "Lists leave it out, and nothing of it is sent.",
                "It stays on its topic, and here it can be taken up again.",
            ],
            inputs=[note()],
            button="Discard it",
            address=letter_address(place, "discard"),
            back=letter_address(place),
            danger=True,
        )
    return Panel(
        title=said("Take the letter {} up again?", place),
        says=["It is open again: lists show it, and it can be sent."],
        inputs=[note()],
        button="Take it up",
        address=letter_address(place, "reopen"),
        back=letter_address(place),
    )


def _routes(does: str) -> None:
    path = f"/dead-letters/{{place}}/{does}"

    @router.get(path, name=f"ask_{does}_letter")
    async def ask(request: Request, console: Asked, entrance: Entered, opened: Opened) -> Response:
        permit(console.caller, Role.OPERATOR, opened.original.letter.request_topic)
        panel = _aside_panel(await changing.detail_of(console, opened), does)
        stamped = stamp(entrance, console.caller, console.clock.now_ms())
        return await _page(request, console, opened, Around(panel, stamp=stamped))

    @router.post(path, name=f"{does}_letter")
    async def act(console: Asked, opened: Opened, form: Posted) -> Response:
        on = Conditions(console, idempotency_key=form.stamp.key)
        asked = Discarded(note=form.word("note"))
        if does == "discard":
            detail = await changing.discard_dead_letter(console, on, opened, asked)
        else:
            detail = await changing.reopen_dead_letter(console, on, opened, asked)
        return _led_to(detail.place)


for _does in ("discard", "reopen"):
    _routes(_does)


def _led_to(place: str) -> Response:
    """By GET: a reload does nothing again. The page says how the letter stands."""
    return RedirectResponse(letter_address(place), HTTPStatus.SEE_OTHER)


def read_body(model: type[_Body], body: Json) -> _Body:
    """A body of the interface as a form says it. Raises ProblemError."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        wrong = error.errors()[0]
        name = str(wrong["loc"][0]) if wrong["loc"] else "the form"
        raise invalid(f"invalid-{name.replace('_', '-')}", f"{name}: {wrong['msg']}.") from None
