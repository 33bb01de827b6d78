"""Exports: lines that hold everything, and rows that say the same in another application."""

import io
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from delaystream.cli.operate.export_table import Table
from delaystream.codec import keys
from delaystream.codec.envelope import (
    FORMAT,
    Answered,
    Envelope,
    Fire,
    Meta,
    Pointer,
    Rate,
    Schedule,
    SourceName,
    SourcePosition,
    Status,
    Triggered,
    decode_schedule,
    encode,
)
from delaystream.core.partitioning import owner_partition
from delaystream.core.recurrence import Recurrence
from delaystream.core.request import CatchUp, Lateness
from delaystream.engine.ports import Change, Marker
from delaystream.engine.state.partition_state import PartitionState
from delaystream.engine.state.pointers import pointers
from delaystream.testing.store import MemoryStateStores, MemoryStore
from delaystream.transfer import lines
from delaystream.transfer.checking import Checked, checked
from delaystream.transfer.exporting import _Digesting, _for_all
from delaystream.transfer.kafka import TransferError
from delaystream.transfer.origins import Origins
from delaystream.transfer.reading import PartitionReading, UnknownState
from delaystream.transfer.rows import PartitionRows, home, meta_row

TENANT = "requests"
LARGE = Envelope(b"k", bytes(2_000), [], 5)
ENVELOPE = Envelope(b"\xff\x00", None, [("a", b"1"), ("a", None)], 5, 3, True, b"k", "drop", 60_000)


def store_of(changes: Iterable[Change]) -> MemoryStore:
    store = MemoryStateStores().open(0)
    store.write(list(changes), [], Marker("id", 1, 0, b""))
    return store


def state() -> MemoryStore:
    """Fires without an id, a schedule with two, a paused recurring one, one that is over, a tenant's."""
    first = keys.wheel_key(1, 1_893_456_000_000, 0, 17, 1)
    second = keys.wheel_key(2, 1_893_456_001_000, 1, 18, 0)
    fires = [keys.wheel_key(1, 1_893_456_002_000, 1, 20, 0), keys.wheel_key(2, 1_893_456_003_000, 1, 20, 1)]
    forget = keys.wheel_key(keys.HOUSEKEEPING, 1_893_456_004_000, 0, 21, 0)
    named = Schedule(
        Status.PENDING,
        42,
        TENANT,
        3,
        20,
        7,
        "out",
        fires,
        1,
        "an-earlier-fire",
        None,
        "name",
        "for",
        ["a", "b"],
    )
    trigger = keys.wheel_key(1, 1_893_456_005_000, 0, 30, 0)
    cron = Schedule(
        Status.PAUSED, 44, TENANT, 0, 25, 9, "out",
        recurrence=Recurrence("0 9 * * *", 0, "Europe/Paris", jitter_ms=5), next_ms=1_893_456_006_000,
        catch_up=CatchUp.ALL, held=[(1_893_456_007_000, 2)], triggers=[Triggered(trigger, 44, 0)],
        history=[Fire(1, 2, 44), Fire(3, 4, 44, "t0.30")], actor="me", payload=encode(ENVELOPE),
        version=44, note="why", declared_by="set", deploy=7, answered=[Answered("r", "paused", 44)],
        digest=b"\0\xff",
        until_key=keys.wheel_key(keys.HOUSEKEEPING, 1_893_456_009_000, 0, 25, 1),
        once=Lateness(CatchUp.NONE, "drop", 5),
        created_ms=8, created_by="me", updated_ms=9, updated_by="you", key=b"\xff", last_fired_ms=4,
    )  # fmt: skip
    over = Schedule(Status.CANCELLED, 43, TENANT, 0, 21, 8, "out", [], 0, None, forget)
    return store_of(
        [
            (keys.META, encode(Meta(4, FORMAT, app_id="old"))),
            (keys.destination_key(1), b"out"),
            (keys.destination_key(2), b"out\0" + TENANT.encode()),
            (keys.source_key(0), encode(SourceName(TENANT, 0))),
            (keys.source_key(1), encode(SourceName(TENANT, 3))),
            (keys.offset_key(TENANT), encode(SourcePosition(22, "topic-id"))),
            (first, encode(ENVELOPE)),
            (second, encode(Envelope(None, b"v", [], 6))),
            (keys.rate_key(TENANT, "out"), encode(Rate(TENANT, "out", 2.5, 3, 21, 9, "me", "", "why"))),
            (keys.schedule_key(TENANT, "named"), encode(named)),
            (keys.payload_key(TENANT, "named"), encode(LARGE)),
            (keys.schedule_key(TENANT, "cron"), encode(cron)),
            (keys.schedule_key(TENANT, "over"), encode(over)),
        ]
    )


