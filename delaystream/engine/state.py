"""The state of one partition, as the step in hand sees it: the store, and on top of it the step's changes.

Everything here that is not in the store (interned numbers, heads, counters, watermarks) is derived from it.
Deciding changes it in place, ahead of the commit; when the transaction fails the whole object is thrown away
and a new one is loaded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from struct import Struct

from delaystream.codec import keys
from delaystream.codec.envelope import (
    FORMAT,
    Meta,
    SourceName,
    SourcePosition,
    decode_meta,
    decode_position,
    decode_source,
    encode,
)
from delaystream.core.wheel import WheelHeads
from delaystream.engine.ports import Change, Marker, Misconfigured, StateStore
from delaystream.engine.step import Step

HOUR_MS = 3_600_000
_RECOUNTED_AT_ONCE = 20_000
_bucket = Struct(">cII")
_count = Struct(">Q")


class PartitionState:
    """The schedules, wheels and source positions of one partition."""

    def __init__(self, store: StateStore, partitions: int, app_id: str) -> None:
        self.store = store
        self.heads = WheelHeads()
        #: destination topics by number; number 0 is the wheel of housekeeping
        self.destinations: list[str] = [""]
        self._destination_numbers: dict[str, int] = {}
        #: request partitions by number, as ``topic/partition/`` in bytes, and as (topic, partition)
        self.source_texts: list[bytes] = []
        self.sources: list[tuple[str, int]] = []
        self._source_numbers: dict[tuple[str, int], int] = {}
        self._texts: dict[tuple[str, int], bytes] = {}
        #: next offset to apply, by source topic
        self.positions: dict[str, SourcePosition] = {}
        #: pending entries by (destination number, hour since the epoch)
        self.pending: dict[tuple[int, int], int] = {}
        self.pending_total = 0
        self._changed_buckets: set[tuple[int, int]] = set()
        #: no live key of a wheel lies below its watermark
        self._watermarks: dict[int, bytes] = {}
        #: per wheel, the least key that the step in hand has added
        self._added: dict[int, bytes] = {}
        #: wheels that the step in hand has taken entries out of, from their beginning on
        self._drained: set[int] = set()
        self._app_id = app_id
        self._load(partitions)

    # -- loading ------------------------------------------------------------------------------

    def _load(self, partitions: int) -> None:
        store = self.store
        meta = store.get(keys.META)
        if meta is not None:
            made_for = decode_meta(meta)
            if made_for.partitions != partitions:
                raise Misconfigured(
                    f"the state was made for {made_for.partitions} partitions and the topics have "
                    f"{partitions}: ids would be looked for in partitions that do not own them. Restore the "
                    "partition count, or move to new topics"
                )
            if made_for.app_id not in ("", self._app_id):
                raise Misconfigured(
                    f"the changelog belongs to the application {made_for.app_id}, and this is "
                    f"{self._app_id}: they would not fence each other. Give each its own topics"
                )
        self.meta_stored = meta is not None
        for key, value in _everything(store, b"d", b"e"):
            number = keys.split_number(key)
            assert number == len(self.destinations), "destination numbers are dense"
            self._intern_destination(value.decode())
        for key, value in _everything(store, b"n", b"o"):
            number = keys.split_number(key)
            assert number == len(self.sources), "source numbers are dense"
            source = decode_source(value)
            self._intern_source(source.topic, source.partition)
        for key, value in _everything(store, b"o", b"p"):
            self.positions[key[1:].decode()] = decode_position(value)
        for key, value in _everything(store, b"l", b"m"):
            _, wheel, hour = _bucket.unpack(key)
            self.pending[wheel, hour] = _count.unpack(value)[0]
        self.pending_total = sum(self.pending.values())
        for wheel in range(len(self.destinations)):
            self.heads.set(wheel, self._first_due(wheel, 0))

    def _first_due(self, wheel: int, after_ms: int) -> int | None:
        first = self.store.scan(keys.wheel_bound(wheel, after_ms), keys.wheel_bound(wheel + 1), 1)
        return keys.split_wheel_key(first[0][0])[1] if first else None

    # -- reading ------------------------------------------------------------------------------

    def get(self, step: Step, key: bytes) -> bytes | None:
        """A value, as the step has left it so far."""
        if key in step.changes:
            return step.changes[key]
        return self.store.get(key)

    def scan_due(self, wheel: int, start: bytes | None, now_ms: int, limit: int) -> list[tuple[bytes, bytes]]:
        """Stored entries of a wheel that are due, in due order; the step's own changes are not in it."""
        if start is None:
            start = self._watermarks.get(wheel) or keys.wheel_bound(wheel)
        return self.store.scan(start, keys.wheel_bound(wheel, now_ms + 1), limit)

    # -- changing -----------------------------------------------------------------------------

    def destination(self, step: Step, topic: str) -> int:
        """The number of a destination, interned at its first use."""
        number = self._destination_numbers.get(topic)
        if number is None:
            number = self._intern_destination(topic)
            step.changes[keys.destination_key(number)] = topic.encode()
        return number

    def numbers(self, topics: Iterable[str]) -> frozenset[int]:
        """The numbers of those topics that have one."""
        numbers = self._destination_numbers
        return frozenset(numbers[topic] for topic in topics if topic in numbers)

    def source(self, step: Step, topic: str, partition: int) -> int:
        """The number of a request partition, interned at its first use."""
        number = self._source_numbers.get((topic, partition))
        if number is None:
            number = self._intern_source(topic, partition)
            step.changes[keys.source_key(number)] = encode(SourceName(topic, partition))
        return number

    def source_text(self, topic: str, partition: int) -> bytes:
        """``topic/partition/`` in bytes, also of a request partition without a number."""
        text = self._texts.get((topic, partition))
        if text is None:
            text = self._texts[topic, partition] = f"{topic}/{partition}/".encode()
        return text

    def _intern_destination(self, topic: str) -> int:
        number = self._destination_numbers[topic] = len(self.destinations)
        self.destinations.append(topic)
        return number

    def _intern_source(self, topic: str, partition: int) -> int:
        number = self._source_numbers[topic, partition] = len(self.sources)
        self.sources.append((topic, partition))
        self.source_texts.append(self.source_text(topic, partition))
        return number

    def add_entry(self, step: Step, key: bytes, value: bytes, wheel: int, due_ms: int) -> None:
        """Put an entry that is not in a wheel yet."""
        step.changes[key] = value
        least = self._added.get(wheel)
        if least is None or key < least:
            self._added[wheel] = key
            self.heads.add(wheel, due_ms)
            watermark = self._watermarks.get(wheel)
            if watermark is not None and key < watermark:
                self._watermarks[wheel] = key
        self._count(wheel, due_ms, 1)

    def remove_entry(self, step: Step, key: bytes) -> None:
        """Take out an entry that is in a wheel."""
        wheel, due_ms, _, _, _ = keys.split_wheel_key(key)
        step.changes[key] = None
        self._count(wheel, due_ms, -1)

    def removed(self, wheel: int, hour: int, count: int) -> None:
        """So many entries of one wheel, due within one hour since the epoch, were taken out."""
        if count:
            self._count(wheel, hour * HOUR_MS, -count)

    def _count(self, wheel: int, due_ms: int, difference: int) -> None:
        if wheel:
            bucket = (wheel, due_ms // HOUR_MS)
            self.pending[bucket] = self.pending.get(bucket, 0) + difference
            self.pending_total += difference
            self._changed_buckets.add(bucket)

    def drained(self, step: Step, wheel: int, last_key: bytes, *, exhausted: bool) -> None:
        """Every entry of a wheel up to ``last_key`` is taken out; ``exhausted``: and nothing else is due."""
        self._drained.add(wheel)
        added = self._added.get(wheel)
        behind = last_key + b"\0"
        # What this step has added is not in the store yet, and so was not drained with the rest.
        self._watermarks[wheel] = behind if added is None else min(added, behind)
        last_due_ms = keys.split_wheel_key(last_key)[1]
        self.looked_at(wheel, self._first_due(wheel, step.now_ms + 1) if exhausted else last_due_ms)

    def looked_at(self, wheel: int, due_ms: int | None) -> None:
        """The stored part of a wheel begins at ``due_ms``; what the step added counts too."""
        added = self._added.get(wheel)
        if added is not None:
            added_due_ms = keys.split_wheel_key(added)[1]
            due_ms = added_due_ms if due_ms is None else min(added_due_ms, due_ms)
        self.heads.set(wheel, due_ms)

    def first_due_after(self, step: Step, wheel: int) -> int | None:
        """Due time of a wheel's first stored entry that is not due yet."""
        return self._first_due(wheel, step.now_ms + 1)

    # -- sealing and applying -----------------------------------------------------------------

    def seal(self, step: Step, topic_ids: dict[str, str], partitions: int) -> None:
        """Add what every committed step holds: the source positions, last of all, and once the metadata."""
        if not self.meta_stored and not step.empty:
            step.changes[keys.META] = encode(Meta(partitions, FORMAT, self._app_id))
            self.meta_stored = True
        for topic, next_offset in step.positions.items():
            position = SourcePosition(next_offset, topic_ids[topic])
            self.positions[topic] = position
            step.changes[keys.offset_key(topic)] = encode(position)

    def apply(self, step: Step, marker: Marker) -> None:
        """Write a committed step to the local store, in one batch."""
        local: list[Change] = []
        for bucket in self._changed_buckets:
            count = self.pending[bucket]
            local.append((_bucket.pack(b"l", *bucket), _count.pack(count) if count else None))
            if not count:
                del self.pending[bucket]
        self.store.write(step.changes.items(), local, marker)
        self._changed_buckets.clear()
        self._added.clear()
        for wheel in self._drained:
            self.store.drop_range(keys.wheel_bound(wheel), self._watermarks[wheel])
        self._drained.clear()


async def recount(store: StateStore) -> list[Change]:
    """The local-only pending counters, counted anew from every wheel key: after a rebuild.

    Ten million keys take some seconds; others have their turn meanwhile.
    """
    counts: dict[tuple[int, int], int] = {}
    wheel_keys = store.keys(keys.wheel_bound(keys.HOUSEKEEPING + 1), keys.WHEEL_END)
    for number, key in enumerate(wheel_keys):
        wheel, due_ms, _, _, _ = keys.split_wheel_key(key)
        bucket = (wheel, due_ms // HOUR_MS)
        counts[bucket] = counts.get(bucket, 0) + 1
        if number % _RECOUNTED_AT_ONCE == 0:
            await asyncio.sleep(0)
    return [(_bucket.pack(b"l", *bucket), _count.pack(count)) for bucket, count in counts.items()]


def recounted(store: StateStore, changes: Iterable[Change]) -> Iterator[Change]:
    """The pending counters that replaying ``changes`` on the store alters, with their new values.

    Must be asked before the changes are written. A change counts by what the store holds, not by what the
    log says: compaction may have dropped the other half of a pair.
    """
    differences: dict[tuple[int, int], int] = {}
    present: dict[bytes, bool] = {}
    for key, value in changes:
        if key[:1] != b"w":
            continue
        wheel, due_ms, _, _, _ = keys.split_wheel_key(key)
        if wheel == keys.HOUSEKEEPING:
            continue
        was = present[key] if key in present else store.get(key) is not None
        present[key] = value is not None
        if was != (value is not None):
            bucket = (wheel, due_ms // HOUR_MS)
            differences[bucket] = differences.get(bucket, 0) + (-1 if was else 1)
    for bucket, difference in differences.items():
        key = _bucket.pack(b"l", *bucket)
        stored = store.get(key)
        count = difference + (_count.unpack(stored)[0] if stored is not None else 0)
        yield key, _count.pack(count) if count else None


def _everything(
    store: StateStore, start: bytes, stop: bytes, chunk: int = 1000
) -> Iterator[tuple[bytes, bytes]]:
    while entries := store.scan(start, stop, chunk):
        yield from entries
        start = entries[-1][0] + b"\0"
