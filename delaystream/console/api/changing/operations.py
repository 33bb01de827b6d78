"""Operations on many over HTTP: a dry run freezes what matches, a start sends the commands, an undo brings
back what a cancel took away."""

from __future__ import annotations

from collections.abc import Coroutine
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal, TypeVar

from fastapi import APIRouter, Body, Depends, Query, Response
from pydantic import Field

from delaystream.codec.envelope import LIVE, Status
from delaystream.console.access.caller import Role
from delaystream.console.access.rights import permit
from delaystream.console.api.asking import Asked, Cursored
from delaystream.console.api.changing import bodies
from delaystream.console.api.changing.answers import made, told
from delaystream.console.api.changing.conditions import writing_of
from delaystream.console.api.changing.guard import guard
from delaystream.console.api.models import Json, Model, Time
from delaystream.console.api.problems import ProblemError, invalid
from delaystream.console.api.reading.schedules import LIMIT, LONGEST, Limit, time_ms
from delaystream.console.operations.matching import UNNAMED, Chosen, Subject
from delaystream.console.operations.operation import (
    LISTED,
    Action,
    Failure,
    Frozen,
    Operation,
    Progress,
    coordinates_of,
)
from delaystream.console.operations.service import OperationError, Operations
from delaystream.console.replica.catalog import Filter
from delaystream.console.replica.pending import Wanted
from delaystream.console.service import Console
from delaystream.console.writing.asking import Asked as Terms
from delaystream.core.request import Coordinates

router = APIRouter(tags=["operations"], dependencies=[Depends(guard)])
asking = APIRouter(tags=["operations"])

ACTIONS: Final = frozenset({"cancel", "pause", "resume", "trigger"})
"""What can be asked for."""
_OPTIONS: Final[dict[str, frozenset[str]]] = {
    "pause": frozenset({"until"}),
    "resume": frozenset({"catch_up", "on_late", "grace"}),
}
_PLACE: Final = "operations"
_PROBE: Final = "probe"
_HIDDEN: Final = "(hidden)"
#: Filters that say something about an id.
_OF_IDS: Final = ("id_prefix", "q")

Short = Annotated[str, Field(max_length=LONGEST)]

T = TypeVar("T")


class FilterBody(bodies.Body):
    """What `GET /v1/schedules` filters by; all of it holds at once. Empty: all that the caller may change."""

    request_topic: str | list[str] | None = Field(
        None, description="One or several; null: all on which the caller may change something."
    )
    status: list[Literal["pending", "paused"]] | None = None
    destination: Short | None = None
    key: str | None = None
    key_base64: str | None = None
    tag: Short | None = None
    correlation_id: Short | None = None
    id_prefix: Short = ""
    q: Short = Field("", description="Words of id, name or description.")
    next_from: str | int | None = None
    next_to: str | int | None = None
    unnamed: bool = Field(
        False,
        description="Events without an id, too: for `cancel` and `trigger`, without `id_prefix` and `q`.",
    )


class SubjectBody(bodies.Body):
    """One by itself: by its id, or by the coordinates of a request without one."""

    id: str | None = None
    request_topic: str | None = Field(None, description="Needed if several have the id.")
    source: str | None = Field(None, description="`topic/partition/offset`")


class Asks(bodies.Noted):
    """What is to be done, and to what: a `filter`, or each by itself."""

    action: Literal["cancel", "pause", "resume", "trigger"]
    filter: FilterBody | None = None
    schedules: list[SubjectBody] | None = Field(None, max_length=LISTED)
    until: str | int | None = Field(None, description="For a pause: when it ends by itself.")
    catch_up: str | None = Field(None, description="For a resume, as `on_late` and `grace`.")
    on_late: str | None = None
    grace: str | None = None


class Begin(bodies.Body):
    """A start, or an undo."""

    rate: int | None = Field(
        None, ge=1, description="Commands a second; null: as the console's settings say."
    )


class SampleBody(Model):
    """One of what matches."""

    request_topic: str
    id: str | None
    source: str = Field(description="Coordinates of the request.")
    destination: str
    name: str | None
    status: str
    next_at: Time | None


class ProgressBody(Model):
    """How far it is."""

    done: int = Field(description="The sum of changed, unchanged and failed.")
    changed: int
    unchanged: int = Field(description="They were so already.")
    failed: int
    left: int = Field(description="waiting and underway together.")
    waiting: int
    underway: int = Field(description="Sent and not decided yet; perhaps sent, if a console has ended.")
    reasons: dict[str, int] = Field(description="Failures by code.")


