"""Members of a group with processors that only write down what they are given."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from delaystream.adapters.membership.batch_fetcher import ReaderSettings
from delaystream.adapters.membership.faust_host import HostSettings, PartitionHost
from delaystream.engine.observer import Phase
from delaystream.engine.ports import (
    SourceBatch,
    SourceBounds,
    Sources,
    TopicPartition,
)

SESSION_MS = 3_000


@dataclass
class Notes:
    """What the processors of one host were given, by topic partition."""

    batches: dict[tuple[str, int], list[SourceBatch]] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    #: of each partition: whether its processor has room for more
    room: dict[int, bool] = field(default_factory=dict)

    def offsets(self, topic: str, partition: int) -> list[int]:
        found = self.batches.get((topic, partition), [])
        return [record.offset for batch in found for record in batch.records]

    async def until(self, true: Callable[[], bool], seconds: float = 20.0) -> None:
        async with asyncio.timeout(seconds):
            while not true():
                self.changed.clear()
                try:
                    async with asyncio.timeout(0.1):
                        await self.changed.wait()
                except TimeoutError:
                    continue


class NoteTaker:
    """A processor that starts at the given positions and runs until it is stopped."""

    def __init__(self, partition: int, sources: Sources, notes: Notes, positions: dict[str, int]) -> None:
        self.partition = partition
        self.sources = sources
        self.phase = Phase.STOPPED
        self.notes = notes
        self.positions = positions
        self.challenges = 0
        self.ticks = 0
        self.stalled_ms = 0
        self._stop = asyncio.Event()

    def deliver(self, batch: SourceBatch) -> bool:
        self.notes.batches.setdefault((batch.topic, self.partition), []).append(batch)
        self.notes.changed.set()
        return self.notes.room.get(self.partition, True)

    async def run(self) -> None:
        assert self.sources.assigned
        self.phase = Phase.RUNNING
        self.sources.open(
            {topic: self.positions.get(topic, 0) for topic in self.sources.topics}, self.deliver
        )
        while not self._stop.is_set():
            self.ticks += 1
            try:
                async with asyncio.timeout(0.01):
                    await self._stop.wait()
            except TimeoutError:
                continue
        self.sources.close()
        self.phase = Phase.STOPPED

    def request_ownership_check(self) -> None:
        self.challenges += 1

    async def stop(self) -> None:
        self._stop.set()


async def no_bounds(partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, SourceBounds]:
    return {partition: SourceBounds(0, 0, "") for partition in partitions}


class Member:
    """A host whose processors take notes."""

    def __init__(self, servers: str, group: str, topics: Sequence[str], **reader: int) -> None:
        self.notes = Notes()
        self.processors: dict[int, NoteTaker] = {}
        self.positions: dict[str, int] = {}
        settings = ReaderSettings(
            {"bootstrap_servers": servers},
            group,
            **{"session_timeout_ms": SESSION_MS, **reader},  # type: ignore[arg-type]
        )
        self.host = PartitionHost(HostSettings(tuple(topics), settings), self._new, no_bounds)

    def _new(self, partition: int, sources: Sources) -> NoteTaker:
        taker = self.processors[partition] = NoteTaker(partition, sources, self.notes, self.positions)
        return taker

    @property
    def running(self) -> list[int]:
        return [s.partition for s in self.host.partitions() if s.phase is Phase.RUNNING]

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[Member]:
        serving = asyncio.create_task(self.host.run())
        try:
            yield self
            if serving.done():
                serving.result()
        finally:
            await self.host.stop()
            await asyncio.wait([serving], timeout=10)
        serving.result()


async def _report(servers: str, group: str, topics: Sequence[str]) -> None:
    """A member as a process: prints, ten times a second, what it has and what it was given."""
    member = Member(servers, group, topics)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with member.at_work():
        while not stop.is_set():
            spans = {
                f"{topic}/{partition}": [(batch.start, batch.stop) for batch in batches]
                for (topic, partition), batches in member.notes.batches.items()
            }
            line = {
                "at": time.time(),
                "running": member.running,
                "confirmed": member.host.membership_confirmed,
                "ticks": {p: taker.ticks for p, taker in member.processors.items()},
                "spans": spans,
            }
            print(json.dumps(line), flush=True)
            try:
                async with asyncio.timeout(0.1):
                    await stop.wait()
            except TimeoutError:
                continue


def main(arguments: Iterable[str]) -> None:
    logging.basicConfig()
    servers, group, *topics = arguments
    asyncio.run(_report(servers, group, topics))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
