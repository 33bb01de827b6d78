"""What a caller sees of another request topic: nothing, by whatever it asks."""

from __future__ import annotations

import asyncio
import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, unquote

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from delaystream.console.access.caller import Caller, Exceptions, Grant, Role
from delaystream.console.access.token_file import TokenFile
from delaystream.console.api.application import application
from delaystream.console.api.reading import happening
from delaystream.console.api.reading.compat import PREFIXES
from delaystream.console.history import tail
from delaystream.console.replica import catalog, pending
from tests.unit.console.neighbours import (
    MARK,
    MINE,
    THEIRS,
    Clients,
    asked,
    coordinates_of,
    entrance,
    entry,
    neighbours,
    token,
)
from tests.unit.console.serving import Told, console, told
from tests.unit.console.test_api_happening import Server
from tests.unit.engine import Engine

IDS = ["one/two", "shared", f"{MARK}-1", f"{MARK}-2", "none"]
WORDS = [*IDS, "key", f"{MARK}-key", "shared", MARK, "order-17"]
TOPICS = [
    "",
    f"&request_topic={MINE}",
    f"&request_topic={THEIRS}",
    f"&request_topic={MINE}&request_topic={THEIRS}",
]
DEEDS = ("pause", "resume", "trigger", "reschedule", "cancel", "edit")
EVERY_STATUS = "&status=".join(["", "pending", "paused", "fired", "completed", "cancelled"])
FILTERS = ["", f"&destination={MARK}-out", f"&key={MARK}-key", f"&tag={MARK}", "&tag=shared", "&key=shared"]


def probes() -> Iterator[tuple[str, str]]:
    """(route, what is asked) of every route that answers with something that is stored."""
    for topics in TOPICS:
        for narrow in FILTERS:
            for sort in ("next", "last", "id", "created"):
                yield "/v1/schedules", f"/v1/schedules?sort={sort}{EVERY_STATUS}{topics}{narrow}"
            yield "/v1/pending", f"/v1/pending?{topics}{narrow}"
            yield "/v1/agenda", f"/v1/agenda?limit=40{topics}{narrow}"
            yield "/v1/agenda.ics", f"/v1/agenda.ics?limit=40{topics}{narrow}"
        for narrow in (
            f"&id_prefix={MARK}",
            f"&q={MARK}",
            "&correlation_id=order-17",
            "&next_from=2000-01-01T00:00:00Z",
        ):
            yield "/v1/schedules", f"/v1/schedules?{topics}{narrow}"
        yield "/v1/dead-letters", f"/v1/dead-letters?{topics}"
        yield "/v1/dead-letters", f"/v1/dead-letters?id={MARK}-3{topics}"
        yield "/v1/analytics/summary", f"/v1/analytics/summary?{topics}"
        yield "/v1/analytics/summary", f"/v1/analytics/summary?by=request_topic{topics}"
        for id in IDS:
            path = f"/v1/schedules/{quote(id, safe='')}"
            yield "/v1/schedules/{id}", f"{path}?{topics}"
            yield "/v1/schedules/{id}/fires", f"{path}/fires?{topics}"
            yield "/v1/schedules/{id}/upcoming", f"{path}/upcoming?{topics}"
    for word in [*WORDS, *(coordinates_of(topic, offset) for topic in (MINE, THEIRS) for offset in range(9))]:
        yield "/v1/where", f"/v1/where?q={quote(word, safe='')}"
        yield "/where", f"/where?q={quote(word, safe='')}"
    yield "/v1/where", f"/v1/where?q={quote(f'{THEIRS}/0/2/0/1700003600000', safe='')}"
    yield "/v1/stats", "/v1/stats"
    yield "/v1/destinations", "/v1/destinations"
    yield "/v1/destinations", f"/v1/destinations?destination={MARK}-out"
    yield "/v1/destinations", f"/v1/destinations?destination=gone-{MARK}"
    yield "/v1/health", "/v1/health"
    yield "/v1/partitions", "/v1/partitions"
    yield "/v1/holds", "/v1/holds"
    yield "/v1/destinations/{destination}/rate", f"/v1/destinations/{MARK}-out/rate"
    yield "/metrics", "/metrics"
    for id in IDS:
        yield "/schedules/{id}", f"/schedules/{quote(id, safe='')}"
        yield "/schedules/{id}", f"/schedules/{quote(id, safe='')}?request_topic={THEIRS}"
        yield "/schedules/{id}", f"/schedules/{quote(id, safe='')}?payload=true"
        for deed in DEEDS:
            yield f"/schedules/{{id}}/{deed}", f"/schedules/{quote(id, safe='')}/{deed}"
            path = f"/schedules/{quote(id, safe='')}/{deed}?request_topic={THEIRS}"
            yield f"/schedules/{{id}}/{deed}", path
        yield "/new", f"/new?like={quote(id, safe='')}"
    for place in (coordinates_of(topic, offset) for topic in (MINE, THEIRS) for offset in range(4)):
        route = "/pending/{topic}/{partition}/{offset}"
        yield route, f"/pending/{place}"
        for deed in ("trigger", "reschedule", "cancel"):
            yield f"{route}/{deed}", f"/pending/{place}/{deed}"
        yield "/holds/release", f"/holds/release?name={quote(place, safe='')}"
    yield "/holds", "/holds"
    yield "/holds/new", f"/holds/new?key={MARK}-key"
    yield "/destinations/rate", f"/destinations/rate?destination={MARK}-out"
    yield "/", "/"
    for page in ("/schedules", "/pending", "/agenda", "/live", "/dead-letters"):
        yield page, page
        yield page, f"{page}?request_topic={MINE}"
        yield page, f"{page}?destination=orders"
    yield "/schedules", "/schedules?status=all&sort=last&tag=shared"
    yield "/pending", "/pending?key=shared"
    yield "/live", "/live?type=fired"
    for topics in TOPICS:
        yield "/v1/audit", f"/v1/audit?{topics}"
    yield "/audit", "/audit"
    for page in ("/destinations", "/partitions", "/settings"):
        yield page, page
    for prefix in PREFIXES:
        base = f"/compat{prefix}/schedules"
        for tenant in ("", f"&tenant={MINE}", f"&tenant={THEIRS}"):
            yield base, f"{base}?{tenant}"
            for id in IDS:
                path = f"{base}/{quote(id, safe='')}"
                yield f"{base}/{{id}}", f"{path}?{tenant}"
                yield f"{base}/{{id}}/executions", f"{path}/executions?{tenant}"
        for numbers in ("health", "stats", "metrics", "analytics/summary"):
            yield f"{base}/monitoring/{numbers}", f"{base}/monitoring/{numbers}"


