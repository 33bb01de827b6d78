"""Fixtures of the deployment's tests: the ecosystem's own tools, and applications on a real broker.

`make test-deploy` runs this directory. A tool that cannot be installed is an error, never a skip.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.harness_fixtures import cluster, deploy
from tests.integration.harness_topics import admin, create_topic, make_topic

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

Tool = Callable[[str], Path]


@pytest.fixture(scope="session")
def tool() -> Tool:
    """Where a tool of `scripts/deploy_tools.py` is; installs it when it is not there yet."""
    import deploy_tools

    return deploy_tools.tool


__all__ = ["admin", "cluster", "create_topic", "deploy", "make_topic", "tool"]
