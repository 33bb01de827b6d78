"""What a host hands to its processors, from a real broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from delaystream.adapters.membership.faust_host import FaustCrashed
from tests.integration.host_members import Member

pytestmark = pytest.mark.timeout(90)

Topics = tuple[str, str]


@pytest.fixture
def topics(make_topic: Callable[..., str]) -> Topics:
    return make_topic("requests", partitions=2), make_topic("commands", partitions=2)


@pytest.fixture
def member(kafka: str, topics: Topics) -> Callable[..., Member]:
    return lambda **reader: Member(kafka, f"group-{uuid4().hex[:8]}", topics, **reader)


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 60))


def produce(servers: str, topic: str, partition: int, count: int, size: int = 100, **options: Any) -> None:
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 5, **options})
    transactional = "transactional.id" in options
    if transactional:
        producer.init_transactions()
        producer.begin_transaction()
    for number in range(count):
        key = f"{number}".encode()
        headers: list[tuple[str, str | bytes | None]] = [("a", b"1"), ("a", None)]
        producer.produce(topic, bytes(size), key, partition=partition, headers=headers)
        producer.poll(0)
    producer.flush()


def is_contiguous(member: Member, topic: str, partition: int, start: int = 0) -> bool:
    position = start
    for batch in member.notes.batches.get((topic, partition), []):
        assert batch.start == position, (batch.start, position)
        assert all(batch.start <= record.offset < batch.stop for record in batch.records)
        position = batch.stop
    return True


def test_every_record_arrives_once_in_order_with_its_bytes(
    kafka: str, topics: Topics, member: Callable[..., Member]
) -> None:
    """In bounded batches that follow on from each other, whatever the fetches were."""
    requests, commands = topics
    produce(kafka, requests, 0, 5_000)
    produce(kafka, commands, 1, 10)

    async def story() -> None:
        async with member(batch_max_records=700).at_work() as me:
            await me.notes.until(lambda: len(me.notes.offsets(requests, 0)) == 5_000)
            await me.notes.until(lambda: len(me.notes.offsets(commands, 1)) == 10)
            assert me.notes.offsets(requests, 0) == list(range(5_000))
            assert is_contiguous(me, requests, 0)
            batches = me.notes.batches[requests, 0]
            assert max(len(batch.records) for batch in batches) <= 700
            assert min(batch.size_bytes for batch in batches) > 100
            record = batches[0].records[7]
            assert (record.key, record.value, list(record.headers)) == (
                b"7",
                bytes(100),
                [("a", b"1"), ("a", None)],
            )
            assert abs(record.timestamp / 1000 - time.time()) < 60

    run(story())


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_records_are_bounded_by_what_they_unpack_to(
    kafka: str, topics: Topics, member: Callable[..., Member], compression: str
) -> None:
    requests, _ = topics
    produce(kafka, requests, 0, 2_000, 2_000, **{"compression.type": compression})

    async def story() -> None:
        async with member(batch_max_bytes=500_000).at_work() as me:
            await me.notes.until(lambda: len(me.notes.offsets(requests, 0)) == 2_000)
            largest = max(batch.size_bytes for batch in me.notes.batches[requests, 0])
            assert largest < 500_000 + 512 * 3_000

    run(story())


def test_after_a_seek_batches_go_on_from_there(
    kafka: str, topics: Topics, member: Callable[..., Member]
) -> None:
    """Back or forward, in the middle of a batch, and while others are on their way."""
    requests, _ = topics
    produce(kafka, requests, 0, 3_000)

    async def story() -> None:
        async with member(batch_max_records=100).at_work() as me:
            await me.notes.until(lambda: len(me.notes.offsets(requests, 0)) >= 500)
            for position in (1_234, 0, 2_999, 17):
                me.processors[0].sources.seek(requests, position)
                me.notes.batches.clear()
                await me.notes.until(lambda: bool(me.notes.offsets(requests, 0)))
                assert me.notes.offsets(requests, 0)[0] == position
                assert is_contiguous(me, requests, 0, position)
            await me.notes.until(lambda: len(me.notes.offsets(requests, 0)) == 3_000 - 17)
            assert me.notes.offsets(requests, 0) == list(range(17, 3_000))

    run(story())


def test_a_processor_without_room_is_given_little_more_and_holds_nobody_up(
    kafka: str, topics: Topics, member: Callable[..., Member]
) -> None:
    """What was on its way still comes; then nothing until it says that there is room."""
    requests, _ = topics
    produce(kafka, requests, 0, 20_000)

    async def story() -> None:
        me = member(batch_max_records=500)
        me.notes.room[0] = False
        async with me.at_work():
            await me.notes.until(lambda: bool(me.notes.offsets(requests, 0)))
            await asyncio.to_thread(produce, kafka, requests, 1, 3_000)
            began = time.monotonic()
            await me.notes.until(lambda: len(me.notes.offsets(requests, 1)) == 3_000)
            assert time.monotonic() - began < 5
            held = len(me.notes.offsets(requests, 0))
            assert held <= 1_000
            me.notes.room[0] = True
            began = time.monotonic()
            me.processors[0].sources.resume()
            await me.notes.until(lambda: len(me.notes.offsets(requests, 0)) > held)
            assert time.monotonic() - began < 0.5
            await me.notes.until(lambda: len(me.notes.offsets(requests, 0)) == 20_000)
            assert is_contiguous(me, requests, 0)

    run(story())


def test_aborted_records_are_not_delivered_and_markers_leave_no_gap(
    kafka: str, topics: Topics, member: Callable[..., Member]
) -> None:
    """Commands are written in transactions; read_committed from the first record on."""
    _, commands = topics
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": uuid4().hex})
    producer.init_transactions()
    for outcome in (producer.commit_transaction, producer.abort_transaction) * 3:
        producer.begin_transaction()
        for _ in range(10):
            producer.produce(commands, outcome.__name__.encode(), partition=0)
        producer.flush()
        outcome()

    async def story() -> None:
        async with member().at_work() as me:
            await me.notes.until(lambda: len(me.notes.offsets(commands, 0)) >= 30)
            records = [r for batch in me.notes.batches[commands, 0] for r in batch.records]
            assert {record.value for record in records} == {b"commit_transaction"}
            assert len(records) == 30
            assert is_contiguous(me, commands, 0)
            # What was aborted last is passed, too: each transaction takes ten offsets and one for its marker.
            await me.notes.until(lambda: me.notes.batches[commands, 0][-1].stop == 6 * 11)

    run(story())


class _RawName(str):
    def encode(self, *_: object) -> bytes:
        return b"\xff\xfe"


async def _produce_raw_names(servers: str, topic: str, offsets: set[int], count: int) -> None:
    async with AIOKafkaProducer(bootstrap_servers=servers) as producer:
        batch = producer.create_batch()
        batch._builder = _DefaultRecordBatchBuilderPy(2, 0, 0, -1, -1, 0, 1_000_000)
        for number in range(count):
            name = _RawName("x") if number in offsets else "fine"
            batch.append(
                timestamp=1_000, key=b"k", value=str(number).encode(), headers=[(name, b"1"), ("é", None)]
            )
        await (await producer.send_batch(batch, topic, partition=0))


def test_header_names_that_are_not_utf8_are_pointed_out_and_the_stream_moves_on(
    kafka: str, topics: Topics, member: Callable[..., Member]
) -> None:
    """aiokafka's own consumer raises for ever on such a record."""
    requests, _ = topics
    odd = {0, 3, 700, 1_999}
    produce(kafka, requests, 0, 100)
    asyncio.run(_produce_raw_names(kafka, requests, odd, 2_000))
    produce(kafka, requests, 0, 100)

    async def story() -> None:
        async with member().at_work() as me:
            await me.notes.until(lambda: len(me.notes.offsets(requests, 0)) == 2_200)
            assert me.notes.offsets(requests, 0) == list(range(2_200))
            assert is_contiguous(me, requests, 0)
            batches = me.notes.batches[requests, 0]
            assert {o - 100 for batch in batches for o in batch.unreadable} == odd
            records = {r.offset - 100: r for batch in batches for r in batch.records}
            assert records[3].headers[0][0].encode("utf-8", "surrogateescape") == b"\xff\xfe"
            assert records[3].value == b"3"
            assert list(records[4].headers) == [("fine", b"1"), ("é", None)]

    run(story())


