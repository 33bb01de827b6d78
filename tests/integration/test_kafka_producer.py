"""The transactional producer against a real broker: what aiokafka's own one loses, blocks on or hangs on."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest

from delaystream.adapters.transactions.batches import BatchLimits
from delaystream.adapters.transactions.producer import AiokafkaTransactionalProducer
from delaystream.adapters.transactions.settings import ProducerSettings
from delaystream.adapters.transactions.writer import Delivery, TransactionWriter
from delaystream.dev import EmbeddedBroker
from delaystream.engine.failures import (
    LogUnavailable,
    ProducerFenced,
    TransactionFailed,
    TransactionStuck,
    WriteRefused,
)
from delaystream.engine.ports import Row, TopicPartition, Transaction
from tests.integration.harness_kafka import Delivery as Read
from tests.integration.harness_kafka import Kafka, Reader

MakeTopic = Callable[..., str]
GROUP = "producer-tests"
#: for tests in which a deadline passes
SHORT = ProducerSettings(
    transaction_timeout_ms=4_000,
    commit_timeout_ms=2_000,
    write_timeout_ms=1_500,
    request_timeout_ms=700,
    fence_timeout_ms=1_500,
    abort_timeout_ms=500,
)


def run(story: Coroutine[Any, Any, None]) -> None:
    """Run a story; at its end no task may be left."""

    async def checked() -> None:
        async with asyncio.timeout(100):
            await story
        # A socket's last callbacks.
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(checked(), debug=True)


def new_producer(
    kafka: str, name: str | None = None, bounds: ProducerSettings | None = None, **options: Any
) -> AiokafkaTransactionalProducer:
    settings = {"bootstrap_servers": kafka}
    return AiokafkaTransactionalProducer(settings, name or uuid4().hex, GROUP, bounds=bounds, **options)


def at(topic: str, partition: int = 0) -> TopicPartition:
    return TopicPartition(topic, partition)


def row(value: bytes | None, key: bytes | None = b"k") -> Row:
    return (key, value, [], int(time.time() * 1000))


def values(kafka: str, topic: str, count: int) -> list[bytes | None]:
    return [delivery.value for delivery in Kafka(kafka).read(topic, count)]


async def refusal(commit: Awaitable[Any]) -> WriteRefused:
    with pytest.raises(WriteRefused) as caught:
        await commit
    return caught.value


def test_a_refused_record_fails_the_transaction_and_is_named(kafka: str, make_topic: MakeTopic) -> None:
    """aiokafka commits although a delivery failed; here nothing of the transaction is seen."""
    small, healthy = make_topic(config={"max.message.bytes": "2000"}), make_topic()

    async def story() -> None:
        name = uuid4().hex
        producer = new_producer(kafka, name)
        await producer.fence()
        rows = [row(b"a"), row(b"x" * 5_000), row(b"c")]
        error = await refusal(producer.commit(Transaction({at(healthy): [row(b"1")], at(small): rows}, {})))
        assert (error.topic, error.record_at_fault, error.row) == (small, True, 1)
        await producer.close()
        successor = new_producer(kafka, name)
        await successor.fence()
        await successor.commit(Transaction({at(healthy): [row(b"2")], at(small): [row(b"a"), row(b"c")]}, {}))
        await successor.close()

    run(story())
    assert values(kafka, healthy, 1) == [b"2"]
    assert values(kafka, small, 2) == [b"a", b"c"]


class Rows(list[Row]):
    """A list that can be watched."""


@pytest.mark.parametrize("fault", ["refused", "missing", "fenced", "disconnected"])
def test_what_failed_is_freed_without_the_garbage_collector(
    kafka: str, make_topic: MakeTopic, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """A transaction has megabytes, and a destination that refuses it may be tried ten times a second."""
    topic = "never-created" if fault == "missing" else make_topic(config={"max.message.bytes": "2000"})

    async def disconnected(*_: Any) -> None:
        raise ConnectionResetError

    async def fail() -> weakref.ref[Rows]:
        name = uuid4().hex
        producer = new_producer(kafka, name, SHORT)
        await producer.fence()
        if fault == "disconnected":
            monkeypatch.setattr(TransactionWriter, "_produce", disconnected)
        if fault == "fenced":
            successor = new_producer(kafka, name)
            await successor.fence()
            await successor.close()
        rows = Rows([row(b"x" * (5_000 if fault == "refused" else 5))])
        with pytest.raises((ProducerFenced, WriteRefused, TransactionFailed)):
            await producer.commit(Transaction({at(topic): rows}, {}))
        await producer.close()
        return weakref.ref(rows)

    async def story() -> None:
        gc.disable()
        try:
            kept = await fail()
            # The last callbacks of what was ended.
            await asyncio.sleep(0.01)
            assert kept() is None
        finally:
            gc.enable()

    run(story())


def test_a_null_key_for_a_compacted_topic_is_refused_by_its_place(kafka: str, make_topic: MakeTopic) -> None:
    """The broker says which record of the batch it was (KIP-467)."""
    topic = make_topic(config={"cleanup.policy": "compact"})

    async def story() -> None:
        producer = new_producer(kafka)
        await producer.fence()
        rows = [row(b"a"), row(b"b"), row(b"c", key=None)]
        error = await refusal(producer.commit(Transaction({at(topic): rows}, {})))
        assert (error.record_at_fault, error.row) == (True, 2)
        await producer.close()

    run(story())


def test_a_batch_larger_than_the_topic_takes_is_split(kafka: str, make_topic: MakeTopic) -> None:
    """Small records are never at fault for having been put together; the limit is learnt once."""
    topic = make_topic(config={"max.message.bytes": "3000"})
    limits = BatchLimits(1_000_000)
    payloads = [b"%03d" % number * 100 for number in range(100)]

    async def story() -> None:
        producer = new_producer(kafka, limits=limits)
        await producer.fence()
        for _ in range(2):
            written = await producer.commit(Transaction({at(topic): [row(value) for value in payloads]}, {}))
        assert written == {at(topic): 200}
        await producer.close()

    run(story())
    assert values(kafka, topic, 200) == payloads * 2
    assert limits.of(topic) <= 3_000


def test_a_row_that_cannot_be_encoded_is_refused_by_its_place(kafka: str, make_topic: MakeTopic) -> None:
    topic = make_topic()

    async def story() -> None:
        rows: list[Any] = [
            (b"k", b"v", [("\udcff", b"")], 1),
            (b"k", b"v", [], 2**63),
            (b"k", "text", [], 1),
        ]
        for bad in rows:
            producer = new_producer(kafka)
            await producer.fence()
            error = await refusal(producer.commit(Transaction({at(topic): [row(b"a"), bad]}, {})))
            assert (error.record_at_fault, error.row) == (True, 1)
            await producer.close()

    run(story())


def test_a_record_beyond_the_largest_request_is_refused_without_asking(
    kafka: str, make_topic: MakeTopic
) -> None:
    """A broker would close the connection, and the reason would be lost."""
    topic = make_topic()

    async def story() -> None:
        producer = new_producer(kafka, bounds=ProducerSettings(max_record_bytes=100_000))
        await producer.fence()
        error = await refusal(producer.commit(Transaction({at(topic): [row(b"x" * 200_000)]}, {})))
        assert (error.record_at_fault, error.row) == (True, 0)
        await producer.close()

    run(story())


def test_a_large_record_goes_alone(kafka: str, make_topic: MakeTopic) -> None:
    """A record above the batch limit is written where the topic takes it."""
    topic = make_topic(config={"max.message.bytes": "4000000"})

    async def story() -> None:
        producer = new_producer(kafka)
        await producer.fence()
        rows = [row(b"a"), row(b"x" * 3_000_000), row(b"c")]
        assert await producer.commit(Transaction({at(topic): rows}, {})) == {at(topic): 2}
        await producer.close()

    run(story())
    assert [len(value or b"") for value in values(kafka, topic, 3)] == [1, 3_000_000, 1]


def test_a_failed_producer_is_never_used_again(kafka: str, make_topic: MakeTopic) -> None:
    """aiokafka's answers OutOfOrderSequenceNumber for ever after a clean abort; a new fence is needed."""
    topic = make_topic(config={"max.message.bytes": "2000"})

    async def story() -> None:
        name = uuid4().hex
        producer = new_producer(kafka, name)
        await producer.fence()
        await producer.commit(Transaction({at(topic): [row(b"1")]}, {}))
        await refusal(producer.commit(Transaction({at(topic): [row(b"x" * 5_000)]}, {})))
        with pytest.raises(TransactionFailed):
            await producer.commit(Transaction({at(topic): [row(b"2")]}, {}))
        await producer.close()
        successor = new_producer(kafka, name)
        await successor.fence()
        await successor.commit(Transaction({at(topic): [row(b"3")]}, {}))
        await successor.close()

    run(story())
    assert values(kafka, topic, 2) == [b"1", b"3"]


