"""Fetched bytes become records within a bound of memory, and whatever they are, the stream goes on."""

from __future__ import annotations

import gc
import re
import struct
import sys
import weakref
from pathlib import Path
from zlib import crc32

import cramjam
import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from delaystream.adapters.kafka.changelog import committed_records
from delaystream.adapters.kafka.record_batches import BatchRefusedError, Decompressor, FetchedBatches
from delaystream.adapters.membership.record_reader import Piece, RecordReader
from delaystream.core.rejection import Code, Rejection
from delaystream.engine.failures import LogUnavailable
from tests.examples import examples
from tests.unit.record_batches import (
    CODECS,
    COMPRESSED,
    batch,
    bomb,
    built,
    fields,
    legacy,
    marker,
    pieces,
    raw_batch,
    reader,
    record,
    varint,
)

SMALL = 1024 * 1024


def refusals(found: list[Piece]) -> dict[int, Rejection]:
    """Every refusal, by offset."""
    return {offset: why for piece in found for offset, why in piece.unreadable.items()}


def offsets(found: list[Piece]) -> list[int]:
    """Of all records."""
    return [r.offset for piece in found for r in piece.records]


def test_a_response_is_freed_without_the_collector() -> None:
    """A full collection is rare here, and until then each response would hold a megabyte."""
    responses = [b"", batch(0, [(b"k", b"v", ())]), bomb(0, 3, "zstd"), raw_batch(0, b"\xff" * 20, 3)]
    gc.disable()
    try:
        for response in responses:
            fetched = PartitionRecords(
                TopicPartition("t", 0), FetchedBatches(response), None, 0, None, None, True, READ_COMMITTED
            )
            alive = weakref.ref(fetched)
            reading = RecordReader(fetched, Decompressor(SMALL))
            del fetched
            pieces(reading)
            opened = reading._batch
            del reading, opened
            assert alive() is None
    finally:
        gc.enable()


# -- ordinary batches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", CODECS)
def test_records_are_read_as_aiokafka_reads_them(compression: str) -> None:
    records = [
        (b"%d" % n, None if n % 7 == 0 else b"v" * n, [("a", b"1"), ("é", None)] * (n % 3))
        for n in range(1_500)
    ]
    response = batch(10, records, compression) + batch(1_510, records, compression)
    theirs = MemoryRecords(response)
    expected = []
    while theirs.has_next():
        expected += fields([*theirs.next_batch()])
    assert len(expected) == 3_000
    found = pieces(reader(response, 10))
    assert [each for piece in found for each in fields(piece.records)] == expected
    assert refusals(found) == {}
    assert found[-1].stop == 3_010
    # From the middle of a batch, in pieces of another size.
    found = pieces(reader(response, 700), max_records=99)
    assert [each for piece in found for each in fields(piece.records)] == expected[690:]


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_what_aiokafkas_builder_compresses_is_read(number: int) -> None:
    response = built([(b"k", b"v" * 5_000, [("h", b"x")])] * 20, number)
    assert response[22] == number
    assert offsets(pieces(reader(response))) == [*range(20)]


def test_a_response_that_ends_within_a_batch_is_read_up_to_there() -> None:
    response = batch(0, [(b"k", b"v", ())]) + batch(1, [(b"k", b"v", ())])[:-3]
    [piece] = pieces(reader(response))
    assert (len(piece.records), piece.stop) == (1, 1)


def test_sizes_count_what_records_take_in_memory() -> None:
    """Headers too: 20,000 records wait in an inbox that counts bytes."""
    response = batch(0, [(b"k", b"v", [("name", b"x" * 1_000)] * 10)] * 100, "zstd")
    [piece] = pieces(reader(response))
    assert 100 * 10 * 1_000 < piece.size_bytes < 100 * 10 * 1_000 * 2
    response = batch(0, [(b"k", b"v", [("", None)] * 1_000)] * 100, "zstd")
    piece, *_ = pieces(reader(response, max_bytes=64 * SMALL))
    assert piece.size_bytes > 100 * 1_000 * 50


@pytest.mark.parametrize("compression", CODECS)
def test_header_names_that_are_not_utf8_are_pointed_out(compression: str) -> None:
    odd = {3, 600, 999}
    names = [("\udcff" if n in odd else "fine", b"1") for n in range(1_000)]
    response = batch(0, [(b"k", b"v", [name]) for name in names], compression)
    found = pieces(reader(response + batch(1_000, [(b"k", b"v", ())], compression)))
    assert offsets(found) == [*range(1_001)]
    assert {offset: why.code for offset, why in refusals(found).items()} == dict.fromkeys(
        odd, Code.UNDECODABLE_RECORD
    )


