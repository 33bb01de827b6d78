"""What was asked of the consoles, in SQL, for a day: an idempotency key repeats the outcome, and a request is
found again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from delaystream.console.history.database import Database
from delaystream.console.history.schema import requests
from delaystream.console.writing.outcomes import Progress, Stage

KEPT_MS: Final = 24 * 3_600_000


class Ledger:
    """The table of requests. Methods block, may be called from any thread, and raise DatabaseError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, progress: Progress, fingerprint: str) -> tuple[Progress, str]:
        """Note a request before it is sent; returns it, or what is known of its name, and the fingerprint."""
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
                return _progress(known), known.fingerprint
        return progress, fingerprint

    def tell(self, progress: Progress) -> None:
        """Note how far it is."""
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
