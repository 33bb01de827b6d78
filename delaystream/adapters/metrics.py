"""What Prometheus scrapes: an observer of the engine, and the names that dashboards and alerts rely on.

Names follow Prometheus' conventions: ``delaystream_`` first, base units, ``_total`` for what only grows.
"""

from __future__ import annotations

import platform
import threading
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from delaystream import __version__
from delaystream.engine.observer import Phase
from delaystream.engine.ports import Clock

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

#: Upper bounds of the lateness buckets, ms: from what a tick takes to what an outage takes.
LATENESS_BUCKETS_MS: Final = (
    1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 250, 500,
    1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000,
)  # fmt: skip
_TRANSACTION_BUCKETS_S: Final = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
#: Destinations that have labels of their own; further ones are counted together.
_MAX_DESTINATIONS: Final = 200
_OTHERS: Final = "other"


class _Lateness(Collector):
    """A histogram that takes a list at a time: one bisection for each bucket, not one for each record."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = [0] * (len(LATENESS_BUCKETS_MS) + 1)
        self._sum_ms = 0

    def add(self, lateness_ms: Sequence[int]) -> None:
        ordered = sorted(lateness_ms)
        below = 0
        with self._lock:
            for index, bound in enumerate(LATENESS_BUCKETS_MS):
                up_to = bisect_right(ordered, bound, lo=below)
                self._counts[index] += up_to - below
                below = up_to
                if below == len(ordered):
                    break
            self._counts[-1] += len(ordered) - below
            self._sum_ms += sum(ordered)

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            counts, sum_ms = list(self._counts), self._sum_ms
        buckets = []
        total = 0
        for bound, count in zip((*LATENESS_BUCKETS_MS, None), counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound is None else repr(bound / 1000), float(total)))
        yield HistogramMetricFamily(
            "delaystream_fire_lateness_seconds",
            "How long after its due time each record was fired, committed fires only.",
            buckets=buckets,
            sum_value=sum_ms / 1000,
        )


class _Partitions(Collector):
    """What is known of each partition that is here now; a partition that is given up leaves no sample."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.lock = threading.Lock()
        self.phases: dict[int, Phase] = {}
        self.pending: dict[int, tuple[int, int | None]] = {}
        self.recovery: dict[int, tuple[int, int, int]] = {}
        self.committed_ms: dict[int, int] = {}
        self.parked: dict[str, set[int]] = defaultdict(set)
        self.recovered_total = 0

    def forget(self, partition: int) -> None:
        self.phases.pop(partition, None)
        self.pending.pop(partition, None)
        self.recovery.pop(partition, None)
        self.committed_ms.pop(partition, None)
        for partitions in self.parked.values():
            partitions.discard(partition)

    def collect(self) -> Iterator[Metric]:
        now_ms = self._clock.now_ms()
        with self.lock:
            yield from self._phases()
            yield from self._pending(now_ms)
            yield from self._recovery()
            yield from self._progress()
            parked = GaugeMetricFamily(
                "delaystream_destination_parked_partitions",
                "Partitions that have set a destination aside because it cannot be written to.",
                labels=["destination"],
            )
            shown = [(topic, len(partitions)) for topic, partitions in self.parked.items() if partitions]
            for topic, count in shown[:_MAX_DESTINATIONS]:
                parked.add_metric([topic], count)
            yield parked

    def _phases(self) -> Iterator[Metric]:
        phases = GaugeMetricFamily(
            "delaystream_partitions",
            "Partitions owned here, by where in their life they are.",
            labels=["phase"],
        )
        present = list(self.phases.values())
        for phase in Phase:
            if phase is not Phase.STOPPED:
                phases.add_metric([phase.value], present.count(phase))
        yield phases

    def _pending(self, now_ms: int) -> Iterator[Metric]:
        pending = GaugeMetricFamily(
            "delaystream_pending_entries", "Fires that wait for their due time.", labels=["partition"]
        )
        overdue = GaugeMetricFamily(
            "delaystream_oldest_overdue_seconds",
            "How long the earliest due time has passed without its fire; 0 when nothing is due.",
            labels=["partition"],
        )
        for partition, (count, oldest_due_ms) in sorted(self.pending.items()):
            pending.add_metric([str(partition)], count)
            late_ms = 0 if oldest_due_ms is None else max(0, now_ms - oldest_due_ms)
            overdue.add_metric([str(partition)], late_ms / 1000)
        yield pending
        yield overdue

    def _progress(self) -> Iterator[Metric]:
        committed = GaugeMetricFamily(
            "delaystream_last_commit_timestamp_seconds",
            "When the last transaction of a partition was committed, in seconds since the epoch.",
            labels=["partition"],
        )
        for partition, committed_ms in sorted(self.committed_ms.items()):
            committed.add_metric([str(partition)], committed_ms / 1000)
        yield committed
        parked = GaugeMetricFamily(
            "delaystream_parked_destinations",
            "Destinations that a partition has set aside because they cannot be written to.",
            labels=["partition"],
        )
        for partition in sorted(self.phases):
            count = sum(partition in partitions for partitions in self.parked.values())
            parked.add_metric([str(partition)], count)
        yield parked

    def _recovery(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "delaystream_recovery_records",
            "Changelog records applied to local state.",
            value=self.recovered_total,
        )
        position = GaugeMetricFamily(
            "delaystream_recovery_position",
            "Changelog offset up to which local state was recovered.",
            labels=["partition"],
        )
        end = GaugeMetricFamily(
            "delaystream_recovery_end",
            "Changelog offset at which recovery ends; equal to the position when it is done.",
            labels=["partition"],
        )
        for partition, (_, at, until) in sorted(self.recovery.items()):
            position.add_metric([str(partition)], at)
            end.add_metric([str(partition)], until)
        yield position
        yield end


