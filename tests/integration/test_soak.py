"""Two workers and three brokers, killed, stopped and frozen at random while requests come in: nothing lost,
early or twice.

``DELAYSTREAM_SOAK_SECONDS`` (45), ``DELAYSTREAM_SOAK_RATE`` (200 requests a second) and
``DELAYSTREAM_SOAK_SEED`` (random, printed) set how long, how much and which faults.
"""

from __future__ import annotations

import math
import os
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from delaystream.dev import BrokerError, EmbeddedCluster
from delaystream.dev.progress import on_stderr
from delaystream.exit_codes import ExitCode
from tests.integration.harness import Deployment, Worker
from tests.integration.harness_kafka import Kafka
from tests.integration.harness_traffic import Onlooker, Traffic

SECONDS = float(os.environ.get("DELAYSTREAM_SOAK_SECONDS", "45"))
RATE = int(os.environ.get("DELAYSTREAM_SOAK_RATE", "200"))
SEED = int(os.environ.get("DELAYSTREAM_SOAK_SEED") or secrets.randbelow(1_000_000))
_BROKERS = 3
_BROKER_HEAP_MEBIBYTES = 256
_SESSION_TIMEOUT_SECONDS = 6.0
_START_SECONDS = 60.0
#: a machine that is busy with other work starts three brokers at once within this time
_BACK_MS = 180_000
#: the longest standstill after which something may still come: fires of a parked destination
_STANDSTILL_SECONDS = 120.0
_FAULTS = ("SIGKILL", "SIGTERM", "SIGSTOP")


class _Victim:
    """One worker's way through the soak: up for a while, a fault, down or frozen for a while, up again."""

    def __init__(self, app: Deployment, name: str, dice: random.Random, faults: Counter[str]) -> None:
        self._app, self._name, self._dice, self._faults = app, name, dice, faults
        self._worker = app.worker(name)
        self._fault = ""
        self._next = time.monotonic() + dice.uniform(5, 12)
        self.unexpected: list[str] = []

    @property
    def worker(self) -> Worker:
        """The process of now."""
        return self._worker

    def step(self, *, without_kafka: bool) -> None:
        """Do what is due: begin a fault, or end it. ``without_kafka``: all brokers are or were just down."""
        self.start_again_if_ended(without_kafka=without_kafka)
        if time.monotonic() < self._next:
            return
        if self._fault:
            self.recover()
            # Some faults come before it is ready again, some while it is at work.
            self._next = time.monotonic() + self._dice.uniform(4, self._dice.choice([12, 30]))
            return
        self._fault = self._dice.choice(_FAULTS)
        self._faults[f"worker {self._fault}"] += 1
        down = self._dice.uniform(0, 4)
        match self._fault:
            case "SIGKILL":
                self._worker.kill()
            case "SIGTERM":
                # One that is still starting has nothing to put in order yet, and may just end.
                started = self._worker.ready
                code = self._worker.terminate(15)
                if code != 0 and started:
                    self.unexpected.append(f"worker{self._name} exited with {code} after SIGTERM")
            case _:
                self._worker.pause()
                down += _SESSION_TIMEOUT_SECONDS + 1
        self._next = time.monotonic() + down

    def start_again_if_ended(self, *, without_kafka: bool) -> None:
        """As an orchestrator would, where no fault has ended it.

        Nothing here is a reason to end by itself, but for one: a worker that finds no Kafka when it starts
        says so and ends; one that had found it waits for minutes.
        """
        if self._fault or self._worker.alive:
            return
        code = self._worker.exit_code
        starting = time.time() - self._worker.started < _START_SECONDS
        if without_kafka and starting and code == ExitCode.UNAVAILABLE:
            self._faults["worker start without Kafka"] += 1
        else:
            reason = self._worker.reason[-500:]
            self.unexpected.append(f"worker{self._name} exited with {code}: {reason}")
        self._worker = self._app.worker(self._name)

    def recover(self) -> None:
        """End the fault, if there is one."""
        if self._fault == "SIGSTOP":
            self._worker.resume()
        elif self._fault:
            self._worker = self._app.worker(self._name)
        self._fault = ""


