"""A real Prometheus, with the files that Compose and the chart use, scrapes real workers under a known load.

Every query of every dashboard is asked, and must answer what the load implies.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.deploy.conftest import ROOT, Tool
from tests.deploy.monitoring import load as figures
from tests.deploy.monitoring.expectations import EXPECTATIONS, Moment, Truth
from tests.deploy.monitoring.load import Load, fired
from tests.deploy.monitoring.stage import Prometheus, Sample, Stage, compose, staged
from tests.deploy.monitoring.test_monitoring_dashboards import DASHBOARDS, load, panels
from tests.integration.harness import Worker, wait

#: Grafana's, with a scrape each second: at least four scrapes.
_RATE_INTERVAL = "10s"

TARGETS = [
    pytest.param(panel, target, id=f"{path.stem}: {panel['title']} {target['refId']}")
    for path in DASHBOARDS
    for panel in panels(load(path))
    for target in panel["targets"]
]

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Measured:
    """The stage after the load, and what is known of it."""

    stage: Stage
    prometheus: Prometheus
    at_s: dict[Moment, float]
    range_s: int
    truth: Truth

    def ask(self, expression: str, moment: Moment) -> list[Sample]:
        """A dashboard's query, with its variables filled in as Grafana does for All."""
        for name, text in (
            ("$__rate_interval", _RATE_INTERVAL),
            ("$__range", f"{self.range_s}s"),
            ("$app_id", ".*"),
            ("$topic", ".*"),
            ("$destination", ".*"),
        ):
            expression = expression.replace(name, text)
        assert "$" not in expression, expression
        return self.prometheus.query(expression, self.at_s[moment])


