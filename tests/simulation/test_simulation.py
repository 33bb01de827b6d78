"""Thousands of seeds: whatever happens, nothing is lost, nothing early, nothing twice.

``DELAYSTREAM_SIMULATION_SEEDS`` sets how many, ``DELAYSTREAM_SIMULATION_FIRST_SEED`` where they begin. A seed
that fails is printed with the command that replays it alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.world import run

SEEDS = int(os.environ.get("DELAYSTREAM_SIMULATION_SEEDS", "2000"))
FIRST_SEED = int(os.environ.get("DELAYSTREAM_SIMULATION_FIRST_SEED", "0"))
#: so that they spread over the processes that run the tests
CHUNKS = 20


@pytest.mark.timeout(600 + SEEDS)
@pytest.mark.parametrize("chunk", range(min(CHUNKS, SEEDS)))
def test_every_seed_keeps_the_ledger(chunk: int) -> None:
    """Lost 0, early 0, duplicated 0, damaged 0, in order, and the state is what the changelog says."""
    delivered = 0
    for seed in range(FIRST_SEED + chunk, FIRST_SEED + SEEDS, CHUNKS):
        result = run(seed)
        delivered += result.report.delivered
        assert result.ok, f"{result}\nReplay it: python -m tests.simulation {seed}"
    assert delivered or chunk >= SEEDS, "the worlds were empty"


def test_a_seed_replays_to_the_letter() -> None:
    """In another process, with other hashes, everything happens in the same order at the same time."""
    root = Path(__file__).parents[2]
    traces = [
        subprocess.run(
            [sys.executable, "-m", "tests.simulation", "7"],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert traces[0] == traces[1]
    assert traces[0].count(b"\n") > 20
