"""Record batches as a fetch response holds them, opened within a bound of memory.

aiokafka's parsers decompress a batch themselves, however large the result is: 30 kB on the wire can be
gigabytes. Here a batch is first decompressed into a buffer of fixed size, and the compiled parser gets an
uncompressed batch. The size that a compressed format claims is believed only when it exceeds the bound.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain, islice
from struct import Struct
from struct import error as StructError  # noqa: N812 - struct names it so
from typing import Any, Final
from zlib import crc32

import cramjam
import msgspec
from aiokafka.errors import CorruptRecordException

from delaystream.adapters.internals.aiokafka import DefaultRecordBatch, ForgivingBatch, decode_varint_py
from delaystream.core.rejection import Code
from delaystream.engine.ports import Headers, SourceRecord

#: Default bound of a decompressed batch, bytes.
DEFAULT_MAX_BYTES: Final = 64 * 1024 * 1024

_LOG_OVERHEAD: Final = 12  # base offset (int64) and length (int32) come before what the length counts
_LENGTH_AT: Final = 8
_MAGIC_AT: Final = 16
_INT32: Final = Struct(">i")
_INT64: Final = Struct(">q")
_CODECS: Final = {1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}
_CODEC_MASK: Final = 0x07

# Message format 2: the positions of the attributes and of the number of records in the header, and its
# length.
_ATTRIBUTES_AT: Final = 21
_COUNT_AT: Final = 57
_HEADER_BYTES: Final = 61

# Message formats 0 and 1: offset, length, checksum, magic, attributes; format 1: timestamp; key and value.
_LEGACY_HEAD: Final = Struct(">qiIbb")
_LEGACY_MIN_BYTES: Final = 14
_LOG_APPEND_TIME: Final = 0x08

# The key of a control record: its version and its type. Keys of later versions begin the same way.
_CONTROL_KEY: Final = Struct(">hh")
_ABORT: Final = 0

#: A buffer that held more than this is given back to the system after use, bytes.
_KEPT_BYTES: Final = 4 * 1024 * 1024
#: A header takes at least two bytes in a batch, and about this many once it is parsed.
_HEADER_WIRE_BYTES: Final = 2
HEADER_OVERHEAD_BYTES: Final = 120


class BatchRefusedError(Exception):
    """Why a record batch, or its unread rest, is not read: a code, and the end of a sentence about it."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def unreadable(reason: object) -> BatchRefusedError:
    """The batch, or its unread rest, does not follow the protocol."""
    return BatchRefusedError(
        Code.UNREADABLE_BATCH,
        f"cannot be read: {reason}; its checksum is right, so it was produced like this",
    )


