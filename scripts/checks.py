"""Every check of the project, announced and timed: `checks.py [all|lint|docs|unit|pythons|page|deploy]`.

Not part of `all` are `pythons`, which `make test-pythons` runs: unit tests and simulation on the other
supported Pythons; `page`, which `make test-page` runs: the console's pages in a real browser; and `deploy`,
which `make test-deploy` runs: the deployment, with the ecosystem's own tools.
Exits 0 when all passed, 1 when one did not, 2 when there is no such check. A failed check does not stop the
others. The last lines name the failures, each test by its pytest name.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from environment import ROOT, SUPPORTED, SetupError, interpreters, prepare

DEV_LOCK = ROOT / "requirements" / "dev.txt"
TEST_LOCK = ROOT / "requirements" / "test.txt"
#: The simulation, and the conformance of the log and the stores that it runs on.
SIMULATION = ["tests/simulation", "tests/conformance/test_memory_log.py", "tests/conformance/test_stores.py"]
#: The slowest files, slowest first, so that no process works alone for long at the end.
LONGEST = [
    "tests/integration/test_dev_broker.py",
    "tests/integration/test_faults_topics.py",
    "tests/integration/test_transfer.py",
    "tests/integration/test_soak.py",
    "tests/integration/test_static_membership.py",
    "tests/integration/test_console.py",
    "tests/integration/test_console_writes.py",
    "tests/integration/test_consuming.py",
    "tests/integration/test_faults_broker.py",
    "tests/integration/test_kafka_producer.py",
    "tests/conformance/test_broker.py",
    "tests/integration/test_brokers.py",
    "tests/integration/test_faults_destinations.py",
    "tests/integration/test_control_commands.py",
    "tests/integration/test_faults_storage.py",
    "tests/integration/test_faults_batches.py",
]
#: What is about the repository, or proves that a check can fail: the first Python is enough for these.
ONCE = [
    "tests/simulation/test_broken_engines.py",
    "tests/unit/console/test_follower_broken.py",
    "tests/unit/test_architecture.py",
    "tests/unit/test_chart.py",
    "tests/unit/test_checks.py",
    "tests/unit/test_docs.py",
]
INTEGRATION = "integration"
#: Seeds of the simulation on the second and further Pythons: the engine's logic was searched on the first.
OTHER_SEEDS = "150"
#: Most seconds of a test, as in `pyproject.toml`.
TEST_S = 120
#: Where `tests/conftest.py` writes the name of each test that fails, when it fails.
FAILURES = "DELAYSTREAM_TEST_FAILURES"
#: Most failed tests of a check that are named at the end; the log above has all of them.
NAMED = 20


#: the running processes, which a stop has to end
_running: set[subprocess.Popen[bytes]] = set()


@dataclass(frozen=True)
class Check:
    """One command; `bound_s` is the longest that it may take."""

    name: str
    command: list[str]
    bound_s: int
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How one check ended; `problem` is None when it passed."""

    name: str
    seconds: float
    problem: str | None
    tests: tuple[str, ...] = ()
    """Each failed test, with the first line of its reason."""


def lint(python: str) -> list[Check]:
    """Style, formatting, types and the direction of imports."""
    return [
        Check("ruff check", [python, "-m", "ruff", "check", "."], 120),
        Check("ruff format", [python, "-m", "ruff", "format", "--check", "."], 120),
        Check("mypy --strict", [python, "-m", "mypy"], 300),
        Check(
            "import direction",
            [python, "-c", "from importlinter.cli import lint_imports_command as lint; lint()", "--no-logo"],
            120,
        ),
        documentation(python),
    ]


def documentation(python: str) -> Check:
    """Build the site strictly: a page out of the navigation, a broken link and a broken anchor fail.

    Never with `--quiet`: it drops the warnings before `--strict` counts them.
    """
    build = [python, "-m", "mkdocs", "build", "--strict"]
    return Check("documentation", build, 120, {"NO_MKDOCS_2_WARNING": "1"})


def unit_and_simulation(python: str, version: str) -> list[Check]:
    """Unit tests and the simulation, in one process more than there are cores: some tests wait."""
    processes = str(min(4, (os.cpu_count() or 1) + 1))
    pytest = [python, "-m", "pytest", "-q", "-n", processes]
    return [
        Check(f"unit (Python {version})", [*pytest, "tests/unit", "examples/tests"], 1200),
        Check(f"simulation (Python {version})", [*pytest, *SIMULATION], 900),
    ]


