"""A transaction that its owner leaves open, as one does that stops dead."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from delaystream.adapters.kafka.connections import KafkaConnections
from delaystream.adapters.transactions.batches import BatchLimits
from delaystream.adapters.transactions.coordinator import TransactionCoordinator
from delaystream.adapters.transactions.settings import ProducerSettings
from delaystream.adapters.transactions.writer import Delivery, TransactionWriter
from delaystream.engine.ports import Row, TopicPartition


async def abandon_transaction(
    settings: Mapping[str, Any],
    transactional_id: str,
    writes: Mapping[TopicPartition, list[Row]],
    *,
    transaction_timeout_ms: int = 60_000,
) -> None:
    """Write under a transactional id, see it acknowledged, and go away without an end."""
    bounds = ProducerSettings()
    connections = KafkaConnections(settings)
    try:
        coordinator = TransactionCoordinator(connections, transactional_id, bounds.backoff)
        identity = await coordinator.init_producer_id(transaction_timeout_ms)
        limits = BatchLimits(bounds.max_batch_bytes)
        writer = TransactionWriter(connections, transactional_id, identity, bounds, limits)
        deliveries = [Delivery(target, rows, deque()) for target, rows in writes.items()]
        await writer.look_up(writes)
        await coordinator.add_partitions(identity, writes)
        for delivery in deliveries:
            writer.build(delivery)
        await writer.deliver(deliveries)
    finally:
        await connections.close()
