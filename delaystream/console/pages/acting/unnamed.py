"""One request without an id, by its coordinates: what is known of it, and what can be done with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fastapi import Request
from starlette.responses import Response

from delaystream.console.api.asking import Asked, Entered
from delaystream.console.api.changing import unnamed as changing
from delaystream.console.api.changing.bodies import Noted
from delaystream.console.api.changing.conditions import Conditions
from delaystream.console.api.changing.unnamed import At, Moved, Where
from delaystream.console.api.models import Json, PendingBody, WrittenBody
from delaystream.console.api.problems import ProblemError, invalid, unknown
from delaystream.console.api.reading import schedules
from delaystream.console.api.rendering import pending_body
from delaystream.console.pages.acting.calls import Call, call_of, carried_out, led_to
from delaystream.console.pages.acting.deeds import Sentence
from delaystream.console.pages.acting.forms import Posted, stamp
from delaystream.console.pages.acting.panels import Around, Input, Panel, note
from delaystream.console.pages.acting.requests import told_of
from delaystream.console.pages.acting.when import once_inputs
from delaystream.console.pages.answering import page_router
from delaystream.console.pages.rendering import moment, pages_of, pending_address, said
from delaystream.console.service import Console
from delaystream.console.where import By

router = page_router()


@dataclass(frozen=True)
class _Deed:
    """What can be done with it."""

    name: str
    label: str
    title: str
    says: Sequence[Sentence]
    button: str
    inputs: Sequence[Input]
    danger: bool = False


_DEEDS: Final = (
    _Deed(
        "trigger",
        "Send now",
        "Send {} now?",
        ["It is delivered at once, in place of its time."],
        "Send it now",
        [note()],
    ),
    _Deed(
        "reschedule",
        "Reschedule",
        "When shall {} fire?",
        ["One time takes the place of all its times."],
        "Give it this time",
        [*once_inputs(), note()],
    ),
    _Deed(
        "cancel",
        "Cancel",
        "Cancel {}?",
        ["It does not fire any more. It cannot be had back: its producer has to send it again."],
        "Cancel it",
        [note()],
        danger=True,
    ),
)


def _pending(console: Console, at: Where) -> list[PendingBody]:
    """What of it is still to come."""
    found = console.pending.of_request(at.about.partition, at.about.topic, at.about.offset, at.about.origin)
    return [pending_body(event) for event in found]


async def _page(request: Request, console: Console, at: Where, around: Around) -> Response:
    source = at.about.text
    known = [one for one in (await schedules.where(console, q=source)).items if one.by is By.COORDINATES]
    if not known:
        raise unknown(f"No request {source!r} is known.")
    values = {
        "section": "pending",
        "source": source,
        "topic": at.topic,
        "found": known,
        "deeds": _DEEDS if _pending(console, at) else (),
        "here": lambda told: f"{pending_address(source)}?told={told}",
        **around.values,
    }
    return pages_of(request).page("unnamed.html", console, values, around.status)


def _panel(console: Console, at: Where, deed: _Deed) -> Panel:
    source = at.about.text
    pending = _pending(console, at)
    says = list(deed.says)
    if pending:
        says.append(said("It is due at {}, to {}.", moment(pending[0].due_at), pending[0].destination))
    return Panel(
        title=said(deed.title, source),
        says=says,
        inputs=deed.inputs,
        button=deed.button,
        address=pending_address(source, deed.name),
        back=pending_address(source),
        danger=deed.danger,
    )


@router.get("/pending/{topic}/{partition}/{offset}")
async def one_pending(
    request: Request, console: Asked, at: At, told: str = "", again: bool = False
) -> Response:
    """What is known of it."""
    return await _page(request, console, at, Around(notice=await told_of(console, told, again=again)))


async def _carry_out(deed: _Deed, call: Call, at: Where) -> WrittenBody:
    form, said_why = call.form, call.form.word("note")
    if deed.name == "cancel":
        return await changing.cancel_pending(call.console, call.request, call.response, call.on, at, said_why)
    if deed.name == "trigger":
        return await changing.trigger_pending(
            call.console, call.request, call.response, call.on, at, Noted(note=said_why)
        )
    kind = "at" if form.text("kind") == "at" else "delay"
    given: Json = {kind: form.word(kind)}
    if given[kind] is None:
        raise invalid(f"invalid-{kind}", f"{kind} is empty.")
    return await changing.reschedule_pending(
        call.console, call.request, call.response, call.on, at, Moved(note=said_why, **given)
    )


def _routes(deed: _Deed) -> None:
    path = f"/pending/{{topic}}/{{partition}}/{{offset}}/{deed.name}"

    @router.get(path, name=f"ask_{deed.name}_pending")
    async def ask(request: Request, console: Asked, entrance: Entered, at: At) -> Response:
        # Another's topic is as one that is not there.
        Conditions(console, request_topic=at.topic).of_topic()
        stamped = stamp(entrance, console.caller, console.clock.now_ms())
        return await _page(request, console, at, Around(_panel(console, at, deed), stamp=stamped))

    @router.post(path, name=f"{deed.name}_pending")
    async def act(request: Request, console: Asked, entrance: Entered, form: Posted, at: At) -> Response:
        call = call_of(console, request, form, at.topic)
        try:
            came = await carried_out(call, lambda call: _carry_out(deed, call, at))
        except ProblemError as problem:
            panel = _panel(console, at, deed).filled(form.texts).refused(problem)
            stamped = stamp(entrance, console.caller, console.clock.now_ms())
            return await _page(request, console, at, Around(panel, None, stamped, problem.status))
        return led_to(came, pending_address(at.about.text))


for _deed in _DEEDS:
    _routes(_deed)
