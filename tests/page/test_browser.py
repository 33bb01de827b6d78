"""Without a browser nothing is skipped: a sentence says what to install."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.page import conftest  # noqa: F401  # the scripts can be imported


def missing(monkeypatch: pytest.MonkeyPatch, *, present: set[str], user: int) -> str:
    """What is said where only some programs are there."""
    from deploy_tools import ToolMissing, tool

    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name in present else None)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    with pytest.raises(ToolMissing) as told:
        tool("chromium")
    return str(told.value)


def test_whoever_is_not_root_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    told = missing(monkeypatch, present={"apt-get"}, user=1000)
    assert told.startswith("chromium is not on PATH, and only root can install it with apt-get")
    assert "apt-get install chromium" in told


def test_so_is_whoever_has_no_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "install chromium by hand" in missing(monkeypatch, present=set(), user=0)


def test_the_one_on_path_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from deploy_tools import tool

    monkeypatch.setattr(shutil, "which", lambda name: f"/opt/{name}")
    assert tool("chromium") == Path("/opt/chromium")
