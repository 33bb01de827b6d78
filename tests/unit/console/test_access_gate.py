"""What every request has to pass, whatever it asks: over HTTP, in the process or through a real server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import APIRouter, FastAPI
from fastapi.routing import iter_route_contexts
from prometheus_client.parser import text_string_to_metric_families
from uvicorn.server import ServerState

from delaystream.console.access import connections, gate
from delaystream.console.access.caller import ANYBODY
from delaystream.console.access.connections import BoundedConnection, server_config
from delaystream.console.access.entrance import Entrance, Shown
from delaystream.console.access.gate import PUBLIC
from delaystream.console.access.hosts import Hosts
from delaystream.console.access.limits import Bounds
from delaystream.console.access.proxies import Proxies
from delaystream.console.api.application import application
from delaystream.console.api.asking import CALLERLESS, Asked, CallerOf, require_callers
from tests.unit.console.neighbours import FILE, Clients, asked, entrance, entry, neighbours, token
from tests.unit.console.serving import Told, console

Question = Callable[[Clients], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
def world() -> Told:
    return neighbours(alone=True)


def together(of: Told, directory: Path, question: Question, through: Entrance | None = None) -> None:
    async def ask() -> None:
        async with asked(of, directory, through) as clients:
            await question(clients)

    asyncio.run(ask())


def problem(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = answer.json()
    assert body["status"] == answer.status_code
    assert body["detail"].endswith(".")
    return answer.status_code, body["code"]


# -- who asks --------------------------------------------------------------------------------------


def test_nothing_is_answered_to_who_has_no_token_but_whether_it_lives(world: Told, tmp_path: Path) -> None:
    """Every path: of routes, of files, and those that are not there."""

    async def question(clients: Clients) -> None:
        async with console(world, tmp_path) as made:
            routes = iter_route_contexts(application(made).routes)
            paths = {str(route.path_format or route.path).replace("{id}", "x") for route in routes}
        assert len(paths) > 50
        async with clients(None) as client:
            for path in {
                *paths,
                "/static/console.css",
                "/none",
                "/health/livex",
                "//health/live",
                "/health/live/",
            }:
                for method in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE"):
                    answer = await client.request(method, path)
                    if path in PUBLIC:
                        assert answer.status_code in {200, 405}, (method, path)
                    else:
                        assert answer.status_code == 401, (method, path)
                        assert answer.headers["www-authenticate"] == 'Bearer realm="delaystream"'
            assert (await client.get("/health/ready")).json() == {"ready": True}
            assert (await client.get("/health/live")).json() == {"live": True}

    together(world, tmp_path, question, entrance(world, tmp_path, failures_per_minute=100_000))


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        ("Basic b3BzOm9wcw==", "unauthenticated"),
        ("Bearer", "invalid-token"),
        ("Bearer ", "invalid-token"),
        ("Bearer x", "invalid-token"),
        (f"Bearer {token('none')}", "invalid-token"),
        (f"Bearer {token('all')}x", "invalid-token"),
        (f"Bearer {token('all')} {token('all')}", "invalid-token"),
        (token("all"), "unauthenticated"),
        (f"Bearer {token('late')}", "expired-token"),
        ("Bearer \xff\xfe", "invalid-token"),
        ("", "unauthenticated"),
    ],
)
def test_what_is_no_good_is_401_with_a_challenge(
    authorization: str, code: str, world: Told, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def question(clients: Clients) -> None:
        async with clients(None) as client:
            answer = await client.get(
                "/v1/stats", headers={b"Authorization": authorization.encode("latin-1")}
            )
            assert problem(answer) == (401, code)
            challenge = answer.headers["www-authenticate"]
            assert challenge.startswith('Bearer realm="delaystream"')
            assert ('error="invalid_token"' in challenge) is (code != "unauthenticated")
            assert token("late") not in answer.text

    together(world, tmp_path, question)
    # What was shown is in no log.
    said = [record.getMessage() for record in caplog.records if record.name.startswith("delaystream.")]
    assert said == [f"127.0.0.1 was refused: {code}"]


def test_behind_a_believed_proxy_the_caller_has_its_own_address(
    world: Told, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log, for the rate of failures, and in the audit log; without one it is the peer's."""
    through = entrance(world, tmp_path, failures_per_minute=1)

    async def question(clients: Clients) -> None:
        async def failed(address: str) -> int:
            async with clients(None) as client:
                headers = {"X-Forwarded-For": f"198.51.100.9, {address}"}
                return (await client.delete("/v1/schedules/x", headers=headers)).status_code

        through.proxies = Proxies(["127.0.0.0/8"])
        assert [await failed(address) for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2")] == [
            401,
            429,
            401,
        ]
        through.proxies = Proxies()
        assert [await failed(address) for address in ("192.0.2.3", "192.0.2.4")] == [401, 429]
        async with clients("all") as client:
            rows = (await client.get("/v1/audit")).json()["items"]
        found = [row["address"] for row in rows if row["action"].startswith("DELETE")]
        assert found == ["127.0.0.1", "127.0.0.1", "192.0.2.2", "192.0.2.1", "192.0.2.1"]

    together(world, tmp_path, question, through)
    said = [text for text in caplog.messages if "was refused" in text]
    assert said == [
        f"{address} was refused: unauthenticated" for address in ("192.0.2.1", "192.0.2.2", "127.0.0.1")
    ]


