"""A log in memory with Kafka's semantics: offsets, transactions, fencing, compaction, retention.

What it keeps from Kafka (KIP-98, KIP-447's predecessor, KIP-516, KIP-534):

- Transaction markers take an offset. Aborted records stay in the log; a read_committed reader skips them.
- The last stable offset stands still at the first record of the oldest open transaction.
- ``init_producer`` raises the epoch of a transactional id: what the older epoch left open is completed
  (if its commit was decided) or aborted, and whatever the older epoch tries from then on is refused.
- Consumer group offsets are committed with the transaction or not at all.
- A commit is decided at once and its markers follow, on each partition at a moment of its own.
- With LogAppendTime a record has the broker's time, which no worker's clock has a part in.
- Compaction keeps the newest committed value of each key and leaves gaps between offsets; it reaches up to
  the last stable offset and never takes the last record. Tombstones and markers stay for
  ``delete_retention_ms`` after the first pass that saw them.

What it leaves out: replication, segments, sequence numbers, batches. Not for use from several threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from delaystream.engine.ports import Accumulator, LogBounds, Row, TopicPartition
from delaystream.testing.partition import (
    Epoch,
    LogError,
    LogRecord,
    OpenTransaction,
    Outcome,
    PartitionLog,
    PositionOutOfRangeError,
    RecordRefusedError,
    SettledRecord,
    StaleEpochError,
    TimestampRefusedError,
    Topic,
    TopicRefusedError,
    UnknownTopicError,
    row_bytes,
)


class _Producer:
    __slots__ = ("completing", "current", "number", "timeout_ms")

    def __init__(self) -> None:
        self.number = -1
        self.timeout_ms = 10_000
        self.current: OpenTransaction | None = None
        #: decided, but not every marker is written
        self.completing: OpenTransaction | None = None


class MemoryLog:
    """The broker. ``now_ms`` is its clock.

    ``defer_marker`` receives every transaction marker as a call to be made later; without it they are
    written at once. A marker that has not been written when its producer goes on is written then.
    """

    def __init__(
        self,
        now_ms: Callable[[], int],
        *,
        delete_retention_ms: int = 86_400_000,
        defer_marker: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        self._now_ms = now_ms
        self.delete_retention_ms = delete_retention_ms
        self.defer_marker = defer_marker
        self.topics: dict[str, Topic] = {}
        self.group_offsets: dict[tuple[str, TopicPartition], int] = {}
        self._producers: dict[str, _Producer] = {}
        self._created = 0
        self._listeners: dict[TopicPartition, list[Callable[[], None]]] = {}

    # -- topics

    def create_topic(
        self,
        name: str,
        partitions: int = 1,
        *,
        compacted: bool = False,
        append_time: bool = False,
        max_message_bytes: int | None = None,
        timestamp_before_max_ms: int | None = None,
        timestamp_after_max_ms: int | None = None,
    ) -> Topic:
        """Create a topic, in place of an older one of this name; it gets an id of its own.

        With ``append_time`` its records get the broker's time (message.timestamp.type=LogAppendTime).
        """
        self._created += 1
        topic = Topic(name, f"topic-id-{self._created}", partitions)
        topic.compacted = compacted
        topic.append_time = append_time
        if max_message_bytes is not None:
            topic.max_message_bytes = max_message_bytes
        topic.timestamp_before_max_ms = timestamp_before_max_ms
        topic.timestamp_after_max_ms = timestamp_after_max_ms
        self.topics[name] = topic
        return topic

    def grow_topic(self, name: str, partitions: int) -> None:
        """Add partitions to a topic, up to that many (CreatePartitions)."""
        topic = self.topics[name]
        topic.partitions += [
            PartitionLog(topic, number) for number in range(len(topic.partitions), partitions)
        ]

    def delete_topic(self, name: str) -> None:
        """Delete a topic and all that it holds."""
        del self.topics[name]

    def partition(self, at: TopicPartition) -> PartitionLog:
        """A partition. Raises UnknownTopicError."""
        topic = self.topics.get(at.topic)
        if topic is None or not 0 <= at.partition < len(topic.partitions):
            raise UnknownTopicError(f"{at.topic}-{at.partition}")
        return topic.partitions[at.partition]

    # -- plain writes and reads

    def append(self, at: TopicPartition, row: Row) -> int:
        """Append without a transaction, as an ordinary producer does; returns the offset."""
        offset = self._append(at, row, None)
        self._changed(at)
        return offset

    def bounds(self, at: TopicPartition) -> LogBounds:
        """Log start, last stable offset, high watermark."""
        log = self.partition(at)
        return LogBounds(log.start, log.stable, log.end)

    def read(
        self, at: TopicPartition, position: int, limit: int = 1 << 60, *, committed: bool = True
    ) -> tuple[list[LogRecord], int]:
        """Up to ``limit`` records from a position on, and the position behind them.

        With ``committed`` false (read_uncommitted) open and aborted records are returned too; never markers.
        Raises PositionOutOfRangeError.
        """
        log = self.partition(at)
        if not log.start <= position <= log.end:
            raise PositionOutOfRangeError(
                f"{at.topic}-{at.partition}: {position} not in {log.start}..{log.end}"
            )
        stop = log.stable if committed else log.end
        found: list[LogRecord] = []
        for index in range(log.index(position), len(log.records)):
            record = log.records[index]
            if record.offset >= stop:
                break
            if record.visible or (not committed and not record.control):
                if len(found) == limit:
                    return found, max(position, record.offset)
                found.append(record)
        return found, max(position, stop)

    def all(self, topic: str) -> list[tuple[int, LogRecord]]:
        """Every committed record of a topic with its partition, partition by partition."""
        return [
            (number, record)
            for number, log in enumerate(self.topics[topic].partitions)
            for record in self.read(TopicPartition(topic, number), log.start)[0]
        ]

    def subscribe(
        self, partitions: Iterable[TopicPartition], listener: Callable[[], None]
    ) -> Callable[[], None]:
        """Call ``listener`` whenever readers may see more of the partitions; returns what ends that."""
        lists = [self._listeners.setdefault(at, []) for at in partitions]
        for listeners in lists:
            listeners.append(listener)

        def unsubscribe() -> None:
            for listeners in lists:
                listeners.remove(listener)

        return unsubscribe

    # -- transactions

    def init_producer(self, transactional_id: str, timeout_ms: int = 10_000) -> Epoch:
        """InitProducerId: fence the older epoch, and complete or abort what it left open."""
        self.expire()
        producer = self._producers.setdefault(transactional_id, _Producer())
        self._settle(producer)
        if producer.current is not None:
            self._end(producer, "aborted")
            self._settle(producer)
        producer.number += 1
        producer.timeout_ms = timeout_ms
        return Epoch(transactional_id, producer.number)

    def write(self, epoch: Epoch, at: TopicPartition, rows: Iterable[Row]) -> int:
        """Append rows in this epoch's transaction, beginning one if none is open; the last one's offset.

        Refused as a whole: raises StaleEpochError, UnknownTopicError, TopicRefusedError, RecordRefusedError.
        """
        transaction = self._transaction(epoch)
        rows = list(rows)
        log = self.partition(at)
        self._check_all(log.topic, rows)
        if log not in transaction.unmarked:
            transaction.unmarked.append(log)
            log.open[transaction] = log.end
        offset = -1
        for row in rows:
            offset = self._append(at, row, transaction)
        return offset

    def add_offsets(self, epoch: Epoch, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """TxnOffsetCommit: they become the group's when the transaction commits. Raises StaleEpochError."""
        transaction = self._transaction(epoch)
        transaction.group_offsets.update({(group, at): offset for at, offset in offsets.items()})

    def end(self, epoch: Epoch, *, commit: bool) -> None:
        """EndTxn; nothing happens when no transaction is open. Raises StaleEpochError."""
        producer = self._checked(epoch)
        if producer.current is not None:
            self._end(producer, "committed" if commit else "aborted")

    def commit(
        self,
        epoch: Epoch,
        writes: Mapping[TopicPartition, Accumulator],
        group: str,
        offsets: Mapping[TopicPartition, int],
    ) -> dict[TopicPartition, int]:
        """A whole transaction between which and its end nothing can come; the last offset in each partition.

        A refused transaction leaves nothing behind, and aborts nothing. Raises as :meth:`write`.
        """
        producer = self._producers[epoch.transactional_id]
        if producer.number != epoch.number or producer.current is not None:
            self._checked(epoch)
            raise AssertionError("a transaction is open")
        checked: list[tuple[TopicPartition, PartitionLog, Accumulator]] = []
        for at, rows in writes.items():
            try:
                log = self.partition(at)
                self._check_all(log.topic, rows)
            except LogError as refusal:
                refusal.at = at
                raise
            checked.append((at, log, rows))
        now_ms = self._now_ms()
        last: dict[TopicPartition, int] = {}
        for at, log, rows in checked:
            by_broker, append, offset = log.topic.append_time, log.records.append, log.end
            for key, value, headers, timestamp_ms in rows:
                at_ms = now_ms if by_broker else timestamp_ms
                # A tuple of what holds no references is nothing that the garbage collector goes through.
                kept = tuple(headers)
                append(
                    SettledRecord(
                        offset, at_ms, key, value, kept, now_ms, None, False, now_ms, None, by_broker
                    )
                )
                offset += 1
            last[at] = offset - 1
            # The marker takes an offset, and nobody sees it.
            log.end = offset + 1
        for at, offset in offsets.items():
            self.group_offsets[group, at] = offset
        for at in last:
            if at in self._listeners:
                self._changed(at)
        return last

    def expire(self) -> None:
        """Abort the transactions that are open for longer than their timeout, and fence their owners."""
        now_ms = self._now_ms()
        for producer in self._producers.values():
            current = producer.current
            if current is not None and now_ms - current.started_ms > current.timeout_ms:
                self._end(producer, "aborted")
                producer.number += 1

    @property
    def hanging(self) -> bool:
        """Whether any transaction is open or lacks a marker."""
        return any(p.current is not None or p.completing is not None for p in self._producers.values())

    # -- what time does to a log

    def compact(self, at: TopicPartition, stop: int | None = None) -> int:
        """One pass of the cleaner over what lies below ``stop``; how many records it took."""
        log = self.partition(at)
        now_ms = self._now_ms()
        limit = min(log.stable, log.end if stop is None else stop)
        if log.records:
            limit = min(limit, log.records[-1].offset)
        newest: dict[bytes | None, int] = {}
        for record in log.records:
            if record.offset < limit and record.visible:
                newest[record.key] = record.offset
        kept: list[LogRecord] = []
        alive: set[int] = set()
        for record in reversed(log.records):
            if record.offset >= limit:
                kept.append(record)
                continue
            if not record.control and (not record.visible or newest[record.key] != record.offset):
                continue
            if record.value is None:
                if record.horizon_ms is None:
                    record.horizon_ms = now_ms + self.delete_retention_ms
                elif now_ms > record.horizon_ms and (
                    not record.control or id(record.transaction) not in alive
                ):
                    continue
            if not record.control:
                alive.add(id(record.transaction))
            kept.append(record)
        kept.reverse()
        taken = len(log.records) - len(kept)
        log.records = kept
        return taken

    def trim(self, at: TopicPartition, start: int) -> None:
        """Retention or DeleteRecords: drop what lies below ``start``, at most up to the high watermark."""
        log = self.partition(at)
        log.start = max(log.start, min(start, log.end))
        del log.records[: log.index(log.start)]

    # -- inside

    def _append(self, at: TopicPartition, row: Row, transaction: OpenTransaction | None) -> int:
        key, value, headers, timestamp_ms = row
        log = self.partition(at)
        self._check(log.topic, row)
        now_ms = self._now_ms()
        visible_ms = now_ms if transaction is None else None
        by_broker = log.topic.append_time
        record = LogRecord(
            log.end,
            now_ms if by_broker else timestamp_ms,
            key,
            value,
            list(headers),
            now_ms,
            transaction,
            visible_ms=visible_ms,
            by_broker=by_broker,
        )
        log.records.append(record)
        log.end += 1
        return record.offset

    def _check_all(self, topic: Topic, rows: Iterable[Row]) -> None:
        for index, row in enumerate(rows):
            try:
                self._check(topic, row)
            except RecordRefusedError as refusal:
                refusal.row = index
                raise

    def _check(self, topic: Topic, row: Row) -> None:
        if topic.refusal is not None:
            raise TopicRefusedError(topic.refusal)
        key, value, headers, timestamp_ms = row
        if topic.compacted and key is None:
            raise RecordRefusedError("a compacted topic takes no record without a key")
        if row_bytes(key, value, headers) > topic.max_message_bytes:
            raise RecordRefusedError(f"larger than max.message.bytes={topic.max_message_bytes}")
        before, after = topic.timestamp_before_max_ms, topic.timestamp_after_max_ms
        if before is None and after is None:
            return
        age_ms = self._now_ms() - timestamp_ms
        if (before is not None and age_ms > before) or (after is not None and -age_ms > after):
            raise TimestampRefusedError(f"timestamp {timestamp_ms} is out of range")

    def _checked(self, epoch: Epoch) -> _Producer:
        self.expire()
        producer = self._producers[epoch.transactional_id]
        if producer.number != epoch.number:
            raise StaleEpochError(f"{epoch.transactional_id}: epoch {epoch.number}, now {producer.number}")
        return producer

    def _transaction(self, epoch: Epoch) -> OpenTransaction:
        producer = self._checked(epoch)
        if producer.current is None:
            self._settle(producer)
            producer.current = OpenTransaction(self._now_ms(), producer.timeout_ms)
        return producer.current

    def _end(self, producer: _Producer, outcome: Outcome) -> None:
        transaction = producer.current
        assert transaction is not None
        producer.current = None
        transaction.outcome = outcome
        if outcome == "committed":
            self.group_offsets.update(transaction.group_offsets)
        producer.completing = transaction
        if self.defer_marker is None:
            self._settle(producer)
            return
        for log in list(transaction.unmarked):
            self.defer_marker(lambda log=log: self._mark(producer, transaction, log))  # type: ignore[misc]
        if not transaction.unmarked:
            producer.completing = None

    def _settle(self, producer: _Producer) -> None:
        transaction = producer.completing
        if transaction is not None:
            for log in list(transaction.unmarked):
                self._mark(producer, transaction, log)
            producer.completing = None

    def _mark(self, producer: _Producer, transaction: OpenTransaction, log: PartitionLog) -> None:
        if log not in transaction.unmarked:
            return
        transaction.unmarked.remove(log)
        first = log.open.pop(transaction)
        now_ms = self._now_ms()
        for record in log.records[log.index(first) :]:
            if record.transaction is transaction:
                record.visible_ms = now_ms
        log.records.append(
            LogRecord(log.end, now_ms, None, None, (), now_ms, transaction, control=True, visible_ms=now_ms)
        )
        log.end += 1
        if not transaction.unmarked and producer.completing is transaction:
            producer.completing = None
        self._changed(TopicPartition(log.topic.name, log.number))

    def _changed(self, at: TopicPartition) -> None:
        for listener in tuple(self._listeners.get(at, ())):
            listener()