def on_another(check: Check) -> Check:
    """The same for a second or further Python: without `ONCE`, with fewer seeds."""
    left_out = [f"--ignore={file}" for file in ONCE]
    return replace(
        check,
        command=[*check.command, *left_out],
        environment={"DELAYSTREAM_SIMULATION_SEEDS": OTHER_SEEDS},
    )


def in_spare_time(check: Check) -> Check:
    """The same beside other work: each test may take three times as long, and so may all."""
    command = ["nice", "-n", "19", *check.command, f"--timeout={3 * TEST_S}"]
    return replace(check, command=command, bound_s=check.bound_s * 3)


def integration(python: str) -> list[Check]:
    """Against real brokers, in three processes on two cores: half of each one's time is waiting."""
    pytest = [python, "-m", "pytest", "-q", "-n", "3", "--dist", "loadfile", "--no-loadscope-reorder"]
    return [Check(INTEGRATION, [*pytest, "--durations=10", *integration_files()], 1800)]


def integration_files() -> list[str]:
    """Every file of the integration tests, `LONGEST` first.

    Files, not their directory: pytest sorts what it finds in a directory, and keeps the order of files.
    """
    found = {str(path.relative_to(ROOT)) for path in (ROOT / "tests" / "integration").rglob("test_*.py")}
    return [*LONGEST, *sorted(found - set(LONGEST))]


def deployment(python: str) -> list[Check]:
    """Container, Compose, chart, rules and dashboards. The tools first: building them takes minutes, once."""
    return [
        Check("tools", [python, "scripts/deploy_tools.py"], 1800),
        Check("deployment", [python, "-m", "pytest", "-q", "--durations=10", "tests/deploy"], 1200),
    ]


def page(python: str) -> list[Check]:
    """The console's pages, in a real browser. It first: installing it takes a minute, once."""
    return [
        Check("browser", [python, "scripts/deploy_tools.py", "chromium"], 600),
        Check("page", [python, "-m", "pytest", "-q", "-n", "2", "tests/page"], 600),
    ]


def run(check: Check, position: str, output: IO[bytes] | None = None) -> Outcome:
    """Run one check with its output passed through, or written to a file."""
    with tempfile.TemporaryDirectory(prefix="delaystream-checks-") as directory:
        return _run(check, position, Path(directory) / "failures", output)


def _run(check: Check, position: str, failures: Path, output: IO[bytes] | None) -> Outcome:
    if output is None:
        print(f"\n=== {position} {check.name}", flush=True)
    started = time.monotonic()
    environment = {**os.environ, **check.environment, FAILURES: str(failures)}
    process = subprocess.Popen(
        check.command,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
    )
    _running.add(process)
    problem = None
    try:
        if (code := process.wait(check.bound_s)) != 0:
            problem = f"exit code {code}"
    except subprocess.TimeoutExpired:
        problem = f"not done after {check.bound_s} s, stopped"
    except KeyboardInterrupt:
        for each in [*_running]:
            _stop(each, signal.SIGINT)
        raise
    finally:
        _running.discard(process)
    if problem is not None:
        # End the process group, with brokers and workers that a failed run may have left.
        _stop(process, signal.SIGTERM)
    seconds = time.monotonic() - started
    if output is None:
        print(f"=== {position} {check.name}: {problem or 'passed'} ({seconds:.1f} s)", flush=True)
    tests = tuple(failures.read_text("utf-8").splitlines()) if failures.exists() else ()
    return Outcome(check.name, seconds, problem, tests)


