"""TypeScript and the types of Grafana's dashboards: locked packages, installed once into the tools' cache."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

from deploy_tools import ToolMissing, cache

_LOCKED = Path(__file__).with_name("grafana")


def installed() -> Path:
    """The directory that holds `node_modules`. Raises ToolMissing when it cannot be made."""
    lock = (_LOCKED / "package-lock.json").read_bytes()
    home = cache() / f"grafana-schema-{hashlib.sha256(lock).hexdigest()[:16]}"
    cache().mkdir(parents=True, exist_ok=True)
    with home.with_name(home.name + ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not home.exists():
            _install(home)
    return home


def _install(home: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise ToolMissing(
            "the types of dashboards are checked with npm's typescript: install Node.js 18 or newer."
        )
    partial = home.with_name(home.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy2(_LOCKED / name, partial / name)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=partial, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ToolMissing(f"`npm ci` ended with {done.returncode}: {done.stderr[-2000:]}")
    partial.rename(home)
