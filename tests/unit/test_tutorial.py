"""The tutorial is what it says: its files pass their tests, and its mistakes are told as it has them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import timedelta
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from delaystream.client import RejectedError
from delaystream.testing import environment

ROOT = Path(__file__).parents[2]
#: delaystream's own by its module: it may be installed here or not
PLUGINS = ("-p", "no:cacheprovider", "-p", "no:delaystream")
PAGE = (ROOT / "docs" / "tutorial.md").read_text("utf-8")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    snippets = re.findall(r"^```python\n(# (\w+\.py)\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for snippet, name in snippets:
        (tmp_path / name).write_text(snippet, "utf-8")
    assert {name for _, name in snippets} == {"sign_ups.py", "test_sign_ups.py", "reports.py"}
    return tmp_path


def loaded(path: Path) -> ModuleType:
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_its_tests_pass(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--rootdir", ".", *PLUGINS, "test_sign_ups.py"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_what_it_has_one_break_is_told_as_it_says() -> None:
    with environment() as env:
        wrong: dict[str, Any] = {"dely": timedelta(days=1)}
        with pytest.raises(TypeError, match="did you mean delay"):
            env.client.schedule("reminders", b"", **wrong)
        with pytest.raises(RejectedError, match="1 day"):
            env.client.schedule("reminders", b"", delay="1 day")


def test_its_report_is_weekly_and_stays_when_the_service_starts_again(project: Path) -> None:
    reports = loaded(project / "reports.py")
    with environment() as env:
        reports.report_weekly(env.client)
        first = env.client.describe("weekly-report")
        env.advance(timedelta(days=3))
        reports.report_weekly(env.client)
        again = env.client.describe("weekly-report")
        assert first is not None
        assert again is not None
        assert (first.next_at, first.revision) == (again.next_at, again.revision)
    assert len(reports.next_reports()) == 3
    assert all(report.startswith("Mon ") for report in reports.next_reports())
    assert all(report.endswith("09:00") for report in reports.next_reports())