UNPROBED = {
    # It has tests of its own here: it has no end.
    "/v1/events",
    # Nothing that is stored has a part in them.
    "/v1/preview", "/health/live", "/health/ready", "/static/{path}", "/v1/docs",
    "/v1/docs/rapidoc-9.3.8.min.js", "/v1/openapi.json", "/static/vendored/htmx.org-4.0.1.min.js",
    # They ask who somebody is: `test_sign_in`.
    "/sign-in", "/sign-in/provider", "/sign-in/callback",
    # What was written is asked for in `test_writing_access`, as are the routes that write.
    "/v1/requests/{request_id}", "/requests/{request_id}",
    # `test_redriving_access` asks for letters one by one, and for what was done about many.
    "/v1/dead-letters/{place}", "/v1/dead-letters/runs", "/v1/dead-letters/runs/{run}",
    "/dead-letters/{place}", "/dead-letters/{place}/redrive", "/dead-letters/{place}/discard",
    "/dead-letters/{place}/reopen", "/dead-letters/runs/{run}",
    # `test_operations_access` asks for operations that are about another request topic, too.
    "/v1/operations", "/v1/operations/{operation_id}", "/v1/operations/{operation_id}/failures",
    "/operations", "/operations/{operation_id}",
}  # fmt: skip


def together(of: Told, directory: Path, question: Any) -> None:
    async def ask() -> None:
        async with asked(of, directory) as clients:
            await question(clients)

    asyncio.run(ask())


async def answers(clients: Clients, name: str) -> dict[str, httpx.Response]:
    """What one caller is answered to every probe."""
    async with clients(name) as client:
        return {path: await client.get(path) for _, path in probes()}


