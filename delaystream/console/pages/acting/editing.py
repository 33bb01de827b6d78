"""A schedule is made or changed: a form with a preview, then what would change, then it is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from delaystream.console.access.caller import Role
from delaystream.console.api.asking import Asked, Entered
from delaystream.console.api.changing import schedules as changing
from delaystream.console.api.changing.bodies import Body, Changed, Created
from delaystream.console.api.changing.conditions import Conditions
from delaystream.console.api.models import DefinitionBody, EventBody, Json, Payload, PreviewBody, WrittenBody
from delaystream.console.api.problems import ProblemError, invalid
from delaystream.console.api.reading import planning, schedules
from delaystream.console.api.rendering import schedule_body
from delaystream.console.pages.acting import drafts
from delaystream.console.pages.acting.calls import Call, Changeable, call_of, carried_out, led_to, topics_of
from delaystream.console.pages.acting.forms import Posted, read_fields, stamp
from delaystream.console.pages.acting.panels import Trouble, note, with_problem
from delaystream.console.pages.acting.schedules import meanwhile
from delaystream.console.pages.acting.when import KINDS, kind_of
from delaystream.console.pages.answering import page_router
from delaystream.console.pages.rendering import address, deed_address, pages_of, schedule_address
from delaystream.console.pages.schedules import in_words, target_of
from delaystream.console.pages.snippets import drafted
from delaystream.console.service import Console
from delaystream.query.partition import StoredSchedule

router = page_router()

_Body = TypeVar("_Body", bound=Body)

TIMES: Final = 8
"""So many times are shown in advance."""
_TITLE: Final = {True: "New schedule", False: "Edit"}


@dataclass(frozen=True)
class Editing:
    """What is edited, and how far that is."""

    #: where the form goes to
    address: str
    #: where one goes who does not want it
    back: str
    texts: Mapping[str, str]
    topics: Sequence[str]
    #: what is there; None: it is new
    schedule: StoredSchedule | None = None
    #: what it delivers, where that is shown
    payload: Payload | None = None
    trouble: Trouble | None = None
    status: HTTPStatus = HTTPStatus.OK
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def before(self) -> dict[str, str]:
        """The fields of what is there."""
        return {} if self.schedule is None else drafts.texts_of(schedule_body(self.schedule), self.payload)

    @property
    def delivers(self) -> bool:
        """Whether what is delivered is a part of the form."""
        return self.schedule is None or self.payload is not None


def _payload_of(console: Console, found: StoredSchedule, *, wanted: bool) -> Payload | None:
    """What a schedule delivers, for whoever may see it and asks."""
    if not wanted or not console.caller.reads_payload(found.tenant):
        return None
    return schedule_body(found, payload=True).payload


def _page(request: Request, console: Console, entrance: Entered, editing: Editing, template: str) -> Response:
    now_ms = console.clock.now_ms()
    groups = drafts.groups_of(editing.texts, new=editing.schedule is None, payload=editing.delivers)
    if editing.trouble is not None:
        code, detail = editing.trouble.code, editing.trouble.detail
        groups = [(title, with_problem(inputs, code, detail)) for title, inputs in groups]
    schedule = editing.schedule
    values = {
        "section": "schedules",
        "title": _TITLE[schedule is None],
        "schedule": None if schedule is None else schedule_body(schedule),
        "editing": editing,
        "groups": groups,
        "kind": kind_of(editing.texts),
        "may_read": schedule is not None and console.caller.reads_payload(schedule.tenant),
        "payload_address": ""
        if schedule is None
        else f"{deed_address(schedule.id, schedule.tenant, 'edit')}&payload=true",
        "stamp": stamp(entrance, console.caller, now_ms),
        "preview": None,
        "preview_words": None,
        "wrong": None,
        **editing.values,
    }
    return pages_of(request).page(template, console, values, editing.status)


# -- what is edited ----------------------------------------------------------------------------------------


@router.get("/new")
async def new(
    request: Request,
    console: Asked,
    entrance: Entered,
    like: str | None = None,
    request_topic: str | None = None,
) -> Response:
    """A form for a new schedule; as another one is, but for its id."""
    topics = topics_of(console, Role.OPERATOR)
    texts = {"kind": "delay", "value_kind": "text", "request_topic": request_topic or topics[0]}
    if like is not None:
        found = schedules.one_schedule(console, like, request_topic)
        payload = _payload_of(console, found, wanted=True)
        texts |= {**drafts.texts_of(schedule_body(found), payload), "id": ""}
    editing = Editing("/new", "/schedules", texts, topics)
    return _page(request, console, entrance, editing, "edit.html")


@router.get("/schedules/{id:whole}/edit")
async def edit(
    request: Request,
    console: Asked,
    entrance: Entered,
    found: Changeable,
    payload: bool = False,
) -> Response:
    """A form for what a schedule is."""
    editing = _of(console, found, wanted=payload)
    texts = {**editing.before, "version": str(found.row.version)}
    return _page(request, console, entrance, replace(editing, texts=texts), "edit.html")


def _of(console: Console, found: StoredSchedule, *, wanted: bool) -> Editing:
    shown = _payload_of(console, found, wanted=wanted)
    query = {"payload": "true"} if shown is not None else {}
    path = address(f"/schedules/{quote(found.id, safe='')}/edit", request_topic=found.tenant, **query)
    return Editing(path, schedule_address(found.id, found.tenant), {}, [found.tenant], found, shown)


# -- what is sent ------------------------------------------------------------------------------------------


@router.post("/new")
async def create(request: Request, console: Asked, entrance: Entered, form: Posted) -> Response:
    """Review a new schedule, or make it."""
    topics = topics_of(console, Role.OPERATOR)
    texts = {"request_topic": topics[0], **form.texts}
    editing = Editing("/new", "/schedules", texts, topics)
    return await _stepped(request, console, entrance, form, editing)


@router.post("/schedules/{id:whole}/edit")
async def change(
    request: Request,
    console: Asked,
    entrance: Entered,
    form: Posted,
    found: Changeable,
    payload: bool = False,
) -> Response:
    """Review what would change, or change it."""
    editing = _of(console, found, wanted=payload)
    texts = {**form.texts, "request_topic": found.tenant, "id": found.id}
    return await _stepped(request, console, entrance, form, replace(editing, texts=texts))


async def _stepped(
    request: Request, console: Console, entrance: Entered, form: Posted, editing: Editing
) -> Response:
    step = form.text("step")
    if step == "edit":
        return _page(request, console, entrance, editing, "edit.html")
    version = form.text("version")
    number = int(version) if version.isascii() and version.isdigit() else None
    call = call_of(console, request, form, editing.texts["request_topic"], number)
    try:
        if step == "save":
            came = await carried_out(call, lambda call: _saved(call, editing))
            if isinstance(came, str) or came.schedule is None:
                told = came if isinstance(came, str) else came.request_id
                return led_to(came, f"/requests/{told}")
            path = f"/schedules/{quote(came.schedule.id, safe='')}"
            return led_to(came, path, request_topic=came.schedule.request_topic)
        return await _review(request, console, entrance, call, editing)
    except ProblemError as problem:
        since: Sequence[EventBody] = ()
        texts = dict(editing.texts)
        if editing.schedule is not None:
            now = schedules.one_schedule(console, editing.schedule.id, editing.schedule.tenant)
            since = await meanwhile(console, now, form.stamp.shown_ms)
            texts["version"] = str(now.row.version)
            editing = replace(editing, schedule=now)
        trouble = Trouble(problem.code, problem.detail, since)
        editing = replace(editing, texts=texts, trouble=trouble, status=problem.status)
        return _page(request, console, entrance, editing, "edit.html")


async def _saved(call: Call, editing: Editing) -> WrittenBody:
    why = call.form.word("note")
    if editing.schedule is None:
        body = _created(editing, why)
        return await changing.create_schedule(call.console, call.request, call.response, call.on, body)
    patch = {**_patch(editing), "note": why}
    return await changing.update_schedule(
        call.console, call.request, call.response, call.on, editing.schedule.id, _read(Changed, patch)
    )


def _created(editing: Editing, why: str | None) -> Created:
    """Raises ProblemError."""
    texts = editing.texts
    id = texts.get("id", "").strip()
    body: Json = {**drafts.definition_body(texts), **drafts.payload_body(texts), "note": why}
    return _read(Created, {**body, "id": id} if id else body)


def _patch(editing: Editing) -> Json:
    """Raises ProblemError: nothing differs, or it cannot be said."""
    patch = drafts.patch_body(editing.before, editing.texts)
    if drafts.touches_payload(editing.before, editing.texts):
        patch |= drafts.payload_body(editing.texts, editing.payload)
    if not patch:
        raise invalid("nothing-to-change", "Nothing differs from the schedule as it is.")
    return patch


def _read(model: type[_Body], body: Json) -> _Body:
    try:
        return model.model_validate(body)
    except (ValidationError, RequestValidationError) as error:
        wrong = error.errors()[0]
        name = ".".join(str(part) for part in wrong["loc"]) or "the form"
        raise invalid(
            f"invalid-{str(wrong['loc'][0]).replace('_', '-')}", f"{name}: {wrong['msg']}."
        ) from None


async def _review(
    request: Request, console: Console, entrance: Entered, call: Call, editing: Editing
) -> Response:
    """What would be sent, and what would change. Raises ProblemError."""
    texts, before = editing.texts, editing.before
    if editing.schedule is None:
        await changing.check_request(
            console, Conditions(console, request_topic=texts["request_topic"]), _created(editing, None)
        )
    else:
        _patch(editing)
    preview = await planning.previewed(console, drafts.headers_of(texts), None, TIMES)
    then: PreviewBody | None = None
    if before and drafts.headers_of(before).keys() & set(KINDS):
        try:
            then = await planning.previewed(console, drafts.headers_of(before), None, TIMES)
        except ProblemError:
            then = None
    body = drafts.payload_body(texts, editing.payload) if editing.delivers else None
    draft = drafts.draft_of(texts, body, new=editing.schedule is None)
    remark = None if body is not None else "Value and headers are not shown here: fill them in yourself."
    values = {
        "changes": drafts.changes_of(before, texts),
        "preview": preview,
        "preview_words": _words(texts),
        "then": then,
        "snippets": drafted(draft, target_of(request, console), remark),
        "note": note(),
        "kept": [(name, text) for name, text in texts.items() if name not in {"step", "note", "stamp"}],
    }
    return _page(request, console, entrance, replace(editing, values=values), "review.html")


@router.post("/preview")
async def preview(request: Request, console: Asked) -> Response:
    """When what stands in a form would fire: a part of a page, for its script."""
    fields = await read_fields(request)
    texts = {name: values[0] for name, values in fields.items()}
    values: dict[str, Any] = {"preview": None, "preview_words": None, "wrong": None}
    if not texts.get(kind_of(texts), "").strip():
        return pages_of(request).page("preview.html", console, values)
    try:
        values["preview"] = await planning.previewed(console, drafts.headers_of(texts), None, TIMES)
        values["preview_words"] = _words(texts)
    except ProblemError as problem:
        values["wrong"] = (problem.code, problem.detail)
    return pages_of(request).page("preview.html", console, values)


def _words(texts: Mapping[str, str]) -> str | None:
    """When it fires, in words."""
    fields = drafts.fields_of(texts)
    kind = kind_of(texts)
    if kind not in {"every", "cron"}:
        return None
    said = {name: fields[name] for name in (kind, "timezone") if name in fields}
    return in_words(DefinitionBody(destination="", **said))
