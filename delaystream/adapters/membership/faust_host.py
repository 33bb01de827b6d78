"""Runs a processor for every partition that the group assigns to this worker.

Faust says who owns a partition. The host starts a processor once the full set of the partition's source
topics is assigned in a confirmed generation. It keeps the processor running (and firing) through rebalances
that leave the partition here, and stops it when the partition is gone. A processor that ends by itself was
fenced by a stale owner, or while the group was undecided. The host starts it again for as long as the
partition is here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol, cast

import msgspec
from faust.types import StreamT

from delaystream.adapters.kafka.errors import missing_right
from delaystream.adapters.kafka.source_bounds import TopicShape
from delaystream.adapters.membership.batch_fetcher import Fetched, ReaderSettings
from delaystream.adapters.membership.faust_app import BatchSchema, DelayApp
from delaystream.adapters.membership.faust_transport import Consumer
from delaystream.adapters.membership.partition_sources import PartitionSources
from delaystream.adapters.membership.static_membership import InstanceFenced
from delaystream.adapters.membership.sticky_assignor import StickyAssignor, StrategyRefused
from delaystream.adapters.tasks import end
from delaystream.engine.failures import LogUnavailable, Misconfigured
from delaystream.engine.observer import Phase
from delaystream.engine.ports import SourceBounds, Sources, TopicPartition

logger = logging.getLogger(__name__)

#: How often the host checks whether it can now start a missing processor of an assigned partition.
_VACANT_TICK_S = 0.1
#: Wait before the restart of a processor that ended by itself.
_RESTART_S = 0.5
#: How often the host checks whether a topic has more partitions, or was deleted and created anew. The group
#: notices this minutes later or never, and it does not know the changelog.
_LOOK_EVERY_S = 5.0
#: A topic with a new id is checked this many times more, at this interval: a broker may be behind.
_DOUBTED_LOOKS = 2
_DOUBTED_EVERY_S = 1.0


class Processor(Protocol):
    """A partition processor, as the host sees it."""

    phase: Phase

    @property
    def stalled_ms(self) -> int:
        """Time since the last sign of life."""
        ...

    async def run(self) -> None:
        """Live until stopped or no longer assigned."""
        ...

    def request_ownership_check(self) -> None:
        """Ask the processor to check that it still owns the partition."""
        ...

    async def stop(self) -> None:
        """Finish the current step, then end."""
        ...


class HostSettings(msgspec.Struct, frozen=True):
    """The topics that a host reads, and its time limits."""

    #: every source topic, the commands topic last
    topics: tuple[str, ...]
    reader: ReaderSettings
    #: longest wait for the processors to finish and close when the worker stops
    processors_stop_ms: int = 15_000
    #: longest wait for Faust to leave the group and close its client
    faust_stop_ms: int = 5_000


class _Running:
    """A processor at work."""

    def __init__(self, processor: Processor, sources: PartitionSources, task: asyncio.Task[None]) -> None:
        self.processor = processor
        self.sources = sources
        self.task = task
        self.stopping: asyncio.Task[None] | None = None


class PartitionStatus(msgspec.Struct, frozen=True):
    """One partition that is assigned here, or whose processor is still running."""

    partition: int
    assigned: bool
    #: None: no processor is running
    phase: Phase | None
    stalled_ms: int
    #: for how long it has been assigned without a processor, ms
    vacant_ms: int


class PartitionHost:
    """The agent's other side; everything happens on the event loop that calls :meth:`run`.

    ``new_processor`` makes the processor of a partition; ``source_bounds`` looks up log bounds. ``stored``
    returns the partitions with local state, so that the group prefers this member for them. ``shapes`` looks
    up the topics that must have the same partition count, and may raise LogUnavailable.
    """

    def __init__(
        self,
        settings: HostSettings,
        new_processor: Callable[[int, Sources], Processor],
        source_bounds: Callable[[Sequence[TopicPartition]], Awaitable[Mapping[TopicPartition, SourceBounds]]],
        stored: Callable[[], Iterable[int]] = tuple,
        shapes: Callable[[], Awaitable[Mapping[str, TopicShape]]] | None = None,
    ) -> None:
        self._settings = settings
        self._new_processor = new_processor
        self._source_bounds = source_bounds
        self._shapes = shapes
        #: of each topic: the first id that was seen, and how often in a row another one was
        self._topic_ids: dict[str, str] = {}
        self._doubts: dict[str, int] = {}
        #: partition count that the state is made for; None: unknown, and not checked
        self._partitions: int | None = None
        self._running: dict[int, _Running] = {}
        #: partitions with all of their topics here; and since when (monotonic, s) each has had no processor
        self._vacant_since: dict[int, float] = {}
        self._assigned: frozenset[int] = frozenset()
        #: partitions with only some of their topics here
        self._incomplete: frozenset[int] = frozenset()
        self._not_before: dict[int, float] = {}
        self._ever_assigned = False
        self._changed = asyncio.Event()
        self._failure: asyncio.Future[None] | None = None
        self._stopping = False
        self._app = DelayApp(settings.reader, StickyAssignor(stored), self)
        topic = self._app.topic(*settings.topics, acks=False, schema=BatchSchema())
        self._agent = self._app.agent(topic, name="delaystream.requests")(self._take_batches)

    # -- seen from outside ------------------------------------------------------------------------------

    @property
    def joined(self) -> bool:
        """True once the group has given this member an assignment, even an empty one."""
        return self._ever_assigned

    @property
    def membership_confirmed(self) -> bool:
        """True while the broker is known to hold this member's assignment valid."""
        return bool(self._ever_assigned and self._consumer.membership_confirmed)

    @property
    def consumer_failure(self) -> str | None:
        """The part of the Kafka client that has ended unreported, as a sentence; None while all is well."""
        return self._consumer.failure if self._ever_assigned else None

    @property
    def shortage(self) -> str | None:
        """Why this member lacks partitions that the group would assign to it; None when it lacks none."""
        if not self._ever_assigned:
            return None
        # This member need not have partitions of topics that only others read.
        if unknown := sorted(self._consumer.unknown_topics & set(self._settings.topics)):
            return f"the brokers do not know {', '.join(unknown)}, which every partition needs"
        if self._incomplete:
            return (
                f"partitions {_ranges(self._incomplete)} are idle here: not all of their source topics are "
                "assigned"
            )
        return None

    @property
    def corrupt_sources(self) -> frozenset[TopicPartition]:
        """Source partitions whose next record batch does not match its checksum."""
        return self._consumer.corrupt if self._ever_assigned else frozenset()

    @property
    def unpolled_ms(self) -> int:
        """Time since the fetch loop last came around, which it does every second; 0 before it starts."""
        if not self._ever_assigned or self._stopping or self._app.rebalancing:
            return 0
        return int((time.monotonic() - self._consumer.polled_at) * 1000)

    def partitions(self) -> list[PartitionStatus]:
        """Every partition that is assigned here or still has a processor, in order."""
        now = time.monotonic()
        found = []
        for partition in sorted(self._assigned | self._running.keys()):
            running = self._running.get(partition)
            since = self._vacant_since.get(partition)
            found.append(
                PartitionStatus(
                    partition,
                    partition in self._assigned,
                    running.processor.phase if running else None,
                    running.processor.stalled_ms if running else 0,
                    int((now - since) * 1000) if since is not None else 0,
                )
            )
        return found

    # -- life -------------------------------------------------------------------------------------------

    def hold_to(self, partitions: int) -> None:
        """Make :meth:`run` end with Misconfigured once a topic has more partitions than this."""
        self._partitions = partitions

    async def run(self) -> None:
        """Join the group and serve its assignments until :meth:`stop`; raises any error that ends it."""
        self._failure = asyncio.get_running_loop().create_future()
        tasks = [
            asyncio.create_task(self._app.start(), name="faust"),
            asyncio.create_task(self._watch_faust(), name="faust-watch"),
            asyncio.create_task(self._reconcile(), name="reconcile"),
            asyncio.create_task(self._watch_topics(), name="topics"),
        ]
        try:
            await asyncio.wait([self._failure, *tasks[1:]], return_when=asyncio.FIRST_COMPLETED)
            for done in (self._failure, *tasks[1:]):
                if done.done():
                    done.result()
        finally:
            await end(tasks)

    async def stop(self) -> None:
        """Stop the processors, then leave the group; within the settings' time, even if something hangs."""
        self._stopping = True
        self._changed.set()
        for partition in list(self._running):
            self._stop_processor(partition)
        if tasks := [running.task for running in self._running.values()]:
            _, hanging = await asyncio.wait(tasks, timeout=self._settings.processors_stop_ms / 1000)
            for task in hanging:
                logger.error("a partition did not stop in time: %s", task.get_name())
        try:
            async with asyncio.timeout(self._settings.faust_stop_ms / 1000):
                await self._app.stop()
        except TimeoutError:
            logger.warning("Faust did not stop in time; the group will notice when the session times out")
        if self._failure is not None and not self._failure.done():
            self._failure.set_result(None)

    async def _watch_faust(self) -> None:
        """Wait for a crash of Faust, which nobody reports: only a waiter on its app wakes."""
        await self._app.wait_for_stopped(asyncio.Event().wait())
        if self._stopping or not self._app.crashed:
            # A fetcher that is cancelled during a rebalance reports a crash, also when the cause is our own
            # stop. The processors have stopped before Faust, so nothing can be lost by then.
            assert self._failure is not None
            await self._failure
            return
        crash = self._app.crash_reason
        if refused := missing_right(crash, self._settings.reader.group_id):
            raise refused from crash
        raise FaustCrashed(f"Faust has crashed: {crash!r}") from crash

    async def _watch_topics(self) -> None:
        """Check the topics again and again; raises Misconfigured when one has changed."""
        while self._shapes is not None and not self._stopping:
            try:
                shapes = await self._shapes()
            except LogUnavailable:
                shapes = {}  # the parts that need Kafka report this
            self._refuse_growth({topic: shape.partitions for topic, shape in shapes.items()})
            self._refuse_others({topic: shape.topic_id for topic, shape in shapes.items()})
            await asyncio.sleep(_DOUBTED_EVERY_S if self._doubts else _LOOK_EVERY_S)
        assert self._failure is not None
        await self._failure

    # -- the agent -----------------------------------------------------------------------------------------

    async def _take_batches(self, batches: StreamT[Fetched]) -> None:
        try:
            async for fetched in batches:
                self._take(fetched)
        except Exception as failure:
            # Faust would log the error, start another agent and go on.
            self._fail(failure)
            raise

    def _take(self, fetched: Fetched) -> None:
        running = self._running.get(fetched.partition.partition)
        if running is not None:
            running.sources.accept(fetched)

    # -- membership ------------------------------------------------------------------------------------------

    @property
    def _consumer(self) -> Consumer:
        return cast(Consumer, self._app.consumer)

    def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Take the assignment of a new generation."""
        try:
            self._assign(partitions)
        except Exception as failure:
            # aiokafka would log the error, and go on as if the assignment had been applied.
            self._fail(failure)
            raise

    def on_fenced(self, failure: InstanceFenced) -> None:
        """End: another worker has this one's instance id."""
        self._fail(failure)

    def on_refused(self, failure: StrategyRefused) -> None:
        """End: the group's other members do not leave, and cannot share with this one."""
        self._fail(failure)

    def _assign(self, partitions: frozenset[TopicPartition]) -> None:
        seen: dict[str, int] = {}
        for topic, number in partitions:
            seen[topic] = max(seen.get(topic, 0), number + 1)
        self._refuse_growth(seen)
        topics = set(self._settings.topics)
        numbers = {p.partition for p in partitions}
        complete = frozenset(
            n for n in numbers if topics <= {p.topic for p in partitions if p.partition == n}
        )
        self._incomplete = frozenset(numbers - complete)
        if self._incomplete:
            logger.warning(
                "partitions %s are idle here: not all of their source topics are assigned",
                _ranges(self._incomplete),
            )
        kept = complete & self._running.keys()
        logger.info(
            "assigned: %s (%d kept, %d lost)",
            _ranges(complete),
            len(kept),
            len(self._running.keys() - complete),
        )
        self._assigned = complete
        self._ever_assigned = True
        now = time.monotonic()
        self._vacant_since = {p: self._vacant_since.get(p, now) for p in complete if p not in self._running}
        self._consumer.with_room.intersection_update(
            TopicPartition(topic, n) for topic in topics for n in complete
        )
        for partition in list(self._running):
            if partition in complete:
                self._running[partition].sources.continue_after_rebalance()
                self._running[partition].processor.request_ownership_check()
            else:
                self._stop_processor(partition)
        self._changed.set()

    def _refuse_growth(self, counts: Mapping[str, int]) -> None:
        """Raise Misconfigured where a topic has more partitions than the state is made for.

        One grown topic is refused just as if all had grown. Nobody reads the records on its new partitions,
        although they were acknowledged, and producers now send an id to a partition that does not own it.
        """
        known = self._partitions
        if known is None:
            return
        if grown := sorted(topic for topic, count in counts.items() if count > known):
            now = ", ".join(f"{topic} has at least {counts[topic]}" for topic in grown)
            raise Misconfigured(
                f"Topics have grown: {now} partitions, and request topics, commands and changelog had "
                f"{known} each when the worker started. The owners of ids depend on that number, and a "
                "topic never shrinks: new partitions are not read. Stop all workers and move the state "
                'to another partition count (docs/operations.md, "Moving")'
            )

    def _refuse_others(self, topic_ids: Mapping[str, str]) -> None:
        """Raise Misconfigured when several answers in a row give a topic another id than the first one.

        The new log may be as long as the old one, and reading would go on as if nothing had happened.
        """
        for topic, topic_id in topic_ids.items():
            known = self._topic_ids.setdefault(topic, topic_id)
            if topic_id == known:
                self._doubts.pop(topic, None)
                continue
            self._doubts[topic] = self._doubts.get(topic, 0) + 1
            if self._doubts[topic] > _DOUBTED_LOOKS:
                raise Misconfigured(
                    f"{topic} had the id {known} when the worker started, and now it has {topic_id}: the "
                    "topic was deleted and created anew. Everything in the old one is lost"
                )

    def is_assigned(self, partition: int) -> bool:
        """True while the partition is here in a confirmed current generation."""
        return partition in self._assigned and self.membership_confirmed

    async def _reconcile(self) -> None:
        """Start the processors that are assigned and not running."""
        while not self._stopping:
            self._changed.clear()
            now = time.monotonic()
            if self.membership_confirmed:
                for partition in sorted(self._assigned - self._running.keys()):
                    if self._not_before.get(partition, 0.0) <= now:
                        self._start_processor(partition)
            vacant = self._assigned - self._running.keys()
            try:
                async with asyncio.timeout(_VACANT_TICK_S if vacant else None):
                    await self._changed.wait()
            except TimeoutError:
                continue
        assert self._failure is not None
        await self._failure

    def _start_processor(self, partition: int) -> None:
        sources = PartitionSources(
            partition, self._settings.topics, self._consumer, self.is_assigned, self._source_bounds
        )
        processor = self._new_processor(partition, sources)
        task = asyncio.create_task(processor.run(), name=f"partition {partition}")
        self._running[partition] = _Running(processor, sources, task)
        self._vacant_since.pop(partition, None)
        task.add_done_callback(lambda ended: self._ended(partition, ended))

    def _stop_processor(self, partition: int) -> None:
        running = self._running[partition]
        if running.stopping is None:
            running.sources.close()
            running.stopping = asyncio.create_task(running.processor.stop(), name=f"stop {partition}")

    def _ended(self, partition: int, task: asyncio.Task[None]) -> None:
        running = self._running.pop(partition)
        running.sources.close()
        now = time.monotonic()
        if partition in self._assigned:
            self._vacant_since[partition] = now
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._fail(failure)
        if running.stopping is None:
            self._not_before[partition] = now + _RESTART_S
        self._changed.set()

    def _fail(self, failure: BaseException) -> None:
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(failure)


class FaustCrashed(Exception):
    """Faust, or the Kafka client under it, has ended unexpectedly."""


def _ranges(partitions: Iterable[int]) -> str:
    """Write partition numbers as people do: ``0-3, 7``."""
    runs: list[list[int]] = []
    for partition in sorted(partitions):
        if runs and partition == runs[-1][-1] + 1:
            runs[-1].append(partition)
        else:
            runs.append([partition])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs) or "none"
