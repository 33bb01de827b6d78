"""Lists as they are answered: every filter, every page, how many, how old; of two partitions and topics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from delaystream.console.replica import catalog
from delaystream.console.replica.follower import CopyStatus, Phase
from delaystream.console.service import Console
from delaystream.testing import VirtualTimeLoop
from tests.unit.console.serving import Told, served
from tests.unit.engine import REQUESTS, Engine, carried_out
from tests.unit.tenants import OTHER, other_request, start, tenants

NUMBER = 12
Ask = Callable[..., Any]


async def story(engine: Engine) -> None:
    """Schedules of two topics, with everything that a filter may be about; some have fired, some are over."""
    for number in range(NUMBER):
        engine.request(
            destination="orders" if number % 2 else "emails",
            at=f"2024-01-{number + 1:02}T00:00:00Z",
            id=f"{'one' if number < 6 else 'two'}-{number}",
            key=b"key-%d" % (number % 3),
            name="Weekly report" if number % 4 == 0 else "Another",
            tags="red" if number % 3 == 0 else "blue",
            foreign=[("correlation-id", b"order-%d" % (number % 5))],
            partition=number % 2,
        )
        engine.request(
            destination="orders" if number % 2 else "emails",
            at=f"2024-02-{number + 1:02}T00:00:00Z",
            key=b"key-%d" % (number % 3),
            tags="red" if number % 3 == 0 else "blue",
            partition=number % 2,
        )
    # Commands come by another partition than the schedules.
    await asyncio.sleep(1)
    for number in range(3):
        other_request(engine, destination="orders", every="10s", id=f"one-{number}")
        engine.request(None, action="pause", id=f"one-{number + 2}")
    engine.request(None, action="cancel", id="two-11")
    # It is remembered, and is for no destination.
    engine.request(None, action="cancel", id="nobody")
    await asyncio.sleep(35)


@pytest.fixture(scope="module")
def of() -> Told:
    """What is left of that."""
    with VirtualTimeLoop() as loop:

        async def happen() -> Told:
            engine = Engine(loop, 2)
            engine.log.create_topic(OTHER, 2)
            start(engine, tenants())
            await carried_out(engine, story(engine))
            return Told(engine.log, engine.clock.now_ms(), 2)

        return loop.run_until_complete(happen())


@pytest.fixture
def ask(of: Told, tmp_path: Path) -> Ask:
    """Have questions asked, of a console that has caught up."""

    def asked(question: Callable[[httpx.AsyncClient], Any]) -> Any:
        async def all_of_it() -> Any:
            async with served(of, tmp_path) as client:
                return await question(client)

        return asyncio.run(all_of_it())

    return asked


async def got(client: httpx.AsyncClient, path: str, status: int = 200) -> Any:
    answer = await client.get(path)
    assert answer.status_code == status, (path, answer.text)
    return answer.json()


def named(*numbers: int) -> set[str]:
    return {f"{'one' if number < 6 else 'two'}-{number}" for number in numbers}


LIVE = set(range(NUMBER)) - {11}
SCHEDULES: list[tuple[str, set[str]]] = [
    (f"request_topic={REQUESTS}", named(*LIVE)),
    (f"request_topic={OTHER}", named(0, 1, 2)),
    ("status=cancelled", named(11)),
    ("status=paused", named(2, 3, 4)),
    (f"status=pending&status=cancelled&request_topic={REQUESTS}", named(0, 1, 5, 6, 7, 8, 9, 10, 11)),
    ("destination=emails", named(*(number for number in LIVE if number % 2 == 0))),
    (f"destination=orders&request_topic={REQUESTS}", named(*(n for n in LIVE if n % 2))),
    (f"key=key-1&request_topic={REQUESTS}", named(*(n for n in LIVE if n % 3 == 1))),
    ("key_base64=a2V5LTE=", named(*(n for n in LIVE if n % 3 == 1))),
    ("tag=red", named(*(n for n in LIVE if n % 3 == 0))),
    ("correlation_id=order-2", named(*(n for n in LIVE if n % 5 == 2))),
    ("id_prefix=two-", named(6, 7, 8, 9, 10)),
    ("q=weekly", named(*(n for n in LIVE if n % 4 == 0))),
    ("next_from=2024-01-09T00:00:00Z", named(8, 9, 10)),
    ("next_to=2024-01-02T00:00:00Z&destination=emails", named(0)),
    ("next_from=2024-01-02T00:00:00Z&next_to=2024-01-09T00:00:00Z", named(1, 5, 6, 7)),
    ("tag=red&destination=orders&key=key-0", named(3, 9)),
]
"""What each question is about, by the ids that it has; a paused one has no next fire."""


async def pages(client: httpx.AsyncClient, path: str, query: str, limit: int) -> tuple[list[Any], list[Any]]:
    """The items of all pages, and what was answered."""
    items: list[Any] = []
    bodies: list[Any] = []
    cursor = ""
    while True:
        body = await got(client, f"{path}?{query}&limit={limit}{cursor}")
        bodies.append(body)
        assert len(body["items"]) <= limit
        items += body["items"]
        if body["next_cursor"] is None:
            return items, bodies
        cursor = f"&cursor={body['next_cursor']}"


@pytest.mark.parametrize(
    ("few", "narrowed"),
    [(catalog.FEW, catalog.NARROWED), (-1, catalog.NARROWED), (-1, -1)],
    ids=["read whole", "among some", "by the index"],
)
def test_each_filter_lists_what_it_says_and_counts_it(
    few: int, narrowed: int, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pages of any size nothing is there twice, and nothing is missing; the total is on each of them."""
    monkeypatch.setattr(catalog, "FEW", few)
    monkeypatch.setattr(catalog, "NARROWED", narrowed)

    async def question(client: httpx.AsyncClient) -> None:
        for query, expected in SCHEDULES:
            for limit in (1, 3, 500):
                items, bodies = await pages(client, "/v1/schedules", query, limit)
                ids = [one["id"] for one in items]
                assert sorted(ids) == sorted(expected), (query, limit)
                for body in bodies:
                    assert body["total"] == {"count": len(expected), "relation": "exact"}, query

    ask(question)


