"""Both clients behind one face, so that one suite holds them to one contract."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from delaystream.client import AsyncClient, Client
from tests.integration.harness import Deployment

Side: TypeAlias = Any
"""A client whose verbs block, whichever it is."""
Make: TypeAlias = Callable[..., Side]
SIDES = ("blocking", "async")


class Awaited:
    """An asynchronous client, or what it returned: each call runs the event loop until it is done."""

    def __init__(self, of: Any, runner: asyncio.Runner) -> None:
        self._of = of
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._of, name)
        return self._blocking(found) if callable(found) else found

    def __enter__(self) -> Awaited:
        return Awaited(self._run(self._of.__aenter__()), self._runner)

    def __exit__(self, *exception: object) -> None:
        self._run(self._of.__aexit__(*exception))

    def _blocking(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            return self._seen(self._run(call(*arguments, **named)))

        return called

    def _run(self, result: Any) -> Any:
        if not inspect.iscoroutine(result):
            return result
        return self._runner.run(result)

    def _seen(self, result: Any) -> Any:
        kinds = {"AsyncBatch", "AsyncPending", "Handle"}
        return Awaited(result, self._runner) if type(result).__name__ in kinds else result


@contextmanager
def sides(kind: str) -> Iterator[Make]:
    """Make clients of a kind, closed at the end: `make(bootstrap, request_topic=…, reply_to=…)`."""
    made: list[Side] = []
    if kind == "blocking":

        def blocking(kafka: str, **named: Any) -> Side:
            made.append(Client(kafka, **named))
            return made[-1]

        try:
            yield blocking
        finally:
            for client in made:
                client.close()
        return
    with asyncio.Runner() as runner:

        async def open_(kafka: str, named: dict[str, Any]) -> AsyncClient:
            return AsyncClient(kafka, **named)

        def asynchronous(kafka: str, **named: Any) -> Side:
            made.append(Awaited(runner.run(open_(kafka, named)), runner))
            return made[-1]

        try:
            yield asynchronous
        finally:
            for client in made:
                client.close()


def client_of(make: Make, app: Deployment, **named: Any) -> Side:
    """A client of an application."""
    settings = {"request_topic": app.requests, "reply_to": app.receipts, **named}
    return make(app.kafka.bootstrap, **settings)
