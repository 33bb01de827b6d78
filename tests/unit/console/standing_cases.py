"""What the view `schedules` promises on any database: a module that runs these cases has a fixture `url`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from delaystream.codec.event import next_at_ms
from delaystream.console import standing
from delaystream.console.history.database import Database
from delaystream.console.history.schema import schedule_rows
from delaystream.console.replica import follower as following_of
from delaystream.console.replica.follower import Follower
from delaystream.console.standing import Standing
from delaystream.testing import MemoryStateStores, VirtualTimeLoop
from tests.unit.console.history import EventsTopic
from tests.unit.console.test_follower import act, at_work, caught_up, follower
from tests.unit.engine import Engine

VIEW = (
    "request_topic",
    "id",
    "status",
    "destination",
    "name",
    "tags",
    "cron",
    "every_ms",
    "timezone",
    "next_at_ms",
    "last_fired_at_ms",
    "fired",
    "missed",
    "created_at_ms",
    "created_by",
    "updated_at_ms",
    "updated_by",
    "version",
    "note",
    "as_of_ms",
)
"""Columns that people have built on: they are not renamed, moved or taken away."""


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = Database.open(url)
    yield opened
    opened.close()


def shown(database: Database) -> list[tuple[Any, ...]]:
    with database.reading() as connection:
        found = connection.execute(text("SELECT * FROM schedules ORDER BY request_topic, id"))
        assert tuple(found.keys())[: len(VIEW)] == VIEW
        return [
            (row.request_topic, row.id, row.status, row.destination, row.next_at_ms, row.fired, row.name)
            for row in found
        ]


def rows(copy: Follower) -> list[tuple[Any, ...]]:
    assert copy.stored is not None
    return sorted(
        (
            one.tenant,
            one.id,
            one.row.status.value,
            one.row.destination,
            next_at_ms(one.row),
            one.row.fire_count,
            one.row.name,
        )
        for one in copy.stored.schedules()
    )


def keep_up(seed: int, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """AssertionError where the view is not what the copy is.

    Through ends of the console, ends of the right to write, and more changes than are remembered."""
    monkeypatch.setattr(standing, "_AT_ONCE", 5)
    monkeypatch.setattr(following_of, "_TOUCHED", 7)
    dice = random.Random(seed)
    with VirtualTimeLoop() as loop:
        engine = Engine(loop)

        async def story() -> None:
            engine.start()
            stores, history = MemoryStateStores(), EventsTopic().follower(database)
            for _ in range(5):
                copy = follower(engine, stores)
                written = asyncio.create_task(Standing([copy], history).run())
                history.writes = True
                with at_work(loop, copy):
                    for _ in range(3):
                        for _ in range(dice.randrange(1, 25)):
                            act(engine, dice)
                            await asyncio.sleep(dice.choice([0, 0.01, 1, 60]))
                        history.writes = dice.random() < 0.7
                        await asyncio.sleep(dice.choice([0, 2]))
                    history.writes = True
                    await caught_up(engine, copy)
                    for _ in range(60):
                        await asyncio.sleep(1)
                        if written.done():
                            # It has failed, or the test's time has come to its end in it.
                            written.result()
                        # Something may have fired since it was brought up to date.
                        if shown(database) == rows(copy):
                            break
                    assert shown(database) == rows(copy)
                    # The process dies: what it had not flushed is lost.
                    stores.crash(dice.randrange(2))
                written.cancel()
                await asyncio.gather(written, return_exceptions=True)
                assert len(shown(database)) > 1
            await engine.stop()

        loop.run_until_complete(story())


def test_what_is_the_same_is_not_written_again(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A console that starts compares what there is, and an idle one writes no rows."""
    put: list[int] = []
    real = standing._Table.put

    def counting(self: Any, partition: int, some: Any) -> None:
        put.append(len(some))
        real(self, partition, some)

    monkeypatch.setattr(standing._Table, "put", counting)
    with VirtualTimeLoop() as loop:
        engine = Engine(loop)

        async def story() -> None:
            engine.start()
            stores, history = MemoryStateStores(), EventsTopic().follower(database)
            history.writes = True
            for id in ("a", "b", "c\0d", "x" * 2_000):
                engine.request(destination="orders", every="1h", id=id, name="x" * 100)
            await asyncio.sleep(1)
            for expected in (3, 3):
                copy = follower(engine, stores)
                with at_work(loop, copy):
                    await caught_up(engine, copy)
                    written = asyncio.create_task(Standing([copy], history).run())
                    await asyncio.sleep(30)
                    assert sum(put) == expected
                    written.cancel()
            with database.reading() as connection:
                as_of_ms = connection.execute(text("SELECT min(as_of_ms) FROM schedules")).scalar_one()
            assert engine.clock.now_ms() - as_of_ms < 10_000
            assert "c\ufffdd" in {row[1] for row in shown(database)}
            await engine.stop()

        loop.run_until_complete(story())


def test_what_is_gone_goes_and_so_does_what_is_of_a_partition_that_is_gone(database: Database) -> None:
    with VirtualTimeLoop() as loop:
        engine = Engine(loop)

        async def story() -> None:
            engine.start()
            history = EventsTopic().follower(database)
            history.writes = True
            engine.request(destination="orders", every="1h", id="a")
            await asyncio.sleep(1)
            copy = follower(engine, MemoryStateStores())
            with at_work(loop, copy):
                await caught_up(engine, copy)
                written = asyncio.create_task(Standing([copy], history).run())
                await asyncio.sleep(5)
                assert [row[1] for row in shown(database)] == ["a"]
                with database.writing() as connection:
                    connection.execute(schedule_rows.update().values(partition=1))
                    connection.execute(text("INSERT INTO schedule_partitions VALUES (1, 5)"))
                assert [row[1] for row in shown(database)] == ["a"]
                # One that was deleted while no console wrote.
                assert copy.store is not None
                [(key, row)] = copy.store.scan(b"s", b"t", 10)
                standing._Table(database).put(0, [(key + b"-ghost", row)])
                assert [row[1] for row in shown(database)] == ["a", "a-ghost"]
                again = asyncio.create_task(Standing([copy], history).run())
                await asyncio.sleep(5)
                assert [row[1] for row in shown(database)] == ["a"]
                with database.reading() as connection:
                    found = connection.execute(text("SELECT partition FROM schedule_rows")).scalars().all()
                    assert found == [0]
                for task in (written, again):
                    task.cancel()
            await engine.stop()

        loop.run_until_complete(story())