class OperationBody(Model):
    """An operation: what was found when it was frozen, and how far it is."""

    id: str
    action: Literal["cancel", "pause", "resume", "trigger", "undo"]
    stage: Literal["dry-run", "expired", "running", "stopped", "done"]
    filter: Json | None = Field(
        description="The filter as it was given; null: each item was given by itself."
    )
    options: dict[str, str]
    note: str | None
    count: int = Field(description="How many items it has: it changes exactly these.")
    topics: dict[str, int] = Field(description="The same by request topic.")
    fires_at_once: int = Field(description="For a resume and a trigger: most fires that are due at once.")
    samples: list[SampleBody] = Field(description="The first of them.")
    unknown: int = Field(
        description="Of the items given by themselves: how many are not known, or not the caller's."
    )
    unknown_first: list[str]
    passed_over: int = Field(
        description="Of the items given by themselves: how many are over, or as asked already."
    )
    made_at: Time
    made_by: str
    expires_at: Time | None = Field(description="When a dry run expires.")
    started_at: Time | None
    started_by: str | None
    ended_at: Time | None
    rate: int | None = Field(description="Commands a second.")
    problem: str | None = Field(description="Why it cannot go on, or was stopped.")
    progress: ProgressBody
    undo_until: Time | None = Field(description="Until when it can be undone; null: it cannot.")
    undo_of: str | None = Field(description="The cancel that it undoes.")
    undone_by: str | None = Field(description="The operation that undoes it.")


class OperationList(Model):
    """Operations, the latest first."""

    items: list[OperationBody]
    next_cursor: str | None


class FailureBody(Model):
    """One that was not changed."""

    request_topic: str
    id: str | None
    source: str | None = Field(description="Coordinates of what has no id.")
    code: str
    detail: str | None


class FailureList(Model):
    """What was not changed, and why."""

    items: list[FailureBody]
    next_cursor: str | None


@router.post("/operations", status_code=HTTPStatus.CREATED)
async def make_operation(console: Asked, response: Response, body: Annotated[Asks, Body()]) -> OperationBody:
    """Freeze what matches, and tell what would be changed. Nothing is sent before it is started."""
    operation = await dry_run(console, body)
    response.headers["Location"] = f"/v1/operations/{operation.id}"
    return operation


@asking.get("/operations")
async def list_operations(
    console: Asked,
    cursors: Cursored,
    limit: Annotated[int, Query(ge=1, le=100)] = LIMIT,
    cursor: str | None = None,
) -> OperationList:
    """Operations of the last 30 days, the latest first: those of which the caller sees every topic."""
    place = cursors.place(cursor, _PLACE)
    before = None if place is None else (int.from_bytes(place[:8]), place[8:].decode("ascii", "replace"))
    operations = operations_of(console)
    found, next_place = await operations.latest(console.caller, limit, before)
    packed = None if next_place is None else next_place[0].to_bytes(8) + next_place[1].encode()
    return OperationList(
        items=[await body_of(console, one) for one in found], next_cursor=cursors.cursor(packed, _PLACE)
    )


@asking.get("/operations/{operation_id}")
async def get_operation(console: Asked, operation_id: str) -> OperationBody:
    """An operation, and how far it is."""
    return await body_of(console, await find(console, operation_id))


@asking.get("/operations/{operation_id}/failures")
async def list_failures(
    console: Asked, cursors: Cursored, operation_id: str, limit: Limit = LIMIT, cursor: str | None = None
) -> FailureList:
    """What of an operation was not changed, and why."""
    operation = await find(console, operation_id)
    asked = ("failures", operation.id)
    place = cursors.place(cursor, asked)
    after = None if place is None else int.from_bytes(place[:8])
    found = await operations_of(console).failures(operation, limit + 1, after)
    items = found[:limit]
    last = items[-1].item.number.to_bytes(8) if len(found) > limit else None
    return FailureList(items=[_failure_body(one) for one in items], next_cursor=cursors.cursor(last, asked))


@router.post("/operations/{operation_id}/start")
async def start_operation(
    console: Asked, operation_id: str, body: Annotated[Begin | None, Body()] = None
) -> OperationBody:
    """Send its commands at a bounded rate, on behalf of the caller; one that was stopped goes on.

    Each names the version that was frozen: what has changed since is left as it is, and is a failure.
    """
    rate = None if body is None else body.rate
    work = operations_of(console).start(operation_id, console.caller, rate)
    return await body_of(console, await said(work))


@router.post("/operations/{operation_id}/stop")
async def stop_operation(console: Asked, operation_id: str) -> OperationBody:
    """Send no more of it. What was sent, stands."""
    work = operations_of(console).stop(operation_id, console.caller)
    return await body_of(console, await said(work))


