"""What a client makes of types, lengths and bytes that nobody should give it, and of records by anybody."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from delaystream.cli.requests.answers import event_line
from delaystream.client import (
    Accepted,
    Backoff,
    Delivery,
    MissingTopicError,
    Receipt,
    ReceiptTimeout,
    RejectedError,
    ScheduleDescription,
    Sent,
    UnavailableError,
    cancel_request,
    preview,
    rate_request,
    schedule_request,
)
from delaystream.client.kafka.receipts import Receipts
from delaystream.client.requests.payloads import payload
from delaystream.client.verbs import seconds
from delaystream.codec.outgoing import RECEIPT
from delaystream.core.request import Coordinates
from delaystream.testing import environment

HOUR = timedelta(hours=1)
SOURCE = Coordinates("delay-requests", 0, 7)
NUMBERS: list[Any] = [5, True, 0, 10**30, 2.5, [1, 2], {}, object()]
asked: Callable[..., Any] = schedule_request


# -- types


@pytest.mark.parametrize("given", NUMBERS)
def test_a_key_is_bytes_or_text_and_never_so_many_zeros(given: Any) -> None:
    for option in ("key", "destination_key"):
        with pytest.raises(TypeError, match="bytes or text"):
            asked("r", "t", b"", delay=HOUR, **{option: given})


@pytest.mark.parametrize("given", NUMBERS)
def test_a_header_is_bytes_or_text(given: Any) -> None:
    with pytest.raises(TypeError, match="bytes or text"):
        asked("r", "t", b"", delay=HOUR, headers={"h": given})
    if not isinstance(given, str):
        with pytest.raises(TypeError, match="the name of a header"):
            asked("r", "t", b"", delay=HOUR, headers=[(given, b"")])


def test_what_is_like_bytes_is_sent_as_bytes() -> None:
    request = asked("r", "t", b"", key=bytearray(b"k"), headers={"h": memoryview(b"v")}, delay=HOUR)
    assert (request.key, request.headers[-1]) == (b"k", ("h", b"v"))
    assert [type(request.key), type(request.headers[-1][1])] == [bytes, bytes]


@pytest.mark.parametrize("given", [b"v", bytearray(b"v"), memoryview(b"v")])
def test_bytes_of_any_kind_are_written_already_and_no_serializer_sees_them(given: Any) -> None:
    assert payload(given, lambda _: b"again") == b"v"


@pytest.mark.parametrize("given", [5, True, b"x", object(), SOURCE])
def test_an_id_is_text(given: Any) -> None:
    with pytest.raises(TypeError, match="id takes text"):
        asked("r", "t", b"", delay=HOUR, id=given)
    with pytest.raises(TypeError, match="id takes text"):
        cancel_request("r", given)


@pytest.mark.parametrize(
    "given",
    [{"delay": 5}, {"delay": [None]}, {"every": 60}, {"at": date(2030, 1, 1)}, {"at": 5}, {"start": 5},
     {"tags": [5]}, {"tags": b"ab"}],
)  # fmt: skip
def test_other_types_are_a_type_error_that_names_them(given: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"takes|is a timedelta"):
        asked("r", "t", b"", **given)


@pytest.mark.parametrize("given", [5, "10s", True])
def test_a_wait_is_a_timedelta_and_else_nothing_is_sent(given: Any) -> None:
    with environment() as env:
        with pytest.raises(TypeError, match="wait takes a timedelta"):
            env.client.schedule("t", b"", delay=HOUR, wait=given)
        assert env.scheduled() == []


# -- sizes


def test_the_longest_timedelta_is_refused_as_any_other_that_is_too_long() -> None:
    with environment() as env:
        for timing in ({"delay": timedelta.max}, {"every": timedelta.max, "id": "x"}):
            with pytest.raises(RejectedError):
                env.client.schedule("t", b"", **timing)


def test_the_last_local_time_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="last millisecond"):
        asked("r", "t", b"", at=datetime.max, timezone="UTC")  # noqa: DTZ901


def test_a_wait_for_ever_is_one_that_a_lock_takes() -> None:
    from threading import TIMEOUT_MAX

    assert seconds(timedelta.max) is not None
    assert (seconds(timedelta.max) or 0) < TIMEOUT_MAX


@pytest.mark.parametrize(
    ("rate", "text"),
    [(10_000_000, b"10000000"), (123_456.7, b"123456.7"), (0.00001, b"0.00001"), (5.0, b"5"), (50, b"50")],
)
def test_a_rate_has_all_its_digits_and_no_exponent(rate: float, text: bytes) -> None:
    assert dict(rate_request("r", "t", rate).headers)["delaystream-rate"] == text


@pytest.mark.parametrize(
    "made",
    [lambda: Backoff((), 5), lambda: Backoff((-5,), 5), lambda: Backoff((5,), 10**40),
     lambda: Backoff((5,), 500, float("nan")), lambda: Backoff((5,), 0, 2.0), lambda: Backoff((5,), 50, 0.0)],
)  # fmt: skip
def test_a_backoff_that_is_none_is_refused_where_it_is_made(made: Callable[[], Backoff]) -> None:
    with pytest.raises(ValueError, match="The backoff"):
        made()


# -- preview


def test_a_one_time_schedule_is_previewed_on_the_clock_of_its_zone() -> None:
    nine = datetime(2030, 7, 1, 9)  # noqa: DTZ001
    [found] = preview(at=nine, timezone="Europe/Berlin", after=datetime(2030, 1, 1, tzinfo=UTC))
    assert (found.at.hour, found.local.hour) == (7, 9)
    assert str(found.local.tzinfo) == "Europe/Berlin"


def test_less_than_no_times_and_a_time_of_no_place_are_value_errors() -> None:
    for timing in ({"delay": ["1h", "2h"]}, {"cron": "0 9 * * *"}):
        with pytest.raises(ValueError, match="n is -1"):
            preview(-1, **timing)
    with pytest.raises(ValueError, match="offset"):
        preview(1, after=datetime(2030, 1, 1), cron="0 9 * * *")  # noqa: DTZ001


# -- other processes


@pytest.mark.parametrize(
    "error",
    [
        RejectedError("invalid-id", "It is empty.", Receipt.parse(b'{"outcome":"rejected"}')),
        ReceiptTimeout(SOURCE, "delay-receipts", 5.0),
        MissingTopicError("reminders"),
    ],
)
@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))]
)
def test_an_error_comes_whole_from_another_process(error: Exception, copied: Callable[[Any], Any]) -> None:
    error.add_note("of a batch")
    again = copied(error)
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_what_was_accepted_comes_whole_from_another_process() -> None:
    with environment() as env:
        accepted = env.client.schedule("t", b"", id="x", delay=HOUR, wait=HOUR)
        untold = env.client.schedule("t", b"", delay=HOUR)
    for one in (accepted, untold, Accepted(Sent(SOURCE, 0))):
        again = pickle.loads(pickle.dumps(one))
        assert (again, again.due_at) == (one, one.due_at)
    assert untold.due_at


# -- receipts by anybody


def forged(value: bytes) -> Delivery:
    return Delivery.of(("delay-receipts", 0, 0), 0, None, value, [(RECEIPT, b"1")])


DEEP = b"[" * 5_000 + b"]" * 5_000


def test_a_record_that_is_nested_too_deeply_does_not_end_the_reading_of_receipts() -> None:
    receipts, told = Receipts(), list[Any]()
    receipts.announce()
    receipts.expect(SOURCE, told.append)
    receipts.take(forged(b'{"x":' + DEEP + b',"source":"another"}'))
    receipts.take(forged(b'{"source":"delay-requests/0/7","outcome":"scheduled"}'))
    assert [receipt.outcome for receipt in told] == ["scheduled"]


@pytest.mark.parametrize(
    "schedule",
    [b'{"definition":5}', b'{"definition":{"tags":5}}', b'{"definition":{"every_ms":1' + b"0" * 30 + b"}}",
     b'{"history":[5]}', b'{"history":[{"due_at_ms":"x"}]}', b'{"payload":{"headers":[1]}}',
     b'{"next_at_ms":"x"}', b'{"payload":{"key_base64":"a"}}'],
)  # fmt: skip
def test_a_description_that_no_worker_wrote_is_an_error_of_the_client(schedule: bytes) -> None:
    with pytest.raises(UnavailableError, match="in the place of the description"):
        ScheduleDescription.of(Receipt.parse(b'{"schedule":' + schedule + b"}"))


# -- batches


def test_what_a_batch_has_changed_says_where_that_stands() -> None:
    with environment() as env:
        env.client.schedule("t", b"1", id="x", delay=HOUR)
        with env.client.batch() as batch:
            pending = batch.handle("x").update(lambda _: {"value": b"2"})
            assert pending.sent() == pending.result().sent


def test_so_it_does_in_an_event_loop() -> None:
    async def test() -> None:
        async with environment() as env:
            await env.client.schedule("t", b"1", id="x", delay=HOUR)
            async with env.client.batch() as batch:
                pending = await batch.handle("x").update(lambda _: {"value": b"2"})
                assert await pending.sent() == (await pending.result()).sent

    asyncio.run(test())


def test_an_event_that_is_nested_too_deeply_is_no_event_to_the_command_line() -> None:
    assert event_line(forged(b'{"x":' + DEEP + b"}")) is None
