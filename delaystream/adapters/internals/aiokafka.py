"""Every private part of aiokafka that delaystream uses: its purpose, and the behaviour that it relies on.

aiokafka's documented parts are its consumer, its producer, `aiokafka.errors`, `aiokafka.structs` and
`aiokafka.abc`: any module may use those. Everything else of it is used here and nowhere else
(`tests/unit/test_internals.py` sees to it), and may change with any release. So its version is pinned, a
worker refuses another one (:mod:`delaystream.adapters.internals.versions`), and each part has a contract with
the installed library in `tests/unit/test_aiokafka_internals.py`.

Work that is done once for each fetch or batch is a call here. Work that is done for each record is not: this
module exports the classes that do it, unchanged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, TypeAlias

import aiokafka
from aiokafka.cluster import ClusterMetadata
from aiokafka.conn import AIOKafkaConnection, CloseReason, collect_hosts, create_conn
from aiokafka.consumer import fetcher as aiokafka_fetcher
from aiokafka.consumer.fetcher import FetchError, FetchResult, PartitionRecords
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import CorruptRecordException
from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.protocol.produce import ProduceRequest_v8
from aiokafka.protocol.transaction import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
    TxnOffsetCommitRequest,
)
from aiokafka.protocol.types import (
    Array,
    Boolean,
    Bytes,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    String,
    TaggedFields,
)
from aiokafka.record.default_records import (
    DefaultRecordBatch,
    DefaultRecordBatchBuilder,
    _DefaultRecordBatchPy,
)
from aiokafka.record.util import decode_varint_py
from aiokafka.structs import TopicPartition as KafkaPartition

Consumer: TypeAlias = aiokafka.AIOKafkaConsumer

# -- connections -----------------------------------------------------------------------------------------
#
# AIOKafkaConnection, create_conn, collect_hosts, CloseReason. They serve requests that aiokafka's client
# would not send, or would send at times of its own: its metadata requests create topics, and its tasks
# outlive a failure.
# Relied on: create_conn() connects, asks for the broker's versions and logs in; connected() turns false with
# the socket; send() encodes in the newest version that both sides know, writes before it returns, and returns
# an awaitable that raises TimeoutError after request_timeout_ms; close() fails the unanswered requests and
# returns a future; collect_hosts() reads what AIOKafkaConsumer takes as bootstrap_servers.


def abandon(connection: AIOKafkaConnection, reason: CloseReason) -> asyncio.Future[None]:
    """Close a connection at once. Unsent data is dropped: nobody awaits the answers.

    The future is done when the socket is closed. aiokafka itself can only close after it has sent the rest.
    Relied on: ``_writer`` is asyncio's stream writer, None once closed.
    """
    if connection._writer is not None:
        # The abort comes before the close. A transport that is closed first goes on sending for as long as a
        # silent broker lets it. Once it has sent everything, asyncio's abort() fails on it.
        connection._writer.transport.abort()
    closed: asyncio.Future[None] = connection.close(reason=reason)
    return closed


# -- the protocol ----------------------------------------------------------------------------------------
#
# Request, RequestStruct, Response and the types of fields: for the requests that aiokafka does not offer in
# the version needed (kafka_protocol.py).
# Relied on: a Request[Struct] is built in the one version that it names; FLEXIBLE_VERSION chooses the header
# with tagged fields; encode() of a struct may be replaced; a schema decodes to tuples and to attributes.
#
# FindCoordinator-, Heartbeat-, OffsetFetch-, Offset-, DescribeConfigs-, Fetch-, InitProducerId-,
# AddPartitionsToTxn-, AddOffsetsToTxn-, TxnOffsetCommit- and EndTxnRequest, ProduceRequest_v8: the
# transactional producer and the lookups are built from these.
# Relied on: the order of their arguments, and the fields of their answers.

# -- record batches --------------------------------------------------------------------------------------
#
# DefaultRecordBatch, DefaultRecordBatchBuilder: compiled, a microsecond a record; decode_varint_py.
# Relied on: a batch tells its header's fields, is iterated once, and its records are slotted objects with
# offset, timestamp, key, value, headers, decoded when they are reached; a header name that is not UTF-8
# raises UnicodeDecodeError there. append() of the builder answers None, and has added nothing, once the batch
# would be larger than its limit; build() answers the bytes with their checksum.


class _ForgivingBuffer(bytearray):
    """Bytes that always decode to text; bytes that are not UTF-8 become surrogates (PEP 383)."""

    def __getitem__(self, index: Any) -> Any:
        part = super().__getitem__(index)
        return part if isinstance(part, int) else _ForgivingBuffer(part)

    def decode(self, encoding: str = "utf-8", errors: str = "surrogateescape") -> str:
        return bytes(self).decode(encoding, errors)


class ForgivingBatch(_DefaultRecordBatchPy):  # type: ignore[misc]  # final only towards type checkers
    """An uncompressed batch of message format 2, parsed in Python (20 µs a record); names may be any bytes.

    aiokafka's parsers raise at a header name that is not UTF-8, so the record could not even be reported.
    Relied on: ``_buffer`` holds the bytes from ``__iter__`` on, ``_pos`` is where ``_read_msg`` reads on, and
    names are decoded by ``decode`` of a slice of the buffer.
    """

    def __iter__(self) -> ForgivingBatch:
        super().__iter__()
        self._buffer: bytearray = _ForgivingBuffer(self._buffer)
        return self

    def _read_msg(self, decode_varint: Any = decode_varint_py) -> Any:
        record = super()._read_msg(decode_varint)
        # Python cuts a slice short where the compiled parser raises.
        if self._pos > len(self._buffer):
            raise CorruptRecordException(f"a record that ends {self._pos - len(self._buffer)} bytes too late")
        return record


# -- what was fetched of one partition -------------------------------------------------------------------
#
# FetchResult, FetchError, PartitionRecords: the part of an answer that the fetcher keeps for one partition.
# Relied on: check_assignment() tells whether the consumer still reads the partition from that answer's
# position on; check_raise() raises the broker's error; next_fetch_offset is the position after the last
# record taken.


def parse_fetched_with(batches: type) -> None:
    """Make every consumer of this process parse fetched bytes with our class. A patch.

    aiokafka's own class decompresses without a bound.
    Relied on: the fetcher looks up ``MemoryRecords`` in its module each time, builds one from an answer's
    bytes, and calls only ``has_next``, ``next_batch`` and ``size_in_bytes`` of it.
    """
    aiokafka_fetcher.MemoryRecords = batches


class Opened(NamedTuple):
    """A fetch result that is being read, batch by batch."""

    #: made by the class of :func:`parse_fetched_with`
    batches: Any
    #: producers whose transaction is aborted at the batch that is being read
    aborted: set[int]
    #: adds the aborted transactions that begin at or before an offset
    count_aborted: Callable[[int], None]


def opened(records: PartitionRecords) -> Opened:
    """Take over a fetch result: aiokafka would make an object of eleven fields for each of its records.

    Relied on: ``_records`` is an object of the class given to ``parse_fetched_with``;
    ``_consume_aborted_up_to`` moves the aborted transactions that begin at or before an offset from the
    answer's list to ``_aborted_producers``, which stays the same set; ``_records_iterator`` does nothing
    until it is iterated.
    """
    # Nobody uses its own iterator, which refers back to it. The cycle would keep a megabyte of fetched bytes
    # until the garbage collector's next full run.
    records._records_iterator = None
    return Opened(records._records, records._aborted_producers, records._consume_aborted_up_to)


def records_of(result: FetchResult) -> PartitionRecords | None:
    """The records of a fetch result; None when the consumer has discarded them.

    Relied on: ``_partition_records`` stays the same object until ``check_assignment`` fails.
    """
    return result._partition_records


# -- the consumer's fetching -----------------------------------------------------------------------------
#
# AIOKafkaConsumer hands out single records. These calls take whole results that its fetcher has buffered. All
# run in the consumer's thread, after it has started.


class FetchWait(NamedTuple):
    """How long a broker holds back its answer: until it has these bytes, or these ms have passed."""

    min_bytes: int
    max_wait_ms: int


def decide_fetch_waits(consumer: Consumer, backoff_s: float, wait: Callable[[bool], FetchWait]) -> None:
    """Let ``wait`` decide, before each round of fetches, how long brokers hold back their answers. A patch.

    Its argument is true when the round leaves out an assigned partition, because the partition is paused or
    has buffered records. A partition with buffered records keeps the other partitions of its broker from
    being fetched for ``backoff_s``. A consumer has one wait for its whole life.
    Relied on: the fetcher calls ``_get_actions_per_node`` with the assignment before each round; that method
    puts ``_fetch_min_bytes`` and ``_fetch_max_wait_ms`` into the requests; each fetch result gets
    ``_prefetch_backoff``.
    """
    fetcher = consumer._fetcher
    decide = fetcher._get_actions_per_node

    def actions(assignment: Any) -> Any:
        left_out = fetcher._records or any(assignment.state_value(tp).paused for tp in assignment.tps)
        fetcher._fetch_min_bytes, fetcher._fetch_max_wait_ms = wait(bool(left_out))
        return decide(assignment)

    fetcher._prefetch_backoff = backoff_s
    fetcher._get_actions_per_node = actions


def fetching(consumer: Consumer) -> AbstractContextManager[None]:
    """Count the consumer as polling in this context; without that it leaves the group after
    max_poll_interval_ms.

    Relied on: the coordinator measures idle time from the end of the last such context.
    """
    context: AbstractContextManager[None] = consumer._subscription.fetch_context()
    return context


def raise_errors(consumer: Consumer) -> None:
    """Raise the pending error of the group's coordination, as ``getmany`` would.

    Relied on: ``check_errors`` raises the pending error once, then lets the coordination go on.
    """
    consumer._coordinator.check_errors()


def something_new(consumer: Consumer) -> asyncio.Future[None]:
    """A future that is done once more is buffered; it fails with the error that ends the consumer.

    A caller that stops waiting cancels it.
    Relied on: the fetcher keeps each such waiter until it is done, and wakes all of them.
    """
    waiter: asyncio.Future[None] = consumer._fetcher._create_fetch_waiter()
    return waiter


def buffered(consumer: Consumer) -> list[tuple[KafkaPartition, FetchResult | FetchError]]:
    """The fetch results not yet taken, by partition, in the order in which they should be taken.

    Relied on: ``_records`` is an ordered dictionary with at most one result of each partition; a partition
    with an entry is not fetched.
    """
    return list(consumer._fetcher._records.items())


def is_buffered(consumer: Consumer, tp: KafkaPartition, result: FetchResult | FetchError) -> bool:
    """Whether the result is still there: a seek or a rebalance removes it."""
    return consumer._fetcher._records.get(tp) is result


def forget(consumer: Consumer, tp: KafkaPartition) -> None:
    """HoldEnd a fetch result, so that the consumer goes on fetching the partition.

    Relied on: the fetcher begins its next round when ``_wait_consume_future`` is done.
    """
    fetcher = consumer._fetcher
    fetcher._records.pop(tp, None)
    fetcher._notify(fetcher._wait_consume_future)


def others_first(consumer: Consumer, tp: KafkaPartition) -> None:
    """Put this partition's result behind those of the other partitions, for the next call."""
    consumer._fetcher._records.move_to_end(tp)


