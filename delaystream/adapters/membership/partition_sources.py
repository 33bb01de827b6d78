"""The source topics of one partition, read through Faust's consumer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from delaystream.adapters.membership.batch_fetcher import Fetched
from delaystream.adapters.membership.faust_transport import Consumer
from delaystream.engine.failures import LogUnavailable
from delaystream.engine.ports import SourceBatch, SourceBounds, TopicPartition

logger = logging.getLogger(__name__)

#: Interval at which the processor is told about a position that the log does not have.
_OUT_OF_RANGE_S = 1.0


class PartitionSources:
    """A :class:`~delaystream.engine.ports.Sources`; the order and completeness of its batches are checked.

    ``is_assigned`` answers for a partition; ``source_bounds`` looks up log bounds by topic partition.
    """

    def __init__(
        self,
        partition: int,
        topics: Sequence[str],
        consumer: Consumer,
        is_assigned: Callable[[int], bool],
        source_bounds: Callable[[Sequence[TopicPartition]], Awaitable[Mapping[TopicPartition, SourceBounds]]],
    ) -> None:
        self._partition = partition
        self._topics = tuple(topics)
        self._consumer = consumer
        self._is_assigned = is_assigned
        self._source_bounds = source_bounds
        self._deliver: Callable[[SourceBatch], bool] | None = None
        #: of each topic: the epoch of the last seek, and the position after the last batch delivered
        self._epochs: dict[str, int] = {}
        self._expected: dict[str, int] = {}

    @property
    def topics(self) -> Sequence[str]:
        """Every source topic, the commands topic last."""
        return self._topics

    @property
    def assigned(self) -> bool:
        """True while the full set is assigned here; false while the group is undecided."""
        return self._is_assigned(self._partition)

    async def bounds(self) -> Mapping[str, SourceBounds]:
        """Log bounds of each source topic's partition. Raises LogUnavailable."""
        wanted = self._all_partitions()
        found = await self._source_bounds(wanted)
        if missing := [partition for partition in wanted if partition not in found]:
            raise LogUnavailable(f"there are no known offsets of {missing}")
        return {partition.topic: bounds for partition, bounds in found.items()}

    def open(self, positions: Mapping[str, int], deliver: Callable[[SourceBatch], bool]) -> None:
        """Seek to the positions, then hand every further batch to ``deliver``."""
        self._deliver = deliver
        for topic in self._topics:
            self.seek(topic, positions[topic])
        self._consumer.give_room(self._all_partitions())

    def seek(self, topic: str, position: int) -> None:
        """Read on from another position; batches that are still on their way are dropped."""
        self._expected[topic] = position
        self._epochs[topic] = self._consumer.request_seek(TopicPartition(topic, self._partition), position)

    def resume(self) -> None:
        """The processor has room again."""
        if self._deliver is not None:
            self._consumer.give_room(self._all_partitions())

    def close(self) -> None:
        """Deliver no more."""
        self._deliver = None
        self._epochs.clear()
        self._consumer.take_room(self._all_partitions())

    # -- the host's side --------------------------------------------------------------------------------

    def accept(self, fetched: Fetched) -> None:
        """Deliver a batch if it was read since the last seek; it then continues the one before."""
        topic = fetched.partition.topic
        if self._deliver is None or fetched.epoch != self._epochs.get(topic):
            return
        expected = self._expected[topic]
        batch = fetched.batch
        if batch is None:
            logger.warning("%s-%d: offset %d is not in the log", topic, self._partition, expected)
            loop = asyncio.get_running_loop()
            loop.call_later(_OUT_OF_RANGE_S, self._tell_of_loss, topic, fetched.epoch)
        elif batch.start != expected:
            # A batch was dropped between the client and this point, as Faust does in a rebalance.
            self.seek(topic, expected)
        else:
            self._expected[topic] = batch.stop
            if not self._deliver(batch):
                self._consumer.take_room(self._all_partitions())

    def continue_after_rebalance(self) -> None:
        """Read on: the partition stayed here, but the new generation begins with all partitions paused."""
        if self._deliver is not None:
            for topic, position in self._expected.items():
                self.seek(topic, position)

    def _tell_of_loss(self, topic: str, epoch: int) -> None:
        """Show the processor a gap: it then looks up the log's bounds and decides."""
        if self._deliver is not None and epoch == self._epochs.get(topic):
            beyond = self._expected[topic] + 1
            self._deliver(SourceBatch(topic, [], beyond, beyond, 0))

    def _all_partitions(self) -> list[TopicPartition]:
        return [TopicPartition(topic, self._partition) for topic in self._topics]
