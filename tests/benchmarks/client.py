"""The client: requests a second from one process, beside a plain producer of the same records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from tests.benchmarks.bench import Bench, Row
from tests.integration.harness import Deployment

_IN_FLIGHT = 1_000


def sending(bench: Bench) -> Iterator[Row]:
    """Requests without receipts on a topic that nobody reads, then with receipts from a worker."""
    count = bench.count(500_000)
    with bench.deployment() as deployment:
        out = deployment.destination("out", 4)
        # Nobody reads it: what is measured is the client, and not a worker beside it.
        topic = bench.kafka.create(deployment.topic(f"unread-{uuid4().hex[:6]}"), 4)
        plain = _measured(bench, deployment, out, topic, "plain", count)
        ceiling = {
            "plain_per_second": round(plain["per_second"]),
            "plain_processor_us": round(plain["processor_us"], 2),
        }
        # aiokafka makes a future and a batch entry of each record in Python: some 40 µs of one core,
        # which are 25,000 a second at most. Less than 15,000 is something of ours that has become slow.
        for name, way, ids, limit in (
            ("client", "blocking", False, 50_000),
            ("client, ids", "blocking", True, 50_000),
            ("client, async", "asynchronous", False, 15_000),
        ):
            took = _measured(bench, deployment, out, topic, way, count, ids=ids)
            what = f"{count:,} requests from one process, checked and acknowledged"
            yield _row(name, what, took, limit, ceiling)
        deployment.worker().wait_ready()
        count = bench.count(100_000)
        for name, way in (("client, receipts", "receipts"), ("client, async receipts", "asynchronous")):
            took = _measured(bench, deployment, out, deployment.requests, way, count, in_flight=_IN_FLIGHT)
            what = f"{count:,} receipts of a worker awaited, {_IN_FLIGHT:,} in flight"
            yield _row(name, what, took, 2_000, {})


def _measured(
    bench: Bench, deployment: Deployment, out: str, topic: str, way: str, count: int, **spec: Any
) -> dict[str, Any]:
    named = {"ids": False, "in_flight": 0, "reply_to": deployment.receipts, **spec}
    return bench.start("clients", way=way, topic=topic, destination=out, count=count, **named).result()


def _row(name: str, what: str, took: dict[str, Any], limit: float, detail: dict[str, Any]) -> Row:
    figures = {"per_second": round(took["per_second"]), "processor_us": round(took["processor_us"], 2)}
    return Row(name, what, took["per_second"], "requests/s", limit, True, {**figures, **detail})