def advance(consumer: Consumer, tp: KafkaPartition, position: int) -> None:
    """Set the position of the next fetch; unlike a seek, this keeps what is buffered.

    Relied on: the position in the assignment's state is where the next fetch begins.
    """
    consumer._subscription.subscription.assignment.state_value(tp).consumed_to(position)


def is_closed(consumer: Consumer) -> bool:
    """Whether the client was stopped."""
    return bool(consumer._closed)


def failure(consumer: Consumer | None) -> str | None:
    """The background task of a consumer that has ended unreported, as a sentence; callable from any thread.

    Relied on: ``_fetcher`` is None until the consumer has started; ``_fetch_task`` and ``_coordination_task``
    run for as long as it lives.
    """
    if consumer is None or consumer._fetcher is None:
        return None
    if consumer._closed:
        return "the client is closed"
    if consumer._fetcher._fetch_task.done():
        return "the client's fetching has ended"
    if consumer._coordinator._coordination_task.done():
        return "the client's group membership has ended"
    return None


# -- the consumer's topics -------------------------------------------------------------------------------
#
# When a broker does not know a topic, AIOKafkaConsumer asks again only once its metadata is five minutes old.
# Until then a group that it leads goes without the topic's partitions, even if the broker was wrong.


def unknown_topics(consumer: Consumer) -> frozenset[str]:
    """Topics that no broker knew when a started consumer last asked; in the leader, those of all members.

    Relied on: ``_topics`` of the client are the topics that it asks for; in the leader they include the
    group's. ``partitions_for_topic`` answers None for a topic that was not in the last answer.
    """
    client = consumer._client
    return frozenset(
        topic for topic in tuple(client._topics) if client.cluster.partitions_for_topic(topic) is None
    )


