"""The writes of a transaction: rows become batches, batches go to leaders, and every answer is awaited."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

import msgspec

from delaystream.adapters.kafka.connections import CONNECTION_ERRORS, NO_LEADER, KafkaConnections
from delaystream.adapters.kafka.errors import reason as told_reason
from delaystream.adapters.kafka.errors import told
from delaystream.adapters.kafka.protocol import Produce
from delaystream.adapters.tasks import end
from delaystream.adapters.transactions.batches import (
    Batch,
    BatchLimits,
    EncodedRows,
    Encoding,
    Identity,
    Sequences,
    decoded,
)
from delaystream.adapters.transactions.coordinator import FENCED, topic_refused
from delaystream.adapters.transactions.settings import ProducerSettings
from delaystream.engine.failures import ProducerFenced, TransactionFailed, WriteRefused
from delaystream.engine.ports import Accumulator, Row, TopicPartition

_OK: Final = 0
_UNKNOWN_TOPIC: Final = 3
_TOPIC_AUTHORIZATION_FAILED: Final = 29
_MESSAGE_TOO_LARGE: Final = 10
# MESSAGE_TOO_LARGE, and RECORD_LIST_TOO_LARGE: more than a segment of the topic
_BATCH_TOO_LARGE: Final = frozenset({_MESSAGE_TOO_LARGE, 18})
_INVALID_TIMESTAMP: Final = 32
# CORRUPT_MESSAGE, MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE, UNSUPPORTED_FOR_MESSAGE_FORMAT, INVALID_RECORD
_RECORD_AT_FAULT: Final = frozenset({2, *_BATCH_TOO_LARGE, 43, 87})
# INVALID_TOPIC_EXCEPTION, TOPIC_AUTHORIZATION_FAILED, POLICY_VIOLATION
_TOPIC_AT_FAULT: Final = frozenset({17, _TOPIC_AUTHORIZATION_FAILED, 44})
# Passing errors of leaders, replicas and the verification of transactions (KIP-890): UNKNOWN_TOPIC,
# LEADER_NOT_AVAILABLE, NOT_LEADER, REQUEST_TIMED_OUT, REPLICA_NOT_AVAILABLE, NETWORK_EXCEPTION,
# COORDINATOR_*, NOT_ENOUGH_REPLICAS[_AFTER_APPEND], CONCURRENT_TRANSACTIONS, KAFKA_STORAGE_ERROR, FENCED_ and
# UNKNOWN_LEADER_EPOCH
_PASSING: Final = frozenset({_UNKNOWN_TOPIC, 5, 6, 7, 9, 13, 14, 15, 16, 19, 20, 51, 56, 74, 75})
# those after which the leader may have changed: all but NOT_ENOUGH_REPLICAS and the coordinators'
_LEADER_MOVED: Final = frozenset({_UNKNOWN_TOPIC, 5, 6, 7, 9, 13, 56, 74, 75})
_NETWORK_EXCEPTION: Final = 13

#: most requests on the way to one leader; a broker recognises repetitions among a producer's last five
#: batches
_MAX_IN_FLIGHT: Final = 5
_PURPOSE: Final = "data"
#: in an answer: the topic's records carry their producer's time, not the broker's
_NO_APPEND_TIME: Final = -1

#: up to this skew, in ms, the clocks agree: a refusal then means that the broker's limit is too narrow
_CLOCKS_AGREE_MS: Final = 1_000


class BrokerClocks(Protocol):
    """Compares our clock with the brokers'."""

    def appended(self, broker: int, sent_ms: int, answered_ms: int, append_ms: int) -> None:
        """Take the times of one request: sent and answered by our clock, appended by the broker's; in ms."""
        ...

    def skew_ms(self, broker: int) -> int | None:
        """How far our clock is ahead of a broker's (negative: behind); None if it is unknown."""
        ...


class Delivery(msgspec.Struct):
    """The rows for one partition that are being written."""

    target: TopicPartition
    rows: Accumulator
    pending: deque[Batch]
    last_offset: int = -1
    #: error code of the first batch of a wave that was not written; 0 for none
    failed: int = 0
    detail: str | None = None


