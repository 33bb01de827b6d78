"""The peers' programs: compiled with the JDK that is here, run with the locked jars."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import psutil

from delaystream.dev.jars import Lock, class_path
from delaystream.dev.java import MINIMUM_MAJOR, find_java, java_major
from tests.integration.harness import wait

_HERE: Final = Path(__file__).parent
_HEAP: Final = "-Xmx1g"
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 40.0


class NoJdkError(Exception):
    """No JDK that can compile for a Java of `MINIMUM_MAJOR` or newer is here."""


class JavaProcess:
    """A running program of the peers; its output goes to a file."""

    def __init__(self, command: Sequence[str | Path], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self.usage = psutil.Process(self._process.pid)

    def wait_running(self) -> JavaProcess:
        """Until it has said RUNNING: its partitions are assigned and their state is there."""

        def running() -> bool:
            if self._process.poll() is not None:
                raise RuntimeError(f"{self.log.name} ended: {self.log.read_text()[-4000:]}")
            return self.log.read_text().split()[-1:] == ["RUNNING"]

        wait(running, f"{self.log.name} to be running", _START_SECONDS)
        # RUNNING is said before the first poll has the assignment of a second thread.
        time.sleep(2.0)
        return self

    def stop(self) -> None:
        """Stop it in order; at once when it does not."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Programs:
    """The compiled programs of this directory."""

    def __init__(self, directory: Path) -> None:
        """Compile them into `directory`. Raises `NoJdkError` or `JarError` for what is missing."""
        compiler = _compiler()
        jars = class_path(Lock.read(_HERE / "streams.lock"))
        self._java = find_java()
        self._class_path = os.pathsep.join(map(str, [directory, *jars]))
        directory.mkdir(parents=True, exist_ok=True)
        sources = sorted(map(str, _HERE.glob("*.java")))
        flags = ["-Xlint:all", "-Werror", "--release", str(MINIMUM_MAJOR)]
        subprocess.run(
            [compiler, *flags, "-classpath", self._class_path, "-d", str(directory), *sources], check=True
        )

    def start(self, program: str, log: Path, *arguments: str) -> JavaProcess:
        """Start one that runs until it is stopped."""
        return JavaProcess(self._command(program, arguments), log)

    def result(self, program: str, *arguments: str) -> dict[str, Any]:
        """Run one to its end; its last line of output is its result."""
        done = subprocess.run(
            self._command(program, arguments), capture_output=True, text=True, check=False, timeout=600
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stderr[-4000:]}")
        return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]

    def _command(self, program: str, arguments: Sequence[str]) -> list[str | Path]:
        return [self._java, _HEAP, "-classpath", self._class_path, program, *arguments]


def _compiler() -> Path:
    candidates = []
    if home := os.environ.get("JAVA_HOME"):
        candidates.append(Path(home) / "bin" / "javac")
    if on_path := shutil.which("javac"):
        candidates.append(Path(on_path))
    for compiler in candidates:
        java = compiler.resolve().with_name("java")
        if compiler.is_file() and (java_major(java) or 0) >= MINIMUM_MAJOR:
            return compiler
    raise NoJdkError(f"no JDK {MINIMUM_MAJOR} or newer is here (JAVA_HOME, PATH): no peer is measured")
