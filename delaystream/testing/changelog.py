"""The changelog and the destinations of the engine's ports, on the log in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from math import inf
from typing import Final

from delaystream.engine.failures import LogUnavailable
from delaystream.engine.ports import (
    ChangelogBatch,
    ChangelogRecord,
    LogBounds,
    TopicBatch,
    TopicPartition,
    TopicRecord,
)
from delaystream.testing.interruption import Calm, Interruptions
from delaystream.testing.log import MemoryLog
from delaystream.testing.partition import LogRecord, PositionOutOfRangeError, UnknownTopicError

#: How long a read waits where nothing follows, as `fetch.max.wait.ms` has it.
_FETCH_MAX_WAIT_S: Final = 0.5


class MemoryChangelog:
    """A :class:`~delaystream.engine.ports.Changelog`: one partition, read in batches of ``batch_records``.

    A read waits up to ``fetch_max_wait_s`` where nothing follows.
    """

    def __init__(
        self,
        log: MemoryLog,
        topic: str,
        partition: int,
        *,
        interruptions: Interruptions | None = None,
        batch_records: int = 1_000,
        fetch_max_wait_s: float = _FETCH_MAX_WAIT_S,
    ) -> None:
        self._log = log
        self._at = TopicPartition(topic, partition)
        self._interruptions = interruptions or Calm()
        self._batch_records = batch_records
        self._fetch_max_wait_s = fetch_max_wait_s
        self._topic_id = log.topics[topic].topic_id

    @classmethod
    async def open(
        cls,
        log: MemoryLog,
        topic: str,
        partition: int,
        *,
        interruptions: Interruptions | None = None,
        batch_records: int = 1_000,
        fetch_max_wait_s: float = _FETCH_MAX_WAIT_S,
    ) -> MemoryChangelog:
        """Look up the topic and its id. Raises LogUnavailable while there is no such topic."""
        await (interruptions or Calm()).at("open-changelog", topic)
        if topic not in log.topics:
            raise LogUnavailable(f"{topic} does not exist")
        return cls(
            log,
            topic,
            partition,
            interruptions=interruptions,
            batch_records=batch_records,
            fetch_max_wait_s=fetch_max_wait_s,
        )

    @property
    def topic_id(self) -> str:
        """See the port."""
        return self._topic_id

    async def bounds(self) -> LogBounds:
        """See the port."""
        await self._interruptions.at("bounds", self._at.topic)
        self._log.expire()
        try:
            return self._log.bounds(self._at)
        except UnknownTopicError as error:
            raise LogUnavailable(str(error)) from error

    async def read(self, position: int) -> ChangelogBatch:
        """See the port."""
        records, next_position, stable = await self._fetched(position)
        return ChangelogBatch([(r.offset, r.key or b"", r.value) for r in records], next_position, stable)

    async def read_records(self, position: int) -> TopicBatch:
        """As `read`, with whole records: those of any topic."""
        records, next_position, stable = await self._fetched(position)
        whole = [TopicRecord(r.offset, r.timestamp, r.key, r.value, r.headers) for r in records]
        return TopicBatch(whole, next_position, stable)

    async def _fetched(self, position: int) -> tuple[list[LogRecord], int, int]:
        """A batch of records, where the next one begins, and the last stable offset."""
        await self._interruptions.at("read", self._at.topic)
        try:
            records, next_position = self._log.read(
                self._at, position, self._batch_records, committed=self._committed_only
            )
        except (UnknownTopicError, PositionOutOfRangeError) as error:
            raise LogUnavailable(str(error)) from error
        if next_position == position:
            await asyncio.sleep(self._fetch_max_wait_s)
        return records, next_position, self._log.bounds(self._at).stable

    async def record_at(self, offset: int) -> ChangelogRecord | None:
        """See the port."""
        await self._interruptions.at("read", self._at.topic)
        try:
            records, _ = self._log.read(self._at, offset, 1, committed=self._committed_only)
        except (UnknownTopicError, PositionOutOfRangeError) as error:
            raise LogUnavailable(str(error)) from error
        if not records or records[0].offset != offset:
            return None
        record = records[0]
        appended_ms = record.timestamp if record.by_broker else None
        return ChangelogRecord(record.key or b"", record.value, appended_ms)

    async def close(self) -> None:
        """See the port."""

    #: a reader that sees aborted records is a broken one; tests show that they notice it
    _committed_only = True


class MemoryDestinations:
    """A :class:`~delaystream.engine.ports.Destinations`: metadata as of the last look."""

    def __init__(self, log: MemoryLog, *, interruptions: Interruptions | None = None) -> None:
        self._log = log
        self._interruptions = interruptions or Calm()
        self._seen: dict[str, tuple[int, str | None]] = {}
        #: and when that was, the event loop's ms
        self._seen_ms: dict[str, float] = {}

    def partitions(self, topic: str) -> int:
        """See the port."""
        return self._seen.get(topic, (0, None))[0]

    def problem(self, topic: str) -> str | None:
        """See the port."""
        return self._seen.get(topic, (0, None))[1]

    def age_ms(self, topic: str) -> float:
        """See the port."""
        seen_ms = self._seen_ms.get(topic)
        return inf if seen_ms is None else asyncio.get_running_loop().time() * 1000 - seen_ms

    async def ensure(self, topics: Iterable[str], within_ms: float = inf) -> None:
        """See the port; what has a problem is looked at again each time."""
        for name in sorted(topics):  # a set's order is another one in every process
            if self._seen.get(name, (0, None))[0] and self.age_ms(name) <= within_ms:
                continue
            try:
                await self._interruptions.at("ensure", name)
            except LogUnavailable:
                continue
            self._seen[name] = self._look(name)
            self._seen_ms[name] = asyncio.get_running_loop().time() * 1000

    def invalidate(self, topic: str) -> None:
        """See the port."""
        self._seen.pop(topic, None)
        self._seen_ms.pop(topic, None)

    def _look(self, name: str) -> tuple[int, str | None]:
        topic = self._log.topics.get(name)
        if topic is None:
            return 0, "does not exist"
        if topic.refusal is not None:
            return 0, topic.refusal
        return len(topic.partitions), None
