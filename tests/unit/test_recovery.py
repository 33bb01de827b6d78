"""What a partition makes of the local state that it finds, and of where it begins to read."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from msgspec.structs import replace

from delaystream.codec import keys
from delaystream.codec.envelope import decode_position
from delaystream.engine.failures import LogUnavailable, Misconfigured
from delaystream.engine.lifecycle.replica import fingerprint, read_before, settled_bounds
from delaystream.engine.observer import Phase
from delaystream.engine.ports import (
    Changelog,
    ChangelogBatch,
    ChangelogRecord,
    LogBounds,
    Row,
    TopicPartition,
)
from delaystream.engine.state.pending import recount
from delaystream.engine.state.pointers import all_pointers
from delaystream.testing import MemoryChangelog, MemoryStateStores, VirtualTimeLoop
from tests.simulation.reckoning import differences, whole_state
from tests.unit.engine import REQUESTS, Engine, in_virtual_time

CHANGELOG = TopicPartition("delay-wheel-changelog", 0)
COMMANDS = TopicPartition("delay-commands", 0)
HOUR_MS = 3_600_000
#: days pass: there is little to see of an engine that looks around each second
CALM: dict[str, Any] = {"idle_wait_max_ms": HOUR_MS // 6, "ownership_check_ms": HOUR_MS}
THROWN_AWAY = "thrown away and rebuilt"


class Stalling(MemoryChangelog):
    """Stands still before its first read, as its process may, until it is let go on."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def read(self, position: int) -> ChangelogBatch:
        self.reached.set()
        await self.go_on.wait()
        return await super().read(position)


async def stalled(engine: Engine, stores: MemoryStateStores, batch_records: int = 1_000) -> Stalling:
    """Start a worker with these stores; it stands still in its recovery."""
    changelog = Stalling(engine.log, CHANGELOG.topic, 0, batch_records=batch_records)

    async def opened(_: int) -> Changelog:
        return changelog

    engine.stores = stores
    engine.start(open_changelog=opened)
    await changelog.reached.wait()
    return changelog


async def rows_of(engine: Engine) -> int:
    """How many rows of recoveries the changelog has."""
    await asyncio.sleep(0.1)
    return sum(record.key == keys.RECOVERED for record in engine.read(CHANGELOG.topic))


async def go_away(engine: Engine) -> MemoryStateStores:
    """Stop the worker; its stores are another machine's from now on."""
    await engine.stop()
    stores, engine.stores = engine.stores, MemoryStateStores()
    return stores


async def come_back(engine: Engine, stores: MemoryStateStores) -> None:
    """The partition goes back to where it was."""
    await engine.stop()
    engine.stores = stores
    engine.start()
    await asyncio.sleep(1)


