"""What is unread on the source partitions, and whether somebody's open transaction holds up what is there."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from delaystream.adapters.kafka.source_bounds import SourceEnds
from delaystream.engine.ports import TopicPartition

logger = logging.getLogger(__name__)

#: A transaction that is open for so long on a source partition is told in the log, and again when it ends.
_TOLD_AFTER_S: Final = 10.0


class _Stands(NamedTuple):
    """A last stable offset before the end of the log, since when (monotonic, s), and whether it was told."""

    offset: int
    since_s: float
    told: bool = False


class SourceBacklog(Collector):
    """The ends of the source partitions that are read here, against how far they were applied.

    Ends are looked up now and then, by the event loop's thread; positions come with each transaction.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._positions: dict[int, dict[str, int]] = {}
        self._ends: Mapping[TopicPartition, SourceEnds] = {}
        self._standing: dict[TopicPartition, _Stands] = {}

    def read(self, partition: int, positions: Mapping[str, int]) -> None:
        """The next offset to apply, by source topic; of those that have moved."""
        with self._lock:
            self._positions.setdefault(partition, {}).update(positions)

    def forget(self, partition: int) -> None:
        """Remove a partition that was released."""
        with self._lock:
            self._positions.pop(partition, None)

    def found(self, ends: Mapping[TopicPartition, SourceEnds]) -> None:
        """Take the ends of all source partitions that are read here, as they were just looked up."""
        now_s = self._monotonic()
        standing: dict[TopicPartition, _Stands] = {}
        for source, (high_watermark, last_stable_offset) in ends.items():
            before = self._standing.get(source)
            if last_stable_offset >= high_watermark:
                stands = None
            elif before is None or before.offset != last_stable_offset:
                stands = _Stands(last_stable_offset, now_s)
            else:
                stands = before
            if before is not None and before.told and (stands is None or not stands.told):
                logger.info("%s-%d: its requests can be read on", *source)
            if stands is None:
                continue
            if not stands.told and now_s - stands.since_s >= _TOLD_AFTER_S:
                stands = _Stands(stands.offset, stands.since_s, told=True)
                logger.warning(
                    "%s-%d: a transaction that somebody has left open for %.0f s holds up its requests from "
                    "offset %d on (%d of %d offsets are beyond it): runbook requests-held-up",
                    *source,
                    now_s - stands.since_s,
                    last_stable_offset,
                    high_watermark - last_stable_offset,
                    high_watermark,
                )
            standing[source] = stands
        with self._lock:
            self._ends, self._standing = dict(ends), standing

    def collect(self) -> Iterator[Metric]:
        """See prometheus-client."""
        unread = GaugeMetricFamily(
            "delaystream_unread_requests",
            "Offsets of a request topic or the commands topic that were not read yet: up to so many "
            "requests. Those behind an open transaction count.",
            labels=["topic", "partition"],
        )
        stuck = GaugeMetricFamily(
            "delaystream_last_stable_offset_stuck_seconds",
            "For how long a producer's open transaction has held up the requests behind it on a partition; "
            "0: none does.",
            labels=["topic", "partition"],
        )
        now_s = self._monotonic()
        with self._lock:
            for source, ends in sorted(self._ends.items()):
                position = self._positions.get(source.partition, {}).get(source.topic)
                if position is None:
                    continue
                labels = [source.topic, str(source.partition)]
                unread.add_metric(labels, max(0, ends.high_watermark - position))
                stands = self._standing.get(source)
                stuck.add_metric(labels, 0 if stands is None else now_s - stands.since_s)
        yield unread
        yield stuck
