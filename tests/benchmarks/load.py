"""The load generator, a process of its own: ``python -m tests.benchmarks.load SPEC`` with a JSON object.

Three shapes. ``bulk`` sends ``count`` requests as fast as it can, by default in one transaction, so that a
read_committed reader sees all of them at once. ``paced`` sends ``rate`` requests a second for ``seconds``,
with delays drawn evenly from ``delay_ms``. ``command`` sends one request. A JSON object on standard output
tells what was sent.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import Producer

from tests.benchmarks import records

_TICK_SECONDS = 0.005
_TRANSACTION_SECONDS = 840


def _producer(bootstrap: str, **settings: Any) -> Producer:
    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": 200_000,
            "queue.buffering.max.kbytes": 262_144,
            **settings,
        }
    )


def bulk(
    bootstrap: str,
    topic: str,
    destination: str,
    count: int,
    due_ms: int,
    spread_ms: int = 0,
    first: int = 0,
    transactional: bool = True,
    id_prefix: str = "",
    expressions: int = 0,
    keyed: bool = False,
) -> dict[str, float]:
    """Send ``count`` requests due at ``due_ms`` + (sequence mod ``spread_ms``).

    With an ``id_prefix`` they are named; ``keyed``: and the id is the key, which takes them to their owners
    (Java's default partitioner); with ``expressions`` they are cron schedules, so many different ones
    between them, that have the minute which begins at ``due_ms`` in common.
    """
    settings: dict[str, Any] = {"linger.ms": 20, "batch.size": 262_144}
    if transactional:
        settings |= {
            "transactional.id": f"load-{topic}-{first}",
            "transaction.timeout.ms": _TRANSACTION_SECONDS * 1000,
        }
    producer = _producer(bootstrap, **settings)
    if transactional:
        producer.init_transactions(60)
        producer.begin_transaction()
    started = time.time()
    produce, value, key = producer.produce, records.value, records.key
    prefix, id = id_prefix.encode(), b""
    for sequence in range(first, first + count):
        due = due_ms + sequence % spread_ms if spread_ms else due_ms
        when = ("delaystream-at", b"%d" % due)
        if expressions:
            when = ("delaystream-cron", records.cron(due_ms, sequence % expressions))
        headers = records.headers(destination, when)
        if id_prefix:
            id = b"%b%d" % (prefix, sequence)
            headers.append(("delaystream-id", id))
        while True:
            try:
                produce(topic, value(due, sequence), id if keyed else key(sequence), headers=headers)
                break
            except BufferError:
                producer.poll(0.05)
        if sequence % 2_000 == 0:
            producer.poll(0)
    if transactional:
        producer.commit_transaction(300)
    elif producer.flush(300):
        raise TimeoutError(f"requests were still unsent to {topic} after 300 s")
    return {"sent": count, "started": started, "finished": time.time()}


def paced(
    bootstrap: str,
    topic: str,
    destination: str,
    rate: int,
    seconds: float,
    delay_ms: tuple[int, int],
    seed: int = 1,
    first: int = 0,
    id_prefix: str = "",
) -> dict[str, float]:
    """Send at an even rate; what the machine could not send in time is sent late, and told as ``behind``.

    With an ``id_prefix`` they are named, and the id is the key, which takes them to their owners.
    """
    producer = _producer(bootstrap, **{"linger.ms": 2})
    choose = random.Random(seed).randint
    low, high = delay_ms
    started = time.time()
    start, sent, behind, total = time.monotonic(), 0, 0.0, int(rate * seconds)
    while sent < total:
        due_count = min(total, int((time.monotonic() - start) * rate))
        behind = max(behind, (due_count - sent) / rate)
        now_ms = int(time.time() * 1000)
        for sequence in range(first + sent, first + due_count):
            delay = choose(low, high)
            headers = records.headers(destination, ("delaystream-delay", b"%dms" % delay))
            key = records.key(sequence)
            if id_prefix:
                key = b"%b%d" % (id_prefix.encode(), sequence)
                headers.append(("delaystream-id", key))
            value = records.value(now_ms + delay, sequence)
            producer.produce(topic, value, key, timestamp=now_ms, headers=headers)
        sent = due_count
        producer.poll(0)
        time.sleep(_TICK_SECONDS)
    if producer.flush(60):
        raise TimeoutError(f"requests were still unsent to {topic} after 60 s")
    return {"sent": sent, "started": started, "finished": time.time(), "behind": behind}


def command(bootstrap: str, topic: str, headers: dict[str, str]) -> dict[str, float]:
    """Send one request that has nothing but headers."""
    producer = _producer(bootstrap)
    started = time.time()
    producer.produce(topic, None, None, headers=dict(headers))
    if producer.flush(60):
        raise TimeoutError(f"a command was still unsent to {topic} after 60 s")
    return {"sent": 1, "started": started, "finished": time.time()}


def main() -> None:
    """Carry out the one load that the first argument describes."""
    spec = json.loads(sys.argv[1])
    shapes: dict[str, Callable[..., dict[str, float]]] = {"bulk": bulk, "paced": paced, "command": command}
    print(json.dumps(shapes[spec.pop("shape")](**spec)), flush=True)


if __name__ == "__main__":
    main()