def exported(store: MemoryStore, partition: int = 0) -> list[Any]:
    reading = PartitionReading(partition, store)
    reading.check()
    found: list[lines.Line] = [
        *reading.positions(),
        *reading.rates(),
        *reading.anonymous(),
        *reading.named(remembered=True),
    ]
    return [lines.decoded(lines.encoded(line)) for line in found]


def origins(here: str) -> Origins:
    """Those of the state's request topic where the one of that name has the id `here`."""
    header = lines.Header(lines.FORMAT, "old", "changelog", "changelog-id", 4, 1, "", "0", "t", final=True)
    ids = {(TENANT, 0): "topic-id", (TENANT, 3): "topic-id"}
    return Origins(Checked(header, lines.End(0, 0, 0, ""), ids), {TENANT: here})


def imported(found: list[Any], here: str = "topic-id") -> list[Change]:
    rows = PartitionRows(origins(here))
    changes = [meta_row(8, "new", "t", "imported")]
    for line in found:
        match line:
            case lines.Position():
                changes += rows.position(line)
            case lines.Rate():
                changes += rows.rate(line)
            case lines.Anonymous():
                changes += rows.anonymous(line)
            case lines.Named():
                changes += rows.named(origins(here).named(line))
    return changes


def test_an_import_holds_what_was_exported() -> None:
    """Every field of it, through JSON: exporting the new state gives the same lines."""
    found = exported(state())
    assert exported(store_of(imported(found))) == found
    assert len(found) == 7


def test_a_rate_is_exported_with_who_set_it_and_why() -> None:
    (line,) = [line for line in exported(state()) if isinstance(line, lines.Rate)]
    assert (line.destination, line.rate, line.actor, line.note) == ("out", 2.5, "me", "why")


def test_an_engine_takes_the_rows() -> None:
    """The names are interned as it does, the wheels' heads are where the first fires are."""
    loaded = PartitionState(store_of(imported(exported(state()))), 8, "new")
    assert loaded.positions[TENANT].next_offset == 22
    assert loaded.heads.next_due() == 1_893_456_000_000


def test_the_same_lines_make_the_same_rows() -> None:
    """So an import may be repeated from its beginning, whatever of it was written."""
    found = exported(state())
    assert imported(found) == imported(found)


def test_fire_ids_stay() -> None:
    """On the same request topic: they are made of coordinates, list index and due time, and of revisions."""
    found = exported(state())
    (anonymous, *_) = [line for line in found if isinstance(line, lines.Anonymous)]
    assert (anonymous.fire.source, anonymous.fire.index, anonymous.fire.due_at_ms) == (
        f"{TENANT}/0/17",
        1,
        1_893_456_000_000,
    )
    named = [line for line in found if isinstance(line, lines.Named) and line.id == "named"]
    assert [(fire.source, fire.index) for fire in named[0].fires] == [
        (f"{TENANT}/3/20", 0),
        (f"{TENANT}/3/20", 1),
    ]
    assert named[0].schedule["revision"] == 42
    rows = dict(imported(exported(state())))
    schedule = decode_schedule(rows[keys.schedule_key(TENANT, "named")] or b"")
    assert (schedule.revision, schedule.partition, schedule.offset) == (42, 3, 20)
    row = encode(schedule)
    assert pointers(keys.schedule_key(TENANT, "named"), row) == dict.fromkeys(
        schedule.pending, encode(Pointer(TENANT, "named", 42))
    )


