"""Renew `requirements/*.txt` from pyproject.toml: versions and hashes for every Python and platform.

No index address is written: packages come from wherever pip is configured to take them. Further arguments go
to `uv pip compile`, for instance `--upgrade`, or `--upgrade-package NAME`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from environment import ROOT, prepare

LOCKS = ROOT / "requirements"
#: Lock, what it locks, and the locks that it must agree with.
PLAN: list[tuple[str, list[str], list[str]]] = [
    ("run", ["pyproject.toml"], []),
    ("test", ["pyproject.toml", "--group", "test"], ["run"]),
    ("console", ["pyproject.toml", "--extra", "console"], ["test"]),
    ("tracing", ["pyproject.toml", "--extra", "tracing"], ["test"]),
    ("dev", ["pyproject.toml", "--group", "dev"], ["test"]),
    ("build", ["--group", "build"], ["dev"]),
    ("bench", ["--group", "bench"], ["dev"]),
    ("deploy", ["--group", "deploy"], ["dev"]),
    ("page", ["--group", "page"], ["dev"]),
    ("fuzz", ["--group", "fuzz"], ["dev"]),
    ("audit", ["--group", "audit"], []),
    ("lock", ["--group", "lock"], []),
]


def compile_command(uv: Path, name: str, sources: list[str], constraints: list[str]) -> list[str]:
    """The command that writes one lock; versions already locked are kept where they still fit."""
    options = ["--universal", "--python-version=3.11", "--generate-hashes", "--no-header", "--quiet"]
    agreed = [
        word for constraint in constraints for word in ("--constraint", f"requirements/{constraint}.txt")
    ]
    return [
        str(uv),
        "pip",
        "compile",
        *options,
        *sources,
        *agreed,
        "--output-file",
        f"requirements/{name}.txt",
    ]


def main(arguments: list[str]) -> int:
    """Renew every lock, in an order in which the later ones agree with the earlier ones."""
    python = prepare(ROOT / ".venv-lock", Path(sys.executable), [LOCKS / "lock.txt"], project=False)
    uv = python.with_name("uv")
    for name, sources, constraints in PLAN:
        print(f"lock: requirements/{name}.txt", flush=True)
        command = [*compile_command(uv, name, sources, constraints), *arguments]
        if (code := subprocess.run(command, cwd=ROOT, check=False).returncode) != 0:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
