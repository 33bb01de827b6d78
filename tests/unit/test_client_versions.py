"""A worker, an export and an import run with the client libraries that were tested, or say why not."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from delaystream.adapters.internals.versions import TESTED, require_tested, untested
from delaystream.cli import main
from delaystream.config import ConfigurationError
from delaystream.exit_codes import ExitCode
from tests.unit.test_setup import ROOT

WORKER = ["worker", "--destinations-allow", "*", "-b", "127.0.0.1:1", "--http-port", "0"]
EXPORT = ["export", "-b", "127.0.0.1:1"]
IMPORT = ["import", os.devnull, "-b", "127.0.0.1:1"]


def test_what_is_pinned_locked_and_installed_is_what_was_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    pins = [re.fullmatch(r"([\w-]+)(?:\[.*\])?==([\d.]+)", each) for each in project]
    assert dict(pin.groups() for pin in pins if pin) == TESTED  # type: ignore[arg-type]  # of two groups
    for lock in ("run", "test"):
        text = (ROOT / "requirements" / f"{lock}.txt").read_text()
        assert dict(re.findall(r"^(aiokafka|faust-streaming)==([\d.]+) ", text, re.MULTILINE)) == TESTED
    assert untested() == {}
    require_tested(allow_others=False)


@pytest.mark.parametrize("command", [WORKER, EXPORT, IMPORT], ids=lambda command: command[0])
@pytest.mark.parametrize("name", TESTED)
@pytest.mark.parametrize("version", ["0.13.9", "99", None])
def test_another_version_is_refused(
    command: list[str],
    name: str,
    version: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With 78, and with all that is needed to go on: what is installed, what was tested, how to insist."""
    real = metadata.version

    def installed(asked: str) -> str:
        if asked != name:
            return real(asked)
        if version is None:
            raise metadata.PackageNotFoundError(asked)
        return version

    monkeypatch.setattr(metadata, "version", installed)
    assert main(command) == ExitCode.CONFIGURATION
    [told] = capsys.readouterr().err.splitlines()
    assert f"{name} {version or 'of an unknown version'} is installed" in told
    assert f"with {TESTED[name]} only" in told
    assert f"{name}=={TESTED[name]}" in told
    assert "DELAYSTREAM_ALLOW_UNTESTED_CLIENTS=true" in told
    with pytest.raises(ConfigurationError):
        require_tested(allow_others=False)
    require_tested(allow_others=True)


def beside(directory: Path, name: str, version: str) -> dict[str, str]:
    """An environment in which a library is installed in another version."""
    about = directory / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(directory), str(ROOT)])}


@pytest.mark.parametrize("arguments", [WORKER, EXPORT, IMPORT], ids=lambda arguments: arguments[0])
def test_the_refusal_comes_before_anything_of_the_library_is_needed(
    arguments: list[str], tmp_path: Path
) -> None:
    """One that has nothing of what is looked for in it would end the worker with a traceback."""
    environment = beside(tmp_path, "aiokafka", "0.15.1")
    (tmp_path / "aiokafka.py").write_text("raise ImportError('not what it was')\n")
    command = [sys.executable, "-P", "-m", "delaystream", *arguments]
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == ExitCode.CONFIGURATION, ended.stderr
    assert "aiokafka 0.15.1 is installed" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_who_insists_gets_a_worker_that_tells_of_it(tmp_path: Path) -> None:
    environment = beside(tmp_path, "faust-streaming", "0.16.0")
    environment |= {"DELAYSTREAM_ALLOW_UNTESTED_CLIENTS": "true", "DELAYSTREAM_LOG_FORMAT": "json"}
    command = [sys.executable, "-P", "-m", "delaystream", *WORKER, "--data-dir", str(tmp_path / "data")]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as worker:
        assert worker.stdout is not None
        told = ""
        for line in worker.stdout:
            told += line
            if "another version than the tested one" in line:
                break
        worker.send_signal(signal.SIGTERM)
        told += worker.stdout.read()
    assert f"faust-streaming 0.16.0, tested: {TESTED['faust-streaming']}" in told
    assert worker.returncode == ExitCode.OK, told


@pytest.mark.parametrize("command", [EXPORT, IMPORT], ids=lambda command: command[0])
def test_who_insists_is_told_and_gets_further(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As far as a certificate that is not there, which is looked for next."""
    monkeypatch.setattr(metadata, "version", lambda _: "99")
    monkeypatch.setenv("DELAYSTREAM_ALLOW_UNTESTED_CLIENTS", "true")
    tls = ["--property", "security.protocol=SSL", "--property", "ssl.ca.location=/nonexistent/ca.pem"]
    assert main([*command, *tls]) == ExitCode.CONFIGURATION
    *told, refused = capsys.readouterr().err.splitlines()
    assert told == [
        f"delaystream: {name} 99 is installed, tested: {version}" for name, version in TESTED.items()
    ]
    assert "there is no file /nonexistent/ca.pem" in refused
