"""What people see of schedules: views of rows, and the reading of a partition's rows."""

from typing import Any

import pytest
from msgspec.structs import replace

from delaystream.codec import keys
from delaystream.codec.envelope import (
    FORMAT,
    Ended,
    Envelope,
    Fire,
    Hold,
    Meta,
    Past,
    Rate,
    Schedule,
    SourceName,
    SourcePosition,
    Status,
    Triggered,
    encode,
)
from delaystream.core.recurrence import Recurrence
from delaystream.core.request import CatchUp, Coordinates, Match
from delaystream.engine.ports import Marker
from delaystream.query.partition import StoredPartition, UnknownLayout
from delaystream.query.rows import everything
from delaystream.query.view import UPCOMING, PastFire, PastRun, PendingFire, view_of, view_of_unnamed
from delaystream.testing import MemoryStateStores
from delaystream.testing.store import MemoryStore

TENANT = "requests"
DUE_MS = 1_893_456_000_000
HOUR_MS = 3_600_000
BARE = Schedule(Status.PENDING, 7, TENANT, 3, 20, 5, "out")
HOURLY = Recurrence(None, HOUR_MS, "UTC", start_ms=DUE_MS)


def key(due_ms: int, index: int = 0, wheel: int = 1, source: int = 0, offset: int = 20) -> bytes:
    return keys.wheel_key(wheel, due_ms, source, offset, index)


def test_a_view_tells_what_a_row_holds() -> None:
    """Each field by what the row has for it, with the names that events and receipts have."""
    row = replace(
        BARE,
        status=Status.PAUSED,
        recurrence=HOURLY,
        next_ms=DUE_MS,
        catch_up=CatchUp.ALL,
        grace_ms=60_000,
        name="a name",
        tags=["a"],
        fire_count=4,
        missed_count=2,
        last_fire_id="the last",
        last_fired_ms=11,
        triggers=[Triggered(key(1), 7, 0)],
        created_ms=8,
        created_by="me",
        updated_ms=9,
        updated_by="you",
        version=12,
        actor="somebody",
        note="why",
        declared_by="set",
        deploy=0,
        paused_ms=10,
        until_key=key(13, wheel=keys.HOUSEKEEPING),
        held_by="requests/0/1",
    )
    view = view_of("id", row)
    assert (view.id, view.source.text, view.status) == ("id", "requests/3/20", Status.PAUSED)
    assert (view.revision, view.version) == (7, 12)
    definition = view.definition
    assert (definition.every_ms, definition.catch_up, definition.name) == (HOUR_MS, "all", "a name")
    assert (view.next_at_ms, view.upcoming_at_ms[:2]) == (None, [DUE_MS, DUE_MS + HOUR_MS])
    assert (view.fire_count, view.missed_count, view.triggered) == (4, 2, 1)
    assert (view.last_fire_id, view.last_fired_at_ms) == ("the last", 11)
    assert (view.created_at_ms, view.created_by) == (8, "me")
    assert (view.updated_at_ms, view.updated_by) == (9, "you")
    assert (view.actor, view.note, view.declared_by, view.deploy) == ("somebody", "why", "set", 0)
    assert (view.paused_at_ms, view.until_ms, view.held_by) == (10, 13, "requests/0/1")
    assert view.forget_at_ms is None


def test_what_a_row_does_not_know_is_none() -> None:
    """And not the number that stands for that in the row, nor what was so once."""
    view = view_of("id", replace(BARE, paused_ms=10, pending=[key(DUE_MS + 1), key(DUE_MS)]))
    known = {name for name in view.__struct_fields__ if getattr(view, name) not in (None, 0, [])}
    assert known == {"id", "source", "status", "definition", "next_at_ms", "upcoming_at_ms", "revision"}
    assert view.next_at_ms == DUE_MS
    over = view_of("id", replace(BARE, status=Status.CANCELLED, forget_key=key(3, wheel=0)))
    assert (over.forget_at_ms, over.upcoming_at_ms) == (3, [])


