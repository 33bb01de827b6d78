"""Whatever is sent: no answer is a failure of the server, and none is undocumented (schemathesis)."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings

from tests.examples import examples
from tests.unit.console.test_api_schema import CHECKS
from tests.unit.console.writable import world

READS = {"/v1/preview"}


@pytest.fixture(scope="module")
def interface(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The description of an interface that writes to a worker in memory, in a thread of its own."""
    listening = socket.create_server(("127.0.0.1", 0))
    begun = threading.Event()
    servers: list[uvicorn.Server] = []

    async def serve() -> None:
        async with world(tmp_path_factory.mktemp("console")) as made:
            config = uvicorn.Config(made.app, log_config=None, access_log=False, lifespan="off")
            servers.append(uvicorn.Server(config))
            begun.set()
            await servers[0]._serve(sockets=[listening])

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert begun.wait(60)
    yield schemathesis.openapi.from_url(f"http://127.0.0.1:{listening.getsockname()[1]}/v1/openapi.json")
    servers[0].should_exit = True
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.timeout(240)
def test_every_answer_to_a_write_is_as_it_is_described(interface: Any) -> None:
    asked: list[str] = []
    statuses: set[int] = set()
    for found in interface.get_all_operations():
        operation = found.ok()
        if (
            operation.method.upper() == "GET" and "requests" not in operation.path
        ) or operation.path in READS:
            continue
        asked.append(operation.path)

        @settings(examples(12), suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.as_strategy())
        def described(case: Any) -> None:
            statuses.add(case.call_and_validate(checks=CHECKS).status_code)

        described()
    assert len(asked) > 20
    assert {400, 404} <= statuses
