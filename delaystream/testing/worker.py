"""A worker whose Kafka is a log in memory and whose time is its own: the engine as it is, every partition."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import RLock
from typing import Final

from delaystream.codec.requests.headers import RequestParser
from delaystream.core.destinations import DestinationFilter
from delaystream.core.limits import Limits
from delaystream.core.partitioning import partition_for_key
from delaystream.engine.observer import Silence
from delaystream.engine.pace import Pace
from delaystream.engine.policy.tenants import Tenant, Tenants
from delaystream.engine.ports import Ports, Row, TopicPartition
from delaystream.engine.processor import PartitionProcessor
from delaystream.engine.settings import EngineSettings
from delaystream.query.partition import StoredPartition
from delaystream.testing.changelog import MemoryChangelog, MemoryDestinations
from delaystream.testing.interruption import Interruptions
from delaystream.testing.log import MemoryLog
from delaystream.testing.producer import SteadyProducer
from delaystream.testing.sources import MemorySources
from delaystream.testing.store import Disk, MemoryStateStores
from delaystream.testing.timeline import Timeline

#: Longer than any run: what a worker does every now and then for a real Kafka's sake is not done.
_NEVER_MS: Final = 10_000 * 366 * 86_400_000
#: Transactions a second: each may begin as soon as there is work for it.
_AT_ONCE: Final = 1_000_000_000
_APP_ID: Final = "delaystream"


class EngineFailedError(Exception):
    """The engine itself has failed, which is a fault of delaystream; the log has the traceback."""


@dataclass(frozen=True)
class TopicPlan:
    """Which topics there are when a worker starts.

    ``destinations`` are names with their partitions; with ``create`` any other one comes into being, with one
    partition, when it is first named.
    """

    requests: Sequence[str] = ("delay-requests",)
    partitions: int = 1
    destinations: Mapping[str, int] = field(default_factory=dict)
    create: bool = True
    receipts: str = "delay-receipts"


_NAMES: Final = EngineSettings()

OWN_TOPICS: Final = (
    _NAMES.commands_topic,
    _NAMES.changelog_topic,
    _NAMES.dead_letters_topic,
    _NAMES.events_topic,
    TopicPlan().receipts,
)
"""The topics that a worker has for itself: no request topics, and no destinations."""


class _Undisturbed:
    """Nothing happens at any point, and nobody else has a turn there."""

    async def at(self, point: str, subject: str) -> None:
        """Go on."""

    def at_once(self, point: str, subject: str) -> None:
        """Go on."""


class _Destinations(MemoryDestinations):
    """Creates what it looks for, as a broker with auto.create.topics.enable does."""

    def _look(self, name: str) -> tuple[int, str | None]:
        if name not in self._log.topics:
            self._log.create_topic(name)
        return super()._look(name)


class _Watch(Silence):
    """Remembers which partitions have failed, and when the earliest entry of each is due."""

    def __init__(self) -> None:
        self.failed: list[int] = []
        self.due_ms: dict[int, int] = {}

    def internal_error(self, partition: int) -> None:
        self.failed.append(partition)

    def pending(self, partition: int, count: int, oldest_due_ms: int | None) -> None:
        if oldest_due_ms is None or not count:  # that of what was cancelled may be left
            self.due_ms.pop(partition, None)
        else:
            self.due_ms[partition] = oldest_due_ms


class MemoryWorker:
    """All partitions of an application in one process, on a log of its own.

    Nothing happens in it but in :meth:`run`. It may be used from any thread; one is at work in it at a time.
    """

    def __init__(self, plan: TopicPlan, start_ms: int) -> None:
        self.plan = plan
        self.start_ms = start_ms
        self.lock = RLock()
        self._timeline = Timeline()
        self.settings = EngineSettings(
            app_id=_APP_ID,
            partitions=plan.partitions,
            transaction_interval_ms=0,
            idle_wait_max_ms=_NEVER_MS,
            ownership_check_ms=_NEVER_MS,
            offsets_interval_ms=_NEVER_MS,
        )
        self.log = MemoryLog(self.now_ms)
        self._stores = MemoryStateStores(lasting=True)
        self._watch = _Watch()
        self._keyless = 0
        self._create_topics()
        self._processors = self._made()
        self._lives = [self._timeline.create_task(processor.run()) for processor in self._processors]

    def now_ms(self) -> int:
        """Milliseconds since the epoch, by the only clock there is."""
        return self.start_ms + self._timeline.now_ms

    # -- time ---------------------------------------------------------------------------------

    def run(self, until_ms: int) -> bool:
        """Let happen what happens up to a time; False when it halted before, because somebody asked for that.

        Raises EngineFailedError, and what the engine ended with.
        """
        with self.lock:
            self._require_open()
            reached = self._timeline.run(until_ms - self.start_ms)
            self._raise_failures()
            return reached

    def _require_open(self) -> None:
        """Raises RuntimeError once it was stopped: nobody would ever decide on what is sent."""
        if self._timeline.is_closed():
            raise RuntimeError("The environment is closed, its `with` is over.")

    def halt(self) -> None:
        """Have :meth:`run` return before time goes on; for what is called from within it."""
        self._timeline.halted = True

    @property
    def next_ms(self) -> int | None:
        """When something happens next by itself; None: nothing does."""
        with self.lock:
            next_ms = self._timeline.next_ms
        return None if next_ms is None or next_ms >= _NEVER_MS // 2 else self.start_ms + next_ms

    @property
    def next_fire_ms(self) -> int | None:
        """When the next entry is to be looked at, of those that nothing keeps back; None: there is none.

        It is no later than the next fire. A due fire that cannot be delivered is tried again later.
        """
        with self.lock:
            due_ms = min(self._watch.due_ms.values(), default=None)
        if due_ms is None or due_ms > self.now_ms():
            return due_ms
        return self.next_ms

    def stop(self) -> None:
        """Stop every processor. Raises what one of them ended with."""
        with self.lock:
            stopping = [self._timeline.create_task(processor.stop()) for processor in self._processors]
            self._timeline.run(self._timeline.now_ms)
            self._end(*stopping, *self._lives)
            self._raise_failures()

    def abandon(self) -> None:
        """Let go of everything, whatever state it is in."""
        with self.lock:
            self._end(*self._lives)

    def _end(self, *tasks: asyncio.Task[None]) -> None:
        for task in tasks:
            task.cancel()
        self._timeline.run(self._timeline.now_ms)
        self._timeline.close()

    def _raise_failures(self) -> None:
        if self._watch.failed:
            partitions = sorted(set(self._watch.failed))
            self._watch.failed.clear()
            raise EngineFailedError(
                f"The engine failed on partition {', '.join(map(str, partitions))} unexpectedly: please "
                "report it with the traceback that the logger delaystream.engine has written."
            )
        for life in self._lives:
            if life.done() and not life.cancelled() and (failure := life.exception()) is not None:
                raise failure
        if self._timeline.failures:
            raise self._timeline.failures.pop(0)

    # -- topics -------------------------------------------------------------------------------

    def partitions(self, topic: str) -> int:
        """Of a topic; 0 where there is none."""
        with self.lock:
            found = self.log.topics.get(topic)
            return 0 if found is None else len(found.partitions)

    def create(self, topic: str, partitions: int = 1) -> None:
        """Create a topic, unless it is there."""
        with self.lock:
            if topic not in self.log.topics:
                self.log.create_topic(topic, partitions)

    def append(self, topic: str, partition: int | None, row: Row) -> tuple[int, int]:
        """Append a record as an ordinary producer does; its partition and offset.

        Without a partition it goes where its key belongs, as Java's clients have it. Raises LogError.
        """
        with self.lock:
            self._require_open()
            if partition is None:
                count = max(1, self.partitions(topic))
                if row[0] is None:
                    partition = self._keyless = (self._keyless + 1) % count
                else:
                    partition = partition_for_key(row[0], count)
            return partition, self.log.append(TopicPartition(topic, partition), row)

    def subscribe(self, topic: str, listener: Callable[[], None]) -> None:
        """Call a listener, within :meth:`run` or :meth:`append`, whenever a topic has more to read."""
        with self.lock:
            self.log.subscribe(
                [TopicPartition(topic, number) for number in range(self.partitions(topic))], listener
            )

    def state(self) -> Iterator[StoredPartition]:
        """The stored state of each partition."""
        with self.lock:
            for partition in range(self.settings.partitions):
                yield StoredPartition(self._stores.disks.get(partition, Disk()))

    # -- making -------------------------------------------------------------------------------

    def _create_topics(self) -> None:
        plan, settings, create = self.plan, self.settings, self.log.create_topic
        for name in (*plan.requests, settings.commands_topic):
            create(name, plan.partitions)
        create(settings.changelog_topic, plan.partitions, compacted=True, append_time=True)
        for name in (settings.dead_letters_topic, settings.events_topic, plan.receipts):
            create(name)
        for name, partitions in plan.destinations.items():
            create(name, partitions)

    def _made(self) -> list[PartitionProcessor]:
        plan, settings, log = self.plan, self.settings, self.log
        undisturbed: Interruptions = _Undisturbed()
        own = [*plan.requests, *OWN_TOPICS]
        parser = RequestParser(DestinationFilter(["*"], own, plan.receipts), Limits())
        destinations = _Destinations if plan.create else MemoryDestinations
        ports = Ports(
            lambda partition: SteadyProducer(log, f"{_APP_ID}-{partition}", _APP_ID),
            lambda partition: MemoryChangelog.open(
                log, settings.changelog_topic, partition, interruptions=undisturbed
            ),
            self._stores,
            destinations(log, interruptions=undisturbed),
            self,
            Pace(_AT_ONCE),
        )
        return [
            PartitionProcessor(
                partition,
                settings,
                ports,
                MemorySources(
                    log, [*plan.requests, settings.commands_topic], partition, interruptions=undisturbed
                ),
                Tenants(Tenant(parser)),
                self._watch,
            )
            for partition in range(plan.partitions)
        ]
