"""The audit log is for admins, of their topics; and an actor is verified by it alone."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from delaystream.console.access.entrance import Entrance
from delaystream.console.access.token_file import TokenFile
from delaystream.engine.ports import TopicPartition
from tests.unit.console.neighbours import entry, token
from tests.unit.console.test_writing_access import CRON
from tests.unit.console.writable import World, in_world

FILE = "".join(
    [
        entry("boss", {"*": "admin"}, payload=True),
        entry("first", {"one": "admin", "two": "operator"}),
        entry("guest", {"*": "operator"}),
    ]
)


STREAM = "/v1/events?last=1000&until=now"


def entrance(directory: Path) -> Entrance:
    file = directory / "tokens.toml"
    file.write_text(FILE)
    return Entrance(lambda: 0, tokens=TokenFile(file))


def by(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(name)}", "Content-Type": "application/json"}


def test_it_is_for_admins_of_the_topics_that_they_answer_for(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for topic in ("one", "two"):
            path = f"/v1/schedules/{topic}?request_topic={topic}"
            assert (await world.ask.put(path, json=CRON, headers=by("guest"))).status_code == 201
        assert (await world.ask.delete("/v1/schedules/one")).status_code == 401

        async def seen(name: str, query: str = "") -> list[dict[str, Any]]:
            answer = await world.ask.get(f"/v1/audit?{query}", headers=by(name))
            assert answer.status_code == 200, answer.text
            items: list[dict[str, Any]] = answer.json()["items"]
            return items

        assert [one["request_topic"] for one in await seen("boss")] == [None, "two", "one"]
        assert [one["request_topic"] for one in await seen("boss", "request_topic=two")] == ["two"]
        assert [one["request_topic"] for one in await seen("first")] == ["one"]
        assert await seen("first", "request_topic=two") == []
        assert [one["kind"] for one in await seen("boss", "outcome=refused")] == ["unknown"]
        assert [one["about"] for one in await seen("boss", "action=schedule&about=two")] == ["two"]
        for path in ("/v1/audit", "/audit"):
            refused = await world.ask.get(path, headers=by("guest"))
            assert refused.status_code == 403
            assert "role-too-low" in refused.text
        assert "Audit log" in (await world.ask.get("/", headers=by("first"))).text
        assert "Audit log" not in (await world.ask.get("/", headers=by("guest"))).text
        page = (await world.ask.get("/audit", headers=by("first"))).text
        assert ">guest<" in page
        assert "/where?q=two" not in page

    in_world(tmp_path, story, topics=("one", "two"), entrance=entrance(tmp_path))


def test_it_is_read_in_pages(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for number in range(5):
            await world.ask.put(f"/v1/schedules/{number}", json=CRON)
        found: list[str] = []
        query = "limit=2"
        while True:
            answer = (await world.ask.get(f"/v1/audit?{query}")).json()
            found += [one["about"] for one in answer["items"]]
            if answer["next_cursor"] is None:
                break
            query = f"limit=2&cursor={answer['next_cursor']}"
        assert found == list("43210")
        other = await world.ask.get(f"/v1/audit?{query}&name=x")
        assert other.json()["code"] == "invalid-cursor"

    in_world(tmp_path, story)


@pytest.mark.parametrize("way", [STREAM, "/schedules/{id}"])
def test_an_actor_is_verified_where_the_console_wrote_its_source(way: str, tmp_path: Path) -> None:
    """Whoever may write to the request topic may write any name, and gets no mark for it."""

    async def story(world: World) -> None:
        made = await world.ask.put("/v1/schedules/mine?request_topic=one", json=CRON, headers=by("boss"))
        assert made.status_code == 201, made.text
        world.worker.log.append(
            TopicPartition("one", 0),
            (
                b"key",
                b"value",
                [
                    ("delaystream-id", b"forged"),
                    ("delaystream-destination", b"invoices"),
                    ("delaystream-cron", b"0 9 * * *"),
                    ("delaystream-actor", b"boss"),
                    ("delaystream-request-id", made.json()["request_id"].encode()),
                ],
                world.worker.now_ms(),
            ),
        )
        world.advance(1)
        stream = b""
        for _ in range(400):
            stream = (await world.ask.get(STREAM, headers=by("boss"))).content
            if b"forged" in stream:
                break
            await asyncio.sleep(0.05)
        assert b"forged" in stream
        if way.startswith("/v1/events"):
            told = [json.loads(line[6:]) for line in stream.decode().splitlines() if line[:6] == "data: "]
            assert {one["id"]: one["actor_verified"] for one in told if "actor" in one} == {
                "mine": True,
                "forged": False,
            }
            return
        for id, marked in (("mine", True), ("forged", False)):
            page = (await world.ask.get(way.format(id=id), headers=by("boss"))).text
            assert re.search(r"by <strong>boss</strong>", page), page
            assert ("state-verified" in page) == marked

    in_world(tmp_path, story, topics=("one",), entrance=entrance(tmp_path))
