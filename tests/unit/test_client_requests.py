"""What is asked of the client in Python's types, as records: pure, and read back as a worker reads them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delaystream.client import (
    CLEAR,
    Place,
    RejectedError,
    RequestRecord,
    cancel_request,
    check,
    describe_request,
    pause_request,
    preview,
    rate_request,
    reschedule_request,
    resume_request,
    schedule_request,
    trigger_request,
    update_request,
)
from delaystream.client.requests.checking import Checker
from delaystream.client.requests.options import control_headers
from delaystream.client.requests.payloads import payload
from delaystream.client.requests.timing import aware, duration_text, epoch_ms
from delaystream.codec.requests.names import SUPPORTED
from delaystream.core.durations import parse_duration
from delaystream.core.partitioning import owner_partition
from delaystream.core.request import Action, Coordinates

BERLIN = ZoneInfo("Europe/Berlin")
LOCAL = datetime(2030, 7, 1, 9, 30)  # noqa: DTZ001
NOW_MS = 1_900_000_000_000


def said(record: RequestRecord) -> dict[str, str]:
    return {
        name.removeprefix("delaystream-"): value.decode()
        for name, value in record.headers
        if value is not None and name.startswith("delaystream-")
    }


def test_every_header_of_the_contract_has_an_option() -> None:
    """And nothing else has: what a later version adds is added here."""
    for name in SUPPORTED:
        value: Any = LOCAL.replace(tzinfo=UTC) if name in {"start", "end", "until", "at"} else "1s"
        ((header, _),) = control_headers({name.replace("-", "_"): value})
        assert header == f"delaystream-{name}"
    with pytest.raises(TypeError, match="no option 'dealy' of a request; did you mean delay"):
        control_headers({"dealy": "1s"})


def test_none_is_as_if_it_were_not_given_and_clear_takes_away() -> None:
    record = reschedule_request("r", "x", end=CLEAR, max_fires=None, jitter=CLEAR, timezone=None)
    assert said(record) == {"action": "reschedule", "id": "x", "end": "none", "jitter": "none"}


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(0), "0"),
        (timedelta(seconds=90), "90000ms"),
        (timedelta(microseconds=1), "1ms"),
        (timedelta(days=3650), "315360000000ms"),
        ("1h30m", "1h30m"),
        ([timedelta(seconds=1), "5m"], "1000ms,5m"),
    ],
)
def test_lengths_of_time(duration: Any, text: str) -> None:
    assert said(schedule_request("r", "out", delay=duration))["delay"] == text


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=36_500)))
def test_any_length_of_time_is_read_as_it_was_meant(duration: timedelta) -> None:
    """Never shorter, and longer by less than a millisecond."""
    read = timedelta(milliseconds=parse_duration(duration_text(duration)))
    assert timedelta(0) <= read - duration < timedelta(milliseconds=1)


@given(st.datetimes(min_value=datetime(1971, 1, 1), timezones=st.timezones()))  # noqa: DTZ001
def test_any_time_with_an_offset_is_read_as_it_was_meant(at: datetime) -> None:
    assert timedelta(0) <= aware(epoch_ms(at)) - at < timedelta(milliseconds=1)


@pytest.mark.parametrize("zone", [BERLIN, "Europe/Berlin"])
def test_a_local_time_is_sent_as_one(zone: Any) -> None:
    """What it means is worked out when it is read, by the rules for gaps and overlaps."""
    record = schedule_request("r", "out", at=LOCAL, timezone=zone, dst_gap="skip")
    assert said(record)["at"] == "2030-07-01T09:30:00.000"
    assert said(record)["timezone"] == "Europe/Berlin"
    assert check(record) == (datetime(2030, 7, 1, 7, 30, tzinfo=UTC),)


def test_bounds_in_local_time_are_worked_out_here() -> None:
    """The contract has no local times there."""
    record = schedule_request("r", "out", cron="@daily", id="x", timezone=BERLIN, start=LOCAL, end=LOCAL)
    instant = str(epoch_ms(LOCAL.replace(tzinfo=BERLIN)))
    assert (said(record)["start"], said(record)["end"]) == (instant, instant)


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (
            lambda: schedule_request("r", "out", at=LOCAL),
            "at=.* is a local time without a time zone: give timezone",
        ),
        (lambda: pause_request("r", "x", until=LOCAL), "until=.* local time without a time zone"),
        (
            lambda: schedule_request("r", "out", every="1h", id="x", start=LOCAL),
            "start=.* without a time zone",
        ),
        (
            lambda: schedule_request("r", "out", at=LOCAL.replace(fold=1), timezone=BERLIN),
            "say dst_overlap='second'",
        ),
        (
            lambda: schedule_request("r", "out", cron="@daily", id="x", start=LOCAL, timezone="Mars/Base"),
            "'Mars/Base' is not a name",
        ),
        (
            lambda: schedule_request("r", "out", at=LOCAL, timezone=timezone(timedelta(hours=1))),
            "has no name in the IANA database",
        ),
        (lambda: schedule_request("r", "out", tags=["a,b"]), "'a,b' has a comma"),
        (
            lambda: schedule_request("r", "out", "a\ud800b"),
            "value is not Unicode: '\\\\ud800' at character 1",
        ),
        (lambda: schedule_request("r", "out", {"a": "\ud800"}), "in the value holds a lone surrogate"),
        (lambda: schedule_request("r", "out", id="\udc80"), "id is not Unicode"),
        (lambda: cancel_request("r", "\udc80"), "id is not Unicode"),
        (lambda: schedule_request("r", "out", key="\udc80"), "key is not Unicode"),
        (lambda: schedule_request("r", "out", tags=["\udc80"]), "tags is not Unicode"),
        (lambda: schedule_request("r", "out", headers={"\udc80": b""}), "name of a header is not Unicode"),
        (lambda: schedule_request("r", "out", headers={"a": "\udc80"}), "the header a is not Unicode"),
        (lambda: schedule_request("r", "out", every="\udc80"), "every is not Unicode"),
        (lambda: schedule_request("r", "out", cron="*", timezone="\udc80"), "timezone is not Unicode"),
        (lambda: rate_request("r", "\udc80", 5), "destination is not Unicode"),
        (lambda: update_request("r", "x", key=b"k"), "key and headers belong to a new value"),
    ],
)
def test_what_cannot_be_written_is_refused_with_a_sentence(ask: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as refused:
        ask()
    assert type(refused.value) is ValueError
    assert str(refused.value).endswith(".") or "give the value, too" in sentence or "new value" in sentence


class Nowhere(tzinfo):
    """A zone that knows no offset: a datetime that has it is as naive as one without."""

    def utcoffset(self, _at: datetime | None, /) -> None:
        return None

    def dst(self, _at: datetime | None, /) -> None:
        return None

    def tzname(self, _at: datetime | None, /) -> None:
        return None


def test_a_time_whose_zone_knows_no_offset_is_naive() -> None:
    with pytest.raises(ValueError, match="without a time zone"):
        schedule_request("r", "out", at=LOCAL.replace(tzinfo=Nowhere()))


@dataclass
class Invoice:
    customer: str
    due: datetime


class Model(pydantic.BaseModel):
    customer: str
    due: datetime


class Struct(msgspec.Struct):
    customer: str
    due: datetime


DUE = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, None),
        (b"\xff", b"\xff"),
        (bytearray(b"a"), b"a"),
        (memoryview(b"a"), b"a"),
        ("ü", "ü".encode()),
        ("", b""),
        ({"a": [1, None], "b": {1}}, b'{"a":[1,null],"b":[1]}'),
        ([1, "a"], b'[1,"a"]'),
        (7, b"7"),
        (UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
        (Invoice("a", DUE), b'{"customer":"a","due":"2030-01-01T00:00:00+00:00"}'),
        (Model(customer="a", due=DUE), b'{"customer":"a","due":"2030-01-01T00:00:00Z"}'),
        (Struct("a", DUE), b'{"customer":"a","due":"2030-01-01T00:00:00Z"}'),
        (
            {"s": Struct("a", DUE), "m": Model(customer="b", due=DUE)},
            b'{"s":{"customer":"a","due":"2030-01-01T00:00:00Z"},"m":{"customer":"b","due":"2030-01-01T00:00:00Z"}}',
        ),
    ],
)
def test_values(value: Any, written: bytes | None) -> None:
    assert payload(value) == written
    assert schedule_request("r", "out", value, delay="1s").value == written


def test_a_serializer_takes_the_place_of_all_that() -> None:
    """But a null value is a tombstone, whoever serializes."""
    place = Place("r", serializer=lambda value: f"<{value}>".encode())
    assert schedule_request(place, "out", {"a": 1}).value == b"<{'a': 1}>"
    assert update_request(place, "x", value=1).value == b"<1>"
    assert schedule_request(place, "out", None).value is None
    with pytest.raises(TypeError, match="object cannot be written as JSON"):
        payload(object())


def test_an_update_says_what_becomes_of_the_payload() -> None:
    kept = update_request("r", "x", tags=["a"])
    assert (kept.value, said(kept)) == (None, {"action": "update", "id": "x", "tags": "a"})
    new = update_request("r", "x", value=None, key="k", headers=[("h", "1")])
    assert (new.key, new.value, said(new)["payload"]) == (b"k", None, "replace")
    assert new.headers[-1] == ("h", b"1")


def test_a_request_with_an_id_is_for_the_partition_that_owns_it() -> None:
    """By number, so that the key stays the user's; where nothing is known of partitions, by the key."""
    place = Place("r", partitions=12)
    for id in ("a", "ü" * 20, "x" * 256):
        record = schedule_request(place, "out", key=b"mine", delay="1s", id=id)
        assert (record.partition, record.key) == (owner_partition(id, 12), b"mine")
        commands = (cancel_request, pause_request, resume_request, trigger_request, describe_request)
        assert {command(place, id).partition for command in commands} == {record.partition}
        assert update_request(place, id, value=b"", key=b"k").partition == record.partition
    assert schedule_request("r", "out", delay="1s", id="a").partition is None
    assert schedule_request(place, "out", key=b"mine", delay="1s").partition is None
    assert cancel_request(place, match_tags=["a"]).partition is None


