"""Markers that a broker left out: the next transaction of the same id ends what they should have ended.

Lost markers cannot be had on demand. A write to a partition that the coordinator was not told of leaves the
same behind: its transaction is completed, and the partition holds it open.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from delaystream.adapters.transactions.coordinator import Backoff
from delaystream.adapters.transactions.lost_markers import ProducerMemory
from delaystream.adapters.transactions.producer import AiokafkaTransactionalProducer
from delaystream.adapters.transactions.writer import Delivery
from delaystream.dev import EmbeddedBroker
from delaystream.engine.ports import Row, TopicPartition, Transaction
from tests.integration.harness_kafka import Kafka

_UNVERIFIED = {"transaction.partition.verification.enable": "false"}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    """A broker that lets records into partitions that are not part of their transaction (before KIP-890)."""
    broker = EmbeddedBroker(tmp_path_factory.mktemp("broker"), properties=_UNVERIFIED)
    try:
        yield broker.start()
    finally:
        broker.kill()


class Story:
    """One transactional id, its changelog and some destinations."""

    def __init__(self, broker: EmbeddedBroker, name: str) -> None:
        self.kafka = Kafka(broker.bootstrap_servers)
        self.name = name
        self.changelog, self.healthy, self.bereft, self.other = (
            TopicPartition(self.kafka.create(f"{name}-{kind}"), 0)
            for kind in ("changelog", "healthy", "bereft", "other")
        )

    def run(self, told: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(60):
                await told()

        asyncio.run(bounded())

    async def producer(self, memory: ProducerMemory | None = None) -> AiokafkaTransactionalProducer:
        producer = AiokafkaTransactionalProducer(
            {"bootstrap_servers": self.kafka.bootstrap},
            self.name,
            "group",
            swept=self.changelog,
            memory=memory,
        )
        await producer.fence()
        # The fence's own markers are written by the time that another transaction has begun.
        await producer.commit(Transaction({self.other: [row(b"0")]}, {}))
        return producer

    async def write_behind(self, producer: AiokafkaTransactionalProducer, target: TopicPartition) -> None:
        """A record that belongs to the producer's transaction, though the coordinator does not know."""
        writer = producer._writer
        assert writer is not None
        delivery = Delivery(target, [row(b"behind")], deque())
        await writer.look_up([target])
        writer.build(delivery)
        await writer.deliver([delivery])

    def held_up(self, target: TopicPartition) -> bool:
        """Whether readers wait for the end of a transaction there."""
        return self.kafka.stable_offsets(target.topic) != self.kafka.end_offsets(target.topic)

    def values(self, target: TopicPartition, count: int) -> list[bytes | None]:
        return [delivery.value for delivery in self.kafka.read(target.topic, count)]


def row(value: bytes) -> Row:
    return (b"k", value, [], 1)


def test_a_commit_without_a_marker_stays_a_commit(broker: EmbeddedBroker) -> None:
    """In another process too, on the changelog: what was confirmed must not be undone."""
    story = Story(broker, "committed")

    async def told() -> None:
        producer = await story.producer()
        await story.write_behind(producer, story.changelog)
        await producer.commit(Transaction({story.healthy: [row(b"1")]}, {}))
        await producer.close()
        assert story.held_up(story.changelog)
        await (await story.producer()).close()

    story.run(told)
    assert story.values(story.changelog, 1) == [b"behind"]
    assert not story.held_up(story.changelog)


def test_an_abort_without_a_marker_stays_an_abort(broker: EmbeddedBroker) -> None:
    """What was given up must not come back with the next commit, on the changelog or beside it."""
    story = Story(broker, "aborted")

    async def told() -> None:
        memory = ProducerMemory()
        producer = await story.producer(memory)
        await producer._lost_markers.begin(producer._identity, frozenset([story.healthy]), Backoff(1, 100))
        await story.write_behind(producer, story.changelog)
        await story.write_behind(producer, story.bereft)
        await producer._coordinator.end(producer._identity, commit=False)
        memory.partitions |= {story.bereft}
        await producer.close()
        successor = await story.producer(memory)
        writes = {target: [row(b"2")] for target in (story.changelog, story.healthy, story.bereft)}
        await successor.commit(Transaction(writes, {}))
        await successor.close()

    story.run(told)
    for target in (story.changelog, story.healthy, story.bereft):
        assert story.values(target, 1) == [b"2"]


