"""A console beside a worker in memory: what is asked of it is carried out, and what it shows follows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from delaystream.config import Settings
from delaystream.console.access.entrance import Entrance
from delaystream.console.access.hosts import Hosts
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
from delaystream.console.operations.carrying import Means
from delaystream.console.operations.ledger import OperationLedger
from delaystream.console.operations.service import OperationBounds, Operations
from delaystream.console.replica.follower import Follower, FollowerSettings
from delaystream.console.service import Console
from delaystream.console.writing.ledger import Ledger
from delaystream.console.writing.sending import Sender
from delaystream.console.writing.service import Writing
from delaystream.engine.ports import LogBounds, TopicPartition
from delaystream.testing import MemoryChangelog, MemoryStateStores
from delaystream.testing.transport import AsyncMemoryTransport, Followers
from delaystream.testing.worker import MemoryWorker, TopicPlan

START_MS = 1_893_456_000_000
DAY_MS = 86_400_000
HOST = "http://127.0.0.1:8643"


class Deaf(AsyncMemoryTransport):
    """Nobody is at work: what is sent is not decided on."""

    async def wait(self, future: asyncio.Future[Any], timeout_s: float | None) -> Any:
        return await asyncio.shield(future)


class World:
    """A worker, a console over what it writes, and a client of the console."""

    def __init__(self, worker: MemoryWorker, console: Console, app: FastAPI, ask: httpx.AsyncClient) -> None:
        self.worker = worker
        self.console = console
        self.app = app
        self.ask = ask

    def sent(self, topic: str = "delay-requests") -> list[Any]:
        """Every record of a topic."""
        return [
            record
            for partition in range(self.worker.partitions(topic))
            for record in self.worker.log.read(TopicPartition(topic, partition), 0, 10_000, committed=False)[
                0
            ]
        ]

    def advance(self, seconds: float) -> None:
        """Let time pass for the worker."""
        until_ms = self.worker.now_ms() + round(seconds * 1000)
        while not self.worker.run(until_ms):
            pass

    async def caught_up(self) -> None:
        """Until the console shows everything."""
        await self.console.passed(await self.console.ends(range(self.console.partitions)))


@asynccontextmanager
async def world(
    directory: Path,
    *,
    partitions: int = 2,
    topics: Sequence[str] = ("delay-requests",),
    worker: MemoryWorker | None = None,
    transport: type[AsyncMemoryTransport] = AsyncMemoryTransport,
    entrance: Entrance | None = None,
    **settings: Any,
) -> AsyncIterator[World]:
    """A world that is at work."""
    own = ExitStack()
    if worker is None:
        worker = MemoryWorker(TopicPlan(requests=tuple(topics), partitions=partitions), START_MS)
        own.callback(worker.abandon)
    log = worker.log

    def opening(topic: str) -> Callable[[int], Awaitable[MemoryChangelog]]:
        async def opened(partition: int) -> MemoryChangelog:
            return MemoryChangelog(log, topic, partition, fetch_max_wait_s=0.002)

        return opened

    async def bounds(topic: str, partition: int) -> LogBounds:
        return log.bounds(TopicPartition(topic, partition))

    stores = MemoryStateStores()
    following = [
        Follower(partition, opening("delay-wheel-changelog"), stores, worker, FollowerSettings(DAY_MS))
        for partition in range(partitions)
    ]
    database = Database.open(f"sqlite:///{directory / 'history.db'}")
    kept = Retention(36_500 * DAY_MS, 1_000_000, minutes_ms=36_500 * DAY_MS, hours_ms=36_500 * DAY_MS)
    history = HistoryFollower(1, opening("delay-events"), database, worker, kept)
    letters = DeadLetters(1, opening("delay-dead-letters"), worker.now_ms)
    made = Console(following, history, History(database), letters, worker, bounds)
    configured = Settings(request_topics=list(topics), **settings)
    way = transport(worker, Followers(worker))
    made.audit = AuditLog(database, worker.now_ms)
    made.writing = Writing(
        Sender(configured, lambda: way, worker.now_ms),
        made,
        Ledger(database, made.audit),
        worker,
        allowed=configured.console_writes,
    )
    originals = Originals(1, opening("delay-dead-letters"))
    redriving = Redriving(originals, letters, Acts(database, made.audit), made.writing, made.row_of, worker)
    gate = Entrance(worker.now_ms, hosts=Hosts()) if entrance is None else entrance
    made.runs = Runs(redriving, worker, gate.stands)
    means = Means(made, made.writing, OperationLedger(database, made.audit), worker, gate.stands, "here")
    bounded = OperationBounds(
        rate=configured.console_operation_rate,
        most_rate=configured.console_operation_max_rate,
        items=configured.console_operation_items,
    )
    made.operations = Operations(means, bounded, configured.engine(partitions))
    running = asyncio.create_task(made.run())
    try:
        async with asyncio.timeout(60):
            while not made.ready:
                assert not running.done(), running.exception()
                await asyncio.sleep(0.002)
        app = application(made, gate)
        served = httpx.ASGITransport(app)
        # A machine may be slow. Where nobody is at work, a test says itself how long it waits.
        patient = {} if transport is Deaf else {"Prefer": "wait=60"}
        async with httpx.AsyncClient(transport=served, base_url=HOST, headers=patient) as client:
            yield World(worker, made, app, client)
    finally:
        made.tail.close()
        await made.runs.close()
        await made.operations.close()
        await made.writing.close()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        database.close()
        own.close()


def in_world(directory: Path, story: Callable[[World], Coroutine[Any, Any, None]], **options: Any) -> None:
    """Have a story happen in a world of its own."""

    async def happen() -> None:
        async with world(directory, **options) as made:
            await story(made)

    asyncio.run(happen())
