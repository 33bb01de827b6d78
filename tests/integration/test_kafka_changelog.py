"""The changelog reader against a real broker."""

from __future__ import annotations

import asyncio
import random
import struct
import time
from collections.abc import Callable
from uuid import uuid4

import pytest
from aiokafka.record.util import calc_crc32c

from delaystream.adapters.kafka.changelog import AiokafkaChangelog, ChangelogSettings
from delaystream.adapters.transactions.producer import AiokafkaTransactionalProducer
from delaystream.adapters.transactions.writer import Delivery
from delaystream.dev import EmbeddedBroker
from delaystream.engine.failures import LogUnavailable, Misconfigured
from delaystream.engine.ports import Row, TopicPartition, Transaction
from tests.integration.harness_kafka import Kafka, Reader
from tests.integration.kafka_abandoned import abandon_transaction
from tests.integration.test_kafka_producer import run

MakeTopic = Callable[..., str]
Record = tuple[int, bytes, bytes | None]


def now_ms() -> int:
    """For records that retention is to leave alone."""
    return int(time.time() * 1000)


async def read_all(changelog: AiokafkaChangelog, position: int = 0) -> list[Record]:
    end = (await changelog.bounds()).stable
    records: list[Record] = []
    while position < end:
        batch = await changelog.read(position)
        records += batch.records
        position = batch.next_position
    return records


async def settle(changelog: AiokafkaChangelog) -> None:
    while (bounds := await changelog.bounds()).stable != bounds.end:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("seed", range(3))