def test_every_order_is_one_over_all_partitions(ask: Ask) -> None:
    async def question(client: httpx.AsyncClient) -> None:
        for sort, name, backwards in (
            ("id", "id", False),
            ("created", "created_at", True),
            ("next", "next_at", False),
        ):
            items, _ = await pages(client, "/v1/schedules", f"sort={sort}", 2)
            assert len(items) == len(LIVE) + 3
            # What has none stands last.
            values = [one[name] or "9999" for one in items]
            assert values == sorted(values, reverse=backwards), sort
        items, _ = await pages(client, "/v1/schedules", "sort=last", 2)
        fired = [one["last_fired_at"] for one in items]
        assert fired == sorted((one for one in fired if one), reverse=True) + [None] * fired.count(None)
        assert len(fired) - fired.count(None) == 3

    ask(question)


PENDING: list[tuple[str, set[str]]] = [
    ("destination=emails", {f"2024-02-{n + 1:02}" for n in range(NUMBER) if n % 2 == 0}),
    ("key=key-2", {f"2024-02-{n + 1:02}" for n in range(NUMBER) if n % 3 == 2}),
    ("tag=blue", {f"2024-02-{n + 1:02}" for n in range(NUMBER) if n % 3}),
    ("due_from=2024-02-11T00:00:00Z", {"2024-02-11", "2024-02-12"}),
    ("due_from=2024-02-01T00:00:00Z&due_to=2024-02-03T00:00:00Z", {"2024-02-01", "2024-02-02"}),
    (f"request_topic={REQUESTS}&due_from=2024-02-05T00:00:00Z", {f"2024-02-{n:02}" for n in range(5, 13)}),
    (f"request_topic={OTHER}", set()),
]
"""The days of what has no id."""


