"""The known state of the destination topics.

The requests never create a topic. They do not go through the producers, so a missing destination delays
nobody. A known answer is given at once; an old one is renewed in the background.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec
import structlog
from aiokafka.errors import IncompatibleBrokerVersion

from delaystream.adapters.internals.aiokafka import DescribeConfigsRequest
from delaystream.adapters.kafka.connections import (
    CONNECTION_ERRORS,
    NO_LEADER,
    KafkaConnections,
    TopicMetadata,
)
from delaystream.adapters.kafka.errors import reason, told
from delaystream.adapters.tasks import end
from delaystream.core.limits import LEAST_MARKER_AGE_MS
from delaystream.engine.ports import Destinations

logger = structlog.get_logger(__name__)

_OK: Final = 0
_PROBLEMS: Final = {
    3: "the topic does not exist",
    17: "this cannot be a topic's name",
    29: "missing ACL: Write on topic {topic}, or Describe at least",
}

_TOPIC: Final = 2
_TIMESTAMP_TYPE: Final = "message.timestamp.type"
_LOG_APPEND_TIME: Final = "LogAppendTime"
#: Size of a batch that holds an end marker alone.
_MARKER_BYTES: Final = 78
#: Smallest safe values of these topic settings. Below them a broker may refuse its own markers, and the
#: coordinator never writes these again. The second setting is the first one's name before Kafka 3.6.
_LEAST_FOR_MARKERS: Final = {
    "message.timestamp.before.max.ms": LEAST_MARKER_AGE_MS,
    "message.timestamp.difference.max.ms": LEAST_MARKER_AGE_MS,
    "max.message.bytes": _MARKER_BYTES,
    "segment.bytes": _MARKER_BYTES,
}

#: Most topics for which the last log line is remembered. Beyond that all are forgotten and logged again.
_TOLD_TOPICS: Final = 10_000
#: Most topics that are logged by name within a minute; the others are counted. Anybody can name any topic.
_TOLD_BY_NAME: Final = 20
_TOLD_EVERY_S: Final = 60.0
#: Most topics whose state is remembered, not counting those that can be written to.
_SEEN_TOPICS: Final = 10_000


class DestinationSettings(msgspec.Struct, frozen=True):
    """Bounds of the lookups, in ms."""

    #: a writable topic is looked up again, in the background, when its last look-up is older than this
    usable_age_ms: int = 60_000
    #: a topic that cannot be written is looked up again at its next use when its look-up is older than this
    problem_age_ms: int = 2_000
    #: longest wait of :meth:`KafkaDestinations.ensure`
    ensure_timeout_ms: int = 1_000
    #: a lookup is abandoned after this
    lookup_timeout_ms: int = 5_000


class _Seen(msgspec.Struct, frozen=True):
    partitions: int
    problem: str | None
    at_s: float


class KafkaDestinations(Destinations):
    """Shared by the processors of a worker; all calls come from one event loop.

    ``settings`` are connection settings by aiokafka's names; ``now_s`` is a monotonic clock.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        bounds: DestinationSettings | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bounds = bounds or DestinationSettings()
        self._connections = KafkaConnections(settings, request_timeout_ms=self._bounds.lookup_timeout_ms)
        self._now_s = now_s
        self._seen: dict[str, _Seen] = {}
        self._lookups: dict[str, asyncio.Task[None]] = {}
        #: the last line logged about a topic; while it cannot be written to, it is looked up every few
        #: seconds
        self._told: dict[str, str | None] = {}
        #: since when topics are logged by name, how many were, and how many were only counted
        self._telling_since_s = now_s()
        self._told_by_name = self._counted = 0

    def partitions(self, topic: str) -> int:
        """Partition count as last seen; 0 when the topic cannot be written or is not known."""
        seen = self._seen.get(topic)
        if seen is None:
            return 0
        if seen.partitions and self._age_ms(seen) > self._bounds.usable_age_ms:
            self._look_up([topic])
        return seen.partitions

    def problem(self, topic: str) -> str | None:
        """Why a topic cannot be written; None when it can be, or was never looked up."""
        seen = self._seen.get(topic)
        return None if seen is None else seen.problem

    def age_ms(self, topic: str) -> float:
        """Age of the last answer about a topic."""
        seen = self._seen.get(topic)
        return math.inf if seen is None else self._age_ms(seen)

    async def ensure(self, topics: Iterable[str], within_ms: float = math.inf) -> None:
        """Look up the topics that are unknown or not fresh; stops waiting after ``ensure_timeout_ms``."""
        wanted = [topic for topic in topics if not self._is_fresh(topic, within_ms)]
        if wanted:
            self._look_up(wanted)
            lookups = {self._lookups[topic] for topic in wanted if topic in self._lookups}
            if lookups:
                await asyncio.wait(lookups, timeout=self._bounds.ensure_timeout_ms / 1000)

    def invalidate(self, topic: str) -> None:
        """Forget a topic that a broker refused, so that it is looked up before its next use."""
        self._seen.pop(topic, None)

    async def close(self) -> None:
        """Cancel running lookups and close the connections."""
        await end(list(set(self._lookups.values())))
        await self._connections.close()

    def _is_fresh(self, topic: str, within_ms: float) -> bool:
        seen = self._seen.get(topic)
        if seen is None:
            return False
        limit_ms = self._bounds.usable_age_ms if seen.partitions else self._bounds.problem_age_ms
        return self._age_ms(seen) <= min(limit_ms, within_ms)

    def _age_ms(self, seen: _Seen) -> float:
        return (self._now_s() - seen.at_s) * 1000

    def _look_up(self, topics: Iterable[str]) -> None:
        """Start one lookup for the topics that no running lookup covers."""
        wanted = [topic for topic in topics if topic not in self._lookups]
        if wanted:
            lookup = asyncio.create_task(self._describe(wanted))
            for topic in wanted:
                self._lookups[topic] = lookup

    async def _describe(self, topics: list[str]) -> None:
        try:
            async with asyncio.timeout(self._bounds.lookup_timeout_ms / 1000):
                described = await self._connections.describe(topics, authorizations=True)
                judged = {topic: self._judged(described[topic]) for topic in topics}
                usable = [topic for topic, seen in judged.items() if seen.problem is None]
                for topic, problem in (await self._endless(usable)).items():
                    judged[topic] = _Seen(0, problem, self._now_s())
        except CONNECTION_ERRORS as error:
            # Known answers stay. A silent Kafka says nothing about the other topics.
            logger.debug("destinations could not be looked up", topics=topics, error=reason(error))
        else:
            for topic, seen in judged.items():
                if seen.problem is not None and seen.problem != self._told.get(topic):
                    self._tell(topic, seen.problem)
                if len(self._told) >= _TOLD_TOPICS:
                    self._told.clear()
                self._told[topic] = seen.problem
                self._remember(topic, seen)
        finally:
            for topic in topics:
                del self._lookups[topic]

    def _tell(self, topic: str, problem: str) -> None:
        """Log what is wrong with a topic; when there are many, log their number."""
        now_s = self._now_s()
        if now_s - self._telling_since_s >= _TOLD_EVERY_S:
            self._telling_since_s, self._told_by_name = now_s, 0
            if self._counted:
                logger.warning("more destinations cannot be written to", count=self._counted, topic=topic)
                self._counted = 0
        if self._told_by_name < _TOLD_BY_NAME:
            self._told_by_name += 1
            logger.warning("a destination cannot be written to", topic=topic, problem=problem)
        else:
            self._counted += 1

    def _remember(self, topic: str, seen: _Seen) -> None:
        if len(self._seen) >= _SEEN_TOPICS and topic not in self._seen:
            self._seen = {name: known for name, known in self._seen.items() if known.partitions}
        self._seen[topic] = seen

    async def _endless(self, topics: list[str]) -> dict[str, str]:
        """The topics in which a transaction may never end, each with the reason.

        Topics are left out when we may not read their settings, or when no broker answers.
        """
        if not topics:
            return {}
        names = [_TIMESTAMP_TYPE, *_LEAST_FOR_MARKERS]
        request = DescribeConfigsRequest([(_TOPIC, topic, names) for topic in topics])
        try:
            response = await self._connections.ask_any(request)
        except IncompatibleBrokerVersion:
            return {}
        found = {}
        for code, _, _, topic, entries in response.resources:
            settings = {name: value for name, value, *_ in entries} if code == _OK else {}
            if problem := marker_refused(settings):
                found[topic] = problem
        return found

    def _judged(self, topic: TopicMetadata) -> _Seen:
        problem = None
        if topic.error_code != _OK:
            problem = _PROBLEMS.get(topic.error_code, told(topic.error_code)).format(topic=topic.name)
        elif not topic.writable:
            problem = f"missing ACL: Write on topic {topic.name}"
        elif NO_LEADER in topic.leaders:
            problem = f"partition {topic.leaders.index(NO_LEADER)} has no leader"
        return _Seen(0 if problem else len(topic.leaders), problem, self._now_s())


def marker_refused(settings: Mapping[str, str | None]) -> str | None:
    """Why a broker may refuse its own transaction marker in a topic with these settings; None: it accepts it.

    The coordinator (up to Kafka 4.3 at least) treats such a refusal as a bug of its own and does not try
    again. The transactional id is then blocked until another broker coordinates it, or the same broker has
    restarted. One partition added to a transaction is enough: an abort writes a marker, too.
    """
    for name, least in _LEAST_FOR_MARKERS.items():
        timestamp = name.startswith("message.timestamp")
        if timestamp and settings.get(_TIMESTAMP_TYPE) == _LOG_APPEND_TIME:
            continue
        value = settings.get(name)
        if value is not None and int(value) < least:
            instead = f" or {_TIMESTAMP_TYPE}={_LOG_APPEND_TIME}" if timestamp else ""
            return (
                f"{name}={value} may keep a transaction from ever ending, because the broker refuses its own "
                f"marker: set {least} or more{instead}"
            )
    return None
