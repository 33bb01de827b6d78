"""Writes through a console, as processes on a real broker: answered when they are shown, and once each."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest

from delaystream.core.partitioning import owner_partition
from tests.integration.harness import Deployment, wait
from tests.integration.harness_console import ConsoleProcess
from tests.integration.harness_fixtures import Deploy


class Answer(NamedTuple):
    """What was answered."""

    status: int
    headers: Mapping[str, str]
    body: Any


def send(
    url: str,
    method: str = "GET",
    body: object = None,
    headers: Mapping[str, str] | None = None,
    **query: object,
) -> Answer:
    """One request, and its answer."""
    request = urllib.request.Request(
        f"{url}?{urlencode(query)}",
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/json", **(headers or {})},
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=90) as answer:
            return Answer(answer.status, dict(answer.headers), json.loads(answer.read()))
    except urllib.error.HTTPError as error:
        return Answer(error.code, dict(error.headers), json.loads(error.read()))


@pytest.fixture
def console(app: Deployment, tmp_path: Path) -> Iterator[str]:
    """A console of the shared application; its address."""
    process = ConsoleProcess(app, tmp_path / "console")
    yield process.wait_ready()
    assert process.terminate() == 0, process.output


def told_of(app: Deployment, id: str) -> Counter[str]:
    """How often the events tell what of an id; all that was told before now."""
    of = owner_partition(id, app.partitions)
    last = next(name for n in count() if owner_partition(name := f"last-{id}-{n}", app.partitions) == of)
    app.request(None, {"action": "cancel", "id": last})
    with app.reader(app.events) as reader:
        # The same owner decides on it, in a later transaction: by then every earlier one can be read.
        reader.take(1, 60, lambda record: last == json.loads(record.value or b"{}").get("id"))
    with app.reader(app.events) as reader:
        events = [json.loads(record.value or b"{}") for record in reader.to_end()]
    return Counter(event["type"] for event in events if event.get("id") == id)


@pytest.mark.timeout(240)
def test_what_was_answered_is_read_at_once(app: Deployment, console: str) -> None:
    """While others are at work, and without a look at a clock: the answer is there when the copy has it."""
    out = app.destination("writes")
    others = [
        (b"key-%d" % number, b"v", [("delaystream-destination", out.encode()), ("delaystream-delay", b"1s")])
        for number in range(100)
    ]
    schedules = f"{console}/v1/schedules"
    for number in range(12):
        app.kafka.produce(app.requests, others)
        id = f"writes-{number}"
        body = {"destination": out, "every": "1d", "value_json": {"number": number}, "key": "customer"}
        made = send(schedules, "POST", {**body, "id": id}, {"Prefer": "wait=60"})
        assert made.status == 201, made
        assert made.body["source"].split("/")[1] == str(owner_partition(id, app.partitions))
        read = send(f"{schedules}/{id}", payload="true")
        assert read.headers["etag"] == made.headers["etag"]
        again = send(f"{schedules}/{id}", "PUT", {**read.body["definition"], **read.body["payload"]})
        assert (again.status, again.body["outcome"]) == (200, "unchanged"), again
        tag = {"If-Match": read.headers["etag"], "Prefer": "wait=60"}
        changed = send(f"{schedules}/{id}", "PATCH", {"name": "New"}, tag)
        assert changed.status == 200, changed
        assert send(f"{schedules}/{id}").body["definition"]["name"] == "New"
        assert send(f"{schedules}/{id}", "DELETE", None, tag).status == 412
        gone = send(f"{schedules}/{id}", "DELETE", None, {"Prefer": "wait=60"}, note="enough")
        assert (gone.status, gone.body["outcome"]) == (200, "cancelled"), gone
        read = send(f"{schedules}/{id}")
        assert (read.body["status"], read.body["note"], read.body["updated_by"]) == (
            "cancelled", "enough", "console",
        )  # fmt: skip
        assert send(f"{schedules}/{id}", headers={"If-Position": gone.headers["position"]}).status == 200


@pytest.mark.timeout(240)
def test_a_rate_and_a_hold_stand_on_every_partition(app: Deployment, console: str) -> None:
    out = app.destination("held-writes")
    wait_long = {"Prefer": "wait=60"}
    rate = send(f"{console}/v1/destinations/{out}/rate", "PUT", {"rate": "600/m"}, wait_long)
    assert (rate.status, rate.body["outcome"]) == (200, "rate-set"), rate
    (item,) = send(f"{console}/v1/destinations/{out}/rate").body["items"]
    assert item["per_second"] == 10
    made = send(f"{console}/v1/holds", "POST", {"destination": out, "note": "repair"}, wait_long)
    assert (made.status, made.body["outcome"]) in {(200, "paused"), (200, "no-match")}, made
    app.request(b"later", {"destination": out, "delay": "0"})
    holds = [hold for hold in send(f"{console}/v1/holds").body["items"] if hold["destination"] == out]
    assert [hold["note"] for hold in holds] == ["repair"]
    released = send(f"{console}/v1/holds/{holds[0]['name']}/release", "POST", {}, wait_long)
    assert released.status == 200, released
    assert [record.value for record in app.kafka.read(out, 1)] == [b"later"]


@pytest.mark.timeout(240)
def test_a_key_repeats_the_outcome_across_a_kill_before_it_was_stored(deploy: Deploy, tmp_path: Path) -> None:
    """The console dies when the requests are sent, and nobody has decided on them; the owner decides then."""
    app = deploy(partitions=2).apply_topics()
    out = app.destination("once")
    worker = app.worker().wait_ready()
    kept = tmp_path / "console"
    first = ConsoleProcess(app, kept)
    url = first.wait_ready()
    body = {"destination": out, "every": "1d", "value": "v"}
    assert send(f"{url}/v1/schedules/known", "PUT", body, {"Prefer": "wait=60"}).status == 201
    worker.pause()
    keys = {"created": {"Idempotency-Key": "k-1"}, "fired": {"Idempotency-Key": "k-2"}}
    places = []
    for what, path in (("created", "/v1/schedules"), ("fired", "/v1/schedules/known/trigger")):
        asked = send(
            url + path, "POST", body if what == "created" else {}, {**keys[what], "Prefer": "wait=0"}
        )
        assert asked.status == 202, asked
        places.append(asked.headers["location"])
    for place in places:
        wait(lambda place=place: send(url + place).body["stage"] == "sent", "the request on its topic")  # type: ignore[misc]
    first.kill()
    worker.resume()
    second = ConsoleProcess(app, kept)
    url = second.wait_ready()
    # Nobody has stored the outcomes: the copies tell of them, where the owner remembers the names.
    for place, outcome in zip(places, ("scheduled", "triggered"), strict=True):
        wait(lambda place=place: send(url + place).body["stage"] == "decided", "the outcome")  # type: ignore[misc]
        assert send(url + place).body["outcome"] == outcome
    for _ in range(2):
        made = send(f"{url}/v1/schedules", "POST", body, {**keys["created"], "Prefer": "wait=60"})
        assert made.status == 201, made
        assert (made.body["outcome"], made.body["repeated"]) == ("scheduled", True), made
        fired = send(f"{url}/v1/schedules/known/trigger", "POST", {}, {**keys["fired"], "Prefer": "wait=60"})
        assert (fired.status, fired.body["outcome"], fired.body["repeated"]) == (200, "triggered", True), (
            fired
        )
    assert told_of(app, made.body["about"]) == {"scheduled": 1, "repeated": 1}
    assert told_of(app, "known") == {"scheduled": 1, "triggered": 1, "fired": 1, "repeated": 1}
    assert second.terminate() == 0, second.output
    assert worker.terminate() == 0
