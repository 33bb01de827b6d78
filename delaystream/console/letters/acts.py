"""What was done about letters, and by whom: in SQL, a row for each act; no later one changes it.

The last act of a letter says how it stands. Nothing is deleted from Kafka.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, RowMapping, delete, func, select, update

from delaystream.console.access.caller import Who
from delaystream.console.audit.acts import DONE, Outcome
from delaystream.console.audit.acts import Act as Audited
from delaystream.console.audit.log import AuditLog
from delaystream.console.history.database import Database
from delaystream.console.history.schema import letter_acts, letter_runs
from delaystream.console.letters.latest import Letter
from delaystream.console.writing.outcomes import Stage

NOTHING_DONE: Final = frozenset({"kept", "unchanged", "no-match", "too-late", "unknown"})
"""Outcomes of requests that were taken and changed nothing."""


class Does(StrEnum):
    """An act on a letter."""

    REDRIVE = "redrive"
    DISCARD = "discard"
    REOPEN = "reopen"


class Standing(StrEnum):
    """How a letter stands."""

    OPEN = "open"
    """Nothing was done about it, or that was taken back."""
    SENDING = "sending"
    """It is sent again, and no outcome is known."""
    ACCEPTED = "accepted"
    """It was sent again, and a worker took it."""
    UNCHANGED = "unchanged"
    """It was sent again, and a worker found nothing to do."""
    REJECTED = "rejected"
    """It was sent again and refused again: another letter stands for it."""
    FAILED = "failed"
    """Kafka did not take it."""
    DISCARDED = "discarded"


UNSETTLED: Final = frozenset({Standing.OPEN, Standing.SENDING, Standing.FAILED})
"""About those there is something to do."""


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was done about a letter."""

    partition: int
    offset: int
    at_ms: int
    number: int
    does: Does
    actor: str
    note: str | None = None
    asked_ms: int
    run: str | None = None
    key: str | None = None
    request_id: str | None = None
    request_topic: str | None = None
    about: str | None = None
    fingerprint: str | None = None
    """Of the repair."""
    changed: Sequence[str] = ()
    """The repairs, in words."""
    stage: Stage | None = None
    source: str | None = None
    outcome: str | None = None
    code: str | None = None
    detail: str | None = None
    letter: str | None = None

    @property
    def standing(self) -> Standing:
        """How the letter stands after it."""
        if self.does is not Does.REDRIVE:
            return Standing.DISCARDED if self.does is Does.DISCARD else Standing.OPEN
        return standing_after(self.stage, self.outcome)


def standing_after(stage: Stage | None, outcome: str | None) -> Standing:
    """How a letter stands after a redrive that has come so far."""
    if stage is Stage.FAILED:
        return Standing.FAILED
    if stage is not Stage.DECIDED:
        return Standing.SENDING
    if outcome == "rejected":
        return Standing.REJECTED
    return Standing.UNCHANGED if outcome in NOTHING_DONE else Standing.ACCEPTED


Key = tuple[int, int, int]
"""Partition, offset and time of a letter."""


def key_of(letter: Letter) -> Key:
    """What tells a letter from all others, also of a topic that was made anew."""
    return letter.partition, letter.offset, letter.at_ms


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """Letters that are sent again together."""

    run: str
    actor: str
    note: str | None
    asked_ms: int
    told_ms: int
    request_topics: Sequence[str | None]
    total: int
    refused: Mapping[str, int]
    """Those that could not be sent, by code."""
    stage: str
    fingerprint: str | None = None
    """Of what was asked for; None: it was begun before that was kept."""


