"""Rows and events of a real worker, written once more: ``python -m tests.benchmarks.console.replaying SPEC``.

``collect`` keeps the first records of a topic in a file. ``write`` brings them back in one transaction, which
a reader sees as a whole: as they were, as tombstones, or as a fire of a recurring schedule leaves its row.
So it is a console's own pace that is measured, and not that of the worker which writes.
"""

from __future__ import annotations

import json
import pickle
import sys
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from msgspec.structs import replace

from delaystream.codec import keys
from delaystream.codec.envelope import Fire, Schedule, decode_schedule, encode

Kept = tuple[int, bytes | None, bytes]
"""Partition, key and value of a record."""

_DAY_MS: Final = 86_400_000
_PATIENCE_S: Final = 60
_DUE_AT: Final = slice(5, 13)


def _is_unnamed(key: bytes | None) -> bool:
    return key is not None and key[:1] == b"w" and key >= keys.wheel_bound(keys.HOUSEKEEPING + 1)


def _recurs(key: bytes | None, value: bytes) -> bool:
    return key is not None and key[:1] == b"s" and decode_schedule(value).recurrence is not None


CHOSEN: Final[dict[str, Callable[[bytes | None, bytes], bool]]] = {
    "unnamed": lambda key, _: _is_unnamed(key),
    "recurring": _recurs,
    "all": lambda _, __: True,
}


def collect(bootstrap: str, topic: str, path: str, chosen: str, count: int) -> dict[str, Any]:
    """Keep up to ``count`` records that are `CHOSEN`, from the topic's beginning; tells how many."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"collect-{topic}",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
    kept: list[Kept] = []
    ended: set[int] = set()
    fits, until = CHOSEN[chosen], time.monotonic() + _PATIENCE_S
    while len(kept) < count and len(ended) < len(partitions):
        if time.monotonic() > until:
            raise TimeoutError(f"{topic} brought {len(kept)} records in {_PATIENCE_S} s")
        for message in consumer.consume(10_000, timeout=0.2):
            partition, value = message.partition(), message.value()
            assert partition is not None
            if message.error():
                ended.add(partition)
            elif value is not None and fits(message.key(), value):
                kept.append((partition, message.key(), value))
    consumer.close()
    del kept[count:]
    Path(path).write_bytes(pickle.dumps(kept))
    return {"kept": len(kept)}


def _fired(value: bytes, now_ms: int) -> bytes:
    """The row that a fire leaves: the schedule comes again a day later."""
    row = decode_schedule(value)
    due_ms = keys.due_of(row.pending[0])
    later = [entry[:5] + (due_ms + _DAY_MS).to_bytes(8) + entry[13:] for entry in row.pending]
    fire = Fire(due_ms, now_ms, row.revision)
    changed: Schedule = replace(
        row,
        pending=later,
        next_ms=row.next_ms + _DAY_MS,
        fire_count=row.fire_count + 1,
        run_count=row.run_count + 1,
        last_fired_ms=now_ms,
        history=[*row.history, fire],
    )
    return encode(changed)


def write(bootstrap: str, topic: str, path: str, kind: str, count: int) -> dict[str, Any]:
    """Write ``count`` of what was kept, over and over, as ``kind`` says: kept, gone, or fired.

    Tells when the transaction was committed.
    """
    kept: list[Kept] = pickle.loads(Path(path).read_bytes())  # its own file
    now_ms = int(time.time() * 1000)
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": f"replay-{topic}",
            "transaction.timeout.ms": 600_000,
            "linger.ms": 20,
            "batch.size": 262_144,
            "queue.buffering.max.messages": 200_000,
        }
    )
    producer.init_transactions(60)
    producer.begin_transaction()
    for number, (partition, key, value) in enumerate(islice(cycle(kept), count)):
        row = None if kind == "gone" else _fired(value, now_ms) if kind == "fired" else value
        while True:
            try:
                producer.produce(topic, row, key, partition=partition)
                break
            except BufferError:
                producer.poll(0.05)
        if number % 2_000 == 0:
            producer.poll(0)
    producer.flush(300)
    began = time.time()
    producer.commit_transaction(300)
    return {"written": count, "began": began, "committed": time.time()}


def main() -> None:
    """Carry out what the first argument describes."""
    spec = json.loads(sys.argv[1])
    shapes: dict[str, Callable[..., dict[str, Any]]] = {"collect": collect, "write": write}
    print(json.dumps(shapes[spec.pop("shape")](**spec)), flush=True)


if __name__ == "__main__":
    main()
