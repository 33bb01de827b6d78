"""What delaystream takes from inside aiokafka is there, and means what it is taken for.

Each contract is run twice: with the library as it is, where it holds, and with a library in which something
was renamed or means something else, where it must not.
"""

from __future__ import annotations

import ast
import asyncio
import gc
import importlib
import inspect
import struct
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import aiokafka
import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer import fetcher as fetchers
from aiokafka.consumer.fetcher import READ_COMMITTED, Fetcher, FetchError, FetchResult, PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import Assignment, SubscriptionState, TopicPartitionState
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.errors import (
    CorruptRecordException,
    InconsistentGroupProtocolError,
    KafkaConnectionError,
    OffsetOutOfRangeError,
)
from aiokafka.protocol import api
from aiokafka.record import default_records, memory_records
from aiokafka.record.util import encode_varint
from aiokafka.structs import TopicPartition

# Puts our class in the place of aiokafka's, as in a worker.
import delaystream.adapters.membership.batch_fetcher  # noqa: F401
from delaystream.adapters.internals import aiokafka as internals
from delaystream.adapters.internals.aiokafka import FetchWait, Membership
from delaystream.adapters.kafka import protocol as kafka_protocol
from delaystream.adapters.kafka.record_batches import FetchedBatches
from tests.unit.contracts import Contract, Contracts, Doctor, is_broken, renamed, stuck
from tests.unit.record_batches import batch, marker, raw_batch, record
from tests.unit.scripted_group import TOPIC, Broker, joined, started

contract = Contracts()


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110 - the script tells nobody
        await asyncio.sleep(0)


# -- connections -----------------------------------------------------------------------------------------


