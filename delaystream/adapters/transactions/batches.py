"""Turns rows into record batches (message format v2), with the sequence numbers of an idempotent producer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from delaystream.adapters.internals.aiokafka import DefaultRecordBatch, DefaultRecordBatchBuilder
from delaystream.engine.failures import WriteRefused
from delaystream.engine.ports import Row, TopicPartition

#: sequence numbers are 31 bits wide and start again at 0
_SEQUENCE_MASK: Final = 0x7FFFFFFF
_MAGIC: Final = 2

COMPRESSION_CODECS: Final = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}

# Errors of the record format and its C encoder: a header name that is not UTF-8, a timestamp of 70 bits, …
_ENCODING_ERRORS: Final = (TypeError, ValueError, OverflowError)


class Identity(msgspec.Struct, frozen=True):
    """The identity that the transaction coordinator gave this producer (KIP-98)."""

    producer_id: int
    epoch: int


class Batch(msgspec.Struct):
    """One record batch, of the partition's rows ``first`` to ``first + count - 1``."""

    first: int
    count: int
    sequence: int
    payload: bytearray


class BatchLimits:
    """The largest batch to build, in bytes, by topic.

    A topic may accept less (``max.message.bytes``). It shows this by refusing a batch of several records, and
    the limit is remembered for later transactions.
    """

    def __init__(self, default_bytes: int) -> None:
        self._default_bytes = default_bytes
        self._by_topic: dict[str, int] = {}

    def of(self, topic: str) -> int:
        """Limit for a topic, bytes."""
        return self._by_topic.get(topic, self._default_bytes)

    def refused(self, topic: str, size_bytes: int) -> None:
        """Record that a batch of several records, of this size, was too large."""
        self._by_topic[topic] = min(self.of(topic), max(1, size_bytes // 2))


class Sequences:
    """The next sequence number of each partition; a new producer epoch starts at 0 everywhere."""

    def __init__(self) -> None:
        self._next: dict[TopicPartition, int] = {}

    def next(self, target: TopicPartition) -> int:
        """Sequence number of the next record for a partition."""
        return self._next.get(target, 0)

    def set(self, target: TopicPartition, sequence: int) -> None:
        """The next record gets this number, modulo 2**31."""
        self._next[target] = sequence & _SEQUENCE_MASK


class Encoding(msgspec.Struct, frozen=True):
    """How a producer's rows become record batches."""

    identity: Identity
    #: of a batch of several rows, before compression
    limit_bytes: int
    #: one of COMPRESSION_CODECS
    compression: int


class EncodedRows:
    """Rows for one partition as record batches. Each is encoded when it is added; only its bytes are kept.

    The rows of a large transaction, as objects, are many times what the processor's caches hold. To encode
    them at the end, and to free them then, would take another quarter of a record's time. A row larger than
    the limit gets a batch of its own. ``first`` is the number of the first row, ``sequence`` its sequence
    number.
    """

    __slots__ = (
        "_append", "_batches", "_builder", "_count", "_first", "_refused", "_start", "encoding", "sequence",
        "target",
    )  # fmt: skip

    def __init__(self, target: TopicPartition, encoding: Encoding, sequence: int, first: int = 0) -> None:
        self.target = target
        self.encoding = encoding
        self.sequence = sequence
        self._first = first
        self._batches: list[Batch] = []
        #: of the batch that is being filled: the number of its first row, and how many it has
        self._start = first
        self._count = 0
        #: the first row that cannot be encoded, number ``_start``, and why
        self._refused: tuple[Row, str] | None = None
        self._open()

    def _open(self) -> None:
        encoding = self.encoding
        identity = encoding.identity
        self._builder = DefaultRecordBatchBuilder(
            _MAGIC,
            encoding.compression,
            1,
            identity.producer_id,
            identity.epoch,
            self._sequence(),
            encoding.limit_bytes,
        )
        self._append = self._builder.append

    def _sequence(self) -> int:
        """Sequence number of the first row of the batch that is being filled."""
        return (self.sequence + self._start - self._first) & _SEQUENCE_MASK

    def __len__(self) -> int:
        return self._start + self._count - self._first

    def append(self, row: Row, /) -> None:
        """Add a row. If it cannot be encoded, :meth:`batches` says so."""
        key, value, headers, timestamp_ms = row
        names = headers if headers.__class__ is list else list(headers)
        try:
            if self._append(self._count, timestamp_ms, key, value, names) is None:
                self._close()
                self._append(0, timestamp_ms, key, value, names)
        except _ENCODING_ERRORS as error:
            self._refuse(row, str(error))
        self._count += 1

    def _refuse(self, row: Row, why: str) -> None:
        """Encode nothing more: all of it will be refused because of this row."""
        if self._count:
            self._close()
        # Without the exception: its traceback would refer back to this object.
        self._refused = row, why
        self._append = _ignored

    def _close(self) -> None:
        """End the batch that is being filled, and begin the next one."""
        self._batches.append(Batch(self._start, self._count, self._sequence(), self._builder.build()))
        self._start += self._count
        self._count = 0
        self._open()

    def batches(self) -> list[Batch]:
        """All rows; call it once they are complete. Raises WriteRefused if one cannot be encoded."""
        if self._refused is not None:
            reason = f"the record cannot be encoded: {self._refused[1]}"
            raise WriteRefused(*self.target, reason, record_at_fault=True, row=self._start)
        if self._count:
            self._close()
        return self._batches

    def __iter__(self) -> Iterator[Row]:
        """The rows once they are complete, decoded. One that cannot be encoded is the last of them."""
        if self._refused is None:
            yield from decoded(self.batches())
        else:
            yield from decoded(self._batches)
            yield self._refused[0]


def _ignored(*row: object) -> bool:
    return True


def decoded(batches: Iterable[Batch]) -> Iterator[Row]:
    """The rows of record batches."""
    for batch in batches:
        for record in DefaultRecordBatch(bytes(batch.payload)):
            yield record.key, record.value, record.headers, record.timestamp
