"""Dead letters through a console, as processes on a real broker: repaired, sent once, followed to the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import Deployment, wait
from tests.integration.harness_console import ConsoleProcess, ask
from tests.integration.harness_fixtures import Deploy
from tests.integration.test_console_writes import send

PATIENT = {"Prefer": "wait=60"}


def letter_of(app: Deployment, url: str, source: tuple[int, int]) -> dict[str, Any]:
    """The letter of a request, once the console has it."""
    told = f"{app.requests}/{source[0]}/{source[1]}"
    found: list[dict[str, Any]] = []

    def there() -> bool:
        page = ask(f"{url}/v1/dead-letters", standing="all", limit=500)
        found[:] = [one for one in (page or {"items": []})["items"] if one["source"] == told]
        return bool(found)

    wait(there, "the dead letter")
    return found[0]


def redriven(app: Deployment) -> list[Any]:
    """The requests that are redrives."""
    with app.reader(app.requests) as reader:
        records = reader.to_end()
    return [
        record
        for record in records
        if any(
            name == "delaystream-request-id" and (value or b"").startswith(b"redrive-")
            for name, value in record.headers or ()
        )
    ]


@pytest.mark.timeout(240)
def test_a_letter_is_repaired_sent_once_and_delivered(deploy: Deploy, tmp_path: Path) -> None:
    """Also by a console that was killed after it had sent, and before it knew the outcome."""
    app = deploy(partitions=2).apply_topics()
    out = app.destination("mended")
    worker = app.worker().wait_ready()
    kept = tmp_path / "console"
    first = ConsoleProcess(app, kept)
    url = first.wait_ready()
    binary = bytes(range(256))
    source = app.request(binary, {"destination": out, "delay": "soon"})
    letter = letter_of(app, url, source)
    place = f"{url}/v1/dead-letters/{letter['place']}"
    assert (letter["code"], letter["standing"]) == ("invalid-delay", "open")
    still_wrong = send(f"{place}/redrive", "POST", {"set": [["delaystream-delay", "later"]]})
    assert (still_wrong.status, still_wrong.body["code"]) == (400, "invalid-delay")
    assert redriven(app) == []
    repair = {"set": [["delaystream-delay", "0"]], "note": "mended"}
    worker.pause()
    asked = send(f"{place}/redrive", "POST", repair, {"Prefer": "wait=0"})
    assert (asked.status, asked.body["standing"]) == (202, "sending"), asked
    wait(lambda: send(place).body["last_act"]["stage"] == "sent", "the request on its topic")
    first.kill()
    worker.resume()
    second = ConsoleProcess(app, kept)
    url = second.wait_ready()
    place = f"{url}/v1/dead-letters/{letter['place']}"
    for _ in range(2):
        told = send(f"{place}/redrive", "POST", repair, PATIENT)
        assert (told.status, told.body["standing"]) == (200, "accepted"), told
        assert len(told.body["acts"]) == 1
    (record,) = app.kafka.read(out, 1)
    assert record.value == binary
    again = send(f"{place}/redrive", "POST", {**repair, "again": True}, PATIENT)
    assert (again.status, len(again.body["acts"])) == (200, 2), again
    assert [one.value for one in app.kafka.read(out, 2)] == [binary, binary], (
        "no third, whoever has sent twice"
    )
    for standing, counts in (("open", {}), ("accepted", {"invalid-delay": 1})):
        assert ask(f"{url}/v1/dead-letters", standing=standing)["counts"] == counts
    assert second.terminate() == 0, second.output
    assert worker.terminate() == 0


@pytest.mark.timeout(240)
def test_many_letters_come_back_and_what_is_refused_again_leads_to_its_new_letter(
    deploy: Deploy, tmp_path: Path
) -> None:
    app = deploy(partitions=2).apply_topics()
    out = app.destination("many")
    worker = app.worker().wait_ready()
    console = ConsoleProcess(app, tmp_path / "console")
    url = console.wait_ready()
    places = [
        letter_of(
            app, url, app.request(b"%d" % number, {"destination": out, "delay": "soon", "id": f"m-{number}"})
        )
        for number in range(6)
    ]
    bad = letter_of(
        app, url, app.request(b"x", {"destination": out, "delay": "soon", "destination-partition": "77"})
    )
    repair = {"set": [["delaystream-delay", "0"]], "code": "invalid-delay"}
    look = send(f"{url}/v1/dead-letters/redrive", "POST", {**repair, "dry_run": True})
    assert (look.status, look.body["total"], look.body["refused"]) == (200, len(places) + 1, {}), look
    run = send(f"{url}/v1/dead-letters/redrive", "POST", {**repair, "rate": 20})
    assert run.status == 202, run
    where = url + run.headers["location"]
    wait(lambda: ask(where)["stage"] == "done", "the end of the run")
    assert ask(where)["standing"] == {"accepted": 6, "rejected": 1}
    assert sorted(record.value or b"" for record in app.kafka.read(out, 6)) == [
        b"%d" % number for number in range(6)
    ]
    told = ask(f"{url}/v1/dead-letters/{bad['place']}")
    assert told["last_act"]["code"] == "destination-partition-out-of-range"
    (new,) = ask(f"{url}/v1/dead-letters")["items"]
    assert new["place"] == told["last_act"]["letter"]
    gone = send(f"{url}/v1/dead-letters/{new['place']}/discard", "POST", {"note": "of a test"})
    assert (gone.status, gone.body["standing"]) == (200, "discarded"), gone
    assert ask(f"{url}/v1/dead-letters")["items"] == []
    assert console.terminate() == 0, console.output
    assert worker.terminate() == 0