class OneAnswer:
    """A broker that tells its versions, answers one FindCoordinator, and then reads nothing."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (
            struct.pack(">hi", 0, 1) + struct.pack(">hhh", 10, 0, 1),
            struct.pack(">ihhihi", 0, 0, -1, 7, -1, 9092),
        ):
            size, _, _, correlation_id = struct.unpack(">ihhi", await reader.readexactly(12))
            await reader.readexactly(size - 8)
            writer.write(struct.pack(">ii", len(answer) + 4, correlation_id) + answer)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        # One that nothing refers to is closed when it is freed (Python 3.13).
        self.kept = writer

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[AIOKafkaConnection]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        [(_, port)] = [socket.getsockname() for socket in server.sockets]
        try:
            yield await internals.create_conn(
                "127.0.0.1", port, client_id="test", request_timeout_ms=200, max_idle_ms=60_000
            )
        finally:
            server.close()


@contract
async def connections_ask_and_answer() -> None:
    async with OneAnswer().connected() as connection:
        assert connection.connected()
        assert connection.host == "127.0.0.1"
        request = internals.FindCoordinatorRequest("group", 0)
        answer = await connection.send(request)
        assert (answer.error_code, answer.coordinator_id) == (0, 7)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await connection.send(request)
        assert time.monotonic() - began > 0.1
        waiting = asyncio.ensure_future(connection.send(request))
        await asyncio.sleep(0)
        closed = connection.close(reason=internals.CloseReason.SHUTDOWN)
        with pytest.raises(KafkaConnectionError):
            await waiting
        assert not connection.connected()
        await closed


@contract
async def what_is_abandoned_sends_nothing_more() -> None:
    async with OneAnswer().connected() as connection:
        await connection.send(internals.FindCoordinatorRequest("group", 0))
        transport = connection._writer.transport
        connection._writer.write(bytes(40_000_000))
        assert transport.get_write_buffer_size()
        closed = internals.abandon(connection, internals.CloseReason.CONNECTION_BROKEN)
        await closed
        assert transport.get_extra_info("socket").fileno() == -1
        # As one that was closed before.
        assert internals.abandon(connection, internals.CloseReason.SHUTDOWN).done()


@contract
def addresses_are_read_as_a_consumer_reads_them() -> None:
    for given in ("a:1,b:2", ["a:1", "b:2"]):
        found = internals.collect_hosts(given)
        assert sorted((host, port) for host, port, _ in found) == [("a", 1), ("b", 2)]


# -- the protocol: what is sent and what is read, byte for byte as Kafka's own description has it ---------


def text(value: str | None) -> bytes:
    return struct.pack(">h", -1) if value is None else struct.pack(">h", len(value)) + value.encode()


def array(*items: bytes) -> bytes:
    return struct.pack(">i", len(items)) + b"".join(items)


def ints(layout: str, *values: int) -> bytes:
    return struct.pack(">" + layout, *values)


def asked(request: Any, key: int, newest: int) -> Any:
    """The request as it is sent to a broker of today; its version is the newest that both sides know."""
    made = request.prepare({key: (0, 20)})
    assert key == made.API_KEY
    assert newest == made.API_VERSION
    return made


def answered(made: Any, data: bytes) -> Any:
    return made.RESPONSE_TYPE.decode(data)


@contract
def requests_about_groups() -> None:
    made = asked(internals.FindCoordinatorRequest("group", 1), 10, 1)
    assert made.encode() == text("group") + ints("b", 1)
    found = answered(made, ints("ih", 0, 15) + text("why") + ints("i", 3) + text("host") + ints("i", 9092))
    assert (found.error_code, found.coordinator_id) == (15, 3)

    made = asked(internals.HeartbeatRequest("group", -1, "me"), 12, 1)
    assert made.encode() == text("group") + ints("i", -1) + text("me")
    assert answered(made, ints("ih", 0, 30)).error_code == 30

    made = asked(internals.OffsetFetchRequest("group", [("t", [0, 1])]), 9, 3)
    assert made.encode() == text("group") + array(text("t") + array(ints("i", 0), ints("i", 1)))
    row = ints("iq", 1, 42) + text("") + ints("h", 0)
    found = answered(made, ints("i", 0) + array(text("t") + array(row)) + ints("h", 16))
    assert (found.error_code, found.topics) == (16, [("t", [(1, 42, "", 0)])])


@contract
def requests_about_topics() -> None:
    made = asked(internals.OffsetRequest(-1, 1, [("t", [(0, -2)])]), 2, 3)
    assert made.encode() == ints("ib", -1, 1) + array(text("t") + array(ints("iq", 0, -2)))
    found = answered(made, ints("i", 0) + array(text("t") + array(ints("ihqq", 0, 6, -1, 42))))
    assert found.topics == [("t", [(0, 6, -1, 42)])]

    made = asked(internals.DescribeConfigsRequest([(2, "t", ["name"])]), 32, 2)
    assert made.encode() == array(ints("b", 2) + text("t") + array(text("name"))) + ints("b", 0)
    entry = text("name") + text("value") + ints("bbb", 0, 5, 0) + array()
    resource = ints("h", 0) + text(None) + ints("b", 2) + text("t") + array(entry)
    [(code, _, _, topic, entries)] = answered(made, ints("i", 0) + array(resource)).resources
    assert (code, topic, [(name, value) for name, value, *_ in entries]) == (0, "t", [("name", "value")])


@contract
def requests_for_records() -> None:
    asking = internals.FetchRequest(500, 1, 2_000, 1, [("t", [(0, 42, 1_000)])])
    made = asked(asking, 1, 11)
    partition = ints("iiqqi", 0, -1, 42, -1, 1_000)
    head = ints("iiiibii", -1, 500, 1, 2_000, 1, 0, -1)
    assert made.encode() == head + array(text("t") + array(partition)) + array() + text("")
    aborted = array(ints("qq", 7, 40))
    row = ints("ihqqq", 0, 3, 50, 49, 10) + aborted + ints("i", -1) + ints("i", 4) + b"data"
    found = answered(made, ints("ihi", 0, 1, 0) + array(text("t") + array(row)))
    assert found.error_code == 1
    _, code, _, stable, _, aborted_there, *_, data = found.topics[0][1][0]
    assert (code, stable, aborted_there, data) == (3, 49, [(7, 40)], b"data")


@contract
def requests_of_transactions() -> None:
    made = asked(internals.InitProducerIdRequest("id", 10_000), 22, 0)
    assert made.encode() == text("id") + ints("i", 10_000)
    found = answered(made, ints("ihqh", 0, 51, 7, 2))
    assert (found.error_code, found.producer_id, found.producer_epoch) == (51, 7, 2)

    who = text("id") + ints("qh", 7, 2)
    errors = ints("i", 0) + array(text("t") + array(ints("ih", 1, 29)))
    made = asked(internals.AddPartitionsToTxnRequest("id", 7, 2, [("t", [1])]), 24, 0)
    assert made.encode() == who + array(text("t") + array(ints("i", 1)))
    assert answered(made, errors).errors == [("t", [(1, 29)])]

    made = asked(internals.AddOffsetsToTxnRequest("id", 7, 2, "group"), 25, 0)
    assert made.encode() == who + text("group")
    assert answered(made, ints("ih", 0, 30)).error_code == 30

    made = asked(internals.TxnOffsetCommitRequest("id", "group", 7, 2, [("t", [(1, 42, "")])]), 28, 0)
    offsets = array(text("t") + array(ints("iq", 1, 42) + text("")))
    assert made.encode() == text("id") + text("group") + ints("qh", 7, 2) + offsets
    assert answered(made, errors).errors == [("t", [(1, 29)])]

    for commit in (True, False):
        made = asked(internals.EndTxnRequest("id", 7, 2, commit), 26, 0)
        assert made.encode() == who + ints("b", commit)
        assert answered(made, ints("ih", 0, 48)).error_code == 48


@contract
def requests_of_our_own_are_built_from_its_types() -> None:
    """Flexible headers, tagged fields, compact arrays; and an encoding that replaces the schema's."""
    made = kafka_protocol.DescribeTopics(["t"], authorizations=True).prepare({3: (0, 13)})
    assert (made.API_KEY, made.API_VERSION) == (3, 12)
    assert made.encode() == b"\x02" + bytes(16) + b"\x02t\x00" + b"\x00\x01\x00"
    # Behind the client's id stand the header's tagged fields, none.
    header = made.build_request_header(correlation_id=5, client_id="c").encode()
    assert header == ints("hhi", 3, 12, 5) + text("c") + b"\x00"

    made = kafka_protocol.DescribeTransaction("id").prepare({65: (0, 0)})
    assert made.encode() == b"\x02\x03id\x00"
    topics = b"\x02" + b"\x02t" + b"\x02" + ints("i", 1) + b"\x00"
    body = (
        b"\x02" + ints("h", 0) + b"\x03id" + b"\x08Ongoing" + ints("iqqh", 9, 8, 7, 2) + topics + b"\x00\x00"
    )
    [found] = answered(made, ints("i", 0) + body).transactions
    assert found[:7] == (0, "id", "Ongoing", 9, 8, 7, 2)
    assert [(topic, numbers) for topic, numbers, _ in found[7]] == [("t", [1])]

    made = kafka_protocol.DescribeGroup("group").prepare({15: (0, 5)})
    assert made.encode() == array(text("group")) + b"\x00"
    member = text("me") + text("instance") + text("client") + text("/host") + array() + array()
    group = ints("h", 0) + text("group") + text("Stable") + text("consumer") + text("s") + array(member)
    found = answered(made, ints("i", 0) + array(group + ints("i", -1)))
    code, *_, members, _ = found.groups[0]
    assert (code, members[0][:4]) == (0, ("me", "instance", "client", "/host"))

    made = kafka_protocol.Produce("id", 5_000, [("t", [(1, b"batch")])]).prepare({0: (0, 12)})
    assert made.API_VERSION == 8
    data = array(text("t") + array(ints("ii", 1, 5) + b"batch"))
    assert made.encode() == text("id") + ints("hi", -1, 5_000) + data
    row = ints("ihqqq", 1, 87, 42, -1, 0) + array(ints("i", 3) + text("null key")) + text("refused")
    found = answered(made, array(text("t") + array(row)) + ints("i", 0))
    assert found.topics == [("t", [(1, 87, 42, -1, 0, [(3, "null key")], "refused")])]


