"""Every private part of Faust that delaystream uses: its purpose, and the behaviour that it relies on.

Faust's documented parts are `faust` and `faust.types`: any module may use those. Everything else of it is
used here and nowhere else (`tests/unit/test_internals.py` sees to it), and may change with any release. So
its version is pinned, a worker refuses another one (:mod:`delaystream.adapters.internals.versions`), and each
part has a contract with the installed library in `tests/unit/test_faust_internals.py`.

This module has the classes that Faust makes or calls, each with the Faust methods that it replaces. The
replacements are in `faust_transport.py` and `faust_app.py`, under names of our own.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, cast

import aiokafka
import faust
from aiokafka.structs import TopicPartition as KafkaPartition
from faust.app.base import BootStrategy
from faust.tables.manager import TableManager
from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

# -- the transport ---------------------------------------------------------------------------------------


def register_transport(scheme: str, path: str) -> None:
    """Make apps whose broker URL has this scheme use the transport at ``module:Class``. A patch.

    The documented way is an entry point, which exists only where the package is installed.
    Relied on: the app looks up its URL's scheme in ``aliases``.
    """
    TRANSPORTS.aliases[scheme] = path


class RebalanceListener(driver.ConsumerRebalanceListener):
    """Informs the consumer's thread of a rebalance before anybody else.

    Relied on: aiokafka calls it, in the consumer's thread, as soon as it hears; ``_thread`` is the thread's
    service.
    """

    def on_partitions_revoked(self, revoked: Iterable[KafkaPartition]) -> Awaitable[None]:
        """Take the news that the group rebalances."""
        cast(ConsumerThread, self._thread).on_rebalance()
        result: Awaitable[None] = super().on_partitions_revoked(revoked)
        return result


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread that owns the aiokafka consumer; it creates the consumer as we need it.

    Faust's own consumer knows only Faust's assignment strategy, reads uncommitted records, and takes its
    connection settings from the app.
    Relied on: ``__post_init__`` runs once, when the service is made; ``_create_worker_consumer`` makes the
    consumer when it starts, in its thread; ``_consumer`` is that consumer, and None before.
    """

    #: the log level at which Faust's services say that they start and stop
    mundane_level = "debug"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Make the thread's own objects; called once, before it starts."""

    @abstractmethod
    def new_client(self) -> aiokafka.AIOKafkaConsumer:
        """Make the consumer; called in the thread."""

    @abstractmethod
    def on_rebalance(self) -> None:
        """Take the news that the group rebalances; called at once, in the thread."""

    @property
    def client(self) -> aiokafka.AIOKafkaConsumer | None:
        """The consumer; None before the thread has started."""
        return self._consumer

    @property
    def started_client(self) -> aiokafka.AIOKafkaConsumer:
        """The consumer; raises faust.exceptions.ConsumerNotStarted before the thread has started."""
        return self._ensure_consumer()

    def _create_worker_consumer(self, transport: driver.Transport) -> aiokafka.AIOKafkaConsumer:
        return self.new_client()

    def close(self) -> None:
        """Do nothing: the client is closed in its own thread when that stops.

        Faust would close it from the main thread's loop when the app stops during a rebalance.
        """

    async def on_thread_stop(self) -> None:
        """Stop the client, which fetches no more.

        aiokafka cancels its fetches and awaits them. One that waits to ask a broker again raises, and Faust's
        thread would end with a traceback.
        """
        with suppress(asyncio.CancelledError):
            await super().on_thread_stop()

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Do nothing: the watchdog watches, and ends the process. Faust would only log."""


class Consumer(driver.Consumer):
    """The main thread's side of the consumer, with our own thread and our own loop.

    Relied on: ``_new_consumer_thread`` makes the thread, once, when the service is made; ``_drain_messages``
    is all that the service which moves messages to the agents runs, and gets that service as an argument; no
    caller of ``perform_seek`` needs a result.
    """

    RebalanceListener = RebalanceListener
    mundane_level = "debug"
    thread: ConsumerThread

    @abstractmethod
    def new_thread(self) -> ConsumerThread:
        """Make the thread's service."""

    @abstractmethod
    async def hand_out(self, stopping: Callable[[], bool]) -> None:
        """Move fetched messages to the agents until it is time to stop."""

    def _new_consumer_thread(self) -> ConsumerThread:
        self.thread = self.new_thread()
        return self.thread

    async def _drain_messages(self, fetcher: Any) -> None:
        await self.hand_out(lambda: self.should_stop or fetcher.should_stop)

    async def perform_seek(self) -> None:
        """Do nothing: Faust would seek to the group's committed offsets."""


# -- the app ---------------------------------------------------------------------------------------------


class Tables(TableManager):
    """Faust's table manager without its wait of one second for tables, of which there are none.

    Relied on: ``on_start`` does that wait, ``_update_channels`` and the start of the recovery, and nothing
    else.
    """

    mundane_level = "debug"

    async def on_start(self) -> None:
        """Begin at once."""
        await self._update_channels()
        await self.recovery.start()


class Boot(BootStrategy):
    """Starts only what consuming needs: transactions have producers of their own.

    Relied on: the app starts the services that its strategy lists, and these flags leave some out.
    """

    enable_kafka_producer = False
    enable_web = False
    #: Faust's monitor samples itself every second; our own metrics have all that matters.
    enable_sensors = False


class App(faust.App):
    """A Faust app that writes no directories and no records.

    Relied on: the app calls ``_create_directories`` when it first starts, and ``_producer_flush`` in each
    rebalance and when it stops; nothing else touches the data directory or uses the app's producer.
    """

    BootStrategy = Boot
    mundane_level = "debug"

    def _create_directories(self) -> None:
        """Create none: there are no tables, and DELAYSTREAM_DATA_DIR says where the state is."""

    async def _producer_flush(self, logger: Any) -> None:
        """Flush nothing: Faust's producer is never started."""


#: Subclassed as it is.
Transport = driver.Transport

__all__ = [
    "App",
    "Boot",
    "Consumer",
    "ConsumerThread",
    "RebalanceListener",
    "Tables",
    "Transport",
    "register_transport",
]
