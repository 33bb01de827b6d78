"""Who may have what written: by role and request topic, and under no name but their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from delaystream.console.access.caller import NONE, Exceptions
from delaystream.console.access.entrance import Entrance
from delaystream.console.access.token_file import TokenFile
from tests.unit.console.neighbours import entry, token
from tests.unit.console.writable import World, in_world

CRON = {"destination": "invoices", "cron": "0 9 * * *", "value": "now"}
FILE = "".join(
    [
        entry("boss", {"*": "admin"}, payload=True),
        entry("clerk", {"one": "operator"}, payload=True),
        entry("guest", {"one": "viewer"}, payload=True),
        entry("mixed", {"one": "viewer", "two": "operator"}),
    ]
)


def entrance(directory: Path) -> Entrance:
    file = directory / "tokens.toml"
    file.write_text(FILE)
    return Entrance(lambda: 0, tokens=TokenFile(file, NONE))


def by(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(name)}", "Content-Type": "application/json"}


WRITES: list[tuple[str, str, Any]] = [
    ("POST", "/v1/schedules?request_topic=one", CRON),
    ("PUT", "/v1/schedules/report?request_topic=one", CRON),
    ("PATCH", "/v1/schedules/report", {"name": "x"}),
    ("DELETE", "/v1/schedules/report?request_topic=one", None),
    ("POST", "/v1/schedules/report/pause", {}),
    ("POST", "/v1/schedules/report/resume", {}),
    ("POST", "/v1/schedules/report/trigger", {}),
    ("POST", "/v1/schedules/report/reschedule", {"every": "1h"}),
    ("POST", "/v1/schedules/report/toggle", {"enabled": False}),
    ("POST", "/v1/requests/check?request_topic=one", CRON),
    ("DELETE", "/v1/pending/one/0/0", None),
    ("POST", "/v1/pending/one/0/0/trigger", {}),
    ("POST", "/v1/pending/one/0/0/reschedule", {"delay": "1h"}),
    ("POST", "/compat/schedules?request_topic=one", {"topic": "out", "delay_seconds": 9}),
    ("PUT", "/compat/schedules/report", {"name": "x"}),
    ("DELETE", "/compat/schedules/report?tenant=one", None),
    ("POST", "/compat/schedules/report/execute", {}),
    ("POST", "/compat/schedules/report/toggle", {"enabled": True}),
    ("PUT", "/v1/destinations/invoices/rate?request_topic=one", {"rate": 1}),
    ("POST", "/v1/holds?request_topic=one", {"destination": "invoices"}),
]
FOR_ADMINS = ("/v1/destinations", "/v1/holds")


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_a_role_that_is_too_low_changes_nothing(method: str, path: str, body: Any, tmp_path: Path) -> None:
    async def story(world: World) -> None:
        made = await world.ask.put("/v1/schedules/report?request_topic=one", json=CRON, headers=by("boss"))
        assert made.status_code == 201, made.text
        before = len(world.sent("one"))
        for name in ("guest", "mixed", *(["clerk"] if path.startswith(FOR_ADMINS) else [])):
            answer = await world.ask.request(method, path, json=body, headers=by(name))
            assert (answer.status_code, answer.json()["code"]) == (403, "role-too-low"), answer.text
        assert len(world.sent("one")) == before

    in_world(tmp_path, story, topics=("one", "two"), entrance=entrance(tmp_path))


def test_another_s_topic_is_as_one_that_is_not_there(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        made = await world.ask.put("/v1/schedules/theirs?request_topic=two", json=CRON, headers=by("boss"))
        place = f"/v1/requests/{made.json()['request_id']}"
        assert (await world.ask.get(place, headers=by("mixed"))).status_code == 200
        assert (await world.ask.get(place, headers=by("clerk"))).json()["code"] == "unknown"
        before = len(world.sent("two"))
        texts = []
        for topic in ("two", "none"):
            path = f"/v1/schedules/theirs?request_topic={topic}"
            answer = await world.ask.delete(path, headers=by("clerk"))
            assert (answer.status_code, answer.json()["code"]) == (404, "unknown-request-topic")
            texts.append(answer.text.replace(topic, "TOPIC"))
        assert texts[0] == texts[1]
        mine = await world.ask.delete("/v1/schedules/theirs", headers=by("clerk"))
        assert (mine.status_code, mine.json()["code"]) == (404, "unknown")
        await world.ask.post("/v1/holds?request_topic=two", json={"destination": "*"}, headers=by("boss"))
        assert (await world.ask.get("/v1/holds", headers=by("clerk"))).json()["items"] == []
        (hold,) = (await world.ask.get("/v1/holds", headers=by("boss"))).json()["items"]
        gone = await world.ask.post(f"/v1/holds/{hold['name']}/release", headers=by("clerk"))
        assert gone.json()["code"] == "unknown"
        assert len(world.sent("two")) == before + 1

    in_world(tmp_path, story, topics=("one", "two"), entrance=entrance(tmp_path))


def test_the_actor_is_who_asks_whatever_is_sent(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        # The only topic that it sees needs no name.
        made = await world.ask.put("/v1/schedules/report", json=CRON, headers=by("clerk"))
        assert made.status_code == 201, made.text
        assert made.json()["schedule"]["created_by"] == "clerk"
        for body in ({**CRON, "actor": "boss"}, {**CRON, "headers": [["delaystream-actor", "boss"]]}):
            forged = await world.ask.put("/v1/schedules/report", json=body, headers=by("clerk"))
            assert forged.status_code == 400, forged.text
        same = {"Idempotency-Key": "k"}
        ids = set()
        for name in ("clerk", "boss"):
            answer = await world.ask.post(
                "/v1/schedules?request_topic=one", json=CRON, headers={**by(name), **same}
            )
            assert answer.status_code == 201, answer.text
            ids.add(answer.json()["schedule"]["id"])
        assert len(ids) == 2, "a key is its caller's own"

    in_world(tmp_path, story, topics=("one", "two"), entrance=entrance(tmp_path))


def test_a_hold_of_a_key_that_is_hidden_is_released_by_its_name(tmp_path: Path) -> None:
    """Whoever may end it needs not see whom it is about."""
    file = tmp_path / "tokens.toml"
    file.write_text(entry("boss", {"*": "admin"}, payload=True) + entry("other", {"*": "admin"}))
    hidden = Entrance(lambda: 0, tokens=TokenFile(file, Exceptions(by_default=True)))

    async def story(world: World) -> None:
        for key in ("customer-a", "customer-b"):
            await world.ask.post("/v1/holds", json={"key": key}, headers=by("boss"))
        held = (await world.ask.get("/v1/holds", headers=by("boss"))).json()["items"]
        (hold,) = (one for one in held if one["key"] == "customer-a")
        path = f"/v1/holds/{hold['name']}/release"
        page = await world.ask.get("/holds/release", params={"name": hold["name"]}, headers=by("other"))
        assert page.status_code == 200
        assert "customer-" not in page.text
        assert (await world.ask.post(path, headers=by("other"))).status_code == 200
        (left,) = (await world.ask.get("/v1/holds", headers=by("boss"))).json()["items"]
        assert left["key"] == "customer-b"

    in_world(tmp_path, story, entrance=hidden)
