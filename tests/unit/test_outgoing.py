"""What delaystream writes on deliveries, dead letters and receipts."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from delaystream.codec.outgoing import (
    OUTGOING_HEADERS,
    Answer,
    Delivery,
    Outcome,
    dead_letter_headers,
    delivery_headers,
    receipt,
)
from delaystream.core.rejection import Code, Rejection
from delaystream.core.request import Coordinates, Header

SOURCE = Coordinates("delay-requests", 3, 42)
SCHEDULED = Answer(Outcome.SCHEDULED)


def test_a_delivery_carries_the_foreign_headers_first_and_then_where_it_comes_from() -> None:
    foreign: list[Header] = [("trace", b"\xff"), ("trace", None)]
    headers = delivery_headers(
        foreign,
        Delivery(
            "ä", "delay-requests/r1/0/1700000000000/ä", 1_700_000_000_000, "delay-requests/3/42", fire_count=1
        ),
        ("delaystream-fired-at", b"1700000000007"),
    )
    assert headers == [
        *foreign,
        ("delaystream-schedule-id", "ä".encode()),
        ("delaystream-fire-id", "delay-requests/r1/0/1700000000000/ä".encode()),
        ("delaystream-due-at", b"1700000000000"),
        ("delaystream-fired-at", b"1700000000007"),
        ("delaystream-source", b"delay-requests/3/42"),
        ("delaystream-fire-count", b"1"),
    ]
    assert foreign == [("trace", b"\xff"), ("trace", None)]


def test_a_dead_letter_keeps_every_header_and_says_why_and_where_from() -> None:
    original: list[Header] = [("delaystream-delay", b"30"), ("trace", None)]
    headers = dead_letter_headers(
        original, Coordinates("delay-requests", 3, 42), -1, Rejection(Code.INVALID_DELAY, "no unit: 'ä'.")
    )
    assert headers == [
        *original,
        ("delaystream-error", b"invalid-delay"),
        ("delaystream-error-detail", "no unit: 'ä'.".encode()),
        ("delaystream-error-topic", b"delay-requests"),
        ("delaystream-error-partition", b"3"),
        ("delaystream-error-offset", b"42"),
        ("delaystream-error-timestamp", b"-1"),
    ]


def test_everything_written_is_dropped_on_intake() -> None:
    written = [
        *delivery_headers([], Delivery("s", "f", 1, "t/0/1", 1, 1), ("delaystream-fired-at", b"2")),
        *dead_letter_headers([], SOURCE, 2, Rejection(Code.NO_SCHEDULE, "d")),
        *(name for name in receipt(SOURCE, None, SCHEDULED, 1)[2] if name[0] != "content-type"),
    ]
    kept_for_later = {"delaystream-last-fired-at", "delaystream-next-at"}
    assert {name for name, _ in written} == OUTGOING_HEADERS - kept_for_later


def test_a_receipt_for_a_scheduled_request_lists_its_fires() -> None:
    key, value, headers = receipt(SOURCE, "order-7", Answer(Outcome.REPLACED, [(10, "f1"), (20, "f2")]), 5)
    assert key == b"order-7"
    assert orjson.loads(value) == {
        "outcome": "replaced",
        "schedule_id": "order-7",
        "id": "order-7",
        "request_topic": "delay-requests",
        "source": "delay-requests/3/42",
        "decided_at_ms": 5,
        "fires": [{"due_at_ms": 10, "fire_id": "f1"}, {"due_at_ms": 20, "fire_id": "f2"}],
    }
    assert headers == [("delaystream-receipt", b"replaced"), ("content-type", b"application/json")]


def test_a_receipt_for_a_refused_request_says_why() -> None:
    refused = Answer(Outcome.REJECTED, refusal=Rejection(Code.INVALID_DELAY, "no unit."))
    key, value, _ = receipt(SOURCE, None, refused, 5)
    assert key == b"delay-requests/3/42"
    body = orjson.loads(value)
    assert (body["outcome"], body["code"], body["detail"]) == ("rejected", "invalid-delay", "no unit.")
    assert "id" not in body


def test_a_receipt_for_a_late_cancel_names_the_fire_that_came_first() -> None:
    body = orjson.loads(receipt(SOURCE, "order-7", Answer(Outcome.TOO_LATE, won="f1"), 5)[1])
    assert (body["outcome"], body["fire_id"]) == ("too-late", "f1")


@given(st.sampled_from(Outcome), st.none() | st.text(min_size=1), st.text())
def test_a_receipt_is_json_for_any_id(outcome: Outcome, id: str | None, detail: str) -> None:
    answer = Answer(outcome, refusal=Rejection(Code.INTERNAL_ERROR, detail))
    key, value, headers = receipt(SOURCE, id, answer, 5)
    body = orjson.loads(value)
    assert body["schedule_id"].encode() == key
    assert dict(headers)["delaystream-receipt"] == outcome.value.encode()