def test_commands_about_the_same_share_a_key() -> None:
    """So that they stay in order, whatever the order of their options."""
    first = cancel_request("r", match_tags=["a"], match_destination="out")
    second = cancel_request("r", match_destination="out", match_tags="a", note="why")
    assert first.key == second.key == b"match-destination=out\nmatch-tags=a"
    assert trigger_request("r", coordinates=Coordinates("r", 1, 17)).key == b"coordinates=r/1/17"
    assert cancel_request("r", "ü").key == "ü".encode()


@pytest.mark.parametrize(
    ("record", "action"),
    [
        (cancel_request("r", match_key=b"k", match_anonymous=True), Action.CANCEL),
        (pause_request("r", "x", until=LOCAL.replace(tzinfo=BERLIN), if_version=0), Action.PAUSE),
        (resume_request("r", "x", catch_up="all", on_late="drop", grace=timedelta(hours=1)), Action.RESUME),
        (trigger_request("r", coordinates="r/0/1"), Action.TRIGGER),
        (reschedule_request("r", "x", delay=timedelta(hours=1)), Action.RESCHEDULE),
        (describe_request("r", "x", reply_to="delay-receipts"), Action.DESCRIBE),
        (rate_request("r", "out", 2.5), Action.RATE),
        (
            update_request("r", "x", name=CLEAR, destination_key=b"k", deploy=3, declared_by="a"),
            Action.UPDATE,
        ),
    ],
)
def test_a_worker_reads_every_command(record: RequestRecord, action: Action) -> None:
    assert Checker.of("r").check(record, NOW_MS).action is action


