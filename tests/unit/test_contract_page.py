"""The page of the header contract: its program runs without delaystream, and finds what is wrong."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.unit.header_contract import VECTORS
from tests.unit.test_setup import ROOT

PAGE = (ROOT / "docs" / "contract.md").read_text("utf-8")


def run(files: Path) -> subprocess.CompletedProcess[str]:
    """The program of the page on a directory of files, with the standard library alone."""
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    # -I: neither the environment nor the directory at hand; -S: no installed package.
    command = [sys.executable, "-I", "-S", "-c", program, str(files)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT.anchor)


def test_the_reader_on_the_page_agrees_with_every_vector_that_it_checks() -> None:
    number = len(VECTORS["durations"]) + sum(len(owner["partitions"]) for owner in VECTORS["owners"])
    finished = run(ROOT / "docs" / "contract")
    assert finished.stdout.splitlines() == [f"{number} of {number} vectors hold"], finished.stderr
    assert finished.returncode == 0


def test_the_reader_on_the_page_tells_which_vector_does_not_hold(tmp_path: Path) -> None:
    shutil.copy(ROOT / "docs" / "contract" / "headers.json", tmp_path)
    wrong = json.loads(json.dumps(VECTORS))
    wrong["durations"][-1] = {"text": "5s", "value": 5001}
    wrong["owners"][0]["partitions"]["3"] += 1
    (tmp_path / "vectors.json").write_text(json.dumps(wrong), "utf-8")
    finished = run(tmp_path)
    assert finished.returncode == 1
    assert [line.partition(":")[0] for line in finished.stdout.splitlines()[:-1]] == [
        "'5s'",
        repr(wrong["owners"][0]["key"]),
    ]


def test_the_numbers_on_the_page_are_those_of_the_files() -> None:
    """Rounded to tens, so that one vector more is no reason to write the page anew."""
    values = sum(len(told) for name, told in VECTORS.items() if isinstance(told, list) and name != "requests")
    assert f"some {round(len(VECTORS['requests']), -1)} records" in PAGE
    assert f"and {round(values, -1)} values" in PAGE