def test_so_many_header_names_that_are_not_utf8_that_reading_them_takes_seconds_are_refused() -> None:
    """A batch of a few hundred bytes may hold a million of them; each takes Python two microseconds."""
    many = [("\udcff", None)] * 60_000
    response = batch(0, [(b"k", b"v", ()), (b"k", b"v", many)], "zstd") + batch(2, [(b"k", b"v", ())])
    found = pieces(reader(response, max_bytes=64 * SMALL))
    assert offsets(found)[-1] == 2
    assert {why.code for why in refusals(found).values()} == {Code.BATCH_TOO_LARGE}
    few = [(b"k", b"v", [("\udcff", None)] * 50)] * 900
    found = pieces(reader(batch(0, few, "zstd"), max_bytes=64 * SMALL))
    assert {why.code for why in refusals(found).values()} == {Code.UNDECODABLE_RECORD}


# -- bombs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", COMPRESSED)
def test_a_batch_that_decompresses_to_too_much_is_refused_as_a_whole(compression: str) -> None:
    """What comes before and behind it is read; one record stands for the batch, the last of its piece."""
    around = [(b"k", b"v", ())] * 3
    response = batch(0, around, compression) + bomb(3, 8, compression, 5) + batch(8, around, compression)
    found = pieces(reader(response, max_bytes=SMALL))
    assert offsets(found) == [0, 1, 2, 3, 8, 9, 10]
    [why] = refusals(found).values()
    assert (why.code, why.records) == (Code.BATCH_TOO_LARGE, 5)
    assert re.fullmatch(
        r"the record batch of offsets 3 to 7 \(5 records\) is \d+ bytes of \w+ and decompresses to more than "
        r"the 1048576 bytes that are expected at most",
        why.detail,
    )
    assert found[0].stop == 8
    stand_in = found[0].records[-1]
    assert (stand_in.offset, stand_in.key, stand_in.value, stand_in.timestamp) == (3, None, None, 1_000)
    assert found[-1].stop == 11


@pytest.mark.parametrize("compression", COMPRESSED)
def test_a_batch_as_large_as_the_bound_is_read(compression: str) -> None:
    overhead = len(record(0, b"k", bytes(SMALL - 100))) - (SMALL - 100)
    value = bytes(SMALL - overhead)
    [piece] = pieces(reader(batch(0, [(b"k", value, ())], compression), max_bytes=SMALL))
    assert (piece.records[0].value, piece.unreadable) == (value, {})
    piece, *_ = pieces(reader(batch(0, [(b"k", value + b"1", ())], compression), max_bytes=SMALL))
    assert piece.unreadable[0].code == Code.BATCH_TOO_LARGE


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are reset in Linux's /proc")
@pytest.mark.parametrize("compression", ["gzip", "lz4", "zstd"])
def test_a_bomb_takes_no_more_memory_than_the_bound(compression: str) -> None:
    def peak() -> int:
        found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
        assert found is not None
        return int(found[1]) * 1024

    bound = 16 * SMALL
    response = bomb(0, 150, compression)
    assert len(response) < 1_000_000
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    piece, *_ = pieces(reader(response, max_bytes=bound))
    assert piece.unreadable[0].code == Code.BATCH_TOO_LARGE
    assert peak() - before < 3 * bound


def test_a_bomb_in_the_middle_of_which_reading_begins_is_refused_from_there() -> None:
    found = pieces(reader(bomb(100, 8, "zstd", 50), 120, max_bytes=SMALL))
    assert offsets(found) == [120]
    assert refusals(found)[120].records == 30
    assert found[-1].stop == 150


def test_a_bomb_in_a_transaction_is_refused_if_that_was_committed_and_ignored_if_aborted() -> None:
    response = bomb(0, 8, "zstd", 2, transactional=True, producer_id=7) + batch(2, [(b"k", b"v", ())])
    found = pieces(reader(response, max_bytes=SMALL))
    assert offsets(found) == [0, 2]
    assert refusals(found)[0].records == 2
    found = pieces(reader(response, aborted=[(7, 0)], max_bytes=SMALL))
    assert offsets(found) == [2]
    assert refusals(found) == {}


