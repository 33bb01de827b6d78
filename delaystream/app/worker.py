"""A worker: made from the settings, run until a signal or a failure, ended with an exit code."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import structlog
from aiokafka.errors import KafkaError

from delaystream import __version__
from delaystream.adapters.batch_fetcher import ReaderSettings
from delaystream.adapters.client_config import ClientConfig
from delaystream.adapters.clock import ClockWatch, SystemClock
from delaystream.adapters.data_directory import DataDirectory
from delaystream.adapters.faust_host import FaustCrashed, HostSettings, PartitionHost
from delaystream.adapters.http import HttpError, HttpServer
from delaystream.adapters.kafka_batches import BatchLimits
from delaystream.adapters.kafka_changelog import AiokafkaChangelog
from delaystream.adapters.kafka_metadata import KafkaDestinations
from delaystream.adapters.kafka_producer import AiokafkaTransactionalProducer
from delaystream.adapters.kafka_source_bounds import KafkaSourceBounds
from delaystream.adapters.lost_markers import Traces
from delaystream.adapters.metrics import PrometheusObserver
from delaystream.adapters.producer_settings import ProducerSettings
from delaystream.adapters.rocksdb_store import RocksDbSettings, RocksDbStores
from delaystream.adapters.surroundings_metrics import ClockSkew, StateDisk
from delaystream.adapters.watchdog import Watchdog
from delaystream.app.surroundings import Surroundings, look_around
from delaystream.app.tenants import require_shares, tenants_of
from delaystream.config import ConfigurationError, Settings
from delaystream.engine.pace import Pace
from delaystream.engine.ports import (
    Changelog,
    LogUnavailable,
    Misconfigured,
    Ports,
    Sources,
    StoreFailed,
    TopicPartition,
    TransactionalProducer,
)
from delaystream.engine.processor import PartitionProcessor
from delaystream.engine.settings import EngineSettings
from delaystream.exit_codes import ExitCode

if TYPE_CHECKING:
    from delaystream.adapters.tracing import Tracing

logger = structlog.get_logger(__name__)

#: Cyclic garbage collection walks the records that are held; this often, and the oldest seldom.
_GC_THRESHOLDS: Final = (200_000, 20, 100)
#: Longest wait, at the very end, for tasks that were cancelled.
_CANCEL_S: Final = 2.0
#: More than a recovery may wait for an open transaction on the changelog.
_STARTING_MARGIN_MS: Final = 30_000


def run_worker(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT (then 0), or until it cannot go on; returns the process's exit code.

    Blocks; to be called in the main thread, once in a process. Never returns while a thread hangs that would
    keep the process alive: then the process ends here.
    """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(_serve(settings))
        code = ExitCode.OK
    except Exception as failure:  # noqa: BLE001  # the crash boundary of the process
        code = _explain(failure)
    loop.run_until_complete(_cancel_rest())
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


async def _serve(settings: Settings) -> None:
    client = _client(settings)
    settings.require_for_worker()
    stop = _signals()
    async with AsyncExitStack() as stack:
        directory = DataDirectory.acquire(settings.data_dir, settings.app_id)
        stack.callback(directory.release)
        worker = _Worker(settings, client, directory, stack)
        logger.info(
            "worker starts",
            version=__version__,
            app_id=settings.app_id,
            request_topics=settings.request_topics,
            data_dir=str(directory.path),
            pid=os.getpid(),
        )
        looking = asyncio.create_task(asyncio.to_thread(look_around, settings, client))
        if await _first(looking, stop):
            worker.compose(await looking)
            await worker.run(stop)
    logger.info("worker stopped")


