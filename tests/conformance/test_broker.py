"""A real broker and the adapters keep what the engine relies on; the log in memory is held to the same."""

from __future__ import annotations

import pytest

from tests.conformance.broker_world import run_on_broker
from tests.conformance.cases import CASES, SOURCES_CASES, Case


@pytest.mark.timeout(180)
@pytest.mark.parametrize("case", [c for c in CASES if c not in SOURCES_CASES], ids=lambda case: case.__name__)
def test_broker(case: Case, kafka: str) -> None:
    run_on_broker(kafka, case)
