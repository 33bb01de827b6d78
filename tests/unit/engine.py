"""A whole partition in memory, in virtual time: for tests of what the processor decides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any

from msgspec.structs import replace

from delaystream.codec.requests.headers import RequestParser
from delaystream.core.destinations import DestinationFilter
from delaystream.core.identity import split_fire_id
from delaystream.core.limits import Limits
from delaystream.engine.observer import Observer, Silence
from delaystream.engine.policy.tenants import Tenant, Tenants
from delaystream.engine.ports import (
    Headers,
    Ports,
    Sources,
    TopicPartition,
)
from delaystream.engine.processor import PartitionProcessor
from delaystream.engine.settings import EngineSettings
from delaystream.testing import (
    LogRecord,
    LoopClock,
    MemoryChangelog,
    MemoryDestinations,
    MemoryLog,
    MemoryProducer,
    MemorySources,
    MemoryStateStores,
    VirtualTimeLoop,
)

#: Control headers by their names, without the prefix and with `_` for `-`.
Definitions = Mapping[str, str]
NO_CONTROL: Definitions = MappingProxyType({})

REQUESTS = "delay-requests"
OWN = ("delay-commands", "delay-wheel-changelog", "delay-dead-letters", "delay-events")
RECEIPTS = "delay-receipts"


class Watch(Silence):
    """Counts what failed as nobody expected."""

    def __init__(self) -> None:
        self.internal_errors = 0

    def internal_error(self, partition: int) -> None:
        self.internal_errors += 1


class Engine:
    """One or more partitions of a worker, their topics, and a hand to produce and read with."""

    def __init__(self, loop: VirtualTimeLoop, partitions: int = 1, **settings: Any) -> None:
        self.loop = loop
        #: the worker's
        self.clock = LoopClock(loop)
        self.brokers_clock = LoopClock(loop)
        self.log = MemoryLog(self.brokers_clock.now_ms)
        self.settings = EngineSettings(partitions=partitions, **settings)
        self.log.create_topic(REQUESTS, partitions)
        self.log.create_topic("delay-commands", partitions)
        self.log.create_topic("delay-wheel-changelog", partitions, compacted=True, append_time=True)
        self.log.create_topic("delay-dead-letters", 1)
        self.log.create_topic("delay-events", 1)
        for topic in ("orders", "emails", "late", "replies", RECEIPTS):
            self.log.create_topic(topic, 1)
        self.stores = MemoryStateStores()
        self.watch = Watch()
        #: set by a test that has the engine fail
        self.may_fail = False
        self.processors: list[PartitionProcessor] = []
        self.lives: list[asyncio.Task[None]] = []
        #: in place of the one that counts
        self.observer: Observer | None = None

    def start(
        self,
        sources: Callable[[int], Sources] | None = None,
        tenants: Tenants | None = None,
        **ports_changed: Any,
    ) -> None:
        """Start a processor for each partition; sources and ports may be others than those in memory."""
        parser = RequestParser(DestinationFilter(["*"], [REQUESTS, *OWN], RECEIPTS), Limits(), None)
        ports = Ports(
            lambda partition: MemoryProducer(self.log, f"delaystream-{partition}", "delaystream"),
            lambda partition: MemoryChangelog.open(self.log, "delay-wheel-changelog", partition),
            self.stores,
            MemoryDestinations(self.log),
            self.clock,
        )
        ports = replace(ports, **ports_changed)
        sources = sources or (
            lambda partition: MemorySources(self.log, [REQUESTS, "delay-commands"], partition)
        )
        self.processors = [
            PartitionProcessor(
                partition,
                self.settings,
                ports,
                sources(partition),
                tenants or Tenants(Tenant(parser)),
                self.observer or self.watch,
            )
            for partition in range(self.settings.partitions)
        ]
        self.lives = [self.loop.create_task(processor.run()) for processor in self.processors]

    async def stop(self) -> None:
        """Stop them; whatever they raised is raised."""
        for processor in self.processors:
            await processor.stop()
        await asyncio.gather(*self.lives)
        assert self.may_fail or not self.watch.internal_errors

    def request(
        self,
        value: bytes | None = b"value",
        key: bytes | None = b"key",
        foreign: Headers = (),
        partition: int = 0,
        timestamp_ms: int | None = None,
        control: Definitions = NO_CONTROL,
        **named: str,
    ) -> int:
        """Produce a request; its control headers by name, without the prefix: `named`, then `control`."""
        texts = {**named, **control}
        headers = [(f"delaystream-{name.replace('_', '-')}", text.encode()) for name, text in texts.items()]
        at = timestamp_ms if timestamp_ms is not None else self.clock.now_ms()
        return self.log.append(TopicPartition(REQUESTS, partition), (key, value, [*headers, *foreign], at))

    def read(self, topic: str) -> list[LogRecord]:
        """All that a read_committed reader gets from a topic, partition by partition."""
        return [record for _, record in self.log.all(topic)]


def triggered(fire: str) -> bool:
    """Whether a command asked for a fire, by its id."""
    name = split_fire_id(fire)
    assert name is not None, fire
    return name.triggered


def header(record: LogRecord, name: str) -> str:
    """The value of a delivery's own header."""
    value = next(value for key, value in record.headers if key == f"delaystream-{name}")
    assert value is not None
    return value.decode()


async def carried_out(engine: Engine, test: Coroutine[Any, Any, None]) -> None:
    """Run a test of a started engine, and stop it, also where the test fails.

    Else its tasks are destroyed while pytest shows the failure, and pytest dies of that (Python 3.11).
    """
    try:
        await test
    except BaseException:
        for life in engine.lives:
            life.cancel()
        await asyncio.gather(*engine.lives, return_exceptions=True)
        raise
    await engine.stop()


def in_virtual_time(test: Callable[[Engine], Coroutine[Any, Any, None]], **settings: Any) -> None:
    """Run a test against a started engine, and stop it."""
    with VirtualTimeLoop() as loop:

        async def run() -> None:
            engine = Engine(loop, **settings)
            engine.start()
            await carried_out(engine, test(engine))

        loop.run_until_complete(run())