def test_aborted_transactions_are_left_out_exactly(kafka: str, make_topic: MakeTopic, seed: int) -> None:
    """Interleaved with committed ones of others, and with the same producer id before and after."""
    topic = make_topic()
    target = TopicPartition(topic, 0)
    settings = {"bootstrap_servers": kafka}
    chance = random.Random(seed)

    def rows(name: str, number: int) -> list[Row]:
        value = b"x" * chance.randrange(400)
        return [(f"{name}-{number}-{n}".encode(), value, [], now_ms()) for n in range(chance.randrange(1, 8))]

    async def story() -> None:
        committed: list[bytes | None] = []
        names = [f"{uuid4().hex}-{n}" for n in range(3)]
        producers: dict[str, AiokafkaTransactionalProducer] = {}
        for number in range(40):
            name = chance.choice(names)
            producer = producers.pop(name, None)
            if producer is None:
                producer = AiokafkaTransactionalProducer(settings, name, "group")
                await producer.fence()
            if chance.random() < 0.4:
                # Open for a while: others write behind it before its successor's fence aborts it.
                await producer.close()
                await abandon_transaction(settings, name, {target: rows("aborted", number)})
            else:
                written = rows("committed", number)
                await producer.commit(Transaction({target: written}, {}))
                committed += [key for key, *_ in written]
                producers[name] = producer
        for name in names:
            producer = producers.get(name) or AiokafkaTransactionalProducer(settings, name, "group")
            await producer.fence()
            await producer.close()
        bounds = ChangelogSettings(fetch_max_bytes=chance.choice([200, 1_000, 1_000_000]))
        changelog = await AiokafkaChangelog.open(settings, topic, 0, bounds)
        await settle(changelog)
        records = await read_all(changelog)
        assert [key for _, key, _ in records] == committed
        start = records[len(records) // 2][0] + 1
        assert await read_all(changelog, start) == [record for record in records if record[0] >= start]
        await changelog.close()

    run(story())


def test_it_reads_what_a_plain_consumer_reads(kafka: str, make_topic: MakeTopic) -> None:
    """Compressed by another client, many batches to a fetch, offsets and bytes the same."""
    topic = make_topic()
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        requests = [(b"key%d" % n, bytes(n % 256) or None, [("h", b"v")]) for n in range(500)]
        Kafka(kafka).produce(topic, requests, compression_type=codec, linger_ms=5)
    with Reader(kafka, {topic: 1}) as reader:
        expected = [(found.offset, found.key, found.value) for found in reader.take(2_500)]

    async def story() -> None:
        changelog = await AiokafkaChangelog.open({"bootstrap_servers": kafka}, topic, 0)
        assert await read_all(changelog) == expected
        # A position inside a batch, and another than the one read ahead.
        assert (await changelog.read(1_234)).records[0] == expected[1_234]
        assert (await changelog.read(17)).records[0] == expected[17]
        await changelog.close()

    run(story())


def test_the_end_is_waited_for_no_longer_than_set(kafka: str, make_topic: MakeTopic) -> None:
    topic = make_topic()

    async def story() -> None:
        bounds = ChangelogSettings(fetch_max_wait_ms=100)
        changelog = await AiokafkaChangelog.open({"bootstrap_servers": kafka}, topic, 0, bounds)
        started = time.monotonic()
        batch = await changelog.read(0)
        assert (list(batch.records), batch.next_position) == ([], 0)
        assert time.monotonic() - started < 2
        await changelog.close()

    run(story())


def test_a_position_out_of_the_log_is_no_answer(kafka: str, make_topic: MakeTopic) -> None:
    topic = make_topic()

    async def story() -> None:
        bounds = ChangelogSettings(timeout_ms=500)
        changelog = await AiokafkaChangelog.open({"bootstrap_servers": kafka}, topic, 0, bounds)
        with pytest.raises(LogUnavailable, match=topic):
            await changelog.read(5)
        await changelog.close()

    run(story())


def test_a_missing_topic_or_partition_needs_a_person(kafka: str, make_topic: MakeTopic) -> None:
    """And is not created by the attempt."""
    topic, missing = make_topic(), f"missing-{uuid4().hex}"

    async def story() -> None:
        for name, partition in ((missing, 0), (topic, 3)):
            with pytest.raises(Misconfigured, match=name):
                await AiokafkaChangelog.open({"bootstrap_servers": kafka}, name, partition)

    run(story())
    assert Kafka(kafka).partitions(missing) == 0


def test_a_record_with_a_header_name_that_is_not_utf_8_needs_a_person(
    kafka: str, make_topic: MakeTopic
) -> None:
    """Only this application writes its changelog: passing over what others wrote could lose schedules."""
    topic = make_topic()
    settings = {"bootstrap_servers": kafka}

    async def story() -> None:
        producer = AiokafkaTransactionalProducer(settings, uuid4().hex, "group")
        await producer.fence()
        writer = producer._writer
        assert writer is not None
        build = writer.build

        def build_foreign(delivery: Delivery) -> None:
            build(delivery)
            payload = delivery.pending[0].payload
            payload[:] = payload.replace(b"@@@@", b"\xff\xfe\xfd\xfc")
            # The checksum (CRC-32C) of a batch covers what follows it.
            struct.pack_into(">I", payload, 17, calc_crc32c(payload[21:]))

        writer.build = build_foreign  # type: ignore[method-assign]
        await producer.commit(
            Transaction({TopicPartition(topic, 0): [(b"k", b"v", [("@@@@", b"")], now_ms())]}, {})
        )
        await producer.close()
        changelog = await AiokafkaChangelog.open(settings, topic, 0)
        with pytest.raises(Misconfigured, match=topic):
            await changelog.read(0)
        await changelog.close()

    run(story())


@pytest.mark.timeout(120)
def test_a_silent_broker_is_unavailable_in_time(own_broker: Callable[..., EmbeddedBroker]) -> None:
    """Paused while a fetch is read ahead; resumed, the same reader goes on."""
    broker = own_broker()
    kafka = Kafka(broker.bootstrap_servers)
    topic = kafka.create("changelog")
    kafka.produce(topic, [(b"k%d" % n, b"v" * 100, []) for n in range(1_000)])

    async def read_on(changelog: AiokafkaChangelog, position: int) -> None:
        """Past what may have arrived before the pause."""
        for _ in range(3):
            position = (await changelog.read(position)).next_position

    async def story() -> None:
        bounds = ChangelogSettings(timeout_ms=1_000, fetch_max_bytes=2_000)
        changelog = await AiokafkaChangelog.open({"bootstrap_servers": kafka.bootstrap}, topic, 0, bounds)
        batch = await changelog.read(0)
        broker.pause()
        started = time.monotonic()
        with pytest.raises(LogUnavailable):
            await changelog.bounds()
        with pytest.raises(LogUnavailable):
            await read_on(changelog, batch.next_position)
        assert time.monotonic() - started < 6
        broker.resume()
        assert [key for _, key, _ in await read_all(changelog)] == [b"k%d" % n for n in range(1_000)]
        broker.pause()
        started = time.monotonic()
        await changelog.close()
        assert time.monotonic() - started < 3
        broker.resume()

    run(story())
