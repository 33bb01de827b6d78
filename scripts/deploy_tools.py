"""The pinned tools that check the deployment: `deploy_tools.py [NAME...]` installs all, or those named.

The browser that checks the console's pages is installed by its name alone.

Each is installed once into the user's cache (DELAYSTREAM_CACHE_DIR, else `delaystream` in XDG's cache
directory) and found there again by its version. Go programs are built by the Go tool chain, which verifies
every module against the checksum database. Debian packages are unpacked into the cache: only apt's lists
change on the system. Tools from PyPI are locked in `requirements/deploy.txt`.

An unavailable tool is never skipped: `ToolMissing` says in one sentence what is needed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

GO_NEEDED = "1.26"
#: A build says this often that it is still at work.
_HEARTBEAT_S = 20.0


class ToolMissing(Exception):
    """A tool cannot be installed; the message says what is needed."""


@dataclass(frozen=True)
class GoProgram:
    """`package` of `module` at `version`; `replaces`: the module's own, which Go ignores in a dependency."""

    module: str
    version: str
    package: str
    replaces: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DebianProgram:
    """A program at `path` of a Debian package; the one on PATH is taken where there is one."""

    package: str
    path: str


@dataclass(frozen=True)
class DebianInstalled:
    """A program that needs what its Debian package depends on: it is installed on the system."""

    package: str
    program: str


#: What `make test-page` needs beside these: it is not fetched with them.
PAGE_TOOLS = {"chromium": DebianInstalled("chromium", "chromium")}
TOOLS: dict[str, GoProgram | DebianProgram] = {
    "helm": GoProgram("helm.sh/helm/v4", "v4.3.1", "helm.sh/helm/v4/cmd/helm"),
    "helm-unittest": GoProgram(
        "github.com/helm-unittest/helm-unittest",
        "v1.1.2",
        "github.com/helm-unittest/helm-unittest/cmd/helm-unittest",
        {"github.com/vmware-labs/yaml-jsonpath v0.3.2": "github.com/helm-unittest/yaml-jsonpath v0.4.0"},
    ),
    "kubeconform": GoProgram(
        "github.com/yannh/kubeconform", "v0.8.0", "github.com/yannh/kubeconform/cmd/kubeconform"
    ),
    "helm-docs": GoProgram(
        "github.com/norwoodj/helm-docs", "v1.14.2", "github.com/norwoodj/helm-docs/cmd/helm-docs"
    ),
    "compose": GoProgram(
        "github.com/compose-spec/compose-go/v2", "v2.16.2", "github.com/compose-spec/compose-go/v2/cmd"
    ),
    "terraform-provider-kafka": GoProgram(
        "github.com/Mongey/terraform-provider-kafka",
        "v0.13.1",
        "github.com/Mongey/terraform-provider-kafka",
    ),
    "prometheus": DebianProgram("prometheus", "usr/bin/prometheus"),
    "promtool": DebianProgram("prometheus", "usr/bin/promtool"),
    "amtool": DebianProgram("prometheus-alertmanager", "usr/bin/amtool"),
}


def cache() -> Path:
    """Where the tools are kept."""
    if given := os.environ.get("DELAYSTREAM_CACHE_DIR"):
        return Path(given) / "tools"
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(xdg) if Path(xdg).is_absolute() else Path.home() / ".cache"
    return base / "delaystream" / "tools"


def tool(name: str) -> Path:
    """The program of that name, installed when it is not there yet.

    Raises ToolMissing when it cannot be installed. Processes that want the same tool wait for one another.
    """
    if name in PAGE_TOOLS:
        return _installed(PAGE_TOOLS[name])
    wanted = TOOLS[name]
    if isinstance(wanted, DebianProgram):
        found = shutil.which(Path(wanted.path).name)
        return Path(found) if found else _debian(name, wanted)
    program = cache() / f"{name}-{wanted.version}" / name
    if not program.exists():
        with _locked(f"{name}-{wanted.version}"):
            if not program.exists():
                _build(name, wanted, program)
    return program


# -- Go ------------------------------------------------------------------------------------------------