def ask_for_topics(consumer: Consumer) -> None:
    """Ask the brokers for the topics again; if the answer has changed, the leader joins anew.

    Relied on: ``force_metadata_update`` makes a task do so at once, and the future that it returns need not
    be awaited.
    """
    consumer._client.force_metadata_update()


# -- the consumer's group --------------------------------------------------------------------------------

Heartbeat: TypeAlias = Callable[[], Awaitable[bool]]
Join: TypeAlias = Callable[[Any], Awaitable[bool]]


class Membership:
    """A started consumer's membership in its group; aiokafka does not publish it.

    The properties may be read from any thread.
    Relied on: ``_coordinator`` is a ``GroupCoordinator``, the same one for the consumer's life, and looks up
    the methods that are wrapped here by name on each call.
    """

    def __init__(self, consumer: Consumer) -> None:
        self._coordinator = consumer._coordinator

    @property
    def generation(self) -> int:
        """The group's generation as this member last heard it; -1: it is not a member."""
        return int(self._coordinator.generation)

    @property
    def member_id(self) -> str:
        """The member id that the group gave; empty: it is not a member."""
        return str(self._coordinator.member_id)

    @property
    def rejoin_needed(self) -> bool:
        """Whether this member is about to rejoin.

        Relied on: ``_rejoin_needed_fut`` is done from the first news of a rebalance until the member has
        joined.
        """
        return bool(self._coordinator._rejoin_needed_fut.done())

    async def heartbeat(self) -> bool:
        """Send a heartbeat now; returns whether it succeeded. It also succeeds while the group rebalances."""
        succeeded: bool = await self._coordinator._do_heartbeat()
        return succeeded

    async def until_closing(self, timeout_s: float | None = None) -> None:
        """Wait until the consumer stops, or until the time is over.

        Relied on: ``_closing`` is done as soon as the consumer is told to stop, while it still waits for its
        tasks.
        """
        await asyncio.wait([self._coordinator._closing], timeout=timeout_s)

    def wrap_heartbeat(self, wrap: Callable[[Heartbeat], Heartbeat]) -> None:
        """Replace aiokafka's heartbeat by what ``wrap`` makes of it. A patch.

        Relied on: ``_do_heartbeat`` sends one and returns whether it succeeded.
        """
        self._coordinator._do_heartbeat = wrap(self._coordinator._do_heartbeat)

    def wrap_join(self, wrap: Callable[[Join], Join]) -> None:
        """Replace aiokafka's attempt to join the group by what ``wrap`` makes of it. A patch.

        Relied on: ``_do_rejoin_group`` takes the subscription, joins, synchronises and applies the
        assignment; aiokafka calls it again at once when it returns False.
        """
        self._coordinator._do_rejoin_group = wrap(self._coordinator._do_rejoin_group)

    def wrap_reset(self, wrap: Callable[[Callable[[], None]], Callable[[], None]]) -> None:
        """Call this when aiokafka resets a membership that the group no longer knows. A patch.

        Relied on: ``reset_generation`` is called while ``member_id`` is still the old one, and clears it.
        """
        self._coordinator.reset_generation = wrap(self._coordinator.reset_generation)


