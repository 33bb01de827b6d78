"""The interfaces to the outside world: a log, a store, destinations, a clock.

The partition processor knows Kafka's semantics but no Kafka client, and RocksDB's but not RocksDB.
Each protocol here is implemented twice: by an adapter (aiokafka, rocksdict) and by the in-memory log
of :mod:`delaystream.testing`; one conformance suite runs the same cases against both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import Final, NamedTuple, Protocol, TypeAlias

import msgspec

from delaystream.core.rejection import Rejection
from delaystream.engine.pace import Pace
from delaystream.engine.suspects import InternalErrors
from delaystream.query.rows import Rows

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]
#: One record to be produced: key, value, headers, timestamp in ms.
Row: TypeAlias = tuple[bytes | None, bytes | None, Headers, int]
#: One change of the state: key, and its new value or None for a tombstone.
Change: TypeAlias = tuple[bytes, bytes | None]


class TopicPartition(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


# -- the producer --------------------------------------------------------------------------------


class Accumulator(Protocol):
    """Rows for one partition, in their order, as they gather for a transaction. A list is one.

    A producer's own may keep no more of a row than its encoded bytes, so no row may change once it is added.
    """

    def append(self, row: Row, /) -> None:
        """Add a row. The commit refuses a row that cannot be written; this method does not."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Row]:
        """The rows, in their order. It may have to decode them: for what went wrong, not for every step."""
        ...


class Transaction(msgspec.Struct):
    """Everything one transaction writes: rows by partition, and the group's offsets."""

    writes: Mapping[TopicPartition, Accumulator]
    offsets: dict[TopicPartition, int]


class TransactionalProducer(Protocol):
    """A transactional producer of one partition's ``transactional.id``; used once up to its first failure."""

    async def fence(self) -> None:
        """InitProducerId (KIP-98): fence any earlier owner and complete its open transaction.

        Raises LogUnavailable when no coordinator answers in time.
        """
        ...

    def accumulator(self, target: TopicPartition) -> Accumulator:
        """Where rows for a partition gather, for the next commit and no later one; new and empty."""
        ...

    async def commit(self, transaction: Transaction) -> Mapping[TopicPartition, int]:
        """Begin, write, await every write, add the offsets, commit.

        Returns the offset of the last record written to each partition. Raises ProducerFenced,
        WriteRefused or TransactionFailed; after that this producer must only be closed.
        """
        ...

    async def close(self) -> None:
        """Abort what is open, if that can be done in a bounded time, and close every connection."""
        ...


# -- the changelog -------------------------------------------------------------------------------


class LogBounds(NamedTuple):
    """Offsets of a partition: ``start`` (first retained), ``stable`` (LSO), ``end`` (high watermark)."""

    start: int
    stable: int
    end: int


class ChangelogBatch(msgspec.Struct):
    """Committed changelog records in offset order: (offset, key, value or None).

    ``next_position`` is the fetch position behind them; it is past the last record's offset + 1 where
    transaction markers, aborted or compacted records follow. ``stable`` is the last stable offset when it was
    read, -1 where that is not known: up to there, and no further, the log can be read.
    """

    records: Sequence[tuple[int, bytes, bytes | None]]
    next_position: int
    stable: int = -1


class TopicRecord(msgspec.Struct, frozen=True):
    """A committed record of any topic, whole."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class TopicBatch(msgspec.Struct, frozen=True):
    """Committed records of a topic in offset order; the rest as in a `ChangelogBatch`.

    ``skipped`` is the number of offsets of batches that cannot be read: they are passed over.
    """

    records: Sequence[TopicRecord]
    next_position: int
    stable: int
    skipped: int = 0


class ChangelogRecord(msgspec.Struct, frozen=True):
    """One committed changelog record, looked at alone.

    ``appended_ms`` is when its leader appended it, by the leader's clock; None where its timestamp is its
    producer's (the topic had ``message.timestamp.type=CreateTime``).
    """

    key: bytes
    value: bytes | None
    appended_ms: int | None


class Changelog(Protocol):
    """One partition of the changelog topic, read with isolation level read_committed."""

    @property
    def topic_id(self) -> str:
        """The topic's id (KIP-516): another one means the topic was deleted and created anew."""
        ...

    async def bounds(self) -> LogBounds:
        """Offsets as of now. Raises LogUnavailable."""
        ...

    async def read(self, position: int) -> ChangelogBatch:
        """Read on from a fetch position; may be empty, ``next_position`` then still may have moved.

        Raises LogUnavailable.
        """
        ...

    async def record_at(self, offset: int) -> ChangelogRecord | None:
        """The record at an offset that the log has; None where none can be read.

        It may have been compacted away or aborted, be a transaction's marker, or not be committed yet.
        Raises LogUnavailable.
        """
        ...

    async def close(self) -> None:
        """Let go of every connection."""
        ...


# -- the local store -----------------------------------------------------------------------------


#: The version of the rows that only local stores have; a store of another version is rebuilt. 3: pointers.
STORE_FORMAT: Final = 4


class Marker(msgspec.Struct, frozen=True):
    """How far a local store has applied the changelog, and how to tell whether it still fits to it."""

    topic_id: str
    #: fetch position to read on from
    position: int
    #: offset of the last record applied, -1 for none
    last_offset: int
    #: digest of the last record applied (key and value)
    fingerprint: bytes
    #: brokers' time, ms, from which on the store may have missed tombstones. None: when the last record was
    #: appended that it has applied. A replay that is under way leaves it as it was: the store is no younger
    #: before it has caught up.
    as_of_ms: int | None = None
    #: a rebuild is under way: what is derived from the whole store is not there yet
    rebuilding: bool = False
    #: it was being derived: how much of it is there is not known
    deriving: bool = False
    format: int = STORE_FORMAT


