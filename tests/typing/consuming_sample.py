"""A user's code that consumes, under mypy --strict: what is right passes, and each mistake is found."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import assert_type

from pydantic import BaseModel

from delaystream.client import (
    Accepted,
    AsyncClient,
    AsyncReceivedDelivery,
    Client,
    Delivery,
    Events,
    ReceivedDelivery,
    Retry,
    RetryPolicy,
    ScheduledEvent,
    read_event,
    retry,
)


class InvoiceDue(ScheduledEvent, topic="invoices", key="customer"):
    customer: str
    amount: Decimal
    reminders: int = 0


class CustomerLeft(ScheduledEvent, BaseModel, topic="customers", key="id", version=2, reads_from=1):
    id: int


def schedule(client: Client) -> Accepted:
    event = InvoiceDue("acme", Decimal(7))
    assert_type(event.amount, Decimal)
    client.schedule_event(CustomerLeft(id=7), at=datetime.now().astimezone(), id="left-7", tags=["red"])
    client.handle("acme").schedule_event(event, every="1d")
    return client.schedule_event(event, delay=timedelta(days=30), correlation_id="order-7")


def consume(client: Client) -> None:
    events = Events([InvoiceDue, CustomerLeft])
    with client.consumer("invoices", group="billing", transactional_id="billing-1") as consumer:
        for delivery in consumer:
            assert_type(delivery, ReceivedDelivery)
            assert_type(delivery.due_at, datetime | None)
            assert_type(delivery.lateness, timedelta | None)
            assert_type(read_event(InvoiceDue, delivery), InvoiceDue)
            match events.of(delivery):
                case InvoiceDue(customer=customer):
                    assert_type(customer, str)
                case _:
                    assert_type(delivery.retry(backoff="10s..1h*2", max_attempts=5), Retry)


async def consume_asynchronously(client: AsyncClient) -> None:
    async with client.consumer(["invoices"], group="billing", isolation="read_uncommitted") as consumer:
        async for delivery in consumer:
            assert_type(delivery, AsyncReceivedDelivery)
            assert_type(await delivery.retry(delay=timedelta(minutes=1), error=ValueError()), Retry)


def pure(delivery: Delivery) -> bytes | None:
    return retry(delivery, RetryPolicy.of(backoff="5s,5m,30m")).record.value


def mistakes(client: Client, delivery: ReceivedDelivery) -> None:
    InvoiceDue("acme")  # type: ignore[call-arg]
    InvoiceDue("acme", 7)  # type: ignore[arg-type]
    InvoiceDue("acme", Decimal(7)).customer = "globex"  # type: ignore[misc]
    client.schedule_event("acme", delay="1h")  # type: ignore[arg-type]
    client.schedule_event(CustomerLeft(id=7), dealy="1h")  # type: ignore[call-arg]
    client.consumer("invoices", group="billing", isolation="serializable")  # type: ignore[arg-type]
    client.consumer("invoices", grupp="billing")  # type: ignore[call-arg]
    delivery.retry(delay=60)  # type: ignore[arg-type]
