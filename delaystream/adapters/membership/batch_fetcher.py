"""Whole batches from aiokafka's fetcher, at positions that are always given and never looked up.

Each seek has an epoch of its own, and every :class:`Fetched` carries the epoch of the seek before it. So a
batch that was on its way before a seek or a rebalance is recognised as old. Everything here runs in the
thread of the aiokafka consumer, unless a docstring says otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping, Set
from typing import Any

import aiokafka
import msgspec
from aiokafka.errors import ConsumerStoppedError, CorruptRecordException, OffsetOutOfRangeError
from aiokafka.structs import TopicPartition as KafkaPartition

from delaystream.adapters.internals import aiokafka as internals
from delaystream.adapters.internals.aiokafka import FetchError, FetchResult, FetchWait
from delaystream.adapters.kafka.record_batches import DEFAULT_MAX_BYTES, Decompressor, FetchedBatches
from delaystream.adapters.membership.record_reader import RecordReader
from delaystream.engine.ports import SourceBatch, TopicPartition

logger = logging.getLogger(__name__)

#: Longest wait of one call for batches; the fetch loop comes around at least so often.
_POLL_S = 1.0

#: A batch that does not match its checksum is fetched again after this time, without end: another replica may
#: have an intact copy. It is logged once in this many attempts.
_CORRUPT_BACKOFF_S = 1.0
_CORRUPT_TOLD_EVERY = 60

#: Requests with no larger gap than this are a stream: it pays to wait for the next ones.
_STREAMING_S = 0.1


class ReaderSettings(msgspec.Struct, frozen=True):
    """Settings for reading the request topics; durations in ms, sizes in bytes."""

    #: aiokafka's arguments for a consumer: bootstrap_servers, security_protocol, sasl_*, ssl_context, …
    client: Mapping[str, Any]
    group_id: str
    #: static membership (KIP-345): a restart within the session timeout moves nothing
    group_instance_id: str | None = None
    session_timeout_ms: int = 45_000
    #: how soon a member learns of a rebalance; this is most of the time of a takeover
    heartbeat_interval_ms: int = 500
    #: how long the others wait for a member that does not rejoin; never less than the session timeout
    rebalance_timeout_ms: int = 10_000
    #: a worker that does not poll within this time leaves the group
    max_poll_interval_ms: int = 300_000
    request_timeout_ms: int = 40_000
    #: bounds of one batch; up to 512 records, or a single large one, may exceed the bytes
    batch_max_records: int = 2_000
    batch_max_bytes: int = 2 * 1024 * 1024
    #: largest decompressed size of a record batch; a larger batch is refused as a whole
    batch_max_decompressed_bytes: int = DEFAULT_MAX_BYTES
    #: bounds of one fetch; a single record batch that is larger is still read
    partition_fetch_max_bytes: int = 1024 * 1024
    fetch_max_bytes: int = 8 * 1024 * 1024
    #: longest time that a broker holds back an empty answer while every partition waits for more …
    idle_fetch_wait_ms: int = 500
    #: … and while some partition is not part of that fetch: it may have to wait this long for its turn
    busy_fetch_wait_ms: int = 20
    #: while requests keep coming, a broker collects this many bytes for one answer, or for this long: each
    #: answer costs both sides the same, however small it is
    gather_bytes: int = 64 * 1024
    gather_wait_ms: int = 15


class Fetched(msgspec.Struct):
    """A batch of one topic partition, read since the seek that has this epoch.

    No batch: the position is out of the log's range, because retention has removed the next records.
    """

    partition: TopicPartition
    epoch: int
    batch: SourceBatch | None


# Batches are opened here, within a bound. aiokafka's own parser decompresses without a bound.
internals.parse_fetched_with(FetchedBatches)


class _Corrupt(msgspec.Struct):
    """The position of a batch that does not match its checksum."""

    position: int
    fetches: int
    #: when to fetch it again; None: the fetch is running
    retry_at: float | None


class BatchFetcher:
    """Hands out aiokafka's fetched batches of the partitions in ``with_room``.

    The set belongs to another thread and may change at any time.
    """

    def __init__(self, settings: ReaderSettings, with_room: Set[TopicPartition]) -> None:
        self._settings = settings
        self._with_room = with_room
        #: of each partition: the last seek's epoch, the position after the last record handed out, and the
        #: rest
        self._epochs: dict[TopicPartition, int] = {}
        self._handed_out: dict[TopicPartition, int] = {}
        self._readers: dict[TopicPartition, RecordReader] = {}
        self._corrupt: dict[TopicPartition, _Corrupt] = {}
        self._decompressor = Decompressor(settings.batch_max_decompressed_bytes)
        self._waiter: asyncio.Future[None] | None = None
        #: when something was last handed out
        self._taken_at = float("-inf")

    def adapt(self, consumer: aiokafka.AIOKafkaConsumer) -> None:
        """Let a fetch wait at the broker for as long as that does no harm.

        It waits long only if it is for all partitions, because the others would have to wait as long. While
        requests keep coming it waits a little, to collect more of them.
        """
        settings = self._settings

        def wait(left_out: bool) -> FetchWait:
            if time.monotonic() - self._taken_at < _STREAMING_S:
                return FetchWait(settings.gather_bytes, settings.gather_wait_ms)
            return FetchWait(1, settings.busy_fetch_wait_ms if left_out else settings.idle_fetch_wait_ms)

        internals.decide_fetch_waits(consumer, settings.busy_fetch_wait_ms / 1000, wait)

    def hold_all(self, consumer: aiokafka.AIOKafkaConsumer) -> None:
        """Begin a new assignment: nothing is read before a seek."""
        self._epochs.clear()
        self._handed_out.clear()
        self._readers.clear()
        self._corrupt.clear()
        for tp in consumer.assignment():
            # A position keeps aiokafka from asking for committed offsets.
            consumer.seek(tp, 0)
            consumer.pause(tp)

    def seek(
        self, consumer: aiokafka.AIOKafkaConsumer, partition: TopicPartition, position: int, epoch: int
    ) -> None:
        """Read on from a position; does nothing if the partition is not, or no longer, assigned."""
        tp = KafkaPartition(*partition)
        if internals.is_closed(consumer) or tp not in consumer.assignment():
            return
        consumer.resume(tp)
        consumer.seek(tp, position)
        self._readers.pop(partition, None)
        self._corrupt.pop(partition, None)
        self._epochs[partition] = epoch
        self._handed_out[partition] = position

    def wake(self) -> None:
        """Check again which partitions have room."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def corrupt(self) -> frozenset[TopicPartition]:
        """The partitions whose next batch does not match its checksum; callable from any thread."""
        return frozenset(tuple(self._corrupt))

    async def fetch(self, consumer: aiokafka.AIOKafkaConsumer) -> list[Fetched]:
        """Wait up to a second for batches. Raises the client's pending error: then it cannot go on."""
        deadline = time.monotonic() + _POLL_S
        with internals.fetching(consumer):
            while True:
                if failure := internals.failure(consumer):
                    raise ConsumerStoppedError(failure)
                internals.raise_errors(consumer)
                # The future is made before the look, so that no arrival in between goes unnoticed.
                waiter = self._waiter = internals.something_new(consumer)
                batches = await self._take_buffered(consumer)
                remaining = deadline - time.monotonic()
                if batches or remaining <= 0:
                    waiter.cancel()
                    if batches:
                        self._taken_at = time.monotonic()
                    return batches
                await asyncio.wait([waiter], timeout=remaining)
                if waiter.done():
                    waiter.result()
                else:
                    waiter.cancel()

    async def _take_buffered(self, consumer: aiokafka.AIOKafkaConsumer) -> list[Fetched]:
        batches: list[Fetched] = []
        size_bytes = 0
        for tp, partition, epoch, result in self._buffered(consumer):
            if size_bytes >= self._settings.fetch_max_bytes:
                break
            if isinstance(result, FetchError):
                batches += self._out_of_range(consumer, tp, epoch, result)
                continue
            reader = self._reader(consumer, tp, result)
            if reader is None:
                continue
            try:
                piece = reader.take(self._settings.batch_max_records, self._settings.batch_max_bytes)
            except CorruptRecordException as error:
                self._fetch_again(partition, reader.position, error)
                continue
            if partition in self._corrupt and piece.stop > self._corrupt[partition].position:
                del self._corrupt[partition]
            if reader.exhausted:
                internals.forget(consumer, tp)
            else:
                internals.others_first(consumer, tp)
            internals.advance(consumer, tp, piece.stop)
            start = self._handed_out[partition]
            # Even a batch without records moves the position past aborted records. If the position stayed
            # before them, retention would later seem to have removed unread records.
            if piece.stop <= start:
                continue
            size_bytes += piece.size_bytes
            self._handed_out[partition] = piece.stop
            batch = SourceBatch(
                tp.topic, piece.records, start, piece.stop, piece.size_bytes, piece.unreadable
            )
            batches.append(Fetched(partition, epoch, batch))
        return batches

    def _buffered(
        self, consumer: aiokafka.AIOKafkaConsumer
    ) -> Iterator[tuple[KafkaPartition, TopicPartition, int, FetchResult | FetchError]]:
        for tp, result in internals.buffered(consumer):
            partition = TopicPartition(tp.topic, tp.partition)
            epoch = self._epochs.get(partition)
            if epoch is None or partition not in self._with_room:
                continue
            if not internals.is_buffered(consumer, tp, result):
                continue
            corrupt = self._corrupt.get(partition)
            if corrupt is None or corrupt.retry_at is None:
                yield tp, partition, epoch, result
            elif time.monotonic() >= corrupt.retry_at:
                corrupt.retry_at = None
                internals.forget(consumer, tp)

    def _reader(
        self, consumer: aiokafka.AIOKafkaConsumer, tp: KafkaPartition, result: FetchResult
    ) -> RecordReader | None:
        partition = TopicPartition(tp.topic, tp.partition)
        reader = self._readers.get(partition)
        records = internals.records_of(result)
        if reader is None or reader.fetched is not records:
            if records is None or not result.check_assignment(tp):
                internals.forget(consumer, tp)
                return None
            reader = self._readers[partition] = RecordReader(records, self._decompressor)
        return reader

    def _out_of_range(
        self, consumer: aiokafka.AIOKafkaConsumer, tp: KafkaPartition, epoch: int, error: FetchError
    ) -> list[Fetched]:
        internals.forget(consumer, tp)
        try:
            error.check_raise()
        except OffsetOutOfRangeError:
            consumer.pause(tp)
            return [Fetched(TopicPartition(tp.topic, tp.partition), epoch, None)]
        return []

    def _fetch_again(self, partition: TopicPartition, position: int, error: CorruptRecordException) -> None:
        """Fetch a batch that does not match its checksum once more, after a while."""
        corrupt = self._corrupt.get(partition)
        if corrupt is None or corrupt.position != position:
            corrupt = self._corrupt[partition] = _Corrupt(position, 0, None)
        if corrupt.fetches % _CORRUPT_TOLD_EVERY == 0:
            logger.error(
                "%s-%s cannot be read on: %s (fetched %s times). It was damaged on its way or on a broker's "
                "disk; it is fetched again until it is whole or skipped by hand (runbook source-corrupt)",
                *partition,
                error,
                corrupt.fetches + 1,
            )
        corrupt.fetches += 1
        corrupt.retry_at = time.monotonic() + _CORRUPT_BACKOFF_S
