"""Whose operations change what: the right on each request topic, at the start and at each command."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from delaystream.console.access.caller import NONE
from delaystream.console.access.entrance import Entrance
from delaystream.console.access.token_file import TokenFile
from delaystream.console.operations.service import RUNNING
from tests.unit.console.neighbours import entry, token
from tests.unit.console.test_operations import OPERATIONS, ended, until
from tests.unit.console.writable import World, in_world

CRON = {"destination": "invoices", "cron": "0 9 * * *", "value": "now"}
ENTRIES = {
    "boss": entry("boss", {"*": "admin"}, payload=True),
    "clerk": entry("clerk", {"one": "operator"}),
    "guest": entry("guest", {"one": "viewer"}, payload=True),
    "mixed": entry("mixed", {"one": "viewer", "two": "operator"}),
}


def entrance(directory: Path) -> Entrance:
    file = directory / "tokens.toml"
    file.write_text("".join(ENTRIES.values()))
    return Entrance(lambda: 0, tokens=TokenFile(file, NONE))


def by(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(name)}", "Content-Type": "application/json"}


async def filled(world: World, number: int = 3) -> None:
    for topic in ("one", "two"):
        for at in range(number):
            path = f"/v1/schedules/{topic}-{at}?request_topic={topic}"
            made = await world.ask.put(path, json=CRON, headers=by("boss"))
            assert made.status_code == 201, made.text


async def dry_run(world: World, name: str, **asked: Any) -> dict[str, Any]:
    answer = await world.ask.post(OPERATIONS, json={"action": "cancel", **asked}, headers=by(name))
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def status(world: World, id: str) -> str:
    answer = await world.ask.get(f"/v1/schedules/{id}", headers=by("boss"))
    return str(answer.json()["status"])


def test_without_a_request_topic_it_is_about_what_the_caller_may_change(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await filled(world)
        for name, topics in (
            ("boss", {"one": 3, "two": 3}),
            ("clerk", {"one": 3}),
            # It sees the other topic, and may not change it.
            ("mixed", {"two": 3}),
        ):
            assert (await dry_run(world, name, filter={}))["topics"] == topics
        subjects = [{"id": f"{topic}-0"} for topic in ("one", "two")]
        found = await dry_run(world, "clerk", schedules=subjects)
        assert (found["topics"], found["unknown_first"]) == ({"one": 1}, ["two-0"])
        await world.ask.post(f"{OPERATIONS}/{found['id']}/start", headers=by("clerk"))
        world.ask.headers.update(by("boss"))
        await ended(world, found["id"])
        assert await status(world, "one-0") == "cancelled"
        assert await status(world, "two-0") == "pending"
        updated = (await world.ask.get("/v1/schedules/one-0", headers=by("boss"))).json()
        assert updated["updated_by"] == "clerk"

    in_world(tmp_path, story, topics=("one", "two"), entrance=entrance(tmp_path))


def test_a_role_that_is_too_low_and_another_s_topic(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await filled(world, 1)
        before = len(world.sent("one")) + len(world.sent("two"))
        for name, filter, told in (
            ("guest", {}, (403, "role-too-low")),
            ("guest", {"request_topic": "one"}, (403, "role-too-low")),
            ("mixed", {"request_topic": ["one", "two"]}, (403, "role-too-low")),
            ("clerk", {"request_topic": "two"}, (404, "unknown-request-topic")),
            ("clerk", {"request_topic": "none"}, (404, "unknown-request-topic")),
        ):
            answer = await world.ask.post(
                OPERATIONS, json={"action": "cancel", "filter": filter}, headers=by(name)
            )
            assert (answer.status_code, answer.json()["code"]) == told, (name, filter)
        both = await dry_run(world, "boss", filter={})
        mine = await dry_run(world, "boss", filter={"request_topic": "one"})
        for name, id, told in (
            # Of one that is about another's topic, too, nothing is told.
            ("clerk", both["id"], (404, "unknown")),
            ("guest", mine["id"], (403, "role-too-low")),
            ("mixed", both["id"], (403, "role-too-low")),
        ):
            for what in ("start", "stop", "undo"):
                answer = await world.ask.post(f"{OPERATIONS}/{id}/{what}", headers=by(name))
                assert (answer.status_code, answer.json()["code"]) == told, (name, what)
        for name, ids in (("clerk", [mine["id"]]), ("mixed", [mine["id"], both["id"]])):
            listed = (await world.ask.get(OPERATIONS, headers=by(name))).json()["items"]
            assert sorted(one["id"] for one in listed) == sorted(ids), name
            page = (await world.ask.get("/operations", headers=by(name))).text
            assert [one in page for one in (mine["id"], both["id"])] == [True, both["id"] in ids], name
        for path in (OPERATIONS, "/operations"):
            assert (await world.ask.get(f"{path}/{mine['id']}", headers=by("clerk"))).status_code == 200
            seen = await world.ask.get(f"{path}/{both['id']}", headers=by("clerk"))
            assert (seen.status_code, "two" in seen.text) == (404, False), path
        seen = await world.ask.get(f"{OPERATIONS}/{both['id']}/failures", headers=by("clerk"))
        assert seen.status_code == 404
        assert len(world.sent("one")) + len(world.sent("two")) == before
        # One may make it, and another one who may start it.
        await world.ask.post(f"{OPERATIONS}/{mine['id']}/start", headers=by("clerk"))
        world.ask.headers.update(by("boss"))
        await ended(world, mine["id"])
        assert await status(world, "one-0") == "cancelled"

    in_world(tmp_path, story, topics=("one", "two"), entrance=entrance(tmp_path))


def test_a_right_that_is_taken_away_stops_it(tmp_path: Path) -> None:
    """At each command: not only when the next ones are looked up."""
    made = entrance(tmp_path)

    async def story(world: World) -> None:
        await filled(world, 30)
        found = await dry_run(world, "clerk", filter={})
        answer = await world.ask.post(
            f"{OPERATIONS}/{found['id']}/start", json={"rate": 20}, headers=by("clerk")
        )
        assert answer.status_code == 200, answer.text
        # Of thirty at twenty a second some are sent by then, and some are not.
        await until(lambda: len(world.sent("one")) > 33)
        (tmp_path / "tokens.toml").write_text(ENTRIES["boss"])
        assert made.tokens is not None
        made.tokens.look()
        world.ask.headers.update(by("boss"))
        body = await ended(world, found["id"], "stopped")
        assert body["problem"].startswith("clerk has no access any more")
        changed = body["progress"]["changed"]
        assert 0 < changed < 30
        await asyncio.sleep(0.3)
        cancelled = [at for at in range(30) if await status(world, f"one-{at}") == "cancelled"]
        assert len(cancelled) == changed
        # Whoever may, goes on with it.
        await world.ask.post(f"{OPERATIONS}/{found['id']}/start", json={"rate": 1000})
        body = await ended(world, found["id"])
        assert body["started_by"] == "boss"
        assert body["progress"]["changed"] == 30

    in_world(tmp_path, story, topics=("one", "two"), entrance=made)


def test_what_was_asked_for_is_told_only_to_those_who_see_it(tmp_path: Path) -> None:
    """Also the names of topics and ids of which nothing matched."""

    async def story(world: World) -> None:
        await filled(world, 1)
        both = {"request_topic": ["one", "two"], "id_prefix": "one"}
        listed = [{"id": "one-0", "request_topic": "one"}, {"id": "none", "request_topic": "two"}]
        for asked in ({"filter": both}, {"schedules": listed}, {"schedules": [{"id": "one-0"}, {"id": "x"}]}):
            found = await dry_run(world, "boss", **asked)
            assert found["topics"] == {"one": 1}
            for path in (OPERATIONS, "/operations"):
                seen = await world.ask.get(f"{path}/{found['id']}", headers=by("clerk"))
                assert seen.status_code == 404, (path, asked)
            seen = await world.ask.get(f"{OPERATIONS}/{found['id']}", headers=by("mixed"))
            assert seen.status_code == 200
        mine = await dry_run(world, "boss", filter={"id_prefix": "one"})
        seen = await world.ask.get(f"{OPERATIONS}/{mine['id']}", headers=by("clerk"))
        assert seen.status_code == 200

    in_world(tmp_path, story, topics=("one", "two"), entrance=entrance(tmp_path))


def test_no_caller_has_every_operation_that_may_run(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await filled(world, 4)
        codes = []
        for _ in range(RUNNING):
            found = await dry_run(world, "boss", filter={})
            begun = await world.ask.post(
                f"{OPERATIONS}/{found['id']}/start", json={"rate": 1}, headers=by("boss")
            )
            codes.append(begun.status_code)
        assert codes == [200] * (RUNNING - 1) + [429]
        other = await dry_run(world, "clerk", filter={})
        begun = await world.ask.post(f"{OPERATIONS}/{other['id']}/start", headers=by("clerk"))
        assert begun.status_code == 200

    in_world(tmp_path, story, topics=("one", "two"), entrance=entrance(tmp_path))
