"""Fetched bytes as records, in bounded pieces, without a slow object for each record.

aiokafka's compiled parser makes one small object a record, which already is a
:class:`~delaystream.engine.ports.SourceRecord`; its own consumer then wraps each in a dataclass of eleven
fields, which costs more than the parsing. What is transactional about a log (aborted batches, control
batches) is decided by aiokafka's ``PartitionRecords``, here only walked batch by batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any

import msgspec
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy
from aiokafka.record.util import decode_varint_py
from aiokafka.structs import TopicPartition

from delaystream.engine.ports import Headers, SourceRecord

#: Records parsed before their size is looked at again.
_CHUNK = 512
#: What a record occupies beside its key and value: objects, header names and values; bytes.
_RECORD_OVERHEAD = 400
_LOG_OVERHEAD = 12  # base offset (int64) and length (int32) come before what the length counts


class LegacyRecord(msgspec.Struct, frozen=True):
    """A record of message format 0 or 1: no headers, and in format 0 no timestamp (then -1)."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Piece(msgspec.Struct):
    """Committed records in offset order, up to fetch position ``stop``; may be empty."""

    records: list[SourceRecord]
    stop: int
    size_bytes: int


class RecordReader:
    """What is left of one fetch response of one topic partition.

    ``exhausted`` turns true with the last piece. ``unreadable`` turns true where the compiled parser gives
    up on a header name that is not UTF-8; :func:`forgiving_reader` then reads on from ``position``.
    """

    def __init__(self, fetched: PartitionRecords) -> None:
        self.fetched = fetched
        # Its own iterator, which nobody uses, refers back to it: the two would keep a megabyte of fetched
        # bytes until the collector's next full run.
        fetched._records_iterator = None
        self.exhausted = False
        self.unreadable = False
        self._batch: Any = None
        self._records: Iterator[SourceRecord] | None = None

    @property
    def position(self) -> int:
        """Fetch position behind the pieces taken so far."""
        return int(self.fetched.next_fetch_offset)

    def take(self, max_records: int, max_bytes: int) -> Piece:
        """Parse on; stops at the first chunk that reaches a bound. Raises CorruptRecordException."""
        records: list[SourceRecord] = []
        size = 0
        while len(records) < max_records and size < max_bytes:
            if self._records is None and not self._open_batch():
                self.exhausted = True
                break
            assert self._records is not None
            try:
                chunk = list(islice(self._records, min(_CHUNK, max_records - len(records))))
            except UnicodeDecodeError:
                self.unreadable = True
                break
            if not chunk:
                # A batch keeps its last offset even if compaction removed the record.
                self.fetched.next_fetch_offset = self._batch.next_offset
                self._records = None
                continue
            if chunk[0].offset < self.position:
                chunk = [record for record in chunk if record.offset >= self.position]
                if not chunk:
                    continue
            records += chunk
            size += _RECORD_OVERHEAD * len(chunk) + sum(
                [len(r.value or b"") + len(r.key or b"") for r in chunk]
            )
            self.fetched.next_fetch_offset = chunk[-1].offset + 1
        return Piece(records, self.position, size)

    def _open_batch(self) -> bool:
        fetched = self.fetched
        while fetched._records.has_next():
            batch = fetched._records.next_batch()
            if not batch.validate_crc():
                raise CorruptRecordException(f"the checksum of a batch of {fetched._tp} is wrong")
            if batch.producer_id is not None:
                fetched._consume_aborted_up_to(batch.base_offset)
                if batch.is_control_batch and fetched._contains_abort_marker(batch):
                    fetched._aborted_producers.discard(batch.producer_id)
            aborted = batch.is_transactional and batch.producer_id in fetched._aborted_producers
            if aborted or batch.is_control_batch:
                fetched.next_fetch_offset = batch.next_offset
                continue
            self._batch = batch
            modern = isinstance(batch, DefaultRecordBatch | _DefaultRecordBatchPy)
            # The compiled batch can be iterated once only, also by its own iterator.
            self._records = chain(batch) if modern else map(_from_legacy, batch)
            return True
        return False


def _from_legacy(record: Any) -> LegacyRecord:
    timestamp = -1 if record.timestamp is None else record.timestamp
    return LegacyRecord(record.offset, timestamp, record.key, record.value)


# -- header names that are not UTF-8 -------------------------------------------------------------------


class _ForgivingBuffer(bytearray):
    """Bytes that decode to text whatever they are; what is not UTF-8 becomes surrogates (PEP 383)."""

    def __getitem__(self, index: Any) -> Any:
        part = super().__getitem__(index)
        return part if isinstance(part, int) else _ForgivingBuffer(part)

    def decode(self, encoding: str = "utf-8", errors: str = "surrogateescape") -> str:
        return bytes(self).decode(encoding, errors)


class _ForgivingBatch(_DefaultRecordBatchPy):  # type: ignore[misc]  # final only towards type checkers
    def __iter__(self) -> _ForgivingBatch:
        super().__iter__()
        self._buffer: bytearray = _ForgivingBuffer(self._buffer)
        return self

    def _read_msg(self, decode_varint: Any = decode_varint_py) -> Any:
        return super()._read_msg(decode_varint)


class _ForgivingBatches:
    """Stands in for aiokafka's MemoryRecords: the record batches (format 2) in a fetch response."""

    def __init__(self, response: bytes) -> None:
        self._rest = memoryview(response)

    def _length(self) -> int:
        if len(self._rest) < _LOG_OVERHEAD:
            return 0
        return _LOG_OVERHEAD + int.from_bytes(self._rest[8:12], "big")

    def has_next(self) -> bool:
        return 0 < self._length() <= len(self._rest)

    def next_batch(self) -> _ForgivingBatch:
        length = self._length()
        batch = _ForgivingBatch(self._rest[:length])
        self._rest = self._rest[length:]
        return batch


def forgiving_reader(
    partition: TopicPartition, response: bytes, aborted: Sequence[tuple[int, int]] | None, position: int
) -> RecordReader:
    """Read a fetch response in pure Python (20 µs a record); names that are not UTF-8 keep their bytes."""
    fetched = PartitionRecords(
        partition, _ForgivingBatches(response), aborted, position, None, None, True, READ_COMMITTED
    )
    return RecordReader(fetched)


def undecodable_offsets(records: Sequence[SourceRecord]) -> frozenset[int]:
    """Offsets of records with a header name that stands for bytes which are not UTF-8."""
    return frozenset(
        record.offset for record in records if any(not _encodable(name) for name, _ in record.headers)
    )


def _encodable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
