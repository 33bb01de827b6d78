"""The counters of what is pending: exact in every step, after recovery and after a rebuild."""

from __future__ import annotations

import asyncio

from delaystream.codec import keys
from delaystream.codec.envelope import Schedule, SourceName, Status, encode
from delaystream.engine.ports import Change, Marker
from delaystream.engine.state.partition_state import PartitionState
from delaystream.engine.state.pending import HOUR_MS, PendingChange, recount, recounted
from delaystream.engine.state.step import Step
from delaystream.testing import MemoryStateStores
from tests.simulation.reckoning import miscounts
from tests.unit.engine import Engine, in_virtual_time

MARKER = Marker("id", 0, -1, b"")


def test_counts_follow_entries_as_they_come_and_go() -> None:
    """By destination, hour and tenant; what a step changes is told with its new value, nothing else."""
    stores = MemoryStateStores()
    state = PartitionState(stores.open(0), 1, "delaystream")
    first = Step(0, 1)
    wheel, other = state.wheel_number(first, "orders"), state.wheel_number(first, "emails")
    a, b = state.source(first, "tenant-a", 0), state.source(first, "tenant-b", 0)
    entries = [
        keys.wheel_key(wheel, 1, a, 1, 0),
        keys.wheel_key(wheel, HOUR_MS, a, 2, 0),
        keys.wheel_key(other, HOUR_MS, b, 3, 0),
    ]
    for key in entries:
        number, due_ms, *_ = keys.split_wheel_key(key)
        state.add_entry(first, key, b"", number, due_ms)
    assert state.counts.of_tenant("tenant-a") == 2, "the step in hand counts"
    assert state.apply(first, MARKER) == PendingChange(
        {"orders": 2, "emails": 1}, {0: 1, 1: 2}, {"tenant-a": 2, "tenant-b": 1}
    )
    second = Step(0, 2)
    state.remove_entry(second, entries[0])
    assert state.apply(second, MARKER) == PendingChange({"orders": 1}, {0: 0}, {"tenant-a": 1})
    assert state.counts.everything() == PendingChange(
        {"orders": 1, "emails": 1}, {1: 2}, {"tenant-a": 1, "tenant-b": 1}
    )
    assert state.counts.total == 2
    state.store.close()
    again = PartitionState(stores.open(0), 1, "delaystream")
    assert again.counts.everything() == state.counts.everything()
    assert again.counts.total == 2


def test_housekeeping_is_not_counted() -> None:
    """An id that is remembered waits for nothing that anybody asked for."""
    state = PartitionState(MemoryStateStores().open(0), 1, "delaystream")
    step = Step(0, 1)
    source = state.source(step, "tenant", 0)
    state.add_entry(step, keys.wheel_key(keys.HOUSEKEEPING, 1, source, 1, 0), b"", keys.HOUSEKEEPING, 1)
    assert state.apply(step, MARKER) == PendingChange({}, {}, {})


def test_counts_are_exact_after_a_replay_and_after_a_rebuild() -> None:
    """A store that is behind is brought up, one that is lost is rebuilt: both count what is there."""

    async def test(engine: Engine) -> None:
        for number in range(20):
            engine.request(destination="orders", delay=f"{number + 1}h")
            engine.request(destination="emails", delay="2h", id=f"n{number % 5}")
        await asyncio.sleep(5)
        await engine.stop()
        behind = engine.stores.disks[0].copy()
        engine.start()
        for number in range(3):
            engine.request(action="cancel", id=f"n{number}")
            engine.request(destination="new", delay="90m")
        await asyncio.sleep(5)
        await engine.stop()
        current = engine.stores.disks[0].copy()
        counters = {key: value for key, value in current.values.items() if key[:1] in (b"l", b"q")}
        assert counters[b"qdelay-requests"] == (20 + 2 + 3).to_bytes(8, "big")
        for disk in (current, behind, None):
            if disk is None:
                del engine.stores.disks[0]
            else:
                engine.stores.disks[0] = disk
            engine.start()
            await asyncio.sleep(5)
            await engine.stop()
            recovered = engine.stores.disks[0]
            assert list(miscounts(recovered)) == []
            assert counters.items() <= recovered.values.items()

    in_virtual_time(test)


def test_a_replay_counts_by_what_the_store_holds() -> None:
    """What comes twice counts once, what goes and was not there not at all, and a pause by what it holds."""
    stores = MemoryStateStores()
    store = stores.open(0)

    def entry(offset: int) -> bytes:
        return keys.wheel_key(1, HOUR_MS, 0, offset, 0)

    def paused(*due_ms: int) -> bytes:
        held = [(due, index) for index, due in enumerate(due_ms)]
        return encode(Schedule(Status.PAUSED, 1, "tenant", 0, 1, 0, "orders", held=held))

    one, other = keys.schedule_key("tenant", "one"), keys.schedule_key("tenant", "other")
    rows = [(keys.source_key(0), encode(SourceName("tenant", 0))), (entry(1), b""), (one, paused(1, 2, 3))]
    store.write(rows, (), MARKER)
    store.write((), asyncio.run(recount(store)), MARKER)
    disk = stores.disks[0]
    assert disk.values[b"qtenant"] == (1 + 3).to_bytes(8)
    changes: list[Change] = [
        (entry(1), b""), (entry(2), b""), (entry(2), b""), (entry(3), b""), (entry(3), None),
        (entry(4), None),
        (one, paused(1)), (one, paused(1, 2)), (other, paused(5)), (other, None),
        (keys.wheel_key(keys.HOUSEKEEPING, 1, 0, 1, 0), b""),
    ]  # fmt: skip
    store.write(changes, [*recounted(store, changes)], MARKER)
    assert [*miscounts(disk)] == []
    assert disk.values[b"qtenant"] == (2 + 2).to_bytes(8)
