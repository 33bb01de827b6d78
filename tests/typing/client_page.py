"""The snippets of docs/client.md, each in a function whose parameters are what the page takes as given.

`tests/unit/test_client_docs.py` compares them with the page.
"""

# As the page has it, a function's indentation aside.
# ruff: noqa
# fmt: off
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from confluent_kafka import Producer

from delaystream.client import CLEAR, Changes, Client, Place, ScheduleDescription, check, schedule_request


@dataclass(frozen=True)
class Order:
    number: int
    customer: str


def first() -> None:
    from datetime import timedelta
    from delaystream.client import Client

    with Client("localhost:9092") as client:
        client.schedule("reminders", {"to": "Zoë"}, key="customer-17", delay=timedelta(hours=1), id="order-42")
        client.schedule("reports", b"go", cron="0 9 * * MON-FRI", timezone="Europe/Berlin", id="daily")
        client.cancel("order-42")


async def asynchronous() -> None:
    from delaystream.client import AsyncClient

    async with AsyncClient("localhost:9092") as client:
        await client.schedule("reminders", "call back", delay=timedelta(minutes=15))


def what_comes_back(client: Client) -> None:
    accepted = client.schedule(
        "reminders", b"", delay="1h", id="order-42", if_exists="keep", wait=timedelta(seconds=10)
    )
    if accepted.outcome == "kept":
        ...


def control(client: Client) -> None:
    client.pause("daily", until=datetime(2030, 1, 7, tzinfo=UTC), note="holidays")
    client.resume("daily", catch_up="none")
    client.trigger("daily")
    client.reschedule("daily", cron="0 10 * * MON-FRI")
    client.update("daily", value=b"new", tags=["reports"], jitter=CLEAR)
    client.cancel(match_tags=["campaign-7"], match_anonymous=True, wait=timedelta(minutes=1))
    client.rate("emails", "600/m")


def change(client: Client) -> None:
    def later(now: ScheduleDescription) -> Changes | None:
        return {"tags": [*now.definition.tags, "seen"]} if now.fire_count else None


    client.handle("daily").update(later)


def next_times(client: Client) -> None:
    for occurrence in client.preview(5, cron="30 2 * * *", timezone="Europe/Berlin"):
        print(occurrence.local, occurrence.note or "")


def many(client: Client, orders: Iterable[Order]) -> None:
    with client.batch() as batch:
        for order in orders:
            batch.schedule("reminders", order, key=order.customer, delay="3d", id=f"reminder-{order.number}")


def in_a_transaction(order: Order, producer: Producer) -> None:
    place = Place("delay-requests", partitions=12)  # so many the request topic has
    request = schedule_request(
        place, "reminders", order, key=order.customer, delay="3d", id=f"reminder-{order.number}"
    )
    check(request)  # RejectedError, as a worker would refuse it
    partition = -1 if request.partition is None else request.partition
    producer.produce(request.topic, request.value, request.key, partition, headers=[*request.headers])
