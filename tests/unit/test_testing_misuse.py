"""What an environment for tests makes of expectations, topics and times that are mistakes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from delaystream.client import Coordinates
from delaystream.testing import environment

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
        env.advance(timedelta.max)
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
    ],
)
def test_topics_and_times_that_cannot_be_are_refused_at_once(
    options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        environment(**options)


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