def _stop(process: subprocess.Popen[bytes], first: signal.Signals) -> None:
    for number in (first, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            continue


class Beside:
    """Checks in parallel with the tests on real brokers, which wait for half of their time.

    These use the remaining processor time, and are shown when both are done.
    """

    def __init__(self, checks: list[Check]) -> None:
        self._checks = checks
        self._outcomes: list[Outcome] = []
        self._shown: list[bytes] = []
        self._thread = threading.Thread(target=self._run, name="checks beside", daemon=True)

    def start(self) -> Beside:
        """Begin."""
        self._thread.start()
        return self

    def outcomes(self) -> list[Outcome]:
        """Wait for them, show what they printed, and say how each ended."""
        self._thread.join()
        for text in self._shown:
            print(text.decode("utf-8", "replace"), flush=True)
        return self._outcomes

    def _run(self) -> None:
        for check in self._checks:
            with tempfile.TemporaryFile() as output:
                outcome = run(check, "", output)
                output.seek(0)
                verdict = outcome.problem or "passed"
                self._shown.append(
                    b"\n=== %b: %b\n%b" % (check.name.encode(), verdict.encode(), output.read())
                )
                self._outcomes.append(outcome)


def all_of(python: str, version: str) -> list[Outcome]:
    """`make test`: first the quick ones, then the tests on real brokers, with the others beside them."""
    front = [*lint(python), *integration(python)]
    beside = None
    outcomes: list[Outcome] = []
    for number, check in enumerate(front, start=1):
        if check.name == INTEGRATION:
            beside = Beside([in_spare_time(each) for each in unit_and_simulation(python, version)]).start()
        outcomes.append(run(check, f"{number}/{len(front)}"))
    assert beside is not None
    return outcomes + beside.outcomes()


def on_other_pythons() -> list[Outcome]:
    """Unit tests and simulation on every other supported Python that runs here, one after the other.

    An environment that cannot be made counts as an outcome.
    """
    outcomes: list[Outcome] = []
    for version, interpreter in interpreters().items():
        if version == sys.version_info[:2]:
            continue
        name = ".".join(str(part) for part in version)
        started = time.monotonic()
        try:
            python = prepare(ROOT / f".venv-{name}", interpreter, [TEST_LOCK])
        except SetupError as failure:
            print(f"setup: {failure}", flush=True)
            seconds = time.monotonic() - started
            outcomes.append(Outcome(f"environment (Python {name})", seconds, "could not be set up"))
            continue
        for check in unit_and_simulation(str(python), name):
            outcomes.append(run(on_another(check), ""))
    for missing in absent():
        print(f"\nPython {missing} is not here: nothing was tested on it", flush=True)
    return outcomes


def absent() -> list[str]:
    """The supported Pythons that do not run here, as `3.13`."""
    here = {*interpreters(), sys.version_info[:2]}
    return [".".join(map(str, version)) for version in SUPPORTED if version not in here]


def checks_of(what: str, python: str, version: str) -> list[Check] | None:
    """The checks of one name; None where there is none of it."""
    made: dict[str, Callable[[], list[Check]]] = {
        "lint": lambda: lint(python),
        "docs": lambda: [documentation(python)],
        "unit": lambda: unit_and_simulation(python, version),
        "page": lambda: page(python),
        "deploy": lambda: deployment(python),
    }
    return made[what]() if what in made else None


def main(arguments: list[str]) -> int:
    """Run what was asked for, then say plainly how it ended."""
    started = time.monotonic()
    # The checks run in sessions of their own, so this process must stop them, for either signal.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    python = sys.executable
    what = arguments[0] if arguments else "all"
    version = ".".join(str(part) for part in sys.version_info[:2])
    try:
        if what == "all":
            outcomes = all_of(python, version)
        elif what == "pythons":
            outcomes = on_other_pythons()
        elif (checks := checks_of(what, python, version)) is not None:
            outcomes = [run(check, f"{number}/{len(checks)}") for number, check in enumerate(checks, start=1)]
        else:
            print(f"checks.py: there is no check {what}", file=sys.stderr)
            return 2
    except KeyboardInterrupt:
        print("\ninterrupted", flush=True)
        return 130
    targets = {"all": "test", "page": "test-page", "deploy": "test-deploy", "pythons": "test-pythons"}
    title = f"make {targets.get(what, what)}"
    return report(outcomes, time.monotonic() - started, title)


def report(outcomes: list[Outcome], seconds: float, title: str) -> int:
    """Print how each check ended, with the tests of it that failed; the exit code of all."""
    print("\n" + "-" * 72)
    for outcome in outcomes:
        verdict = "passed" if outcome.problem is None else "FAILED"
        remark = "" if outcome.problem is None else f"  {outcome.problem}"
        print(f"{verdict}  {outcome.name:<32} {outcome.seconds:7.1f} s{remark}")
        for test in outcome.tests[:NAMED]:
            print(f"        {test}")
        if len(outcome.tests) > NAMED:
            print(f"        and {len(outcome.tests) - NAMED} more")
    failed = [outcome.name for outcome in outcomes if outcome.problem is not None]
    minutes, rest = divmod(round(seconds), 60)
    ending = f"FAILED ({', '.join(failed)})" if failed else f"PASSED, all {len(outcomes)} checks"
    print(f"\n{title}: {ending}, in {minutes} min {rest} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    # Path of this script's directory is first on sys.path, so `environment` is found wherever make runs from.
    assert Path(sys.path[0]).samefile(Path(__file__).parent)
    sys.exit(main(sys.argv[1:]))