# -- record batches --------------------------------------------------------------------------------------


@contract
def batches_are_parsed_by_compiled_code() -> None:
    """A microsecond a record: twenty of Python's would be a tenth of the throughput."""
    for each in (internals.DefaultRecordBatch, internals.DefaultRecordBatchBuilder):
        assert each.__module__.startswith("aiokafka.record._crecords")


@contract
def a_batch_tells_of_itself_and_is_iterated_once() -> None:
    headers = [("a", b"1"), ("é", None)]
    found = internals.DefaultRecordBatch(memoryview(batch(10, [(b"k", b"v", headers), (None, None, [])])))
    assert found.validate_crc()
    assert (found.base_offset, found.next_offset, found.max_timestamp) == (10, 12, 1_000)
    assert (found.producer_id, found.timestamp_type) == (-1, 0)
    assert not found.is_control_batch
    assert not found.is_transactional
    first, second = iter(found)
    assert (first.offset, first.timestamp, first.key, first.value) == (10, 1_000, b"k", b"v")
    assert list(first.headers) == headers
    assert (second.offset, second.key, second.value, list(second.headers)) == (11, None, None, [])

    control = internals.DefaultRecordBatch(memoryview(marker(5, record(0, b"", b""))))
    assert control.is_control_batch
    assert control.is_transactional
    assert control.producer_id == 7

    damaged = bytearray(batch(0, [(b"k", b"v", ())]))
    damaged[-1] ^= 1
    assert not internals.DefaultRecordBatch(memoryview(damaged)).validate_crc()


@contract
def a_name_that_is_no_text_is_found_when_its_record_is_reached() -> None:
    payload = record(0, b"k", b"v") + record(1, b"k", b"v", [("\udcff", b"x")])
    reading = iter(internals.DefaultRecordBatch(memoryview(raw_batch(0, payload, 2))))
    assert next(reading).offset == 0
    with pytest.raises(UnicodeDecodeError):
        next(reading)


@contract
def a_batch_is_built_within_its_limit() -> None:
    builder = internals.DefaultRecordBatchBuilder(2, 0, 1, 7, 2, 5, 300)
    assert builder.append(0, 1_000, b"k", bytes(100), [("h", b"x")]) is not None
    assert builder.append(1, 1_000, None, None, []) is not None
    assert builder.append(2, 1_000, b"k", bytes(200), []) is None
    made = bytes(builder.build())
    assert len(made) < 300
    found = internals.DefaultRecordBatch(memoryview(made))
    assert found.validate_crc()
    assert found.is_transactional
    assert (found.producer_id, found.producer_epoch, found.base_sequence) == (7, 2, 5)
    assert [(r.key, r.value) for r in found] == [(b"k", bytes(100)), (None, None)]
    # The first one fits, whatever the limit.
    builder = internals.DefaultRecordBatchBuilder(2, 0, 1, 7, 2, 5, 300)
    assert builder.append(0, 1_000, b"k", bytes(1_000), []) is not None
    for wrong in ({"headers": [("\ud800", b"")]}, {"timestamp": 2**70}, {"key": "text"}):
        row = {"offset": 1, "timestamp": 1_000, "key": b"k", "value": b"v", "headers": []} | wrong
        with pytest.raises((TypeError, ValueError, OverflowError)):
            internals.DefaultRecordBatchBuilder(2, 0, 1, 7, 2, 5, 300).append(*row.values())


@contract
def varints_are_decoded_from_a_place() -> None:
    for value in (0, -1, 63, -64, 300, 2**31 - 1):
        data = bytearray(b"?")
        encode_varint(value, data.append)
        assert internals.decode_varint_py(data, 1) == (value, len(data))


@contract
def names_that_are_no_text_are_read_all_the_same() -> None:
    odd = [("\udcff", b"x"), ("é", b"y")]
    payload = record(0, b"k", b"v", odd) + record(1, b"k", b"v")
    reading = iter(internals.ForgivingBatch(raw_batch(0, payload, 2)))
    first, second = reading
    assert list(first.headers) == odd
    assert (second.offset, second.value) == (1, b"v")
    # Python would cut the header's value short.
    cut = raw_batch(0, record(0, b"k", b"v", [("h", b"xyz")])[:-2], 1)
    with pytest.raises(CorruptRecordException):
        next(iter(internals.ForgivingBatch(cut)))


# -- what was fetched of one partition -------------------------------------------------------------------


def partition_records(response: bytes, aborted: list[tuple[int, int]]) -> PartitionRecords:
    tp = TopicPartition(TOPIC, 0)
    batches = FetchedBatches(response)
    return PartitionRecords(tp, batches, aborted, 3, None, None, True, READ_COMMITTED)


@contract
def what_was_fetched_is_read_in_its_place() -> None:
    records = partition_records(batch(3, [(b"k", b"v", ())]), [(9, 40), (7, 20)])
    assert records.next_fetch_offset == 3
    reading = internals.opened(records)
    assert isinstance(reading.batches, FetchedBatches)
    assert reading.batches.has_next()
    aborted = reading.aborted
    assert aborted == set()
    reading.count_aborted(19)
    assert aborted == set()
    reading.count_aborted(20)
    assert aborted == {7}
    aborted.discard(7)
    reading.count_aborted(50)
    assert aborted == {9}


