"""Layouts of state, commands, exports, events and the group: as they were, and between two versions.

`golden/` holds samples of each; `docs/architecture.md` has the table. `test_envelope` says what those of the
state mean. `python -m tests.unit.test_layouts FILE` prints one of the others as this version writes it: for a
new version, whose samples get a file or a name of their own.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment

from delaystream.adapters.membership.sticky_assignor import Claim, StickyAssignor, Told, _claim
from delaystream.codec import envelope
from delaystream.codec.command import COMMAND_HEADER, Command, Report, attach, detach, report_headers
from delaystream.codec.event import SCHEMA_VERSION, Definition, Event, EventType, decode_event, encode_event
from delaystream.codec.requests.headers import RequestParser
from delaystream.core.defaults import NO_DEFAULTS, Defaults
from delaystream.core.destinations import DestinationFilter
from delaystream.core.limits import Limits
from delaystream.core.record import Record
from delaystream.core.recurrence import NO_TIMING, Recurrence, Timing
from delaystream.core.request import Coordinates, Header, Request
from delaystream.transfer import lines
from delaystream.transfer.checking import checked, numbered
from delaystream.transfer.exporting import _Digesting
from delaystream.transfer.kafka import TransferError
from tests.unit.test_envelope import DECODERS, MEANT, golden
from tests.unit.test_transfer import exported, state

GOLDEN = Path(__file__).with_name("golden")
FIRST_FORMAT = 2
"""Of exports: files of an older one are refused."""


def sample(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text("utf-8"))


# -- state -----------------------------------------------------------------------------------------


def decode(name: str, stored: bytes) -> Any:
    decoder: Any = DECODERS.get(name.partition("-")[0], envelope.decode_entry)
    return decoder(stored)


@pytest.mark.parametrize("name", MEANT)
def test_an_older_worker_skips_what_a_newer_one_appends_to_a_row(name: str) -> None:
    stored = msgspec.msgpack.decode(bytes.fromhex(golden()[name]))
    fields = len(type(MEANT[name]).__struct_fields__)
    newer = [*stored, *[None] * (fields + 1 - len(stored)), "new"]
    if len(stored) < fields + 1:
        filled = msgspec.msgpack.decode(envelope.encode(MEANT[name]))
        newer = [*filled, "new"]
    assert decode(name, msgspec.msgpack.encode(newer)) == MEANT[name]


@pytest.mark.parametrize("name", MEANT)
def test_a_newer_worker_fills_in_what_an_older_one_did_not_have(name: str) -> None:
    """Down to the fields that the row has had from the first."""
    kind = type(MEANT[name])
    stored = msgspec.msgpack.decode(envelope.encode(MEANT[name]))
    required = sum(field.required for field in msgspec.structs.fields(kind))
    for count in range(required, len(stored) - 1):
        read = decode(name, msgspec.msgpack.encode(stored[: count + 1]))
        for place, field in enumerate(msgspec.structs.fields(kind)):
            made = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
            expected = getattr(MEANT[name], field.name) if place < count else made
            assert getattr(read, field.name) == expected, field.name


def test_a_row_with_a_tag_of_a_later_version_is_not_guessed_at() -> None:
    with pytest.raises(msgspec.ValidationError):
        envelope.decode_entry(msgspec.msgpack.encode([9, "requests", "a"]))


def test_every_kind_of_row_has_a_golden_value() -> None:
    kinds = {
        kind.__struct_config__.tag
        for kind in vars(envelope).values()
        if isinstance(kind, type)
        and issubclass(kind, msgspec.Struct)
        and kind.__struct_config__.tag is not None
    }
    assert kinds == {type(meant).__struct_config__.tag for meant in MEANT.values()}


# -- commands --------------------------------------------------------------------------------------

HEADERS: list[Header] = [("trace", b"\xff"), ("delaystream-id", b"order-7")]
SENT_MS = 1_700_000_000_000
RECURRENCE = Recurrence("0 9 * * *", 0, "Europe/Berlin", "skip", "both", 0, None, 3, 4)
SOURCE = Coordinates("delay-requests", 3, 42)
COMMANDS: dict[str, Command | Report] = {
    "one-time-1": Command(SOURCE, SENT_MS, "orders", (SENT_MS + 5_000, SENT_MS + 9_000)),
    "recurring-1": Command(SOURCE, SENT_MS, "orders", (), RECURRENCE),
    "report-2": Report(SOURCE, 2, 17, "replies", 18, 19, 1, 5),
    "report-1": Report(SOURCE, 2, 17, "replies"),
    "changed-3": Command(
        SOURCE, SENT_MS, "", (), timing=Timing(cron="0 9 * * *"), defaults=Defaults("Asia/Tokyo", 7_000)
    ),
    "moved-3": Command(
        SOURCE, SENT_MS, "", (SENT_MS + 5_000,), timing=NO_TIMING, defaults=Defaults("Asia/Tokyo", 7_000)
    ),
    "bounded-3": Command(
        SOURCE,
        SENT_MS,
        "",
        (),
        timing=Timing(every_ms=60_000, start_ms=SENT_MS + 1_000, end_ms=None, max_fires=4, jitter_ms=None),
        defaults=NO_DEFAULTS,
    ),
    "imported-1": Command(Coordinates("delay-requests", 3, 42, "w2WxZ0kXSyGk1zvVnXbVhA"), SENT_MS, "", ()),
}


def written(command: Command | Report) -> bytes:
    """The header's value, by the code that workers write it with."""
    if isinstance(command, Report):
        return report_headers(command)[-1][1] or b""
    parser = RequestParser(DestinationFilter(["*"]), Limits())
    cancel = [*HEADERS, ("delaystream-action", b"cancel")]
    request = parser.parse(Record(Coordinates("t", 0, 0), SENT_MS, None, None, cancel), SENT_MS)
    assert isinstance(request, Request)
    request = msgspec.structs.replace(
        request,
        source=command.source,
        timestamp_ms=command.timestamp_ms,
        destination=command.destination,
        due_ms=command.due_ms,
        recurrence=command.recurrence,
        timing=command.timing,
        defaults=command.defaults or NO_DEFAULTS,
    )
    return attach([], request)[-1][1] or b""


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_was_written_once_still_reads(name: str) -> None:
    value = bytes.fromhex(sample("commands.json")[name])
    assert detach([*HEADERS, (COMMAND_HEADER, value)]) == (COMMANDS[name], HEADERS)


