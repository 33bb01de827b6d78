"""Bounds of the source partitions, and the group's offsets: stored positions are checked against them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from delaystream.adapters.internals.aiokafka import FindCoordinatorRequest, OffsetFetchRequest
from delaystream.adapters.kafka.connections import CONNECTION_ERRORS, NO_LEADER, KafkaConnections
from delaystream.adapters.kafka.errors import (
    GROUP_AUTHORIZATION_FAILED,
    TOPIC_AUTHORIZATION_FAILED,
    group_refused,
    reason,
    told,
    topics_refused,
)
from delaystream.adapters.kafka.offsets import (
    EARLIEST,
    LATEST,
    PURPOSE,
    READ_COMMITTED,
    READ_UNCOMMITTED,
    list_offsets,
)
from delaystream.engine.failures import LogUnavailable
from delaystream.engine.ports import SourceBounds, TopicPartition

_OK: Final = 0
#: FindCoordinator's key type of a consumer group
_GROUP: Final = 0


class TopicShape(NamedTuple):
    """The id and the partition count of a topic: neither may change while a worker runs.

    The count alone can change without a new id.
    """

    topic_id: str
    partitions: int


class SourceEnds(NamedTuple):
    """Where a partition ends: for whoever writes, and for whoever reads only what is committed.

    Between them is what was written since the first transaction that is still open.
    """

    high_watermark: int
    last_stable_offset: int


class KafkaSourceBounds:
    """Looks up log start, high watermark, topic id and group offset, for all partitions of a worker.

    Raises LogUnavailable for a missing topic, too: it was there when the worker started, and may come back.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        group: str,
        *,
        timeout_ms: int = 10_000,
        retry_backoff_ms: int = 100,
    ) -> None:
        self._group = group
        self._connections = KafkaConnections(settings, request_timeout_ms=timeout_ms)
        self._timeout_ms = timeout_ms
        self._retry_backoff_ms = retry_backoff_ms

    async def __call__(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, SourceBounds]:
        """Bounds of every given partition. Raises LogUnavailable when one of them does not arrive in time."""
        failure = "no answer"
        try:
            async with asyncio.timeout(self._timeout_ms / 1000):
                while True:
                    try:
                        return await self._look_up(partitions)
                    except _Unanswered as error:
                        failure = str(error)
                    except CONNECTION_ERRORS as error:
                        failure = reason(error)
                    await asyncio.sleep(self._retry_backoff_ms / 1000)
        except TimeoutError:
            raise LogUnavailable(f"no log bounds: {failure}") from None

    async def shapes(self, topics: Iterable[str]) -> dict[str, TopicShape]:
        """Id and partition count of every topic that can be described now. Raises LogUnavailable."""
        try:
            async with asyncio.timeout(self._timeout_ms / 1000):
                described = await self._connections.describe(topics)
        except (TimeoutError, *CONNECTION_ERRORS) as error:
            raise LogUnavailable(f"the topics were not described: {reason(error)}") from error
        return {
            name: TopicShape(topic.topic_id, len(topic.leaders))
            for name, topic in described.items()
            if topic.error_code == _OK
        }

    async def ends(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, SourceEnds]:
        """Both ends of every partition that has a leader now; asked once. Raises LogUnavailable."""
        ends: dict[TopicPartition, SourceEnds] = {}
        try:
            async with asyncio.timeout(self._timeout_ms / 1000):
                for leader, led in await self._led(partitions):
                    # In this order: what is written in between must not look like an open transaction.
                    written = await list_offsets(self._connections, leader, led, LATEST, READ_UNCOMMITTED)
                    stable = await list_offsets(self._connections, leader, led, LATEST, READ_COMMITTED)
                    for at in led:
                        (code, high_watermark), (other_code, last_stable_offset) = written[at], stable[at]
                        if code == other_code == _OK:
                            ends[at] = SourceEnds(high_watermark, last_stable_offset)
        except (TimeoutError, *CONNECTION_ERRORS) as error:
            raise LogUnavailable(f"the ends of the logs are not known: {reason(error)}") from error
        return ends

    async def _led(self, partitions: Sequence[TopicPartition]) -> Iterable[tuple[int, list[TopicPartition]]]:
        """The partitions by their leaders, those without one left out."""
        topics = await self._connections.describe({topic for topic, _ in partitions})
        by_leader: dict[int, list[TopicPartition]] = {}
        for at in partitions:
            leaders = topics[at.topic].leaders
            if at.partition < len(leaders) and leaders[at.partition] != NO_LEADER:
                by_leader.setdefault(leaders[at.partition], []).append(at)
        return by_leader.items()

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.close()

    async def _look_up(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, SourceBounds]:
        topics = await self._connections.describe({topic for topic, _ in partitions})
        by_leader: dict[int, list[TopicPartition]] = {}
        for at in partitions:
            topic = topics[at.topic]
            _check(at, topic.error_code)
            if at.partition >= len(topic.leaders):
                raise _Unanswered(
                    f"{at.topic} has {len(topic.leaders)} partitions, {at.partition} is missing"
                )
            by_leader.setdefault(topic.leaders[at.partition], []).append(at)
        committed = await self._committed(partitions)
        bounds = {}
        for leader, led in by_leader.items():
            starts = await self._offsets(leader, led, EARLIEST)
            ends = await self._offsets(leader, led, LATEST)
            for at in led:
                topic_id = topics[at.topic].topic_id
                bounds[at] = SourceBounds(starts[at], ends[at], topic_id, committed.get(at))
        return bounds

    async def _committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The group's offsets, for the partitions that have one."""
        found = await self._connections.ask_any(FindCoordinatorRequest(self._group, _GROUP))
        if found.error_code != _OK:
            raise _Unanswered(self._refused("the coordinator", found.error_code))
        topics: dict[str, list[int]] = {}
        for topic, partition in partitions:
            topics.setdefault(topic, []).append(partition)
        request = OffsetFetchRequest(self._group, list(topics.items()))
        response = await self._connections.request(int(found.coordinator_id), PURPOSE, request)
        if response.error_code != _OK:
            raise _Unanswered(self._refused("offsets", response.error_code))
        committed: dict[TopicPartition, int] = {}
        for topic, answers in response.topics:
            for partition, offset, _, code in answers:
                at = TopicPartition(topic, partition)
                _check(at, code)
                if offset >= 0:
                    committed[at] = offset
        return committed

    def _refused(self, what: str, code: int) -> str:
        if code == GROUP_AUTHORIZATION_FAILED:
            return group_refused(self._group)
        return f"{what} of group {self._group}: {told(code)}"

    async def _offsets(
        self, leader: int, partitions: Iterable[TopicPartition], timestamp: int
    ) -> dict[TopicPartition, int]:
        answers = await list_offsets(self._connections, leader, partitions, timestamp)
        for at, (code, _) in answers.items():
            _check(at, code)
        return {at: offset for at, (_, offset) in answers.items()}


class _Unanswered(Exception):
    """An error that may be gone in a moment."""


def _check(at: TopicPartition, code: int) -> None:
    if code == TOPIC_AUTHORIZATION_FAILED:
        raise _Unanswered(topics_refused([at.topic]))
    if code != _OK:
        raise _Unanswered(f"{at.topic}-{at.partition}: {told(code)}")
