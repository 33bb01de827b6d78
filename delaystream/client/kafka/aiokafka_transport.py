"""Kafka for callers in an event loop, by aiokafka."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, KafkaTimeoutError
from aiokafka.structs import RecordMetadata

from delaystream.client.kafka.aiokafka_gaps import reread, value_to_write, written_value
from delaystream.client.kafka.deliveries import Delivery
from delaystream.client.kafka.transport import SEND_TIMEOUT_S, Fail, Take
from delaystream.client.requests.checking import wall_ms
from delaystream.client.requests.outcomes import MissingTopicError, UnavailableError
from delaystream.client.requests.records import RequestRecord, Sent
from delaystream.core.request import Coordinates

T = TypeVar("T")

IN_FLIGHT: Final = 10_000
"""Most records that wait for acknowledgement; a caller with one more waits."""
LARGEST_BYTES: Final = 8 * 1024 * 1024
"""Of a record. What topics take is less, and theirs to say."""
_LOOK_S: Final = 1.0
"""How often it is looked whether one is late."""
_BATCH_BYTES: Final = 256 * 1024
_AT_ONCE: Final = 1000
_FETCH_WAIT_MS: Final = 50
_LOOK_MS: Final = 5_000
"""How often it is looked whether a topic that is followed has more partitions by now."""


class AiokafkaTransport:
    """One idempotent producer, and one consumer for each topic that is followed.

    `producer` is `ClientConfig.aiokafka_producer()`, `consumer` is `ClientConfig.aiokafka_consumer()`;
    `other` is `ClientConfig.confluent()`: what aiokafka cannot read is read with that.
    """

    def __init__(
        self,
        producer: Mapping[str, Any],
        consumer: Mapping[str, Any],
        other: Mapping[str, Any],
        in_flight: int = IN_FLIGHT,
    ) -> None:
        self._settings = {
            "max_batch_size": _BATCH_BYTES,
            **producer,
            "max_request_size": LARGEST_BYTES,
            "value_serializer": written_value,
            "enable_idempotence": True,
            "acks": "all",
        }
        self._consumer = consumer
        self._other = {**other, "isolation.level": "read_committed"}
        self._room = asyncio.Semaphore(in_flight)
        self._starting = asyncio.Lock()
        self._producer: AIOKafkaProducer | None = None
        self._readers: set[asyncio.Task[None]] = set()
        #: until when each acknowledgement is waited for; those that came may be among them for a moment
        self._awaited: list[tuple[float, str, asyncio.Future[Sent]]] = []
        self._looking: asyncio.TimerHandle | None = None

    def now_ms(self) -> int:
        """See the protocol."""
        return wall_ms()

    async def partitions(self, topic: str) -> int:
        """See `AsyncTransport`."""
        producer = await self._started()
        try:
            # Of all topics: asking for one by its name may create it.
            found = (await producer.client.fetch_all_metadata()).partitions_for_topic(topic)
        except KafkaError as error:
            raise UnavailableError(f"Kafka does not answer: {_said(error)}.") from None
        if found is None:
            raise MissingTopicError(topic)
        if not found:
            raise UnavailableError(f"Topic {topic} cannot be used: it has no partitions yet.")
        return len(found)

    async def produce(self, record: RequestRecord) -> asyncio.Future[Sent]:
        """See `AsyncTransport`."""
        producer = await self._started()
        await self._make_room(record.topic)
        try:
            written: asyncio.Future[RecordMetadata] = await producer.send(
                record.topic,
                value_to_write(record.value),
                record.key,
                record.partition,
                headers=record.headers,
            )
        except BaseException as error:
            self._room.release()
            if isinstance(error, KafkaError):
                raise _refused(record.topic, error) from None
            raise
        loop = asyncio.get_running_loop()
        sent: asyncio.Future[Sent] = loop.create_future()
        written.add_done_callback(lambda done: self._told(record.topic, done, sent))
        self._awaited.append((loop.time() + SEND_TIMEOUT_S, record.topic, sent))
        if self._looking is None:
            self._looking = loop.call_later(_LOOK_S, self._look)
        return sent

    async def _make_room(self, topic: str) -> None:
        if not self._room.locked():
            # At once: a bound on the time would cost as much as all else here.
            await self._room.acquire()
            return
        try:
            await asyncio.wait_for(self._room.acquire(), SEND_TIMEOUT_S)
        except TimeoutError:
            raise UnavailableError(
                f"{topic}: as many records as may be wait for acknowledgement, and none came within "
                f"{SEND_TIMEOUT_S:.0f} s."
            ) from None

    def _look(self) -> None:
        """Tell of acknowledgements that are late: an idempotent producer of aiokafka's asks without end."""
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        for until_s, topic, sent in self._awaited:
            if until_s <= now_s and not sent.done():
                sent.set_exception(
                    UnavailableError(
                        f"{topic}: no acknowledgement within {SEND_TIMEOUT_S:.0f} s; it may still be written."
                    )
                )
        # Not from the front alone: behind one that is late many may have come.
        self._awaited = [one for one in self._awaited if not one[2].done()]
        self._looking = loop.call_later(_LOOK_S, self._look) if self._awaited else None

    async def follow(self, topic: str, each: Take, fail: Fail) -> None:
        """See `AsyncTransport`."""
        partitions = await self.partitions(topic)
        consumer = AIOKafkaConsumer(
            **{
                "fetch_max_wait_ms": _FETCH_WAIT_MS,
                "metadata_max_age_ms": _LOOK_MS,
                **self._consumer,
                "group_id": None,
                "enable_auto_commit": False,
                "isolation_level": "read_committed",
                "auto_offset_reset": "latest",
            }
        )
        try:
            await consumer.start()
            places = [TopicPartition(topic, number) for number in range(partitions)]
            consumer.assign(places)
            ends = await consumer.end_offsets(places)
            for place, end in ends.items():
                consumer.seek(place, end)
        except KafkaError as error:
            await consumer.stop()
            raise UnavailableError(f"Topic {topic} cannot be read: {_said(error)}.") from None
        except BaseException:
            await consumer.stop()
            raise
        starts = {(place.topic, place.partition): end for place, end in ends.items()}
        reading = asyncio.create_task(
            told_of_its_end(self._read_on(consumer, starts, each), topic, fail), name=f"reads {topic}"
        )
        self._readers.add(reading)
        reading.add_done_callback(self._readers.discard)

    async def wait(self, future: asyncio.Future[T], timeout_s: float | None) -> T:
        """See `AsyncTransport`."""
        if future.done():
            return future.result()
        return await asyncio.wait_for(asyncio.shield(future), timeout_s)

    async def close(self, timeout_s: float) -> None:
        """See `AsyncTransport`."""
        try:
            if self._producer is not None:
                await asyncio.wait_for(self._producer.stop(), timeout_s)
        except TimeoutError:
            pass  # what is not acknowledged by now has told so, or tells it to nobody
        finally:
            if self._looking is not None:
                self._looking.cancel()
            for _, topic, sent in self._awaited:
                if not sent.done():
                    sent.set_exception(_closed(topic))
            self._awaited.clear()
            reading = list(self._readers)
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)

    async def _started(self) -> AIOKafkaProducer:
        if self._producer is not None:
            return self._producer
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(**self._settings)
                try:
                    await producer.start()
                except KafkaError as error:
                    await producer.stop()
                    raise UnavailableError(f"Kafka does not answer: {_said(error)}.") from None
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer

    async def _read_on(
        self, consumer: AIOKafkaConsumer, positions: dict[tuple[str, int], int], each: Take
    ) -> None:
        """Read until it fails, or is cancelled: then the consumer is closed."""
        try:
            await self._read(consumer, positions, each)
        finally:
            await consumer.stop()

    async def _read(
        self, consumer: AIOKafkaConsumer, positions: dict[tuple[str, int], int], each: Take
    ) -> None:
        while True:
            take_new_partitions(consumer, positions)
            try:
                fetched = await consumer.getmany(timeout_ms=_AT_ONCE)
            except UnicodeDecodeError:
                async for deliveries in reread(consumer, positions, self._other, Delivery):
                    for delivery in deliveries:
                        each(delivery)
                continue
            for place, records in fetched.items():
                for record in records:
                    each(Delivery.of_record(record))
                    positions[place.topic, place.partition] = record.offset + 1

    def _told(self, topic: str, written: asyncio.Future[RecordMetadata], sent: asyncio.Future[Sent]) -> None:
        self._room.release()
        if sent.done():
            # It was cancelled, or told that it is late.
            if not written.cancelled():
                written.exception()
            return
        if written.cancelled():
            sent.set_exception(_closed(topic))
        elif (error := written.exception()) is not None:
            sent.set_exception(_refused(topic, error))
        else:
            at = written.result()
            sent.set_result(Sent(Coordinates(topic, at.partition, at.offset), at.timestamp))