# -- the group's assignment strategy ---------------------------------------------------------------------
#
# AbstractPartitionAssignor, ConsumerProtocolMemberMetadata, ConsumerProtocolMemberAssignment,
# ClusterMetadata: for a strategy of our own (sticky_assignor.py).
# Relied on: a member calls metadata() when it joins and on_assignment() before its listener hears of the
# assignment; the leader calls assign() with what the members wrote; partitions_for_topic() of the cluster
# answers for every subscribed topic, with None for an unknown one.

__all__ = [
    "AIOKafkaConnection",
    "AbstractPartitionAssignor",
    "AddOffsetsToTxnRequest",
    "AddPartitionsToTxnRequest",
    "Array",
    "Boolean",
    "Bytes",
    "CloseReason",
    "ClusterMetadata",
    "CompactArray",
    "CompactString",
    "Consumer",
    "ConsumerProtocolMemberAssignment",
    "ConsumerProtocolMemberMetadata",
    "DefaultRecordBatch",
    "DefaultRecordBatchBuilder",
    "DescribeConfigsRequest",
    "EndTxnRequest",
    "FetchError",
    "FetchRequest",
    "FetchResult",
    "FetchWait",
    "FindCoordinatorRequest",
    "ForgivingBatch",
    "Heartbeat",
    "HeartbeatRequest",
    "InitProducerIdRequest",
    "Int16",
    "Int32",
    "Int64",
    "Join",
    "Membership",
    "OffsetFetchRequest",
    "OffsetRequest",
    "Opened",
    "PartitionRecords",
    "ProduceRequest_v8",
    "Request",
    "RequestStruct",
    "Response",
    "Schema",
    "String",
    "TaggedFields",
    "TxnOffsetCommitRequest",
    "abandon",
    "advance",
    "ask_for_topics",
    "buffered",
    "collect_hosts",
    "create_conn",
    "decide_fetch_waits",
    "decode_varint_py",
    "failure",
    "fetching",
    "forget",
    "is_buffered",
    "is_closed",
    "opened",
    "others_first",
    "parse_fetched_with",
    "raise_errors",
    "records_of",
    "something_new",
    "unknown_topics",
]
