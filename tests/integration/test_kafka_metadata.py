"""What is known of destinations and of source partitions, against a real broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as CommittedPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from delaystream.adapters.kafka.metadata import DestinationSettings, KafkaDestinations
from delaystream.adapters.kafka.source_bounds import KafkaSourceBounds, SourceEnds
from delaystream.adapters.transactions.producer import AiokafkaTransactionalProducer
from delaystream.dev import EmbeddedBroker
from delaystream.engine.failures import LogUnavailable, WriteRefused
from delaystream.engine.ports import Row, TopicPartition, Transaction
from delaystream.topics import connect, topic_ids
from tests.integration.harness import wait
from tests.integration.harness_kafka import Kafka
from tests.integration.test_kafka_producer import run

MakeTopic = Callable[..., str]


class HandClock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_lookup_never_creates_a_topic(kafka: str) -> None:
    missing = f"missing-{uuid4().hex}"

    async def story() -> None:
        destinations = KafkaDestinations({"bootstrap_servers": kafka})
        await destinations.ensure([missing, "not a name"])
        assert destinations.partitions(missing) == 0
        assert destinations.problem(missing) == "the topic does not exist"
        assert destinations.problem("not a name") == "this cannot be a topic's name"
        await destinations.close()

    run(story())
    assert Kafka(kafka).partitions(missing) == 0


def test_what_is_known_is_answered_while_it_is_looked_up_again(kafka: str, make_topic: MakeTopic) -> None:
    """An old answer stays until there is a newer one; partitions that were added are seen."""
    topic = make_topic()
    clock = HandClock()

    async def story() -> None:
        destinations = KafkaDestinations({"bootstrap_servers": kafka}, now_s=clock)
        await destinations.ensure([topic])
        await asyncio.to_thread(grow, kafka, topic, 3)
        assert destinations.partitions(topic) == 1
        clock.now_s += 61
        assert destinations.partitions(topic) == 1
        async with asyncio.timeout(10):
            while destinations.partitions(topic) != 3:
                await asyncio.sleep(0.02)
                clock.now_s += 61
        await destinations.close()

    run(story())


def test_partitions_that_were_added_are_seen_at_once_where_that_is_asked_for(
    kafka: str, make_topic: MakeTopic
) -> None:
    """An answer within the time that is asked for is as good as a new one."""
    topic = make_topic()
    clock = HandClock()

    async def story() -> None:
        destinations = KafkaDestinations({"bootstrap_servers": kafka}, now_s=clock)
        assert destinations.age_ms(topic) == float("inf")
        await destinations.ensure([topic])
        assert destinations.age_ms(topic) == 0
        await asyncio.to_thread(grow, kafka, topic, 3)
        clock.now_s += 1
        await destinations.ensure([topic], 1_000)
        assert (destinations.partitions(topic), destinations.age_ms(topic)) == (1, 1_000)
        async with asyncio.timeout(10):
            while destinations.partitions(topic) != 3:
                clock.now_s += 1
                await destinations.ensure([topic], 999)
                assert destinations.age_ms(topic) == 0
        await destinations.close()

    run(story())


def grow(kafka: str, topic: str, partitions: int) -> None:
    from confluent_kafka.admin import NewPartitions

    admin = Kafka(kafka).admin
    admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(30)


def test_lookups_of_one_topic_are_one(kafka: str, make_topic: MakeTopic) -> None:
    """However many processors ask at once."""
    topic = make_topic()

    async def story() -> None:
        destinations = KafkaDestinations({"bootstrap_servers": kafka})
        asked: list[list[str]] = []
        describe = destinations._describe

        async def counted(topics: list[str]) -> None:
            asked.append(topics)
            await describe(topics)

        destinations._describe = counted  # type: ignore[method-assign]
        await asyncio.gather(*(destinations.ensure([topic]) for _ in range(20)))
        assert (asked, destinations.partitions(topic)) == ([[topic]], 1)
        await destinations.ensure([topic])
        assert asked == [[topic]]
        await destinations.close()

    run(story())


def test_an_unreachable_cluster_holds_up_nobody_for_long() -> None:
    async def story() -> None:
        bounds = DestinationSettings(ensure_timeout_ms=200, lookup_timeout_ms=400)
        destinations = KafkaDestinations({"bootstrap_servers": "127.0.0.1:9"}, bounds)
        started = time.monotonic()
        await destinations.ensure(["orders"])
        assert time.monotonic() - started < 1
        await asyncio.sleep(0.5)
        assert destinations.partitions("orders") == 0
        assert destinations.problem("orders") is None
        await destinations.close()

    run(story())


def test_source_bounds_have_start_end_and_topic_id(kafka: str, make_topic: MakeTopic) -> None:
    """The id is the one that Kafka's tools show."""
    first, second = make_topic(partitions=2), make_topic()
    Kafka(kafka).produce(first, [(b"k", b"v", [])] * 5, partition=1)
    Kafka(kafka).trim(first, 1, 2)
    shown = topic_ids(connect({"bootstrap.servers": kafka}), [first, second])
    # librdkafka's alphabet is base64's; Kafka's own tools use the one for URLs.
    ids = {topic: id.replace("+", "-").replace("/", "_") for topic, id in shown.items()}

    async def story() -> None:
        bounds = KafkaSourceBounds({"bootstrap_servers": kafka}, f"group-{uuid4().hex}")
        found = await bounds([TopicPartition(first, 1), TopicPartition(second, 0)])
        assert found == {
            TopicPartition(first, 1): (2, 5, ids[first], None),
            TopicPartition(second, 0): (0, 0, ids[second], None),
        }
        await bounds.close()
        group = f"group-{uuid4().hex}"
        committing = Consumer({"bootstrap.servers": kafka, "group.id": group})
        committing.commit(offsets=[CommittedPartition(first, 1, 4)], asynchronous=False)
        committing.close()
        bounds = KafkaSourceBounds({"bootstrap_servers": kafka}, group)
        found = await bounds([TopicPartition(first, 1), TopicPartition(second, 0)])
        assert [found[at].committed for at in sorted(found, key=lambda at: at.topic != first)] == [4, None]
        await bounds.close()
        impatient = KafkaSourceBounds({"bootstrap_servers": kafka}, "group", timeout_ms=300)
        for missing in (TopicPartition(first, 2), TopicPartition(f"missing-{uuid4().hex}", 0)):
            with pytest.raises(LogUnavailable, match=missing.topic):
                await impatient([missing])
        await impatient.close()

    run(story())


