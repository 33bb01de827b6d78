"""Writes in the words of other schedulers; rates and holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from delaystream.console.api.reading.compat import PREFIXES
from delaystream.console.replica.catalog import Catalog
from tests.unit.console.writable import Deaf, World, in_world

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_another_system_s_requests_are_carried_out(prefix: str, tmp_path: Path) -> None:
    base = f"/compat{prefix}/schedules"

    async def story(world: World) -> None:
        body = {
            "id": "nightly", "tenant": "delay-requests", "name": "Nightly", "cron_expression": "0 2 * * *",
            "timezone": "Europe/Berlin", "topic": "jobs", "key": "k", "payload": {"job": 1},
            "headers": {"type": "job"}, "tags": ["a"], "max_executions": 9, "is_active": False,
        }  # fmt: skip
        made = await world.ask.post(base, json=body)
        assert made.status_code == 201, made.text
        told = made.json()
        expected = {**body, "type": "cron", "status": "paused"}
        for name in ("payload", "headers", "key"):
            expected.pop(name)
        assert {name: told[name] for name in expected} == expected
        assert (await world.ask.get(f"{base}/nightly")).json() == told
        found = (await world.ask.get("/v1/schedules/nightly?payload=true")).json()["payload"]
        assert (found["value"], found["headers"], found["key"]) == ('{"job":1}', [["type", "job"]], "k")
        twice = await world.ask.post(base, json=body)
        assert (twice.status_code, twice.json()["code"]) == (409, "already-exists")

        async def ask(method: str, what: str = "", **options: Any) -> Any:
            answer = await world.ask.request(method, f"{base}/nightly{what}", headers=JSON, **options)
            assert answer.status_code == 200, answer.text
            return answer.json()

        assert (await ask("PUT", json={"interval_seconds": 0.5e3, "is_active": True}))[
            "interval_seconds"
        ] == 500
        assert (await ask("GET"))["status"] == "pending"
        assert (await ask("PUT", json={"is_active": False}))["is_active"] is False
        assert (await ask("POST", "/toggle", json={"enabled": True}))["is_active"] is True
        executed = await ask("POST", "/execute")
        world.advance(1)
        (delivery,) = world.sent("jobs")
        assert dict(delivery.headers)["delaystream-fire-id"].decode() == executed["execution_id"]
        assert (await ask("DELETE"))["status"] == "cancelled"
        nobody = await world.ask.post(f"{base}/nobody/execute", headers=JSON)
        assert nobody.status_code == 404

    in_world(tmp_path, story)


def test_what_there_is_nothing_to_do_for_is_gone(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for method, what in (("POST", "sync"), ("POST", "cleanup"), ("DELETE", "cleanup")):
            answer = await world.ask.request(method, f"/compat/schedules/monitoring/{what}", headers=JSON)
            assert (answer.status_code, answer.json()["code"]) == (410, "gone")
            assert answer.json()["detail"].startswith("There is nothing to ")
        assert world.sent() == []

    in_world(tmp_path, story)


def test_the_rate_of_a_destination_is_set_on_every_partition(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        path = "/v1/destinations/mails/rate"
        assert (await world.ask.get(path)).json()["items"] == []
        for rate, told in ((2.5, 2.5), ("36/h", 0.01), (None, None)):
            answer = await world.ask.put(path, json={"rate": rate, "note": "slow"})
            assert (answer.status_code, answer.json()["outcome"]) == (200, "rate-set"), answer.text
            assert answer.json()["position"].count("-") == 1, "of both partitions"
            (item,) = (await world.ask.get(path)).json()["items"]
            assert (item["per_second"], item["by"], item["note"]) == (told, "command", "slow")
        for wrong in (0, -1, "fast", True, "1/d"):
            refused = await world.ask.put(path, json={"rate": wrong})
            assert refused.status_code == 400, wrong
        denied = await world.ask.put("/v1/destinations/delay-events/rate", json={"rate": 1})
        assert denied.json()["code"] == "destination-denied"

    in_world(tmp_path, story)


def test_a_customer_is_held_back_and_released(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for id in ("a", "b"):
            body = {"destination": "mails", "delay": "1h", "key": f"customer-{id}", "value": id, "id": id}
            assert (await world.ask.post("/v1/schedules", json=body)).status_code == 201
        made = await world.ask.post("/v1/holds", json={"key": "customer-a", "note": "complaint"})
        assert (made.status_code, made.json()["outcome"], made.json()["count"]) == (200, "paused", 1), (
            made.text
        )
        later = {"destination": "mails", "delay": "1h", "key": "customer-a", "value": "c", "id": "c"}
        assert (await world.ask.post("/v1/schedules", json=later)).json()["schedule"]["status"] == "paused"
        (hold,) = (await world.ask.get("/v1/holds")).json()["items"]
        assert (hold["key"], hold["note"], hold["actor"], hold["arriving"]) == (
            "customer-a", "complaint", "console", True,
        )  # fmt: skip
        assert (await world.ask.get("/v1/holds?request_topic=other")).json()["items"] == []
        world.advance(3_700)
        assert [record.value for record in world.sent("mails")] == [b"b"]
        released = await world.ask.post(f"/v1/holds/{hold['name']}/release", headers=JSON)
        assert (released.status_code, released.json()["outcome"]) == (200, "resumed"), released.text
        assert (await world.ask.get("/v1/holds")).json()["items"] == []
        world.advance(1)
        assert sorted(record.value for record in world.sent("mails")) == [b"a", b"b", b"c"]
        gone = await world.ask.post(f"/v1/holds/{hold['name']}/release", headers=JSON)
        assert gone.status_code == 404
        nothing = await world.ask.post("/v1/holds", json={"note": "all"})
        assert nothing.json()["code"] == "invalid-match"

    in_world(tmp_path, story)


def test_what_another_system_s_client_must_not_send_again_is_no_error(tmp_path: Path) -> None:
    """Whatever tries errors again would make a second schedule."""
    base = "/compat/schedules"
    calls: tuple[tuple[str, str, Any], ...] = (
        ("POST", base, {"topic": "jobs", "delay_seconds": 60}),
        ("PUT", f"{base}/nightly", {"name": "x"}),
        ("POST", f"{base}/nightly/toggle", {"enabled": False}),
        ("POST", f"{base}/nightly/execute", {}),
        ("DELETE", f"{base}/nightly", None),
    )

    async def story(world: World) -> None:
        for method, path, body in calls:
            headers = {**JSON, "Prefer": "wait=0"}
            answer = await world.ask.request(method, path, json=body, headers=headers)
            assert answer.status_code == 202, answer.text
            assert "retry-after" not in answer.headers
            told = answer.json()
            assert answer.headers["location"] == f"/v1/requests/{told['request_id']}"
            assert told["id"] == "nightly" or method == "POST"
            assert told["outcome"] is None

    in_world(tmp_path, story, transport=Deaf)


def test_another_system_s_write_that_is_decided_and_not_to_be_seen_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: World) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(Catalog, "get", lambda *_: None)
            answer = await world.ask.post("/compat/schedules", json={"topic": "jobs", "delay_seconds": 60})
        assert answer.status_code == 202, answer.text
        assert "retry-after" not in answer.headers
        assert answer.json()["outcome"] == "scheduled"
        place = answer.headers["location"]
        assert (await world.ask.get(place)).json()["about"] == answer.json()["id"]

    in_world(tmp_path, story)