def test_every_route_is_probed(tmp_path: Path) -> None:
    """A route that is new has to say here how it is asked about another request topic."""

    of = neighbours(alone=True)

    async def listed() -> set[str]:
        async with console(of, tmp_path) as made:
            app = application(made)
            return {
                str(route.path_format or route.path)
                for route in iter_route_contexts(app.routes)
                if "GET" in (route.methods or {"GET"}) or route.path == "/v1/preview"
            }

    routes = {re.sub(r":whole\}", "}", path) for path in asyncio.run(listed())}
    assert routes == {route for route, _ in probes()} | UNPROBED


def test_nothing_of_another_request_topic_is_in_any_answer(tmp_path: Path) -> None:
    async def question(clients: Clients) -> None:
        everything = await answers(clients, "all")
        told = {route for route, path in probes() if MARK in everything[path].text.replace(_echo(path), "")}
        # Where it is to be seen by who may see it, so that it is missed where it is not.
        assert told >= {route for route, _ in probes()} - _UNMARKED, told
        for path, answer in (await answers(clients, "mine")).items():
            assert answer.status_code < 500, (path, answer.text)
            assert MARK not in _unechoed(path, answer), (path, answer.text)
            assert THEIRS not in _unechoed(path, answer), (path, answer.text)

    together(neighbours(), tmp_path, question)


_UNMARKED = {
    "/v1/health",
    "/metrics",
    "/settings",
    # Whoever only sees is refused what changes something: test_pages_acting looks at those who may.
    "/new",
    "/holds/new",
    "/holds/release",
    "/destinations/rate",
    *(f"/schedules/{{id}}/{deed}" for deed in DEEDS),
    *(f"/pending/{{topic}}/{{partition}}/{{offset}}/{deed}" for deed in ("trigger", "reschedule", "cancel")),
    *(
        f"/compat{prefix}/schedules/monitoring/{what}"
        for prefix in PREFIXES
        for what in ("health", "metrics")
    ),
}
"""Routes whose answers name nothing, to whoever."""


def _echo(path: str) -> str:
    """What is asked for may be in the answer."""
    return path


def _unechoed(path: str, answer: httpx.Response) -> str:
    """An answer without the words of its question, which it may repeat."""
    text = answer.text + repr(answer.headers)
    if path.startswith("/schedules/"):
        # A page says it in its sentence, and offers to search for it.
        word = path.removeprefix("/schedules/").partition("?")[0]
        word = unquote(word.rpartition("/")[0] if word.endswith(DEEDS) else word)
        for said in (f"&#39;{word}&#39;", f"?q={quote_plus(word)}"):
            text = text.replace(said, "")
    if path.startswith("/pending/"):
        place = "/".join(path.removeprefix("/pending/").split("/")[:3])
        text = text.replace(place, "").replace(place.split("/")[0] + "</p>", "</p>")
    if answer.status_code in {400, 403, 404, 409}:
        return re.sub(r"No schedule '[^']*' is known", "", text)
    if path.startswith("/where?q="):
        word = unquote(path.removeprefix("/where?q="))
        for said in (quote_plus(word), word):
            text = text.replace(said, "")
    if path.endswith("/rate"):
        # Whatever is named is a destination, of which nothing is known then.
        return text.replace(f'"destination":"{MARK}-out","items":[]', "")
    return text


def test_a_caller_is_answered_as_if_the_other_request_topic_were_empty(tmp_path: Path) -> None:
    """Lists, totals, counts and pages are the same byte by byte; only shared logs have other offsets."""
    found: list[dict[str, httpx.Response]] = []

    async def question(clients: Clients) -> None:
        found.append(await answers(clients, "mine"))

    for alone in (True, False):
        directory = tmp_path / str(alone)
        directory.mkdir()
        together(neighbours(alone=alone), directory, question)
    without, beside = found
    for path, expected in without.items():
        assert _comparable(beside[path]) == _comparable(expected), path


def _comparable(answer: httpx.Response) -> Any:
    text = re.sub(r'"(offset|position|end|kept_from|revision|version)":\d+', r'"\1":0', answer.text)
    return answer.status_code, text


