"""The tools are those that are pinned; one that cannot be had is a failure that says what is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.conftest import ROOT, Tool


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("helm", ["version"], 'Version:"v4'),
        ("kubeconform", ["-h"], "-schema-location"),
        ("helm-unittest", ["--help"], "chart unittest"),
        ("promtool", ["--version"], "promtool, version"),
    ],
)
@pytest.mark.timeout(1800)
def test_a_pinned_tool_runs(tool: Tool, name: str, arguments: list[str], expected: str) -> None:
    done = subprocess.run([tool(name), *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert expected in done.stdout + done.stderr


def test_without_go_the_failure_says_what_to_install(tmp_path: Path) -> None:
    """Never a skip: exit code 1 and one sentence."""
    environment = {**os.environ, "DELAYSTREAM_CACHE_DIR": str(tmp_path), "PATH": str(tmp_path)}
    script = ROOT / "scripts" / "deploy_tools.py"
    done = subprocess.run(
        [sys.executable, script, "helm"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "there is no `go` on PATH: install Go" in done.stderr


def test_an_unknown_tool_is_named(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "deploy_tools.py"
    done = subprocess.run([sys.executable, script, "helmet"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there is no tool helmet" in done.stderr