def test_the_history_has_each_fire_by_its_own_name() -> None:
    """A request of before may have stood in another topic of the name, and says so in its fires' ids.

    What has not fired has none.
    """
    history = [
        Fire(1, 2, 5, 0, "other"),
        Fire(3, 4, 7, "t0.30", "", Past.TRIGGERED),
        Fire(5, 9, 7, 0, "", Past.MISSED, 8, 3),
        Fire(10, 19, 7, 0, "", Past.SKIPPED, 10, 1),
    ]
    assert view_of("id", replace(BARE, history=history)).history == [
        PastFire(1, 2, "requests@other/r5/0/1/id"),
        PastFire(3, 4, "requests/r7/t0.30/3/id", Past.TRIGGERED),
        PastRun(Past.MISSED, 5, 8, 3, 9),
        PastRun(Past.SKIPPED, 10, 10, 1, 19),
    ]


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        pytest.param({"recurrence": HOURLY}, UPCOMING, id="without an end"),
        pytest.param({"recurrence": replace(HOURLY, max_fires=5), "run_count": 2}, 3, id="max-fires"),
        pytest.param({"recurrence": replace(HOURLY, end_ms=DUE_MS + HOUR_MS)}, 2, id="end"),
        pytest.param({"recurrence": HOURLY, "next_ms": -1}, 0, id="no further time"),
        pytest.param({"recurrence": Recurrence("99 * * * *", 0, "UTC")}, 1, id="not readable"),
        pytest.param({"pending": [key(DUE_MS + n * HOUR_MS) for n in range(12)]}, UPCOMING, id="one-time"),
        pytest.param({"status": Status.FIRED, "recurrence": HOURLY}, 0, id="over"),
    ],
)
def test_times_ahead_are_those_that_come_at_most_so_many(changes: dict[str, Any], count: int) -> None:
    view = view_of("id", replace(BARE, **{"next_ms": DUE_MS, **changes}))
    assert view.upcoming_at_ms == [DUE_MS + n * HOUR_MS for n in range(count)]
    assert list(view_of("id", replace(BARE, **{"next_ms": DUE_MS, **changes}), 1).upcoming_at_ms) == (
        [DUE_MS] if count else []
    )


def test_a_request_without_an_id_is_what_is_pending_of_it() -> None:
    source = Coordinates(TENANT, 3, 18, "other")
    fires = [PendingFire("out", DUE_MS + n, source, n) for n in range(UPCOMING + 1)]
    view = view_of_unnamed(fires, Envelope(None, b"v", [], 6, on_late="drop", grace_ms=5, tags=["a"]))
    assert (view.id, view.source, view.status) == (None, source, Status.PENDING)
    assert view.definition.due_at_ms == [fire.due_at_ms for fire in fires]
    assert (view.definition.destination, view.definition.grace_ms, view.definition.tags) == ("out", 5, ["a"])
    assert (view.upcoming_at_ms, view.next_at_ms) == ([DUE_MS + n for n in range(UPCOMING)], DUE_MS)
    assert (view.created_at_ms, view.on_late, view.held_by) == (6, "drop", None)
    assert fires[1].fire_id == f"requests@other/3/18/1/{DUE_MS + 1}"
    held = view_of_unnamed(fires[:1], Envelope(None, b"v", [], 6), "requests/0/9")
    assert (held.status, held.held_by, held.definition.grace_ms) == (Status.PAUSED, "requests/0/9", None)


# -- a partition's rows -----------------------------------------------------------------------------------


HOLD = Hold(TENANT, 0, 9, 4, Match(destination="out"), "requests/0/9", 4)
PAST = replace(HOLD, offset=8, name="requests/0/8")