@contract
def what_was_read_is_freed_without_the_collector() -> None:
    gc.disable()
    try:
        records = partition_records(batch(3, [(b"k", b"v", ())]), [])
        alive = weakref.ref(records)
        reading = internals.opened(records)
        del records, reading
        assert alive() is None
    finally:
        gc.enable()


# -- the consumer's fetching -----------------------------------------------------------------------------


@asynccontextmanager
async def fetching(broker: Broker | None = None) -> AsyncIterator[Any]:
    """A group that reads its two partitions from 5 and 6 on."""
    async with started(broker) as group:

        def seek() -> None:
            for number, tp in enumerate(group.partitions()):
                group.consumer.seek(tp, 5 + number)

        group.listener.take_up = seek
        group.subscribe()
        await group.assigned()
        yield group


def piece(offset: int) -> bytes:
    return batch(offset, [(b"k", b"v", ())])


async def the_first(group: Any) -> tuple[TopicPartition, Any]:
    """What is buffered first."""
    await until(lambda: bool(internals.buffered(group.consumer)))
    return internals.buffered(group.consumer)[0]


@contract
async def what_is_fetched_is_split_by_our_class() -> None:
    async with fetching() as group:
        group.broker.put(0, 5, piece(5))
        tp, result = await the_first(group)
        assert tp == TopicPartition(TOPIC, 0)
        assert isinstance(result, FetchResult)
        records = internals.records_of(result)
        assert records is internals.records_of(result)
        assert isinstance(internals.opened(records).batches, FetchedBatches)
        assert result.check_assignment(tp)
        assert internals.is_buffered(group.consumer, tp, result)


@contract
async def a_result_that_is_not_asked_for_any_more_is_known() -> None:
    async with fetching() as group:
        group.broker.put(0, 5, piece(5))
        tp, result = await the_first(group)
        group.consumer.pause(tp)
        assert not result.check_assignment(tp)
        assert internals.records_of(result) is None
        group.consumer.resume(tp)
        group.consumer.seek(tp, 100)
        assert not internals.is_buffered(group.consumer, tp, result)


@contract
async def whoever_waits_is_woken_by_what_is_fetched() -> None:
    async with fetching() as group:
        waiter = internals.something_new(group.consumer)
        given_up = internals.something_new(group.consumer)
        given_up.cancel()
        await asyncio.sleep(0.01)
        assert not waiter.done()
        group.broker.put(0, 5, piece(5))
        assert await waiter is None  # type: ignore[func-returns-value]  # None is the promise


@contract
async def what_is_forgotten_is_fetched_on_from_the_position() -> None:
    async with fetching() as group:
        group.broker.put(0, 5, piece(5))
        tp, result = await the_first(group)
        internals.advance(group.consumer, tp, 6)
        assert internals.is_buffered(group.consumer, tp, result), "unlike after a seek"
        asked_before = len(group.broker.fetches)
        internals.forget(group.consumer, tp)
        assert not internals.is_buffered(group.consumer, tp, result)
        await until(lambda: len(group.broker.fetches) > asked_before)
        assert group.broker.fetches[-1][2][0] == 6
        internals.forget(group.consumer, tp)  # there is nothing


@contract
async def others_come_first() -> None:
    async with fetching() as group:
        group.broker.batches[0, 5] = piece(5)
        group.broker.put(1, 6, piece(6))
        await until(lambda: len(internals.buffered(group.consumer)) == 2)
        (first, _), (second, _) = internals.buffered(group.consumer)
        internals.others_first(group.consumer, first)
        assert [tp for tp, _ in internals.buffered(group.consumer)] == [second, first]


@contract
async def an_offset_that_is_not_there_is_told() -> None:
    broker = Broker()
    broker.out_of_range = {0}
    async with fetching(broker) as group:
        tp, error = await the_first(group)
        assert tp.partition == 0
        assert isinstance(error, FetchError)
        with pytest.raises(OffsetOutOfRangeError):
            error.check_raise()


@contract
async def the_waits_of_each_round_are_decided() -> None:
    told: list[bool] = []
    async with started() as group:
        zero, one = group.partitions()

        def hold() -> None:
            for tp in (zero, one):
                group.consumer.seek(tp, 5)
                group.consumer.pause(tp)

        def wait(left_out: bool) -> FetchWait:
            told.append(left_out)
            return FetchWait(1_000 + len(told), 2_000 + len(told))

        internals.decide_fetch_waits(group.consumer, 0.03, wait)
        group.listener.take_up = hold
        group.subscribe()
        await group.assigned()
        group.consumer.resume(zero)
        await until(lambda: bool(group.broker.fetches))
        assert told[-1], "a partition is paused"
        assert group.broker.fetches[-1] == (1_000 + len(told), 2_000 + len(told), {0: 5})
        group.broker.put(0, 5, piece(5))
        tp, result = await the_first(group)
        assert result._backoff == 0.03
        group.broker.batches.clear()
        group.consumer.resume(one)
        internals.forget(group.consumer, tp)
        await until(lambda: not told[-1])
        group.broker.put(1, 5, piece(5))
        await until(lambda: told[-1])


@contract
async def the_consumer_counts_as_one_that_polls() -> None:
    async with joined() as group:
        state = group.consumer._coordinator._subscription
        ended = state._last_fetch_ended
        assert state.fetcher_idle_time > 0
        with internals.fetching(group.consumer):
            assert state.fetcher_idle_time == 0
        assert state._last_fetch_ended > ended
        assert state.fetcher_idle_time > 0
        assert "fetcher_idle_time" in inspect.getsource(GroupCoordinator._heartbeat_routine)


