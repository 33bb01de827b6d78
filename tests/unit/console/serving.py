"""A console over what an engine in memory has written, served in the process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx

from delaystream.client.kafka.transport import AsyncTransport
from delaystream.config import Settings
from delaystream.console.access.entrance import Entrance
from delaystream.console.api.application import application
from delaystream.console.audit.log import AuditLog
from delaystream.console.history.database import Database, Retention
from delaystream.console.history.follower import HistoryFollower
from delaystream.console.history.queries import History
from delaystream.console.letters.acts import Acts
from delaystream.console.letters.latest import DeadLetters
from delaystream.console.letters.originals import Originals
from delaystream.console.letters.redriving import Redriving
from delaystream.console.letters.runs import Runs
from delaystream.console.replica.follower import Follower, FollowerSettings
from delaystream.console.service import Console
from delaystream.console.writing.ledger import Ledger
from delaystream.console.writing.sending import Sender
from delaystream.console.writing.service import Writing
from delaystream.engine.failures import Misconfigured
from delaystream.engine.ports import LogBounds, TopicPartition
from delaystream.testing import MemoryChangelog, MemoryLog, MemoryStateStores, VirtualTimeLoop
from tests.unit.engine import Engine, carried_out

CHANGELOG = "delay-wheel-changelog"
DAY_MS = 86_400_000

Story = Callable[[Engine], Coroutine[Any, Any, None]]


class Fixed:
    """The time at which a story ended."""

    def __init__(self, now_ms: int) -> None:
        self.at_ms = now_ms

    def now_ms(self) -> int:
        return self.at_ms


class Told:
    """What a story left behind: a log, and the time at its end."""

    def __init__(self, log: MemoryLog, now_ms: int, partitions: int) -> None:
        self.log = log
        self.clock = Fixed(now_ms)
        self.partitions = partitions


def told(story: Story, partitions: int = 1, **settings: Any) -> Told:
    """Have a story happen in virtual time; the engine has stopped afterwards."""
    with VirtualTimeLoop() as loop:
        engine = Engine(loop, partitions, **settings)

        async def happen() -> None:
            engine.start()
            await carried_out(engine, story(engine))

        loop.run_until_complete(happen())
        return Told(engine.log, engine.clock.now_ms(), partitions)


class _Nowhere:
    """The way to brokers of a console that is only looked at."""

    async def close(self) -> None:
        """See AsyncTransport."""


@asynccontextmanager
async def console(of: Told, directory: Path, *, writes: bool = False) -> AsyncIterator[Console]:
    """A console that has caught up with what was told. With `writes` it would write: nobody takes it."""

    def opening(topic: str) -> Callable[[int], Awaitable[MemoryChangelog]]:
        return lambda partition: MemoryChangelog.open(of.log, topic, partition, fetch_max_wait_s=0.01)

    async def bounds(topic: str, partition: int) -> LogBounds:
        at = TopicPartition(topic, partition)
        if topic not in of.log.topics:
            raise Misconfigured(f"there is no topic {topic}")
        return of.log.bounds(at)

    stores = MemoryStateStores()
    following = [
        Follower(partition, opening(CHANGELOG), stores, of.clock, FollowerSettings(DAY_MS))
        for partition in range(of.partitions)
    ]
    database = Database.open(f"sqlite:///{directory / 'history.db'}")
    kept = Retention(36_500 * DAY_MS, 1_000_000, minutes_ms=36_500 * DAY_MS, hours_ms=36_500 * DAY_MS)
    history = HistoryFollower(1, opening("delay-events"), database, of.clock, kept)
    letters = DeadLetters(1, opening("delay-dead-letters"), of.clock.now_ms)
    made = Console(following, history, History(database), letters, of.clock, bounds)
    made.app_id = "app"
    made.audit = AuditLog(database, of.clock.now_ms)
    if writes:
        sender = Sender(Settings(), lambda: cast(AsyncTransport, _Nowhere()), of.clock.now_ms)
        made.writing = Writing(sender, made, Ledger(database, made.audit), of.clock)
        originals = Originals(1, opening("delay-dead-letters"))
        acts = Acts(database, made.audit)
        redriving = Redriving(originals, letters, acts, made.writing, made.row_of, of.clock)
        made.runs = Runs(redriving, of.clock, Entrance(of.clock.now_ms).stands)
    running = asyncio.create_task(made.run())
    try:
        while not (
            made.ready
            and all(status.as_of_ms is not None for status in made.history_statuses)
            and all(status.as_of_ms is not None for status in letters.statuses)
        ):
            assert not running.done(), running.exception()
            await asyncio.sleep(0.01)
        yield made
    finally:
        made.tail.close()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        database.close()


@asynccontextmanager
async def served(of: Told, directory: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The same, and a client of its interface."""
    async with console(of, directory) as made:
        transport = httpx.ASGITransport(application(made, Entrance(of.clock.now_ms, secret=b"s" * 32)))
        async with httpx.AsyncClient(transport=transport, base_url="http://console") as client:
            yield client
