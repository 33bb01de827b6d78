"""Operations in trouble: copies that are closed, workers that are down, a database that fails, a stop."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from delaystream.console.history.database import DatabaseError
from delaystream.console.replica.follower import Follower
from delaystream.engine.failures import StoreUntrusted
from delaystream.testing.transport import AsyncMemoryTransport
from tests.unit.console.test_operations import (
    OPERATIONS,
    created,
    dry_run,
    ended,
    read,
    started,
    undone,
    until,
    without_ids,
)
from tests.unit.console.writable import World, in_world


class Sleepy(AsyncMemoryTransport):
    """Nobody is at work while it is asleep: what is sent stands on its topic, and no receipt comes."""

    asleep = False
    patient = False

    async def wait(self, future: asyncio.Future[Any], timeout_s: float | None) -> Any:
        while self.asleep and timeout_s is not None:
            if not self.patient:
                raise TimeoutError
            await asyncio.sleep(0.01)
        return await super().wait(future, timeout_s)


@pytest.fixture
def sleepy() -> type[Sleepy]:
    """One of its own: what is set is set for all of its class."""
    return type("SleepyHere", (Sleepy,), {})


async def problem_of(world: World, id: str, words: str) -> None:
    async with asyncio.timeout(60):
        while True:
            body = (await world.ask.get(f"{OPERATIONS}/{id}")).json()
            if words in (body["problem"] or ""):
                return
            await asyncio.sleep(0.01)


class Closed:
    """A follower whose copy turns out corrupt, and is made anew when it is opened again."""

    def __init__(self, follower: Follower) -> None:
        self._opening = follower._open_changelog
        self._follower = follower
        self._opened = asyncio.Event()

    async def close(self) -> None:
        follower = self._follower

        async def fails(position: int) -> Any:
            raise StoreUntrusted("checksum mismatch")

        async def opened(partition: int) -> Any:
            await self._opened.wait()
            return await self._opening(partition)

        follower._open_changelog = opened
        assert follower._changelog is not None
        follower._changelog.read = fails  # type: ignore[method-assign]
        await until(lambda: follower.store is None)

    def open(self) -> None:
        self._opened.set()


@pytest.mark.parametrize("unnamed", [False, True], ids=["ids", "coordinates"])
def test_nothing_is_cancelled_while_what_there_is_cannot_be_kept(tmp_path: Path, unnamed: bool) -> None:
    """While a partition's copy is closed nobody knows what an undo would have to bring back."""

    async def story(world: World) -> None:
        closed = Closed(world.console._followers[0])
        if unnamed:
            without_ids(world)
        else:
            for number in range(12):
                await created(world, f"a-{number}")
        await world.caught_up()
        found = await dry_run(world, action="cancel", filter={"unnamed": True} if unnamed else {})
        begun = asyncio.Event()
        waits = asyncio.Event()
        original = world.console.passed

        async def passed(position: Any) -> None:
            await original(position)
            begun.set()
            await waits.wait()

        # After the copies were there, and before the first command.
        world.console.passed = passed  # type: ignore[method-assign]
        await world.ask.post(f"{OPERATIONS}/{found['id']}/start", json={"rate": 1000})
        await begun.wait()
        await closed.close()
        world.console.passed = original  # type: ignore[method-assign]
        waits.set()
        await problem_of(world, found["id"], "cannot be asked")
        closed.open()
        done = await ended(world, found["id"])
        assert done["progress"]["changed"] == found["count"], done
        undo = await undone(world, found["id"])
        assert undo["progress"]["changed"] == found["count"], undo

    in_world(tmp_path, story)


