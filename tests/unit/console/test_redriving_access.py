"""Who may do what about dead letters: by role and request topic, and under no name but their own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from delaystream.console.access.caller import NONE
from delaystream.console.access.entrance import Entrance
from delaystream.console.access.token_file import TokenFile
from delaystream.console.audit.acts import EntryFilter
from delaystream.engine.ports import TopicPartition
from tests.unit.console.neighbours import entry, token
from tests.unit.console.writable import World, in_world

LETTERS = TopicPartition("delay-dead-letters", 0)
FILE = "".join(
    [
        entry("boss", {"*": "admin"}, payload=True),
        entry("chief", {"one": "admin"}, payload=True),
        entry("clerk", {"one": "operator"}, payload=True),
        entry("blind", {"one": "admin"}),
        entry("guest", {"one": "viewer"}, payload=True),
        entry("other", {"two": "admin"}, payload=True),
    ]
)
SECRET = "of a secret"
REPAIR = {"set": [["delaystream-delay", "1h"]]}
ALONE = [
    ("/v1/dead-letters/0.0/check", REPAIR),
    ("/v1/dead-letters/0.0/redrive", REPAIR),
    ("/v1/dead-letters/0.0/discard", {}),
    ("/v1/dead-letters/0.0/reopen", {}),
]
TOGETHER = [
    ("/v1/dead-letters/redrive", {**REPAIR, "places": ["0.0"]}),
    ("/v1/dead-letters/redrive", {**REPAIR, "request_topic": ["one"]}),
    ("/v1/dead-letters/redrive", {**REPAIR, "request_topic": ["one"], "dry_run": True}),
    ("/v1/dead-letters/discard", {"places": ["0.0"]}),
    ("/v1/dead-letters/discard", {"request_topic": ["one"]}),
]


def by(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(name)}", "Content-Type": "application/json", "Prefer": "wait=60"}


async def refused(world: World, topic: str = "one") -> None:
    """A request of a topic that is refused, and seen to be."""
    headers: list[tuple[str, bytes | None]] = [
        ("delaystream-destination", b"out"),
        ("delaystream-delay", b"soon"),
        ("delaystream-actor", b"boss"),
        ("private", SECRET.encode()),
    ]
    row = (b"key", SECRET.encode(), headers, world.worker.now_ms())
    world.worker.log.append(TopicPartition(topic, 0), row)
    world.advance(0.1)
    for _ in range(1000):
        if world.console.letters.statuses[0].position >= world.worker.log.bounds(LETTERS).stable:
            return
        await asyncio.sleep(0.005)


def told(directory: Path, story: Any) -> None:
    file = directory / "tokens.toml"
    file.write_text(FILE)
    entrance = Entrance(lambda: 0, tokens=TokenFile(file, NONE))

    def begun(world: World) -> Coroutine[Any, Any, None]:
        async def happen() -> None:
            await refused(world)
            await story(world)

        return happen()

    in_world(directory, begun, topics=("one", "two"), entrance=entrance)


@pytest.mark.parametrize(("path", "body"), [*ALONE, *TOGETHER])
def test_a_role_that_is_too_low_does_nothing(path: str, body: Any, tmp_path: Path) -> None:
    async def story(world: World) -> None:
        names = ["guest", *(["clerk"] if (path, body) in TOGETHER else [])]
        before = len(world.sent("one"))
        for name in names:
            answer = await world.ask.post(path, json=body, headers=by(name))
            assert (answer.status_code, answer.json()["code"]) == (403, "role-too-low"), answer.text
        assert len(world.sent("one")) == before
        letter = (await world.ask.get("/v1/dead-letters/0.0", headers=by("guest"))).json()
        assert (letter["standing"], letter["acts"]) == ("open", [])

    told(tmp_path, story)


def test_another_s_letter_is_as_one_that_is_not_there(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        asked: list[tuple[str, Any]] = [("/v1/dead-letters/0.0", None), *ALONE]
        for path, body in asked:
            method = "GET" if body is None else "POST"
            found = await world.ask.request(method, path, json=body, headers=by("other"))
            none = await world.ask.request(method, path.replace("0.0", "0.7"), json=body, headers=by("other"))
            assert (found.status_code, found.json()["code"]) == (404, "unknown")
            assert found.text == none.text.replace("0.7", "0.0")
        for page in ("", "/redrive", "/discard", "/reopen"):
            found = await world.ask.get(f"/dead-letters/0.0{page}", headers=by("other"))
            none = await world.ask.get(f"/dead-letters/0.7{page}", headers=by("other"))
            assert found.status_code == none.status_code == 404
            assert found.text == none.text.replace("0.7", "0.0")
        look = {**REPAIR, "request_topic": ["one"], "dry_run": True}
        answer = await world.ask.post("/v1/dead-letters/redrive", json=look, headers=by("other"))
        assert (answer.status_code, answer.json()["total"]) == (200, 0)
        for many in ({"places": ["0.0"]}, {"request_topic": ["one"]}):
            answer = await world.ask.post("/v1/dead-letters/discard", json=many, headers=by("other"))
            assert (answer.status_code, answer.json()["count"]) == (200, 0)
        run = await world.ask.post(
            "/v1/dead-letters/redrive", json={**REPAIR, "places": ["0.0"]}, headers=by("chief")
        )
        place = run.headers["location"]
        assert (await world.ask.get(place, headers=by("chief"))).status_code == 200
        assert (await world.ask.get(place, headers=by("other"))).json()["code"] == "unknown"
        page = place.removeprefix("/v1")
        assert (await world.ask.get(page, headers=by("chief"))).status_code == 200
        assert (await world.ask.get(page, headers=by("other"))).status_code == 404
        for name, count in (("chief", 1), ("other", 0)):
            runs = await world.ask.get("/v1/dead-letters/runs", headers=by(name))
            assert len(runs.json()["items"]) == count
        stopped = await world.ask.post(f"{place}/stop", json={}, headers=by("other"))
        assert stopped.json()["code"] == "unknown"

    told(tmp_path, story)


def test_what_a_letter_says_of_its_actor_is_not_vouched_for(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        done = await world.ask.post("/v1/dead-letters/0.0/redrive", json=REPAIR, headers=by("clerk"))
        assert done.status_code == 200, done.text
        assert done.json()["last_act"]["actor"] == "clerk"
        actors = [content for name, content in world.sent("one")[-1].headers if name == "delaystream-actor"]
        assert actors == [b"clerk"]

    told(tmp_path, story)


def test_values_and_headers_need_a_right_of_their_own(tmp_path: Path) -> None:
    """Without it a letter can be sent again all the same, and a header be repaired."""

    async def story(world: World) -> None:
        path = "/v1/dead-letters/0.0"
        answer = await world.ask.get(f"{path}?payload=true", headers=by("blind"))
        assert (answer.status_code, answer.json()["code"]) == (403, "payload-not-allowed")
        texts = [(await world.ask.get(path, headers=by("blind"))).text]
        repair = {**REPAIR, "remove": ["private"], "value": "another"}
        texts.append((await world.ask.post(f"{path}/check", json=repair, headers=by("blind"))).text)
        look = {**repair, "request_topic": ["one"], "dry_run": True}
        look.pop("value")
        texts.append((await world.ask.post("/v1/dead-letters/redrive", json=look, headers=by("blind"))).text)
        texts.append((await world.ask.post(f"{path}/redrive", json=REPAIR, headers=by("blind"))).text)
        assert all(SECRET not in text for text in texts), texts
        assert '"standing":"accepted"' in texts[-1]
        assert SECRET in (await world.ask.get(f"{path}?payload=true", headers=by("clerk"))).text

    told(tmp_path, story)


def test_a_letter_goes_back_to_its_own_request_topic_and_to_no_other(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        path = "/v1/dead-letters/0.0/redrive?request_topic=two"
        before = len(world.sent("two"))
        answer = await world.ask.post(path, json=REPAIR, headers=by("boss"))
        assert answer.status_code == 200, answer.text
        assert answer.json()["last_act"]["request_topic"] == "one"
        assert len(world.sent("two")) == before

    told(tmp_path, story)


def test_whatever_is_done_is_in_the_audit_log(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        assert world.console.audit is not None
        body = {"note": "a test"}
        await world.ask.post("/v1/dead-letters/0.0/check", json=REPAIR, headers=by("clerk"))
        await world.ask.post("/v1/dead-letters/0.0/discard", json=body, headers=by("clerk"))
        await world.ask.post("/v1/dead-letters/0.0/reopen", json={}, headers=by("clerk"))
        done = await world.ask.post("/v1/dead-letters/0.0/redrive", json=REPAIR, headers=by("clerk"))
        await world.ask.post("/v1/dead-letters/0.0/redrive", json=REPAIR, headers=by("guest"))
        entries = world.console.audit.page(EntryFilter(), 10)
        told = [(one.act.who.name, one.act.action, one.outcome.word) for one in reversed(entries)]
        assert told == [
            ("clerk", "discard dead letter", "done"),
            ("clerk", "reopen dead letter", "done"),
            ("clerk", "redrive", "scheduled"),
            ("guest", "POST /v1/dead-letters/0.0/redrive", "refused"),
        ]
        assert entries[3].act.note == "a test"
        assert entries[1].outcome.source == done.json()["last_act"]["source"]

    told(tmp_path, story)


def test_a_right_that_is_taken_away_stops_a_run(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for _ in range(19):
            await refused(world)
        body = {**REPAIR, "request_topic": ["one"], "rate": 20}
        answer = await world.ask.post("/v1/dead-letters/redrive", json=body, headers=by("chief"))
        assert answer.status_code == 202, answer.text
        before = 20
        async with asyncio.timeout(60):
            while True:
                if len(world.sent("one")) > before + 1:
                    break
                await asyncio.sleep(0.01)
        runs = world.console.runs
        assert runs is not None
        (tmp_path / "tokens.toml").write_text(entry("boss", {"*": "admin"}, payload=True))
        entrance = runs._stands.__self__  # type: ignore[attr-defined]
        entrance.tokens.look()
        async with asyncio.timeout(60):
            while True:
                run = await world.ask.get(answer.headers["location"], headers=by("boss"))
                if run.json()["stage"] != "running":
                    break
                await asyncio.sleep(0.01)
        assert run.json()["stage"] == "stopped"
        assert before + 1 < len(world.sent("one")) < before + 20

    told(tmp_path, story)
