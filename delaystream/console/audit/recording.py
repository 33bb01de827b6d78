"""Has every request recorded that is not safe, and that nothing else has recorded by its answer."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import Final

from msgspec.structs import replace
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from delaystream.console.access.attempts import ATTEMPT, Attempt
from delaystream.console.access.caller import STRANGER, Caller
from delaystream.console.access.gate import CALLER, SAFE, address_of
from delaystream.console.audit.acts import DONE, FAILED, REFUSED, Act, Outcome
from delaystream.console.audit.log import AuditLog
from delaystream.console.history.database import DatabaseError

logger = logging.getLogger(__name__)

CHANGES_NOTHING: Final = frozenset({"/v1/requests/check"})
"""Paths of requests that only ask, whatever their method says: they are recorded where they are refused."""


class Recording:
    """Stands before the gate: who is not let in is recorded, too."""

    def __init__(self, app: ASGIApp, log: AuditLog | None) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        log = self._log
        if scope["type"] != "http" or scope["method"] in SAFE or log is None:
            await self._app(scope, receive, send)
            return
        attempt = Attempt()

        async def sent(message: Message) -> None:
            # Before the answer: whoever goes away does not take it along.
            if message["type"] == "http.response.start" and not attempt.recorded:
                await _record(log, attempt, scope, message["status"])
            await send(message)

        before = ATTEMPT.set(attempt)
        try:
            await self._app(scope, receive, sent)
        finally:
            ATTEMPT.reset(before)


async def _record(log: AuditLog, attempt: Attempt, scope: Scope, status: int) -> None:
    refused = status >= HTTPStatus.BAD_REQUEST
    if not refused and (attempt.asks or scope["path"] in CHANGES_NOTHING):
        return
    caller: Caller = scope.get(CALLER, STRANGER)
    act = Act(
        who=replace(caller.who, address=address_of(scope)),
        action=f"{scope['method'][:20]} {_path(scope)}",
        request_topic=attempt.request_topic,
        about=attempt.about,
        note=attempt.note,
    )
    word = DONE if not refused else FAILED if status >= HTTPStatus.INTERNAL_SERVER_ERROR else REFUSED
    code = (attempt.code or str(status)) if refused else None
    try:
        await asyncio.to_thread(log.record, act, Outcome(word, code))
    except DatabaseError as problem:
        logger.warning("%s of %s is not in the audit log: %s", act.action, act.who.name, problem)
    attempt.recorded = True


def _path(scope: Scope) -> str:
    """As it was sent: what is quoted in it stays so."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", "replace")
    return raw.decode("ascii", "replace")
