"""Operations in SQL: what is frozen, how far each is, who carries it out, and what an undo has to know."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace
from sqlalchemy import Text, and_, bindparam, case, delete, func, insert, literal, or_, select, update
from sqlalchemy.engine import Connection

from delaystream.codec.outgoing import Outcome as Receipted
from delaystream.console.access.caller import Caller
from delaystream.console.audit.acts import BEGUN, FAILED, Act
from delaystream.console.audit.acts import Outcome as Noted
from delaystream.console.audit.log import AuditLog
from delaystream.console.history.database import Database
from delaystream.console.history.rows import stored_text
from delaystream.console.history.schema import operation_items as items
from delaystream.console.history.schema import operations
from delaystream.console.operations.operation import (
    DRY_RUN_MS,
    OPEN,
    UNDO_MS,
    UNTIL,
    Action,
    Failure,
    Frozen,
    Item,
    ItemStage,
    Operation,
    Outcome,
    Progress,
    Stage,
    request_id,
)

KEPT_MS: Final = 30 * 24 * 3_600_000
"""An operation is remembered for so long."""
LEASE_MS: Final = 15_000
"""A console that carries one out has to say so within this time, or another one goes on with it."""
DRY_RUNS: Final = 20
"""So many dry runs of one caller may wait to be started."""
DRY_RUNS_OF_ALL: Final = 200
"""So many of all of them."""
KEEPS: Final = frozenset({Action.CANCEL, Action.UNDO})
"""Of these something is kept for an undo."""
TOLD: Final = frozenset({Receipted.UNKNOWN.value, Receipted.TOO_LATE.value, Receipted.KEPT.value})
"""Outcomes in receipts of items that were neither changed nor refused."""
_OPEN: Final = [stage.value for stage in OPEN]
_NOT_STARTED: Final = [Stage.FREEZING.value, Stage.DRY_RUN.value]


class TooManyOperations(Exception):
    """As many dry runs wait, or operations run, as may; the message is a sentence."""


class UnderWay(Exception):
    """Of something that was sent the outcome has to be waited for; the message is a sentence."""


class OperationLedger:
    """The tables of operations. Methods block, may be called from any thread, and raise DatabaseError."""

    def __init__(self, database: Database, audit: AuditLog) -> None:
        self._database = database
        self._audit = audit

    # -- making ------------------------------------------------------------------------------------

    def begin(self, operation: Operation) -> None:
        """Note an operation before what it is about. Raises TooManyOperations."""
        with self._database.writing() as connection:
            waiting = (
                select(func.count())
                .select_from(operations)
                .where(
                    operations.c.stage.in_(_NOT_STARTED),
                    operations.c.made_ms > operation.made_ms - DRY_RUN_MS,
                )
            )
            mine = waiting.where(operations.c.made_by == operation.made_by)
            for asked, most in ((mine, DRY_RUNS), (waiting, DRY_RUNS_OF_ALL)):
                found = connection.execute(asked).scalar_one()
                if found >= most:
                    raise TooManyOperations(
                        f"{found} dry runs wait to be started; expected fewer than {most}. Each ends by "
                        f"itself after {DRY_RUN_MS // 60_000} minutes."
                    )
            connection.execute(insert(operations).values(**_row(operation)))

    def add(self, operation_id: str, some: Iterable[Item]) -> None:
        """Add some of what it is about."""
        rows = [
            {
                "operation_id": operation_id,
                "number": item.number,
                "request_topic": item.request_topic,
                "about": item.about.encode(),
                "named": int(item.named),
                "version": item.version,
                "stage": item.stage.value,
                "kept": item.kept,
                "sent_ms": item.sent_ms,
                "decided_ms": item.decided_ms,
            }
            for item in some
        ]
        if rows:
            with self._database.writing() as connection:
                connection.execute(insert(items), rows)

    def frozen(self, operation: Operation) -> None:
        """Everything that it is about is there."""
        with self._database.writing() as connection:
            connection.execute(
                update(operations)
                .where(operations.c.id == operation.id)
                .values(stage=operation.stage.value, frozen=_json(operation.frozen))
            )

    def drop(self, id: str) -> None:
        """Delete an operation that came to nothing."""
        with self._database.writing() as connection:
            connection.execute(delete(items).where(items.c.operation_id == id))
            connection.execute(delete(operations).where(operations.c.id == id))

    def begin_undo(self, undo: Operation, most_running: int, *, runs: bool) -> str:
        """Begin to undo a cancel, with what it has changed; returns its id, or that of one that did before.

        `runs`: whether this console waits for outcomes of the cancel. Raises TooManyOperations, UnderWay.
        """
        assert undo.undo_of is not None
        with self._database.writing() as connection:
            mine = connection.execute(
                update(operations)
                .where(operations.c.id == undo.undo_of, operations.c.undone_by.is_(None))
                .values(undone_by=undo.id)
            )
            if mine.rowcount == 0:
                asked = select(operations.c.undone_by).where(operations.c.id == undo.undo_of)
                return str(connection.execute(asked).scalar_one())
            self._check_landed(connection, undo, runs)
            _check_running(connection, undo, most_running)
            connection.execute(insert(operations).values(**_row(undo)))
            changed = select(
                # The name of the new one; all else is that of the cancel.
                literal(undo.id, Text),
                items.c.number,
                items.c.request_topic,
                items.c.about,
                items.c.named,
                # Of what was sent, and not decided on as far as is known, the version is not known either.
                case((items.c.stage == ItemStage.SENT.value, 0), else_=items.c.version),
                literal(ItemStage.WAITING.value, Text),
                items.c.kept,
                items.c.sent_ms,
                items.c.decided_ms,
            ).where(
                items.c.operation_id == undo.undo_of,
                or_(
                    # Also without what an undo has to know: that it does not come back is told.
                    items.c.stage == ItemStage.CHANGED.value,
                    and_(items.c.stage == ItemStage.SENT.value, items.c.kept.is_not(None)),
                ),
            )
            columns = [
                "operation_id", "number", "request_topic", "about", "named", "version", "stage", "kept",
                "sent_ms", "decided_ms",
            ]  # fmt: skip
            connection.execute(insert(items).from_select(columns, changed))
            topics = connection.execute(
                select(items.c.request_topic, func.count())
                .where(items.c.operation_id == undo.id)
                .group_by(items.c.request_topic)
            ).all()
            found = replace(undo.frozen, topics={row[0]: row[1] for row in topics})
            connection.execute(
                update(operations).where(operations.c.id == undo.id).values(frozen=_json(found))
            )
        return undo.id

    def _check_landed(self, connection: Connection, undo: Operation, runs: bool) -> None:
        """Raise UnderWay while a cancel without an id is in the air, and somebody waits for its outcome.

        By an id the undo is kept apart from what is still there. Without one nothing would tell.
        """
        if not runs and not self._database.is_sqlite:
            asked = select(operations.c.id).where(
                operations.c.id == undo.undo_of,
                operations.c.runner.is_not(None),
                operations.c.runner_until_ms >= undo.made_ms,
            )
            runs = connection.execute(asked).first() is not None
        if not runs:
            return
        asked_items = select(func.count()).where(
            items.c.operation_id == undo.undo_of,
            items.c.stage == ItemStage.SENT.value,
            items.c.named == 0,
        )
        if found := connection.execute(asked_items).scalar_one():
            raise UnderWay(
                f"{found} cancels of requests without an id are under way: wait for their outcomes."
            )

    # -- asking ------------------------------------------------------------------------------------

    def find(self, id: str) -> Operation | None:
        """An operation; None where there is none."""
        with self._database.reading() as connection:
            row = connection.execute(select(operations).where(operations.c.id == id)).first()
        return None if row is None else _operation(row)

    def latest(self, limit: int, before: tuple[int, str] | None = None) -> Sequence[Operation]:
        """Operations, the latest first; `before` is (made at, id) of the last one of the page before."""
        asked = select(operations).where(operations.c.stage != Stage.FREEZING.value)
        if before is not None:
            made_ms, id = before
            asked = asked.where(
                or_(
                    operations.c.made_ms < made_ms,
                    and_(operations.c.made_ms == made_ms, operations.c.id < id),
                )
            )
        asked = asked.order_by(operations.c.made_ms.desc(), operations.c.id.desc()).limit(limit)
        with self._database.reading() as connection:
            return [_operation(row) for row in connection.execute(asked)]

    def progress(self, id: str) -> Progress:
        """How far an operation is."""
        asked = (
            select(items.c.stage, items.c.outcome, func.count())
            .where(items.c.operation_id == id)
            .group_by(items.c.stage, items.c.outcome)
        )
        counts = dict.fromkeys(ItemStage, 0)
        reasons: dict[str, int] = {}
        with self._database.reading() as connection:
            for stage, outcome, count in connection.execute(asked):
                counts[ItemStage(stage)] += count
                if stage == ItemStage.FAILED.value:
                    reasons[outcome] = reasons.get(outcome, 0) + count
        return Progress(
            waiting=counts[ItemStage.WAITING],
            underway=counts[ItemStage.SENT],
            changed=counts[ItemStage.CHANGED],
            unchanged=counts[ItemStage.UNCHANGED],
            failed=counts[ItemStage.FAILED],
            reasons=dict(sorted(reasons.items())),
        )

    def failures(self, id: str, limit: int, after: int | None = None) -> Sequence[Failure]:
        """Items that were not changed, in order of numbers; `after` is the last one of the page before."""
        asked = select(items).where(items.c.operation_id == id, items.c.stage == ItemStage.FAILED.value)
        if after is not None:
            asked = asked.where(items.c.number > after)
        with self._database.reading() as connection:
            found = connection.execute(asked.order_by(items.c.number).limit(limit)).all()
        return [Failure(_item(row), row.outcome, row.detail) for row in found]

    # -- beginning and ending ----------------------------------------------------------------------

    def start(self, started: Operation, most_running: int) -> bool:
        """Have it carried out, as `started` says; False where it is not as it was.

        Raises TooManyOperations.
        """
        startable = [Stage.DRY_RUN.value, Stage.STOPPED.value]
        with self._database.writing() as connection:
            _check_running(connection, started, most_running)
            done = connection.execute(
                update(operations)
                .where(
                    operations.c.id == started.id,
                    operations.c.stage.in_(startable),
                    operations.c.undone_by.is_(None),
                )
                .values(
                    stage=Stage.RUNNING.value,
                    caller=None if started.caller is None else _json(started.caller),
                    started_ms=started.started_ms,
                    ended_ms=None,
                    rate=started.rate,
                    problem=None,
                    # A stop may have been so long ago that nothing was kept any more.
                    keeps=int(started.action in KEEPS),
                )
            )
        return done.rowcount == 1

    def end(self, id: str, stage: Stage, now_ms: int, problem: str | None = None) -> bool:
        """Stop one that runs, or say that it is done; False where it does not run."""
        with self._database.writing() as connection:
            done = connection.execute(
                update(operations)
                .where(operations.c.id == id, operations.c.stage == Stage.RUNNING.value)
                .values(stage=stage.value, ended_ms=now_ms, problem=stored_text(problem))
            )
        return done.rowcount == 1

    def complain(self, id: str, problem: str | None) -> None:
        """Say what keeps it from going on; None: nothing does."""
        with self._database.writing() as connection:
            connection.execute(
                update(operations).where(operations.c.id == id).values(problem=stored_text(problem))
            )

    # -- carrying out ------------------------------------------------------------------------------

    def running(self) -> Sequence[str]:
        """The operations that are to be carried out."""
        asked = select(operations.c.id).where(operations.c.stage == Stage.RUNNING.value)
        with self._database.reading() as connection:
            return connection.execute(asked.order_by(operations.c.started_ms)).scalars().all()

    def take(self, id: str, runner: str, now_ms: int) -> bool:
        """Be the one that carries it out, or go on being it; False where another one is.

        A file of SQLite is one console's own: whoever was it before has ended.
        """
        free = or_(
            operations.c.runner.is_(None),
            operations.c.runner == runner,
            operations.c.runner_until_ms < now_ms,
        )
        asked = update(operations).where(operations.c.id == id)
        if not self._database.is_sqlite:
            asked = asked.where(free)
        with self._database.writing() as connection:
            done = connection.execute(asked.values(runner=runner, runner_until_ms=now_ms + LEASE_MS))
        return done.rowcount == 1

    def leave(self, id: str, runner: str) -> None:
        """Let another one carry it out."""
        with self._database.writing() as connection:
            connection.execute(
                update(operations)
                .where(operations.c.id == id, operations.c.runner == runner)
                .values(runner=None, runner_until_ms=None)
            )

    def next(self, id: str, after: int, limit: int) -> Sequence[Item]:
        """Items that are not decided on yet, in order of numbers, after one."""
        asked = (
            select(items)
            .where(items.c.operation_id == id, items.c.number > after, items.c.stage.in_(_OPEN))
            .order_by(items.c.number)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return [_item(row) for row in connection.execute(asked)]

    def sending(self, operation: Operation, some: Sequence[Item]) -> list[Item]:
        """Note what is about to be sent, in the audit log, too, with what has to be known to undo it.

        Nothing where it was stopped meanwhile: an undo may have begun, and would not know of it.
        """
        with self._database.writing() as connection:
            runs = connection.execute(
                update(operations)
                .where(operations.c.id == operation.id, operations.c.stage == Stage.RUNNING.value)
                # Nothing new; until the end of the transaction nobody else stops it.
                .values(stage=Stage.RUNNING.value)
            )
            if runs.rowcount == 0:
                return []
            noted = [replace(item, entry=self._entry(connection, operation, item)) for item in some]
            rows = [
                {
                    "of": operation.id,
                    "at": item.number,
                    "stage": ItemStage.SENT.value,
                    "kept": item.kept,
                    "sent_ms": item.sent_ms,
                    "entry": item.entry,
                }
                for item in noted
            ]
            _update(connection, rows, "stage", "kept", "sent_ms", "entry")
        return noted

    def _entry(self, connection: Connection, operation: Operation, item: Item) -> int:
        """The number of a command in the audit log; it is there once, however often it is sent."""
        if item.entry is not None:
            return item.entry
        return self._audit.note(connection, _act(operation, item, operation.action.value), Noted(BEGUN))

    def pausing(self, operation: Operation, item: Item) -> int:
        """Note the second command of an item in the audit log, before it is sent; the entry's number."""
        with self._database.writing() as connection:
            return self._audit.note(connection, _act(operation, item, "pause", UNTIL), Noted(BEGUN))

    def settled(self, entry: int, outcome: str, source: str) -> None:
        """Note what came of that."""
        with self._database.writing() as connection:
            self._audit.settle(connection, entry, Noted(outcome, None, source))

    def unsent(self, id: str, numbers: Sequence[int]) -> None:
        """Note that some were not sent after all; what there was then is looked up anew."""
        rows = [
            {"of": id, "at": number, "stage": ItemStage.WAITING.value, "kept": None, "sent_ms": None}
            for number in numbers
        ]
        with self._database.writing() as connection:
            _update(connection, rows, "stage", "kept", "sent_ms")

    def decided(self, id: str, outcomes: Sequence[Outcome]) -> None:
        """Note what became of some."""
        rows = [
            {
                "of": id,
                "at": outcome.number,
                "stage": outcome.stage.value,
                "outcome": outcome.outcome,
                "detail": stored_text(outcome.detail),
                "source": outcome.source,
                "decided_ms": outcome.decided_ms,
                # Only what was cancelled is brought back.
                "version": outcome.version or 0,
            }
            for outcome in outcomes
        ]
        with self._database.writing() as connection:
            _update(connection, rows, "stage", "outcome", "detail", "source", "decided_ms", "version")
            for outcome in outcomes:
                if outcome.entry is not None:
                    self._audit.settle(connection, outcome.entry, _noted(outcome))

    # -- forgetting --------------------------------------------------------------------------------

    def forget(self, now_ms: int) -> None:
        """Delete dry runs that nobody started, what undoes what can no longer be undone, and what is old."""
        unstarted = and_(operations.c.stage.in_(_NOT_STARTED), operations.c.made_ms < now_ms - 2 * DRY_RUN_MS)
        old = and_(operations.c.stage != Stage.RUNNING.value, operations.c.made_ms < now_ms - KEPT_MS)
        with self._database.writing() as connection:
            gone = connection.execute(select(operations.c.id).where(or_(unstarted, old))).scalars().all()
            if gone:
                connection.execute(delete(items).where(items.c.operation_id.in_(gone)))
                connection.execute(delete(operations).where(operations.c.id.in_(gone)))
            over = (
                connection.execute(
                    select(operations.c.id).where(
                        operations.c.stage.in_([Stage.DONE.value, Stage.STOPPED.value]),
                        operations.c.ended_ms < now_ms - UNDO_MS,
                        operations.c.keeps == 1,
                    )
                )
                .scalars()
                .all()
            )
            if over:
                connection.execute(
                    update(items)
                    .where(items.c.operation_id.in_(over), items.c.kept.is_not(None))
                    .values(kept=None)
                )
                connection.execute(update(operations).where(operations.c.id.in_(over)).values(keeps=0))


