"""``python -m tests.benchmarks``: every figure of one run, with the ceiling beside it."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import psutil

from delaystream.dev.broker import EmbeddedBroker
from tests.benchmarks import capacity, client, lateness, peer, report, scheduling, throughput
from tests.benchmarks.bench import Bench, Rounds, Row
from tests.benchmarks.console.scenario import console
from tests.integration.harness_kafka import Kafka

SCENARIOS = {
    "accept": throughput.accept_and_fire,
    "catch-up": throughput.catch_up,
    "hot": throughput.hot_second,
    "steady": lateness.steady,
    "takeover": lateness.takeover,
    "idle": capacity.idle,
    "pending": capacity.pending,
    "named": scheduling.named,
    "cron": scheduling.cron,
    "bulk-cancel": scheduling.bulk_cancel,
    "events": scheduling.events,
    "client": client.sending,
    "console": console,
    "partitions": peer.by_partitions,
    "streams": peer.beside_streams,
    "streams-steady": peer.steady_beside_streams,
}
_RESULTS = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"


def main() -> None:
    """Run the scenarios one after the other and write down what they gave."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        action="append",
        choices=SCENARIOS,
        help="this scenario (may be given again); writes no results",
    )
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full number of records")
    parser.add_argument("--copies", type=int, default=3, help="how often the ceiling is measured")
    parser.add_argument("--rounds", type=int, default=1, help="how often a worker and its peer take turns")
    parser.add_argument(
        "--directory", type=Path, help="where broker, state and logs are kept (default: temporary)"
    )
    parser.add_argument("--output", type=Path, help="where results are written (default: docs/benchmarks)")
    arguments = parser.parse_args()
    output = arguments.output
    if output is None and not arguments.only and arguments.scale == 1.0:
        output = _RESULTS

    rows: list[Row] = []
    failed: list[str] = []
    kafka = ""
    facts = report.machine()
    with tempfile.TemporaryDirectory(prefix="delaystream-bench-") as temporary:
        directory = arguments.directory or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(arguments.only or SCENARIOS):
            started = time.monotonic()
            print(f"-- {name}", flush=True)
            # A broker of its own: what one leaves to be deleted and compacted is no work of the next.
            place = directory / f"{number}-{name}"
            with EmbeddedBroker(place / "broker", heap_mebibytes=1024) as broker:
                kafka = broker.version
                bench = Bench(
                    Kafka(broker.bootstrap_servers),
                    psutil.Process(broker.pid),
                    place,
                    arguments.scale,
                    Rounds(arguments.copies, arguments.rounds),
                )
                try:
                    for row in SCENARIOS[name](bench):
                        rows.append(row)
                        print(report.shown(row), flush=True)
                except (AssertionError, RuntimeError, TimeoutError) as failure:
                    # One scenario that cannot be measured does not take the others with it.
                    failed.append(f"{name}: {failure}")
                    print(f"FAIL  {name}: {failure}", flush=True)
                finally:
                    bench.stop_jobs()
            if arguments.directory is None:
                shutil.rmtree(place, ignore_errors=True)
            print(f"   {time.monotonic() - started:.0f} s", flush=True)
    if output is not None:
        whole = report.document(rows, scale=arguments.scale, kafka=kafka, facts=facts)
        report.write(output, rows, whole)
        print(f"written to {output}")
    if failed:
        sys.exit(f"not measured: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
