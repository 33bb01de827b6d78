"""How the answers to a transaction's writes are taken in."""

from __future__ import annotations

import asyncio
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from delaystream.adapters.internals.aiokafka import DefaultRecordBatch
from delaystream.adapters.kafka.connections import TopicMetadata
from delaystream.adapters.operate.preflight_metrics import ClockSkew
from delaystream.adapters.transactions.batches import BatchLimits, Identity
from delaystream.adapters.transactions.settings import ProducerSettings
from delaystream.adapters.transactions.writer import Delivery, TransactionWriter
from delaystream.engine.failures import WriteRefused
from delaystream.engine.ports import Row, TopicPartition


class Brokers:
    """Each leads a topic, and answers everything at the same moment."""

    def __init__(self) -> None:
        self.answering = asyncio.Event()

    async def describe(self, topics: set[str]) -> dict[str, TopicMetadata]:
        return {topic: TopicMetadata(topic, 0, "", (int(topic),)) for topic in topics}

    #: error code, offset, append time, log start, record errors, message
    answer: tuple[Any, ...] = (0, 0, -1, 0, [], None)

    async def request(self, leader: int, lane: str, request: Any) -> Any:
        await self.answering.wait()
        written = [
            (topic, [(partition, *self.answer) for partition, _ in batches])
            for topic, batches in request._topics
        ]
        return SimpleNamespace(topics=written)


class Choosy(Brokers):
    """Takes no batch of more than so many bytes, and does not say which record is at fault."""

    def __init__(self, code: int, most_bytes: int) -> None:
        super().__init__()
        self.answering.set()
        self._code, self._most_bytes = code, most_bytes
        self.taken: list[DefaultRecordBatch] = []

    async def request(self, leader: int, lane: str, request: Any) -> Any:
        answers: list[Any] = [
            (topic, [(number, self._judged(payload), 0, -1, 0, [], None) for number, payload in batches])
            for topic, batches in request._topics
        ]
        return SimpleNamespace(topics=answers)

    def _judged(self, payload: bytes) -> int:
        if len(payload) > self._most_bytes:
            return self._code
        self.taken.append(DefaultRecordBatch(bytes(payload)))
        return 0


@pytest.mark.parametrize(
    "code", [pytest.param(10, id="MESSAGE_TOO_LARGE"), pytest.param(18, id="RECORD_LIST_TOO_LARGE")]
)
def test_a_batch_that_is_too_large_is_split_and_only_a_record_alone_is_at_fault(code: int) -> None:
    async def test() -> None:
        connections: Any = Choosy(code, 5_000)
        bounds = ProducerSettings()
        writer = TransactionWriter(connections, "t", Identity(1, 0), bounds, BatchLimits(1_000_000))
        target = TopicPartition("0", 0)
        await writer.look_up([target])
        small = Delivery(target, [(b"k", b"v" * 1_000, (), 1)] * 50, deque())
        writer.build(small)
        assert len(small.pending) == 1
        await writer.deliver([small])
        assert not small.pending
        large = Delivery(target, [(b"k", b"v" * 10, (), 1), (b"k", b"v" * 6_000, (), 1)], deque())
        writer.build(large)
        with pytest.raises(WriteRefused) as refusal:
            await writer.deliver([large])
        assert (refusal.value.record_at_fault, refusal.value.row) == (True, 1)

    asyncio.run(test())