def test_headers_that_would_take_too_much_once_parsed_are_refused() -> None:
    """Two bytes in the batch, more than fifty as an object: 60 MB of them would be 2 GB."""
    many = b"\0" + varint(0) + varint(1) + varint(-1) + varint(-1) + varint(600_000) + b"\0\1" * 600_000
    payload = record(0, b"k", b"v") + varint(len(many)) + many + record(2, b"k", b"v")
    number, compress = CODECS["zstd"]
    response = raw_batch(0, bytes(compress(payload)), 3, codec_number=number) + batch(3, [(b"k", b"v", ())])
    found = pieces(reader(response, max_bytes=2 * SMALL))
    assert offsets(found) == [0, 3]
    assert refusals(found)[0].code == Code.BATCH_TOO_LARGE
    assert "600000 headers" in refusals(found)[0].detail
    found = pieces(reader(response, max_bytes=100 * SMALL))
    assert offsets(found) == [0, 1, 2, 3]
    assert refusals(found) == {}


# -- batches that are not as the protocol has them ----------------------------------------------------------


@pytest.mark.parametrize("compression", COMPRESSED)
@pytest.mark.parametrize("damage", ["cut", "garbage", "nothing", "behind"])
def test_what_cannot_be_decompressed_is_refused_as_a_whole(compression: str, damage: str) -> None:
    number, compress = CODECS[compression]
    payload = bytes(compress(b"".join(record(n, b"k", b"%d" % n * 50) for n in range(40))))
    payload = {
        "cut": payload[:-7],
        "garbage": b"\xff\xfe" * 40,
        "nothing": b"",
        "behind": payload + b"\xff\xff\xff\xff\xff",
    }[damage]
    response = raw_batch(0, payload, 40, codec_number=number) + batch(40, [(b"k", b"v", ())], compression)
    found = pieces(reader(response))
    assert offsets(found) == [0, 40]
    [why] = refusals(found).values()
    assert (why.code, why.records) == (Code.UNREADABLE_BATCH, 40)
    assert why.detail.startswith("the record batch of offsets 0 to 39 (40 records) cannot be read: ")


@pytest.mark.parametrize("number", [5, 6, 7])
def test_an_unknown_compression_is_refused(number: int) -> None:
    found = pieces(reader(raw_batch(0, b"x" * 50, 4, codec_number=number) + batch(4, [(b"k", b"v", ())])))
    assert offsets(found) == [0, 4]
    assert refusals(found)[0].code == Code.UNREADABLE_BATCH


def _lying(body: bytes) -> bytes:
    return varint(len(body)) + body


_UP_TO_KEY = b"\0" + varint(0) + varint(2)
_LIES = {
    "length": varint(1_000) + b"\0" * 20,
    "negative length": varint(-5) + b"\0" * 20,
    "key": _lying(_UP_TO_KEY + varint(2**31) + b"k"),
    "key of all memory": _lying(_UP_TO_KEY + varint(2**63 - 1 - 20) + b"k"),
    "value of all memory": _lying(_UP_TO_KEY + varint(-1) + varint(2**63 - 1) + b"k"),
    "varint": _lying(b"\xff" * 30),
    "headers": _lying(_UP_TO_KEY + varint(-1) + varint(-1) + varint(2**40)),
    "negative headers": _lying(_UP_TO_KEY + varint(-1) + varint(-1) + varint(-3)),
    "header name": _lying(_UP_TO_KEY + varint(-1) + varint(-1) + varint(1) + varint(-1) + varint(-1)),
    "header value": _lying(_UP_TO_KEY + varint(-1) + varint(-1) + varint(1) + varint(0) + varint(2**62)),
    "offset": record(5_000, b"k", b"v"),
    "nothing": b"",
}


@pytest.mark.parametrize("compression", ["none", "lz4"])
@pytest.mark.parametrize("lie", _LIES)
def test_a_record_that_lies_ends_its_batch_and_those_before_it_are_read(lie: str, compression: str) -> None:
    number, compress = CODECS[compression]
    payload = record(0, b"k", b"v" * 300) + record(1, b"k", b"v" * 300) + _LIES[lie]
    response = raw_batch(0, bytes(compress(payload)), 6, codec_number=number)
    found = pieces(reader(response + batch(6, [(b"k", b"v", ())])))
    assert offsets(found) == ([0, 6] if lie == "offset" else [0, 1, 2, 6])
    [(offset, why)] = refusals(found).items()
    assert why.code == Code.UNREADABLE_BATCH
    assert why.records == 6 - offset


