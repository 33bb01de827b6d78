"""The content of one transaction: decided first, as plain values, and carried out afterwards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Final, NamedTuple, TypeAlias

import msgspec

from delaystream.codec.envelope import Envelope
from delaystream.codec.event import Unfired
from delaystream.codec.outgoing import FIRED_AT
from delaystream.core.partitioning import partition_for_key
from delaystream.core.rates import Bucket
from delaystream.core.request import Header, Request
from delaystream.engine.failures import Culprit
from delaystream.engine.ports import (
    Accumulator,
    Headers,
    Row,
    TopicPartition,
    Transaction,
)

#: the origin of a receipt, where that of a fire is the key of its wheel entry
RECEIPT: Final = b""

#: what a record takes beside its key, value and headers, about
_RECORD_OVERHEAD: Final = 64
#: rows without a key that go to one partition before the next one has its turn
_KEYLESS_RUN: Final = 32


def row_bytes(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """The approximate size of a record in a transaction."""
    size = _RECORD_OVERHEAD
    if key is not None:
        size += len(key)
    if value is not None:
        size += len(value)
    for name, content in headers:
        size += len(name) if content is None else len(name) + len(content)
    return size


_Adding: TypeAlias = tuple[Callable[[Row], None], Callable[[bytes | None], None]]


class TopicWrites:
    """The rows of one step for one topic, by partition."""

    __slots__ = (
        "_accumulator", "_adding", "_keyless", "_now_ms", "_spread", "_written",
        "excused", "fired", "origins", "partitions", "rows", "topic",
    )  # fmt: skip

    def __init__(
        self,
        topic: str,
        partitions: int,
        now_ms: int,
        spread: int,
        written: list[int],
        accumulator: Callable[[TopicPartition], Accumulator],
    ) -> None:
        self.topic = topic
        self.partitions = partitions
        self.rows: dict[int, Accumulator] = {}
        #: for each row, the key of the wheel entry that it was fired from, RECEIPT, or None
        self.origins: dict[int, list[bytes | None]] = {}
        #: how late each fire was, ms
        self.fired: list[int] = []
        #: of the fires that nobody could have made at their due times: how late each was, and how long after
        #: it became fireable, ms
        self.excused: list[tuple[int, int]] = []
        self._now_ms = now_ms
        self._accumulator = accumulator
        #: by partition, what adds a row and its origin
        self._adding: dict[int, _Adding] = {}
        self._spread = spread
        self._keyless = 0
        # Shared with the step, which this must not refer to: a step that is part of a cycle is freed by the
        # garbage collector alone, with thousands of records.
        self._written = written

    def write(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        timestamp_ms: int,
        partition: int = -1,
        origin: bytes | None = None,
    ) -> int:
        """Add a row; a negative partition stands for the key's. Returns the partition.

        Rows without a key go to the partitions in turn, a run of them to each, so that a transaction with few
        of them writes to few partitions (as KIP-480 has it for producers).
        """
        if partition < 0:
            if key is not None:
                partition = partition_for_key(key, self.partitions)
            else:
                partition = (self._spread + self._keyless // _KEYLESS_RUN) % self.partitions
                self._keyless += 1
        add, add_origin = self._adding.get(partition) or self._begun(partition)
        add((key, value, headers, timestamp_ms))
        add_origin(origin)
        return partition

    def _begun(self, partition: int) -> _Adding:
        """The functions that add rows, and their origins, for a partition that has none yet."""
        rows = self.rows[partition] = self._accumulator(TopicPartition(self.topic, partition))
        origins: list[bytes | None] = []
        self.origins[partition] = origins
        self._written.append(partition)
        adding = self._adding[partition] = rows.append, origins.append
        return adding

    def deliver(
        self,
        fired: Envelope | Request,
        headers: Headers,
        due_ms: int,
        fireable_ms: int,
        partition: int = -1,
        origin: bytes | None = None,
    ) -> int:
        """Add a fire: what was asked for, under its key; as `write` otherwise. Returns the partition.

        It was due at ``due_ms``, and nothing but its own request kept it from being fired since
        ``fireable_ms``; ms since the epoch.
        """
        now_ms = self._now_ms
        self.fired.append(now_ms - due_ms)
        if due_ms < fireable_ms or due_ms < fired.timestamp_ms:
            # The clock of the request's producer may be ahead.
            delay_ms = max(0, now_ms - max(fireable_ms, fired.timestamp_ms))
            self.excused.append((now_ms - due_ms, delay_ms))
        key = fired.destination_key if fired.has_destination_key else fired.key
        return self.write(key, fired.value, headers, now_ms, partition, origin)


class Route(msgspec.Struct):
    """Where this step's deliveries at once of one tenant go, for one destination that can be written to."""

    wheel: int
    topic_writes: TopicWrites
    #: what bounds the fires of the wheel; () for nothing
    buckets: tuple[Bucket, ...]
    #: the common wheel, where something older of the tenant's may wait still; None: it may not
    behind: int | None = None


class Bounds(NamedTuple):
    """The most that a step holds."""

    records: int
    bytes: int
    #: of all topics together, the changelog's aside
    partitions: int


_UNBOUNDED: Final = Bounds(1 << 31, 1 << 31, 1 << 31)


def _never() -> bool:
    return False


def _listed(target: TopicPartition) -> Accumulator:
    return []


