"""The request topics of one partition, fetched from the log in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from delaystream.core.rejection import HEADER_NAME_NOT_UTF8
from delaystream.engine.failures import LogUnavailable
from delaystream.engine.ports import SourceBatch, SourceBounds, TopicPartition
from delaystream.testing.interruption import Calm, Interruptions
from delaystream.testing.log import MemoryLog
from delaystream.testing.partition import LogRecord, PositionOutOfRangeError, UnknownTopicError, row_bytes


class MemorySources:
    """A :class:`~delaystream.engine.ports.Sources`: one fetcher, for all topics in turn.

    ``topics`` are the request topics, the commands topic last. A batch holds at most ``batch_records``. One
    that was fetched before a seek is still delivered after it, as a consumer's may be.
    """

    def __init__(
        self,
        log: MemoryLog,
        topics: Sequence[str],
        partition: int,
        *,
        interruptions: Interruptions | None = None,
        batch_records: int = 500,
        group: str = "delaystream",
    ) -> None:
        self._log = log
        self._topics = list(topics)
        self._partition = partition
        self._interruptions = interruptions or Calm()
        self._batch_records = batch_records
        self._group = group
        #: set to False when the partition is taken away
        self.assigned = True
        #: fetch position of each topic, and where the last delivered batch ended
        self._positions: dict[str, int] = {}
        self._delivered: dict[str, int] = {}
        self._deliver: Callable[[SourceBatch], bool] | None = None
        self._room = True
        self._wake = asyncio.Event()
        self._fetcher: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] = lambda: None

    @property
    def topics(self) -> Sequence[str]:
        """See the port."""
        return self._topics

    async def bounds(self) -> Mapping[str, SourceBounds]:
        """See the port."""
        found: dict[str, SourceBounds] = {}
        for topic in self._topics:
            await self._interruptions.at("source-bounds", topic)
            at = TopicPartition(topic, self._partition)
            try:
                bounds = self._log.bounds(at)
            except UnknownTopicError as error:
                raise LogUnavailable(str(error)) from error
            committed = self._log.group_offsets.get((self._group, at))
            topic_id = self._log.topics[topic].topic_id
            found[topic] = SourceBounds(bounds.start, bounds.end, topic_id, committed)
        return found

    def open(self, positions: Mapping[str, int], deliver: Callable[[SourceBatch], bool]) -> None:
        """See the port; may be called again, with new positions."""
        self.close()
        self._positions = dict(positions)
        self._delivered = dict(positions)
        self._deliver = deliver
        self._room = True
        self._wake = asyncio.Event()
        self._wake.set()
        partitions = [TopicPartition(topic, self._partition) for topic in self._topics]
        self._unsubscribe = self._log.subscribe(partitions, self._wake.set)
        self._fetcher = asyncio.get_running_loop().create_task(self._fetch(deliver))

    def seek(self, topic: str, position: int) -> None:
        """See the port."""
        self._positions[topic] = position
        self._delivered[topic] = position
        self._wake.set()

    def resume(self) -> None:
        """See the port."""
        self._room = True
        self._wake.set()

    def close(self) -> None:
        """See the port."""
        self._deliver = None
        self._unsubscribe()
        self._unsubscribe = lambda: None
        if self._fetcher is not None:
            self._fetcher.cancel()
            self._fetcher = None

    async def _fetch(self, deliver: Callable[[SourceBatch], bool]) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            for topic in self._topics:
                if not self._room:
                    break
                batch = self._take(topic)
                if batch is None:
                    continue
                self._wake.set()
                await self._interruptions.at("fetch", topic)
                if self._deliver is not deliver:
                    return
                if not deliver(batch):
                    self._room = False

    def _take(self, topic: str) -> SourceBatch | None:
        position = self._positions[topic]
        at = TopicPartition(topic, self._partition)
        try:
            records, stop = self._log.read(at, position, self._batch_records)
        except UnknownTopicError:
            return None
        except PositionOutOfRangeError:
            # auto.offset.reset=earliest, as the workers' consumer has it
            self._positions[topic] = self._delivered[topic] = self._log.bounds(at).start
            return self._take(topic)
        self._positions[topic] = stop
        if stop <= self._delivered[topic]:
            return None
        start, self._delivered[topic] = self._delivered[topic], stop
        size = sum(row_bytes(r.key, r.value, r.headers) for r in records)
        unreadable = {r.offset: HEADER_NAME_NOT_UTF8 for r in records if not _decodable(r)}
        return SourceBatch(topic, records, start, stop, size, unreadable)


def _decodable(record: LogRecord) -> bool:
    try:
        for name, _ in record.headers:
            name.encode()
    except UnicodeEncodeError:
        return False
    return True
