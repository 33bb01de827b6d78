"""Entries of the wheels that only the local store has: made by steps, and made again from the rows."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from delaystream.codec import keys
from delaystream.codec.envelope import FORMAT, INLINE_BYTES, Meta, decode_schedule, encode
from delaystream.core.partitioning import owner_partition
from delaystream.engine.failures import Misconfigured, StoreFailed
from delaystream.engine.ports import Marker, TopicPartition
from delaystream.engine.state.partition_state import PartitionState
from delaystream.testing import MemoryChangelog, MemoryStateStores
from delaystream.testing.store import MemoryStore
from tests.simulation.reckoning import differences, miscounts, whole_state
from tests.unit.engine import REQUESTS, Engine, header, in_virtual_time

CHANGELOG = TopicPartition("delay-wheel-changelog", 0)


def rows(engine: Engine) -> Counter[bytes]:
    """How many records the changelog has had, by the kind of their keys."""
    return Counter((record.key or b"")[:1] for record in engine.read(CHANGELOG.topic))


async def every_kind(engine: Engine) -> None:
    """Schedules of every status, with everything that an entry may be for."""
    engine.request(id="one", destination="orders", delay="100s,200s")
    engine.request(id="large", value=bytes(INLINE_BYTES), destination="orders", delay="100s")
    engine.request(id="cron", destination="orders", cron="* * * * *", jitter="10s")
    engine.request(id="paused", destination="orders", delay="50s")
    engine.request(id="paused", action="pause")
    engine.request(id="triggered", destination="nowhere", delay="100s")
    engine.request(id="triggered", action="trigger")
    engine.request(id="triggered", action="reschedule", delay="150s")
    engine.request(id="over", destination="orders", delay="0")
    engine.request(id="cancelled", action="cancel")
    engine.request(destination="orders", delay="100s")
    await asyncio.sleep(1)


def test_a_named_schedule_is_one_row_and_a_large_payload_is_one_more() -> None:
    async def test(engine: Engine) -> None:
        engine.request(id="first", destination="orders", delay="5s")
        await asyncio.sleep(1)
        before = rows(engine)
        engine.request(id="small", destination="orders", delay="5s,6s")
        await asyncio.sleep(1)
        accepted = rows(engine) - before
        assert accepted == Counter({b"s": 1, b"o": 1})
        engine.request(id="large", value=bytes(INLINE_BYTES), destination="orders", delay="5s")
        await asyncio.sleep(1)
        assert rows(engine) - before - accepted == Counter({b"s": 1, b"p": 1, b"o": 1})
        before = rows(engine)
        await asyncio.sleep(10)
        assert len(engine.read("orders")) == 4
        # The payload's row goes with the schedule; each fire is one row.
        assert rows(engine) - before == Counter({b"s": 4, b"p": 1})

    in_virtual_time(test)


def test_a_fire_does_not_write_a_large_payload_again() -> None:
    async def test(engine: Engine) -> None:
        engine.request(id="large", value=bytes(INLINE_BYTES), destination="orders", every="1s")
        await asyncio.sleep(1)
        await asyncio.sleep(10)
        assert len(engine.read("orders")) >= 9
        assert rows(engine)[b"p"] == 1
        assert max(len(r.value or b"") for r in engine.read(CHANGELOG.topic) if r.key[:1] == b"s") < 500  # type: ignore[index]

    in_virtual_time(test)


@pytest.mark.parametrize("fresh", [True, False], ids=["rebuilt", "caught up"])
def test_a_recovery_makes_the_pointers_that_the_steps_have_made(fresh: bool) -> None:
    async def test(engine: Engine) -> None:
        await engine.stop()
        behind = engine.stores
        engine.stores = MemoryStateStores()
        engine.start()
        await every_kind(engine)
        engine.request(action="pause", match_destination="nowhere")
        await asyncio.sleep(1)
        made = dict(engine.stores.disks[0].values)
        await engine.stop()
        engine.stores = MemoryStateStores() if fresh else behind
        engine.start()
        await asyncio.sleep(1)
        disk = engine.stores.disks[0]
        assert {key: value for key, value in disk.values.items() if key[:1] == b"w"} == {
            key: value for key, value in made.items() if key[:1] == b"w"
        }
        assert list(differences(whole_state(engine.log, CHANGELOG), disk)) == []
        assert list(miscounts(disk)) == []
        await asyncio.sleep(400)
        fires = [header(record, "fire-id") for record in engine.read("orders")]
        assert len(fires) == len(set(fires))
        told = Counter(header(record, "schedule-id") for record in engine.read("orders"))
        assert (told["one"], told["large"], told["over"], told["paused"]) == (2, 1, 1, 0)

    in_virtual_time(test)


def test_a_rebuild_that_ended_while_it_made_them_begins_anew() -> None:
    """What changes meanwhile would leave those behind that were made of an older row."""

    async def test(engine: Engine) -> None:
        await every_kind(engine)
        await engine.stop()
        engine.stores = MemoryStateStores()
        original = MemoryStore.write

        def write(self: MemoryStore, changes: Any, local: Any, marker: Any) -> None:
            original(self, changes, local, marker)
            if marker.deriving:
                raise StoreFailed("the process ends here")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MemoryStore, "write", write)
            engine.start()
            await asyncio.sleep(0.5)
            for life in engine.lives:
                life.cancel()
            await asyncio.gather(*engine.lives, return_exceptions=True)
        engine.stores.crash()
        disk = engine.stores.disks[0]
        assert disk.marker is not None
        assert disk.marker.deriving
        other, engine.stores = engine.stores, MemoryStateStores()
        engine.start()
        await asyncio.sleep(1)
        engine.request(id="one", action="cancel")
        await asyncio.sleep(1)
        await engine.stop()
        engine.stores = other
        engine.start()
        await asyncio.sleep(1)
        assert list(differences(whole_state(engine.log, CHANGELOG), engine.stores.disks[0])) == []

    in_virtual_time(test)


def test_rows_of_another_layout_are_refused_with_a_sentence() -> None:
    store = MemoryStateStores().open(0)
    store.write([(keys.META, encode(Meta(1, FORMAT - 1, "delaystream")))], (), Marker("id", 1, 0, b""))
    with pytest.raises(Misconfigured, match=f"layout {FORMAT - 1}, and this version reads layout {FORMAT}"):
        PartitionState(store, 1, "delaystream")


def test_a_row_that_cannot_be_read_becomes_a_dead_letter() -> None:
    """A rebuild cannot tell when it is due; nothing else of the partition waits for it."""

    async def test(engine: Engine) -> None:
        engine.may_fail = True
        engine.request(id="poison", value=b"poison", destination="orders", delay="10s")
        engine.request(id="good", destination="orders", delay="10s")
        await asyncio.sleep(1)
        await engine.stop()
        key = keys.schedule_key(REQUESTS, "poison")
        stored = engine.stores.disks[0].values[key]
        assert decode_schedule(stored).payload is not None
        forged = stored.replace(b"pending", b"p\xff\xff\xff\xffng")
        engine.log.append(CHANGELOG, (key, forged, [], engine.clock.now_ms()))
        engine.stores = MemoryStateStores()
        engine.start()
        await asyncio.sleep(30)
        assert [header(record, "schedule-id") for record in engine.read("orders")] == ["good"]
        (letter,) = engine.read("delay-dead-letters")
        assert header(letter, "error") == "internal-error"
        assert b"poison" in (letter.value or b"")
        assert key not in engine.stores.disks[0].values

    in_virtual_time(test)


def test_a_name_comes_before_the_rows_that_use_it_however_the_log_is_cut() -> None:
    """Also where the row was changed in the same step before the name was needed."""

    async def test(engine: Engine) -> None:
        for id in ("first", "second", "third"):
            engine.request(id=id, destination="late", delay="1s", partition=owner_partition(id, 2))
        await asyncio.sleep(5)
        await engine.stop()
        behind = engine.stores
        engine.stores = MemoryStateStores()
        engine.start()
        owner = owner_partition("job", 2)
        for partition, destination in ((owner, "orders"), (1 - owner, "emails")):
            # Both are carried out in one step of the owner; the second one names a source and a destination.
            engine.request(id="job", destination=destination, delay="100s", partition=partition)
        await asyncio.sleep(1)
        await engine.stop()
        at = TopicPartition(CHANGELOG.topic, owner)
        read = [(record.key or b"")[:1] for _, record in engine.log.all(at.topic) if record.key]
        assert read.count(b"n") >= 2
        engine.stores = behind
        engine.start(open_changelog=lambda p: MemoryChangelog.open(engine.log, at.topic, p, batch_records=1))
        await asyncio.sleep(1)
        disk = engine.stores.disks[owner]
        assert list(differences(whole_state(engine.log, at), disk)) == []
        assert list(miscounts(disk)) == []

    in_virtual_time(test, partitions=2)
