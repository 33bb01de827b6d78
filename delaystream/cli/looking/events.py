"""`delaystream events`: what happened, and what happens."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from delaystream.cli.groups import expanded
from delaystream.cli.looking.commands import Asking, Limit, To
from delaystream.cli.output import complain, say, say_json

if TYPE_CHECKING:
    from delaystream.cli.looking.console_output import Column, Form
    from delaystream.cli.looking.event_stream import Seen

#: Without a place to begin at, so many of the last offsets of each partition are looked at.
_LOOKED_AT: Final = 1_000

_EVENTS: Final[Sequence[Column]] = (
    ("when", "at"),
    ("what", "type"),
    ("of", "schedule_id"),
    ("destination", "destination|definition.destination"),
    ("late, ms", "lateness_ms"),
)
_EVENTS_WIDE: Final[Sequence[Column]] = (
    *_EVENTS,
    ("request topic", "request_topic"),
    ("status", "status"),
    ("actor", "actor"),
    ("correlation id", "correlation_id"),
    ("code", "code"),
    ("detail", "detail|reason|note"),
    ("fire id", "fire_id"),
)
_WIDTHS: Final = {"when": 24, "what": 11, "of": 24, "destination": 20}
"""Of columns that are written before what follows is known."""


@expanded
def events(
    *,
    type: Annotated[
        list[str] | None,
        typer.Option("--type", help="Only of this type, such as fired. Repeatable.", metavar="TYPE"),
    ] = None,
    to: To = None,
    id: Annotated[
        str | None, typer.Option("--id", help="Only of this id, or of these coordinates.", metavar="ID")
    ] = None,
    correlation_id: Annotated[
        str | None, typer.Option(help="Only with this correlation id or request id.", metavar="ID")
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(
            help="Start after this place: an earlier call printed it at its end, or it is the `place` of an "
            "event.",
            metavar="PLACE",
        ),
    ] = None,
    limit: Limit = 50,
    asking: Asking,
) -> None:
    """Show what happened, by a console; with --watch what happens, too, until Ctrl-C.

    As many as --limit says: from --after on, or the last of what the last 1,000 offsets of each partition
    have. Standard error says at the end where to go on. With --watch, --after has no limit, and a stream that
    breaks off is begun again from where it was. -o json writes an object an event, indented.

    Exits with 0, 65 when the console refuses the question, 69 when none answers.

    Example: delaystream events --type fired --to emails --watch
    """
    from delaystream.cli.looking import event_stream
    from delaystream.cli.looking.console_client import console_at
    from delaystream.cli.looking.event_stream import Seen

    form = asking.form
    at = console_at(asking.load())
    wanted = {
        "type": type,
        "request_topic": asking.topic,
        "destination": to,
        "id": id,
        "correlation_id": correlation_id,
    }
    shown = _Shown(form)
    place = after
    number, last = 0, deque[Seen](maxlen=limit)
    try:
        for seen in event_stream.past(at, wanted, after, _LOOKED_AT):
            place = seen.place
            if seen.event is None:
                continue
            if after is None:
                last.append(seen)
                continue
            shown.event(seen)
            number += 1
            if number == limit and not asking.watch:
                break
        for seen in last:
            shown.event(seen)
        if asking.watch:
            for happened in event_stream.live(at, wanted, place):
                if isinstance(happened, str):
                    complain(happened)
                    continue
                if happened.event is not None:
                    shown.event(happened)
                place = happened.place
    except KeyboardInterrupt:
        if not asking.watch:
            raise
    if place:
        complain(f"go on with --after {place}")


class _Shown:
    """Writes events as they come."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._columns = _EVENTS_WIDE if form == "wide" else _EVENTS
        self._begun = False

    def event(self, seen: Seen) -> None:
        """Write one."""
        from delaystream.cli.looking import console_output
        from delaystream.core.instants import InstantError, format_instant

        assert seen.event is not None
        match self._form:
            case "json":
                say_json({"place": seen.place, **seen.event}, indent=True)
            case "jsonl":
                say_json({"place": seen.place, **seen.event})
            case "yaml":
                text = console_output.yaml({"place": seen.place, **seen.event})
                say("---", *text.split("\n"))
            case _:
                at_ms = seen.event.get("at_ms")
                try:
                    at = format_instant(at_ms) if isinstance(at_ms, int) else None
                except (InstantError, OverflowError, ValueError):
                    at = str(at_ms)
                self._line({**seen.event, "at": at})

    def _line(self, event: dict[str, Any]) -> None:
        from delaystream.cli.looking import console_output

        if not self._begun:
            self._begun = True
            say(console_output.line(None, self._columns, _WIDTHS))
        cut = self._form == "table"
        say(console_output.line(event, self._columns, _WIDTHS, cut=cut))
