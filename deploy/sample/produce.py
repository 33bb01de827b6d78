"""A sample producer: ordinary records whose headers say when and where; nothing here knows delaystream.

REQUESTS_PER_SECOND requests to `delay-requests` on BOOTSTRAP_SERVERS, until SIGTERM: most due within half a
minute, some at once, some in an hour; a few are named and then replaced or cancelled; one in a hundred is
wrong, to show what a dead letter is. With REQUESTS it ends after so many.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Sequence

from confluent_kafka import Producer

TOPIC = "delay-requests"


def request(number: int) -> Sequence[tuple[str, str]]:
    """The headers of the sample's n-th request."""
    to = ("delaystream-destination", "reminders")
    kind = number % 100
    if kind == 0:  # a unit is missing: is it seconds or milliseconds?
        return [to, ("delaystream-delay", "30")]
    if kind < 10:
        return [to, ("delaystream-delay", "0")]
    if kind < 20:
        return [to, ("delaystream-delay", "1h")]
    if kind < 30:
        return [to, ("delaystream-delay", "20s"), ("delaystream-id", f"order-{number // 100}-{kind % 3}")]
    if kind == 30:
        return [("delaystream-action", "cancel"), ("delaystream-id", f"order-{number // 100}-1")]
    return [to, ("delaystream-delay", f"{random.randint(200, 30_000)}ms"), ("content-type", "text/plain")]


def main() -> int:
    """Send at a steady rate; a broker that is away for a while is waited for."""
    rate = float(os.environ.get("REQUESTS_PER_SECOND", "20"))
    most = int(os.environ.get("REQUESTS", "0"))
    producer = Producer({"bootstrap.servers": os.environ["BOOTSTRAP_SERVERS"], "linger.ms": 20})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    began, number = time.monotonic(), 0
    try:
        while not most or number < most:
            number += 1
            producer.produce(
                TOPIC,
                key=f"customer-{number % 50}",
                value=f"reminder {number}",
                headers=list(request(number)),
            )
            producer.poll(max(0.0, began + number / rate - time.monotonic()))
    finally:
        producer.flush(10)
    return 0


if __name__ == "__main__":
    sys.exit(main())
