"""What a client makes of types, lengths and bytes that nobody should give it, and of records by anybody."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

from delaystream.cli.requests.answers import event_line
from delaystream.client import (
    Accepted,
    Backoff,
    Client,
    Delivery,
    MissingPartitionError,
    MissingTopicError,
    Place,
    Receipt,
    ReceiptTimeout,
    RejectedError,
    RetryPolicy,
    ScheduleDescription,
    Sent,
    UnavailableError,
    cancel_request,
    check,
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
    with pytest.raises(ValueError, match="last millisecond that is possible"):
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


NO_NUMBERS: list[Any] = [True, 2.5, float("nan"), float("inf"), None]


@pytest.mark.parametrize("number", NO_NUMBERS)
def test_what_is_no_whole_number_is_a_type_error_that_names_it(number: Any) -> None:
    calls: list[tuple[str, Callable[[], object]]] = [
        ("max_attempts", lambda: RetryPolicy(Backoff((5,), 5), number)),
        ("length of time in ms", lambda: Backoff((number,), 5)),
        ("most_ms", lambda: Backoff((5,), number)),
        ("n", lambda: preview(number, delay="1h")),
    ]
    if number is not None:
        calls += [
            (name, partial(schedule_request, "r", "t", every="1h", id="x", **{name: number}))
            for name in ("max_fires", "if_version", "destination_partition", "deploy", "attempt")
        ]
        calls += [
            ("max_attempts", lambda: RetryPolicy.of(max_attempts=number)),
            ("partitions", lambda: Place("r", number)),
        ]
    for name, call in calls:
        with pytest.raises(TypeError, match=f"{name} takes a whole number, not {type(number).__name__}"):
            call()


@pytest.mark.parametrize("number", [0, -1, 2**31, 10**5_000], ids=["none", "less", "more", "huge"])
def test_a_whole_number_has_bounds_that_its_error_names(number: int) -> None:
    calls: list[tuple[str, Callable[[], object]]] = [
        ("max_attempts", lambda: RetryPolicy.of(max_attempts=number)),
        ("partitions", lambda: Place("r", number)),
    ]
    if number:
        calls.append(("n", lambda: preview(number, delay="1h")))
    for name, call in calls:
        with pytest.raises(ValueError, match=f"{name} is .*; expected a whole number from [01] to [0-9]+"):
            call()


@pytest.mark.parametrize("factor", [True, "2", None, 1j])
def test_a_factor_is_a_number(factor: Any) -> None:
    with pytest.raises(TypeError, match="factor takes a number"):
        Backoff((5,), 5, factor)


def test_a_number_that_no_header_can_hold_is_a_value_error() -> None:
    """Others are refused by the contract's bounds, with its code."""
    with pytest.raises(ValueError, match="max_fires is a number of more than a hundred digits"):
        schedule_request("r", "t", every="1h", id="x", max_fires=10**5_000)
    for number in (-1, 0, 2**63):
        with pytest.raises(RejectedError, match="invalid-max-fires"):
            check(schedule_request("r", "t", every="1h", id="x", max_fires=number))


@pytest.mark.parametrize("given", [timedelta(seconds=-1), timedelta.min])
def test_no_wait_and_no_end_is_negative(given: timedelta) -> None:
    """librdkafka flushes for ever where it is told less than none."""
    with environment() as env:
        for call in (partial(env.client.close, given), partial(env.client.describe, "x", wait=given)):
            with pytest.raises(ValueError, match="not negative"):
                call()
    for number in NO_NUMBERS:
        with pytest.raises(TypeError, match="timeout takes a timedelta"):
            Client("localhost:1").close(number)


@pytest.mark.parametrize("partition", [-1, -(2**31)])
def test_a_partition_that_no_topic_has_is_not_sent_to(partition: int) -> None:
    request = replace(schedule_request("delay-requests", "t", delay="1h"), partition=partition)
    with environment() as env, pytest.raises(MissingPartitionError, match=f"no partition {partition}"):
        env.client.send(request)


@pytest.mark.parametrize(
    "topic",
    ["delay-commands", "delay-wheel-changelog", "delay-events", "delay-dead-letters", "delay-receipts"],
)
def test_a_topic_of_delaystreams_own_is_refused_as_a_worker_refuses_it(topic: str) -> None:
    given: list[dict[str, Any]] = [
        {"destination": topic},
        {"destination": "t", "on_late": topic, "grace": "1m"},
    ]
    for named in given:
        with environment() as env, pytest.raises(RejectedError) as refused:
            env.client.schedule(value=b"", delay="1h", **named)
        assert refused.value.code in ("destination-denied", "late-topic-denied", "invalid-on-late")


# -- preview


YEAR_ONE = datetime.min.replace(tzinfo=ZoneInfo("Asia/Tokyo"))
THE_LAST = datetime.max.replace(tzinfo=ZoneInfo("America/New_York"))


@pytest.mark.parametrize(
    "after", [YEAR_ONE, THE_LAST, datetime(1960, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
)
@pytest.mark.parametrize("timing", [{"delay": "1h"}, {"cron": "30 2 * * *", "timezone": "Europe/Berlin"}])
def test_a_preview_after_a_time_that_no_request_has_is_a_value_error(
    after: datetime, timing: dict[str, Any]
) -> None:
    """From it, and not from the present."""
    with pytest.raises(ValueError, match=r"after=.* is out of range; expected a time from 1971 to 9999"):
        preview(1, after=after, **timing)


def test_a_preview_ends_with_the_calendar() -> None:
    """And counts from where it is told to, however far that is from now."""
    late = datetime(9999, 12, 31, 22, 30, tzinfo=UTC)
    assert [one.at.hour for one in preview(9, after=late, every="1h")] == [23]
    assert [one.at.hour for one in preview(9, after=late, delay=["1h", "2h"])] == [23]
    assert preview(9, after=late, every="3650d") == ()
    [first] = preview(
        1, after=datetime(9998, 12, 31, tzinfo=UTC), cron="30 2 * * *", timezone="Pacific/Auckland"
    )
    assert first.local.year == 9999
    [early] = preview(1, after=datetime(1971, 1, 1, tzinfo=UTC), cron="30 2 * * *")
    assert early.at == datetime(1971, 1, 1, 2, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("fold", "overlap", "next_hour"),
    [(0, "first", None), (0, "both", 1), (0, "second", 1), (1, "both", None)],
)
def test_a_preview_after_a_local_time_that_comes_twice_knows_which(
    fold: int, overlap: Any, next_hour: int | None
) -> None:
    after = datetime(2030, 10, 27, 2, 30, fold=fold, tzinfo=ZoneInfo("Europe/Berlin"))
    [found] = preview(1, after=after, cron="30 2 * * *", timezone="Europe/Berlin", dst_overlap=overlap)
    assert (found.at.day, found.at.hour) == ((28, 1) if next_hour is None else (27, next_hour))


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
    receipts.announce("a request")
    receipts.expect("a request", SOURCE, told.append)
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
    with pytest.raises(UnavailableError, match="not a description"):
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
