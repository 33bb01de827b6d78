"""The worked example of docs/client.md, killed at random: each order has one request, and one delivery."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from delaystream.client import Place
from examples.exactly_once import decide
from tests.integration.harness import Deployment, wait
from tests.integration.harness_kafka import Headers

ROOT = Path(__file__).resolve().parents[2]
ORDERS = 1_500
KILLS = 6

RUN = """
import sys
from datetime import timedelta
from examples.exactly_once import run
servers, orders, reminders, requests = sys.argv[1:]
run(servers, orders, reminders, requests, timedelta(0))
"""


def test_what_is_decided_is_a_function_of_the_order() -> None:
    place = Place("requests", partitions=7)
    order = {"event": "placed", "number": 5, "customer": "c"}
    placed = decide(place, "reminders", order, timedelta(days=3))
    paid = decide(place, "reminders", {**order, "event": "paid"}, timedelta(days=3))
    assert (placed.id, placed.key, json.loads(placed.value or b"")) == ("reminder-5", b"c", order)
    assert placed.partition == paid.partition
    assert ("delaystream-action", b"cancel") in paid.headers


@pytest.mark.timeout(180)
def test_every_order_is_scheduled_once_whenever_the_process_is_killed(app: Deployment) -> None:
    """Killed by SIGKILL when so many requests more are there: in the middle of a transaction, mostly.

    An id would hide a request that was sent twice, so the request topic itself is the ledger.
    """
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    drawn = random.Random(seed)
    orders = app.kafka.create(app.topic(f"orders-{uuid4().hex}"), 3)
    requests = app.kafka.create(app.topic(f"ledger-{uuid4().hex}"), 4)
    records: list[tuple[bytes | None, bytes, Headers]] = [
        (None, json.dumps({"event": "placed", "number": number, "customer": f"c{number % 7}"}).encode(), [])
        for number in range(ORDERS)
    ]
    app.kafka.produce(orders, records)

    def done() -> bool:
        return sum(max(at, 0) for at in app.kafka.committed(f"{orders}-reminders", orders)) == ORDERS

    command = [sys.executable, "-c", RUN, app.kafka.bootstrap, orders, "reminders", requests]
    for at in [*sorted(drawn.sample(range(1, ORDERS), KILLS)), ORDERS]:
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:

            def reached(at: int = at, process: subprocess.Popen[str] = process) -> bool:
                assert process.poll() is None, process.stderr.read() if process.stderr else ""
                # Also what is not committed counts, and the markers of transactions.
                return sum(app.kafka.end_offsets(requests)) >= at if at < ORDERS else done()

            try:
                wait(reached, f"{at} requests", 60, every=0.005)
            finally:
                process.kill()
    sent = Counter(json.loads(record.value or b"{}")["number"] for record in app.kafka.read(requests, ORDERS))
    assert sent == Counter(range(ORDERS))
    with app.reader(requests) as reader:
        reader.take(ORDERS)
        reader.quiet(1.0)