class _Brokers:
    """The brokers' way through the soak, in a thread of its own: fault after fault, all well in between.

    Every kind of fault comes once before any comes again. One broker at a time is down or frozen, but for
    the one kind that kills them all.
    """

    def __init__(self, cluster: EmbeddedCluster, dice: random.Random, faults: Counter[str]) -> None:
        self._cluster, self._dice, self._faults = cluster, dice, faults
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="broker-faults", daemon=True)
        self._away_until = -_START_SECONDS
        self.unexpected: list[str] = []

    @property
    def were_away(self) -> bool:
        """Whether there was no broker at some time in which a worker that now looks around may have begun."""
        return time.monotonic() < self._away_until + _START_SECONDS

    def start(self) -> _Brokers:
        """Begin."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """No further fault; all brokers are well again afterwards, or ``unexpected`` says why not."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            for name, fault in self._shuffled():
                if self._stopping.wait(self._dice.uniform(3, 8)):
                    return
                self._faults[name] += 1
                print(f"soak: {time.strftime('%H:%M:%S')} {name}", flush=True)
                fault()
                self._cluster.await_answers(_BACK_MS)
        except BrokerError as error:
            self.unexpected.append(f"a broker did not come back: {error}")

    def _shuffled(self) -> Iterator[tuple[str, Callable[[], None]]]:
        faults: dict[str, Callable[[], None]] = {
            "broker SIGKILL": lambda: self._kill(self._any()),
            "broker SIGTERM": lambda: self._terminate(self._any()),
            "broker SIGSTOP": lambda: self._freeze(self._any()),
            "controller SIGKILL": lambda: self._kill(self._leader()),
            "controller SIGSTOP": lambda: self._freeze(self._leader()),
            "all brokers SIGTERM in turn": self._in_turn,
            "all brokers SIGKILL at once": self._kill_all,
        }
        while True:
            yield from self._dice.sample(list(faults.items()), len(faults))

    def _any(self) -> int:
        return self._dice.choice(list(self._cluster.brokers))

    def _leader(self) -> int:
        return self._cluster.controller or self._any()

    def _kill(self, node: int) -> None:
        self._cluster.brokers[node].kill()
        time.sleep(self._dice.uniform(0, 5))
        self._cluster.brokers[node].launch()

    def _terminate(self, node: int) -> None:
        self._cluster.brokers[node].stop()
        time.sleep(self._dice.uniform(0, 3))
        self._cluster.brokers[node].launch()

    def _freeze(self, node: int) -> None:
        """For less than a broker's session timeout, or for more: then others lead, and it does not know."""
        self._cluster.brokers[node].pause()
        time.sleep(self._dice.choice([self._dice.uniform(1, 3), self._dice.uniform(6, 10)]))
        self._cluster.brokers[node].resume()

    def _in_turn(self) -> None:
        for node in self._cluster.brokers:
            if self._stopping.is_set():
                return
            self._terminate(node)
            self._cluster.await_answers(_BACK_MS)

    def _kill_all(self) -> None:
        self._away_until = math.inf
        self._cluster.kill()
        time.sleep(self._dice.uniform(0, 3))
        self._cluster.start(_BACK_MS)
        self._away_until = time.monotonic()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[EmbeddedCluster]:
    """Three brokers of this test's own."""
    cluster = EmbeddedCluster(
        tmp_path / "broker", brokers=_BROKERS, heap_mebibytes=_BROKER_HEAP_MEBIBYTES, progress=on_stderr
    )
    try:
        yield cluster.start()
    finally:
        cluster.kill()


@pytest.mark.timeout(3 * SECONDS + 900)
def test_nothing_is_lost_early_or_twice_under_faults(cluster: EmbeddedCluster, tmp_path: Path) -> None:
    """The ledger after kills, stops and freezes past the session timeout: lost 0, duplicated 0, early 0."""
    print(f"\nsoak: seed {SEED}, {SECONDS:.0f} s, {RATE} requests/s, all in {tmp_path}", flush=True)
    settings = {"DELAYSTREAM_SESSION_TIMEOUT_MS": str(int(_SESSION_TIMEOUT_SECONDS * 1000))}
    kafka = Kafka(cluster.bootstrap_servers, replicas=_BROKERS)
    with Deployment(kafka, tmp_path, partitions=4, **settings) as app:
        app.apply_topics()
        dice, faults = random.Random(SEED), Counter[str]()
        victims = [_Victim(app, name, dice, faults) for name in ("-a", "-b")]
        for victim in victims:
            victim.worker.wait_ready()
        traffic = Traffic(app, rate=RATE, seed=SEED).start()
        onlooker = Onlooker(app, traffic.topics).start()
        # Dice of their own: which faults there are hangs on no thread's pace.
        brokers = _Brokers(cluster, random.Random(SEED + 1), faults).start()
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            # Where a broker stays away, nothing afterwards is worth a look.
            assert not brokers.unexpected
            for victim in victims:
                victim.step(without_kafka=brokers.were_away)
            time.sleep(0.05)
        brokers.stop()
        for victim in victims:
            victim.recover()
            # It may have ended for want of a broker just before all were well.
            victim.start_again_if_ended(without_kafka=brokers.were_away)
        traffic.stop()
        report, records = traffic.outcome(_STANDSTILL_SECONDS)
        gone = onlooker.stop().gone(records)
        lateness = traffic.lateness_ms(records)
        middle, worst = lateness[len(lateness) // 2], lateness[-1]
        faulty: list[_Victim | _Brokers] = [*victims, brokers]
        unexpected = [sentence for one in faulty for sentence in one.unexpected]
        counted = ", ".join(f"{count} {name}" for name, count in sorted(faults.items()))
        print(
            f"soak: seed {SEED}: {counted}; {len(traffic.asked)} requests ({traffic.doubled} written twice "
            f"by their producer, {traffic.unconfirmed} unconfirmed), {len(lateness)} deliveries; "
            f"lost {len(report.lost)}, duplicated {len(report.duplicated)}, early {len(report.early)}; "
            f"lateness p50 {middle} ms, max {worst} ms, what was held included; "
            f"{len(onlooker.seen)} seen at once, {len(gone)} of them gone; "
            f"{unexpected or 'no unexpected exits'}",
            flush=True,
        )
        assert report.ok, f"seed {SEED}: {report}"
        assert not gone, f"seed {SEED}: committed, and gone: {gone[:20]}"
        assert not unexpected, f"seed {SEED}: {unexpected}"
        for victim in victims:
            assert victim.worker.alive
            assert victim.worker.terminate() == 0