class LegacyRecord(msgspec.Struct, frozen=True):
    """A record of message format 0 or 1: no headers, and in format 0 no timestamp (then -1)."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class LegacyBatch:
    """The header of a message of format 0 or 1; its key and its value are not read.

    aiokafka's class reads the key and the value when it is made. With damaged bytes it raises some error from
    its compiled code before anyone can verify the checksum.
    """

    is_control_batch: Final = False
    is_transactional: Final = False
    producer_id: Final = None

    def __init__(self, data: memoryview) -> None:
        head: tuple[int, int, int, int, int] = _LEGACY_HEAD.unpack_from(data)
        self.base_offset, _, self._checksum, _, _ = head
        self.next_offset = self.base_offset + 1
        self._checked = data[_MAGIC_AT:]

    def validate_crc(self) -> bool:
        """Whether the checksum matches the message."""
        return crc32(self._checked) == self._checksum


class FetchedBatches:
    """The batches in a fetch response, in order; stands in for aiokafka's ``MemoryRecords``.

    A batch that the response holds only in part is left out, as the protocol demands.
    """

    def __init__(self, response: bytes | None) -> None:
        self._response = memoryview(response or b"")
        self._size = len(self._response)
        self._position = 0
        self._length = 0
        #: the bytes of the last batch handed out
        self.data = self._response[:0]

    def size_in_bytes(self) -> int:
        """The size of the whole response."""
        return self._size

    def has_next(self) -> bool:
        """Whether another whole batch follows."""
        rest = self._size - self._position - _LOG_OVERHEAD
        if rest < 0:
            return False
        (self._length,) = _INT32.unpack_from(self._response, self._position + _LENGTH_AT)
        return rest >= self._length

    def next_offset(self) -> int:
        """The first offset of the next batch; call :meth:`has_next` first."""
        offset: int = _INT64.unpack_from(self._response, self._position)[0]
        return offset

    def next_batch(self) -> Any:
        """aiokafka's batch, or a LegacyBatch, for its header and checksum. Raises CorruptRecordException.

        Call :meth:`has_next` first.
        """
        length, begin = self._length, self._position
        data = self._response[begin : begin + _LOG_OVERHEAD + length]
        modern = length >= _LEGACY_MIN_BYTES and data[_MAGIC_AT] > 1
        if length < (_HEADER_BYTES - _LOG_OVERHEAD if modern else _LEGACY_MIN_BYTES):
            raise CorruptRecordException(f"a record batch of {length} bytes")
        self._position = begin + _LOG_OVERHEAD + length
        self.data = data
        return DefaultRecordBatch(data) if modern else LegacyBatch(data)


# -- decompression -------------------------------------------------------------------------------------


def _snappy_into(data: memoryview, output: memoryview) -> int:
    """Snappy's raw format; or blocks of it with their sizes in front, as the Java client frames them."""
    if bytes(data[:8]) != b"\x82SNAPPY\0":
        return int(cramjam.snappy.decompress_raw_into(data, output))
    position, written = 16, 0
    while position < len(data):
        (size,) = _INT32.unpack_from(data, position)
        position += _INT32.size
        if not 0 < size <= len(data) - position:
            raise CorruptRecordException(f"a snappy block of {size} bytes")
        block = data[position : position + size]
        written += int(cramjam.snappy.decompress_raw_into(block, output[written:]))
        position += size
    return written


_DECOMPRESS_INTO: Final[dict[str, Callable[[memoryview, memoryview], int]]] = {
    "gzip": cramjam.gzip.decompress_into,
    "snappy": _snappy_into,
    "lz4": cramjam.lz4.decompress_into,
    "zstd": cramjam.zstd.decompress_into,
}

# The texts of cramjam's errors when the output buffer is too small: from Rust's write_all, and from the raw
# snappy decoder.
_TOO_SMALL: Final = ("failed to write whole buffer", "is smaller than required")


