"""The requests of the scenario: ``python -m tests.benchmarks.console.requesting SPEC`` with a JSON object.

A JSON object on standard output tells how many were sent, and when.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from confluent_kafka import Producer

from delaystream.core.partitioning import owner_partition
from tests.benchmarks import records
from tests.benchmarks.console import vocabulary

_DAY_MS = 86_400_000
_LATER_MS = 10


def send(
    bootstrap: str, topic: str, destinations: str, count: int, due_ms: int, partitions: int
) -> dict[str, Any]:
    """Send ``count`` requests, due within a day from ``due_ms`` on.

    With ``partitions`` they have ids, and stand on the partition that owns theirs; 0: they have none.
    """
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "linger.ms": 20,
            "batch.size": 262_144,
            "queue.buffering.max.messages": 200_000,
        }
    )
    started = time.time()
    make = vocabulary.named if partitions else vocabulary.unnamed
    for sequence in range(count):
        due = due_ms + sequence * _LATER_MS % _DAY_MS
        key, headers = make(destinations, sequence, due)
        where = owner_partition(vocabulary.id_of(sequence), partitions) if partitions else sequence % 4
        while True:
            try:
                value = records.value(due, sequence)
                producer.produce(topic, value, key, partition=where, headers=headers)
                break
            except BufferError:
                producer.poll(0.05)
        if sequence % 2_000 == 0:
            producer.poll(0)
    if producer.flush(300):
        raise TimeoutError(f"requests were still unsent to {topic} after 300 s")
    return {"sent": count, "started": started, "finished": time.time()}


if __name__ == "__main__":
    print(json.dumps(send(**json.loads(sys.argv[1]))), flush=True)
