"""Ten million pending: memory, firing, restart and rebuild; and what a quiet worker costs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from typing import Any

from tests.benchmarks.bench import Bench, Row, Sampler
from tests.integration.harness import Deployment, Worker, wait

_DAY_MS = 24 * 3_600_000
_FIRED = 200_000


def _fire_rate(bench: Bench, deployment: Deployment, worker: Worker, name: str, count: int) -> dict[str, Any]:
    """Fires a second for ``count`` requests that are due at one instant, whatever else is pending."""
    out = deployment.destination(name, 4)
    due_ms = int((time.time() + 10 + count / 25_000) * 1000)
    bench.load(deployment, out, shape="bulk", count=count, due_ms=due_ms)
    bench.wait_accepted(deployment)
    if time.time() * 1000 > due_ms:
        raise RuntimeError("accepting took until past the due time")
    with Sampler(worker) as sampler:
        bench.wait_delivered(out, count)
    arrivals = bench.arrivals(out, count)
    rate = count / (int(arrivals.appended_ms.max()) - due_ms) * 1000
    return {"per_second": round(rate), **arrivals.faults(count), **sampler.figures()}


def _first_fire(bench: Bench, deployment: Deployment, name: str) -> tuple[Worker, float]:
    """Start a worker while one request is due; seconds from the start of its process to that delivery."""
    out = deployment.destination(name)
    bench.load(deployment, out, shape="bulk", count=1, due_ms=int(time.time() * 1000))
    worker = deployment.worker()
    bench.wait_delivered(out, 1, 300)
    worker.wait_ready(300)
    arrivals = bench.arrivals(out, 1)
    return worker, int(arrivals.appended_ms[0]) / 1000 - worker.started


def pending(bench: Bench) -> Iterator[Row]:
    """10M pending in one process, then a clean restart, a restart after a kill, and a rebuild."""
    count, few, fired = bench.count(10_000_000), bench.count(10_000), bench.count(_FIRED)
    # Static membership: without it the group waits for a killed worker until its session has timed out.
    with bench.deployment(DELAYSTREAM_INSTANCE_ID="bench") as deployment:
        far = deployment.destination("far", 1)
        worker = deployment.worker().wait_ready()
        far_ms = int(time.time() * 1000) + _DAY_MS
        day = {"shape": "bulk", "due_ms": far_ms, "spread_ms": _DAY_MS, "transactional": False}
        bench.load(deployment, far, count=few, **day)
        bench.wait_accepted(deployment)
        before = _fire_rate(bench, deployment, worker, "few", fired)
        with Sampler(worker) as loading:
            bench.load(deployment, far, count=count - few, first=few, **day)
            bench.wait_accepted(deployment, 1_800)
        after = _fire_rate(bench, deployment, worker, "many", fired)
        yield Row(
            "10M pending: memory",
            f"{count:,} pending: resident memory at its peak",
            max(loading.peak_rss_mb, after["worker_peak_rss_mb"]),
            "MB",
            600,
            False,
            {"resident_mb": round(worker.usage.memory_info().rss / 1e6, 1), **loading.figures()},
        )
        yield Row(
            "10M pending: firing",
            f"fires a second, against the rate with {few:,} pending",
            after["per_second"] / before["per_second"],
            "x",
            0.95,
            True,
            {"few": before, "many": after},
        )
        disk = sum(path.stat().st_size for path in deployment.data_directory().rglob("*") if path.is_file())
        worker.terminate()
        worker, clean = _first_fire(bench, deployment, "clean")
        worker.kill()
        worker, killed = _first_fire(bench, deployment, "killed")
        worker.terminate()
        yield Row(
            "restart: clean",
            f"{count:,} pending: first fire after a clean stop",
            clean,
            "s",
            5,
            False,
            {"state_on_disk_mb": round(disk / 1e6)},
        )
        yield Row("restart: killed", f"{count:,} pending: first fire after SIGKILL", killed, "s", 5, False)
        shutil.rmtree(deployment.data_directory())
        yield _rebuild(bench, deployment, count)


def _rebuild(bench: Bench, deployment: Deployment, count: int) -> Row:
    """No local state: records a second from the first applied to the last, all partitions together."""
    worker = deployment.worker()
    progress: list[tuple[float, float]] = []

    def recovered() -> bool:
        applied = worker.metric("delaystream_recovery_records_total")
        if applied:
            progress.append((time.monotonic(), applied))
        return worker.ready

    with Sampler(worker) as sampler:
        wait(recovered, "the rebuild", 1_800, every=0.1)
    worker.terminate()
    last = next(index for index, entry in enumerate(progress) if entry[1] == progress[-1][1])
    (first_at, first), (last_at, total) = progress[0], progress[last]
    return Row(
        "rebuild",
        f"{count:,} pending, from the changelog alone",
        (total - first) / (last_at - first_at) if last else 0.0,
        "records/s",
        200_000,
        True,
        {
            "records": total,
            "seconds": round(last_at - first_at, 2),
            "ready_after_seconds": round(progress[-1][0] - first_at, 2),
            "changelog_offsets": sum(bench.kafka.end_offsets(deployment.changelog)),
            **sampler.figures(),
        },
    )


def idle(bench: Bench) -> Iterator[Row]:
    """1M pending on 16 partitions, nothing to do."""
    count = bench.count(1_000_000)
    with bench.deployment(partitions=16) as deployment:
        far = deployment.destination("far", 1)
        worker = deployment.worker().wait_ready()
        due_ms = int(time.time() * 1000) + _DAY_MS
        bench.load(deployment, far, shape="bulk", count=count, due_ms=due_ms, spread_ms=_DAY_MS)
        bench.wait_accepted(deployment)
        time.sleep(10)
        with Sampler(worker) as sampler:
            time.sleep(max(60 * bench.scale, 20))
        worker.terminate()
        yield Row(
            "idle",
            f"{count:,} pending, 16 partitions, nothing due: share of a core",
            sampler.cores * 100,
            "%",
            2.0,
            False,
            sampler.figures(),
        )
