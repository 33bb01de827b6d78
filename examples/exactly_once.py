"""Consume, decide, schedule: exactly once, in a transaction of your own.

For each order a reminder is scheduled, and for each payment it is cancelled. The requests and the offsets of
what they were decided on are committed together: a crash at any moment leaves both, or neither. Nothing of
delaystream sends here; its pure functions make the records, `check` refuses what a worker would refuse.

    python examples/exactly_once.py localhost:9092 orders reminders
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, Producer

from delaystream.client import Place, RequestRecord, cancel_request, check, schedule_request

REMIND_AFTER = timedelta(days=3)
AT_ONCE = 50
"""Orders in one transaction, at most."""
TRANSACTION_S = 30.0


def decide(place: Place, reminders: str, order: dict[str, Any], remind_after: timedelta) -> RequestRecord:
    """The request that an event about an order asks for: pure, so a test calls it with a dictionary."""
    id = f"reminder-{order['number']}"
    if order["event"] == "paid":
        return cancel_request(place, id)
    return schedule_request(place, reminders, order, key=order["customer"], delay=remind_after, id=id)


def run(
    servers: str,
    orders: str,
    reminders: str,
    request_topic: str = "delay-requests",
    remind_after: timedelta = REMIND_AFTER,
) -> None:
    """Work until the process is ended. Whatever fails ends it: who starts it again goes on where it stood."""
    # By its name a consumer that is started again has its partitions at once, and a producer ends what it had
    # left open. Each process of a group has a name of its own.
    name = "order-reminders-0"
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": f"{orders}-reminders",
            "group.instance.id": name,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    producer = Producer({"bootstrap.servers": servers, "transactional.id": f"{orders}-{name}"})
    producer.init_transactions(TRANSACTION_S)
    # So that a request with an id is at its owner's partition, whatever its key.
    place = Place(
        request_topic, partitions=len(producer.list_topics(request_topic).topics[request_topic].partitions)
    )
    consumer.subscribe([orders])
    while True:
        first = consumer.poll(1.0)
        if first is None:
            continue
        messages = [first, *consumer.consume(AT_ONCE - 1, 0)]
        requests = [decide(place, reminders, _order(message), remind_after) for message in messages]
        for request in requests:
            check(request)  # before anything is sent: RejectedError, with the worker's own code
        _commit(producer, consumer, requests)


def _order(message: Message) -> dict[str, Any]:
    if (error := message.error()) is not None:
        raise KafkaException(error)
    found: dict[str, Any] = json.loads(message.value() or b"{}")
    return found


def _commit(producer: Producer, consumer: Consumer, requests: Sequence[RequestRecord]) -> None:
    """The requests, and how far the orders are read: together."""
    producer.begin_transaction()
    for request in requests:
        partition = -1 if request.partition is None else request.partition  # -1: by the key
        producer.produce(request.topic, request.value, request.key, partition, headers=[*request.headers])
    read = consumer.position(consumer.assignment())
    producer.send_offsets_to_transaction(read, consumer.consumer_group_metadata(), TRANSACTION_S)
    producer.commit_transaction(TRANSACTION_S)


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], sys.argv[3])
