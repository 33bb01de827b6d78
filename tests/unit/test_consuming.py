"""What a consumer is told, and what it remembers."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delaystream.client import AsyncClient, Client, RetryPolicy, RetryTopics
from delaystream.client.consuming.consumer import (
    REMEMBERED_FIRES,
    Checkpoint,
    Consuming,
    Fires,
    deadline_of,
)
from delaystream.client.kafka.deliveries import Delivery

TOPICS = RetryTopics()


def told(**options: Any) -> Consuming:
    return Consuming.of("invoices", "billing", TOPICS, options)  # type: ignore[arg-type]


def fire(name: str | None, partition: int = 0, offset: int = 0) -> Delivery:
    headers = [] if name is None else [("delaystream-fire-id", name.encode())]
    return Delivery.of(("invoices", partition, offset), 1, None, None, headers)


def test_copies_are_looked_for_where_what_is_uncommitted_is_read() -> None:
    assert told().remembered_fires == 0
    assert told(isolation="read_uncommitted").remembered_fires == REMEMBERED_FIRES
    assert told(isolation="read_uncommitted", remembered_fires=0).remembered_fires == 0
    assert told(remembered_fires=5).remembered_fires == 5


def test_what_a_consumer_is_told_has_defaults_that_are_safe() -> None:
    found = told()
    assert (found.isolation, found.from_beginning, found.is_transactional) == ("read_committed", True, False)
    assert found.retries == RetryPolicy.of()
    assert found.topics == TOPICS
    assert told(dead_letters="mine").topics.dead_letters == "mine"
    assert Consuming.of(["a", "b"], "g", TOPICS, {}).sources == ("a", "b")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"isolation": "serializable"}, "isolation is 'serializable'"),
        ({"transactional_id": ""}, "transactional id is empty"),
        ({"settle_records": 0}, "settle_records is 0"),
        ({"remembered_fires": -1}, "remembered_fires is -1"),
        ({"dead_letters": "a b"}, "'a b' is not a topic name"),
        ({"settle_records": 10**30}, "settle_records is 1000"),
        ({"remembered_fires": 10**400}, "remembered_fires is a number of more than a hundred digits"),
        ({"largest_bytes": 0}, "largest_bytes is 0"),
        ({"settle_after": timedelta(seconds=-1)}, "settle_after is -1 day"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        told(**options)
    with pytest.raises(TypeError):
        told(grupp="x")
    for topics, group in (([], "g"), (["a/b"], "g"), (["a"], "")):
        with pytest.raises(ValueError, match=r"\.$"):
            Consuming.of(topics, group, TOPICS, {})


@pytest.mark.parametrize("number", [True, 2.5, math.nan, math.inf, "5", 1j])
@pytest.mark.parametrize("option", ["settle_records", "remembered_fires", "largest_bytes", "settle_after"])
def test_a_number_of_another_type_is_a_type_error_that_names_it(option: str, number: Any) -> None:
    with pytest.raises(TypeError, match=f"{option} takes a "):
        told(**{option: number})


@pytest.mark.parametrize("timeout_s", [True, math.nan, math.inf, -1, "5", 10**400])
def test_a_delivery_is_waited_for_as_long_as_a_number_says(timeout_s: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="timeout_s "):
        deadline_of(timeout_s)
    assert deadline_of(None) is None
    assert (deadline_of(0) or 0) > 0


class Elsewhere:
    """In place of Kafka: asked for nothing but the time."""

    def now_ms(self) -> int:
        return 0


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_a_client_of_no_kafka_has_no_consumer(client: Any) -> None:
    with pytest.raises(ValueError, match="has a transport in place of Kafka"):
        client(transport=Elsewhere()).consumer("invoices", group="billing")


def test_a_fire_that_was_seen_is_a_copy_and_what_is_no_delivery_never_is() -> None:
    fires = Fires(10)
    assert [fires.is_copy(fire(name)) for name in ("a", "b", "a", None, None)] == [
        False,
        False,
        True,
        False,
        False,
    ]
    fires.keep()
    assert fires.is_copy(fire("b"))
    assert not Fires(0).is_copy(fire("a"))


def test_what_is_read_again_is_no_copy_of_itself() -> None:
    fires = Fires(10)
    fires.is_copy(fire("kept", 0))
    fires.keep()
    fires.is_copy(fire("a", 0))
    fires.is_copy(fire("b", 1))
    fires.forget(("invoices", 0))
    assert not fires.is_copy(fire("a", 0))
    assert fires.is_copy(fire("b", 1))
    fires.forget()
    assert not fires.is_copy(fire("b", 1))
    assert fires.is_copy(fire("kept", 0))


@given(st.integers(1, 20), st.lists(st.integers(0, 40), max_size=200))
def test_so_many_fires_are_remembered_and_the_latest(most: int, seen: list[int]) -> None:
    fires = Fires(most)
    order: list[int] = []
    for number in seen:
        copy = fires.is_copy(fire(str(number)))
        assert copy == (number in order)
        if not copy:
            order = [*order, number][-most:]
        fires.keep()
        assert len(fires._kept) <= most


def test_a_checkpoint_knows_where_each_partition_begins_and_goes_on() -> None:
    checkpoint = Checkpoint()
    checkpoint.begin(fire("a", 0, 5))
    assert (checkpoint.first, checkpoint.next, checkpoint.records) == ({("invoices", 0): 5}, {}, 0)
    for delivery in (fire("a", 0, 5), fire("b", 1, 9), fire("c", 0, 8)):
        checkpoint.add(delivery)
    assert checkpoint.next == {("invoices", 0): 9, ("invoices", 1): 10}
    assert checkpoint.first == {("invoices", 0): 5, ("invoices", 1): 9}
    checkpoint.drop(("invoices", 0))
    assert (checkpoint.next, checkpoint.records) == ({("invoices", 1): 10}, 3)
    checkpoint.clear()
    assert (checkpoint.next, checkpoint.first, checkpoint.records) == ({}, {}, 0)


def test_a_retry_is_by_what_is_said_else_by_the_consumers_policy() -> None:
    consumer = told(retries=RetryPolicy.of(backoff="5s,7s"))

    def answer(**said: Any) -> tuple[bool, timedelta | None]:
        wanted = {"delay": None, "backoff": None, "max_attempts": None, "error": None, **said}
        found = consumer.retry(fire("a"), once=False, **wanted)
        return found.is_dead_letter, found.delay

    assert answer() == (False, timedelta(seconds=5))
    assert answer(max_attempts=1) == (True, None)
    assert answer(delay="1m") == (False, timedelta(minutes=1))
    assert answer(backoff="2m", max_attempts=2) == (False, timedelta(minutes=2))


def test_what_becomes_of_a_delivery_has_smaller_forms() -> None:
    consumer = told()
    answer = consumer.retry(fire("a"), delay=None, backoff=None, max_attempts=None, error=None, once=False)
    topics = [form.record.topic for form in consumer.forms(fire("a"), answer)]
    assert topics == ["delay-requests", "delay-dead-letters", "delay-dead-letters"]
    assert len(list(consumer.forms(fire("a"), consumer.dead_letter(fire("a"), None)))) == 2