class _Worker:
    """The parts of one worker. The HTTP server is there from the start, to say that nothing is ready."""

    def __init__(
        self, settings: Settings, client: ClientConfig, directory: DataDirectory, stack: AsyncExitStack
    ) -> None:
        self._settings = settings
        self._client = client
        self._directory = directory
        self._stack = stack
        self._observer = PrometheusObserver(
            SystemClock(),
            destinations=settings.metrics_destinations,
            hours_ahead=settings.metrics_hours_ahead,
        )
        self._clock_skew = ClockSkew()
        for collector in (self._clock_skew, StateDisk(directory.path)):
            self._observer.registry.register(collector)
        self._tenants = tenants_of(settings)
        #: by partition
        self._traces: dict[int, Traces] = {}
        self._limits = BatchLimits(_producer_settings(settings, client).max_batch_bytes)
        self._tracing = _tracing(settings)
        if self._tracing is not None:
            stack.callback(self._tracing.close)
        connection = client.aiokafka()
        self._destinations = KafkaDestinations(connection)
        self._source_bounds = KafkaSourceBounds(connection)
        stack.push_async_callback(self._destinations.close)
        stack.push_async_callback(self._source_bounds.close)
        self._host = PartitionHost(
            _host_settings(settings, client),
            self._new_processor,
            self._source_bounds,
            lambda: _stored_partitions(directory.path),
        )
        self._watchdog = Watchdog(
            self._host,
            settings.progress_timeout_ms,
            settings.stable_timeout_ms + settings.session_timeout_ms + _STARTING_MARGIN_MS,
        )
        self._ports: Ports | None = None
        self._engine: EngineSettings | None = None
        http = HttpServer(
            settings.http_host, settings.http_port, lambda: self._watchdog.report, self._exposition
        )
        http.start()
        stack.callback(http.stop)

    def compose(self, surroundings: Surroundings) -> None:
        """Make what depends on the cluster."""
        settings = self._settings
        self._observer.request_partitions(surroundings.partitions)
        require_shares(settings, surroundings.partitions)
        self._observer.quotas(
            {topic: settings.requests(topic).max_pending for topic in settings.request_topics}
        )
        self._engine = msgspec.structs.replace(
            settings.engine(surroundings.partitions),
            changelog_delete_retention_ms=surroundings.delete_retention_ms,
        )
        self._ports = Ports(
            new_producer=self._new_producer,
            open_changelog=self._open_changelog,
            stores=RocksDbStores(
                self._directory,
                RocksDbSettings(
                    block_cache_bytes=settings.rocksdb_block_cache_bytes,
                    write_buffer_bytes=settings.rocksdb_write_buffer_bytes,
                ),
            ),
            destinations=self._destinations,
            clock=SystemClock(),
            pace=Pace(settings.transactions_per_second),
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until asked to stop; raises what ended it otherwise."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        watching = [
            asyncio.create_task(self._watchdog.run()),
            asyncio.create_task(ClockWatch(SystemClock()).run()),
        ]
        serving = asyncio.create_task(self._host.run())
        try:
            if await _first(serving, stop):
                await serving
            self._watchdog.stopping = True
            await self._host.stop()
            await serving
        except BaseException:
            # A processor that is left alone would commit on, unwatched.
            self._watchdog.stopping = True
            await self._host.stop()
            raise
        finally:
            for task in watching:
                task.cancel()

    def _exposition(self) -> bytes:
        self._observer.ready(self._watchdog.report.ready)
        return self._observer.exposition()

    def _new_processor(self, partition: int, sources: Sources) -> PartitionProcessor:
        assert self._engine is not None
        assert self._ports is not None
        if partition >= self._engine.partitions:
            raise Misconfigured(
                f"The request topics have grown: partition {partition} is assigned, and there were "
                f"{self._engine.partitions} when the worker started. The owners of ids depend on that number."
            )
        if self._tracing is not None:
            sources = self._tracing.sources(partition, sources)
        return PartitionProcessor(
            partition, self._engine, self._ports, sources, self._tenants, self._observer
        )

    def _new_producer(self, partition: int) -> TransactionalProducer:
        settings = self._settings
        producer = AiokafkaTransactionalProducer(
            self._client.aiokafka_producer(),
            f"{settings.app_id}-{partition}",
            settings.app_id,
            bounds=_producer_settings(settings, self._client),
            limits=self._limits,
            swept=TopicPartition(settings.changelog_topic, partition),
            traces=self._traces.setdefault(partition, Traces()),
            appended=self._clock_skew.appended,
        )
        return producer if self._tracing is None else self._tracing.producer(partition, producer)

    async def _open_changelog(self, partition: int) -> Changelog:
        return await AiokafkaChangelog.open(
            self._client.aiokafka(), self._settings.changelog_topic, partition
        )


