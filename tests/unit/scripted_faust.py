"""A Faust app of a worker on a scripted group: Faust and aiokafka are real, and nothing is sent anywhere."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiokafka
from faust.types import TP
from mode import Seconds

from delaystream.adapters.internals import faust as faust_internals
from delaystream.adapters.membership.batch_fetcher import ReaderSettings
from delaystream.adapters.membership.faust_app import BatchSchema, DelayApp
from delaystream.adapters.membership.sticky_assignor import StickyAssignor
from tests.unit.contracts import patience_s
from tests.unit.scripted_group import TOPIC, Broker, Group

SCHEME = "delaystream"
TRANSPORT = f"{__name__}:Transport"


class Thread(faust_internals.ConsumerThread):
    """Makes the scripted consumer, and notes when it is called for what."""

    consumer: Consumer
    group: Group | None = None

    def prepare(self) -> None:
        self.note("prepare")

    def note(self, what: str) -> None:
        self.consumer.notes.append((what, threading.get_ident()))

    def new_client(self) -> aiokafka.AIOKafkaConsumer:
        self.note("new_client")
        assert self.client is None
        self.group = Group(Broker())
        return self.group.consumer

    def on_rebalance(self) -> None:
        self.note("on_rebalance")

    async def on_thread_stop(self) -> None:
        await super().on_thread_stop()
        self.note("stopped")

    async def seek_to_committed(self) -> Any:
        self.note("seek_to_committed")
        return {}

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        self.note(f"assigned in the thread, {generation_id}")
        await super().on_partitions_assigned(assigned, generation_id)


class Consumer(faust_internals.Consumer):
    """Hands out nothing, and notes when it is called for what."""

    thread: Thread

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.notes: list[tuple[str, int]] = []
        self.assigned = asyncio.Event()
        self.handing = asyncio.Event()
        self.handing_out = 0
        super().__init__(*arguments, **options)

    def note(self, what: str) -> None:
        self.notes.append((what, threading.get_ident()))

    def new_thread(self) -> Thread:
        self.note("new_thread")
        return Thread(self, loop=self.loop, beacon=self.beacon)

    async def hand_out(self, stopping: Callable[[], bool]) -> None:
        self.handing_out += 1
        self.handing.set()
        try:
            while not stopping():  # noqa: ASYNC110 - Faust tells nobody
                await asyncio.sleep(0.005)
        finally:
            self.handing_out -= 1

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        self.note("revoked")
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        await super().on_partitions_assigned(assigned, generation_id)
        self.note(f"assigned {sorted(tp.partition for tp in assigned)}, {generation_id}")
        self.assigned.set()

    def noted(self) -> list[str]:
        return [what for what, _ in self.notes]


class Transport(faust_internals.Transport):
    """Kafka by a script."""

    Consumer = Consumer


class App(DelayApp):
    """A worker's app, and for how long its tables were told to sleep."""

    consumer: Consumer
    tables: faust_internals.Tables
    slept: list[Seconds]


def app() -> App:
    """A worker's; :data:`TRANSPORT` is to be the one of :data:`SCHEME`."""
    reader = ReaderSettings({"bootstrap_servers": "127.0.0.1:9"}, "group")

    class Listener:
        """Hears nothing: the scripted consumer tells nothing."""

    made = App(reader, StickyAssignor(), Listener())  # type: ignore[arg-type]

    made.slept = []

    async def sleep(n: Seconds) -> None:
        made.slept.append(n)
        await asyncio.sleep(0)

    made.tables.sleep = sleep  # type: ignore[method-assign]

    async def take(batches: Any) -> None:
        async for _ in batches:
            pass

    made.agent(made.topic(TOPIC, acks=False, schema=BatchSchema()), name="test.requests")(take)
    return made


@asynccontextmanager
async def running() -> AsyncIterator[tuple[App, Consumer]]:
    """An app that has joined its group and is stopped in the end."""
    made = app()
    consumer = made.consumer
    starting = asyncio.create_task(made.start())
    try:
        async with asyncio.timeout(patience_s.get()):
            await consumer.assigned.wait()
            await consumer.handing.wait()
        yield made, consumer
    finally:
        async with asyncio.timeout(5):
            await made.stop()
        starting.cancel()
        await asyncio.wait([starting], timeout=1)