@contract
async def errors_of_the_group_are_raised_once() -> None:
    broker = Broker()
    async with started(broker) as group:
        internals.raise_errors(group.consumer)
        waiter = internals.something_new(group.consumer)
        broker.joins = [23]  # INCONSISTENT_GROUP_PROTOCOL
        group.subscribe()
        with pytest.raises(InconsistentGroupProtocolError):
            await waiter
        with pytest.raises(InconsistentGroupProtocolError):
            internals.raise_errors(group.consumer)
        await group.assigned()
        internals.raise_errors(group.consumer)


@contract
async def what_has_ended_inside_is_known() -> None:
    assert internals.failure(None) is None
    async with started() as group:
        assert internals.failure(group.consumer) is None
        assert not internals.is_closed(group.consumer)
    assert internals.is_closed(group.consumer)
    assert internals.failure(group.consumer) == "the client is closed"

    for task, said in (
        ("_fetcher._fetch_task", "the client's fetching has ended"),
        ("_coordinator._coordination_task", "the client's group membership has ended"),
    ):
        async with joined() as group:
            owner, name = task.split(".")
            running = getattr(getattr(group.consumer, owner), name)
            running.cancel()
            await asyncio.wait([running])
            assert internals.failure(group.consumer) == said

    unstarted = aiokafka.AIOKafkaConsumer(bootstrap_servers="127.0.0.1:9", group_id="g")
    assert internals.failure(unstarted) is None
    await unstarted.stop()


# -- the consumer's topics -------------------------------------------------------------------------------


@contract
async def a_topic_that_is_missing_is_known_and_asked_for_again() -> None:
    async with started() as group:
        assert internals.unknown_topics(group.consumer) == frozenset()
        group.subscribe()
        await group.assigned()
        assert internals.unknown_topics(group.consumer) == frozenset()
        group.broker.knows = False
        internals.ask_for_topics(group.consumer)
        await group.assigned()
        assert group.consumer.assignment() == set()
        assert internals.unknown_topics(group.consumer) == {TOPIC}
        group.broker.knows = True
        assert internals.unknown_topics(group.consumer) == {TOPIC}, "nobody has asked"
        internals.ask_for_topics(group.consumer)
        await group.assigned()
        assert internals.unknown_topics(group.consumer) == frozenset()
        assert group.consumer.assignment() == set(group.partitions())


# -- the consumer's group --------------------------------------------------------------------------------


@contract
async def a_membership_is_told() -> None:
    async with started() as group:
        member = Membership(group.consumer)
        assert (member.generation, member.member_id) == (-1, "")
        group.subscribe()
        await group.assigned()
        assert (member.generation, member.member_id) == (1, "member-1")
        assert not member.rejoin_needed
        assert await member.heartbeat() is True
        group.broker.heartbeats = [27]  # REBALANCE_IN_PROGRESS
        assert await member.heartbeat() is True
        assert member.rejoin_needed
        await group.assigned()
        assert not member.rejoin_needed
        assert (member.generation, member.member_id) == (2, "member-2")


@contract
async def heartbeats_go_through_what_wraps_them() -> None:
    sent: list[bool] = []

    def noted(send: internals.Heartbeat) -> internals.Heartbeat:
        async def heartbeat() -> bool:
            sent.append(await send())
            return sent[-1]

        return heartbeat

    async with started() as group:
        Membership(group.consumer).wrap_heartbeat(noted)
        group.subscribe()
        await until(lambda: len(sent) >= 2)
        assert sent[:2] == [True, True]
        group.broker.heartbeats = [25]  # UNKNOWN_MEMBER_ID
        await until(lambda: False in sent)


@contract
async def joins_go_through_what_wraps_them() -> None:
    seen: list[Any] = []

    def noted(join: internals.Join) -> internals.Join:
        async def joining(subscription: Any) -> bool:
            if not seen:
                seen.append(False)
                return False
            seen.append(await join(subscription))
            return bool(seen[-1])

        return joining

    async with started() as group:
        member = Membership(group.consumer)
        member.wrap_join(noted)
        group.subscribe()
        await group.assigned()
        # Had it refused, it would have been asked again.
        await until(lambda: len(seen) == 2)
        assert seen == [False, True]
        assert group.broker.joined == 1
        assert group.consumer.assignment() == set(group.partitions())


@contract
async def a_join_that_is_refused_raises_in_what_wraps_it() -> None:
    refused: list[BaseException] = []

    def noted(join: internals.Join) -> internals.Join:
        async def joining(subscription: Any) -> bool:
            try:
                return await join(subscription)
            except InconsistentGroupProtocolError as error:
                refused.append(error)
                return False

        return joining

    broker = Broker()
    broker.joins = [23, 23]
    async with started(broker) as group:
        Membership(group.consumer).wrap_join(noted)
        group.subscribe()
        await group.assigned()
        assert len(refused) == 2


@contract
async def the_end_of_a_membership_goes_through_what_wraps_it() -> None:
    known: list[str] = []
    async with started() as group:
        member = Membership(group.consumer)

        def noted(reset: Callable[[], None]) -> Callable[[], None]:
            def resetting() -> None:
                known.append(member.member_id)
                reset()

            return resetting

        member.wrap_reset(noted)
        group.subscribe()
        await group.assigned()
        group.broker.heartbeats = [25]
        await group.assigned()
        assert known == ["member-1"]
        assert member.member_id == "member-2"


@contract
async def the_stop_of_a_consumer_is_told_to_who_holds_it_up() -> None:
    """A join that waits must not keep the consumer from stopping."""
    async with started() as group:
        member = Membership(group.consumer)
        holding = asyncio.Event()

        def held(_: internals.Join) -> internals.Join:
            async def joining(_: Any) -> bool:
                holding.set()
                await member.until_closing()
                return False

            return joining

        member.wrap_join(held)
        group.subscribe()
        await holding.wait()
        began = time.monotonic()
        await member.until_closing(0.02)
        assert time.monotonic() - began > 0.01
        await group.consumer.stop()


