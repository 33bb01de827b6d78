"""Dead letters, and events as they happen."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from delaystream.console.api.application import application
from delaystream.console.history import tail
from delaystream.console.letters import latest
from delaystream.engine.ports import TopicPartition
from tests.unit.console.serving import Told, console, served, told
from tests.unit.engine import Engine

LETTERS = TopicPartition("delay-dead-letters", 0)
EVENTS = TopicPartition("delay-events", 0)
EVERY = [4, 2, 0]
"""Offsets of three letters, the latest first: between them are the markers of their transactions."""
FIRST = EVERY[2:]


async def refused(engine: Engine) -> None:
    """Three requests that are refused, a minute apart."""
    engine.request(destination="orders", delay="soon", key=b"\xff", id="a")
    await asyncio.sleep(60)
    engine.request(destination="orders", delay="5m", at="2030-01-01T00:00:00Z", value=b"12345")
    await asyncio.sleep(60)
    engine.request(destination="no topic", delay="later", foreign=[("x", b"\xfe"), ("null", None)])
    await asyncio.sleep(1)


async def listed(client: httpx.AsyncClient, query: str) -> dict[str, Any]:
    answer = await client.get(f"/v1/dead-letters?{query}")
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def asked(of: Told, directory: Path, *queries: str) -> list[dict[str, Any]]:
    """The answers of one console: to make another takes longer than all of them."""

    async def ask() -> list[dict[str, Any]]:
        async with served(of, directory) as client:
            return [await listed(client, query) for query in queries]

    return asyncio.run(ask())


def test_dead_letters_are_told_with_what_was_refused_and_why(tmp_path: Path) -> None:
    [body] = asked(told(refused), tmp_path, "")
    assert [one["code"] for one in body["items"]] == ["invalid-destination", "delay-and-at", "invalid-delay"]
    last, middle, first = body["items"]
    assert (first["id"], first["destination"], first["key_base64"]) == ("a", "orders", "/w==")
    assert (first["source"], first["request_topic"]) == ("delay-requests/0/0", "delay-requests")
    assert "delaystream-delay: 'soon'" in first["detail"]
    assert middle["value_bytes"] == 5
    assert ["x", "\\xfe"] in last["headers"]
    assert ["null", None] in last["headers"]
    assert body["counts"] == {"invalid-destination": 1, "delay-and-at": 1, "invalid-delay": 1}


def test_dead_letters_are_filtered_by_code_topic_id_and_time(tmp_path: Path) -> None:
    expected = {
        "code=invalid-delay": FIRST,
        "code=none": [],
        "request_topic=delay-requests": EVERY,
        "request_topic=another": [],
        "id=a": FIRST,
        "destination=orders": EVERY[1:],
        "at_from=2023-11-14T22:14:00Z": EVERY[:2],
        "at_to=2023-11-14T22:14:00Z": FIRST,
    }
    bodies = dict(zip(expected, asked(told(refused), tmp_path, *expected), strict=True))
    found = {query: [one["offset"] for one in body["items"]] for query, body in bodies.items()}
    assert found == expected
    assert bodies["request_topic=another"]["counts"] == {}


def test_dead_letters_come_in_pages(tmp_path: Path) -> None:
    of = told(refused)

    async def ask() -> list[int]:
        found, cursor = [], ""
        async with served(of, tmp_path) as client:
            while True:
                body = await listed(client, f"limit=1{cursor}")
                found += [one["offset"] for one in body["items"]]
                if body["next_cursor"] is None:
                    return found
                cursor = f"&cursor={body['next_cursor']}"

    assert asyncio.run(ask()) == EVERY


def test_the_latest_letters_are_kept_and_the_answer_says_since_when(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latest, "KEPT", 2)
    [body] = asked(told(refused), tmp_path, "")
    assert [one["offset"] for one in body["items"]] == EVERY[:2]
    assert body["reading"][0]["kept_from"] == EVERY[1]


def test_what_no_worker_wrote_is_a_letter_without_a_code(tmp_path: Path) -> None:
    of = told(refused)
    headers = [("delaystream-error-offset", b"9" * 30), ("h" * 3_000, b""), ("later", b"cut")]
    of.log.append(LETTERS, (None, None, headers, of.clock.now_ms()))
    [body] = asked(of, tmp_path, "limit=1")
    one = body["items"][0]
    assert (one["code"], one["source"], one["value_bytes"]) == ("", None, None)
    assert one["headers_cut"] is True


# -- events as they happen -------------------------------------------------------------------------


async def fires(engine: Engine) -> None:
    """Two schedules that have each fired three times."""
    engine.request(destination="orders", every="10s", id="a", foreign=[("correlation-id", b"order-1")])
    engine.request(destination="emails", every="10s", id="b/c", name="line\nbreak")
    await asyncio.sleep(35)


async def sse(answer: httpx.Response) -> AsyncIterator[dict[str, str]]:
    """The events of a stream, field by field."""
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield fields
            fields = {}


class Server:
    """The application behind a real server: what happens when one stops can be seen with no other."""

    def __init__(self, app: Any) -> None:
        self.uvicorn = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))

    async def __aenter__(self) -> httpx.AsyncClient:
        listening = socket.create_server(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        self.serving = asyncio.create_task(self.uvicorn._serve(sockets=[listening]))
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30)
        return self.client

    async def __aexit__(self, *_: object) -> None:
        self.uvicorn.should_exit = True
        await self.client.aclose()
        await asyncio.wait_for(self.serving, 30)


async def taken(stream: AsyncIterator[dict[str, str]], number: int) -> list[dict[str, str]]:
    """The first events of a stream."""
    found = []
    async for fields in stream:
        if "data" in fields:
            found.append(fields)
            if len(found) == number:
                break
    return found


def names(of: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(one["event"], json.loads(one["data"])["schedule_id"]) for one in of]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what the server does when it has its turn."""
    for _ in range(1_000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(condition)


def again(of: Told, number: int) -> None:
    """Write events of the topic again, as if they happened now."""
    for _, record in of.log.all("delay-events")[:number]:
        of.log.append(EVENTS, (record.key, record.value, [], of.clock.now_ms()))


def test_a_stream_begins_with_what_happens_and_is_resumed_where_it_was(tmp_path: Path) -> None:
    of = told(fires)
    before = len(of.log.all("delay-events"))
    assert before == 8

    async def test() -> None:
        async with console(of, tmp_path) as made, Server(application(made)) as client:
            async with client.stream("GET", "/v1/events") as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                stream = sse(answer)
                first = await anext(stream)
                again(of, 2)
                seen = await taken(stream, 1)
            assert names(seen) == [("scheduled", "a")]
            async with client.stream("GET", "/v1/events", headers={"Last-Event-ID": seen[0]["id"]}) as answer:
                assert names(await taken(sse(answer), 1)) == [("scheduled", "b/c")]
            async with client.stream("GET", "/v1/events?after=0.0&limit=9") as answer:
                everything = await taken(sse(answer), before + 2)
            assert names(everything)[-2:] == [("scheduled", "a"), ("scheduled", "b/c")]
            assert first["retry"] == "2000"
            await until(lambda: made.tail.streams == 0)

    asyncio.run(asyncio.wait_for(test(), 60))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("type=fired", [("fired", "a"), ("fired", "b/c")] * 3),
        ("id=b%2Fc", [("scheduled", "b/c")] + [("fired", "b/c")] * 3),
        ("correlation_id=order-1", [("scheduled", "a")] + [("fired", "a")] * 3),
        ("destination=orders", [("scheduled", "a")] + [("fired", "a")] * 3),
        ("request_topic=delay-requests&type=scheduled", [("scheduled", "a"), ("scheduled", "b/c")]),
    ],
)
def test_a_stream_has_what_was_asked_for_and_nothing_else(
    query: str, expected: list[tuple[str, str]], tmp_path: Path
) -> None:
    of = told(fires)

    async def test() -> None:
        path = f"/v1/events?after=0.0&{query}"
        async with (
            console(of, tmp_path) as made,
            Server(application(made)) as client,
            client.stream("GET", path) as answer,
        ):
            assert sorted(names(await taken(sse(answer), len(expected)))) == sorted(expected)

    asyncio.run(asyncio.wait_for(test(), 60))


