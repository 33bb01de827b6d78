"""In which order consumers settle: what is written comes before the offset, what fails is read again, and
whoever has lost a partition says so."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from aiokafka import TopicPartition as AioPartition
from aiokafka.errors import KafkaConnectionError, ProducerFenced
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from delaystream.client import RetryTopics, UnavailableError
from delaystream.client.consuming import async_consuming, blocking_consuming
from delaystream.client.consuming.async_consuming import AsyncDeliveryConsumer
from delaystream.client.consuming.blocking_consuming import DeliveryConsumer
from delaystream.client.consuming.consumer import Consuming

TOPIC = "invoices"
PLACE = (TOPIC, 0)


def told(**options: Any) -> Consuming:
    return Consuming.of(TOPIC, "billing", RetryTopics(), options)  # type: ignore[arg-type]


class World:
    """What Kafka holds, and what was done to it, in order."""

    def __init__(self, records: int) -> None:
        self.records = records
        self.position = 0
        self.committed: int | None = None
        self.done: list[str] = []
        #: of what is produced from now on: why it is refused
        self.refusal: Any = None
        #: raised by the commits that come, one each
        self.failures: deque[Exception] = deque()

        self.produced = asyncio.Event()

    def note(self, what: str) -> None:
        self.done.append(what)
        if what == "produce":
            self.produced.set()

    def next(self) -> int | None:
        if self.position == self.records:
            return None
        self.position += 1
        return self.position - 1

    def commit(self) -> None:
        if self.failures:
            self.note("commit refused")
            raise self.failures.popleft()
        self.note("commit")


class Message:
    """As confluent-kafka has it."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def error(self) -> None:
        return None

    def topic(self) -> str:
        return TOPIC

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes:
        return b"k"

    def value(self) -> bytes:
        return b"%d" % self._offset

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_900_000_000_000

    def headers(self) -> list[Any]:
        return []


class BlockingConsumer:
    """In place of confluent-kafka's."""

    world: World

    def __init__(self, _settings: Mapping[str, Any]) -> None: ...

    def subscribe(self, topics: list[str], **callbacks: Any) -> None:
        assert topics == [TOPIC]

    def poll(self, _timeout: float) -> Message | None:
        offset = self.world.next()
        return None if offset is None else Message(offset)

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> list[TopicPartition]:
        assert not asynchronous
        self.world.commit()
        self.world.committed = offsets[0].offset
        return offsets

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition(*PLACE)]

    def seek(self, place: TopicPartition) -> None:
        self.world.note(f"seek {place.offset}")
        self.world.position = place.offset

    def consumer_group_metadata(self) -> str:
        return "metadata"

    def close(self) -> None:
        self.world.note("close")


class BlockingProducer:
    """In place of confluent-kafka's: what is produced is told of by `flush` and by commits."""

    world: World

    def __init__(self, _settings: Mapping[str, Any]) -> None:
        self.waiting: list[Callable[[Any, Any], None]] = []

    def produce(self, *arguments: Any, headers: Any) -> None:
        self.world.note("produce")
        self.waiting.append(arguments[4])

    def poll(self, _timeout: float) -> None:
        raise AssertionError("there is room")

    def flush(self, _timeout: float) -> int:
        self.world.note("flush")
        waiting, self.waiting = self.waiting, []
        for tell in waiting:
            tell(self.world.refusal, None)
        return 0

    def init_transactions(self, _timeout: float) -> None:
        self.world.note("init")

    def begin_transaction(self) -> None:
        self.world.note("begin")

    def send_offsets_to_transaction(
        self, offsets: list[TopicPartition], metadata: Any, _timeout: float
    ) -> None:
        assert metadata == "metadata"
        self.world.note(f"offsets {offsets[0].offset}")

    def commit_transaction(self, _timeout: float) -> None:
        self.flush(0)
        self.world.commit()

    def abort_transaction(self, _timeout: float) -> None:
        self.world.note("abort")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    found = World(2)
    for module, names in (
        (blocking_consuming, {"Consumer": BlockingConsumer, "Producer": BlockingProducer}),
        (async_consuming, {"AIOKafkaConsumer": AsyncConsumer, "AIOKafkaProducer": AsyncProducer}),
    ):
        for name, fake in names.items():
            monkeypatch.setattr(fake, "world", found, raising=False)
            monkeypatch.setattr(module, name, fake)
    return found


