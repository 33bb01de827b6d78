"""Markers that a broker lost are written again.

A coordinator that has decided a transaction writes a marker to each of its partitions. Brokers 4.0 and later
leave out partitions that have no leader at that moment, as all of a broker that shuts down, and take the
transaction for completed (KAFKA-20734). Such a partition then holds an open transaction: its read_committed
readers wait, and the next marker of the same producer id, whichever it is, decides the fate of records whose
transaction was decided long ago. A commit that was confirmed would be undone in one partition and not in
another.

So before anything else is written, a transaction without records ends the same partitions in the same way.
Where there was nothing to repair, it changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Set
from dataclasses import dataclass, field
from typing import Final

from delaystream.adapters.kafka_batches import Identity
from delaystream.adapters.kafka_connections import CONNECTION_ERRORS, NO_LEADER, KafkaConnections
from delaystream.adapters.transaction_coordinator import LastTransaction, TransactionCoordinator
from delaystream.engine.ports import TopicPartition, WriteRefused

_COMMITTED: Final = frozenset({"PrepareCommit", "CompleteCommit"})
_NOTHING_SINCE_FENCE: Final = frozenset({"Empty", "Dead", ""})
_RETRY_S: Final = 1.0


@dataclass
class Traces:
    """What the producers of one transactional id in this process remember of each other."""

    #: who wrote last
    identity: Identity | None = None
    #: where the last transaction wrote to
    partitions: frozenset[TopicPartition] = frozenset()
    #: partitions that are to be ended again, and whether with a commit
    unsettled: dict[TopicPartition, bool] = field(default_factory=dict)


class LostMarkers:
    """Ends again what the last transaction of a transactional id may have left open."""

    def __init__(
        self, connections: KafkaConnections, coordinator: TransactionCoordinator, traces: Traces
    ) -> None:
        self._connections = connections
        self._coordinator = coordinator
        self._traces = traces
        self._losses = connections.lost()
        self._next_try_at = 0.0

    async def after_fence(
        self, last: LastTransaction, identity: Identity, always: TopicPartition | None
    ) -> None:
        """Repair what earlier producers left; ``last`` is what the coordinator said before the fence.

        ``always`` is a partition that nobody else writes to, and that each transaction writes to.
        """
        traces = self._traces
        touched = set(last.partitions)
        if always is not None:
            touched.add(always)
        if _is_of(last, traces.identity):
            touched |= traces.partitions
        else:
            traces.unsettled.clear()
        commit = last.state in _COMMITTED
        for target in touched:
            if last.state in _NOTHING_SINCE_FENCE:
                traces.unsettled.setdefault(target, commit)
            else:
                traces.unsettled[target] = commit
        traces.identity, traces.partitions = identity, frozenset()
        await self._settle(identity)

    async def before_transaction(self, identity: Identity) -> None:
        """Repair what our own last transaction left, if a broker went away since: it was committed."""
        traces = self._traces
        losses = self._connections.lost()
        if losses != self._losses:
            self._losses = losses
            traces.unsettled.update(dict.fromkeys(traces.partitions, True))
            self._next_try_at = 0.0
        now_s = asyncio.get_running_loop().time()
        if traces.unsettled and now_s >= self._next_try_at:
            self._next_try_at = now_s + _RETRY_S
            await self._settle(identity)

    async def begin(self, identity: Identity, targets: frozenset[TopicPartition]) -> None:
        """Add the first partitions to a transaction: with them it starts. Raises WriteRefused."""
        traces = self._traces
        while True:
            await self._coordinator.add_partitions(identity, targets)
            if self._connections.lost() == self._losses:
                break
            # The broker went away meanwhile: the last transaction's markers first. This one has no records
            # yet, and can be theirs.
            await self._end(identity, traces.partitions | targets, commit=True)
            await self.before_transaction(identity)
        traces.partitions = targets

    async def _settle(self, identity: Identity) -> None:
        unsettled = self._traces.unsettled
        leaderless = await self._leaderless()
        for commit in (True, False):
            targets = {target for target, kind in unsettled.items() if kind is commit} - leaderless
            settled = await self._end(identity, targets, commit=commit)
            for target in settled:
                del unsettled[target]

    async def _end(
        self, identity: Identity, targets: Set[TopicPartition], *, commit: bool
    ) -> Set[TopicPartition]:
        """A transaction without records; returns the partitions that need no other one."""
        reachable = set(targets)
        while reachable:
            try:
                await self._coordinator.add_partitions(identity, reachable)
            except WriteRefused as refusal:
                # Without the topic, or the right to write to it, there is nothing that we could repair.
                reachable = {target for target in reachable if target.topic != refusal.topic}
            else:
                await self._coordinator.end(identity, commit=commit)
                break
        return targets

    async def _leaderless(self) -> set[TopicPartition]:
        """Partitions that a marker would not reach now; one whose topic is gone is not among them."""
        unsettled = self._traces.unsettled
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
    """Whether nobody else has used the transactional id since; a timeout raises the epoch by one."""
    if identity is None:
        return False
    same = last.identity.producer_id == identity.producer_id
    return same and last.identity.epoch - identity.epoch in (0, 1)
