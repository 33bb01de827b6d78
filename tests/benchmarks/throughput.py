"""Accept, fire, catch-up, hot second: records a second, beside the copy of the very same records."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tests.benchmarks.bench import Bench, Row, Sampler, percentiles

#: from the last request accepted to the time that all are due
_PAUSE_SECONDS = 3.0


def accept_and_fire(bench: Bench) -> Iterator[Row]:
    """1M requests go into the wheel, then all of them are due at the same instant."""
    count = bench.count(1_000_000)
    with bench.deployment() as deployment:
        out = deployment.destination("out", 4)
        worker = deployment.worker().wait_ready()
        # Far enough ahead to send and accept them first, checked below.
        due_ms = int((time.time() + 20 + count / 25_000) * 1000)
        with Sampler(worker) as sampler:
            sent = bench.load(deployment, out, shape="bulk", count=count, due_ms=due_ms)
            accepted = bench.wait_accepted(deployment)
        # The requests were in a transaction until they were all sent: before, the worker had nothing to do.
        seconds = sampler.seconds = accepted - sent["finished"]
        if accepted * 1000 > due_ms - _PAUSE_SECONDS * 1000:
            raise RuntimeError(f"accepting took until {accepted}, past the due time {due_ms}")
        with Sampler(worker) as firing:
            bench.wait_delivered(out, count)
        arrivals = bench.arrivals(out, count)
        worker.terminate()
        ceiling = bench.ceiling(deployment.requests, count)
        yield Row(
            "accept",
            f"{count:,} requests into the wheel",
            count / seconds / ceiling["ceiling_per_second"],
            "x copy",
            0.6,
            True,
            {"per_second": round(count / seconds), **ceiling, **sampler.figures()},
        )
        last = int(arrivals.appended_ms.max())
        rate = count / (last - due_ms) * 1000
        firing.seconds = (last - due_ms) / 1000  # before and after, the worker had nothing to do
        ceiling = bench.ceiling(out, count)
        yield Row(
            "fire",
            f"{count:,} due at once",
            rate / ceiling["ceiling_per_second"],
            "x copy",
            0.6,
            True,
            {"per_second": round(rate), **ceiling, **firing.figures(), **arrivals.faults(count)},
        )


def catch_up(bench: Bench) -> Iterator[Row]:
    """1M requests wait that are already due: none of them needs the wheel."""
    count = bench.count(1_000_000)
    with bench.deployment() as deployment:
        out = deployment.destination("out", 4)
        worker = deployment.worker().wait_ready()
        due_ms = int(time.time() * 1000)
        sent = bench.load(deployment, out, shape="bulk", count=count, due_ms=due_ms)
        with Sampler(worker) as sampler:
            bench.wait_delivered(out, count)
        arrivals = bench.arrivals(out, count)
        worker.terminate()
        seconds = int(arrivals.appended_ms.max()) / 1000 - sent["finished"]
        ceiling = bench.ceiling(deployment.requests, count)
        stored = sum(bench.kafka.end_offsets(deployment.changelog))
        yield Row(
            "catch-up",
            f"{count:,} requests already due",
            count / seconds / ceiling["ceiling_per_second"],
            "x copy",
            0.7,
            True,
            {
                "per_second": round(count / seconds),
                "changelog_offsets": stored,
                **ceiling,
                **sampler.figures(),
                **arrivals.faults(count),
            },
        )


def hot_second(bench: Bench) -> Iterator[Row]:
    """500,000 due in one second for one destination, while another has its ordinary 500 a second."""
    count, rate = bench.count(500_000), 500
    with bench.deployment() as deployment:
        hot, calm = deployment.destination("hot", 4), deployment.destination("calm", 4)
        worker = deployment.worker().wait_ready()
        due_ms = int(time.time() + 20 + count / 25_000) * 1000
        bench.load(deployment, hot, shape="bulk", count=count, due_ms=due_ms, spread_ms=1000)
        bench.wait_accepted(deployment)
        ahead = due_ms / 1000 - time.time()
        if ahead < _PAUSE_SECONDS:
            raise RuntimeError(f"accepting took until {ahead:.1f} s before the hot second")
        seconds = ahead + 15
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
        with Sampler(worker) as sampler:
            bench.wait_delivered(hot, count)
            background.result()
        arrivals, others = bench.arrivals(hot, count), finish()
        worker.terminate()
        last_ms = int(arrivals.lateness_ms.max())
        end_ms = int(arrivals.appended_ms.max())
        # Whatever was due for the others while the hot second was being worked off.
        during = others.where((others.due_ms >= due_ms) & (others.due_ms <= end_ms))
        calm_ms = percentiles(during.lateness_ms, 50, 99)
        yield Row(
            "hot second: last",
            f"{count:,} due in one second: the last one's lateness",
            last_ms / 1000,
            "s",
            5.0,
            False,
            {"per_second": round(count / (end_ms - due_ms) * 1000)}
            | sampler.figures()
            | arrivals.faults(count),
        )
        yield Row(
            "hot second: others",
            "p99 lateness of another destination meanwhile",
            calm_ms["p99"] / 1000,
            "s",
            1.0,
            False,
            {"milliseconds": calm_ms, "records": int(during.sequence.size)} | others.faults(calm_count),
        )
