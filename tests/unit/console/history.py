"""A topic of events in memory, and a history that follows it: for tests on any database."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Engine, event, text

from delaystream.codec.event import Event, EventType
from delaystream.console.history.database import Database, Retention
from delaystream.console.history.follower import HistoryFollower
from delaystream.console.history.schema import WITHIN_MS
from delaystream.engine.ports import Changelog, TopicPartition
from delaystream.testing import ManualClock, MemoryChangelog, MemoryLog, VirtualTimeLoop

EVENTS = "delay-events"
NOW_MS = 1_750_000_000_000
DAY_MS = 86_400_000
KEPT = Retention(90 * DAY_MS, 50_000_000, minutes_ms=90 * DAY_MS, hours_ms=396 * DAY_MS)
SPANS_MS = {60: 60_000, 3_600: 3_600_000, 86_400: DAY_MS}
_encode = msgspec.json.encode


def some_event(dice: random.Random, at_ms: int) -> Event:
    """One of the things that happen."""
    type = dice.choice([EventType.FIRED] * 4 + [EventType.MISSED, EventType.SCHEDULED, EventType.PARKED])
    if type is EventType.PARKED:
        return Event(2, type, at_ms, destination="orders", reason="gone", partition=0)
    id = f"user-{dice.randrange(9)}"
    told = Event(2, type, at_ms, request_topic=f"requests-{dice.randrange(2)}", schedule_id=id)
    told = msgspec.structs.replace(told, source=f"requests/0/{dice.randrange(9)}", key=f"key-{id}")
    if type is EventType.MISSED:
        return msgspec.structs.replace(told, count=dice.randrange(1, 9), destination="orders")
    if type is EventType.SCHEDULED:
        return told
    destination = dice.choice(["orders", "emails"])
    lateness_ms = dice.choice([0, 99, 100, 101, 5_000, 70_000])
    return msgspec.structs.replace(
        told, destination=destination, lateness_ms=lateness_ms, due_at_ms=at_ms, fire_id=f"fire-{at_ms}"
    )


class EventsTopic:
    """The topic, in memory; its partitions are filled from a seed."""

    def __init__(self, partitions: int = 1) -> None:
        self.log = MemoryLog(lambda: NOW_MS)
        self.log.create_topic(EVENTS, partitions)
        self.partitions = partitions

    def write(self, value: bytes | Event, partition: int = 0) -> int:
        """Append; returns the offset."""
        body = value if isinstance(value, bytes) else _encode(value)
        return self.log.append(TopicPartition(EVENTS, partition), (b"key", body, (), NOW_MS))

    def fill(self, dice: random.Random, count: int, over_ms: int = 40 * DAY_MS) -> list[Event]:
        """So many events, on any of the partitions, from a time on up to now."""
        told = []
        for number in range(count):
            at_ms = NOW_MS - over_ms + over_ms * number // count
            told.append(some_event(dice, at_ms))
            self.write(told[-1], dice.randrange(self.partitions))
        return told

    def follower(
        self, database: Database, *, retention: Retention = KEPT, fetched: int = 7, at_once: int = 15
    ) -> HistoryFollower:
        """A history that reads and stores so many events at once."""

        def opened(partition: int) -> Awaitable[Changelog]:
            return MemoryChangelog.open(
                self.log, EVENTS, partition, batch_records=fetched, fetch_max_wait_s=0.01
            )

        return HistoryFollower(
            self.partitions, opened, database, ManualClock(NOW_MS), retention, at_once=at_once
        )

    def caught_up(self, follower: HistoryFollower) -> bool:
        """Whether everything is stored that is there."""
        ends = [
            self.log.bounds(TopicPartition(EVENTS, partition)).stable for partition in range(self.partitions)
        ]
        return [status.position for status in follower.statuses] == ends

    def stored(self, database: Database, **options: Any) -> HistoryFollower:
        """Follow until everything is stored and everything too old is gone; in virtual time."""
        follower = self.follower(database, **options)
        until(follower, lambda: self.caught_up(follower))
        return follower


def until(follower: HistoryFollower, reached: Callable[[], bool], most_s: float = 1_000) -> None:
    """Let a history work until a condition holds, and a minute longer."""

    async def story() -> None:
        task = asyncio.get_running_loop().create_task(follower.run())
        try:
            async with asyncio.timeout(most_s):
                while not reached():
                    await asyncio.sleep(0.1)
                    if task.done():
                        task.result()
            await asyncio.sleep(60)
            if task.done():
                task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    with VirtualTimeLoop() as loop:
        loop.run_until_complete(story())


def content(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """All that a database holds; without the times at which nothing was missing."""
    asked = {
        "events": 'SELECT * FROM events ORDER BY partition, "offset"',
        "rollups": "SELECT * FROM rollups ORDER BY seconds, start_ms, request_topic, destination, type",
        "positions": "SELECT partition, topic_id, next_offset, lost FROM positions ORDER BY partition",
        "totals": "SELECT * FROM totals",
    }
    with database.reading() as connection:
        return {name: [tuple(row) for row in connection.execute(text(sql))] for name, sql in asked.items()}


def summed(told: Sequence[Event]) -> dict[tuple[Any, ...], tuple[int, ...]]:
    """What events add up to, the long way."""
    counted: Counter[tuple[Any, ...]] = Counter()
    late: dict[tuple[Any, ...], list[int]] = {}
    for one in told:
        for seconds, span_ms in SPANS_MS.items():
            what = (one.request_topic or "", one.destination or "", one.type.value)
            kind = (seconds, one.at_ms // span_ms * span_ms, *what)
            counted[kind] += (one.count or 1) if one.type in (EventType.MISSED, EventType.SKIPPED) else 1
            late.setdefault(kind, [])
            if one.type is EventType.FIRED and one.lateness_ms is not None:
                late[kind].append(one.lateness_ms)
    return {
        kind: (
            count,
            sum(late[kind]),
            max(late[kind], default=0),
            *[sum(ms <= bound for ms in late[kind]) for bound in WITHIN_MS],
        )
        for kind, count in counted.items()
    }


def rollups(database: Database) -> dict[tuple[Any, ...], tuple[int, ...]]:
    """The sums that are stored."""
    return {row[:5]: row[5:] for row in content(database)["rollups"]}


def killed(work: Callable[[], object], statement: int) -> bool:
    """Do something in a process that is killed, as by kill -9, before a statement or commit on any database.

    Whether it came that far; else it has done its work.
    """
    with warnings.catch_warnings():
        # Of threads that the test's runner has: the child uses none of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        left = [statement]

        def count(*_: object) -> None:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

        code = 70
        try:
            event.listen(Engine, "before_cursor_execute", count)
            event.listen(Engine, "commit", count)
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    return bool(status)
