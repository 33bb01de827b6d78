"""Every snippet of docs/testing.md is what it says: a file of a project whose tests pass."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from inspect import signature
from pathlib import Path
from typing import Any

from delaystream.testing import AsyncEnvironment, Environment, environment
from delaystream.testing.expectations import Expected

ROOT = Path(__file__).parents[2]
#: delaystream's own by its module: it may be installed here or not
PLUGINS = ("-p", "no:cacheprovider", "-p", "no:delaystream", "-p", "delaystream.testing.plugin")
#: what `with` and the fixtures call
ENDS = ("close", "abandon", "end_outside")
PAGE = (ROOT / "docs" / "testing.md").read_text("utf-8")


def test_every_snippet_runs(tmp_path: Path) -> None:
    snippets = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert snippets
    tests = 0
    for snippet in snippets:
        name = re.match(r"# (\w+\.py)\n", snippet)
        assert name is not None, snippet
        (tmp_path / name[1]).write_text(snippet, "utf-8")
        tests += len(re.findall(r"^(?:async )?def test_", snippet, re.MULTILINE))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--rootdir", ".", *PLUGINS],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert f"{tests} passed" in done.stdout, done.stdout + done.stderr


def test_the_page_names_what_there_is() -> None:
    """Each option, each expectation, and each name of an environment that is not private."""
    for option in signature(environment).parameters:
        assert f"| `{option}` |" in PAGE
    for name in Expected.__annotations__:
        assert f"`{name}`" in PAGE
    for kind in (Environment, AsyncEnvironment):
        for name in dir(kind):
            if not name.startswith("_") and name not in ENDS:
                assert f"env.{name}" in PAGE or f"`{name}" in PAGE, name


def test_what_the_page_calls_an_environment_is_there() -> None:
    named = set(re.findall(r"\benv\.(\w+)", PAGE))
    made: Any = Environment
    with environment() as env:
        assert {name for name in named if not hasattr(env, name) and not hasattr(made, name)} == set()
