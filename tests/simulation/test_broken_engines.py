"""The proof is worth something: every engine that is broken on purpose is found out."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from tests.simulation.broken import BREAKAGES, Breakage, old_store_kept
from tests.simulation.broken_decisions import DECISIONS, fires_are_given_up_at_the_first_trouble
from tests.simulation.broken_terms import TERMS
from tests.simulation.storm import Storm
from tests.simulation.world import run

#: seeds that an engine may survive before it must have been found out
PATIENCE = 400

#: of a breakage that shows in few worlds, in which it can show
WORLDS: dict[Breakage, Callable[[Storm], bool]] = {
    old_store_kept: lambda storm: storm.long_absence,
    fires_are_given_up_at_the_first_trouble: lambda storm: storm.gives_up,
}


def anywhere(_: Storm) -> bool:
    return True


@pytest.mark.parametrize("breakage", [*BREAKAGES, *DECISIONS, *TERMS], ids=lambda breakage: breakage.__name__)
def test_a_broken_engine_is_found_out(breakage: Breakage) -> None:
    """Some seed's ledger does not add up."""
    shows = WORLDS.get(breakage, anywhere)
    for seed in range(PATIENCE):
        if not shows(Storm.draw(Random(f"{seed}"))):
            continue
        with breakage() as engine:
            result = run(seed, engine=engine)
        if breakage in (*DECISIONS, *TERMS):
            # It decides wrongly, and does not break: else the engine has changed, and the breakage with it.
            assert not any("internal error" in violation for violation in result.violations), result
        # An internal error proves nothing: a breakage that does not fit the engine any more makes one too.
        if any("internal error" in violation for violation in result.violations):
            continue
        # Only a seed counts that a sound engine survives.
        if not result.ok and run(seed).ok:
            print(f"found out by {result}")
            return
    pytest.fail(f"survived {PATIENCE} seeds")