@router.post("/operations/{operation_id}/undo", status_code=HTTPStatus.CREATED)
async def undo_operation(
    console: Asked, response: Response, operation_id: str, body: Annotated[Begin | None, Body()] = None
) -> OperationBody:
    """Send again what a cancel took away, for ten minutes after its end: an operation of its own.

    Once for each cancel: asked for again, the answer is the same operation.
    """
    rate = None if body is None else body.rate
    undo = await said(operations_of(console).undo(operation_id, console.caller, rate))
    response.headers["Location"] = f"/v1/operations/{undo.id}"
    return await body_of(console, undo)


# -- for the pages, too ------------------------------------------------------------------------------


def operations_of(console: Console) -> Operations:
    """What carries out operations. Raises ProblemError where nothing does."""
    if console.operations is None:
        raise ProblemError(HTTPStatus.FORBIDDEN, "read-only", "This console writes nothing.")
    return console.operations


async def said(work: Coroutine[Any, Any, T]) -> T:
    """What a call of the operations returns. Raises ProblemError for what it raises."""
    try:
        return await told(work)
    except OperationError as error:
        raise ProblemError(error.status, error.code, str(error)) from None


async def find(console: Console, operation_id: str) -> Operation:
    """An operation that the caller sees. Raises ProblemError."""
    return await said(operations_of(console).find(operation_id, console.caller))


async def dry_run(console: Console, body: Asks) -> OperationBody:
    """See `make_operation`. Raises ProblemError and Refused."""
    operations = operations_of(console)
    action = Action(body.action)
    options = _options(body)
    if (body.filter is None) == (body.schedules is None):
        raise invalid("invalid-filter", "Expected one of filter and schedules.")
    topics = _topics(console, body)
    _check(console, topics[0], body.action, options, body.note)
    filter, unnamed = (None, None) if body.filter is None else _filters(body.filter, action, topics)
    chosen = Chosen(filter=filter, unnamed=unnamed, subjects=_subjects(body, action))
    if missing := console.freshness.missing:
        raise ProblemError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "not-complete",
            f"{len(missing)} partitions are still being read: what matches cannot be told yet.",
        )
    asked = Frozen(
        action=action,
        options=options,
        note=body.note,
        asked=_asked_about(console, body),
        filter=None if body.filter is None else body.filter.model_dump(exclude_unset=True),
    )
    return await body_of(console, await said(operations.dry_run(console.caller, console, asked, chosen)))


async def body_of(console: Console, operation: Operation) -> OperationBody:
    """An operation, as it is answered."""
    progress = await operations_of(console).progress(operation)
    frozen, now_ms = operation.frozen, console.clock.now_ms()
    undo_until_ms = operation.undo_until_ms
    return OperationBody(
        id=operation.id,
        action=frozen.action.value,
        stage="expired" if operation.expired(now_ms) else operation.stage.value,
        filter=_filter_shown(console, frozen),
        options=dict(frozen.options),
        note=frozen.note,
        count=frozen.count,
        topics=dict(frozen.topics),
        fires_at_once=frozen.at_once,
        samples=[
            SampleBody(
                request_topic=one.request_topic,
                id=one.id,
                source=one.source,
                destination=one.destination,
                name=one.name,
                status=one.status,
                next_at=one.next_at_ms,
            )
            for one in frozen.samples
        ],
        unknown=frozen.unknown,
        unknown_first=list(frozen.unknown_first),
        passed_over=frozen.passed_over,
        made_at=operation.made_ms,
        made_by=operation.made_by,
        expires_at=operation.expires_ms,
        started_at=operation.started_ms,
        started_by=operation.actor,
        ended_at=operation.ended_ms,
        rate=operation.rate,
        problem=operation.problem,
        progress=_progress_body(progress),
        undo_until=undo_until_ms if undo_until_ms is not None and now_ms < undo_until_ms else None,
        undo_of=operation.undo_of,
        undone_by=operation.undone_by,
    )


def _filter_shown(console: Console, frozen: Frozen) -> Json | None:
    """The filter, without a key for whoever may not see it."""
    if frozen.filter is None:
        return None
    shown = dict(frozen.filter)
    if not all(console.caller.reads_key(topic) for topic in frozen.about):
        for name in ("key", "key_base64"):
            if shown.get(name) is not None:
                shown[name] = _HIDDEN
    return shown


def _progress_body(progress: Progress) -> ProgressBody:
    return ProgressBody(
        done=progress.done,
        changed=progress.changed,
        unchanged=progress.unchanged,
        failed=progress.failed,
        left=progress.left,
        waiting=progress.waiting,
        underway=progress.underway,
        reasons=dict(progress.reasons),
    )


def _failure_body(failure: Failure) -> FailureBody:
    item = failure.item
    return FailureBody(
        request_topic=item.request_topic,
        id=item.about if item.named else None,
        source=None if item.named else item.about,
        code=failure.code,
        detail=failure.detail,
    )


# -- what is asked -----------------------------------------------------------------------------------


