"""Kafka for exports and imports: reads and writes one partition's changelog as the partition's owner.

A writer here is the partition's owner. It uses the workers' own transactional id, so its fence ends the
worker that had the partition, and a worker's fence ends the writer. Nothing is written without a fence.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, Self

from delaystream.adapters.kafka.changelog import AiokafkaChangelog, ChangelogSettings
from delaystream.adapters.security.client_config import ClientConfig
from delaystream.adapters.storage.data_directory import DataDirectory
from delaystream.adapters.storage.rocksdb_store import RocksDbStore, RocksDbStores
from delaystream.adapters.transactions.producer import AiokafkaTransactionalProducer
from delaystream.adapters.transactions.settings import ProducerSettings
from delaystream.config import Settings
from delaystream.engine.failures import ProducerFenced
from delaystream.engine.lifecycle.replica import read_before, settled_bounds
from delaystream.engine.ports import (
    Change,
    Marker,
    Row,
    TopicPartition,
    Transaction,
)

_ATTEMPTS: Final = 5
_STABLE_TIMEOUT_MS: Final = 30_000


class TransferError(Exception):
    """The export or import is refused; the message is a sentence for people."""


class Application(NamedTuple):
    """The application whose state is exported, or that is imported into."""

    settings: Settings
    client: ClientConfig
    partitions: int


class Owner:
    """One partition of an application, taken over from its worker; a context manager."""

    def __init__(self, settings: Settings, client: ClientConfig, partition: int) -> None:
        self._settings = settings
        self._client = client
        self._partition = partition
        self._changelog = TopicPartition(settings.changelog_topic, partition)
        self._producer: AiokafkaTransactionalProducer | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._close()

    async def fence(self) -> None:
        """End the worker that owns the partition. Raises LogUnavailable."""
        await self._fenced()

    async def write(
        self,
        changes: Sequence[Change],
        commands: Mapping[int, Sequence[Row]] | None = None,
        *,
        attempts: int = _ATTEMPTS,
    ) -> None:
        """Write rows of the changelog, and commands by partition, in one transaction.

        When a running worker fences it, it fences back and tries again. With one attempt, nobody else can
        have written between the fence and this transaction. Raises TransferError, LogUnavailable,
        TransactionFailed.
        """
        now_ms = time.time_ns() // 1_000_000
        writes: dict[TopicPartition, list[Row]] = {
            self._changelog: [(key, value, (), now_ms) for key, value in changes]
        }
        for partition, rows in (commands or {}).items():
            if rows:
                writes[TopicPartition(self._settings.commands_topic, partition)] = list(rows)
        for attempt in range(attempts):
            try:
                producer = await self._fenced()
                await producer.commit(Transaction(writes, {}))
            except ProducerFenced:
                await self._close()
                await asyncio.sleep(0.1 * 2**attempt)
            else:
                return
        raise TransferError(
            f"A worker of {self._settings.app_id} took partition {self._partition} back: stop the workers, "
            "and run this again; it goes on where it stopped."
        )

    async def _fenced(self) -> AiokafkaTransactionalProducer:
        if self._producer is None:
            settings = self._settings
            producer = AiokafkaTransactionalProducer(
                self._client.aiokafka_producer(),
                f"{settings.app_id}-{self._partition}",
                settings.app_id,
                bounds=ProducerSettings(
                    transaction_timeout_ms=settings.transaction_timeout_ms,
                    max_record_bytes=settings.max_message_bytes,
                    compression=self._client.compression or "none",
                ),
                swept=self._changelog,
            )
            self._producer = producer
            await producer.fence()
        return self._producer

    async def _close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(TimeoutError):
                await producer.close()


class Scratch:
    """Copies of changelog partitions in RocksDB; the caller owns and removes the directory."""

    def __init__(self, settings: Settings, client: ClientConfig, directory: Path) -> None:
        self._settings = settings
        self._client = client
        self._directory = DataDirectory.acquire(directory, "copy")
        self._stores = RocksDbStores(self._directory)

    def close(self) -> None:
        """HoldEnd the directory."""
        self._directory.release()

    def forget(self, partition: int) -> None:
        """Delete a closed copy, so that the next copy is a fresh one."""
        self._stores.destroy(partition)

    async def copy(self, partition: int, *, settled: bool) -> RocksDbStore:
        """The committed state of a partition, as it is now; the caller closes it.

        With `settled` the copy waits until no transaction is open, as for a partition that was fenced.
        Otherwise it has the records that were stable when the copy began. Raises LogUnavailable.
        """
        settings = self._settings
        changelog = await AiokafkaChangelog.open(
            self._client.aiokafka(),
            settings.changelog_topic,
            partition,
            ChangelogSettings(batch_max_decompressed_bytes=settings.batch_max_decompressed_bytes),
        )
        store = self._stores.open(partition)
        try:
            bounds = await (settled_bounds(changelog, _STABLE_TIMEOUT_MS) if settled else changelog.bounds())
            position = bounds.start
            while position < bounds.stable:
                batch = await read_before(changelog, position, bounds.stable)
                position = batch.next_position
                changes = [(key, value) for _, key, value in batch.records]
                store.write(changes, (), Marker(changelog.topic_id, position, -1, b""))
        except BaseException:
            store.close()
            raise
        finally:
            await changelog.close()
        return store


async def topic_id(settings: Settings, client: ClientConfig) -> str:
    """The id of the changelog topic. Raises LogUnavailable, or Misconfigured when it is missing."""
    changelog = await AiokafkaChangelog.open(client.aiokafka(), settings.changelog_topic, 0)
    try:
        return changelog.topic_id
    finally:
        await changelog.close()
