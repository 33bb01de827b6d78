"""Who did what."""

from __future__ import annotations

from typing import Final

from fastapi import Request
from starlette.responses import Response

from delaystream.console.access.caller import Kind
from delaystream.console.api.asking import Asked, Cursored
from delaystream.console.api.reading import audit
from delaystream.console.api.reading.schedules import Text
from delaystream.console.pages.answering import router
from delaystream.console.pages.rendering import address, pages_of

SHOWN: Final = 50
_KINDS: Final = {
    Kind.ANONYMOUS: "nobody was asked",
    Kind.UNKNOWN: "not let in",
    Kind.TOKEN: "by a token",
    Kind.OIDC: "signed in at",
    Kind.SERVICE: "a service of",
    Kind.CONSOLE: "the console",
}


@router.get("/audit")
async def audit_log(
    request: Request,
    console: Asked,
    cursors: Cursored,
    name: Text = None,
    action: Text = None,
    request_topic: Text = None,
    about: Text = None,
    outcome: Text = None,
    cursor: str | None = None,
) -> Response:
    """The audit log, the latest first."""
    chosen = {
        "name": name or None,
        "action": action or None,
        "about": about or None,
        "outcome": outcome or None,
    }
    page = await audit.list_audit(
        console,
        cursors,
        **chosen,
        request_topic=[request_topic] if request_topic else None,
        limit=SHOWN,
        cursor=cursor or None,
    )
    chosen["request_topic"] = request_topic
    return pages_of(request).page(
        "audit.html",
        console,
        {
            "section": "audit",
            "page": page,
            "chosen": chosen,
            "filtered": any(chosen.values()),
            "kinds": _KINDS,
            "outcome_address": lambda value: address("/audit", **{**chosen, "outcome": value}),
            "next": address("/audit", **chosen, cursor=page.next_cursor) if page.next_cursor else None,
            "first": address("/audit", **chosen) if cursor else None,
        },
    )
