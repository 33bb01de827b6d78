"""Turns rows into record batches (message format v2), with the sequence numbers of an idempotent producer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from delaystream.adapters.internals.aiokafka import DefaultRecordBatchBuilder
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


def build_batches(
    target: TopicPartition,
    rows: Sequence[Row],
    first: int,
    sequence: int,
    identity: Identity,
    limit_bytes: int,
    compression: int,
) -> list[Batch]:
    """Make batches of the rows from ``first`` on; a row larger than the limit gets a batch of its own.

    Raises WriteRefused when a row cannot be encoded.
    """
    batches: list[Batch] = []
    producer_id, epoch = identity.producer_id, identity.epoch

    def new_builder() -> DefaultRecordBatchBuilder:
        return DefaultRecordBatchBuilder(_MAGIC, compression, 1, producer_id, epoch, sequence, limit_bytes)

    builder = new_builder()
    append = builder.append
    start = first
    count = 0
    try:
        for key, value, headers, timestamp_ms in rows if first == 0 else rows[first:]:
            names = headers if headers.__class__ is list else list(headers)
            if append(count, timestamp_ms, key, value, names) is None:
                batches.append(Batch(start, count, sequence, builder.build()))
                start += count
                sequence = (sequence + count) & _SEQUENCE_MASK
                builder = new_builder()
                append = builder.append
                append(0, timestamp_ms, key, value, names)
                count = 0
            count += 1
    except _ENCODING_ERRORS as error:
        reason = f"the record cannot be encoded: {error}"
        raise WriteRefused(*target, reason, record_at_fault=True, row=start + count) from error
    if count:
        batches.append(Batch(start, count, sequence, builder.build()))
    return batches