def test_what_is_not_to_be_seen_is_as_what_is_not_there(tmp_path: Path) -> None:
    """By its id, in whatever way: the same status, the same words, the same headers."""

    async def question(clients: Clients) -> None:
        async with clients("mine") as client:
            for path in (
                "/v1/schedules/{}",
                "/v1/schedules/{}?payload=true",
                f"/v1/schedules/{{}}?request_topic={THEIRS}",
                "/v1/schedules/{}/fires",
                "/v1/schedules/{}/upcoming",
                "/compat/schedules/{}",
                f"/compat/schedules/{{}}?tenant={THEIRS}",
                "/compat/schedules/{}/executions",
                "/schedules/{}",
            ):
                seen = await client.get(path.format(f"{MARK}-1"))
                missing = await client.get(path.format("there-9"))
                assert seen.status_code == missing.status_code == 404, path
                assert seen.text.replace(f"{MARK}-1", "there-9") == missing.text, path
                assert seen.headers == missing.headers, path

    together(neighbours(), tmp_path, question)


def test_an_id_that_two_topics_have_is_not_ambiguous_to_who_sees_one(tmp_path: Path) -> None:
    async def question(clients: Clients) -> None:
        async with clients("all") as client:
            assert (await client.get("/v1/schedules/shared")).status_code == 409
        for name, topic in (("mine", MINE), ("theirs", THEIRS)):
            async with clients(name) as client:
                body = (await client.get("/v1/schedules/shared")).json()
                assert body["request_topic"] == topic

    together(neighbours(), tmp_path, question)


def test_a_glob_sees_what_it_matches(tmp_path: Path) -> None:
    """And a caller whose globs match nothing sees nothing, and is still let in."""

    async def question(clients: Clients) -> None:
        for name, topics in (("all", {MINE, THEIRS}), ("theirs", {THEIRS}), ("nothing", set())):
            async with clients(name) as client:
                for path in ("/v1/schedules", "/v1/pending"):
                    items = (await client.get(path)).json()["items"]
                    assert {one["request_topic"] for one in items} == topics, (name, path)

    together(neighbours(), tmp_path, question)


