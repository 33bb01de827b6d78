"""What a record costs the worker alone, without a broker: `python -m tests.benchmarks.in_memory`.

Requests with ids whose key is the id, cron schedules of one minute, and requests without ids: accepted, then
fired; and requests without ids that are already due, which are delivered when they are accepted. The
processor is the worker's own, with its RocksDB and its compiled record batches; what it would send is counted
and dropped. Time is virtual, and what counts is processor time, so that neither a busy machine's waiting nor
a disk's is in it. What the load and its fetching take is not counted.

For each phase: microseconds of processor time a record (the median of the rounds); objects of Python that are
alive when a step is committed, a record, the request among them; and what a record leaves: rows and bytes of
the changelog, of the local store beside it, of events, and of deliveries.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgspec

from delaystream.adapters.internals.aiokafka import DefaultRecordBatch, DefaultRecordBatchBuilder
from delaystream.adapters.storage.data_directory import DataDirectory
from delaystream.adapters.storage.rocksdb_store import RocksDbStores
from delaystream.adapters.transactions.batches import EncodedRows, Encoding, Identity, Sequences
from delaystream.codec.requests.headers import RequestParser
from delaystream.core.destinations import DestinationFilter
from delaystream.core.limits import Limits
from delaystream.engine.observer import Silence, Work
from delaystream.engine.pace import Pace
from delaystream.engine.policy.tenants import Tenant, Tenants
from delaystream.engine.ports import (
    Change,
    Marker,
    Ports,
    SourceBatch,
    SourceBounds,
    TopicPartition,
    Transaction,
)
from delaystream.engine.processor import PartitionProcessor
from delaystream.engine.settings import EngineSettings
from delaystream.engine.state.step import row_bytes
from delaystream.testing import LoopClock, MemoryChangelog, MemoryDestinations, MemoryLog, VirtualTimeLoop
from tests.benchmarks import records

REQUESTS: Final = "delay-requests"
SHAPES: Final = ("plain", "named", "cron", "overdue")
PHASES: Final = ("accept", "fire")
_TOPICS: Final = ("delay-dead-letters", "delay-events", "out")
#: as fetched: what the worker reads at once
_BATCH: Final = 2_000
#: as many as a step takes
_STEP: Final = 8_000
#: from the first request to the minute in which all are due, ms
_AHEAD_MS: Final = 300_000
_MINUTE_MS: Final = 60_000
_MAGIC: Final = 2
_ENCODING: Final = Encoding(Identity(1, 0), limit_bytes=1_000_000, compression=0)
#: What the worker has; see `delaystream.app.worker`.
_GC_THRESHOLDS: Final = (2_000_000, 10, 10)


class Phase(msgspec.Struct):
    """One phase of one shape: what it took, and what it left; of all records together."""

    seconds: float = 0.0
    #: of that: reading and deciding, record batches, the local store; the rest is the loop and freeing
    parts: Counter[str] = msgspec.field(default_factory=Counter)
    objects: int = 0
    rows: Counter[str] = msgspec.field(default_factory=Counter)
    size_bytes: Counter[str] = msgspec.field(default_factory=Counter)


class Meter:
    """Reads the processor's clock, but for what the load itself takes."""

    def __init__(self) -> None:
        self.phase = Phase()
        self._began = self._aside = self._deciding = 0.0
        self._blocks = 0

    def begin(self) -> Phase:
        """A phase begins; `end` completes what is returned."""
        gc.collect()
        self.phase = Phase()
        self._aside = 0.0
        self._blocks = sys.getallocatedblocks()
        self._began = time.process_time()
        return self.phase

    def end(self) -> None:
        """The phase is over."""
        self.phase.seconds = time.process_time() - self._began - self._aside
        self.phase = Phase()

    def aside(self, began: float) -> None:
        """What was done since `began` does not count."""
        self._aside += time.process_time() - began

    def deciding(self) -> None:
        """A step is about to be decided on."""
        self._deciding = time.process_time()

    def decided(self) -> None:
        """A step is about to be committed, and all that it holds is alive."""
        self.part("decide", self._deciding)
        self.phase.objects += sys.getallocatedblocks() - self._blocks

    def part(self, name: str, began: float) -> None:
        """What was done since `began` is a part of it."""
        self.phase.parts[name] += time.process_time() - began  # type: ignore[assignment]

    def count(self, kind: str, rows: int, size_bytes: int) -> None:
        """So many rows of a kind were written."""
        self.phase.rows[kind] += rows
        self.phase.size_bytes[kind] += size_bytes


class _Pace(Pace):
    """Nobody waits for a turn, and it is heard when one begins."""

    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self._meter = meter

    async def turn(self) -> None:
        """A step begins."""
        self._meter.deciding()
        await super().turn()


