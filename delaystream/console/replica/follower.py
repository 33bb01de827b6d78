"""One partition, followed: a recovery that does not end.

The store is opened and trusted, or rebuilt, as a worker's is; only that nobody is fenced, and nothing is
written to Kafka. So the brokers' time is not asked for: the age of a store is told by this machine's clock.
Half of the time for which the changelog keeps tombstones is far more than clocks differ.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from enum import StrEnum
from typing import Final

import msgspec
from msgspec.structs import replace

from delaystream.console.partitions import kept_open
from delaystream.console.replica.index import Index
from delaystream.engine.failures import LogUnavailable, Misconfigured, StoreUntrusted
from delaystream.engine.lifecycle.replica import LastCopy, Replica, too_old
from delaystream.engine.ports import (
    Changelog,
    ChangelogBatch,
    Clock,
    Marker,
    StateStore,
    StateStores,
)
from delaystream.query.partition import StoredPartition, UnknownLayout

logger = logging.getLogger(__name__)

#: So many records are applied before others have their turn; a named schedule's row costs as much as several.
_AT_ONCE: Final = 500
_NAMED_COSTS: Final = 5
#: Of so many rows it is kept which were touched.
_TOUCHED: Final = 20_000
#: Kinds of rows that a StoredPartition reads once.
_READ_ONCE: Final = frozenset(b"dehmn")

Row = tuple[int, bytes, bytes | None]
"""Offset, key and value of a record."""


class Phase(StrEnum):
    """How far a copy is."""

    STARTING = "starting"
    #: rows are being read that were there before
    CATCHING_UP = "catching-up"
    #: the index of a rebuilt copy is being made
    INDEXING = "indexing"
    FOLLOWING = "following"


class CopyStatus(msgspec.Struct, frozen=True):
    """How far one partition's copy is."""

    partition: int
    phase: Phase
    #: fetch position up to which the changelog is applied, and the last stable offset that was seen
    position: int = 0
    end: int = 0
    #: wall clock, ms, at which nothing was missing; None: not since the console started
    as_of_ms: int | None = None
    #: whether the index is there, so that lists and searches can be answered, be it as of some time ago
    indexed: bool = False
    #: what keeps it from going on
    problem: str | None = None


class FollowerSettings(msgspec.Struct, frozen=True):
    """What a follower has to know of the changelog; ms."""

    #: `delete.retention.ms` of the topic
    tombstones_kept_ms: int


