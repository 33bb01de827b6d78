"""Engines that are broken in one way each; the simulation has to notice every one of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest.mock import patch

from msgspec.structs import replace

from delaystream.codec.envelope import Schedule, Status
from delaystream.core.misfire import decide_passed
from delaystream.core.recurrence import next_after
from delaystream.engine import processor as processor_module
from delaystream.engine.accept import bulk
from delaystream.engine.accept.intake import Intake
from delaystream.engine.fire import recurring as recurring_fires
from delaystream.engine.incarnation import Incarnation
from delaystream.engine.lifecycle import recovery
from delaystream.engine.lifecycle.recovery import Recovery, starting_positions
from delaystream.engine.lifecycle.replica import Replica
from delaystream.engine.output.events import Events
from delaystream.engine.ports import ChangelogRecord, Sources, TopicPartition
from delaystream.engine.schedules.arming import Arming
from delaystream.testing import MemoryChangelog, MemoryLog, MemorySources
from delaystream.testing.log import MemoryLog as Log
from delaystream.testing.partition import Epoch, LogRecord
from tests.simulation.weather import LateProducer
from tests.simulation.world import Engine

Breakage = Callable[[], contextlib.AbstractContextManager[Engine]]


class _DoesNotFence(LateProducer):
    async def fence(self) -> None:
        await self._at("fence")
        producer = self._log._producers.get(self._transactional_id)
        if producer is None or producer.number < 0:
            self._log.init_producer(self._transactional_id, 600_000)
            producer = self._log._producers[self._transactional_id]
        self._epoch = Epoch(self._transactional_id, producer.number)


class _ReadsAborted(MemoryChangelog):
    _committed_only = False


class _UncommittedLog:
    """A log as a consumer with read_uncommitted sees it."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def read(self, at: TopicPartition, position: int, limit: int = 1 << 60) -> tuple[list[LogRecord], int]:
        return Log.read(self._log, at, position, limit, committed=False)


class _FetchesAborted(MemorySources):
    def __init__(self, log: MemoryLog, *args: Any, **kwargs: Any) -> None:
        super().__init__(_UncommittedLog(log), *args, **kwargs)  # type: ignore[arg-type]


@contextlib.contextmanager
def local_write_before_commit() -> Iterator[Engine]:
    """RocksDB is ahead of Kafka whenever a commit fails."""
    original = Incarnation.commit

    async def commit(self: Incarnation, step: Any) -> None:
        self.state.store.write(step.rows(), step.local.items(), self._marker)
        await original(self, step)

    with patch.object(Incarnation, "commit", commit):
        yield Engine()


@contextlib.contextmanager
def no_fence() -> Iterator[Engine]:
    """A new owner goes on in the epoch of the old one."""
    yield Engine(producer=_DoesNotFence)


@contextlib.contextmanager
def applied_offsets_ignored() -> Iterator[Engine]:
    """Reading goes on from where the consumer happens to stand, and nothing is skipped."""
    original = starting_positions
    original_take = Intake.take

    def take(self: Intake, step: Any, parsed: Any, applied: int) -> int:
        return original_take(self, step, parsed, 0)

    async def from_the_start(
        settings: Any, partition: int, sources: Sources, applied: Mapping[str, Any], *rest: Any
    ) -> Any:
        return await original(settings, partition, sources, {}, *rest)

    with (
        patch.object(processor_module, "starting_positions", from_the_start),
        patch.object(Intake, "take", take),
    ):
        yield Engine()


@contextlib.contextmanager
def stale_store_kept() -> Iterator[Engine]:
    """Whatever lies on the disk is believed, and taken for complete."""

    async def believe(self: Recovery, marker: Any, bounds: Any) -> Any:
        if marker.rebuilding:
            return await original(self, marker, bounds)
        return replace(marker, position=bounds.end)

    original = Recovery._replay
    with untrusted_store_kept() as engine, patch.object(Recovery, "_replay", believe):
        yield engine