def test_each_filter_of_what_is_pending(ask: Ask) -> None:
    async def question(client: httpx.AsyncClient) -> None:
        for query, expected in PENDING:
            for limit in (1, 4, 500):
                items, _ = await pages(client, "/v1/pending", query, limit)
                assert [one["due_at"] for one in items] == sorted(one["due_at"] for one in items)
                days = [one["due_at"][:10] for one in items if one["id"] is None]
                assert sorted(days) == sorted(expected), (query, limit)
                if "orders" in query or "request_topic" in query:
                    assert all(one["request_topic"] in query for one in items)

    ask(question)


def test_a_cursor_goes_with_its_question_alone(ask: Ask) -> None:
    async def question(client: httpx.AsyncClient) -> None:
        for path, query, others in (
            ("schedules", "sort=id", ["sort=next", "sort=id&destination=orders", "sort=id&status=paused"]),
            ("pending", "tag=red", ["tag=blue", "", "tag=red&due_to=2024-02-03T00:00:00Z"]),
            ("destinations", "", ["destination=orders"]),
            ("schedules/one-0/fires", f"request_topic={OTHER}", [f"request_topic={REQUESTS}"]),
        ):
            cursor = (await got(client, f"/v1/{path}?{query}&limit=1"))["next_cursor"]
            assert cursor is not None, path
            await got(client, f"/v1/{path}?{query}&limit=1&cursor={cursor}")
            for other in others:
                body = await got(client, f"/v1/{path}?{other}&limit=1&cursor={cursor}", 400)
                assert body["code"] == "invalid-cursor"
        cursor = (await got(client, f"/v1/schedules/one-0/fires?request_topic={OTHER}&limit=1"))[
            "next_cursor"
        ]
        await got(client, f"/v1/schedules/one-1/fires?request_topic={OTHER}&limit=1&cursor={cursor}", 400)

    ask(question)


def test_history_and_destinations_come_in_pages_without_repeats(ask: Ask) -> None:
    async def question(client: httpx.AsyncClient) -> None:
        path = "/v1/schedules/one-0/fires"
        items, _ = await pages(client, path, f"request_topic={OTHER}", 1)
        places = [(one["partition"], one["offset"]) for one in items]
        assert len(set(places)) == len(places) == 3
        assert [one["at"] for one in items] == sorted((one["at"] for one in items), reverse=True)
        items, _ = await pages(client, "/v1/destinations", "", 1)
        assert [one["destination"] for one in items] == ["emails", "orders"]

    ask(question)


def test_more_than_are_counted_are_at_least_so_many(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "COUNTED", 3)

    async def question(client: httpx.AsyncClient) -> None:
        for query in ("key=key-1", "id_prefix=one"):
            total = (await got(client, f"/v1/schedules?{query}"))["total"]
            assert total["relation"] == "at_least", query
            assert total["count"] <= 3

    ask(question)


def test_an_id_that_two_topics_have_is_ambiguous_unless_one_is_named(ask: Ask) -> None:
    """Everywhere that an id is asked for."""

    async def question(client: httpx.AsyncClient) -> None:
        for path, topic in (
            ("/v1/schedules/one-0", "request_topic"),
            ("/v1/schedules/one-0/fires", "request_topic"),
            ("/v1/schedules/one-0/upcoming", "request_topic"),
            ("/compat/schedules/one-0", "tenant"),
            ("/compat/schedules/one-0/executions", "tenant"),
        ):
            body = await got(client, path, 409)
            assert (body["code"], REQUESTS in body["detail"], OTHER in body["detail"]) == (
                "ambiguous-id",
                True,
                True,
            ), path
            await got(client, f"{path}?{topic}={OTHER}")
            await got(client, f"{path}?{topic}=none", 404)
        one = await got(client, f"/v1/schedules/one-0?request_topic={OTHER}")
        assert (one["request_topic"], one["fired"], one["definition"]["every"]) == (OTHER, 3, "10s")
        await got(client, "/v1/schedules/two-6")

    ask(question)