@pytest.mark.parametrize("name", COMMANDS)
def test_an_older_worker_skips_what_a_newer_one_appends_to_a_command(name: str) -> None:
    command = COMMANDS[name]
    value = msgspec.msgpack.encode([*msgspec.msgpack.decode(written(command)), "new"])
    if isinstance(command, Command):
        # It is always written which defaults there were.
        command = msgspec.structs.replace(command, defaults=command.defaults or NO_DEFAULTS)
    assert detach([*HEADERS, (COMMAND_HEADER, value)]) == (command, HEADERS)


def test_a_command_of_a_later_version_is_not_guessed_at() -> None:
    """It becomes a dead letter: `invalid-command`."""
    version, *rest = msgspec.msgpack.decode(written(COMMANDS["one-time-1"]))
    value = msgspec.msgpack.encode([version + 1, *rest])
    assert detach([*HEADERS, (COMMAND_HEADER, value)]) == (None, HEADERS)


def test_every_golden_command_has_its_meaning_here() -> None:
    assert sample("commands.json").keys() == COMMANDS.keys()


# -- the group -------------------------------------------------------------------------------------

CLAIM = Claim(1, 4, (0, 2), (0, 1, 2))
TOLD = Told(1, 5)


def test_claims_and_assignments_that_were_written_once_still_read() -> None:
    """What workers of two versions do with each other's is in `test_sticky_assignor`."""
    stored = {name: bytes.fromhex(text) for name, text in sample("assignments.json").items()}
    assert stored.keys() == {"claim-1", "assignment-1"}
    assert _claim(stored["claim-1"]) == CLAIM
    assert StickyAssignor().heard(stored["assignment-1"]) == 5


def test_what_is_written_now_is_what_the_golden_values_hold() -> None:
    """Members of older versions read it: a change of it takes a new version."""
    stored = sample("assignments.json")
    member = StickyAssignor(lambda: [2, 1, 0])
    member.on_assignment(
        ConsumerProtocolMemberAssignment(0, [("requests", [0, 2])], StickyAssignor().told(1, 4))
    )
    assert member.metadata(["requests"]).user_data.hex() == stored["claim-1"]
    assert StickyAssignor().told(1, 5).hex() == stored["assignment-1"]


# -- exports ---------------------------------------------------------------------------------------


def export_file() -> bytes:
    return (GOLDEN / "export-2.jsonl").read_bytes()


def test_an_export_that_was_written_once_still_reads() -> None:
    """To its last field: each line is written as it was read."""
    file = io.BytesIO(export_file())
    read = checked(file)
    assert (read.header.format, read.end.anonymous, read.end.schedules, read.end.commands) == (2, 2, 3, 1)
    assert read.topic_ids == {("requests", 0): "topic-id"}
    for _, line, text in numbered(io.BytesIO(export_file())):
        assert lines.encoded(line) == text
        if isinstance(line, lines.Anonymous):
            lines.from_fields(line.payload, envelope.Envelope, {})
        if isinstance(line, lines.Named):
            schedule = lines.from_fields(line.schedule, envelope.Schedule, lines.TOLD_LATER)
            fields = lines.as_fields(schedule, lines.TOLD_APART)
            assert msgspec.json.decode(msgspec.json.encode(fields)) == line.schedule
        if isinstance(line, lines.Holding):
            assert lines.from_fields(line.hold, envelope.Hold, lines.OF_A_HOLD) == MEANT["hold-1"]