def test_what_is_of_another_topic_of_the_name_keeps_its_origin() -> None:
    """In every place that has coordinates or a revision, once; what comes home loses it again."""
    found = exported(state())
    elsewhere = exported(store_of(imported(found, "another-id")))
    marked = [line for line in elsewhere if isinstance(line, lines.Anonymous)]
    assert {line.fire.source.partition("/")[0] for line in marked} == {f"{TENANT}@topic-id"}
    named = {line.id: line for line in elsewhere if isinstance(line, lines.Named)}
    for line in named.values():
        assert (line.schedule["origin"], line.schedule["revision_origin"]) == ("topic-id", "topic-id")
        assert all(fire["origin"] == "topic-id" for fire in line.schedule["history"])
        assert all(fire.source.startswith(f"{TENANT}@topic-id/") for fire in line.fires)
    (triggered,) = named["cron"].triggers
    assert (triggered.fire.source, triggered.revision_origin) == (f"{TENANT}@topic-id/0/30", "topic-id")
    further = exported(store_of(imported(elsewhere, "a-third-id")))
    assert [line for line in further if not isinstance(line, lines.Position)] == [
        line for line in elsewhere if not isinstance(line, lines.Position)
    ]
    assert exported(store_of(imported(further))) == found


def test_what_is_no_topic_id_is_refused_as_an_origin() -> None:
    """It would be written into names."""
    (anonymous, *_) = (line for line in exported(state()) if isinstance(line, lines.Anonymous))
    fire = msgspec.structs.replace(anonymous.fire, source=f"{TENANT}@no id/0/17")
    with pytest.raises(lines.LineError, match="'no id' is not a topic's id"):
        imported([msgspec.structs.replace(anonymous, fire=fire)])


def test_times_are_for_people_too() -> None:
    """RFC 3339 beside the milliseconds."""
    fires = [line.fire for line in exported(state()) if isinstance(line, lines.Anonymous)]
    assert fires[0].due_at == "2030-01-01T00:00:00.000Z"


def test_what_recurs_can_be_read() -> None:
    """By the names of its fields, and with its next time."""
    (cron,) = (line for line in exported(state()) if isinstance(line, lines.Named) and line.id == "cron")
    assert cron.schedule["recurrence"]["cron"] == "0 9 * * *"
    assert cron.schedule["recurrence"]["timezone"] == "Europe/Paris"
    assert cron.schedule["history"][1] == {
        "due_ms": 3,
        "fired_ms": 4,
        "revision": 44,
        "index": "t0.30",
        "origin": "",
        "kind": 0,
        "to_ms": 0,
        "count": 1,
    }
    assert cron.next_at == "2030-01-01T00:00:06.000Z"


def test_the_table_has_a_line_for_each_fire() -> None:
    """Those of paused and triggered ones too; and for each rate."""
    out = io.BytesIO()
    table = Table(out)
    for line in exported(state()):
        table.write(lines.encoded(line))
    rows = out.getvalue().decode().splitlines()[1:]
    found = sorted((row[:24].strip(), row[26:35].strip(), row[63:95].strip()) for row in rows)
    assert found == [
        ("-", "cancelled", "over"),
        ("-", "rate", "requests"),
        ("2030-01-01T00:00:00.000Z", "pending", "requests/0/17"),
        ("2030-01-01T00:00:01.000Z", "pending", "requests/3/18"),
        ("2030-01-01T00:00:02.000Z", "pending", "named"),
        ("2030-01-01T00:00:03.000Z", "pending", "named"),
        ("2030-01-01T00:00:05.000Z", "triggered", "cron"),
        ("2030-01-01T00:00:07.000Z", "paused", "cron"),
    ]


def test_ids_go_to_their_new_owner() -> None:
    """And what has no id stays with what it stood with."""
    for line in exported(state(), 3):
        if isinstance(line, lines.Named):
            assert home(line, 8) == owner_partition(line.id, 8)
        else:
            assert (home(line, 8), home(line, 2)) == (3, 1)


