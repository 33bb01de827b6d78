"""Two members, one group: what moves, how soon, and what goes on meanwhile."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Producer

from tests.integration import host_members

pytestmark = pytest.mark.timeout(120)

PARTITIONS = 4
SESSION_S = host_members.SESSION_MS / 1000


class Process:
    """A member of the group in a process of its own."""

    def __init__(self, output: Path, arguments: list[str]) -> None:
        self._output = output
        with output.open("w") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.host_members", *arguments],
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd=Path(__file__).parents[2],
            )

    def signal(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def wait(self) -> int:
        return self._process.wait(15)

    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def lines(self) -> list[dict[str, Any]]:
        found = []
        for text in self._output.read_text(errors="replace").splitlines():
            if text.startswith("{") and text.endswith("}"):
                found.append(json.loads(text))
        return found

    def until(self, true: Callable[[dict[str, Any]], bool], seconds: float = 25.0) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            lines = self.lines()
            if lines and true(lines[-1]):
                return lines[-1]
            time.sleep(0.02)
        pytest.fail(f"not within {seconds} s: {self._output.read_text(errors='replace')[-3000:]}")


@pytest.fixture
def topics(make_topic: Callable[..., str]) -> tuple[str, str]:
    return make_topic("requests", partitions=PARTITIONS), make_topic("commands", partitions=PARTITIONS)


@pytest.fixture
def group() -> str:
    return f"group-{uuid4().hex[:8]}"


@pytest.fixture
def join(kafka: str, topics: tuple[str, str], group: str, tmp_path: Path) -> Iterator[Callable[[], Process]]:
    with ExitStack() as stack:
        count = 0

        def make() -> Process:
            nonlocal count
            count += 1
            process = Process(tmp_path / f"member-{count}", [kafka, group, *topics])
            stack.callback(process.end)
            return process

        yield make


def produce(servers: str, topic: str, count: int = 50) -> None:
    producer = Producer({"bootstrap.servers": servers})
    for number in range(count * PARTITIONS):
        producer.produce(topic, b"value", partition=number % PARTITIONS)
    producer.flush()


def reached(line: dict[str, Any], topic: str, position: int) -> bool:
    return all(line["spans"].get(f"{topic}/{p}", [[0, 0]])[-1][1] >= position for p in line["running"])


def assert_contiguous(line: dict[str, Any]) -> None:
    """No processor was given anything twice or left anything out, unless it began anew (at 0)."""
    for name, spans in line["spans"].items():
        for (_, stop), (start, _) in itertools.pairwise(spans):
            assert start in (stop, 0), (name, spans)


def all_running(line: dict[str, Any]) -> bool:
    return bool(line["running"] == list(range(PARTITIONS)))


def test_partitions_that_stay_run_on_through_a_rebalance_and_miss_nothing(
    kafka: str, topics: tuple[str, str], join: Callable[[], Process]
) -> None:
    """Their processors are the same ones as before, and tick on while the group decides."""
    first = join()
    first.until(all_running)
    produce(kafka, topics[0])
    first.until(lambda line: reached(line, topics[0], 50))

    second = join()
    shared = second.until(lambda line: len(line["running"]) == 2)
    produce(kafka, topics[0])
    stayed = first.until(lambda line: len(line["running"]) == 2 and reached(line, topics[0], 100))
    assert sorted(stayed["running"] + shared["running"]) == list(range(PARTITIONS))
    assert_contiguous(stayed)
    for partition in stayed["running"]:
        spans = stayed["spans"][f"{topics[0]}/{partition}"]
        assert [start for start, _ in spans].count(0) == 1, "a processor that stayed was started anew"
    ticks = [line["ticks"] for line in first.lines() if all_ticking(line, stayed["running"])]
    at = [line["at"] for line in first.lines()]
    assert max(later - earlier for earlier, later in itertools.pairwise(at)) < 1.5
    for partition in map(str, stayed["running"]):
        assert all(later[partition] > earlier[partition] for earlier, later in itertools.pairwise(ticks))


def all_ticking(line: dict[str, Any], partitions: list[int]) -> bool:
    return all(str(partition) in line["ticks"] for partition in partitions)


def test_a_member_that_is_told_to_stop_hands_over_within_two_seconds(
    kafka: str, topics: tuple[str, str], join: Callable[[], Process]
) -> None:
    first, second = join(), join()
    for process in (first, second):
        process.until(lambda line: len(line["running"]) == 2)
    began = time.monotonic()
    second.signal(signal.SIGTERM)
    first.until(all_running)
    assert time.monotonic() - began < 2
    assert second.wait() == 0
    produce(kafka, topics[0])
    assert_contiguous(first.until(lambda line: reached(line, topics[0], 50)))


def test_the_partitions_of_a_killed_member_move_when_its_session_ends(
    kafka: str, topics: tuple[str, str], join: Callable[[], Process]
) -> None:
    first, second = join(), join()
    for process in (first, second):
        process.until(lambda line: len(line["running"]) == 2)
    began = time.monotonic()
    second.signal(signal.SIGKILL)
    first.until(all_running)
    assert time.monotonic() - began < SESSION_S + 3
    produce(kafka, topics[0])
    assert_contiguous(first.until(lambda line: reached(line, topics[0], 50)))


def test_a_member_that_stood_still_does_not_believe_in_what_it_had(
    kafka: str, topics: tuple[str, str], join: Callable[[], Process]
) -> None:
    """SIGSTOP past the session timeout: its first word afterwards is that nothing is confirmed."""
    first, second = join(), join()
    for process in (first, second):
        process.until(lambda line: len(line["running"]) == 2)
    second.signal(signal.SIGSTOP)
    first.until(all_running)
    lines_before = len(second.lines())
    second.signal(signal.SIGCONT)
    second.until(lambda _: len(second.lines()) > lines_before + 1)
    assert second.lines()[lines_before + 1]["confirmed"] is False
    for process in (first, second):
        process.until(lambda line: len(line["running"]) == 2 and line["confirmed"])
    produce(kafka, topics[0])
    for process in (first, second):
        assert_contiguous(process.until(lambda line: reached(line, topics[0], 50)))


@pytest.fixture
def stranger(kafka: str, topics: tuple[str, str], group: str) -> Iterator[Consumer]:
    """A member of the group that shares its partitions in another way, as other versions may."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka,
            "group.id": group,
            "partition.assignment.strategy": "range",
            "session.timeout.ms": host_members.SESSION_MS * 4,
        }
    )
    consumer.subscribe(list(topics))
    deadline = time.monotonic() + 20
    while len(consumer.assignment()) < 2 * PARTITIONS:
        assert time.monotonic() < deadline, "the stranger was assigned nothing"
        consumer.poll(0.1)
    yield consumer
    consumer.close()


def told(member: Process) -> str:
    """What it has printed besides its states."""
    return "\n".join(line for line in member.output().splitlines() if not line.startswith("{"))


def test_a_member_waits_for_others_that_share_in_another_way(
    stranger: Consumer, join: Callable[[], Process]
) -> None:
    """It says once what is the matter and what to do, and takes over when they are gone."""
    member = join()
    deadline = time.monotonic() + 20
    while "Stop all workers of the other version first" not in member.output():
        assert time.monotonic() < deadline, told(member)
        time.sleep(0.1)
    assert member.lines()[-1]["running"] == []
    stranger.close()
    member.until(all_running)
    assert member.output().count("Stop all workers of the other version first") == 1
