"""Turns fetched bytes into records, in bounded pieces, without a slow object for each record.

aiokafka's compiled parser makes one small object for each record, which already is a
:class:`~delaystream.engine.ports.SourceRecord`. Its own consumer then wraps each in a dataclass of eleven
fields, which costs more than the parsing. aiokafka's ``PartitionRecords`` decides about transactions (aborted
batches, control batches); this module only walks it batch by batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

import msgspec
from aiokafka.errors import CorruptRecordException

from delaystream.adapters.internals.aiokafka import PartitionRecords, opened
from delaystream.adapters.kafka.record_batches import (
    HEADER_OVERHEAD_BYTES,
    BatchRefusedError,
    Decompressor,
    FetchedBatches,
    LegacyRecord,
    OpenBatch,
    is_abort_marker,
    record_count,
    unreadable,
)
from delaystream.core.rejection import HEADER_NAME_NOT_UTF8, Rejection
from delaystream.engine.ports import SourceRecord

#: Number of records parsed between two checks of their size.
_CHUNK = 512
#: Memory of a record's objects, without its key, value and headers; bytes.
_RECORD_OVERHEAD = 400


class Piece(msgspec.Struct):
    """Committed records in offset order, up to fetch position ``stop``; may be empty.

    ``unreadable`` says why records cannot be read. The last of these may stand for the rest of its record
    batch, up to ``stop``; it has only an offset.
    """

    records: list[SourceRecord]
    stop: int
    size_bytes: int
    unreadable: Mapping[int, Rejection] = {}


class RecordReader:
    """The unread rest of a fetch response for one topic partition; its batches are :class:`FetchedBatches`.

    ``exhausted`` turns true with the last piece.
    """

    def __init__(self, fetched: PartitionRecords, decompressor: Decompressor) -> None:
        self.fetched = fetched
        self._batches, self._aborted, self._count_aborted = opened(fetched)
        assert isinstance(self._batches, FetchedBatches)
        self.exhausted = False
        self._decompressor = decompressor
        self._corrupt = ""
        self._batch: OpenBatch | None = None
        #: of that batch: where it begins and ends; the record count and the last timestamp in its header (0
        #: and -1 in formats without them); how many records were read, and the last offset; whether header
        #: names may be any bytes
        self._start = 0
        self._stop = 0
        self._count = 0
        self._timestamp = -1
        self._last = -1
        self._read = 0
        self._forgiving = False

    @property
    def position(self) -> int:
        """Fetch position after the pieces taken so far."""
        return int(self.fetched.next_fetch_offset)

    def take(self, max_records: int, max_bytes: int) -> Piece:
        """Parse on; stops at the first chunk that reaches a bound, and after a batch that is refused.

        Raises CorruptRecordException at a batch that does not match its checksum, and at a control batch that
        matters and cannot be read. Records before it are handed out first.
        """
        if self._corrupt:
            raise CorruptRecordException(self._corrupt)
        records: list[SourceRecord] = []
        reasons: dict[int, Rejection] = {}
        size = 0
        while len(records) < max_records and size < max_bytes:
            try:
                if self._batch is None and not self._open_batch():
                    self.exhausted = True
                    break
                chunk = self._read_chunk(min(_CHUNK, max_records - len(records)))
            except BatchRefusedError as error:
                if self.position >= self._stop or 0 < self._count <= self._read:
                    self._close_batch()  # bytes after the last record
                    continue
                record, rejection = self._refuse(error)
                records.append(record)
                reasons[record.offset] = rejection
                size += _RECORD_OVERHEAD
                break
            except CorruptRecordException as error:
                if not records:
                    raise
                self._corrupt = str(error)
                break
            if chunk:
                records += chunk
                size += self._size_bytes(chunk)
                if self._forgiving:
                    reasons |= dict.fromkeys(undecodable_offsets(chunk), HEADER_NAME_NOT_UTF8)
        return Piece(records, self.position, size, reasons)

    def _read_chunk(self, most: int) -> list[SourceRecord]:
        batch = self._batch
        assert batch is not None
        try:
            chunk = batch.read(most)
        except (UnicodeDecodeError, MemoryError):
            if self._forgiving or self._count == 0:
                raise
            self._forgiving = True
            batch.forgiving(self.position)
            return []
        if not chunk:
            # A batch keeps its last offset even if compaction has removed that record.
            self._close_batch()
            return chunk
        self._check_offsets(chunk)
        self._read += len(chunk)
        self._last = chunk[-1].offset
        if chunk[0].offset < self.position:
            chunk = [record for record in chunk if record.offset >= self.position]
        if chunk:
            self.fetched.next_fetch_offset = chunk[-1].offset + 1
        return chunk

    def _check_offsets(self, chunk: list[SourceRecord]) -> None:
        """Raise BatchRefusedError unless offsets rise, and lie within the batch."""
        offsets = [record.offset for record in chunk]
        first, last = offsets[0], offsets[-1]
        rising = offsets == [*range(first, first + len(offsets))] or all(
            before < after for before, after in pairwise(offsets)
        )
        if not rising or first <= self._last or last >= self._stop:
            raise unreadable(f"the offsets of its records, {first} to {last}, do not rise within it")

    def _size_bytes(self, chunk: list[SourceRecord]) -> int:
        """Approximate memory of records, bytes."""
        assert self._batch is not None
        if self._count > 0:
            contents = self._batch.size_bytes * len(chunk) // self._count
        else:
            contents = sum([len(r.value or b"") + len(r.key or b"") for r in chunk])
        headers = sum([len(record.headers) for record in chunk])
        return contents + _RECORD_OVERHEAD * len(chunk) + HEADER_OVERHEAD_BYTES * headers

    def _refuse(self, error: BatchRefusedError) -> tuple[LegacyRecord, Rejection]:
        """Skip the rest of the batch; returns a record that stands for it, and why it is refused."""
        first = max(self._start, self.position)
        left = self._stop - first
        records = max(1, min(left, self._count - self._read)) if self._count else left
        self._close_batch()
        detail = f"the record batch of offsets {first} to {self._stop - 1} ({records} records) {error.reason}"
        return LegacyRecord(first, self._timestamp, None, None), Rejection(
            error.code, detail, records=records
        )

    def _close_batch(self) -> None:
        self._batch = None
        self.fetched.next_fetch_offset = max(self.position, self._stop)

    def _open_batch(self) -> bool:
        batches = self._batches
        while batches.has_next():
            batch = batches.next_batch()
            if not batch.validate_crc():
                following = f"; the next one is at {batches.next_offset()}" if batches.has_next() else ""
                raise CorruptRecordException(
                    f"the record batch at offset {self.position} does not match its checksum{following}"
                )
            if batch.producer_id is not None:
                self._count_aborted(batch.base_offset)
                if (
                    batch.is_control_batch
                    and batch.producer_id in self._aborted
                    and is_abort_marker(batch, batches.data, self._decompressor)
                ):
                    self._aborted.discard(batch.producer_id)
            aborted = batch.is_transactional and batch.producer_id in self._aborted
            modern = batch.producer_id is not None
            # A last offset before the first one must not stop the reading.
            self._stop = max(batch.next_offset, batch.base_offset + 1) if modern else batch.next_offset
            if aborted or batch.is_control_batch or self._stop <= self.position:
                self._close_batch()
                continue
            self._start = batch.base_offset if modern else self.position
            self._count = record_count(batches.data) if modern else 0
            self._timestamp = batch.max_timestamp if modern else -1
            self._read = 0
            self._last = self._start - 1 if modern else -1
            self._forgiving = False
            self._batch = OpenBatch(batch, batches.data, self._decompressor)
            return True
        return False


def undecodable_offsets(records: Iterable[SourceRecord]) -> list[int]:
    """Offsets of records with a header name whose bytes were not UTF-8."""
    return [record.offset for record in records if any(not _encodable(name) for name, _ in record.headers)]


def _encodable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
