"""No input stops the service: any records in any order, and each of them is accounted for at the end.

`DELAYSTREAM_EXAMPLES=20000` draws so many anew in place of the same few:
`DELAYSTREAM_EXAMPLES=20000 .venv/bin/python -m pytest --timeout=0 tests/unit/test_fuzz.py`. `make fuzz` lets
the paths through the code lead (tests/fuzz).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from delaystream.cli.rendering import delivery_fields
from delaystream.cli.requests.answers import description, receipt_line, record_line
from delaystream.client import Receipt
from delaystream.client.kafka.deliveries import Delivery
from delaystream.codec import envelope
from delaystream.codec.command import COMMAND_HEADER, detach
from delaystream.codec.envelope import UNREADABLE
from delaystream.core.durations import DurationError, format_duration, parse_duration
from delaystream.core.instants import EARLIEST_MS, LATEST_MS, InstantError, format_instant, parse_instant
from delaystream.core.record import Record
from delaystream.core.recurrence import CronError, Recurrence, check, misses, next_after
from delaystream.core.recurrence.expression import parse_cron
from delaystream.core.rejection import Code, Rejection
from delaystream.core.request import Coordinates, Header, Request
from delaystream.engine.accept import intake
from delaystream.engine.accept.intake import Intake
from delaystream.engine.output.letters import Letters
from delaystream.engine.schedules.commands import Commands
from delaystream.engine.state.partition_state import PartitionState
from tests.examples import examples
from tests.fuzz.scripts import (
    COMMANDS,
    DIALECTS,
    EDGES,
    INT64,
    NARROW,
    REQUESTS,
    VALUES,
    YEAR_MS,
    Away,
    Pass,
    Script,
    Send,
    command_headers,
    foreign,
    nasty,
    nearly,
    own_headers,
    scripts,
    spoken_headers,
)
from tests.fuzz.world import World, run
from tests.unit.test_envelope import MEANT

NOW_MS = 1_700_000_000_000
#: far more than any text of a header's size takes
LONGEST_S = 5.0


def tried(number: int) -> settings:
    """So many examples, the same in every run, or as many as are asked for, drawn anew."""
    return settings(
        examples(number),
        phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


# -- the engine ------------------------------------------------------------------------------------------


def control(**values: str) -> tuple[Header, ...]:
    return tuple((f"delaystream-{name.replace('_', '-')}", text.encode()) for name, text in values.items())


NOW = Send(REQUESTS, 0, b"key", b"value", control(destination="orders", delay="0"))
LATER = Send(REQUESTS, 0, b"key", b"value", control(destination="orders", delay="1s,2s,1h"))
REFUSED = Send(REQUESTS, 0, b"key", b"value", control(destination="orders", delay="soon"))
NAMED = Send(REQUESTS, 0, b"key", b"value", control(destination="orders", delay="1s", id="a"))
CANCEL = Send(REQUESTS, 0, b"key", None, control(action="cancel", id="a"))

Patched = Callable[..., Any]


def _without_value(dead_letter: Patched) -> Patched:
    def changed(letters: Letters, step: Any, record: Record, *rest: Any) -> None:
        dead_letter(letters, step, replace(record, value=None), *rest)

    return changed


def _under_one_name(headers: Patched) -> Patched:
    def changed(own: Any, coordinates: bytes, index: int, due_ms: int, fired_at: Header) -> Any:
        return headers(own, b"delay-requests/0/0/", 0, 1, fired_at)

    return changed


def _early(headers: Patched) -> Patched:
    def changed(own: Any, coordinates: bytes, index: int, due_ms: int, fired_at: Header) -> Any:
        return headers(own, coordinates, index, due_ms, (fired_at[0], b"%d" % (due_ms - 1)))

    return changed


def _fails(_: Patched) -> Patched:
    def changed(*args: Any) -> None:
        raise LookupError

    return changed


def _does_nothing(_: Patched) -> Patched:
    return lambda *args: None


@pytest.mark.parametrize(
    ("owner", "name", "broken", "happenings"),
    [
        (Letters, "dead_letter", _does_nothing, (REFUSED,)),
        (Letters, "dead_letter", _without_value, (REFUSED,)),
        (Letters, "refuse", _does_nothing, (REFUSED,)),
        (Intake, "_schedule", _does_nothing, (NOW,)),
        (Intake, "_schedule", _fails, (NOW,)),
        (PartitionState, "add_entry", _does_nothing, (LATER,)),
        (intake, "anonymous_delivery_headers", _under_one_name, (NOW, NOW)),
        (intake, "anonymous_delivery_headers", _early, (NOW,)),
        (Commands, "apply", _does_nothing, (NAMED, CANCEL)),
        (Commands, "apply", _fails, (NAMED, CANCEL)),
    ],
)
def test_an_engine_that_is_broken_is_noticed(
    owner: Any, name: str, broken: Callable[[Patched], Patched], happenings: tuple[Any, ...]
) -> None:
    """Were the account blind, nothing below would prove anything."""
    script = Script(1, 8_000, (*happenings, Pass(5_000)))
    run(script)
    with (
        patch.object(owner, name, broken(getattr(owner, name))),
        pytest.raises((AssertionError, LookupError)),
    ):
        run(script)


ABSENT_FOR_YEARS = Script(
    2,
    1,
    (
        NAMED._replace(partition=1, headers=NAMED.headers[:1] + control(cron="0 9 * * *", id="a")),
        NAMED._replace(headers=NAMED.headers[:1] + control(cron="0 9 * * *", id="c"), timestamp_ms=1 << 62),
        Send(REQUESTS, 1, b"k", b"v", control(destination="absent", every="1s", id="b", catch_up="latest")),
        LATER,
        Away(12 * YEAR_MS, True),
    ),
)  # fmt: skip


@tried(60)
@example(ABSENT_FOR_YEARS)
@given(scripts())
def test_the_worker_lives_and_every_record_is_accounted_for(script: Script) -> None:
    run(script)


# -- reading one record ----------------------------------------------------------------------------------

_contents = st.none() | nasty | st.binary(max_size=2_000)
_stamps = st.sampled_from(EDGES) | INT64
_any_headers = st.lists(foreign, max_size=6) | own_headers()
_tenants = World.tenants()


@tried(200)
@given(
    st.sampled_from((REQUESTS, NARROW, *(f"{dialect}-requests" for dialect in DIALECTS))),
    st.data(),
    _contents,
    _contents,
    _stamps,
    st.integers(0, LATEST_MS),
)
def test_whatever_a_record_holds_it_is_a_request_or_a_rejection(
    topic: str, data: st.DataObject, key: bytes | None, value: bytes | None, stamp_ms: int, now_ms: int
) -> None:
    dialect = topic.removesuffix("-requests")
    strategy = spoken_headers(dialect) if dialect in DIALECTS else _any_headers
    headers = data.draw(strategy)
    read = _tenants.of(topic).parse(Record(Coordinates(topic, 0, 7), stamp_ms, key, value, headers), now_ms)
    _readable(read)
    if isinstance(read, Request):
        assert all(0 <= due_ms < 1 << 63 for due_ms in read.due_ms)
        assert bool(read.due_ms) + (read.recurrence is not None) + (read.action != "schedule") >= 1
        assert read.recurrence is None or next_after(read.recurrence, read.timestamp_ms) is not None


@tried(150)
@given(own_headers(), command_headers(), _contents, _stamps)
def test_whatever_a_command_holds_it_is_a_request_a_report_or_a_rejection(
    own: list[Header], command: list[Header], value: bytes | None, stamp_ms: int
) -> None:
    headers = [*own, *command]
    _readable(
        _tenants.parse_command(Record(Coordinates(COMMANDS, 0, 7), stamp_ms, b"key", value, headers), NOW_MS)
    )
    detach(headers)


@tried(150)
@given(st.none() | st.binary(max_size=200))
def test_no_bytes_of_a_command_make_it_raise(content: bytes | None) -> None:
    detach([(COMMAND_HEADER, content)])


def _readable(read: Any) -> None:
    if isinstance(read, Rejection):
        assert read.code is not Code.INTERNAL_ERROR
        assert read.detail
        assert len(read.detail) < 1_000


# -- what is stored --------------------------------------------------------------------------------------

DECODERS = [getattr(envelope, name) for name in dir(envelope) if name.startswith("decode_")]
_stored = [msgspec.msgpack.encode(value) for value in MEANT.values()]


@tried(300)
@given(st.sampled_from(DECODERS), nearly(tuple(_stored)) | st.binary(max_size=60))
def test_what_is_stored_is_read_or_is_unreadable(decode: Callable[[bytes], Any], stored: bytes) -> None:
    with suppress(*UNREADABLE):
        decode(stored)


def told(error: Exception) -> None:
    """An error says what is wrong."""
    assert str(error)


# -- notations -------------------------------------------------------------------------------------------


@tried(300)
@given(INT64 | st.sampled_from(EDGES) | st.integers())
def test_every_number_is_an_instant_for_people(instant_ms: int) -> None:
    text = format_instant(instant_ms)
    if EARLIEST_MS <= instant_ms <= LATEST_MS:
        assert parse_instant(text) == instant_ms


_texts = st.text(max_size=30) | st.sampled_from(
    sorted({*VALUES["at"], *VALUES["delay"], *VALUES["cron"]})
).map(bytes.decode)
_written = st.text("0123456789 :+-.,TZzPMSDHdhms*/#?LW@", max_size=30)


@tried(300)
@given(_texts | _written)
def test_every_text_is_an_instant_or_is_told_why_not(text: str) -> None:
    try:
        assert EARLIEST_MS <= parse_instant(text) <= LATEST_MS
    except InstantError as error:
        told(error)


@tried(300)
@given(_texts | _written)
def test_every_text_is_a_duration_or_is_told_why_not(text: str) -> None:
    try:
        duration_ms = parse_duration(text)
    except DurationError as error:
        told(error)
    else:
        assert parse_duration(format_duration(duration_ms)) == duration_ms


_FIELDS = st.lists(
    st.sampled_from(
        ["*", "0", "59", "23", "31", "*/2", "1-5", "0,30", "L", "LW", "1W", "MON", "MON#5", "5L", "29", "?"]
    ),
    min_size=4,
    max_size=7,
).map(" ".join)  # fmt: skip


@tried(300)
@given(
    _FIELDS | _texts | _written,
    st.sampled_from(["UTC", "America/St_Johns", "Pacific/Apia", "Europe/Berlin"]),
    st.integers(0, LATEST_MS),
)
def test_every_text_is_a_cron_expression_or_is_told_why_not_and_neither_takes_long(
    text: str, zone: str, now_ms: int
) -> None:
    began = time.process_time()
    try:
        parse_cron(text)
    except CronError as error:
        told(error)
    recurrence = Recurrence(text, 0, zone, start_ms=now_ms)
    if check(recurrence, min_interval_ms=1_000, max_expression=256) is None:
        first_ms = next_after(recurrence, now_ms)
        missed = misses(recurrence, now_ms, now_ms + 40 * YEAR_MS)
        assert missed.first_ms is None or missed.first_ms == first_ms
    assert time.process_time() - began < LONGEST_S


# -- for people ------------------------------------------------------------------------------------------


class Message:
    """A record as confluent-kafka gives it, as far as it is looked at."""

    def __init__(self, key: Any, value: Any, headers: Any, stamp_ms: int) -> None:
        self.key, self.value, self.headers = (lambda: key), (lambda: value), (lambda: headers)
        self.timestamp = lambda: (1, stamp_ms)
        self.topic, self.partition, self.offset = (lambda: "orders"), (lambda: 0), (lambda: 7)


_told = st.sampled_from(["due-at", "fired-at", "fire-id", "schedule-id", "receipt"]).map(
    lambda name: f"delaystream-{name}"
)


@tried(300)
@given(_contents, _contents, st.lists(st.tuples(_told, st.none() | nasty) | foreign, max_size=5), _stamps)
@example(None, b"", [("delaystream-due-at", b"9" * 5_000)], 0)
@example(None, b"", [("delaystream-due-at", b"9" * 400)], 0)
def test_any_record_can_be_watched(
    key: bytes | None, value: bytes | None, headers: list[Header], stamp_ms: int
) -> None:
    import orjson

    printable = [(name.encode("utf-8", "replace").decode(), content) for name, content in headers]
    record = Delivery.of_message(Message(key, value, printable, stamp_ms))  # type: ignore[arg-type]
    assert "\n" not in record_line(record, record.topic)
    assert "\n" not in record_line(record, "other")
    orjson.dumps(delivery_fields(record))


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["due_at_ms", "fire_id", "x_at_ms"]), inner, max_size=3)
    ),
    max_leaves=6,
)
_bodies = st.dictionaries(
    st.sampled_from(
        ["outcome", "schedule_id", "source", "fires", "code", "detail", "won_at_ms", "count", "schedule"]
    ),
    _json,
)


@tried(300)
@given(_bodies.map(msgspec.json.encode) | st.binary(max_size=40))
def test_any_receipt_is_a_line_or_is_none(value: bytes) -> None:
    try:
        receipt = Receipt.parse(value)
    except ValueError:
        return
    assert receipt_line(receipt).isprintable()
    assert description(receipt)
    assert isinstance(receipt.source, str)
