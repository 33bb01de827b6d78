"""A local copy of one partition's changelog: whether it can be trusted, and how rows are applied to it.

A worker's recovery ends with it complete; whoever follows the partition goes on applying.

Two things can make a store lie. It may be so old that compaction has dropped tombstones which it has never
seen. So its age is told by the brokers' clocks: from when they appended the last record that it has applied
to when they append, or appended, another one. And it may hold what another log than this one said, or what
was aborted after all. So the last record that it has applied is looked up, and compared.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Final, Protocol

from msgspec.structs import replace

from delaystream.engine.failures import LogUnavailable, Misconfigured, StoreUntrusted
from delaystream.engine.ports import (
    STORE_FORMAT,
    Change,
    Changelog,
    ChangelogBatch,
    LogBounds,
    Marker,
    StateStore,
    StateStores,
)

logger = logging.getLogger(__name__)

_NO_FINGERPRINT: Final = b""


class LastCopy(Misconfigured):
    """The changelog is empty, and the store has applied records of it."""


class Derived(Protocol):
    """Rows that a store derives from the changelog's rows: pointers, counters, an index."""

    def by(self, store: StateStore, changes: Sequence[Change]) -> list[Change]:
        """The changes that these rows will make to it; asked before they are written."""
        ...

    def whole(self, store: StateStore) -> AsyncIterator[list[Change]]:
        """All of it, some at a time: after a rebuild."""
        ...


class Replica:
    """One partition's local store, and its marker.

    The store is None until it was opened, and while it is closed.
    """

    def __init__(self, partition: int, stores: StateStores, changelog: Changelog, derived: Derived) -> None:
        self._partition = partition
        self._stores = stores
        self._changelog = changelog
        self._derived = derived
        self.store: StateStore | None = None

    def close(self) -> None:
        """Close the store, if it is open."""
        store, self.store = self.store, None
        if store is not None:
            store.close()

    async def trusted(self, bounds: LogBounds) -> Marker | None:
        """Open the store if it is not; its marker says up to where it is complete. None: it is empty.

        Its age matters only if it has missed something. An untrusted store is thrown
        away. Raises LogUnavailable, StoreFailed, and LastCopy.
        """
        try:
            if self.store is None:
                self.store = self._stores.open(self._partition)
            marker = self.store.marker()
            return None if marker is None else await self._check(marker, bounds)
        except StoreUntrusted as reason:
            self.throw_away(str(reason))
            return None

    def throw_away(self, reason: str) -> None:
        """Begin with an empty store."""
        logger.warning(
            "partition %d: the local state is thrown away and rebuilt from the changelog: %s",
            self._partition,
            reason,
        )
        self.close()
        self._stores.destroy(self._partition)
        self.store = self._stores.open(self._partition)

    def nothing_applied(self, bounds: LogBounds, now_ms: int | None) -> Marker:
        """The marker of an empty store, which is rebuilt from the log's start; ``now_ms``: brokers' time."""
        topic_id = self._changelog.topic_id
        return Marker(topic_id, bounds.start, -1, _NO_FINGERPRINT, now_ms, rebuilding=True)

    def apply(self, marker: Marker, batch: ChangelogBatch) -> Marker:
        """Write what was read from the marker's position on, and the marker behind it."""
        assert self.store is not None
        changes: list[Change] = [(key, value) for _, key, value in batch.records]
        # A rebuild derives all of it once, at its end: looking each key up makes it several times slower.
        local = [] if marker.rebuilding else self._derived.by(self.store, changes)
        marker = advanced(marker, batch.next_position, batch.records[-1] if batch.records else None)
        self.store.write(changes, local, marker)
        return marker

    async def complete(self, marker: Marker) -> Marker:
        """Have everything there that follows from the rows: what is behind the marker is applied."""
        assert self.store is not None
        if marker.rebuilding:
            under_way = replace(marker, deriving=True)
            async for some in self._derived.whole(self.store):
                self.store.write((), some, under_way)
                await asyncio.sleep(0)
        marker = replace(marker, as_of_ms=None, rebuilding=False)
        self.store.write((), (), marker)
        return marker

    async def _check(self, marker: Marker, bounds: LogBounds) -> Marker | None:
        """Raise StoreUntrusted unless the store is a prefix of this changelog; None for an empty one.

        Raises LastCopy.
        """
        if marker.format != STORE_FORMAT:
            raise StoreUntrusted(f"its format is {marker.format}, and this version reads {STORE_FORMAT}")
        if marker.deriving:
            raise StoreUntrusted("a rebuild of it was interrupted near its end")
        if bounds.end == 0 and marker.last_offset >= 0:
            raise LastCopy(
                "the changelog is empty, and the local state has applied records up to offset "
                f"{marker.last_offset} of it: it was deleted, and what is pending exists only here. Restore "
                "it, or delete the data directory to begin with nothing"
            )
        if marker.topic_id != self._changelog.topic_id:
            raise StoreUntrusted(
                f"it belongs to the changelog with topic id {marker.topic_id}, and this one's is "
                f"{self._changelog.topic_id}"
            )
        if marker.position > bounds.end:
            raise StoreUntrusted(f"it stands at {marker.position}, ahead of the changelog's end {bounds.end}")
        if marker.position < bounds.start:
            raise StoreUntrusted(
                f"it stands at {marker.position}, before the changelog's start {bounds.start}"
            )
        if marker.last_offset < 0:
            return None
        if marker.last_offset < bounds.start:
            return marker
        last = await self._changelog.record_at(marker.last_offset)
        # A missing record may have been compacted away: seldom, since it was the last one. A rebuild is safe.
        # Or it was aborted after all: a broker that shuts down can confirm a commit and lose its markers.
        if last is None:
            raise StoreUntrusted(
                f"the changelog has no committed record at offset {marker.last_offset}, which it has applied"
            )
        if fingerprint(last.key, last.value) != marker.fingerprint:
            raise StoreUntrusted(
                f"the changelog has another record at offset {marker.last_offset} than it has applied"
            )
        # While it is being rebuilt, what it has applied may be from long ago, and all of it is news.
        if marker.as_of_ms is None and not marker.rebuilding:
            marker = replace(marker, as_of_ms=last.appended_ms)
        return marker