def test_a_stream_up_to_now_ends_there_and_says_so(tmp_path: Path) -> None:
    """Also behind what is not meant, and behind markers, which are no events; from a place or a number on."""
    of = told(fires)
    end = of.log.bounds(EVENTS).stable
    assert end > of.log.all("delay-events")[-1][1].offset + 1

    async def test() -> None:
        async with console(of, tmp_path) as made, Server(application(made)) as client:
            for query, number in (
                ("after=0.0", 8),
                ("after=0.0&id=nobody", 0),
                (f"after=0.{end - 1}", 0),
                ("last=1000", 8),
                ("last=1", 0),
                ("", 0),
            ):
                answer = await client.get(f"/v1/events?until=now&{query}")
                assert answer.status_code == 200, answer.text
                assert answer.text.count("\ndata: ") == number, query
                assert answer.text.endswith(f"id: 0.{end}\n: end\n\n"), query
            for query in ("until=then", "last=0", "last=1001"):
                assert (await client.get(f"/v1/events?{query}")).status_code == 400, query

    # A stream in which nothing happens says so each 15 s: six of these would take longer.
    asyncio.run(asyncio.wait_for(test(), 60))


def test_a_stream_that_is_slower_than_what_happens_misses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "HELD", 3)
    monkeypatch.setattr(tail, "_AT_ONCE", 2)
    of = told(fires)

    async def test() -> None:
        async with console(of, tmp_path) as made:
            with made.tail.counted():
                stream = made.tail.follow({0: 0}, 5.0)
                offsets: list[int] = []
                for expected in (8, 16, 24):
                    while len(offsets) < expected:
                        offsets += [one.offset for one in (await anext(stream)).told]
                    # While the stream is busy elsewhere, more happens than is held.
                    again(of, 8)
                    end = of.log.bounds(EVENTS).stable
                    await until(lambda end=end: 0 in made.tail._held and made.tail._held[0].next >= end)  # type: ignore[misc]
                assert offsets == sorted(offsets)
                assert len(set(offsets)) == 24
                assert all(len(held.events) <= 3 for held in made.tail._held.values())

    asyncio.run(asyncio.wait_for(test(), 60))