def test_a_destination_is_ended_as_its_transaction_was(broker: EmbeddedBroker) -> None:
    """By the next producer of the process, which knows where the one before it wrote to."""
    story = Story(broker, "destination")

    async def told() -> None:
        memory = ProducerMemory()
        producer = await story.producer(memory)
        await producer.commit(Transaction({story.healthy: [row(b"1")]}, {}))
        await story.write_behind(producer, story.bereft)
        await producer.commit(Transaction({story.healthy: [row(b"2")]}, {}))
        memory.partitions |= {story.bereft}
        await producer.close()
        await (await story.producer(memory)).close()

    story.run(told)
    assert story.values(story.bereft, 1) == [b"behind"]
    assert not story.held_up(story.bereft)


def test_a_producer_that_lost_a_connection_makes_sure_of_its_last_transaction(broker: EmbeddedBroker) -> None:
    """Before it writes anything else: what fails next must not take with it what was committed."""
    story = Story(broker, "connection")

    async def told() -> None:
        memory = ProducerMemory()
        producer = await story.producer(memory)
        await story.write_behind(producer, story.bereft)
        await producer.commit(Transaction({story.healthy: [row(b"1")]}, {}))
        memory.partitions |= {story.bereft}
        for connection in producer._connections._open.values():
            connection.close()
        await producer.commit(Transaction({story.healthy: [row(b"2")]}, {}))
        await producer.close()

    story.run(told)
    assert story.values(story.bereft, 1) == [b"behind"]
    assert story.values(story.healthy, 2) == [b"1", b"2"]
    assert not story.held_up(story.bereft)


def test_nothing_is_written_before_the_last_marker_was_seen(broker: EmbeddedBroker) -> None:
    """A broker that shuts down takes one more transaction after it left out the last one's markers."""
    story = Story(broker, "unseen")

    async def told() -> None:
        memory = ProducerMemory()
        producer = await story.producer(memory)
        await story.write_behind(producer, story.changelog)
        await producer.commit(Transaction({story.healthy: [row(b"1")]}, {}))
        memory.partitions |= {story.changelog}
        producer._lost_markers.committed(
            {story.changelog: story.kafka.end_offsets(story.changelog.topic)[0] - 1}
        )
        await producer._lost_markers.begin(producer._identity, frozenset([story.changelog]), Backoff(1, 100))
        await story.write_behind(producer, story.changelog)
        await producer._coordinator.end(producer._identity, commit=False)
        await producer.close()
        await (await story.producer(memory)).close()

    story.run(told)
    assert story.values(story.changelog, 1) == [b"behind"]
    assert not story.held_up(story.changelog)
    with pytest.raises(AssertionError, match="1 of 2"):
        story.kafka.read(story.changelog.topic, 2, seconds=2)


def test_traces_of_before_another_owner_are_not_followed(broker: EmbeddedBroker) -> None:
    """What the other one wrote last says nothing of what we did."""
    story = Story(broker, "overtaken")

    async def told() -> None:
        memory = ProducerMemory()
        ours = await story.producer(memory)
        await ours._lost_markers.begin(ours._identity, frozenset([story.healthy]), Backoff(1, 100))
        await story.write_behind(ours, story.bereft)
        memory.partitions |= {story.bereft}
        other = await story.producer()
        await other.commit(Transaction({story.healthy: [row(b"1")]}, {}))
        await other.close()
        await ours.close()
        again = await story.producer(memory)
        assert story.bereft not in memory.partitions
        await again.commit(Transaction({story.healthy: [row(b"2")]}, {}))
        await again.close()

    story.run(told)
    # Nobody can know any more how it was to be ended; it was not committed along with another's transaction.
    assert story.held_up(story.bereft)