def test_a_token_is_let_in_in_any_case_of_its_scheme_and_only_once(world: Told, tmp_path: Path) -> None:
    async def question(clients: Clients) -> None:
        async with clients(None) as client:
            for scheme in ("Bearer", "bearer", "BEARER"):
                headers = {"Authorization": f"{scheme} {token('all')}"}
                assert (await client.get("/v1/stats", headers=headers)).status_code == 200
            twice = [("Authorization", f"Bearer {token('all')}")] * 2
            assert problem(await client.get("/v1/stats", headers=twice)) == (401, "unauthenticated")
            # It goes into no log and no history as a part of an address.
            assert (await client.get(f"/v1/stats?access_token={token('all')}")).status_code == 401

    together(world, tmp_path, question)


def test_the_file_of_tokens_is_in_force_as_it_is_now(world: Told, tmp_path: Path) -> None:
    """And what is wrong with it is told by health and metrics."""
    through = entrance(world, tmp_path)
    file = tmp_path / "tokens.toml"

    async def question(clients: Clients) -> None:
        async with clients("all") as everything, clients("new") as new:
            assert (await new.get("/v1/stats")).status_code == 401
            assert (await everything.get("/v1/health")).json()["problems"] == []
            assert through.tokens is not None
            file.write_text(FILE + entry("new", {"*": "viewer"}))
            through.tokens.look()
            assert (await new.get("/v1/stats")).status_code == 200
            file.write_text("[[tokens")
            through.tokens.look()
            assert (await new.get("/v1/stats")).status_code == 200
            body = (await everything.get("/v1/health")).json()
            assert body["authentication"] == "tokens"
            assert "the file of tokens is rejected" in body["problems"][0]
            text = (await everything.get("/metrics")).text
            samples = {
                (sample.name, sample.labels.get("code")): sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            }
            assert samples["delaystream_console_tokens", None] == 7
            assert samples["delaystream_console_tokens_file_taken", None] == 0
            assert samples["delaystream_console_refused_total", "invalid-token"] == 1

    together(world, tmp_path, question, through)


