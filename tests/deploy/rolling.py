"""A rolling update, as a StatefulSet does it, with processes: `python -m tests.deploy.rolling [--dynamic]`.

Two workers under load are replaced one after the other, from the last one down: SIGTERM, the end, a new
process under the same name with the same volume, ready, `minReadySeconds`, the next. The command prints the
lateness over the roll and fails when it misses the objective; the test of the same roll asks for lost 0 and
duplicated 0. `--dynamic` does it without static membership.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from delaystream.dev import EmbeddedBroker
from tests.deploy.chart import CHART
from tests.integration.harness import Deployment
from tests.integration.harness_kafka import Kafka
from tests.integration.harness_traffic import Traffic
from tests.ledger import Report

#: Objective for the lateness of what was due while the update rolled.
P99_MS = 3_000
_SETTLE_SECONDS = 5.0


@dataclass(frozen=True)
class Roll:
    """What came of one rolling update; lateness by the broker's append time, of what was due meanwhile."""

    report: Report
    lateness_ms: list[int]
    seconds: float
    away_seconds: list[float]
    """Of each worker: from SIGTERM to ready again."""

    def quantile_ms(self, share: float) -> int:
        """The lateness that this share of the deliveries did not exceed."""
        return self.lateness_ms[min(len(self.lateness_ms) - 1, int(len(self.lateness_ms) * share))]

    def __str__(self) -> str:
        away = ", ".join(f"{seconds:.1f}" for seconds in self.away_seconds)
        late = ", ".join(
            f"{name} {self.quantile_ms(share)}" for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
        )
        return (
            f"rolling update of 2 workers in {self.seconds:.1f} s (away: {away} s): "
            f"{len(self.lateness_ms)} fires due meanwhile, lateness ms {late}; lost {len(self.report.lost)}, "
            f"duplicated {len(self.report.duplicated)}, early {len(self.report.early)}"
        )


def roll(app: Deployment, *, static: bool = True, rate: int = 200, seed: int = 7) -> Roll:
    """Roll once over two new workers of an application whose topics are there."""
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    names = ["delaystream-1", "delaystream-0"]
    own = {name: {"DELAYSTREAM_INSTANCE_ID": name} if static else {} for name in names}
    workers = {name: app.worker(name, **own[name]) for name in names}
    for worker in workers.values():
        worker.wait_ready()
    traffic = Traffic(app, rate=rate, seed=seed, holding=False).start()
    time.sleep(_SETTLE_SECONDS)
    started, began_ms, away = time.monotonic(), int(time.time() * 1000), []
    for name in names:
        left = time.monotonic()
        code = workers[name].terminate(values["terminationGracePeriodSeconds"])
        assert code == 0, f"{name} exited with {code}:\n{workers[name].output()[-3000:]}"
        workers[name] = app.worker(name, **own[name]).wait_ready()
        away.append(time.monotonic() - left)
        time.sleep(values["minReadySeconds"])
    seconds, ended_ms = time.monotonic() - started, int(time.time() * 1000)
    time.sleep(_SETTLE_SECONDS)
    traffic.stop()
    report, records = traffic.outcome()
    lateness = sorted(
        record.timestamp_ms - due_ms
        for record in records
        if record.topic in traffic.topics[:2]
        and began_ms <= (due_ms := int(record.text("delaystream-due-at"))) <= ended_ms
    )
    return Roll(report, lateness, seconds, away)


def main() -> int:
    """Roll once on a broker of its own; 1 when the objective is missed or the ledger is not clean."""
    with tempfile.TemporaryDirectory() as temporary, EmbeddedBroker(Path(temporary) / "kafka") as broker:
        kafka = Kafka(broker.bootstrap_servers)
        with Deployment(kafka, Path(temporary), partitions=4, DELAYSTREAM_SESSION_TIMEOUT_MS="45000") as app:
            found = roll(app.apply_topics(), static="--dynamic" not in sys.argv[1:])
    print(found, flush=True)
    return 0 if found.report.ok and found.quantile_ms(0.99) <= P99_MS else 1


if __name__ == "__main__":
    sys.exit(main())
