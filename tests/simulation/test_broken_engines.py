"""The proof is worth something: every engine that is broken on purpose is found out."""

from __future__ import annotations

import pytest

from tests.simulation.broken import BREAKAGES, Breakage
from tests.simulation.world import run

#: seeds that an engine may survive before it must have been found out
PATIENCE = 300


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda breakage: breakage.__name__)
def test_a_broken_engine_is_found_out(breakage: Breakage) -> None:
    """Some seed's ledger does not add up."""
    for seed in range(PATIENCE):
        with breakage() as engine:
            result = run(seed, engine=engine)
        # Only a seed counts that a sound engine survives.
        if not result.ok and run(seed).ok:
            print(f"found out by {result}")
            return
    pytest.fail(f"survived {PATIENCE} seeds")