@pytest.mark.parametrize("few", [4_000, -1])
def test_pages_of_one_topic_are_whole_beside_another(
    few: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever way lists are read, and also where each page looks at few rows."""
    monkeypatch.setattr(catalog, "FEW", few)
    monkeypatch.setattr(catalog, "NARROWED", few)

    async def question(clients: Clients) -> None:
        for path in ("/v1/schedules?sort=next", "/v1/schedules?sort=id", "/v1/pending?"):
            for name, topic in (("mine", MINE), ("theirs", THEIRS)):
                _look_at(monkeypatch, 20_000)
                async with clients("all") as client:
                    everything = (await client.get(f"{path}&limit=500")).json()["items"]
                expected = [one for one in everything if one["request_topic"] == topic]
                assert expected
                for most in (20_000, 1):
                    _look_at(monkeypatch, most)
                    async with clients(name) as client:
                        found = await _pages(client, f"{path}&limit=1")
                    assert [one["source"] for one in found] == [one["source"] for one in expected], path

    together(neighbours(), tmp_path, question)


def _look_at(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(catalog, "LOOKED_AT", most)
    monkeypatch.setattr(pending, "LOOKED_AT", most)


async def _pages(client: httpx.AsyncClient, path: str) -> list[Any]:
    found: list[Any] = []
    cursor = ""
    while True:
        answer = await client.get(f"{path}{cursor}")
        assert answer.status_code == 200, answer.text
        found += answer.json()["items"]
        if answer.json()["next_cursor"] is None:
            return found
        cursor = f"&cursor={answer.json()['next_cursor']}"


def test_a_cursor_is_of_one_caller_and_one_question_and_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "LOOKED_AT", 1)
    monkeypatch.setattr(catalog, "FEW", -1)

    async def question(clients: Clients) -> None:
        async with clients("mine") as mine, clients("all") as everything, clients("theirs") as theirs:
            path = "/v1/schedules?sort=id&status=pending&status=fired&status=paused&limit=1"
            cursors = []
            cursor = ""
            while True:
                told = (await mine.get(f"{path}{cursor}")).json()["next_cursor"]
                if told is None:
                    break
                cursors.append(told)
                cursor = f"&cursor={told}"
            # More places than schedules of its own: among them are others'.
            assert len(cursors) > 2
            for told in cursors:
                plain = urlsafe_b64decode(told + "=" * (-len(told) % 4))
                assert MARK.encode() not in plain
                assert b"one/two" not in plain
                for client, where in ((everything, path), (theirs, path), (mine, f"{path}&tag=shared")):
                    answer = await client.get(f"{where}&cursor={told}")
                    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-cursor")
                changed = ("A" if told[0] != "A" else "B") + told[1:]
                assert (await mine.get(f"{path}&cursor={changed}")).status_code == 400

    together(neighbours(), tmp_path, question)


def test_what_cannot_be_divided_is_for_who_sees_everything(tmp_path: Path) -> None:
    async def question(clients: Clients) -> None:
        for path in ("/v1/partitions", "/metrics"):
            async with clients("all") as client:
                assert (await client.get(path)).status_code == 200
            async with clients("mine") as client:
                answer = await client.get(path)
                assert (answer.status_code, answer.json()["code"]) == (403, "every-topic-needed")
                assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]

    together(neighbours(), tmp_path, question)


def test_values_and_headers_need_a_right_of_their_own(tmp_path: Path) -> None:
    """In a schedule and in a dead letter; keys, and delaystream's own headers, are seen without it."""

    async def question(clients: Clients) -> None:
        path = "/v1/schedules/one%2Ftwo"
        async with clients("mine") as client:
            body = (await client.get(f"{path}?payload=true")).json()
            assert body["payload"]["value"] == "the value"
            assert ["secret", "of a header"] in body["payload"]["headers"]
            (letter,) = (await client.get("/v1/dead-letters")).json()["items"]
            assert (["secret", "of a header"] in letter["headers"], letter["headers_hidden"]) == (True, False)
        async with clients("blind") as client:
            assert (await client.get(path)).json()["key"] == "key"
            refused = await client.get(f"{path}?payload=true")
            assert (refused.status_code, refused.json()["code"]) == (403, "payload-not-allowed")
            (letter,) = (await client.get("/v1/dead-letters")).json()["items"]
            names = {name for name, _ in letter["headers"]}
            assert names >= {"delaystream-destination", "delaystream-error"}
            assert all(name.startswith("delaystream-") for name in names)
            assert letter["headers_hidden"] is True
            for _, probe in probes():
                text = (await client.get(probe)).text
                assert "of a header" not in text, probe
                assert "the value" not in text, probe

    together(neighbours(), tmp_path, question)


# -- streams ---------------------------------------------------------------------------------------


def test_a_stream_has_nothing_of_another_request_topic(tmp_path: Path) -> None:
    """Neither events, nor places by which they could be counted, nor a line when one happens."""
    of = neighbours()

    async def test() -> None:
        through = entrance(of, tmp_path)
        async with console(of, tmp_path) as made, Server(application(made, through)) as client:
            texts: dict[str, str] = {}
            for name in ("all", "mine"):
                client.headers["Authorization"] = f"Bearer {token(name)}"
                events = [
                    told.event for told in made.history.after(0, 0, 1_000)
                    if name == "all" or told.event.request_topic == MINE
                ]  # fmt: skip
                text = ""
                async with client.stream("GET", "/v1/events?after=0.0") as answer:
                    async for line in answer.aiter_lines():
                        text += f"{line}\n"
                        if text.count("\ndata: ") == len(events):
                            break
                texts[name] = text
            assert MARK in texts["all"]
            assert MARK not in texts["mine"]
            assert THEIRS not in texts["mine"]
            ids = re.findall(r"^id: (.*)$", texts["mine"], re.MULTILINE)
            assert len(ids) > 5
            assert not any(re.fullmatch(r"\d+\.\d+", id) for id in ids)
            # It goes on from there, and nobody else does.
            async with client.stream("GET", "/v1/events", headers={"Last-Event-ID": ids[2]}) as answer:
                assert answer.status_code == 200
                rest = ""
                async for line in answer.aiter_lines():
                    rest += f"{line}\n"
                    if rest.count("\ndata: ") == len(ids) - 3:
                        break
            assert _data(rest) == _data(texts["mine"])[2:]
            client.headers["Authorization"] = f"Bearer {token('theirs')}"
            refused = await client.get("/v1/events", headers={"Last-Event-ID": ids[2]})
            assert (refused.status_code, refused.json()["code"]) == (400, "invalid-event-id")

    asyncio.run(asyncio.wait_for(test(), 60))


def _data(text: str) -> list[Any]:
    return [json.loads(one) for one in re.findall(r"^data: (.*)$", text, re.MULTILINE)]


def test_what_others_cause_does_not_wake_a_stream(tmp_path: Path) -> None:
    """A line for each of their events would tell that there are any, and when."""
    of = neighbours()

    async def test() -> None:
        async with console(of, tmp_path) as made:
            nobody = Caller(name="nobody", grants=(Grant("no-such-topic", Role.VIEWER),))
            with made.tail.counted():
                # All that happened is behind it, and the silence is longer than the test.
                waking = asyncio.ensure_future(anext(made.tail.follow({0: 0}, 3_600.0, nobody)))
                done, _ = await asyncio.wait({waking}, timeout=0.3)
                assert not done
                waking.cancel()
                await asyncio.gather(waking, return_exceptions=True)
                # A line after each silence tells nothing.
                step = await anext(made.tail.follow({0: 0}, 0.0, nobody))
                assert step.told == []

    asyncio.run(asyncio.wait_for(test(), 60))


@pytest.mark.parametrize("change", ["revoked", "lowered", "expired"])
def test_a_stream_ends_with_the_rights_it_began_with(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(happening, "_SILENCE_S", 0.05)
    monkeypatch.setattr(tail, "_LOOK_EVERY_S", 0.01)
    of = neighbours()
    file = entry("all", {"*": "admin"}, payload=True, expires="2100-01-01T00:00:00Z")
    through = entrance(of, tmp_path, file)
    assert through.tokens is not None
    tokens = through.tokens

    async def test() -> None:
        async with console(of, tmp_path) as made, Server(application(made, through)) as client:
            client.headers["Authorization"] = f"Bearer {token('all')}"
            async with client.stream("GET", "/v1/events") as answer:
                lines = answer.aiter_lines()
                for _ in range(9):
                    # It goes on while nothing changes.
                    await anext(lines)
                if change == "expired":
                    of.clock.at_ms = 4_200_000_000_000
                else:
                    lowered = entry("all", {MINE: "viewer"}) if change == "lowered" else ""
                    (tmp_path / "tokens.toml").write_text(lowered)
                    tokens.look()
                async for _ in lines:
                    pass

    asyncio.run(asyncio.wait_for(test(), 60))


HIDDEN = "quagga"


async def _held_by_key(engine: Engine) -> None:
    """A customer that is held back: by key, and by key and destination."""
    engine.request(b"x", key=HIDDEN.encode(), id="one/two", destination="orders", delay="1h")
    engine.request(b"x", key=HIDDEN.encode(), destination="orders", delay="1h")
    engine.request(action="pause", match_key=HIDDEN, match_new="true")
    engine.request(action="pause", match_key=HIDDEN, match_destination="orders", match_new="true")
    await asyncio.sleep(5)


def test_keys_that_a_request_topic_hides_are_shown_by_nothing(tmp_path: Path) -> None:
    """To whoever may do anything but see payloads; holds have keys, too."""
    of = told(_held_by_key)
    roles = entry("all", {"*": "admin"}, payload=True) + entry("mine", {"*": "admin"})
    through = entrance(of, tmp_path, roles)
    through.tokens = TokenFile(tmp_path / "tokens.toml", Exceptions(by_default=True))

    async def ask() -> None:
        async with asked(of, tmp_path, through) as clients:
            everything = await answers(clients, "all")
            for path in ("/v1/holds", "/holds", "/"):
                assert HIDDEN in everything[path].text, path
            seen = await answers(clients, "mine")
            assert len(seen["/v1/holds"].json()["items"]) == 2
            for path, answer in seen.items():
                assert HIDDEN not in answer.text.replace(path, ""), path
            assert "Held: a key" in seen["/"].text

    asyncio.run(ask())
