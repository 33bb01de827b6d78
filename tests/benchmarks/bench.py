"""What every scenario uses: one broker, processes for load, copy and reading, and figures."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil

from tests.integration.harness import Deployment, wait
from tests.integration.harness_kafka import Kafka

_PROCESS_SECONDS = 1_800
#: how many times the copy is repeated; its median is the ceiling
_COPIES = 3


@dataclass(frozen=True)
class Row:
    """One line of the table; ``limit`` and ``value`` are in ``unit``, ``at_least`` says which way is good.

    Without a limit it is information.
    """

    name: str
    what: str
    value: float
    unit: str
    limit: float | None
    at_least: bool
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        """Whether the figure reaches its limit."""
        if self.limit is None:
            return True
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass
class Arrivals:
    """What a read_committed reader received, a column each (ms; numpy int64)."""

    due_ms: np.ndarray
    appended_ms: np.ndarray
    received_ms: np.ndarray
    sequence: np.ndarray

    @classmethod
    def load(cls, path: Path) -> Arrivals:
        """From the file that the reader's process wrote."""
        rows = np.fromfile(path, dtype=np.int64).reshape(-1, 4)
        return cls(*rows.T)

    def where(self, chosen: np.ndarray) -> Arrivals:
        """Those rows only."""
        return Arrivals(
            self.due_ms[chosen], self.appended_ms[chosen], self.received_ms[chosen], self.sequence[chosen]
        )

    @property
    def lateness_ms(self) -> np.ndarray:
        """By the broker's append time."""
        lateness: np.ndarray = self.appended_ms - self.due_ms
        return lateness

    @property
    def received_lateness_ms(self) -> np.ndarray:
        """By the time of receipt."""
        lateness: np.ndarray = self.received_ms - self.due_ms
        return lateness

    def faults(self, expected: int) -> dict[str, int]:
        """Lost, duplicated and early deliveries out of ``expected``."""
        distinct = int(np.unique(self.sequence).size)
        return {
            "lost": expected - distinct,
            "duplicated": int(self.sequence.size) - distinct,
            "early": int((self.lateness_ms < 0).sum()),
        }


def percentiles(values: np.ndarray, *points: float) -> dict[str, float]:
    """The named percentiles and the largest value; nan for no values."""
    if not values.size:
        return {f"p{point:g}": float("nan") for point in points} | {"max": float("nan")}
    return {f"p{point:g}": float(np.percentile(values, point)) for point in points} | {
        "max": float(values.max())
    }


class Measured(Protocol):
    """A process that is at work."""

    usage: psutil.Process


