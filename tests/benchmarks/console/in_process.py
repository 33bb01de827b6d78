"""What following and answering cost a console's processor: ``python -m tests.benchmarks.console.in_process``.

Without a broker and without HTTP: rows as a worker writes them are made here, and the console's own followers
apply them to its own RocksDB; questions go straight to its application. What counts is processor time, so a
busy machine changes little of it. What making the rows and reading them from Kafka takes is not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
from msgspec.structs import replace

from delaystream.adapters.clock import SystemClock
from delaystream.adapters.storage.data_directory import DataDirectory
from delaystream.adapters.storage.rocksdb_store import RocksDbStores
from delaystream.codec import keys
from delaystream.codec.envelope import FORMAT, Envelope, Meta, Schedule, SourceName, Status, encode
from delaystream.console.api.application import application
from delaystream.console.history.database import Database, Retention
from delaystream.console.history.follower import HistoryFollower
from delaystream.console.history.queries import History
from delaystream.console.letters.latest import DeadLetters
from delaystream.console.replica.follower import Follower, FollowerSettings
from delaystream.console.service import Console
from delaystream.core.partitioning import owner_partition
from delaystream.core.recurrence.recurrence import Recurrence
from delaystream.engine.ports import ChangelogBatch, ChangelogRecord, LogBounds, TopicBatch
from tests.benchmarks.console import vocabulary
from tests.benchmarks.console.questions import Named, questions

TOPIC: Final = "delay-requests"
TO: Final = "to-"
_DAY_MS: Final = 86_400_000
_READ: Final = 2_000
_FIRST_WHEEL: Final = keys.HOUSEKEEPING + 1
_VALUE: Final = bytes(33 + i % 94 for i in range(150))

Row = tuple[bytes, bytes | None]


class Written:
    """One partition of a changelog; what is appended is made when it is read: that does not count."""

    topic_id = "made-here"

    def __init__(self, partition: int, aside: Aside) -> None:
        self._aside = aside
        self._rows: Iterator[Row] = iter(())
        self._more = asyncio.Event()
        self._position = 0
        self.end = 0
        self._partition = partition

    def append(self, count: int, rows: Iterator[Row]) -> None:
        """So many rows more; those before have been read."""
        self._rows = rows
        self.end += count
        self._more.set()

    async def bounds(self) -> LogBounds:
        """See the port."""
        return LogBounds(0, self.end, self.end)

    async def read(self, position: int) -> ChangelogBatch:
        """See the port."""
        while position >= self.end:
            self._more.clear()
            await self._more.wait()
        assert position == self._position
        began = time.process_time()
        last = min(self.end, position + _READ)
        records = [(offset, *next(self._rows)) for offset in range(position, last)]
        self._position = last
        self._aside.seconds += time.process_time() - began
        return ChangelogBatch(records, last, self.end)

    async def record_at(self, offset: int) -> ChangelogRecord | None:
        """See the port; nothing is looked up."""
        return None

    async def close(self) -> None:
        """See the port."""


class Aside:
    """Processor time that does not count."""

    seconds = 0.0


class Rows:
    """What workers have written of one partition."""

    def __init__(self, partition: int, partitions: int, named: int, unnamed: int) -> None:
        self.partition = partition
        self._partitions = partitions
        self.due_ms = int(time.time() * 1000) + 2 * _DAY_MS
        self.ids = [
            one for one in range(named) if owner_partition(vocabulary.id_of(one), partitions) == partition
        ]
        self.unnamed = range(partition, unnamed, partitions)

    def names(self) -> list[Row]:
        """What numbers stand for."""
        rows: list[Row] = [(keys.META, encode(Meta(self._partitions, FORMAT)))]
        for number in range(vocabulary.DESTINATIONS):
            name = keys.wheel_name(f"{TO}{number}", "").encode()
            rows.append((keys.destination_key(_FIRST_WHEEL + number), name))
        rows.append((keys.source_key(0), encode(SourceName(TOPIC, self.partition))))
        return rows

    def entry(self, sequence: int) -> Row:
        """An event without an id."""
        due_ms = self.due_ms + sequence * 10 % _DAY_MS
        key, headers = vocabulary.unnamed(TO, sequence, due_ms)
        tags = [vocabulary.INVOICE] if sequence % 10 == 1 else []
        kept = [
            (name, value.encode() if isinstance(value, str) else value)
            for name, value in headers
            if not name.startswith("delaystream-")
        ]
        envelope = Envelope(key, _VALUE, kept, due_ms - 2 * _DAY_MS, tags=tags)
        wheel = _FIRST_WHEEL + sequence % vocabulary.DESTINATIONS
        return keys.wheel_key(wheel, due_ms, 0, sequence, 0), encode(envelope)

    def schedule(self, sequence: int, days: int = 0) -> Row:
        """A named schedule that has fired on so many days."""
        id, first_ms = vocabulary.id_of(sequence), self.due_ms + sequence * 10 % _DAY_MS
        asked_ms, due_ms = first_ms - 2 * _DAY_MS, first_ms + days * _DAY_MS
        wheel = _FIRST_WHEEL + sequence % vocabulary.DESTINATIONS
        headers: list[tuple[str, bytes | None]] = [("correlation-id", vocabulary.order(sequence))]
        payload = Envelope(vocabulary.customer(sequence), _VALUE, headers, asked_ms)
        row = Schedule(
            Status.PENDING,
            sequence,
            TOPIC,
            self.partition,
            sequence,
            asked_ms,
            f"{TO}{sequence % vocabulary.DESTINATIONS}",
            [keys.wheel_key(wheel, due_ms, 0, sequence, 0)],
            name=f"Daily {vocabulary.WORD} of {vocabulary.region(sequence)}",
            tags=[vocabulary.team(sequence)],
            recurrence=Recurrence(None, _DAY_MS),
            next_ms=due_ms,
            payload=encode(payload),
            created_ms=asked_ms,
            key=vocabulary.customer(sequence),
        )
        if days:
            row = replace(row, fire_count=days, run_count=days, last_fired_ms=due_ms - _DAY_MS)
        return keys.schedule_key(TOPIC, id), encode(row)


class NoLetters:
    """A partition to which nothing comes."""

    async def bounds(self) -> LogBounds:
        """See the port."""
        return LogBounds(0, 0, 0)

    async def read_records(self, position: int) -> TopicBatch:
        """See the port."""
        await asyncio.Event().wait()
        raise AssertionError("nothing comes")

    async def close(self) -> None:
        """See the port."""


class Measured:
    """A console over such rows."""

    def __init__(self, directory: Path, partitions: int, named: int, unnamed: int) -> None:
        self.aside, clock = Aside(), SystemClock()
        self.logs = [Written(partition, self.aside) for partition in range(partitions)]
        self.rows = [Rows(partition, partitions, named, unnamed) for partition in range(partitions)]
        kept = DataDirectory.acquire(directory, "measured", min_free_bytes=0)
        stores = RocksDbStores(kept)

        async def opened(partition: int) -> Written:
            return self.logs[partition]

        async def empty(partition: int) -> Written:
            return Written(partition, self.aside)

        async def unlettered(partition: int) -> NoLetters:
            return NoLetters()

        async def bounds(topic: str, partition: int) -> LogBounds:
            return LogBounds(0, named + unnamed, named + unnamed)

        self.following = [
            Follower(partition, opened, stores, clock, FollowerSettings(_DAY_MS))
            for partition in range(partitions)
        ]
        database = Database.open(f"sqlite:///{directory / 'history.db'}")
        retention = Retention(90 * _DAY_MS, 1_000_000, minutes_ms=_DAY_MS, hours_ms=_DAY_MS)
        history = HistoryFollower(1, empty, database, clock, retention)
        letters = DeadLetters(1, unlettered, clock.now_ms)
        self.console = Console(self.following, history, History(database), letters, clock, bounds)
        self.app = application(self.console)

    async def pace(self, rows: Callable[[Rows], Sequence[Row] | tuple[int, Iterator[Row]]]) -> dict[str, Any]:
        """Have every follower apply some rows; records and microseconds of processor time each."""
        count = 0
        self.aside.seconds = 0.0
        began = time.process_time()
        for log, of in zip(self.logs, self.rows, strict=True):
            made = rows(of)
            some, each = made if isinstance(made, tuple) else (len(made), iter(made))
            count += some
            log.append(some, each)
        for log, follower in zip(self.logs, self.following, strict=True):
            await follower.passed(log.end)
        seconds = time.process_time() - began - self.aside.seconds
        return {"records": count, "us": round(seconds / count * 1e6, 2), "per_second": round(count / seconds)}

    async def ask(self, path: str) -> tuple[float, int]:
        """Milliseconds of processor time that an answer takes, and its length."""
        where, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": where,
            "raw_path": where.encode(),
            "query_string": query.encode(),
            "headers": [(b"host", b"localhost")],
            "client": ("127.0.0.1", 1),
            "server": ("localhost", 80),
        }
        length, status = 0, 0

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            nonlocal length, status
            length += len(message.get("body", b""))
            status = message.get("status", status)

        began = time.process_time()
        await self.app(scope, receive, send)
        took_ms = (time.process_time() - began) * 1000
        assert status == 200, (path, status)
        return took_ms, length


def _chained(rows: Rows, named: Sequence[int], unnamed: Sequence[int]) -> tuple[int, Iterator[Row]]:
    first = rows.names()

    def all_of() -> Iterator[Row]:
        yield from first
        yield from map(rows.schedule, named)
        yield from map(rows.entry, unnamed)

    return len(first) + len(named) + len(unnamed), all_of()


async def measure(arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """All of it, as one object."""
    made = Measured(directory, arguments.partitions, arguments.named, arguments.unnamed)
    tasks = [asyncio.create_task(follower.run()) for follower in made.following]
    told: dict[str, Any] = {"rebuild": await made.pace(lambda of: _chained(of, of.ids, of.unnamed))}
    print(json.dumps(told), file=sys.stderr, flush=True)
    few, some = arguments.named // 40, arguments.unnamed // 40
    for name, rows in (
        ("unnamed gone", lambda of: [(of.entry(one)[0], None) for one in of.unnamed[:some]]),
        ("unnamed new", lambda of: [of.entry(one) for one in of.unnamed[:some]]),
        ("named fired", lambda of: [of.schedule(one, 1) for one in of.ids[:few]]),
        ("named gone", lambda of: [(of.schedule(one)[0], None) for one in of.ids[:few]]),
        ("named new", lambda of: [of.schedule(one) for one in of.ids[:few]]),
    ):
        told[name] = await made.pace(rows)
        print(name, told[name], file=sys.stderr, flush=True)
    named = Named(TO, arguments.named, made.rows[0].due_ms)
    for room, kinds in questions(named).items():
        for kind, paths in kinds.items():
            times = [await made.ask(paths[number % len(paths)]) for number in range(arguments.rounds)]
            took = np.array([took_ms for took_ms, _ in times[1:]])
            figures = {
                "p50": round(float(np.percentile(took, 50)), 2),
                "p99": round(float(np.percentile(took, 99)), 2),
                "bytes": times[-1][1],
            }
            told.setdefault(room, {})[kind] = figures
            print(f"{room:6} {kind:24} {figures}", file=sys.stderr, flush=True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return told


def main() -> None:
    """Print what it came to as one JSON object; progress goes to standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.console.in_process", description=__doc__
    )
    parser.add_argument("--named", type=int, default=100_000)
    parser.add_argument("--unnamed", type=int, default=400_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=100, help="how often each question is asked")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="delaystream-console-")))
        print(json.dumps(asyncio.run(measure(arguments, directory)), indent=1))


if __name__ == "__main__":
    main()
