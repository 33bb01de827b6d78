"""What docker-compose.yml describes, as processes: Kafka, workers, Prometheus, from the same files.

Only addresses, paths and Prometheus' intervals are replaced, because all of it shares one machine and a test
has no hour to wait.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from delaystream.dev import EmbeddedBroker
from delaystream.dev.ports import choose_port
from delaystream.dev.process import GuardedProcess
from tests.deploy.consoles import Console, token
from tests.integration.harness import Worker, wait
from tests.integration.harness_kafka import Kafka

ROOT = Path(__file__).resolve().parents[3]
#: Allowed beyond what the file allows, and never created: a destination in trouble.
MISSING = "missing"
_STOP_MS = 10_000

Sample = tuple[dict[str, str], float]


def compose() -> dict[str, Any]:
    """docker-compose.yml as it stands, its anchors resolved."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus server, by its address."""

    url: str

    def get(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer of its API; AssertionError with its words when it refuses."""
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {parameters}: {error.read().decode()}") from error

    def query(self, expression: str, at_s: float) -> list[Sample]:
        """The samples of an instant vector at that time."""
        data = self.get("query", query=expression, time=f"{at_s:.3f}")
        assert data["resultType"] == "vector", expression
        return [(sample["metric"], float(sample["value"][1])) for sample in data["result"]]


class Stage:
    """The services; started in the order in which their dependencies are."""

    def __init__(self, directory: Path, prometheus: Path, services: ExitStack) -> None:
        self.directory = directory
        self._prometheus = prometheus
        self._services = services
        broker = EmbeddedBroker(directory / "kafka")
        services.callback(broker.kill)
        self.kafka = Kafka(broker.start().bootstrap_servers)
        self.workers: dict[str, Worker] = {}
        #: what knows the token that Prometheus shows the console
        self.token, known = token()
        self._tokens = directory / "tokens.toml"
        self._tokens.write_text(known)
        self.console: Console | None = None
        self.ports = {f"worker-{n}:8642": choose_port() for n in (1, 2)}

    def environment(self, service: str, **others: str) -> dict[str, str]:
        """A service's environment from the file, with this stage's addresses, and nothing of the caller's."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DELAYSTREAM_")}
        written = compose()["services"][service]["environment"]
        bootstrap = self.kafka.bootstrap
        here = {
            name: value.replace("kafka:9092", bootstrap).replace("localhost:29092", bootstrap)
            for name, value in written.items()
        }
        return kept | here | others

    def apply_topics(self) -> None:
        """The service `topics`, and the topics that the service `destinations` creates."""
        command = [sys.executable, "-m", "delaystream", *compose()["services"]["topics"]["command"]]
        subprocess.run(command, env=self.environment("topics"), check=True, capture_output=True)
        (script,) = compose()["services"]["destinations"]["command"]
        for topic in script.partition(" in ")[2].partition(";")[0].split():
            self.kafka.create(topic, 4)

    def start_worker(self, service: str) -> Worker:
        """A worker as the file describes it, to ready."""
        allowed = compose()["services"][service]["environment"]["DELAYSTREAM_DESTINATIONS_ALLOW"]
        environment = self.environment(
            service,
            DELAYSTREAM_DATA_DIR=str(self.directory / service),
            DELAYSTREAM_HTTP_HOST="127.0.0.1",
            DELAYSTREAM_HTTP_PORT=str(self.ports[f"{service}:8642"]),
            DELAYSTREAM_DESTINATIONS_ALLOW=f"{allowed},{MISSING}",
        )
        worker = Worker(environment, self.directory / f"{service}.log")
        self._services.callback(lambda: worker.kill() if worker.alive else None)
        self.workers[service] = worker
        return worker.wait_ready()

    def start_console(self) -> Console:
        """A console as the file describes it, but for tokens, as the chart has it; to ready."""
        console = Console(self.environment("console"), self.directory, "console", self._tokens)
        self._services.callback(lambda: console.kill() if console.alive else None)
        self.console = console
        console.wait_ready()
        return console

    def start_prometheus(self) -> Prometheus:
        """Prometheus with deploy/prometheus.yml and the rules that the file mounts."""
        written = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())
        configuration = self.directory / "prometheus.yml"
        configuration.write_text(yaml.safe_dump(self._adapted(written)))
        address = f"127.0.0.1:{choose_port()}"
        command: list[str | Path] = [
            self._prometheus,
            f"--config.file={configuration}",
            f"--storage.tsdb.path={self.directory / 'prometheus'}",
            f"--web.listen-address={address}",
            "--log.level=warn",
        ]
        process = GuardedProcess(command, output=self.directory / "prometheus.log")
        self._services.callback(process.stop, _STOP_MS)
        server = Prometheus(f"http://{address}")
        wait(lambda: reachable(server.url), "Prometheus to be ready")
        return server

    def _adapted(self, written: Mapping[str, Any]) -> dict[str, Any]:
        adapted = json.loads(json.dumps(written))
        adapted["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s", "scrape_timeout": "1s"}
        mounts = dict(
            mount.removesuffix(":ro").split(":")
            for mount in compose()["services"]["prometheus"]["volumes"][:2]
        )
        places = {inside: str((ROOT / outside).resolve()) for outside, inside in mounts.items()}
        adapted["rule_files"] = [
            rule.replace(inside, place)
            for rule in adapted["rule_files"]
            for inside, place in places.items()
            if rule.startswith(f"{inside}/")
        ]
        assert len(adapted["rule_files"]) == len(written["rule_files"]), "a rule file is not mounted"
        for job in adapted["scrape_configs"]:
            for static in job["static_configs"]:
                static["targets"] = [f"127.0.0.1:{self.ports[target]}" for target in static["targets"]]
        # That of the chart's ServiceMonitor: in Compose the console listens on the machine's loopback alone.
        assert self.console is not None
        consoles = {"job_name": "console", "static_configs": [{"targets": [self.console.address]}]}
        adapted["scrape_configs"].append(consoles | {"authorization": {"credentials": self.token}})
        return dict(adapted)


def reachable(url: str) -> bool:
    """Whether a Prometheus says that it is ready."""
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def staged(directory: Path, prometheus: Path) -> Iterator[Stage]:
    """A stage whose services end with it, the last one first."""
    with ExitStack() as services:
        yield Stage(directory, prometheus, services)
