"""What a consumer is given: a record's headers understood, whoever wrote them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delaystream.client.kafka.deliveries import NO_HEADERS, Delivery
from delaystream.codec import outgoing
from delaystream.codec.outgoing import OUTGOING_HEADERS, delivery_headers
from delaystream.core.request import Header

DUE_MS = 1_900_000_000_000


def delivery(*headers: Header, timestamp_ms: int = DUE_MS + 40) -> Delivery:
    return Delivery.of(("invoices", 2, 17), timestamp_ms, b"k", b"v", headers)


def test_all_that_a_worker_writes_is_understood() -> None:
    fired: Header = ("delaystream-fired-at", b"%d" % (DUE_MS + 5))
    told = outgoing.Delivery("order-7", "q/r1/0/1/order-7", DUE_MS, "q/0/1", 3, 2, 5, 7)
    headers = delivery_headers([("a", b"1")], told, fired)
    found = delivery(*headers, ("delaystream-attempt", b"4"))
    assert (found.schedule_id, found.fire_id, found.source) == ("order-7", "q/r1/0/1/order-7", "q/0/1")
    assert (found.fire_count, found.skipped, found.attempt) == (3, 2, 4)
    assert (found.due_at, found.fired_at) == (at(DUE_MS), at(DUE_MS + 5))
    assert (found.last_fired_at, found.next_at) == (at(5), at(7))
    assert found.lateness == timedelta(milliseconds=40)
    assert (found.key, found.value, found.foreign) == (b"k", b"v", [("a", b"1")])
    assert (found.coordinates, found.identity) == ("invoices/2/17", "q/r1/0/1/order-7")


def at(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, UTC)


def test_a_record_that_is_no_delivery_is_read_as_it_is() -> None:
    found = delivery(("a", None), ("a", b"2"))
    times = (found.due_at, found.fired_at, found.lateness, found.next_at, found.last_fired_at)
    names = (found.schedule_id, found.fire_id, found.source, found.fire_count)
    assert times + names == (None,) * 9
    assert (found.attempt, found.skipped, found.identity) == (1, 0, "invoices/2/17")
    assert (found.header("a"), found.header("b")) == (b"2", None)


def test_of_a_delivery_that_was_delivered_again_the_last_headers_hold() -> None:
    found = delivery(("delaystream-fire-id", b"first"), ("delaystream-fire-id", b"second"))
    assert found.fire_id == "second"


@pytest.mark.parametrize(
    "hostile", [b"", b"-1", b"1.5", b"\xff", "²".encode(), b"9" * 19, b"9" * 100_000, None]
)
def test_what_is_no_number_is_none(hostile: bytes | None) -> None:
    found = delivery(*((name, hostile) for name in [*OUTGOING_HEADERS, "delaystream-attempt"]))
    numbers = (found.due_ms, found.fired_ms, found.fire_count, found.last_fired_ms, found.next_ms)
    assert numbers == (None,) * 5
    assert (found.attempt, found.skipped) == (1, 0)


def test_times_beyond_every_calendar_are_the_last_ones_that_there_are() -> None:
    found = delivery(*((name, b"9" * 18) for name in [*OUTGOING_HEADERS, "delaystream-attempt"]))
    assert found.due_at == datetime.max.replace(tzinfo=UTC)
    assert found.lateness is not None
    assert found.lateness < timedelta(0)
    assert found.attempt == 2**31 - 1


headers = st.lists(
    st.tuples(
        st.sampled_from([*OUTGOING_HEADERS, "delaystream-attempt", "event_type"]) | st.text(max_size=20),
        st.none() | st.binary(max_size=24) | st.integers().map(lambda number: b"%d" % number),
    ),
    max_size=10,
)


@given(headers, st.integers(-(2**63), 2**63 - 1))
def test_no_record_makes_the_reading_raise(headers: list[Header], timestamp_ms: int) -> None:
    found = delivery(*headers, timestamp_ms=timestamp_ms)
    for name in dir(found):
        if not name.startswith("_"):
            getattr(found, name)
    assert 1 <= found.attempt < 2**31


class Message:
    """As confluent-kafka's."""

    def __init__(self, headers: Any) -> None:
        self._headers = headers

    def headers(self) -> Any:
        if isinstance(self._headers, Exception):
            raise self._headers
        return self._headers

    def topic(self) -> str:
        return "invoices"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 3

    def timestamp(self) -> tuple[int, int]:
        return (1, DUE_MS)

    def key(self) -> bytes | None:
        return None

    def value(self) -> bytes | None:
        return b""


def of_message(headers: Any) -> Delivery:
    return Delivery.of_message(Message(headers))  # type: ignore[arg-type]


def test_both_clients_records_are_read_alike() -> None:
    headers = [("delaystream-fire-id", b"f"), ("a", None)]
    record = SimpleNamespace(
        topic="invoices", partition=0, offset=3, timestamp=DUE_MS, key=None, value=b"", headers=tuple(headers)
    )
    assert Delivery.of_record(record) == of_message(headers)
    assert Delivery.of_record(record).fire_id == "f"
    assert of_message(None).headers == []


@pytest.mark.parametrize("failure", [UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), SystemError()])
def test_headers_that_cannot_be_read_are_said_to_be_so(failure: Exception) -> None:
    found = of_message(failure)
    assert (found.is_readable, found.foreign, list(found.headers)) == (False, [], list(NO_HEADERS))
    assert delivery(("a", b"1")).is_readable
    assert delivery().is_readable


ROOT = Path(__file__).parents[2]
READERS = [*ROOT.glob("delaystream/**/*.py"), *ROOT.glob("examples/**/*.py"), *ROOT.glob("tests/**/*.py")]
CALL = re.compile(r"(?<!`)\b(?:message|msg|record|one|first)\.headers\(")


def test_nobody_reads_a_messages_headers_by_a_call_that_may_end_the_process() -> None:
    """See `raw_headers`: a header's name that is not UTF-8 is the next one's to write."""
    found = [str(path.relative_to(ROOT)) for path in READERS if CALL.search(path.read_text("utf-8"))]
    assert found == []