def test_a_worker_that_is_overtaken_in_recovery_applies_nothing_of_its_successor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However its reads are cut: its store ends where the log ended, and nothing is decided on it."""

    async def test(engine: Engine) -> None:
        for number in range(5):
            engine.request(id=f"s-{number}", destination="orders", delay="30s")
            await asyncio.sleep(0.1)
        await engine.stop()
        old, new = MemoryStateStores(), MemoryStateStores()
        changelog = await stalled(engine, old, batch_records=7)
        end = engine.log.bounds(CHANGELOG).end
        (processor,), (life,) = engine.processors, engine.lives
        engine.stores = new
        engine.start()
        await asyncio.sleep(1)
        # Due by now, and done by the new owner, in transactions of many rows.
        for number in range(5):
            engine.request(id=f"s-{number}", action="cancel")
        await asyncio.sleep(40)
        phases: list[Phase] = []
        monkeypatch.setattr(processor, "_enter", phases.append)
        monkeypatch.setattr(processor._sources, "assigned", False)
        changelog.go_on.set()
        async with asyncio.timeout(60):
            await life
        assert Phase.RUNNING not in phases
        disk = old.disks[0]
        assert disk.marker is not None
        assert disk.marker.position == end
        assert disk.marker.last_offset < end
        assert disk.marker.rebuilding
        assert disk.values
        assert engine.read("orders") == []

    in_virtual_time(test, **CALM)


def test_compaction_for_the_sake_of_a_successor_does_not_end_the_process() -> None:
    """The new owner's rows took those that the replay had still to read: what is left makes no sense."""

    async def test(engine: Engine) -> None:
        for number in range(3):
            engine.request(id=f"s-{number}", destination="orders", delay="10s,100s")
        await asyncio.sleep(1)
        await engine.stop()
        changelog = await stalled(engine, MemoryStateStores(), batch_records=1)
        overtaken, engine.stores = engine.lives, MemoryStateStores()
        engine.start()
        await asyncio.sleep(20)
        assert len(engine.read("orders")) == 3
        # Each schedule's record was written anew, and the entry of its second time was not.
        assert engine.log.compact(CHANGELOG) > 0
        await asyncio.sleep(100)
        changelog.go_on.set()
        await asyncio.sleep(5)
        # Fenced, it has fenced back and begun anew: two that believe to own a partition take turns.
        assert not any(life.done() for life in overtaken)
        for life in overtaken:
            life.cancel()
        await asyncio.gather(*overtaken, return_exceptions=True)
        assert len(engine.read("orders")) == 6

    in_virtual_time(test, **CALM)


@pytest.mark.parametrize("cut", range(1, 6))
def test_a_store_that_ends_within_a_transaction_is_repaired(cut: int) -> None:
    """As older versions may have left one: it is a beginning of the log, and what follows is applied."""

    async def test(engine: Engine) -> None:
        engine.request(id="s", destination="orders", delay="30s")
        await asyncio.sleep(1)
        marker = (await go_away(engine)).disks[0].marker
        assert marker is not None
        records = engine.log.read(CHANGELOG, 0)[0][:-cut]
        last = records[-1]
        digest = fingerprint(last.key or b"", last.value)
        marker = replace(marker, position=last.offset + 1, last_offset=last.offset, fingerprint=digest)
        stores = MemoryStateStores()
        store = stores.open(0)
        store.write([(record.key or b"", record.value) for record in records], (), marker)
        for pointers in all_pointers(store):
            store.write((), pointers, marker)
        store.write((), await recount(store), marker)
        store.close()
        disk = stores.disks[0]
        engine.stores = stores
        engine.start()
        await asyncio.sleep(1)
        assert list(differences(whole_state(engine.log, CHANGELOG), disk)) == []
        await asyncio.sleep(40)
        assert len(engine.read("orders")) == 1

    in_virtual_time(test, **CALM)


def test_an_idle_partition_whose_store_is_complete_writes_nothing_and_needs_no_age() -> None:
    async def test(engine: Engine) -> None:
        engine.request(destination="orders", delay="1000h")
        await asyncio.sleep(1)
        await engine.stop()
        end = engine.log.bounds(CHANGELOG).end
        written = engine.stores.disks[0].copy()
        await asyncio.sleep(500 * 3600)
        engine.start()
        await asyncio.sleep(1)
        assert await rows_of(engine) == 0
        assert engine.log.bounds(CHANGELOG).end == end
        assert engine.stores.disks[0].marker == written.marker

    in_virtual_time(test, **CALM)


