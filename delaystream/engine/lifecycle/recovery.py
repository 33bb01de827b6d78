"""From fenced to running: the local store holds what the changelog says, then each source has its position.

Two things can make a store lie. It may be so old that compaction has dropped tombstones which it has never
seen. So its age is told by the brokers' clocks: from when they appended the last record that it has applied
to when they append a row that is committed now. And another owner may have taken over meanwhile. Nothing of
what that one writes is applied: it stands behind the end that was looked up. But compaction may take rows
before that end in favour of newer ones. So nothing is decided on a store before it was made sure, after the
replay, that nobody has taken over.

Then every source is read on from its own applied offset, never from the group's.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from msgspec.structs import replace

from delaystream.codec.envelope import SourcePosition, decode_meta
from delaystream.codec.keys import META, RECOVERED
from delaystream.engine.failures import LogUnavailable, Misconfigured, StoreUntrusted
from delaystream.engine.observer import Observer
from delaystream.engine.ports import (
    STORE_FORMAT,
    Change,
    Changelog,
    ChangelogBatch,
    LogBounds,
    Marker,
    Ports,
    Row,
    SourceBounds,
    Sources,
    StateStore,
    TopicPartition,
    Transaction,
    TransactionalProducer,
)
from delaystream.engine.settings import EngineSettings
from delaystream.engine.state.partition_state import refuse_layout
from delaystream.engine.state.pending import recount, recounted
from delaystream.engine.state.pointers import all_pointers, repointed

logger = logging.getLogger(__name__)

_NO_FINGERPRINT = b""
#: Least time between two sentences about how far a recovery is, ms.
_PROGRESS_EVERY_MS: Final = 2_000


def fingerprint(key: bytes, value: bytes | None) -> bytes:
    """Digest of a changelog record, 8 bytes: to tell whether a store has applied this very record."""
    digest = hashlib.blake2b(key, digest_size=8)
    digest.update(b"\0" if value is None else b"\1" + value)
    return digest.digest()


class Recovery:
    """Brings one partition's local store up to the end of its changelog.

    ``producer`` has fenced every earlier owner. ``progress`` is told (records applied, position, end) after
    each batch.
    """

    def __init__(
        self,
        partition: int,
        settings: EngineSettings,
        ports: Ports,
        changelog: Changelog,
        producer: TransactionalProducer,
        progress: Callable[[int, int, int], None],
    ) -> None:
        self._partition = partition
        self._settings = settings
        self._ports = ports
        self._changelog = changelog
        self._producer = producer
        self._progress = progress
        self._store: StateStore | None = None

    async def run(self, store: StateStore | None) -> tuple[StateStore, Marker]:
        """Recover; an already open store is used if it can be trusted, and closed if it cannot.

        Returns the open store and its marker; the partition was still ours when the store was complete.
        Raises ProducerFenced, WriteRefused, TransactionFailed, LogUnavailable, StoreFailed, StoreUntrusted.
        """
        self._store = store
        try:
            return await self._run()
        except BaseException:
            if self._store is not None:
                self._store.close()
            raise

    async def _run(self) -> tuple[StateStore, Marker]:
        bounds = await self._stable_bounds()
        began_ms = self._loop_ms()
        marker = await self._trusted(bounds)
        behind = marker is None or marker.rebuilding or _missed(marker, bounds)
        if behind and bounds.end > bounds.start:
            now_ms, bounds = await self._time_of_brokers()
            if marker is not None and (reason := self._too_old(marker, now_ms)):
                self._throw_away(reason)
                marker = None
            if marker is None:
                marker = self._nothing_applied(bounds, now_ms)
            marker = await self._replay(marker, bounds)
        elif marker is None:
            marker = self._nothing_applied(bounds, None)
        # Ours until here: what was read up to the end is then all there was, and all of it ours.
        await self._producer.commit(Transaction({}, {}))
        assert self._store is not None
        if behind:
            if (took_ms := self._loop_ms() - began_ms) >= self._oldest_ms:
                raise StoreUntrusted(f"the replay took {took_ms:.0f} ms: tombstones may be gone meanwhile")
            counts = await self._derive(marker) if marker.rebuilding else ()
            marker = replace(marker, as_of_ms=None, rebuilding=False)
            self._store.write((), counts, marker)
        return self._store, marker

    async def _derive(self, marker: Marker) -> list[Change]:
        """Make the pointers of a rebuilt store; the counters that are left to be written."""
        assert self._store is not None
        if (meta := self._store.get(META)) is not None:
            refuse_layout(decode_meta(meta))
        marker = replace(marker, deriving=True)
        for some in all_pointers(self._store):
            self._store.write((), some, marker)
            await asyncio.sleep(0)
        return await recount(self._store)

    async def _stable_bounds(self) -> LogBounds:
        return await settled_bounds(self._changelog, self._settings.stable_timeout_ms)

    # -- whether the store can be trusted -----------------------------------------------------

    async def _trusted(self, bounds: LogBounds) -> Marker | None:
        """Open the store if it is not; its marker says as of when it is whole. None: it holds nothing.

        How old it may be is another question, which arises only where something was missed.
        """
        try:
            if self._store is None:
                self._store = self._ports.stores.open(self._partition)
            marker = self._store.marker()
            return None if marker is None else await self._check(marker, bounds)
        except StoreUntrusted as reason:
            self._throw_away(str(reason))
            return None

    def _throw_away(self, reason: str) -> None:
        logger.warning(
            "partition %d: the local state is thrown away and rebuilt from the changelog: %s",
            self._partition,
            reason,
        )
        store, self._store = self._store, None
        if store is not None:
            store.close()
        self._ports.stores.destroy(self._partition)
        self._store = self._ports.stores.open(self._partition)

    async def _check(self, marker: Marker, bounds: LogBounds) -> Marker | None:
        """Raise StoreUntrusted unless the store is a prefix of this changelog; None for an empty one.

        Raises Misconfigured where the store is the last copy there is.
        """
        if marker.format != STORE_FORMAT:
            raise StoreUntrusted(f"its format is {marker.format}, and this version reads {STORE_FORMAT}")
        if marker.deriving:
            raise StoreUntrusted("a rebuild of it was interrupted near its end")
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
        if marker.last_offset < 0:
            return None
        if marker.last_offset < bounds.start:
            return marker
        last = await self._changelog.record_at(marker.last_offset)
        # None there may have been compacted away: seldom, for what was written last, and a rebuild is safe.
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

    async def _time_of_brokers(self) -> tuple[int | None, LogBounds]:
        """Commit a row: when it was appended, None where brokers do not say; and the bounds with it."""
        at = TopicPartition(self._settings.changelog_topic, self._partition)
        clock_ms = self._ports.clock.now_ms()
        # By its value it differs from others of its kind that may have stood at the same offset.
        row: Row = (RECOVERED, b"%d" % clock_ms, (), clock_ms)
        written = await self._producer.commit(Transaction({at: [row]}, {}))
        bounds = await self._stable_bounds()
        record = await self._changelog.record_at(written[at])
        if record is None:
            raise LogUnavailable(f"the changelog has no record at {written[at]}, where one was committed")
        return record.appended_ms, bounds

    @property
    def _oldest_ms(self) -> int:
        # Half of it: the replay itself takes time, and must end before the first tombstone may be gone.
        return self._settings.changelog_delete_retention_ms // 2

    def _too_old(self, marker: Marker, now_ms: int | None) -> str:
        """Why the store may have missed tombstones that are gone by now; empty: it has not."""
        if now_ms is None or marker.as_of_ms is None:
            return (
                "it has missed something, and how long it was away cannot be told: the changelog has records "
                "with their producer's time, not the broker's (message.timestamp.type=LogAppendTime)"
            )
        age_ms = now_ms - marker.as_of_ms
        if age_ms < 0:
            return f"it was written {-age_ms} ms from now by the brokers' clocks, so that its age is unknown"
        if age_ms >= self._oldest_ms:
            return (
                f"it was last complete {age_ms} ms ago by the brokers' clocks, and the changelog keeps "
                f"tombstones for {self._settings.changelog_delete_retention_ms} ms"
            )
        return ""

    # -- replaying ----------------------------------------------------------------------------

    def _nothing_applied(self, bounds: LogBounds, now_ms: int | None) -> Marker:
        topic_id = self._changelog.topic_id
        return Marker(topic_id, bounds.start, -1, _NO_FINGERPRINT, now_ms, rebuilding=True)

    async def _replay(self, marker: Marker, bounds: LogBounds) -> Marker:
        """Apply what lies before the end that was looked up."""
        applied = 0
        while marker.position < bounds.end:
            batch = await read_before(self._changelog, marker.position, bounds.end)
            marker = self._apply(marker, batch)
            applied += len(batch.records)
            self._progress(applied, marker.position, bounds.end)
        return marker

    def _apply(self, marker: Marker, batch: ChangelogBatch) -> Marker:
        assert self._store is not None
        changes: list[Change] = [(key, value) for _, key, value in batch.records]
        local: list[Change] = []
        # A rebuild derives all of it once, at its end: looking each key up makes it several times slower.
        if not marker.rebuilding:
            local = repointed(self._store, changes)
            local += list(recounted(self._store, [*changes, *local]))
        marker = advanced(marker, batch.next_position, batch.records[-1] if batch.records else None)
        self._store.write(changes, local, marker)
        return marker

    @staticmethod
    def _loop_ms() -> float:
        return asyncio.get_running_loop().time() * 1000


def _missed(marker: Marker, bounds: LogBounds) -> bool:
    """Whether the changelog may have had records that the store has not applied.

    Behind the store's own last transaction stands its commit marker and nothing else. Whatever more there
    is may have been records once: that none are left to be read proves nothing, they may have been compacted
    away together with their tombstones.
    """
    return bounds.end - marker.position > 1


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
    """What stands at a fetch position, and nothing of what others may have written at `end` and behind it.

    Raises LogUnavailable, also where the read gets no further.
    """
    batch = await changelog.read(position)
    if batch.next_position <= position:
        raise LogUnavailable(f"the changelog gave nothing at {position} of {end}")
    if batch.next_position <= end:
        return batch
    return ChangelogBatch([record for record in batch.records if record[0] < end], end)


async def starting_positions(
    settings: EngineSettings,
    partition: int,
    sources: Sources,
    applied: Mapping[str, SourcePosition],
    check_ownership: Callable[[], Awaitable[None]],
    observer: Observer,
) -> tuple[dict[str, int], dict[str, str]]:
    """Fetch position and topic id of each source topic.

    A topic that has no position yet is read from its start; what was removed before that is told, and lost
    unless it was another's. Raises LogUnavailable while bounds cannot be had, and Misconfigured when going on
    would lose requests or apply them twice: the topic is another one of the same name, the applied offset
    lies beyond its end, retention took requests that were never read, or the group has applied what the state
    knows nothing of. Before that it is made sure that the
    partition is still ours, with ProducerFenced if it is not: to a worker that was overtaken, what the new
    owner has read, and retention then removed, looks the same.
    """
    bounds = await sources.bounds()
    positions: dict[str, int] = {}
    topic_ids: dict[str, str] = {}
    for topic in sources.topics:
        log = bounds[topic]
        topic_ids[topic] = log.topic_id
        position = applied.get(topic)
        where = f"{topic}-{partition}"
        if position is None:
            if log.committed:
                await check_ownership()
                raise Misconfigured(_without_its_state(settings, where, partition, log))
            positions[topic] = log.start
            if log.start > 0:
                await check_ownership()
                _tell_first(settings, where, topic, log.start)
                observer.trimmed(partition, topic, log.start)
            continue
        if position.topic_id != log.topic_id:
            await check_ownership()
            raise Misconfigured(
                f"{where} was read up to offset {position.next_offset} when the topic's id was "
                f"{position.topic_id}; now it is {log.topic_id}: the topic was deleted and created anew. "
                "What was in the old one is lost. Another topic name starts afresh"
            )
        if position.next_offset > log.end:
            raise SourceBehind(
                f"{where} was read up to offset {position.next_offset}, and the log ends at {log.end}: the "
                "broker has lost records that were applied"
            )
        if position.next_offset < log.start:
            lost = log.start - position.next_offset
            sentence = (
                f"{where}: retention removed offsets {position.next_offset} to {log.start - 1} before they "
                f"were read, up to {lost} requests"
            )
            await check_ownership()
            if not settings.continue_on_lost_requests:
                raise Misconfigured(
                    f"{sentence}. Nothing more is read until someone decides; "
                    "DELAYSTREAM_ON_REQUESTS_LOST=continue goes on without them"
                )
            logger.error("%s; going on without them", sentence)
            observer.trimmed(partition, topic, lost)
            positions[topic] = log.start
            continue
        positions[topic] = position.next_offset
    return positions, topic_ids


def _without_its_state(settings: EngineSettings, where: str, partition: int, log: SourceBounds) -> str:
    """The group has applied a log, and nothing of that is in the changelog."""
    changelog = f"{settings.changelog_topic}-{partition}"
    return (
        f"the group has applied {where} up to offset {log.committed}, and {changelog} knows nothing of that: "
        f"reading on from {log.start} would deliver again what was delivered, and schedule what was "
        "cancelled. Name the changelog that has the state, or bring it there with delaystream import. "
        "Where all of the topic is to be applied anew, delete the group's offsets "
        "(kafka-consumer-groups.sh --delete-offsets)"
    )


def _tell_first(settings: EngineSettings, where: str, topic: str, start: int) -> None:
    """This application begins at ``start``. Raises Misconfigured for the commands topic.

    A request topic may be older than the application: nothing says whether what it held was meant for us.
    """
    sentence = f"{where} begins at offset {start}, and this application has never read it"
    if topic != settings.commands_topic:
        logger.warning(
            "%s: up to %d requests were removed before. That is usual on a topic that was there before; else "
            "they are lost",
            sentence,
            start,
        )
        return
    if not settings.continue_on_lost_requests:
        raise Misconfigured(
            f"{sentence}: up to {start} requests that name an id were removed before. Nothing is read until "
            "someone decides. Where they were of an application that had the topic before, or may be lost: "
            f"one start with DELAYSTREAM_ON_REQUESTS_LOST=continue reads on from {start}, and remembers it. "
            "A topic of its own (DELAYSTREAM_COMMANDS_TOPIC) begins at 0"
        )
    logger.error("%s: up to %d requests that name an id were removed; going on without them", sentence, start)


class SourceBehind(LogUnavailable):
    """The log ends before what was applied from it: a new leader may not have caught up yet."""


class Progress:
    """Follows one recovery; times are those of the event loop, in ms."""

    def __init__(self, loop_ms: float) -> None:
        self._began_ms = loop_ms
        self._told_ms = loop_ms
        self._first_position: int | None = None
        self.applied = 0

    def seconds(self, loop_ms: float) -> float:
        """How long it has taken."""
        return (loop_ms - self._began_ms) / 1000

    def advance(self, applied: int, position: int, end: int, loop_ms: float) -> str | None:
        """A sentence now and then: records applied, the rate, and the time that is left; else None.

        The time left is worked out from offsets, of which some hold no record (markers, compaction).
        """
        self.applied = applied
        if self._first_position is None:
            self._first_position = position
        elapsed_ms = loop_ms - self._began_ms
        if loop_ms - self._told_ms < _PROGRESS_EVERY_MS or elapsed_ms <= 0:
            return None
        self._told_ms = loop_ms
        rate = applied / elapsed_ms * 1000
        offsets_a_second = (position - self._first_position) / elapsed_ms * 1000
        left = (
            f"{(end - position) / offsets_a_second:.0f} s left" if offsets_a_second else "time left unknown"
        )
        return f"recovering: {applied:,} records, at offset {position:,} of {end:,}, {rate:,.0f}/s, {left}"
