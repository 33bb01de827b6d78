"""A worker: made from the settings, runs until a signal or a failure, ends with an exit code."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Final

import msgspec
import structlog

from delaystream import __version__
from delaystream.adapters.clock import ClockWatch, SystemClock
from delaystream.adapters.internals.versions import TESTED, require_tested, untested
from delaystream.adapters.kafka.changelog import AiokafkaChangelog
from delaystream.adapters.kafka.metadata import KafkaDestinations
from delaystream.adapters.kafka.source_bounds import KafkaSourceBounds, TopicShape
from delaystream.adapters.membership.faust_host import PartitionHost
from delaystream.adapters.membership.static_membership import Fencings, InstanceFenced
from delaystream.adapters.operate.http import HttpServer
from delaystream.adapters.operate.metrics import PrometheusObserver
from delaystream.adapters.operate.preflight_metrics import ClockSkew, StateDisk
from delaystream.adapters.operate.watchdog import Watchdog
from delaystream.adapters.security.client_config import ClientConfig
from delaystream.adapters.storage.data_directory import DataDirectory
from delaystream.adapters.storage.rocksdb_store import RocksDbSettings, RocksDbStores
from delaystream.adapters.transactions.batches import BatchLimits
from delaystream.adapters.transactions.lost_markers import ProducerMemory
from delaystream.adapters.transactions.producer import AiokafkaTransactionalProducer
from delaystream.app import parts, process
from delaystream.app.preflight import Preflight, preflight
from delaystream.app.reports import Reports
from delaystream.app.tenants import require_shares, tenants_of
from delaystream.config import Settings
from delaystream.engine.pace import Pace
from delaystream.engine.ports import (
    Changelog,
    Ports,
    Sources,
    TopicPartition,
    TransactionalProducer,
)
from delaystream.engine.processor import PartitionProcessor
from delaystream.engine.settings import EngineSettings
from delaystream.exit_codes import ExitCode

logger = structlog.get_logger(__name__)

#: The garbage collector looks for cycles once this many more container objects were made than freed. A busy
#: worker has a million of them alive, the records of its steps, and none is in a cycle. With 200,000 the
#: collector took a twentieth of the worker's time.
_GC_THRESHOLDS: Final = (2_000_000, 10, 10)
#: Longer than a recovery may wait for an open transaction on the changelog.
_STARTING_MARGIN_MS: Final = 30_000


def run_worker(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT (exit code 0), or until a failure; returns the process's exit code.

    Blocks. Call it in the main thread, once in a process. If a thread hangs that would keep the process
    alive, it does not return but ends the process.
    """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(_serve(settings))
        code = ExitCode.OK
    except Exception as failure:  # noqa: BLE001  # the crash boundary of the process
        code = process.explain(failure)
    loop.run_until_complete(process.cancel_rest())
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


async def _serve(settings: Settings) -> None:
    client = parts.client_config(settings)
    settings.require_for_worker()
    require_tested(allow_others=settings.allow_untested_clients)
    stop = process.signals()
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
        for name, version in untested().items():
            library = f"{name} {version}, tested: {TESTED[name]}"
            logger.warning("a client library has another version than the tested one", library=library)
        looking = asyncio.create_task(asyncio.to_thread(preflight, settings, client))
        if await process.first(looking, stop):
            worker.compose(await looking)
            await worker.join(stop)
    logger.info("worker stopped")


