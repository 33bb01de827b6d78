"""Times to come: of a schedule, between two times, and of a definition that nobody has sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest

from delaystream.core.instants import format_instant
from tests.unit.console.serving import Told, served, told
from tests.unit.engine import Engine

Question = Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]]


def ask(of: Told, directory: Path, question: Question) -> None:
    async def asked() -> None:
        async with served(of, directory) as client:
            await question(client)

    asyncio.run(asked())


async def nothing(_: Engine) -> None:
    """Nobody asks for anything."""


def previewed(directory: Path, definition: dict[str, Any], **query: Any) -> httpx.Response:
    answers: list[httpx.Response] = []

    async def question(client: httpx.AsyncClient) -> None:
        answers.append(await client.post("/v1/preview", json=definition, params=query))

    ask(told(nothing), directory, question)
    return answers[0]


def test_a_preview_marks_the_gap_and_says_when_the_clocks_change(tmp_path: Path) -> None:
    definition = {"cron": "30 2 * * *", "timezone": "Europe/Berlin"}
    answer = previewed(tmp_path, definition, count=3, after="2024-03-29T12:00:00Z")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert [(one["at"], one["local"], one["offset"]) for one in body["items"]] == [
        ("2024-03-30T01:30:00.000Z", "2024-03-30T02:30:00.000+01:00", "+01:00"),
        ("2024-03-31T01:00:00.000Z", "2024-03-31T03:00:00.000+02:00", "+02:00"),
        ("2024-04-01T00:30:00.000Z", "2024-04-01T02:30:00.000+02:00", "+02:00"),
    ]
    assert [one["note"] for one in body["items"]] == [None, "gap: 02:30 does not exist, moved to 03:00", None]
    (change,) = body["clock_changes"]
    assert (change["at"], change["before"], change["after"]) == (
        "2024-03-31T01:00:00.000Z",
        "+01:00",
        "+02:00",
    )
    assert (body["timezone"], body["more"]) == ("Europe/Berlin", True)


def test_a_preview_marks_the_time_that_comes_twice(tmp_path: Path) -> None:
    definition = {"cron": "30 2 27 10 *", "timezone": "Europe/Berlin", "dst_overlap": "both"}
    body = previewed(tmp_path, definition, count=2, after="2024-10-01T00:00:00Z").json()
    assert [one["note"] for one in body["items"]] == [
        "fold: 02:30 comes twice, this is the first",
        "fold: 02:30 comes twice, this is the second",
    ]


@pytest.mark.parametrize(
    ("definition", "number", "more"),
    [
        ({"every": "15m", "max_fires": 3}, 3, False),
        ({"every": "15m", "max_fires": 30}, 5, True),
        ({"every": "15m"}, 5, True),
        ({"delay": "5m"}, 1, False),
        ({"at": ["2024-01-01T00:00:00Z", 1_704_067_300_000]}, 2, False),
        ({"at": "2024-01-01T00:00:00Z"}, 1, False),
        ({"at": "2020-01-01T00:00:00Z"}, 0, False),
    ],
)
def test_a_preview_has_as_many_times_as_there_are(
    definition: dict[str, Any], number: int, more: bool, tmp_path: Path
) -> None:
    body = previewed(tmp_path, definition, count=5).json()
    assert (len(body["items"]), body["more"]) == (number, more)


@pytest.mark.parametrize(
    ("definition", "code"),
    [
        ({}, "no-schedule"),
        ({"cron": "61 * * * *"}, "invalid-cron"),
        ({"cron": "1--100000000 * * * *"}, "invalid-cron"),
        ({"cron": "* * * * *", "every": "1m"}, "delay-and-at"),
        ({"every": "1ms"}, "too-frequent"),
        ({"cron": "* * * * *", "timezone": "Mars/Olympus"}, "invalid-timezone"),
        ({"at": ["2024-01-01T00:00:00Z"] * 101}, "list-too-long"),
        ({"cron": "0 0 30 2 *"}, "never-fires"),
    ],
)
def test_what_a_worker_would_refuse_is_refused_with_its_code(
    definition: dict[str, Any], code: str, tmp_path: Path
) -> None:
    answer = previewed(tmp_path, definition)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == code


def test_what_is_no_definition_is_a_problem_too(tmp_path: Path) -> None:
    definitions: list[Any] = [{"crom": "* * * * *"}, {"every": 5}, [], None, {"at": {}}]
    for definition in definitions:
        answer = previewed(tmp_path, definition)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid-parameter")


def test_upcoming_is_when_it_will_fire(tmp_path: Path) -> None:
    async def story(engine: Engine) -> None:
        engine.request(
            destination="orders", cron="0 9 * * *", timezone="Europe/Berlin", id="a/b", max_fires="3"
        )
        await asyncio.sleep(1)

    async def question(client: httpx.AsyncClient) -> None:
        answer = await client.get("/v1/schedules/a%2Fb/upcoming", params={"count": 9})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert [one["local"] for one in body["items"]] == [
            f"2023-11-{day}T09:00:00.000+01:00" for day in (15, 16, 17)
        ]
        assert (await client.get("/v1/schedules/b/upcoming")).status_code == 404
        assert (await client.get("/v1/schedules/a%2Fb/upcoming?count=501")).status_code == 400

    ask(told(story), tmp_path, question)


async def mixed(engine: Engine) -> None:
    """Recurring ones with and without jitter and an end, one-time ones, one that is paused."""
    engine.request(destination="orders", every="7m", id="seven", jitter="2m")
    engine.request(destination="emails", cron="*/10 * * * *", id="ten")
    engine.request(destination="orders", every="5m", id="few", max_fires="4")
    engine.request(destination="orders", every="1m", id="paused")
    engine.request(action="pause", id="paused")
    engine.request(destination="emails", delay="20m,40m,3h", id="list")
    engine.request(destination="orders", delay="30m")
    await asyncio.sleep(61)


async def agenda(client: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    while True:
        answer = await client.get("/v1/agenda", params=query)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        items += body["items"]
        assert not body["partial"]
        if body["next_from"] is None:
            return items
        query["from"] = body["next_from"]


@pytest.mark.parametrize("limit", [1, 7, 1_000])
def test_the_agenda_is_what_then_happens(limit: int, tmp_path: Path) -> None:
    """It is asked for, and two hours later the deliveries are compared with it."""
    at: list[int] = []

    async def story(engine: Engine) -> None:
        await mixed(engine)
        at.append(engine.clock.now_ms())

    async def longer(engine: Engine) -> None:
        await mixed(engine)
        await asyncio.sleep(7_200)

    of, then = told(story), told(longer)
    start = at[0]
    happened = [
        (event["due"], event["destination"])
        for event in fired(then)
        if start <= event["due"] < start + 7_000_000
    ]
    assert len(happened) > 30

    async def question(client: httpx.AsyncClient) -> None:
        items = await agenda(
            client, **{"from": format_instant(start), "to": format_instant(start + 7_000_000), "limit": limit}
        )
        assert [(one["due_at"], one["destination"]) for one in items] == sorted(
            (format_instant(due), destination) for due, destination in happened
        )

    ask(of, tmp_path, question)


def fired(of: Told) -> list[dict[str, Any]]:
    """When each delivery was due, jitter included: they are at once where nothing is in the way."""
    found = []
    for topic in ("orders", "emails"):
        for _, record in of.log.all(topic):
            found.append({"due": record.timestamp, "destination": topic})
    return found


def test_a_window_far_ahead_has_what_recurs_then(tmp_path: Path) -> None:
    async def question(client: httpx.AsyncClient) -> None:
        items = await agenda(client, **{"from": "2024-06-01T00:00:00Z", "to": "2024-06-01T01:00:00Z"})
        assert {one["id"] for one in items} == {"seven", "ten"}
        assert all(one["expected"] for one in items)
        tens = [one["due_at"] for one in items if one["id"] == "ten"]
        assert tens == [f"2024-06-01T00:{minute:02}:00.000Z" for minute in range(0, 60, 10)]
        for query in ({"from": "2024-06-01T00:00:00Z", "to": "2024-06-01T00:00:00Z"}, {"from": "tomorrow"}):
            assert (await client.get("/v1/agenda", params=query)).status_code == 400

    ask(told(mixed), tmp_path, question)


def test_a_calendar_has_an_event_for_each_fire_and_nothing_breaks_its_lines(tmp_path: Path) -> None:
    hostile = "a;b,c\\\r\nEND:VCALENDAR\0" + "😀" * 40

    async def story(engine: Engine) -> None:
        engine.request(destination="orders", delay="20m", id=hostile)
        engine.request(destination="orders", every="10h", id="b")
        await asyncio.sleep(1)

    async def question(client: httpx.AsyncClient) -> None:
        answer = await client.get("/v1/agenda.ics")
        assert answer.headers["content-type"] == "text/calendar; charset=utf-8"
        lines = answer.content.split(b"\r\n")
        assert all(len(line) <= 75 for line in lines)
        assert not any(byte in answer.content.replace(b"\r\n", b"") for byte in (b"\r", b"\n", b"\0"))
        assert lines.count(b"BEGIN:VEVENT") == lines.count(b"END:VEVENT") == 3
        assert lines.count(b"END:VCALENDAR") == 1
        unfolded = answer.content.replace(b"\r\n ", b"").decode()
        assert "SUMMARY:a\\;b\\,c\\\\?\\nEND:VCALENDAR?" in unfolded

    ask(told(story), tmp_path, question)