def test_a_position_that_retention_removed_is_told_as_a_gap(
    kafka: str, topics: Topics, member: Callable[..., Member], admin: AdminClient
) -> None:
    """Never silently reset: the processor looks at the log's bounds, and decides."""
    requests, _ = topics
    produce(kafka, requests, 0, 100)
    for future in admin.delete_records([TopicPartition(requests, 0, 60)]).values():
        future.result(10)

    async def story() -> None:
        async with member().at_work() as me:
            await me.notes.until(lambda: bool(me.notes.batches.get((requests, 0))))
            first = me.notes.batches[requests, 0][0]
            assert first.start > 0
            assert not first.records
            me.processors[0].sources.seek(requests, 60)
            await me.notes.until(lambda: len(me.notes.offsets(requests, 0)) == 40)

    run(story())


def test_a_host_starts_and_stops_within_a_second(
    kafka: str, topics: Topics, member: Callable[..., Member]
) -> None:
    """None of Faust's waits for tables, agents and streams is left."""

    async def story() -> None:
        me = member()
        began = time.monotonic()
        async with me.at_work():
            await me.notes.until(lambda: me.running == [0, 1])
            started = time.monotonic()
        assert started - began < 2
        assert time.monotonic() - started < 2

    run(story())


def test_nothing_is_created_on_the_broker(
    kafka: str, topics: Topics, member: Callable[..., Member], admin: AdminClient
) -> None:
    """No topics of Faust's, whatever the broker would allow."""
    before = set(admin.list_topics(timeout=10).topics)

    async def story() -> None:
        async with member().at_work() as me:
            await me.notes.until(lambda: me.running == [0, 1])

    run(story())
    created = set(admin.list_topics(timeout=10).topics) - before
    assert not [name for name in created if "group-" in name or "assignor" in name]