@pytest.mark.parametrize(("count", "refused"), [(2**31 - 1, 3), (-1, 3), (-(2**31), 3)])
def test_a_number_of_records_that_lies_is_counted_by_the_offsets(count: int, refused: int) -> None:
    payload = b"".join(record(n, b"k", b"v") for n in range(3))
    found = pieces(reader(raw_batch(0, payload, count, last=5) + batch(6, [(b"k", b"v", ())])))
    assert offsets(found)[-1] == 6
    [why] = refusals(found).values()
    assert why.records <= 6
    assert (why.records == refused) is (count > 0)


def test_a_last_offset_before_the_first_holds_nothing_up() -> None:
    found = pieces(reader(raw_batch(0, b"", 3, last=-5) + batch(1, [(b"k", b"v", ())])))
    assert offsets(found) == [0, 1]
    assert (refusals(found)[0].code, refusals(found)[0].records) == (Code.UNREADABLE_BATCH, 1)


def test_bytes_behind_the_last_record_are_of_no_concern() -> None:
    payload = record(0, b"k", b"v") + b"more"
    found = pieces(reader(raw_batch(0, payload, 1) + batch(1, [(b"k", b"v", ())])))
    assert offsets(found) == [0, 1]
    assert refusals(found) == {}


def test_a_batch_without_records_is_gone_past() -> None:
    """What compaction leaves of one."""
    found = pieces(reader(raw_batch(0, b"", 0, last=9) + batch(10, [(b"k", b"v", ())])))
    assert offsets(found) == [10]


def test_what_comes_before_a_wrong_checksum_is_handed_out() -> None:
    """A wrong checksum is no producer's doing, and nothing that the batch says of itself can be believed."""
    wrong = bytearray(batch(1, [(b"k", b"v", ())]))
    wrong[-1] ^= 1
    reading = reader(batch(0, [(b"k", b"v", ())]) + bytes(wrong) + batch(2, [(b"k", b"v", ())]))
    assert offsets([reading.take(10, SMALL)]) == [0]
    for _ in range(2):
        with pytest.raises(
            CorruptRecordException, match="at offset 1 does not match its checksum; the next one is at 2"
        ):
            reading.take(10, SMALL)
    assert reading.position == 1


@pytest.mark.parametrize("length", [-20, 0, 13, 30])
def test_a_batch_shorter_than_any_is_corrupt(length: int) -> None:
    response = struct.pack(">qiib", 0, length, 0, 2) + bytes(100)
    with pytest.raises(CorruptRecordException):
        pieces(reader(response))


# -- control batches ---------------------------------------------------------------------------------------

ABORT = record(0, b"\0\0\0\0", b"\0\0\0\0\0\0")
COMMIT = record(0, b"\0\0\0\1", b"\0\0\0\0\0\0")


def committed(base: int) -> bytes:
    return raw_batch(base, record(0, b"k", b"v"), 1, transactional=True, producer_id=7)


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_an_aborted_transaction_ends_at_its_marker(codec: str) -> None:
    """Also at one of a later version, or compressed, as no broker has written one yet."""
    number, compress = CODECS[codec]
    for payload in (ABORT, record(0, b"\0\1\0\0later", b"")):
        end = marker(1, bytes(compress(payload)), codec_number=number)
        response = committed(0) + end + committed(2) + marker(3, COMMIT) + batch(4, [(b"k", b"v", ())])
        assert offsets(pieces(reader(response, aborted=[(7, 0)]))) == [2, 4]
        read = committed_records(0, response, [(7, 0)], Decompressor())
        assert [offset for offset, _, _ in read.records] == [2, 4]


UNREADABLE_MARKERS = {
    "bad name": marker(1, record(0, b"\0\0\0\0", b"", [("\udcff", b"")])),
    "no key": marker(1, record(0, None, b"")),
    "short key": marker(1, record(0, b"\0\0\0", b"")),
    "bad version": marker(1, record(0, b"\xff\xff\0\0", b"")),
    "rubbish": marker(1, b"\xff" * 40),
    "cut short": marker(1, ABORT[:-3]),
    "not compressed": marker(1, b"\xff" * 40, codec_number=4),
    "unknown codec": marker(1, ABORT, codec_number=7),
    "bomb": bomb(1, 8, "zstd", transactional=True, control=True, producer_id=7),
}


