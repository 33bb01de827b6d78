"""The scenario: a large application and a small one, a console for each, and what is asked of them."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from delaystream.console.access.tokens import digest_of
from tests.benchmarks.bench import Bench, Row, Sampler, percentiles
from tests.benchmarks.console import vocabulary
from tests.benchmarks.console.questions import Named, questions
from tests.integration.harness import Deployment, Worker, wait
from tests.integration.harness_console import ConsoleProcess, ask

PARTITIONS: Final = 4
_DAY_MS: Final = 86_400_000
_NAMED, _UNNAMED, _FEW = 1_000_000, 10_000_000, 10_000
_UNNAMED_RECORDS, _NAMED_RECORDS, _EVENTS = 500_000, 100_000, 1_500_000
_HISTORY_EVENTS: Final = 200_000
_ROUNDS: Final = 300
_SEARCHES: Final = 40
_TOUR: Final = 100
#: Of the engine beside a console: turns, and seconds of each.
_TURNS, _WARM_S, _TURN_S, _LEAST_S = 3, 8, 30, 10
_RATE: Final = 2_000
_TOKEN: Final = f"delaystream_{'b' * 43}"
#: A client that asks as fast as it can is one caller, and above what one may.
_UNBOUNDED: Final = {"DELAYSTREAM_CONSOLE_REQUESTS_PER_SECOND": "1000000"}


@dataclass(frozen=True)
class Application:
    """One application with what is pending there."""

    app: Deployment
    destinations: str
    #: numbers of named schedules and of events without an id
    named: int
    unnamed: int
    #: when the first of all is due
    due_ms: int

    @property
    def questions(self) -> dict[str, dict[str, list[str]]]:
        """Paths by room and kind."""
        ends = self.app.kafka.end_offsets(self.app.requests)
        coordinates = [
            f"{self.app.requests}/{partition}/{end * part // 40}"
            for partition, end in enumerate(ends)
            for part in range(1, 39)
        ]
        return questions(Named(self.destinations, self.named, self.due_ms, coordinates))


def console(bench: Bench) -> Iterator[Row]:
    """1M named schedules and 10M events without an id: following, asking, and the engine beside it."""
    with ExitStack() as stack:
        large = _application(bench, stack, bench.count(_NAMED), bench.count(_UNNAMED))
        small = _application(bench, stack, min(_FEW, large.named), _FEW)
        history = {"DELAYSTREAM_CONSOLE_HISTORY_EVENTS": str(bench.count(_HISTORY_EVENTS))}
        served = stack.enter_context(_console(large.app, **history))
        with Sampler(served) as whole:
            yield from _made(bench, large, served)
            yield from _followed(bench, large, served)
            yield from _stored(bench, large, served)
            few = stack.enter_context(_console(small.app))
            few.wait_ready()
            yield from _asked(bench, (large, served), (small, few))
            yield from _access(bench, small, few)
            few.terminate()
        yield from _kept(large, served, whole)
        served = stack.enter_context(_console(large.app, **history))
        served.wait_ready(1_800)
        yield from _beside(bench, large, served)


def _application(bench: Bench, stack: ExitStack, named: int, unnamed: int) -> Application:
    """Have a worker accept it all, and stop."""
    app = stack.enter_context(bench.deployment(partitions=PARTITIONS))
    for one in range(vocabulary.DESTINATIONS):
        app.destination(f"to-{one}")
    destinations = app.topic("to-")
    worker = app.worker().wait_ready(300)
    due_ms = int(time.time() * 1000) + 2 * _DAY_MS
    spec = {"topic": app.requests, "destinations": destinations, "due_ms": due_ms}
    bench.start("console.requesting", **spec, count=named, partitions=PARTITIONS).result()
    bench.start("console.requesting", **spec, count=unnamed, partitions=0).result()
    bench.wait_accepted(app, 1_800, named=True)
    assert worker.terminate(120) == 0
    return Application(app, destinations, named, unnamed, due_ms)


@contextmanager
def _console(app: Deployment, name: str = "console", **settings: str) -> Iterator[ConsoleProcess]:
    directory = app.directory / f"{app.app_id}-{name}"
    process = ConsoleProcess(app, directory, **_UNBOUNDED, **settings)
    try:
        yield process
    finally:
        process.kill()
        shutil.rmtree(directory, ignore_errors=True)


def _positions(url: str) -> tuple[list[int], list[int]]:
    """How far the copies are, and the history."""
    found = ask(f"{url}/v1/partitions")
    if found is None:
        return [0], [0]
    copies = [one["position"] for one in found["items"]]
    return copies, [one["position"] for one in found["history"]]


def _until(url: str, ends: Sequence[int], which: int, what: str) -> float:
    """When positions have come to the ends of their logs (s, epoch)."""
    wait(
        lambda: (
            all(at >= end for at, end in zip(_positions(url)[which], ends, strict=False))
            and len(_positions(url)[which]) == len(ends)
        ),
        what,
        1_800,
        every=0.1,
    )
    return time.time()


def _made(bench: Bench, large: Application, served: ConsoleProcess) -> Iterator[Row]:
    """From an empty disk: until every copy has its index, until the history is stored, until the view is."""
    began, app = time.time(), large.app
    url = served.wait_ready(1_800)
    ready_s = time.time() - began
    stored_s = _until(url, bench.kafka.stable_offsets(app.events), 1, "the history") - began
    database = _database(app)
    wait(lambda: _shown(database) == PARTITIONS, "the view of schedules", 1_800, every=0.5)
    rows = large.named + large.unnamed
    yield Row(
        "console: rebuild",
        f"an empty disk: {large.named:,} named and {large.unnamed:,} without id, with their index; rows",
        rows / ready_s,
        "/s",
        None,
        True,
        {
            "ready_after_s": round(ready_s, 1),
            "history_after_s": round(stored_s, 1),
            "history_events": sum(bench.kafka.end_offsets(app.events)),
            "view_after_s": round(time.time() - began, 1),
        },
    )


def _database(app: Deployment) -> Path:
    (file,) = app.directory.glob(f"{app.app_id}-console/*/history.db")
    return file


def _of_database(database: Path, query: str) -> int:
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        return int(connection.execute(query).fetchone()[0])
    finally:
        connection.close()


def _shown(database: Path) -> int:
    return _of_database(database, "SELECT count(*) FROM schedule_partitions")


def _followed(bench: Bench, large: Application, served: ConsoleProcess) -> Iterator[Row]:
    """Rows of the changelog that become visible at once; until the copies have them, index and all."""
    app, url = large.app, served.url

    def rate(path: Path, kind: str, count: int) -> float:
        with Sampler(served) as sampler:
            done = bench.start(
                "console.replaying",
                shape="write",
                topic=app.changelog,
                path=str(path),
                kind=kind,
                count=count,
            ).result()
            reached = _until(url, bench.kafka.stable_offsets(app.changelog), 0, "the copies")
        seconds = reached - done["committed"]
        figures[kind] = {"per_second": round(count / seconds), "seconds": round(seconds, 2)}
        figures[kind]["cores"] = round(sampler.cores, 2)
        return float(count / seconds)

    for chosen, full, steps, limit, what in (
        ("unnamed", _UNNAMED_RECORDS, ("gone", "kept"), 100_000, "events without id: all go, and come again"),
        ("recurring", _NAMED_RECORDS, ("fired",), 15_000, "named schedules that fire, and come a day later"),
        ("recurring", _NAMED_RECORDS, ("gone", "kept"), 15_000, "named schedules: all go, and come again"),
    ):
        figures: dict[str, Any] = {}
        path = bench.directory / f"{chosen}.rows"
        collected = bench.start(
            "console.replaying",
            shape="collect",
            topic=app.changelog,
            path=str(path),
            chosen=chosen,
            count=bench.count(full),
        ).result()["kept"]
        rates = [rate(path, step, collected) for step in steps]
        path.unlink()
        yield Row(
            f"console: follow {chosen} {'/'.join(steps)}",
            f"{collected:,} {what}; records of the changelog",
            len(rates) / sum(1 / one for one in rates),
            "/s",
            limit,
            True,
            figures,
        )


def _stored(bench: Bench, large: Application, served: ConsoleProcess) -> Iterator[Row]:
    """Events that become visible at once, while what is too much is deleted."""
    app, path = large.app, bench.directory / "events.rows"
    spec = {"topic": app.events, "path": str(path)}
    bench.start("console.replaying", shape="collect", chosen="all", count=100_000, **spec).result()
    count, kept = bench.count(_EVENTS), bench.count(_HISTORY_EVENTS)
    with Sampler(served) as sampler:
        done = bench.start("console.replaying", shape="write", kind="kept", count=count, **spec).result()
        reached = _until(served.url, bench.kafka.stable_offsets(app.events), 1, "the history")
    left = _of_database(_database(app), "SELECT events FROM totals")
    path.unlink()
    yield Row(
        "console: events",
        f"{count:,} events into SQLite, of which {kept:,} are kept",
        count / (reached - done["committed"]),
        "/s",
        30_000,
        True,
        {"seconds": round(reached - done["committed"], 1), "not_deleted_yet": left - kept}
        | {"console_cores": round(sampler.cores, 2)},
    )
    wait(
        lambda: _of_database(_database(app), "SELECT events FROM totals") <= kept,
        "the retention",
        300,
        every=0.5,
    )


Served = tuple[Application, ConsoleProcess]


def _turns(
    bench: Bench, targets: Mapping[str, Mapping[str, Any]], rounds: int, tour: int = 0
) -> dict[str, Any]:
    job = bench.start("console.asking", shape="by_turns", targets=targets, rounds=rounds, tour=tour)
    return job.result()


def _asked(bench: Bench, large: Served, small: Served) -> Iterator[Row]:
    """One question after the other, of the large and the small one by turns."""
    (many, served), (few, beside) = large, small
    found: dict[str, dict[str, Any]] = {}
    for room, rounds, tour in (
        ("get", _ROUNDS * 5, 0),
        ("stats", _ROUNDS, 0),
        ("list", _ROUNDS, _TOUR),
        ("where", _SEARCHES, 0),
    ):
        targets = {
            "many": {"url": served.url, "questions": many.questions[room]},
            "few": {"url": beside.url, "questions": few.questions[room]},
        }
        found[room] = _turns(bench, targets, max(20, round(rounds * min(1.0, bench.scale * 4))), tour)
    size = f"{many.named:,} named, {many.unnamed:,} without id"
    limits = {"get": 20.0, "list": 50.0, "stats": 50.0, "where": 1_000.0}
    for room, limit in limits.items():
        slowest, figures = _slowest(found[room]["many"])
        what = {"list": "a page of the slowest list", "where": "the slowest kind of word"}.get(room, room)
        yield Row(
            f"console: {room}",
            f"{size}: p99 of {what} ({slowest})",
            figures[slowest]["p99"],
            "ms",
            limit,
            False,
            {"milliseconds": figures},
        )
        if room == "list":
            _, of_few = _slowest(found[room]["few"])
            ratios = {kind: figures[kind]["p99"] / of_few[kind]["p99"] for kind in figures}
            worst = max(ratios, key=lambda kind: ratios[kind])
            yield Row(
                "console: list, many",
                f"the same against {few.named:,} named, by turns: p99 of all lists together",
                _p99_of_all(found[room]["many"]) / _p99_of_all(found[room]["few"]),
                "x",
                2.0,
                False,
                {"few_milliseconds": of_few, "ratios": ratios, "largest": worst},
            )


def _p99_of_all(kinds: Mapping[str, Sequence[float]]) -> float:
    return float(np.percentile(np.concatenate([np.array(times) for times in kinds.values()]), 99))


def _slowest(kinds: Mapping[str, Sequence[float]]) -> tuple[str, dict[str, dict[str, float]]]:
    figures = {kind: percentiles(np.array(times), 50, 99) for kind, times in kinds.items()}
    return max(figures, key=lambda kind: figures[kind]["p99"]), figures


def _access(bench: Bench, small: Application, open_: ConsoleProcess) -> Iterator[Row]:
    """The same questions of a console that asks for tokens, and of one that does not, by turns."""
    file = small.app.directory / "tokens.toml"
    entry = f'name = "bench"\nhash = "sha256:{digest_of(_TOKEN).hex()}"\nroles = {{ "*" = "viewer" }}'
    file.write_text(f"[[tokens]]\n{entry}\npayload = true\n")
    with _console(small.app, "closed", DELAYSTREAM_CONSOLE_TOKENS_FILE=str(file)) as closed:
        questions = small.questions["get"]
        targets = {
            "open": {"url": open_.url, "questions": questions},
            "closed": {"url": _answering(closed), "token": _TOKEN, "questions": questions},
        }
        found = _turns(bench, targets, max(200, round(_ROUNDS * 10 * min(1.0, bench.scale * 4))))
    figures = {name: percentiles(np.array(kinds["get"]), 50, 99) for name, kinds in found.items()}
    yield Row(
        "console: tokens",
        "one get with a token against one without, by turns: median",
        (figures["closed"]["p50"] - figures["open"]["p50"]) * 1000,
        "us",
        None,
        False,
        {"milliseconds": figures},
    )


def _answering(closed: ConsoleProcess) -> str:
    """The address of a console that asks for tokens, once its copies have caught up."""
    wait(lambda: bool(closed.url) and ask(f"{closed.url}/health/ready") is not None, "the console", 120)
    return closed.url


def _kept(large: Application, served: ConsoleProcess, whole: Sampler) -> Iterator[Row]:
    """What it takes of memory and disk."""
    resident = round(served.usage.memory_info().rss / 1e6, 1)
    # What is in memory is on the disk only at its end.
    assert served.terminate() == 0
    directory = large.app.directory / f"{large.app.app_id}-console"
    copies = sum(
        path.stat().st_size
        for path in directory.rglob("*")
        if path.is_file() and not path.name.startswith("history.db")
    )
    what = f"{large.named:,} named and {large.unnamed:,} without id"
    yield Row(
        "console: memory", f"{what}: resident memory at its peak", whole.peak_rss_mb, "MB", None, False,
        {"resident_mb": resident},
    )  # fmt: skip
    per_row = {"bytes_a_row": round(copies / (large.named + large.unnamed))}
    yield Row("console: disk", f"{what}: the copies", copies / 1e6, "MB", None, False, per_row)


def _beside(bench: Bench, large: Application, served: ConsoleProcess) -> Iterator[Row]:
    """A worker with 2,000 named fires a second, beside a console that is asked, and beside an idle loop."""
    app = large.app
    worker = app.worker().wait_ready(300)
    numbers = large.questions
    rates = {
        "get": (200, numbers["get"]["get"]),
        "list": (20, [path for paths in numbers["list"].values() for path in paths]),
    }
    beside, burnt, asked = [], [], []
    seconds = _WARM_S + _measured_s(bench)
    for turn in range(_TURNS):
        served.usage.resume()
        _until(served.url, bench.kafka.stable_offsets(app.changelog), 0, "the copies")
        out = app.destination(f"asked-{turn}", 4)
        streams = ["/v1/events"] * 5 + ["/v1/events?id=job%2F0000001"] * 45
        began = _cpu(served)
        job = bench.start(
            "console.asking", shape="traffic", url=served.url, seconds=seconds, rates=rates,
            streams=streams,
        )  # fmt: skip
        beside.append(_fired(bench, app, worker, out))
        told = job.result()
        asked.append(told)
        cores = (_cpu(served) - began) / seconds
        served.usage.suspend()
        out = app.destination(f"burnt-{turn}", 4)
        burning = bench.start("console.burning", cores=cores, seconds=seconds)
        burnt.append(_fired(bench, app, worker, out) | {"cores": round(cores, 3)})
        burnt[-1]["burnt"] = round(burning.result()["cpu_seconds"] / seconds, 3)
    served.usage.resume()
    assert worker.terminate(120) == 0
    streamed = [one["streams"] for one in asked]
    answers = {
        kind: percentiles(np.array([one for turn in asked for one in turn["milliseconds"][kind]]), 50, 99)
        for kind in rates
    }
    yield Row(
        "console: beside it",
        f"{_RATE:,} named fires a second, p99 beside 200 gets, 20 lists a second and 50 streams, against "
        "an idle loop that burns as much",
        median(one["p99"] for one in beside) / median(one["p99"] for one in burnt),
        "x",
        1.25,
        False,
        {
            "beside": beside,
            "burnt": burnt,
            "answers_ms": answers,
            "streams": streamed,
            "unanswered": [one["unanswered"] for one in asked],
            "wrong": [one["wrong"] for one in asked],
        },
    )


def _measured_s(bench: Bench) -> float:
    return max(_TURN_S * bench.scale, _LEAST_S)


def _cpu(served: ConsoleProcess) -> float:
    times = served.usage.cpu_times()
    return float(times.user + times.system)


def _fired(bench: Bench, app: Deployment, worker: Worker, out: str) -> dict[str, Any]:
    """Lateness of one turn, ms, without its beginning."""
    seconds = _WARM_S + _measured_s(bench)
    count = int(_RATE * seconds)
    finish = bench.reading(out, count)
    sent = bench.load(
        app, out, shape="paced", rate=_RATE, seconds=seconds, delay_ms=[1_000, 4_000], id_prefix=f"{out}-"
    )
    arrivals = finish()
    first = (sent["started"] + _WARM_S) * 1000
    middle = arrivals.where((arrivals.due_ms >= first) & (arrivals.due_ms <= sent["finished"] * 1000))
    figures = percentiles(middle.lateness_ms, 50, 99)
    return {name: round(value, 1) for name, value in {**figures, **arrivals.faults(count)}.items()}
