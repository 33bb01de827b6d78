"""The transactional producer of the engine's ports, on the log in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from delaystream.engine.failures import LogUnavailable, ProducerFenced, TransactionFailed, WriteRefused
from delaystream.engine.ports import Accumulator, TopicPartition, Transaction
from delaystream.testing.interruption import Calm, Interruptions
from delaystream.testing.log import MemoryLog
from delaystream.testing.partition import (
    Epoch,
    LogError,
    RecordRefusedError,
    StaleEpochError,
    TimestampRefusedError,
    TopicRefusedError,
    UnknownTopicError,
)


class MemoryProducer:
    """A :class:`~delaystream.engine.ports.TransactionalProducer`; of use up to its first failure.

    Calls that the port's contract forbids raise AssertionError: commits before the fence, two at a time, or
    any after a failure.
    """

    def __init__(
        self,
        log: MemoryLog,
        transactional_id: str,
        group: str,
        *,
        interruptions: Interruptions | None = None,
        timeout_ms: int = 10_000,
    ) -> None:
        self._log = log
        self._transactional_id = transactional_id
        self._group = group
        self._interruptions = interruptions or Calm()
        self._timeout_ms = timeout_ms
        self._epoch: Epoch | None = None
        self._failed = False
        self._closed = False
        self._committing = False

    #: whether a refusal says which record it is about, as brokers do since 2.4 for some errors
    names_rows = True

    async def fence(self) -> None:
        """See the port."""
        assert not self._closed, "fence() after close()"
        await self._at("fence")
        self._epoch = self._log.init_producer(self._transactional_id, self._timeout_ms)
        await self._at("fenced")

    def accumulator(self, target: TopicPartition) -> Accumulator:
        """See the port."""
        return []

    async def commit(self, transaction: Transaction) -> Mapping[TopicPartition, int]:
        """See the port."""
        assert self._epoch is not None, "commit() before fence()"
        assert not self._failed, "commit() after a failure"
        assert not self._closed, "commit() after close()"
        assert not self._committing, "commit() during another commit()"
        self._committing = True
        self._failed = True  # until it is known to have gone well, so that a cancelled commit counts too
        try:
            written = await self._carry_out(self._epoch, transaction)
        except StaleEpochError as error:
            raise ProducerFenced(str(error)) from error
        except LogUnavailable as error:
            raise TransactionFailed(str(error)) from error
        finally:
            self._committing = False
        self._failed = False
        return written

    async def close(self) -> None:
        """See the port."""
        if self._closed:
            return
        self._closed = True
        try:
            await self._at("close")
            if self._epoch is not None:
                self._log.end(self._epoch, commit=False)
        except (StaleEpochError, LogUnavailable):
            pass  # nothing of ours is left open, or it times out on the broker

    async def _carry_out(self, epoch: Epoch, transaction: Transaction) -> Mapping[TopicPartition, int]:
        written: dict[TopicPartition, int] = {}
        for at, rows in transaction.writes.items():
            if not rows:
                continue
            try:
                await self._at("write", at.topic)
                written[at] = self._log.write(epoch, at, rows)
                await self._at("written", at.topic)
            except _REFUSALS as error:
                raise _refused(error, at, names_rows=self.names_rows) from error
        if transaction.offsets:
            await self._at("offsets")
            self._log.add_offsets(epoch, self._group, transaction.offsets)
        await self._end(epoch)
        return written

    async def _end(self, epoch: Epoch) -> None:
        await self._at("end")
        self._log.end(epoch, commit=True)
        await self._at("ended")

    async def _at(self, point: str, subject: str | None = None) -> None:
        await self._interruptions.at(point, subject or self._transactional_id)


class SteadyProducer:
    """A :class:`~delaystream.engine.ports.TransactionalProducer` to which nothing happens.

    Each transaction is carried out in one piece: nothing can come between its beginning and its end.
    """

    def __init__(self, log: MemoryLog, transactional_id: str, group: str) -> None:
        self._log = log
        self._transactional_id = transactional_id
        self._group = group
        self._epoch: Epoch | None = None

    async def fence(self) -> None:
        """See the port."""
        self._epoch = self._log.init_producer(self._transactional_id)

    def accumulator(self, target: TopicPartition) -> Accumulator:
        """See the port."""
        return []

    async def commit(self, transaction: Transaction) -> Mapping[TopicPartition, int]:
        """See the port."""
        assert self._epoch is not None, "commit() before fence()"
        epoch, log = self._epoch, self._log
        try:
            return log.commit(epoch, transaction.writes, self._group, transaction.offsets)
        except StaleEpochError as error:
            raise ProducerFenced(str(error)) from error
        except _REFUSALS as error:
            raise _refused(error, error.at or TopicPartition("", -1)) from error

    async def close(self) -> None:
        """See the port."""


_REFUSALS: Final = (UnknownTopicError, TopicRefusedError, TimestampRefusedError, RecordRefusedError)


def _refused(error: LogError, at: TopicPartition, *, names_rows: bool = True) -> WriteRefused:
    if isinstance(error, RecordRefusedError):
        row = error.row if names_rows else None
        return WriteRefused(at.topic, at.partition, str(error), record_at_fault=True, row=row)
    return WriteRefused(at.topic, at.partition, str(error), record_at_fault=False)