class Hesitant(Brokers):
    """Refuses the first batch for a moment, and takes any sequence number of a producer it does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.answering.set()
        self.asked = 0
        self.written: list[bytes] = []

    async def request(self, leader: int, lane: str, request: Any) -> Any:
        self.asked += 1
        refused = 19 if self.asked == 1 else 0  # NOT_ENOUGH_REPLICAS
        answers: list[Any] = []
        for topic, batches in request._topics:
            if not refused:
                self.written += [bytes(payload) for _, payload in batches]
            answers.append((topic, [(number, refused, 0, -1, 0, [], None) for number, _ in batches]))
        return SimpleNamespace(topics=answers)


def test_the_first_batch_for_a_partition_is_not_overtaken() -> None:
    """Else the broker begins with the one behind it, and the transaction has to be given up."""

    async def test() -> None:
        brokers = Hesitant()
        connections: Any = brokers
        writer = TransactionWriter(connections, "t", Identity(1, 0), ProducerSettings(), BatchLimits(2_000))
        target = TopicPartition("0", 0)
        await writer.look_up([target])
        delivery = Delivery(target, [(b"k", b"v" * 1_500, (), 1)] * 5, deque())
        writer.build(delivery)
        expected = [bytes(batch.payload) for batch in delivery.pending]
        await writer.deliver([delivery])
        assert brokers.written == expected

    asyncio.run(test())


def test_answers_that_have_arrived_are_taken_in_in_one_go() -> None:
    """In each turn of the event loop another partition may decide for a tenth of a second."""

    async def test() -> None:
        brokers, bounds = Brokers(), ProducerSettings()
        connections: Any = brokers
        writer = TransactionWriter(connections, "t", Identity(1, 0), bounds, BatchLimits(2_000))
        deliveries = []
        for topic in ("0", "1", "2"):
            rows: list[Row] = [(b"k", b"v" * 1_500, (), 1)] * 5
            deliveries.append(Delivery(TopicPartition(topic, 0), rows, deque()))
        await writer.look_up([delivery.target for delivery in deliveries])
        for delivery in deliveries:
            # Not the first that is ever written there, which goes alone.
            writer.sequences.set(delivery.target, 1)
            writer.build(delivery)
            assert len(delivery.pending) == 5
        delivering = asyncio.create_task(writer.deliver(deliveries))
        for _ in range(20):
            await asyncio.sleep(0)
        brokers.answering.set()
        turns = 0
        while not delivering.done():
            await asyncio.sleep(0)
            turns += 1
        await delivering
        assert turns <= 6

    asyncio.run(test())


@pytest.mark.parametrize(
    ("skew_ms", "said"),
    [
        (-7_200_000, "this worker's clock is 7200 s behind that of broker 3"),
        (90_000, "this worker's clock is 90 s ahead of that of broker 3"),
        (400, "although the clocks agree"),
        (None, "this worker's clock and the broker's differ by more than"),
    ],
)
def test_a_refused_timestamp_is_blamed_on_the_clock_and_names_the_skew(
    skew_ms: int | None, said: str
) -> None:
    """INVALID_TIMESTAMP names a record (KIP-467), but all records carry the time of writing."""

    async def test() -> None:
        brokers: Any = Brokers()
        brokers.answer = (32, -1, -1, 0, [(0, "Timestamp 1 of message with offset 0 is out of range")], "x")
        brokers.answering.set()
        clocks = ClockSkew()
        if skew_ms is not None:
            clocks.appended(3, 10_000_000, 10_000_000, 10_000_000 - skew_ms)
        writer = TransactionWriter(
            brokers, "t", Identity(1, 0), ProducerSettings(), BatchLimits(2_000), clocks
        )
        delivery = Delivery(TopicPartition("3", 0), [(b"k", b"v", (), 1)], deque())
        await writer.look_up([delivery.target])
        writer.build(delivery)
        with pytest.raises(WriteRefused) as caught:
            await writer.deliver([delivery])
        assert not caught.value.record_at_fault
        assert said in caught.value.reason
        assert "message.timestamp.before.max.ms" in caught.value.reason

    asyncio.run(test())


def test_rows_that_gather_with_the_writer_are_encoded_once_and_split_like_others() -> None:
    async def test() -> None:
        connections: Any = Choosy(10, 5_000)
        writer = TransactionWriter(
            connections, "t", Identity(1, 0), ProducerSettings(), BatchLimits(1_000_000)
        )
        target = TopicPartition("0", 0)
        await writer.look_up([target])
        rows = writer.accumulator(target)
        for number in range(50):
            rows.append((b"%d" % number, b"v" * 1_000, [], 1))
        delivery = Delivery(target, rows, deque())
        writer.build(delivery)
        assert [*delivery.pending] == rows.batches()
        await writer.deliver([delivery])
        assert not delivery.pending
        assert writer.sequences.next(target) == 50
        numbers: list[bytes | None] = []
        for batch in connections.taken:
            assert batch.base_sequence == len(numbers)
            numbers += [record.key for record in batch]
        assert numbers == [b"%d" % number for number in range(50)]

    asyncio.run(test())


@pytest.mark.parametrize("late", ["another producer's", "of an earlier transaction"])
def test_rows_that_gathered_for_something_else_are_encoded_anew(late: str) -> None:
    """The broker refuses sequence numbers that it has seen, and another producer's identity."""
    connections: Any = Brokers()
    bounds, limits = ProducerSettings(), BatchLimits(1_000_000)
    writer = TransactionWriter(connections, "t", Identity(1, 0), bounds, limits)
    target = TopicPartition("0", 0)
    rows = writer.accumulator(target)
    rows.append((b"k", b"v", [], 1))
    if late == "another producer's":
        writer = TransactionWriter(connections, "t", Identity(1, 1), bounds, limits)
    else:
        writer.build(Delivery(target, rows, deque()))
    delivery = Delivery(target, rows, deque())
    writer.build(delivery)
    [batch] = delivery.pending
    found = DefaultRecordBatch(bytes(batch.payload))
    expected = (1, 0) if late == "another producer's" else (0, 1)
    assert (found.producer_epoch, found.base_sequence) == expected
    assert [(record.key, record.value) for record in found] == [(b"k", b"v")]
