"""What the pages of the client show is run, on a delaystream in memory: nothing of it is refused."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import delaystream.client
from delaystream.client import Delivery
from delaystream.testing import AsyncEnvironment, Environment, environment
from delaystream.testing.environments import START
from tests.typing import client_page, consuming_page
from tests.unit.test_consuming_order import Message

ROOT = Path(__file__).resolve().parents[2]
ORDER = client_page.Order(17, "acme")


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Iterator[Environment]:
    with environment() as found:
        monkeypatch.setattr(delaystream.client, "Client", lambda _servers: found.client_of())
        yield found


def told(env: Environment | AsyncEnvironment) -> list[tuple[str, str | None]]:
    """What has become of requests: each event's type and id."""
    assert env.dead_letters() == []
    return [(str(event.type), event.id) for event in env.events()]


def test_the_first_lines_schedule_and_cancel(env: Environment) -> None:
    client_page.first()
    assert told(env) == [("scheduled", "order-42"), ("scheduled", "daily"), ("cancelled", "order-42")]
    env.assert_scheduled(id="daily", cron="0 9 * * MON-FRI", timezone="Europe/Berlin", destination="reports")


def test_so_they_do_in_an_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with environment() as env:
            monkeypatch.setattr(delaystream.client, "AsyncClient", lambda _servers: env.client_of())
            await client_page.asynchronous()
            env.assert_scheduled(destination="reminders", value="call back")

    asyncio.run(run())


def test_what_comes_back_is_the_outcome(env: Environment) -> None:
    client_page.what_comes_back(env.client)
    client_page.what_comes_back(env.client)
    assert told(env) == [("scheduled", "order-42"), ("kept", "order-42")]


def test_every_command_is_carried_out(env: Environment) -> None:
    client_page.first()
    before = len(told(env))
    client_page.control(env.client)
    env.advance(timedelta())
    types = [type for type, _ in told(env)[before:]]
    wanted = ["paused", "resumed", "triggered", "rescheduled", "updated", "bulk", "rate"]
    assert [type for type in types if type in wanted] == wanted
    env.assert_delivered("reports", count=1)
    env.assert_scheduled(id="daily", cron="0 10 * * MON-FRI", tags=["reports"], value=b"new")


def test_a_change_is_made_by_what_a_schedule_is(env: Environment) -> None:
    client_page.first()
    client_page.change(env.client)
    assert "updated" not in dict(told(env))
    env.advance(timedelta(days=4))
    client_page.change(env.client)
    env.assert_scheduled(id="daily", tags=["seen"])


def test_the_next_times_are_printed(env: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    client_page.next_times(env.client)
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_many_are_scheduled_at_once(env: Environment) -> None:
    client_page.many(env.client, [client_page.Order(number, "acme") for number in range(20)])
    assert len(env.scheduled()) == 20
    env.assert_scheduled(id="reminder-19", key="acme", value={"number": 19, "customer": "acme"})


class Produced:
    """A producer that keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[tuple[Any, ...]] = []
        self.ended: list[str] = []

    def produce(self, *record: Any, headers: Any) -> None:
        self.records.append((*record, headers))

    def send_offsets_to_transaction(self, _positions: Any, _metadata: Any) -> None:
        self.ended.append("offsets")

    def commit_transaction(self) -> None:
        self.ended.append("commit")

    def consumer_group_metadata(self) -> None:
        """Of a consumer: nothing here."""


def test_a_producer_of_the_callers_own_writes_what_a_worker_takes() -> None:
    produced: Any = Produced()
    client_page.in_a_transaction(ORDER, produced)
    [(topic, value, key, partition, headers)] = produced.records
    with environment(partitions=12) as env:
        env.client.send(delaystream.client.RequestRecord(topic, key, value, headers, partition))
        env.assert_scheduled(id="reminder-17", key="acme")


def test_a_retry_by_the_functions_is_one_that_a_worker_takes() -> None:
    produced: Any = Produced()
    message: Any = Message(5)
    consuming_page.by_functions(message, [], produced, produced)
    assert produced.ended == ["offsets", "commit"]
    [(topic, value, key, headers)] = produced.records
    with environment() as env:
        env.client.send(delaystream.client.RequestRecord(topic, key, value, headers))
        env.assert_scheduled(destination="invoices", key="k", value=b"5", next_at=env.now.replace(second=10))


def test_events_come_back_as_their_classes(env: Environment) -> None:
    consuming_page.events_as_classes(env.client, [])
    env.run_until_idle()
    found = env.assert_delivered("invoices", count=1)
    assert (env.now - START).days == 30
    consuming_page.events_as_classes(env.client, found)


class Deliveries:
    """In place of a consumer: what was delivered, each of which can be retried."""

    def __init__(self, found: list[Delivery]) -> None:
        self.found = found
        self.retried: list[Delivery] = []

    def consumer(self, *_topics: str, **_named: Any) -> Deliveries:
        return self

    def __enter__(self) -> list[Any]:
        return [Retried(self, delivery) for delivery in self.found]

    def __exit__(self, *_failure: object) -> None: ...


class Retried:
    """A delivery in the hands of `Deliveries`."""

    def __init__(self, consumer: Deliveries, delivery: Delivery) -> None:
        self.consumer = consumer
        self.delivery = delivery
        self.value = delivery.value

    def retry(self, *, backoff: str, max_attempts: int, error: Exception) -> None:
        policy = delaystream.client.RetryPolicy.of(backoff=backoff, max_attempts=max_attempts)
        assert not delaystream.client.retry(self.delivery, policy, error=error).is_dead_letter
        self.consumer.retried.append(self.delivery)


def test_a_consumer_tries_again_what_has_failed(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (b"good", b"bad"):
        env.client.schedule("invoices", value, delay="0")
    env.run_until_idle()
    deliveries = Deliveries(env.deliveries("invoices"))
    monkeypatch.setattr(delaystream.client, "Client", lambda _servers: deliveries)

    def send_reminder(value: bytes) -> None:
        if value == b"bad":
            raise consuming_page.MailError

    consuming_page.first(send_reminder)
    assert [one.value for one in deliveries.retried] == [b"bad"]


#: with a Kafka of their own: `tests/integration/test_consuming.py` has both
NEEDS_KAFKA = {"in_a_transaction"}


def test_every_function_of_the_pages_is_run_here_or_needs_kafka() -> None:
    here = Path(__file__).read_text("utf-8")
    for name, module in (("client_page", client_page), ("consuming_page", consuming_page)):
        source = Path(module.__file__ or "").read_text("utf-8")
        for function in re.findall(r"^(?:async )?def (\w+)", source, re.MULTILINE):
            assert f"{name}.{function}(" in here or (name == "consuming_page" and function in NEEDS_KAFKA)
