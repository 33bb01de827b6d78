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
    URL,
    Connection,
    Engine,
    Table,
    create_engine,
    delete,
    event,
    func,
    insert,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from delaystream.console.history.rows import EventRow, Rows
from delaystream.console.history.schema import MAJOR, WITHIN_MS, events, positions, rollups, totals

_AT_ONCE: Final = 10_000
#: Among so many first events of a partition the oldest is looked for.
_FIRSTS: Final = 1_000
#: One console at a time writes to a shared database: the number is delaystream's own.
_WRITER: Final = 0x64656C6179
#: One at a time makes the tables; not the writer's lock, which it holds for as long as it lives.
_MAKER: Final = _WRITER + 1
_SQLITE: Final = "sqlite"
_DRIVERS: Final = {_SQLITE: "sqlite", "postgresql": "postgresql+psycopg"}
#: How long a file of SQLite is waited for that another program has locked, where its URL does not say.
_LOCKED_S: Final = 10
#: Execution option of the connections that write.
_WRITES: Final = "delaystream_writes"
#: The server looks after so many seconds whether a silent writer is still there, and then so often.
_KEEPALIVE: Final = (
    "SET tcp_keepalives_idle = 10",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 3",
)
_COLUMNS: Final = ", ".join(f'"{column.name}"' for column in events.c)


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
        self._writer = engine.execution_options(**{_WRITES: True})
        #: what the driver raises where SQLAlchemy is not between
        self._driver_error: type[Exception] = engine.dialect.loaded_dbapi.Error
        self.is_sqlite = engine.dialect.name == _SQLITE
        self._lock: Connection | None = None

    @classmethod
    def open(cls, url: str) -> Database:
        """Connect, and bring the tables to this version; newer ones of the same major version are used.

        Raises DatabaseError.
        """
        try:
            asked = _supported(make_url(url))
            if asked.get_backend_name() == _SQLITE and "timeout" not in asked.query:
                asked = asked.update_query_dict({"timeout": str(_LOCKED_S)})
            engine = create_engine(asked, pool_pre_ping=True)
            if engine.dialect.name == _SQLITE:
                event.listen(engine, "connect", _prepare_sqlite)
                event.listen(engine, "begin", _begin_sqlite)
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
            self._lock = None
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
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes. Raises DatabaseError."""
        try:
            with self._writer.begin() as connection:
                yield connection
        except (SQLAlchemyError, self._driver_error) as error:
            raise DatabaseError(f"The history cannot be written: {_first_line(error)}.") from error

    def migrate(self) -> None:
        """Bring the tables to this version."""
        scripts = Path(__file__).with_name("migrations")
        config = Config()
        config.set_main_option("script_location", str(scripts))
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        with self._writer.begin() as connection:
            if not self.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:maker)"), {"maker": _MAKER})
            context = MigrationContext.configure(connection, opts={"version_table": "delaystream_version"})
            current = context.get_current_revision()
            if current is not None and current not in known:
                _check_major(current)
                return
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def may_write(self) -> bool:
        """Whether this console is the one that writes: it holds the database's lock, or takes it.

        A file of SQLite is one console's own. Raises DatabaseError.
        """
        if self.is_sqlite:
            return True
        connection = self._lock
        try:
            if connection is not None:
                connection.execute(text("SELECT 1"))
                return True
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            ask = text("SELECT pg_try_advisory_lock(:writer)")
            if not connection.execute(ask, {"writer": _WRITER}).scalar():
                connection.close()
                return False
            for setting in _KEEPALIVE:
                connection.execute(text(setting))
        except SQLAlchemyError as error:
            self._lock = None
            if connection is not None:
                # Back in the pool it would keep the lock for nobody.
                connection.invalidate()
            raise DatabaseError(f"The history cannot be asked: {_first_line(error)}.") from error
        self._lock = connection
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
        with self.writing() as connection:
            self._move(connection, partition, before, after)
            if rows.events:
                self._insert_events(connection, rows.events)
                connection.execute(update(totals).values(events=totals.c.events + len(rows.events)))
            if rows.rollups:
                self._add(connection, rows.rollups)

    def _insert_events(self, connection: Connection, rows: Sequence[EventRow]) -> None:
        # By the driver itself: what SQLAlchemy does for each row takes as long as SQLite.
        if self.is_sqlite:
            marks = ", ".join("?" * len(events.c))
            connection.exec_driver_sql(f"INSERT INTO events ({_COLUMNS}) VALUES ({marks})", list(rows))
            return
        cursor = connection.connection.cursor()
        try:
            with cursor.copy(f"COPY events ({_COLUMNS}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
        finally:
            cursor.close()

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

    def begin(self, partition: int, before: Position | None, position: Position) -> None:
        """A partition that nothing is stored of, or only from another topic of the same name: that goes.

        Its sums stay. Raises DatabaseError, also where another console has written meanwhile.
        """
        with self.writing() as connection:
            if before is not None:
                self._move(connection, partition, before, position)
            else:
                row = {"partition": partition, **msgspec.structs.asdict(position)}
                connection.execute(insert(positions), row)
            self._drop(connection, partition, 0)

    def cut(self, partition: int, before: Position, after: Position) -> None:
        """The log ends earlier than what is stored of it: events behind its end go, their sums stay.

        Raises DatabaseError, also where another console has written meanwhile.
        """
        with self.writing() as connection:
            self._move(connection, partition, before, after)
            self._drop(connection, partition, after.next_offset)

    def _drop(self, connection: Connection, partition: int, first: int) -> None:
        chosen = delete(events).where(events.c.partition == partition, events.c.offset >= first)
        gone = connection.execute(chosen).rowcount
        connection.execute(update(totals).values(events=totals.c.events - gone))

    def _add(self, connection: Connection, sums: Sequence[Sequence[Any]]) -> None:
        name, larger = rollups.name, "max" if self.is_sqlite else "greatest"
        summed = ["count", "lateness_ms", *[f"within_{bound}_ms" for bound in WITHIN_MS]]
        taken = [f'"{column}" = {name}."{column}" + excluded."{column}"' for column in summed]
        taken.append(f"lateness_max_ms = {larger}({name}.lateness_max_ms, excluded.lateness_max_ms)")
        self._upsert(connection, rollups, sums, ", ".join(taken))

    def _upsert(
        self, connection: Connection, table: Table, rows: Sequence[Sequence[Any]], taken: str
    ) -> None:
        """Insert rows by the driver itself, likewise; where one is there already, what is `taken` of it."""
        names = ", ".join(f'"{column.name}"' for column in table.c)
        key = ", ".join(f'"{column.name}"' for column in table.primary_key)
        marks = ", ".join(["?" if self.is_sqlite else "%s"] * len(table.c))
        connection.exec_driver_sql(
            f"INSERT INTO {table.name} ({names}) VALUES ({marks}) ON CONFLICT ({key}) DO UPDATE SET {taken}",
            [tuple(row) for row in rows],
        )

    def replace(self, connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        """Have rows, each with all columns in their order, instead of those of the same primary key."""
        names = [column.name for column in table.c if not column.primary_key]
        taken = ", ".join(f'"{name}" = excluded."{name}"' for name in names)
        self._upsert(connection, table, rows, taken)

    def inserting(self, table: Any) -> Any:
        """An INSERT that may say what is done where the row is there already."""
        return (sqlite if self.is_sqlite else postgresql).insert(table)

    # -- retention ---------------------------------------------------------------------------------

    def forget(self, retention: Retention, now_ms: int) -> int:
        """Delete some of what is too old, or too much; how many events: call again while it is not 0."""
        with self.writing() as connection:
            # Two that forget at once would both take what is too much.
            count = connection.execute(select(totals.c.events).with_for_update()).scalar_one()
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
        """When the oldest of the first events of each partition was, and of which; the oldest first."""
        found = []
        for partition in connection.execute(select(positions.c.partition)).scalars().all():
            # Not the first alone: workers' clocks differ, and one event with a wrong time would keep all.
            firsts = (
                select(events.c.at_ms)
                .where(events.c.partition == partition)
                .order_by(events.c.offset)
                .limit(_FIRSTS)
                .subquery()
            )
            at_ms = connection.execute(select(func.min(firsts.c.at_ms))).scalar()
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
    # The driver would begin a transaction before rows are written, and none before tables are made.
    connection.isolation_level = None
    cursor = connection.cursor()
    # A crash of the machine may lose the last transactions, which are read again from their topic.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "cache_size=-65536", "wal_autocheckpoint=8000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _supported(url: URL) -> URL:
    """A URL with the driver that is used. Raises DatabaseError."""
    driver = _DRIVERS.get(url.get_backend_name())
    if driver is None:
        raise DatabaseError(
            f"The history is kept in SQLite or PostgreSQL, not in {url.get_backend_name()}: "
            "postgresql://user@host/name."
        )
    return url.set(drivername=driver)


def _begin_sqlite(connection: Connection) -> None:
    # One that reads first and then writes may find that it cannot: another has written in between.
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _check_major(revision: str) -> None:
    """A newer console made the tables: within a major version what this one reads and writes is still there.

    Raises DatabaseError.
    """
    if revision.partition(".")[0] != MAJOR:
        raise DatabaseError(f"The history's database is of a newer delaystream: its tables are {revision}.")


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].rstrip(".")