class Acts:
    """The tables. Methods block, may be called from any thread, and raise DatabaseError."""

    def __init__(self, database: Database, audit: AuditLog) -> None:
        self._database = database
        self._audit = audit

    def of(self, key: Key) -> list[Act]:
        """Everything that was done about a letter, in order."""
        table = letter_acts.c
        chosen = select(letter_acts).where(
            table.partition == key[0], table.offset == key[1], table.at_ms == key[2]
        )
        with self._database.reading() as connection:
            rows = connection.execute(chosen.order_by(table.number)).mappings().all()
        return [_act(row) for row in rows]

    def last(self, since: Mapping[int, int]) -> dict[Key, Act]:
        """The last act of each letter that has one; `since`: by partition, the first offset that matters."""
        found: dict[Key, Act] = {}
        table = letter_acts.c
        with self._database.reading() as connection:
            for partition, offset in since.items():
                chosen = select(letter_acts).where(table.partition == partition, table.offset >= offset)
                for row in connection.execute(chosen.order_by(table.number)).mappings():
                    found[row["partition"], row["offset"], row["at_ms"]] = _act(row)
        return found

    def add(self, act: Act) -> bool:
        """Note a redrive before it is sent; False where another act came first with its number."""
        with self._database.writing() as connection:
            return self._add(connection, act)

    def set_aside(self, acts: Iterable[Act], who: Who) -> int:
        """Note what needs nobody else, in the audit log, too; how many: what came too late is left out."""
        added = 0
        with self._database.writing() as connection:
            for act in acts:
                if self._add(connection, act):
                    added += 1
                    self._audit.note(connection, _audited(act, who), Outcome(DONE))
        return added

    def _add(self, connection: Connection, act: Act) -> bool:
        adding = self._database.inserting(letter_acts).values(**_row(act)).on_conflict_do_nothing()
        return bool(connection.execute(adding).rowcount)

    def tell(self, act: Act) -> None:
        """Note what came of a redrive."""
        table = letter_acts.c
        with self._database.writing() as connection:
            connection.execute(
                update(letter_acts)
                .where(
                    table.partition == act.partition,
                    table.offset == act.offset,
                    table.at_ms == act.at_ms,
                    table.number == act.number,
                )
                .values(
                    stage=None if act.stage is None else act.stage.value,
                    source=act.source,
                    outcome=act.outcome,
                    code=act.code,
                    detail=act.detail,
                    letter=act.letter,
                )
            )

    def undecided(self, before_ms: int) -> list[Act]:
        """Redrives that were asked for before a time and have no outcome."""
        table = letter_acts.c
        chosen = select(letter_acts).where(
            table.stage.in_([Stage.BEGUN.value, Stage.SENT.value]), table.asked_ms < before_ms
        )
        with self._database.reading() as connection:
            return [_act(row) for row in connection.execute(chosen).mappings()]

    def of_run(self, run: str) -> list[Act]:
        """The redrives of a run."""
        with self._database.reading() as connection:
            rows = connection.execute(select(letter_acts).where(letter_acts.c.run == run)).mappings().all()
        return [_act(row) for row in rows]

    def forget(self, partition: int, before: int) -> int:
        """Delete what is about letters that their topic does not have any more; how many acts."""
        table = letter_acts.c
        with self._database.writing() as connection:
            gone = connection.execute(
                delete(letter_acts).where(table.partition == partition, table.offset < before)
            )
        return int(gone.rowcount)

    # -- runs --------------------------------------------------------------------------------------

    def begin_run(self, run: Run) -> bool:
        """Note a run before its first letter; False where one of its name is there."""
        adding = self._database.inserting(letter_runs).values(**_run_row(run)).on_conflict_do_nothing()
        with self._database.writing() as connection:
            return bool(connection.execute(adding).rowcount)

    def tell_run(self, run: Run) -> None:
        """Note how far it is."""
        with self._database.writing() as connection:
            connection.execute(
                update(letter_runs).where(letter_runs.c.run == run.run).values(**_run_row(run))
            )

    def find_run(self, run: str) -> Run | None:
        """A run by its name."""
        with self._database.reading() as connection:
            row = connection.execute(select(letter_runs).where(letter_runs.c.run == run)).mappings().first()
        return None if row is None else _run(row)

    def counts(self, runs: Iterable[str]) -> dict[str, dict[Standing, int]]:
        """By run, the letters that were sent, by how they stand."""
        table = letter_acts.c
        chosen = (
            select(table.run, table.stage, table.outcome, func.count())
            .where(table.run.in_(list(runs)))
            .group_by(table.run, table.stage, table.outcome)
        )
        found: dict[str, dict[Standing, int]] = {}
        with self._database.reading() as connection:
            for run, stage, outcome, count in connection.execute(chosen):
                standing = standing_after(None if stage is None else Stage(stage), outcome)
                counts = found.setdefault(run, {})
                counts[standing] = counts.get(standing, 0) + count
        return found

    def latest_runs(self, limit: int) -> list[Run]:
        """The latest runs, the latest first."""
        chosen = select(letter_runs).order_by(letter_runs.c.asked_ms.desc(), letter_runs.c.run).limit(limit)
        with self._database.reading() as connection:
            return [_run(row) for row in connection.execute(chosen).mappings()]

    def forget_runs(self, before_ms: int) -> int:
        """Delete runs that were asked for before a time; how many."""
        with self._database.writing() as connection:
            gone = connection.execute(delete(letter_runs).where(letter_runs.c.asked_ms < before_ms))
        return int(gone.rowcount)


def _audited(act: Act, who: Who) -> Audited:
    return Audited(
        who=who,
        action=f"{act.does.value} dead letter",
        request_topic=act.request_topic,
        about=f"dead letter {act.partition}.{act.offset}",
        note=act.note,
    )


def _row(act: Act) -> dict[str, Any]:
    row = {
        # PostgreSQL's texts hold no NUL, and an id may.
        name: value.replace("\0", "\\x00") if isinstance(value, str) else value
        for name, value in msgspec.structs.asdict(act).items()
    }
    row["act"] = Does(row.pop("does")).value
    row["changed"] = json.dumps(list(act.changed))
    row["stage"] = None if act.stage is None else act.stage.value
    return row


def _act(row: RowMapping) -> Act:
    told: dict[str, Any] = {**row}
    told["does"] = Does(told.pop("act"))
    told["changed"] = json.loads(told["changed"] or "[]")
    told["stage"] = None if told["stage"] is None else Stage(told["stage"])
    return Act(**told)


def _run(row: RowMapping) -> Run:
    told: dict[str, Any] = {**row}
    told["request_topics"] = json.loads(told["request_topics"])
    told["refused"] = json.loads(told["refused"])
    return Run(**told)


def _run_row(run: Run) -> dict[str, Any]:
    row = msgspec.structs.asdict(run)
    row["request_topics"] = json.dumps(list(run.request_topics))
    row["refused"] = json.dumps(dict(run.refused))
    return row