def test_a_missing_topic_is_refused_at_once_and_not_created(kafka: str, make_topic: MakeTopic) -> None:
    """aiokafka blocks for 40 s, and its metadata request lets the broker create the topic."""
    missing, healthy = f"missing-{uuid4().hex}", make_topic()

    async def story() -> None:
        producer = new_producer(kafka)
        await producer.fence()
        started = time.monotonic()
        error = await refusal(
            producer.commit(Transaction({at(missing): [row(b"1")], at(healthy): [row(b"1")]}, {}))
        )
        assert (error.topic, error.record_at_fault) == (missing, False)
        await producer.close()
        assert time.monotonic() - started < 2

    run(story())
    assert Kafka(kafka).partitions(missing) == 0


def test_a_topic_deleted_while_its_leader_is_known_is_refused_in_time(
    kafka: str, make_topic: MakeTopic
) -> None:
    """aiokafka's send, abort and stop hang for ever."""
    doomed, healthy = make_topic(), make_topic()

    async def story() -> None:
        producer = new_producer(kafka)
        await producer.fence()
        both = Transaction({at(healthy): [row(b"1")], at(doomed): [row(b"1")]}, {})
        await producer.commit(both)
        await asyncio.to_thread(Kafka(kafka).delete, doomed)
        started = time.monotonic()
        error = await refusal(producer.commit(both))
        assert (error.topic, error.record_at_fault) == (doomed, False)
        await producer.close()
        assert time.monotonic() - started < 7

    run(story())
    assert Kafka(kafka).partitions(doomed) == 0


