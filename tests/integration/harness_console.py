"""Consoles as processes: started as a user starts them, then asked, stopped and killed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil

from tests.integration.harness import Deployment, wait

_URL = re.compile(r'"url":"(http://[^"]+)"')


def ask(url: str, **parameters: object) -> Any:
    """The answer to a GET, read; None while nobody answers, or with another status than 200."""
    query = urlencode(parameters, doseq=True)
    try:
        with urllib.request.urlopen(f"{url}?{query}", timeout=5) as answer:
            return json.loads(answer.read())
    except (urllib.error.HTTPError, OSError):
        return None


class ConsoleProcess:
    """One ``delaystream console`` process of an application."""

    def __init__(
        self, app: Deployment, data_dir: Path, *, module: str = "delaystream", **settings: str
    ) -> None:
        """`module` is what is run; `settings` are variables of its environment."""
        self._log = data_dir.with_suffix(".log")
        self._begins = self._log.stat().st_size if self._log.exists() else 0
        arguments = ["--http-port", "0", "--log-format", "json", "--data-dir", str(data_dir)]
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, "console", *arguments],
                env=app.environment() | settings,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.usage = psutil.Process(self._process.pid)

    @property
    def output(self) -> str:
        """What this process has logged."""
        return self._log.read_bytes()[self._begins :].decode(errors="replace")

    @property
    def url(self) -> str:
        """Where it listens; empty until it has said so."""
        assert self._process.poll() is None, self.output
        found = _URL.search(self.output)
        return found[1] if found else ""

    def wait_ready(self, seconds: float = 60.0) -> str:
        """Until every copy has caught up; its address."""
        wait(lambda: bool(self.url) and ask(f"{self.url}/health/ready") is not None, "the console", seconds)
        return self.url

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self._process.kill()
        self._process.wait(30)

    def terminate(self) -> int:
        """SIGTERM, and wait for the end; the exit code."""
        self._process.terminate()
        return self._process.wait(30)