def _update(connection: Connection, rows: Sequence[dict[str, Any]], *columns: str) -> None:
    if not rows:
        return
    asked = (
        update(items)
        .where(items.c.operation_id == bindparam("of"), items.c.number == bindparam("at"))
        # A parameter of a column's own name would be taken for one of SQLAlchemy's.
        .values({column: bindparam(f"new_{column}") for column in columns})
    )
    given = [
        {"of": row["of"], "at": row["at"], **{f"new_{column}": row[column] for column in columns}}
        for row in rows
    ]
    connection.execute(asked, given)


def _act(operation: Operation, item: Item, action: str, purpose: str = "") -> Act:
    assert operation.caller is not None
    return Act(
        who=operation.caller.who,
        action=action,
        request_topic=item.request_topic,
        about=item.about,
        note=operation.frozen.note,
        request_id=request_id(operation.id, item.number, purpose),
    )


def _noted(outcome: Outcome) -> Noted:
    """What the audit log has of an outcome."""
    if outcome.stage is ItemStage.FAILED and outcome.outcome not in TOLD:
        word = FAILED if outcome.source is None else Receipted.REJECTED.value
        return Noted(word, outcome.outcome, outcome.source)
    return Noted(outcome.outcome, None, outcome.source)


def _check_running(connection: Connection, wanted: Operation, most: int) -> None:
    """Raise TooManyOperations where as many run as may, of all callers or of the one that starts this."""
    asked = select(operations.c.caller).where(operations.c.stage == Stage.RUNNING.value)
    running = connection.execute(asked).scalars().all()
    if len(running) >= most:
        raise TooManyOperations(
            f"{len(running)} operations run; expected fewer than {most}: wait, or stop one."
        )
    callers = [msgspec.json.decode(one, type=Caller).who.unique for one in running if one is not None]
    mine = 0 if wanted.caller is None else callers.count(wanted.caller.who.unique)
    if mine >= max(1, most - 1):
        raise TooManyOperations(
            f"{mine} operations of one caller run; expected fewer than {max(1, most - 1)}: wait, or stop one."
        )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _row(operation: Operation) -> dict[str, Any]:
    return {
        "id": operation.id,
        "stage": operation.stage.value,
        "made_ms": operation.made_ms,
        "made_by": operation.made_by,
        "frozen": _json(operation.frozen),
        "caller": None if operation.caller is None else _json(operation.caller),
        "started_ms": operation.started_ms,
        "rate": operation.rate,
        "undo_of": operation.undo_of,
        "keeps": int(operation.action in KEEPS),
    }


def _operation(row: Any) -> Operation:
    return Operation(
        id=row.id,
        frozen=msgspec.json.decode(row.frozen, type=Frozen),
        stage=Stage(row.stage),
        made_ms=row.made_ms,
        made_by=row.made_by,
        caller=None if row.caller is None else msgspec.json.decode(row.caller, type=Caller),
        started_ms=row.started_ms,
        ended_ms=row.ended_ms,
        rate=row.rate,
        problem=row.problem,
        undo_of=row.undo_of,
        undone_by=row.undone_by,
    )


def _item(row: Any) -> Item:
    return Item(
        number=row.number,
        request_topic=row.request_topic,
        about=bytes(row.about).decode(),
        named=bool(row.named),
        version=row.version,
        stage=ItemStage(row.stage),
        kept=None if row.kept is None else bytes(row.kept),
        sent_ms=row.sent_ms,
        decided_ms=row.decided_ms,
        entry=row.entry,
    )