class Step:
    """One transaction in the making."""

    def __init__(
        self,
        now_ms: int,
        number: int,
        loop_ms: float = 0.0,
        bounds: Bounds = _UNBOUNDED,
        turn_over: Callable[[], bool] = _never,
        accumulator: Callable[[TopicPartition], Accumulator] = _listed,
    ) -> None:
        self.now_ms = now_ms
        self.number = number
        #: the header of everything that it fires
        self.fired_at: Header = (FIRED_AT, b"%d" % now_ms)
        #: one record and its partition may exceed them: for requests at first, then wider for due entries
        self.max_records, self.max_bytes, self.max_partitions = bounds
        #: whether deciding has taken so long that the event loop is to have its turn
        self.turn_over = turn_over
        #: where rows gather; the changelog's do so in `changes`, as each may be written again
        self._accumulator = accumulator
        #: time of the event loop, for what is parked
        self.loop_ms = loop_ms
        #: changes of the state: the changelog's rows and the local batch alike, None for a tombstone
        self.changes: dict[bytes, bytes | None] = {}
        #: changes of interned names: before the rows that refer to them, however a reader cuts the log
        self.names: dict[bytes, bytes | None] = {}
        #: changes of the local store alone: pointers, which follow from what is in `changes`
        self.local: dict[bytes, bytes | None] = {}
        self.by_topic: dict[str, TopicWrites] = {}
        #: by destination and tenant; None: nothing of it goes out in the accepting transaction
        self.routes: dict[tuple[str, str], Route | None] = {}
        #: next offset to apply, by source topic
        self.positions: dict[str, int] = {}
        self.accepted: dict[str, int] = defaultdict(int)
        #: by request topic and code
        self.rejected: dict[tuple[str, str], int] = defaultdict(int)
        #: requests that get no receipt although they asked for one, and why the last of them gets none
        self.unanswered = 0
        self.unanswered_why = ""
        #: requests and fires
        self.records = 0
        self.size_bytes = 0
        #: one item for each partition written to, the changelog's aside
        self.written: list[int] = []
        #: scheduled times that passed without a delivery of their own, by reason and destination
        self.missed: dict[tuple[Unfired, str], int] = defaultdict(int)
        #: wheel entries put among the dead letters
        self.quarantined: list[bytes] = []
        #: suspects that were decided on, one way or the other
        self.cleared: list[Culprit] = []
        #: destinations that have entries on their way from the common wheel to a tenant's own
        self.requeued: set[str] = set()
        #: whether it is for one suspect, and for nothing else
        self.alone = False
        #: sentences for the log, once it is committed
        self.warnings: list[str] = []

    @property
    def empty(self) -> bool:
        """True when there is nothing to commit."""
        return not (
            self.changes
            or self.names
            or self.positions
            or any(topic_writes.rows for topic_writes in self.by_topic.values())
        )

    @property
    def full(self) -> bool:
        """Whether nothing more is to go into it."""
        return (
            self.records >= self.max_records
            or self.size_bytes >= self.max_bytes
            or self.partitions >= self.max_partitions
            or self.turn_over()
        )

    def leave_room(self) -> None:
        """Reserve a quarter of each bound for due entries, however much the requests have taken."""
        self.max_records = max(self.max_records, self.records + -(-self.max_records // 4))
        self.max_bytes = max(self.max_bytes, self.size_bytes + -(-self.max_bytes // 4))
        self.max_partitions = max(self.max_partitions, self.partitions + -(-self.max_partitions // 4))

    @property
    def partitions(self) -> int:
        """How many partitions are written to, the changelog's aside."""
        return len(self.written)

    def writes_to(self, topic: str, partitions: int) -> TopicWrites:
        """Where this step's rows for a topic go."""
        topic_writes = self.by_topic.get(topic)
        if topic_writes is None:
            topic_writes = self.by_topic[topic] = TopicWrites(
                topic, partitions, self.now_ms, self.number, self.written, self._accumulator
            )
        return topic_writes

    def fires(self, topic: str) -> int:
        """How many fires go to a topic."""
        topic_writes = self.by_topic.get(topic)
        return len(topic_writes.fired) if topic_writes is not None else 0

    def transaction(self, changelog: TopicPartition, offsets: dict[TopicPartition, int]) -> Transaction:
        """The writes, ready for the producer, and the group's offsets if they are to be committed."""
        now_ms = self.now_ms
        writes: dict[TopicPartition, Accumulator] = {}
        if self.changes or self.names:
            writes[changelog] = [(key, value, (), now_ms) for key, value in self.rows()]
        for topic_writes in self.by_topic.values():
            for number, rows in topic_writes.rows.items():
                writes[TopicPartition(topic_writes.topic, number)] = rows
        return Transaction(writes, offsets)

    def rows(self) -> Iterable[tuple[bytes, bytes | None]]:
        """The changelog's rows, in their order."""
        return chain(self.names.items(), self.changes.items())

    def largest_row(self, topic: str, partition: int, row: int | None = None) -> int:
        """Size in bytes of the row, or of the largest, that went to a topic partition."""
        topic_writes = self.by_topic.get(topic)
        rows = [*topic_writes.rows.get(partition, ())] if topic_writes is not None else []
        if row is not None:
            rows = rows[row : row + 1]
        return max((row_bytes(key, value, headers) for key, value, headers, _ in rows), default=0)

    def origins(self, topic: str, partition: int, row: int | None = None) -> list[bytes]:
        """Wheel entries whose rows, or whose one row, went to a topic partition."""
        return [origin for origin in self._origins(topic, partition, row) if origin]

    def replied(self, topic: str, partition: int, row: int | None = None) -> bool:
        """Whether any of the rows that went to a topic partition, or the one row, is a receipt."""
        return RECEIPT in self._origins(topic, partition, row)

    def _origins(self, topic: str, partition: int, row: int | None) -> list[bytes | None]:
        topic_writes = self.by_topic.get(topic)
        origins = topic_writes.origins.get(partition, []) if topic_writes is not None else []
        return origins if row is None else origins[row : row + 1]
