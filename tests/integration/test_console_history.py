"""What was, in a real PostgreSQL that several consoles share."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import ProgrammingError

from delaystream.console.history.database import Database, DatabaseError
from delaystream.console.history.follower import HistoryFollower
from delaystream.testing import VirtualTimeLoop
from tests.integration.harness_postgresql import PostgreSQL, postgresql_server
from tests.unit.console.history import EventsTopic, content, killed, until
from tests.unit.console.history_cases import *  # noqa: F403
from tests.unit.console.history_cases import events
from tests.unit.console.standing_cases import *  # noqa: F403
from tests.unit.console.standing_cases import keep_up


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    with postgresql_server() as server:
        yield server


@pytest.fixture
def url(postgresql: PostgreSQL) -> str:
    return postgresql.database()


@pytest.fixture
def fresh_url(postgresql: PostgreSQL) -> str:
    return postgresql.database()


def test_one_console_writes_and_the_other_takes_over(url: str, fresh_url: str) -> None:
    topic = EventsTopic(2)
    topic.fill(random.Random(1), 100)
    databases = [Database.open(url), Database.open(url)]
    first, second = (topic.follower(database) for database in databases)

    async def reached(follower: HistoryFollower) -> None:
        while not topic.caught_up(follower):  # noqa: ASYNC110  # in virtual time
            await asyncio.sleep(0.1)

    async def story() -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(600):
            writing = loop.create_task(first.run())
            await reached(first)
            looking = loop.create_task(second.run())
            await reached(second)
            assert second.statuses[0].as_of_ms is not None
            assert not databases[1].may_write()
            writing.cancel()
            databases[0].close()
            topic.fill(random.Random(2), 60)
            await reached(second)
            assert not databases[0].may_write()
        looking.cancel()
        await asyncio.gather(writing, looking, return_exceptions=True)

    with VirtualTimeLoop() as loop:
        loop.run_until_complete(story())
    fresh = Database.open(fresh_url)
    topic.stored(fresh)
    assert events(databases[1]) == 160
    assert content(databases[1]) == content(fresh)
    for database in (*databases, fresh):
        database.close()


def test_the_right_to_write_ends_with_the_process_that_had_it(url: str) -> None:
    def first() -> None:
        database = Database.open(url)
        assert database.may_write()
        # A console that comes later opens the database, and may not write.
        assert not Database.open(url).may_write()
        os.kill(os.getpid(), signal.SIGKILL)

    assert killed(first, 1_000_000)
    second = Database.open(url)
    # The server sees the end of the connection in its own time; the test's timeout bounds it.
    while not second.may_write():
        pass
    second.close()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_server_that_restarts_is_told_and_nothing_is_lost(
    postgresql: PostgreSQL, url: str, fresh_url: str, mode: str
) -> None:
    database, fresh, topic = Database.open(url), Database.open(fresh_url), EventsTopic(2)
    topic.fill(random.Random(3), 100)
    follower = topic.follower(database)
    until(follower, lambda: follower.statuses[0].position > 20)
    postgresql.stop(mode)
    try:
        topic.fill(random.Random(4), 50)
        until(follower, lambda: follower.statuses[0].problem is not None)
        assert "connection" in str(follower.statuses[0].problem)
    finally:
        postgresql.start()
    until(follower, lambda: topic.caught_up(follower))
    assert [status.problem for status in follower.statuses] == [None, None]
    topic.stored(fresh)
    assert content(database) == content(fresh)
    for each in (database, fresh):
        each.close()


def test_a_database_that_cannot_be_reached_is_told_in_a_sentence() -> None:
    with pytest.raises(DatabaseError, match="connection"):
        Database.open("postgresql://nobody@/nothing?host=/nowhere")


def test_the_view_of_schedules_is_what_the_copy_is(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_up(0, database, monkeypatch)


def test_whoever_may_read_the_views_reads_both_of_them_and_nothing_else(
    url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the rights that docs/console-history.md names."""
    keep_up(1, database, monkeypatch)
    topic = EventsTopic()
    topic.fill(random.Random(5), 60)
    topic.stored(database)
    with database.writing() as connection:
        connection.exec_driver_sql("CREATE ROLE reader LOGIN")
        connection.exec_driver_sql("GRANT SELECT ON fires, schedules TO reader")
    other = create_engine(make_url(url).set(username="reader"))
    with other.connect() as connection:
        for view in ("fires", "schedules"):
            assert connection.execute(text(f"SELECT count(*) FROM {view}")).scalar_one() > 1
        asked = text("SELECT destination, count(*) FROM schedules WHERE next_at_ms > 0 GROUP BY destination")
        assert connection.execute(asked).all()
    for refused in ("SELECT * FROM schedule_rows", "SELECT * FROM events", "DELETE FROM fires"):
        with other.connect() as connection, pytest.raises(ProgrammingError, match="permission denied"):
            connection.execute(text(refused))
    other.dispose()
