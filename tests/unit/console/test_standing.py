"""The view `schedules` holds what the copies hold, whatever was interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest

from delaystream.console.history.database import Database
from delaystream.console.replica.follower import Follower
from tests.unit.console.standing_cases import *  # noqa: F403
from tests.unit.console.standing_cases import keep_up


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'history.db'}"


@pytest.mark.parametrize("seed", range(4))
def test_the_view_is_what_the_copy_is(seed: int, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_up(seed, database, monkeypatch)


def test_a_copy_that_forgets_what_was_touched_is_found_out(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Follower, "_touch", lambda self, row_keys: None)
    with pytest.raises(AssertionError):
        keep_up(0, database, monkeypatch)
