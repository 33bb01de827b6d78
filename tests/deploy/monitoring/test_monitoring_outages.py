"""The alerts as they are used: a real Prometheus, real workers that are started again, real outages.

All outages run beside each other, each in an application of its own; that of Kafka has a broker of its own.
Durations are divided by OUTAGE_FACTOR, 10 unless it says otherwise. With 1 it takes half an hour:

    OUTAGE_FACTOR=1 python -m pytest -s tests/deploy/monitoring/test_monitoring_outages.py

It prints the table of docs/monitoring.md.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from delaystream.dev import EmbeddedBroker
from delaystream.dev.ports import choose_port
from delaystream.dev.process import GuardedProcess
from tests.deploy.conftest import Tool
from tests.deploy.monitoring.outages import (
    AFTER_S,
    BEFORE_S,
    OUTAGE_S,
    OUTAGES,
    STARTS_S,
    Outage,
    Stage,
)
from tests.deploy.monitoring.stage import Prometheus, reachable
from tests.deploy.monitoring.supervised import Application, configuration
from tests.integration.harness import wait
from tests.integration.harness_kafka import Kafka

FACTOR = float(os.environ.get("OUTAGE_FACTOR", "10"))
#: Starting a dozen workers and two brokers on a small machine takes a minute, whatever the factor.
pytestmark = pytest.mark.timeout(300 + 1.5 * (BEFORE_S + OUTAGE_S + AFTER_S) / FACTOR)
#: No disk but that of one application is watched: it is this machine's, and whoever else fills it.
_ANY_DISK = {"diskFreeShare": 1e-9, "diskFreeBytes": 1}
#: A second of a machine that has two cores for a dozen workers and a few brokers is none of a deployment's.
_BUSY = {"delayBound": "5.0"}
#: Its rules are loaded twice, as by two releases of the chart.
_TWICE = "missing"


class Observed:
    """What Prometheus has told of every application, in seconds of a real outage."""

    def __init__(self, prometheus: Prometheus, stages: Mapping[str, Stage], began_s: float) -> None:
        self.prometheus = prometheus
        self.stages = stages
        self.began_s = began_s
        ended_s = time.time()
        before_s = began_s - BEFORE_S / FACTOR
        series = prometheus.get(
            "query_range",
            query='ALERTS{alertname=~"Delaystream.*", alertstate="firing"}',
            start=f"{before_s:.3f}",
            end=f"{ended_s:.3f}",
            step=f"{max(0.2, 2 / FACTOR):.3f}",
        )["result"]
        names = {stage.application.app_id: name for name, stage in stages.items()}
        began = {outage.name: began_s + outage.began_s / FACTOR for outage in OUTAGES}
        #: by outage and alert: when it first fired, since the outage began
        self.first_s: dict[str, dict[str, float]] = {name: {} for name in stages}
        for each in series:
            name = names[each["metric"]["app_id"]]
            told = self.first_s[name]
            at_s = (float(each["values"][0][0]) - began[name]) * FACTOR
            alert = each["metric"]["alertname"]
            told[alert] = min(at_s, told.get(alert, at_s))


@pytest.fixture(scope="module")
def observed(tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    directory = tmp_path_factory.mktemp("outages")
    with ExitStack() as ending:
        brokers = {alone: EmbeddedBroker(directory / f"kafka-{alone}") for alone in (False, True)}
        for broker in brokers.values():
            ending.callback(broker.kill)
            broker.start()
        stages = {
            outage.name: _staged(outage, directory, brokers[outage.alone], ending) for outage in OUTAGES
        }
        for outage in OUTAGES:
            application = stages[outage.name].application
            for supervised in application.workers:
                supervised.worker.wait_ready(120)
            for console in application.consoles:
                console.wait_ready(120)
        prometheus = _prometheus(tool("prometheus"), directory, stages, ending)
        for stage in stages.values():
            stage.load()
        time.sleep(BEFORE_S / FACTOR)
        began_s = time.time()
        # That of Kafka waits for what it sends to be stored, and is the last.
        for outage in reversed(OUTAGES):
            outage.begin(stages[outage.name])
        time.sleep((OUTAGE_S + AFTER_S) / FACTOR + STARTS_S)
        for stage in stages.values():
            stage.over.set()
        found = Observed(prometheus, stages, began_s)
        for stage in stages.values():
            stage.end()
        print(table(found))
        yield found


def _staged(outage: Outage, directory: Path, broker: EmbeddedBroker, ending: ExitStack) -> Stage:
    home = directory / outage.name.replace(" ", "-")
    home.mkdir()
    application = Application(
        Kafka(broker.bootstrap_servers),
        home,
        FACTOR,
        partitions=outage.partitions,
        settings={
            "DELAYSTREAM_DESTINATION_RATES": "*.limited=2/s",
            "DELAYSTREAM_TRANSACTION_TIMEOUT_MS": "2000",
            **outage.settings,
        },
    )
    for name in ("limited", "held"):
        application.deployment.destination(name)
    ending.callback(application.stop)
    application.start(outage.workers, outage.clock_ahead_s)
    application.start_consoles(outage.consoles)
    return Stage(application, broker, FACTOR)


def _prometheus(program: Path, directory: Path, stages: Mapping[str, Stage], ending: ExitStack) -> Prometheus:
    rules = directory / "rules"
    rules.mkdir()
    for outage in OUTAGES:
        application = stages[outage.name].application
        made = application.rules(**_ANY_DISK | _BUSY | dict(outage.thresholds(directory)))
        copies = ("first", "second") if outage.name == _TWICE else ("first",)
        for copy in copies:
            for name, found in made.items():
                (rules / f"{copy}-{application.app_id}-{name}").write_text(yaml.safe_dump(found))
    applications = [stage.application for stage in stages.values()]
    written = configuration(directory, applications, [f"{rules}/*.yml"], FACTOR)
    address = f"127.0.0.1:{choose_port()}"
    process = GuardedProcess(
        [
            program,
            f"--config.file={written}",
            f"--storage.tsdb.path={directory / 'prometheus'}",
            f"--web.listen-address={address}",
            "--log.level=warn",
        ],
        output=directory / "prometheus.log",
    )
    ending.callback(process.stop, 10_000)
    server = Prometheus(f"http://{address}")
    wait(lambda: reachable(server.url), "Prometheus to be ready")
    return server


def table(found: Observed) -> str:
    """Which alert after how long, for the documentation."""
    lines = ["", "| outage | alerts, after |", "|---|---|"]
    for outage in OUTAGES:
        told = sorted(found.first_s[outage.name].items(), key=lambda item: item[1])
        shown = ", ".join(f"`{alert}` {at_s / 60:.1f} min" for alert, at_s in told) or "none"
        lines.append(f"| {outage.title} | {shown} |")
    return "\n".join([*lines, ""])


# -- what is promised ------------------------------------------------------------------------------------


@pytest.mark.parametrize("outage", OUTAGES, ids=lambda outage: outage.name)
def test_an_outage_is_told_in_time_and_nothing_else(observed: Observed, outage: Outage) -> None:
    told = observed.first_s[outage.name]
    must = {
        alert: by_s if by_s <= OUTAGE_S else by_s + STARTS_S * FACTOR for alert, by_s in outage.must.items()
    }
    missing = {alert: by_s for alert, by_s in must.items() if not told.get(alert, 1e9) <= by_s}
    assert not missing, f"not told in time: {missing}; told: {told}"
    unwanted = {alert: at_s for alert, at_s in told.items() if alert not in outage.must.keys() | outage.may}
    assert not unwanted, f"nobody wanted to hear {unwanted}"


def test_kafka_away_pages_while_it_is_away(observed: Observed) -> None:
    """Workers end and start again meanwhile; somebody is told nevertheless, long before it is over."""
    told = observed.first_s["kafka"]
    assert any(worker.restarts for worker in observed.stages["kafka"].application.workers)
    critical = {"DelaystreamOverdueGrows", "DelaystreamDown", "DelaystreamNoProgress"}
    assert min(told.get(alert, 1e9) for alert in critical) < OUTAGE_S * 0.75


def test_nothing_is_told_before_anything_happens(observed: Observed) -> None:
    early = {
        (name, alert): at_s
        for name, told in observed.first_s.items()
        for alert, at_s in told.items()
        if at_s < 0
    }
    assert not early


def test_rules_that_are_loaded_twice_tell_the_same(observed: Observed) -> None:
    """Alertmanager gets an alert twice with the same labels: one. Prometheus keeps one of two samples."""
    groups: list[dict[str, Any]] = observed.prometheus.get("rules")["groups"]
    assert len(groups) == 5 * (len(OUTAGES) + 1)
    twice = observed.stages[_TWICE].application.app_id
    for group in groups:
        for rule in group["rules"]:
            error = rule.get("lastError", "")
            harmless = twice in group["file"] and "sample" in error
            assert rule["health"] == "ok" or harmless, f"{group['name']}, {rule['name']}: {error}"
    alerts = observed.prometheus.get("alerts")["alerts"]
    parked = [alert for alert in alerts if alert["labels"]["app_id"] == twice and alert["state"] == "firing"]
    assert len(parked) == 2
    assert parked[0]["labels"] == parked[1]["labels"]


def test_alerts_name_the_pod(observed: Observed) -> None:
    """Whoever is woken reads which worker it is, not an address."""
    alerts = observed.prometheus.get("alerts")["alerts"]
    gone = observed.stages["one gone"].application.workers[1].name
    [told] = [
        alert
        for alert in alerts
        if alert["labels"]["alertname"] == "DelaystreamWorkerDown" and alert["labels"]["pod"] == gone
    ]
    assert f"{gone} does not answer" in told["annotations"]["summary"]
