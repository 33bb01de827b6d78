"""The histogram of lateness, which is what users notice."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

#: Upper bounds of the lateness buckets, ms: from the length of a tick to that of an outage.
LATENESS_BUCKETS_MS: Final = (
    1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 250, 500,
    1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000,
)  # fmt: skip


class Lateness(Collector):
    """A histogram that takes a list at once: one bisection for each bucket, not for each record."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = [0] * (len(LATENESS_BUCKETS_MS) + 1)
        self._sum_ms = 0

    def add(self, lateness_ms: Sequence[int]) -> None:
        """Count a list of fires; ms."""
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
        """See prometheus-client."""
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
