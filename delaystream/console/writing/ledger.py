"""What was asked of the consoles, in SQL, for a day: an idempotency key repeats the outcome, and a request is
found again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from delaystream.console.audit.acts import REFUSED, Act, Outcome
from delaystream.console.audit.log import AuditLog
from delaystream.console.history.database import Database
from delaystream.console.history.schema import requests
from delaystream.console.writing.outcomes import Progress, Stage

KEPT_MS: Final = 24 * 3_600_000


class Begun(msgspec.Struct, frozen=True):
    """A request before it is sent."""

    progress: Progress
    """As it was noted, or what is known of its name."""
    fingerprint: str
    """Of what was asked for under its name first."""
    entry: int
    """The number of its entry in the audit log."""


class Ledger:
    """The table of requests. Methods block, may be called from any thread, and raise DatabaseError."""

    def __init__(self, database: Database, audit: AuditLog) -> None:
        self._database = database
        self._audit = audit

    def begin(self, progress: Progress, fingerprint: str, act: Act) -> Begun:
        """Note a request before it is sent, in the audit log, too."""
        row = {
            "request_id": progress.request_id,
            "request_topic": progress.request_topic,
            "action": progress.action,
            "about": progress.about,
            "fingerprint": fingerprint,
            "asked_ms": progress.asked_ms,
            "stage": progress.stage.value,
        }
        with self._database.writing() as connection:
            try:
                with connection.begin_nested():
                    connection.execute(insert(requests).values(**row))
            except IntegrityError:
                known = connection.execute(
                    select(requests).where(requests.c.request_id == progress.request_id)
                ).one()
                before = _progress(known)
                if known.fingerprint != fingerprint:
                    outcome = Outcome(REFUSED, "idempotency-key-reused")
                else:
                    outcome = outcome_of(before)
                return Begun(before, known.fingerprint, self._audit.note(connection, act, outcome))
            return Begun(progress, fingerprint, self._audit.note(connection, act, outcome_of(progress)))

    def tell(self, progress: Progress, entry: int) -> None:
        """Note how far it is, in the audit log's entry, too."""
        receipt = None if progress.receipt is None else json.dumps(progress.receipt)
        with self._database.writing() as connection:
            connection.execute(
                update(requests)
                .where(requests.c.request_id == progress.request_id)
                .values(
                    stage=progress.stage.value,
                    source=progress.source,
                    receipt=receipt,
                    position=progress.position,
                    problem=progress.problem,
                )
            )
            self._audit.settle(connection, entry, outcome_of(progress))

    def find(self, request_id: str) -> Progress | None:
        """A request by its name; None where nothing is known of it."""
        with self._database.reading() as connection:
            row = connection.execute(select(requests).where(requests.c.request_id == request_id)).first()
        return None if row is None else _progress(row)

    def forget(self, now_ms: int) -> int:
        """Delete what is older than a day; how many."""
        with self._database.writing() as connection:
            gone = connection.execute(delete(requests).where(requests.c.asked_ms < now_ms - KEPT_MS))
        return int(gone.rowcount)


def outcome_of(progress: Progress) -> Outcome:
    """What the audit log has of it."""
    if progress.stage is Stage.DECIDED:
        return Outcome(progress.outcome or progress.stage.value, progress.code, progress.source)
    return Outcome(progress.stage.value, None, progress.source)


def _progress(row: Any) -> Progress:
    receipt: Mapping[str, Any] | None = None if row.receipt is None else json.loads(row.receipt)
    return Progress(
        request_id=row.request_id,
        request_topic=row.request_topic,
        action=row.action,
        about=row.about,
        asked_ms=row.asked_ms,
        stage=Stage(row.stage),
        source=row.source,
        receipt=receipt,
        position=row.position,
        problem=row.problem,
    )
