"""A consumer that can be killed: fails each record as often as its value says, and tells what it has tried.

`python -m tests.integration.consuming_member MODE BOOTSTRAP MEMBER TOPICS`, where TOPICS is JSON. A record's
value is how often handling it fails. Prints a line of JSON for each attempt when it is taken, and
when it has been decided and is not settled: which of the two, partition, key, attempt, whether it fails.
After each it goes on when it is given a line.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from typing import Any

from delaystream.client import (
    AsyncClient,
    Client,
    Delivery,
    RequestRecord,
    retry,
)
from delaystream.client.consuming.retrying import RetryPolicy, RetryTopics
from delaystream.client.requests.records import Place

MAX_ATTEMPTS = 3
BACKOFF = "20ms..50ms*2"
SESSION_MS = 3000


def outcome(delivery: Delivery, topics: dict[str, str]) -> tuple[bool, list[RequestRecord]]:
    """Whether the attempt fails, and what it writes."""
    fails = does_fail(delivery)
    attempt = b"%d" % delivery.attempt
    written = [RequestRecord(topics["tried"], delivery.key, attempt, [])]
    if not fails:
        written.append(RequestRecord(topics["handled"], delivery.key, attempt, []))
    return fails, written


def tell(stage: str, delivery: Delivery) -> None:
    """Say where it stands, and wait until it may go on."""
    key = (delivery.key or b"").decode()
    print(json.dumps([stage, delivery.partition, key, delivery.attempt, does_fail(delivery)]), flush=True)
    sys.stdin.readline()


def does_fail(delivery: Delivery) -> bool:
    """Whether the attempt fails."""
    return delivery.attempt <= int(delivery.value or b"0")


def blocking(bootstrap: str, member: str, topics: dict[str, str], *, transactional: bool) -> None:
    """By confluent-kafka."""
    client = Client(bootstrap, request_topic=topics["requests"])
    settings = {"group.instance.id": member, "session.timeout.ms": SESSION_MS}
    with client.consumer(
        topics["source"],
        group=topics["source"],
        transactional_id=f"{topics['source']}-{member}" if transactional else None,
        dead_letters=topics["dead_letters"],
        kafka=settings,
    ) as consumer:
        for delivery in consumer:
            tell("taken", delivery)
            fails, written = outcome(delivery, topics)
            for record in written:
                consumer.send(record)
            if fails:
                delivery.retry(backoff=BACKOFF, max_attempts=MAX_ATTEMPTS, error="not yet")
            tell("decided", delivery)


async def asynchronous(bootstrap: str, member: str, topics: dict[str, str], *, transactional: bool) -> None:
    """By aiokafka."""
    client = AsyncClient(bootstrap, request_topic=topics["requests"])
    async with client.consumer(
        topics["source"],
        group=topics["source"],
        transactional_id=topics["source"] if transactional else None,
        dead_letters=topics["dead_letters"],
        kafka={"group_instance_id": member, "session_timeout_ms": SESSION_MS},
    ) as consumer:
        async for delivery in consumer:
            await asyncio.to_thread(tell, "taken", delivery)
            fails, written = outcome(delivery, topics)
            for record in written:
                await consumer.send(record)
            if fails:
                await delivery.retry(backoff=BACKOFF, max_attempts=MAX_ATTEMPTS, error="not yet")
            await asyncio.to_thread(tell, "decided", delivery)


def own_transaction(bootstrap: str, member: str, topics: dict[str, str]) -> None:
    """With a consumer, a producer and a transaction of the caller's own, and the pure functions."""
    from confluent_kafka import Consumer, Producer

    settings: dict[str, Any] = {"bootstrap.servers": bootstrap}
    producer = Producer(
        {**settings, "transactional.id": f"{topics['source']}-{member}", "partitioner": "murmur2_random"}
    )
    producer.init_transactions(30)
    consumer = Consumer(
        {
            **settings,
            "group.id": topics["source"],
            "group.instance.id": member,
            "session.timeout.ms": SESSION_MS,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    consumer.subscribe([topics["source"]])
    policy = RetryPolicy.of(backoff=BACKOFF, max_attempts=MAX_ATTEMPTS)
    place = RetryTopics(Place(topics["requests"]), topics["dead_letters"])
    for message in _messages(consumer):
        delivery = Delivery.of_message(message)
        tell("taken", delivery)
        fails, written = outcome(delivery, topics)
        if fails:
            written.append(retry(delivery, policy, place, error="not yet").record)
        producer.begin_transaction()
        for record in written:
            producer.produce(record.topic, record.value, record.key, headers=list(record.headers))
        positions = consumer.position(consumer.assignment())
        tell("decided", delivery)
        producer.send_offsets_to_transaction(
            [one for one in positions if one.offset >= 0], consumer.consumer_group_metadata()
        )
        producer.commit_transaction()


def _messages(consumer: Any) -> Iterator[Any]:
    while True:
        message = consumer.poll(1)
        if message is not None and message.error() is None:
            yield message


if __name__ == "__main__":
    mode, bootstrap, member, topics = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
    if mode == "own":
        own_transaction(bootstrap, member, topics)
    elif mode.startswith("async"):
        asyncio.run(asynchronous(bootstrap, member, topics, transactional=mode.endswith("transactions")))
    else:
        blocking(bootstrap, member, topics, transactional=mode.endswith("transactions"))