class _Producer:
    """Makes record batches of what is committed, counts it and drops it."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._sequences = Sequences()
        self._offsets: Counter[TopicPartition] = Counter()

    async def fence(self) -> None:
        """There is nobody else."""

    def accumulator(self, target: TopicPartition) -> EncodedRows:
        """As the worker's own producer has it."""
        return EncodedRows(target, _ENCODING, self._sequences.next(target))

    async def commit(self, transaction: Transaction) -> Mapping[TopicPartition, int]:
        """Build the batches that would be sent."""
        if not transaction.writes:
            return {}
        self._meter.decided()
        await asyncio.sleep(0)
        began = time.process_time()
        last: dict[TopicPartition, int] = {}
        for target, rows in transaction.writes.items():
            encoded = rows
            if type(encoded) is not EncodedRows:
                encoded = self.accumulator(target)
                for row in rows:
                    encoded.append(row)
            batches = encoded.batches()
            self._sequences.set(target, batches[-1].sequence + batches[-1].count)
            self._offsets[target] += len(rows)
            last[target] = self._offsets[target] - 1
        self._meter.part("batches", began)
        began = time.process_time()
        for target, rows in transaction.writes.items():
            size = sum([row_bytes(key, value, headers) for key, value, headers, _ in rows])
            self._meter.count(target.topic, len(rows), size)
        self._meter.aside(began)
        return last

    async def close(self) -> None:
        """There is nothing to let go of."""


class _Stores(RocksDbStores):
    """RocksDB, with what is written to it counted."""

    meter: Meter

    def open(self, partition: int) -> Any:
        store = super().open(partition)
        write, meter = store.write, self.meter

        def counted(changes: Iterable[Change], local: Iterable[Change], marker: Marker) -> None:
            began = time.process_time()
            local = list(local)
            meter.count("local", len(local), sum([len(key) + len(value or b"") for key, value in local]))
            meter.aside(began)
            began = time.process_time()
            write(changes, local, marker)
            meter.part("store", began)

        store.write = counted  # type: ignore[method-assign]
        return store


class _Sources:
    """A request topic that is made as it is fetched."""

    topics: Sequence[str] = (REQUESTS, "delay-commands")
    assigned = True

    def __init__(self, meter: Meter, load: Callable[[int], bytes], count: int) -> None:
        self._meter = meter
        self._load = load
        self._count = count
        self._position = 0
        self._deliver: Callable[[SourceBatch], bool] | None = None
        #: whether anything is to be fetched yet
        self.flowing = False

    async def bounds(self) -> Mapping[str, SourceBounds]:
        """Nothing was ever removed."""
        return {topic: SourceBounds(0, self._count, f"id-of-{topic}") for topic in self.topics}

    def open(self, positions: Mapping[str, int], deliver: Callable[[SourceBatch], bool]) -> None:
        """Fetch from now on."""
        self._deliver = deliver

    def seek(self, topic: str, position: int) -> None:
        """Nothing is missing, ever."""
        raise AssertionError(topic)

    def resume(self) -> None:
        """Fetch on, as long as there is room."""
        began = time.process_time()
        while self.flowing and self._deliver is not None and self._position < self._count:
            first, stop = self._position, min(self._position + _BATCH, self._count)
            payload = self._load(first)
            fetched = list(DefaultRecordBatch(payload))
            self._position = stop
            if not self._deliver(SourceBatch(REQUESTS, fetched, first, stop, len(payload))):
                break
        self._meter.aside(began)

    def close(self) -> None:
        """Fetch no more."""
        self._deliver = None


class _Count(Silence):
    """Waits for the last of so many requests, and for the last of so many fires."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._accepted = self._fired = 0
        self.accepted, self.fired = asyncio.Event(), asyncio.Event()

    def committed(self, partition: int, work: Work) -> None:
        """Count; a request that is refused is a fault of the load."""
        assert not work.rejected, work.rejected
        self._accepted += sum(work.accepted.values())
        self._fired += sum(len(fires.lateness_ms) for fires in work.fired.values())
        if self._accepted == self._count:
            self.accepted.set()
        if self._fired == self._count:
            self.fired.set()


async def _unless_over(life: asyncio.Task[None], event: asyncio.Event) -> None:
    """Wait for an event; what the processor has raised before that is raised."""
    waiting = asyncio.ensure_future(event.wait())
    await asyncio.wait([life, waiting], return_when=asyncio.FIRST_COMPLETED)
    if life.done():
        waiting.cancel()
        life.result()
        raise RuntimeError("the processor has ended")


def _load(shape: str, now_ms: int, due_ms: int, count: int) -> Callable[[int], bytes]:
    """Record batches of the benchmarks' own requests, by the offset of their first one."""

    def batch(first: int) -> bytes:
        builder = DefaultRecordBatchBuilder(_MAGIC, 0, 0, -1, -1, -1, 1 << 30)
        for sequence in range(first, min(first + _BATCH, count)):
            key = records.key(sequence)
            when = ("delaystream-at", b"%d" % due_ms)
            if shape == "cron":
                when = ("delaystream-cron", records.cron(due_ms, sequence % 100))
            headers = records.headers("out", when)
            if shape in ("named", "cron"):
                key = b"job-%d" % sequence
                headers.append(("delaystream-id", key))
            value = records.value(due_ms, sequence)
            assert builder.append(sequence - first, now_ms, key, value, headers) is not None
        payload = bytearray(builder.build())
        payload[:8] = first.to_bytes(8)
        return bytes(payload)

    return batch


