"""A sample producer: ordinary records whose headers say when and where; nothing here knows delaystream.

REQUESTS_PER_SECOND requests to `delay-requests` on BOOTSTRAP_SERVERS, until SIGTERM: most are due within half
a minute, some at once, some in an hour. A few are named, and then replaced or cancelled. One in a hundred is
wrong, to show a dead letter. With REQUESTS it ends after this number.
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


def request(number: int) -> tuple[str, Sequence[tuple[str, str]]]:
    """Key and headers of the sample's n-th request."""
    key, order = f"customer-{number % 50}", f"order-{number // 100}"
    to = ("delaystream-destination", "reminders")
    kind = number % 100
    if kind == 0:  # a unit is missing: is it seconds or milliseconds?
        return key, [to, ("delaystream-delay", "30")]
    if kind < 10:
        return key, [to, ("delaystream-delay", "0")]
    if kind < 20:
        return key, [to, ("delaystream-delay", "1h")]
    # Requests for one id have the same key, because requests on one partition apply in their order.
    if kind < 30:
        return order, [to, ("delaystream-delay", "20s"), ("delaystream-id", f"{order}-{kind % 3}")]
    if kind == 30:
        return order, [("delaystream-action", "cancel"), ("delaystream-id", f"{order}-1")]
    delay = f"{random.randint(200, 30_000)}ms"
    return key, [to, ("delaystream-delay", delay), ("content-type", "text/plain")]


def main() -> int:
    """Send at a steady rate; wait while a broker is down."""
    rate = float(os.environ.get("REQUESTS_PER_SECOND", "20"))
    most = int(os.environ.get("REQUESTS", "0"))
    producer = Producer({"bootstrap.servers": os.environ["BOOTSTRAP_SERVERS"], "linger.ms": 20})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    began, number = time.monotonic(), 0
    try:
        while not most or number < most:
            number += 1
            key, headers = request(number)
            producer.produce(TOPIC, f"reminder {number}", key, headers=list(headers))
            producer.poll(max(0.0, began + number / rate - time.monotonic()))
    finally:
        producer.flush(10)
    return 0


if __name__ == "__main__":
    sys.exit(main())
