"""The table behind the view `schedules`: what the copies hold, brought into the history's database.

The console that writes the history writes this, too. It goes by rows that copies have touched; where it does
not know which these were (at its start, when it becomes the one that writes, after a copy was made anew, when
there are very many), it compares all of them, and writes what differs.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, Final

from sqlalchemy import delete, select

from delaystream.codec import keys
from delaystream.codec.envelope import UNREADABLE, decode_schedule
from delaystream.codec.event import asked_at, next_at_ms
from delaystream.console.history.database import Database, DatabaseError
from delaystream.console.history.follower import HistoryFollower
from delaystream.console.history.rows import stored_text
from delaystream.console.history.schema import schedule_partitions, schedule_rows
from delaystream.console.replica.follower import Follower
from delaystream.engine.ports import StateStore

logger = logging.getLogger(__name__)

_EVERY_S: Final = 1.0
_RETRY_S: Final = 5.0
#: Rows that are compared and written at once.
_AT_ONCE: Final = 500
#: How often the time of a partition is written of which nothing has changed.
_SAY_EVERY_MS: Final = 5_000

_FIRST: Final = b"s"
_END: Final = b"t"

Row = tuple[bytes, bytes | None]
"""Key and value as the changelog has them; None: it is not there."""


class Standing:
    """Keeps the table as the copies are."""

    def __init__(self, following: Sequence[Follower], history: HistoryFollower) -> None:
        self._following = following
        self._history = history
        self._table = _Table(history.database)
        #: partitions of which every row is in the table; the time that was written of each, ms
        self._told_ms: dict[int, int] = {}
        self._fewer = True

    async def run(self) -> None:
        """Bring it up to date each second, until cancelled. What the database refuses is tried again."""
        while True:
            await asyncio.sleep(_EVERY_S)
            if not self._history.writes:
                # Whoever writes now may be of another version, or behind.
                self._told_ms.clear()
                continue
            try:
                if self._fewer:
                    await self._write(self._table.forget_beyond, len(self._following))
                    self._fewer = False
                for follower in self._following:
                    await self._bring(follower)
            except DatabaseError as problem:
                # What was taken from a copy may not be written.
                self._told_ms.clear()
                logger.warning("the table of schedules waits: %s", problem)
                await asyncio.sleep(_RETRY_S)

    async def _bring(self, follower: Follower) -> None:
        """What has changed of one partition. Raises DatabaseError."""
        status, store = follower.status, follower.store
        partition, as_of_ms = status.partition, status.as_of_ms
        if not status.indexed or as_of_ms is None or store is None:
            return
        touched = follower.touched()
        told_ms = self._told_ms.get(partition)
        if touched is None or told_ms is None:
            self._told_ms.pop(partition, None)
            if not await self._whole(follower, store):
                return
        elif touched:
            for some in _parts(sorted(touched)):
                if follower.store is not store:
                    self._told_ms.pop(partition, None)
                    return
                rows = zip(some, store.get_many(some), strict=True)
                await self._write(self._table.put, partition, list(rows))
        elif as_of_ms - told_ms < _SAY_EVERY_MS:
            return
        await self._write(self._table.say, partition, as_of_ms)
        self._told_ms[partition] = as_of_ms

    async def _whole(self, follower: Follower, store: StateStore) -> bool:
        """Compare every row; False where the copy has gone meanwhile. Raises DatabaseError."""
        partition, start = follower.status.partition, _FIRST
        while follower.store is store and (rows := store.scan(start, _END, _AT_ONCE)):
            start = rows[-1][0] + b"\0"
            known = await asyncio.to_thread(self._table.digests, partition, [key for key, _ in rows])
            differing: list[Row] = [(key, row) for key, row in rows if known.get(place(key)) != digest(row)]
            if differing:
                await self._write(self._table.put, partition, differing)
        after: bytes | None = b""
        while follower.store is store and after is not None:
            found, after = await asyncio.to_thread(self._table.keys, partition, after)
            if follower.store is store:
                gone: list[Row] = [
                    (key, None) for key, row in zip(found, store.get_many(found), strict=True) if row is None
                ]
                if gone:
                    await self._write(self._table.put, partition, gone)
        return follower.store is store

    async def _write(self, work: Any, *what: Any) -> None:
        async with self._history.writing:
            await asyncio.to_thread(work, *what)


class _Table:
    """What is asked of the database, and told to it; blocks. Every method raises DatabaseError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def digests(self, partition: int, row_keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Of the rows that are there, by place."""
        asked = select(schedule_rows.c.place, schedule_rows.c.row_digest).where(
            schedule_rows.c.partition == partition,
            schedule_rows.c.place.in_([place(key) for key in row_keys]),
        )
        with self._database.reading() as connection:
            return {bytes(row.place): bytes(row.row_digest) for row in connection.execute(asked)}

    def keys(self, partition: int, after: bytes) -> tuple[list[bytes], bytes | None]:
        """Some of the keys that are there, by place, and the place to go on behind; None: that is all."""
        asked = (
            select(schedule_rows.c.place, schedule_rows.c.row_key)
            .where(schedule_rows.c.partition == partition, schedule_rows.c.place > after)
            .order_by(schedule_rows.c.place)
            .limit(_AT_ONCE)
        )
        with self._database.reading() as connection:
            found = connection.execute(asked).all()
        return [bytes(row.row_key) for row in found], bytes(found[-1].place) if found else None

    def put(self, partition: int, rows: Sequence[Row]) -> None:
        """Have rows stand as they are; one that this version cannot read is not there."""
        there: list[tuple[Any, ...]] = []
        gone: list[bytes] = []
        for key, row in rows:
            columns = None if row is None else columns_of(partition, key, row)
            if columns is None:
                gone.append(place(key))
            else:
                there.append(columns)
        with self._database.writing() as connection:
            if gone:
                chosen = delete(schedule_rows).where(
                    schedule_rows.c.partition == partition, schedule_rows.c.place.in_(gone)
                )
                connection.execute(chosen)
            if there:
                self._database.replace(connection, schedule_rows, there)

    def say(self, partition: int, as_of_ms: int) -> None:
        """Every row of a partition is there: nothing that was committed before is missing."""
        adding = self._database.inserting(schedule_partitions)
        taken = {"as_of_ms": adding.excluded.as_of_ms}
        adding = adding.on_conflict_do_update(index_elements=["partition"], set_=taken)
        with self._database.writing() as connection:
            connection.execute(adding, {"partition": partition, "as_of_ms": as_of_ms})

    def forget_beyond(self, partitions: int) -> None:
        """Delete what is of partitions that there are not any more."""
        with self._database.writing() as connection:
            for table in (schedule_rows, schedule_partitions):
                connection.execute(delete(table).where(table.c.partition >= partitions))


def columns_of(partition: int, row_key: bytes, row: bytes) -> tuple[Any, ...] | None:
    """A row of the changelog as one of the table, in the order of its columns; None: it cannot be read."""
    try:
        schedule = decode_schedule(row)
    except UNREADABLE:
        return None
    request_topic, id = keys.split_schedule_key(row_key)
    recurrence = schedule.recurrence
    return (
        partition,
        place(row_key),
        row_key,
        digest(row),
        request_topic,
        stored_text(id),
        schedule.status.value,
        schedule.destination,
        stored_text(schedule.name),
        json.dumps(list(schedule.tags)),
        None if recurrence is None else stored_text(recurrence.cron),
        None if recurrence is None or not recurrence.every_ms else recurrence.every_ms,
        None if recurrence is None or recurrence.cron is None else recurrence.timezone,
        next_at_ms(schedule),
        asked_at(schedule.last_fired_ms),
        schedule.fire_count,
        schedule.missed_count,
        asked_at(schedule.created_ms),
        stored_text(schedule.created_by),
        asked_at(schedule.updated_ms),
        stored_text(schedule.updated_by),
        schedule.version or None,
        stored_text(schedule.note),
    )


def place(row_key: bytes) -> bytes:
    """Where a row stands in the table."""
    return blake2b(row_key, digest_size=16).digest()


def digest(row: bytes) -> bytes:
    """By which a row is known to be the same."""
    return blake2b(row, digest_size=8).digest()


def _parts(rows: Sequence[bytes]) -> Iterable[list[bytes]]:
    return (list(rows[first : first + _AT_ONCE]) for first in range(0, len(rows), _AT_ONCE))
