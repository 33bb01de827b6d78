"""Writes transaction markers again that a broker lost.

A coordinator that has decided a transaction writes a marker to each of its partitions. Brokers 4.0 and later
leave out partitions that have no leader at that moment, such as all partitions of a broker that shuts down,
and treat the transaction as completed (KAFKA-20734). Such a partition then holds an open transaction. Its
read_committed readers wait. The next marker of the same producer id, commit or abort, ends the open
transaction, although its end was decided long ago. So a confirmed commit could be undone in one partition and
not in another.

So nothing is written before the markers of the last transaction are known to exist. On the changelog, which
no other producer writes to, the last stable offset shows this. Other partitions are in doubt when a
connection has broken since. A transaction without records then ends the same partitions in the same way. If
no marker was missing, it changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Final

from delaystream.adapters.kafka.connections import CONNECTION_ERRORS, NO_LEADER, KafkaConnections
from delaystream.adapters.kafka.offsets import LATEST, READ_COMMITTED, list_offsets
from delaystream.adapters.transactions.batches import Identity
from delaystream.adapters.transactions.coordinator import Backoff, LastTransaction, TransactionCoordinator
from delaystream.engine.failures import ProducerFenced, TransactionFailed, WriteRefused
from delaystream.engine.ports import TopicPartition

_COMMITTED: Final = frozenset({"PrepareCommit", "CompleteCommit"})
_COMPLETED: Final = frozenset({"CompleteCommit", "CompleteAbort", "Empty", "Dead", ""})
_NOTHING_SINCE_FENCE: Final = frozenset({"Empty", "Dead", ""})
_ONGOING: Final = "Ongoing"
_OK: Final = 0
_RETRY_S: Final = 1.0


@dataclass
class ProducerMemory:
    """Memory shared by the successive producers of one transactional id in this process."""

    #: the identity that wrote last
    identity: Identity | None = None
    #: the partitions of the last transaction
    partitions: frozenset[TopicPartition] = frozenset()
    #: partitions to end again, and whether with a commit
    unsettled: dict[TopicPartition, bool] = field(default_factory=dict)
    #: how the open transaction without records ends; None when none is open
    repairing: bool | None = None


class LostMarkers:
    """Ends partitions again that the last transaction of a transactional id may have left open.

    ``own`` is a partition that nobody else writes to: the changelog's.
    """

    def __init__(
        self,
        connections: KafkaConnections,
        coordinator: TransactionCoordinator,
        own: TopicPartition | None,
        memory: ProducerMemory,
    ) -> None:
        self._connections = connections
        self._coordinator = coordinator
        self._own = own
        self._own_leader = NO_LEADER
        #: offset of the last record in ``own`` whose marker is not confirmed yet
        self._last_offset = -1
        self._memory = memory
        self._losses = connections.lost()
        self._next_try_at = 0.0

    @property
    def repairing(self) -> bool:
        """Whether an open repair must be committed, whatever happens to the current step."""
        return bool(self._memory.repairing)

    async def before_fence(self) -> LastTransaction:
        """Look up the last transaction; an interrupted repair is ended first."""
        memory = self._memory
        last = await self._coordinator.last_transaction()
        if memory.repairing is not None and last.state == _ONGOING and last.identity == memory.identity:
            with contextlib.suppress(ProducerFenced, TransactionFailed):
                await self._coordinator.end(last.identity, commit=memory.repairing)
            last = await self._coordinator.last_transaction()
        return last

    async def after_fence(self, last: LastTransaction, identity: Identity) -> None:
        """Repair the traces of earlier producers; ``last`` is the result of :meth:`before_fence`."""
        memory = self._memory
        touched = set(last.partitions)
        if self._own is not None:
            touched.add(self._own)
        if _is_of(last, memory.identity):
            touched |= memory.partitions
        else:
            memory.unsettled.clear()
        commit = last.state in _COMMITTED
        for target in touched:
            if last.state in _NOTHING_SINCE_FENCE or target != self._own:
                # A partition that an earlier repair could not reach has had no record since.
                memory.unsettled.setdefault(target, commit)
            else:
                memory.unsettled[target] = commit
        memory.identity, memory.partitions, memory.repairing = identity, frozenset(), None
        await self._settle(identity)

    async def begin(self, identity: Identity, targets: frozenset[TopicPartition], backoff: Backoff) -> None:
        """Begin a transaction with its partitions, once the last one has ended everywhere.

        Raises WriteRefused for a partition that cannot be written to.
        """
        await self._make_sure(identity, backoff)
        for target in self._memory.unsettled:
            if target in targets:
                raise WriteRefused(*target, "it has no leader", record_at_fault=False)
        self._memory.partitions = targets
        await self._coordinator.add_partitions(identity, targets)

    def committed(self, last_offsets: Mapping[TopicPartition, int]) -> None:
        """Record a commit whose markers are not confirmed yet."""
        if self._own is not None:
            self._last_offset = last_offsets.get(self._own, self._last_offset)

    async def _make_sure(self, identity: Identity, backoff: Backoff) -> None:
        memory = self._memory
        completed = False
        while True:
            losses = self._connections.lost()
            if losses != self._losses:
                self._losses = losses
                self._doubt()
            now_s = asyncio.get_running_loop().time()
            if memory.unsettled and now_s >= self._next_try_at:
                self._next_try_at = now_s + _RETRY_S
                await self._settle(identity)
            if self._last_offset < 0 or await self._stable_offset() > self._last_offset:
                self._last_offset = -1
                return
            if completed:
                self._doubt()
            else:
                completed = (await self._coordinator.last_transaction()).state in _COMPLETED
            await backoff.pause()

    def _doubt(self) -> None:
        """Mark the partitions of the last, committed transaction: their markers may be missing."""
        self._memory.unsettled.update(dict.fromkeys(self._memory.partitions, True))
        self._next_try_at = 0.0

    async def _stable_offset(self) -> int:
        """The last stable offset of our own partition; -1 if it is unknown."""
        assert self._own is not None
        try:
            if self._own_leader == NO_LEADER:
                described = (await self._connections.describe([self._own.topic]))[self._own.topic]
                if self._own.partition < len(described.leaders):
                    self._own_leader = described.leaders[self._own.partition]
            if self._own_leader != NO_LEADER:
                found = await list_offsets(
                    self._connections, self._own_leader, [self._own], LATEST, READ_COMMITTED
                )
                code, offset = found[self._own]
                if code == _OK:
                    return offset
        except CONNECTION_ERRORS:
            pass
        self._own_leader = NO_LEADER
        return -1

    async def _settle(self, identity: Identity) -> None:
        unsettled = self._memory.unsettled
        leaderless = await self._leaderless()
        for commit in (True, False):
            targets = {target for target, kind in unsettled.items() if kind is commit} - leaderless
            await self._end(identity, targets, commit=commit)
            for target in targets:
                del unsettled[target]

    async def _end(self, identity: Identity, targets: Set[TopicPartition], *, commit: bool) -> None:
        """Run a transaction without records, in those partitions that can be written to."""
        while targets:
            self._memory.repairing = commit
            try:
                await self._coordinator.add_partitions(identity, targets)
            except WriteRefused as refusal:
                # We cannot repair a topic that is gone, or that we may not write to.
                targets = {target for target in targets if target.topic != refusal.topic}
            else:
                await self._coordinator.end(identity, commit=commit)
                break
        self._memory.repairing = None

    async def _leaderless(self) -> set[TopicPartition]:
        """Partitions that a marker would not reach now, without those whose topic is gone."""
        unsettled = self._memory.unsettled
        if not unsettled:
            return set()
        try:
            described = await self._connections.describe({target.topic for target in unsettled})
        except CONNECTION_ERRORS:
            return set(unsettled)
        return {
            target
            for target in unsettled
            if target.partition < len(leaders := described[target.topic].leaders)
            and leaders[target.partition] == NO_LEADER
        }


def _is_of(last: LastTransaction, identity: Identity | None) -> bool:
    """Whether nobody else has used the transactional id since. A timeout raises the epoch by one."""
    if identity is None:
        return False
    same = last.identity.producer_id == identity.producer_id
    return same and last.identity.epoch - identity.epoch in (0, 1)
