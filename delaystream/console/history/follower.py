"""Events on their way into the database, from every partition of their topic."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Final

import msgspec
from msgspec.structs import replace

from delaystream.console.history.database import Database, DatabaseError, Position, Retention
from delaystream.console.history.rows import rows_of
from delaystream.console.partitions import kept_open
from delaystream.engine.ports import Changelog, ChangelogBatch, Clock

logger = logging.getLogger(__name__)

AT_ONCE: Final = 10_000
"""So many events are stored in one transaction, where so many are there."""
_BYTES_AT_ONCE: Final = 8 << 20
#: For so long events are gathered for a transaction, at most, where more of them are there.
_GATHER_S: Final = 0.5
_RETRY_S: Final = 1.0
#: How often it is looked at what is too old, where nothing was.
_FORGET_EVERY_S: Final = 30.0
#: How often a console asks whether it is the one that writes.
_ASK_EVERY_S: Final = 5.0


async def _much(log: Changelog, position: int, at_once: int) -> ChangelogBatch:
    """What comes next: of a log that is far ahead several fetches, for one transaction.

    Each transaction writes every page of every index that it touches, so a few large ones cost half as much.
    """
    batch = await log.read(position)
    records = list(batch.records)
    size = _bytes(records)
    until = monotonic() + _GATHER_S
    while batch.next_position < batch.stable and size < _BYTES_AT_ONCE and monotonic() < until:
        if len(records) + len(batch.records) > at_once:
            # One more like the last would begin a second transaction.
            break
        batch = await log.read(batch.next_position)
        records += batch.records
        size += _bytes(batch.records)
    return replace(batch, records=records)


def _bytes(records: Sequence[tuple[int, bytes, bytes | None]]) -> int:
    return sum(len(value or b"") for _, _, value in records)


class HistoryStatus(msgspec.Struct, frozen=True):
    """How far the history of one partition of the events' topic is."""

    partition: int
    position: int = 0
    end: int = 0
    #: wall clock, ms, at which nothing was missing; None: not since the console started
    as_of_ms: int | None = None
    #: events that were gone from the topic before they were read
    lost: int = 0
    problem: str | None = None


