"""Many dead letters at once: selected on their list, looked at, sent again or set aside, and watched."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from fastapi import Request
from starlette.responses import RedirectResponse, Response

from delaystream.console.access import attempts
from delaystream.console.access.caller import Role
from delaystream.console.api.asking import Asked, Entered
from delaystream.console.api.changing import letters as changing
from delaystream.console.api.changing.conditions import Conditions
from delaystream.console.api.changing.letters import Chosen, RedrivenTogether
from delaystream.console.api.models import Json, LetterBody, LetterRun, LettersLook
from delaystream.console.api.problems import ProblemError, invalid
from delaystream.console.api.rendering import act_body, letter_body
from delaystream.console.letters.acts import Standing
from delaystream.console.letters.runs import LEAST_RATE, MOST_RATE, RATE
from delaystream.console.pages.acting import repairs
from delaystream.console.pages.acting.calls import topics_of
from delaystream.console.pages.acting.forms import Form, Posted, stamp
from delaystream.console.pages.acting.letters import read_body
from delaystream.console.pages.acting.panels import Input, Trouble, note, with_problem
from delaystream.console.pages.answering import page_router
from delaystream.console.pages.rendering import address, pages_of
from delaystream.console.service import Console

router = page_router()

PICK: Final = "pick"
"""The field of one that is selected: its place."""
CHOICE: Final = ("code", "request_topic", "destination", "id", "at_from", "at_to")
"""Fields of the list's filter, as the interface has them too."""
SAMPLES: Final = 5
SHOWN: Final = 50
_UNWELL: Final = frozenset({Standing.REJECTED, Standing.FAILED})


def _chosen(form: Form) -> Json:
    """Which letters a form means. Raises ProblemError."""
    if form.text("which") != "all":
        places = list(form.fields.get(PICK, ()))
        if not places:
            raise invalid("nothing-selected", "Nothing is selected.")
        return {"places": places}
    said: Json = {name: form.word(name) for name in CHOICE if form.word(name)}
    if "request_topic" in said:
        said["request_topic"] = [said["request_topic"]]
    return said


def _kept(form: Form) -> list[tuple[str, str]]:
    """The same as fields that are not shown."""
    if form.text("which") != "all":
        return [("which", "picked"), *((PICK, place) for place in form.fields.get(PICK, ()))]
    return [("which", "all"), *((name, form.text(name)) for name in CHOICE if form.text(name))]


def _inputs(texts: dict[str, str], topics: list[str]) -> list[Input]:
    choice = [(topic, topic) for topic in topics]
    inputs = [
        Input("new_destination", "Another destination", help="For all of them. Empty: as each says."),
        Input(
            "headers",
            "Headers to set",
            kind="area",
            hint="delaystream-delay: 15m",
            help="A line each: name: value. Each takes the place of all of its name, or is added.",
        ),
        Input("remove", "Headers to leave out", help="Names, with commas between."),
        repairs.if_exists_input(),
        *(
            [Input("goes_to", "Those that do not say it go to", topics[0], "select", options=choice)]
            if len(topics) > 1
            else []
        ),
        Input("rate", "Letters a second", f"{RATE:g}", help=f"{LEAST_RATE:g} to {MOST_RATE:g}."),
        note(),
    ]
    return [Input(**{**vars(one), "value": texts.get(one.name, one.value)}) for one in inputs]


def _together(form: Form) -> Json:
    """What a form asks for, as a body. Raises ProblemError."""
    return {
        **_chosen(form),
        **repairs.many_body(form.texts),
        "note": form.word("note"),
        "rate": _rate(form.word("rate")),
    }


def _rate(written: str | None) -> float:
    if written is None:
        return RATE
    try:
        return float(written)
    except ValueError:
        raise invalid("invalid-rate", f"rate is {written[:20]!r}; expected letters a second.") from None