@contract
async def a_strategy_is_asked_in_order() -> None:
    assert AbstractPartitionAssignor.__abstractmethods__ == {"name", "metadata", "assign", "on_assignment"}
    async with joined() as group:
        assert group.strategy.calls == ["revoked", "metadata", "assign", "on_assignment", "assigned"]
        assert group.strategy.told == b"of the leader"


# -- and they hold ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("holds", contract, ids=lambda holds: holds.__name__)
def test_the_contract_holds_with_the_installed_library(holds: Contract) -> None:
    holds()


# -- and are broken by a library that is another ---------------------------------------------------------


#: What is used of each class of the library, by what it is called there, and a contract that must notice.
USED: dict[type, dict[str, Contract]] = {
    AIOKafkaConnection: {"_writer": what_is_abandoned_sends_nothing_more},
    PartitionRecords: {
        "_records": what_was_fetched_is_read_in_its_place,
        "_aborted_producers": what_was_fetched_is_read_in_its_place,
        "_consume_aborted_up_to": what_was_fetched_is_read_in_its_place,
        "_records_iterator": what_was_read_is_freed_without_the_collector,
    },
    default_records._DefaultRecordBatchPy: {
        "_buffer": names_that_are_no_text_are_read_all_the_same,
        "_pos": names_that_are_no_text_are_read_all_the_same,
    },
    FetchResult: {"_partition_records": what_is_fetched_is_split_by_our_class},
    aiokafka.AIOKafkaConsumer: {
        "_fetcher": what_is_forgotten_is_fetched_on_from_the_position,
        "_coordinator": a_membership_is_told,
        "_subscription": the_consumer_counts_as_one_that_polls,
        "_client": a_topic_that_is_missing_is_known_and_asked_for_again,
        "_closed": what_has_ended_inside_is_known,
    },
    AIOKafkaClient: {
        "_topics": a_topic_that_is_missing_is_known_and_asked_for_again,
        "cluster": a_topic_that_is_missing_is_known_and_asked_for_again,
        "force_metadata_update": a_topic_that_is_missing_is_known_and_asked_for_again,
    },
    Fetcher: {
        "_get_actions_per_node": the_waits_of_each_round_are_decided,
        "_fetch_min_bytes": the_waits_of_each_round_are_decided,
        "_fetch_max_wait_ms": the_waits_of_each_round_are_decided,
        "_prefetch_backoff": the_waits_of_each_round_are_decided,
        "_records": others_come_first,
        "_create_fetch_waiter": whoever_waits_is_woken_by_what_is_fetched,
        "_notify": what_is_forgotten_is_fetched_on_from_the_position,
        "_wait_consume_future": what_is_forgotten_is_fetched_on_from_the_position,
        "_fetch_task": what_has_ended_inside_is_known,
    },
    GroupCoordinator: {
        "_coordination_task": what_has_ended_inside_is_known,
        "_rejoin_needed_fut": a_membership_is_told,
        "_do_heartbeat": heartbeats_go_through_what_wraps_them,
        "_do_rejoin_group": joins_go_through_what_wraps_them,
        "_closing": the_stop_of_a_consumer_is_told_to_who_holds_it_up,
        "generation": a_membership_is_told,
        "member_id": a_membership_is_told,
        "check_errors": errors_of_the_group_are_raised_once,
        "reset_generation": the_end_of_a_membership_goes_through_what_wraps_it,
    },
    SubscriptionState: {
        "fetch_context": the_consumer_counts_as_one_that_polls,
        "subscription": what_is_forgotten_is_fetched_on_from_the_position,
    },
    Assignment: {
        "state_value": what_is_forgotten_is_fetched_on_from_the_position,
        "tps": the_waits_of_each_round_are_decided,
    },
    TopicPartitionState: {
        "consumed_to": what_is_forgotten_is_fetched_on_from_the_position,
        "paused": the_waits_of_each_round_are_decided,
    },
}


async def _nothing(*_: Any, **__: Any) -> None:
    return None


def _never(*_: Any) -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


def _another_set(self: PartitionRecords, offset: int) -> None:
    begun = {producer for producer, first in self._aborted_transactions if first <= offset}
    self._aborted_producers = self._aborted_producers | begun


