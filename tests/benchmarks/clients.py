"""One process that sends requests in one way, and the time that this takes: elapsed, and of the processor."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from delaystream.client import AsyncClient, AsyncPending, Client, Pending

_VALUE = b"x" * 150
_DELAY = timedelta(days=1)
_WAIT = timedelta(minutes=1)
_OFTEN = 128
#: before the clock runs, so that connections, metadata and imports are there
_WARM = 1_000


def plain(spec: dict[str, Any]) -> Callable[[int], None]:
    """The ceiling: the same records by confluent-kafka's producer alone, acknowledged and counted."""
    producer = Producer(
        {
            "bootstrap.servers": spec["bootstrap"],
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 2,
            "partitioner": "murmur2_random",
        }
    )
    topic = spec["topic"]
    headers: list[tuple[str, str | bytes | None]] = [
        ("delaystream-destination", spec["destination"].encode()),
        ("delaystream-delay", b"86400000ms"),
    ]

    def send(count: int) -> None:
        acknowledged = 0

        def done(error: KafkaError | None, _message: Message) -> None:
            nonlocal acknowledged
            assert error is None, error
            acknowledged += 1

        for number in range(count):
            while True:
                try:
                    producer.produce(topic, _VALUE, b"key-%d" % number, headers=headers, on_delivery=done)
                except BufferError:
                    producer.poll(0.1)
                else:
                    break
            if number % _OFTEN == 0:
                producer.poll(0)
        producer.flush()
        assert acknowledged == count

    return send


def blocking(spec: dict[str, Any]) -> Callable[[int], None]:
    """A batch of the blocking client: checked, acknowledged, no receipts."""
    client = _client(spec)

    def send(count: int) -> None:
        with client.batch() as batch:
            for number in range(count):
                id = f"id-{number}" if spec["ids"] else None
                batch.schedule(spec["destination"], _VALUE, key=b"key-%d" % number, delay=_DELAY, id=id)

    return send


def receipts(spec: dict[str, Any]) -> Callable[[int], None]:
    """A batch of the blocking client with so many requests in flight whose receipts are awaited."""
    client = _client(spec)
    flying: deque[Pending[Any]] = deque()

    def land() -> None:
        assert flying.popleft().result().outcome == "scheduled"

    def send(count: int) -> None:
        batch = client.batch()
        for number in range(count):
            if len(flying) == spec["in_flight"]:
                land()
            key = b"key-%d" % number
            flying.append(batch.schedule(spec["destination"], _VALUE, key=key, delay=_DELAY, wait=_WAIT))
        while flying:
            land()

    return send


async def asynchronous(client: AsyncClient, spec: dict[str, Any], count: int) -> None:
    """A batch of the asynchronous client, without receipts or with so many in flight."""
    flying: deque[AsyncPending[Any]] = deque()

    async def land() -> None:
        assert (await flying.popleft().result()).outcome == "scheduled"

    async with client.batch() as batch:
        for number in range(count):
            key = b"key-%d" % number
            if not spec["in_flight"]:
                await batch.schedule(spec["destination"], _VALUE, key=key, delay=_DELAY)
                continue
            if len(flying) == spec["in_flight"]:
                await land()
            flying.append(
                await batch.schedule(spec["destination"], _VALUE, key=key, delay=_DELAY, wait=_WAIT)
            )
        while flying:
            await land()


def _client(spec: dict[str, Any]) -> Client:
    return Client(spec["bootstrap"], request_topic=spec["topic"], reply_to=spec["reply_to"])


def _figures(count: int, started: tuple[float, float]) -> dict[str, float]:
    seconds = time.perf_counter() - started[0]
    processor = time.process_time() - started[1]
    return {"per_second": count / seconds, "processor_us": processor / count * 1e6}


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


async def _run_asynchronous(spec: dict[str, Any]) -> dict[str, float]:
    async with AsyncClient(
        spec["bootstrap"], request_topic=spec["topic"], reply_to=spec["reply_to"]
    ) as client:
        await asynchronous(client, spec, _WARM)
        started = _now()
        await asynchronous(client, spec, spec["count"])
        return _figures(spec["count"], started)


def main() -> None:
    """Send as the JSON in the first argument says; print what it took."""
    spec = json.loads(sys.argv[1])
    if spec["way"] == "asynchronous":
        print(json.dumps(asyncio.run(_run_asynchronous(spec))))
        return
    send = {"plain": plain, "blocking": blocking, "receipts": receipts}[spec["way"]](spec)
    send(_WARM)
    started = _now()
    send(spec["count"])
    print(json.dumps(_figures(spec["count"], started)))


if __name__ == "__main__":
    main()
