"""A real broker, a worker and a console as processes, for a browser to act on."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from tests.integration.harness import Deployment, wait
from tests.integration.harness_console import ConsoleProcess, ask
from tests.integration.harness_kafka import Delivery, Kafka


class _Clock:
    """The time of this machine."""

    def now_ms(self) -> int:
        return round(time.time() * 1000)


@dataclass(frozen=True)
class _Of:
    clock: _Clock


@dataclass(frozen=True)
class Acted:
    """A console that acts on a broker."""

    url: str
    app: Deployment
    of: _Of = _Of(_Clock())

    def make(self, id: str, **body: Any) -> None:
        """A schedule, and until the console shows it."""
        request = urllib.request.Request(
            f"{self.url}/v1/schedules/{quote(id, safe='')}?{urlencode({'request_topic': self.app.requests})}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "Prefer": "wait=60"},
            method="PUT",
        )
        with urllib.request.urlopen(request, timeout=90) as answer:
            assert answer.status == 201, answer.read()

    def read(self, id: str) -> Mapping[str, Any]:
        """A schedule."""
        found = ask(f"{self.url}/v1/schedules/{quote(id, safe='')}", payload="true")
        assert found is not None, id
        return found  # type: ignore[no-any-return]

    def send(self, key: bytes, value: bytes, **control: str) -> str:
        """A request as a producer sends it, and until the console shows it; its coordinates."""
        partition, offset = self.app.request(value, control, key=key)
        source = f"{self.app.requests}/{partition}/{offset}"
        wait(lambda: "pending" in self.states(source), "the request on the console")
        return source

    def refused(self, key: bytes, value: bytes, **control: str) -> str:
        """A request that a worker refuses, and until the console shows its letter; the letter's place."""
        partition, offset = self.app.request(value, control, key=key)
        source = f"{self.app.requests}/{partition}/{offset}"

        def places() -> list[str]:
            found = ask(f"{self.url}/v1/dead-letters", standing="all") or {"items": []}
            return [one["place"] for one in found["items"] if one["source"] == source]

        wait(lambda: bool(places()), "the letter on the console")
        return places()[0]

    def states(self, word: str) -> set[str]:
        """What the search says of a word."""
        found = ask(f"{self.url}/v1/where", q=word) or {"items": []}
        return {one["state"] for one in found["items"]}

    def delivered(self, topic: str, count: int) -> list[Delivery]:
        """The first deliveries on a topic."""
        return self.app.kafka.read(topic, count)

    def commands(self, **wanted: str) -> list[Delivery]:
        """Requests on the request topic whose control headers say so."""
        with self.app.reader(self.app.requests) as reader:
            found: list[Delivery] = []
            # A broker may be slow to answer: nothing says nothing before the end was seen.
            while not reader.at_end:
                found += reader.poll(1.0)
        named = [(f"delaystream-{name}", text.encode()) for name, text in wanted.items()]
        return [one for one in found if all(pair in one.headers for pair in named)]


@contextmanager
def acted(kafka: str, directory: Path) -> Iterator[Acted]:
    """An application with a worker and a console, on a broker."""
    with Deployment(Kafka(kafka), directory, partitions=2) as app:
        worker = app.apply_topics().worker()
        console = ConsoleProcess(app, directory / "console")
        worker.wait_ready()
        url = console.wait_ready()
        try:
            yield Acted(url, app)
        finally:
            assert console.terminate() == 0, console.output