def test_a_topic_deleted_within_a_transaction_is_refused_in_time(kafka: str, make_topic: MakeTopic) -> None:
    """The partition was added, the produce request finds no topic any more."""
    doomed, healthy = make_topic(), make_topic()

    async def story() -> None:
        producer = new_producer(kafka)
        await producer.fence()
        both = Transaction({at(healthy): [row(b"1")], at(doomed): [row(b"1")]}, {})
        await producer.commit(both)
        add_partitions = producer._coordinator.add_partitions

        async def add_and_delete(*arguments: Any) -> None:
            await add_partitions(*arguments)
            await asyncio.to_thread(Kafka(kafka).delete, doomed)

        producer._coordinator.add_partitions = add_and_delete  # type: ignore[method-assign, assignment]
        error = await refusal(producer.commit(both))
        assert (error.topic, error.record_at_fault) == (doomed, False)
        await producer.close()

    run(story())


def test_a_topic_without_enough_replicas_is_at_fault_and_not_its_records(
    kafka: str, make_topic: MakeTopic
) -> None:
    """NOT_ENOUGH_REPLICAS passes, or it does not: after the write timeout the topic is named.

    One broker alone never answers so (it caps min.insync.replicas): the answer is put in here.
    """
    starved, healthy = make_topic(), make_topic()

    async def story() -> None:
        producer = new_producer(kafka, bounds=SHORT)
        await producer.fence()
        writer = producer._writer
        assert writer is not None
        send_wave = writer._send_wave

        async def answered_for(deliveries: list[Delivery], in_flight: int) -> None:
            await send_wave([found for found in deliveries if found.target.topic == healthy], in_flight)
            for delivery in deliveries:
                if delivery.target.topic == starved:
                    delivery.failed = 19

        writer._send_wave = answered_for  # type: ignore[method-assign]
        both = Transaction({at(healthy): [row(b"1")], at(starved): [row(b"1")]}, {})
        error = await refusal(producer.commit(both))
        assert (error.topic, error.record_at_fault) == (starved, False)
        assert "not enough in-sync replicas" in error.reason
        await producer.close()

    run(story())


def test_sequence_numbers_pass_two_to_the_31st(kafka: str, make_topic: MakeTopic) -> None:
    """aiokafka goes on with a negative number, and the broker refuses for ever."""
    topic = make_topic()

    async def story() -> None:
        producer = new_producer(kafka)
        await producer.fence()
        assert producer._writer is not None
        producer._writer.sequences.set(at(topic), 2**31 - 5)
        for number in range(4):
            await producer.commit(Transaction({at(topic): [row(b"%d" % number)] * 3}, {}))
        assert producer._writer.sequences.next(at(topic)) == 7
        await producer.close()

    run(story())
    assert values(kafka, topic, 12) == [b"%d" % number for number in range(4) for _ in range(3)]


