"""The transactional producer of one partition.

One commit, step by step:

1. the producer knows the leader of every partition of the transaction, or looks it up without creating
   topics;
2. the last transaction's marker is seen on the changelog, and the transaction coordinator adds the
   partitions; meanwhile those rows become record batches that have not gathered as such;
3. the batches go to their leaders, several in flight, while the group's offsets are added as well;
4. every answer has been seen, and none was a refusal;
5. the coordinator commits.

aiokafka's connections and its C record builder are used, but not its ``AIOKafkaProducer``: that class commits
although a write failed, cannot be used after a failure, hangs on a deleted topic, cannot pass sequence number
2**31, and works through background tasks that a caller can neither bound nor end. The protocol is KIP-98's.
As straight-line code it is short, and each of its waits has a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any

from delaystream.adapters.kafka.connections import KafkaConnections
from delaystream.adapters.tasks import end
from delaystream.adapters.transactions.batches import BatchLimits, Identity
from delaystream.adapters.transactions.coordinator import TransactionCoordinator
from delaystream.adapters.transactions.lost_markers import LostMarkers, ProducerMemory
from delaystream.adapters.transactions.settings import ProducerSettings
from delaystream.adapters.transactions.writer import BrokerClocks, Delivery, TransactionWriter
from delaystream.engine.failures import (
    LogUnavailable,
    Misconfigured,
    ProducerFenced,
    TransactionFailed,
    TransactionStuck,
    WriteRefused,
)
from delaystream.engine.ports import Accumulator, TopicPartition, Transaction, TransactionalProducer


class _State(Enum):
    NEW = auto()
    READY = auto()
    IN_TRANSACTION = auto()
    FENCED = auto()
    CLOSED = auto()


class AiokafkaTransactionalProducer(TransactionalProducer):
    """Producer with a transactional id, for one partition of one application.

    ``settings`` are connection settings by aiokafka's names. All producers of a worker may share ``limits``,
    so that they learn a topic's limit only once. ``swept`` is the changelog's partition, which nobody else
    writes to: there the producer confirms each transaction's end. ``traces`` pass from one producer of the
    transactional id to the next, which can then repair the partitions that the one before it wrote to.
    ``clocks`` compares our clock with the brokers'.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        transactional_id: str,
        group: str,
        *,
        bounds: ProducerSettings | None = None,
        limits: BatchLimits | None = None,
        swept: TopicPartition | None = None,
        memory: ProducerMemory | None = None,
        clocks: BrokerClocks | None = None,
    ) -> None:
        self._bounds = bounds or ProducerSettings()
        self._limits = limits or BatchLimits(self._bounds.max_batch_bytes)
        self._transactional_id = transactional_id
        self._group = group
        self._connections = KafkaConnections(settings, request_timeout_ms=self._bounds.request_timeout_ms)
        self._coordinator = TransactionCoordinator(self._connections, transactional_id, self._bounds.backoff)
        self._lost_markers = LostMarkers(
            self._connections, self._coordinator, swept, memory or ProducerMemory()
        )
        self._state = _State.NEW
        self._clocks = clocks
        self._identity = Identity(-1, -1)
        self._writer: TransactionWriter | None = None

    async def fence(self) -> None:
        """InitProducerId.

        Raises LogUnavailable, TransactionStuck if the last transaction is not completed, or Misconfigured if
        we lack a right.
        """
        try:
            async with asyncio.timeout(self._bounds.fence_timeout_ms / 1000):
                last = await self._lost_markers.before_fence()
                self._identity = await self._coordinator.init_producer_id(self._bounds.transaction_timeout_ms)
                await self._lost_markers.after_fence(last, self._identity)
        except TimeoutError:
            raise await self._not_fenced() from None
        self._writer = TransactionWriter(
            self._connections,
            self._transactional_id,
            self._identity,
            self._bounds,
            self._limits,
            self._clocks,
        )
        self._state = _State.READY

    async def _not_fenced(self) -> LogUnavailable:
        """The error of a fence that got no identity in time."""
        waited_for = self._coordinator.waiting_for
        sentence = f"{self._transactional_id} could not be fenced: {waited_for}"
        with contextlib.suppress(TimeoutError, TransactionFailed, ProducerFenced, Misconfigured):
            async with asyncio.timeout(self._bounds.abort_timeout_ms / 1000):
                last = await self._coordinator.last_transaction()
                if last.stuck:
                    broker = self._coordinator.coordinated_by
                    return TransactionStuck(
                        f"{sentence}; {last.state}, and no marker in {last.stuck}. Where these partitions "
                        "have leaders, the broker refused its own marker: correct the topic's "
                        "message.timestamp.before.max.ms or max.message.bytes, then restart broker "
                        f"{broker}, which coordinates the transaction (runbook transaction-stuck)"
                    )
        return LogUnavailable(sentence)

    def accumulator(self, target: TopicPartition) -> Accumulator:
        """Where rows gather, encoded as they come; see the port. Call it after the fence."""
        assert self._writer is not None, "accumulator() before fence()"
        return self._writer.accumulator(target)

    async def commit(self, transaction: Transaction) -> Mapping[TopicPartition, int]:
        """Write and commit; see the port. After any failure only ``close`` is allowed.

        With nothing to write and no offsets, it only checks whether another producer has this id now.
        """
        writer = self._writer
        if self._state is not _State.READY or writer is None:
            raise TransactionFailed(f"{self._transactional_id} is not ready: {self._state.name}")
        writes = {target: rows for target, rows in transaction.writes.items() if rows}
        self._state = _State.IN_TRANSACTION
        deliveries = [Delivery(target, rows, deque()) for target, rows in writes.items()]
        try:
            async with asyncio.timeout(self._bounds.commit_timeout_ms / 1000):
                if deliveries or transaction.offsets:
                    await self._write(writer, deliveries, transaction.offsets)
                    await self._coordinator.end(self._identity, commit=True)
                else:
                    await self._coordinator.check_ownership(self._identity)
        except TimeoutError:
            raise TransactionFailed(
                f"the transaction did not end in time: {self._coordinator.waiting_for}"
            ) from None
        except ProducerFenced:
            self._state = _State.FENCED
            raise
        self._state = _State.READY
        last_offsets = {delivery.target: delivery.last_offset for delivery in deliveries}
        self._lost_markers.committed(last_offsets)
        return last_offsets

    async def close(self) -> None:
        """Abort an open transaction, within ``abort_timeout_ms``, and close every connection."""
        state, self._state = self._state, _State.CLOSED
        try:
            if state is _State.IN_TRANSACTION:
                # If the abort fails now, the next fence or the broker's timeout aborts the transaction.
                with contextlib.suppress(TimeoutError, TransactionFailed, ProducerFenced, WriteRefused):
                    async with asyncio.timeout(self._bounds.abort_timeout_ms / 1000):
                        commit = self._lost_markers.repairing
                        await self._coordinator.end(self._identity, commit=commit)
        finally:
            await self._connections.close()

    async def _write(
        self, writer: TransactionWriter, deliveries: list[Delivery], offsets: Mapping[TopicPartition, int]
    ) -> None:
        """Write everything, and await every answer."""
        tasks: list[asyncio.Task[None]] = []
        try:
            async with asyncio.timeout(self._bounds.write_timeout_ms / 1000):
                await writer.look_up(delivery.target for delivery in deliveries)
                targets = frozenset(delivery.target for delivery in deliveries)
                if targets:
                    beginning = self._lost_markers.begin(self._identity, targets, self._bounds.backoff())
                    tasks.append(asyncio.create_task(beginning))
                    # Let the first request leave before the processor is busy with building batches.
                    await asyncio.sleep(0)
                    for delivery in deliveries:
                        writer.build(delivery)
                    await tasks[-1]
                if offsets:
                    adding = self._coordinator.add_offsets(self._identity, self._group, offsets)
                    tasks.append(asyncio.create_task(adding))
                await writer.deliver(deliveries)
                await tasks[-1]
        except TimeoutError:
            raise self._late(writer, deliveries) from None
        finally:
            await end(tasks)

    def _late(
        self, writer: TransactionWriter, deliveries: list[Delivery]
    ) -> TransactionFailed | WriteRefused:
        """If only some partitions are late, their topic is at fault; if all are, Kafka is."""
        late = [
            delivery for delivery in deliveries if delivery.pending or not writer.has_leader(delivery.target)
        ]
        reason = self._coordinator.waiting_for
        if late:
            first = next((delivery for delivery in late if not writer.has_leader(delivery.target)), late[0])
            reason = writer.standing(first)
        sentence = f"not written in {self._bounds.write_timeout_ms} ms: {reason}"
        if 0 < len(late) < len(deliveries):
            also = {delivery.target.topic for delivery in late} - {first.target.topic}
            return WriteRefused(*first.target, sentence, record_at_fault=False, also=also)
        return TransactionFailed(sentence)