class _Relative:
    """A batch whose records tell their place in it."""

    def __init__(self, data: memoryview, of: type = internals.DefaultRecordBatch) -> None:
        self._batch = of(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[Any]:
        for place, each in enumerate(self._batch):
            fields = {name: getattr(each, name) for name in ("timestamp", "key", "value", "headers")}
            yield SimpleNamespace(offset=place, **fields)


class _SaysFalse:
    """A builder that does not say None."""

    def __init__(self, *arguments: int, of: type = internals.DefaultRecordBatchBuilder) -> None:
        self._builder = of(*arguments)
        self.build = self._builder.build

    def append(self, *row: Any) -> Any:
        return self._builder.append(*row) or False


def _or_none_of_it(self: internals.ClusterMetadata, topic: str) -> set[int]:
    return set(self._partitions.get(topic, ()))


_read_record = default_records._DefaultRecordBatchPy._read_msg
_join = GroupCoordinator._do_rejoin_group
_complete_join = GroupCoordinator._on_join_complete


async def _forgetful(self: GroupCoordinator) -> bool:
    request = internals.HeartbeatRequest(self.group_id, self.generation, self.member_id)
    known = not (await self._send_req(request)).error_code
    if not known:
        self.member_id = ""
        self.reset_generation()
    return known


async def _late(self: GroupCoordinator, generation: int, member: str, protocol: str, data: bytes) -> None:
    [strategy] = self._assignors
    strategy.on_assignment = lambda _: None
    await _complete_join(self, generation, member, protocol, data)
    del strategy.on_assignment
    strategy.on_assignment(internals.ConsumerProtocolMemberAssignment.decode(data))


async def _quiet(self: GroupCoordinator, subscription: Any) -> bool:
    try:
        return bool(await _join(self, subscription))
    except InconsistentGroupProtocolError:
        return False


class _Backwards(kafka_protocol.DescribeTransactionsRequest_v0):
    """Encoded the other way round."""

    def encode(self) -> bytes:
        return bytes(reversed(super().encode()))


def _resources_as_objects(
    resources: list[Any], of: type = internals.DescribeConfigsRequest
) -> internals.DescribeConfigsRequest:
    return of([(each.type, each.name, each.configs) for each in resources])


def _swap(name: str) -> Doctor:
    def doctor(patch: pytest.MonkeyPatch) -> None:
        made = getattr(internals, name)
        patch.setattr(internals, name, lambda one, two, *more: made(two, one, *more))

    return doctor


def _one_field_more(module: str, name: str) -> Doctor:
    def doctor(patch: pytest.MonkeyPatch) -> None:
        response = getattr(importlib.import_module(f"aiokafka.protocol.{module}"), name)
        fields = zip(response.SCHEMA.names, response.SCHEMA.fields, strict=True)
        patch.setattr(response, "SCHEMA", internals.Schema(("new", internals.Int16), *fields))

    return doctor


#: What means something else, and the contract that must notice.
CHANGED: dict[str, tuple[Contract, Doctor]] = {
    "send() waits for ever": (
        connections_ask_and_answer,
        lambda patch: patch.setattr("aiokafka.conn.wait_for", lambda waited, _: waited),
    ),
    "connected() became a property": (
        connections_ask_and_answer,
        lambda patch: patch.setattr(AIOKafkaConnection, "connected", True),
    ),
    "close() answers nothing": (
        what_is_abandoned_sends_nothing_more,
        lambda patch: patch.setattr(AIOKafkaConnection, "close", lambda *_, **__: None),
    ),
    "collect_hosts() answers addresses": (
        addresses_are_read_as_a_consumer_reads_them,
        lambda patch: patch.setattr(internals, "collect_hosts", list),
    ),
    **{
        f"{name} takes its arguments in another order": (holds, _swap(name))
        for holds, names in {
            requests_about_groups: ("FindCoordinatorRequest", "HeartbeatRequest", "OffsetFetchRequest"),
            requests_about_topics: ("OffsetRequest",),
            requests_for_records: ("FetchRequest",),
            requests_of_transactions: (
                "InitProducerIdRequest",
                "AddPartitionsToTxnRequest",
                "AddOffsetsToTxnRequest",
                "TxnOffsetCommitRequest",
                "EndTxnRequest",
            ),
        }.items()
        for name in names
    },
    "DescribeConfigsRequest takes resources as objects": (
        requests_about_topics,
        lambda patch: patch.setattr(internals, "DescribeConfigsRequest", _resources_as_objects),
    ),
    **{
        f"{name} has another field first": (holds, _one_field_more(module, name))
        for holds, answers in {
            requests_about_groups: (
                ("coordination", "FindCoordinatorResponse_v1"),
                ("group", "HeartbeatResponse_v1"),
                ("commit", "OffsetFetchResponse_v3"),
            ),
            requests_about_topics: (("offset", "OffsetResponse_v3"), ("admin", "DescribeConfigsResponse_v2")),
            requests_for_records: (("fetch", "FetchResponse_v11"),),
            requests_of_transactions: (
                ("transaction", "InitProducerIdResponse_v0"),
                ("transaction", "AddPartitionsToTxnResponse_v0"),
                ("transaction", "AddOffsetsToTxnResponse_v0"),
                ("transaction", "TxnOffsetCommitResponse_v0"),
                ("transaction", "EndTxnResponse_v0"),
            ),
            requests_of_our_own_are_built_from_its_types: (("produce", "ProduceResponse_v8"),),
        }.items()
        for module, name in answers
    },
    "structs are encoded in another way": (
        requests_of_our_own_are_built_from_its_types,
        lambda patch: patch.setattr(kafka_protocol.DescribeTransaction, "_CLASSES", (_Backwards,)),
    ),
    "flexible versions have the old header": (
        requests_of_our_own_are_built_from_its_types,
        lambda patch: patch.setattr(api, "RequestHeader_v2", api.RequestHeader_v1),
    ),
    "batches are parsed in Python": (
        batches_are_parsed_by_compiled_code,
        lambda patch: patch.setattr(internals, "DefaultRecordBatch", default_records._DefaultRecordBatchPy),
    ),
    "batches are built in Python": (
        batches_are_parsed_by_compiled_code,
        lambda patch: patch.setattr(
            internals, "DefaultRecordBatchBuilder", default_records._DefaultRecordBatchBuilderPy
        ),
    ),
    "records know their place in the batch": (
        a_batch_tells_of_itself_and_is_iterated_once,
        lambda patch: patch.setattr(internals, "DefaultRecordBatch", _Relative),
    ),
    "names are decoded with replacements": (
        a_name_that_is_no_text_is_found_when_its_record_is_reached,
        lambda patch: patch.setattr(internals, "DefaultRecordBatch", internals.ForgivingBatch),
    ),
    "a builder says False when it is full": (
        a_batch_is_built_within_its_limit,
        lambda patch: patch.setattr(internals, "DefaultRecordBatchBuilder", _SaysFalse),
    ),
    "a varint is decoded from the beginning": (
        varints_are_decoded_from_a_place,
        lambda patch: patch.setattr(internals, "decode_varint_py", lambda data, _: (data[0], 1)),
    ),
    "records are read by another method": (
        names_that_are_no_text_are_read_all_the_same,
        lambda patch: patch.setattr(default_records._DefaultRecordBatchPy, "__next__", _read_record),
    ),
    "a batch keeps a buffer that cannot be replaced": (
        names_that_are_no_text_are_read_all_the_same,
        lambda patch: stuck(patch, default_records._DefaultRecordBatchPy, "_buffer"),
    ),
    "aborted producers are another set each time": (
        what_was_fetched_is_read_in_its_place,
        lambda patch: patch.setattr(PartitionRecords, "_consume_aborted_up_to", _another_set),
    ),
    "the fetcher splits with its own class": (
        what_is_fetched_is_split_by_our_class,
        lambda patch: patch.setattr(fetchers, "MemoryRecords", memory_records.MemoryRecords),
    ),
    "a result does not look at the assignment": (
        a_result_that_is_not_asked_for_any_more_is_known,
        lambda patch: patch.setattr(FetchResult, "check_assignment", lambda *_: True),
    ),
    "a seek leaves what is buffered": (
        a_result_that_is_not_asked_for_any_more_is_known,
        lambda patch: patch.setattr(
            Fetcher, "seek_to", lambda self, tp, at: self._subscriptions.seek(tp, at)
        ),
    ),
    "waiters are not woken": (
        whoever_waits_is_woken_by_what_is_fetched,
        lambda patch: patch.setattr(Fetcher, "_create_fetch_waiter", _never),
    ),
    "the position is no longer where the next fetch begins": (
        what_is_forgotten_is_fetched_on_from_the_position,
        lambda patch: patch.setattr(TopicPartitionState, "consumed_to", lambda *_: None),
    ),
    "what is buffered has no order": (
        others_come_first,
        lambda patch: patch.setattr("collections.OrderedDict", dict),
    ),
    "an error is kept": (
        an_offset_that_is_not_there_is_told,
        lambda patch: patch.setattr(FetchError, "check_raise", lambda _: None),
    ),
    "the coordinator tells nothing": (
        errors_of_the_group_are_raised_once,
        lambda patch: patch.setattr(GroupCoordinator, "check_errors", lambda _: None),
    ),
    "the context counts nothing": (
        the_consumer_counts_as_one_that_polls,
        lambda patch: patch.setattr(SubscriptionState, "fetcher_idle_time", 1.0),
    ),
    "what the brokers do not know has no partitions": (
        a_topic_that_is_missing_is_known_and_asked_for_again,
        lambda patch: patch.setattr(internals.ClusterMetadata, "partitions_for_topic", _or_none_of_it),
    ),
    "the leader does not look at what the brokers know": (
        a_topic_that_is_missing_is_known_and_asked_for_again,
        lambda patch: patch.setattr(GroupCoordinator, "_on_metadata_change", lambda _: None),
    ),
    "a heartbeat tells nothing": (
        heartbeats_go_through_what_wraps_them,
        lambda patch: patch.setattr(GroupCoordinator, "_do_heartbeat", _nothing),
    ),
    "a rejoin is told in another way": (
        a_membership_is_told,
        lambda patch: patch.setattr(GroupCoordinator, "request_rejoin", lambda _: None),
    ),
    "the member's id is gone before the reset": (
        the_end_of_a_membership_goes_through_what_wraps_it,
        lambda patch: patch.setattr(GroupCoordinator, "_do_heartbeat", _forgetful),
    ),
    "the strategy is told after the listener": (
        a_strategy_is_asked_in_order,
        lambda patch: patch.setattr(GroupCoordinator, "_on_join_complete", _late),
    ),
    "a strategy needs one more method": (
        a_strategy_is_asked_in_order,
        lambda patch: patch.setattr(
            AbstractPartitionAssignor, "__abstractmethods__", frozenset({"name", "rebalance_protocol"})
        ),
    ),
    "a refused join is only logged": (
        a_join_that_is_refused_raises_in_what_wraps_it,
        lambda patch: patch.setattr(GroupCoordinator, "_do_rejoin_group", _quiet),
    ),
    **{
        f"{name} is looked up elsewhere": (USED[cls][name], partial(stuck, cls=cls, name=name))
        for cls, name in (
            (GroupCoordinator, "_do_heartbeat"),
            (GroupCoordinator, "_do_rejoin_group"),
            (GroupCoordinator, "reset_generation"),
            (Fetcher, "_get_actions_per_node"),
            (Fetcher, "_fetch_min_bytes"),
            (Fetcher, "_fetch_max_wait_ms"),
            (Fetcher, "_prefetch_backoff"),
        )
    },
}


#: Where the doctored library leaves something behind.
leaves_something = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@leaves_something
@pytest.mark.parametrize(
    ("cls", "name"),
    [(cls, name) for cls, names in USED.items() for name in names],
    ids=lambda each: each if isinstance(each, str) else each.__name__,
)
def test_what_is_called_something_else_is_missed(
    cls: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        renamed(patch, cls, name)
        assert is_broken(USED[cls][name])


@leaves_something
@pytest.mark.parametrize("what", CHANGED)
def test_what_means_something_else_is_noticed(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    holds, doctor = CHANGED[what]
    with monkeypatch.context() as patch:
        doctor(patch)
        assert is_broken(holds)


def test_every_private_name_has_its_contract() -> None:
    """One that is used from now on needs one, too."""
    tree = ast.parse(inspect.getsource(internals))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    private = {name for name in used if name.startswith("_") and not name.endswith("__")}
    doctored = {name for names in USED.values() for name in names}
    assert private - doctored == {"_read_msg"}  # CHANGED has that one


def test_every_contract_is_broken_by_something() -> None:
    """One that nothing breaks says nothing."""
    broken = {holds for names in USED.values() for holds in names.values()}
    broken |= {holds for holds, _ in CHANGED.values()}
    assert [holds.__name__ for holds in contract if holds not in broken] == []
