"""What was, in a file of SQLite."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from delaystream.console.history.database import Database, DatabaseError
from tests.unit.console.history import EventsTopic, content, until
from tests.unit.console.history_cases import *  # noqa: F403
from tests.unit.console.history_cases import events


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'history.db'}"


@pytest.fixture
def fresh_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'fresh.db'}"


def test_a_file_that_another_program_has_locked_is_told_and_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    database = Database.open(f"sqlite:///{path}?timeout=0")
    topic = EventsTopic()
    told = topic.fill(random.Random(1), 40)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    follower = topic.follower(database)
    until(follower, lambda: follower.statuses[0].problem is not None)
    assert "database is locked" in str(follower.statuses[0].problem)
    assert events(database) == 0
    other.execute("ROLLBACK")
    other.close()
    until(follower, lambda: topic.caught_up(follower))
    assert follower.statuses[0].problem is None
    assert events(database) == len(told)
    database.close()


def test_a_full_disk_is_told_and_tried_again(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path / 'history.db'}?timeout=0")
    topic, fresh = EventsTopic(), Database.open(f"sqlite:///{tmp_path / 'fresh.db'}")
    topic.fill(random.Random(2), 2_000)
    with database._engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 20}")
    follower = topic.follower(database, at_once=100)
    until(follower, lambda: follower.statuses[0].problem is not None)
    assert "full" in str(follower.statuses[0].problem)
    assert 0 < events(database) < 2_000
    database.close()
    topic.stored(database)
    topic.stored(fresh)
    assert content(database) == content(fresh)
    fresh.close()


def test_a_database_that_cannot_be_opened_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "history.db").write_bytes(b"no database" * 1_000)
    with pytest.raises(DatabaseError, match="file is not a database"):
        Database.open(f"sqlite:///{tmp_path / 'history.db'}")
    with pytest.raises(DatabaseError, match="unable to open database file"):
        Database.open(f"sqlite:///{tmp_path}/nowhere/history.db")
    with pytest.raises(DatabaseError):
        Database.open("no url")


def test_another_kind_of_database_is_refused() -> None:
    with pytest.raises(DatabaseError, match=r"SQLite or PostgreSQL, not in mysql"):
        Database.open("mysql+pymysql://me:secret@host/name")