class HistoryFollower:
    """Stores what the events' topic holds, while no other console does.

    It knows from the start where the history stands: whoever watches goes on from there, also when a console
    has just come back and has not seen its topic yet. Making one raises DatabaseError.
    """

    def __init__(
        self,
        partitions: int,
        open_log: Callable[[int], Awaitable[Changelog]],
        database: Database,
        clock: Clock,
        retention: Retention,
        *,
        at_once: int = AT_ONCE,
    ) -> None:
        self._at_once = at_once
        self._open_log = open_log
        self.database = database
        self._clock = clock
        self._retention = retention
        #: one transaction at a time: SQLite has one writer
        self.writing = asyncio.Lock()
        #: whether this console is the one that writes
        self.writes = False
        stored = database.positions()
        self.statuses = [
            HistoryStatus(partition, next_offset, next_offset)
            for partition in range(partitions)
            for next_offset in [stored[partition].next_offset if partition in stored else 0]
        ]

    async def run(self) -> None:
        """Follow until cancelled; what goes wrong is told in the statuses, and tried again."""
        while True:
            try:
                if await asyncio.to_thread(self.database.may_write):
                    await self._write()
                else:
                    await self._look()
            except DatabaseError as problem:
                self._complain(str(problem))
                await asyncio.sleep(_RETRY_S)

    async def _write(self) -> None:
        """Store, and forget, until the database or the right to write is lost. Raises DatabaseError."""
        work = [self._follow(status.partition) for status in self.statuses]
        tasks = [asyncio.create_task(each) for each in (*work, self._forget(), self._keep_right())]
        self.writes = True
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self.writes = False
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_right(self) -> None:
        """Return once another console writes. Raises DatabaseError."""
        kept = True
        while kept:
            await asyncio.sleep(_ASK_EVERY_S)
            kept = await asyncio.to_thread(self.database.may_write)

    async def _look(self) -> None:
        """See how far the console is that writes."""
        stored = await asyncio.to_thread(self.database.positions)
        for status in self.statuses:
            if (position := stored.get(status.partition)) is not None:
                self._tell(
                    status.partition,
                    position=position.next_offset,
                    as_of_ms=position.as_of_ms,
                    lost=position.lost,
                    problem=None,
                )
        await asyncio.sleep(_RETRY_S)

    async def _forget(self) -> None:
        while True:
            async with self.writing:
                gone = await asyncio.to_thread(self.database.forget, self._retention, self._clock.now_ms())
            await asyncio.sleep(0 if gone else _FORGET_EVERY_S)

    async def _follow(self, partition: int) -> None:
        """Store one partition's events. Raises DatabaseError; Kafka is tried again."""

        def complain(problem: Exception) -> None:
            self._tell(partition, problem=str(problem))
            logger.warning("events, partition %d: %s", partition, problem)

        async def read(log: Changelog) -> None:
            position = await self._begin(partition, log)
            while True:
                position = await self._store(
                    partition, position, await _much(log, position.next_offset, self._at_once)
                )

        await kept_open(partition, self._open_log, read, complain)

    async def _begin(self, partition: int, log: Changelog) -> Position:
        """Where to read on; what the topic's retention took meanwhile is lost, and counted."""
        bounds = await log.bounds()
        stored = (await asyncio.to_thread(self.database.positions)).get(partition)
        if stored is None or stored.topic_id != log.topic_id:
            position = Position(log.topic_id, bounds.start)
            async with self.writing:
                await asyncio.to_thread(self.database.begin, partition, stored, position)
        elif stored.next_offset > bounds.end:
            # The topic has lost what was stored: a replica that had not copied it became the leader.
            logger.error(
                "events, partition %d: the topic ends at %d, before what is stored of it",
                partition,
                bounds.end,
            )
            position = replace(stored, next_offset=bounds.end)
            async with self.writing:
                await asyncio.to_thread(self.database.cut, partition, stored, position)
        elif stored.next_offset < bounds.start:
            missed = bounds.start - stored.next_offset
            logger.error(
                "events, partition %d: %d offsets were gone before they were read", partition, missed
            )
            position = replace(stored, next_offset=bounds.start, lost=stored.lost + missed)
            await self._stored(partition, (), stored, position)
        else:
            position = stored
        self._tell(partition, position=position.next_offset, end=bounds.stable, lost=position.lost)
        return position

    async def _store(self, partition: int, position: Position, batch: ChangelogBatch) -> Position:
        records = batch.records
        caught_up = batch.next_position >= batch.stable
        for first in range(0, max(1, len(records)), self._at_once):
            some = records[first : first + self._at_once]
            last = first + len(some) == len(records)
            next_offset = batch.next_position if last else some[-1][0] + 1
            as_of_ms = self._clock.now_ms() if last and caught_up else position.as_of_ms
            after = replace(position, next_offset=next_offset, as_of_ms=as_of_ms)
            if some or next_offset > position.next_offset:
                await self._stored(partition, some, position, after)
                position = after
        end = max(batch.stable, position.next_offset)
        self._tell(partition, position=position.next_offset, end=end, problem=None)
        if caught_up:
            self._tell(partition, as_of_ms=self._clock.now_ms())
        return position

    async def _stored(
        self,
        partition: int,
        records: Sequence[tuple[int, bytes, bytes | None]],
        before: Position,
        after: Position,
    ) -> None:
        rows = await asyncio.to_thread(rows_of, partition, records)
        for unread in rows.unread:
            logger.warning(
                "events, partition %d, offset %d is no event of this version: %s",
                partition,
                unread.offset,
                unread.problem,
            )
        async with self.writing:
            await asyncio.to_thread(self.database.store, partition, rows, before, after)

    def _tell(self, partition: int, **changed: object) -> None:
        self.statuses[partition] = replace(self.statuses[partition], **changed)

    def _complain(self, problem: str) -> None:
        logger.warning("%s", problem)
        for status in self.statuses:
            self._tell(status.partition, problem=problem)