@pytest.mark.parametrize("damage", sorted(UNREADABLE_MARKERS))
def test_a_marker_that_cannot_be_read_is_waited_for(damage: str) -> None:
    """Going on would lose what is committed behind it, or read what was aborted."""
    response = committed(0) + UNREADABLE_MARKERS[damage] + committed(2)
    reading = reader(batch(0, [(b"k", b"v", ())]) + response, aborted=[(7, 0)], max_bytes=SMALL)
    assert offsets([reading.take(10, SMALL)]) == [0]
    for _ in range(2):
        with pytest.raises(CorruptRecordException, match="the control batch at offset 1"):
            reading.take(10, SMALL)
    assert reading.position == 1
    with pytest.raises(LogUnavailable, match="the control batch at offset 1"):
        committed_records(0, response, [(7, 0)], Decompressor(SMALL))


@pytest.mark.parametrize("damage", sorted(UNREADABLE_MARKERS))
def test_a_marker_that_ends_no_aborted_transaction_need_not_be_readable(damage: str) -> None:
    """Nothing depends on it: what its producer wrote is committed, whatever it says."""
    response = committed(0) + UNREADABLE_MARKERS[damage] + committed(2)
    for aborted in ([], [(8, 0)]):
        assert offsets(pieces(reader(response, aborted=aborted, max_bytes=SMALL))) == [0, 2]


def test_a_marker_without_its_record_ends_nothing() -> None:
    """Compaction leaves those; the marker of a later transaction is another one."""
    response = committed(0) + marker(1, b"", count=0) + committed(2) + marker(3, ABORT) + committed(4)
    # The empty batch ends where it begins.
    assert offsets(pieces(reader(response, aborted=[(7, 0)]))) == [4]


# -- all together ------------------------------------------------------------------------------------------


@given(
    st.sampled_from(sorted(CODECS)),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=8),
    st.integers(-3, 12),
    st.integers(0, 12),
)
@examples(400)
def test_whatever_is_in_a_batch_all_its_offsets_are_accounted_for(
    compression: str, changes: list[tuple[int, int]], count: int, position: int
) -> None:
    """Read, or covered by the one record that stands for the rest; the next batch is read."""
    number, compress = CODECS[compression]
    payload = bytearray(
        b"".join(record(n, b"key", b"value" * n, [("n", b"%d" % n), ("e", None)]) for n in range(10))
    )
    for at, byte in changes:
        payload[at % len(payload)] = byte
    response = raw_batch(0, bytes(compress(bytes(payload))), count, codec_number=number, last=9)
    found = pieces(reader(response + batch(10, [(b"k", b"v", ())]), min(position, 10)), max_records=4)
    assert found[-1].stop == 11
    assert offsets(found)[-1] == 10
    assert offsets(found) == sorted(set(offsets(found)))
    assert offsets(found)[0] >= min(position, 10)
    read = set(offsets(found))
    covered = {n for piece in found for offset in piece.unreadable for n in range(offset, piece.stop)}
    if count >= 10 or count <= 0:
        assert read | covered >= set(range(position, 11))
    for piece in found:
        for offset, why in piece.unreadable.items():
            if why.code is not Code.UNDECODABLE_RECORD:
                assert offset == piece.records[-1].offset
                assert piece.stop == 10


# -- message formats 0 and 1 ---------------------------------------------------------------------------------


# lz4 in message format 0 has a framing of its own (KAFKA-3160).
@pytest.mark.parametrize(
    ("magic", "number"),
    [(magic, number) for magic in (0, 1) for number in range(4) if (magic, number) != (0, 3)],
)
def test_old_message_formats_are_read_as_aiokafka_reads_them(magic: int, number: int) -> None:
    builder = LegacyRecordBatchBuilder(magic, number, 1 << 20)
    for n in range(50):
        builder.append(n, 1_000 + n, b"k" if n % 2 else None, b"value %d" % n * 10)
    response = bytearray(builder.build())
    if number:
        struct.pack_into(">q", response, 0, 149 if magic else 49)  # as a broker does it
    theirs = MemoryRecords(bytes(response))
    expected = []
    while theirs.has_next():
        expected += [(r.offset, r.timestamp or -1, r.key, r.value) for r in theirs.next_batch()]
    found = pieces(reader(bytes(response)))
    assert [(r.offset, r.timestamp, r.key, r.value) for p in found for r in p.records] == expected
    assert len(expected) == 50
    assert refusals(found) == {}
    found = pieces(reader(bytes(response), expected[20][0]))
    assert offsets(found) == [offset for offset, *_ in expected[20:]]


