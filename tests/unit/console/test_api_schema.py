"""Whatever is asked: no answer is a failure of the server, and none is undocumented (schemathesis)."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from delaystream.console.api.application import application
from tests.examples import examples
from tests.unit.console.neighbours import entrance, token
from tests.unit.console.serving import console, told
from tests.unit.console.test_api_overview import WORLD, much

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
"""What every answer is held to. No schema says what a time, a cursor or a cron expression is: some of what
the schemas let through is refused, and that is described, too."""


class Interface(msgspec.Struct):
    """An interface that is served, and who asks it."""

    #: its description
    described: Any
    #: what each request has
    headers: dict[str, str]
    #: how many examples are drawn of each operation
    examples: int


@pytest.fixture(scope="module", params=["open", "token", "stranger"])
def interface(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Interface]:
    """One in a thread of its own: that asks nobody, and that asks for a token, which is shown or not."""
    directory = tmp_path_factory.mktemp("console")
    listening = socket.create_server(("127.0.0.1", 0))
    of = told(much, **WORLD)
    begun = threading.Event()
    servers: list[uvicorn.Server] = []

    async def serve() -> None:
        through = None if request.param == "open" else entrance(of, directory, failures_per_minute=1_000_000)
        async with console(of, directory) as made:
            config = uvicorn.Config(
                application(made, through), log_config=None, access_log=False, lifespan="off"
            )
            servers.append(uvicorn.Server(config))
            begun.set()
            await servers[0]._serve(sockets=[listening])

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert begun.wait(60)
    shown = {"Authorization": f"Bearer {token('mine')}"}
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1/openapi.json"
    yield Interface(
        schemathesis.openapi.from_url(url, headers=shown),
        shown if request.param == "token" else {},
        40 if request.param == "open" else 10,
    )
    servers[0].should_exit = True
    thread.join(60)
    assert not thread.is_alive()


def test_every_answer_is_as_it_is_described(interface: Interface) -> None:
    asked = []
    for found in interface.described.get_all_operations():
        operation = found.ok()
        if operation.path == "/v1/events":
            # A stream has no end; its own tests read it.
            continue
        asked.append(operation.path)

        @settings(examples(interface.examples), suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.as_strategy())
        def described(case: Any) -> None:
            case.call_and_validate(checks=CHECKS, headers=interface.headers)

        described()
    assert len(asked) > 20
