"""Kafka that says nothing any more: an asynchronous client says so in time, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError
from aiokafka.structs import RecordMetadata

from delaystream.client import UnavailableError
from delaystream.client.kafka import aiokafka_transport
from delaystream.client.kafka.aiokafka_transport import AiokafkaTransport
from delaystream.client.kafka.transport import SEND_TIMEOUT_S
from delaystream.client.requests.records import RequestRecord
from delaystream.testing import VirtualTimeLoop

RECORD = RequestRecord("requests", b"v", b"k", [], 0)


class Producer:
    """In place of aiokafka's: it acknowledges when it is told to."""

    made: ClassVar[list[Producer]] = []

    def __init__(self, **_settings: Any) -> None:
        self.sent: list[asyncio.Future[RecordMetadata]] = []
        self.made.append(self)

    async def start(self) -> None: ...

    async def stop(self) -> None:
        await asyncio.gather(*self.sent, return_exceptions=True)

    async def send(self, *_record: Any, headers: Any) -> asyncio.Future[RecordMetadata]:
        self.sent.append(asyncio.get_running_loop().create_future())
        return self.sent[-1]


def acknowledge(sent: asyncio.Future[RecordMetadata], offset: int) -> None:
    place = TopicPartition("requests", 0)
    sent.set_result(RecordMetadata("requests", 0, place, offset, 1_900_000_000_000, 1, 0))


class Unreadable:
    """In place of aiokafka's consumer: what it may not read it may be asked about."""

    opened = 0

    def __init__(self, **_settings: Any) -> None: ...

    async def start(self) -> None:
        Unreadable.opened += 1

    async def stop(self) -> None:
        Unreadable.opened -= 1

    def assign(self, _places: Any) -> None: ...

    def seek(self, _place: Any, _offset: int) -> None: ...

    def partitions_for_topic(self, _topic: str) -> set[int]:
        return {0}

    async def end_offsets(self, places: Any) -> dict[Any, int]:
        return dict.fromkeys(places, 7)

    async def getmany(self, **_named: Any) -> dict[Any, Any]:
        raise TopicAuthorizationFailedError("replies")


@pytest.fixture(autouse=True)
def kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    async def one(_transport: AiokafkaTransport, _topic: str) -> int:
        return 1

    Producer.made.clear()
    monkeypatch.setattr(Unreadable, "opened", 0)
    monkeypatch.setattr(aiokafka_transport, "AIOKafkaProducer", Producer)
    monkeypatch.setattr(aiokafka_transport, "AIOKafkaConsumer", Unreadable)
    monkeypatch.setattr(AiokafkaTransport, "partitions", one)


def in_virtual_time(story: Callable[[AiokafkaTransport], Coroutine[Any, Any, None]]) -> None:
    with VirtualTimeLoop() as loop:

        async def run() -> None:
            async with asyncio.timeout(10_000):
                await story(AiokafkaTransport({}, {}, {}, in_flight=3))

        loop.run_until_complete(run())


def test_an_acknowledgement_that_does_not_come_is_an_error_after_a_while() -> None:
    """And the next one that comes is none: each has its own time."""

    async def story(transport: AiokafkaTransport) -> None:
        first = await transport.produce(RECORD)
        await asyncio.sleep(SEND_TIMEOUT_S / 2)
        second = await transport.produce(RECORD)
        with pytest.raises(UnavailableError, match="requests: no acknowledgement within 30 s; it may"):
            await transport.wait(first, None)
        assert not second.done()
        [producer] = Producer.made
        # Late: nobody is told any more, and the place is another's.
        acknowledge(producer.sent[0], 1)
        acknowledge(producer.sent[1], 2)
        assert (await transport.wait(second, None)).source.offset == 2

    in_virtual_time(story)


def test_who_waits_for_room_is_told_as_well() -> None:
    async def story(transport: AiokafkaTransport) -> None:
        sent = [await transport.produce(RECORD) for _ in range(3)]
        with pytest.raises(UnavailableError, match="as many records as may be wait for acknowledgement"):
            await transport.produce(RECORD)
        assert isinstance(sent[0].exception(), UnavailableError)
        for one in sent[1:]:
            one.exception()

    in_virtual_time(story)


def test_a_close_that_takes_too_long_has_everybody_told() -> None:
    async def story(transport: AiokafkaTransport) -> None:
        sent = await transport.produce(RECORD)
        waiting = asyncio.create_task(transport.wait(sent, None))
        await asyncio.sleep(0)
        await transport.close(0.1)
        with pytest.raises(UnavailableError, match="closed before it was acknowledged"):
            await waiting

    in_virtual_time(story)


def test_a_topic_that_may_not_be_read_leaves_no_connection_behind() -> None:
    """However often it is tried: each time there is a consumer with tasks and connections of its own."""

    async def story(transport: AiokafkaTransport) -> None:
        failures: list[Exception] = []
        for tries in range(1, 4):
            await transport.follow("replies", lambda _: None, failures.append)
            await asyncio.sleep(1)
            assert len(failures) == tries
            assert Unreadable.opened == 0
        await transport.close(1)

    in_virtual_time(story)
