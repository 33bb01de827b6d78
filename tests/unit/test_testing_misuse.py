"""What an environment for tests makes of expectations, topics and times that are mistakes."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from delaystream.client import Coordinates
from delaystream.engine.ports import TopicPartition
from delaystream.testing import environment
from delaystream.testing.environments import START
from delaystream.testing.worker import OWN_TOPICS

HOUR = timedelta(hours=1)
FINE = datetime(2030, 1, 2, 0, 0, 0, 123_456, tzinfo=UTC)


@pytest.mark.parametrize(
    "expected",
    [{"tags": "eu"}, {"tags": "eu,reports"}, {"every": "1h"}, {"every": "PT1H"}, {"key": bytearray(b"k")},
     {"source": Coordinates("delay-requests", 0, 0)}, {"next_at": HOUR - timedelta(microseconds=1)}],
)  # fmt: skip
def test_an_expectation_is_said_as_a_request_says_it(expected: dict[str, Any]) -> None:
    """And what is scheduled is never refuted because it was said so."""
    with environment() as env:
        env.client.schedule("reports", b"", id="x", every="1h", tags=["reports", "eu"], key="k")
        assert env.assert_scheduled(**expected).id == "x"
        with pytest.raises(AssertionError, match="Something is scheduled"):
            env.refute_scheduled(**expected)


def test_a_time_zone_and_a_time_finer_than_a_millisecond_are_found_again() -> None:
    with environment() as env:
        env.client.schedule("t", b"", id="fine", at=FINE)
        env.client.schedule("t", b"", id="daily", cron="0 9 * * *", timezone=ZoneInfo("Europe/Berlin"))
        assert env.assert_scheduled(next_at=FINE).id == "fine"
        assert env.assert_scheduled(timezone=ZoneInfo("Europe/Berlin")).id == "daily"


@pytest.mark.parametrize(
    "expected",
    [{"id": 5}, {"next_at": 1893542400124}, {"next_at": "2030-01-02T00:00:00Z"}, {"destination": b"t"},
     {"status": ["pending"]}, {"fire_count": "0"}, {"key": 5}],
)  # fmt: skip
def test_what_nothing_can_be_is_neither_asserted_nor_refuted(expected: dict[str, Any]) -> None:
    with environment() as env:
        for look in (env.assert_scheduled, env.refute_scheduled):
            with pytest.raises(TypeError, match="no"):
                look(**expected)


def test_the_longest_timedelta_is_how_far_ahead_nothing_is() -> None:
    with environment() as env:
        env.client.schedule("t", b"", delay=HOUR)
        env.refute_scheduled(next_at=timedelta.max)
        env.advance(HOUR)
        assert len(env.deliveries("t")) == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"request_topics": "delay-requests"}, TypeError),
        ({"request_topics": ["a b"]}, ValueError),
        ({"topics": {"x": 0}}, ValueError),
        ({"topics": {"a b": 1}}, ValueError),
        ({"topics": {"delay-requests": 3}}, ValueError),
        ({"start": datetime(1960, 1, 1, tzinfo=UTC)}, ValueError),
        ({"start": datetime(1970, 12, 31, tzinfo=UTC)}, ValueError),
        ({"start": datetime.min.replace(tzinfo=UTC)}, ValueError),
        ({"start": datetime.max.replace(tzinfo=ZoneInfo("America/New_York"))}, ValueError),
        ({"start": datetime(2030, 1, 1)}, ValueError),  # noqa: DTZ001
        ({"start": "2030-01-01"}, TypeError),
        ({"partitions": 0}, ValueError),
        ({"partitions": 10**9}, ValueError),
        ({"partitions": True}, TypeError),
        ({"partitions": 2.5}, TypeError),
        ({"partitions": "3"}, TypeError),
        ({"topics": {"x": -1}}, ValueError),
        ({"topics": {"x": 2.5}}, TypeError),
        ({"topics": {"x": math.nan}}, TypeError),
        ({"topics": {"x": True}}, TypeError),
        ({"topics": {5: 1}}, ValueError),
        *(({"topics": {topic: 1}}, ValueError) for topic in OWN_TOPICS),
        *(({"request_topics": [topic]}, ValueError) for topic in OWN_TOPICS),
    ],
)
def test_topics_and_times_that_cannot_be_are_refused_at_once(
    options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        environment(**options)


def test_time_passes_by_a_timedelta_as_far_as_a_calendar_goes() -> None:
    with environment() as env:
        for by in (5, 2.5, math.nan, True, None, "1h"):
            with pytest.raises(TypeError, match="Time passes by a timedelta"):
                env.advance(by)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="after the year 9999"):
            env.advance(timedelta.max)
        for at in (datetime(1960, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC), datetime(2040, 1, 1)):  # noqa: DTZ001
            with pytest.raises(ValueError, match="at="):
                env.advance_to(at)
        with pytest.raises(TypeError, match="at takes a datetime"):
            env.advance_to("2040-01-01")  # type: ignore[arg-type]
        assert env.now == START
        env.advance_to(datetime(9999, 12, 31, 23, 59, tzinfo=UTC))


@pytest.mark.parametrize("number", [True, 2.5, math.nan, "3"])
def test_a_count_is_a_whole_number(number: Any) -> None:
    with environment() as env:
        with pytest.raises(TypeError, match="count takes a whole number"):
            env.assert_delivered("t", number)
        with pytest.raises(TypeError, match="most takes a whole number"):
            env.run_until_idle(number)
        for negative in (-1, -(10**400)):
            with pytest.raises(ValueError, match="count is "):
                env.assert_delivered("t", negative)
            with pytest.raises(ValueError, match="most is "):
                env.run_until_idle(negative)


@pytest.mark.parametrize(
    "value", [b"x", b"{}", b"[]", b"\xff", b'{"type":5}', None, b"[" * 5_000 + b"]" * 5_000]
)
def test_what_others_write_to_the_topic_of_events_hides_none(value: bytes | None) -> None:
    with environment() as env:
        env.log.append(TopicPartition("delay-events", 0), (None, value, (), 1))
        env.client.schedule("t", b"", delay=HOUR, id="x")
        env.log.append(TopicPartition("delay-events", 0), (b"k", value, [("h", None)], -1))
        assert [event.type for event in env.events()] == ["scheduled"]


def test_what_is_sent_after_the_end_is_no_success_that_nobody_decides_on() -> None:
    with environment() as env:
        another = env.client_of()
    for wait in (None, HOUR):
        with pytest.raises(RuntimeError, match="closed"):
            another.schedule("t", b"", delay=HOUR, wait=wait)


@pytest.mark.parametrize(
    ("topic", "handler", "error"), [("a b", print, ValueError), ("t", None, TypeError), ("t", 5, TypeError)]
)
def test_a_handler_is_a_function_and_its_topic_a_topic(
    topic: str, handler: Callable[..., Any], error: type[Exception]
) -> None:
    with environment() as env, pytest.raises(error):
        env.consume(topic, handler)
