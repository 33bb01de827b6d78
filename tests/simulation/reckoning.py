"""What stands in the log at the end, as the ledger wants it; and the state, held against the changelog."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from delaystream.codec import keys
from delaystream.codec.envelope import (
    LIVE,
    Forget,
    decode_entry,
    decode_position,
    decode_schedule,
    decode_source,
    decode_status,
)
from delaystream.engine.ports import Row, TopicPartition
from delaystream.engine.state.pointers import pointers
from delaystream.testing import Disk, MemoryLog
from delaystream.testing.partition import (
    Epoch,
    LogRecord,
    OpenTransaction,
    RecordRefusedError,
    TopicRefusedError,
    UnknownTopicError,
)
from tests.ledger import Asked, Delivered

#: by how much at most a worker's clock is behind, and how long it may sleep
_FORGOTTEN_WITHIN_MS = 7_000


Span = tuple[float, float]
"""From when until when, by the broker's clock, ms."""


class WitnessedLog(MemoryLog):
    """The log, and by it the ledger's knowledge of when what was decided and accepted, and by whom."""

    def __init__(self, *args: Any, changelog: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._changelog = changelog
        #: by source partition: up to which offset it was applied, and when that was committed
        self.accepted: dict[TopicPartition, list[tuple[int, int]]] = {}
        #: the epoch of each transaction; and when, at the earliest, it can have been decided
        self.writers: dict[OpenTransaction, tuple[Epoch, int]] = {}
        #: when some partition of a topic could not be written
        self.troubles: dict[str, list[int]] = {}
        #: told of each transaction that is about to be committed
        self.committing: Callable[[OpenTransaction], None] = lambda _: None
        self._before: dict[str, int] = {}

    def init_producer(self, transactional_id: str, timeout_ms: int = 10_000) -> Epoch:
        epoch = super().init_producer(transactional_id, timeout_ms)
        self._before[transactional_id] = self._now_ms()
        return epoch

    def _transaction(self, epoch: Epoch) -> OpenTransaction:
        transaction = super()._transaction(epoch)
        if transaction not in self.writers:
            # A partition's steps follow each other: one is decided when the one before it is committed.
            self.writers[transaction] = (epoch, self._before[epoch.transactional_id])
        return transaction

    def _end(self, producer: Any, outcome: Any) -> None:
        transaction = producer.current
        if outcome == "committed":
            self.committing(transaction)
            now_ms = self._now_ms()
            self._before[self.writers[transaction][0].transactional_id] = now_ms
            for partition, record in self.written(transaction, self._changelog):
                if (record.key or b"")[:1] == b"o" and record.value is not None:
                    at = TopicPartition((record.key or b"")[1:].decode(), partition)
                    applied = (decode_position(record.value).next_offset, now_ms)
                    self.accepted.setdefault(at, []).append(applied)
        super()._end(producer, outcome)

    def write(self, epoch: Epoch, at: TopicPartition, rows: Iterable[Row]) -> int:
        try:
            return super().write(epoch, at, rows)
        except (UnknownTopicError, TopicRefusedError, RecordRefusedError):
            self.trouble(at.topic)
            raise

    def trouble(self, topic: str) -> None:
        """A topic cannot be written now."""
        self.troubles.setdefault(topic, []).append(self._now_ms())

    def troubled(self, topic: str, from_ms: int, to_ms: int) -> bool:
        """Whether it could not be written at some moment of a span."""
        return any(from_ms <= time_ms <= to_ms for time_ms in self.troubles.get(topic, ()))

    def written(self, transaction: OpenTransaction, topic: str) -> list[tuple[int, LogRecord]]:
        """What a transaction that is open has written to a topic, each with its partition."""
        return [
            (log.number, record)
            for log in transaction.unmarked
            if log.topic.name == topic
            for record in log.records[log.index(log.open[transaction]) :]
            if record.transaction is transaction
        ]


def delivered(log: WitnessedLog, topic: str) -> list[Delivered]:
    """Every record of a topic that a read_committed reader gets."""
    return [
        Delivered(
            topic,
            partition,
            r.offset,
            r.key,
            r.value,
            r.headers,
            r.timestamp,
            r.appended_ms,
            log.writers[r.transaction][1],
        )
        for partition, r in log.all(topic)
    ]


def overdrawn(log: WitnessedLog, topic: str, tenant: str | None, rate: float, span: Span) -> Iterator[str]:
    """Where a partition delivered faster than its share of a rate, with a burst of a second's worth.

    Looked at is what was decided and appended during the span.
    Of a bucket's tokens only what one life took is known: the next one may begin with a bucket of its own.
    """
    burst = max(1.0, rate)
    lives: dict[Epoch, list[tuple[int, int]]] = {}
    for _, record in log.all(topic):
        source = next(value for name, value in record.headers if name == "delaystream-source")
        if tenant is None or (source or b"").startswith(tenant.encode() + b"/"):
            writer, decided_after_ms = log.writers[record.transaction]
            if decided_after_ms <= span[0] or record.appended_ms >= span[1]:
                continue
            lives.setdefault(writer, []).append((record.appended_ms, decided_after_ms))
    for writer, records in lives.items():
        most = float("-inf")
        for number, (appended_ms, decided_after_ms) in enumerate(sorted(records)):
            # So many came in between the decision on an earlier record and the append of this one.
            most = max(most, rate * decided_after_ms / 1000 - number)
            if number + 1 + most - rate * appended_ms / 1000 > burst + 0.001:
                yield f"{writer} delivered to {topic} faster than {rate} a second with {burst} at once"
                break


def counted(state: Mapping[bytes, bytes]) -> Counter[bytes]:
    """What each counter has to be, by counting what is pending in a partition's state one by one.

    Not by what the engine counts with: that is held against this.
    """
    found: Counter[bytes] = Counter()
    for key, value in state.items():
        if key[:1] == b"w" and (wheel := keys.wheel_of(key)) != keys.HOUSEKEEPING:
            found[struct.pack(">cII", b"l", wheel, keys.due_of(key) // 3_600_000)] += 1
            found[tenant_counter(decode_source(state[keys.source_key(keys.source_of(key))]).topic)] += 1
        elif key[:1] == b"s":
            tenant, schedule = keys.split_schedule_key(key)[0], decode_schedule(value)
            found[tenant_counter(tenant)] += schedule.paused_fires
            found[b"f" + tenant.encode()] += schedule.status == "forestalled"
    return found


def tenant_counter(tenant: str) -> bytes:
    """The key of the counter of all that a tenant has pending."""
    return b"q" + tenant.encode()


def pending(state: Mapping[bytes, bytes], tenant: str) -> int:
    """How much a tenant has pending in a partition's state, what is paused included."""
    return counted(state)[tenant_counter(tenant)]


def forestalled(rows: Iterable[tuple[bytes, bytes | None]], tenant: str) -> int:
    """How many of a tenant's ids are at any time of some rows remembered as cancelled, and never known."""
    return len(
        {
            key
            for key, value in rows
            if value is not None
            and key.startswith(keys.schedule_key(tenant, ""))
            and decode_schedule(value).status == "forestalled"
        }
    )


def at_work(rows: Iterable[tuple[bytes, bytes | None]], tenant: str) -> int:
    """How many of a tenant's commands for many, or about one request, are at any time of them under way."""
    return len({key[1:] for key, _ in rows if key[:1] in (b"b", b"g") and keys.place_of(key) == tenant})


def paused(state: Mapping[bytes, bytes]) -> bool:
    """Whether a hold stands in a partition's state, or any schedule is paused."""
    return any(
        key[:1] == b"h" or (key[:1] == b"s" and decode_schedule(value).status == "paused")
        for key, value in state.items()
    )


def accepted(commits: Mapping[TopicPartition, Sequence[tuple[int, int]]], request: Asked) -> int | None:
    """When the transaction that applied a request was committed."""
    topic, partition = request.partition
    found = commits.get(TopicPartition(topic, partition), ())
    number = bisect_right(found, request.offset, key=lambda commit: commit[0])
    return found[number][1] if number < len(found) else None


def whole_state(log: MemoryLog, at: TopicPartition) -> dict[bytes, bytes]:
    """What the committed records of a changelog partition add up to, and the pointers that follow from it."""
    rows = changelog_state(log, at)
    return rows | {
        key: entry for row in rows if row[:1] in b"bs" for key, entry in pointers(row, rows[row]).items()
    }


def changelog_state(log: MemoryLog, at: TopicPartition) -> dict[bytes, bytes]:
    """What the committed records of a changelog partition add up to."""
    state: dict[bytes, bytes] = {}
    for record in log.read(at, log.bounds(at).start)[0]:
        assert record.key is not None
        if record.value is None:
            state.pop(record.key, None)
        else:
            state[record.key] = record.value
    return state


def differences(state: Mapping[bytes, bytes], disk: Disk) -> Iterator[str]:
    """Where a local store, but for its counters, is not the `whole_state` of the changelog."""
    found = {key: value for key, value in disk.values.items() if key[:1] not in (b"f", b"l", b"q")}
    for key in sorted(state.keys() | found.keys()):
        if state.get(key) != found.get(key):
            yield f"{key!r}: the changelog says {state.get(key)!r}, the store {found.get(key)!r}"


def miscounts(disk: Disk) -> Iterator[str]:
    """Where the counters of pending entries are not what counting the entries gives."""
    there = counted(disk.values)
    kinds = (b"f", b"l", b"q")
    stored = {key: int.from_bytes(value) for key, value in disk.values.items() if key[:1] in kinds}
    for key in sorted(there.keys() | stored.keys()):
        if stored.get(key, 0) != there[key]:
            yield f"{key!r} counts {stored.get(key, 0)}, and there are {there[key]}"


def leftovers(state: Mapping[bytes, bytes], now_ms: int) -> Iterator[str]:
    """What should not be in a partition's state once everything in it is over."""
    forgetting: dict[bytes, int] = {}
    for key, value in state.items():
        kind = key[:1]
        if kind == b"w" and isinstance(decode_entry(value), Forget):
            forgetting[key] = keys.due_of(key)
        elif kind in (b"b", b"g", b"h", b"p", b"u", b"w"):
            yield f"{key!r} is left, and nothing is ahead"
    for key, value in state.items():
        if key[:1] == b"s":
            schedule = decode_schedule(value)
            due_ms = forgetting.pop(schedule.forget_key or b"", None)
            if schedule.status in LIVE or due_ms is None:
                yield f"{key!r} is {schedule.status}, to be forgotten at {due_ms}"
            elif due_ms < now_ms - _FORGOTTEN_WITHIN_MS:
                yield f"{key!r} was to be forgotten at {due_ms}"
    for key in forgetting:
        yield f"{key!r} forgets what is not there"


def misstated(state: Mapping[bytes, bytes], owner: str) -> Iterator[str]:
    """What is not true of the row that tells how a partition stands, when all is quiet."""
    row = state.get(keys.STATUS)
    if row is None:
        yield "no row tells how it stands"
        return
    status = decode_status(row)
    if status.owner != owner:
        yield f"its row says that {status.owner} owns it, and {owner} does"
    if status.parked or status.parked_count:
        yield f"its row says that {status.parked} are parked, and everything can be written"


def triggers(disk: Disk, tenant: str) -> int:
    """How many triggered fires of a tenant wait."""
    return sum(
        len(decode_schedule(value).triggers)
        for key, value in disk.values.items()
        if key.startswith(keys.schedule_key(tenant, ""))
    )