@router.post("/dead-letters/many")
async def many_letters(request: Request, console: Asked, entrance: Entered, form: Posted) -> Response:
    """Look at what is to be done about those that were selected, or have it done."""
    if form.text("action") == "discard":
        return await _discard(request, console, entrance, form)
    topics = topics_of(console, Role.ADMIN)
    on = Conditions(console, request_topic=form.word("goes_to") or topics[0], idempotency_key=form.stamp.key)
    begins = form.text("step") == "send"
    look: LettersLook | None = None
    trouble: Trouble | None = None
    status = HTTPStatus.OK
    # What is selected cannot be mended on the page that this leads to.
    _chosen(form)
    try:
        body = read_body(RedrivenTogether, {**_together(form), "dry_run": not begins})
        came = await changing.redrive_dead_letters(console, Response(), on, body)
        if isinstance(came, LetterRun):
            return RedirectResponse(f"/dead-letters/runs/{came.run}", HTTPStatus.SEE_OTHER)
        look = came
    except ProblemError as problem:
        if not form.text("step"):
            raise
        trouble, status = Trouble(problem.code, problem.detail), problem.status
    inputs = _inputs(form.texts, topics)
    if trouble is not None:
        inputs = with_problem(inputs, trouble.code, trouble.detail)
    values = {
        **_shared(console, entrance, form, "redrive"),
        "look": look,
        "trouble": trouble,
        "inputs": inputs,
        "changes_of": repairs.changes_of,
    }
    return pages_of(request).page("letters_many.html", console, values, status)


async def _discard(request: Request, console: Console, entrance: Entered, form: Form) -> Response:
    body = read_body(Chosen, {**_chosen(form), "note": form.word("note")})
    if form.text("step") == "send":
        on = Conditions(console, idempotency_key=form.stamp.key)
        await changing.discard_dead_letters(console, on, body)
        return RedirectResponse(address("/dead-letters", standing="discarded"), HTTPStatus.SEE_OTHER)
    attempts.asks()
    letters = await changing.chosen(console, body)
    samples: list[LetterBody] = [
        letter_body(console.letters.shown(letter), None) for letter in letters[:SAMPLES]
    ]
    values = {
        **_shared(console, entrance, form, "discard"),
        "count": len(letters),
        "samples": samples,
        "note": note(),
    }
    return pages_of(request).page("letters_discard.html", console, values)


def _shared(console: Console, entrance: Entered, form: Form, action: str) -> dict[str, Any]:
    return {
        "section": "dead-letters",
        "kept": [("action", action), *_kept(form)],
        "stamp": stamp(entrance, console.caller, console.clock.now_ms()),
    }


@router.get("/dead-letters/runs/{run}")
async def one_run(request: Request, console: Asked, entrance: Entered, run: str) -> Response:
    """Letters that are sent again together: how far that is, and what became of them."""
    found = await changing.seen_run(console, run)
    body = changing.run_body(found.run, found.counts)
    unwell = [act for act in found.acts if act.standing in _UNWELL]
    sent = sum(found.counts.values())
    refused = sum(body.refused.values())
    underway = body.stage == "running" or bool(found.counts.get(Standing.SENDING))
    values = {
        "section": "dead-letters",
        "run": body,
        "sent": sent,
        "refused": refused,
        "left": max(0, body.total - sent - refused),
        "underway": underway,
        "unwell": [(f"{act.partition}.{act.offset}", act_body(act)) for act in unwell[:SHOWN]],
        "unwell_count": len(unwell),
        "may_stop": console.writes
        and all(console.caller.may(Role.ADMIN, topic or None) for topic in found.run.request_topics),
        "stamp": stamp(entrance, console.caller, console.clock.now_ms()),
    }
    return pages_of(request).page("letter_run.html", console, values)


@router.post("/dead-letters/runs/{run}/stop")
async def stop_run(console: Asked, form: Posted, run: str) -> Response:
    """Send no more of it."""
    stopped = await changing.stop_run(console, run)
    return RedirectResponse(f"/dead-letters/runs/{stopped.run}", HTTPStatus.SEE_OTHER)
