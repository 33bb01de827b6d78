"""What a user's code may say of the client under `mypy --strict`, and what it may not.

Each `type: ignore` stands for a mistake that mypy has to find: one that it finds no more is unused, and
fails as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_type
from zoneinfo import ZoneInfo

from delaystream.client import (
    CLEAR,
    Accepted,
    AsyncClient,
    AsyncPending,
    Changes,
    Client,
    Pending,
    Place,
    RejectedError,
    RequestRecord,
    ScheduleDescription,
    preview,
    schedule_request,
)

WAIT = timedelta(seconds=5)
BERLIN = ZoneInfo("Europe/Berlin")


@dataclass
class Invoice:
    customer: str
    cents: int


def remind(client: Client, invoice: Invoice, at: datetime) -> datetime:
    accepted = client.schedule("invoices", invoice, key=invoice.customer, at=at, timezone=BERLIN, wait=WAIT)
    assert_type(accepted, Accepted)
    assert_type(accepted.version, int | None)
    assert_type(accepted.due_at, tuple[datetime, ...])
    return accepted.due_at[0]


def every_verb(client: Client) -> None:
    client.schedule("a", None, every=timedelta(hours=1), id="x", catch_up="latest", tags=["a", "b"], deploy=3)
    client.publish_with_delay("a", b"", timedelta(seconds=1), correlation_id="c")
    client.update("x", value={"a": 1}, end=CLEAR, jitter="5m", if_version=7)
    client.cancel(match_tags={"a"}, match_anonymous=True)
    client.pause("x", until=datetime.now(BERLIN), note="maintenance")
    client.resume("x", catch_up="none", grace=timedelta(minutes=1))
    client.trigger(coordinates="delay-requests/0/17")
    client.reschedule("x", cron="@daily", timezone="UTC")
    client.rate("a", 50)
    assert_type(client.describe("x"), ScheduleDescription | None)
    with client.batch() as batch:
        assert_type(batch.schedule("a", b"", delay="1h"), Pending[Accepted])
        assert_type(batch.describe("x").result(), ScheduleDescription | None)


def changed(client: Client) -> Accepted:
    def change(now: ScheduleDescription) -> Changes | None:
        return {"tags": [*now.definition.tags, "seen"]} if now.fire_count else None

    return client.handle("x").update(change)


async def asynchronously(client: AsyncClient) -> ScheduleDescription | None:
    assert_type(await client.schedule("a", b"", delay=[timedelta(0), "5m"]), Accepted)
    async with client.batch() as batch:
        assert_type(await batch.cancel("x", wait=WAIT), AsyncPending[Accepted])
    return await client.handle("x").describe()


def without_a_client() -> RequestRecord:
    assert_type(preview(5, cron="0 9 * * MON-FRI", timezone=BERLIN)[0].local, datetime)
    return schedule_request(Place("delay-requests", partitions=12), "a", {"a": 1}, delay="PT5M", id="x")


def refused(error: RejectedError) -> str:
    return error.code


def mistakes(client: Client, asynchronous: AsyncClient) -> None:
    client.schedule("a", b"", dealy="1h")  # type: ignore[call-arg]
    client.schedule("a", b"", delay=60)  # type: ignore[arg-type]
    client.schedule("a", b"", at=60.0)  # type: ignore[arg-type]
    client.schedule("a", b"", delay="1h", wait=5)  # type: ignore[arg-type]
    client.schedule("a", b"", cron="@daily", id="x", catch_up="sometimes")  # type: ignore[arg-type]
    client.pause("x", delay="1h")  # type: ignore[call-arg]
    client.update("x", if_exists="keep")  # type: ignore[call-arg]
    client.handle("x").update(lambda now: {"tag": []})  # type: ignore[arg-type, return-value]
    print(client.describe("x").status)  # type: ignore[union-attr]
    with client.batch() as batch:
        print(batch.schedule("a", b"", delay="1h").outcome)  # type: ignore[attr-defined]
    print(asynchronous.schedule("a", b"", delay="1h").outcome)  # type: ignore[attr-defined]
    with asynchronous:  # type: ignore[attr-defined]
        pass
