"""What holds for many at once: a destination's rate, and holds of a destination, a customer's key or tags."""

from __future__ import annotations

from typing import Final

from fastapi import Request
from starlette.responses import Response

from delaystream.codec.envelope import Hold, Status
from delaystream.codec.event import EventType
from delaystream.console.access.caller import Role
from delaystream.console.api.asking import Asked, Cursored, Entered
from delaystream.console.api.changing import destinations as changing
from delaystream.console.api.changing.destinations import HoldMade, RateSet, Released
from delaystream.console.api.cursors import Cursors
from delaystream.console.api.models import WrittenBody
from delaystream.console.api.problems import ProblemError, unknown
from delaystream.console.api.reading import schedules
from delaystream.console.api.reading.overview import rates_of
from delaystream.console.api.reading.schedules import Text
from delaystream.console.pages.acting.calls import Call, call_of, carried_out, led_to, topics_of
from delaystream.console.pages.acting.deeds import Sentence, end_inputs, end_of, late_input
from delaystream.console.pages.acting.forms import Posted, stamp
from delaystream.console.pages.acting.panels import Around, Input, Panel, note
from delaystream.console.pages.acting.requests import told_of
from delaystream.console.pages.answering import page_router
from delaystream.console.pages.happened import last_events
from delaystream.console.pages.held import matched
from delaystream.console.pages.rendering import address, pages_of, said
from delaystream.console.pages.surroundings import destinations_page
from delaystream.console.service import Console

router = page_router()

_EVENTS: Final = 20
_MATCHED: Final = ("destination", "key", "tags", "id_prefix")


def _topic_input(topics: list[str]) -> list[Input]:
    """Which request topic; nothing where there is one only."""
    if len(topics) == 1:
        return []
    options = [(topic, topic) for topic in topics]
    return [Input("request_topic", "Of the requests on", topics[0], "select", options=options)]


def _topic(form_topic: str | None, topics: list[str]) -> str:
    return form_topic or topics[0]


# -- rates -------------------------------------------------------------------------------------------------


def _rate_panel(console: Console, destination: str) -> Panel:
    rates = [rate for rate in rates_of(console, destination) if rate.by == "command"]
    says: list[Sentence] = [
        "It bounds how many records a second the workers deliver there, all together. "
        "What is over it waits, in due order.",
    ]
    bound = [rate for rate in rates if rate.per_second is not None]
    says += [
        said("Now it is {:g} a second, by a command on {}.", rate.per_second, rate.request_topic)
        for rate in bound
    ]
    if not bound:
        says.append("No command bounds it: it is as the workers' settings say.")
    current = next((f"{rate.per_second:g}" for rate in bound), "")
    return Panel(
        title=said("How fast does {} get records?", destination),
        says=says,
        inputs=[
            Input(
                "rate",
                "Records",
                current,
                hint="50",
                help="A second; or 600/m, 36/h. Empty: as the workers' settings say.",
            ),
            *_topic_input(topics_of(console, Role.ADMIN)),
            note(),
        ],
        button="Set the rate",
        address=address("/destinations/rate", destination=destination),
        back=address("/destinations", destination=destination),
    )


@router.get("/destinations/rate")
async def ask_rate(
    request: Request, console: Asked, cursors: Cursored, entrance: Entered, destination: str
) -> Response:
    """How fast a destination gets records."""
    stamped = stamp(entrance, console.caller, console.clock.now_ms())
    around = Around(_rate_panel(console, destination), stamp=stamped)
    return await destinations_page(request, (console, cursors), around, destination)


