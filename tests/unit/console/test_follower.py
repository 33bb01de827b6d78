"""A copy that follows the changelog holds what a rebuild of it would hold, whenever it was interrupted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from delaystream.console.replica.follower import Follower, FollowerSettings, Phase
from delaystream.engine.failures import LogUnavailable
from delaystream.engine.ports import LogBounds
from delaystream.testing import MemoryChangelog, MemoryStateStores, VirtualTimeLoop
from tests.unit.engine import Engine

CHANGELOG = "delay-wheel-changelog"
DAY_MS = 86_400_000


def follower(engine: Engine, stores: MemoryStateStores, kept_ms: int = DAY_MS) -> Follower:
    return Follower(
        0,
        lambda partition: MemoryChangelog.open(engine.log, CHANGELOG, partition, batch_records=7),
        stores,
        engine.clock,
        FollowerSettings(kept_ms),
    )


async def caught_up(engine: Engine, following: Follower) -> None:
    end = engine.log.bounds(MemoryChangelog(engine.log, CHANGELOG, 0)._at).stable
    await asyncio.wait_for(following.passed(end), 60)


def content(following: Follower) -> list[tuple[bytes, bytes]]:
    assert following.store is not None
    return following.store.scan(b"\1", b"\xff", 1_000_000)


@contextmanager
def at_work(loop: VirtualTimeLoop, following: Follower) -> Iterator[None]:
    task = loop.create_task(following.run())
    try:
        yield
    finally:
        task.cancel()


def act(engine: Engine, dice: random.Random) -> None:
    """One of the things that people ask for."""
    id = f"user-{dice.randrange(12)}"
    match dice.randrange(9):
        case 0 | 1 | 2:
            engine.request(
                destination="orders",
                delay=f"{dice.randrange(1, 900)}s",
                key=b"customer-%d" % dice.randrange(5),
                foreign=[("Correlation_Id", b"order-%d" % dice.randrange(3))],
            )
        case 3:
            engine.request(destination="emails", delay="10m", tags="a, b", key=None)
        case 4:
            engine.request(
                destination="orders",
                every=f"{dice.randrange(1, 3) * 20}m",
                id=id,
                name="Weekly Report",
                foreign=[("x-correlation-id", b"order-%d" % dice.randrange(3))],
                request_id=f"request-{dice.randrange(1_000)}",
            )
        case 5:
            engine.request(destination="emails", delay=f"{dice.randrange(1, 900)}s", id=id, tags="x")
        case 6:
            engine.request(None, action=dice.choice(["cancel", "pause", "resume", "trigger"]), id=id)
        case 7:
            engine.request(None, action="pause", match_destination="orders", match_new="true")
        case 8:
            engine.request(None, action="resume", match_destination="orders")


@pytest.mark.parametrize("seed", range(8))
def test_a_copy_that_was_interrupted_at_any_point_is_what_a_rebuild_is(seed: int) -> None:
    dice = random.Random(seed)
    with VirtualTimeLoop() as loop:
        engine = Engine(loop)

        async def story() -> None:
            engine.start()
            stores = MemoryStateStores()
            for _ in range(dice.randrange(4, 10)):
                following = follower(engine, stores)
                with at_work(loop, following):
                    for _ in range(dice.randrange(1, 30)):
                        act(engine, dice)
                        await asyncio.sleep(dice.choice([0, 0.01, 5, 300]))
                    if dice.random() < 0.5:
                        await caught_up(engine, following)
                await asyncio.sleep(0)
                stores.disks[0].lose(dice.randrange(3))
            following, fresh = follower(engine, stores), follower(engine, MemoryStateStores())
            with at_work(loop, following), at_work(loop, fresh):
                await caught_up(engine, following)
                await caught_up(engine, fresh)
                assert content(following) == content(fresh)
                await asyncio.sleep(1)
                assert following.status.phase is Phase.FOLLOWING
            await engine.stop()

        loop.run_until_complete(story())


def test_the_end_of_a_partition_is_that_of_what_is_not_committed_yet() -> None:
    """A receipt may be seen before the changelog's last stable offset has moved."""

    class Open(MemoryChangelog):
        async def bounds(self) -> LogBounds:
            bounds = await super().bounds()
            return bounds._replace(end=bounds.end + 3)

    with VirtualTimeLoop() as loop:
        engine = Engine(loop)

        async def opened(partition: int) -> MemoryChangelog:
            return Open(engine.log, CHANGELOG, partition)

        following = Follower(0, opened, MemoryStateStores(), engine.clock, FollowerSettings(DAY_MS))

        async def story() -> None:
            engine.start()
            with pytest.raises(LogUnavailable):
                await following.end()
            with at_work(loop, following):
                engine.request(destination="orders", delay="1h")
                await caught_up(engine, following)
                assert await following.end() == following.status.end + 3
            await engine.stop()

        loop.run_until_complete(story())
