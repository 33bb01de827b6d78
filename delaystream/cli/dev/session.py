"""One run of `delaystream dev`: brokers, topics, worker, samples and console, until told to stop."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delaystream.adapters.security.client_config import ClientConfig
from delaystream.cli.dev.console import ConsoleProcess, answers
from delaystream.cli.dev.parked import ParkedDestinations
from delaystream.cli.operate.console import missing_packages
from delaystream.cli.output import complain, say
from delaystream.cli.rendering import delivery_line, number_of
from delaystream.client import Client, RequestRecord, UnavailableError, schedule_request
from delaystream.client.kafka.reading import Reader
from delaystream.config import Settings
from delaystream.core.instants import format_instant
from delaystream.dev.broker import HEAP_MEBIBYTES
from delaystream.dev.cluster import EmbeddedCluster
from delaystream.dev.errors import DataDirInUseError, DataDirUnusableError, PortInUseError
from delaystream.dev.ports import choose_port, is_free
from delaystream.dev.process import GuardedProcess
from delaystream.dev.progress import on_stderr
from delaystream.exit_codes import ExitCode
from delaystream.topics import Environment, TopicSpec, apply, connect, plan

DESTINATION = "reminders"

WORKER_READY_TIMEOUT_S = 90.0
WORKER_STOP_TIMEOUT_MS = 20_000
SAMPLES_TIMEOUT_S = 30.0

HEAP_OF_SEVERAL_MEBIBYTES = 256
"""Heap of each broker, if there are several: each process then takes some 240 MB."""

_LOG_LINES = 25
_OF_ANOTHER = ("DELAYSTREAM_KAFKA_", "DELAYSTREAM_CONSOLE_")
_LOOK_S = 0.1


class _WorkerEnded(Exception):
    """The worker's process ended by itself."""


class _BrokerEnded(Exception):
    """Too many brokers ended by themselves: the others have no majority."""


@dataclass(frozen=True)
class Plan:
    """The options of a run. `port` is the first broker's. `http_port` and `console_port` None: the settings'
    port if it is free, otherwise another one."""

    settings: Settings
    data_dir: Path
    brokers: int
    port: int
    http_port: int | None
    partitions: int
    samples: bool
    with_worker: bool
    with_console: bool
    console_port: int | None
    forwarded: Sequence[str]
    """Options that give the settings to the worker and the console."""