def take_new_partitions(consumer: AIOKafkaConsumer, positions: dict[tuple[str, int], int]) -> None:
    """Read those from their beginning that topics have got since: by metadata that is there already.

    `positions` is where each partition goes on; new ones are added.
    """
    new = [
        TopicPartition(topic, number)
        for topic in {topic for topic, _ in positions}
        for number in sorted(consumer.partitions_for_topic(topic) or ())
        if (topic, number) not in positions
    ]
    if not new:
        return
    # Assigned anew, all forget where they were.
    consumer.assign([*(TopicPartition(*place) for place in positions), *new])
    positions.update({(place.topic, place.partition): 0 for place in new})
    for place, position in positions.items():
        consumer.seek(TopicPartition(*place), position)


async def told_of_its_end(reading: Coroutine[Any, Any, None], topic: str, fail: Fail) -> None:
    """Read, and tell whoever waits for a record why none comes any more."""
    try:
        await reading
    except UnavailableError as error:
        fail(error)
    except KafkaError as error:
        fail(UnavailableError(f"Topic {topic} cannot be read: {_said(error)}."))
    except Exception as error:  # noqa: BLE001 - nobody looks at the task: it is told to `fail`, whatever it is
        fail(UnavailableError(f"Topic {topic} cannot be read: {type(error).__name__}: {_said(error)}."))


def _closed(topic: str) -> UnavailableError:
    return UnavailableError(f"{topic}: the client was closed before it was acknowledged.")


def _refused(topic: str, error: BaseException) -> UnavailableError:
    if isinstance(error, KafkaTimeoutError):
        return UnavailableError(f"{topic}: no acknowledgement in time ({_said(error)}).")
    return UnavailableError(f"{topic} took no record: {_said(error)}.")


def _said(error: BaseException) -> str:
    return (str(error) or type(error).__name__).rstrip(".")