def test_nothing_is_brought_back_while_what_is_left_of_it_cannot_be_asked(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        closed = Closed(world.console._followers[0])
        world.worker.log.create_topic("invoices", 1)
        for number in range(6):
            await created(world, f"a-{number}", cron=None, every="1m", max_fires=5)
        found = await dry_run(world, action="cancel", filter={})
        world.advance(130)
        await world.caught_up()
        assert (await started(world, found["id"]))["progress"]["changed"] == 6
        original = world.console.passed

        async def passed(position: Any) -> None:
            await original(position)
            world.console.passed = original  # type: ignore[method-assign]
            await closed.close()

        world.console.passed = passed  # type: ignore[method-assign]
        answer = await world.ask.post(f"{OPERATIONS}/{found['id']}/undo", json={})
        id = answer.json()["id"]
        await problem_of(world, id, "cannot be asked")
        closed.open()
        assert (await ended(world, id))["progress"]["changed"] == 6
        for number in range(6):
            assert (await read(world, f"a-{number}"))["definition"]["max_fires"] == 3

    in_world(tmp_path, story)


def test_what_was_cancelled_and_not_kept_is_named_by_the_undo(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for number in range(2):
            await created(world, f"a-{number}")
        found = await dry_run(world, action="cancel", filter={})
        await started(world, found["id"])
        with world.console.operations._ledger._database.writing() as connection:  # type: ignore[union-attr]
            connection.exec_driver_sql("UPDATE operation_items SET kept = NULL WHERE number = 1")
        undo = await undone(world, found["id"])
        assert (undo["count"], undo["progress"]["changed"]) == (2, 1)
        assert undo["progress"]["reasons"] == {"nothing-left": 1}

    in_world(tmp_path, story)


def test_a_command_without_a_receipt_is_under_way_until_its_outcome_is_known(
    tmp_path: Path, sleepy: type[Sleepy]
) -> None:
    async def story(world: World) -> None:
        await created(world, "a")
        found = await dry_run(world, action="cancel", filter={})
        sleepy.asleep = True
        await world.ask.post(f"{OPERATIONS}/{found['id']}/start", json={})
        await problem_of(world, found["id"], "No receipt")
        body = (await world.ask.get(f"{OPERATIONS}/{found['id']}")).json()
        assert (body["stage"], body["progress"]["underway"], body["progress"]["failed"]) == ("running", 1, 0)
        audited = (await world.ask.get("/v1/audit", params={"action": "cancel"})).json()["items"]
        assert [one["outcome"] for one in audited] == ["sent"]
        sleepy.asleep = False
        done = await ended(world, found["id"])
        assert (done["progress"]["changed"], done["progress"]["failed"]) == (1, 0)
        audited = (await world.ask.get("/v1/audit", params={"action": "cancel"})).json()["items"]
        assert [one["outcome"] for one in audited] == ["cancelled"]
        assert (await undone(world, found["id"]))["progress"]["changed"] == 1
        assert (await read(world, "a"))["status"] == "pending"

    in_world(tmp_path, story, transport=sleepy)


def test_an_undo_has_what_was_stopped_without_a_receipt(tmp_path: Path, sleepy: type[Sleepy]) -> None:
    async def story(world: World) -> None:
        await created(world, "a")
        without_ids(world)
        await world.caught_up()
        found = await dry_run(world, action="cancel", filter={"unnamed": True})
        assert found["count"] == 5
        sleepy.asleep = sleepy.patient = True
        await world.ask.post(f"{OPERATIONS}/{found['id']}/start", json={"rate": 1000})
        await until(lambda: len(world.sent()) == 5 + 5)
        await world.ask.post(f"{OPERATIONS}/{found['id']}/stop", json={})
        # By an id it could be undone already. Without one it would be left out, for good.
        early = await world.ask.post(f"{OPERATIONS}/{found['id']}/undo", json={})
        assert (early.status_code, early.json()["code"]) == (409, "not-ended"), early.text
        assert "4 cancels" in early.json()["detail"]
        # No receipt comes, and then nobody waits for one.
        sleepy.patient = False
        await until(lambda: not world.console.operations._carried)  # type: ignore[union-attr]
        sleepy.asleep = False
        world.advance(1)
        await world.caught_up()
        assert (await world.ask.get("/v1/pending")).json()["items"] == []
        undo = await undone(world, found["id"])
        assert (undo["count"], undo["progress"]["changed"]) == (5, 5), undo
        assert len((await world.ask.get("/v1/pending")).json()["items"]) == 4 * 2 + 1

    in_world(tmp_path, story, transport=sleepy)


def test_what_may_be_cancelled_yet_is_named_by_the_undo(tmp_path: Path, sleepy: type[Sleepy]) -> None:
    async def story(world: World) -> None:
        without_ids(world)
        await world.caught_up()
        found = await dry_run(world, action="cancel", filter={"unnamed": True})
        sleepy.asleep = True
        await world.ask.post(f"{OPERATIONS}/{found['id']}/start", json={"rate": 1000})
        await problem_of(world, found["id"], "No receipt")
        await world.ask.post(f"{OPERATIONS}/{found['id']}/stop", json={})
        await until(lambda: not world.console.operations._carried)  # type: ignore[union-attr]
        undo = await undone(world, found["id"])
        assert undo["progress"]["reasons"] == {"nothing-left": 4}
        failures = (await world.ask.get(f"{OPERATIONS}/{undo['id']}/failures")).json()["items"]
        assert failures[0]["detail"].startswith("It is still there.")

    in_world(tmp_path, story, transport=sleepy)


def test_nothing_is_sent_after_a_stop_that_an_undo_does_not_know_of(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for number in range(4):
            await created(world, f"a-{number}")
        found = await dry_run(world, action="cancel", filter={})
        operations = world.console.operations
        assert operations is not None
        ledger = operations._ledger
        following = ledger.next
        loop = asyncio.get_running_loop()

        def looked_up(id: str, after: int, limit: int) -> Any:
            some = following(id, after, limit)
            ledger.next = following  # type: ignore[method-assign]
            stop = world.ask.post(f"{OPERATIONS}/{id}/stop", json={})
            asyncio.run_coroutine_threadsafe(stop, loop).result(30)
            undo = world.ask.post(f"{OPERATIONS}/{id}/undo", json={})
            asyncio.run_coroutine_threadsafe(undo, loop).result(30)
            return some

        ledger.next = looked_up  # type: ignore[method-assign]
        await world.ask.post(f"{OPERATIONS}/{found['id']}/start", json={"rate": 1000})
        body = await ended(world, found["id"], "stopped")
        await until(lambda: not operations._carried)
        body = (await world.ask.get(f"{OPERATIONS}/{found['id']}")).json()
        assert body["progress"]["waiting"] == 4
        assert {(await read(world, f"a-{number}"))["status"] for number in range(4)} == {"pending"}

    in_world(tmp_path, story)


def test_what_is_kept_is_forgotten_also_after_a_stop_and_a_new_start(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for number in range(20):
            await created(world, f"a-{number}")
        found = await dry_run(world, action="cancel", filter={})
        await world.ask.post(f"{OPERATIONS}/{found['id']}/start", json={"rate": 10})
        await until(lambda: len(world.sent()) > 21)
        await world.ask.post(f"{OPERATIONS}/{found['id']}/stop", json={})
        await ended(world, found["id"], "stopped")
        await until(lambda: not world.console.operations._carried)  # type: ignore[union-attr]
        ledger = world.console.operations._ledger  # type: ignore[union-attr]

        def kept() -> int:
            with ledger._database.reading() as connection:
                asked = "SELECT count(*) FROM operation_items WHERE kept IS NOT NULL"
                return int(connection.exec_driver_sql(asked).scalar_one())

        assert 0 < kept() < 20
        world.advance(601)
        ledger.forget(world.worker.now_ms())
        assert kept() == 0
        await started(world, found["id"], rate=1000)
        assert kept() > 0
        world.advance(601)
        ledger.forget(world.worker.now_ms())
        assert kept() == 0

    in_world(tmp_path, story)


def test_what_is_decided_is_not_sent_again_because_the_database_failed(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        without_ids(world)
        await world.caught_up()
        subjects = [{"source": f"delay-requests/{number % 2}/{number // 2}"} for number in range(4)]
        found = await dry_run(world, action="trigger", schedules=subjects)
        operations = world.console.operations
        assert operations is not None
        ledger = operations._ledger
        decided = ledger.decided
        failed = []

        def fails(id: str, outcomes: Any) -> None:
            if outcomes:
                ledger.decided = decided  # type: ignore[method-assign]
                failed.append(len(outcomes))
                raise DatabaseError("the disk is full")

        ledger.decided = fails  # type: ignore[method-assign]
        before = len(world.sent())
        done = await started(world, found["id"])
        assert failed
        assert (done["progress"]["changed"], done["progress"]["failed"]) == (4, 0)
        assert len(world.sent()) == before + 4

    in_world(tmp_path, story)
