"""A console beside a worker, as processes: it tells all there is, and its end is nobody's loss."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka.admin import NewPartitions

from delaystream.codec.envelope import Status
from tests.integration.harness import command, wait
from tests.integration.harness_console import ConsoleProcess, ask
from tests.integration.harness_fixtures import Deploy
from tests.integration.harness_kafka import Kafka
from tests.integration.harness_traffic import Traffic

_PRINTED = re.compile(r"^console (http://127\.0\.0\.1:\d+)$", re.MULTILINE)
_FAR = {"delay": "1d"}


def listed(url: str, **parameters: object) -> list[Mapping[str, Any]]:
    """Every item of a list, page by page."""
    items: list[Mapping[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = ask(url, **parameters, **cursor, limit=7)
        assert page is not None
        assert page["complete"], page
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        cursor = {"cursor": page["next_cursor"]}


def history(data_dir: Path) -> list[tuple[int, int]]:
    """Partition and offset of every event in a console's history."""
    (file,) = data_dir.glob("*/history.db")
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        return connection.execute('SELECT "partition", "offset" FROM events ORDER BY 1, 2').fetchall()
    finally:
        connection.close()


def told(url: str) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """All named schedules whatever their status, and everything that is pending."""
    schedules = listed(f"{url}/v1/schedules", sort="id", status=[status.value for status in Status])
    return sorted(schedules, key=lambda one: (one["request_topic"], one["id"])), listed(f"{url}/v1/pending")


AT_ONCE = 25
"""So many requests of either kind are made without a console, and again as it starts. They stay pending, so a
record that is passed over is missed for ever."""


@pytest.mark.timeout(240)
def test_killed_at_any_time_it_misses_nothing_and_the_worker_does_not_notice(
    deploy: Deploy, tmp_path: Path
) -> None:
    """Requests in, lists out: what it shows after many ends is what a new console shows, and all there is."""
    app = deploy(partitions=2)
    # No command of the traffic's is about the requests of another topic.
    far = app.topic("far-requests")
    app.settings |= {"DELAYSTREAM_REQUEST_TOPICS": f"{app.requests},{far}"}
    app.apply_topics()
    out = app.destination("far")
    worker = app.worker().wait_ready()
    traffic = Traffic(app, rate=80, seed=61, longest_delay_ms=2_000).start()
    kept = tmp_path / "console"
    ids, coordinates = set(), set()

    def ask_for(some: str) -> None:
        """Requests whose fires are far: whoever misses the record of one never sees it."""
        for one in range(AT_ONCE):
            name = f"far/{some}-{one}"
            app.request(b"named", {"destination": out, "id": name, **_FAR}, topic=far)
            ids.add(name)
            key = b"\xff" if one % 2 else b"one"
            partition, offset = app.request(b"unnamed", {"destination": out, **_FAR}, key=key, topic=far)
            coordinates.add(f"{far}/{partition}/{offset}")

    # Killed at its start, when it listens, and while it answers: after so many answers.
    for number, answers in enumerate((0, 1, 4, 0, 12, 2, 30)):
        ask_for(f"before-{number}")
        # What it was told is on its disk: a kill leaves a copy in the middle of its work.
        console = ConsoleProcess(app, kept, module="tests.integration.flushing")
        ask_for(f"{number}")
        if answers:
            wait(lambda console=console: bool(console.url), "the console's address", 60)  # type: ignore[misc]
        for _ in range(answers):
            wait(lambda url=console.url: ask(f"{url}/v1/stats") is not None, "an answer")  # type: ignore[misc]
        if number % 2:
            # Only a copy that was whole is gone on from; another one is made anew.
            console.wait_ready()
        if number == 3:
            # It ends with more to come, and goes on from there.
            assert console.terminate() == 0
        else:
            ask_for(f"at-{number}")
            console.kill()
    _, records = traffic.stop().outcome()
    # The ledger knows nothing of what was asked for here.
    theirs = [r for r in records if r.topic != app.events or b'"%b"' % far.encode() not in (r.value or b"")]
    report = traffic.audit(theirs)
    assert report.ok, report
    assert report.delivered > 100
    assert worker.alive

    events = sorted((record.partition, record.offset) for record in records if record.topic == app.events)
    console, anew = ConsoleProcess(app, kept), ConsoleProcess(app, tmp_path / "anew")
    shown, rebuilt = console.wait_ready(), anew.wait_ready()
    for data_dir in (kept, tmp_path / "anew"):
        wait(lambda d=data_dir: len(history(d)) >= len(events), "all events in the history")  # type: ignore[misc]
    assert set(events) <= set(history(kept))
    assert history(kept) == history(tmp_path / "anew")
    schedules, pending = told(shown)
    assert {one["id"] for one in schedules} >= ids
    assert {one["id"] or one["source"] for one in pending} >= ids | coordinates
    assert (schedules, pending) == told(rebuilt)
    numbers, others = (ask(f"{url}/v1/stats") for url in (shown, rebuilt))
    assert numbers["by_destination"] == others["by_destination"]
    (found,) = ask(f"{shown}/v1/where", q=min(coordinates))["items"]
    assert (found["by"], found["state"]) == ("coordinates", "pending")
    lines = app.run("list", "--prefix", "far/", "-o", "jsonl", "--limit", "1000", "--console-url", shown)
    assert {json.loads(line)["id"] for line in lines.stdout.splitlines()} == ids, lines.stderr
    assert console.terminate() == anew.terminate() == 0
    # Nobody answers now, so the worker is asked.
    described = app.run("get", "far/0-0", "--topic", far, "--console-url", shown, "-o", "json")
    assert described.returncode == 0, described.stderr
    assert b"A worker is asked, over Kafka." in described.stderr
    assert json.loads(described.stdout)["outcome"] == "described"
    described = app.run("where", "far/0-0", "--topic", far, "--console-url", shown, "-o", "json")
    assert json.loads(described.stdout)["outcome"] == "described", described.stderr
    assert worker.terminate() == 0, worker.output()[-6000:]


