"""Local state is a cache: missing, damaged, old or foreign, it is rebuilt; nothing is lost or repeated."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from delaystream.exit_codes import ExitCode
from tests.integration.harness import Deployment
from tests.integration.harness_fixtures import Deploy

_PARTITIONS = 2


def _schedule(app: Deployment, out: str, name: str, milliseconds: int) -> None:
    """One request on each partition, and one that names an id."""
    for partition in range(_PARTITIONS):
        control = {"destination": out, "delay": f"{milliseconds}ms"}
        app.request(f"{name} {partition}".encode(), control, partition=partition)
    app.request(f"{name} named".encode(), {"destination": out, "delay": f"{milliseconds}ms", "id": name})


def _damage(directory: Path) -> None:
    for path in directory.rglob("*"):
        if path.is_file() and path.stat().st_size:
            path.write_bytes(os.urandom(max(64, path.stat().st_size // 2)))


def _exchange(state: Path, other: Path) -> None:
    shutil.rmtree(state)
    shutil.copytree(other, state)


def test_local_state_that_cannot_be_trusted_is_rebuilt(deploy: Deploy, tmp_path: Path) -> None:
    """Good, missing, damaged, old, foreign: after each restart everything pending is delivered once."""
    app, other = deploy(partitions=_PARTITIONS).apply_topics(), deploy(partitions=_PARTITIONS).apply_topics()
    out = app.destination()
    foreign = other.worker().wait_ready()
    _schedule(other, other.destination(), "foreign", 3_600_000)
    old = tmp_path / "old"
    state = app.data_directory() / app.app_id
    troubles: dict[str, Callable[[], object]] = {
        "none": lambda: None,
        "missing": lambda: shutil.rmtree(app.data_directory()),
        "damaged": lambda: _damage(state),
        "old": lambda: _exchange(state, old),
        "foreign": lambda: _exchange(state, other.data_directory() / other.app_id),
    }
    worker = app.worker().wait_ready()
    expected: set[bytes] = set()
    for place, (trouble, happen) in enumerate(troubles.items()):
        # One batch that is due while nobody is there, one that is due after the restart.
        _schedule(app, out, f"{trouble} down", 1_500)
        _schedule(app, out, f"{trouble} up", 8_000)
        expected |= {
            f"{trouble} {when} {what}".encode() for when in ("down", "up") for what in ("0", "1", "named")
        }
        time.sleep(0.7)
        if place % 2:
            worker.kill()
        else:
            assert worker.terminate() == 0
        if trouble == "none":
            shutil.copytree(state, old)
        elif trouble == "foreign":
            assert foreign.terminate() == 0
        happen()
        worker = app.worker().wait_ready()
    with app.reader(out) as reader:
        deliveries = reader.take(len(expected))
        reader.quiet(1)
    assert {delivery.value for delivery in deliveries} == expected
    assert all(d.timestamp_ms >= int(d.text("delaystream-due-at")) for d in deliveries)


def test_a_data_directory_that_cannot_be_written(deploy: Deploy) -> None:
    """A file in the place of the directory (rights alone do not stop root): told, and an exit of its own."""
    app = deploy(partitions=1).apply_topics()
    app.data_directory().write_text("not a directory")
    worker = app.worker()
    assert worker.wait_exit(30) == ExitCode.NO_STORAGE, worker.output()[-4000:]
    assert str(app.data_directory()) in worker.reason


def test_a_disk_that_is_full_while_the_worker_runs(deploy: Deploy) -> None:
    """It ends with 74 and a sentence; with room again, everything accepted is delivered once.

    A limit on the size of its files stands in for the full disk.
    """
    settings = {"DELAYSTREAM_FAILURE_TIMEOUT_MS": "3000", "DELAYSTREAM_ROCKSDB_WRITE_BUFFER_BYTES": "1048576"}
    app = deploy(partitions=_PARTITIONS, **settings).apply_topics()
    out = app.destination()
    worker = app.worker().wait_ready()
    limit = 300_000
    worker.usage.rlimit(psutil.RLIMIT_FSIZE, (limit, psutil.RLIM_INFINITY))
    expected: set[bytes] = set()
    deadline = time.monotonic() + 60
    while worker.alive and time.monotonic() < deadline:
        for _ in range(50):
            value = f"{len(expected)} {os.urandom(4_000).hex()}".encode()
            app.request(value, {"destination": out, "delay": "20s"}, partition=len(expected) % _PARTITIONS)
            expected.add(value)
    assert worker.wait_exit(60) == ExitCode.NO_STORAGE, worker.output()[-4000:]
    assert "File too large" in worker.reason
    app.worker().wait_ready()
    delivered = [record.value or b"" for record in app.kafka.read(out, len(expected), 90)]
    assert sorted(delivered) == sorted(expected)


def test_two_workers_on_one_data_directory(deploy: Deploy) -> None:
    """The second one says so and ends; the first one is not disturbed."""
    app = deploy(partitions=_PARTITIONS).apply_topics()
    out = app.destination()
    first = app.worker().wait_ready()
    second = app.worker()
    assert second.wait_exit(30) == ExitCode.NO_STORAGE, second.output()[-4000:]
    assert str(app.data_directory()) in second.reason
    _schedule(app, out, "after", 500)
    assert len(app.kafka.read(out, 3)) == 3
    assert first.alive
