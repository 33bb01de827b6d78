"""From fenced to running: the local store holds what the changelog says, then each source has its position.

The store may have missed something, and another owner may have taken over meanwhile. Nothing of what that
one writes is applied: it stands behind the end that was looked up. But compaction may take rows before that
end in favour of newer ones. So nothing is decided on a store before it was made sure, after the replay, that
nobody has taken over. The conditions of a trusted store are in :mod:`delaystream.engine.lifecycle.replica`.

Then every source is read on from its own applied offset, never from the group's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Final

from delaystream.codec.envelope import SourcePosition, decode_meta
from delaystream.codec.keys import META, RECOVERED
from delaystream.engine.failures import LogUnavailable, Misconfigured, StoreUntrusted
from delaystream.engine.lifecycle.replica import Replica, read_before, settled_bounds, too_old
from delaystream.engine.observer import Observer
from delaystream.engine.ports import (
    Change,
    Changelog,
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

#: Least time between two sentences about how far a recovery is, ms.
_PROGRESS_EVERY_MS: Final = 2_000


class PointersAndCounters:
    """Pointers and counters, which a worker derives from the rows."""

    def by(self, store: StateStore, changes: Sequence[Change]) -> list[Change]:
        """The changes that applied rows make to it."""
        local = repointed(store, changes)
        local += list(recounted(store, [*changes, *local]))
        return local

    async def whole(self, store: StateStore) -> AsyncIterator[list[Change]]:
        """All of it. Raises Misconfigured for a layout that this version does not read."""
        if (meta := store.get(META)) is not None:
            refuse_layout(decode_meta(meta))
        for some in all_pointers(store):
            yield some
        yield await recount(store)


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
        self._replica = Replica(partition, ports.stores, changelog, PointersAndCounters())

    async def run(self, store: StateStore | None) -> tuple[StateStore, Marker]:
        """Recover; an already open store is used if it can be trusted, and closed if it cannot.

        Returns the open store and its marker; the partition was still ours when the store was complete.
        Raises ProducerFenced, WriteRefused, TransactionFailed, LogUnavailable, StoreFailed, StoreUntrusted.
        """
        self._replica.store = store
        try:
            return await self._run()
        except BaseException:
            self._replica.close()
            raise

    async def _run(self) -> tuple[StateStore, Marker]:
        bounds = await self._stable_bounds()
        began_ms = self._loop_ms()
        replica = self._replica
        tombstones_kept_ms = self._settings.changelog_delete_retention_ms
        marker = await replica.trusted(bounds)
        behind = marker is None or marker.rebuilding or _missed(marker, bounds)
        if behind and bounds.end > bounds.start:
            now_ms, bounds = await self._time_of_brokers()
            if marker is not None and (reason := too_old(marker, now_ms, tombstones_kept_ms)):
                replica.throw_away(reason)
                marker = None
            if marker is None:
                marker = replica.nothing_applied(bounds, now_ms)
            marker = await self._replay(marker, bounds)
        elif marker is None:
            marker = replica.nothing_applied(bounds, None)
        # Ours until here: what was read up to the end is then all there was, and all of it ours.
        await self._producer.commit(Transaction({}, {}))
        if behind:
            if (took_ms := self._loop_ms() - began_ms) >= tombstones_kept_ms // 2:
                raise StoreUntrusted(f"the replay took {took_ms:.0f} ms: tombstones may be gone meanwhile")
            marker = await replica.complete(marker)
        assert replica.store is not None
        return replica.store, marker

    async def _stable_bounds(self) -> LogBounds:
        return await settled_bounds(self._changelog, self._settings.stable_timeout_ms)

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

    async def _replay(self, marker: Marker, bounds: LogBounds) -> Marker:
        """Apply what lies before the end that was looked up."""
        applied = 0
        while marker.position < bounds.end:
            batch = await read_before(self._changelog, marker.position, bounds.end)
            marker = self._replica.apply(marker, batch)
            applied += len(batch.records)
            self._progress(applied, marker.position, bounds.end)
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
            "%s: up to %d requests were removed before. This is usual on a topic that existed before this "
            "application; otherwise they are lost",
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
