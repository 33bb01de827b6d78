"""Record batches as brokers hand them out, well-formed or not, with checksums that are right."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from zlib import crc32

import cramjam
from aiokafka import codec
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.record.util import calc_crc32c, encode_varint
from aiokafka.structs import TopicPartition

from delaystream.adapters.kafka.record_batches import Decompressor, FetchedBatches
from delaystream.adapters.membership.record_reader import Piece, RecordReader
from delaystream.engine.ports import Headers, SourceRecord

CODECS = {
    "none": (0, bytes),
    "gzip": (1, codec.gzip_encode),
    "snappy": (2, lambda data: bytes(cramjam.snappy.compress_raw(data))),
    "xerial": (2, codec.snappy_encode),
    "lz4": (3, codec.lz4_encode),
    "zstd": (4, codec.zstd_encode),
}
COMPRESSED = sorted(set(CODECS) - {"none"})

Fields = tuple[bytes | None, bytes | None, Headers]
_HEADER = struct.Struct(">qiibIhiqqqhii")
_ATTRIBUTES_AT = 21


def varint(value: int) -> bytes:
    """Zigzag, as in message format 2."""
    out = bytearray()
    encode_varint(value, out.append)
    return bytes(out)


def record(delta: int, key: bytes | None, value: bytes | None, headers: Headers = ()) -> bytes:
    """One record's bytes; ``delta`` is its place in the batch."""

    def sized(part: bytes | None) -> bytes:
        return varint(-1) if part is None else varint(len(part)) + part

    body = b"\0" + varint(0) + varint(delta) + sized(key) + sized(value) + varint(len(headers))
    body += b"".join(sized(name.encode("utf-8", "surrogateescape")) + sized(each) for name, each in headers)
    return varint(len(body)) + body


def raw_batch(
    base: int,
    payload: bytes,
    count: int,
    *,
    codec_number: int = 0,
    last: int | None = None,
    transactional: bool = False,
    control: bool = False,
    producer_id: int = -1,
) -> bytes:
    """A batch of message format 2 around a payload that may be anything."""
    attributes = codec_number | (0x10 if transactional else 0) | (0x20 if control else 0)
    last = count - 1 if last is None else last
    head = _HEADER.pack(
        base, 49 + len(payload), 0, 2, 0, attributes, last, 1_000, 1_000, producer_id, 0, 0, count
    )
    checksum = calc_crc32c(head[_ATTRIBUTES_AT:] + payload)
    return head[:17] + struct.pack(">I", checksum) + head[_ATTRIBUTES_AT:] + payload


def batch(base: int, records: Sequence[Fields], compression: str = "none", **options: int) -> bytes:
    """A well-formed batch."""
    number, compress = CODECS[compression]
    payload = b"".join(record(delta, *fields) for delta, fields in enumerate(records))
    return raw_batch(base, bytes(compress(payload)), len(records), codec_number=number, **options)  # type: ignore[arg-type]


def marker(base: int, payload: bytes, producer_id: int = 7, codec_number: int = 0, count: int = 1) -> bytes:
    """A control batch, as brokers write them at the end of a transaction, around a payload."""
    return raw_batch(
        base,
        payload,
        count,
        codec_number=codec_number,
        transactional=True,
        control=True,
        producer_id=producer_id,
    )


def bomb(base: int, megabytes: int, compression: str, count: int = 1, **options: bool | int) -> bytes:
    """A batch of ``count`` records of so many MB of zeros in all; made without holding them."""
    number, _ = CODECS[compression]
    size = megabytes * 1_000_000 // count
    prefix, zeros = record(0, b"k", bytes(size))[: -size - 1], bytes(1_000_000)
    if compression in {"snappy", "xerial"}:
        payload = bytes(CODECS[compression][1]((prefix + bytes(size + 1)) * count))
    else:
        # As Kafka has it: no lz4 block depends on the one before.
        options_of = {"lz4": {"content_checksum": False, "block_linked": False}}
        compressor = getattr(cramjam, compression).Compressor(**options_of.get(compression, {}))
        written = bytearray()
        for _ in range(count):
            compressor.compress(prefix)
            for start in range(0, size + 1, len(zeros)):
                compressor.compress(zeros[: size + 1 - start])
                written += bytes(compressor.flush())
        payload = bytes(written + bytes(compressor.finish()))
    return raw_batch(base, payload, count, codec_number=number, **options)  # type: ignore[arg-type]


def legacy(magic: int, offset: int, value: bytes | None, attributes: int = 0, timestamp: int = 5) -> bytes:
    """One message of format 0 or 1, with key ``k``; a wrapper where attributes name a codec."""
    body = struct.pack(">bb", magic, attributes) + (struct.pack(">q", timestamp) if magic else b"")
    body += struct.pack(">i", 1) + b"k"
    body += struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value
    return struct.pack(">qiI", offset, 4 + len(body), crc32(body)) + body


def reader(
    response: bytes,
    position: int = 0,
    aborted: Sequence[tuple[int, int]] = (),
    max_bytes: int = 2 * 1024 * 1024,
) -> RecordReader:
    """A reader as the fetcher makes it."""
    batches = FetchedBatches(response)
    partition = TopicPartition("t", 0)
    fetched = PartitionRecords(partition, batches, list(aborted), position, None, None, True, READ_COMMITTED)
    return RecordReader(fetched, Decompressor(max_bytes))


def pieces(reading: RecordReader, max_records: int = 2_000, max_bytes: int = 2 * 1024 * 1024) -> list[Piece]:
    """Everything that it hands out."""
    found = []
    while not reading.exhausted:
        found.append(reading.take(max_records, max_bytes))
    return found


def fields(records: Sequence[SourceRecord]) -> list[tuple[int, bytes | None, bytes | None, Headers]]:
    """What matters of records."""
    return [(r.offset, r.key, r.value, [*r.headers]) for r in records]


def built(records: Sequence[Fields], compression: int) -> bytes:
    """A batch by aiokafka's own builder."""
    builder = _DefaultRecordBatchBuilderPy(2, compression, 0, -1, -1, 0, 1 << 30)
    for number, (key, value, headers) in enumerate(records):
        builder.append(number, 1_000, key, value, [*headers])
    return bytes(builder.build())
