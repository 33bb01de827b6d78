"""Metrics of a worker's surroundings: the disk of its state, and its clock compared with the brokers'.

Only the worker can measure them. A volume's own metrics do not say which worker writes to it. A wrong clock
makes every fire early or late, and the lateness does not show it, because the same clock measures it.
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
    """The data directory and its file system; read when Prometheus asks."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        """Collect nothing for a directory that cannot be read: an alert can see the absence."""
        used = GaugeMetricFamily("delaystream_state_bytes", "Disk space that local state occupies.")
        free = GaugeMetricFamily(
            "delaystream_state_disk_free_bytes", "Free space on the disk of local state."
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
    """How far this worker's clock is ahead of the brokers' clocks, as proven by their append times.

    For a topic with ``message.timestamp.type=LogAppendTime``, a broker's answer has the time at which it
    appended the record, by its own clock. The append was between the sending and the answer. A time outside
    of these bounds is skew. A time within them may be travel time, and counts as no skew. So a slow broker,
    or a worker that stood still, makes the measure coarser but never wrong.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._skew_ms: dict[int, int] = {}

    def appended(self, broker: int, sent_ms: int, answered_ms: int, append_ms: int) -> None:
        """Record one answer; all times in ms since the epoch, ``append_ms`` by the broker's clock."""
        if append_ms < sent_ms:
            skew_ms = sent_ms - append_ms
        elif append_ms > answered_ms:
            skew_ms = answered_ms - append_ms
        else:
            skew_ms = 0
        with self._lock:
            self._skew_ms[broker] = skew_ms

    def skew_ms(self, broker: int) -> int | None:
        """How far our clock was ahead of a broker's at its last answer, ms; None if it never answered."""
        with self._lock:
            return self._skew_ms.get(broker)

    def collect(self) -> Iterator[Metric]:
        """One sample for each broker that has answered; there are few brokers."""
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
    """Bytes on disk of all files below. A file that vanishes meanwhile, in a compaction, is not counted."""
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_blocks * _BLOCK_BYTES
            except OSError:
                continue
    return total
