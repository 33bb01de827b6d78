"""The ceiling, a process of its own: a plain loop that copies records inside transactions.

``python -m tests.benchmarks.copying SPEC``: consume up to 8,000 records, produce them with their headers,
commit them and the offsets in one transaction; again until ``count`` are copied. This is what librdkafka
(confluent-kafka) does on this machine with these very records when there is nothing to decide and nothing
to store.
"""

from __future__ import annotations

import json
import sys
import time

from confluent_kafka import Consumer, Message, Producer

from delaystream.client.kafka.deliveries import raw_headers


def copy(bootstrap: str, source: str, target: str, count: int, transaction: int = 8_000) -> dict[str, float]:
    """Copy ``count`` records; seconds from the first record in hand to the last commit."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"copy-{target}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": f"copy-{target}"})
    producer.init_transactions(60)
    consumer.subscribe([source])
    copied = 0
    batch: list[Message] = []
    while not batch:
        batch = consumer.consume(1, timeout=1.0)
    start, cpu = time.perf_counter(), time.process_time()
    while copied < count:
        if batch:
            producer.begin_transaction()
            for message in batch:
                if message.error():
                    raise RuntimeError(message.error())
                producer.produce(
                    target,
                    message.value(),
                    message.key(),
                    partition=message.partition() or 0,
                    headers=raw_headers(message),
                )
            positions = consumer.position(consumer.assignment())
            producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata(), 60)
            producer.commit_transaction(60)
            copied += len(batch)
        batch = consumer.consume(min(transaction, max(count - copied, 1)), timeout=1.0)
    seconds = time.perf_counter() - start
    cpu_seconds = time.process_time() - cpu
    consumer.close()
    return {"records": copied, "seconds": seconds, "per_second": copied / seconds, "cpu_seconds": cpu_seconds}


def main() -> None:
    """Carry out the one copy that the first argument describes."""
    print(json.dumps(copy(**json.loads(sys.argv[1]))), flush=True)


if __name__ == "__main__":
    main()
