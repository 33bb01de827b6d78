"""Where is my event: every state that one may be in, by every word that one may be known by."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from delaystream.engine.ports import TopicPartition
from tests.unit.console.serving import Told, served, told
from tests.unit.engine import REQUESTS, Engine, header


def found(of: Told, directory: Path, word: str) -> list[dict[str, Any]]:
    """What the interface answers for a word."""

    async def ask() -> list[dict[str, Any]]:
        async with served(of, directory) as client:
            answer = await client.get("/v1/where", params={"q": word})
            assert answer.status_code == 200, answer.text
            items: list[dict[str, Any]] = answer.json()["items"]
            return items

    return asyncio.run(ask())


def states(of: Told, directory: Path, word: str) -> list[tuple[str, str]]:
    return [(one["by"], one["state"]) for one in found(of, directory, word)]


def happened(*requests: dict[str, Any], seconds: float = 1) -> Told:
    """What is left of requests that were made one after the other."""

    async def story(engine: Engine) -> None:
        for request in requests:
            engine.request(**request)
            await asyncio.sleep(0.1)
        await asyncio.sleep(seconds)

    return told(story)


def test_a_request_behind_what_was_read_is_unread(tmp_path: Path) -> None:
    of = happened({"destination": "orders", "delay": "1h"})
    of.log.append(TopicPartition(REQUESTS, 0), (None, b"late", [], of.clock.now_ms()))
    (one,) = found(of, tmp_path, f"{REQUESTS}/0/1")
    assert (one["state"], one["by_elimination"]) == ("unread", True)
    assert one["detail"] == f"Requests of {REQUESTS}-0 are read up to offset 1, and the partition ends at 2."


def test_a_record_that_was_never_written_is_unknown(tmp_path: Path) -> None:
    of = happened({"destination": "orders", "delay": "1h"})
    (one,) = found(of, tmp_path, f"{REQUESTS}/0/7")
    assert one["state"] == "unknown"
    assert "there is no such record" in one["detail"]


def test_of_a_topic_that_nothing_is_read_from_nothing_is_known(tmp_path: Path) -> None:
    of = happened({"destination": "orders", "delay": "1h"})
    assert found(of, tmp_path, "another/0/7") == []


def test_a_request_without_an_id_is_pending_by_coordinates_fire_id_and_key(tmp_path: Path) -> None:
    of = happened({"destination": "orders", "at": "2030-01-01T00:00:00Z", "key": b"customer"})
    fire = f"{REQUESTS}/0/0/0/1893456000000"
    assert states(of, tmp_path, f"{REQUESTS}/0/0") == [("coordinates", "pending")]
    assert states(of, tmp_path, fire) == [("fire-id", "pending")]
    assert states(of, tmp_path, "customer") == [("key", "pending")]


def test_what_fired_without_an_id_is_said_to_have_fired_by_elimination(tmp_path: Path) -> None:
    of = happened({"destination": "orders", "delay": "1s"}, seconds=5)
    (one,) = found(of, tmp_path, f"{REQUESTS}/0/0")
    assert (one["state"], one["by_elimination"]) == ("fired", True)
    assert "nothing of it is pending" in one["detail"]
    (delivery,) = of.log.all("orders")
    assert states(of, tmp_path, header(delivery[1], "fire-id")) == [("fire-id", "fired")]


def test_a_correlation_id_finds_what_carries_it(tmp_path: Path) -> None:
    of = happened(
        {"destination": "orders", "delay": "1h", "foreign": [("X-Correlation-Id", b"order-17")]},
        {"destination": "orders", "delay": "1h", "id": "named", "foreign": [("correlation_id", b"order-17")]},
        {"destination": "orders", "delay": "1h", "id": "asked", "request_id": "request-9"},
        {"destination": "orders", "delay": "1h", "foreign": [("another", b"order-17")]},
    )
    assert states(of, tmp_path, "order-17") == [("correlation-id", "pending")] * 2
    (one,) = found(of, tmp_path, "request-9")
    assert (one["by"], one["schedule"]["id"]) == ("correlation-id", "asked")


def test_a_correlation_id_goes_with_the_payload_that_had_it(tmp_path: Path) -> None:
    of = happened(
        {"destination": "orders", "every": "1h", "id": "a", "foreign": [("correlation-id", b"old")]},
        {"destination": "orders", "every": "1h", "id": "a", "foreign": [("correlation-id", b"new")]},
    )
    (old,) = found(of, tmp_path, "old")
    assert (old["by"], old["state"]) == ("correlation-id", "cancelled")
    assert old["detail"] == "Another definition has taken its place."
    assert states(of, tmp_path, "new") == [("correlation-id", "pending")]


def test_a_correlation_id_is_known_when_nothing_that_has_it_is_pending(tmp_path: Path) -> None:
    """By the events: of what fired, of what was refused, of a payload that is too large to look into."""
    correlated = [("X-Request-Id", b"order-17")]
    of = happened(
        {"destination": "orders", "delay": "1s", "id": "fired", "foreign": correlated},
        {"destination": "orders", "every": "1h", "id": "large", "value": b"x" * 4_000, "foreign": correlated},
        {"destination": "orders", "delay": "soon", "id": "refused", "foreign": correlated},
        {"action": "cancel", "id": "gone", "foreign": correlated},
        seconds=100_000,
    )
    told = {
        (one["schedule"] or {}).get("id") or (one["event"] or {"event": {}})["event"].get("id"): one
        for one in found(of, tmp_path, "order-17")
    }
    assert {id: (one["by"], one["state"]) for id, one in told.items()} == {
        "fired": ("correlation-id", "fired"),
        "large": ("correlation-id", "pending"),
        "gone": ("correlation-id", "unknown"),
        None: ("correlation-id", "rejected"),
    }
    assert told[None]["letter"]["code"] == "invalid-delay"
    assert told["gone"]["detail"] == "Its last event is 'unknown'."
    assert states(of, tmp_path, "order-1") == []


def test_a_request_id_is_known_when_its_schedule_is_forgotten(tmp_path: Path) -> None:
    of = happened(
        {"destination": "orders", "delay": "1s", "id": "a", "request_id": "request-9"}, seconds=200_000
    )
    (one,) = found(of, tmp_path, "request-9")
    assert (one["by"], one["state"], one["schedule"]) == ("correlation-id", "fired", None)


def test_a_schedule_says_where_it_stands(tmp_path: Path) -> None:
    for action, state in (("pause", "paused"), ("cancel", "cancelled")):
        of = happened(
            {"destination": "orders", "delay": "1h", "id": "a"},
            {"action": action, "id": "a"},
        )
        assert states(of, tmp_path, "a") == [("id", state)]
        (tmp_path / "history.db").unlink()


def test_what_a_bulk_pause_keeps_back_is_held(tmp_path: Path) -> None:
    of = happened(
        {"destination": "orders", "delay": "1h"},
        {"action": "pause", "match_destination": "orders", "match_new": "true"},
        {"destination": "orders", "delay": "1h", "id": "later"},
    )
    assert states(of, tmp_path, f"{REQUESTS}/0/0") == [("coordinates", "held")]
    assert ("id", "held") in states(of, tmp_path, "later")


def test_what_is_due_for_a_destination_that_cannot_be_written_is_parked(tmp_path: Path) -> None:
    async def story(engine: Engine) -> None:
        engine.request(destination="orders", delay="10s", key=b"due")
        engine.request(destination="orders", delay="10h", key=b"ahead")
        await asyncio.sleep(1)
        engine.log.topics["orders"].refusal = "not authorized"
        await asyncio.sleep(120)

    of = told(story, owner="worker-0", host="host-7")
    (due,) = found(of, tmp_path, f"{REQUESTS}/0/0")
    (ahead,) = found(of, tmp_path, f"{REQUESTS}/0/1")
    assert (due["state"], ahead["state"]) == ("parked", "pending")
    assert "orders cannot be written to since" in due["detail"]
    assert "orders is parked now" in ahead["detail"]


def test_what_was_refused_is_among_the_dead_letters_with_its_code(tmp_path: Path) -> None:
    of = happened({"destination": "orders", "delay": "soon"})
    letters = [one for one in found(of, tmp_path, f"{REQUESTS}/0/0") if one["letter"]]
    assert [(one["state"], one["code"]) for one in letters] == [("rejected", "invalid-delay")]
    assert letters[0]["letter"] == {"partition": 0, "offset": 0, "code": "invalid-delay"}


def test_each_fire_of_a_recurring_schedule_has_a_state_of_its_own(tmp_path: Path) -> None:
    of = happened({"destination": "orders", "every": "10m", "id": "a"}, seconds=1_900)
    fires = [header(record, "fire-id") for _, record in of.log.all("orders")]
    assert len(fires) == 3
    place, revision, index, due, id = fires[-1].split("/")

    def named(times: int, revised: str = revision) -> str:
        return f"{place}/{revised}/{index}/{int(due) + times * 600_000}/{id}"

    assert states(of, tmp_path, fires[0]) == [("fire-id", "fired")]
    assert states(of, tmp_path, named(1)) == [("fire-id", "pending")]
    (later,) = found(of, tmp_path, named(5))
    assert later["state"] == "pending"
    assert "comes to it after" in later["detail"]
    assert states(of, tmp_path, f"{place}/{revision}/{index}/{'9' * 24}/{id}") == []
    # Not the place in the list that it had.
    assert states(of, tmp_path, fires[0].replace("/0/", "/7/")) == []
    # Not one of its times; and of a revision that it never had.
    assert states(of, tmp_path, f"{place}/{revision}/{index}/{int(due) + 1}/{id}") == []
    assert states(of, tmp_path, named(1, "r5")) == []


def test_a_fire_that_its_schedule_has_forgotten_is_told_by_the_history(tmp_path: Path) -> None:
    of = happened({"destination": "orders", "every": "1m", "id": "a"}, seconds=4_000)
    fires = [header(record, "fire-id") for _, record in of.log.all("orders")]
    (one,) = found(of, tmp_path, fires[0])
    assert (one["by"], one["state"]) == ("fire-id", "fired")
    assert one["event"]["event"]["fire_id"] == fires[0]
    assert one["schedule"] is None


def test_times_that_passed_while_a_schedule_was_paused_are_missed(tmp_path: Path) -> None:
    async def story(engine: Engine) -> None:
        engine.request(destination="orders", every="10m", id="a", catch_up="none")
        await asyncio.sleep(700)
        engine.request(None, action="pause", id="a")
        await asyncio.sleep(3_600)
        engine.request(None, action="resume", id="a")
        await asyncio.sleep(60)

    of = told(story)
    (fired, *_) = [header(record, "fire-id") for _, record in of.log.all("orders")]
    place, revision, index, due, id = fired.split("/")
    assert states(of, tmp_path, f"{place}/{revision}/{index}/{int(due) + 1_200_000}/{id}") == [
        ("fire-id", "missed")
    ]


HOSTILE = [
    "a/b/c",
    "/",
    "//",
    "..",
    "%2e%2e%2f",
    "\0",
    "a\0b",
    "😀",
    "é" * 128,
    "x" * 256,
    "<script>alert(1)</script>",
    "' OR 1=1 --",
    "delay-requests/0/" + "9" * 24,
    "delay-requests/" + "9" * 24 + "/0",
    "t/r" + "9" * 24 + "/0/" + "9" * 24 + "/a",
    "t/r1/t9.9/1/a",
    "@/0/0",
    "\N{RIGHT-TO-LEFT OVERRIDE}a",
    "a" * 1_024,
]


def test_no_word_breaks_the_search(tmp_path: Path) -> None:
    requests = [
        {"destination": "orders", "every": "1h", "id": id} for id in HOSTILE if len(id.encode()) <= 256
    ]
    of = happened(*requests)

    async def ask() -> None:
        async with served(of, tmp_path) as client:
            for word in HOSTILE:
                answer = await client.get("/v1/where", params={"q": word})
                assert answer.status_code == 200, (word, answer.text)
                if len(word.encode()) <= 256:
                    assert [one["schedule"]["id"] for one in answer.json()["items"] if one["by"] == "id"] == [
                        word
                    ]
            for query in ("q=%ff%fe", "q=%ed%a0%80", "q=%00"):
                assert (await client.get(f"/v1/where?{query}")).status_code == 200
            for query in ("", "q=", f"q={'a' * 1_025}"):
                answer = await client.get(f"/v1/where?{query}")
                assert answer.status_code == 400
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["code"] == "invalid-parameter"

    asyncio.run(ask())