# -- the settings of the parts -----------------------------------------------------------------------


def _client(settings: Settings) -> ClientConfig:
    client = ClientConfig.parse(settings.kafka)
    client.aiokafka()  # reads the certificates
    return client


def _tracing(settings: Settings) -> Tracing | None:
    if settings.tracing == "off":
        return None
    try:
        from delaystream.adapters.tracing import TracedTopics, Tracing  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            [f"tracing = otlp needs {error.name}: install delaystream[tracing], or set tracing = off."]
        ) from error
    topics = TracedTopics(
        frozenset(settings.request_topics),
        settings.changelog_topic,
        settings.dead_letters_topic,
        frozenset(settings.own_topics),
    )
    return Tracing(topics)


def _host_settings(settings: Settings, client: ClientConfig) -> HostSettings:
    return HostSettings(
        topics=(*settings.request_topics, settings.commands_topic),
        reader=ReaderSettings(
            client=client.aiokafka_consumer(),
            group_id=settings.app_id,
            group_instance_id=settings.instance_id,
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=min(500, settings.session_timeout_ms // 3),
        ),
    )


def _producer_settings(settings: Settings, client: ClientConfig) -> ProducerSettings:
    timeout_ms = settings.transaction_timeout_ms
    return ProducerSettings(
        transaction_timeout_ms=timeout_ms,
        commit_timeout_ms=timeout_ms * 8 // 10,
        write_timeout_ms=timeout_ms * 5 // 10,
        request_timeout_ms=timeout_ms * 25 // 100,
        max_record_bytes=settings.max_message_bytes,
        compression=client.compression or "none",
    )


def _stored_partitions(directory: Path) -> list[int]:
    return [int(entry.name) for entry in directory.iterdir() if entry.name.isdecimal()]


# -- the process ----------------------------------------------------------------------------------------


def _signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set; a second signal ends the process at once."""
    stop = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            logger.warning("a second signal: ended without waiting", signal=number.name)
            os._exit(128 + number)
        logger.info("stopping", signal=number.name)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return stop


async def _first(work: asyncio.Task[object], stop: asyncio.Event) -> bool:
    """Wait for work to be done or for the stop; whether it was the work."""
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    return work.done()


async def _cancel_rest() -> None:
    """Cancel what is left; Faust's services may ignore that, so not for long."""
    rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in rest:
        task.cancel()
    if rest:
        await asyncio.wait(rest, timeout=_CANCEL_S)


def _explain(failure: BaseException) -> ExitCode:
    """Log why the worker ends; the code tells a script whether a restart may help."""
    cause = failure.__cause__ if isinstance(failure, FaustCrashed) and failure.__cause__ else failure
    codes: list[tuple[type[BaseException] | tuple[type[BaseException], ...], ExitCode]] = [
        ((Misconfigured, ConfigurationError, HttpError), ExitCode.CONFIGURATION),
        (StoreFailed, ExitCode.NO_STORAGE),
        ((LogUnavailable, KafkaError), ExitCode.UNAVAILABLE),
    ]
    for kinds, code in codes:
        if isinstance(cause, kinds):
            logger.error("the worker ends", reason=str(cause), exit_code=int(code))
            return code
    logger.critical("the worker ends: unexpected error", exit_code=int(ExitCode.CRASH), exc_info=failure)
    return ExitCode.CRASH


__all__ = ["run_worker"]
