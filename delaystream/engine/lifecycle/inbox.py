"""The batches that wait for the processor: contiguous by fetch position, bounded, nothing skipped."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from enum import Enum

from delaystream.engine.ports import SourceBatch, SourceRecord
from delaystream.engine.settings import EngineSettings


class Arrival(Enum):
    """The outcome of putting a batch into the inbox."""

    TAKEN = "taken"
    #: everything in it was seen before
    OLD = "old"
    #: something before it is missing
    GAP = "gap"


class Inbox:
    """Fetched batches of all source topics of one partition, in the order of arrival."""

    def __init__(self, settings: EngineSettings) -> None:
        self._max_records = settings.inbox_max_records
        self._max_bytes = settings.inbox_max_bytes
        self._batches: deque[SourceBatch] = deque()
        self._records = 0
        self._size_bytes = 0
        #: position behind the last batch taken in, by topic
        self.expected: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._batches)

    @property
    def full(self) -> bool:
        """True when no further batch should be fetched."""
        return self._records >= self._max_records or self._size_bytes >= self._max_bytes

    def open(self, positions: dict[str, int]) -> None:
        """Forget everything and begin anew at these positions."""
        self._batches.clear()
        self._records = self._size_bytes = 0
        self.expected = dict(positions)

    def put(self, batch: SourceBatch) -> Arrival:
        """Take a batch in if it follows on; what of it was seen before is left out."""
        expected = self.expected.get(batch.topic)
        if expected is None or batch.stop <= expected:
            return Arrival.OLD
        if batch.start > expected:
            return Arrival.GAP
        if batch.start < expected:
            batch = _part(batch, [r for r in batch.records if r.offset >= expected], expected, batch.stop)
        self.expected[batch.topic] = batch.stop
        self._batches.append(batch)
        self._records += len(batch.records)
        self._size_bytes += batch.size_bytes
        return Arrival.TAKEN

    def give_back(self, batches: Sequence[SourceBatch]) -> None:
        """There was no room for these after all; they come first again."""
        for batch in reversed(batches):
            self._batches.appendleft(batch)
            self._records += len(batch.records)
            self._size_bytes += batch.size_bytes

    def take(self, max_records: int, max_bytes: int) -> list[SourceBatch]:
        """The next batches, in order, up to about so many records and bytes; at least one record."""
        taken: list[SourceBatch] = []
        records = size_bytes = 0
        batches = self._batches
        while batches and records < max_records and size_bytes < max_bytes:
            batch = batches.popleft()
            room = max_records - records
            if len(batch.records) > room:
                batch, tail = _split(batch, room)
                batches.appendleft(tail)
            taken.append(batch)
            records += len(batch.records)
            size_bytes += batch.size_bytes
            self._records -= len(batch.records)
            self._size_bytes -= batch.size_bytes
        if not batches:  # the sizes of a split batch's parts are estimates
            self._size_bytes = 0
        return taken


def pieces(batch: SourceBatch, most: int) -> Iterator[SourceBatch]:
    """A batch in pieces of up to ``most`` records, in order; one that is no larger as it is."""
    while len(batch.records) > most:
        head, batch = _split(batch, most)
        yield head
    yield batch


def rest(batch: SourceBatch, taken: int) -> SourceBatch:
    """A batch without its first ``taken`` records; at least one is left."""
    records = batch.records[taken:]
    return _part(batch, records, records[0].offset, batch.stop)


def _split(batch: SourceBatch, count: int) -> tuple[SourceBatch, SourceBatch]:
    """The first ``count`` records of a batch, and the others; there is at least one of each."""
    head = batch.records[:count]
    middle = head[-1].offset + 1
    return (
        _part(batch, head, batch.start, middle),
        _part(batch, batch.records[count:], middle, batch.stop),
    )


def _part(batch: SourceBatch, records: Sequence[SourceRecord], start: int, stop: int) -> SourceBatch:
    share = len(records) / max(1, len(batch.records))
    return SourceBatch(batch.topic, records, start, stop, int(batch.size_bytes * share), batch.unreadable)
