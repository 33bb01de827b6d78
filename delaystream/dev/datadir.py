"""The directory of an embedded broker: its lock, the files written before a start, the errors in its log."""

import base64
import fcntl
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO

import msgspec

from delaystream.dev.configuration import FIRST_NODE, Seat, as_properties, log_configuration
from delaystream.dev.errors import BrokerStartError, DataDirInUseError, DataDirUnusableError
from delaystream.dev.jars import version_key

LOCK_WAIT_MS = 2_000
"""Longest wait for a locked data directory: a killed broker needs a moment to end."""

FORMAT_TIMEOUT_S = 60
ERROR_LINES_SHOWN = 6

_POLL_S = 0.05


class _Marker(msgspec.Struct, frozen=True):
    """Marks a formatted directory, with its cluster and the Kafka version that last started there."""

    kafka_version: str
    cluster_id: str
    node: int = FIRST_NODE
    brokers: int = 1


class DataDir:
    """A broker's directory: `kafka/` (its logs of records), `logs/`, `tmp/`, the properties and the lock."""

    def __init__(self, path: Path, version: str) -> None:
        """Name the directory; it is made by `lock`."""
        self.path = path.absolute()
        self.version = version
        self.records = self.path / "kafka"
        self.properties_file = self.path / "server.properties"
        self.log_file = self.path / "logs" / "server.log"
        self.output_file = self.path / "logs" / "output.log"
        self._marker_file = self.path / "broker.json"
        self._lock: IO[str] | None = None
        self._log_start = 0

    def lock(self) -> None:
        """Make the directory and take it. Raises `DataDirInUseError`, or `DataDirUnusableError` when it
        cannot be written.

        It is a kernel lock, and the broker's process holds it, too (`lock_descriptor`). So it is never left
        behind, and it is not free before that process is gone.
        """
        try:
            for directory in (self.path, self.path / "logs", self.path / "tmp"):
                directory.mkdir(parents=True, exist_ok=True)
            file = (self.path / "lock").open("a+")
        except OSError as error:
            raise DataDirUnusableError(
                f"The data directory {self.path} cannot be used: {error.strerror}."
            ) from error
        deadline = time.monotonic() + LOCK_WAIT_MS / 1000
        while not _try_lock(file):
            if time.monotonic() > deadline:
                file.seek(0)
                owner = file.read().strip() or "unknown"
                file.close()
                raise DataDirInUseError(
                    f"Another broker works in {self.path} (started by process {owner}); stop it, or use "
                    f"another directory."
                )
            time.sleep(_POLL_S)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._lock = file

    def unlock(self) -> None:
        """Give the directory up. Idempotent."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def lock_descriptor(self) -> int:
        """The descriptor that holds the lock, for the broker's process to inherit."""
        assert self._lock is not None
        return self._lock.fileno()

    def write_configuration(self, properties: Mapping[str, str]) -> list[str]:
        """Write the broker's properties and log configuration, and return the Java options that go with
        them."""
        temporary = self.path / "tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        self.properties_file.write_text(as_properties(properties), "utf-8")
        name, text, option = log_configuration(self.version, self.log_file)
        (self.path / name).write_text(text, "utf-8")
        self._log_start = self.log_file.stat().st_size if self.log_file.exists() else 0
        # Compression codecs unpack native libraries into java.io.tmpdir, and leave them there when killed.
        return [option.format(path=self.path / name), f"-Djava.io.tmpdir={temporary}"]

    @property
    def cluster_id(self) -> str | None:
        """The cluster that the directory was formatted for; None before that."""
        found = self._marker()
        return None if found is None else found.cluster_id

    def format_once(self, java: Sequence[str | Path], seat: Seat) -> None:
        """Format the directory for its place in a cluster, unless it is formatted already. `java` is the
        command line up to the main class.

        Raises `BrokerStartError` when that fails, when a newer Kafka has written here, or when the directory
        belongs to another place or another cluster.
        """
        brokers = len(seat.controllers)
        if (found := self._marker()) is not None:
            if version_key(found.kafka_version) > version_key(self.version):
                raise BrokerStartError(
                    f"{self.path} was written by Kafka {found.kafka_version}, and Kafka {self.version} "
                    f"cannot read it; use another data directory, or remove this one."
                )
            if (found.node, found.brokers) != (seat.node, brokers):
                raise BrokerStartError(
                    f"{self.path} is of broker {found.node} of {found.brokers}, not of broker {seat.node} of "
                    f"{brokers}; use another data directory, or remove this one."
                )
            if seat.cluster_id not in (None, found.cluster_id):
                raise BrokerStartError(
                    f"{self.path} is of another cluster ({found.cluster_id}) than its neighbours "
                    f"({seat.cluster_id}); put back the directory that was there, or remove it."
                )
            cluster_id = found.cluster_id
        else:
            # An interrupted format leaves nothing worth keeping.
            shutil.rmtree(self.records, ignore_errors=True)
            cluster_id = seat.cluster_id or new_cluster_id()
            self._format(java, cluster_id)
        marker = _Marker(self.version, cluster_id, seat.node, brokers)
        self._marker_file.write_bytes(msgspec.json.encode(marker))

    def errors(self) -> str:
        """Return the last errors that the broker logged since `write_configuration`, for a person."""
        lines: list[str] = []
        if self.log_file.exists():
            log = self.log_file.read_bytes()
            # The file is shorter than at the start, so the log was rolled over.
            log = log[self._log_start :] if len(log) >= self._log_start else log
            text = log.decode("utf-8", "replace").splitlines()
            # The line after an error has its exception.
            lines = [line for above, line in pairwise(["", *text]) if _is_error(line) or _is_error(above)]
        if not lines and self.output_file.exists():
            lines = self.output_file.read_text("utf-8", "replace").splitlines()
        return "\n".join(lines[-ERROR_LINES_SHOWN:])

    def _marker(self) -> _Marker | None:
        if not self._marker_file.exists():
            return None
        return msgspec.json.decode(self._marker_file.read_bytes(), type=_Marker)

    def _format(self, java: Sequence[str | Path], cluster_id: str) -> None:
        arguments: list[str | Path] = ["format", "-t", cluster_id, "-c", self.properties_file]
        formatting = subprocess.run(
            [*java, "kafka.tools.StorageTool", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=FORMAT_TIMEOUT_S,
            check=False,
        )
        if formatting.returncode != 0:
            raise BrokerStartError(
                f"{self.path} could not be formatted:\n{formatting.stdout.strip()[-2000:]}"
            )


def _is_error(line: str) -> bool:
    return "] ERROR " in line or "] FATAL " in line


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def new_cluster_id() -> str:
    """Return 16 random bytes as Kafka writes a UUID; without `-`, which at the start would read as an
    option."""
    return base64.b64encode(uuid.uuid4().bytes, altchars=b"A_").decode().rstrip("=")