def test_a_processor_that_fails_ends_the_host(
    kafka: str, topics: Topics, member: Callable[..., Member]
) -> None:
    """With the processor's own failure: it decides the exit code."""

    async def story() -> None:
        me = member()

        async def fail() -> None:
            raise ZeroDivisionError

        make = me._new
        me.host._new_processor = lambda partition, sources: _failing(make(partition, sources), fail)
        with pytest.raises(ZeroDivisionError):
            await me.host.run()
        await me.host.stop()

    run(story())


def test_a_client_that_ends_in_silence_ends_the_host(
    kafka: str, topics: Topics, member: Callable[..., Member]
) -> None:
    """aiokafka's background tasks can die without anybody hearing of it."""

    async def story() -> None:
        me = member()
        serving = asyncio.create_task(me.host.run())
        await me.notes.until(lambda: me.running == [0, 1])
        thread: Any = me.host._consumer._thread
        thread.thread_loop.call_soon_threadsafe(thread._consumer._fetcher._fetch_task.cancel)
        with pytest.raises(FaustCrashed, match="fetching has ended"):
            await asyncio.wait_for(serving, 5)
        await me.host.stop()

    run(story())


def _failing(processor: Any, fail: Any) -> Any:
    processor.run = fail
    return processor


def test_a_broker_that_does_not_know_a_topic_for_a_moment_costs_a_moment(
    kafka: str, topics: Topics, member: Callable[..., Member]
) -> None:
    """One that is behind answers so; the topic is asked for again at once, not in five minutes."""
    requests, _ = topics

    async def story() -> None:
        async with member().at_work() as me:
            await me.notes.until(lambda: me.running == [0, 1])
            consumer = me.host._consumer.thread.started_client
            cluster = consumer._client.cluster
            update = cluster.update_metadata
            #: what the host says when the next answer is there: before it, no test may look in time
            said: list[str | None] = []

            def all_are_there(answer: Any) -> None:
                said.append(me.host.shortage)
                cluster.update_metadata = update
                update(answer)

            def one_is_missing(answer: Any) -> None:
                cluster.update_metadata = all_are_there
                rows = [(3, *row[1:]) if row[1] == requests else row for row in answer.topics]
                update(
                    SimpleNamespace(
                        API_VERSION=answer.API_VERSION,
                        brokers=answer.brokers,
                        controller_id=answer.controller_id,
                        topics=rows,
                    )
                )

            cluster.update_metadata = one_is_missing
            me.host._consumer.thread.thread_loop.call_soon_threadsafe(consumer._client.force_metadata_update)
            await me.notes.until(lambda: bool(said))
            assert said == [f"the brokers do not know {requests}, which every partition needs"]
            await me.notes.until(lambda: me.host.shortage is None and me.running == [0, 1])
            produce(kafka, requests, 0, 10)
            await me.notes.until(lambda: me.notes.offsets(requests, 0)[-1:] == [9])

    run(story())