class Session:
    """Owns the brokers, the worker and the console of one run. They always stop with it, the brokers last."""

    def __init__(self, wanted: Plan) -> None:
        self._plan = wanted
        self._settings = wanted.settings
        self._data_dir = wanted.data_dir
        self._cluster = EmbeddedCluster(
            wanted.data_dir / "broker",
            brokers=wanted.brokers,
            port=wanted.port,
            heap_mebibytes=HEAP_MEBIBYTES if wanted.brokers == 1 else HEAP_OF_SEVERAL_MEBIBYTES,
            progress=on_stderr,
        )
        self._ended: set[int] = set()
        self._worker: GuardedProcess | None = None
        self._worker_log = wanted.data_dir / "worker.log"
        self._http_port = 0
        self._console: ConsoleProcess | None = None
        self._parked: ParkedDestinations | None = None

    def run(self) -> ExitCode:
        """Start everything, stay until SIGINT or SIGTERM, stop all. Raises BrokerError, TopicsError."""
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataDirUnusableError(
                f"The data directory {self._data_dir} cannot be made: {error.strerror}; name another one by "
                "--data-dir."
            ) from error
        # The broker here has no login and no TLS: environment variables about another cluster, or about the
        # database of its console, must not reach what talks to this one.
        for name in [name for name in os.environ if name.startswith(_OF_ANOTHER)]:
            del os.environ[name]
        with _interruptible():
            try:
                self._start_kafka()
                # The watch begins before the worker: events that came due while nothing ran arrive as soon as
                # it runs.
                with (
                    Reader(self._client.confluent(), DESTINATION) as reader,
                    Reader(self._client.confluent(), self._settings.events_topic) as events,
                ):
                    self._parked = ParkedDestinations(events)
                    if self._plan.with_worker:
                        self._start_worker()
                    self._prepare_console()
                    _say("ready")
                    _say(self._instructions())
                    self._stay(reader)
            except KeyboardInterrupt:
                _say("\nstopping ...")
            except _WorkerEnded:
                return self._report_worker()
            except _BrokerEnded:
                return ExitCode.UNAVAILABLE
            finally:
                self._stop()
        return ExitCode.OK

    def _prepare_console(self) -> None:
        """Choose its port, before anything is said to be ready. Raises PortInUseError."""
        if not self._plan.with_console:
            return
        if missing := missing_packages():
            _say(f"no console: it needs {', '.join(missing)}; `pip install 'delaystream[console]'`")
            return
        port = _free_port(self._plan.console_port, self._settings.console_http_port)
        self._console = ConsoleProcess(self._data_dir, port, _complain)

    def _start_console(self) -> None:
        """Start it, unless it was; `_look` says when it answers.

        Its start takes a core for seconds, so the first delivery comes before it.
        """
        if self._console is not None and not self._console.started:
            servers = ["--bootstrap-server", self._cluster.bootstrap_servers]
            self._console.start([*self._plan.forwarded, *servers])

    def _start_kafka(self) -> None:
        brokers = self._plan.brokers
        _say("starting Kafka ..." if brokers == 1 else f"starting Kafka, {brokers} brokers ...")
        try:
            self._cluster.start()
        except (PortInUseError, DataDirInUseError) as error:
            # Somebody who starts a second session has usually forgotten the first.
            raise type(error)(f"{error}\n{_another(self._plan.port)}") from error
        if brokers > 1:
            _say(f"Kafka is at {self._cluster.bootstrap_servers}")
        self._client = ClientConfig.parse({"bootstrap.servers": self._cluster.bootstrap_servers})
        environment: Environment = "single-node" if brokers == 1 else "production"
        own = plan(self._settings, partitions=self._plan.partitions, environment=environment)
        alike = {setting: own[0].config[setting] for setting in ("max.message.bytes", "min.insync.replicas")}
        shown = TopicSpec(DESTINATION, self._plan.partitions, own[0].replication_factor, alike)
        changes = apply(connect(self._client.confluent()), [*own, shown])
        if created := [change.topic for change in changes if change.action == "created"]:
            _say(f"created the topics {', '.join(created)}")
        for change in changes:
            if change.topic not in created:
                _say(change.sentence)

    def _start_worker(self) -> None:
        self._http_port = _free_port(self._plan.http_port, self._settings.http_port)
        self._worker_log.unlink(missing_ok=True)
        arguments = [
            *self._plan.forwarded,
            "--bootstrap-server",
            self._cluster.bootstrap_servers,
            "--data-dir",
            str(self._data_dir / "worker"),
            "--destinations-allow",
            ",".join(self._settings.destinations_allow),
            "--http-port",
            str(self._http_port),
        ]
        _say("starting a worker ...")
        self._worker = GuardedProcess(
            [sys.executable, "-m", "delaystream", "worker", *arguments], output=self._worker_log
        )
        deadline = time.monotonic() + WORKER_READY_TIMEOUT_S
        while not self._worker_ready():
            self._look()
            if time.monotonic() > deadline:
                _complain(f"the worker is not ready after {WORKER_READY_TIMEOUT_S:g} s")
                raise _WorkerEnded
            time.sleep(_LOOK_S)

    def _worker_ready(self) -> bool:
        url = f"http://127.0.0.1:{self._http_port}/health/ready"
        return answers(url)

    def _stay(self, reader: Reader) -> None:
        if self._plan.with_worker:
            self._print_deliveries(reader, 0.5, "due while nothing ran:")
            if self._plan.samples:
                self._send_samples(reader)
        self._start_console()
        while True:
            self._print_deliveries(reader, 0.5)

    def _send_samples(self, reader: Reader) -> None:
        requests = samples(self._settings.request_topics[0], time.time_ns() // 1_000_000)
        with Client(self._cluster.bootstrap_servers) as client:
            for said, request in requests:
                client.send(request)
                _say(f"sent: {said}")
        _say(f"\nwhat lands on the topic {DESTINATION} (time, lateness, place, key: value):")
        missing = len(requests)
        deadline = time.monotonic() + SAMPLES_TIMEOUT_S
        while missing > 0 and time.monotonic() < deadline:
            printed = self._print_deliveries(reader, 0.5)
            missing -= printed
            if printed:
                self._start_console()
        if missing > 0:
            _complain(
                f"{number_of(missing, 'sample')} did not land within {SAMPLES_TIMEOUT_S:g} s, see "
                f"{self._worker_log}"
            )

    def _print_deliveries(self, reader: Reader, seconds: float, heading: str | None = None) -> int:
        printed = 0
        self._look()
        try:
            if self._parked is not None:
                for sentence in self._parked.look():
                    _say(sentence)
            for record in reader.read(seconds):
                if heading is not None and not printed:
                    _say(heading)
                _say(delivery_line(record))
                printed += 1
        except UnavailableError:
            self._look()
            raise
        return printed

    def _look(self) -> None:
        if self._console is not None and (url := self._console.look()):
            _say(f"console {url}")
        for node, broker in self._cluster.brokers.items():
            if broker.is_running or node in self._ended:
                continue
            self._ended.add(node)
            name = "Kafka" if self._plan.brokers == 1 else f"broker {node} ({broker.bootstrap_servers})"
            _complain(f"{name} ended by itself, see {broker.log_file}")
            if self._cluster.has_majority:
                _complain(f"the others go on; broker {node} is started again with the next `dev`")
            elif self._plan.brokers > 1:
                _complain("the others can do nothing without it")
        if not self._cluster.has_majority:
            raise _BrokerEnded
        if self._worker is not None and self._worker.poll() is not None:
            raise _WorkerEnded

    def _report_worker(self) -> ExitCode:
        code = None if self._worker is None else self._worker.poll()
        _complain(f"the worker ended by itself (exit code {code}); the end of {self._worker_log}:")
        if self._worker_log.exists():
            for line in self._worker_log.read_text(errors="replace").splitlines()[-_LOG_LINES:]:
                _complain(f"  {line}")
        return ExitCode(code) if code in set(ExitCode) - {ExitCode.OK} else ExitCode.CRASH

    def _stop(self) -> None:
        # The stop takes seconds, and each part has a bound. A second Ctrl-C must not leave a process behind.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        # The console first: it asks the brokers until its end.
        if self._console is not None:
            self._console.stop()
        if self._worker is not None and self._worker.poll() is None:
            self._worker.stop(WORKER_STOP_TIMEOUT_MS)
        ran = any(broker.is_running for broker in self._cluster.brokers.values())
        self._cluster.stop()
        if ran:
            _say("stopped")

    def _instructions(self) -> str:
        servers = self._cluster.bootstrap_servers
        topic = self._settings.request_topics[0]
        command = _command()
        metrics = (
            f"  metrics  http://127.0.0.1:{self._http_port}/metrics\n  logs     {self._worker_log}\n"
            if self._plan.with_worker
            else "  no worker runs: start one with\n"
            f"    {command} worker -b {servers} --destinations-allow '*'\n"
        )
        return f"""
Kafka is at {servers}{self._brokers()}. Send your own:

  {command} send -b {servers} --to {DESTINATION} --delay 5s 'hello'
  {command} send -b {servers} --to {DESTINATION} --delay 10m --id order-42 'pay!'
  {command} cancel order-42 -b {servers}
  {command} watch {DESTINATION} -b {servers}

  echo hello | kcat -P -b {servers} -t {topic} \\
    -H delaystream-destination={DESTINATION} -H delaystream-delay=5s

  printf 'delaystream-destination:{DESTINATION},delaystream-delay:5s\\thello\\n' | \\
    kafka-console-producer.sh --bootstrap-server {servers} --topic {topic} \\
    --reader-property parse.headers=true

{metrics}  Ctrl-C stops all of it; the state stays in {self._data_dir}
"""

    def _brokers(self) -> str:
        """The process of each of several brokers, for people who want to end one."""
        if self._plan.brokers == 1:
            return ""
        lines = [
            f"  broker {node}  {broker.bootstrap_servers}  process {broker.pid}  logs {broker.log_file}\n"
            for node, broker in self._cluster.brokers.items()
            if broker.is_running
        ]
        return ":\n\n" + "".join(lines) + "\nAny one of them may end"


def samples(request_topic: str, now_ms: int) -> list[tuple[str, RequestRecord]]:
    """The sample requests, each with its description; one delivery for each."""

    def sample(text: str, **when: Any) -> RequestRecord:
        headers = [("content-type", b"text/plain")]
        return schedule_request(request_topic, DESTINATION, text, key="sample", headers=headers, **when)

    at_ms = now_ms + 4_000
    return [
        ("delay 0", sample("now", delay="0")),
        ("delay 1s", sample("after a second", delay="1s")),
        ("delay 2500ms", sample("after two and a half", delay="2500ms")),
        (f"at {format_instant(at_ms)}", sample("at a point in time", at=str(at_ms))),
        ("delay PT6S, id sample", sample("with an id", delay="PT6S", id=f"sample-{now_ms}")),
    ]


def _another(port: int) -> str:
    """Advice for the case that another session holds a resource that this one needs."""
    options = f"--port {port + 100} --data-dir .delaystream/second"
    return (
        "Another `delaystream dev` (or `make run`) may be running: use that one, stop it, or start this one "
        f'beside it with {options} (`make run ARGS="{options}"`).'
    )


def _free_port(asked: int | None, default: int) -> int:
    if asked is None:
        return default if default and is_free(default) else choose_port()
    return choose_port(asked)


def _command() -> str:
    """The command line with which the reader of our output starts this command."""
    if shutil.which("delaystream"):
        return "delaystream"
    interpreter = Path(sys.executable)
    here = Path.cwd()
    if interpreter.is_relative_to(here):
        interpreter = interpreter.relative_to(here)
    script = interpreter.with_name("delaystream")
    return str(script) if script.exists() else f"{interpreter} -m delaystream"


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM interrupt as Ctrl-C does; afterwards the handlers are as before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        # A shell starts its background jobs with SIGINT ignored.
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    say(*text.split("\n"))


def _complain(text: str) -> None:
    complain(text)
