"""A console served over HTTP on loopback, in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from delaystream.adapters.operate.http import bound
from delaystream.console.api.application import application
from delaystream.console.pages.appearance import Appearance
from tests.unit.console.serving import Told, console


@dataclass(frozen=True)
class Served:
    """A console that answers."""

    url: str
    of: Told
    loop: asyncio.AbstractEventLoop

    def do(self, what: Callable[[], object]) -> None:
        """Have something done in the console's event loop, for instance to the log that it follows."""
        self.loop.call_soon_threadsafe(what)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def served(story: Callable[[], Told], directory: Path, appearance: Appearance) -> Iterator[Served]:
    """A console over what a story tells.

    It happens in the thread of the console: the browser's client has an event loop in the thread of the test.
    """
    listening = bound("127.0.0.1", 0, listens=True)
    started, stopping = threading.Event(), threading.Event()
    failures: list[BaseException] = []
    made_of: list[tuple[Told, asyncio.AbstractEventLoop]] = []

    async def serve(of: Told) -> None:
        made_of.append((of, asyncio.get_running_loop()))
        async with console(of, directory, writes=True) as made:
            config = uvicorn.Config(
                application(made, appearance=appearance),
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=1,
            )
            server = _Server(config)
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            started.set()
            await asyncio.to_thread(stopping.wait)
            made.tail.close()
            server.should_exit = True
            await serving

    def run() -> None:
        try:
            asyncio.run(serve(story()))
        except BaseException as failure:  # noqa: BLE001  # told to the test
            failures.append(failure)
        finally:
            started.set()

    thread = threading.Thread(target=run, name="console", daemon=True)
    thread.start()
    assert started.wait(60)
    try:
        assert not failures, failures
        yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}", *made_of[0])
    finally:
        stopping.set()
        thread.join(30)
        listening.close()
    assert not failures, failures
