"""The gauges of the partitions that are here."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from delaystream.adapters.operate.metrics_labels import BoundedLabels
from delaystream.adapters.operate.metrics_pending import PendingGauges
from delaystream.engine.observer import Phase, Wait
from delaystream.engine.ports import Clock


class Partitions(Collector):
    """The state of each partition that is here now; a released partition leaves no sample."""

    def __init__(
        self,
        clock: Clock,
        destinations: BoundedLabels,
        hours_ahead: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self.counts = PendingGauges(destinations, hours_ahead)
        self._destinations = destinations
        self.lock = threading.Lock()
        self.phases: dict[int, Phase] = {}
        self.pending: dict[int, tuple[int, int | None]] = {}
        self.recovery: dict[int, tuple[int, int, int]] = {}
        self.committed_ms: dict[int, int] = {}
        #: when a partition last committed, or came here: monotonic, s
        self._committed_at: dict[int, float] = {}
        #: what is due and not fired, by destination and by what it waits for: since when, ms
        self.overdue: dict[int, Mapping[tuple[str, Wait], int]] = {}
        self.parked: dict[str, set[int]] = defaultdict(set)
        self.recovered_total = 0

    def enter(self, partition: int, phase: Phase) -> None:
        """A processor entered a phase of its life; a partition that was released is forgotten."""
        if phase is Phase.STOPPED:
            self._forget(partition)
        else:
            self.phases[partition] = phase
            self._committed_at.setdefault(partition, self._monotonic())

    def committed(self, partition: int) -> None:
        """A partition has committed a transaction."""
        self.committed_ms[partition] = self._clock.now_ms()
        self._committed_at[partition] = self._monotonic()

    def _forget(self, partition: int) -> None:
        self.phases.pop(partition, None)
        self._committed_at.pop(partition, None)
        self.overdue.pop(partition, None)
        self.pending.pop(partition, None)
        self.counts.forget(partition)
        self.recovery.pop(partition, None)
        self.committed_ms.pop(partition, None)
        for partitions in self.parked.values():
            partitions.discard(partition)

    def collect(self) -> Iterator[Metric]:
        """See prometheus-client."""
        now_ms = self._clock.now_ms()
        with self.lock:
            yield from self._phases()
            yield from self._pending(now_ms)
            yield from self._overdue(now_ms)
            yield from self.counts.collect(now_ms)
            yield from self._recovery()
            yield from self._progress()
            parked = GaugeMetricFamily(
                "delaystream_destination_parked_partitions",
                "Partitions that have set a destination aside because it cannot be written to.",
                labels=["destination"],
            )
            shown = [(topic, len(partitions)) for topic, partitions in self.parked.items() if partitions]
            for topic, count in shown[: self._destinations.most]:
                parked.add_metric([topic], count)
            yield parked

    def _phases(self) -> Iterator[Metric]:
        phases = GaugeMetricFamily(
            "delaystream_partitions",
            "Partitions owned here, by phase.",
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

    def _overdue(self, now_ms: int) -> Iterator[Metric]:
        fireable = GaugeMetricFamily(
            "delaystream_fireable_overdue_seconds",
            "Longest time that a due fire has waited for the worker alone; 0 when none does. Fires that "
            "wait for a rate, a hold or a destination do not count.",
            labels=["partition"],
        )
        by_destination = GaugeMetricFamily(
            "delaystream_destination_overdue_seconds",
            "Longest wait of the due fires of a destination, by reason: fireable (they wait for the "
            "worker), rate, hold, parked (for the destination). No sample when none waits.",
            labels=["destination", "waits_for"],
        )
        longest: dict[tuple[str, Wait], int] = {}
        for partition, overdue in sorted(self.overdue.items()):
            since = [since_ms for (_, wait), since_ms in overdue.items() if wait is Wait.FIREABLE]
            fireable.add_metric([str(partition)], max(0, now_ms - min(since, default=now_ms)) / 1000)
            for (destination, wait), since_ms in overdue.items():
                if since_ms >= now_ms:
                    continue
                of = self._destinations.of(destination), wait
                longest[of] = max(longest.get(of, 0), now_ms - since_ms)
        for (destination, wait), waited_ms in longest.items():
            by_destination.add_metric([destination, wait.value], waited_ms / 1000)
        yield fireable
        yield by_destination

    def _progress(self) -> Iterator[Metric]:
        committed = GaugeMetricFamily(
            "delaystream_last_commit_timestamp_seconds",
            "When the last transaction of a partition was committed, in seconds since the epoch.",
            labels=["partition"],
        )
        for partition, committed_ms in sorted(self.committed_ms.items()):
            committed.add_metric([str(partition)], committed_ms / 1000)
        yield committed
        age = GaugeMetricFamily(
            "delaystream_last_commit_age_seconds",
            "Time since the last transaction of a partition was committed, or since the partition came here "
            "if none was. Matters where something is overdue: an idle partition commits nothing.",
            labels=["partition"],
        )
        now_s = self._monotonic()
        for partition, at_s in sorted(self._committed_at.items()):
            age.add_metric([str(partition)], now_s - at_s)
        yield age
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
