"""The history's database: SQLite beside the console, or PostgreSQL for several of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    Connection,
    Engine,
    create_engine,
    delete,
    event,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from delaystream.console.history.rows import Row, Rows
from delaystream.console.history.schema import WITHIN_MS, events, positions, rollups, totals

_AT_ONCE: Final = 5_000
#: One console at a time writes to a shared database: the number is delaystream's own.
_WRITER: Final = 0x64656C6179
_SQLITE: Final = "sqlite"


class DatabaseError(Exception):
    """The database cannot be used; the message is a sentence."""


class Position(msgspec.Struct, frozen=True):
    """Up to where a partition of the events' topic is stored."""

    topic_id: str
    next_offset: int
    lost: int = 0
    as_of_ms: int = 0


class Retention(msgspec.Struct, frozen=True):
    """How long what is kept; ms, and a number of events."""

    events_ms: int
    events_most: int
    minutes_ms: int
    hours_ms: int


class Database:
    """Connections to one database; made with :meth:`open`. Methods may be called from any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.is_sqlite = engine.dialect.name == _SQLITE
        self._lock: Connection | None = None

    @classmethod
    def open(cls, url: str) -> Database:
        """Connect, and bring the tables to this version; newer ones of the same major version are used.

        Raises DatabaseError.
        """
        try:
            engine = create_engine(url, pool_pre_ping=True)
            if engine.dialect.name == _SQLITE:
                event.listen(engine, "connect", _prepare_sqlite)
            database = cls(engine)
            database.migrate()
        except (SQLAlchemyError, ImportError) as error:
            raise DatabaseError(f"The history's database cannot be used: {_first_line(error)}.") from error
        return database

    def close(self) -> None:
        """Let go of every connection, and of the lock."""
        if self._lock is not None:
            # The lock goes with the session: back in the pool it would be kept.
            self._lock.invalidate()
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to ask with. Raises DatabaseError."""
        try:
            with self._engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise DatabaseError(f"The history cannot be asked: {_first_line(error)}.") from error

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise DatabaseError(f"The history cannot be written: {_first_line(error)}.") from error

    def migrate(self) -> None:
        """Bring the tables to this version."""
        scripts = Path(__file__).with_name("migrations")
        config = Config()
        config.set_main_option("script_location", str(scripts))
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        with self._engine.begin() as connection:
            if not self.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:writer)"), {"writer": _WRITER})
            context = MigrationContext.configure(connection, opts={"version_table": "delaystream_version"})
            current = context.get_current_revision()
            if current is not None and current not in known:
                # A newer console made them: what this one reads and writes is still there.
                return
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def may_write(self) -> bool:
        """Whether this console is the one that writes: it holds the database's lock, or takes it.

        A file of SQLite is one console's own. Raises DatabaseError.
        """
        if self.is_sqlite:
            return True
        try:
            if self._lock is None:
                connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
                ask = text("SELECT pg_try_advisory_lock(:writer)")
                if not connection.execute(ask, {"writer": _WRITER}).scalar():
                    connection.close()
                    return False
                self._lock = connection
            else:
                self._lock.execute(text("SELECT 1"))
        except SQLAlchemyError as error:
            if self._lock is not None:
                self._lock.invalidate()
            self._lock = None
            raise DatabaseError(f"The history cannot be asked: {_first_line(error)}.") from error
        return True

    # -- writing -----------------------------------------------------------------------------------

    def positions(self) -> dict[int, Position]:
        """Up to where each partition is stored."""
        with self.reading() as connection:
            found = connection.execute(select(positions)).all()
        return {
            row.partition: Position(row.topic_id, row.next_offset, row.lost, row.as_of_ms) for row in found
        }

    def store(self, partition: int, rows: Rows, before: Position, after: Position) -> None:
        """Events, what they add up to, and the position behind them, in one transaction.

        Raises DatabaseError, also where the position is not what it was: another console has written.
        """
        with self._writing() as connection:
            self._move(connection, partition, before, after)
            if rows.events:
                self._insert_events(connection, rows.events)
                connection.execute(update(totals).values(events=totals.c.events + len(rows.events)))
            if rows.rollups:
                connection.execute(self._adding(), rows.rollups)

    def _insert_events(self, connection: Connection, rows: Sequence[Row]) -> None:
        # By the driver itself: what SQLAlchemy does for each row takes as long as SQLite.
        statement = str(self._insert(events).compile(self._engine))
        if not self._engine.dialect.positional:
            connection.exec_driver_sql(statement, list(rows))
            return
        names = list(events.c.keys())
        connection.exec_driver_sql(statement, [tuple(row[name] for name in names) for row in rows])

    def _move(self, connection: Connection, partition: int, before: Position, after: Position) -> None:
        moved = connection.execute(
            update(positions)
            .where(
                positions.c.partition == partition,
                positions.c.topic_id == before.topic_id,
                positions.c.next_offset == before.next_offset,
            )
            .values(**msgspec.structs.asdict(after))
        )
        if not moved.rowcount:
            raise DatabaseError("The history was written by another console meanwhile.")

    def begin(self, partition: int, position: Position) -> None:
        """A partition that nothing is stored of, or only from another topic of the same name: that goes."""
        with self._writing() as connection:
            gone = connection.execute(delete(events).where(events.c.partition == partition)).rowcount
            connection.execute(update(totals).values(events=totals.c.events - gone))
            connection.execute(delete(positions).where(positions.c.partition == partition))
            row = {"partition": partition, **msgspec.structs.asdict(position)}
            connection.execute(insert(positions), row)

    def _adding(self) -> Any:
        added: Any = self._insert(rollups)
        taken = added.excluded
        larger = func.max if self.is_sqlite else func.greatest
        summed = ["count", "lateness_ms", *[f"within_{bound}_ms" for bound in WITHIN_MS]]
        values = {name: rollups.c[name] + taken[name] for name in summed}
        values["lateness_max_ms"] = larger(rollups.c.lateness_max_ms, taken.lateness_max_ms)
        return added.on_conflict_do_update(
            index_elements=["seconds", "start_ms", "request_topic", "destination", "type"], set_=values
        )

    def _insert(self, table: Any) -> Any:
        return (sqlite if self.is_sqlite else postgresql).insert(table)

    # -- retention ---------------------------------------------------------------------------------

    def forget(self, retention: Retention, now_ms: int) -> int:
        """Delete some of what is too old, or too much; how many events: call again while it is not 0."""
        with self._writing() as connection:
            count = connection.execute(select(totals.c.events)).scalar_one()
            excess = max(0, count - retention.events_most)
            gone = 0
            for at_ms, partition in self._oldest(connection):
                if at_ms < now_ms - retention.events_ms:
                    gone += self._delete(connection, partition, now_ms - retention.events_ms, _AT_ONCE)
                elif excess > gone:
                    # The partition with the oldest first: they come in turn, as they age.
                    gone += self._delete(connection, partition, None, min(_AT_ONCE, excess - gone))
            connection.execute(update(totals).values(events=totals.c.events - gone))
            for seconds, kept_ms in ((60, retention.minutes_ms), (3_600, retention.hours_ms)):
                connection.execute(
                    delete(rollups).where(rollups.c.seconds == seconds, rollups.c.start_ms < now_ms - kept_ms)
                )
        return gone

    def _oldest(self, connection: Connection) -> list[tuple[int, int]]:
        """When the first event of each partition was, and of which; the oldest first."""
        found = []
        for partition in connection.execute(select(positions.c.partition)).scalars():
            first = (
                select(events.c.at_ms)
                .where(events.c.partition == partition)
                .order_by(events.c.offset)
                .limit(1)
            )
            at_ms = connection.execute(first).scalar()
            if at_ms is not None:
                found.append((at_ms, partition))
        return sorted(found)

    def _delete(self, connection: Connection, partition: int, before_ms: int | None, most: int) -> int:
        """Delete the first events of a partition, up to so many, of those before a time."""
        first = (
            select(events.c.offset)
            .where(events.c.partition == partition)
            .order_by(events.c.offset)
            .limit(most)
        )
        last = connection.execute(select(func.max(first.subquery().c.offset))).scalar()
        chosen = delete(events).where(events.c.partition == partition, events.c.offset <= last)
        if before_ms is not None:
            chosen = chosen.where(events.c.at_ms < before_ms)
        return connection.execute(chosen).rowcount


def _prepare_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    # A crash of the machine may lose the last transactions, which are read again from their topic.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "cache_size=-65536", "busy_timeout=10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].rstrip(".")
