"""Health and metrics over HTTP, from a thread that does not share the event loop's fate."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from delaystream.adapters.membership.faust_host import PartitionStatus
from delaystream.adapters.operate.http import HttpError, HttpServer
from delaystream.adapters.operate.watchdog import Report
from delaystream.engine.observer import Phase


class Worker:
    """Stands for what the server asks."""

    def __init__(self) -> None:
        self.report = Report(1, time.monotonic(), True, True, False, (), ())

    def change(self, **values: Any) -> None:
        self.report = msgspec.structs.replace(self.report, at_s=time.monotonic(), **values)


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def server(worker: Worker) -> Iterator[HttpServer]:
    server = HttpServer("127.0.0.1", 0, lambda: worker.report, lambda: b"a_metric 1.0\n")
    server.start()
    yield server
    server.stop()


def get(server: HttpServer, path: str) -> tuple[int, str, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
            return answer.status, answer.headers["content-type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["content-type"], error.read().decode()


def status(partition: int, phase: Phase | None, *, assigned: bool = True) -> PartitionStatus:
    return PartitionStatus(partition, assigned, phase, 0, 0)


def test_metrics_come_in_prometheus_text_format(server: HttpServer) -> None:
    code, kind, text = get(server, "/metrics")
    assert (code, text) == (200, "a_metric 1.0\n")
    assert kind == "text/plain; version=0.0.4; charset=utf-8"


def test_a_worker_without_partitions_is_ready_once_it_has_joined(server: HttpServer, worker: Worker) -> None:
    """There may be more workers than partitions; before it has joined, nobody knows."""
    assert get(server, "/health/ready")[0] == 200
    worker.change(joined=False)
    assert get(server, "/health/ready")[0] == 503


@pytest.mark.parametrize("phase", [None, Phase.FENCING, Phase.RECOVERING, Phase.BACKOFF])
def test_ready_means_that_every_partition_here_has_recovered(
    server: HttpServer, worker: Worker, phase: Phase | None
) -> None:
    worker.change(partitions=(status(0, Phase.RUNNING), status(1, phase)))
    code, _, text = get(server, "/health/ready")
    body = json.loads(text)
    assert code == 503
    assert body["ready"] is False
    assert [entry["phase"] for entry in body["partitions"]] == ["running", phase or "none"]
    worker.change(partitions=(status(0, Phase.RUNNING), status(1, Phase.RUNNING)))
    assert get(server, "/health/ready")[0] == 200


def test_a_partition_on_its_way_out_does_not_count(server: HttpServer, worker: Worker) -> None:
    worker.change(partitions=(status(0, Phase.RECOVERING, assigned=False), status(1, Phase.RUNNING)))
    assert get(server, "/health/ready")[0] == 200


def test_a_rebalance_leaves_a_worker_ready(server: HttpServer, worker: Worker) -> None:
    """What stays goes on firing."""
    worker.change(membership_confirmed=False, partitions=(status(0, Phase.RUNNING),))
    assert get(server, "/health/ready")[0] == 200


def test_a_worker_that_stops_is_not_ready_but_alive(server: HttpServer, worker: Worker) -> None:
    worker.change(stopping=True)
    assert get(server, "/health/ready")[0] == 503
    assert get(server, "/health/live")[0] == 200


def test_a_silent_event_loop_is_neither_alive_nor_ready(server: HttpServer, worker: Worker) -> None:
    worker.report = msgspec.structs.replace(worker.report, at_s=time.monotonic() - 60)
    assert get(server, "/health/live")[0] == 503
    assert get(server, "/health/ready")[0] == 503


def test_complaints_are_shown(server: HttpServer, worker: Worker) -> None:
    worker.change(complaints=("partition 3 has no processor",))
    assert json.loads(get(server, "/health/live")[2])["complaints"] == ["partition 3 has no processor"]


def test_an_address_in_use_is_an_error_with_the_address(server: HttpServer, worker: Worker) -> None:
    with pytest.raises(HttpError, match=str(server.port)):
        HttpServer("127.0.0.1", server.port, lambda: worker.report, lambda: b"")


def test_a_stopped_server_lets_go_of_its_port(worker: Worker) -> None:
    first = HttpServer("127.0.0.1", 0, lambda: worker.report, lambda: b"")
    first.start()
    get(first, "/metrics")
    first.stop()
    second = HttpServer("127.0.0.1", first.port, lambda: worker.report, lambda: b"second")
    second.start()
    assert get(second, "/metrics")[2] == "second"
    second.stop()