def measured(shape: str, count: int, *, events: bool = True) -> dict[str, Phase]:
    """One round of one shape: its phases; of what is already due, there is one."""
    with tempfile.TemporaryDirectory(prefix="delaystream-bench-") as temporary, VirtualTimeLoop() as loop:
        meter = Meter()
        clock = LoopClock(loop)
        log = MemoryLog(clock.now_ms)
        log.create_topic("delay-wheel-changelog", 1, compacted=True, append_time=True)
        for topic, partitions in ((REQUESTS, 1), ("delay-commands", 1), *((topic, 4) for topic in _TOPICS)):
            log.create_topic(topic, partitions)
        directory = DataDirectory.acquire(Path(temporary), "bench")
        stores = _Stores(directory)
        stores.meter = meter
        own = ["delay-commands", "delay-wheel-changelog", "delay-dead-letters", "delay-events"]
        parser = RequestParser(DestinationFilter(["*"], [REQUESTS, *own], "delay-receipts"), Limits(), None)
        ports = Ports(
            lambda partition: _Producer(meter),
            lambda partition: MemoryChangelog.open(log, "delay-wheel-changelog", partition),
            stores,
            MemoryDestinations(log),
            clock,
            _Pace(meter),
        )

        async def run() -> dict[str, Phase]:
            now_ms = clock.now_ms()
            due_ms = (now_ms + _AHEAD_MS) // _MINUTE_MS * _MINUTE_MS
            if shape == "overdue":
                due_ms = now_ms
            sources = _Sources(meter, _load(shape, now_ms, due_ms, count), count)
            observer = _Count(count)
            tenants = Tenants(Tenant(parser))
            # What waits to be read is none of a step's objects.
            settings = EngineSettings(events=events, inbox_max_records=_STEP)
            processor = PartitionProcessor(0, settings, ports, sources, tenants, observer)
            life = loop.create_task(processor.run())
            # It says whose the partition is, and where it reads on.
            await asyncio.sleep(5)
            phases: dict[str, Phase] = {}
            phases["accept"] = meter.begin()
            sources.flowing = True
            sources.resume()
            await _unless_over(life, observer.accepted)
            meter.end()
            if not observer.fired.is_set():
                await asyncio.sleep((due_ms - clock.now_ms()) / 1000 - 5)
                phases["fire"] = meter.begin()
                await _unless_over(life, observer.fired)
                meter.end()
            await processor.stop()
            await life
            return phases

        phases = loop.run_until_complete(run())
        directory.release()
        return phases


def _told(phases: list[Phase], count: int) -> dict[str, Any]:
    last = phases[-1]
    kinds = sorted(last.rows)
    return {
        "microseconds": round(median(phase.seconds for phase in phases) * 1e6 / count, 2),
        "parts": {
            name: round(median(phase.parts[name] for phase in phases) * 1e6 / count, 2)
            for name in sorted(last.parts)
        },
        "objects": round(last.objects / count, 2),
        "rows": {kind: round(last.rows[kind] / count, 3) for kind in kinds},
        "bytes": {kind: round(last.size_bytes[kind] / count) for kind in kinds},
    }


def main() -> None:
    """Print one line for each phase."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.in_memory", description=__doc__)
    parser.add_argument("--only", action="append", choices=SHAPES, help="this shape (may be given again)")
    parser.add_argument("--count", type=int, default=50_000, help="records of each shape")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--no-events", action="store_true", help="without events")
    parser.add_argument("--json", action="store_true", help="one object, for a comparison")
    arguments = parser.parse_args()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    told: dict[str, dict[str, Any]] = {}
    for shape in arguments.only or SHAPES:
        rounds = [
            measured(shape, arguments.count, events=not arguments.no_events) for _ in range(arguments.rounds)
        ]
        for phase in [phase for phase in PHASES if phase in rounds[0]]:
            name = f"{shape}: {phase}"
            told[name] = _told([each[phase] for each in rounds], arguments.count)
            if not arguments.json:
                print(f"{name:14}", json.dumps(told[name]), flush=True)
    if arguments.json:
        print(json.dumps(told))


if __name__ == "__main__":
    main()
