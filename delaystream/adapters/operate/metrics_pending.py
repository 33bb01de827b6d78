"""The gauges of pending fires, by destination, by hour ahead and by tenant.

The engine reports changes, so nothing is counted when Prometheus asks. The labels are bounded: destinations
and hours ahead by a setting each, partitions by those that are here, tenants by the settings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

import msgspec
from prometheus_client.core import GaugeMetricFamily, Metric

from delaystream.adapters.operate.metrics_labels import BoundedLabels
from delaystream.engine.state.pending import HOUR_MS, PendingChange

#: The label of past hours: their fires are overdue.
_PAST: Final = "past"
#: Follows the last hour that has a label of its own.
_LATER: Final = "+"


class _Counts(msgspec.Struct):
    destinations: dict[str, int]
    hours: dict[int, int]
    tenants: dict[str, int]


class PendingGauges:
    """The counts of the partitions that are here. Callers hold the lock of the gauges."""

    def __init__(self, destinations: BoundedLabels, hours_ahead: int) -> None:
        self._destinations = destinations
        self._hours_ahead = hours_ahead
        self._partitions: dict[int, _Counts] = {}

    def counted(self, partition: int, change: PendingChange, *, anew: bool) -> None:
        """Apply changed counts."""
        if anew or partition not in self._partitions:
            self._partitions[partition] = _Counts({}, {}, {})
        counts = self._partitions[partition]
        _update(counts.destinations, change.destinations)
        _update(counts.hours, change.hours)
        counts.tenants.update(change.tenants)

    def forget(self, partition: int) -> None:
        """Remove a partition that was released."""
        self._partitions.pop(partition, None)

    def collect(self, now_ms: int) -> Iterator[Metric]:
        """The gauges, as of ``now_ms``."""
        destinations = GaugeMetricFamily(
            "delaystream_pending_destination_entries",
            "Fires that wait for their due time, by destination.",
            labels=["partition", "destination"],
        )
        hours = GaugeMetricFamily(
            "delaystream_pending_hour_entries",
            "Fires that wait for their due time, by the hours until then; 0: in the present hour of the "
            "clock, past: before it.",
            labels=["partition", "hours_ahead"],
        )
        tenants = GaugeMetricFamily(
            "delaystream_tenant_pending_entries",
            "Pending fires of a request topic; its quota bounds them.",
            labels=["partition", "topic"],
        )
        for partition, counts in sorted(self._partitions.items()):
            label = str(partition)
            for destination, count in self._bounded(counts.destinations).items():
                destinations.add_metric([label, destination], count)
            for hour, count in self._ahead(counts.hours, now_ms).items():
                hours.add_metric([label, hour], count)
            for tenant, count in counts.tenants.items():
                tenants.add_metric([label, tenant], count)
        yield from (destinations, hours, tenants)

    def _bounded(self, counts: dict[str, int]) -> Counter[str]:
        bounded: Counter[str] = Counter()
        for destination, count in counts.items():
            bounded[self._destinations.of(destination)] += count
        return bounded

    def _ahead(self, counts: dict[int, int], now_ms: int) -> dict[str, int]:
        """Counts by label, with every label present, so that graphs have no gaps."""
        last = self._hours_ahead
        labels = [_PAST, *map(str, range(last)), f"{last}{_LATER}"]
        present = now_ms // HOUR_MS
        ahead = [0] * len(labels)
        for hour, count in counts.items():
            ahead[min(max(hour - present, -1), last) + 1] += count
        return dict(zip(labels, ahead, strict=True))


def _update(counts: dict[str, int] | dict[int, int], change: dict[str, int] | dict[int, int]) -> None:
    counts.update(change)  # type: ignore[arg-type]
    for name, count in change.items():
        if not count:
            del counts[name]  # type: ignore[arg-type]
