"""Applications as they run: workers under a supervisor that starts them again, and their rules.

All durations of an outage, of the rules and of the workers' settings are divided by one factor, so that ten
minutes take one.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from delaystream.dev.ports import choose_port
from deploy import rules as source
from tests.deploy.consoles import Console, token
from tests.integration.harness import Deployment, Worker, command
from tests.integration.harness_kafka import Kafka

#: Seconds that an orchestrator waits before it starts a container again: 10 s, doubled each time up to 5 min.
_PAUSE_S: Final = 10.0
_LONGEST_PAUSE_S: Final = 300.0
#: A worker that has run for so long begins with the first pause again.
_HEALTHY_S: Final = 600.0
#: Prometheus' scrape and evaluation interval, as the chart has it.
SCRAPE_S: Final = 15.0
_DURATION: Final = re.compile(r"(?<=\[)(\d+)([smhd])(?=\])|(?<=offset )(\d+)([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
#: The settings that are durations of an outage, s: the defaults.
_SETTINGS_S: Final = {
    "SESSION_TIMEOUT_MS": 45,
    "FAILURE_TIMEOUT_MS": 300,
    "PROGRESS_TIMEOUT_MS": 60,
    "STABLE_TIMEOUT_MS": 60,
    "RESTART_BACKOFF_MAX_MS": 10,
    "DESTINATION_BACKOFF_MAX_MS": 60,
}
#: Its clock is wrong by so much from its start on; everything else of it is a worker.
_WRONG_CLOCK: Final = """
import sys, time
right = time.time_ns
time.time_ns = lambda: right() + int({seconds} * 1e9)
from delaystream.cli import main
sys.exit(main())
"""


def scaled_text(text: str, factor: float) -> str:
    """A duration of Prometheus, divided."""
    return f"{max(1, round(int(text[:-1]) * _SECONDS[text[-1]] * 1000 / factor))}ms"


def scaled(found: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """Rules with every duration divided by a factor."""
    groups = []
    for group in found["groups"]:
        rules = []
        for rule in group["rules"]:
            rule = dict(rule)  # noqa: PLW2901
            rule["expr"] = _DURATION.sub(lambda each: scaled_text(each[0], factor), rule["expr"])
            for name in ("for", "keep_firing_for"):
                if name in rule:
                    rule[name] = scaled_text(rule[name], factor)
            rules.append(rule)
        groups.append({"name": group["name"], "rules": rules})
    return {"groups": groups}


class Supervised:
    """One worker: started again whenever it ends, after a pause that grows, until it is left alone."""

    def __init__(self, deployment: Deployment, name: str, factor: float, clock_ahead_s: float = 0.0) -> None:
        self._deployment = deployment
        self.name = f"{deployment.app_id}{name}"
        self.port = choose_port()
        self._factor = factor
        self._clock_ahead_s = clock_ahead_s
        self._suffix = name
        self._ended = threading.Event()
        #: how often it was started again
        self.restarts = 0
        self.worker = self._start()
        self._thread = threading.Thread(target=self._watch, name=self.name, daemon=True)
        self._thread.start()

    def _start(self) -> Worker:
        environment = {"DELAYSTREAM_HTTP_PORT": str(self.port), "DELAYSTREAM_INSTANCE_ID": self.name}
        if not self._clock_ahead_s:
            return self._deployment.worker(self._suffix, **environment)
        program = _WRONG_CLOCK.format(seconds=self._clock_ahead_s)
        return _WrongClock(
            self._deployment.environment(self._suffix) | environment,
            self._deployment.directory / f"{self.name}.log",
            program,
        )

    def _watch(self) -> None:
        pause_s = _PAUSE_S / self._factor
        while not self._ended.wait(0.05):
            if self.worker.alive:
                continue
            if time.time() - self.worker.started > _HEALTHY_S / self._factor:
                pause_s = _PAUSE_S / self._factor
            if self._ended.wait(pause_s):
                return
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S / self._factor)
            self.restarts += 1
            self.worker = self._start()

    def leave(self) -> None:
        """Kill the worker, and start it no more."""
        self._ended.set()
        self._thread.join()
        if self.worker.alive:
            self.worker.kill()


class _WrongClock(Worker):
    """A worker whose process sees another time."""

    def __init__(self, environment: Mapping[str, str], log: Path, program: str) -> None:
        self._program = program
        super().__init__(environment, log)

    def command(self, arguments: Any) -> list[str]:
        """The interpreter with that program, in place of the command."""
        return [sys.executable, "-c", self._program, "worker", *arguments]


class Application:
    """One application with its supervised workers, and its consoles."""

    def __init__(
        self,
        kafka: Kafka,
        directory: Path,
        factor: float,
        *,
        partitions: int,
        settings: Mapping[str, str],
    ) -> None:
        self._factor = factor
        durations = {
            f"DELAYSTREAM_{name}": str(max(1_000, round(seconds * 1000 / factor)))
            for name, seconds in _SETTINGS_S.items()
        }
        self.deployment = Deployment(kafka, directory, partitions=partitions, **{**durations, **settings})
        self.deployment.apply_topics()
        self.out = self.deployment.destination()
        self.workers: list[Supervised] = []
        self.consoles: list[Console] = []
        self.tokens = directory / "tokens.toml"
        #: that of Prometheus
        self.token = ""

    @property
    def app_id(self) -> str:
        """The application's id."""
        return self.deployment.app_id

    def start(self, count: int, clock_ahead_s: float = 0.0) -> None:
        """Start so many workers."""
        for number in range(count):
            self.workers.append(Supervised(self.deployment, f"-{number}", self._factor, clock_ahead_s))

    def start_consoles(self, count: int) -> None:
        """Start so many consoles, with a file of tokens in common."""
        self.token, known = token()
        self.tokens.write_text(known)
        environment, directory = self.deployment.environment(), self.deployment.directory
        for number in range(count):
            name = f"{self.app_id}-console-{number}"
            self.consoles.append(Console(environment, directory, name, self.tokens))

    def stop(self) -> None:
        """End them all, and start none again."""
        for worker in self.workers:
            worker.leave()
        for console in self.consoles:
            if console.alive:
                console.kill()

    def rules(self, **changed: Any) -> dict[str, dict[str, Any]]:
        """The application's rules, scaled; thresholds that are durations too."""
        values = source.thresholds()
        durations = {
            name: values[name] / self._factor
            for name in ("overdueSeconds", "noCommitSeconds", "heldUpSeconds", "consoleBehindSeconds")
        }
        there = {"workers": len(self.workers), "consoles": len(self.consoles)}
        thresholds = {**there, **durations, **changed}
        return {
            name: scaled(found, self._factor) for name, found in source.rules(self.app_id, thresholds).items()
        }

    def targets(self) -> list[dict[str, Any]]:
        """What Prometheus scrapes: an address each, and the name of its pod."""
        return [
            {"targets": [f"127.0.0.1:{worker.port}"], "labels": {"pod": worker.name}}
            for worker in self.workers
        ]

    def console_jobs(self) -> list[dict[str, Any]]:
        """What it scrapes of consoles, with the token that they ask for."""
        targets = [
            {"targets": [console.address], "labels": {"pod": console.name}} for console in self.consoles
        ]
        job = {
            "job_name": f"consoles of {self.app_id}",
            "authorization": {"credentials": self.token},
            "static_configs": targets,
        }
        return [job] if targets else []


def configuration(
    directory: Path, applications: list[Application], rule_files: list[str], factor: float
) -> Path:
    """A configuration of Prometheus for them; the job's name says nothing."""
    interval = scaled_text(f"{int(SCRAPE_S)}s", factor)
    path = directory / "prometheus.yml"
    path.write_text(
        yaml.safe_dump(
            {
                "global": {
                    "scrape_interval": interval,
                    "evaluation_interval": interval,
                    "scrape_timeout": interval,
                },
                "rule_files": rule_files,
                "scrape_configs": [
                    {
                        "job_name": "pods",
                        "static_configs": [each for one in applications for each in one.targets()],
                    },
                    *(job for one in applications for job in one.console_jobs()),
                ],
            }
        )
    )
    return path


__all__ = ["Application", "Supervised", "command", "configuration", "scaled"]
