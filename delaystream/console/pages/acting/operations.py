"""Operations on many: made from the list of schedules, looked at before anything is sent, watched, undone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import Request
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from delaystream.console.access.caller import Role
from delaystream.console.api.asking import Asked, Cursored, Entered
from delaystream.console.api.changing import operations as changing
from delaystream.console.api.changing.operations import Asks, Begin, FilterBody, OperationBody, SubjectBody
from delaystream.console.api.problems import invalid
from delaystream.console.operations.matching import UNNAMED
from delaystream.console.operations.operation import Action
from delaystream.console.pages.acting.forms import Form, Posted, stamp
from delaystream.console.pages.answering import page_router
from delaystream.console.pages.rendering import address, pages_of
from delaystream.console.service import Console

router = page_router()

PICK: Final = "pick"
"""The field of one that is selected: its request topic and its id, as JSON."""
SHOWN: Final = 50
_FILTERS: Final = ("destination", "key", "tag", "id_prefix", "q")
_VERBS: Final = {
    "cancel": ("Cancel", "cancelled"),
    "pause": ("Pause", "paused"),
    "resume": ("Resume", "resumed"),
    "trigger": ("Send now", "sent"),
    "undo": ("Bring back", "brought back"),
}
_LIVE: Final = ("pending", "paused")


def pick_of(request_topic: str, id: str) -> str:
    """The value of `PICK` for a schedule."""
    return json.dumps([request_topic, id])


@router.get("/operations")
async def list_operations(
    request: Request, console: Asked, cursors: Cursored, cursor: str | None = None
) -> Response:
    """Operations, the latest first."""
    page = await changing.list_operations(console, cursors, limit=SHOWN, cursor=cursor or None)
    return pages_of(request).page(
        "operations.html",
        console,
        {
            "section": "operations",
            "page": page,
            "verbs": _VERBS,
            "next": address("/operations", cursor=page.next_cursor) if page.next_cursor else None,
            "first": address("/operations") if cursor else None,
        },
    )


@router.get("/operations/{operation_id}")
async def one_operation(
    request: Request,
    console: Asked,
    entrance: Entered,
    cursors: Cursored,
    operation_id: str,
    cursor: str | None = None,
) -> Response:
    """What an operation is about, how far it is, and what can be done about it."""
    operation = await changing.get_operation(console, operation_id)
    failures = await changing.list_failures(console, cursors, operation_id, SHOWN, cursor or None)
    here = f"/operations/{operation.id}"
    next_cursor = failures.next_cursor
    verb, done = _VERBS[operation.action]
    return pages_of(request).page(
        "operation.html",
        console,
        {
            "section": "operations",
            "operation": operation,
            "verb": verb,
            "done": done,
            "about": _about(operation),
            "failures": failures.items,
            "next": address(here, cursor=next_cursor) if next_cursor else None,
            "first": address(here) if cursor else None,
            "stamp": stamp(entrance, console.caller, console.clock.now_ms()),
            "may_change": _may_change(console, operation.topics),
            "rate": changing.operations_of(console).bounds.rate,
            "most_rate": changing.operations_of(console).bounds.most_rate,
        },
    )


@router.post("/operations")
async def make_operation(console: Asked, form: Posted) -> Response:
    """A dry run of what was selected, or of all that match."""
    operation = await changing.dry_run(console, asked_by(form))
    return _led_to(operation)


@router.post("/operations/{operation_id}/start")
async def start_operation(console: Asked, form: Posted, operation_id: str) -> Response:
    """Send its commands."""
    return _led_to(await changing.start_operation(console, operation_id, Begin(rate=_rate(form))))


@router.post("/operations/{operation_id}/stop")
async def stop_operation(console: Asked, form: Posted, operation_id: str) -> Response:
    """Send no more of it."""
    return _led_to(await changing.stop_operation(console, operation_id))


@router.post("/operations/{operation_id}/undo")
async def undo_operation(console: Asked, form: Posted, operation_id: str) -> Response:
    """Bring back what it took away."""
    return _led_to(await changing.undo_operation(console, Response(), operation_id, None))


def asked_by(form: Form) -> Asks:
    """What a form of the list asks for. Raises ProblemError."""
    action = form.text("action")
    if action not in changing.ACTIONS:
        raise invalid("invalid-action", f"action is {action[:60]!r}; expected one of its buttons.")
    said: dict[str, Any] = {"action": action, "note": form.word("note")}
    if action == "pause":
        said["until"] = form.word("until")
    try:
        if form.text("which") == "all":
            return Asks(**said, filter=_filter(form, action))
        return Asks(**said, schedules=_picked(form.fields.get(PICK, ())))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the form"
        raise invalid("invalid-parameter", f"{where}: {first['msg']}.") from None


def _filter(form: Form, action: str) -> FilterBody:
    """The filter of the list. What an action does nothing to is left out by the action itself."""
    found: dict[str, Any] = {name: form.text(name) for name in _FILTERS if form.text(name)}
    if topic := form.text("request_topic"):
        found["request_topic"] = topic
    status = form.text("status")
    if status in _LIVE:
        found["status"] = [status]
    elif status not in {"", "all"}:
        raise invalid(
            "nothing-applicable", f"Those that match are {status[:20]}: nothing of them can be changed."
        )
    if form.text("unnamed") and Action(action) in UNNAMED:
        found["unnamed"] = True
    return FilterBody(**found)


def _picked(picks: Sequence[str]) -> list[SubjectBody]:
    if not picks:
        raise invalid("nothing-selected", "Nothing is selected.")
    subjects = []
    for pick in picks:
        try:
            topic, id = json.loads(pick)
            subjects.append(SubjectBody(request_topic=topic, id=id))
        except (ValueError, TypeError, RecursionError):
            raise invalid("invalid-form", "What is selected cannot be read.") from None
    return subjects


def _rate(form: Form) -> int | None:
    written = form.word("rate")
    if written is None:
        return None
    if not (written.isascii() and written.isdigit() and 0 < len(written) < 7 and int(written)):
        raise invalid("invalid-rate", f"rate is {written[:20]!r}; expected a number of commands a second.")
    return int(written)


def _may_change(console: Console, topics: dict[str, int]) -> bool:
    return console.writes and all(console.caller.may(Role.OPERATOR, topic) for topic in topics)


def _led_to(operation: OperationBody) -> Response:
    """By GET: a reload sends nothing again."""
    return RedirectResponse(f"/operations/{operation.id}", HTTPStatus.SEE_OTHER)


def _about(operation: OperationBody) -> list[tuple[str, str]]:
    """The filter, in rows; what was given one by one has none."""
    rows: list[tuple[str, str]] = []
    for name, value in (operation.filter or {}).items():
        if value in (None, "", False):
            continue
        text = (
            ", ".join(map(str, value)) if isinstance(value, list) else "yes" if value is True else str(value)
        )
        rows.append((name.replace("_", " "), text))
    return rows
