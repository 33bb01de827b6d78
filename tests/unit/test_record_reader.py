"""Fetched bytes are let go of as soon as they were read."""

from __future__ import annotations

import gc
import weakref

from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from delaystream.adapters.record_reader import RecordReader


def test_a_response_is_freed_without_the_collector() -> None:
    """A full collection is rare here, and until then each response would hold a megabyte."""
    records = MemoryRecords(b"")
    fetched = PartitionRecords(TopicPartition("t", 0), records, None, 0, None, None, True, READ_COMMITTED)
    alive = weakref.ref(fetched)
    gc.disable()
    try:
        reader = RecordReader(fetched)
        del fetched
        assert reader.take(10, 1_000).records == []
        del reader
        assert alive() is None
    finally:
        gc.enable()
