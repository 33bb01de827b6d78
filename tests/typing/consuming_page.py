"""The snippets of docs/consuming.md, each in a function whose parameters are what the page takes as given.

`tests/unit/test_client_docs.py` compares them with the page.
"""

# As the page has it, a function's indentation aside.
# ruff: noqa
# fmt: off
from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from delaystream.client import Client, Delivery, ScheduledEvent


class MailError(Exception):
    """It was not sent."""


class CustomerLeft(ScheduledEvent, topic="customers"):
    customer: str


def first(send_reminder: Any) -> None:
    from delaystream.client import Client

    with Client("localhost:9092").consumer("invoices", group="billing") as deliveries:
        for delivery in deliveries:
            try:
                send_reminder(delivery.value)
            except MailError as error:
                delivery.retry(backoff="10s..1h*2", max_attempts=5, error=error)


def in_a_transaction(client: Client) -> None:
    producer = Producer({"bootstrap.servers": "localhost:9092", "transactional.id": "billing-1"})
    producer.init_transactions()
    with client.consumer("invoices", group="billing", producer=producer) as deliveries:
        for delivery in deliveries:
            producer.produce("ledger", delivery.value)
            delivery.retry(delay="5m")


def by_functions(
    message: Message, positions: list[TopicPartition], consumer: Consumer, producer: Producer
) -> None:
    from delaystream.client import Delivery, RetryPolicy, retry

    policy = RetryPolicy.of(backoff="10s..1h*2", max_attempts=5)
    delivery = Delivery.of_message(message)  # of confluent-kafka; of_record(record) of aiokafka
    record = retry(delivery, policy, error="no answer").record
    producer.produce(record.topic, record.value, record.key, headers=list(record.headers))
    producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata())
    producer.commit_transaction()


def events_as_classes(client: Client, deliveries: Iterable[Delivery]) -> None:
    from delaystream.client import Client, Events, ScheduledEvent


    class InvoiceDue(ScheduledEvent, topic="invoices", key="customer"):
        customer: str
        cents: int


    client.schedule_event(InvoiceDue("acme", 700), delay=timedelta(days=30), correlation_id="order-7")

    events = Events([InvoiceDue, CustomerLeft])
    for delivery in deliveries:
        match events.of(delivery):
            case InvoiceDue(customer=customer, cents=cents):
                ...
