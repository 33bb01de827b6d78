"""One call of the interface, as a form makes it: once, however often the form is sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import Depends, Request, Response
from starlette.responses import RedirectResponse

from delaystream.console.access.caller import Role
from delaystream.console.access.rights import permit, too_low
from delaystream.console.api.asking import Asked
from delaystream.console.api.changing.conditions import Conditions
from delaystream.console.api.models import WrittenBody
from delaystream.console.api.problems import ProblemError
from delaystream.console.api.reading import schedules
from delaystream.console.pages.acting.forms import Form
from delaystream.console.pages.rendering import address
from delaystream.console.service import Console
from delaystream.console.writing.outcomes import Stage
from delaystream.query.partition import StoredSchedule

_SENT: Final = frozenset({Stage.SENT, Stage.DECIDED})


@dataclass(frozen=True)
class Call:
    """What a form asks for, and under which conditions."""

    console: Console
    request: Request
    form: Form
    on: Conditions
    response: Response


def call_of(console: Console, request: Request, form: Form, topic: str, version: int | None = None) -> Call:
    """The call of a form about a request topic; with a version only while that is what it is about."""
    on = Conditions(
        console,
        request_topic=topic,
        # A row that has never changed has no version that could be said.
        if_match=f'"{version}"' if version else None,
        idempotency_key=form.stamp.key,
    )
    return Call(console, request, form, on, Response())


async def changeable(console: Asked, id: str, request_topic: str | None = None) -> StoredSchedule:
    """The schedule of a path, for whoever may change it. Raises ProblemError, Refused."""
    found = schedules.one_schedule(console, id, request_topic)
    permit(console.caller, Role.OPERATOR, found.tenant)
    return found


Changeable = Annotated[StoredSchedule, Depends(changeable)]


def topics_of(console: Console, role: Role) -> list[str]:
    """The request topics on which the caller has a role, where it may write. Raises Refused: none."""
    known = () if console.writing is None or not console.writes else console.writing.topics
    topics = [topic for topic in known if console.caller.may(role, topic)]
    if not topics:
        raise too_low(console.caller, role, "a topic")
    return topics


async def carried_out(
    call: Call, work: Callable[[Call], Awaitable[WrittenBody]], role: Role = Role.OPERATOR
) -> WrittenBody | str:
    """What came of a form; the name of its request where it had been sent before.

    Raises ProblemError, and Refused for a caller whose role is too low.
    """
    request_id = call.on.of_topic(role=role).request_id
    known = await call.on.writing.find(request_id)
    if known is not None and known.stage in _SENT:
        return request_id
    try:
        return await work(call)
    except ProblemError as problem:
        # The same form at the same moment, with the time of day in it.
        if problem.code == "idempotency-key-reused":
            return request_id
        raise


def led_to(came: WrittenBody | str, path: str, **query: object) -> Response:
    """Have the browser ask for the page that shows what came of it, by GET: a reload sends nothing again."""
    again = isinstance(came, str)
    told = came if isinstance(came, str) else came.request_id
    return RedirectResponse(
        address(path, **query, told=told, again="true" if again else None), HTTPStatus.SEE_OTHER
    )
