"""The reader of a destination, a process of its own: ``python -m tests.benchmarks.arrivals SPEC``.

Reads one topic as any read_committed consumer does and writes, for each record, four numbers: due time, the
broker's append time and the time of receipt (ms each), and the sequence number. It ends once ``count``
records were read and ``linger`` seconds brought no more (so that a duplicate shows), or after ``patience``
seconds without any.
"""

from __future__ import annotations

import json
import sys
import time
from array import array
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from tests.benchmarks.records import STAMP


def read(
    bootstrap: str, topic: str, path: str, count: int, linger: float = 1.0, patience: float = 60.0
) -> dict[str, Any]:
    """Read from the topic's beginning; ``path`` gets the numbers as native 64-bit integers."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"arrivals-{topic}",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 100,
        }
    )
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
    rows, unpack, now = array("q"), STAMP.unpack_from, time.time
    last, seen = now(), 0
    while now() - last < (linger if seen >= count else patience):
        # consume() waits for its full count, so the first record is waited for alone.
        first = consumer.poll(0.1)
        if first is None:
            continue
        received = int(now() * 1000)
        batch = [first, *consumer.consume(2_000, timeout=0)]
        for message in batch:
            if message.error():
                raise RuntimeError(message.error())
            due_ms, sequence = unpack(message.value() or b"")
            rows.extend((due_ms, message.timestamp()[1], received, sequence))
        seen += len(batch)
        last = now()
    consumer.close()
    with open(path, "wb") as file:
        rows.tofile(file)
    return {"read": seen}


def main() -> None:
    """Carry out the one reading that the first argument describes."""
    print(json.dumps(read(**json.loads(sys.argv[1]))), flush=True)


if __name__ == "__main__":
    main()
