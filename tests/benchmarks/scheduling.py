"""Named and recurring schedules: a million of them, a full minute, a cancel of all, the cost of events."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from tests.benchmarks.bench import Arrivals, Bench, Row, Sampler, percentiles
from tests.integration.harness import Deployment, Worker

_MINUTE_MS = 60_000
_DAY_MS = 24 * 3_600_000


def _ahead_ms(count: int, per_second: int = 6_000) -> int:
    """A time by which so many requests can be sent, and at this rate accepted."""
    return int((time.time() + 25 + count / per_second) * 1000)


def _in_time(accepted: float, due_ms: int) -> None:
    if accepted * 1000 > due_ms:
        raise RuntimeError(f"accepting took until {accepted:.0f}, past the due time {due_ms / 1000:.0f}")


def _fired(
    bench: Bench, worker: Worker, out: str, count: int, due_ms: int
) -> tuple[Arrivals, float, dict[str, Any]]:
    """What was delivered, at which rate, and what it took."""
    with Sampler(worker) as sampler:
        bench.wait_delivered(out, count, 600 + due_ms / 1000 - time.time())
    arrivals = bench.arrivals(out, count)
    last_ms = int(arrivals.appended_ms.max())
    sampler.seconds = (last_ms - due_ms) / 1000
    rate = count / max(last_ms - due_ms, 1) * 1000
    return arrivals, rate, {**sampler.figures(), **arrivals.faults(count)}


def named(bench: Bench) -> Iterator[Row]:
    """1M requests with ids, with an event each, beside as many without: accepted, then fired at one instant.

    Where the key is the id, they are at their owners; else they are re-routed, which is a record more.
    """
    count = bench.count(1_000_000)
    accept, fire, facts, firing = _accept_and_fire(bench, count, 25_000)
    plain = {"accepted_per_second": round(accept), "fired_per_second": round(fire)}
    for name, keyed, slowest, limit in (
        ("key is the id", True, 15_000, 0.45),
        ("re-routed", False, 8_000, 0.2),
    ):
        own_accept, own_fire, facts, firing = _accept_and_fire(
            bench, count, slowest, id_prefix="job-", keyed=keyed
        )
        yield Row(
            f"named: accept, {name}",
            f"{count:,} requests with ids, against as many without",
            own_accept / accept,
            "x plain",
            limit,
            True,
            {"per_second": round(own_accept), "plain": plain, **facts},
        )
        yield Row(
            f"named: fire, {name}",
            f"{count:,} with ids due at once, against as many without",
            own_fire / fire,
            "x plain",
            limit,
            True,
            {"per_second": round(own_fire), "plain": plain, **firing},
        )


def _accept_and_fire(
    bench: Bench, count: int, slowest: int, **load: Any
) -> tuple[float, float, dict[str, Any], dict[str, Any]]:
    """Requests accepted and fired a second, and what each took."""
    with bench.deployment() as deployment:
        out = deployment.destination("out", 4)
        worker = deployment.worker().wait_ready()
        due_ms = _ahead_ms(count, slowest)
        with Sampler(worker) as sampler:
            sent = bench.load(deployment, out, shape="bulk", count=count, due_ms=due_ms, **load)
            accepted = bench.wait_accepted(deployment, named=bool(load))
        sampler.seconds = accepted - sent["finished"]
        _in_time(accepted, due_ms)
        _, rate, firing = _fired(bench, worker, out, count, due_ms)
        worker.terminate()
        return count / sampler.seconds, rate, sampler.figures(), firing


def cron(bench: Bench) -> Iterator[Row]:
    """100,000 cron schedules have a minute in common: 100 expressions between them, then all different."""
    count = bench.count(100_000)
    for name, expressions, limit in (("100 expressions", 100, 2.0), ("all different", count, 60.0)):
        with bench.deployment() as deployment:
            out = deployment.destination("out", 4)
            worker = deployment.worker().wait_ready()
            due_ms = -(-_ahead_ms(count) // _MINUTE_MS) * _MINUTE_MS
            bench.load(
                deployment,
                out,
                shape="bulk",
                count=count,
                due_ms=due_ms,
                id_prefix="cron-",
                expressions=expressions,
            )
            _in_time(bench.wait_accepted(deployment, named=True), due_ms)
            arrivals, rate, facts = _fired(bench, worker, out, count, due_ms)
            # Each is re-armed in the transaction that delivers it, and told of.
            armed = worker.metric("delaystream_pending_destination_entries", out)
            worker.terminate()
            yield Row(
                f"cron: {name}",
                f"{count:,} cron schedules due in one minute: the last one re-armed and out",
                int(arrivals.lateness_ms.max()) / 1000,
                "s",
                limit,
                False,
                {"per_second": round(rate), "pending_after": armed, **facts},
            )


def bulk_cancel(bench: Bench) -> Iterator[Row]:
    """One command cancels 1M schedules, while another destination has its ordinary 500 a second."""
    count, rate = bench.count(1_000_000), 500
    with bench.deployment() as deployment:
        far, calm = deployment.destination("far", 4), deployment.destination("calm", 4)
        replies = deployment.destination("replies", 1)
        worker = deployment.worker().wait_ready()
        far_ms = int(time.time() * 1000) + _DAY_MS
        bench.load(deployment, far, shape="bulk", count=count, due_ms=far_ms, id_prefix="job-")
        bench.wait_accepted(deployment, 1_800, named=True)
        seconds = 15 + count / 20_000
        calm_count = int(rate * seconds)
        finish = bench.reading(calm, calm_count)
        background = bench.start(
            "load",
            shape="paced",
            topic=deployment.requests,
            destination=calm,
            rate=rate,
            seconds=seconds,
            delay_ms=[500, 2_000],
        )
        time.sleep(5)
        with Sampler(worker) as sampler:
            began_ms = int(time.time() * 1000)
            _cancel(bench, deployment, "job-", replies)
            receipt = bench.kafka.read(replies, 1, 600)[0]
        background.result()
        others = finish()
        worker.terminate()
        told = json.loads(receipt.value or b"{}")
        took_ms = max(receipt.timestamp_ms - began_ms, 1)
        yield Row(
            "bulk cancel",
            f"{count:,} schedules cancelled by one command, with an event each",
            told["count"] / took_ms * 1000,
            "/s",
            30_000,
            True,
            {"cancelled": told["count"], "left": count - told["count"], **sampler.figures()},
        )
        during = others.where((others.due_ms >= began_ms) & (others.due_ms <= receipt.timestamp_ms))
        figures = percentiles(during.lateness_ms, 50, 99)
        yield Row(
            "bulk cancel: others",
            "p99 lateness of another destination meanwhile",
            figures["p99"],
            "ms",
            250,
            False,
            {"milliseconds": figures, "records": int(during.sequence.size)} | others.faults(calm_count),
        )


def _cancel(bench: Bench, deployment: Deployment, prefix: str, reply_to: str) -> None:
    headers = {"action": "cancel", "match-id-prefix": prefix, "reply-to": reply_to}
    spec = {f"delaystream-{name}": text for name, text in headers.items()}
    bench.start("load", shape="command", topic=deployment.requests, headers=spec).result()


def events(bench: Bench) -> Iterator[Row]:
    """The same fires with and without events: of requests with ids, and of requests without.

    An event is one record more: of three that a named fire writes, and of two that one without an id writes.
    """
    count = bench.count(300_000)
    for name, prefix, on, off, limit in (
        ("named", "job-", {}, {"DELAYSTREAM_EVENTS": "false"}, 0.7),
        ("anonymous", "", {"DELAYSTREAM_EVENTS_ANONYMOUS": "true"}, {}, 0.4),
    ):
        figures = {}
        for told, settings in (("with", on), ("without", off)):
            with bench.deployment(partitions=4, **settings) as deployment:
                out = deployment.destination("out", 4)
                worker = deployment.worker().wait_ready()
                due_ms = _ahead_ms(count)
                bench.load(deployment, out, shape="bulk", count=count, due_ms=due_ms, id_prefix=prefix)
                _in_time(bench.wait_accepted(deployment, named=bool(prefix)), due_ms)
                _, rate, facts = _fired(bench, worker, out, count, due_ms)
                events = sum(bench.kafka.end_offsets(deployment.events))
                worker.terminate()
                figures[told] = {"per_second": round(rate), "event_offsets": events, **facts}
        yield Row(
            f"events: {name}",
            f"{count:,} due at once: fires a second with events, against those without",
            figures["with"]["per_second"] / figures["without"]["per_second"],
            "x",
            limit,
            True,
            figures,
        )
