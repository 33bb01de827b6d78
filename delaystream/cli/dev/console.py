"""The console of `delaystream dev`: a process beside the worker, which nothing waits for."""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from delaystream.dev.configuration import LOOPBACK
from delaystream.dev.process import GuardedProcess

_STOP_TIMEOUT_MS: Final = 5_000
_LOG_LINES: Final = 5
#: Longest wait for an answer: deliveries are not printed meanwhile.
_ANSWER_TIMEOUT_S: Final = 0.2
_BETWEEN_S: Final = 0.3


class ConsoleProcess:
    """Starts it, tells when it answers and when it ended by itself, and stops it.

    Its end ends nothing else: Kafka and the worker do not need it.
    """

    def __init__(self, data_dir: Path, port: int, complain: Callable[[str], None]) -> None:
        self.url = f"http://{LOOPBACK}:{port}"
        self.log = data_dir / "console.log"
        self.started = False
        self._own = [
            "--data-dir",
            str(data_dir / "console"),
            "--http-host",
            LOOPBACK,
            "--http-port",
            str(port),
        ]
        self._complain = complain
        self._process: GuardedProcess | None = None
        self._answered = False
        self._asked_s = 0.0

    def start(self, arguments: Sequence[str]) -> None:
        """Start the process, with the options that name Kafka and the settings."""
        self.started = True
        self.log.unlink(missing_ok=True)
        command = [sys.executable, "-m", "delaystream", "console", *arguments, *self._own]
        self._process = GuardedProcess(command, output=self.log)

    def look(self) -> str | None:
        """Its address, once, when it answers for the first time; takes 0.2 s at most."""
        if self._process is None:
            return None
        code = self._process.poll()
        if code is not None:
            self._process.kill()  # its guard
            self._process = None
            self._complain(f"the console ended by itself (exit code {code}), see {self.log}:")
            for line in self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]:
                self._complain(f"  {line}")
            self._complain("Kafka and the worker go on without it")
            return None
        now_s = time.monotonic()
        if self._answered or now_s < self._asked_s + _BETWEEN_S:
            return None
        self._asked_s = now_s
        self._answered = answers(f"{self.url}/health/live", _ANSWER_TIMEOUT_S)
        return self.url if self._answered else None

    def stop(self) -> None:
        """Stop it if it runs; takes 5 s at most."""
        if self._process is not None and self._process.poll() is None:
            self._process.stop(_STOP_TIMEOUT_MS)


def answers(url: str, timeout_s: float = 1) -> bool:
    """Whether a GET of it is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