class StateStore(Rows, Protocol):
    """An ordered byte-to-byte map on local disk; every call is made from one thread."""

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """The values stored under keys, in their order; for many it is cheaper than one by one."""
        ...

    def keys(self, start: bytes, stop: bytes) -> Iterable[bytes]:
        """All keys with ``start <= key < stop``, in order; for recovery only."""
        ...

    def write(self, changes: Iterable[Change], local: Iterable[Change], marker: Marker) -> None:
        """Apply changes, the local-only keys and the marker in one atomic batch. Raises StoreFailed."""
        ...

    def drop_range(self, start: bytes, stop: bytes) -> None:
        """Hint that no live key is left in ``start <= key < stop``: scans need not pass tombstones."""
        ...

    def marker(self) -> Marker | None:
        """The marker of the last write; None for a store that was never written."""
        ...

    def close(self) -> None:
        """Flush and release the directory's lock."""
        ...


class StateStores(Protocol):
    """The data directory."""

    def open(self, partition: int) -> StateStore:
        """Open or create. Raises StoreUntrusted (corrupt) or StoreFailed (locked, not writable)."""
        ...

    def destroy(self, partition: int) -> None:
        """Delete a partition's store; nothing if there is none. Raises StoreFailed."""
        ...


# -- the requests --------------------------------------------------------------------------------


class SourceRecord(Protocol):
    """A fetched record, as aiokafka's ConsumerRecord has it."""

    @property
    def offset(self) -> int:
        """Its offset."""
        ...

    @property
    def timestamp(self) -> int:
        """Its timestamp, ms; -1 for none."""
        ...

    @property
    def key(self) -> bytes | None:
        """Its key."""
        ...

    @property
    def value(self) -> bytes | None:
        """Its value; None is Kafka's null."""
        ...

    @property
    def headers(self) -> Headers:
        """Its headers, in order."""
        ...


class SourceBatch(msgspec.Struct):
    """One fetch of one source topic's partition: records from ``start`` up to fetch position ``stop``.

    Records below ``start`` or at ``stop`` and beyond do not occur. There may be none: what was passed was
    aborted, or compacted away. ``unreadable`` says by offset why a record cannot be read. Header names that
    are not UTF-8 are decoded with ``surrogateescape``. The last record may stand for all records of the log
    up to ``stop``, which could not be read: it has its offset alone.
    """

    topic: str
    records: Sequence[SourceRecord]
    start: int
    stop: int
    size_bytes: int
    unreadable: Mapping[int, Rejection] = {}


class SourceBounds(NamedTuple):
    """A source partition's log start, its end, its topic's id, and how far the group has applied it.

    ``committed`` is the next offset to apply, by what the group has committed; None where it has not.
    """

    start: int
    end: int
    topic_id: str
    committed: int | None = None


class Sources(Protocol):
    """The source topics of one partition, as far as this member owns them."""

    @property
    def topics(self) -> Sequence[str]:
        """Every source topic, the commands topic last."""
        ...

    @property
    def assigned(self) -> bool:
        """True while the full set of sources is assigned here, in the current generation."""
        ...

    async def bounds(self) -> Mapping[str, SourceBounds]:
        """Log bounds of each source topic's partition. Raises LogUnavailable."""
        ...

    def open(self, positions: Mapping[str, int], deliver: Callable[[SourceBatch], bool]) -> None:
        """Seek to the positions, then hand every further batch to ``deliver``.

        ``deliver`` answers whether there is room for more; where there is none, nothing is fetched for
        this partition until :meth:`resume`.
        """
        ...

    def seek(self, topic: str, position: int) -> None:
        """Read on from another position; batches fetched before may still arrive."""
        ...

    def resume(self) -> None:
        """There is room again."""
        ...

    def close(self) -> None:
        """Deliver no more."""
        ...


# -- destinations --------------------------------------------------------------------------------


class Destinations(Protocol):
    """Metadata of the topics that are delivered to; shared by the processors of a worker.

    Kept apart from the producers' metadata, which blocks for 40 s on a missing topic and may create one.
    """

    def partitions(self, topic: str) -> int:
        """Partition count as last seen; 0 when the topic cannot be written now (or was never looked up)."""
        ...

    def problem(self, topic: str) -> str | None:
        """Why a topic cannot be written (missing, not authorized, …); None when it can, or is unknown."""
        ...

    def age_ms(self, topic: str) -> float:
        """How long ago a topic was looked at; infinite for one that never was."""
        ...

    async def ensure(self, topics: Iterable[str], within_ms: float = inf) -> None:
        """Look up those never seen, or seen too long ago, longer than ``within_ms`` in any case.

        It is bounded in time; what is not answered by then stays as it was.
        """
        ...

    def invalidate(self, topic: str) -> None:
        """A write failed: look again before the next use."""
        ...


# -- time ----------------------------------------------------------------------------------------


class Clock(Protocol):
    """Wall-clock time. It may step in either direction; durations are taken from the event loop."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        ...


class Ports(msgspec.Struct, frozen=True):
    """The world of one processor."""

    new_producer: Callable[[int], TransactionalProducer]
    open_changelog: Callable[[int], Awaitable[Changelog]]
    stores: StateStores
    destinations: Destinations
    clock: Clock
    pace: Pace = msgspec.field(default_factory=Pace)
    internal_errors: InternalErrors = msgspec.field(default_factory=InternalErrors)