def test_a_line_of_an_export_has_the_defaults_of_what_it_does_not_say() -> None:
    """As it was written before there was anything to say: a rate without its note."""
    text = export_file().splitlines()[2]
    line, told = lines.decoded(text), json.loads(text)
    assert told.pop("note") == "why"
    assert lines.decoded(json.dumps(told).encode()) == msgspec.structs.replace(line, note=None)


@pytest.mark.parametrize("format", [1, 3])
def test_an_export_of_another_format_is_refused_with_what_to_do(format: int) -> None:
    """Whatever else stands in it: nothing of it is read."""
    header = json.loads(export_file().splitlines()[0]) | {"format": format, "version": "0.9.1"}
    file = io.BytesIO(json.dumps(header).encode() + b"\n" + b'{"type":"end","new":1}\n')
    with pytest.raises(TransferError) as refused:
        checked(file)
    told = f"has format {format}, written by delaystream 0.9.1, and this version reads format {FIRST_FORMAT}"
    assert told in str(refused.value)
    assert ("export --reopen" in str(refused.value)) == (format < FIRST_FORMAT)


def test_a_field_that_an_export_does_not_know_is_refused_by_name() -> None:
    """It would be lost."""
    with pytest.raises(lines.LineError, match="'colour' is not a field"):
        lines.from_fields({"key": None, "value": None, "colour": 1}, envelope.Envelope, {})


# -- events ----------------------------------------------------------------------------------------


AT_MS = 1_700_000_000_000
EVENTS = [
    Event(
        schema_version=SCHEMA_VERSION,
        type=EventType.SCHEDULED,
        at_ms=AT_MS,
        request_topic="delay-requests",
        schedule_id="order-7",
        source="delay-requests/3/42",
        id="order-7",
        status="pending",
        revision=1_376_260,
        actor="ada",
        definition=Definition("orders", [AT_MS + 5_000], name="n", description="d", tags=["a", "b"]),
        key="customer-7",
        created_at_ms=AT_MS - 9,
        created_by="ada",
        updated_at_ms=AT_MS - 8,
        updated_by="bob",
        version=3,
        note="asked by phone",
        until_ms=AT_MS + 9_000,
        request_id="r-1",
        declared_by="billing",
        deploy=7,
        next_at_ms=AT_MS + 5_000,
        no_receipt="'replies': it does not exist",
    ),
    Event(
        schema_version=SCHEMA_VERSION,
        type=EventType.REPLACED,
        at_ms=AT_MS,
        request_topic="delay-requests",
        schedule_id="report",
        source="delay-requests/3/43",
        id="report",
        status="pending",
        revision=1_409_028,
        definition=Definition(
            "orders",
            cron="0 9 * * *",
            timezone="Europe/Berlin",
            dst_gap="skip",
            dst_overlap="both",
            start_at_ms=AT_MS,
            end_at_ms=AT_MS + 1_000_000_000,
            max_fires=9,
            jitter_ms=1_000,
            catch_up="all",
            grace_ms=60_000,
        ),
        shortened=True,
    ),
    Event(
        schema_version=SCHEMA_VERSION,
        type=EventType.FIRED,
        at_ms=AT_MS,
        request_topic="delay-requests",
        schedule_id="report",
        source="delay-requests@w2WxZ0kXSyGk1zvVnXbVhA/3/43",
        id="report",
        status="pending",
        revision=1_409_028,
        key_base64="/w==",
        next_at_ms=AT_MS + 1_000,
        due_at_ms=AT_MS - 5,
        fired_at_ms=AT_MS,
        lateness_ms=5,
        fire_id=f"delay-requests@w2WxZ0kXSyGk1zvVnXbVhA/r1409028/0/{AT_MS - 5}/report",
        fire_count=3,
        skipped=2,
        destination="orders",
        destination_partition=1,
    ),
    Event(
        schema_version=SCHEMA_VERSION,
        type=EventType.MISSED,
        at_ms=AT_MS,
        request_topic="delay-requests",
        schedule_id="report",
        source="delay-requests/3/43",
        id="report",
        status="pending",
        revision=1_409_028,
        destination="orders",
        from_ms=AT_MS - 3_000,
        to_ms=AT_MS - 1_000,
        count=3,
        reason="late",
    ),
    Event(
        schema_version=SCHEMA_VERSION,
        type=EventType.BULK,
        at_ms=AT_MS,
        request_topic="delay-requests",
        schedule_id="delay-requests/0/9",
        source="delay-requests/0/9",
        action="cancel",
        count=17,
        matched=18,
        anonymous=19,
        holds=0,
    ),
    Event(
        schema_version=SCHEMA_VERSION,
        type=EventType.PARKED,
        at_ms=AT_MS,
        destination="orders",
        partition=3,
        since_ms=AT_MS - 9,
        reason="it does not exist",
    ),
    Event(
        schema_version=SCHEMA_VERSION,
        type=EventType.RATE,
        at_ms=AT_MS,
        request_topic="delay-requests",
        source="delay-requests/0/11",
        destination="orders",
        rate=12.5,
    ),
    Event(
        schema_version=SCHEMA_VERSION,
        type=EventType.REJECTED,
        at_ms=AT_MS,
        request_topic="delay-requests",
        schedule_id="delay-requests/0/10",
        source="delay-requests/0/10",
        code="invalid-delay",
        detail="delaystream-delay is '5'; expected a unit",
    ),
    Event(
        schema_version=SCHEMA_VERSION,
        type=EventType.FIRED,
        at_ms=AT_MS,
        request_topic="delay-requests",
        schedule_id="order-7",
        source="delay-requests/3/42",
        id="order-7",
        status="fired",
        revision=1376260,
        due_at_ms=AT_MS - 5,
        fired_at_ms=AT_MS,
        lateness_ms=5,
        destination="orders",
        destination_partition=1,
        correlation_id="basket-17",
    ),
]