def test_over_is_left_out_unless_asked_for() -> None:
    """A list of what is pending is not one of what was cancelled."""
    reading = PartitionReading(0, state())
    assert [line.id for line in reading.named(remembered=False)] == ["cron", "named"]


def test_every_key_of_a_wheel_in_a_schedule_is_known_here() -> None:
    """Such a key means another number in another application: a new field of the kind must be mapped too."""
    holds_bytes = {field.name for field in msgspec.structs.fields(Schedule) if "bytes" in str(field.type)}
    # A digest is of what it is, and a key is delivered, wherever it is.
    assert holds_bytes - {"digest", "key"} == lines.TOLD_APART - {"triggers"}


def test_unknown_state_is_refused() -> None:
    """Leaving it out would lose it."""
    store = store_of([(b"z1", b"")])
    with pytest.raises(UnknownState, match="kind b'z'"):
        PartitionReading(0, store).check()


def test_fields_that_an_older_version_did_not_have_take_their_default() -> None:
    """And those of a newer one are refused by name."""
    given = lines.as_fields(ENVELOPE)
    del given["on_late"], given["grace_ms"]
    assert lines.from_fields(given, Envelope, {}) == msgspec.structs.replace(
        ENVELOPE, on_late="fire", grace_ms=-1
    )
    with pytest.raises(lines.LineError, match="'colour' is not a field"):
        lines.from_fields({**given, "colour": 1}, Envelope, {})
    with pytest.raises(lines.LineError, match="'headers' is missing"):
        lines.from_fields({"key": None, "value": None}, Envelope, {})


# -- files -----------------------------------------------------------------------------------------------


def file(*, change: Any = None) -> io.BytesIO:
    out = io.BytesIO()
    digesting = _Digesting(out)
    digesting.write(lines.Header(lines.FORMAT, "old", "changelog", "id", 4, 1, "", "0", "t", final=True))
    found = exported(state())
    for line in found:
        digesting.write(line)
    out.write(lines.encoded(lines.End(2, 3, 0, digesting.digest)))
    content = out.getvalue()
    return io.BytesIO(change(content) if change else content)


def test_a_whole_file_is_taken() -> None:
    """By its counts and its digest."""
    read = checked(file())
    assert (read.name, read.end.anonymous, read.end.schedules) == ("t", 2, 3)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda content: content[: len(content) // 2], "Line"),
        (lambda content: b"\n".join(content.splitlines()[:-1]) + b"\n", "was cut off"),
        (lambda content: b"\n".join(content.splitlines()[1:]), "begins with its header"),
        (lambda content: content.replace(b'"index":1', b'"index":2', 1), "changed or damaged"),
        (lambda content: content + content, "ends with its end"),
        (lambda content: content.replace(b'"type":"anonymous"', b'"type":"other"', 1), "Line 4"),
        (lambda content: content.replace(b'"format":2', b'"format":1', 1), "format 1"),
        (lambda _: b"", "is not an export, as `delaystream export` writes it: it is empty"),
        (lambda _: b"hello\n", "is not an export, as `delaystream export` writes it: its first line"),
        (lambda _: b'{"a": 1}\n', "is not an export"),
    ],
)
def test_a_damaged_file_is_refused(change: Any, sentence: str) -> None:
    """Before anything is written, with the line."""
    with pytest.raises(TransferError, match=sentence):
        checked(file(change=change))


@pytest.mark.parametrize(
    ("name", "value", "held_up"),
    [
        ("delaystream-action", b"rate", True),
        ("Delaystream-Action", b"rate", True),
        ("delaystream-match-tags", b"a", True),
        ("delaystream-action", b"cancel", False),
        ("rate", b"rate", False),
    ],
)
def test_a_command_for_every_partition_that_is_on_its_way_holds_a_final_export_up(
    name: str, value: bytes, held_up: bool
) -> None:
    """Some partitions have it already, and another partition count would give it to others than the rest."""
    assert _for_all(lines.InFlight(0, 1, 2, None, None, [(name, value)])) == held_up