def test_the_words_of_other_systems_filter_too(ask: Ask) -> None:
    async def question(client: httpx.AsyncClient) -> None:
        for query, expected in (
            (f"tenant={OTHER}", named(0, 1, 2)),
            ("topic=emails", named(*(n for n in LIVE if n % 2 == 0))),
            ("tag=red", named(*(n for n in LIVE if n % 3 == 0))),
            ("is_active=false", named(2, 3, 4)),
        ):
            found: list[str] = []
            cursor: str | None = ""
            while cursor is not None:
                body = await got(client, f"/compat/schedules?{query}&limit=2{cursor}")
                found += [one["id"] for one in body["schedules"]]
                assert body["total"] == len(expected), query
                cursor = None if body["next_cursor"] is None else f"&cursor={body['next_cursor']}"
            assert sorted(found) == sorted(expected), query

    ask(question)


def test_sums_are_of_the_destination_and_the_schedule_that_are_asked_for(ask: Ask) -> None:
    async def question(client: httpx.AsyncClient) -> None:
        path = "/v1/analytics/summary"
        fired = (await got(client, path))["total"]["counts"]["fired"]
        assert fired == 9
        assert (await got(client, f"{path}?destination=orders"))["total"]["counts"]["fired"] == 9
        assert "fired" not in (await got(client, f"{path}?destination=emails"))["total"]["counts"]
        body = await got(client, f"{path}?by=schedule")
        assert (body["by"], body["partial"], body["series"]) == ("schedule", False, [])
        most = {
            (one["request_topic"], one["schedule_id"]): one["counts"].get("fired", 0) for one in body["items"]
        }
        assert {what for what, count in most.items() if count} == {(OTHER, f"one-{n}") for n in range(3)}
        assert body["items"][0]["counts"]["fired"] == 3
        assert body["items"][0]["within"]["60000"] == 1.0
        assert body["total"]["counts"]["fired"] == 9
        for query, expected in (
            ("id=one-1", 3),
            (f"id=one-1&request_topic={OTHER}&by=request_topic", 3),
            (f"id=one-1&request_topic={REQUESTS}", 0),
            ("id=one-1&destination=emails", 0),
            ("by=schedule&start=2023-11-14T22:13:00Z&end=2023-11-14T22:13:21Z", 0),
        ):
            body = await got(client, f"{path}?{query}")
            assert body["total"]["counts"].get("fired", 0) == expected, query

    ask(question)


def copies(*as_of_ms: int | None) -> list[CopyStatus]:
    return [
        CopyStatus(number, Phase.FOLLOWING, as_of_ms=at_ms, indexed=at_ms is not None)
        for number, at_ms in enumerate(as_of_ms)
    ]


@pytest.mark.parametrize(
    ("as_of_ms", "oldest"), [((0, 5_000), 5_000), ((7_000, 0), 7_000), ((None, 0), None)]
)
def test_an_answer_is_as_old_as_the_oldest_copy(
    as_of_ms: tuple[int | None, ...], oldest: int | None, of: Told, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ages in ms; a copy that cannot be asked is named, and nothing is said of the age."""
    now_ms = of.clock.now_ms()

    async def question(client: httpx.AsyncClient) -> None:
        told = copies(*(None if age is None else now_ms - age for age in as_of_ms))
        monkeypatch.setattr(Console, "statuses", property(lambda _: told))
        for path in ("schedules", "pending", "stats", "destinations", "where?q=one-0", "agenda"):
            body = await got(client, f"/v1/{path}")
            assert body["lag_ms"] == oldest, path
            assert body["complete"] is (oldest is not None)
            assert [one["partition"] for one in body["missing_partitions"]] == [
                number for number, age in enumerate(as_of_ms) if age is None
            ]

    ask(question)
