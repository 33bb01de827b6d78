"""The peer: the same requests to a Kafka Streams application, to one worker process and to two, by turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from tests.benchmarks.bench import Bench, Row, Usage, percentiles
from tests.benchmarks.peers.java import NoJdkError, Programs
from tests.integration.harness import Deployment

#: slowest contender's rate of accepting, with room: everything is accepted before it is due
_ACCEPTED_PER_SECOND: Final = 35_000
_STEADY_RATE: Final = 5_000
_STEADY_SECONDS: Final = 30.0
_WARM_UP_SECONDS: Final = 10.0
#: Kafka Streams' default with exactly_once_v2, and the least that its documentation's readers come to
_DEFAULT_COMMIT_MS, _TUNED_COMMIT_MS = 100, 20

Processes = Sequence[Any]
"""Of those with a `usage`: what their processor time is read from."""


@dataclass(frozen=True)
class Contender:
    """Something that can be run on a deployment's topics, in the group `group`."""

    name: str
    run: Callable[[Deployment], AbstractContextManager[Processes]]
    group: Callable[[Deployment], str]


@dataclass
class Rates:
    """A contender's figures, one of each round."""

    accept: list[float] = field(default_factory=list)
    fire: list[float] = field(default_factory=list)
    due: list[float] = field(default_factory=list)
    #: µs of processor time a record, of all its processes and of the broker: accept, fire, due
    cost: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    faults: list[dict[str, int]] = field(default_factory=list)

    def costs(self) -> dict[str, list[float]]:
        """The median of each cost: of the processes, and of the broker."""
        return {
            name: [round(statistics.median(column), 2) for column in zip(*costs, strict=True)]
            for name, costs in self.cost.items()
        }


def beside_streams(bench: Bench) -> Iterator[Row]:
    """Accept, fire and work that is already due: rates against those of the Kafka Streams application."""
    try:
        programs = Programs(bench.directory / "classes")
    except NoJdkError as missing:
        print(f"SKIP  {missing}", flush=True)
        return
    count = bench.count(1_000_000)
    contenders = [_streams(bench, programs), _workers(1), _workers(2)]
    rates = {contender.name: Rates() for contender in contenders}
    copies: list[float] = []
    for number in range(bench.rounds):
        # By turns, and in another order each time: what one leaves behind is no work of always the same next.
        turn = number % len(contenders)
        for contender in (*contenders[turn:], *contenders[:turn]):
            _accept_and_fire(bench, contender, count, rates[contender.name])
            source = _already_due(bench, contender, count, rates[contender.name], programs)
            copies += source
    peer = rates["streams"]
    for worker, name in (("one", "one worker"), ("two", "two workers")):
        for what, limit in (("accept", 1.0), ("fire", 1.0), ("due", 1.1 if worker == "two" else None)):
            own, theirs = getattr(rates[worker], what), getattr(peer, what)
            ratios = [mine / its for mine, its in zip(own, theirs, strict=True)]
            yield Row(
                f"Kafka Streams: {what}, {name}",
                f"{count:,} requests, against a Kafka Streams application with two threads",
                statistics.median(ratios),
                "x Streams",
                limit,
                True,
                {
                    "per_second": round(statistics.median(own)),
                    "peer_per_second": round(statistics.median(theirs)),
                    "ratios": [round(ratio, 3) for ratio in ratios],
                    "processor_us_worker_and_broker": rates[worker].costs().get(what),
                    "peer_processor_us_streams_and_broker": peer.costs().get(what),
                    **_sum(rates[worker].faults),
                    "peer_faults": _sum(peer.faults),
                },
            )
    yield Row(
        "copy in Java",
        f"{count:,} records copied by Kafka's Java clients, in transactions of 8,000",
        statistics.median(copies),
        "/s",
        None,
        True,
        {"runs": [round(rate) for rate in copies]},
    )


def steady_beside_streams(bench: Bench) -> Iterator[Row]:
    """5,000 requests a second on 4 and 64 partitions, to a worker and to the Kafka Streams application."""
    try:
        programs = Programs(bench.directory / "classes")
    except NoJdkError as missing:
        print(f"SKIP  {missing}", flush=True)
        return
    for partitions in (4, 64):
        own = _steady(bench, _workers(1), partitions)
        for name, commit_ms in (("default", _DEFAULT_COMMIT_MS), ("tuned", _TUNED_COMMIT_MS)):
            peer = _steady(bench, _streams(bench, programs, commit_ms), partitions)
            for point in ("p50", "p99"):
                yield Row(
                    f"Kafka Streams: steady {point}, {partitions} partitions, {name}",
                    f"{_STEADY_RATE:,}/s, lateness as received, against commits every {commit_ms} ms",
                    own["received"][point] / peer["received"][point],
                    "x Streams",
                    1.0 if partitions == 4 else None,
                    False,
                    {"milliseconds": own, "peer_milliseconds": peer},
                )


