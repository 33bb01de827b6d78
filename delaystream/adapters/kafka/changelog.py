"""Reads one partition of the changelog, committed records only, as fast as possible.

A consumer would build an object of eleven fields for each record, and would run the machinery of a group.
This reader asks the leader for large fetches, parses batches with aiokafka's C code, and sends the next fetch
while the caller applies the previous one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec
from aiokafka.errors import CorruptRecordException

from delaystream.adapters.internals.aiokafka import FetchRequest
from delaystream.adapters.kafka.connections import CONNECTION_ERRORS, NO_LEADER, KafkaConnections
from delaystream.adapters.kafka.errors import TOPIC_AUTHORIZATION_FAILED, reason, told, topics_refused
from delaystream.adapters.kafka.offsets import (
    EARLIEST,
    LATEST,
    PURPOSE,
    READ_COMMITTED,
    READ_UNCOMMITTED,
    list_offsets,
)
from delaystream.adapters.kafka.record_batches import (
    DEFAULT_MAX_BYTES,
    BatchRefusedError,
    Decompressor,
    FetchedBatches,
    OpenBatch,
    is_abort_marker,
    uncompressed,
    unreadable,
)
from delaystream.engine.failures import LogUnavailable, Misconfigured
from delaystream.engine.ports import (
    Changelog,
    ChangelogBatch,
    ChangelogRecord,
    LogBounds,
    TopicBatch,
    TopicPartition,
    TopicRecord,
)

_OK: Final = 0
_UNKNOWN_TOPIC: Final = 3
# A fetch waits on the broker, so other requests go by another connection.
_PURPOSE: Final = "fetch"
#: timestamp type of a batch: the broker's append time
_LOG_APPEND_TIME: Final = 1


class ChangelogSettings(msgspec.Struct, frozen=True):
    """Bounds of a changelog reader; durations in ms, sizes in bytes."""

    #: for any request to the broker, retries included
    timeout_ms: int = 10_000
    #: how long the broker waits for records
    fetch_max_wait_ms: int = 500
    #: of one fetch; memory holds two of them, and a single larger batch is let through
    fetch_max_bytes: int = 2 * 1024 * 1024
    #: largest decompressed size of a record batch; workers write far smaller ones
    batch_max_decompressed_bytes: int = DEFAULT_MAX_BYTES
    retry_backoff_ms: int = 50


class AiokafkaChangelog(Changelog):
    """Reader of one partition; opened with :meth:`open`."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        topic: str,
        partition: int,
        bounds: ChangelogSettings | None = None,
    ) -> None:
        self._target = TopicPartition(topic, partition)
        self._bounds = bounds or ChangelogSettings()
        self._connections = KafkaConnections(settings, request_timeout_ms=self._bounds.timeout_ms)
        self._decompressor = Decompressor(self._bounds.batch_max_decompressed_bytes)
        self._leader = NO_LEADER
        self._topic_id = ""
        self._ahead: tuple[int, asyncio.Task[Any]] | None = None

    @classmethod
    async def open(
        cls,
        settings: Mapping[str, Any],
        topic: str,
        partition: int,
        bounds: ChangelogSettings | None = None,
    ) -> AiokafkaChangelog:
        """Find the topic. Raises LogUnavailable, or Misconfigured where topic or partition is missing."""
        changelog = cls(settings, topic, partition, bounds)
        try:
            await changelog._retrying(changelog._find_leader)
        except BaseException:
            await changelog.close()
            raise
        return changelog

    @property
    def topic_id(self) -> str:
        """The topic's id when the reader was opened."""
        return self._topic_id

    async def bounds(self) -> LogBounds:
        """Log start, last stable offset and high watermark. Raises LogUnavailable."""
        result: LogBounds = await self._retrying(self._bounds_now)
        return result

    async def read(self, position: int) -> ChangelogBatch:
        """The next fetch from ``position``; empty after ``fetch_max_wait_ms`` if nothing follows."""

        async def fetch() -> ChangelogBatch:
            return self._parse(position, await self._fetched(position))

        batch: ChangelogBatch = await self._retrying(fetch)
        if batch.next_position > position:
            following = asyncio.create_task(self._fetch(batch.next_position))
            self._ahead = (batch.next_position, following)
            # The request leaves before the caller applies the batch, which holds up the loop.
            await asyncio.sleep(0)
        return batch

    async def read_records(self, position: int) -> TopicBatch:
        """As `read`, with whole records: those of any topic. Nothing is fetched ahead.

        Anybody may have written them: a batch that cannot be read is passed over, and counted.
        """

        async def fetch() -> TopicBatch:
            data, aborted, stable = self._answered(position, await self._fetch(position))
            return topic_records(position, data, aborted, stable, self._decompressor)

        batch: TopicBatch = await self._retrying(fetch)
        return batch

    async def record_at(self, offset: int) -> ChangelogRecord | None:
        """The committed record at an offset, with its append time. Raises LogUnavailable."""

        async def look() -> ChangelogRecord | None:
            data, aborted, _ = self._answered(offset, await self._look(offset))
            try:
                return committed_record(offset, data, aborted, self._decompressor)
            except (UnicodeDecodeError, BatchRefusedError) as error:
                raise self._foreign(offset, error) from error

        record: ChangelogRecord | None = await self._retrying(look)
        return record

    async def close(self) -> None:
        """Cancel running requests and close the connections."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead[1].cancel()
            await asyncio.gather(ahead[1], return_exceptions=True)
        await self._connections.close()

    # -- requests --------------------------------------------------------------------------------

    async def _retrying(self, attempt: Any) -> Any:
        """Repeat an attempt when leaders move or connections break, for ``timeout_ms`` at most."""
        failure = "no answer"
        try:
            async with asyncio.timeout(self._bounds.timeout_ms / 1000):
                while True:
                    try:
                        if self._leader == NO_LEADER:
                            await self._find_leader()
                        return await attempt()
                    except _Passing as error:
                        failure = str(error)
                    except CONNECTION_ERRORS as error:
                        failure = reason(error)
                    self._leader = NO_LEADER
                    await asyncio.sleep(self._bounds.retry_backoff_ms / 1000)
        except TimeoutError:
            raise LogUnavailable(f"{self._target.topic}-{self._target.partition}: {failure}") from None

    async def _find_leader(self) -> None:
        topic, partition = self._target
        described = (await self._connections.describe([topic]))[topic]
        if described.error_code == _UNKNOWN_TOPIC:
            raise Misconfigured(f"the changelog topic {topic} does not exist")
        if described.error_code == TOPIC_AUTHORIZATION_FAILED:
            raise Misconfigured(topics_refused([topic]))
        if described.error_code != _OK:
            raise _Passing(told(described.error_code))
        if partition >= len(described.leaders):
            raise Misconfigured(f"the changelog topic {topic} has no partition {partition}")
        if self._topic_id not in {"", described.topic_id}:
            raise LogUnavailable(f"the changelog topic {topic} was deleted and created anew")
        self._topic_id = described.topic_id
        self._leader = described.leaders[partition]
        if self._leader == NO_LEADER:
            raise _Passing("no leader")

    async def _bounds_now(self) -> LogBounds:
        answers = []
        for isolation, timestamp in (
            (READ_UNCOMMITTED, EARLIEST),
            (READ_COMMITTED, LATEST),
            (READ_UNCOMMITTED, LATEST),
        ):
            found = await list_offsets(self._connections, self._leader, [self._target], timestamp, isolation)
            code, offset = found[self._target]
            self._check(code)
            answers.append(offset)
        return LogBounds(*answers)

    async def _fetched(self, position: int) -> Any:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            if ahead[0] == position:
                return await ahead[1]
            ahead[1].cancel()
            await asyncio.gather(ahead[1], return_exceptions=True)
        return await self._fetch(position)

    async def _fetch(self, position: int) -> Any:
        request = self._request(position, self._bounds.fetch_max_wait_ms, self._bounds.fetch_max_bytes)
        return await self._connections.request(self._leader, _PURPOSE, request)

    async def _look(self, offset: int) -> Any:
        # One batch. The broker returns it whole, whatever its size, and at once: it exists now or never will.
        # It uses the connection of the bounds, so that it does not wait behind the fetch of the next records.
        return await self._connections.request(self._leader, PURPOSE, self._request(offset, 0, 1))

    def _request(self, position: int, max_wait_ms: int, max_bytes: int) -> FetchRequest:
        topic, partition = self._target
        topics = [(topic, [(partition, position, max_bytes)])]
        return FetchRequest(max_wait_ms, 1, max_bytes, READ_COMMITTED, topics)

    def _check(self, code: int) -> None:
        if code == TOPIC_AUTHORIZATION_FAILED:
            raise Misconfigured(topics_refused([self._target.topic]))
        if code != _OK:
            raise _Passing(told(code))

    # -- records ---------------------------------------------------------------------------------

    def _answered(self, position: int, response: Any) -> tuple[bytes, Iterable[tuple[int, int]], int]:
        """The answer to a fetch: record batches, the aborted transactions among them, last stable offset."""
        self._check(getattr(response, "error_code", _OK))
        # Fetch v5 to v11; v11 has the preferred replica before the records.
        _, code, _, stable, _, aborted, *_, data = response.topics[0][1][0]
        self._check(code)
        if not data and position < stable:
            raise _Passing(f"nothing was handed out at {position}, below the last stable offset {stable}")
        return data, aborted or (), stable

    def _parse(self, position: int, response: Any) -> ChangelogBatch:
        data, aborted, stable = self._answered(position, response)
        try:
            batch = committed_records(position, data, aborted, self._decompressor)
        except (UnicodeDecodeError, BatchRefusedError) as error:
            raise self._foreign(position, error) from error
        batch.stable = stable
        return batch

    def _foreign(self, position: int, error: Exception) -> Misconfigured:
        topic, partition = self._target
        sentence = (
            f"{topic}-{partition} holds a record behind offset {position} that delaystream did not write"
        )
        if isinstance(error, BatchRefusedError):
            sentence += f": its batch {error}"
        return Misconfigured(sentence)


class _Passing(Exception):
    """An error that may be gone in a moment."""


def committed_records(
    position: int, data: bytes, aborted: Iterable[tuple[int, int]], decompressor: Decompressor
) -> ChangelogBatch:
    """Records of committed transactions in fetched batches, from ``position`` on.

    Raises UnicodeDecodeError or BatchRefusedError for a record that no worker has written. ``aborted`` are
    the aborted transactions in that range: producer id, first offset. A producer's records are left out from
    that offset to its next abort marker (KIP-98).
    """
    records: list[tuple[int, bytes, bytes | None]] = []
    for batch, content, committed in _batches(data, aborted, decompressor):
        if committed:
            batch = _opened(batch, content, decompressor)  # noqa: PLW2901  # the same, uncompressed
            if batch.base_offset >= position:
                records += [(record.offset, record.key, record.value) for record in batch]
            else:
                records += [(r.offset, r.key, r.value) for r in batch if r.offset >= position]
        position = max(position, batch.next_offset)
    return ChangelogBatch(records, position)


def topic_records(
    position: int,
    data: bytes,
    aborted: Iterable[tuple[int, int]],
    stable: int,
    decompressor: Decompressor,
) -> TopicBatch:
    """As `committed_records`, with whole records; what cannot be read is passed over, and counted."""
    records: list[TopicRecord] = []
    skipped = 0
    for batch, content, committed in _batches(data, aborted, decompressor):
        next_position = max(position, batch.next_offset)
        if committed:
            found, unread = _whole_records(batch, content, decompressor)
            records += [record for record in found if position <= record.offset < next_position]
            if unread:
                skipped += next_position - max(position, records[-1].offset + 1 if records else position)
        position = next_position
    return TopicBatch(records, position, stable, skipped)


_AT_ONCE: Final = 500


def _whole_records(
    batch: Any, content: memoryview, decompressor: Decompressor
) -> tuple[list[TopicRecord], bool]:
    """The records of a batch up to the first that cannot be read, and whether there is one."""
    found: list[TopicRecord] = []
    begin = batch.base_offset
    try:
        reading = OpenBatch(batch, content, decompressor)
        while True:
            try:
                some = reading.read(_AT_ONCE)
            except UnicodeDecodeError:
                reading.forgiving(begin)
                continue
            if not some:
                return found, False
            begin = some[-1].offset + 1
            found += [
                TopicRecord(record.offset, record.timestamp, record.key, record.value, list(record.headers))
                for record in some
            ]
    except (BatchRefusedError, MemoryError):
        return found, True


def committed_record(
    offset: int, data: bytes, aborted: Iterable[tuple[int, int]], decompressor: Decompressor
) -> ChangelogRecord | None:
    """The committed record at an offset, among batches fetched from there; ``aborted``, errors as above."""
    for batch, content, committed in _batches(data, aborted, decompressor):
        if committed:
            batch = _opened(batch, content, decompressor)  # noqa: PLW2901  # the same, uncompressed
            by_broker = batch.timestamp_type == _LOG_APPEND_TIME
            for record in batch:
                if record.offset == offset:
                    return ChangelogRecord(record.key, record.value, record.timestamp if by_broker else None)
        if batch.next_offset > offset:
            break
    return None


def _batches(
    data: bytes, aborted: Iterable[tuple[int, int]], decompressor: Decompressor
) -> Iterator[tuple[Any, memoryview, bool]]:
    """Every fetched batch as it was fetched, its bytes, and whether its records were committed."""
    starting = sorted(aborted, key=lambda entry: entry[1], reverse=True)
    aborting: set[int] = set()
    fetched = FetchedBatches(data)
    while fetched.has_next():
        try:
            batch: Any = fetched.next_batch()
        except CorruptRecordException as error:
            raise LogUnavailable(str(error)) from error
        if not batch.validate_crc():
            raise LogUnavailable(f"a record batch at offset {batch.base_offset} does not match its checksum")
        while starting and starting[-1][1] <= batch.base_offset:
            aborting.add(starting.pop()[0])
        if batch.is_control_batch:
            if batch.producer_id in aborting and _ends(batch, fetched.data, decompressor):
                aborting.discard(batch.producer_id)
            yield batch, fetched.data, False
        elif batch.is_transactional and batch.producer_id in aborting:
            yield batch, fetched.data, False
        else:
            yield batch, fetched.data, True


def _opened(batch: Any, content: memoryview, decompressor: Decompressor) -> Any:
    """A committed batch, uncompressed. Raises BatchRefusedError."""
    if batch.producer_id is None:
        raise unreadable("it has a message format without transactions")
    return uncompressed(batch, content, decompressor)[0]


def _ends(batch: Any, data: memoryview, decompressor: Decompressor) -> bool:
    try:
        return is_abort_marker(batch, data, decompressor)
    except CorruptRecordException as error:
        raise LogUnavailable(str(error)) from error
