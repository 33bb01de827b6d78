"""Templates and what they share: times, links, and the headers of every page.

Everything that comes from a record is text: templates escape it, links quote it, and no URL and no expression
is built from it in any other way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse

from delaystream import __version__
from delaystream.console.access.caller import Role
from delaystream.console.pages.advice import advice
from delaystream.console.pages.appearance import Appearance
from delaystream.console.service import Console
from delaystream.core.instants import format_instant
from delaystream.core.rejection import Code

_HERE: Final = Path(__file__).parent
_UNSEEN: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_UNITS: Final = (
    (86_400_000, 48, "d"),
    (3_600_000, 48, "h"),
    (60_000, 90, "min"),
    (1_000, 90, "s"),
)

SECURITY_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    # A page has payloads and keys in it.
    "Cache-Control": "no-store",
}


def visible(text: str) -> str:
    """A text with what nobody can see written out: controls, and marks that turn the direction of writing."""
    return _UNSEEN.sub(_written_out, text)


def _written_out(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _shown(value: object) -> object:
    """Whatever a template puts out."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _exact(text: str) -> Markup:
    """A text that goes back to the console, or to a clipboard, as it is."""
    return escape(text)


def length(length_ms: int | None) -> str:
    """A length of time, in the unit that fits: `35 ms`, `2.4 s`, `12 min`."""
    if length_ms is None:
        return ""
    if length_ms < 1_000:
        return f"{length_ms} ms"
    if length_ms < 10_000:
        return f"{length_ms / 1_000:.1f} s"
    for unit_ms, most, name in reversed(_UNITS):
        if length_ms < most * unit_ms:
            return f"{length_ms // unit_ms} {name}"
    return f"{length_ms // 86_400_000} d"


def relative(at_ms: int, now_ms: int) -> str:
    """How far a time is from now: `in 5 min`, `3 h ago`."""
    distance_ms = at_ms - now_ms
    if abs(distance_ms) < 1_000:
        return "now"
    # Whole seconds: the page does not tick faster.
    told = length(max(1_000, abs(distance_ms) // 1_000 * 1_000)).replace(".0 s", " s")
    return f"in {told}" if distance_ms > 0 else f"{told} ago"


def instant(at_ms: int) -> str:
    """As people read it, in UTC, without fractions of a second."""
    return format_instant(at_ms)[:19].replace("T", " ")


def said(template: str, *values: object) -> Markup:
    """A sentence with texts from records in it, as a template puts them out."""
    return Markup(template).format(*map(_shown, values))


def moment(at_ms: int | None) -> Markup:
    """A time with its date. The page's script writes it in the reader's zone."""
    if at_ms is None:
        return Markup("")
    return Markup('<time datetime="{}" data-at="{}" title="{} UTC">{}</time>').format(
        format_instant(at_ms), at_ms, instant(at_ms), instant(at_ms)
    )


def _clock(at_ms: int) -> Markup:
    """The time of day alone, where the day stands beside it."""
    return Markup('<time datetime="{}" data-time="{}" title="{} UTC">{}</time>').format(
        format_instant(at_ms), at_ms, instant(at_ms), instant(at_ms)[11:]
    )


@pass_context
def _when(context: Context, at_ms: int | None) -> Markup:
    """A time by its distance from now."""
    if at_ms is None:
        return Markup("")
    told = relative(at_ms, context["now_ms"])
    return Markup('<time datetime="{}" data-relative="{}" title="{} UTC">{}</time>').format(
        format_instant(at_ms), at_ms, instant(at_ms), told
    )


def _number(value: int) -> str:
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def address(path: str, **query: object) -> str:
    """A path of this console with a query; None and empty are left out."""
    pairs = [
        (name, one)
        for name, value in query.items()
        for one in (value if isinstance(value, (list, tuple)) else [value])
        if one not in (None, "")
    ]
    return f"{path}?{urlencode(pairs)}" if pairs else path


def schedule_address(id: str, request_topic: str) -> str:
    """The page of a schedule."""
    return address(f"/schedules/{quote(id, safe='')}", request_topic=request_topic)


def deed_address(id: str, request_topic: str, deed: str) -> str:
    """Where something is done with a schedule."""
    return address(f"/schedules/{quote(id, safe='')}/{deed}", request_topic=request_topic)


def pending_address(source: str, deed: str = "") -> str:
    """The page of a request without an id, by its coordinates; or where something is done with it."""
    return f"/pending/{quote(source, safe='/@')}" + (f"/{deed}" if deed else "")


def letter_address(place: str, deed: str = "", **query: object) -> str:
    """The page of a dead letter, by its place; or where something is done about it."""
    return address(f"/dead-letters/{quote(place, safe='')}" + (f"/{deed}" if deed else ""), **query)


def where_address(word: str) -> str:
    """The search for a word."""
    return address("/where", q=word)


class Pages:
    """Renders the pages of one console."""

    def __init__(self, appearance: Appearance) -> None:
        self.appearance = appearance
        self._templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_shown,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {
            "clock": _clock,
            "exact": _exact,
            "time": moment,
            "when": _when,
            "lasting": length,
            "number": _number,
        }
        self._templates.globals |= {
            "address": address,
            "advice": advice,
            "deed_address": deed_address,
            "letter_address": letter_address,
            "pending_address": pending_address,
            "appearance": appearance,
            "codes": frozenset(code.value for code in Code),
            "runbook": self.runbook,
            "schedule_address": schedule_address,
            "version": __version__,
            "where_address": where_address,
        }

    def runbook(self, name: str) -> tuple[str, str | None]:
        """A runbook's file in the docs, and where it is published."""
        url = self.appearance.docs_url
        return f"docs/runbooks/{name}.md", None if url is None else f"{url.rstrip('/')}/runbooks/{name}/"

    def page(
        self,
        template: str,
        console: Console,
        values: Mapping[str, Any],
        status: HTTPStatus = HTTPStatus.OK,
    ) -> HTMLResponse:
        """A page of a template; `values` are its own."""
        freshness = console.freshness
        shared = {
            "now_ms": console.clock.now_ms(),
            "freshness": freshness,
            "caller": console.caller,
            "may": _rights(console),
            "section": "",
            "q": "",
        }
        text = self._templates.get_template(template).render({**shared, **values})
        return HTMLResponse(text, status, headers=SECURITY_HEADERS)


def _rights(console: Console) -> Callable[[str, str | None], bool]:
    """Whether the caller may change something of a request topic: what a template asks before it shows how.

    None: of any request topic.
    """

    def may(role: str, topic: str | None = None) -> bool:
        if console.writing is None or not console.writes:
            return False
        topics = console.writing.topics if topic is None else [topic]
        return any(console.caller.may(Role(role), one) for one in topics)

    return may


def pages_of(request: Request) -> Pages:
    """What renders the pages of the application that a request is for."""
    pages: Pages = request.app.state.pages
    return pages
