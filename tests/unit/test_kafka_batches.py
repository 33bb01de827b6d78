"""Rows to record batches and back, without a broker."""

from __future__ import annotations

import struct
import time

import pytest
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from hypothesis import given
from hypothesis import strategies as st

from delaystream.adapters.clock import SystemClock
from delaystream.adapters.kafka.changelog import committed_records
from delaystream.adapters.kafka.record_batches import Decompressor
from delaystream.adapters.transactions.batches import (
    COMPRESSION_CODECS,
    BatchLimits,
    EncodedRows,
    Encoding,
    Identity,
    Sequences,
)
from delaystream.adapters.transactions.settings import ProducerSettings
from delaystream.engine.failures import LogUnavailable, WriteRefused
from delaystream.engine.ports import Row, TopicPartition
from tests.examples import examples

TARGET = TopicPartition("topic", 0)
PRODUCER = Identity(7, 3)
OTHER = Identity(8, 0)
_CONTROL_BIT = 0x20
_ATTRIBUTES_AT, _CRC_AT, _COVERED_FROM = 21, 17, 21


def row(value: bytes | None, key: bytes | None = b"k") -> Row:
    return (key, value, [], 1_700_000_000_000)


def encoded(
    rows: list[Row],
    *,
    identity: Identity = PRODUCER,
    limit: int = 10_000,
    codec: int = 0,
    sequence: int = 0,
    first: int = 0,
) -> EncodedRows:
    encoded = EncodedRows(TARGET, Encoding(identity, limit, codec), sequence, first)
    for each in rows:
        encoded.append(each)
    return encoded


def at_offset(payload: bytearray, base_offset: int, *, control: bool = False) -> bytes:
    """A batch as the log has it."""
    struct.pack_into(">q", payload, 0, base_offset)
    if control:
        (attributes,) = struct.unpack_from(">h", payload, _ATTRIBUTES_AT)
        struct.pack_into(">h", payload, _ATTRIBUTES_AT, attributes | _CONTROL_BIT)
    struct.pack_into(">I", payload, _CRC_AT, calc_crc32c(bytes(payload[_COVERED_FROM:])))
    return bytes(payload)


def data(offset: int, identity: Identity, *names: bytes) -> bytes:
    [batch] = encoded([row(b"v", name) for name in names], identity=identity).batches()
    return at_offset(batch.payload, offset)


def end_marker(offset: int, identity: Identity, *, commit: bool) -> bytes:
    """A control batch: version 0, type 0 for abort and 1 for commit (KIP-98)."""
    [batch] = encoded([row(b"\0" * 6, struct.pack(">hh", 0, commit))], identity=identity).batches()
    return at_offset(batch.payload, offset, control=True)


@given(
    values=st.lists(st.binary(max_size=300) | st.none(), max_size=60),
    limit=st.integers(100, 2_000),
    codec=st.sampled_from(sorted(COMPRESSION_CODECS.values())),
    sequence=st.integers(2**31 - 40, 2**31 - 1),
)
@examples(80)
def test_rows_come_back_in_order_whatever_the_batches(
    values: list[bytes | None], limit: int, codec: int, sequence: int
) -> None:
    """Every row once, sequence numbers without a gap past 2**31, no batch of several rows above the limit."""
    rows = [row(value, b"%d" % number) for number, value in enumerate(values)]
    gathered = encoded(rows, limit=limit, codec=codec, sequence=sequence)
    assert len(gathered) == len(rows)
    batches = gathered.batches()
    assert len(gathered) == len(rows)
    assert [*gathered] == rows
    read: list[tuple[bytes | None, bytes | None]] = []
    for batch in batches:
        # The limit is one before compression, which may add a few bytes to what cannot be compressed.
        assert batch.count == 1 or len(batch.payload) <= limit + (32 if codec else 0)
        assert batch.first == len(read)
        assert batch.sequence == (sequence + len(read)) % 2**31
        found = MemoryRecords(bytes(batch.payload)).next_batch()
        assert (found.producer_id, found.producer_epoch, found.is_transactional) == (7, 3, True)
        assert found.base_sequence == batch.sequence
        read += [(record.key, record.value) for record in found]
    assert read == [(key, value) for key, value, _, _ in rows]