@router.post("/destinations/rate")
async def set_rate(
    request: Request,
    console: Asked,
    cursors: Cursored,
    entrance: Entered,
    form: Posted,
    destination: str,
) -> Response:
    """Set it."""
    call = call_of(console, request, form, _topic(form.word("request_topic"), topics_of(console, Role.ADMIN)))
    body = RateSet(rate=form.word("rate"), note=form.word("note"))

    async def work(call: Call) -> WrittenBody:
        return await changing.set_rate(console, request, call.response, call.on, destination, body)

    try:
        came = await carried_out(call, work, Role.ADMIN)
    except ProblemError as problem:
        panel = _rate_panel(console, destination).filled(form.texts).refused(problem)
        stamped = stamp(entrance, console.caller, console.clock.now_ms())
        around = Around(panel, stamp=stamped, status=problem.status)
        return await destinations_page(request, (console, cursors), around, destination)
    return led_to(came, "/destinations", destination=destination)


# -- holds -------------------------------------------------------------------------------------------------


async def _says_of_hold(console: Console, cursors: Cursors, what: dict[str, str]) -> list[Sentence]:
    """How many a hold would keep back now."""
    says: list[Sentence] = [
        "What matches all that is given is kept back, and what arrives later, too. "
        "Nothing of it is delivered until the hold is released, or ends by itself. Nothing is lost.",
    ]
    given = {name: text for name, text in what.items() if text}
    plain = not set(given.get("destination", "")) & set("*?[") and "," not in given.get("tags", "")
    if plain and set(given) in ({"destination"}, {"key"}, {"tags"}):
        to, key, tag = given.get("destination"), given.get("key"), given.get("tags")
        page = await schedules.list_schedules(
            console, cursors, status=[Status.PENDING], destination=to, key=key, tag=tag, limit=1
        )
        some = await schedules.list_pending(
            console, cursors, destination=to, key=key, tag=tag, limit=schedules.MOST
        )
        events = sum(one.id is None for one in some.items)
        more = " or more" if some.next_cursor else ""
        about = "" if page.total.relation == "exact" else " or more"
        says.append(
            f"Now {page.total.count}{about} pending schedules match, and {events}{more} events without an id."
        )
    return says


async def _hold_panel(console: Console, cursors: Cursors, what: dict[str, str]) -> Panel:
    given = [(name, text) for name, text in what.items() if text]
    title: Sentence = "Hold what?"
    if len(given) == 1:
        ((name, text),) = given
        title = said(
            {
                "destination": "Hold everything for the destination {}?",
                "key": "Hold everything with the key {}?",
                "tags": "Hold everything with the tag {}?",
                "id_prefix": "Hold every id that begins with {}?",
            }[name],
            text,
        )
    return Panel(
        title=title,
        says=await _says_of_hold(console, cursors, what),
        inputs=[
            Input("key", "Key", what["key"], help="Of a customer, an order: byte for byte."),
            Input(
                "destination",
                "Destination",
                what["destination"],
                help="A topic, or a glob such as billing-*.",
            ),
            Input("tags", "Tags", what["tags"], help="With commas between: all of them."),
            Input("id_prefix", "Id begins with", what["id_prefix"]),
            *_topic_input(topics_of(console, Role.ADMIN)),
            *end_inputs(),
            note(),
        ],
        button="Hold it",
        address="/holds/new",
        back="/holds",
        danger=True,
    )


async def _holds_page(request: Request, console: Console, around: Around) -> Response:
    found = await changing.list_holds(console)
    events = await last_events(console, [EventType.BULK, EventType.RATE], _EVENTS)
    values = {
        "section": "holds",
        "holds": found.items,
        "events": events,
        **around.values,
        "here": "/holds?told={}".format,
    }
    return pages_of(request).page("holds.html", console, values, around.status)


@router.get("/holds")
async def list_holds(request: Request, console: Asked, told: str = "", again: bool = False) -> Response:
    """What is kept back, by whom and why."""
    return await _holds_page(request, console, Around(notice=await told_of(console, told, again=again)))


