"""Operations on many through a console, as processes on a real broker: whatever ends in the middle."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import Deployment, wait
from tests.integration.harness_console import ConsoleProcess
from tests.integration.harness_fixtures import Deploy
from tests.integration.test_console_writes import send

MANY = 300


def told_of(app: Deployment) -> Counter[tuple[str, str]]:
    """How often the events tell what of which id."""
    found: Counter[tuple[str, str]] = Counter()
    with app.reader(app.events) as reader:
        for record in reader.to_end():
            event = json.loads(record.value or b"{}")
            found[event["type"], event.get("id", "")] += 1
    return found


@pytest.mark.timeout(400)
def test_a_console_that_is_killed_in_the_middle_does_nothing_twice(deploy: Deploy, tmp_path: Path) -> None:
    """A trigger fires each time that it is carried out: so each is counted, on the destination, too."""
    app = deploy(partitions=2).apply_topics()
    out = app.destination("many")
    ids = [f"many-{number}" for number in range(MANY)]
    requests = [
        (
            id.encode(),
            id.encode(),
            [
                ("delaystream-id", id.encode()),
                ("delaystream-destination", out.encode()),
                ("delaystream-every", b"1d"),
            ],
        )
        for id in ids
    ]
    app.kafka.produce(app.requests, requests)
    worker = app.worker().wait_ready()
    kept = tmp_path / "console"
    console = ConsoleProcess(app, kept)
    url = console.wait_ready()
    wait(lambda: send(f"{url}/v1/schedules", limit=1).body["total"]["count"] == MANY, "the schedules", 120)

    def begun(action: str, rate: int) -> str:
        body = {"action": action, "filter": {"destination": out}}
        made = send(f"{url}/v1/operations", "POST", body)
        assert (made.status, made.body["count"]) == (201, MANY), made
        id: str = made.body["id"]
        started = send(f"{url}/v1/operations/{id}/start", "POST", {"rate": rate})
        assert started.status == 200, started
        return id

    def progress(id: str) -> dict[str, Any]:
        body: dict[str, Any] = send(f"{url}/v1/operations/{id}").body
        return body

    def done(id: str) -> bool:
        return bool(progress(id)["stage"] == "done")

    triggered = begun("trigger", 60)
    for at_least in (40, 150):
        wait(lambda least=at_least: progress(triggered)["progress"]["changed"] >= least, "some of it", 60)  # type: ignore[misc]
        console.kill()
        console = ConsoleProcess(app, kept)
        url = console.wait_ready()
    wait(lambda: done(triggered), "the triggers", 120)
    assert progress(triggered)["progress"]["changed"] == MANY, progress(triggered)
    sent = Counter(record.value for record in app.kafka.read(out, MANY))
    assert sent == Counter({id.encode(): 1 for id in ids})

    cancelled = begun("cancel", 1_000)
    wait(lambda: progress(cancelled)["progress"]["changed"] > 20, "some of it", 60)
    console.kill()
    console = ConsoleProcess(app, kept)
    url = console.wait_ready()
    wait(lambda: done(cancelled), "the cancels", 120)
    assert progress(cancelled)["progress"]["changed"] == MANY, progress(cancelled)
    # Whoever reads that it is done, reads what it did.
    assert send(f"{url}/v1/schedules", limit=1).body["total"]["count"] == 0
    undo = send(f"{url}/v1/operations/{cancelled}/undo", "POST", {})
    assert undo.status == 201, undo
    wait(lambda: done(undo.body["id"]), "the undo", 120)
    assert progress(undo.body["id"])["progress"]["changed"] == MANY, progress(undo.body["id"])
    assert send(f"{url}/v1/schedules", limit=1).body["total"]["count"] == MANY
    assert console.terminate() == 0, console.output
    assert worker.terminate() == 0
    told = told_of(app)
    for id in ids:
        # Twice: by the first request, and by the undo.
        for type, times in (("triggered", 1), ("fired", 1), ("cancelled", 1), ("scheduled", 2)):
            assert told[type, id] == times, (type, id, told)
