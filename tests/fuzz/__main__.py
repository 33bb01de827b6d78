"""`make fuzz SECONDS=60`: each target for so long, then how many inputs it took and what was found.

`.venv/bin/python -m tests.fuzz [--seconds N] [TARGET...]` runs some; `.venv/bin/python -m tests.fuzz TARGET
FILE` runs one input again, with what goes wrong in full. What was learnt is kept in build/fuzz, and goes on
there the next time; nothing of it is committed. Exits 1 where an input was found that a target cannot take.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "build" / "fuzz"
#: memory of a target's process, seconds for one input, and beyond its time for a whole target
MOST_MB = 2_048
ONE_INPUT_S = 60
BEYOND_S = 240
#: what one input of a target may hold, bytes
LENGTHS = {"engine": 8_192, "batches": 16_384, "headers": 8_192}

_EXECUTED = re.compile(r"stat::number_of_executed_units: (\d+)")


class Result(NamedTuple):
    """How a target did."""

    name: str
    seconds: float
    inputs: int | None
    problem: str | None


def child(name: str, options: list[str]) -> None:
    """Fuzz one target in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=["delaystream"]):
        from tests.fuzz.targets import TARGETS

        target = TARGETS[name]
        # What a target imports when it runs is to be followed too.
        for seed in target.seeds():
            target.run(seed)
            break
    atheris.Setup([sys.argv[0], *options], target.run)
    atheris.Fuzz()


def seeded(name: str) -> Path:
    """The directory of a target's inputs, with those that it begins with."""
    from tests.fuzz.targets import TARGETS

    corpus = KEPT / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in TARGETS[name].seeds():
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    return corpus


def fuzz(name: str, seconds: int) -> Result:
    """One target for so long, in a process of its own."""
    corpus = seeded(name)
    options = [
        str(corpus),
        f"-max_total_time={seconds}",
        f"-artifact_prefix={KEPT / name}/",
        f"-rss_limit_mb={MOST_MB}",
        f"-timeout={ONE_INPUT_S}",
        f"-max_len={LENGTHS.get(name, 1_024)}",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    log = KEPT / name / "log"
    began = time.monotonic()
    problem = None
    with log.open("w") as output:
        command = [sys.executable, "-m", "tests.fuzz", "--child", name, *options]
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        try:
            code = process.wait(seconds + BEYOND_S)
        except subprocess.TimeoutExpired:
            problem = f"not done {BEYOND_S} s after its time"
        else:
            problem = None if code == 0 else f"exit code {code}"
        finally:
            process.kill()
            process.wait()
    text = log.read_text(errors="replace")
    found = _EXECUTED.search(text)
    if problem is not None:
        print(text[-6_000:])
        problem += f"; the input is in {(KEPT / name).relative_to(ROOT)}, what went wrong in its log"
    return Result(name, time.monotonic() - began, int(found[1]) if found else None, problem)


def again(name: str, file: Path) -> None:
    """Run one input once more."""
    from tests.fuzz.targets import TARGETS

    TARGETS[name].run(file.read_bytes())
    print(f"{name}: {file} is no problem")


def main(arguments: list[str]) -> int:
    """See above."""
    if arguments[:1] == ["--child"]:
        child(arguments[1], arguments[2:])
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="time for each target")
    parser.add_argument("what", nargs="*", metavar="TARGET", help="all unless named; or a target and a file")
    options = parser.parse_args(arguments)
    from tests.fuzz.targets import TARGETS

    if len(options.what) == 2 and Path(options.what[1]).is_file():
        again(options.what[0], Path(options.what[1]))
        return 0
    if find_spec("atheris") is None:
        print("fuzz: atheris is not here, which has wheels for Linux on x86-64 alone: nothing was fuzzed.")
        return 1
    if strangers := set(options.what) - TARGETS.keys():
        parser.error(f"no target: {', '.join(sorted(strangers))}; expected some of {', '.join(TARGETS)}")
    results = []
    for name in options.what or TARGETS:
        print(f"fuzz: {name}, {options.seconds} s", flush=True)
        results.append(fuzz(name, options.seconds))
    for result in results:
        inputs = "?" if result.inputs is None else f"{result.inputs:,}"
        print(f"{result.name:<10} {result.seconds:6.0f} s  {inputs:>12} inputs  {result.problem or 'passed'}")
    return 1 if any(result.problem for result in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