def fingerprint(key: bytes, value: bytes | None) -> bytes:
    """Digest of a changelog record, 8 bytes: to tell whether a store has applied this very record."""
    digest = hashlib.blake2b(key, digest_size=8)
    digest.update(b"\0" if value is None else b"\1" + value)
    return digest.digest()


def too_old(marker: Marker, now_ms: int | None, tombstones_kept_ms: int) -> str:
    """Why a store that has missed something may have missed tombstones that are gone; empty: it has not.

    ``now_ms`` is the brokers' time, None where they do not say. Half of the time for which tombstones are
    kept is too long: the replay itself takes time, and must end before the first of them may be gone.
    """
    if now_ms is None or marker.as_of_ms is None:
        return (
            "it has missed something, and how long it was away cannot be told: the changelog has records "
            "with their producer's time, not the broker's (message.timestamp.type=LogAppendTime)"
        )
    age_ms = now_ms - marker.as_of_ms
    if age_ms < 0:
        return f"it was written {-age_ms} ms from now by the brokers' clocks, so that its age is unknown"
    if age_ms >= tombstones_kept_ms // 2:
        return (
            f"it was last complete {age_ms} ms ago by the brokers' clocks, and the changelog keeps "
            f"tombstones for {tombstones_kept_ms} ms"
        )
    return ""


def advanced(marker: Marker, position: int, last: tuple[int, bytes, bytes | None] | None) -> Marker:
    """The marker of a store that has applied more; ``last`` is the last record of it, if there was any."""
    if last is None:
        return replace(marker, position=position)
    offset, key, value = last
    return replace(marker, position=position, last_offset=offset, fingerprint=fingerprint(key, value))


async def settled_bounds(changelog: Changelog, timeout_ms: int) -> LogBounds:
    """Wait until no transaction is open: a fence completes that of its owner, its markers take a moment.

    The end is then also the end of a transaction. Raises LogUnavailable.
    """
    delay_s = 0.002
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            while True:
                bounds = await changelog.bounds()
                if bounds.stable >= bounds.end:
                    return bounds
                await asyncio.sleep(delay_s)
                delay_s = min(0.2, delay_s * 2)
    except TimeoutError:
        raise LogUnavailable(f"an open transaction has held up the changelog for {timeout_ms} ms") from None


async def read_before(changelog: Changelog, position: int, end: int) -> ChangelogBatch:
    """The records from a fetch position up to `end`; later ones may be another owner's.

    Raises LogUnavailable, also where the read gets no further.
    """
    batch = await changelog.read(position)
    if batch.next_position <= position:
        raise LogUnavailable(f"the changelog gave nothing at {position} of {end}")
    if batch.next_position <= end:
        return batch
    return ChangelogBatch([record for record in batch.records if record[0] < end], end, batch.stable)