class _Worker:
    """The parts of one worker. The HTTP server runs from the start, to say that nothing is ready yet."""

    def __init__(
        self, settings: Settings, client: ClientConfig, directory: DataDirectory, stack: AsyncExitStack
    ) -> None:
        self._settings = settings
        self._client = client
        self._directory = directory
        self._stack = stack
        self._observer = PrometheusObserver(
            SystemClock(),
            app_id=settings.app_id,
            destinations=settings.metrics_destinations,
            hours_ahead=settings.metrics_hours_ahead,
        )
        self._clock_skew = ClockSkew()
        self._fencings = Fencings(directory.path)
        for collector in (self._clock_skew, StateDisk(directory.path), self._fencings):
            self._observer.registry.register(collector)
        self._tenants = tenants_of(settings)
        #: by partition
        self._memory: dict[int, ProducerMemory] = {}
        self._processors: dict[int, PartitionProcessor] = {}
        self._limits = BatchLimits(parts.producer_settings(settings, client).max_batch_bytes)
        self._tracing = parts.tracing(settings)
        if self._tracing is not None:
            stack.callback(self._tracing.close)
        connection = client.aiokafka()
        self._destinations = KafkaDestinations(connection)
        self._source_bounds = KafkaSourceBounds(connection, settings.app_id)
        stack.push_async_callback(self._destinations.close)
        stack.push_async_callback(self._source_bounds.close)
        self._host = PartitionHost(
            parts.host_settings(settings, client),
            self._new_processor,
            self._source_bounds,
            lambda: parts.stored_partitions(directory.path),
            self._topic_shapes,
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

    def compose(self, found: Preflight) -> None:
        """Make the parts that depend on the cluster."""
        settings = self._settings
        self._observer.request_partitions(found.partitions, settings.request_topics)
        self._host.hold_to(found.partitions)
        require_shares(settings, found.partitions)
        self._observer.quotas(
            {topic: settings.requests(topic).max_pending for topic in settings.request_topics}
        )
        self._engine = msgspec.structs.replace(
            settings.engine(found.partitions),
            changelog_delete_retention_ms=found.delete_retention_ms,
            owner=settings.instance_id or f"{socket.gethostname()}-{os.getpid()}",
            host=socket.gethostname(),
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

    async def join(self, stop: asyncio.Event) -> None:
        """Run as the group member that the settings name, unless another worker has that name."""
        settings, instance_id = self._settings, self._settings.instance_id
        if instance_id is None:
            await self.run(stop)
            return
        try:
            waiting = asyncio.create_task(
                self._fencings.wait_for(
                    self._client.aiokafka(), settings.app_id, instance_id, settings.session_timeout_ms
                )
            )
            if await process.first(waiting, stop):
                await waiting
                await self.run(stop)
        except InstanceFenced:
            self._fencings.fenced(instance_id)
            raise

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until asked to stop; raises any error that ends it before."""
        process.settle(*_GC_THRESHOLDS)
        watching = [
            asyncio.create_task(self._watchdog.run()),
            asyncio.create_task(ClockWatch(SystemClock()).run()),
            asyncio.create_task(
                Reports(
                    self._processors.values,
                    self._sources,
                    self._source_bounds.ends,
                    self._observer.sources.found,
                ).run()
            ),
        ]
        serving = asyncio.create_task(self._host.run())
        try:
            if await process.first(serving, stop):
                await serving
            self._watchdog.stopping = True
            await self._host.stop()
            await serving
        except BaseException:
            # An abandoned processor would go on committing, unwatched.
            self._watchdog.stopping = True
            await self._host.stop()
            raise
        finally:
            for task in watching:
                task.cancel()

    def _exposition(self) -> bytes:
        self._observer.ready(self._watchdog.report.ready)
        self._observer.corrupt(self._host.corrupt_sources)
        return self._observer.exposition()

    def _new_processor(self, partition: int, sources: Sources) -> PartitionProcessor:
        assert self._engine is not None
        assert self._ports is not None
        if self._tracing is not None:
            sources = self._tracing.sources(partition, sources)
        processor = self._processors[partition] = PartitionProcessor(
            partition, self._engine, self._ports, sources, self._tenants, self._observer
        )
        return processor

    def _sources(self) -> list[TopicPartition]:
        """The source partitions that are read here."""
        settings = self._settings
        here = [status.partition for status in self._host.partitions() if status.phase is not None]
        return [
            TopicPartition(topic, partition)
            for topic in (*settings.request_topics, settings.commands_topic)
            for partition in here
        ]

    async def _topic_shapes(self) -> Mapping[str, TopicShape]:
        settings = self._settings
        topics = (*settings.request_topics, settings.commands_topic, settings.changelog_topic)
        return await self._source_bounds.shapes(topics)

    def _new_producer(self, partition: int) -> TransactionalProducer:
        settings = self._settings
        producer = AiokafkaTransactionalProducer(
            self._client.aiokafka_producer(),
            f"{settings.app_id}-{partition}",
            settings.app_id,
            bounds=parts.producer_settings(settings, self._client),
            limits=self._limits,
            swept=TopicPartition(settings.changelog_topic, partition),
            memory=self._memory.setdefault(partition, ProducerMemory()),
            clocks=self._clock_skew,
        )
        return producer if self._tracing is None else self._tracing.producer(partition, producer)

    async def _open_changelog(self, partition: int) -> Changelog:
        return await AiokafkaChangelog.open(
            self._client.aiokafka(),
            self._settings.changelog_topic,
            partition,
            parts.changelog_settings(self._settings),
        )


__all__ = ["run_worker"]