class Decompressor:
    """Decompresses into one buffer of ``max_bytes``; only its written part takes memory.

    For one thread. Raises BatchRefusedError when the result does not fit, or when the data cannot be
    decompressed.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self._buffer: memoryview | None = None

    def decompress(self, codec: int, data: memoryview, head: bytes = b"") -> bytes:
        """``head``, followed by the decompressed ``data``."""
        name = _CODECS.get(codec)
        if name is None:
            raise unreadable(f"its compression {codec} is none of {', '.join(_CODECS.values())}")
        if self._buffer is None:
            self._buffer = memoryview(mmap.mmap(-1, self.max_bytes))
        written = self.max_bytes
        try:
            written = _DECOMPRESS_INTO[name](data, self._buffer)
            return b"".join((head, self._buffer[:written]))
        except (cramjam.DecompressionError, CorruptRecordException, StructError) as error:
            if not any(sign in str(error) for sign in _TOO_SMALL):
                raise unreadable(f"{name}: {error}") from error
            raise BatchRefusedError(
                Code.BATCH_TOO_LARGE,
                f"is {len(data)} bytes of {name} and decompresses to more than the {self.max_bytes} bytes "
                "that are expected at most",
            ) from error
        finally:
            if written > _KEPT_BYTES:
                self._buffer = None


def record_count(data: memoryview) -> int:
    """The number of records that a batch of message format 2 claims to hold."""
    count: int = _INT32.unpack_from(data, _COUNT_AT)[0]
    return count


def uncompressed(batch: Any, data: memoryview, decompressor: Decompressor) -> tuple[Any, memoryview]:
    """A batch of message format 2 and its bytes, decompressed. Raises BatchRefusedError.

    ``batch`` and ``data`` come from FetchedBatches.
    """
    codec = data[_ATTRIBUTES_AT + 1] & _CODEC_MASK
    if not codec:
        return batch, data
    head = bytearray(data[:_HEADER_BYTES])
    head[_ATTRIBUTES_AT + 1] &= ~_CODEC_MASK
    data = memoryview(decompressor.decompress(codec, data[_HEADER_BYTES:], bytes(head)))
    return DefaultRecordBatch(data), data


# -- the records of a batch ----------------------------------------------------------------------------


#: Most headers in one read of some hundred records by pure Python, which takes 2 µs for each.
_MOST_FORGIVEN: Final = 50_000
_COUNTED_AT_ONCE: Final = 500


class OpenBatch:
    """A record batch that is being read: its records in order, once."""

    def __init__(self, batch: Any, data: memoryview, decompressor: Decompressor) -> None:
        """Decompress a batch from FetchedBatches; its checksum was verified before.

        Raises BatchRefusedError.
        """
        #: kept without the exception, whose traceback would refer back to this object
        self._failure: tuple[Code, str] | None = None
        self._max_headers = decompressor.max_bytes // (HEADER_OVERHEAD_BYTES // _HEADER_WIRE_BYTES)
        if data[_MAGIC_AT] < 2:
            self.size_bytes = len(data)
            self._headers_from: int | None = None
            self._records: Iterator[SourceRecord] = _legacy_records(data, decompressor)
            return
        batch, data = uncompressed(batch, data, decompressor)
        self.size_bytes = len(data) - _HEADER_BYTES
        self._data = data
        # The compiled batch can be iterated once only, also by its own iterator.
        self._records = chain(batch)
        #: where counting the headers of the next records begins; None when they cannot be too many
        few = self.size_bytes <= _HEADER_WIRE_BYTES * self._max_headers
        self._headers_from = None if few else _HEADER_BYTES

    def read(self, most: int) -> list[SourceRecord]:
        """Up to ``most`` further records, none at the end.

        Records that can be read are handed out before BatchRefusedError is raised. Raises UnicodeDecodeError
        at a header name that is not UTF-8, or MemoryError. :meth:`forgiving` reads on from there.
        """
        if self._failure is not None:
            raise BatchRefusedError(*self._failure)
        if self._headers_from is not None:
            self._headers_from = self._count_headers(self._headers_from, most)
        records: list[SourceRecord] = []
        try:
            # Unlike list(), this keeps the records that came before an exception.
            records.extend(islice(self._records, most))
        except (UnicodeDecodeError, MemoryError):
            if not records:
                raise
        except BatchRefusedError as error:
            self._failure = error.code, error.reason
        except Exception as error:  # noqa: BLE001 - whatever the parser raises, it is about these bytes
            refused = unreadable(f"{type(error).__name__}: {error}")
            self._failure = refused.code, refused.reason
        if self._failure is not None and not records:
            raise BatchRefusedError(*self._failure)
        return records

    def forgiving(self, position: int) -> None:
        """Read on from an offset in pure Python (20 µs a record); any bytes are allowed as header names.

        Raises BatchRefusedError when there are so many headers that reading would take long.
        """
        self._max_headers = min(self._max_headers, _MOST_FORGIVEN)
        self._headers_from = None
        at = _HEADER_BYTES
        for _ in range(0, record_count(self._data), _COUNTED_AT_ONCE):
            at = self._count_headers(at, _COUNTED_AT_ONCE)
        reading = iter(ForgivingBatch(self._data))
        self._records = (record for record in reading if record.offset >= position)

    def _count_headers(self, position: int, records: int) -> int:
        """Go through records without parsing them; returns where the next ones begin."""
        data: Any = self._data
        headers = 0
        # If a record is not well-formed, the parser will say so.
        with suppress(ValueError, IndexError):
            for _ in range(records):
                length, at = decode_varint_py(data, position)
                position = at + max(0, length)
                for _ in range(3):  # attributes, timestamp, offset
                    _, at = decode_varint_py(data, at)
                for _ in range(2):  # key and value
                    size, at = decode_varint_py(data, at)
                    at += max(0, size)
                headers += max(0, decode_varint_py(data, at)[0])
        if headers > self._max_headers:
            raise BatchRefusedError(
                Code.BATCH_TOO_LARGE,
                f"has {headers} headers in {records} records or fewer; at most {self._max_headers} are "
                "expected",
            )
        return position


def is_abort_marker(batch: Any, data: memoryview, decompressor: Decompressor) -> bool:
    """Whether a control batch is an abort marker. A batch without a record is not.

    Compaction leaves batches without a record. Raises CorruptRecordException for a control batch that cannot
    be read, even if it matches its checksum: only brokers write control batches (they refuse a client's), so
    it was damaged on a broker. Skipping it would lose or repeat records. If it was an abort marker and is
    ignored, the records that its producer commits later are left out. If it was none and is taken for one,
    records that its producer aborted are read.
    """
    try:
        records = OpenBatch(batch, data, decompressor).read(1)
        if not records:
            return False
        version, kind = _CONTROL_KEY.unpack_from(records[0].key or b"")
    except (BatchRefusedError, UnicodeDecodeError, MemoryError, StructError) as error:
        raise CorruptRecordException(
            f"the control batch at offset {batch.base_offset} cannot be read: {error}"
        ) from error
    if version < 0:
        raise CorruptRecordException(
            f"the control batch at offset {batch.base_offset} has the version {version}"
        )
    return bool(kind == _ABORT)


def _legacy_records(data: memoryview, decompressor: Decompressor) -> Iterator[LegacyRecord]:
    """The records of a message in format 0 or 1: the message itself, or those that a compressed one wraps."""
    codec = data[_MAGIC_AT + 1] & _CODEC_MASK
    wrapper = _read_legacy(data)
    if not codec:
        yield wrapper
        return
    if wrapper.value is None:
        raise unreadable("a compressed message without a value")
    if data[_MAGIC_AT] == 0 and _CODECS.get(codec) == "lz4":
        raise unreadable("lz4 in message format 0, whose framing is broken (KAFKA-3160)")
    inner = decompressor.decompress(codec, memoryview(wrapper.value))
    yield from _wrapped(memoryview(inner), wrapper, data[_MAGIC_AT], data[_MAGIC_AT + 1] & _LOG_APPEND_TIME)


def _wrapped(inner: memoryview, wrapper: LegacyRecord, magic: int, appended: int) -> Iterator[LegacyRecord]:
    # In format 1 the inner offsets are relative; the wrapper has the offset of the last record (KIP-31).
    base = 0
    if magic and len(inner):
        last, position = 0, 0
        while position < len(inner):
            last, length, *_ = _legacy_head(inner, position)
            position += _LOG_OVERHEAD + length
        base = wrapper.offset - last
    position = 0
    while position < len(inner):
        _, length, _, _, attributes = _legacy_head(inner, position)
        if attributes & _CODEC_MASK:
            raise CorruptRecordException("a compressed message in a compressed message")
        record = _read_legacy(inner[position : position + _LOG_OVERHEAD + length])
        position += _LOG_OVERHEAD + length
        timestamp = wrapper.timestamp if appended else record.timestamp
        yield LegacyRecord(base + record.offset, timestamp, record.key, record.value)


def _legacy_head(data: memoryview, position: int) -> tuple[int, int, int, int, int]:
    offset, length, checksum, magic, attributes = _LEGACY_HEAD.unpack_from(data, position)
    if not _LEGACY_MIN_BYTES <= length <= len(data) - position - _LOG_OVERHEAD or magic not in {0, 1}:
        raise CorruptRecordException(f"a message of {length} bytes, in format {magic}")
    return offset, length, checksum, magic, attributes


def _read_legacy(data: memoryview) -> LegacyRecord:
    offset, _, _, magic, _ = _legacy_head(data, 0)
    position, timestamp = _LEGACY_HEAD.size, -1
    if magic:
        (timestamp,) = _INT64.unpack_from(data, position)
        position += _INT64.size
    key_and_value: list[bytes | None] = []
    for _ in range(2):
        (size,) = _INT32.unpack_from(data, position)
        position += _INT32.size
        if not -1 <= size <= len(data) - position:
            raise CorruptRecordException(f"a key or a value of {size} bytes")
        key_and_value.append(None if size < 0 else bytes(data[position : position + size]))
        position += max(0, size)
    key, value = key_and_value
    return LegacyRecord(offset, timestamp, key, value)
