"""Dead letters over HTTP: looked at, repaired, sent again once, followed to their outcome, and set aside."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from delaystream.codec.outgoing import dead_letter_headers
from delaystream.console.letters import redriving as redriving_service
from delaystream.console.letters.runs import RUNS
from delaystream.core.rejection import Code, Rejection
from delaystream.core.request import Coordinates
from delaystream.engine.ports import TopicPartition
from delaystream.testing.worker import MemoryWorker, TopicPlan
from tests.unit.console.serving import told
from tests.unit.console.writable import START_MS, Deaf, World, in_world
from tests.unit.engine import Engine

REQUESTS = TopicPartition("delay-requests", 0)
LETTERS = TopicPartition("delay-dead-letters", 0)
JSON = {"Content-Type": "application/json"}
NOW = {**JSON, "Prefer": "wait=0"}
PATIENT = {**JSON, "Prefer": "wait=60"}


def put(world: World, value: bytes | None = b"v", key: bytes | None = b"k", **control: str | bytes) -> None:
    """A request of somebody else."""
    headers: list[tuple[str, bytes | None]] = [
        (f"delaystream-{name.replace('_', '-')}", text.encode() if isinstance(text, str) else text)
        for name, text in control.items()
    ]
    headers.append(("trace", b"\xff\x00"))
    world.worker.log.append(REQUESTS, (key, value, headers, world.worker.now_ms()))


async def open_letters(world: World, **query: Any) -> list[dict[str, Any]]:
    world.advance(0.1)
    for _ in range(500):
        (status,) = world.console.letters.statuses
        if status.position >= world.worker.log.bounds(LETTERS).stable:
            break
        await asyncio.sleep(0.005)
    answer = await world.ask.get("/v1/dead-letters", params=query)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def post(world: World, path: str, body: Any = None, status: int = 200, **headers: str) -> Any:
    answer = await world.ask.post(f"/v1/dead-letters/{path}", json=body or {}, headers={**PATIENT, **headers})
    assert answer.status_code == status, answer.text
    return answer.json()


def redriven(world: World) -> list[Any]:
    """What was sent under a name of a redrive."""
    return [
        record
        for record in world.sent()
        if any(
            name == "delaystream-request-id" and b"redrive" in (value or b"")
            for name, value in record.headers
        )
    ]


def test_a_letter_is_told_whole_with_what_would_be_right(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        put(world, b'{"a": 1}', destination="invoices", delay="soon", id="report")
        (letter,) = await open_letters(world)
        assert (letter["place"], letter["kind"], letter["standing"]) == ("0.0", "request", "open")
        answer = await world.ask.get("/v1/dead-letters/0.0", params={"payload": True})
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert told["payload"]["value"] == '{"a": 1}'
        assert ["trace", {"base64": "/wA="}] in told["payload"]["headers"]
        assert told["code"] == "invalid-delay"
        assert "'soon'" in told["detail"]
        assert told["advice"].startswith("Its sentence says what was expected")
        assert told["as_it_is"]["sendable"] is False
        assert told["as_it_is"]["code"] == "invalid-delay"
        assert told["acts"] == []
        assert (await world.ask.get("/v1/dead-letters/0.0")).json()["payload"] is None
        for place in ("0.1", "7.0", "0.99999", "1", "x.y", "-1.0", "0.0.0", "9" * 30 + ".0"):
            answer = await world.ask.get(f"/v1/dead-letters/{place}")
            assert (answer.status_code, answer.json()["code"]) == (404, "unknown"), place

    in_world(tmp_path, story)


def test_what_is_still_wrong_is_refused_with_the_sentence_and_nothing_is_sent(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        put(world, destination="invoices", delay="soon", id="report")
        await open_letters(world)
        before = len(world.sent())
        for body in ({}, {"set": [["delaystream-delay", "later"]]}, {"set": [["Delaystream-Delay", None]]}):
            problem = await post(world, "0.0/redrive", body, 400)
            assert problem["code"] in {"invalid-delay", "null-header"}
            check = await post(world, "0.0/check", body)
            assert (check["sendable"], check["code"]) == (False, problem["code"])
        for name in ("delaystream-actor", "Delaystream-Reply-To", "delaystream-request-id"):
            problem = await post(world, "0.0/redrive", {"set": [[name, "x"]]}, 400)
            assert problem["code"] == "not-applicable"
        assert len(world.sent()) == before
        assert (await open_letters(world))[0]["standing"] == "open"

    in_world(tmp_path, story)


def test_a_repaired_request_is_accepted_and_the_letter_is_out_of_the_way(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        put(
            world, destination="invoices", delay="soon", id="report", actor="boss", reply_to="elsewhere",
            if_exists="replace", note="theirs",
        )  # fmt: skip
        await open_letters(world)
        repair = {
            "set": [["DELAYSTREAM-delay", "1h"], ["added", {"base64": "/w=="}]],
            "remove": ["trace"],
            "value_json": {"b": 2},
            "key": None,
            "destination": "others",
            "note": "typo",
        }
        check = await post(world, "0.0/check", repair)
        assert check["sendable"], check
        assert check["due_at"] == ["2030-01-01T01:00:00.100Z"]
        changed = {(one["name"], tuple(one["before"]), tuple(one["after"])) for one in check["differences"]}
        assert ("delaystream-delay", ("soon",), ("1h",)) in changed
        assert ("trace", ("\\xff\x00",), ()) in changed
        assert ("value", ("v",), ('{"b":2}',)) in changed
        assert ("key", ("k",), (None,)) in changed
        told = await post(world, "0.0/redrive", repair)
        assert told["standing"] == "accepted"
        act = told["last_act"]
        assert (act["actor"], act["note"], act["outcome"]) == ("console", "typo", "scheduled")
        assert act["changed"] == [
            "set DELAYSTREAM-delay", "set added", "remove trace", "value", "key", "destination",
        ]  # fmt: skip
        record = world.sent()[-1]
        headers = dict(record.headers)
        assert (record.key, record.value) == (None, b'{"b":2}')
        assert headers["delaystream-actor"] == b"console", "nobody else is vouched for"
        assert headers["delaystream-reply-to"] == b"delay-receipts"
        assert headers["delaystream-if-exists"] == b"keep"
        assert headers["delaystream-note"] == b"typo"
        assert headers["added"] == b"\xff"
        assert not any(name.startswith("delaystream-error") for name in headers)
        schedule = (await world.ask.get("/v1/schedules/report")).json()
        assert schedule["definition"]["destination"] == "others"
        assert await open_letters(world) == []
        (settled,) = await open_letters(world, standing="all")
        assert settled["standing"] == "accepted"
        assert await open_letters(world, standing="discarded") == []
        assert (await world.ask.get("/v1/dead-letters")).json()["counts"] == {}

    in_world(tmp_path, story)


def test_what_was_asked_for_twice_is_sent_once(tmp_path: Path) -> None:
    """By a key, by two clicks at the same time, by two people, and again much later."""

    async def story(world: World) -> None:
        put(world, destination="invoices", delay="soon")
        await open_letters(world)
        repair = {"set": [["delaystream-delay", "1h"]]}
        answers = await asyncio.gather(*[post(world, "0.0/redrive", repair) for _ in range(5)])
        assert {answer["standing"] for answer in answers} == {"accepted"}
        assert {len(answer["acts"]) for answer in answers} == {1}
        await post(world, "0.0/redrive", repair, 200)
        assert len(redriven(world)) == 1
        other = await post(world, "0.0/redrive", {"set": [["delaystream-delay", "2h"]]}, 409)
        assert other["code"] == "already-redriven"
        again = {**repair, "again": True}
        key = {"Idempotency-Key": "k"}
        for _ in range(2):
            told = await post(world, "0.0/redrive", again, 200, **key)
            assert len(told["acts"]) == 2
        reused = await post(world, "0.0/redrive", {**again, "key": "x"}, 422, **key)
        assert reused["code"] == "idempotency-key-reused"
        assert len(redriven(world)) == 2
        ids = {dict(record.headers)["delaystream-id"] for record in redriven(world)}
        assert len(ids) == 2, "one more is one more"
        await world.caught_up()
        pending = (await world.ask.get("/v1/pending")).json()["items"]
        assert len(pending) == 2

    in_world(tmp_path, story)


def test_a_console_that_ended_after_sending_sends_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes back, is asked again, and the owner knows the request; until then it is being sent."""
    # On a busy machine it would find out by itself meanwhile.
    monkeypatch.setattr(redriving_service, "_SETTLE_EVERY_S", 3_600.0)
    worker = MemoryWorker(TopicPlan(requests=("delay-requests",), partitions=2), START_MS)
    repair = {"set": [["delaystream-delay", "1h"]]}

    async def ends(world: World) -> None:
        put(world, destination="invoices", delay="soon")
        await open_letters(world)
        told = await post(world, "0.0/redrive", repair, 202, Prefer="wait=0")
        assert told["standing"] == "sending"
        for _ in range(500):
            if (await world.ask.get("/v1/dead-letters/0.0")).json()["last_act"]["stage"] == "sent":
                break
            await asyncio.sleep(0.005)
        assert len(redriven(world)) == 1

    async def comes_back(world: World) -> None:
        world.advance(60)
        assert world.console.runs is not None
        assert len(await open_letters(world, standing="sending")) == 1
        other = await post(world, "0.0/redrive", {"set": [["delaystream-delay", "3h"]]}, 409)
        assert other["code"] == "redrive-under-way"
        told = await post(world, "0.0/redrive", repair)
        assert (told["standing"], len(told["acts"])) == ("accepted", 1)
        await world.caught_up()
        assert len((await world.ask.get("/v1/pending")).json()["items"]) == 1

    in_world(tmp_path, ends, worker=worker, transport=Deaf)
    in_world(tmp_path, comes_back, worker=worker)