def go() -> str:
    """The Go tool chain. Raises ToolMissing when there is none, or one that is too old."""
    program = shutil.which("go")
    if program is None:
        raise ToolMissing(
            "helm, kubeconform and other checkers are built with Go, and there is no `go` on PATH: "
            f"install Go {GO_NEEDED} or newer (https://go.dev/dl/)."
        )
    version = subprocess.run(
        [program, "env", "GOVERSION"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if _numbers(version.removeprefix("go")) < _numbers(GO_NEEDED):
        raise ToolMissing(f"{program} is {version}, and the checkers need Go {GO_NEEDED} or newer.")
    return program


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.partition("-")[0].split(".")[:2] if part.isdecimal())


def _build(name: str, wanted: GoProgram, program: Path) -> None:
    compiler = go()
    _say(f"building {name} {wanted.version} (minutes, once)")
    started = time.monotonic()
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        module = Path(directory)
        lines = [
            "module tools",
            f"go {GO_NEEDED}",
            f"require {wanted.module} {wanted.version}",
            *(f"replace {old} => {new}" for old, new in wanted.replaces.items()),
        ]
        (module / "go.mod").write_text("\n".join(lines) + "\n")
        # -trimpath: the program holds no path of this machine. Renamed only when it is whole.
        partial = program.with_name(program.name + ".partial")
        arguments = ["build", "-mod=mod", "-trimpath", "-ldflags=-s -w", "-o", str(partial), wanted.package]
        run([compiler, *arguments], f"building {name} {wanted.version}", cwd=module)
        partial.rename(program)
    _say(f"{name} {wanted.version} is ready after {time.monotonic() - started:.0f} s")


# -- Debian --------------------------------------------------------------------------------------------


def _debian(name: str, wanted: DebianProgram) -> Path:
    root = cache() / f"debian-{wanted.package}"
    program = root / wanted.path
    with _locked(root.name):
        if program.exists():
            return program
        for needed in ("apt-get", "dpkg-deb"):
            if shutil.which(needed) is None:
                raise ToolMissing(
                    f"{name} is not on PATH, and without {needed} it cannot be fetched from Debian's package "
                    f"{wanted.package}: install it by hand."
                )
        _say(f"fetching the Debian package {wanted.package}")
        with tempfile.TemporaryDirectory() as directory:
            fetched = Path(directory)
            # apt's sandbox user cannot write into a directory of ours; without this it only warns.
            download = ["apt-get", "download", "-o", "APT::Sandbox::User=root", wanted.package]
            if subprocess.run(download, cwd=fetched, capture_output=True, check=False).returncode != 0:
                run(["apt-get", "update", "-q"], "apt-get update", cwd=fetched)
                run(download, f"apt-get download {wanted.package}", cwd=fetched)
            package = next(fetched.glob("*.deb"))
            partial = root.with_name(root.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            run(["dpkg-deb", "-x", str(package), str(partial)], f"unpacking {package.name}", cwd=fetched)
            shutil.rmtree(root, ignore_errors=True)
            partial.rename(root)
        if not program.exists():
            raise ToolMissing(f"the Debian package {wanted.package} holds no {wanted.path}.")
        return program


def _installed(wanted: DebianInstalled) -> Path:
    if (found := shutil.which(wanted.program)) is not None:
        return Path(found)
    by_hand = f"install {wanted.program} by hand, for instance with `apt-get install {wanted.package}`."
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise ToolMissing(
            f"{wanted.program} is not on PATH, and only root can install it with apt-get: {by_hand}"
        )
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", wanted.package]
    with _locked(f"installed-{wanted.package}"):
        _say(f"installing the Debian package {wanted.package}")
        try:
            run(["apt-get", "update", "-q"], "apt-get update", cwd=Path.cwd())
            run(install, f"apt-get install {wanted.package}", cwd=Path.cwd())
        except ToolMissing as failure:
            raise ToolMissing(f"{failure} Then {by_hand}") from failure
    if (found := shutil.which(wanted.program)) is None:
        raise ToolMissing(f"the Debian package {wanted.package} holds no {wanted.program}: {by_hand}")
    return Path(found)


# -- both ----------------------------------------------------------------------------------------------


def run(command: Sequence[str], what: str, *, cwd: Path) -> None:
    """Run a command with its output passed through and a line now and then.

    Raises ToolMissing with its name and exit code when it fails.
    """
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=cwd)
    while True:
        try:
            code = process.wait(_HEARTBEAT_S)
        except subprocess.TimeoutExpired:
            _say(f"{what}: {time.monotonic() - started:.0f} s")
        except BaseException:
            process.kill()
            raise
        else:
            break
    if code != 0:
        raise ToolMissing(f"{what} failed: `{' '.join(command)}` ended with {code}; its output is above.")


@contextmanager
def _locked(name: str) -> Iterator[None]:
    directory = cache()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / f"{name}.lock").open("w")
    except OSError as error:
        raise ToolMissing(f"the cache {directory} cannot be written: {error.strerror}.") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _say(text: str) -> None:
    print(f"tools: {text}", file=sys.stderr, flush=True)


def main(names: Sequence[str]) -> int:
    """Install the tools named, or all; says of each where it is."""
    if unknown := [name for name in names if name not in {**TOOLS, **PAGE_TOOLS}]:
        _say(f"there is no tool {unknown[0]}; there are {', '.join({**TOOLS, **PAGE_TOOLS})}.")
        return 2
    try:
        for name in names or TOOLS:
            print(f"{name:<14} {tool(name)}", flush=True)
    except ToolMissing as problem:
        _say(f"FAILED: {problem}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