def test_what_was_produced_is_acknowledged_before_offsets_are_committed(world: World) -> None:
    with DeliveryConsumer(told(), {}, {}) as consumer:
        delivery = consumer.take(0)
        assert delivery is not None
        delivery.retry(delay="1s")
    assert world.done == ["produce", "flush", "commit", "close"]


def test_nothing_is_committed_where_a_record_was_refused(world: World) -> None:
    world.refusal = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    consumer = DeliveryConsumer(told(), {}, {})
    delivery = consumer.take(0)
    assert delivery is not None
    delivery.retry(delay="1s")
    with pytest.raises(UnavailableError, match="took no record"):
        consumer.close()
    assert world.committed is None


@pytest.mark.parametrize("caught", [False, True])
def test_a_record_that_was_refused_stays_so(world: World, caught: bool) -> None:
    """Whoever leaves because of it, or goes on, has not settled its delivery: it is read again."""
    world.refusal = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)

    def consume() -> None:
        with DeliveryConsumer(told(settle_records=1), {}, {}) as consumer:
            delivery = consumer.take(0)
            assert delivery is not None
            delivery.retry(delay="1s")
            for _ in range(2 if caught else 1):
                with pytest.raises(UnavailableError, match="took no record"):
                    consumer.take(0)
            raise LookupError

    with pytest.raises((UnavailableError, LookupError)):
        consume()
    assert "commit" not in world.done
    assert world.done[-1] == "close"