class PrometheusObserver:
    """An :class:`~delaystream.engine.observer.Observer` with a registry of its own.

    Called by the engine's thread, read by the HTTP server's. ``clock`` tells how overdue something is.
    """

    def __init__(self, clock: Clock) -> None:
        # A sample of each series' birth would double their number.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._clock = clock
        self._lateness = _Lateness()
        self._partitions = _Partitions(clock)
        self._destinations: set[str] = set()
        self.registry.register(self._lateness)
        self.registry.register(self._partitions)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        Info("delaystream_build", "The version that runs.", registry=self.registry).info(
            {"version": __version__, "python": platform.python_version()}
        )
        self._accepted = Counter(
            "delaystream_requests_accepted",
            "Requests accepted, by request topic.",
            ["topic"],
            registry=self.registry,
        )
        self._rejected = Counter(
            "delaystream_requests_rejected",
            "Requests refused, by the code in their dead letter.",
            ["code"],
            registry=self.registry,
        )
        self._fired = Counter(
            "delaystream_fires", "Records delivered, by destination.", ["destination"], registry=self.registry
        )
        self._transactions = Histogram(
            "delaystream_transaction_seconds",
            "Time from the begin of a transaction to its commit.",
            buckets=_TRANSACTION_BUCKETS_S,
            registry=self.registry,
        )
        self._aborted = Counter(
            "delaystream_transactions_aborted",
            "Transactions and recoveries that failed, by the failure's name.",
            ["reason"],
            registry=self.registry,
        )
        self._ready = Gauge(
            "delaystream_ready", "1 when every partition owned here is recovered.", registry=self.registry
        )
        self._request_partitions = Gauge(
            "delaystream_request_partitions",
            "Partitions of each request topic, as found at the start: each needs an owner. 0 before that.",
            registry=self.registry,
        )

    # -- the engine's side ------------------------------------------------------------------------------

    def phase(self, partition: int, phase: Phase) -> None:
        """A processor entered a phase of its life."""
        with self._partitions.lock:
            if phase is Phase.STOPPED:
                self._partitions.forget(partition)
            else:
                self._partitions.phases[partition] = phase

    def recovery(self, partition: int, applied: int, position: int, end: int) -> None:
        """Recovery has applied so many records and stands at ``position`` of ``end``."""
        with self._partitions.lock:
            before, *_ = self._partitions.recovery.get(partition, (0, 0, 0))
            # A recovery that begins anew counts from zero again.
            self._partitions.recovered_total += applied - before if applied >= before else applied
            self._partitions.recovery[partition] = (applied, position, end)

    def committed(
        self,
        partition: int,
        *,
        accepted: Mapping[str, int],
        rejected: Mapping[str, int],
        fired: Mapping[str, Sequence[int]],
        seconds: float,
    ) -> None:
        """A transaction was committed."""
        for topic, count in accepted.items():
            self._accepted.labels(topic).inc(count)
        for code, count in rejected.items():
            self._rejected.labels(code).inc(count)
        for destination, lateness_ms in fired.items():
            self._fired.labels(self._bounded(destination)).inc(len(lateness_ms))
            self._lateness.add(lateness_ms)
        self._transactions.observe(seconds)
        with self._partitions.lock:
            self._partitions.committed_ms[partition] = self._clock.now_ms()

    def aborted(self, partition: int, reason: str) -> None:
        """A transaction failed."""
        self._aborted.labels(reason).inc()

    def pending(self, partition: int, count: int, oldest_due_ms: int | None) -> None:
        """Entries in the wheels, and when the earliest of them is due."""
        with self._partitions.lock:
            self._partitions.pending[partition] = (count, oldest_due_ms)

    def parked(self, partition: int, destination: str, reason: str | None) -> None:
        """A destination was set aside (reason) or is in use again (None)."""
        with self._partitions.lock:
            if reason is None:
                self._partitions.parked[destination].discard(partition)
                if not self._partitions.parked[destination]:
                    del self._partitions.parked[destination]
            else:
                self._partitions.parked[destination].add(partition)

    # -- the other side ----------------------------------------------------------------------------------

    def ready(self, ready: bool) -> None:
        """Whether the worker says of itself that it is ready."""
        self._ready.set(1 if ready else 0)

    def request_partitions(self, count: int) -> None:
        """How many partitions there are to own, in all workers together."""
        self._request_partitions.set(count)

    def exposition(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)

    def _bounded(self, destination: str) -> str:
        if destination in self._destinations:
            return destination
        if len(self._destinations) >= _MAX_DESTINATIONS:
            return _OTHERS
        self._destinations.add(destination)
        return destination
