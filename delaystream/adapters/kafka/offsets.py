"""ListOffsets: where partitions begin and end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from delaystream.adapters.internals.aiokafka import OffsetRequest
from delaystream.adapters.kafka.connections import KafkaConnections
from delaystream.engine.ports import TopicPartition

_CONSUMER: Final = -1
#: the purpose of short requests about a partition
PURPOSE: Final = "offsets"

READ_UNCOMMITTED: Final = 0
READ_COMMITTED: Final = 1
#: in place of a timestamp: the first retained offset
EARLIEST: Final = -2
#: in place of a timestamp: the high watermark, or the last stable offset for READ_COMMITTED
LATEST: Final = -1


async def list_offsets(
    connections: KafkaConnections,
    leader: int,
    partitions: Iterable[TopicPartition],
    timestamp: int,
    isolation: int = READ_UNCOMMITTED,
) -> dict[TopicPartition, tuple[int, int]]:
    """(error code, offset) of each partition of a leader; raises one of CONNECTION_ERRORS."""
    topics: dict[str, list[tuple[int, int]]] = {}
    for topic, partition in partitions:
        topics.setdefault(topic, []).append((partition, timestamp))
    request = OffsetRequest(_CONSUMER, isolation, list(topics.items()))
    response = await connections.request(leader, PURPOSE, request)
    return {
        TopicPartition(topic, partition): (code, offset)
        for topic, answers in response.topics
        for partition, code, _, offset in answers
    }