def test_an_acknowledgement_that_was_interrupted_is_none(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C within the callback takes it away: its delivery must not count as settled."""

    def interrupted(producer: BlockingProducer, _timeout: float) -> int:
        producer.waiting.clear()
        raise KeyboardInterrupt

    world.records = 1
    flush = BlockingProducer.flush
    monkeypatch.setattr(BlockingProducer, "flush", interrupted)
    consumer = DeliveryConsumer(told(), {}, {})
    delivery = consumer.take(0)
    assert delivery is not None
    delivery.retry(delay="1s")
    with pytest.raises(KeyboardInterrupt):
        consumer.take(0)
    monkeypatch.setattr(BlockingProducer, "flush", flush)
    with pytest.raises(UnavailableError, match="No acknowledgement"):
        consumer.close(handled=False)
    assert world.committed is None


def must_abort() -> KafkaException:
    code = KafkaError.CONCURRENT_TRANSACTIONS
    return KafkaException(KafkaError(code, "a rebalance", False, False, True))


def test_a_transaction_that_was_aborted_is_read_again_from_its_beginning(world: World) -> None:
    world.failures.append(must_abort())
    consumer = DeliveryConsumer(told(transactional_id="t", settle_records=2), {}, {})
    offsets = [taken.offset for _ in range(4) if (taken := consumer.take(0))]
    consumer.close()
    assert offsets == [0, 1, 0, 1]
    first = ["init", "begin", "offsets 2", "flush", "commit refused", "abort", "seek 0"]
    assert world.done == [*first, "begin", "offsets 2", "flush", "commit", "close"]


# -- in an event loop


class AsyncConsumer:
    """In place of aiokafka's."""

    world: World

    def __init__(self, **_settings: Any) -> None: ...

    def subscribe(self, topics: list[str], listener: Any) -> None:
        assert topics == [TOPIC]
        self.listener = listener

    async def start(self) -> None:
        await self.listener.on_partitions_assigned({AioPartition(*PLACE)})

    async def stop(self) -> None:
        self.world.note("close")

    async def committed(self, _place: AioPartition) -> int | None:
        return self.world.committed

    async def position(self, _place: AioPartition) -> int:
        return self.world.position

    def seek(self, _place: AioPartition, offset: int) -> None:
        self.world.note(f"seek {offset}")
        self.world.position = offset

    async def getmany(self, **_named: Any) -> dict[AioPartition, list[Any]]:
        await asyncio.sleep(0)
        offset = self.world.next()
        return {} if offset is None else {AioPartition(*PLACE): [AsyncRecord(offset)]}

    async def commit(self, offsets: dict[AioPartition, int]) -> None:
        self.world.commit()
        self.world.committed = offsets[AioPartition(*PLACE)]


class AsyncRecord:
    """As aiokafka has it."""

    topic, partition, timestamp = TOPIC, 0, 1_900_000_000_000
    key, headers = b"k", ()

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.value = b"%d" % offset


class AsyncProducer:
    """In place of aiokafka's."""

    world: World

    def __init__(self, **settings: Any) -> None:
        self.id = settings.get("transactional_id")

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def send(self, *_record: Any, headers: Any) -> asyncio.Future[None]:
        self.world.note("produce")
        sent = asyncio.get_running_loop().create_future()

        def acknowledge() -> None:
            self.world.note("acknowledged")
            if self.world.refusal is None:
                sent.set_result(None)
            else:
                sent.set_exception(self.world.refusal)

        # Not before somebody has waited.
        asyncio.get_running_loop().call_later(0.001, acknowledge)
        return sent

    async def begin_transaction(self) -> None:
        self.world.note("begin")

    async def send_offsets_to_transaction(self, offsets: dict[AioPartition, int], group: str) -> None:
        assert group == "billing"
        self.world.note(f"offsets {offsets[AioPartition(*PLACE)]}")

    async def commit_transaction(self) -> None:
        self.world.commit()

    async def abort_transaction(self) -> None:
        self.world.note("abort")


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as found:
        yield found


def test_so_it_is_acknowledged_before_offsets_in_an_event_loop(world: World, runner: asyncio.Runner) -> None:
    async def consume() -> None:
        async with AsyncDeliveryConsumer(told(), {}, {}, {}) as consumer:
            delivery = await consumer.take(5)
            assert delivery is not None
            await delivery.retry(delay="1s")

    runner.run(consume())
    assert world.done == ["produce", "acknowledged", "commit", "close"]


def test_nothing_is_committed_in_an_event_loop_where_a_record_was_refused(
    world: World, runner: asyncio.Runner
) -> None:
    async def consume() -> None:
        async with AsyncDeliveryConsumer(told(), {}, {}, {}) as consumer:
            delivery = await consumer.take(5)
            assert delivery is not None
            await delivery.retry(delay="1s")

    world.refusal = KafkaConnectionError("gone")
    with pytest.raises(UnavailableError, match="took no record"):
        runner.run(consume())
    assert world.committed is None


@pytest.mark.parametrize("caught", [False, True])
def test_a_record_that_was_refused_stays_so_in_an_event_loop(
    world: World, runner: asyncio.Runner, caught: bool
) -> None:
    async def consume() -> None:
        async with AsyncDeliveryConsumer(told(settle_records=1), {}, {}, {}) as consumer:
            delivery = await consumer.take(5)
            assert delivery is not None
            await delivery.retry(delay="1s")
            for _ in range(2 if caught else 1):
                with pytest.raises(UnavailableError, match="took no record"):
                    await consumer.take(5)
            raise LookupError

    world.refusal = KafkaConnectionError("gone")
    with pytest.raises((UnavailableError, LookupError)):
        runner.run(consume())
    assert "commit" not in world.done
    assert world.done[-1] == "close"


def test_who_is_cancelled_while_records_are_written_settles_what_was_written(
    world: World, runner: asyncio.Runner
) -> None:
    """Not before: an offset ahead of its record would lose it."""

    async def consume() -> None:
        async with AsyncDeliveryConsumer(told(settle_records=1), {}, {}, {}) as consumer:
            delivery = await consumer.take(5)
            assert delivery is not None
            await delivery.retry(delay="1s")
            await consumer.take(5)

    async def cancelled() -> None:
        task = asyncio.create_task(consume())
        await world.produced.wait()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    runner.run(cancelled())
    assert world.done == ["produce", "acknowledged", "commit", "close"]


def test_an_aborted_transaction_is_read_again_in_an_event_loop(world: World, runner: asyncio.Runner) -> None:
    async def consume() -> list[int]:
        consumer = AsyncDeliveryConsumer(told(transactional_id="t", settle_records=1), {}, {}, {})
        offsets = [taken.offset for _ in range(3) if (taken := await consumer.take(5))]
        await consumer.close()
        return offsets

    world.failures.append(KafkaConnectionError("gone"))
    assert runner.run(consume()) == [0, 0, 1]
    first = ["begin", "offsets 1", "commit refused", "abort", "seek 0"]
    assert world.done[: len(first) + 3] == [*first, "begin", "offsets 1", "commit"]


def test_who_was_fenced_says_so_and_gives_nothing_more(world: World, runner: asyncio.Runner) -> None:
    """The partition is another consumer's: to go on would be to do its work twice."""

    async def consume() -> None:
        consumer = AsyncDeliveryConsumer(told(transactional_id="t", settle_records=1), {}, {}, {})
        assert await consumer.take(5) is not None
        with pytest.raises(UnavailableError, match="invoices/0 was given to another consumer"):
            await consumer.take(5)
        await consumer.close()

    world.failures.append(ProducerFenced())
    runner.run(consume())
    assert "commit" not in world.done
    assert "abort" not in world.done