def test_transactions_follow_each_other_without_a_pause(kafka: str, make_topic: MakeTopic) -> None:
    """The markers of the last transaction may still be on their way: CONCURRENT_TRANSACTIONS, and under
    transaction.version=2 NOT_ENOUGH_REPLICAS for the first write."""
    topic, source = make_topic(partitions=4), make_topic()

    async def story() -> None:
        producer = new_producer(kafka)
        await producer.fence()
        for number in range(100):
            writes = {at(topic, partition): [row(b"%d" % number)] for partition in range(4)}
            await producer.commit(Transaction(writes, {at(source): number}))
        await producer.close()

    run(story())
    assert len(values(kafka, topic, 400)) == 400
    assert Kafka(kafka).committed(GROUP, source) == [99]


def test_a_cancelled_commit_leaves_nothing_open(kafka: str, make_topic: MakeTopic) -> None:
    """Wherever it is cancelled: a reader is held up no longer, and gets all of the transaction or none of it.

    All of it, when the coordinator was already told to commit: that cannot be taken back.
    """
    topic, source = make_topic(), make_topic()

    async def story() -> None:
        name = uuid4().hex
        for delay_ms in range(0, 12, 2):
            producer = new_producer(kafka, name)
            await producer.fence()
            rows = [row(b"cancelled after %d ms" % delay_ms)] * 2_000
            commit = asyncio.create_task(producer.commit(Transaction({at(topic): rows}, {at(source): 1})))
            await asyncio.sleep(delay_ms / 1000)
            commit.cancel()
            with suppress(asyncio.CancelledError):
                await commit
            await producer.close()
        last = new_producer(kafka, name)
        await last.fence()
        await last.commit(Transaction({at(topic): [row(b"kept")]}, {}))
        await last.close()

    run(story())
    seen: Counter[bytes | None] = Counter()

    def is_last(delivery: Read) -> bool:
        seen[delivery.value] += 1
        return delivery.value == b"kept"

    with Reader(kafka, {topic: 1}) as reader:
        reader.take(1, wanted=is_last)
    del seen[b"kept"]
    assert set(seen.values()) <= {2_000}
    assert b"cancelled after 0 ms" not in seen


def test_compressed_batches_are_read_as_they_were_written(kafka: str, make_topic: MakeTopic) -> None:
    topic = make_topic()
    codecs = ("none", "gzip", "snappy", "lz4", "zstd")

    async def story() -> None:
        for codec in codecs:
            producer = new_producer(kafka, bounds=ProducerSettings(compression=codec))
            await producer.fence()
            await producer.commit(Transaction({at(topic): [row(codec.encode() * 100)] * 3}, {}))
            await producer.close()

    run(story())
    assert values(kafka, topic, 15) == [codec.encode() * 100 for codec in codecs for _ in range(3)]


def test_a_fence_without_a_broker_gives_up_in_time() -> None:
    async def story() -> None:
        producer = new_producer("127.0.0.1:9", bounds=SHORT)
        started = time.monotonic()
        with pytest.raises(LogUnavailable):
            await producer.fence()
        assert time.monotonic() - started < 3
        await producer.close()

    run(story())


OwnBroker = Callable[..., EmbeddedBroker]


@pytest.mark.timeout(180)
def test_a_silent_broker_is_a_failure_in_time(own_broker: OwnBroker) -> None:
    """Paused before the writes, or before the end: every wait ends, close() too; then all goes on."""
    broker = own_broker()
    kafka = Kafka(broker.bootstrap_servers)
    topic = kafka.create("topic")

    async def story() -> None:
        producer = new_producer(kafka.bootstrap, "silent", SHORT)
        await producer.fence()
        await producer.commit(Transaction({at(topic): [row(b"0")]}, {}))
        broker.pause()
        await fails_in_time(producer, b"not written")
        broker.resume()

        producer = new_producer(kafka.bootstrap, "silent")
        await producer.fence()
        await producer.commit(Transaction({at(topic): [row(b"1")]}, {}))
        await producer.close()

        producer = new_producer(kafka.bootstrap, "silent", SHORT)
        await producer.fence()
        end = producer._coordinator.end

        async def pause_and_end(*arguments: Any, **options: Any) -> None:
            broker.pause()
            await end(*arguments, **options)

        producer._coordinator.end = pause_and_end  # type: ignore[method-assign]
        await fails_in_time(producer, b"unknown")
        broker.resume()
        producer = new_producer(kafka.bootstrap, "silent")
        await producer.fence()
        await producer.commit(Transaction({at(topic): [row(b"last")]}, {}))
        await producer.close()

    async def fails_in_time(producer: AiokafkaTransactionalProducer, value: bytes) -> None:
        started = time.monotonic()
        with pytest.raises(TransactionFailed):
            await producer.commit(Transaction({at(topic): [row(value)]}, {}))
        await producer.close()
        assert time.monotonic() - started < 5

    run(story())
    read: list[bytes | None] = []
    with Reader(kafka.bootstrap, {topic: 1}) as reader:
        while b"last" not in read:
            read += [delivery.value for delivery in reader.poll(10)]
    # Nobody could know whether the commit had arrived; it was reported as a failure all the same.
    assert [value for value in read if value != b"unknown"] == [b"0", b"1", b"last"]


