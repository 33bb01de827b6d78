"""Several real Kafka brokers as children of this process, each also a controller: a cluster that survives the
loss of any one."""

import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from delaystream.dev.broker import HEAP_MEBIBYTES, START_TIMEOUT_MS, STOP_TIMEOUT_MS, EmbeddedBroker
from delaystream.dev.configuration import FIRST_NODE, Seat
from delaystream.dev.datadir import DataDir, new_cluster_id
from delaystream.dev.errors import BrokerError, BrokerStartError, PortInUseError, PortTakenMeanwhileError
from delaystream.dev.jars import DEFAULT_VERSION, class_path, kafka_lock
from delaystream.dev.ports import choose_port, is_free
from delaystream.dev.progress import Progress, quiet

_START_ATTEMPTS = 3
_POLL_S = 0.1
_VOTE = Path("kafka") / "__cluster_metadata-0" / "quorum-state"


class EmbeddedCluster:
    """Brokers that form one cluster, numbered from 1. Not for several threads at once.

    With one broker, the directory is the broker's own. With several, each has a directory below it, named by
    its number. All end with this process. `with EmbeddedCluster(path, brokers=3) as cluster:` starts and
    stops them. A single one may be stopped, killed, paused and started again meanwhile.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        brokers: int = 1,
        port: int = 0,
        version: str = DEFAULT_VERSION,
        properties: Mapping[str, str] | None = None,
        heap_mebibytes: int = HEAP_MEBIBYTES,
        progress: Progress = quiet,
    ) -> None:
        """Describe a cluster; nothing is done before `start`.

        `port` is the first broker's, 0 for a free one; each further broker has the next port, or a free one
        if that is taken. Topics have as many replicas as there are brokers, 3 at most, of which one may be
        missing. The rest is as of `EmbeddedBroker`.
        """
        self.data_dir = data_dir.absolute()
        self._nodes = range(FIRST_NODE, FIRST_NODE + brokers)
        self._port = port
        self._version = version
        self._properties = dict(properties or {})
        self._heap_mebibytes = heap_mebibytes
        self._progress = progress
        self._brokers: dict[int, EmbeddedBroker] = {}

    @property
    def brokers(self) -> Mapping[int, EmbeddedBroker]:
        """The brokers by number. Empty before the first start."""
        return self._brokers

    @property
    def bootstrap_servers(self) -> str:
        """`host:port` of every broker, with commas. Raises `BrokerError` before the first start."""
        if not self._brokers:
            raise BrokerError("The cluster has no ports before its first start.")
        return ",".join(broker.bootstrap_servers for broker in self._brokers.values())

    @property
    def has_majority(self) -> bool:
        """Whether a majority of the brokers runs (paused ones count)."""
        running = sum(broker.is_running for broker in self._brokers.values())
        return running > len(self._nodes) // 2

    @property
    def controller(self) -> int | None:
        """The broker that leads the quorum of the controllers, as they last knew; None before there was one.

        Read from the files in which each broker keeps its vote, because brokers tell Kafka's clients another
        broker in its place (KIP-590).
        """
        votes = [broker.data_dir / _VOTE for broker in self._brokers.values()]
        known = [json.loads(vote.read_bytes()) for vote in votes if vote.exists()]
        latest = max(known, key=lambda vote: (vote["leaderEpoch"], vote["leaderId"]), default=None)
        return latest["leaderId"] if latest is not None and latest["leaderId"] in self._brokers else None

    def start(self, timeout_ms: int = START_TIMEOUT_MS) -> Self:
        """Start every broker, all at once, and wait until each of them answers and knows all others.

        `timeout_ms` bounds the wait for an answer, not the first download. Raises a `BrokerError`; nothing is
        left running then.
        """
        if any(broker.is_running for broker in self._brokers.values()):
            raise BrokerError("The cluster is running already.")
        directories = self._directories()
        # Missing jars are fetched here, once, and not in several threads.
        class_path(kafka_lock(self._version), progress=self._progress)
        chosen = bool(self._brokers)
        attempts = 1 if chosen else _START_ATTEMPTS
        while True:
            attempts -= 1
            if not chosen:
                self._brokers = self._seated(directories)
            try:
                self._all(EmbeddedBroker.launch)
                self.await_answers(timeout_ms)
            except BaseException as error:
                self.kill()
                if not chosen:
                    self._brokers = {}
                if not attempts or not isinstance(error, PortInUseError | PortTakenMeanwhileError):
                    raise
            else:
                return self

    def await_answers(self, timeout_ms: int = START_TIMEOUT_MS) -> None:
        """Wait until every broker answers and knows all others. Raises `BrokerStartError`."""
        deadline = time.monotonic() + timeout_ms / 1000
        waited_for = list(self._brokers.values())
        while waited_for:
            if time.monotonic() > deadline:
                logs = ", ".join(str(broker.log_file) for broker in waited_for)
                raise BrokerStartError(
                    f"Not all brokers answered and knew the others within {timeout_ms} ms, see {logs}."
                )
            time.sleep(_POLL_S)
            waited_for = [broker for broker in waited_for if not broker.answers(among=len(self._nodes))]

    def stop(self, timeout_ms: int = STOP_TIMEOUT_MS) -> None:
        """Shut all brokers down cleanly, at the same time; one that takes longer than `timeout_ms` is killed.

        Idempotent.
        """
        self._all(lambda broker: broker.stop(timeout_ms))

    def kill(self) -> None:
        """Kill all brokers with SIGKILL, as a power cut would. Idempotent."""
        for broker in self._brokers.values():
            broker.kill()

    def __enter__(self) -> Self:
        """Start the cluster."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the cluster."""
        self.stop()

    def _all(self, act: Callable[[EmbeddedBroker], object]) -> None:
        with ThreadPoolExecutor(len(self._nodes), thread_name_prefix="broker") as pool:
            # Raises the error of the first one that failed, after all of them are done.
            list(pool.map(act, self._brokers.values()))

    def _seated(self, directories: Mapping[int, Path]) -> dict[int, EmbeddedBroker]:
        """Brokers on ports that are free now. Raises `PortInUseError`."""
        taken: list[int] = []
        ports: dict[int, int] = {}
        for place, node in enumerate(self._nodes):
            asked = self._port + place if self._port else 0
            if place and asked and not is_free(asked):
                asked = 0
            ports[node] = choose_port(asked, taken=taken)
            taken.append(ports[node])
        controllers: dict[int, int] = {}
        for node in self._nodes:
            controllers[node] = choose_port(taken=taken)
            taken.append(controllers[node])
        formatted = [DataDir(path, self._version).cluster_id for path in directories.values()]
        cluster_id = next((found for found in formatted if found is not None), None) or new_cluster_id()
        return {
            node: EmbeddedBroker(
                directories[node],
                port=ports[node],
                seat=Seat(node, controllers, cluster_id),
                version=self._version,
                properties=self._properties,
                heap_mebibytes=self._heap_mebibytes,
            )
            for node in self._nodes
        }

    def _directories(self) -> dict[int, Path]:
        """Each broker's directory. Raises `BrokerStartError` if they belong to another number of brokers."""
        alone = DataDir(self.data_dir, self._version).cluster_id is not None
        several = sorted(path.parent for path in self.data_dir.glob("[0-9]*/broker.json"))
        wanted = len(self._nodes)
        if (alone and wanted > 1) or (several and wanted == 1):
            found = "a single broker" if alone else "several brokers"
            raise BrokerStartError(
                f"{self.data_dir} was made for {found}, not for {wanted}; use another data directory, or "
                f"remove this one."
            )
        if wanted == 1:
            return {FIRST_NODE: self.data_dir}
        return {node: self.data_dir / str(node) for node in self._nodes}
