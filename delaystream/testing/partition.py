"""The content of a log in memory: topics, partitions, records and their transactions."""

from __future__ import annotations

from bisect import bisect_left
from operator import attrgetter
from typing import Any, Literal, NamedTuple

import msgspec

from delaystream.engine.ports import Headers, TopicPartition

Outcome = Literal["open", "committed", "aborted"]


class LogError(Exception):
    """The broker's error in place of carrying out a request; `at` is its partition."""

    at: TopicPartition | None = None


class UnknownTopicError(LogError):
    """UNKNOWN_TOPIC_OR_PARTITION."""


class TopicRefusedError(LogError):
    """The topic cannot be written now: TOPIC_AUTHORIZATION_FAILED, no leader, …"""


class TimestampRefusedError(LogError):
    """INVALID_TIMESTAMP: the broker's clock and the producer's differ by more than the topic allows."""


class RecordRefusedError(LogError):
    """This record can never be written to this topic: RECORD_TOO_LARGE, INVALID_RECORD.

    ``row`` is its index among those of the request (KIP-467), None for a single one.
    """

    row: int | None = None


class StaleEpochError(LogError):
    """PRODUCER_FENCED, INVALID_PRODUCER_EPOCH: a newer producer has the id, or the transaction timed out."""


class PositionOutOfRangeError(LogError):
    """OFFSET_OUT_OF_RANGE: before the log's start or behind its end."""


class Epoch(NamedTuple):
    """One life of a transactional id."""

    transactional_id: str
    number: int


class OpenTransaction:
    """A transaction: what it wrote to, and how it ended."""

    __slots__ = ("group_offsets", "outcome", "started_ms", "timeout_ms", "unmarked")

    def __init__(self, started_ms: int, timeout_ms: int) -> None:
        self.outcome: Outcome = "open"
        self.started_ms = started_ms
        self.timeout_ms = timeout_ms
        #: partitions that were written to and hold no marker yet
        self.unmarked: list[PartitionLog] = []
        self.group_offsets: dict[tuple[str, TopicPartition], int] = {}


class LogRecord(msgspec.Struct):
    """A record as it stands in a partition; ``appended_ms`` is when, by the broker's clock.

    ``timestamp`` is the same with LogAppendTime (``by_broker``), else the producer's.
    """

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    appended_ms: int
    transaction: Any = None
    #: a transaction marker
    control: bool = False
    #: when its marker was written, and with it read_committed readers could see it
    visible_ms: int | None = None
    #: compaction may take a tombstone or a marker from here on; set by the first pass that sees it
    horizon_ms: int | None = None
    by_broker: bool = False

    @property
    def visible(self) -> bool:
        """Whether a read_committed reader gets to see it."""
        return not self.control and (self.transaction is None or self.transaction.outcome == "committed")


class SettledRecord(LogRecord, gc=False):
    """One of a transaction that was begun and committed at once: it refers to nothing that refers to it."""


_offset = attrgetter("offset")


class PartitionLog:
    """One partition: records in offset order, with gaps where compaction passed."""

    __slots__ = ("end", "number", "open", "records", "start", "topic")

    def __init__(self, topic: Topic, number: int) -> None:
        self.topic = topic
        self.number = number
        self.records: list[LogRecord] = []
        self.start = 0
        self.end = 0
        #: first offset of each transaction that has no marker here yet
        self.open: dict[OpenTransaction, int] = {}

    @property
    def stable(self) -> int:
        """The last stable offset: readers with read_committed stop before it."""
        return min(self.open.values()) if self.open else self.end

    def index(self, offset: int) -> int:
        """Where in ``records`` the first one at or behind ``offset`` stands."""
        return bisect_left(self.records, offset, key=_offset)


class Topic:
    """A topic's partitions and settings; the settings may be changed at any time."""

    def __init__(self, name: str, topic_id: str, partitions: int) -> None:
        self.name = name
        self.topic_id = topic_id
        self.partitions = [PartitionLog(self, number) for number in range(partitions)]
        self.compacted = False
        #: message.timestamp.type is LogAppendTime: records get the broker's time in place of the producer's
        self.append_time = False
        #: bound on key, value and headers of one record
        self.max_message_bytes = 1024 * 1024 + 64 * 1024
        #: message.timestamp.before.max.ms and .after.max.ms; None: no bound
        self.timestamp_before_max_ms: int | None = None
        self.timestamp_after_max_ms: int | None = None
        #: why it cannot be written now ("not authorized"); None: it can
        self.refusal: str | None = None


def row_bytes(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """Size of a record: key, value, header names and values."""
    size = len(key or b"") + len(value or b"")
    for name, content in headers:
        size += len(name) + len(content or b"")
    return size