class Follower:
    """Keeps one partition's copy up to date until it is cancelled.

    Everything happens in one event loop, in slices: what is read between two of them is of one position.
    """

    def __init__(
        self,
        partition: int,
        open_changelog: Callable[[int], Awaitable[Changelog]],
        stores: StateStores,
        clock: Clock,
        settings: FollowerSettings,
    ) -> None:
        self._open_changelog = open_changelog
        self._stores = stores
        self._clock = clock
        self._settings = settings
        self._replica: Replica | None = None
        self._changelog: Changelog | None = None
        self._stored: StoredPartition | None = None
        self._changed = asyncio.Event()
        self._touched: set[bytes] | None = None
        self.status = CopyStatus(partition, Phase.STARTING)

    @property
    def store(self) -> StateStore | None:
        """The rows, with their index once the status says so; None while there is no open store."""
        return None if self._replica is None else self._replica.store

    @property
    def stored(self) -> StoredPartition | None:
        """The same rows, read; None without a store. Raises UnknownLayout."""
        if self._stored is None and (store := self.store) is not None:
            self._stored = StoredPartition(store)
        return self._stored

    def touched(self) -> set[bytes] | None:
        """Keys of named schedules' rows that were written since this was asked; None: any may have been."""
        touched, self._touched = self._touched, set()
        return touched

    async def passed(self, position: int) -> None:
        """Wait until the copy has applied everything before a fetch position, and can be listed."""
        while not self.status.indexed or self.status.position < position:
            self._changed.clear()
            await self._changed.wait()

    async def end(self) -> int:
        """The partition's high watermark now: what is written is before it, committed or not yet.

        Raises LogUnavailable, also while nothing is followed.
        """
        if self._changelog is None:
            raise LogUnavailable(f"partition {self.status.partition} is not followed at the moment")
        return (await self._changelog.bounds()).end

    async def run(self) -> None:
        """Follow; what goes wrong is told in the status, and tried again. Raises StoreFailed."""
        partition = self.status.partition

        def complain(problem: Exception) -> None:
            self._tell(replace(self.status, problem=str(problem)))
            logger.warning("partition %d: %s", partition, problem)
            if isinstance(problem, StoreUntrusted):
                self._stores.destroy(partition)

        try:
            await kept_open(
                partition, self._open_changelog, self._follow, complain, StoreUntrusted, UnknownLayout
            )
        finally:
            self._close()

    async def _follow(self, changelog: Changelog) -> None:
        replica = Replica(self.status.partition, self._stores, changelog, Index())
        # That of the time before Kafka was away: it is asked meanwhile, and trusted again.
        replica.store = self.store
        self._replica, self._changelog = replica, changelog
        try:
            marker = await self._begin(replica, changelog)
            while True:
                batch = await changelog.read(marker.position)
                marker = await self._apply(replica, marker, batch)
        except (LogUnavailable, Misconfigured):
            # What is there can be shown, with its age: people look most while Kafka is away.
            raise
        except BaseException:
            self._close()
            raise
        finally:
            self._changelog = None

    def _close(self) -> None:
        """Close the store; until there is one again the partition is missing from what is answered."""
        replica, self._stored, self._replica = self._replica, None, None
        if replica is not None:
            # Whoever waits for a position, or asks what is missing, is not told of a copy that is closed.
            self._tell(replace(self.status, phase=Phase.STARTING, indexed=False))
            replica.close()

    async def _begin(self, replica: Replica, changelog: Changelog) -> Marker:
        """The marker of a store that can be gone on from."""
        self._touched = None
        bounds = await changelog.bounds()
        try:
            marker = await replica.trusted(bounds)
        except LastCopy:
            # It is not: this is a copy of what the workers have.
            replica.throw_away("the changelog is empty")
            marker = None
        now_ms = self._clock.now_ms()
        if marker is not None and bounds.stable - marker.position > 1:
            # By a clock that is behind the brokers' a store that was just closed is of the future.
            now_ms = max(now_ms, marker.as_of_ms or 0)
            if reason := too_old(marker, now_ms, self._settings.tombstones_kept_ms):
                replica.throw_away(reason)
                marker = None
        # It may be of a store that was just thrown away.
        self._stored = None
        if marker is None:
            marker = replica.nothing_applied(bounds, now_ms)
        status = CopyStatus(self.status.partition, Phase.CATCHING_UP, marker.position, bounds.stable)
        if not marker.rebuilding:
            status = replace(status, indexed=True, as_of_ms=self.status.as_of_ms)
        self._tell(status)
        return marker

    async def _apply(self, replica: Replica, marker: Marker, batch: ChangelogBatch) -> Marker:
        assert replica.store is not None
        records, next_position = batch.records, batch.next_position
        applied = 0
        while applied < len(records):
            some = _turn(records, applied)
            applied += len(some)
            reached = next_position if applied == len(records) else some[-1][0] + 1
            marker = replica.apply(marker, ChangelogBatch(some, reached))
            self._touch(key for _, key, _ in some)
            if any(key[0] in _READ_ONCE for _, key, _ in some):
                self._stored = None
            self._tell(replace(self.status, position=marker.position, end=max(batch.stable, marker.position)))
            await asyncio.sleep(0)
        if not records and next_position > marker.position:
            marker = replica.apply(marker, batch)
        caught_up = next_position >= batch.stable
        if marker.rebuilding and caught_up:
            self._refuse_absence(self._clock.now_ms() - (marker.as_of_ms or 0))
            StoredPartition(replica.store)  # refuses another layout before its rows are gone through
            self._tell(replace(self.status, phase=Phase.INDEXING))
            marker = await replica.complete(marker)
        now_ms = self._clock.now_ms()
        status = replace(self.status, position=next_position, end=max(batch.stable, next_position))
        if caught_up:
            status = replace(status, phase=Phase.FOLLOWING, indexed=True, as_of_ms=now_ms)
        elif status.as_of_ms is not None:
            self._refuse_absence(now_ms - status.as_of_ms)
        self._tell(status)
        return marker

    def _touch(self, row_keys: Iterable[bytes]) -> None:
        if self._touched is not None:
            self._touched.update(key for key in row_keys if key[:1] == b"s")
            if len(self._touched) > _TOUCHED:
                self._touched = None

    def _refuse_absence(self, behind_ms: int) -> None:
        """Raise StoreUntrusted where tombstones may be gone that were never seen."""
        kept_ms = self._settings.tombstones_kept_ms
        if behind_ms >= kept_ms // 2:
            raise StoreUntrusted(
                f"it has been behind for {behind_ms} ms, and the changelog keeps tombstones for {kept_ms} ms"
            )

    def _tell(self, status: CopyStatus) -> None:
        self.status = status
        self._changed.set()


def _turn(records: Sequence[Row], first: int) -> Sequence[Row]:
    """What is applied at once from the first on: one record at least."""
    some = records[first : first + _AT_ONCE]
    cost = 0
    for count, (_, key, _) in enumerate(some):
        if cost >= _AT_ONCE:
            return some[:count]
        cost += _NAMED_COSTS if key[:1] == b"s" else 1
    return some