def stored(**more: bytes) -> MemoryStore:
    """A partition with an entry in each kind of wheel, two schedules, a hold, and one that has ended."""
    rows = {
        keys.META: encode(Meta(4, FORMAT)),
        keys.offset_key(TENANT): encode(SourcePosition(22, "topic-id")),
        keys.source_key(0): encode(SourceName(TENANT, 3)),
        keys.source_key(1): encode(SourceName(TENANT, 1, "other")),
        keys.rate_key(TENANT, "out"): encode(Rate(TENANT, "out", 2.5, 3, 21, 9)),
        keys.hold_key(TENANT, 0, 9): encode(HOLD),
        keys.ended_key(keys.hold_key(TENANT, 0, 8)): encode(Ended(PAST, 5, key(6, wheel=0))),
        key(5, wheel=keys.HOUSEKEEPING): b"is not read",
        keys.schedule_key(TENANT, "large"): encode(BARE),
        keys.payload_key(TENANT, "large"): encode(Envelope(b"k", b"large", [], 5)),
        keys.schedule_key(TENANT, "small"): encode(
            replace(BARE, payload=encode(Envelope(b"k", b"small", [], 5)))
        ),
        keys.schedule_key(TENANT, "zero"): encode(replace(BARE, status=Status.CANCELLED)),
    }
    names = [("out", "", ""), ("out", TENANT, ""), ("out", "", HOLD.name), ("out", TENANT, PAST.name)]
    for number, name in enumerate([*names, ("late", "", "requests/0/7")], 1):
        rows[keys.destination_key(number)] = keys.wheel_name(*name).encode()
        rows[key(DUE_MS, number, number, number % 2)] = encode(Envelope(None, b"%d" % number, [], 5))
    store = MemoryStateStores().open(0)
    store.write(
        [*rows.items(), *((name.encode(), value) for name, value in more.items())], [], Marker("", 1, 0, b"")
    )
    return store


def test_an_entry_has_the_names_that_its_key_has_numbers_for() -> None:
    """What is set aside for anything else than a hold is as good as in its own wheel."""
    there, other = Coordinates(TENANT, 3, 20), Coordinates(TENANT, 1, 20, "other")
    assert [fire for fire, _ in StoredPartition(stored()).entries()] == [
        PendingFire("out", DUE_MS, other, 1),
        PendingFire("out", DUE_MS, there, 2, TENANT),
        PendingFire("out", DUE_MS, other, 3, None, HOLD.name),
        PendingFire("out", DUE_MS, there, 4, TENANT, PAST.name),
        PendingFire("late", DUE_MS, other, 5),
    ]


def test_a_schedule_comes_with_what_it_delivers() -> None:
    """From its own row or from the one beside it; nothing where it is over."""
    found = {schedule.id: schedule for schedule in StoredPartition(stored()).schedules()}
    assert [*found] == ["large", "small", "zero"]
    payloads = [schedule.payload and schedule.payload.value for schedule in found.values()]
    assert payloads == [b"large", b"small", None]
    assert {schedule.tenant for schedule in found.values()} == {TENANT}
    assert found["small"].view == view_of("small", found["small"].row, 0)


def test_what_stands_over_a_partition_is_read() -> None:
    partition = StoredPartition(stored())
    assert (partition.meta, partition.holds) == (Meta(4, FORMAT), [HOLD])
    assert [ended.hold for ended in partition.ended] == [PAST]
    assert [*partition.positions()] == [(TENANT, SourcePosition(22, "topic-id"))]
    assert [rate.rate for rate in partition.rates()] == [2.5]
    assert StoredPartition(MemoryStateStores().open(0)).meta is None


def test_another_layout_is_not_read() -> None:
    """Its rows mean something else: not one of them is decoded."""
    with pytest.raises(UnknownLayout) as refused:
        StoredPartition(stored(m=encode(Meta(4, FORMAT + 1)), n="\xff".encode()))
    assert refused.value.layout == FORMAT + 1


@pytest.mark.parametrize("chunk", [1, 2, 1000])
def test_everything_is_read_once_in_order(chunk: int) -> None:
    """However much of it comes at a time: also a key that is the beginning of the next one."""
    store = MemoryStateStores().open(0)
    names = [b"a", b"b", b"b\0", b"b\0\0", b"bb", b"c"]
    store.write([(name, name) for name in names], [], Marker("", 1, 0, b""))
    assert [name for name, _ in everything(store, b"b", b"c", chunk)] == names[1:5]
