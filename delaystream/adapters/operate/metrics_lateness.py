"""The histograms of how late fires are: after their due times, and after nothing kept them any more.

The first is what users notice; the second is what the service answers for, and what pages.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from delaystream.adapters.operate.metrics_labels import BoundedLabels
from delaystream.engine.observer import Fires

#: Upper bounds of the lateness buckets, ms: from the length of a tick to that of an outage.
LATENESS_BUCKETS_MS: Final = (
    1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 250, 500,
    1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000,
)  # fmt: skip
#: Those of each destination: on time, late, and late as after an outage. All are among the others.
DESTINATION_BUCKETS_MS: Final = (100, 1_000, 10_000, 60_000, 900_000)
_PLACES: Final = tuple(LATENESS_BUCKETS_MS.index(bound) for bound in DESTINATION_BUCKETS_MS)


class _Histogram:
    """Counts by bucket of `LATENESS_BUCKETS_MS`, the last of what is beyond them, and the sum, ms."""

    __slots__ = ("counts", "sum_ms")

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENESS_BUCKETS_MS) + 1)
        self.sum_ms = 0

    def add(self, counts: Iterable[int], sum_ms: int) -> None:
        """Count in what another one has counted."""
        self.counts = [mine + more for mine, more in zip(self.counts, counts, strict=True)]
        self.sum_ms += sum_ms

    def family(self, bounds_ms: Sequence[int], places: Sequence[int]) -> list[tuple[str, float]]:
        """Cumulative, as prometheus-client takes it, of some of the bounds."""
        upto = list(accumulate(self.counts))
        found = [
            (repr(bound / 1000), float(upto[place])) for bound, place in zip(bounds_ms, places, strict=True)
        ]
        return [*found, ("+Inf", float(upto[-1]))]


def _counted(values_ms: Sequence[int]) -> list[int]:
    """Counts by bucket of a list, with one bisection for each bucket and not for each value."""
    ordered = sorted(values_ms)
    counts = [0] * (len(LATENESS_BUCKETS_MS) + 1)
    below = 0
    for index, bound in enumerate(LATENESS_BUCKETS_MS):
        up_to = bisect_right(ordered, bound, lo=below)
        counts[index] = up_to - below
        below = up_to
        if below == len(ordered):
            return counts
    counts[-1] = len(ordered) - below
    return counts


class Lateness(Collector):
    """Both histograms; the second one by destination, too, with fewer bounds."""

    def __init__(self, destinations: BoundedLabels) -> None:
        self._destinations = destinations
        self._lock = threading.Lock()
        self._lateness = _Histogram()
        self._delay = _Histogram()
        self._of_destination: dict[str, _Histogram] = {}

    def add(self, destination: str, fires: Fires) -> None:
        """Count the fires of one transaction to one destination."""
        late, late_ms = _counted(fires.lateness_ms), sum(fires.lateness_ms)
        delayed, delayed_ms = late, late_ms
        if fires.excused:
            # Nearly all became fireable at their due times: only the others are counted anew.
            before = _counted([lateness_ms for lateness_ms, _ in fires.excused])
            after = _counted([delay_ms for _, delay_ms in fires.excused])
            delayed = [all_ - old + new for all_, old, new in zip(late, before, after, strict=True)]
            delayed_ms += sum([delay_ms - lateness_ms for lateness_ms, delay_ms in fires.excused])
        label = self._destinations.of(destination)
        with self._lock:
            self._lateness.add(late, late_ms)
            self._delay.add(delayed, delayed_ms)
            own = self._of_destination.get(label)
            if own is None:
                own = self._of_destination[label] = _Histogram()
            own.add(delayed, delayed_ms)

    def collect(self) -> Iterator[Metric]:
        """See prometheus-client."""
        everywhere = range(len(LATENESS_BUCKETS_MS))
        with self._lock:
            yield HistogramMetricFamily(
                "delaystream_fire_lateness_seconds",
                "How long after its due time each record was fired, committed fires only.",
                buckets=self._lateness.family(LATENESS_BUCKETS_MS, everywhere),
                sum_value=self._lateness.sum_ms / 1000,
            )
            yield HistogramMetricFamily(
                "delaystream_fire_delay_seconds",
                "How long after it became fireable each record was fired: after the latest of its due time, "
                "its request, the last command for it, and the end of a hold, of a rate's wait or of a wait "
                "for its destination. Committed fires only; an outage counts in full.",
                buckets=self._delay.family(LATENESS_BUCKETS_MS, everywhere),
                sum_value=self._delay.sum_ms / 1000,
            )
            by_destination = HistogramMetricFamily(
                "delaystream_destination_fire_delay_seconds",
                "The same as delaystream_fire_delay_seconds, by destination.",
                labels=["destination"],
            )
            for destination, histogram in self._of_destination.items():
                buckets = histogram.family(DESTINATION_BUCKETS_MS, _PLACES)
                by_destination.add_metric([destination], buckets, histogram.sum_ms / 1000)
            yield by_destination
