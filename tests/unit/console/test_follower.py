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


def rows_of(following: Follower) -> dict[bytes, bytes]:
    """The rows of named schedules."""
    assert following.store is not None
    return dict(following.store.scan(b"s", b"t", 1_000_000))


def renew(known: dict[bytes, bytes], following: Follower) -> None:
    """Bring rows up to date by what the copy says that it has touched."""
    touched, now = following.touched(), rows_of(following)
    for key in set(known) | set(now) if touched is None else touched:
        known.pop(key, None)
        if key in now:
            known[key] = now[key]


def live(seed: int) -> None:
    """Follow through interruptions; AssertionError where a rebuild holds something else at the end.

    And where the rows that were touched are not those that have changed.
    """
    dice = random.Random(seed)
    with VirtualTimeLoop() as loop:
        engine = Engine(loop)

        async def happen(some: int) -> None:
            for _ in range(some):
                act(engine, dice)
                await asyncio.sleep(dice.choice([0, 0.01, 5, 300]))

        async def followed(stores: MemoryStateStores) -> None:
            following = follower(engine, stores)
            known: dict[bytes, bytes] = {}
            with at_work(loop, following):
                if dice.random() < 0.5:
                    # It ends while it catches up, or makes its index.
                    for _ in range(dice.randrange(150)):
                        await asyncio.sleep(0)
                else:
                    for _ in range(dice.randrange(1, 15)):
                        await happen(1)
                        if following.store is not None:
                            renew(known, following)
                            assert known == rows_of(following)
                if dice.random() < 0.3:
                    await caught_up(engine, following)
                if dice.random() < 0.8:
                    stores.crash(dice.randrange(4))
            await asyncio.sleep(0)
            if dice.random() < 0.2:
                stores.destroy(0)
            # More than a batch comes meanwhile: nothing of it may be passed over.
            await happen(dice.choice([0, 3, 25]))

        async def story() -> None:
            engine.start()
            stores = MemoryStateStores()
            for _ in range(8):
                await followed(stores)
            following, fresh = follower(engine, stores), follower(engine, MemoryStateStores())
            with at_work(loop, following), at_work(loop, fresh):
                await caught_up(engine, following)
                await caught_up(engine, fresh)
                assert content(following) == content(fresh)
                await asyncio.sleep(1)
                assert following.status.phase is Phase.FOLLOWING

        async def whole() -> None:
            try:
                await story()
            finally:
                await engine.stop()

        loop.run_until_complete(whole())


SEEDS = range(8)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_copy_that_was_interrupted_at_any_point_is_what_a_rebuild_is(seed: int) -> None:
    live(seed)


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
