"""What Prometheus sees of a worker's surroundings: the disk of its state, and its clock beside the brokers'.

Measured here because nobody else can: a volume's own metrics do not say which one a worker writes to, and a
clock that is wrong makes every fire early or late without a trace in the lateness, which is counted by it.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

#: POSIX counts what a file occupies in blocks of this size (st_blocks)
_BLOCK_BYTES: Final = 512


class StateDisk(Collector):
    """The data directory and the file system that it is on; looked at when Prometheus asks."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        """Nothing of a directory that cannot be read: absence is what an alert can see."""
        used = GaugeMetricFamily("delaystream_state_bytes", "Disk space that local state occupies.")
        free = GaugeMetricFamily(
            "delaystream_state_disk_free_bytes", "Free space for local state, on the disk that it is on."
        )
        size = GaugeMetricFamily("delaystream_state_disk_size_bytes", "Size of the disk of local state.")
        try:
            disk = shutil.disk_usage(self._directory)
        except OSError:
            pass
        else:
            used.add_metric([], _occupied_bytes(self._directory))
            free.add_metric([], disk.free)
            size.add_metric([], disk.total)
        yield from (used, free, size)


class ClockSkew(Collector):
    """How far this worker's clock is ahead of the brokers', as far as their append times prove it.

    A record in a topic with ``message.timestamp.type=LogAppendTime`` is answered with the time at which its
    broker appended it, by the broker's clock. That was between the moments of sending and of the answer: what
    lies outside of these bounds is skew, what lies within may be travel time and counts as none. So a slow
    broker, or a worker that stood still, makes the measure coarser but never wrong.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._skew_ms: dict[int, int] = {}

    def appended(self, broker: int, sent_ms: int, answered_ms: int, append_ms: int) -> None:
        """Take note of one answer; all times in ms since the epoch, ``append_ms`` by the broker's clock."""
        if append_ms < sent_ms:
            skew_ms = sent_ms - append_ms
        elif append_ms > answered_ms:
            skew_ms = answered_ms - append_ms
        else:
            skew_ms = 0
        with self._lock:
            self._skew_ms[broker] = skew_ms

    def skew_ms(self, broker: int) -> int | None:
        """How far our clock was ahead of a broker's when it last answered, ms; None if it never has."""
        with self._lock:
            return self._skew_ms.get(broker)

    def collect(self) -> Iterator[Metric]:
        """One sample for each broker that has answered; brokers are few."""
        skew = GaugeMetricFamily(
            "delaystream_clock_skew_seconds",
            "How far this worker's clock is ahead of a broker's (negative: behind), by its append times.",
            labels=["broker"],
        )
        with self._lock:
            for broker, skew_ms in sorted(self._skew_ms.items()):
                skew.add_metric([str(broker)], skew_ms / 1000)
        yield skew


def _occupied_bytes(directory: Path) -> int:
    """Bytes on disk of all files below; one that vanishes meanwhile, as compaction has it, is not counted."""
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_blocks * _BLOCK_BYTES
            except OSError:
                continue
    return total
