"""Two workers, killed, stopped and frozen at random while requests come in: nothing lost, early or twice.

``DELAYSTREAM_SOAK_SECONDS`` (60), ``DELAYSTREAM_SOAK_RATE`` (200 requests a second) and
``DELAYSTREAM_SOAK_SEED`` (random, printed) set how long, how much and which faults.
"""

from __future__ import annotations

import os
import random
import secrets
import time
from collections import Counter

import pytest

from tests.integration.harness import Deployment, Worker
from tests.integration.harness_fixtures import Deploy
from tests.integration.harness_traffic import Traffic

SECONDS = float(os.environ.get("DELAYSTREAM_SOAK_SECONDS", "60"))
RATE = int(os.environ.get("DELAYSTREAM_SOAK_RATE", "200"))
SEED = int(os.environ.get("DELAYSTREAM_SOAK_SEED") or secrets.randbelow(1_000_000))
_SESSION_TIMEOUT_SECONDS = 6.0
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

    def step(self) -> None:
        """Do what is due: begin a fault, or end it."""
        if not self._fault and not self._worker.alive:
            # As an orchestrator would; but nothing here is a reason to end by itself.
            self.unexpected.append(f"worker{self._name} exited with {self._worker.exit_code}")
            self._worker = self._app.worker(self._name)
        if time.monotonic() < self._next:
            return
        if self._fault:
            self.recover()
            self._next = time.monotonic() + self._dice.uniform(4, 12)
            return
        self._fault = self._dice.choice(_FAULTS)
        self._faults[self._fault] += 1
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

    def recover(self) -> None:
        """End the fault, if there is one."""
        if self._fault == "SIGSTOP":
            self._worker.resume()
        elif self._fault:
            self._worker = self._app.worker(self._name)
        self._fault = ""


@pytest.mark.timeout(SECONDS + 240)
def test_nothing_is_lost_early_or_twice_under_faults(deploy: Deploy) -> None:
    """The ledger after kills, stops and freezes past the session timeout: lost 0, duplicated 0, early 0."""
    print(f"\nsoak: seed {SEED}, {SECONDS:.0f} s, {RATE} requests/s", flush=True)
    settings = {"DELAYSTREAM_SESSION_TIMEOUT_MS": str(int(_SESSION_TIMEOUT_SECONDS * 1000))}
    app = deploy(partitions=4, **settings).apply_topics()
    dice, faults = random.Random(SEED), Counter[str]()
    victims = [_Victim(app, name, dice, faults) for name in ("-a", "-b")]
    for victim in victims:
        victim.worker.wait_ready()
    traffic = Traffic(app, rate=RATE, seed=SEED).start()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        for victim in victims:
            victim.step()
        time.sleep(0.05)
    traffic.stop()
    for victim in victims:
        victim.recover()
    report, records = traffic.outcome()
    lateness = traffic.lateness_ms(records)
    middle, worst = lateness[len(lateness) // 2], lateness[-1]
    counted = ", ".join(f"{count} {name}" for name, count in sorted(faults.items()))
    unexpected = [sentence for victim in victims for sentence in victim.unexpected]
    print(
        f"soak: seed {SEED}: {counted}; {len(traffic.asked)} requests, {len(lateness)} deliveries; "
        f"lost {len(report.lost)}, duplicated {len(report.duplicated)}, early {len(report.early)}; "
        f"lateness p50 {middle} ms, max {worst} ms; {unexpected or 'no unexpected exits'}",
        flush=True,
    )
    assert report.ok, f"seed {SEED}: {report}"
    assert not unexpected, f"seed {SEED}: {unexpected}"
    for victim in victims:
        assert victim.worker.alive
        assert victim.worker.terminate() == 0
