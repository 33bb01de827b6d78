"""Who asks the console: ``python -m tests.benchmarks.console.asking SPEC`` with a JSON object.

``by_turns`` asks one question after the other, of several consoles by turns, and tells how long each answer
took, ms. ``traffic`` asks at an even rate, whatever the answers take, beside open streams of events.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

_CONNECTIONS: Final = 16
#: A connection that was idle for longer is made anew: a server closes it after five seconds.
_IDLE_S: Final = 2.0
_SEED: Final = 14

Target = Mapping[str, Any]
"""`url`, `token` (or nothing), and `questions`: paths by kind."""


def by_turns(targets: Mapping[str, Target], rounds: int, tour: int = 0) -> dict[str, Any]:
    """Times by target and kind, ms; each round asks every question kind of every target once.

    With a `tour` the kind `next page` asks for so many pages of the list, one behind the other.
    """
    dice = random.Random(_SEED)
    asked: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in targets}
    open_ = {name: _Asker(target) for name, target in targets.items()}
    for number in range(rounds):
        for kind in next(iter(targets.values()))["questions"]:
            for name, target in targets.items():
                path = dice.choice(target["questions"][kind])
                took_ms, _ = open_[name].get(path)
                # The first answers are made by code that has never run.
                if number:
                    asked[name][kind].append(took_ms)
    for name in targets:
        if tour:
            asked[name]["next page"] = open_[name].tour(tour)
    return {name: dict(kinds) for name, kinds in asked.items()}


class _Asker:
    """One connection to one console."""

    def __init__(self, target: Target) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(target["url"]).netloc, timeout=120)
        token = target.get("token")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._last_s = 0.0

    def get(self, path: str) -> tuple[float, bytes]:
        """How long the answer took, ms, and the answer. RuntimeError for another status than 200."""
        if time.monotonic() - self._last_s > _IDLE_S:
            self._connection.close()
            self._connection.connect()
        began = time.perf_counter()
        self._connection.request("GET", path, headers=self._headers)
        answer = self._connection.getresponse()
        body = answer.read()
        took_ms = (time.perf_counter() - began) * 1000
        self._last_s = time.monotonic()
        if answer.status != 200:
            raise RuntimeError(f"{path} was answered with {answer.status}: {body[:300]!r}")
        return took_ms, body

    def tour(self, pages: int) -> list[float]:
        """Page by page through the list of schedules; how long each took, ms."""
        took, cursor = [], None
        for _ in range(pages):
            more = f"?{urlencode({'cursor': cursor})}" if cursor else ""
            took_ms, body = self.get(f"/v1/schedules{more}")
            took.append(took_ms)
            cursor = json.loads(body)["next_cursor"]
            if cursor is None:
                break
        return took


def traffic(
    url: str, seconds: float, rates: Mapping[str, Sequence[Any]], streams: list[str]
) -> dict[str, Any]:
    """Ask at even rates for so long: by kind how many a second, and the paths. Beside it streams are read.

    Tells by kind the times from when each was to be asked, ms, and what the streams brought.
    """
    return asyncio.run(_Traffic(url, seconds).run(rates, streams))


class _Traffic:
    def __init__(self, url: str, seconds: float) -> None:
        self._at = urlsplit(url)
        self._seconds = seconds
        self._asked: dict[str, list[float]] = defaultdict(list)
        self._wrong: Counter[str] = Counter()
        self._streamed: Counter[str] = Counter()

    async def run(self, rates: Mapping[str, Sequence[Any]], streams: list[str]) -> dict[str, Any]:
        streaming = [asyncio.create_task(self._stream(path)) for path in streams]
        await asyncio.sleep(1)
        questions: asyncio.Queue[tuple[str, str, float]] = asyncio.Queue()
        asking = [asyncio.create_task(self._ask(questions)) for _ in range(_CONNECTIONS)]
        start = time.perf_counter()
        await asyncio.gather(*[self._pace(kind, of, start, questions) for kind, of in rates.items()])
        took = time.perf_counter() - start
        await asyncio.sleep(0.5)
        left = questions.qsize()
        for task in (*streaming, *asking):
            task.cancel()
        await asyncio.gather(*streaming, *asking, return_exceptions=True)
        return {
            "milliseconds": dict(self._asked),
            "seconds": took,
            "unanswered": left,
            "wrong": dict(self._wrong),
            "streams": dict(self._streamed),
        }

    async def _pace(
        self, kind: str, of: Sequence[Any], start: float, questions: asyncio.Queue[tuple[str, str, float]]
    ) -> None:
        rate, paths = of
        dice = random.Random(_SEED)
        for number in range(int(rate * self._seconds)):
            due = start + number / rate
            if (ahead := due - time.perf_counter()) > 0:
                await asyncio.sleep(ahead)
            questions.put_nowait((kind, dice.choice(paths), due))

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self._at.hostname, self._at.port, limit=1 << 22)

    async def _ask(self, questions: asyncio.Queue[tuple[str, str, float]]) -> None:
        reader, writer = await self._connect()
        while True:
            kind, path, due = await questions.get()
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {self._at.netloc}\r\n\r\n".encode())
            status, length = await _head(reader)
            await reader.readexactly(length)
            if status != 200:
                self._wrong[f"{kind} {status}"] += 1
            self._asked[kind].append((time.perf_counter() - due) * 1000)

    async def _stream(self, path: str) -> None:
        reader, writer = await self._connect()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {self._at.netloc}\r\n\r\n".encode())
        status, _ = await _head(reader)
        self._streamed["open"] += status == 200
        while some := await reader.read(1 << 16):
            self._streamed["bytes"] += len(some)
            self._streamed["events"] += some.count(b"\nevent: ")


async def _head(reader: asyncio.StreamReader) -> tuple[int, int]:
    """Status of an answer, and the length of its body; 0 where it has no end that is known."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status, length = int(lines[0].split()[1]), 0
    for line in lines[1:]:
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            length = int(value)
    return status, length


def main() -> None:
    """Carry out what the first argument describes."""
    spec = json.loads(sys.argv[1])
    spec.pop("bootstrap", None)
    shapes: dict[str, Callable[..., dict[str, Any]]] = {"by_turns": by_turns, "traffic": traffic}
    print(json.dumps(shapes[spec.pop("shape")](**spec)), flush=True)


if __name__ == "__main__":
    main()