def test_what_a_console_left_behind_is_settled_by_what_its_owner_remembers(tmp_path: Path) -> None:
    worker = MemoryWorker(TopicPlan(requests=("delay-requests",), partitions=2), START_MS)

    async def ends(world: World) -> None:
        put(world, destination="invoices", delay="soon", id="one")
        put(world, destination="invoices", delay="soon", id="two")
        await open_letters(world)
        for place, delay in (("0.0", "1h"), ("0.1", "1h")):
            repair = {"set": [["delaystream-delay", delay]]}
            if place == "0.1":
                # Refused by the worker alone: the destination has no such partition.
                repair["set"].append(["delaystream-destination-partition", "77"])
            await post(world, f"{place}/redrive", repair, 202, Prefer="wait=0")
        for place in ("0.0", "0.1"):
            for _ in range(500):
                if (await world.ask.get(f"/v1/dead-letters/{place}")).json()["last_act"]["source"]:
                    break
                await asyncio.sleep(0.005)

    async def comes_back(world: World) -> None:
        world.advance(60)
        await open_letters(world)
        await world.caught_up()
        assert world.console.runs is not None
        await world.console.runs.redriving.settle()
        one = (await world.ask.get("/v1/dead-letters/0.0")).json()
        assert (one["standing"], one["last_act"]["outcome"]) == ("accepted", "scheduled")
        two = (await world.ask.get("/v1/dead-letters/0.1")).json()
        assert (two["standing"], two["last_act"]["code"]) == (
            "rejected", "destination-partition-out-of-range",
        )  # fmt: skip
        assert two["last_act"]["letter"] == "0.3"

    in_world(tmp_path, ends, worker=worker, transport=Deaf)
    in_world(tmp_path, comes_back, worker=worker)


