"""A Kafka as the tests see it: topics, ordinary producers, ordinary read_committed readers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
)

from delaystream.adapters.kafka.connections import KafkaConnections
from delaystream.adapters.kafka.protocol import Produce
from delaystream.client.kafka.deliveries import headers_of
from tests.unit.record_batches import raw_batch, record

_PASSING = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)
"""What may be otherwise in a moment."""

Headers = Sequence[tuple[str, bytes | None]]


class Delivery(NamedTuple):
    """A record as a reader received it; ``timestamp_ms`` is the append time where the topic says so."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp_ms: int
    received_ms: int

    def header(self, name: str) -> bytes | None:
        """The value of the only header of this name; KeyError when it is missing or repeated."""
        values = [value for header, value in self.headers if header == name]
        if len(values) != 1:
            raise KeyError(f"{name!r} occurs {len(values)} times in {[name for name, _ in self.headers]}")
        return values[0]

    def text(self, name: str) -> str:
        """The header's value as text."""
        value = self.header(name)
        assert value is not None, name
        return value.decode()

    @property
    def foreign(self) -> list[tuple[str, bytes | None]]:
        """The headers that are not delaystream's own."""
        return [header for header in self.headers if not header[0].startswith("delaystream-")]


class Reader:
    """A reader of whole topics, from their beginning, in no group."""

    def __init__(self, bootstrap: str, topics: Mapping[str, int], isolation: str = "read_committed") -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "reader",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": isolation,
                "fetch.wait.max.ms": 50,
                "fetch.message.max.bytes": 4 * 1024 * 1024,
                "topic.metadata.refresh.interval.ms": 1_000,
                "reconnect.backoff.max.ms": 500,
            }
        )
        partitions = [(topic, number) for topic, count in topics.items() for number in range(count)]
        #: partitions of which something may be there that was not read yet
        self._unread = set(partitions)
        self._consumer.assign([TopicPartition(*partition, OFFSET_BEGINNING) for partition in partitions])

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    @property
    def at_end(self) -> bool:
        """Whether all was read that was there when it was last asked for."""
        return not self._unread

    def poll(self, seconds: float) -> list[Delivery]:
        """What arrives next; waits at most so long for the first of it. None of it may have come yet."""
        first = self._consumer.poll(seconds)
        if first is None:
            return []
        received_ms = int(time.time() * 1000)
        arrived = []
        for message in (first, *self._consumer.consume(1_000, timeout=0)):
            error = message.error()
            if error is None:
                delivery = self._delivery(message, received_ms)
                self._unread.add((delivery.topic, delivery.partition))
                arrived.append(delivery)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._unread.discard((message.topic(), message.partition()))
            elif error.fatal():
                # What is not fatal, librdkafka gets over by itself.
                raise KafkaException(error)
        return arrived

    def take(
        self, count: int, seconds: float = 30.0, wanted: Callable[[Delivery], bool] = lambda _: True
    ) -> list[Delivery]:
        """The next ``count`` records that are wanted; AssertionError when they do not come in time."""
        taken: list[Delivery] = []
        deadline = time.monotonic() + seconds
        while len(taken) < count:
            left = deadline - time.monotonic()
            assert left > 0, f"{len(taken)} of {count} records came within {seconds} s: {taken}"
            taken += [delivery for delivery in self.poll(min(left, 0.2)) if wanted(delivery)]
        assert len(taken) == count, f"more than the {count} records expected: {taken}"
        return taken

    def to_end(self, seconds: float = 60.0) -> list[Delivery]:
        """All that comes until the end of every partition; AssertionError when that is not reached in time.

        A poll without a record says nothing of it: it may have been the end of an empty partition.
        """
        records: list[Delivery] = []
        deadline = time.monotonic() + seconds
        while not self.at_end:
            left = deadline - time.monotonic()
            assert left > 0, f"no end of {sorted(self._unread)} after {seconds} s"
            records += self.poll(min(left, 0.2))
        return records

    def quiet(self, seconds: float) -> None:
        """AssertionError when anything arrives within so long."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            arrived = self.poll(min(left, 0.2))
            assert not arrived, f"nothing was expected: {arrived}"

    @staticmethod
    def _delivery(message: Message, received_ms: int) -> Delivery:
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        assert topic is not None
        assert partition is not None
        assert offset is not None
        return Delivery(
            topic,
            partition,
            offset,
            message.key(),
            message.value(),
            headers_of(message),
            message.timestamp()[1],
            received_ms,
        )


class Kafka:
    """One Kafka cluster, by its bootstrap servers; topics get that many replicas."""

    def __init__(self, bootstrap: str, replicas: int = 1) -> None:
        self.bootstrap = bootstrap
        self.replicas = replicas
        self.admin = AdminClient({"bootstrap.servers": bootstrap})

    def create(
        self, topic: str, partitions: int = 1, config: Mapping[str, str] = MappingProxyType({}), **named: str
    ) -> str:
        """Create a topic (``max_message_bytes`` for ``max.message.bytes``) and wait until it can be used."""
        settings = {name.replace("_", "."): value for name, value in {**config, **named}.items()}
        new = NewTopic(topic, num_partitions=partitions, replication_factor=self.replicas, config=settings)
        for future in self.admin.create_topics([new], operation_timeout=30).values():
            future.result(30)
        self._await(lambda: self.partitions(topic) == partitions, f"topic {topic} to appear")
        return topic

    def delete(self, *topics: str) -> None:
        """Delete topics and wait until they are gone; those that do not exist are passed over."""
        for topic, future in self.admin.delete_topics(list(topics), operation_timeout=30).items():
            try:
                future.result(30)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise
            self._await(partial(self._is_gone, topic), f"topic {topic} to go")

    def _is_gone(self, topic: str) -> bool:
        return self.partitions(topic) == 0

    def configure(self, topic: str, **config: str) -> None:
        """Set a topic's settings."""
        entries = [
            ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
            for name, value in config.items()
        ]
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
        for future in self.admin.incremental_alter_configs([resource]).values():
            future.result(30)

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has; 0 when there is no such topic."""
        found = self.admin.list_topics(timeout=30).topics.get(topic)
        return len(found.partitions) if found is not None and found.error is None else 0

    def stable_offsets(self, topic: str) -> list[int]:
        """The last stable offset of each partition: how far a read_committed reader gets."""
        return self._offsets(topic, OffsetSpec.latest(), IsolationLevel.READ_COMMITTED)  # type: ignore[no-untyped-call]

    def end_offsets(self, topic: str) -> list[int]:
        """The high watermark of each partition."""
        return self._offsets(topic, OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED)  # type: ignore[no-untyped-call]

    def _offsets(self, topic: str, spec: OffsetSpec, isolation: IsolationLevel) -> list[int]:
        deadline = time.monotonic() + 30
        while True:
            wanted = {TopicPartition(topic, number): spec for number in range(self.partitions(topic))}
            found = self.admin.list_offsets(wanted, isolation_level=isolation, request_timeout=30)
            try:
                return [int(future.result(30).offset) for future in found.values()]
            except KafkaException as error:
                # A topic that was just made may have no leader for a moment.
                if error.args[0].code() not in _PASSING or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def committed(self, group: str, topic: str) -> list[int]:
        """The group's committed offset of each partition; -1001 where there is none."""
        wanted = [TopicPartition(topic, number) for number in range(self.partitions(topic))]
        request = [ConsumerGroupTopicPartitions(group, wanted)]
        for future in self.admin.list_consumer_group_offsets(request, request_timeout=30).values():
            return [int(entry.offset) for entry in future.result(30).topic_partitions]
        raise AssertionError("no answer for the group")

    def trim(self, topic: str, partition: int, before: int) -> None:
        """Delete a partition's records below an offset, as retention does."""
        for future in self.admin.delete_records([TopicPartition(topic, partition, before)]).values():
            future.result(30)

    def produce(
        self,
        topic: str,
        requests: Iterable[tuple[bytes | None, bytes | None, Headers]],
        *,
        partition: int = -1,
        timestamp_ms: int = 0,
        **settings: Any,
    ) -> list[tuple[int, int]]:
        """Send (key, value, headers); the partition and offset of each, in the order of sending."""
        producer = Producer(
            {"bootstrap.servers": self.bootstrap, "message.max.bytes": 8 * 1024 * 1024, "linger.ms": 0}
            | {name.replace("_", "."): value for name, value in settings.items()}
        )
        stored: list[tuple[int, int]] = []

        def remember(place: int) -> Callable[[KafkaError | None, Message], None]:
            stored.append((-1, -1))

            def delivered(error: KafkaError | None, message: Message) -> None:
                if error is not None:
                    raise KafkaException(error)
                stored[place] = (message.partition() or 0, message.offset() or 0)

            return delivered

        for place, (key, value, headers) in enumerate(requests):
            producer.produce(
                topic,
                value,
                key,
                partition,
                on_delivery=remember(place),
                timestamp=timestamp_ms,
                headers=list(headers),
            )
            producer.poll(0)
        assert producer.flush(60) == 0, f"records were still unsent to {topic} after 60 s"
        return stored

    def produce_names(self, topic: str, partition: int, names: Sequence[bytes]) -> None:
        """Write one batch of records, each with a header of such a name, as a hostile client would."""
        records = [
            record(number, b"k", b"v", [(name.decode("utf-8", "surrogateescape"), b"")])
            for number, name in enumerate(names)
        ]
        batch = raw_batch(0, b"".join(records), len(records))

        async def send() -> None:
            connections = KafkaConnections({"bootstrap_servers": self.bootstrap}, request_timeout_ms=60_000)
            leader = (await connections.describe([topic]))[topic].leaders[partition]
            none: Any = None  # no transaction
            request = Produce(none, 60_000, [(topic, [(partition, batch)])])
            answer = await connections.request(leader, "", request)
            await connections.close()
            [(_, [(_, code, *_rest)])] = answer.topics
            assert code == 0, answer

        asyncio.run(send())

    def read(self, topic: str, count: int, seconds: float = 30.0) -> list[Delivery]:
        """The first ``count`` records of a topic, once they are there."""
        with Reader(self.bootstrap, {topic: self.partitions(topic)}) as reader:
            return reader.take(count, seconds)

    @staticmethod
    def _await(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {seconds} s for {what}")
            time.sleep(0.02)
