"""What can be done with one schedule, on its page: asked back first, then carried out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from fastapi import Request
from starlette.responses import Response

from delaystream.codec.event import EventType
from delaystream.console.api.asking import Asked, Entered
from delaystream.console.api.models import EventBody
from delaystream.console.api.problems import ProblemError
from delaystream.console.api.reading import schedules
from delaystream.console.api.rendering import schedule_body
from delaystream.console.pages.acting.calls import Changeable, call_of, carried_out, led_to
from delaystream.console.pages.acting.deeds import DEEDS, Deed
from delaystream.console.pages.acting.forms import Posted, stamp
from delaystream.console.pages.acting.panels import Around, Panel
from delaystream.console.pages.answering import page_router
from delaystream.console.pages.rendering import deed_address, schedule_address
from delaystream.console.pages.schedules import events_of, schedule_page
from delaystream.console.service import Console
from delaystream.query.partition import StoredSchedule

router = page_router()

COMMANDS: Final = tuple(
    type
    for type in EventType
    if type
    not in (EventType.FIRED, EventType.SKIPPED, EventType.MISSED, EventType.EXPIRED, EventType.UNCHANGED)
)
"""Events of which one wants to know who did that."""
_MEANWHILE: Final = 5


def panel_of(deed: Deed, schedule: StoredSchedule, now_ms: int) -> Panel:
    """What is asked back."""
    return Panel(
        title=deed.title(schedule),
        says=deed.says(schedule, now_ms),
        inputs=deed.inputs(schedule),
        button=deed.button,
        address=deed_address(schedule.id, schedule.tenant, deed.name),
        back=schedule_address(schedule.id, schedule.tenant),
        # Whoever looked at another version than it is by then is told so.
        hidden=[("version", str(schedule.row.version))],
        danger=deed.danger,
    )


async def meanwhile(console: Console, schedule: StoredSchedule, since_ms: int) -> Sequence[EventBody]:
    """What was done to a schedule since a form was shown, the latest first."""
    events = await events_of(console, schedule_body(schedule), COMMANDS, _MEANWHILE)
    return [told for told in events if told.at >= since_ms]


def _routes(deed: Deed) -> None:
    path = f"/schedules/{{id:whole}}/{deed.name}"

    @router.get(path, name=f"ask_{deed.name}")
    async def ask(request: Request, console: Asked, entrance: Entered, found: Changeable) -> Response:
        now_ms = console.clock.now_ms()
        panel = panel_of(deed, found, now_ms)
        around = Around(panel=panel, stamp=stamp(entrance, console.caller, now_ms))
        return await schedule_page(request, console, found, around)

    @router.post(path, name=deed.name)
    async def act(
        request: Request,
        console: Asked,
        entrance: Entered,
        form: Posted,
        id: str,
        request_topic: str | None = None,
    ) -> Response:
        found = schedules.one_schedule(console, id, request_topic)
        version = form.text("version")
        call = call_of(
            console,
            request,
            form,
            found.tenant,
            int(version) if version.isascii() and version.isdigit() else None,
        )
        try:
            came = await carried_out(call, lambda call: deed.carry_out(call, found))
        except ProblemError as problem:
            now = schedules.one_schedule(console, id, found.tenant)
            since = await meanwhile(console, now, form.stamp.shown_ms)
            panel = panel_of(deed, now, console.clock.now_ms()).filled(form.texts).refused(problem, since)
            around = Around(
                panel=panel,
                status=problem.status,
                stamp=stamp(entrance, console.caller, console.clock.now_ms()),
            )
            return await schedule_page(request, console, now, around)
        return led_to(came, f"/schedules/{quote(id, safe='')}", request_topic=found.tenant)


for _deed in DEEDS:
    _routes(_deed)
