"""The ports' adapters on a real broker, as a world for the cases."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack

import aiokafka
from aiokafka.structs import TopicPartition as KafkaPartition
from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka import TopicPartition as GroupPartition

from delaystream.adapters.kafka.changelog import AiokafkaChangelog, ChangelogSettings
from delaystream.adapters.kafka.metadata import KafkaDestinations
from delaystream.adapters.transactions.producer import AiokafkaTransactionalProducer
from delaystream.engine.ports import Row, Sources, TopicPartition
from tests.conformance.world import GROUP, Read
from tests.integration.harness_kafka import Kafka
from tests.integration.kafka_abandoned import abandon_transaction

_NO_OFFSET = -1001


def run_on_broker(bootstrap: str, case: Callable[[BrokerWorld], Coroutine[None, None, None]]) -> None:
    """Run a case on the broker; what it leaves open is closed, and then no task may be left."""

    async def run() -> None:
        world = BrokerWorld(bootstrap)
        try:
            async with asyncio.timeout(150):
                await case(world)
        finally:
            await world.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())


class BrokerWorld:
    """A broker by its bootstrap servers."""

    def __init__(self, bootstrap: str) -> None:
        self._kafka = Kafka(bootstrap)
        self._settings = {"bootstrap_servers": bootstrap}
        self._open = AsyncExitStack()

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
        # The cases' timestamps lie in the past: retention would take the records for old.
        config = {"retention_ms": "-1"} | ({"cleanup_policy": "compact"} if compacted else {})
        if append_time:
            config["message_timestamp_type"] = "LogAppendTime"
        if max_message_bytes is not None:
            config["max_message_bytes"] = str(max_message_bytes)
        if timestamp_before_max_ms is not None:
            config["message_timestamp_before_max_ms"] = str(timestamp_before_max_ms)
        if timestamp_after_max_ms is not None:
            config["message_timestamp_after_max_ms"] = str(timestamp_after_max_ms)
        await asyncio.to_thread(self._kafka.create, name, partitions, config)

    async def delete_topic(self, name: str) -> None:
        await asyncio.to_thread(self._kafka.delete, name)

    async def append(self, at: TopicPartition, rows: Sequence[Row]) -> None:
        for key, value, headers, timestamp_ms in rows:
            await asyncio.to_thread(
                self._kafka.produce,
                at.topic,
                [(key, value, headers)],
                partition=at.partition,
                timestamp_ms=timestamp_ms,
            )

    async def open_transaction(self, transactional_id: str, at: TopicPartition, rows: Sequence[Row]) -> None:
        await abandon_transaction(self._settings, transactional_id, {at: list(rows)})

    async def read(self, at: TopicPartition, *, committed: bool = True) -> list[Read]:
        consumer = aiokafka.AIOKafkaConsumer(
            bootstrap_servers=self._settings["bootstrap_servers"],
            isolation_level="read_committed" if committed else "read_uncommitted",
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            changelog = await self.changelog(at.topic, at.partition)
            await self.until(lambda: _settled(changelog))
            end = (await changelog.bounds()).end
            partition = KafkaPartition(*at)
            consumer.assign([partition])
            await consumer.seek_to_beginning(partition)
            found: list[Read] = []
            while await consumer.position(partition) < end:
                batches = await consumer.getmany(timeout_ms=100)
                for record in batches.get(partition, []):
                    found.append(
                        Read(record.offset, record.key, record.value, tuple(record.headers), record.timestamp)
                    )
            return found
        finally:
            await consumer.stop()

    async def group_offset(self, at: TopicPartition) -> int | None:
        offset = await asyncio.to_thread(self._stable_offset, at)
        return None if offset == _NO_OFFSET else offset

    def _stable_offset(self, at: TopicPartition) -> int:
        """Waits for the markers of transactions that committed offsets (KIP-447)."""
        request = [ConsumerGroupTopicPartitions(GROUP, [GroupPartition(*at)])]
        [answer] = self._kafka.admin.list_consumer_group_offsets(
            request, require_stable=True, request_timeout=30
        ).values()
        [found] = answer.result(30).topic_partitions
        return int(found.offset)

    async def compact(self, at: TopicPartition) -> None:
        """Have everything so far in a closed segment, and wait until the cleaner has been there."""
        before = len(await self.read(at))
        await asyncio.to_thread(
            self._kafka.configure, at.topic, segment_ms="50", min_cleanable_dirty_ratio="0.001"
        )

        async def cleaned() -> bool:
            # An aborted transaction begins a new segment, and nobody reads it.
            await asyncio.sleep(0.2)
            await self.open_transaction("conformance-filler", at, [(b"filler", b"", [], 1_700_000_000_000)])
            producer = self.producer("conformance-filler")
            await producer.fence()
            await producer.close()
            await asyncio.sleep(0.5)
            return len(await self.read(at)) < before

        await self.until(cleaned)

    async def trim(self, at: TopicPartition, start: int) -> None:
        await asyncio.to_thread(self._kafka.trim, at.topic, at.partition, start)

    async def until(self, condition: Callable[[], Coroutine[None, None, bool]]) -> None:
        async with asyncio.timeout(60):
            while not await condition():  # noqa: ASYNC110 - it asks the broker
                await asyncio.sleep(0.05)

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def producer(self, transactional_id: str) -> AiokafkaTransactionalProducer:
        producer = AiokafkaTransactionalProducer(self._settings, transactional_id, GROUP)
        self._open.push_async_callback(producer.close)
        return producer

    async def changelog(self, topic: str, partition: int = 0) -> AiokafkaChangelog:
        # Small fetches, so that a read is of several, and short waits at the end.
        bounds = ChangelogSettings(fetch_max_bytes=500, fetch_max_wait_ms=50)
        changelog = await AiokafkaChangelog.open(self._settings, topic, partition, bounds)
        self._open.push_async_callback(changelog.close)
        return changelog

    def destinations(self) -> KafkaDestinations:
        destinations = KafkaDestinations(self._settings)
        self._open.push_async_callback(destinations.close)
        return destinations

    def sources(self, topics: Sequence[str]) -> Sources | None:
        """They come with a whole worker."""
        return None

    async def close(self) -> None:
        await self._open.aclose()


async def _settled(changelog: AiokafkaChangelog) -> bool:
    bounds = await changelog.bounds()
    return bounds.stable == bounds.end
