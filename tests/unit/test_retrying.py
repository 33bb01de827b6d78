"""Retries: when, how often, and with which records."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delaystream.client.consuming.retrying import (
    Backoff,
    RetryPolicy,
    RetryTopics,
    dead_letter,
    retry,
    retry_id,
    without_payload,
)
from delaystream.client.kafka.deliveries import NO_HEADERS, Delivery
from delaystream.client.requests.checking import Checker
from delaystream.client.requests.records import Place
from delaystream.codec import outgoing
from delaystream.codec.outgoing import delivery_headers
from delaystream.codec.requests.headers import RequestParser
from delaystream.core.destinations import DestinationFilter
from delaystream.core.limits import Limits
from delaystream.core.partitioning import owner_partition
from delaystream.core.rejection import Code
from delaystream.core.request import Header, Request

FIVE = RetryPolicy.of(backoff="10s..1h*2", max_attempts=5)
SENT_MS = 1_900_000_000_000


def delays(text: str, attempts: int) -> list[float]:
    backoff = Backoff.parse(text)
    return [backoff.delay(attempt).total_seconds() for attempt in range(1, attempts + 1)]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", [10, 10, 10]),
        ("0", [0, 0]),
        ("PT1M", [60, 60]),
        ("10s..1h*2", [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]),
        ("10s..1h", [10, 20, 40]),
        ("10s..1h*1.5", [10, 15, 22.5, 33.75]),
        ("1s..1h*1", [1, 1, 1]),
        ("1s..1s*10", [1, 1]),
        ("1.5s..10s*3", [1.5, 4.5, 10, 10]),
        ("PT10S..PT1M*2", [10, 20, 40, 60]),
        (" 10s .. 1h * 3 ", [10, 30, 90]),
        ("5s,5m,30m", [5, 300, 1800, 1800, 1800]),
        (" 5s , 1h30m ", [5, 5400, 5400]),
        ("30m,5s,0", [1800, 5, 0, 0]),
    ],
)
def test_a_backoff_says_how_long_to_wait_after_each_attempt(text: str, seconds: list[float]) -> None:
    assert delays(text, len(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("10", "has no unit"),
        ("10s..", "'', which is empty"),
        ("..1h", "'', which is empty"),
        ("10s..1h..2h", "1h..2h"),
        ("10s...1h", "'.1h'"),
        ("1h..10s", "does not grow"),
        ("0..1h", "does not grow"),
        ("10s*2", "no bound for what grows"),
        ("10s..1h*", "the factor ''"),
        ("10s..1h*0.5", "the factor '0.5'"),
        ("10s..1h*-2", "the factor '-2'"),
        ("10s..1h*nan", "the factor 'nan'"),
        ("10s..1h*1e3", "the factor '1e3'"),
        ("10s..1h*1001", "the factor '1001'"),
        ("10s..1h*2*2", "the factor '2*2'"),
        ("10s..1h*²", "the factor"),
        ("5s,,30m", "'', which is empty"),
        ("5s,10s..1h", "'5s,10s'"),
        ("-5s", "is negative"),
        ("3651d", "is longer than 3650d"),
        ("1s..3651d", "is longer than 3650d"),
        (",".join(["1s"] * 101), "at most 100"),
    ],
)
def test_what_is_no_backoff_is_refused_with_a_sentence(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"\.$") as refused:
        Backoff.parse(text)
    assert says in str(refused.value)


@given(st.integers(1, 10**12), st.integers(0, 10**12), st.floats(1, 1000), st.integers(1, 2**31 - 1))
def test_a_growing_backoff_never_shrinks_nor_passes_its_bound(
    first_ms: int, more_ms: int, factor: float, attempt: int
) -> None:
    backoff = Backoff((first_ms,), first_ms + more_ms, factor)
    delay = backoff.delay(attempt)
    assert timedelta(milliseconds=first_ms) <= delay <= timedelta(milliseconds=first_ms + more_ms)
    assert delay <= backoff.delay(attempt + 1)


@given(st.text(alphabet="0123456789smhd.,*PT- ", max_size=20))
def test_any_text_is_a_backoff_or_a_value_error(text: str) -> None:
    try:
        found = Backoff.parse(text)
    except ValueError:
        return
    assert found.delay(1) >= timedelta(0)


@pytest.mark.parametrize(
    ("options", "attempts", "first"),
    [
        ({}, 10, 10),
        ({"delay": timedelta(minutes=1)}, 10, 60),
        ({"delay": "1m", "max_attempts": 3}, 3, 60),
        ({"delay": "0"}, 10, 0),
        ({"backoff": "5s,5m,30m"}, 4, 5),
        ({"backoff": "5s,5m,30m", "max_attempts": 9}, 9, 5),
        ({"backoff": "5s,5m,30m", "max_attempts": 2}, 2, 5),
        ({"backoff": "10s..1h"}, 10, 10),
        ({"backoff": Backoff((7,), 7)}, 10, 0.007),
    ],
)
def test_a_policy_has_a_bound_whatever_is_said(options: dict[str, Any], attempts: int, first: float) -> None:
    policy = RetryPolicy.of(**options)
    assert policy.max_attempts == attempts
    assert policy.backoff.delay(1).total_seconds() == first


@pytest.mark.parametrize(
    "options",
    [
        {"delay": "1m", "backoff": "1m"},
        {"delay": "1m,2m"},
        {"delay": "soon"},
        {"delay": timedelta(seconds=-1)},
        {"max_attempts": 0},
        {"max_attempts": 2**31},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        RetryPolicy.of(**options)


def delivered(*foreign: Header, key: bytes | None = b"k", value: bytes | None = b"v") -> Delivery:
    fired: Header = ("delaystream-fired-at", b"2")
    headers = delivery_headers(
        foreign, outgoing.Delivery("order-7", "q/r1/0/1/order-7", 1, "q/0/1", 1, 2, 3, 4), fired
    )
    return Delivery.of(("invoices", 2, 17), SENT_MS, key, value, headers)


def parsed(record: Any) -> Request:
    return Checker.of(record.topic).check(record, SENT_MS)


@pytest.mark.parametrize("key", [None, b"", b"\xff"])
@pytest.mark.parametrize("value", [None, b"", b"\xff" * 1000])
def test_a_retry_is_the_same_record_for_the_same_place_later(key: bytes | None, value: bytes | None) -> None:
    foreign: list[Header] = [("b", b"\xff"), ("a", None), ("b", b"")]
    answer = retry(delivered(*foreign, key=key, value=value), FIVE)
    request = parsed(answer.record)
    assert (request.key, request.value) == (key, value)
    assert request.headers == [*foreign, ("delaystream-attempt", b"2")]
    assert (request.destination, request.destination_partition) == ("invoices", 2)
    assert request.due_ms == (SENT_MS + 10_000,)
    assert (request.id, request.tags) == (None, ())
    assert (answer.attempt, answer.delay, answer.is_dead_letter) == (1, timedelta(seconds=10), False)
    assert (answer.record.topic, answer.record.partition) == ("delay-requests", None)


def again(delivery: Delivery, record: Any) -> Delivery:
    """What the worker delivers of a retry."""
    fired: Header = ("delaystream-fired-at", b"9")
    headers = delivery_headers(
        parsed(record).headers, outgoing.Delivery("q/0/2", "q/0/2/0/9", 9, "q/0/2", 1), fired
    )
    return Delivery.of(("invoices", 2, delivery.offset + 1), 9, record.key, record.value, headers)


def test_attempts_are_counted_in_one_header_that_is_replaced_until_they_are_used_up() -> None:
    """However often it is tried, the record grows by nothing."""
    delivery = delivered(("a", b"1"))
    waits = []
    for attempt in range(1, 5):
        answer = retry(delivery, FIVE, error="no answer")
        assert (answer.attempt, answer.is_dead_letter) == (attempt, False)
        assert answer.delay is not None
        waits.append(answer.delay.total_seconds())
        delivery = again(delivery, answer.record)
        assert delivery.attempt == attempt + 1
        assert [header for header in delivery.headers if "attempt" in header[0]] == [
            ("delaystream-attempt", b"%d" % (attempt + 1))
        ]
        assert delivery.foreign == [("a", b"1")]
    assert waits == [10, 20, 40, 80]
    answer = retry(delivery, FIVE, error="no answer")
    assert (answer.attempt, answer.delay, answer.is_dead_letter) == (5, None, True)
    assert answer.record.topic == "delay-dead-letters"
    headers = dict(answer.record.headers)
    assert headers["delaystream-error"] == b"attempts-exhausted"
    assert headers["delaystream-error-detail"] == b"Attempt 5 of 5 failed. no answer"
    assert headers["delaystream-attempt"] == b"5"


def test_a_header_of_ours_in_another_case_is_replaced_as_well() -> None:
    delivery = delivered(("Delaystream-Attempt", b"7"), ("DELAYSTREAM-ID", b"x"))
    assert parsed(retry(delivery, FIVE).record).headers == [("delaystream-attempt", b"2")]


def test_a_dead_letter_has_the_headers_that_all_dead_letters_have_once() -> None:
    delivery = delivered(("a", b"1"), ("delaystream-error", b"old"), ("delaystream-error-topic", b"old"))
    answer = dead_letter(delivery, error=KeyError("amount"))
    assert answer.record.headers == [
        ("a", b"1"),
        *((name, value) for name, value in delivery.headers if name != "a" and "error" not in name),
        ("delaystream-error", Code.GIVEN_UP.encode()),
        ("delaystream-error-detail", b"KeyError: 'amount'"),
        ("delaystream-error-topic", b"invoices"),
        ("delaystream-error-partition", b"2"),
        ("delaystream-error-offset", b"17"),
        ("delaystream-error-timestamp", b"%d" % SENT_MS),
    ]
    assert (answer.record.key, answer.record.value, answer.is_dead_letter) == (b"k", b"v", True)
    small = without_payload(answer).record
    assert (small.key, small.value) == (None, None)
    assert [name for name, _ in small.headers] == [name for name, _ in answer.record.headers[-6:]]


def test_a_reason_of_any_length_and_kind_makes_a_short_sentence() -> None:
    answer = dead_letter(delivered(), error=ValueError("\udcff" + "x" * 100_000))
    detail = dict(answer.record.headers)["delaystream-error-detail"] or b""
    assert detail.startswith(b"ValueError: \\udcff")
    assert len(detail) < 1100


def test_headers_that_cannot_be_read_are_not_lost_in_a_retry() -> None:
    delivery = Delivery.of(("invoices", 2, 17), SENT_MS, b"k", b"v", NO_HEADERS)
    answer = retry(delivery, FIVE, error="broken")
    assert answer.is_dead_letter
    detail = dict(answer.record.headers)["delaystream-error-detail"]
    assert detail == b"Its headers cannot be read, so that a retry would lose them. broken"
    assert all(name.startswith("delaystream-error") for name, _ in answer.record.headers)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([(f"h{number}", b"x") for number in range(100)], "too-many-headers"),
        ([("h", b"x" * 40_000)], "headers-too-large"),
    ],
)
def test_what_a_worker_would_refuse_to_take_again_is_a_dead_letter_that_is_whole(
    headers: list[Header], code: str
) -> None:
    """A record may have more headers than a request may; that and why it failed is told."""
    answer = retry(delivered(*headers), FIVE, error=OSError("no answer"))
    assert answer.is_dead_letter
    written = dict(answer.record.headers)
    assert written["delaystream-error"] == b"given-up"
    detail = (written["delaystream-error-detail"] or b"").decode()
    assert f"A retry would be refused: {code}: " in detail
    assert detail.endswith("OSError: no answer")
    assert answer.record.headers[: len(headers)] == headers
    assert (answer.record.key, answer.record.value) == (b"k", b"v")


def test_a_retry_is_held_against_the_limits_of_the_client() -> None:
    headers: list[Header] = [(f"h{number}", b"x") for number in range(150)]

    def parser() -> RequestParser:
        return RequestParser(DestinationFilter(["*"]), Limits(max_headers=200))

    assert retry(delivered(*headers), FIVE).is_dead_letter
    assert not retry(delivered(*headers), FIVE, RetryTopics(checker=Checker(parser))).is_dead_letter


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


def test_an_error_that_cannot_be_shown_ends_no_retry() -> None:
    last = RetryPolicy.of(delay="1s", max_attempts=1)
    for answer in (
        retry(delivered(), last, error=Unspeakable()),
        dead_letter(delivered(), error=Unspeakable()),
    ):
        detail = dict(answer.record.headers)["delaystream-error-detail"] or b""
        assert detail.endswith(b"Unspeakable: (it cannot be shown)")
    assert not retry(delivered(), FIVE, error=Unspeakable()).is_dead_letter


def test_asked_for_once_a_retry_has_the_same_name_however_often_it_is_asked_for() -> None:
    first, copy = delivered(("a", b"1")), delivered(("a", b"1"))
    request = parsed(retry(first, FIVE, once=True).record)
    assert request.id == retry_id(copy)
    assert request.terms.request_id == request.id
    assert len(request.id) < 64
    second = again(first, retry(first, FIVE, once=True).record)
    assert retry_id(second) != retry_id(first)
    bare = Delivery.of(("invoices", 2, 17), SENT_MS, b"k", b"v", [])
    assert parsed(retry(bare, FIVE, once=True).record).id == retry_id(bare)


def test_retries_go_where_they_are_told_to() -> None:
    topics = RetryTopics(Place("billing-requests", partitions=12), "billing-dead-letters")
    record = retry(delivered(), FIVE, topics, once=True).record
    assert (record.topic, record.partition) == (
        "billing-requests",
        owner_partition(retry_id(delivered()), 12),
    )
    assert dead_letter(delivered(), topics).record.topic == "billing-dead-letters"


@pytest.mark.parametrize(
    ("headers", "tags"),
    [
        ([("event_type", b"InvoiceDue"), ("correlation_id", b"c-1")], ("InvoiceDue", "c-1")),
        ([("event_type", b"InvoiceDue")], ("InvoiceDue",)),
        ([("correlation_id", b"c-1")], ()),
        ([("event_type", b"InvoiceDue"), ("correlation_id", b"a,b")], ("InvoiceDue",)),
        ([("event_type", None), ("correlation_id", b"c-1")], ()),
        ([("event_type", b" "), ("correlation_id", None)], ()),
    ],
)
def test_an_event_is_found_by_its_tags_while_it_is_retried(
    headers: list[Header], tags: tuple[str, ...]
) -> None:
    assert parsed(retry(delivered(*headers), FIVE).record).tags == tags


names = st.text(max_size=12).filter(lambda name: not name.lower().startswith("delaystream-"))


@given(st.lists(st.tuples(names, st.none() | st.binary(max_size=12)), max_size=6), st.none() | st.binary())
def test_any_delivery_can_be_retried_and_dead_lettered(headers: list[Header], value: bytes | None) -> None:
    delivery = delivered(*headers, value=value)
    request = parsed(retry(delivery, FIVE, once=True).record)
    assert request.headers == [*headers, ("delaystream-attempt", b"2")]
    assert dead_letter(delivery).record.value == value
