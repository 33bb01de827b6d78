"""Virtual environments from the locked requirements: `environment.py VENV LOCK [LOCK...]`.

Needs nothing but the standard library. Does its work only when something that it depends on has changed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUPPORTED = ((3, 11), (3, 12), (3, 13))
_STAMP = "delaystream-stamp.json"
_PROBE = "import sys, ensurepip, ssl, venv; print('%d.%d' % sys.version_info[:2])"


def version_of(interpreter: Path) -> tuple[int, int] | None:
    """(major, minor) of an interpreter, found out by running it; None when it does not run or has no venv."""
    try:
        probe = subprocess.run(
            [interpreter, "-c", _PROBE], capture_output=True, text=True, timeout=30, check=False, cwd=ROOT
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if probe.returncode != 0:
        return None
    major, minor = probe.stdout.strip().split(".")
    return int(major), int(minor)


def interpreters() -> dict[tuple[int, int], Path]:
    """One interpreter for each supported version that is really there: on PATH, or behind a shim on PATH."""
    found: dict[tuple[int, int], Path] = {}
    for version in SUPPORTED:
        for candidate in _candidates(f"python{version[0]}.{version[1]}"):
            if version_of(candidate) == version:
                found[version] = candidate
                break
    return found


def _candidates(name: str) -> Iterator[Path]:
    directories = [Path(entry) for entry in os.get_exec_path() if entry]
    for directory in directories:
        if (directory / name).is_file():
            yield directory / name
    for directory in directories:
        # pyenv puts a shim for every installed version on PATH, but runs only the versions that are selected.
        if directory.name == "shims":
            yield from sorted((directory.parent / "versions").glob(f"*/bin/{name}"), reverse=True)


def prepare(venv: Path, interpreter: Path, locks: list[Path], *, project: bool = True) -> Path:
    """Make `venv` hold the locked packages and the project itself (editable); returns its Python.

    Raises subprocess.CalledProcessError when pip fails. Safe to call from several processes at once.
    """
    venv = venv.absolute()
    python = venv / "bin" / "python"
    with _locked(venv):
        packages = {"venv": str(venv), **{lock.name: _digest(lock) for lock in locks}}
        wanted = {**packages, "project": _digest(ROOT / "pyproject.toml")} if project else packages
        have = _read_stamp(venv)
        # The base interpreter may have been removed or replaced since: a stamp alone proves nothing.
        if wanted.items() <= have.items() and version_of(python) is not None:
            return python
        started = time.monotonic()
        (venv / _STAMP).unlink(missing_ok=True)
        if version_of(python) not in SUPPORTED:
            _say(f"creating {_shown(venv)} with {interpreter}")
            _run([interpreter, "-m", "venv", "--clear", venv])
        elif not _has_pip(python):
            _run([python, "-m", "ensurepip"])
        if not packages.items() <= have.items():
            have = {}
            names = ", ".join(_shown(lock) for lock in locks)
            _say(f"installing what {names} lock{'s' if len(locks) == 1 else ''} (a minute, once)")
            # The lock is complete, so pip need not resolve. Wheels only: a build would fetch unlocked things.
            options = ["--require-hashes", "--no-deps", "--only-binary=:all:", *_quiet()]
            requirements = [word for lock in locks for word in ("-r", str(lock))]
            _run([python, "-m", "pip", "install", *options, *requirements])
        if project:
            _say("installing the project itself")
            options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
            _run([python, "-m", "pip", "install", *options, "--editable", ROOT])
        (venv / _STAMP).write_text(json.dumps({**have, **wanted}))
        _say(f"{_shown(venv)} is ready after {time.monotonic() - started:.0f} s")
    return python


def _quiet() -> list[str]:
    # pip's own progress bars on a terminal; in a log one line for each package is enough.
    return [] if sys.stdout.isatty() else ["--progress-bar=off"]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_stamp(venv: Path) -> dict[str, str]:
    try:
        stamp = json.loads((venv / _STAMP).read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _has_pip(python: Path) -> bool:
    return subprocess.run([python, "-c", "import pip"], capture_output=True, check=False).returncode == 0


@contextmanager
def _locked(venv: Path) -> Iterator[None]:
    path = venv.with_name(venv.name + ".lock")
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(command: list[str | Path]) -> None:
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run(command, check=True, cwd=ROOT, env=environment)


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _say(text: str) -> None:
    print(f"setup: {text}", flush=True)


def main(arguments: list[str]) -> int:
    """Prepare the environment named on the command line, with the Python that runs this."""
    venv, *locks = arguments
    try:
        prepare(Path(venv), Path(sys.executable), [ROOT / lock for lock in locks])
    except subprocess.CalledProcessError as failure:
        _say(f"failed: {' '.join(str(word) for word in failure.cmd)} ended with {failure.returncode}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
