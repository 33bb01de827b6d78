"""How the answers to a transaction's writes are taken in."""

from __future__ import annotations

import asyncio
from collections import deque
from types import SimpleNamespace
from typing import Any

from delaystream.adapters.kafka_batches import BatchLimits, Identity
from delaystream.adapters.kafka_connections import TopicMetadata
from delaystream.adapters.producer_settings import ProducerSettings
from delaystream.adapters.transaction_writer import Delivery, TransactionWriter
from delaystream.engine.ports import TopicPartition


class Brokers:
    """Each leads a topic, and answers everything at the same moment."""

    def __init__(self) -> None:
        self.answering = asyncio.Event()

    async def describe(self, topics: set[str]) -> dict[str, TopicMetadata]:
        return {topic: TopicMetadata(topic, 0, "", (int(topic),)) for topic in topics}

    async def request(self, leader: int, lane: str, request: Any) -> Any:
        await self.answering.wait()
        written = [
            (topic, [(partition, 0, 0, -1, 0, [], None) for partition, _ in batches])
            for topic, batches in request._topics
        ]
        return SimpleNamespace(topics=written)


def test_answers_that_have_arrived_are_taken_in_in_one_go() -> None:
    """In each turn of the event loop another partition may decide for a tenth of a second."""

    async def test() -> None:
        brokers, bounds = Brokers(), ProducerSettings()
        connections: Any = brokers
        writer = TransactionWriter(connections, "t", Identity(1, 0), bounds, BatchLimits(2_000))
        deliveries = []
        for topic in ("0", "1", "2"):
            rows = [(b"k", b"v" * 1_500, (), 1)] * 5
            deliveries.append(Delivery(TopicPartition(topic, 0), rows, deque()))
        await writer.look_up([delivery.target for delivery in deliveries])
        for delivery in deliveries:
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
