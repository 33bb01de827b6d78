"""What a test without Kafka costs: `python -m tests.benchmarks.simulated_days`.

Processor time, by the environment that users' tests have: a thousand days of an hourly schedule, each of
whose 24,000 fires is a step of the engine at its own time, all of them looked at in the end; and a whole test
of one reminder.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from delaystream.testing import environment

DAYS = 1_000
ROUNDS = 3
REMINDERS = 200


def seconds(work: Callable[[], object]) -> float:
    """The best of some rounds: others on the machine only ever add to it."""
    found = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def hourly() -> None:
    """A thousand days."""
    with environment() as env:
        env.client.schedule("ticks", b"", id="hourly", every=timedelta(hours=1))
        env.advance(timedelta(days=DAYS))
        assert len({tick.due_ms for tick in env.deliveries("ticks")}) == DAYS * 24


def reminders() -> None:
    """Small tests, one after the other."""
    for _ in range(REMINDERS):
        with environment() as env:
            env.client.schedule("reminders", {"user": 7}, id="reminder-7", delay=timedelta(days=1))
            env.advance(timedelta(days=1))
            env.assert_delivered("reminders", count=1)


def main() -> None:
    """Print both."""
    found = seconds(hourly)
    print(f"{DAYS} days of an hourly schedule  {found:6.2f} s  ({found / DAYS / 24 * 1e6:.0f} µs a fire)")
    print(f"a whole test of one reminder      {seconds(reminders) / REMINDERS * 1e3:6.2f} ms")


if __name__ == "__main__":
    main()