def test_one_that_is_refused_again_leads_to_its_new_letter(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        put(world, destination="invoices", delay="soon", id="report")
        await open_letters(world)
        repair = {"set": [["delaystream-delay", "1h"], ["delaystream-destination-partition", "77"]]}
        told = await post(world, "0.0/redrive", repair)
        act = told["last_act"]
        assert (told["standing"], act["code"]) == ("rejected", "destination-partition-out-of-range")
        (new,) = await open_letters(world)
        assert new["place"] == act["letter"]
        assert new["source"] == act["source"]
        # The old one may be tried once more, too.
        told = await post(world, "0.0/redrive", {"set": [["delaystream-delay", "1h"]]})
        assert (told["standing"], len(told["acts"])) == ("accepted", 2)

    in_world(tmp_path, story)


def test_what_is_in_use_stays_as_it_is_unless_it_is_asked_otherwise(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        put(world, destination="invoices", delay="soon", id="report", if_exists="replace")
        await open_letters(world)
        made = await world.ask.put(
            "/v1/schedules/report", json={"destination": "now", "every": "1d", "value": "v"}
        )
        assert made.status_code == 201
        repair = {"set": [["delaystream-delay", "1h"]]}
        told = await post(world, "0.0/redrive", repair)
        assert (told["standing"], told["last_act"]["outcome"]) == ("unchanged", "kept")
        assert (await world.ask.get("/v1/schedules/report")).json()["definition"]["destination"] == "now"
        told = await post(world, "0.0/redrive", {**repair, "if_exists": "replace", "again": True})
        assert (told["standing"], told["last_act"]["outcome"]) == ("accepted", "replaced")
        found = (await world.ask.get("/v1/schedules/report")).json()
        assert found["definition"]["destination"] == "invoices"

    in_world(tmp_path, story)


async def impossible(engine: Engine) -> None:
    """A compacted topic takes no record without a key."""
    engine.log.create_topic("small", 1, compacted=True)
    foreign: list[tuple[str, bytes | None]] = [("trace", b"\xff\x00")]
    engine.request(b"payload", None, foreign, destination="small", every="10s", id="often")
    await asyncio.sleep(12)


def test_a_fire_that_was_impossible_comes_back_as_a_request_of_its_own(tmp_path: Path) -> None:
    """As its worker has written it. The schedule that it is of is left alone."""
    ((_, written), *_) = told(impossible).log.all("delay-dead-letters")

    async def story(world: World) -> None:
        row = (written.key, written.value, list(written.headers), world.worker.now_ms())
        world.worker.log.append(LETTERS, row)
        (letter,) = await open_letters(world)
        assert (letter["code"], letter["kind"], letter["id"]) == ("quarantined", "fire", "often")
        found = await post(world, f"{letter['place']}/redrive", {"key": "k"})
        assert found["standing"] == "accepted", found
        world.advance(1)
        (fired,) = world.sent("small")
        assert (fired.key, fired.value) == (b"k", b"payload")
        assert ("trace", b"\xff\x00") in fired.headers
        assert found["last_act"]["about"].startswith(f"redrive/{letter['place']}/")
        assert (await world.ask.get("/v1/schedules/often")).status_code == 404

    in_world(tmp_path, story)


def given_up(world: World, source: bytes = b"delay-requests/0/17", topic: str = "invoices") -> None:
    """A delivery that a consumer gave up."""
    delivery = [
        ("trace", b"t"),
        ("delaystream-attempt", b"10"),
        ("delaystream-schedule-id", b"bill-7"),
        ("delaystream-fire-id", b"f"),
        ("delaystream-source", source),
    ]
    headers = dead_letter_headers(
        delivery,
        Coordinates(topic, 0, 33),
        1_000,
        Rejection(Code.ATTEMPTS_EXHAUSTED, "Attempt 10 of 10 failed."),
    )
    world.worker.log.append(LETTERS, (b"customer", b"bill", headers, world.worker.now_ms()))


def test_a_delivery_that_was_given_up_comes_back_to_the_partition_that_was_read(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        given_up(world)
        (letter,) = await open_letters(world)
        assert (letter["kind"], letter["delivery"], letter["source"]) == (
            "delivery", "invoices/0/33", "delay-requests/0/17",
        )  # fmt: skip
        assert (letter["request_topic"], letter["destination"], letter["id"]) == (
            "delay-requests", "invoices", "bill-7",
        )  # fmt: skip
        told = await post(world, "0.0/redrive")
        assert told["standing"] == "accepted"
        headers = dict(world.sent()[-1].headers)
        assert headers["delaystream-destination-partition"] == b"0"
        assert "delaystream-attempt" not in headers
        world.advance(1)
        (fired,) = world.sent("invoices")
        assert (fired.key, fired.value) == (b"customer", b"bill")
        assert ("trace", b"t") in fired.headers
        assert "delaystream-attempt" not in dict(fired.headers), "it has all its attempts"

    in_world(tmp_path, story)


def test_what_cannot_be_sent_again_says_why(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        log, now_ms = world.worker.log, world.worker.now_ms()
        log.append(LETTERS, (b"k", b"v", [("x", b"y")], now_ms))
        batch = Rejection(Code.BATCH_TOO_LARGE, "too large")
        log.append(
            LETTERS,
            (None, None, dead_letter_headers([], Coordinates("delay-requests", 0, 1), -1, batch), now_ms),
        )
        fault = Rejection(Code.INTERNAL_ERROR, "fault")
        log.append(
            LETTERS,
            (
                None,
                b"\x93row",
                dead_letter_headers([], Coordinates("delay-requests", 0, 2), -1, fault),
                now_ms,
            ),
        )
        large = Rejection(Code.VALUE_TOO_LARGE, "large [9 bytes are left out: the topic takes 5]")
        log.append(
            LETTERS,
            (None, None, dead_letter_headers([], Coordinates("delay-requests", 0, 3), 5, large), now_ms),
        )
        letters = await open_letters(world)
        assert [one["kind"] for one in letters] == ["request", "other", "other", "other"]
        for place, words in (
            ("0.0", "the topic to send it to is not known"),
            ("0.1", "a whole batch"),
            ("0.2", "a row that a worker had stored"),
            ("0.3", "were too large for the topic"),
        ):
            problem = await post(world, f"{place}/redrive", {}, 409)
            assert problem["code"] == "not-redrivable"
            assert words in problem["detail"]
            told = (await world.ask.get(f"/v1/dead-letters/{place}")).json()
            assert told["as_it_is"]["code"] == "not-redrivable"
        given = {
            "value": "v",
            "set": [["delaystream-destination", "invoices"], ["delaystream-delay", "1h"]],
        }
        assert (await post(world, "0.3/redrive", given))["standing"] == "accepted"

    in_world(tmp_path, story)


def test_a_letter_is_discarded_and_taken_up_again(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        put(world, destination="invoices", delay="soon")
        await open_letters(world)
        told = await post(world, "0.0/discard", {"note": "of a test"})
        assert (told["standing"], told["last_act"]["actor"]) == ("discarded", "console")
        assert await open_letters(world) == []
        (hidden,) = await open_letters(world, standing="discarded")
        assert hidden["last_act"]["note"] == "of a test"
        problem = await post(world, "0.0/redrive", {"set": [["delaystream-delay", "1h"]]}, 409)
        assert problem["code"] == "discarded"
        assert (await post(world, "0.0/discard"))["acts"] == told["acts"], "once is enough"
        told = await post(world, "0.0/reopen")
        assert [act["act"] for act in told["acts"]] == ["discard", "reopen"]
        (letter,) = await open_letters(world)
        assert letter["standing"] == "open"
        assert world.sent("delay-dead-letters") != [], "Kafka keeps it"

    in_world(tmp_path, story)


def test_many_are_looked_at_and_then_sent_at_a_bounded_rate(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for number in range(12):
            put(world, destination="invoices", delay="soon", id=f"report-{number}")
        put(world, destination="invoices", delay="1h", at="x")
        await open_letters(world)
        repair = {"set": [["delaystream-delay", "1h"]]}
        look = await post(world, "redrive", {**repair, "code": "invalid-delay", "dry_run": True})
        assert (look["total"], look["refused"], len(look["samples"])) == (12, {}, 5)
        assert look["samples"][0]["check"]["sendable"]
        look = await post(world, "redrive", {"request_topic": ["delay-requests"], "dry_run": True})
        assert (look["total"], look["refused"]) == (13, {"invalid-delay": 12, "delay-and-at": 1})
        before = len(world.sent())
        nothing = await post(world, "redrive", {**repair}, 400)
        assert nothing["code"] == "invalid-match"
        assert len(world.sent()) == before, "a look sends nothing"
        began = asyncio.get_running_loop().time()
        body = {**repair, "code": "invalid-delay", "rate": 40, "note": "typo of the release"}
        key = {"Idempotency-Key": "once"}
        run = await post(world, "redrive", body, 202, **key)
        for _ in range(1000):
            told = (await world.ask.get(f"/v1/dead-letters/runs/{run['run']}")).json()
            if told["stage"] != "running":
                break
            await asyncio.sleep(0.01)
        assert told["stage"] == "done", told
        assert asyncio.get_running_loop().time() - began > 11 / 40
        assert told["standing"] == {"accepted": 12}
        assert len(redriven(world)) == 12
        again = await post(world, "redrive", body, 202, **key)
        assert again["run"] == run["run"]
        for other in ({"places": ["0.0"]}, {"rate": 41}, {"set": [["delaystream-delay", "2h"]]}):
            reused = await post(world, "redrive", {**body, **other}, 422, **key)
            assert reused["code"] == "idempotency-key-reused"
        assert len(redriven(world)) == 12
        (letter,) = await open_letters(world)
        assert letter["code"] == "delay-and-at"
        told = (await world.ask.get("/v1/dead-letters/0.0")).json()
        assert (told["last_act"]["run"], told["last_act"]["note"]) == (run["run"], "typo of the release")

    in_world(tmp_path, story)


def test_a_run_is_stopped_and_what_was_sent_stands(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for number in range(20):
            put(world, destination="invoices", delay="soon", id=f"report-{number}")
        await open_letters(world)
        body = {"set": [["delaystream-delay", "1h"]], "code": "invalid-delay", "rate": 0.5}
        run = await post(world, "redrive", body, 202)
        where = f"/v1/dead-letters/runs/{run['run']}"
        for _ in range(5_000):
            if (await world.ask.get(where)).json()["standing"].get("accepted"):
                break
            await asyncio.sleep(0.01)
        await post(world, f"runs/{run['run']}/stop")
        for _ in range(500):
            told = (await world.ask.get(f"/v1/dead-letters/runs/{run['run']}")).json()
            # What is on its way is followed to its outcome.
            if told["stage"] != "running" and not told["standing"].get("sending"):
                break
            await asyncio.sleep(0.01)
        assert told["stage"] == "stopped"
        assert told["standing"]["accepted"] == len(redriven(world)) < 20
        assert len(await open_letters(world)) == 20 - len(redriven(world))

    in_world(tmp_path, story)


def test_two_at_the_same_instant_are_one_run(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for number in range(3):
            put(world, destination="invoices", delay="soon", id=f"report-{number}")
        await open_letters(world)
        body = {"set": [["delaystream-delay", "1h"]], "places": ["0.0", "0.1", "0.2"]}
        asked = [post(world, "redrive", body, 202, **{"Idempotency-Key": "once"}) for _ in range(6)]
        assert len({run["run"] for run in await asyncio.gather(*asked)}) == 1
        for _ in range(1000):
            if len(redriven(world)) == 3:
                break
            await asyncio.sleep(0.01)
        assert len((await world.ask.get("/v1/dead-letters/runs")).json()["items"]) == 1

    in_world(tmp_path, story)


def test_a_run_has_a_least_rate_and_no_caller_has_every_slot(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for number in range(9):
            put(world, destination="invoices", delay="soon", id=f"report-{number}")
        await open_letters(world)
        body = {"set": [["delaystream-delay", "1h"]], "code": "invalid-delay"}
        assert (await post(world, "redrive", {**body, "rate": 1e-6}, 400))["code"] == "invalid-parameter"
        asked = [post(world, "redrive", {**body, "rate": 0.1}, 202) for _ in range(RUNS - 1)]
        await asyncio.gather(*asked)
        busy = await post(world, "redrive", {**body, "rate": 0.1}, 503)
        assert "of one caller" in busy["detail"]

    in_world(tmp_path, story)


def test_many_are_discarded(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for number in range(5):
            put(world, destination="invoices", delay="soon", id=f"report-{number}")
        await open_letters(world)
        assert (await post(world, "discard", {"id": "report-3", "note": "old"}))["count"] == 1
        assert (await post(world, "discard", {"places": ["0.0", "0.1"]}))["count"] == 2
        assert (await post(world, "discard", {"places": ["0.0"]}))["count"] == 0
        assert len(await open_letters(world)) == 2
        assert (await post(world, "discard", {"places": ["x"]}, 400))["code"] == "invalid-place"

    in_world(tmp_path, story)


CONTENTS = [b"", b"\xff\xfe", b"\x00", b"<script>", b"{{7*7}}", "ü\u202e".encode(), b"9" * 9000]
NAMES = [
    *(
        f"delaystream-error{part}"
        for part in ("", "-detail", "-topic", "-partition", "-offset", "-timestamp")
    ),
    *(
        f"delaystream-{part}"
        for part in ("id", "destination", "schedule-id", "source", "delay", "request-id")
    ),
    "delaystream-error-timestamp",
    "delaystream-request-id",
    "x",
]


@pytest.mark.timeout(120)
def test_hostile_bytes_anywhere_break_nothing(tmp_path: Path) -> None:
    sane: list[tuple[str, bytes | None]] = [
        ("delaystream-delay", b"1h"),
        ("delaystream-destination", b"invoices"),
        ("delaystream-source", b"delay-requests/0/4"),
        ("delaystream-error", b"given-up"),
        ("delaystream-error-topic", b"delay-requests"),
        ("delaystream-error-partition", b"0"),
        ("delaystream-error-offset", b"5"),
        ("delaystream-error-timestamp", b"1000"),
    ]
    codes = (b"given-up", b"quarantined", b"invalid-delay")

    async def story(world: World) -> None:
        letters: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]] = []
        for number, (content, name) in enumerate((content, name) for content in CONTENTS for name in NAMES):
            code = ("delaystream-error", codes[number % len(codes)])
            changed = [*(one for one in sane if one[0] not in {name, "delaystream-error"}), code]
            letters.append((content, content, [*changed, (name, content)]))
        letters.append((None, None, [*sane, ("\udcff", b"x"), ("n\x00", None), ("", b"")]))
        for key, value, headers in letters:
            world.worker.log.append(LETTERS, (key, value, headers, world.worker.now_ms()))
        assert len(await open_letters(world, limit=500)) == len(letters)
        for offset in range(len(letters)):
            answer = await world.ask.get(f"/v1/dead-letters/0.{offset}?payload=true")
            assert answer.status_code == 200, (letters[offset], answer.text)
            answer = await world.ask.post(f"/v1/dead-letters/0.{offset}/redrive", json={}, headers=NOW)
            assert answer.status_code in {200, 202, 400, 404, 409}, (letters[offset], answer.text)
        answer = await world.ask.post("/v1/dead-letters/discard", json={"at_from": "2020-01-01T00:00:00Z"})
        assert answer.status_code == 200, answer.text

    in_world(tmp_path, story)