@pytest.mark.timeout(180)
def test_a_restarted_broker_interrupts_no_transaction_for_long(own_broker: OwnBroker) -> None:
    """Connections are lost, coordinators load again: retried in time, or failed and fenced anew."""
    broker = own_broker()
    kafka = Kafka(broker.bootstrap_servers)
    topic = kafka.create("topic")

    async def story() -> None:
        producer = new_producer(kafka.bootstrap, "restart")
        await producer.fence()
        await producer.commit(Transaction({at(topic): [row(b"before")]}, {}))
        await asyncio.to_thread(broker.restart)
        try:
            await producer.commit(Transaction({at(topic): [row(b"after")]}, {}))
        except (TransactionFailed, ProducerFenced):
            await producer.close()
            producer = new_producer(kafka.bootstrap, "restart")
            await producer.fence()
            await producer.commit(Transaction({at(topic): [row(b"after")]}, {}))
        await producer.close()

    run(story())
    assert [delivery.value for delivery in kafka.read(topic, 2)] == [b"before", b"after"]


@pytest.mark.timeout(180)
def test_a_transaction_that_timed_out_is_a_fence(own_broker: OwnBroker) -> None:
    """The broker aborts it; our own commit then is refused like that of a stale owner."""
    broker = own_broker(properties={"transaction.abort.timed.out.transaction.cleanup.interval.ms": "200"})
    kafka = Kafka(broker.bootstrap_servers)
    topic = kafka.create("topic")

    async def story() -> None:
        producer = new_producer(kafka.bootstrap, "slow", SHORT)
        await producer.fence()
        # As in a process that was stopped: the transaction is open, and its time passes.
        target = at(topic)
        await producer._coordinator.add_partitions(producer._identity, [target])
        await asyncio.sleep(SHORT.transaction_timeout_ms / 1000 + 2)
        with pytest.raises(ProducerFenced):
            await producer.commit(Transaction({target: [row(b"late")]}, {}))
        await producer.close()

    run(story())


@pytest.mark.timeout(150)
def test_a_transaction_that_the_broker_cannot_end_is_named_and_ends_once_it_can(
    own_broker: Callable[..., EmbeddedBroker],
) -> None:
    """A marker is 78 bytes: a topic that takes less holds up the transactional id, whatever else it wrote to.

    The coordinator tries a marker again only after it was loaded anew, which a restart of its broker does.
    """
    broker = own_broker()
    kafka = Kafka(broker.bootstrap_servers)
    tiny, healthy = kafka.create("tiny", max_message_bytes="77"), kafka.create("healthy")

    async def refused() -> None:
        producer = new_producer(kafka.bootstrap, "app-0")
        await producer.fence()
        rows = {at(healthy): [row(b"a")], at(tiny): [row(b"x" * 200)]}
        assert (await refusal(producer.commit(Transaction(rows, {})))).topic == tiny
        await producer.close()

    async def stuck() -> None:
        producer = new_producer(kafka.bootstrap, "app-0", SHORT)
        with pytest.raises(TransactionStuck, match=r"no marker in tiny-0\..*max\.message\.bytes.*broker 1"):
            await producer.fence()
        await producer.close()

    async def free() -> None:
        producer = new_producer(kafka.bootstrap, "app-0")
        await producer.fence()
        await producer.commit(Transaction({at(healthy): [row(b"b")], at(tiny): [row(b"b")]}, {}))
        await producer.close()

    run(refused())
    run(stuck())
    kafka.configure(tiny, max_message_bytes="100000")
    run(stuck())
    broker.restart()
    run(free())
    for topic in (healthy, tiny):
        assert values(kafka.bootstrap, topic, 1) == [b"b"]
