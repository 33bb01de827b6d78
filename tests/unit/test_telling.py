"""Failures that repeat do not fill the log, and none of them is hidden."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Any

import pytest

from delaystream.core.recurrence.zones import UnknownZoneError
from delaystream.engine.fire import recurring as recurring_fires
from delaystream.engine.policy.telling import EVERY_MS, IN_FULL, KINDS, Telling, Untold
from tests.unit.engine import Engine, in_virtual_time


def test_the_first_are_told_and_the_others_counted() -> None:
    telling = Telling()
    told = [telling.in_full("orders", f"failure {n}", n) for n in range(100)]
    assert told == [True] * IN_FULL + [False] * (100 - IN_FULL)
    assert telling.due(EVERY_MS - 1) == []
    assert telling.due(EVERY_MS) == [Untold(100 - IN_FULL, "failure 99")]
    assert telling.due(EVERY_MS) == []


def test_a_kind_that_goes_on_is_one_line_a_minute() -> None:
    """Slowly, too: as many a minute as are told in full."""
    telling = Telling()
    lines = 0
    for now_ms in range(0, 60 * EVERY_MS, EVERY_MS // IN_FULL):
        lines += telling.in_full("orders", "failure", now_ms) + len(telling.due(now_ms))
    assert 0 < lines <= IN_FULL + 60


def test_a_kind_of_which_nothing_was_heard_is_told_in_full_again() -> None:
    telling = Telling()
    for _ in range(10):
        telling.in_full("orders", "failure", 0)
    telling.due(EVERY_MS)
    assert telling.in_full("orders", "failure", 2 * EVERY_MS)


def test_another_kind_is_told_at_once() -> None:
    telling = Telling()
    for _ in range(10):
        telling.in_full("orders", "failure", 0)
    assert telling.in_full("emails", "failure", 0)


def test_kinds_without_end_take_neither_memory_nor_lines() -> None:
    """Anybody can name any topic."""
    telling = Telling()
    lines = sum(telling.in_full(f"topic-{n}", f"failure {n}", n) for n in range(10_000))
    assert lines == KINDS + IN_FULL
    assert len(telling._kinds) == KINDS + 1
    assert telling.due(math.inf) == [Untold(10_000 - lines, "failure 9999")]
    assert not telling._kinds


def test_records_that_are_refused_one_by_one_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Records without a key for a compacted topic, for ten minutes; another failure is told at once."""
    caplog.set_level(logging.INFO, "delaystream.engine.processor")
    count = 600

    async def test(engine: Engine) -> None:
        engine.log.create_topic("compact", 1, compacted=True)
        for _ in range(count):
            engine.request(b"v", None, destination="compact", delay="0")
            await asyncio.sleep(1)
        engine.log.topics["delay-wheel-changelog"].refusal = "not now"
        engine.request(b"v", destination="orders", delay="0")
        await asyncio.sleep(0.5)
        engine.log.topics["delay-wheel-changelog"].refusal = None
        await asyncio.sleep(30)
        assert len(engine.read("delay-dead-letters")) == count

    in_virtual_time(test)
    lines = [record.getMessage() for record in caplog.records]
    about = [line for line in lines if "compact" in line and "changelog" not in line]
    assert 0 < len(about) <= IN_FULL + 11
    in_full = [line for line in about if "more" not in line]
    assert len(in_full) == IN_FULL
    counted = sum(int(line.split()[2]) for line in about if "more" in line)
    assert len(in_full) + counted >= count
    assert any("delay-wheel-changelog" in line and "not now" in line for line in lines)
    assert len(lines) < 60


@pytest.mark.parametrize("seconds_after", [70, 0])
def test_what_was_counted_is_told_when_no_more_comes(
    caplog: pytest.LogCaptureFixture, seconds_after: int
) -> None:
    """After a minute without failure, or when the partition stops before."""
    caplog.set_level(logging.WARNING, "delaystream.engine.processor")

    async def test(engine: Engine) -> None:
        engine.log.create_topic("compact", 1, compacted=True)
        for _ in range(10):
            engine.request(b"v", None, destination="compact", delay="0")
            await asyncio.sleep(1)
        await asyncio.sleep(seconds_after)
        told = any("more like it" in record.getMessage() for record in caplog.records)
        assert told is bool(seconds_after)

    in_virtual_time(test)
    [line] = [line for line in map(logging.LogRecord.getMessage, caplog.records) if "more like it" in line]
    assert "compact-0: " in line


def test_schedules_that_are_paused_by_the_hundred_do_not_fill_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The zone database of this worker lacks a zone: each schedule has its event, the log their number."""
    caplog.set_level(logging.WARNING, "delaystream.engine")

    def unknown(*_: Any) -> None:
        raise UnknownZoneError("Mars/Olympus")

    async def test(engine: Engine) -> None:
        for number in range(200):
            engine.request(destination="orders", id=f"s{number}", every="10s")
        await asyncio.sleep(5)
        monkeypatch.setattr(recurring_fires, "decide_passed", unknown)
        await asyncio.sleep(120)
        paused = [event for event in engine.read("delay-events") if b'"paused"' in (event.value or b"")]
        assert len(paused) == 200

    in_virtual_time(test)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == IN_FULL + 1
    assert f"{200 - IN_FULL} more like it" in lines[-1]
    assert "is paused" in lines[-1]
