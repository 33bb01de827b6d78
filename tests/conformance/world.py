"""What a case needs around the ports, in two kinds: in memory and on a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from delaystream.engine.ports import (
    Changelog,
    Destinations,
    Headers,
    Row,
    Sources,
    TopicPartition,
    TransactionalProducer,
)
from delaystream.testing import (
    LoopClock,
    MemoryChangelog,
    MemoryDestinations,
    MemoryLog,
    MemoryProducer,
    MemorySources,
    SteadyProducer,
    VirtualTimeLoop,
)

GROUP = "conformance"


class Read(NamedTuple):
    """A record as a plain consumer gets it."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp: int


class World(Protocol):
    """A broker to try the ports on; names of topics and transactional ids are the case's own."""

    async def create_topic(
        self,
        name: str,
        partitions: int = 1,
        *,
        compacted: bool = False,
        append_time: bool = False,
        max_message_bytes: int | None = None,
        timestamp_before_max_ms: int | None = None,
        timestamp_after_max_ms: int | None = None,
    ) -> None:
        """With ``append_time``, message.timestamp.type is LogAppendTime."""
        ...

    async def delete_topic(self, name: str) -> None: ...
    async def append(self, at: TopicPartition, rows: Sequence[Row]) -> None:
        """Produce without a transaction."""
        ...

    async def open_transaction(self, transactional_id: str, at: TopicPartition, rows: Sequence[Row]) -> None:
        """Write in a transaction that stays open, as a worker does that stops dead."""
        ...

    async def read(self, at: TopicPartition, *, committed: bool = True) -> list[Read]:
        """All that a plain consumer reads."""
        ...

    async def group_offset(self, at: TopicPartition) -> int | None: ...
    async def compact(self, at: TopicPartition) -> None:
        """Let the cleaner pass; the last records may be spared."""
        ...

    async def trim(self, at: TopicPartition, start: int) -> None: ...
    async def until(self, condition: Callable[[], Coroutine[Any, Any, bool]]) -> None:
        """Wait for what the broker does in its own time. TimeoutError after a minute."""
        ...

    def now_ms(self) -> int:
        """The broker's clock, about."""
        ...

    def producer(self, transactional_id: str) -> TransactionalProducer: ...
    async def changelog(self, topic: str, partition: int = 0) -> Changelog: ...
    def destinations(self) -> Destinations: ...
    def sources(self, topics: Sequence[str]) -> Sources | None:
        """Sources of partition 0; None where they cannot be had without a whole worker."""
        ...

    async def close(self) -> None: ...


def run_in_memory(
    case: Callable[[World], Coroutine[Any, Any, None]],
    producer: type[MemoryProducer | SteadyProducer] = MemoryProducer,
) -> None:
    """Run a case on the log in memory, in virtual time."""
    with VirtualTimeLoop() as loop:
        loop.run_until_complete(case(MemoryWorld(loop, producer)))


class MemoryWorld:
    """The log in memory."""

    def __init__(
        self, loop: VirtualTimeLoop, producer: type[MemoryProducer | SteadyProducer] = MemoryProducer
    ) -> None:
        self._producer = producer
        self.clock = LoopClock(loop)

        def later(mark: Callable[[], None]) -> None:
            loop.call_later(0.05, mark)

        self.log = MemoryLog(self.clock.now_ms, delete_retention_ms=0, defer_marker=later)

    async def create_topic(
        self,
        name: str,
        partitions: int = 1,
        *,
        compacted: bool = False,
        append_time: bool = False,
        max_message_bytes: int | None = None,
        timestamp_before_max_ms: int | None = None,
        timestamp_after_max_ms: int | None = None,
    ) -> None:
        self.log.create_topic(
            name,
            partitions,
            compacted=compacted,
            append_time=append_time,
            max_message_bytes=max_message_bytes,
            timestamp_before_max_ms=timestamp_before_max_ms,
            timestamp_after_max_ms=timestamp_after_max_ms,
        )

    async def delete_topic(self, name: str) -> None:
        self.log.delete_topic(name)

    async def append(self, at: TopicPartition, rows: Sequence[Row]) -> None:
        for row in rows:
            self.log.append(at, row)

    async def open_transaction(self, transactional_id: str, at: TopicPartition, rows: Sequence[Row]) -> None:
        self.log.write(self.log.init_producer(transactional_id), at, rows)

    async def read(self, at: TopicPartition, *, committed: bool = True) -> list[Read]:
        await asyncio.sleep(0.1)
        records, _ = self.log.read(at, self.log.bounds(at).start, committed=committed)
        return [Read(r.offset, r.key, r.value, _headers(r.headers), r.timestamp) for r in records]

    async def group_offset(self, at: TopicPartition) -> int | None:
        return self.log.group_offsets.get((GROUP, at))

    async def compact(self, at: TopicPartition) -> None:
        await asyncio.sleep(0.1)
        self.log.compact(at)
        await asyncio.sleep(0.1)
        self.log.compact(at)

    async def trim(self, at: TopicPartition, start: int) -> None:
        self.log.trim(at, start)

    async def until(self, condition: Callable[[], Coroutine[Any, Any, bool]]) -> None:
        async with asyncio.timeout(60):
            while not await condition():  # noqa: ASYNC110 - it asks the broker
                await asyncio.sleep(0.1)

    def now_ms(self) -> int:
        return self.clock.now_ms()

    def producer(self, transactional_id: str) -> TransactionalProducer:
        return self._producer(self.log, transactional_id, GROUP)

    async def changelog(self, topic: str, partition: int = 0) -> Changelog:
        return await MemoryChangelog.open(self.log, topic, partition, batch_records=3)

    def destinations(self) -> Destinations:
        return MemoryDestinations(self.log)

    def sources(self, topics: Sequence[str]) -> Sources | None:
        return MemorySources(self.log, topics, 0, batch_records=3)

    async def close(self) -> None:
        pass


def _headers(headers: Headers) -> tuple[tuple[str, bytes | None], ...]:
    return tuple((name, value) for name, value in headers)


def rows(
    *keys: str, value: bytes | None = b"value", headers: Headers = (), timestamp_ms: int = 1_700_000_000_000
) -> list[Row]:
    """One row for each key."""
    return [(key.encode(), value, headers, timestamp_ms) for key in keys]


def keys(read: Sequence[Read]) -> list[str]:
    """The keys of what was read."""
    return [(record.key or b"").decode() for record in read]


def writes(**by_topic: list[Row]) -> Mapping[TopicPartition, list[Row]]:
    """Rows for partition 0 of each topic."""
    return {TopicPartition(topic, 0): list(found) for topic, found in by_topic.items()}