def test_batches_can_be_built_from_a_row_on() -> None:
    rows = [row(b"%d" % number) for number in range(6, 10)]
    gathered = encoded(rows, sequence=100, first=6)
    [batch] = gathered.batches()
    assert len(gathered) == 4
    assert (batch.first, batch.count, batch.sequence) == (6, 4, 100)


def test_headers_of_any_sequence_are_taken() -> None:
    headers = (("a", b"1"), ("a", None), ("ü", b"\xff"))
    [batch] = encoded([(b"k", b"v", headers, 1)]).batches()
    [record] = MemoryRecords(bytes(batch.payload)).next_batch()
    assert tuple(record.headers) == headers


@pytest.mark.parametrize("before", [0, 3, 20])
def test_the_row_that_cannot_be_encoded_is_named_behind_full_batches(before: int) -> None:
    """Nobody hears of it sooner: whoever adds it is in the midst of deciding on others."""
    fine, wrong = row(b"x" * 100), (b"k", b"v", [("\udcff", b"")], 1)
    gathered = encoded([fine] * before + [wrong, fine, wrong, *[fine] * 20], limit=500)
    assert len(gathered) == before + 23
    for _ in range(2):
        with pytest.raises(WriteRefused) as caught:
            gathered.batches()
        assert (caught.value.row, caught.value.record_at_fault) == (before, True)
        assert [*gathered] == [fine] * before + [wrong]


def test_a_refused_batch_halves_the_limit_of_its_topic_alone() -> None:
    limits = BatchLimits(1_000)
    limits.refused("small", 900)
    limits.refused("small", 2_000)
    assert (limits.of("small"), limits.of("other")) == (450, 1_000)


def test_sequences_wrap_to_zero() -> None:
    sequences = Sequences()
    assert sequences.next(TARGET) == 0
    sequences.set(TARGET, 2**31 + 2)
    assert sequences.next(TARGET) == 2


@pytest.mark.parametrize("wrong", [{"write_timeout_ms": 9_000}, {"commit_timeout_ms": 10_000}])
def test_deadlines_lie_within_each_other(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must hold"):
        ProducerSettings(**wrong)  # type: ignore[arg-type]


def test_records_of_aborted_transactions_are_left_out_from_their_first_offset_on() -> None:
    """Up to that producer's abort marker: its next transaction and others' records are another matter."""
    log = b"".join(
        [
            data(10, PRODUCER, b"a"),
            data(11, OTHER, b"b"),
            end_marker(12, PRODUCER, commit=False),
            data(13, PRODUCER, b"c"),
            end_marker(14, OTHER, commit=True),
            end_marker(15, PRODUCER, commit=True),
            data(16, PRODUCER, b"d", b"e"),
            end_marker(18, PRODUCER, commit=False),
        ]
    )
    aborted = [(7, 16), (7, 10)]
    read = committed_records(10, log, aborted, Decompressor())
    assert [(offset, key) for offset, key, _ in read.records] == [(11, b"b"), (13, b"c")]
    assert read.next_position == 19


def test_an_abort_that_began_before_the_fetch_counts() -> None:
    log = data(20, PRODUCER, b"a") + end_marker(21, PRODUCER, commit=False) + data(22, PRODUCER, b"b")
    read = committed_records(20, log, [(7, 3)], Decompressor())
    assert [key for _, key, _ in read.records] == [b"b"]


def test_a_position_within_a_batch_is_kept_and_a_cut_batch_is_left() -> None:
    """Brokers hand out whole batches, and cut the last one where the fetch ends."""
    log = data(5, PRODUCER, b"a", b"b", b"c") + data(8, PRODUCER, b"d")[:-5]
    read = committed_records(6, log, (), Decompressor())
    assert [(offset, key) for offset, key, _ in read.records] == [(6, b"b"), (7, b"c")]
    assert read.next_position == 8
    assert committed_records(8, b"", (), Decompressor()).next_position == 8


def test_a_batch_that_does_not_match_its_checksum_is_not_read() -> None:
    log = bytearray(data(5, PRODUCER, b"a"))
    log[-3] ^= 1
    with pytest.raises(LogUnavailable, match="checksum"):
        committed_records(5, bytes(log), (), Decompressor())


def test_the_clock_is_in_milliseconds() -> None:
    before = time.time()
    assert int(before * 1000) - 1 <= SystemClock().now_ms() <= time.time() * 1000