@contextlib.contextmanager
def untrusted_store_kept() -> Iterator[Engine]:
    """The store is never checked: foreign, ahead or too old, it is gone on from."""

    async def unchecked(self: Replica, marker: Any, bounds: Any) -> Any:
        return marker

    with (
        patch.object(Replica, "_check", unchecked),
        patch.object(recovery, "too_old", lambda *_: ""),
    ):
        yield Engine()


@contextlib.contextmanager
def old_store_kept() -> Iterator[Engine]:
    """A store is gone on from although the tombstones that it has missed may be gone."""
    with patch.object(recovery, "too_old", lambda *_: ""):
        yield Engine()


class _BelievesWorkers(MemoryChangelog):
    async def record_at(self, offset: int) -> ChangelogRecord | None:
        record = await super().record_at(offset)
        if record is None:
            return None
        [found], _ = self._log.read(self._at, offset, 1)
        return replace(record, appended_ms=found.timestamp)


@contextlib.contextmanager
def own_clock_trusted() -> Iterator[Engine]:
    """How old a store is, is told by the clock of the worker that wrote it and of the one that finds it."""
    original = MemoryLog.create_topic

    def create_topic(self: MemoryLog, name: str, partitions: int = 1, **options: Any) -> Any:
        return original(self, name, partitions, **{**options, "append_time": False})

    with patch.object(MemoryLog, "create_topic", create_topic):
        yield Engine(changelog=_BelievesWorkers)


@contextlib.contextmanager
def aborted_changelog_records_read() -> Iterator[Engine]:
    """Recovery reads with read_uncommitted."""
    yield Engine(changelog=_ReadsAborted)


@contextlib.contextmanager
def aborted_requests_read() -> Iterator[Engine]:
    """Requests are fetched with read_uncommitted."""
    yield Engine(sources=_FetchesAborted)


@contextlib.contextmanager
def recurring_begins_anew() -> Iterator[Engine]:
    """After a late fire the next time is counted from now: those between are neither fired nor told of."""

    def decide(recurrence: Any, scheduled_ms: int, now_ms: int, *rest: Any) -> Any:
        verdict = decide_passed(recurrence, scheduled_ms, now_ms, *rest)
        return replace(verdict, next_ms=next_after(recurrence, max(now_ms, scheduled_ms)))

    with patch.object(recurring_fires, "decide_passed", decide):
        yield Engine()


@contextlib.contextmanager
def misses_are_silent() -> Iterator[Engine]:
    """No event tells of what was missed, skipped or dropped."""
    with patch.object(Events, "passed", lambda *_, **__: None):
        yield Engine()


@contextlib.contextmanager
def sweep_stops_short() -> Iterator[Engine]:
    """A command for many reaches the first of them on each partition."""
    with patch.object(bulk, "after_prefix", lambda key: key + b"1\xff"):
        yield Engine()


@contextlib.contextmanager
def sweep_begins_anew() -> Iterator[Engine]:
    """How far a command for many has got, and how many it has changed, is forgotten between two slices."""

    def forgetful(bulk: Any, **changes: Any) -> Any:
        return replace(bulk, **{**changes, "count": 0} if "cursor" in changes else changes)

    with patch.object(bulk, "replace", forgetful):
        yield Engine()


@contextlib.contextmanager
def triggers_wait_for_nothing() -> Iterator[Engine]:
    """A schedule that is over takes its triggered fires with it, and nothing tells of them."""
    over = property(lambda schedule: not (schedule.pending or schedule.held or schedule.next_ms >= 0))
    original = Arming.finish

    def finish(self: Arming, step: Any, id: str, schedule: Schedule, status: Status) -> Schedule:
        for waiting in schedule.triggers:
            self._state.remove_entry(step, waiting.key)
        return original(self, step, id, schedule, status)

    with patch.object(Schedule, "over", over), patch.object(Arming, "finish", finish):
        yield Engine()


BREAKAGES: list[Breakage] = [
    local_write_before_commit,
    no_fence,
    applied_offsets_ignored,
    stale_store_kept,
    untrusted_store_kept,
    old_store_kept,
    own_clock_trusted,
    aborted_changelog_records_read,
    aborted_requests_read,
    recurring_begins_anew,
    misses_are_silent,
    sweep_stops_short,
    sweep_begins_anew,
    triggers_wait_for_nothing,
]