@pytest.mark.parametrize(
    ("code", "record"),
    [
        ("no-schedule", schedule_request("r", "out")),
        ("missing-destination", schedule_request("r", None, delay="1s")),
        ("destination-denied", schedule_request("r", "r", delay="1s")),
        ("destination-denied", schedule_request("r", "delay-receipts", delay="1s")),
        ("invalid-delay", schedule_request("r", "out", delay=timedelta(seconds=-1))),
        ("delay-too-long", schedule_request("r", "out", delay=timedelta(days=4000))),
        ("not-applicable", schedule_request("r", "out", at=LOCAL.replace(tzinfo=UTC), timezone="UTC")),
        ("value-too-large", schedule_request("r", "out", b"x" * (1024 * 1024 + 1), delay="1s")),
        ("duplicate-header", schedule_request("r", "out", delay="1s", headers={"delaystream-delay": b"2s"})),
        ("unknown-header", schedule_request("r", "out", delay="1s", headers={"delaystream-dealy": b"2s"})),
        ("nothing-to-change", update_request("r", "x", note="a")),
        ("reply-to-required", describe_request("r", "x")),
    ],
)
def test_what_a_worker_would_refuse_is_refused_with_its_code(code: str, record: RequestRecord) -> None:
    with pytest.raises(RejectedError) as refused:
        check(record)
    assert refused.value.code == code
    assert str(refused.value) == f"{code}: {refused.value.detail}"


def test_a_preview_asks_nobody() -> None:
    """With the local time, and what the clocks did to it; jitter is left out."""
    after = datetime(2030, 3, 30, 12, tzinfo=UTC)
    first, second = preview(2, cron="30 2 * * *", timezone=BERLIN, after=after)
    assert (first.at, first.local.isoformat()) == (
        datetime(2030, 3, 31, 1, tzinfo=UTC),
        "2030-03-31T03:00:00+02:00",
    )
    assert first.note is not None
    assert first.note.startswith("gap")
    assert second.note is None
    every = preview(every=timedelta(hours=1), max_fires=3, jitter="1m", after=after)
    assert [one.at - after for one in every] == [timedelta(hours=hours) for hours in (1, 2, 3)]
    assert [one.at for one in preview(at=[after, after + timedelta(days=1)], after=after)] == [
        after + timedelta(days=1)
    ]
    with pytest.raises(RejectedError, match="invalid-cron"):
        preview(cron="61 * * * *")


def test_no_kafka_library_is_imported_before_a_client_connects() -> None:
    """Nor what reads settings: what is pure works where nothing of it is wanted."""
    script = (
        "import sys, delaystream.client as client\n"
        "from datetime import timedelta\n"
        "client.check(client.schedule_request('r', 'out', delay=timedelta(1)))\n"
        "client.Client('localhost:1').preview(cron='@daily'); client.Batch\n"
        "heavy = {'confluent_kafka', 'aiokafka', 'faust', 'rocksdict', 'typer', 'starlette'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"