def test_the_description_says_how_to_log_in(world: Told, tmp_path: Path) -> None:
    async def question(clients: Clients) -> None:
        async with clients("all") as client:
            described = (await client.get("/v1/openapi.json")).json()
        assert described["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
        for methods in described["paths"].values():
            for operation in methods.values():
                assert {"token": []} in operation["security"]

    together(world, tmp_path, question)


# -- how much --------------------------------------------------------------------------------------


def test_who_asks_too_often_waits_and_nobody_else(world: Told, tmp_path: Path) -> None:
    through = entrance(world, tmp_path, requests_per_second=2)

    async def question(clients: Clients) -> None:
        async with clients("all") as everything, clients("mine") as mine:
            statuses = [(await everything.get("/v1/stats")).status_code for _ in range(5)]
            assert statuses == [200] * 4 + [429]
            answer = await everything.get("/v1/stats")
            assert problem(answer) == (429, "too-many-requests")
            assert int(answer.headers["retry-after"]) == 1
            assert (await mine.get("/v1/stats")).status_code == 200
            assert (await everything.get("/health/live")).status_code == 200
            assert through.refused["too-many-requests"] == 2

    together(world, tmp_path, question, through)


def test_whoever_guesses_waits_and_who_has_a_token_does_not(world: Told, tmp_path: Path) -> None:
    """They may have one address: that of a proxy."""
    through = entrance(world, tmp_path, failures_per_minute=3)

    async def question(clients: Clients) -> None:
        async with clients("none") as guesses, clients("all") as everything:
            codes = [problem(await guesses.get("/v1/stats")) for _ in range(5)]
            assert codes == [(401, "invalid-token")] * 3 + [(429, "too-many-failures")] * 2
            assert int((await guesses.get("/v1/stats")).headers["retry-after"]) == 20
            assert (await everything.get("/v1/stats")).status_code == 200

    together(world, tmp_path, question, through)


def test_what_is_asked_is_bounded_in_size(world: Told, tmp_path: Path) -> None:
    through = entrance(world, tmp_path, url_bytes=2_000, header_bytes=2_000, body_bytes=2_000)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b" " * 1_000

    async def question(clients: Clients) -> None:
        async with clients("all") as client:
            assert problem(await client.get(f"/v1/where?q={'x' * 2_000}")) == (414, "url-too-long")
            assert problem(await client.get(f"/v1/schedules/{'x' * 2_000}")) == (414, "url-too-long")
            big = await client.get("/v1/stats", headers={"X": "x" * 2_000})
            assert problem(big) == (431, "headers-too-large")
            many = await client.get("/v1/stats", headers=[("X", "x" * 10)] * 200)
            assert problem(many) == (431, "headers-too-large")
            for body in (b" " * 2_001, chunks()):
                answer = await client.post(
                    "/v1/preview", content=body, headers={"Content-Type": "application/json"}
                )
                assert problem(answer) == (413, "body-too-large")
            headers = {"Content-Type": "application/json", "Content-Length": "9" * 5_000}
            assert (await client.post("/v1/preview", content=b"", headers=headers)).status_code in {413, 431}
            fits = await client.post("/v1/preview", json={"every": "1h"})
            assert fits.status_code == 200
            assert through.refused["body-too-large"] == 2
        # Nobody has to say who they are to be refused for that.
        async with clients(None) as client:
            assert problem(await client.get(f"/v1/where?q={'x' * 2_000}")) == (414, "url-too-long")

    together(world, tmp_path, question, through)


def test_a_body_that_does_not_come_is_not_waited_for(
    world: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "BODY_S", 0.05)

    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async def question(clients: Clients) -> None:
        async with clients("all") as client:
            answer = await client.post(
                "/v1/preview", content=never(), headers={"Content-Type": "application/json"}
            )
            assert problem(answer) == (408, "body-too-slow")

    together(world, tmp_path, question)


def test_streams_of_one_caller_are_bounded(world: Told, tmp_path: Path) -> None:
    through = entrance(world, tmp_path, streams=1)

    async def question(clients: Clients) -> None:
        with through.limits.stream("mine"):
            async with clients("mine") as client:
                answer = await client.get("/v1/events")
                assert problem(answer) == (429, "too-many-streams")
                assert "mine has 1 streams open" in answer.text
                assert int(answer.headers["retry-after"]) > 0

    together(world, tmp_path, question, through)


# -- under which name, and from where --------------------------------------------------------------


def on_loopback(of: Told, *names: str) -> Entrance:
    return Entrance(of.clock.now_ms, hosts=Hosts(names))


def test_a_page_of_another_site_asks_in_vain(world: Told, tmp_path: Path) -> None:
    """Its name resolves to this machine now (DNS rebinding): so it is not asked without a token, either."""

    async def question(clients: Clients) -> None:
        async with clients(None) as client:
            for host, status in (
                ("localhost:8643", 200),
                ("127.0.0.1", 200),
                ("evil.example:8643", 421),
                ("", 421),
            ):
                answer = await client.get("/v1/stats", headers={"Host": host})
                assert answer.status_code == status, host
            evil = await client.get("/v1/stats", headers={"Host": "evil.example"})
            assert problem(evil) == (421, "unknown-host")
            assert "console_allowed_hosts" in evil.text
            assert (await client.get("/v1/stats", headers={"Host": "console.example"})).status_code == 200
            # What restarts it asks by an address of its own.
            assert (await client.get("/health/live", headers={"Host": "10.0.0.7:8643"})).status_code == 200

    together(world, tmp_path, question, on_loopback(world, "console.example"))


def test_a_form_of_another_site_is_sent_in_vain(world: Told, tmp_path: Path) -> None:
    async def question(clients: Clients) -> None:
        async with clients(None) as client:
            for headers, status in (
                ({}, 200),
                ({"Origin": "http://localhost:8643"}, 200),
                ({"Origin": "http://localhost:8643", "Sec-Fetch-Site": "same-origin"}, 200),
                ({"Sec-Fetch-Site": "none"}, 200),
                ({"Origin": "http://evil.example"}, 403),
                ({"Origin": "http://localhost:3000"}, 403),
                ({"Origin": "null"}, 403),
                ({"Sec-Fetch-Site": "cross-site"}, 403),
                ({"Sec-Fetch-Site": "same-site"}, 403),
            ):
                answer = await client.post(
                    "/v1/preview", json={"every": "1h"}, headers={"Host": "localhost:8643", **headers}
                )
                assert answer.status_code == status, headers
                assert "access-control-allow-origin" not in answer.headers
            assert problem(answer) == (403, "cross-site")
            preflight = await client.options(
                "/v1/preview",
                headers={
                    "Host": "localhost",
                    "Origin": "http://evil.example",
                    "Access-Control-Request-Method": "POST",
                },
            )
            assert preflight.status_code == 405
            assert not [name for name in preflight.headers if name.startswith("access-control")]

    together(world, tmp_path, question, on_loopback(world))


def test_a_web_socket_is_not_opened(world: Told, tmp_path: Path) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def question() -> None:
        async with console(world, tmp_path) as made:
            app = application(made, entrance(world, tmp_path))
            await app({"type": "websocket", "path": "/v1/events", "headers": []}, receive, send)

    asyncio.run(question())
    assert sent == [{"type": "websocket.close", "code": 1008}]


# -- routes that know who asks ---------------------------------------------------------------------


def test_a_route_that_does_not_know_who_asks_cannot_be_served() -> None:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    router = APIRouter()

    @router.get("/knows")
    async def knows(console: Asked) -> None: ...

    @router.get("/knows-too")
    async def knows_too(caller: CallerOf) -> None: ...

    app.include_router(router, prefix="/v1")
    require_callers(app)

    @router.get("/forgets")
    async def forgets() -> None: ...

    with pytest.raises(RuntimeError, match="/v1/forgets does not know who asks"):
        require_callers(app)


def test_what_needs_no_caller_is_there(world: Told, tmp_path: Path) -> None:
    """A path that is not served any more leaves the list."""

    async def listed() -> set[str]:
        async with console(world, tmp_path) as made:
            return {str(route.path) for route in iter_route_contexts(application(made).routes)}

    assert asyncio.run(listed()) >= CALLERLESS >= PUBLIC


def test_without_tokens_anybody_sees_everything(world: Told) -> None:
    through = Entrance(world.clock.now_ms)
    assert asyncio.run(through.enter(Shown("10.0.0.1"))) is ANYBODY
    assert asyncio.run(through.enter(Shown("10.0.0.1", ["Bearer x"]))) is ANYBODY
    assert asyncio.run(through.stands(ANYBODY))
    assert through.authentication == "none"


# -- connections -----------------------------------------------------------------------------------


@asynccontextmanager
async def listening(of: Told, directory: Path, **bounds: int) -> AsyncIterator[int]:
    """The port of a real server with the configuration of a console."""
    async with console(of, directory) as made:
        limits = Bounds(**bounds)
        through = Entrance(of.clock.now_ms, bounds=limits)
        server = uvicorn.Server(
            server_config(application(made, through), limits.url_bytes, limits.header_bytes)
        )
        taken = socket.create_server(("127.0.0.1", 0))
        serving = asyncio.create_task(server._serve(sockets=[taken]))
        yield taken.getsockname()[1]
        server.should_exit = True
        await asyncio.wait_for(serving, 30)


async def everything_after(port: int, *parts: bytes) -> bytes:
    """What a server sends until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


GET = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"


def test_a_head_that_does_not_end_is_cut_off(
    world: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing at all, a part of one, and a part of the second one on a connection."""
    monkeypatch.setattr(connections, "HEAD_S", 0.1)

    async def test() -> None:
        async with listening(world, tmp_path) as port:
            assert await everything_after(port) == b""
            assert await everything_after(port, GET) == b""
            answer = await everything_after(port, GET + b"\r\n", GET)
            assert answer.count(b"HTTP/1.1 200") == 1
            # Whoever ends it in time is answered.
            whole = await everything_after(port, GET, b"Connection: close\r\n\r\n")
            assert whole.startswith(b"HTTP/1.1 200")

    asyncio.run(asyncio.wait_for(test(), 60))


class Timer:
    """One that goes off when the test says so."""

    def __init__(self, seconds: float, callback: Callable[[], None]) -> None:
        self.seconds = seconds
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Timers:
    """A loop that only takes timers."""

    def __init__(self) -> None:
        self.set: list[Timer] = []

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        self.set.append(Timer(seconds, callback))
        return self.set[-1]


class Line(asyncio.Transport):
    """A connection that only tells whether it was cut off."""

    aborted = False

    def abort(self) -> None:
        self.aborted = True


def test_a_byte_now_and_then_does_not_keep_a_connection() -> None:
    """The time for a head begins with the connection, and none of its bytes begins it again."""
    config = server_config(lambda: None, 1_024, 1_024)
    config.load()
    timers, line = Timers(), Line()
    connection = BoundedConnection(config, ServerState(), {}, timers)  # type: ignore[arg-type]
    connection.connection_made(line)
    for byte in GET:
        connection.data_received(bytes([byte]))
    (only,) = timers.set
    assert (only.seconds, only.cancelled) == (connections.HEAD_S, False)
    only.callback()
    assert line.aborted


def test_a_head_is_bounded_before_it_is_whole(world: Told, tmp_path: Path) -> None:
    async def test() -> None:
        async with listening(world, tmp_path, url_bytes=1_024, header_bytes=1_024) as port:
            answer = await everything_after(port, GET + b"X: " + b"x" * 100_000)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
            told = await everything_after(port, GET + b"X: " + b"x" * 2_000 + b"\r\n\r\n")
            assert told.startswith(b"HTTP/1.1 431")

    asyncio.run(asyncio.wait_for(test(), 60))


def test_connections_are_bounded(world: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST", 3)

    async def test() -> None:
        async with listening(world, tmp_path) as port:
            opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            for reader, writer in opened:
                writer.write(GET + b"\r\n")
                assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
            assert await everything_after(port, GET + b"Connection: close\r\n\r\n") == b""
            for _, writer in opened:
                writer.close()

    asyncio.run(asyncio.wait_for(test(), 60))


def test_who_is_refused_does_not_keep_the_connection_by_a_body(world: Told, tmp_path: Path) -> None:
    """Bytes of a body that nobody reads would be taken for ever."""

    async def test() -> None:
        async with listening(world, tmp_path, url_bytes=1_024) as port:
            head = (
                b"POST /" + b"x" * 1_100 + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999\r\n\r\n"
            )
            answer = await everything_after(port, head, b"x" * 10)
            assert answer.startswith(b"HTTP/1.1 414")
            assert b"connection: close" in answer.lower()

    asyncio.run(asyncio.wait_for(test(), 60))