@router.get("/holds/new")
async def ask_hold(
    request: Request,
    console: Asked,
    cursors: Cursored,
    entrance: Entered,
    destination: Text = None,
    key: Text = None,
    tags: Text = None,
    id_prefix: Text = None,
) -> Response:
    """What is to be kept back."""
    topics_of(console, Role.ADMIN)
    what = {
        "key": key or "",
        "destination": destination or "",
        "tags": tags or "",
        "id_prefix": id_prefix or "",
    }
    panel = await _hold_panel(console, cursors, what)
    stamped = stamp(entrance, console.caller, console.clock.now_ms())
    return await _holds_page(request, console, Around(panel, stamp=stamped))


@router.post("/holds/new")
async def make_hold(
    request: Request, console: Asked, cursors: Cursored, entrance: Entered, form: Posted
) -> Response:
    """Keep it back."""
    call = call_of(console, request, form, _topic(form.word("request_topic"), topics_of(console, Role.ADMIN)))

    async def work(call: Call) -> WrittenBody:
        # A key may be all spaces; what is empty is not said.
        tags = [tag.strip() for tag in form.text("tags").split(",") if tag.strip()]
        body = HoldMade(
            destination=form.word("destination"),
            key=form.text("key") or None,
            tags=tags or None,
            id_prefix=form.text("id_prefix") or None,
            until=end_of(call),
            note=form.word("note"),
        )
        return await changing.make_hold(console, request, call.response, call.on, body)

    try:
        came = await carried_out(call, work, Role.ADMIN)
    except ProblemError as problem:
        panel = await _hold_panel(console, cursors, {name: form.text(name) for name in _MATCHED})
        stamped = stamp(entrance, console.caller, console.clock.now_ms())
        refused = panel.filled(form.texts).refused(problem)
        return await _holds_page(request, console, Around(refused, None, stamped, problem.status))
    return led_to(came, "/holds")


def _standing(console: Console, name: str) -> Hold:
    """The hold of a name. Raises ProblemError, and Refused for a caller whose role is too low."""
    hold = next((hold for hold in changing.standing(console) if hold.name == name), None)
    if hold is None:
        raise unknown(f"No hold {name[:120]!r} stands: it was released, or has ended by itself.")
    return hold


def _release_panel(console: Console, hold: Hold) -> Panel:
    says: list[Sentence] = ["Everything that it keeps back goes on. What came due meanwhile is late now."]
    if hold.note:
        says.append(said("It was made by {}: “{}”", hold.actor or "somebody", hold.note))
    elif hold.actor:
        says.append(said("It was made by {}.", hold.actor))
    return Panel(
        title=said("Release the hold of {}?", matched(hold)),
        says=says,
        inputs=[late_input(recurring=False), note()],
        button="Release it",
        address=address("/holds/release", name=hold.name),
        back="/holds",
    )


@router.get("/holds/release")
async def ask_release(request: Request, console: Asked, entrance: Entered, name: str) -> Response:
    """What its end would do."""
    topics_of(console, Role.ADMIN)
    panel = _release_panel(console, _standing(console, name))
    stamped = stamp(entrance, console.caller, console.clock.now_ms())
    return await _holds_page(request, console, Around(panel, stamp=stamped))


@router.post("/holds/release")
async def release_hold(
    request: Request, console: Asked, entrance: Entered, form: Posted, name: str
) -> Response:
    """End it."""
    topics = topics_of(console, Role.ADMIN)
    standing = next((hold for hold in changing.standing(console) if hold.name == name), None)
    call = call_of(console, request, form, topics[0] if standing is None else standing.tenant)

    async def work(call: Call) -> WrittenBody:
        body = Released(note=form.word("note"), on_late=form.word("on_late"))
        return await changing.release_hold(console, request, call.response, call.on, name, body)

    try:
        came = await carried_out(call, work, Role.ADMIN)
    except ProblemError as problem:
        if standing is None:
            raise
        panel = _release_panel(console, standing).filled(form.texts).refused(problem)
        stamped = stamp(entrance, console.caller, console.clock.now_ms())
        return await _holds_page(request, console, Around(panel, None, stamped, problem.status))
    return led_to(came, "/holds")