@pytest.fixture(scope="module")
def measured(tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    with staged(tmp_path_factory.mktemp("stage"), tool("prometheus")) as stage:
        stage.apply_topics()
        stage.start_console()
        prometheus = stage.start_prometheus()
        started_s = time.time()
        yield _measure(stage, prometheus, started_s)


def _measure(stage: Stage, prometheus: Prometheus, started_s: float) -> Measured:
    first = stage.start_worker("worker-1")
    # What a counter has before it is seen for the first time is no increase.
    accepted = "delaystream_requests_accepted_total"
    wait(lambda: bool(prometheus.query(accepted, time.time())), "the first scrape")
    load = Load(stage)
    load.seed()
    wait(lambda: first.metric("delaystream_pending_entries") == figures.SEEDED, "the seed to be stored")
    second = stage.start_worker("worker-2")
    wait(lambda: len(prometheus.query(accepted, time.time())) == 2, "the first scrape of the second")
    wait(lambda: _shared(first, second), "two partitions each")
    recovered_entries = int(second.metric("delaystream_pending_entries"))
    load.stick()
    load.overload()
    wait(lambda: _counted(stage, "delaystream_requests_rejected_total") == 1, "the first that is too large")

    steady = load.steady()
    time.sleep(figures.STEADY_S - 10)
    before, before_s = (_cpu_s(stage), _transactions(stage)), time.time()
    time.sleep(5)
    load.overload()
    steady.join()
    after, seconds = (_cpu_s(stage), _transactions(stage)), time.time() - before_s
    cpu, transactions = (
        {worker: (now[worker] - then[worker]) / seconds for worker in now}
        for then, now in zip(before, after, strict=True)
    )
    sent = load.sent

    def settled() -> bool:
        fired = _counted(stage, "delaystream_fires_total")
        rejected = _counted(stage, "delaystream_requests_rejected_total")
        return fired == sent["soon"] + sent["at once"] and rejected == sent["wrong"] + sent["too large"]

    wait(settled, "all that is due to be delivered", 60)
    time.sleep(2.5)  # two scrapes and an evaluation
    at_s: dict[Moment, float] = {"steady": load.ended_s - 0.2, "settled": time.time()}
    console = stage.console
    assert console is not None
    truth = Truth(
        console=console.address,
        sent=dict(sent),
        fires=[fired(delivery) for delivery in load.deliveries()],
        at_s=at_s,
        stuck_s={moment: at - load.stuck_at_s for moment, at in at_s.items()},
        cpu=cpu,
        transactions=transactions,
        memory=_each(stage, lambda process: process.memory_info().rss),
        files=_each(stage, lambda process: process.num_fds() / process.rlimit(psutil.RLIMIT_NOFILE)[0]),
        age_s=_each(stage, lambda process: at_s["settled"] - process.create_time()),
        state_bytes={_address(stage, name): _occupied(stage.directory / name) for name in stage.workers},
        recovered_entries=recovered_entries,
        transaction_s=_counted(stage, "delaystream_transaction_seconds_sum")
        / _counted(stage, "delaystream_transaction_seconds_count"),
        refusals=_counted(stage, "delaystream_transactions_aborted_total"),
        directory=stage.directory,
    )
    return Measured(stage, prometheus, at_s, int(at_s["settled"] - started_s), truth)


def _shared(*workers: Worker) -> bool:
    return all(w.ready and w.metric("delaystream_partitions", "running") == 2 for w in workers)


def _counted(stage: Stage, name: str) -> float:
    return sum(worker.metric(name) for worker in stage.workers.values())


def _address(stage: Stage, service: str) -> str:
    return f"127.0.0.1:{stage.ports[f'{service}:8642']}"


def _each(stage: Stage, figure: object) -> dict[str, float]:
    assert callable(figure)
    return {_address(stage, name): float(figure(worker.usage)) for name, worker in stage.workers.items()}


def _cpu_s(stage: Stage) -> dict[str, float]:
    return _each(stage, lambda process: sum(process.cpu_times()[:2]))


def _transactions(stage: Stage) -> dict[str, float]:
    name = "delaystream_transaction_seconds_count"
    return {_address(stage, service): worker.metric(name) for service, worker in stage.workers.items()}


def _occupied(directory: Path) -> float:
    return sum(file.lstat().st_blocks * 512 for file in directory.rglob("*") if file.is_file())


# -- what is promised ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("panel", "target"), TARGETS)
def test_a_query_returns_what_the_load_implies(
    measured: Measured, panel: dict[str, Any], target: dict[str, str]
) -> None:
    moment, check = EXPECTATIONS[panel["title"], target["refId"]]
    samples = measured.ask(target["expr"], moment)
    assert samples, f"{panel['title']}: {target['expr']} returned nothing"
    print(f"{target['expr']}\n{samples}")
    check(samples, measured.truth)
    # What the panel shows of them: the labels of its legend, or of its columns.
    labels = {label for metric, _ in samples for label in metric} | {"Value"}
    shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
    for transformation in panel["transformations"]:
        shown |= set(transformation["options"].get("include", {}).get("names", []))
    assert shown <= labels, f"{panel['title']} shows {shown - labels}"


def test_no_expectation_is_left_over() -> None:
    asked = {(param.values[0]["title"], param.values[1]["refId"]) for param in TARGETS}  # type: ignore[index]
    assert asked == EXPECTATIONS.keys()


def test_every_rule_is_evaluated_without_an_error(measured: Measured) -> None:
    groups = measured.prometheus.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {(rule["name"], rule["health"], rule.get("lastError", "")) for rule in rules} == {
        (rule["name"], "ok", "") for rule in rules
    }
    assert len(groups) == 5


def test_alerts_wait_for_what_passes_by_itself(measured: Measured) -> None:
    """A destination in trouble is pending, not firing: it has not lasted. Nothing else is even that.

    But for a partition that did not run when it was scraped, as when its write was refused: the rule looks
    back over a minute.
    """
    alerts = measured.prometheus.get("alerts")["alerts"]
    # The disk is this machine's, and whoever else fills it is not of this test; nor is a machine so busy
    # that a share of the deliveries was late in truth.
    passing = (
        ("DelaystreamStateDisk", "DelaystreamLateness")
        if measured.truth.late_share > 0.005
        else ("DelaystreamStateDisk",)
    )
    ours = [alert for alert in alerts if not alert["labels"]["alertname"].startswith(passing)]
    told = {(alert["labels"]["alertname"], alert["state"]) for alert in ours}
    assert told - {("DelaystreamRecoveryTooLong", "pending")} == {
        ("DelaystreamDeadLetters", "firing"),
        ("DelaystreamFiresMissed", "firing"),
        ("DelaystreamDestinationParked", "pending"),
    }


def test_the_variables_have_values_to_choose(measured: Measured) -> None:
    for label, expected in (("app_id", {"delaystream"}), ("destination", {"reminders", "orders", "missing"})):
        assert expected <= set(measured.prometheus.get(f"label/{label}/values"))


def test_the_sample_producer_and_consumer_show_deliveries(measured: Measured) -> None:
    """As docker-compose.yml starts them; what the sample does wrong on purpose is all that is refused."""
    stage = measured.stage
    before = _counted(stage, "delaystream_requests_rejected_total")
    service = compose()["services"]["producer"]
    mounts = dict(mount.removesuffix(":ro").split(":")[::-1] for mount in service["volumes"])
    interpreter, script = service["entrypoint"]
    assert interpreter == "python"
    producing = subprocess.run(
        [sys.executable, ROOT / mounts[script]],
        env=stage.environment("producer", REQUESTS="300", REQUESTS_PER_SECOND="150"),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert producing.returncode == 0, producing.stderr.decode()
    consumer = [sys.executable, "-m", "delaystream", *compose()["services"]["consumer"]["command"]]
    enough = str(measured.truth.sent["soon"] + 20)
    watching = subprocess.run(
        [*consumer, "--from-beginning", "--count", enough, "--timeout", "30"],
        env=stage.environment("consumer") | {"COLUMNS": "200", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert watching.returncode == 0, watching.stderr
    assert "customer-" in watching.stdout
    wait(lambda: _counted(stage, "delaystream_requests_rejected_total") >= before + 3, "the three wrong ones")
    codes = {
        code
        for w in stage.workers.values()
        for labels, _ in w.metrics()["delaystream_requests_rejected_total"]
        for code in re.findall(r'code="([^"]*)"', labels)
    }
    assert codes == {"invalid-delay", "quarantined"}


def test_workers_end_cleanly(measured: Measured) -> None:
    """Last: as `docker compose down` ends them."""
    for worker in measured.stage.workers.values():
        assert worker.terminate() == 0, worker.output()[-6000:]
    console = measured.stage.console
    assert console is not None
    assert console.terminate() == 0, console.output()[-6000:]
