"""What happens when the system's clock is stepped."""

from __future__ import annotations

import asyncio
import logging

import pytest

from delaystream.adapters.clock import ClockWatch
from delaystream.testing import LoopClock, VirtualTimeLoop
from tests.unit.engine import Engine, in_virtual_time


@pytest.mark.parametrize(
    ("step_ms", "word"), [(90_000, "forward by 90000 ms"), (-3_600_000, "back by 3600000 ms")]
)
def test_a_step_is_told_once_with_its_size(step_ms: int, word: str, caplog: pytest.LogCaptureFixture) -> None:
    with VirtualTimeLoop() as loop, caplog.at_level(logging.WARNING):

        async def run() -> None:
            clock = LoopClock(loop)
            watch = ClockWatch(clock)
            watching = asyncio.create_task(watch.run())
            await asyncio.sleep(10)
            clock.step(step_ms)
            await asyncio.sleep(10)
            watching.cancel()
            assert (watch.steps, watch.stepped_ms) == (1, step_ms)

        loop.run_until_complete(run())
    assert [word in record.message for record in caplog.records] == [True]


def test_a_step_forward_makes_due_what_it_passes_over_within_a_second() -> None:
    async def test(engine: Engine) -> None:
        engine.request(b"1", destination="orders", delay="30m")
        engine.request(b"2", destination="orders", delay="2h")
        await asyncio.sleep(5)
        engine.clock.step(3_600_000)
        await asyncio.sleep(1.1)
        assert [record.value for record in engine.read("orders")] == [b"1"]

    in_virtual_time(test)


def test_a_step_back_fires_nothing_early_and_nothing_twice() -> None:
    async def test(engine: Engine) -> None:
        engine.request(b"1", destination="orders", delay="10s")
        engine.request(b"2", destination="orders", delay="20s")
        await asyncio.sleep(15)
        engine.clock.step(-60_000)
        await asyncio.sleep(60)
        assert [record.value for record in engine.read("orders")] == [b"1"]
        await asyncio.sleep(10)
        assert [record.value for record in engine.read("orders")] == [b"1", b"2"]

    in_virtual_time(test)