class TransactionWriter:
    """Writes for one producer identity; knows leaders and sequence numbers.

    The caller's timeout is its only bound in time. ``clocks`` gets the append times in the brokers' answers,
    at most one for each request, and explains why a broker refuses a timestamp.
    """

    def __init__(
        self,
        connections: KafkaConnections,
        transactional_id: str,
        identity: Identity,
        bounds: ProducerSettings,
        limits: BatchLimits,
        clocks: BrokerClocks | None = None,
    ) -> None:
        self._connections = connections
        self._transactional_id = transactional_id
        self._identity = identity
        self._bounds = bounds
        self._limits = limits
        self._clocks = clocks
        self._compression = bounds.compression_codec
        self._leaders: dict[str, tuple[int, ...]] = {}
        self.sequences = Sequences()

    async def look_up(self, targets: Iterable[TopicPartition]) -> None:
        """Look up the unknown leaders. Raises WriteRefused when there is no such partition."""
        wanted = [target for target in targets if self._leader(target) == NO_LEADER]
        backoff = self._bounds.backoff()
        while wanted:
            with contextlib.suppress(*CONNECTION_ERRORS):
                described = await self._connections.describe({target.topic for target in wanted})
                for target in wanted:
                    topic = described[target.topic]
                    if topic.error_code in {_UNKNOWN_TOPIC, *_TOPIC_AT_FAULT}:
                        reason = topic_refused(target.topic, topic.error_code)
                        raise WriteRefused(*target, reason, record_at_fault=False)
                    if topic.error_code == _OK and target.partition >= len(topic.leaders):
                        reason = f"the topic has {len(topic.leaders)} partitions"
                        raise WriteRefused(*target, reason, record_at_fault=False)
                    if topic.error_code == _OK:
                        self._leaders[target.topic] = topic.leaders
                wanted = [target for target in wanted if self._leader(target) == NO_LEADER]
                if not wanted:
                    return
            await backoff.pause()

    def has_leader(self, target: TopicPartition) -> bool:
        """Whether a leader is known."""
        return self._leader(target) != NO_LEADER

    def _leader(self, target: TopicPartition) -> int:
        leaders = self._leaders.get(target.topic, ())
        return leaders[target.partition] if target.partition < len(leaders) else NO_LEADER

    def accumulator(self, target: TopicPartition) -> EncodedRows:
        """Where rows for a partition gather, as the batches that come after those built so far."""
        encoding = Encoding(self._identity, self._limits.of(target.topic), self._compression)
        return EncodedRows(target, encoding, self.sequences.next(target))

    def build(self, delivery: Delivery) -> None:
        """Make batches of the rows. Raises WriteRefused for one that cannot be written."""
        rows, target = delivery.rows, delivery.target
        if not (type(rows) is EncodedRows and self._next(rows)):
            # Of somebody who has no accumulator, or one from before: the broker would refuse its batches.
            rows = self._encoded(rows, self.accumulator(target))
        self._take(delivery, rows.batches())
        last = delivery.pending[-1]
        self.sequences.set(target, last.sequence + last.count)

    def _next(self, rows: EncodedRows) -> bool:
        """Whether rows are encoded as the next ones of this producer."""
        return rows.encoding.identity == self._identity and rows.sequence == self.sequences.next(rows.target)

    def _build_smaller(self, delivery: Delivery) -> None:
        """Make smaller batches of the unwritten rows, with the sequence numbers that they have."""
        pending, target = delivery.pending, delivery.target
        encoding = Encoding(self._identity, self._limits.of(target.topic), self._compression)
        smaller = EncodedRows(target, encoding, pending[0].sequence, pending[0].first)
        self._take(delivery, self._encoded(decoded(pending), smaller).batches())

    @staticmethod
    def _encoded(rows: Iterable[Row], encoded: EncodedRows) -> EncodedRows:
        for row in rows:
            encoded.append(row)
        return encoded

    def _take(self, delivery: Delivery, batches: list[Batch]) -> None:
        for batch in batches:
            if batch.count == 1 and len(batch.payload) > self._bounds.max_record_bytes:
                reason = f"the record has {len(batch.payload)} bytes, more than a request may hold"
                raise WriteRefused(*delivery.target, reason, record_at_fault=True, row=batch.first)
        delivery.pending = deque(batches)

    async def deliver(self, deliveries: list[Delivery]) -> None:
        """Write every batch. Raises WriteRefused, ProducerFenced or TransactionFailed."""
        in_flight = _MAX_IN_FLIGHT
        backoff = self._bounds.backoff()
        unwritten = deliveries
        while unwritten:
            await self._send_wave(unwritten, in_flight)
            unwritten = [delivery for delivery in unwritten if delivery.pending]
            failed = [delivery for delivery in unwritten if delivery.failed]
            for delivery in failed:
                self._judge(delivery)
            if failed:
                # From here on one at a time: a batch that follows a missing one is refused as out of order.
                in_flight = 1
                await backoff.pause()
                await self.look_up(delivery.target for delivery in failed)

    async def _send_wave(self, deliveries: list[Delivery], in_flight: int) -> None:
        """Send up to ``in_flight`` batches of each partition, and await every answer."""
        sent: list[tuple[int, dict[TopicPartition, tuple[Delivery, Batch]], asyncio.Task[Any]]] = []
        for delivery in deliveries:
            delivery.failed = _OK
        try:
            # When the broker recognises a repetition, its answer has the append time of the original.
            clocks = self._clocks if in_flight == _MAX_IN_FLIGHT else None
            for place in range(in_flight):
                by_leader: dict[int, dict[TopicPartition, tuple[Delivery, Batch]]] = {}
                for delivery in deliveries:
                    if place < _in_flight(delivery, in_flight):
                        batches = by_leader.setdefault(self._leader(delivery.target), {})
                        batches[delivery.target] = (delivery, delivery.pending[place])
                for leader, batches in by_leader.items():
                    # Tasks start in the order of their creation, so requests to one leader stay in order.
                    sent.append(
                        (leader, batches, asyncio.create_task(self._produce(leader, batches, clocks)))
                    )
            for leader, batches, task in sent:
                # The task's exception must not pass through this frame, see `end`. A finished task is not
                # awaited: that would take two turns of the event loop, in which other partitions decide.
                if not task.done():
                    await asyncio.wait([task])
                error = task.exception()
                if error is None:
                    self._take_answers(batches, task.result())
                elif isinstance(error, CONNECTION_ERRORS):
                    self._connections.forget(leader, _PURPOSE)
                    for delivery, _ in batches.values():
                        self._take_failure(delivery, _NETWORK_EXCEPTION, told_reason(error))
                else:
                    raise error
        finally:
            await end([task for _, _, task in sent])

    async def _produce(
        self,
        leader: int,
        batches: Mapping[TopicPartition, tuple[Delivery, Batch]],
        clocks: BrokerClocks | None,
    ) -> Any:
        topics: dict[str, list[tuple[int, bytearray]]] = {}
        for (topic, partition), (_, batch) in batches.items():
            topics.setdefault(topic, []).append((partition, batch.payload))
        request = Produce(self._transactional_id, self._bounds.request_timeout_ms, list(topics.items()))
        sent_ms = time.time_ns() // 1_000_000
        response = await self._connections.request(leader, _PURPOSE, request)
        if clocks is not None and (append_ms := _append_time_ms(response)) != _NO_APPEND_TIME:
            clocks.appended(leader, sent_ms, time.time_ns() // 1_000_000, append_ms)
        return response

    def _take_answers(self, batches: Mapping[TopicPartition, tuple[Delivery, Batch]], response: Any) -> None:
        for topic, partitions in response.topics:
            for partition, code, offset, _, _, record_errors, message in partitions:
                delivery, batch = batches[TopicPartition(topic, partition)]
                if code != _OK:
                    self._take_failure(delivery, code, message)
                    # Every record has the same time of writing, so that is judged when all answers are in.
                    if record_errors and delivery.pending[0] is batch and code != _INVALID_TIMESTAMP:
                        self._refuse(
                            delivery, record_errors[0][1] or message, batch.first + record_errors[0][0]
                        )
                elif delivery.failed or delivery.pending[0] is not batch:
                    raise TransactionFailed(f"{delivery.target}: records were written out of order")
                else:
                    delivery.pending.popleft()
                    delivery.last_offset = offset + batch.count - 1

    def standing(self, delivery: Delivery) -> str:
        """Why a partition has not taken everything yet, as a part of a sentence."""
        if delivery.failed:
            return delivery.detail or told(delivery.failed)
        return "the broker has not answered" if self.has_leader(delivery.target) else "no leader"

    def _take_failure(self, delivery: Delivery, code: int, detail: str | None) -> None:
        if not delivery.failed:
            delivery.failed, delivery.detail = code, detail

    def _judge(self, delivery: Delivery) -> None:
        """Prepare another attempt, or raise if another attempt cannot help."""
        code, batch, target = delivery.failed, delivery.pending[0], delivery.target
        if code in _BATCH_TOO_LARGE and batch.count > 1:
            self._limits.refused(target.topic, len(batch.payload))
            self._build_smaller(delivery)
        elif code in _RECORD_AT_FAULT:
            self._refuse(delivery, delivery.detail, batch.first if batch.count == 1 else None)
        elif code == _INVALID_TIMESTAMP:
            # Every record carries the time of writing by our clock, so every other record would be refused,
            # too.
            reason = timestamp_refused(*self._broker_and_skew(target))
            raise WriteRefused(*target, reason, record_at_fault=False)
        elif code in _TOPIC_AT_FAULT:
            reason = delivery.detail or topic_refused(target.topic, code)
            raise WriteRefused(*target, reason, record_at_fault=False)
        elif code in FENCED:
            raise ProducerFenced(f"{target}: {told(code)}")
        elif code not in _PASSING:
            raise TransactionFailed(f"{target}: {delivery.detail or told(code)}")
        elif code in _LEADER_MOVED:
            self._leaders.pop(target.topic, None)

    def _broker_and_skew(self, target: TopicPartition) -> tuple[int, int | None]:
        broker = self._leader(target)
        return broker, None if self._clocks is None else self._clocks.skew_ms(broker)

    def _refuse(self, delivery: Delivery, detail: str | None, row: int | None) -> None:
        reason = detail or told(delivery.failed)
        raise WriteRefused(*delivery.target, reason, record_at_fault=True, row=row)


def timestamp_refused(broker: int, skew_ms: int | None) -> str:
    """Why a broker refused our time of writing, as a part of a sentence.

    The text has the skew in whole seconds, and no other figure that changes from one attempt to the next.
    """
    limits = "message.timestamp.before.max.ms or message.timestamp.after.max.ms of the topic"
    if skew_ms is None:
        return (
            f"broker {broker} refused the time of writing as a timestamp: this worker's clock and the "
            f"broker's differ by more than {limits} allows"
        )
    if abs(skew_ms) < _CLOCKS_AGREE_MS:
        return (
            f"broker {broker} refused the time of writing as a timestamp although the clocks agree: {limits} "
            "is too small"
        )
    side = "ahead of" if skew_ms > 0 else "behind"
    return (
        f"this worker's clock is {abs(skew_ms) / 1000:.0f} s {side} that of broker {broker}, "
        f"more than {limits} allows"
    )


def _in_flight(delivery: Delivery, most: int) -> int:
    """How many batches of a partition may be on the way at once.

    The first batch that a producer ever writes to a partition goes alone. A broker that does not know the
    producer yet accepts any sequence number as its first. If it refused the first batch for a moment, it
    would write the next one in its place.
    """
    return min(len(delivery.pending), 1 if delivery.pending and delivery.pending[0].sequence == 0 else most)


def _append_time_ms(response: Any) -> int:
    """The append time of the first partition that has one; a request is appended all at once."""
    for _, partitions in response.topics:
        for _, code, _, append_ms, *_ in partitions:
            if code == _OK and append_ms != _NO_APPEND_TIME:
                return int(append_ms)
    return _NO_APPEND_TIME
