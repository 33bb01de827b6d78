"""How many examples a property test draws, and which: the same in every run, however busy the machine."""

from __future__ import annotations

import os

from hypothesis import settings

EXAMPLES = int(os.environ.get("DELAYSTREAM_EXAMPLES", "0"))
"""So many for each property, drawn anew, in place of the few that are the same in every run; 0: those few."""


def examples(number: int) -> settings:
    """So many examples for a property test: `tests/conftest.py` gives 100 to one that says nothing.

    No example has a deadline: a machine that does other things too would fail what is right.
    """
    return settings(max_examples=EXAMPLES or number, derandomize=not EXAMPLES, deadline=None)
