"""All that delaystream takes from inside Faust: what for, and what of it must stay as it is.

Faust's documented parts are `faust` and `faust.types`: any module may use those. Everything else of it is
used here and nowhere else (`tests/unit/test_internals.py` sees to it), and may change with any release. So
its version is pinned, a worker refuses another one (:mod:`delaystream.adapters.internals.versions`), and each
part has a contract with the installed library in `tests/unit/test_faust_internals.py`.

Here stand the classes that Faust makes or calls, each with the method of Faust that it replaces; what
happens in their place is in `faust_transport.py` and `faust_app.py`, under names of our own.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable
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
    """Have an app whose broker has this URL scheme use the transport at ``module:Class``. A patch.

    The documented way, an entry point, is there only where the package is installed.
    Relied on: ``aliases`` is what the app looks its URL's scheme up in.
    """
    TRANSPORTS.aliases[scheme] = path


class RebalanceListener(driver.ConsumerRebalanceListener):
    """Tells the consumer's thread of a rebalance before anybody else hears of it.

    Relied on: aiokafka calls it, in the consumer's thread, as soon as it hears; ``_thread`` is the thread's
    service.
    """

    def on_partitions_revoked(self, revoked: Iterable[KafkaPartition]) -> Awaitable[None]:
        """Hear that the group rebalances."""
        cast(ConsumerThread, self._thread).on_rebalance()
        result: Awaitable[None] = super().on_partitions_revoked(revoked)
        return result


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread that owns the aiokafka consumer, with a consumer of our own making.

    Faust's own consumer has no assignment strategy but Faust's, reads uncommitted, and takes its connection
    settings from the app.
    Relied on: ``__post_init__`` runs once, when the service is made; ``_create_worker_consumer`` makes the
    consumer when it starts, in its thread; ``_consumer`` is that, None before.
    """

    #: at which Faust's services say that they start and stop
    mundane_level = "debug"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Make what the thread has of its own; once, before it starts."""

    @abstractmethod
    def new_client(self) -> aiokafka.AIOKafkaConsumer:
        """Make the consumer; in the thread."""

    @abstractmethod
    def on_rebalance(self) -> None:
        """Hear, in the thread and at once, that the group rebalances."""

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
        """Leave the client alone: it is closed in its own thread when that stops.

        Faust would close it from the main thread's loop, when a rebalance finds the app stopping.
        """

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Leave the watching to the watchdog, which exits the process; Faust would log."""


class Consumer(driver.Consumer):
    """The main thread's side of the consumer, with a thread and a loop of our own making.

    Relied on: ``_new_consumer_thread`` makes the thread, once, when the service is made; ``_drain_messages``
    is the whole life of the service that moves messages to the agents, and is told which service that is;
    whatever calls ``perform_seek`` needs nothing of it.
    """

    RebalanceListener = RebalanceListener
    mundane_level = "debug"
    thread: ConsumerThread

    @abstractmethod
    def new_thread(self) -> ConsumerThread:
        """Make the thread's service."""

    @abstractmethod
    async def hand_out(self, stopping: Callable[[], bool]) -> None:
        """Move what is fetched to the agents until it is time to stop."""

    def _new_consumer_thread(self) -> ConsumerThread:
        self.thread = self.new_thread()
        return self.thread

    async def _drain_messages(self, fetcher: Any) -> None:
        await self.hand_out(lambda: self.should_stop or fetcher.should_stop)

    async def perform_seek(self) -> None:
        """Do nothing: Faust would seek to the group's committed offsets."""


# -- the app ---------------------------------------------------------------------------------------------


class Tables(TableManager):
    """Faust's table manager without its wait of one second for tables that nobody defines.

    Relied on: beside that wait, ``_update_channels`` and the start of the recovery are all that ``on_start``
    does.
    """

    mundane_level = "debug"

    async def on_start(self) -> None:
        """Begin at once."""
        await self._update_channels()
        await self.recovery.start()


class Boot(BootStrategy):
    """Starts what consuming needs: transactions have producers of their own.

    Relied on: the app starts what its strategy lists, and these flags leave parts out.
    """

    enable_kafka_producer = False
    enable_web = False
    #: Faust's monitor samples itself every second; what matters is in our own metrics.
    enable_sensors = False


class App(faust.App):
    """A Faust app that writes nothing: neither directories, nor records.

    Relied on: ``_create_directories`` is called when the app first starts, and ``_producer_flush`` in each
    rebalance and when it stops; nothing else would touch the data directory or make the app's producer do
    anything.
    """

    BootStrategy = Boot
    mundane_level = "debug"

    def _create_directories(self) -> None:
        """Create none: there are no tables, and state is where DELAYSTREAM_DATA_DIR says."""

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