def _topics(console: Console, body: Asks) -> list[str]:
    """The request topics that it may be about. Raises ProblemError and Refused."""
    caller = console.caller
    known = [topic for topic in writing_of(console).topics if caller.sees(topic)]
    named = None if body.filter is None else body.filter.request_topic
    given = [one.request_topic for one in body.schedules or () if one.request_topic is not None]
    given += [coordinates(one.source).topic for one in body.schedules or () if one.source is not None]
    asked = list(dict.fromkeys([*([named] if isinstance(named, str) else named or []), *given]))
    for topic in asked:
        if topic not in known:
            # Another's topic is as one that is not there.
            raise ProblemError(
                HTTPStatus.NOT_FOUND,
                "unknown-request-topic",
                f"{topic[:60]!r} is not a request topic; expected one of {', '.join(known) or 'none'}.",
            )
        permit(caller, Role.OPERATOR, topic)
    if asked:
        return asked
    mine = [topic for topic in known if caller.may(Role.OPERATOR, topic)]
    if not mine:
        permit(caller, Role.OPERATOR, known[0] if known else "any request topic")
    return mine


def _asked_about(console: Console, body: Asks) -> list[str]:
    """The request topics that it names, and those in which ids without one are looked for."""
    named = None if body.filter is None else body.filter.request_topic
    topics = [named] if isinstance(named, str) else [*(named or ())]
    for one in body.schedules or ():
        if one.request_topic is not None:
            topics.append(one.request_topic)
        if one.source is not None:
            topics.append(coordinates(one.source).topic)
    if any(one.request_topic is None and one.source is None for one in body.schedules or ()):
        caller = console.caller
        topics += [topic for topic in writing_of(console).topics if caller.may(Role.OPERATOR, topic)]
    return list(dict.fromkeys(topics))


def _options(body: Asks) -> dict[str, str]:
    """What the commands say beside their note. Raises ProblemError."""
    allowed = _OPTIONS.get(body.action, frozenset())
    options: dict[str, str] = {}
    for name in ("until", "catch_up", "on_late", "grace"):
        value = getattr(body, name)
        if value is None:
            continue
        if name not in allowed:
            raise invalid("not-applicable", f"{name} is given, and the action is {body.action}.")
        options[name] = str(value)
    return options


def _check(console: Console, topic: str, action: str, options: dict[str, str], note: str | None) -> None:
    """Refuse what each command would be refused for. Raises ProblemError."""
    writing = writing_of(console)
    terms = Terms(console.caller.who, topic, note=note)
    made(lambda: writing.checked(writing.command_record(terms, action, _PROBE, options)))


def _filters(asked: FilterBody, action: Action, topics: list[str]) -> tuple[Filter, Wanted | None]:
    tenants = frozenset(topics)
    key = bodies.key_of(asked.key, asked.key_base64, "key")
    correlation_id = None if asked.correlation_id is None else asked.correlation_id.encode()
    from_ms, to_ms = _time("next_from", asked.next_from), _time("next_to", asked.next_to)
    statuses = LIVE if asked.status is None else tuple(dict.fromkeys(Status(one) for one in asked.status))
    filter = Filter(
        tenants,
        statuses,
        asked.destination,
        key,
        asked.tag,
        asked.id_prefix,
        asked.q,
        from_ms,
        to_ms,
        correlation_id,
    )
    if not asked.unnamed:
        return filter, None
    if action not in UNNAMED:
        raise invalid(
            "not-applicable",
            f"unnamed is given, and the action is {action}: hold events without an id by key or tags "
            "(POST /v1/holds).",
        )
    for name in _OF_IDS:
        if getattr(asked, name):
            raise invalid("not-applicable", f"{name} and unnamed are given; expected one of them.")
    wanted = Wanted(tenants, asked.destination, key, asked.tag, from_ms, to_ms, correlation_id)
    # What is paused has an id.
    return filter, wanted if Status.PENDING in statuses else None


def _time(name: str, given: str | int | None) -> int | None:
    return time_ms(name, None if given is None else str(given))


def _subjects(body: Asks, action: Action) -> list[Subject]:
    subjects: list[Subject] = []
    for one in body.schedules or ():
        if (one.id is None) == (one.source is None):
            raise invalid("invalid-schedules", "schedules: expected one of id and source of each.")
        if one.id is not None:
            subjects.append((one.request_topic, one.id))
            continue
        if action not in UNNAMED:
            raise invalid("not-applicable", f"schedules: a source is given, and the action is {action}.")
        subjects.append((None, coordinates(one.source)))
    return subjects


def coordinates(text: str | None) -> Coordinates:
    """Coordinates from their text. Raises ProblemError."""
    try:
        return coordinates_of(text or "")
    except ValueError as error:
        raise invalid("invalid-coordinates", f"schedules: {error}") from None
