"""Recovery: from fenced to a local store that holds exactly what the changelog's committed records say."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

from msgspec.structs import replace

from delaystream.engine.failures import LogUnavailable, Misconfigured, StoreUntrusted
from delaystream.engine.pending import recount, recounted
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
from delaystream.engine.settings import EngineSettings

_NO_FINGERPRINT = b""


def fingerprint(key: bytes, value: bytes | None) -> bytes:
    """Digest of a changelog record, 8 bytes: to tell whether a store has applied this very record."""
    digest = hashlib.blake2b(key, digest_size=8)
    digest.update(b"\0" if value is None else b"\1" + value)
    return digest.digest()


class Recovery:
    """Brings one partition's local store up to the end of its changelog."""

    def __init__(
        self,
        partition: int,
        settings: EngineSettings,
        changelog: Changelog,
        stores: StateStores,
        progress: Callable[[int, int, int], None],
        log: Callable[[str], None],
    ) -> None:
        self._partition = partition
        self._settings = settings
        self._changelog = changelog
        self._stores = stores
        #: told (records applied, position, end) after each batch
        self._progress = progress
        self._log = log

    async def run(self, store: StateStore | None, now_ms: int) -> tuple[StateStore, Marker]:
        """Recover; an already open store is used if it can be trusted, and closed if it cannot.

        Returns the open store and its marker. Raises LogUnavailable, StoreFailed, StoreUntrusted.
        """
        marker = None
        try:
            bounds = await self._stable_bounds()
            if store is None:
                store = self._stores.open(self._partition)
            marker = store.marker()
            if marker is not None:
                await self._check(marker, bounds, now_ms)
        except StoreUntrusted as reason:
            self._log(f"the local state is thrown away and rebuilt from the changelog: {reason}")
            if store is not None:
                store.close()
            self._stores.destroy(self._partition)
            store = self._stores.open(self._partition)
            marker = None
        except BaseException:
            if store is not None:
                store.close()
            raise
        assert store is not None
        try:
            return store, await self._replay(store, marker, bounds, now_ms)
        except BaseException:
            store.close()
            raise

    async def _stable_bounds(self) -> LogBounds:
        """Wait until no transaction is open: the fence completes ours, its markers take a moment."""
        delay_s = 0.002
        try:
            async with asyncio.timeout(self._settings.stable_timeout_ms / 1000):
                while True:
                    bounds = await self._changelog.bounds()
                    if bounds.stable >= bounds.end:
                        return bounds
                    await asyncio.sleep(delay_s)
                    delay_s = min(0.2, delay_s * 2)
        except TimeoutError:
            raise LogUnavailable(
                f"an open transaction has held up the changelog for {self._settings.stable_timeout_ms} ms"
            ) from None

    async def _check(self, marker: Marker, bounds: LogBounds, now_ms: int) -> None:
        """Raise StoreUntrusted unless the store is a prefix of this changelog, and a recent one.

        Raises Misconfigured where the store is the last copy there is.
        """
        if marker.format != STORE_FORMAT:
            raise StoreUntrusted(f"its format is {marker.format}, and this version reads {STORE_FORMAT}")
        if bounds.end == 0 and marker.last_offset >= 0:
            raise Misconfigured(
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
        age_ms = now_ms - marker.written_ms
        # Half of it: the replay itself takes time, and must end before the first tombstone may be gone.
        if age_ms >= self._settings.changelog_delete_retention_ms // 2 and _missed(marker, bounds):
            raise StoreUntrusted(
                f"it was last written {age_ms} ms ago, and the changelog keeps tombstones for "
                f"{self._settings.changelog_delete_retention_ms} ms"
            )
        if marker.last_offset < bounds.start:
            return
        batch = await self._changelog.read(marker.last_offset)
        offset, key, value = batch.records[0] if batch.records else (-1, b"", None)
        # None there may have been compacted away: seldom, for what was written last, and a rebuild is safe.
        # Or it was aborted after all: a broker that shuts down can confirm a commit and lose its markers.
        if offset != marker.last_offset:
            raise StoreUntrusted(
                f"the changelog has no committed record at offset {marker.last_offset}, which it has applied"
            )
        if fingerprint(key, value) != marker.fingerprint:
            raise StoreUntrusted(f"the changelog has another record at offset {offset} than it has applied")

    async def _replay(
        self, store: StateStore, marker: Marker | None, bounds: LogBounds, now_ms: int
    ) -> Marker:
        if marker is None:
            topic_id = self._changelog.topic_id
            marker = Marker(topic_id, bounds.start, -1, _NO_FINGERPRINT, now_ms, rebuilding=True)
        applied = 0
        while marker.position < bounds.end:
            batch = await self._changelog.read(marker.position)
            if batch.next_position <= marker.position:
                raise LogUnavailable(f"the changelog gave nothing at {marker.position} of {bounds.end}")
            caught_up = batch.next_position >= bounds.end
            # Until then the store is as old as it was: an interrupted replay must not make it look fresh.
            marker = self._apply(store, marker, batch, now_ms if caught_up else marker.written_ms)
            applied += len(batch.records)
            self._progress(applied, marker.position, bounds.end)
        if marker.rebuilding:
            marker = replace(marker, rebuilding=False)
            store.write((), await recount(store), marker)
        return marker

    def _apply(self, store: StateStore, marker: Marker, batch: ChangelogBatch, written_ms: int) -> Marker:
        changes: list[Change] = [(key, value) for _, key, value in batch.records]
        # A rebuild counts once, at its end: looking every key up would make it several times slower.
        counts = () if marker.rebuilding else list(recounted(store, changes))
        marker = advanced(
            marker, batch.next_position, batch.records[-1] if batch.records else None, written_ms
        )
        store.write(changes, counts, marker)
        return marker


def _missed(marker: Marker, bounds: LogBounds) -> bool:
    """Whether the changelog may have had records that the store has not applied.

    Behind the store's own last transaction stands its commit marker and nothing else. Whatever more there
    is may have been records once: that none are left to be read proves nothing, they may have been compacted
    away together with their tombstones.
    """
    return bounds.end - marker.position > 1


def advanced(
    marker: Marker, position: int, last: tuple[int, bytes, bytes | None] | None, written_ms: int
) -> Marker:
    """The marker of a store that has applied more; ``last`` is the last record of it, if there was any."""
    if last is None:
        return replace(marker, position=position, written_ms=written_ms)
    offset, key, value = last
    return replace(
        marker,
        position=position,
        last_offset=offset,
        fingerprint=fingerprint(key, value),
        written_ms=written_ms,
    )