def test_events_that_were_written_once_still_read() -> None:
    """And are written as they were: consumers rely on the bytes' meaning."""
    lines_of_it = (GOLDEN / f"events-{SCHEMA_VERSION}.jsonl").read_bytes().splitlines()
    assert [decode_event(text) for text in lines_of_it] == EVENTS
    assert [json.loads(encode_event(event)) for event in EVENTS] == [json.loads(text) for text in lines_of_it]


def test_a_reader_of_events_skips_what_a_later_version_tells_besides() -> None:
    for text in (GOLDEN / f"events-{SCHEMA_VERSION}.jsonl").read_bytes().splitlines():
        newer = json.dumps(json.loads(text) | {"new": {"a": [1]}}).encode()
        assert decode_event(newer) == decode_event(text)


def test_events_of_another_schema_are_another_thing() -> None:
    (first, *_) = (GOLDEN / f"events-{SCHEMA_VERSION}.jsonl").read_bytes().splitlines()
    with pytest.raises(msgspec.ValidationError, match="schema_version"):
        decode_event(json.dumps(json.loads(first) | {"schema_version": SCHEMA_VERSION + 1}).encode())


def test_the_golden_events_hold_every_field() -> None:
    told = {
        name
        for text in (GOLDEN / f"events-{SCHEMA_VERSION}.jsonl").read_bytes().splitlines()
        for name in json.loads(text)
    }
    assert told == set(Event.__struct_fields__)


def written_export() -> bytes:
    """The state of `test_transfer`, a hold, and a command."""
    out = io.BytesIO()
    digesting = _Digesting(out)
    header = lines.Header(
        lines.FORMAT,
        "old",
        "changelog",
        "changelog-id",
        4,
        1_893_455_000_000,
        "2029-12-31T23:43:20.000Z",
        "0.1.0",
        "a-transfer",
        final=True,
    )
    command: list[Header] = [*HEADERS, (COMMAND_HEADER, written(COMMANDS["one-time-1"]))]
    holding = msgspec.structs.replace(lines.holding(0, MEANT["hold-1"]), until_ms=SENT_MS)
    ended = lines.ended_hold(0, MEANT["ended-1"])
    for line in (
        header,
        *exported(state()),
        holding,
        ended,
        lines.InFlight(0, 7, SENT_MS, b"k", b"v", command),
    ):
        digesting.write(line)
    return out.getvalue() + lines.encoded(lines.End(2, 3, 1, digesting.digest, 1))


def _as_json(samples: dict[str, bytes]) -> bytes:
    return json.dumps({name: value.hex() for name, value in samples.items()}, indent=2).encode() + b"\n"


if __name__ == "__main__":
    encode = msgspec.msgpack.encode
    samples = {
        "commands.json": lambda: _as_json({name: written(command) for name, command in COMMANDS.items()}),
        "assignments.json": lambda: _as_json({"claim-1": encode(CLAIM), "assignment-1": encode(TOLD)}),
        f"events-{SCHEMA_VERSION}.jsonl": lambda: b"".join(encode_event(event) + b"\n" for event in EVENTS),
        f"export-{lines.FORMAT}.jsonl": written_export,
    }
    sys.stdout.buffer.write(samples[sys.argv[1]]())
