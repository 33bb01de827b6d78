"""Steady load and takeover: how late the deliveries are."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.benchmarks.bench import Bench, Row, Sampler, percentiles

_RATE = 10_000
_WARM_UP_SECONDS = 10
_SESSION_TIMEOUT_MS = 10_000
#: reach: percentile -> ms, by the broker's append time and as received
_APPENDED = {"p50": 30.0, "p99": 100.0, "p99.9": 250.0}
_RECEIVED = {"p50": 60.0, "p99": 150.0, "p99.9": 300.0}


def steady(bench: Bench) -> Iterator[Row]:
    """10,000 requests a second in and as many deliveries out, delays of 2 to 8 s."""
    seconds = _WARM_UP_SECONDS + max(60 * bench.scale, 10)
    count = int(_RATE * seconds)
    with bench.deployment() as deployment:
        out = deployment.destination("out", 4)
        worker = deployment.worker().wait_ready()
        finish = bench.reading(out, count)
        with Sampler(worker) as sampler:
            sent = bench.load(
                deployment, out, shape="paced", rate=_RATE, seconds=seconds, delay_ms=[2_000, 8_000]
            )
        arrivals = finish()
        worker.terminate()
        # The middle: no start of a cold worker, no end with nothing coming in any more.
        first = (sent["started"] + _WARM_UP_SECONDS) * 1000
        middle = arrivals.where((arrivals.due_ms >= first) & (arrivals.due_ms <= sent["finished"] * 1000))
        facts = {"behind": sent["behind"], **sampler.figures(), **arrivals.faults(count)}
        for how, values, limits in (
            ("appended", middle.lateness_ms, _APPENDED),
            ("received", middle.received_lateness_ms, _RECEIVED),
        ):
            figures = percentiles(values, 50, 90, 99, 99.9)
            points = [1, 5, *range(10, 100, 5), 99, 99.5, 99.9, 99.99]
            curve = [[point, float(np.percentile(values, point))] for point in points] if values.size else []
            for name, limit in limits.items():
                detail = {"milliseconds": figures, "curve": curve, **facts} if name == "p99" else {}
                what = f"{_RATE:,}/s in and out, lateness {how}: {name}"
                yield Row(f"steady {how} {name}", what, figures[name], "ms", limit, False, detail)
        early = Row("steady early", "delivered before they were due", facts["early"], "records", 0, False)
        yield early


def takeover(bench: Bench) -> Iterator[Row]:
    """Two workers share the load; one is stopped, then one is killed."""
    rate, event_seconds = 2_000, _SESSION_TIMEOUT_MS / 1000 + 10
    settings = {"DELAYSTREAM_SESSION_TIMEOUT_MS": str(_SESSION_TIMEOUT_MS)}
    with bench.deployment(partitions=4, **settings) as deployment:
        out = deployment.destination("out", 4)
        workers = [deployment.worker(name) for name in ("-a", "-b")]
        for worker in workers:
            worker.wait_ready()
        seconds = _WARM_UP_SECONDS + 20 + 10 + event_seconds + 10
        count = int(rate * seconds)
        finish = bench.reading(out, count)
        load = bench.start(
            "load",
            shape="paced",
            topic=deployment.requests,
            destination=out,
            rate=rate,
            seconds=seconds,
            delay_ms=[1_000, 4_000],
        )
        time.sleep(_WARM_UP_SECONDS)
        stopped_ms = time.time() * 1000
        workers[0].terminate()
        time.sleep(max(0.0, 20 - (time.time() - stopped_ms / 1000)))
        deployment.worker("-a").wait_ready()
        time.sleep(10)
        killed_ms = time.time() * 1000
        workers[1].kill()
        load.result()
        arrivals = finish()
        for name, start_ms, window, limit in (
            ("SIGTERM", stopped_ms, 15.0, 2.0),
            ("SIGKILL", killed_ms, event_seconds, _SESSION_TIMEOUT_MS / 1000 + 3),
        ):
            event = arrivals.where(
                (arrivals.due_ms >= start_ms) & (arrivals.due_ms < start_ms + window * 1000)
            )
            figures = percentiles(event.lateness_ms, 50, 99)
            yield Row(
                f"takeover {name}",
                f"p99 lateness in the {window:g} s after {name} of one of two workers",
                figures["p99"] / 1000,
                "s",
                limit,
                False,
                {"milliseconds": figures, "session_timeout_ms": _SESSION_TIMEOUT_MS} | arrivals.faults(count),
            )
        for name in ("-a", "-b"):
            _remove(deployment.data_directory(name))


def _remove(directory: Path) -> None:
    for path in sorted(directory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