def test_streams_end_with_the_server(tmp_path: Path) -> None:
    """Without an end of its own an open stream keeps the server waiting for ever."""
    of = told(fires)

    async def test() -> None:
        async with console(of, tmp_path) as made:
            server = Server(application(made))
            async with server as client, client.stream("GET", "/v1/events") as answer:
                stream = sse(answer)
                await anext(stream)
                made.tail.close()
                server.uvicorn.should_exit = True
                async for _ in stream:
                    pass
                await server.serving

    asyncio.run(asyncio.wait_for(test(), 60))


def test_there_is_a_bound_to_the_number_of_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "STREAMS", 1)
    monkeypatch.setattr("delaystream.console.api.reading.happening.STREAMS", 1)
    of = told(fires)

    async def test() -> None:
        async with (
            console(of, tmp_path) as made,
            Server(application(made)) as client,
            client.stream("GET", "/v1/events") as answer,
        ):
            # Held: a reader that nothing refers to is closed, and the stream with it.
            stream = sse(answer)
            await anext(stream)
            second = await client.get("/v1/events")
            assert (second.status_code, second.json()["code"]) == (429, "too-many-streams")

    asyncio.run(asyncio.wait_for(test(), 60))


@pytest.mark.parametrize("id", ["x", "0", "0.", "0.1-", "0.1-1", "9" * 30 + ".1", "0." + "9" * 30, "0.1,1.2"])
def test_what_is_no_place_of_a_stream_is_refused(id: str, tmp_path: Path) -> None:
    of = told(fires)

    async def test() -> None:
        async with served(of, tmp_path) as client:
            answer = await client.get("/v1/events", headers={"Last-Event-ID": id})
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid-event-id")

    asyncio.run(test())