def by_partitions(bench: Bench) -> Iterator[Row]:
    """5,000 requests a second on 4, 16 and 64 partitions of one worker: each has transactions of its own."""
    for partitions in (4, 16, 64):
        figures = _steady(bench, _workers(1), partitions)
        for point in ("p50", "p99"):
            yield Row(
                f"{partitions} partitions: appended {point}",
                f"{_STEADY_RATE:,}/s in and out, lateness appended: {point}",
                figures["appended"][point],
                "ms",
                None,
                False,
                {"milliseconds": figures} if point == "p99" else {},
            )


def _workers(number: int) -> Contender:
    @contextmanager
    def run(deployment: Deployment) -> Iterator[Processes]:
        workers = [deployment.worker(f"-{name}") for name in "ab"[:number]]
        for worker in workers:
            worker.wait_ready()
        yield workers
        for worker in workers:
            worker.terminate()

    return Contender("one" if number == 1 else "two", run, lambda deployment: deployment.app_id)


def _streams(bench: Bench, programs: Programs, commit_ms: int = _DEFAULT_COMMIT_MS) -> Contender:
    def group(deployment: Deployment) -> str:
        return f"{deployment.app_id}.streams"

    @contextmanager
    def run(deployment: Deployment) -> Iterator[Processes]:
        # Its changelog's topic begins with the deployment's id, and is deleted with the others.
        log = bench.directory / f"{deployment.app_id}-streams.log"
        state = str(deployment.data_directory())
        threads, punctuate_ms = "2", "10"
        process = programs.start(
            "DelayStreams",
            log,
            *(bench.kafka.bootstrap, group(deployment), deployment.requests, state),
            *(threads, str(commit_ms), punctuate_ms),
        )
        try:
            yield [process.wait_running()]
        finally:
            process.stop()

    return Contender("streams", run, group)


def _accept_and_fire(bench: Bench, contender: Contender, count: int, rates: Rates) -> None:
    with bench.deployment() as deployment, ExitStack() as stack:
        out = deployment.destination("out", 4)
        processes = stack.enter_context(contender.run(deployment))
        due_ms = int((time.time() + 20 + count / _ACCEPTED_PER_SECOND) * 1000)
        with Usage(bench, processes) as accepting:
            sent = bench.load(deployment, out, shape="bulk", count=count, due_ms=due_ms)
            accepting.begin_broker()
            accepted = bench.wait_accepted(deployment, group=contender.group(deployment))
        if accepted * 1000 > due_ms:
            raise RuntimeError(f"{contender.name}: accepting took until {accepted}, past {due_ms / 1000}")
        with Usage(bench, processes) as firing:
            bench.wait_delivered(out, count)
        arrivals = bench.arrivals(out, count)
        rates.accept.append(count / (accepted - sent["finished"]))
        rates.fire.append(count / (int(arrivals.appended_ms.max()) - due_ms) * 1000)
        rates.cost.setdefault("accept", []).append(accepting.each(count))
        rates.cost.setdefault("fire", []).append(firing.each(count))
        rates.faults.append(arrivals.faults(count))


def _already_due(
    bench: Bench, contender: Contender, count: int, rates: Rates, programs: Programs
) -> list[float]:
    """Also copies the requests, once in Java; the copy's rate."""
    with bench.deployment() as deployment:
        out = deployment.destination("out", 4)
        with contender.run(deployment) as processes:
            due_ms = int(time.time() * 1000)
            with Usage(bench, processes) as usage:
                sent = bench.load(deployment, out, shape="bulk", count=count, due_ms=due_ms)
                usage.begin_broker()
                bench.wait_delivered(out, count)
            arrivals = bench.arrivals(out, count)
        rates.due.append(count / (int(arrivals.appended_ms.max()) / 1000 - sent["finished"]))
        rates.cost.setdefault("due", []).append(usage.each(count))
        rates.faults.append(arrivals.faults(count))
        target = bench.kafka.create(f"{out}.java", 4)
        copied = programs.result("Copy", bench.kafka.bootstrap, deployment.requests, target, str(count))
        bench.kafka.delete(target)
        return [float(copied["per_second"])]


def _steady(bench: Bench, contender: Contender, partitions: int) -> dict[str, Any]:
    """Percentiles of the lateness, appended and received, ms; and what was lost, doubled or early."""
    seconds = _WARM_UP_SECONDS + max(_STEADY_SECONDS * bench.scale, 10)
    count = int(_STEADY_RATE * seconds)
    with bench.deployment(partitions=partitions) as deployment:
        out = deployment.destination("out", 4)
        with contender.run(deployment):
            finish = bench.reading(out, count)
            sent = bench.load(
                deployment, out, shape="paced", rate=_STEADY_RATE, seconds=seconds, delay_ms=[1_000, 4_000]
            )
            arrivals = finish()
        first = (sent["started"] + _WARM_UP_SECONDS) * 1000
        middle = arrivals.where((arrivals.due_ms >= first) & (arrivals.due_ms <= sent["finished"] * 1000))
        return {
            "appended": percentiles(middle.lateness_ms, 50, 99, 99.9),
            "received": percentiles(middle.received_lateness_ms, 50, 99, 99.9),
            **arrivals.faults(count),
        }


def _sum(faults: Sequence[dict[str, int]]) -> dict[str, int]:
    return {name: sum(each[name] for each in faults) for name in ("lost", "duplicated", "early")}
