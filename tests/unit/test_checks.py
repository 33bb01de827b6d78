"""`make test` itself: nothing is left out, and its last lines say what failed."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import settings

from tests.examples import EXAMPLES
from tests.unit.test_setup import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import checks

FAILING = """
import pytest

def test_passes():
    pass

@pytest.mark.parametrize("number", [1, 2])
def test_fails(number):
    assert number == 1, "it is\\n" + str(number)

@pytest.fixture
def broken():
    raise RuntimeError("no broker")

def test_has_no_broker(broken):
    pass
"""


def test_the_integration_tests_are_all_run_and_the_longest_first() -> None:
    """They are named file by file: none is forgotten, and none that is gone is named."""
    [check] = checks.integration("python")
    named = [word for word in check.command if word.startswith("tests/")]
    there = [str(path.relative_to(ROOT)) for path in (ROOT / "tests" / "integration").rglob("*test*.py")]
    there = [path for path in there if Path(path).name.startswith("test_") or path.endswith("_test.py")]
    assert sorted(named) == sorted([*there, "tests/conformance/test_broker.py"])
    assert named[: len(checks.LONGEST)] == checks.LONGEST
    assert "--no-loadscope-reorder" in check.command, "xdist would begin with the files of most tests"


def test_every_file_of_tests_is_run_by_one_of_the_commands() -> None:
    """By `make test`, `test-page` or `test-deploy`; those of `make test-cluster` stand in one directory."""
    every = [*checks.unit_and_simulation("python", "3"), *checks.integration("python")]
    words = [
        word
        for check in [*every, *checks.page("python"), *checks.deployment("python")]
        for word in check.command
    ]
    run = tuple(word if word.endswith(".py") else f"{word}/" for word in words if word.startswith("tests/"))
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")}
    assert {name for name in files if not name.startswith(run)} == {"tests/cluster/test_life.py"}


def test_what_one_python_is_enough_for_is_there_and_is_run_on_the_first() -> None:
    """A name that is gone would leave out nothing, and nobody would see it."""
    assert [file for file in checks.ONCE if not (ROOT / file).is_file()] == []
    for check in checks.unit_and_simulation("python", "3"):
        assert not [word for word in check.command if word.startswith("--ignore")]
        others = checks.on_another(check)
        assert others.command[-len(checks.ONCE) :] == [f"--ignore={file}" for file in checks.ONCE]


def test_a_check_beside_others_says_how_it_ended(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """What it printed is shown, and its failure counts."""
    failing = [sys.executable, "-c", "print('why'); raise SystemExit(3)"]
    made = [checks.Check("passes", [sys.executable, "-c", ""], 60), checks.Check("fails", failing, 60)]
    found = checks.Beside(made).start().outcomes()
    assert [(outcome.name, outcome.problem) for outcome in found] == [
        ("passes", None),
        ("fails", "exit code 3"),
    ]
    assert b"=== fails: exit code 3\nwhy\n" in capfdbinary.readouterr().out


def test_what_runs_in_spare_time_may_take_three_times_as_long() -> None:
    for check in checks.unit_and_simulation("python", "3"):
        spared = checks.in_spare_time(check)
        assert spared.command[:3] == ["nice", "-n", "19"]
        assert spared.command[3:] == [*check.command, f"--timeout={3 * checks.TEST_S}"]
        assert spared.bound_s == 3 * check.bound_s
    configured = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["pytest"]
    assert configured["ini_options"]["timeout"] == checks.TEST_S


def test_continuous_integration_runs_everything() -> None:
    """Every target that a machine without a cluster or containers can run; each whatever the others say."""
    ran = re.findall(r"^run make (\S+)$", (ROOT / ".ci" / "run").read_text("utf-8"), re.MULTILINE)
    assert ran == ["test", "test-pythons", "test-page", "test-deploy"]


def test_the_documentation_is_built_so_that_a_warning_fails() -> None:
    """mkdocs counts what its logger lets through, with `--quiet` nothing. `make docs` is this very check."""
    command = checks.documentation("python").command
    assert command[1:4] == ["-m", "mkdocs", "build"]
    assert "--strict" in command
    assert not {"--quiet", "-q"} & set(command)
    # `make test` tells the makes below it to say where they are.
    dry = ["make", "--no-print-directory", "-n", "docs"]
    made = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert made.splitlines()[-1].endswith("scripts/checks.py docs")
    assert checks.documentation("python") in checks.lint("python")


@pytest.mark.parametrize("processes", [(), ("-n", "2")], ids=["alone", "distributed"])
def test_the_last_lines_name_the_tests_that_failed(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    processes: tuple[str, ...],
) -> None:
    """Each with the first line of why: whoever sees only the end of a log knows where to look."""
    # This test's own: the run below is no part of the run that it is in.
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    (tmp_path / "test_failing.py").write_text(FAILING)
    (tmp_path / "test_broken.py").write_text("import no_such_module")
    pytest_there = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", *processes, str(tmp_path)]
    options = [f"--rootdir={tmp_path}", "--continue-on-collection-errors", "-p", "no:cacheprovider"]
    passing = checks.run(checks.Check("lint", [sys.executable, "-c", ""], 60), "1/2")
    failing = checks.run(checks.Check("unit", [*pytest_there, *options], 600), "2/2")
    capfd.readouterr()
    assert checks.report([passing, failing], 1.0, "make test") == 1
    unimportable = f"ImportError while importing test module '{tmp_path}/test_broken.py'."
    [_, _, first, second, *named, empty, last] = capfd.readouterr().out.splitlines()
    assert first.startswith("passed  lint ")
    assert second.startswith("FAILED  unit ")
    assert {line.strip() for line in named} == {
        "test_failing.py::test_fails[2] - AssertionError: it is",
        "test_failing.py::test_has_no_broker - RuntimeError: no broker",
        f"test_broken.py - {unimportable[:120]}",
    }
    assert empty == ""
    assert last.startswith("make test: FAILED (unit), in 0 min")


def test_no_more_tests_are_named_than_can_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    tests = tuple(f"tests/unit/test_{number}.py::test - why" for number in range(checks.NAMED + 3))
    checks.report([checks.Outcome("unit", 1.0, "exit code 1", tests)], 1.0, "make test")
    lines = capsys.readouterr().out.splitlines()
    assert [line.strip() for line in lines if "test_" in line] == list(tests[: checks.NAMED])
    assert "        and 3 more" in lines


def test_a_check_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """It would pass: none of its no checks failed."""
    assert checks.main(["lnit"]) == 2
    assert "there is no check lnit" in capsys.readouterr().err


def test_pythons_that_are_not_here_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads that all passed has to know on what."""
    monkeypatch.setenv("PATH", str(tmp_path))
    here = "{}.{}".format(*sys.version_info[:2])
    assert checks.absent() == [version for version in ("3.11", "3.12", "3.13") if version != here]


def test_a_check_that_takes_too_long_fails() -> None:
    check = checks.Check("unit", [sys.executable, "-c", "import time; time.sleep(60)"], 1)
    assert checks.run(check, "1/1").problem == "not done after 1 s, stopped"


def test_property_tests_draw_the_same_examples_in_every_run_and_have_no_deadline() -> None:
    """A failure that is found once in a hundred runs, or on a busy machine, is found by somebody else."""
    profile = settings.get_profile(settings.get_current_profile_name())
    assert profile.derandomize == (not EXAMPLES)
    assert profile.deadline is None