@pytest.mark.timeout(120)
def test_a_forbidden_topic_is_known_for_one(own_broker: Callable[..., EmbeddedBroker]) -> None:
    """Not to be written, or not even to be described: said by the lookup, and by a write that tries it."""
    broker = own_broker(
        properties={
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "true",
        }
    )
    kafka = Kafka(broker.bootstrap_servers)
    allowed, read_only, hidden = kafka.create("allowed", 2), kafka.create("read-only"), kafka.create("hidden")
    for topic, operation in ((read_only, AclOperation.WRITE), (hidden, AclOperation.ALL)):
        place = (ResourceType.TOPIC, topic, ResourcePatternType.LITERAL)
        rules = [AclBinding(*place, "User:*", "*", operation, AclPermissionType.DENY)]
        if topic == read_only:
            rules.append(AclBinding(*place, "User:*", "*", AclOperation.DESCRIBE, AclPermissionType.ALLOW))
        for future in kafka.admin.create_acls(rules).values():
            future.result(30)
    settings = {"bootstrap_servers": kafka.bootstrap}

    async def story() -> None:
        destinations = KafkaDestinations(settings)
        async with asyncio.timeout(10):
            while destinations.problem(hidden) is None or destinations.problem(read_only) is None:
                for topic in (hidden, read_only):
                    destinations.invalidate(topic)
                await destinations.ensure([allowed, read_only, hidden])
        assert destinations.problem(allowed) is None
        assert destinations.partitions(allowed) == 2
        assert destinations.partitions(read_only) == 0
        assert destinations.problem(read_only) == f"missing ACL: Write on topic {read_only}"
        assert destinations.problem(hidden) == f"missing ACL: Write on topic {hidden}, or Describe at least"
        await destinations.close()
        for topic in (read_only, hidden):
            producer = AiokafkaTransactionalProducer(settings, "forbidden", "group")
            await producer.fence()
            row: Row = (b"k", b"v", [], 1)
            with pytest.raises(WriteRefused) as caught:
                await producer.commit(
                    Transaction({TopicPartition(allowed, 0): [row], TopicPartition(topic, 0): [row]}, {})
                )
            assert (caught.value.topic, caught.value.record_at_fault) == (topic, False)
            await producer.close()

    run(story())


@pytest.mark.parametrize(
    ("config", "setting"),
    [
        ({"message.timestamp.before.max.ms": "0"}, "message.timestamp.before.max.ms=0"),
        ({"message.timestamp.before.max.ms": "9999"}, "message.timestamp.before.max.ms=9999"),
        ({"message.timestamp.before.max.ms": "10000", "message.timestamp.after.max.ms": "0"}, None),
        ({"message.timestamp.before.max.ms": "0", "message.timestamp.type": "LogAppendTime"}, None),
        ({"max.message.bytes": "77"}, "max.message.bytes=77"),
        ({"max.message.bytes": "78"}, None),
    ],
)
def test_a_topic_in_which_a_transaction_may_never_end_cannot_be_written_to(
    kafka: str, make_topic: MakeTopic, config: dict[str, str], setting: str | None
) -> None:
    """A broker holds its own markers against these limits; what it refuses is not tried again."""
    topic, other = make_topic(config=config), make_topic()

    async def story() -> None:
        destinations = KafkaDestinations({"bootstrap_servers": kafka})
        await destinations.ensure([topic, other])
        assert destinations.partitions(other) == 1
        problem = destinations.problem(topic)
        assert (destinations.partitions(topic) == 0) == (setting is not None)
        assert problem is None if setting is None else problem and problem.startswith(setting)
        await destinations.close()

    run(story())


def test_ends_tell_where_somebodys_open_transaction_begins(kafka: str, make_topic: MakeTopic) -> None:
    """Of each partition that has a leader; without one that is open, both ends are one."""
    topic, cluster = make_topic(partitions=2), Kafka(kafka)
    cluster.produce(topic, [(None, b"v", ())] * 3, partition=0)
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": f"t-{uuid4().hex}"})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, b"v", partition=0)
    producer.flush(30)

    async def story(*expected: SourceEnds) -> None:
        bounds = KafkaSourceBounds({"bootstrap_servers": kafka}, "group")
        places = [TopicPartition(topic, 0), TopicPartition(topic, 1), TopicPartition(topic, 7)]
        found = await bounds.ends([*places, TopicPartition(f"missing-{uuid4().hex}", 0)])
        await bounds.close()
        assert found == dict(zip(places[:2], expected, strict=True))

    run(story(SourceEnds(4, 3), SourceEnds(0, 0)))
    producer.commit_transaction(30)
    wait(lambda: cluster.stable_offsets(topic)[0] == 5, "the marker, which follows the answer")
    run(story(SourceEnds(5, 5), SourceEnds(0, 0)))
