"""A real Apache Kafka broker as a child of this process: KRaft, this machine only."""

import atexit
import logging
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from delaystream.dev.configuration import FIRST_NODE, LOOPBACK, Listener, Seat, server_properties
from delaystream.dev.datadir import DataDir
from delaystream.dev.errors import BrokerError, BrokerStartError, PortTakenMeanwhileError
from delaystream.dev.jars import DEFAULT_VERSION, class_path, kafka_lock
from delaystream.dev.java import find_java
from delaystream.dev.ports import accepts, choose_port
from delaystream.dev.process import GuardedProcess
from delaystream.dev.progress import Progress, quiet

START_TIMEOUT_MS = 60_000
STOP_TIMEOUT_MS = 15_000
HEAP_MEBIBYTES = 512

_START_ATTEMPTS = 3
_POLL_S = 0.02
_PROBE_TIMEOUT_S = 5

_SILENT = logging.getLogger("delaystream.dev.broker.probe")
_SILENT.propagate = False
_SILENT.addHandler(logging.NullHandler())


class EmbeddedBroker:
    """One broker on one data directory. Not for several threads at once.

    The broker ends with this process, however this process ends (see `GuardedProcess`). Written records
    survive a stop and a kill, for this object and for a later one on the same directory. `with
    EmbeddedBroker(path) as broker:` starts and stops it. It is a cluster of its own, or has a seat in an
    `EmbeddedCluster`.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int = 0,
        seat: Seat | None = None,
        version: str = DEFAULT_VERSION,
        properties: Mapping[str, str] | None = None,
        listeners: Sequence[Listener] = (),
        heap_mebibytes: int = HEAP_MEBIBYTES,
        java_options: Sequence[str] = (),
        progress: Progress = quiet,
    ) -> None:
        """Describe a broker; nothing is done before `start`.

        `port` 0 means a free one, chosen at the first start and kept by this object. `seat` None: a cluster
        of its own, whose controller's port is chosen at each start. `version` is one of `locked_versions()`.
        `properties` are Kafka's broker properties and win over the built-in ones. `listeners` are added to
        the listener without security, which this object itself uses. Their ports are chosen like the broker's
        own.
        """
        self.version = version
        self._data = DataDir(data_dir, version)
        self._port = port
        self._seat = seat
        self._properties = dict(properties or {})
        self._listeners = dict.fromkeys(listeners, 0)
        self._heap_mebibytes = heap_mebibytes
        self._more_java_options = tuple(java_options)
        self._progress = progress
        self._process: GuardedProcess | None = None

    @property
    def data_dir(self) -> Path:
        """The directory of everything that this broker keeps."""
        return self._data.path

    @property
    def log_file(self) -> Path:
        """The broker's log file."""
        return self._data.log_file

    @property
    def bootstrap_servers(self) -> str:
        """`host:port`. Raises `BrokerError` before the first start if no port was given."""
        if not self._port:
            raise BrokerError("The broker has no port before its first start.")
        return f"{LOOPBACK}:{self._port}"

    def address(self, listener: str) -> str:
        """`host:port` of a further listener. Raises `BrokerError` if it is unknown, or before the start."""
        for known, port in self._listeners.items():
            if known.name == listener and port:
                return f"{LOOPBACK}:{port}"
        raise BrokerError(f"The broker has no listener {listener}, or was not started yet.")

    @property
    def pid(self) -> int:
        """The process id of the running broker. Raises `BrokerError` when there is none."""
        return self._running().pid

    @property
    def is_running(self) -> bool:
        """Whether the broker's process exists (true for a paused one)."""
        return self._process is not None and self._process.poll() is None

    def start(self, timeout_ms: int = START_TIMEOUT_MS) -> Self:
        """Fetch missing jars, format an empty data directory, start the broker, wait until it answers.

        `timeout_ms` bounds the wait for an answer, not the first download. Raises a `BrokerError`
        (`JarError`, `JavaMissingError`, `PortInUseError`, `DataDirInUseError`, `BrokerStartError`); nothing
        is left running then.
        """
        known = self._port, self._listeners
        # The cluster chooses the ports of a seat.
        attempts = _START_ATTEMPTS if self._seat is None else 1
        while True:
            attempts -= 1
            try:
                return self.launch().await_answer(timeout_ms)
            except BaseException as error:
                self._port, self._listeners = known
                if not attempts or not isinstance(error, PortTakenMeanwhileError):
                    raise

    def launch(self) -> Self:
        """Start without waiting for an answer: one of several brokers cannot answer before most of them run.

        Raises a `BrokerError`; nothing is left running then.
        """
        if self.is_running:
            raise BrokerError("The broker is running already.")
        self.kill()
        jars = class_path(kafka_lock(self.version), progress=self._progress)
        java = find_java()
        self._data.lock()
        atexit.register(self.stop)
        try:
            self._launch(java, jars)
        except BaseException:
            self.kill()
            raise
        return self

    def await_answer(self, timeout_ms: int = START_TIMEOUT_MS) -> Self:
        """Wait until the broker that was launched answers.

        Raises `BrokerStartError` when it ends, or does not answer within `timeout_ms`; nothing is left
        running then.
        """
        try:
            self._await_answer(timeout_ms)
        except BaseException:
            self.kill()
            raise
        return self

    def answers(self, among: int = 1) -> bool:
        """Tell whether the broker serves requests, and knows this many serving brokers, itself included.

        Raises `BrokerStartError` when it has ended.

        A KRaft broker listens early. It answers only when the controller has registered it and it has caught
        up. So the first answer of any kind means ready.
        """
        process = self._process
        if process is None:
            raise BrokerError("The broker is not running.")
        if (status := process.poll()) is not None:
            errors = self._data.errors()
            kind = PortTakenMeanwhileError if "Address already in use" in errors else BrokerStartError
            raise kind(f"Kafka {self.version} ended with status {status}, see {self.log_file}:\n{errors}")
        if not accepts(self._port):
            return False
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers}, logger=_SILENT)
        try:
            return len(admin.list_topics(timeout=_PROBE_TIMEOUT_S).brokers) >= among
        except KafkaException:
            return False

    def stop(self, timeout_ms: int = STOP_TIMEOUT_MS) -> None:
        """Shut the broker down in good order, or kill it when that takes longer than `timeout_ms`.

        Idempotent.
        """
        if self._process is not None:
            self._process.stop(timeout_ms)
        self._let_go()

    def kill(self) -> None:
        """Kill the broker with SIGKILL, as a crash would. Idempotent."""
        if self._process is not None:
            self._process.kill()
        self._let_go()

    def restart(self, timeout_ms: int = START_TIMEOUT_MS) -> None:
        """Stop the broker if it runs, and start it again on the same data directory and port."""
        self.stop()
        self.start(timeout_ms)

    def pause(self) -> None:
        """Freeze the broker with SIGSTOP: connections stay open, nothing answers."""
        self._running().signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused broker go on."""
        self._running().signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        """Start the broker."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the broker."""
        self.stop()

    def _let_go(self) -> None:
        self._process = None
        self._data.unlock()
        atexit.unregister(self.stop)

    def _running(self) -> GuardedProcess:
        if self._process is None or self._process.poll() is not None:
            raise BrokerError("The broker is not running.")
        return self._process

    def _launch(self, java: Path, jars: list[Path]) -> None:
        port = choose_port(self._port)
        listeners: dict[Listener, int] = {}
        for listener, known in self._listeners.items():
            listeners[listener] = choose_port(known, taken=(port, *listeners.values()))
        seat = self._seat
        if seat is None:
            seat = Seat(FIRST_NODE, {FIRST_NODE: choose_port(taken=(port, *listeners.values()))})
        properties = server_properties(self._data.records, port, seat, self._properties, listeners)
        options = [*self._data.write_configuration(properties), *self._java_options()]
        command: list[str | Path] = [java, *options, "-cp", os.pathsep.join(map(str, jars))]
        self._data.format_once(command, seat)
        self._process = GuardedProcess(
            [*command, "kafka.Kafka", self._data.properties_file],
            output=self._data.output_file,
            inherited=[self._data.lock_descriptor],
        )
        self._port, self._listeners = port, listeners

    def _await_answer(self, timeout_ms: int) -> None:
        deadline = time.monotonic() + timeout_ms / 1000
        while not self.answers():
            if time.monotonic() > deadline:
                raise BrokerStartError(
                    f"Kafka {self.version} did not answer within {timeout_ms} ms, see {self.log_file}.\n"
                    f"{self._data.errors()}"
                )
            time.sleep(_POLL_S)

    def _java_options(self) -> list[str]:
        return [
            f"-Xmx{self._heap_mebibytes}m",
            # The process starts often, and on small machines: compile quickly rather than well, and use a
            # collector without threads of its own.
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-XX:-UsePerfData",
            "-Djava.awt.headless=true",
            "-Djava.net.preferIPv4Stack=true",
            *self._more_java_options,
        ]