class Sampler:
    """Processor time and resident memory of a worker, every 100 ms while the block runs."""

    def __init__(self, worker: Measured) -> None:
        self._process = worker.usage
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.peak_rss_mb = 0.0
        self.seconds = self.cpu_seconds = 0.0

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            try:
                self.peak_rss_mb = max(self.peak_rss_mb, self._process.memory_info().rss / 1e6)
            except psutil.Error:
                return

    def _cpu(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def __enter__(self) -> Sampler:
        self.seconds, self.cpu_seconds = -time.perf_counter(), -self._cpu()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter()
        self.cpu_seconds += self._cpu()
        self._stop.set()
        self._thread.join()

    @property
    def cores(self) -> float:
        """Cores used, on average."""
        return self.cpu_seconds / self.seconds

    def figures(self) -> dict[str, float]:
        """For a row's detail."""
        return {"worker_cores": round(self.cores, 3), "worker_peak_rss_mb": round(self.peak_rss_mb, 1)}


class Usage:
    """Processor time of several processes, and of the broker, while the block runs."""

    def __init__(self, bench: Bench, processes: Sequence[Any]) -> None:
        self._processes = [process.usage for process in processes]
        self._broker = bench.broker
        self.seconds = self.broker_seconds = 0.0

    def begin_broker(self) -> None:
        """Count the broker from here only: what it did before was the load's."""
        self.broker_seconds = -_cpu_seconds([self._broker])

    def each(self, count: int) -> tuple[float, float]:
        """µs a record: of the processes, of the broker."""
        return self.seconds / count * 1e6, self.broker_seconds / count * 1e6

    def __enter__(self) -> Usage:
        self.seconds = -_cpu_seconds(self._processes)
        self.begin_broker()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += _cpu_seconds(self._processes)
        self.broker_seconds += _cpu_seconds([self._broker])


def _cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return float(sum(each.user + each.system for each in times))


class Job:
    """A process of this package at work; its last line of output is its result."""

    def __init__(self, module: str, spec: dict[str, Any], root: Path) -> None:
        self._name = f"{module} {spec}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"tests.benchmarks.{module}", json.dumps(spec)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=root,
        )

    def result(self) -> dict[str, Any]:
        """Wait for its end; RuntimeError when it failed."""
        output, errors = self._process.communicate(timeout=_PROCESS_SECONDS)
        if self._process.returncode:
            raise RuntimeError(f"{self._name} failed:\n{errors[-4000:]}")
        return json.loads(output.splitlines()[-1])  # type: ignore[no-any-return]

    def stop(self) -> None:
        """End it at once when it is still there."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@dataclass(frozen=True)
class Rounds:
    """How often what is compared is measured."""

    copies: int = _COPIES
    """Of the ceiling; the median counts."""
    turns: int = 1
    """Of a worker and its peer, by turns; the median of the ratios counts."""


class Bench:
    """One run: broker, scale, working directory; each scenario makes deployments of its own."""

    def __init__(
        self, kafka: Kafka, broker: psutil.Process, directory: Path, scale: float, rounds: Rounds
    ) -> None:
        self.kafka = kafka
        self.broker = broker
        self.directory = directory
        self.scale = scale
        self.rounds = rounds.turns
        self._copies = rounds.copies
        self._jobs: list[Job] = []
        self._root = Path(__file__).resolve().parents[2]

    def count(self, full: int) -> int:
        """So many records at this run's scale."""
        return max(int(full * self.scale), 1_000)

    @contextmanager
    def deployment(self, *, partitions: int = 4, **settings: str) -> Iterator[Deployment]:
        """An application of its own; its topics and state are deleted afterwards, for the disk's sake."""
        settings = {"DELAYSTREAM_SESSION_TIMEOUT_MS": "10000", **settings}
        with Deployment(self.kafka, self.directory, partitions=partitions, **settings) as deployment:
            yield deployment.apply_topics()
        topics = self.kafka.admin.list_topics(timeout=30).topics
        self.kafka.delete(*[topic for topic in topics if topic.startswith(f"{deployment.app_id}.")])
        subprocess.run(["rm", "-rf", str(deployment.data_directory())], check=True)

    def start(self, module: str, **spec: Any) -> Job:
        """Start a process of this package against this run's broker."""
        job = Job(module, {"bootstrap": self.kafka.bootstrap, **spec}, self._root)
        self._jobs.append(job)
        return job

    def stop_jobs(self) -> None:
        """End whatever a failed scenario left behind."""
        for job in self._jobs:
            job.stop()

    def load(self, deployment: Deployment, destination: str, **spec: Any) -> dict[str, Any]:
        """Send requests and wait until they are sent."""
        return self.start("load", topic=deployment.requests, destination=destination, **spec).result()

    def arrivals(self, topic: str, count: int, **spec: Any) -> Arrivals:
        """Read a whole topic, after the fact."""
        found: Arrivals = self.reading(topic, count, **spec)()
        return found

    def reading(self, topic: str, count: int, **spec: Any) -> Any:
        """Start reading a topic; the call of what is returned waits for the end and gives the arrivals."""
        path = self.directory / f"{topic}.arrivals"
        job = self.start("arrivals", topic=topic, path=str(path), count=count, **spec)

        def finish() -> Arrivals:
            job.result()
            arrivals = Arrivals.load(path)
            path.unlink()
            return arrivals

        return finish

    def ceiling(self, source: str, count: int) -> dict[str, Any]:
        """Copy a topic's records in transactions of 8,000, several times; the median run, and all rates."""
        runs = []
        for number in range(self._copies):
            target = self.kafka.create(f"{source}.copy{number}", self.kafka.partitions(source))
            runs.append(self.start("copying", source=source, target=target, count=count).result())
            self.kafka.delete(target)
        runs.sort(key=lambda run: run["per_second"])
        rates = [round(run["per_second"]) for run in runs]
        return {"ceiling_per_second": rates[len(rates) // 2], "ceiling_runs": rates}

    def wait_accepted(
        self, deployment: Deployment, seconds: float = 600.0, *, named: bool = False, group: str | None = None
    ) -> float:
        """Until every request is accepted, by the group's committed offsets; the time of it (s, epoch).

        Named ones are accepted by the partitions that own their ids, which read them from the commands topic.
        The group is the deployment's own, unless it is named.
        """
        group = group or deployment.app_id
        self._wait_applied(group, deployment.requests, seconds)
        if named:
            self._wait_applied(group, deployment.commands, seconds)
        return time.time()

    def _wait_applied(self, group: str, topic: str, seconds: float) -> None:
        ends = self.kafka.stable_offsets(topic)

        def applied() -> bool:
            # A transaction's marker takes an offset behind the last record of the partition.
            committed = self.kafka.committed(group, topic)
            return all(done >= end - 1 for done, end in zip(committed, ends, strict=True))

        wait(applied, f"{group} to apply all of {topic}", seconds, every=0.1)

    def wait_delivered(self, topic: str, count: int, seconds: float = 600.0) -> None:
        """Until a topic holds at least ``count`` offsets and has stood still for two seconds."""
        seen: Sequence[int] = ()
        changed = time.monotonic()

        def still() -> bool:
            nonlocal seen, changed
            now = self.kafka.stable_offsets(topic)
            if now != seen:
                seen, changed = now, time.monotonic()
            return sum(now) >= count and time.monotonic() - changed > 2.0

        wait(still, f"{count} records on {topic}", seconds, every=0.25)