@pytest.mark.parametrize("magic", [0, 1])
@pytest.mark.parametrize("compression", ["gzip", "snappy", "xerial", "lz4"])
def test_an_old_message_that_decompresses_to_too_much_is_refused(magic: int, compression: str) -> None:
    number, compress = CODECS[compression]
    wrapper = legacy(magic, 4, bytes(compress(legacy(magic, 4, bytes(8_000_000)))), number)
    found = pieces(reader(wrapper + legacy(magic, 5, b"v"), 2, max_bytes=SMALL))
    assert offsets(found) == [2, 5]
    why = refusals(found)[2]
    expected = Code.UNREADABLE_BATCH if (magic, compression) == (0, "lz4") else Code.BATCH_TOO_LARGE
    assert (why.code, why.records) == (expected, 3)


@pytest.mark.parametrize("magic", [0, 1])
@pytest.mark.parametrize(
    "inner",
    [
        b"",
        b"short",
        legacy(1, 3, b"v") + b"rest",
        struct.pack(">qiIbb", 3, -40, 0, 1, 0),
        struct.pack(">qiIbb", 3, 2**31 - 1, 0, 1, 0) + bytes(50),
        legacy(1, 3, bytes(cramjam.gzip.compress(legacy(1, 3, b"v"))), 1),
    ],
)
def test_an_old_message_with_rubbish_in_it_is_gone_past(magic: int, inner: bytes) -> None:
    wrapper = legacy(magic, 4, bytes(cramjam.gzip.compress(inner)), 1)
    found = pieces(reader(wrapper + legacy(magic, 5, b"v")))
    assert offsets(found)[-1] == 5
    assert found[-1].stop == 6
    assert inner == b"" or [why.code for why in refusals(found).values()] == [Code.UNREADABLE_BATCH]
    found = pieces(reader(legacy(magic, 4, None, 1) + legacy(magic, 5, b"v")))
    assert [why.code for why in refusals(found).values()] == [Code.UNREADABLE_BATCH]


@pytest.mark.parametrize("magic", [0, 1])
@pytest.mark.parametrize("size", [-2, -(1 << 31), 1_000, (1 << 31) - 1])
@pytest.mark.parametrize("field", ["key", "value"])
def test_an_old_message_whose_sizes_lie_is_damaged_or_unreadable(magic: int, size: int, field: str) -> None:
    """By its checksum: what was damaged is waited for, and what was produced like this is gone past."""
    at = 18 + 8 * magic + (5 if field == "value" else 0)
    damaged = bytearray(legacy(magic, 0, b"v"))
    damaged[at : at + 4] = struct.pack(">i", size)
    with pytest.raises(CorruptRecordException, match="at offset 0 does not match its checksum"):
        pieces(reader(bytes(damaged)))
    produced = damaged[:12] + struct.pack(">I", crc32(damaged[16:])) + damaged[16:]
    found = pieces(reader(bytes(produced) + legacy(magic, 1, b"v")))
    assert offsets(found) == [0, 1]
    assert [why.code for why in refusals(found).values()] == [Code.UNREADABLE_BATCH]


@pytest.mark.parametrize("length", range(14, 22))
def test_an_old_message_that_ends_too_early_is_unreadable(length: int) -> None:
    body = (b"\1\0" + bytes(20))[: length - 4]
    response = struct.pack(">qiI", 0, length, crc32(body)) + body
    found = pieces(reader(response))
    assert [why.code for why in refusals(found).values()] == [Code.UNREADABLE_BATCH]
    with pytest.raises(BatchRefusedError, match="message format"):
        committed_records(0, response, (), Decompressor())


# -- the changelog -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", COMPRESSED)
def test_the_changelog_is_read_within_the_bound(compression: str) -> None:
    log = batch(0, [(b"k", b"v" * 1_000, ())] * 20, compression)
    assert len(committed_records(0, log, (), Decompressor(SMALL)).records) == 20
    with pytest.raises(BatchRefusedError) as refused:
        committed_records(0, log + bomb(20, 8, compression), (), Decompressor(SMALL))
    assert refused.value.code is Code.BATCH_TOO_LARGE
    with pytest.raises(UnicodeDecodeError):
        committed_records(
            0, batch(0, [(b"k", b"v", ()), (b"k", b"v", [("\udcff", b"")])]), (), Decompressor()
        )