@pytest.mark.timeout(180)
def test_partitions_that_topics_gain_are_followed(deploy: Deploy, tmp_path: Path) -> None:
    """By the same process at the same address; what was stored is there still."""
    app = deploy(partitions=1).apply_topics()
    out = app.destination("out")
    worker = app.worker().wait_ready()
    console = ConsoleProcess(app, tmp_path / "console")
    url = console.wait_ready()

    def fired(ids: set[str]) -> bool:
        return all((ask(f"{url}/v1/schedules/{id}/fires") or {"items": []})["items"] for id in ids)

    app.request(b"first", {"destination": out, "id": "first", "delay": "0"})
    wait(lambda: fired({"first"}), "the fire in the history")
    more = [NewPartitions(app.events, 4), NewPartitions(app.dead_letters, 3)]
    for grown in app.kafka.admin.create_partitions(more).values():
        grown.result(30)

    def parts() -> tuple[int, int]:
        history = (ask(f"{url}/v1/partitions") or {"history": []})["history"]
        return len(history), len((ask(f"{url}/v1/dead-letters") or {"reading": []})["reading"])

    wait(lambda: parts() == (4, 3), "the new partitions", 60)
    ids = {f"later-{number}" for number in range(24)}
    for id in ids:
        app.request(b"later", {"destination": out, "id": id, "delay": "0"})
    for number in range(12):
        app.request(b"refused", {"destination": out, "delay": "soon"}, key=b"%d" % number)
    # Workers look at the topics in their own time.
    wait(lambda: fired(ids | {"first"}), "every fire in the history", 60)
    wait(lambda: len(ask(f"{url}/v1/dead-letters")["items"]) == 12, "every dead letter", 60)
    assert "the console begins anew with them" in console.output
    assert console.terminate() == 0
    assert worker.terminate() == 0


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """`delaystream dev` on free ports, and the file of what it prints."""
    output = tmp_path / "output"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DELAYSTREAM_")}
    ports = ["--port", "0", "--http-port", "0", "--console-port", "0"]
    with output.open("w") as file:
        process = subprocess.Popen(
            command("dev", *ports, "--partitions", "2", "--data-dir", str(tmp_path / "dev")),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment,
        )
    yield process, output
    # What it started ends with it.
    process.kill()
    process.wait()


@pytest.mark.timeout(240)
def test_dev_shows_its_samples_on_a_page_and_goes_on_without_it(
    dev: tuple[subprocess.Popen[bytes], Path],
) -> None:
    """Its address is printed after the first delivery; its end is told; nothing of it stays behind."""
    process, output = dev
    wait(lambda: bool(_PRINTED.search(output.read_text())) or process.poll() is not None, "the address", 120)
    assert process.poll() is None, output.read_text()
    text = output.read_text()
    assert re.search(r"reminders/\d/\d+  sample: now", text[: text.index("\nconsole http")])
    (url,) = _PRINTED.findall(text)
    wait(lambda: ask(f"{url}/health/ready") is not None, "the console")
    sample = re.compile(r"^sample-\d+$")

    def fired() -> bool:
        items = listed(f"{url}/v1/schedules", status=["fired", "completed"])
        return any(sample.match(one["id"]) for one in items)

    wait(fired, "the sample with an id among what fired", 60)
    with urllib.request.urlopen(url, timeout=5) as page:
        wait(lambda: b"sample-" in urllib.request.urlopen(url, timeout=5).read(), "the sample on the page")
        assert page.headers["content-type"].startswith("text/html")

    children = psutil.Process(process.pid).children(recursive=True)
    (console,) = [one for one in children if "console" in one.cmdline() and "delaystream" in one.cmdline()]
    os.kill(console.pid, signal.SIGKILL)
    wait(lambda: "the console ended by itself" in output.read_text(), "the word of its end")
    found = re.search(r"Kafka is at (\S+)\. ", output.read_text())
    assert found is not None
    kafka = Kafka(found[1])
    headers = [("delaystream-destination", b"reminders"), ("delaystream-delay", b"0")]
    kafka.produce("delay-requests", [(None, b"without a console", headers)])
    wait(lambda: "without a console" in output.read_text(), "a delivery after its end")
    process.terminate()
    assert process.wait(40) == 0, output.read_text()
    assert not [one for one in children if one.is_running()]
