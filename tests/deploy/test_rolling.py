"""A rolling update keeps firing: nothing is lost, nothing comes twice, nothing early."""

from __future__ import annotations

import re

import pytest

from tests.deploy.rolling import roll
from tests.integration.harness_fixtures import Deploy

_ASSIGNED = re.compile(r"assigned: (\S+) ")


@pytest.mark.timeout(240)
def test_two_workers_are_replaced_one_by_one_under_load(deploy: Deploy) -> None:
    """The ledger is clean, and the partitions of a worker that restarts stayed its own."""
    app = deploy(partitions=4, DELAYSTREAM_SESSION_TIMEOUT_MS="45000").apply_topics()
    found = roll(app)
    print(found)
    assert found.report.ok, str(found.report)
    # Generous, for a machine that is busy; `python -m tests.deploy.rolling` has the objective.
    assert found.quantile_ms(0.5) < 3_000, str(found)
    assert found.quantile_ms(1.0) < 45_000, f"{found}: nobody fired before the session timed out"
    assert len(found.lateness_ms) > 1_000
    for worker in app.workers[2:]:
        before, _, after = worker.output().partition("worker stopped")
        # Static membership: no rebalance, and what was its own before.
        assert _ASSIGNED.findall(after) == _ASSIGNED.findall(before)[-1:], worker.output()
