"""Workers as processes: started as a user starts them, then watched, paused, stopped and killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import psutil

from tests.integration.harness_kafka import Headers, Kafka, Reader

_READY_SECONDS = 60.0
_STOP_SECONDS = 30.0
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


def command(*arguments: str) -> list[str]:
    """The command line of ``delaystream`` in this very environment."""
    return [sys.executable, "-m", "delaystream", *arguments]


def wait(condition: Callable[[], bool], what: str, seconds: float = 30.0, every: float = 0.05) -> None:
    """Until the condition holds; AssertionError that names what was waited for when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(every)


class Worker:
    """One ``delaystream worker`` process."""

    def __init__(self, environment: Mapping[str, str], log: Path, arguments: Sequence[str] = ()) -> None:
        self.log = log
        self.started = time.time()
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command(arguments),
                env=dict(environment),
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
            )
        self.usage = psutil.Process(self._process.pid)
        self._port: int | None = None
        self._paused = False

    def command(self, arguments: Sequence[str]) -> list[str]:
        """What is started."""
        return command("worker", *arguments)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended: negative for a signal, None while it lives."""
        return self._process.poll()

    @property
    def alive(self) -> bool:
        """Whether the process is there, paused or not."""
        return self.exit_code is None

    @property
    def reason(self) -> str:
        """Why it ended, as its last log line tells; all of its output when that is not a line of the log."""
        last = self.output().rstrip().rsplit("\n", 1)[-1]
        try:
            return str(json.loads(last)["reason"])
        except (ValueError, KeyError):
            return self.output()

    def output(self) -> str:
        """All it has printed and logged."""
        return self.log.read_text(errors="replace")

    def _http_port(self) -> int | None:
        # Found by the socket it listens on, so that the harness hangs on no wording of the log.
        if self._port is None and self.alive:
            try:
                for connection in self.usage.net_connections(kind="tcp"):
                    if connection.status == psutil.CONN_LISTEN:
                        self._port = connection.laddr.port
            except psutil.Error:
                return None
        return self._port

    def get(self, path: str, timeout: float = 5.0) -> tuple[int, str]:
        """Status and body of an HTTP GET; status 0 when nobody answers."""
        port = self._http_port()
        if port is None:
            return 0, ""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=timeout) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    @property
    def ready(self) -> bool:
        """Whether /health/ready says yes."""
        return self.get("/health/ready")[0] == 200

    def wait_ready(self, seconds: float = _READY_SECONDS) -> Worker:
        """Until it is ready; AssertionError with its log when it exits or takes too long."""
        deadline = time.monotonic() + seconds
        while not self.ready:
            assert self.alive, f"the worker exited with {self.exit_code}:\n{self.output()[-6000:]}"
            assert time.monotonic() < deadline, f"not ready in {seconds} s:\n{self.output()[-6000:]}"
            time.sleep(0.05)
        return self

    def metrics(self) -> dict[str, list[tuple[str, float]]]:
        """All samples of /metrics by name: (labels as written, value)."""
        samples: dict[str, list[tuple[str, float]]] = {}
        for name, labels, value in _SAMPLE.findall(self.get("/metrics")[1]):
            samples.setdefault(name, []).append((labels, float(value)))
        return samples

    def metric(self, name: str, label: str = "") -> float:
        """The sum of a metric's samples whose labels hold ``label``."""
        return sum(value for labels, value in self.metrics().get(name, []) if label in labels)

    def signal(self, number: int) -> None:
        """Send a signal; nothing when the process is gone."""
        if self.alive:
            self._process.send_signal(number)

    def pause(self) -> None:
        """SIGSTOP: the process stands still and knows nothing of it."""
        self.signal(signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)
        self._paused = False

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self.signal(signal.SIGKILL)
        self._process.wait(_STOP_SECONDS)

    def terminate(self, seconds: float = _STOP_SECONDS) -> int:
        """SIGTERM, and wait for the end; AssertionError when it takes too long. The exit code."""
        if self._paused:
            self.resume()
        self.signal(signal.SIGTERM)
        return self.wait_exit(seconds)

    def wait_exit(self, seconds: float = _STOP_SECONDS) -> int:
        """Until it ends by itself; AssertionError with its log when it takes too long. The exit code."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s:\n{self.output()[-6000:]}") from None


class Deployment:
    """One application: its id, its topics, its data directory, its workers."""

    def __init__(self, kafka: Kafka, directory: Path, *, partitions: int = 2, **settings: str) -> None:
        self.kafka = kafka
        self.directory = directory
        self.partitions = partitions
        self.app_id = f"app-{uuid4().hex[:8]}"
        self.requests = f"{self.app_id}.requests"
        self.commands = f"{self.app_id}.commands"
        self.changelog = f"{self.app_id}.changelog"
        self.events = f"{self.app_id}.events"
        self.dead_letters = f"{self.app_id}.dead-letters"
        self.receipts = f"{self.app_id}.receipts"
        self.settings = settings
        self.workers: list[Worker] = []
        self._destinations: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            if worker.alive:
                worker.kill()

    def topic(self, name: str) -> str:
        """A topic name of this application's own."""
        return f"{self.app_id}.{name}"

    def destination(self, name: str = "out", partitions: int = 1, **config: str) -> str:
        """Create a destination whose records carry the broker's append time; a name may be asked for again.

        Tests of several files share an application.
        """
        self._destinations[name] += 1
        if (times := self._destinations[name]) > 1:
            name = f"{name}-{times}"
        config = {"message_timestamp_type": "LogAppendTime", **config}
        return self.kafka.create(self.topic(name), partitions, config)

    def data_directory(self, name: str = "") -> Path:
        """The data directory of the worker of that name."""
        return self.directory / f"{self.app_id}-state{name}"

    def environment(self, name: str = "") -> dict[str, str]:
        """The environment of the worker of that name: nothing of the caller's own settings."""
        mine = {key: value for key, value in os.environ.items() if not key.startswith("DELAYSTREAM_")}
        return mine | {
            "DELAYSTREAM_KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap,
            "DELAYSTREAM_APP_ID": self.app_id,
            "DELAYSTREAM_DATA_DIR": str(self.data_directory(name)),
            "DELAYSTREAM_HTTP_PORT": "0",
            "DELAYSTREAM_REQUEST_TOPICS": self.requests,
            "DELAYSTREAM_COMMANDS_TOPIC": self.commands,
            "DELAYSTREAM_CHANGELOG_TOPIC": self.changelog,
            "DELAYSTREAM_EVENTS_TOPIC": self.events,
            "DELAYSTREAM_DEAD_LETTERS_TOPIC": self.dead_letters,
            "DELAYSTREAM_RECEIPTS_TOPIC": self.receipts,
            "DELAYSTREAM_DESTINATIONS_ALLOW": "*",
            "DELAYSTREAM_SESSION_TIMEOUT_MS": "6000",
            **self.settings,
        }

    def run(
        self, *arguments: str, stdin: bytes = b"", timeout: float = 60.0
    ) -> subprocess.CompletedProcess[bytes]:
        """Run another command of ``delaystream`` against this application."""
        return subprocess.run(
            command(*arguments),
            env=self.environment(),
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    def apply_topics(self) -> Deployment:
        """Create the application's topics with ``delaystream topics apply``."""
        environment = "single-node" if self.kafka.replicas == 1 else "production"
        done = self.run("topics", "apply", "--environment", environment, "--partitions", str(self.partitions))
        assert done.returncode == 0, f"topics apply: {done.stdout.decode()}{done.stderr.decode()}"
        return self

    def worker(self, name: str = "", *arguments: str, **environment: str) -> Worker:
        """Start a worker; its log is appended to the file of its name."""
        log = self.directory / f"{self.app_id}-worker{name}.log"
        worker = Worker(self.environment(name) | environment, log, arguments)
        self.workers.append(worker)
        return worker

    def request(
        self,
        value: bytes | None,
        control: Mapping[str, str],
        *,
        key: bytes | None = None,
        headers: Headers = (),
        partition: int = -1,
        topic: str | None = None,
        timestamp_ms: int = 0,
    ) -> tuple[int, int]:
        """Send one request; ``control`` has the names without their prefix. Where it stands."""
        ours = [(f"delaystream-{name}", text.encode()) for name, text in control.items()]
        record = (key, value, [*ours, *headers])
        return self.kafka.produce(
            topic or self.requests, [record], partition=partition, timestamp_ms=timestamp_ms
        )[0]

    def reader(self, *topics: str, isolation: str = "read_committed") -> Reader:
        """A reader of these topics, from their beginning."""
        partitions = {topic: self.kafka.partitions(topic) for topic in topics}
        return Reader(self.kafka.bootstrap, partitions, isolation)
