"""Writes over HTTP: each is a record like anybody's, decided by the owner, and shown when it is answered."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from delaystream.console.writing import service
from delaystream.console.writing.ledger import KEPT_MS
from delaystream.core.partitioning import owner_partition
from delaystream.engine.ports import TopicPartition
from delaystream.testing.worker import MemoryWorker, TopicPlan
from tests.unit.console.writable import START_MS, Deaf, World, in_world

CRON = {"destination": "invoices", "cron": "0 9 * * MON-FRI", "timezone": "Europe/Berlin", "value": "now"}
JSON = {"Content-Type": "application/json"}


def headers_of(record: Any) -> dict[str, str]:
    return {name.removeprefix("delaystream-"): value.decode() for name, value in record.headers}


async def create(world: World, id: str = "report", **body: Any) -> Any:
    answer = await world.ask.post("/v1/schedules", json={**CRON, "id": id, **body})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def read(world: World, id: str = "report") -> Any:
    answer = await world.ask.get(f"/v1/schedules/{id}", params={"payload": True})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def past_begun(world: World, place: str) -> dict[str, Any]:
    """What is told of a request once it was sent."""
    while True:
        told: dict[str, Any] = (await world.ask.get(place)).json()
        if told["stage"] != "begun":
            return told
        # An answer from memory lets nothing else run.
        await asyncio.sleep(0.001)


def test_a_schedule_that_is_answered_is_shown(tmp_path: Path) -> None:
    """On the partition that owns it, by the key of its caller, and with who asked."""

    async def story(world: World) -> None:
        for number in range(8):
            id = f"report-{number}"
            answer = await world.ask.post("/v1/schedules", json={**CRON, "id": id, "key": "customer"})
            assert answer.status_code == 201, answer.text
            assert answer.headers["location"] == f"/v1/schedules/{id}"
            found = await world.ask.get(f"/v1/schedules/{id}")
            assert found.status_code == 200
            assert answer.headers["etag"] == found.headers["etag"]
            told = answer.json()
            assert told["schedule"]["definition"] == found.json()["definition"]
            assert (told["outcome"], told["shown"]) == ("scheduled", True)
            assert found.json()["created_by"] == "console"
            assert told["source"].split("/")[1] == str(owner_partition(id, 2))
        assert {record.key for record in world.sent()} == {b"customer"}

    in_world(tmp_path, story)


def test_what_was_read_can_be_sent_back_and_changes_nothing(tmp_path: Path) -> None:
    bodies: list[dict[str, Any]] = [
        CRON,
        {"destination": "pings", "every": "15m", "jitter": "30s", "value_json": {"a": [1, None, "ü"]}},
        {"destination": "pings", "every": "15m", "start": "2030-01-05T00:00:00Z", "grace": "2m"},
        {"destination": "mails", "at": ["2030-02-01T09:00:00Z", "2031-01-01T00:00:00+01:00"], "value": "x"},
        {
            "destination": "mails", "at": 1_896_080_400_000, "on_late": "late-mails", "grace": "5m",
            "destination_partition": 0, "destination_key": "k2", "key": "k1", "name": "none",
            "tags": ["a", "b c"], "description": "two\nlines", "value_base64": "/wA=",
            "headers": [["h", "1"], ["h", None], ["raw", {"base64": "/w=="}]],
        },
        {**CRON, "max_fires": 3, "end": "2031-01-01T00:00:00Z", "dst_gap": "skip", "catch_up": "all",
         "destination_key": "", "key_base64": "/wE="},
    ]  # fmt: skip

    async def story(world: World) -> None:
        for number, body in enumerate(bodies):
            await create(
                world, f"one-{number}", **{**dict.fromkeys(CRON), **body, "value": body.get("value")}
            )
            found = await read(world, f"one-{number}")
            again = {**found["definition"], **found["payload"]}
            answer = await world.ask.put(f"/v1/schedules/one-{number}", json=again)
            assert answer.status_code == 200, answer.text
            assert answer.json()["outcome"] == "unchanged", (body, again)
            after = await read(world, f"one-{number}")
            assert after["version"] == found["version"]
            assert (after["definition"], after["payload"]) == (found["definition"], found["payload"])

    in_world(tmp_path, story)


def test_commands_about_one_schedule(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await create(world)
        path = "/v1/schedules/report"

        async def ask(method: str, what: str = "", **options: Any) -> Any:
            answer = await world.ask.request(method, path + what, headers=JSON, **options)
            assert answer.status_code == 200, answer.text
            return answer.json()

        paused = await ask("POST", "/pause", json={"note": "rent is due", "until": "2030-01-02T00:00:00Z"})
        assert (paused["outcome"], paused["schedule"]["status"]) == ("paused", "paused")
        assert paused["schedule"]["note"] == "rent is due"
        assert paused["schedule"]["until"] == "2030-01-02T00:00:00.000Z"
        assert (await ask("POST", "/resume"))["schedule"]["status"] == "pending"
        assert (await ask("POST", "/toggle", json={"enabled": False}))["schedule"]["status"] == "paused"
        assert (await ask("POST", "/toggle", json={"enabled": True}))["outcome"] == "resumed"
        fired = await ask("POST", "/trigger")
        assert (fired["outcome"], len(fired["fires"])) == ("triggered", 1)
        world.advance(1)
        assert [record.value for record in world.sent("invoices")] == [b"now"]
        moved = await ask("POST", "/reschedule", json={"every": "1h", "jitter": "1s"})
        assert moved["schedule"]["definition"]["every"] == "1h"
        changed = await ask("PATCH", json={"jitter": None, "name": "Hourly", "value_json": None})
        assert changed["schedule"]["definition"]["jitter"] is None
        assert (await read(world))["payload"]["value"] == "null"
        gone = await ask("DELETE", params={"note": "enough"})
        assert (gone["outcome"], gone["schedule"]["status"]) == ("cancelled", "cancelled")

    in_world(tmp_path, story)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("DELETE", "nobody", None, 404, "unknown"),
        ("POST", "gone/trigger", {}, 409, "too-late"),
        ("POST", "report/toggle", None, 400, "invalid-parameter"),
        ("POST", "report/pause", {"until": "1970"}, 400, "invalid-until"),
        ("POST", "report/reschedule", {}, 400, "no-schedule"),
        ("POST", "report/reschedule", {"cron": "R * * * *"}, 400, "unsupported-cron"),
        ("PATCH", "report", {}, 400, "nothing-to-change"),
        ("PATCH", "report", {"destination": None}, 400, "not-applicable"),
        ("PATCH", "report", {"name": "none"}, 400, "not-applicable"),
        ("PATCH", "report", {"key": "k"}, 400, "invalid-payload"),
        ("PUT", "report", {}, 400, "invalid-payload"),
        ("PUT", "report", {"value": None}, 400, "missing-destination"),
        ("PUT", "report", {**CRON, "value_json": 1}, 400, "invalid-payload"),
        ("PUT", "report", {**CRON, "every": "5m"}, 400, "delay-and-at"),
        ("PUT", "report", {**CRON, "max_fires": True}, 400, "invalid-parameter"),
        ("PUT", "report", {**CRON, "typo": 1}, 400, "invalid-parameter"),
        ("PUT", "report", {**CRON, "destination": "__consumer_offsets"}, 400, "destination-denied"),
        ("PUT", "report", {**CRON, "destination": "delay-events"}, 400, "destination-denied"),
        ("PUT", "report", {**CRON, "tags": ["a,b"]}, 400, "invalid-parameter"),
        ("PUT", "report", {**CRON, "headers": [["delaystream-actor", "boss"]]}, 400, "not-applicable"),
        ("PUT", "report", {**CRON, "headers": [["Delaystream-Action", "cancel"]]}, 400, "not-applicable"),
        ("PUT", "report", {**CRON, "headers": [["delaystream-dely", "1s"]]}, 400, "unknown-header"),
        ("PUT", "report", {**CRON, "key": "a", "key_base64": "YQ=="}, 400, "invalid-key"),
        ("PUT", "report", {**CRON, "value": None, "value_base64": "?"}, 400, "invalid-payload"),
        ("PUT", "x" * 257, CRON, 400, "id-too-long"),
        ("PUT", "report?request_topic=other", CRON, 404, "unknown-request-topic"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_before_it_is_sent_or_by_the_owner(
    method: str, path: str, body: Any, status: int, code: str, tmp_path: Path
) -> None:
    async def story(world: World) -> None:
        await create(world)
        await create(world, "gone")
        await world.ask.delete("/v1/schedules/gone")
        before = len(world.sent())
        answer = await world.ask.request(method, f"/v1/schedules/{path}", json=body, headers=JSON)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"].endswith((".", "?"))
        assert len(world.sent()) - before == (status in (404, 409) and "other" not in path)

    in_world(tmp_path, story)


def test_a_version_is_compared_by_the_owner(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        first = await world.ask.put("/v1/schedules/report", json=CRON, headers={"If-None-Match": "*"})
        assert first.status_code == 201
        again = await world.ask.put("/v1/schedules/report", json=CRON, headers={"If-None-Match": "*"})
        assert (again.status_code, again.json()["code"]) == (412, "version-changed")
        tag = first.headers["etag"]
        changed = await world.ask.patch("/v1/schedules/report", json={"name": "a"}, headers={"If-Match": tag})
        assert changed.status_code == 200
        assert changed.headers["etag"] != tag
        late = await world.ask.delete("/v1/schedules/report", headers={"If-Match": tag})
        assert (late.status_code, late.json()["code"]) == (412, "version-changed")
        for wrong in ("*", "5", 'W/"5"', '"5", "6"', '"0"'):
            answer = await world.ask.delete("/v1/schedules/report", headers={"If-Match": wrong})
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid-version"), wrong

    in_world(tmp_path, story)


def test_an_id_that_is_in_use_is_not_replaced_by_a_post(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await create(world)
        answer = await world.ask.post("/v1/schedules", json={**CRON, "id": "report"})
        assert (answer.status_code, answer.json()["code"]) == (409, "already-exists")
        kept = await world.ask.post("/v1/schedules", json={**CRON, "id": "report", "if_exists": "keep"})
        assert (kept.status_code, kept.json()["outcome"]) == (200, "kept")

    in_world(tmp_path, story)


def test_a_key_repeats_the_outcome_and_the_id_that_was_made_up(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = {"Idempotency-Key": "order-42"}
        first = await world.ask.post("/v1/schedules", json=CRON, headers=key)
        again = await world.ask.post("/v1/schedules", json=CRON, headers=key)
        assert (first.status_code, again.status_code) == (201, 201)
        assert first.json()["schedule"]["id"] == again.json()["schedule"]["id"]
        assert first.json()["request_id"] == again.json()["request_id"]
        assert len(world.sent()) == 1
        other = await world.ask.post("/v1/schedules", json={**CRON, "name": "b"}, headers=key)
        assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
        without = [await world.ask.post("/v1/schedules", json=CRON) for _ in range(2)]
        assert len({answer.json()["schedule"]["id"] for answer in without}) == 2
        long = await world.ask.post("/v1/schedules", json=CRON, headers={"Idempotency-Key": "k" * 256})
        assert long.json()["code"] == "invalid-idempotency-key"

    in_world(tmp_path, story)


def test_two_at_once_with_one_key_are_one_request(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = {"Idempotency-Key": "order-42"}
        both = await asyncio.gather(
            *[world.ask.post("/v1/schedules", json=CRON, headers=key) for _ in range(2)]
        )
        assert [answer.status_code for answer in both] == [201, 201]
        assert len(world.sent()) == 1

    in_world(tmp_path, story)


def test_a_key_repeats_what_a_console_that_ended_has_sent(tmp_path: Path) -> None:
    """It was sent, and the outcome was never stored: the owner knows the name."""
    worker = MemoryWorker(TopicPlan(partitions=2), START_MS)
    key = {"Idempotency-Key": "order-42"}
    places: list[str] = []

    async def first(world: World) -> None:
        answer = await world.ask.post("/v1/schedules", json=CRON, headers={**key, "Prefer": "wait=0"})
        places.append(answer.headers["location"])
        await past_begun(world, places[0])

    async def second(world: World) -> None:
        world.advance(1)
        await world.caught_up()
        told = (await world.ask.get(places[0])).json()
        assert (told["stage"], told["outcome"], told["shown"]) == ("decided", "scheduled", True)
        answer = await world.ask.post("/v1/schedules", json=CRON, headers=key)
        assert answer.status_code == 201, answer.text
        assert (answer.json()["outcome"], answer.json()["repeated"]) == ("scheduled", True)
        again = await world.ask.post("/v1/schedules", json=CRON, headers=key)
        assert again.json()["source"] == answer.json()["source"], "stored by now"
        assert len(world.sent()) == 2
        found = await world.ask.get("/v1/schedules")
        assert found.json()["total"]["count"] == 1

    in_world(tmp_path, first, worker=worker, transport=Deaf)
    in_world(tmp_path, second, worker=worker)


def test_what_is_older_than_a_day_is_forgotten(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = {"Idempotency-Key": "order-42"}
        first = await world.ask.post("/v1/schedules", json=CRON, headers=key)
        place = f"/v1/requests/{first.json()['request_id']}"
        assert world.console.writing is not None
        for later_ms, gone in ((KEPT_MS, 0), (KEPT_MS + 1, 1)):
            assert world.console.writing.forget(world.worker.now_ms() + later_ms) == gone
            assert (await world.ask.get(place)).status_code == (404 if gone else 200)

    in_world(tmp_path, story)


def test_an_outcome_that_takes_longer_is_asked_for_elsewhere(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        answer = await world.ask.put("/v1/schedules/report", json=CRON, headers={"Prefer": "wait=0"})
        assert answer.status_code == 202
        place = answer.headers["location"]
        assert place == f"/v1/requests/{answer.json()['request_id']}"
        assert (await world.ask.get("/v1/requests/nobody")).status_code == 404
        told = await past_begun(world, place)
        assert (told["stage"], told["outcome"]) == ("sent", None)
        assert told["source"].startswith("delay-requests/")

    in_world(tmp_path, story, transport=Deaf)


def test_who_asks_with_a_position_is_answered_by_what_has_it(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        answer = await world.ask.post("/v1/schedules", json={**CRON, "id": "report"})
        position = answer.headers["position"]
        partition, _, offset = position.partition(".")
        for asked, status in (
            (position, 200), (f"{partition}.{int(offset) + 9}", 425), ("7.0", 425), ("0", 400), ("0.1-", 400),
        ):  # fmt: skip
            found = await world.ask.get("/v1/schedules/report", headers={"If-Position": asked})
            assert found.status_code == status, (asked, found.text)

    in_world(tmp_path, story)


def test_a_request_without_an_id_by_its_coordinates(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        def send() -> str:
            row = (
                b"k",
                b"v",
                ((b"delaystream-destination".decode(), b"out"), ("delaystream-delay", b"1h")),
                0,
            )
            partition, offset = world.worker.append("delay-requests", 1, (*row[:3], world.worker.now_ms()))
            world.advance(1)
            return f"/v1/pending/delay-requests/{partition}/{offset}"

        moved = await world.ask.post(send() + "/reschedule", json={"delay": "2h"})
        assert (moved.status_code, moved.json()["outcome"]) == (200, "rescheduled"), moved.text
        assert (await world.ask.post(send() + "/trigger", headers=JSON)).json()["outcome"] == "triggered"
        world.advance(1)
        assert len(world.sent("out")) == 1
        path = send()
        gone = await world.ask.delete(path)
        assert (gone.status_code, gone.json()["outcome"], gone.json()["schedule"]) == (200, "cancelled", None)
        listed = (await world.ask.get("/v1/pending")).json()["items"]
        assert [item["source"] for item in listed] == ["delay-requests/1/0"]
        again = await world.ask.delete(path)
        assert (again.status_code, again.json()["code"]) == (409, "too-late")
        for nowhere in ("0/77", "99/0"):
            nobody = await world.ask.delete(f"/v1/pending/delay-requests/{nowhere}")
            assert (nobody.status_code, nobody.json()["code"]) == (404, "unknown")
        # In order with the request that it is about: on its partition.
        elsewhere = world.worker.log.read(TopicPartition("delay-requests", 0), 0, 100, committed=False)[0]
        assert [headers_of(record)["coordinates"] for record in elsewhere] == ["delay-requests/0/77"]

    in_world(tmp_path, story)


def test_with_several_request_topics_one_is_named(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        answer = await world.ask.put("/v1/schedules/report", json=CRON)
        assert answer.json()["code"] == "request-topic-required"
        for topic in ("one", "two"):
            put = await world.ask.put("/v1/schedules/report", params={"request_topic": topic}, json=CRON)
            assert put.status_code == 201
        answer = await world.ask.delete("/v1/schedules/report")
        assert (answer.status_code, answer.json()["code"]) == (409, "ambiguous-id")
        assert (await world.ask.delete("/v1/schedules/report?request_topic=one")).status_code == 200
        only = await world.ask.get("/v1/schedules", params={"status": "pending"})
        assert [item["request_topic"] for item in only.json()["items"]] == ["two"]

    in_world(tmp_path, story, topics=("one", "two"))


def test_what_would_be_sent_is_told_without_sending(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        body = {"destination": "out", "at": "2030-02-01T09:00:00Z", "value": "x", "id": "one"}
        answer = await world.ask.post("/v1/requests/check", json=body)
        assert answer.json()["due_at"] == ["2030-02-01T09:00:00.000Z"]
        assert ["delaystream-id", "one"] in answer.json()["headers"]
        refused = await world.ask.post("/v1/requests/check", json={**body, "at": "soon"})
        assert refused.json()["code"] == "invalid-at"
        assert world.sent() == []

    in_world(tmp_path, story)


def test_a_console_that_only_reads_writes_nothing(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        answer = await world.ask.put("/v1/schedules/report", json=CRON)
        assert (answer.status_code, answer.json()["code"]) == (403, "read-only")
        assert world.sent() == []

    in_world(tmp_path, story, console_writes=False)


def test_a_write_that_no_copy_shows_does_not_keep_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy may be made anew for longer than anybody waits."""
    monkeypatch.setattr(service, "LONGEST_WAIT_S", 0.05)

    async def story(world: World) -> None:
        passed = type(world.console).passed
        monkeypatch.setattr(type(world.console), "passed", lambda *_: asyncio.Event().wait())
        answer = await world.ask.put("/v1/schedules/report", json=CRON)
        assert (answer.status_code, answer.json()["shown"]) == (202, False)
        assert answer.json()["outcome"] == "scheduled"
        assert world.console.writing is not None
        assert not world.console.writing._underway
        monkeypatch.setattr(type(world.console), "passed", passed)
        await world.caught_up()
        assert (await world.ask.get(answer.headers["location"])).json()["shown"] is True

    in_world(tmp_path, story)
