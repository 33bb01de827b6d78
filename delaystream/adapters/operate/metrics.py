"""The metrics of a worker: an observer of the engine, and the names that dashboards and alerts rely on.

Names follow Prometheus' conventions: ``delaystream_`` first, base units, ``_total`` for what only grows.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
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

from delaystream import __version__
from delaystream.adapters.operate.metrics_labels import BoundedLabels, OfApplication
from delaystream.adapters.operate.metrics_lateness import Lateness
from delaystream.adapters.operate.metrics_partitions import Partitions
from delaystream.adapters.operate.metrics_sources import SourceBacklog
from delaystream.codec.event import UNFIRED, Unfired
from delaystream.engine.observer import Phase, Wait, Work
from delaystream.engine.ports import Clock, TopicPartition
from delaystream.engine.state.pending import PendingChange

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_TRANSACTION_BUCKETS_S: Final = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class PrometheusObserver:
    """An :class:`~delaystream.engine.observer.Observer` with a registry of its own.

    Called by the engine's thread, read by the HTTP server's. ``clock`` gives the time for overdue ages;
    ``app_id`` is a label of every series that is exposed; ``destinations`` is the number of destinations, and
    of request topics with dead letters, with labels of their own, ``hours_ahead`` the number of hours.
    """

    def __init__(
        self, clock: Clock, *, app_id: str = "", destinations: int = 200, hours_ahead: int = 24
    ) -> None:
        # A sample for the creation of each series would double their number.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._exposed = OfApplication(self.registry, app_id)
        self._destinations = BoundedLabels(destinations)
        self._refused_topics = BoundedLabels(destinations)
        self._lateness = Lateness(self._destinations)
        #: what is unread of the source partitions
        self.sources = SourceBacklog()
        self._partitions = Partitions(clock, self._destinations, hours_ahead)
        self.registry.register(self._lateness)
        self.registry.register(self._partitions)
        self.registry.register(self.sources)
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
            "Requests refused and fires given up, by request topic and by the code in their dead letter.",
            ["topic", "code"],
            registry=self.registry,
        )
        self._dead_letters = Counter(
            "delaystream_dead_letters",
            "Requests refused and fires given up, by request topic; 0 at first for each that is read.",
            ["topic"],
            registry=self.registry,
        )
        self._fired = Counter(
            "delaystream_fires", "Records delivered, by destination.", ["destination"], registry=self.registry
        )
        self._missed = Counter(
            "delaystream_missed",
            "Due times without a delivery of their own, by reason: "
            + ", ".join(f"{reason} ({meaning})" if meaning else reason for reason, meaning in UNFIRED.items())
            + ".",
            ["reason", "destination"],
            registry=self.registry,
        )
        self._trimmed = Counter(
            "delaystream_requests_trimmed",
            "Offsets of a request topic or the commands topic that were removed before they were read: up to "
            "so many requests are lost. An application that begins on an existing topic also counts the "
            "offsets removed before.",
            ["topic"],
            registry=self.registry,
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
        self._internal_errors = Counter(
            "delaystream_internal_errors",
            "Faults of delaystream: unexpected errors in deciding on a record, or in a partition's work.",
            registry=self.registry,
        )
        self._ready = Gauge(
            "delaystream_ready", "1 when every partition owned here is recovered.", registry=self.registry
        )
        self._corrupt = Gauge(
            "delaystream_source_corrupt",
            "1 for each partition while its next record batch does not match its checksum.",
            ["topic", "partition"],
            registry=self.registry,
        )
        self._quotas = Gauge(
            "delaystream_tenant_max_pending_entries",
            "Most fires that a request topic may have pending, in all partitions together. 0: no bound.",
            ["topic"],
            registry=self.registry,
        )
        self._request_partitions = Gauge(
            "delaystream_request_partitions",
            "Partitions of each request topic, counted at the start: each needs an owner. 0 before that.",
            registry=self.registry,
        )

    # -- the engine's side ------------------------------------------------------------------------------

    def phase(self, partition: int, phase: Phase) -> None:
        """A processor entered a phase."""
        with self._partitions.lock:
            self._partitions.enter(partition, phase)
        if phase is Phase.STOPPED:
            self.sources.forget(partition)

    def recovery(self, partition: int, applied: int, position: int, end: int) -> None:
        """Recovery has applied this many records and is at ``position`` of ``end``."""
        with self._partitions.lock:
            before, *_ = self._partitions.recovery.get(partition, (0, 0, 0))
            # A recovery that begins again counts from zero.
            self._partitions.recovered_total += applied - before if applied >= before else applied
            self._partitions.recovery[partition] = (applied, position, end)

    def committed(self, partition: int, work: Work) -> None:
        """A transaction was committed."""
        for topic, count in work.accepted.items():
            self._accepted.labels(topic).inc(count)
        for (topic, code), count in work.rejected.items():
            label = self._refused_topics.of(topic)
            self._rejected.labels(label, code).inc(count)
            self._dead_letters.labels(label).inc(count)
        for destination, fires in work.fired.items():
            self._fired.labels(self._destinations.of(destination)).inc(len(fires.lateness_ms))
            self._lateness.add(destination, fires)
        self._transactions.observe(work.seconds)
        with self._partitions.lock:
            self._partitions.committed(partition)

    def read(self, partition: int, positions: Mapping[str, int]) -> None:
        """Requests were applied."""
        self.sources.read(partition, positions)

    def overdue(self, partition: int, since_ms: Mapping[tuple[str, Wait], int]) -> None:
        """Due fires that did not go out yet."""
        with self._partitions.lock:
            self._partitions.overdue[partition] = since_ms

    def missed(self, partition: int, missed: Mapping[tuple[Unfired, str], int]) -> None:
        """A committed transaction dropped due times, or covered them by others: by reason, destination."""
        for (reason, destination), count in missed.items():
            self._missed.labels(reason, self._destinations.of(destination)).inc(count)

    def trimmed(self, partition: int, topic: str, offsets: int) -> None:
        """So many offsets of a source topic were removed before they were read."""
        self._trimmed.labels(topic).inc(offsets)

    def aborted(self, partition: int, reason: str) -> None:
        """A transaction failed."""
        self._aborted.labels(reason).inc()

    def internal_error(self, partition: int) -> None:
        """An unexpected error occurred."""
        self._internal_errors.inc()

    def pending(self, partition: int, count: int, oldest_due_ms: int | None) -> None:
        """The number of entries in the wheels, and when the earliest is due."""
        with self._partitions.lock:
            self._partitions.pending[partition] = (count, oldest_due_ms)

    def counted(self, partition: int, change: PendingChange, *, anew: bool) -> None:
        """The changed counts of pending entries; ``anew``: all counts."""
        with self._partitions.lock:
            self._partitions.counts.counted(partition, change, anew=anew)

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
        """Take the worker's report whether it is ready."""
        self._ready.set(1 if ready else 0)

    def corrupt(self, sources: Iterable[TopicPartition]) -> None:
        """Take the partitions whose reading is blocked now."""
        self._corrupt.clear()
        for topic, partition in sources:
            self._corrupt.labels(topic, partition).set(1)

    def request_partitions(self, count: int, topics: Iterable[str]) -> None:
        """Take the partition count of each request topic: all workers together own them.

        Their counters begin at 0: Prometheus sees no increase in the value with which a counter first
        appears.
        """
        self._request_partitions.set(count)
        for topic in topics:
            self._accepted.labels(topic)
            self._dead_letters.labels(self._refused_topics.of(topic))

    def quotas(self, most: Mapping[str, int]) -> None:
        """Take the quota of each request topic: most pending fires in all workers together; 0: no bound."""
        for topic, count in most.items():
            self._quotas.labels(topic).set(count)

    def exposition(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._exposed)
