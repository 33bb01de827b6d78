"""Who did what, for those who answer for a request topic."""

from __future__ import annotations

import asyncio
from struct import Struct
from typing import Annotated, Final

from fastapi import APIRouter, Query

from delaystream.console.access.caller import Role
from delaystream.console.access.refused import forbidden
from delaystream.console.api.asking import Asked, Cursored
from delaystream.console.api.cursors import Cursors
from delaystream.console.api.models import AuditList
from delaystream.console.api.problems import invalid, unknown
from delaystream.console.api.reading.schedules import LIMIT, Limit, Text, time_ms
from delaystream.console.api.rendering import audit_body
from delaystream.console.audit.acts import EntryFilter
from delaystream.console.service import Console

router = APIRouter()

_NUMBER: Final = Struct(">q")


@router.get("/audit")
async def list_audit(
    console: Asked,
    cursors: Cursored,
    name: Text = None,
    action: Text = None,
    request_topic: Annotated[list[str] | None, Query()] = None,
    about: Text = None,
    outcome: Text = None,
    code: Text = None,
    source: Text = None,
    request_id: Text = None,
    at_from: str | None = None,
    at_to: str | None = None,
    limit: Limit = LIMIT,
    cursor: str | None = None,
) -> AuditList:
    """Who did what with the consoles, or tried to, the latest first.

    It is for admins: of their request topics, and for admins of all of them also what is of none.
    """
    if console.audit is None:
        raise unknown("This console keeps no audit log.")
    wanted = EntryFilter(
        name=name,
        action=action,
        request_topics=_topics(console, request_topic),
        about=about,
        outcome=outcome,
        code=code,
        source=source,
        request_id=request_id,
        from_ms=time_ms("at_from", at_from),
        to_ms=time_ms("at_to", at_to),
    )
    asked = ("audit", wanted)
    before = _before(cursors, cursor, asked)
    found = await asyncio.to_thread(console.audit.page, wanted, limit + 1, before)
    last = found[limit - 1].number if len(found) > limit else None
    return AuditList(
        items=[audit_body(entry) for entry in found[:limit]],
        next_cursor=cursors.cursor(None if last is None else _NUMBER.pack(last), asked),
    )


def _topics(console: Console, asked: list[str] | None) -> tuple[str, ...] | None:
    """The request topics whose entries are shown; None: everything. Raises Refused."""
    caller = console.caller
    if caller.may_everywhere(Role.ADMIN):
        return None if asked is None else tuple(sorted(asked))
    known = () if console.writing is None else console.writing.topics
    may = [topic for topic in known if caller.may(Role.ADMIN, topic)]
    if not may:
        raise forbidden(
            "role-too-low", f"{caller.name} may not see the audit log: it needs the role admin on a topic."
        )
    return tuple(topic for topic in may if asked is None or topic in asked)


def _before(cursors: Cursors, cursor: str | None, asked: object) -> int | None:
    place = cursors.place(cursor, asked)
    if place is None:
        return None
    if len(place) != _NUMBER.size:
        raise invalid("invalid-cursor", "cursor does not belong to this list.")
    number: int = _NUMBER.unpack(place)[0]
    return number