def test_what_a_store_has_missed_is_applied_and_its_age_told_by_one_row(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(engine: Engine) -> None:
        engine.request(destination="orders", delay="100h")
        await asyncio.sleep(1)
        old = await go_away(engine)
        engine.start()
        engine.request(destination="orders", delay="200h")
        await asyncio.sleep(11 * 3600)
        before = await rows_of(engine)
        await come_back(engine, old)
        assert await rows_of(engine) == before + 1
        assert list(differences(whole_state(engine.log, CHANGELOG), old.disks[0])) == []
        assert THROWN_AWAY not in caplog.text

    in_virtual_time(test, **CALM)


@pytest.mark.parametrize("ahead_hours", [-48, 0, 48])
@pytest.mark.parametrize("back", [True, False])
def test_a_cancelled_schedule_never_fires_whatever_the_workers_clock_said(
    ahead_hours: int, back: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Away for longer than tombstones are kept, under a clock that was wrong then, or is wrong now."""

    async def test(engine: Engine) -> None:
        await engine.stop()
        if back:
            engine.clock.step(ahead_hours * HOUR_MS)
        engine.start()
        due_ms = engine.brokers_clock.now_ms() + 400 * HOUR_MS
        engine.request(id="x", destination="orders", at=str(due_ms))
        await asyncio.sleep(1)
        old = await go_away(engine)
        if back:
            engine.clock.step(-ahead_hours * HOUR_MS)
        engine.start()
        await asyncio.sleep(3600)
        engine.request(None, None, id="x", action="cancel")
        await asyncio.sleep(25 * 3600)
        for _ in range(3):
            engine.request(destination="emails", delay="0")
            await asyncio.sleep(1)
            engine.log.compact(CHANGELOG)
            await asyncio.sleep(25 * 3600)
        assert not any(keys.schedule_key(REQUESTS, "x") == r.key for r in engine.read(CHANGELOG.topic))
        if not back:
            engine.clock.step(ahead_hours * HOUR_MS)
        await come_back(engine, old)
        assert THROWN_AWAY in caplog.text
        assert list(differences(whole_state(engine.log, CHANGELOG), old.disks[0])) == []
        await asyncio.sleep(600 * 3600)
        assert engine.read("orders") == []

    in_virtual_time(test, **CALM)


def test_a_store_from_the_future_is_rebuilt(caplog: pytest.LogCaptureFixture) -> None:
    """One broker's clock may have been wrong: how old the store is, nobody knows."""

    async def test(engine: Engine) -> None:
        engine.request(destination="orders", delay="100h")
        await asyncio.sleep(1)
        old = await go_away(engine)
        engine.brokers_clock.step(-10_000)
        engine.start()
        engine.request(destination="orders", delay="100h")
        await asyncio.sleep(1)
        await come_back(engine, old)
        assert "by the brokers' clocks, so that its age is unknown" in caplog.text
        assert list(differences(whole_state(engine.log, CHANGELOG), old.disks[0])) == []

    in_virtual_time(test, **CALM)


def test_without_append_times_a_store_that_missed_something_is_rebuilt(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And one that did not is kept."""

    async def test(engine: Engine) -> None:
        await engine.stop()
        engine.log.topics[CHANGELOG.topic].append_time = False
        engine.start()
        engine.request(destination="orders", delay="100h")
        await asyncio.sleep(1)
        await engine.stop()
        engine.start()
        await asyncio.sleep(1)
        assert THROWN_AWAY not in caplog.text
        old = await go_away(engine)
        engine.start()
        engine.request(destination="orders", delay="100h")
        await asyncio.sleep(1)
        await come_back(engine, old)
        assert "message.timestamp.type=LogAppendTime" in caplog.text
        assert list(differences(whole_state(engine.log, CHANGELOG), old.disks[0])) == []

    in_virtual_time(test, **CALM)


async def interrupted(engine: Engine, stores: MemoryStateStores, reads: int) -> None:
    """A recovery that dies after so many reads of three records."""

    class Dying(MemoryChangelog):
        async def read(self, position: int) -> ChangelogBatch:
            nonlocal reads
            reads -= 1
            if reads < 0:
                died.set()
                await asyncio.Event().wait()
            return await super().read(position)

    async def opened(_: int) -> Changelog:
        return Dying(engine.log, CHANGELOG.topic, 0, batch_records=3)

    died = asyncio.Event()
    engine.stores = stores
    engine.start(open_changelog=opened)
    await died.wait()
    for life in engine.lives:
        life.cancel()
    await asyncio.gather(*engine.lives, return_exceptions=True)
    stores.crash()


def test_a_replay_that_was_interrupted_makes_no_store_younger(caplog: pytest.LogCaptureFixture) -> None:
    """What it applied last may be from a moment ago; what it had not reached is as old as before."""

    async def test(engine: Engine) -> None:
        engine.request(destination="orders", delay="1000h")
        await asyncio.sleep(1)
        old = await go_away(engine)
        engine.start()
        await asyncio.sleep(11 * 3600)
        for _ in range(20):
            engine.request(destination="orders", delay="1000h")
        await asyncio.sleep(1)
        await engine.stop()
        await interrupted(engine, old, 3)
        disk = old.disks[0]
        assert disk.marker is not None
        assert disk.marker.last_offset > 10
        assert THROWN_AWAY not in caplog.text
        await asyncio.sleep(2 * 3600)
        engine.start()
        await asyncio.sleep(1)
        assert "it was last complete 468" in caplog.text
        assert list(differences(whole_state(engine.log, CHANGELOG), disk)) != []
        assert list(differences(whole_state(engine.log, CHANGELOG), old.disks[0])) == []

    in_virtual_time(test, **CALM)


def test_a_rebuild_that_was_interrupted_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """However old what it has applied so far is: it began a moment ago."""

    async def test(engine: Engine) -> None:
        for _ in range(20):
            engine.request(destination="orders", delay="1000h")
        await asyncio.sleep(1)
        await go_away(engine)
        await asyncio.sleep(100 * 3600)
        new = MemoryStateStores()
        await interrupted(engine, new, 3)
        disk = new.disks[0]
        assert disk.marker is not None
        assert disk.marker.rebuilding
        engine.start()
        await asyncio.sleep(1)
        assert THROWN_AWAY not in caplog.text
        assert new.disks[0] is disk
        assert list(differences(whole_state(engine.log, CHANGELOG), disk)) == []

    in_virtual_time(test, **CALM)


def test_a_replay_that_takes_too_long_is_begun_anew(caplog: pytest.LogCaptureFixture) -> None:
    """The process stood still in the middle of it, for longer than tombstones are sure to be there."""

    async def test(engine: Engine) -> None:
        engine.request(destination="orders", delay="1000h")
        await asyncio.sleep(1)
        await engine.stop()
        changelog = await stalled(engine, MemoryStateStores())
        await asyncio.sleep(13 * 3600)
        changelog.go_on.set()
        await asyncio.sleep(5)
        assert "the replay took 46800" in caplog.text
        assert engine.processors[0].phase is Phase.RUNNING
        assert list(differences(whole_state(engine.log, CHANGELOG), engine.stores.disks[0])) == []

    in_virtual_time(test, **CALM)


# -- where reading begins


class Trimmed:
    """Hears of what was removed before it was read."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    def __call__(self, partition: int, topic: str, offsets: int) -> None:
        self.told.append((topic, offsets))


def first_start(test: Callable[[Engine, Trimmed], Coroutine[Any, Any, None]], **settings: Any) -> None:
    """Run a test on an application that has not started yet."""
    trimmed = Trimmed()

    async def run(engine: Engine) -> None:
        await engine.stop()
        engine.lives.clear()
        engine.stores = MemoryStateStores()
        for topic in (CHANGELOG.topic, COMMANDS.topic):
            engine.log.create_topic(topic, 1, compacted=topic == CHANGELOG.topic, append_time=True)
        start = engine.start

        def listening(*arguments: Any, **options: Any) -> None:
            start(*arguments, **options)
            engine.processors[0]._observer.trimmed = trimmed  # type: ignore[method-assign]

        engine.start = listening  # type: ignore[method-assign]
        await test(engine, trimmed)

    in_virtual_time(run, **settings)


def row() -> Row:
    """A record on a topic."""
    return (b"k", b"v", [("delaystream-destination", b"orders"), ("delaystream-delay", b"0")], -1)


def test_positions_are_stored_before_anything_is_read() -> None:
    """Of every source topic, also of one that nothing ever comes from."""

    async def test(engine: Engine, trimmed: Trimmed) -> None:
        engine.start()
        await asyncio.sleep(1)
        state = whole_state(engine.log, CHANGELOG)
        for topic in (REQUESTS, COMMANDS.topic):
            assert decode_position(state[keys.offset_key(topic)]).next_offset == 0
        assert list(differences(state, engine.stores.disks[0])) == []
        assert trimmed.told == []
        end = engine.log.bounds(CHANGELOG).end
        await engine.stop()
        engine.start()
        await asyncio.sleep(1)
        assert engine.log.bounds(CHANGELOG).end == end, "once is enough"

    first_start(test)


@pytest.mark.parametrize("topic", [REQUESTS, COMMANDS.topic])
def test_requests_that_were_removed_before_the_first_one_was_read_stop_a_worker(topic: str) -> None:
    """It owned the partition, and was away when they came and went."""

    async def test(engine: Engine, trimmed: Trimmed) -> None:
        engine.start()
        await asyncio.sleep(1)
        await engine.stop()
        at = TopicPartition(topic, 0)
        for _ in range(10):
            engine.log.append(at, row())
        engine.log.trim(at, 8)
        engine.start()
        await asyncio.sleep(1)
        with pytest.raises(Misconfigured, match=rf"{topic}-0: retention removed offsets 0 to 7 .* up to 8"):
            await engine.stop()
        engine.lives.clear()
        engine.settings = replace(engine.settings, continue_on_lost_requests=True)
        engine.start()
        await asyncio.sleep(1)
        assert trimmed.told == [(topic, 8)]
        engine.settings = replace(engine.settings, continue_on_lost_requests=False)
        await engine.stop()
        engine.start()
        await asyncio.sleep(1)
        assert trimmed.told == [(topic, 8)], "once it was decided, that is remembered"

    first_start(test)


@pytest.mark.parametrize("topic", [REQUESTS, COMMANDS.topic])
def test_aborted_requests_that_are_removed_are_no_loss(topic: str) -> None:
    """They were passed, and that is remembered although nothing came of it."""

    async def test(engine: Engine, trimmed: Trimmed) -> None:
        engine.start()
        await asyncio.sleep(1)
        at = TopicPartition(topic, 0)
        epoch = engine.log.init_producer("somebody")
        engine.log.write(epoch, at, [row(), row()])
        engine.log.end(epoch, commit=False)
        await asyncio.sleep(1)
        await engine.stop()
        engine.log.trim(at, 3)
        engine.start()
        await asyncio.sleep(1)
        assert trimmed.told == []

    first_start(test)


def test_a_request_topic_that_is_older_than_the_application_is_told_of_and_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(engine: Engine, trimmed: Trimmed) -> None:
        for _ in range(10):
            engine.log.append(TopicPartition(REQUESTS, 0), row())
        engine.log.trim(TopicPartition(REQUESTS, 0), 8)
        with caplog.at_level(logging.WARNING):
            engine.start()
            await asyncio.sleep(1)
        assert "begins at offset 8" in caplog.text
        assert "up to 8 requests" in caplog.text
        assert trimmed.told == [(REQUESTS, 8)]
        assert len(engine.read("orders")) == 2

    first_start(test)


def test_a_commands_topic_that_is_older_than_the_application_is_left_to_a_person() -> None:
    """With the decision as its way out, which is remembered."""

    async def test(engine: Engine, trimmed: Trimmed) -> None:
        for _ in range(10):
            engine.log.append(COMMANDS, row())
        engine.log.trim(COMMANDS, 10)
        engine.start()
        await asyncio.sleep(1)
        with pytest.raises(Misconfigured, match="ON_REQUESTS_LOST=continue reads on from 10"):
            await engine.stop()
        engine.lives.clear()
        assert trimmed.told == []
        engine.settings = replace(engine.settings, continue_on_lost_requests=True)
        engine.start()
        await asyncio.sleep(1)
        await engine.stop()
        assert trimmed.told == [(COMMANDS.topic, 10)]
        engine.settings = replace(engine.settings, continue_on_lost_requests=False)
        engine.start()
        await asyncio.sleep(1)

    first_start(test)


@pytest.mark.parametrize("read", [0, 3])
def test_a_changelog_that_knows_nothing_of_what_the_group_has_applied_is_left_to_a_person(read: int) -> None:
    """Another name, or a new topic under the old one: all would be delivered again."""

    async def test(engine: Engine, trimmed: Trimmed) -> None:
        engine.start()
        await asyncio.sleep(1)
        for _ in range(read):
            engine.log.append(TopicPartition(REQUESTS, 0), row())
        await asyncio.sleep(10)
        await engine.stop()
        delivered = len(engine.read("orders"))
        assert delivered == read
        engine.log.delete_topic(CHANGELOG.topic)
        engine.log.create_topic(CHANGELOG.topic, 1, compacted=True, append_time=True)
        engine.stores = MemoryStateStores()
        engine.start()
        await asyncio.sleep(1)
        if read:
            with pytest.raises(
                Misconfigured, match=f"applied {REQUESTS}-0 up to offset 3, and {CHANGELOG.topic}-0"
            ):
                await engine.stop()
            engine.lives.clear()
            # As somebody asks for it who means it.
            engine.log.group_offsets.clear()
            engine.start()
            await asyncio.sleep(1)
        assert len(engine.read("orders")) == 2 * read
        assert trimmed.told == []

    first_start(test)


# -- reading a changelog, for a recovery or a copy ------------------------------------------------------


class Scripted(Changelog):
    """Gives the batches and bounds that it is told to, one after the other; the last of them for ever."""

    topic_id = "id"

    def __init__(self, *given: Any) -> None:
        self._given = list(given)

    def _next(self) -> Any:
        return self._given.pop(0) if len(self._given) > 1 else self._given[0]

    async def read(self, position: int) -> ChangelogBatch:
        found: ChangelogBatch = self._next()
        return found

    async def bounds(self) -> LogBounds:
        found: LogBounds = self._next()
        return found

    async def record_at(self, offset: int) -> ChangelogRecord | None:
        raise NotImplementedError("batches and bounds are all it gives")

    async def close(self) -> None:
        """There is no connection to let go of."""


@pytest.mark.parametrize(
    ("next_position", "offsets", "stands"),
    [
        pytest.param(4, [1, 3], 4, id="all of it lies before the end"),
        pytest.param(5, [1, 4], 5, id="up to the end"),
        pytest.param(9, [1, 4], 5, id="a part lies behind it"),
    ],
)
def test_nothing_behind_the_end_is_read(next_position: int, offsets: list[int], stands: int) -> None:
    """Another owner may have written it, or it may not be committed for good."""
    there = [(offset, b"key", None) for offset in (*offsets, *([5, 8] if next_position == 9 else []))]
    with VirtualTimeLoop() as loop:
        changelog = Scripted(ChangelogBatch(there, next_position))
        batch = loop.run_until_complete(read_before(changelog, 1, 5))
    assert ([offset for offset, _, _ in batch.records], batch.next_position) == (offsets, stands)


def test_a_changelog_that_gives_nothing_is_not_asked_for_ever() -> None:
    with VirtualTimeLoop() as loop, pytest.raises(LogUnavailable, match="gave nothing at 3 of 5"):
        loop.run_until_complete(read_before(Scripted(ChangelogBatch([], 3)), 3, 5))


def test_a_transaction_that_is_open_is_waited_for() -> None:
    """Up to a bound; the bounds are those of when none is open any more."""
    opened, closed = LogBounds(0, 3, 5), LogBounds(0, 6, 6)
    with VirtualTimeLoop() as loop:
        began = loop.time()
        assert loop.run_until_complete(settled_bounds(Scripted(opened, opened, closed), 1_000)) == closed
        assert loop.time() - began < 1
        with pytest.raises(LogUnavailable, match="held up the changelog for 1000 ms"):
            loop.run_until_complete(settled_bounds(Scripted(opened), 1_000))
