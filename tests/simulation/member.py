"""A worker: a process that runs the processors of the partitions it believes to own, and what outlives it."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

from msgspec.structs import replace

from delaystream.codec import keys
from delaystream.codec.envelope import Envelope, encode
from delaystream.codec.requests.headers import RequestParser
from delaystream.core.destinations import DestinationFilter
from delaystream.core.limits import Limits
from delaystream.engine.failures import EngineError, Misconfigured
from delaystream.engine.observer import Phase, Silence
from delaystream.engine.policy.tenants import Tenant, Tenants
from delaystream.engine.ports import Changelog, Ports, TransactionalProducer
from delaystream.engine.processor import PartitionProcessor
from delaystream.testing import (
    Disk,
    LoopClock,
    MemoryDestinations,
    MemorySources,
    MemoryStateStores,
    Process,
)
from tests.simulation.storm import LIMITED
from tests.simulation.weather import Weather

if TYPE_CHECKING:
    from tests.simulation.world import World


class _Trace(Silence):
    def __init__(self, member: Member) -> None:
        self._member = member

    def phase(self, partition: int, phase: Phase) -> None:
        self._member.world.say(self._member.name, f"partition {partition}: {phase.value}")

    def internal_error(self, partition: int) -> None:
        self._member.world.violated(f"{self._member.name}, partition {partition}: an internal error")

    def aborted(self, partition: int, reason: str) -> None:
        self._member.world.say(self._member.name, f"partition {partition}: aborted, {reason}")


async def _challenge(processor: PartitionProcessor) -> None:
    processor.request_ownership_check()


class Member:
    """One worker; its disk and its clock stay when its process dies."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.name = f"worker-{number}"
        self.number = number
        self.clock = LoopClock(world.loop)
        self.stores = MemoryStateStores()
        self.backups: dict[int, Disk] = {}
        #: those of a machine that is away, since when it is, and since when this one is
        self._aside: dict[int, Disk] = {}
        self._aside_at_s = 0.0
        self._away_since_s = 0.0
        #: when a clock that stood still while it was away is put right
        self.right_at_s = 0.0
        #: the partitions that the group's coordinator has told it that it owns
        #: by partition: in which reign, for it may be lost and regained unnoticed
        self.owned: dict[int, int] = {}
        self.process: Process | None = None
        self.processors: dict[int, PartitionProcessor] = {}
        self.sources: dict[int, MemorySources] = {}
        self._hosted: set[int] = set()
        self._lives = 0

    @property
    def running(self) -> bool:
        """Whether its process is there, frozen or not."""
        return self.process is not None and self.process.alive

    @property
    def frozen(self) -> bool:
        """Whether it stands still."""
        return self.process is not None and self.process.paused

    # -- life

    def start(self) -> None:
        """Start its process; the partitions that it is told to own come later."""
        assert not self.running
        self._lives += 1
        self.process = Process(self.name)
        weather = Weather(self, f"{self.world.seed}-{self.name}-{self._lives}")
        self.stores._interruptions = weather
        self.owned = {}
        self.processors = {}
        self.sources = {}
        self._hosted = set()
        engine = self.world.engine
        log = self.world.log
        settings = self.world.settings

        def new_producer(partition: int) -> TransactionalProducer:
            producer = engine.producer(
                log, f"{settings.app_id}-{partition}", settings.app_id, interruptions=weather
            )
            producer.member = self
            producer.names_rows = self.world.storm.names_rows
            made: TransactionalProducer = producer
            return made

        async def open_changelog(partition: int) -> Changelog:
            changelog: Changelog = await engine.changelog.open(
                log,
                settings.changelog_topic,
                partition,
                interruptions=weather,
                batch_records=self.world.storm.batch_records,
            )
            return changelog

        self._weather = weather
        destinations = MemoryDestinations(log, interruptions=weather)
        self._ports = Ports(new_producer, open_changelog, self.stores, destinations, self.clock)
        self.world.say(self.name, "starts")

    def crash(self) -> None:
        """SIGKILL, with the loss of what the store had not flushed."""
        if not self.running:
            return
        assert self.process is not None
        self.process.kill()
        self.world.graveyard.append(self.process)
        self.stores.crash(self.world.random.choice((0, 0, 1, 5)) if self.world.storm.loses_writes else 0)
        self.owned = {}
        self._away_since_s = self.world.loop.time()
        self.world.say(self.name, "is dead")
        self.world.group.died(self)

    def own(self, partition: int, reign: int) -> None:
        """The coordinator gives it a partition, or says in a new generation that it still has it.

        It may have been another's meanwhile; the processor goes on all the same, but is told to make sure.
        """
        if not self.running:
            return
        assert self.process is not None
        if partition in self.owned:
            processor = self.processors.get(partition)
            if processor is not None:
                self.process.spawn(_challenge(processor))
        else:
            self.process.spawn(self._host(partition, self.process))
        self.owned[partition] = reign

    def disown(self, partition: int) -> None:
        """The coordinator takes a partition away; its processor is stopped."""
        if partition not in self.owned or not self.running:
            return
        assert self.process is not None
        del self.owned[partition]
        if partition in self.sources:
            self.sources[partition].assigned = False
        processor = self.processors.get(partition)
        if processor is not None:
            self.process.spawn(processor.stop())

    async def _host(self, partition: int, process: Process) -> None:
        """Run the processor of a partition for as long as it is owned."""
        world = self.world
        before = self.processors.get(partition)
        if before is not None:
            await before.stop()
        if partition in self._hosted:
            return
        self._hosted.add(partition)
        while partition in self.owned and self.process is process:
            sources = world.engine.sources(
                world.log,
                [*world.request_topics, world.settings.commands_topic],
                partition,
                interruptions=self._weather,
                batch_records=world.storm.batch_records,
            )
            self.sources[partition] = sources
            limits = Limits(max_value_bytes=4096, min_interval_ms=50)
            parser = RequestParser(DestinationFilter(["*"], world.own_topics), limits)
            limited = Tenant(parser, rates=world.tenants_rates, max_pending=world.max_pending)
            tenants = Tenants(Tenant(parser), {LIMITED: limited}, world.rates)
            settings = replace(world.settings, owner=self.name, status_interval_ms=2_000)
            processor = world.engine.processor(
                partition, settings, self._ports, sources, tenants, _Trace(self)
            )
            self.processors[partition] = processor
            try:
                await processor.run()
            except EngineError as error:
                world.say(self.name, f"partition {partition} gives up: {error!r}")
                self.crash()
            except Misconfigured as error:
                # A worker that was overtaken may take what its successor did for a loss. The owner must not.
                if world.group.owned_by(partition, self):
                    world.violated(f"{self.name}, partition {partition}: {error!r}", error)
                self.crash()
            except Exception as error:  # noqa: BLE001 - the crash boundary of a simulated process
                world.violated(f"{self.name}, partition {partition}: {error!r}", error)
                self.crash()
            if partition in self.owned and self.process is process:
                await asyncio.sleep(0.1)
        self._hosted.discard(partition)

    # -- the disk

    def tamper(self, random: Random) -> None:
        """What may have become of the local stores while no process held them."""
        for partition in range(self.world.settings.partitions):
            disk = self.stores.disks.get(partition)
            if disk is None or disk.marker is None or random.random() >= self.world.storm.tampering:
                continue
            kind = random.choice(("corrupt", "gone", "stale", "stale", "foreign", "ahead"))
            self.world.say(self.name, f"its store of partition {partition} is {kind}")
            if kind == "corrupt":
                disk.corrupt = True
            elif kind == "gone":
                del self.stores.disks[partition]
            elif kind == "stale" and partition in self.backups:
                self.stores.disks[partition] = self.backups[partition].copy()
            elif kind == "foreign":
                self.stores.disks[partition] = self._foreign(disk, "another-topic", 0)
            elif kind == "ahead":
                self.stores.disks[partition] = self._foreign(disk, None, 1_000)

    def _foreign(self, disk: Disk, topic_id: str | None, further: int) -> Disk:
        """A store with a row that the changelog knows nothing of."""
        foreign = disk.copy()
        due_ms = self.world.clock.now_ms() - 1
        foreign.put(
            keys.wheel_key(1, due_ms, 0, 77, 0), encode(Envelope(b"x", b"from elsewhere", [], due_ms))
        )
        marker = foreign.marker
        assert marker is not None
        topic_id = topic_id or marker.topic_id
        foreign.marker = replace(marker, topic_id=topic_id, position=marker.position + further)
        return foreign

    def set_aside(self) -> None:
        """Keep the disks as they are, for a machine that goes away with them."""
        self._aside = {partition: disk.copy() for partition, disk in self.stores.disks.items()}
        self._aside_at_s = self.world.loop.time()

    def bring_back(self) -> None:
        """The machine with the disks that were set aside takes the place of this one; no process runs."""
        self.world.say(self.name, "has the disks that were set aside")
        self.stores.disks.clear()
        self.stores.disks.update(self._aside)
        self._away_since_s = self._aside_at_s

    def lose_time(self, random: Random) -> None:
        """Its clock goes on from where it stood when the machine went away, and is put right a while later.

        It is behind then, not ahead: nothing that it fires is early. But what it wrote last looks young.
        """
        behind_ms = int((self.world.loop.time() - self._away_since_s) * 1000)
        self.step_clock(-behind_ms)
        self.world.say(self.name, f"its clock is {behind_ms} ms behind")
        delay_s = random.choice((1.0, 8.0))
        self.right_at_s = max(self.right_at_s, self.world.loop.time() + delay_s)
        self.world.later(delay_s, lambda: self.step_clock(behind_ms))

    def step_clock(self, step_ms: int) -> None:
        """Put its clock forward, or back; the world remembers how far from the broker's it has been."""
        world, clock = self.world, self.clock
        clock.step(step_ms)
        world.ahead_ms = max(world.ahead_ms, clock.ahead_ms)
        world.behind_ms = max(world.behind_ms, -clock.ahead_ms)

    def back_up(self) -> None:
        """Remember the disks as they are, for a stale start later."""
        self.backups = {partition: disk.copy() for partition, disk in self.stores.disks.items()}
