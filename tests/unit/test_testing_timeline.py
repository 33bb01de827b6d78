"""An event loop that goes as far as it is told: for an engine inside of a user's test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from delaystream.testing import RunawayError
from delaystream.testing.timeline import Timeline


def ticking(timeline: Timeline, seen: list[int], every_s: float) -> None:
    async def tick() -> None:
        while True:
            await asyncio.sleep(every_s)
            seen.append(timeline.now_ms)

    timeline.create_task(tick())


def test_nothing_happens_until_it_is_told_how_far_to_go() -> None:
    timeline = Timeline()
    seen: list[int] = []
    ticking(timeline, seen, 10)
    assert not seen
    assert timeline.run(25_000)
    assert seen == [10_000, 20_000]
    assert timeline.now_ms == 25_000


def test_what_is_set_to_the_end_of_a_run_happens_in_it() -> None:
    timeline = Timeline()
    seen: list[int] = []
    ticking(timeline, seen, 10)
    timeline.run(10_000)
    assert seen == [10_000]


def test_times_are_met_to_the_millisecond_however_long_it_runs() -> None:
    """Fractions of a second add up to what they are, not to what floats make of them."""
    timeline = Timeline()
    seen: list[int] = []
    ticking(timeline, seen, 0.1)
    timeline.run(1_000_000)
    assert seen == list(range(100, 1_000_001, 100))


def test_a_wait_of_less_than_a_millisecond_passes_time() -> None:
    timeline = Timeline()
    seen: list[int] = []
    ticking(timeline, seen, 0.0004)
    timeline.run(2)
    assert seen == [1, 2]


def test_a_cancelled_timer_neither_runs_nor_keeps_the_time() -> None:
    timeline = Timeline()
    timeline.call_later(5, lambda: pytest.fail("it was cancelled")).cancel()
    assert timeline.next_ms is None
    assert timeline.run(10_000)


def test_it_halts_before_time_goes_on_and_not_before_the_moment_is_over() -> None:
    timeline = Timeline()
    seen: list[str] = []

    def halt() -> None:
        timeline.halted = True
        timeline.call_soon(seen.append, "the same moment")

    timeline.call_later(1, halt)
    timeline.call_later(2, seen.append, "later")
    assert not timeline.run(5_000)
    assert (timeline.now_ms, seen) == (1_000, ["the same moment"])
    assert timeline.run(5_000)
    assert seen == ["the same moment", "later"]


def test_it_runs_inside_of_a_running_loop_which_is_there_again_afterwards() -> None:
    async def test() -> None:
        outer = asyncio.get_running_loop()
        task = asyncio.current_task()
        timeline = Timeline()
        loops: list[asyncio.AbstractEventLoop] = []

        async def inner() -> None:
            await asyncio.sleep(3_600)
            loops.append(asyncio.get_running_loop())

        timeline.create_task(inner())
        timeline.run(3_600_000)
        assert loops == [timeline]
        assert asyncio.get_running_loop() is outer
        assert asyncio.current_task() is task

    asyncio.run(test())


def test_the_loop_around_it_is_there_again_when_a_run_fails() -> None:
    async def test() -> None:
        outer = asyncio.get_running_loop()
        timeline = Timeline(most_steps=10)

        async def spin() -> None:
            while True:  # noqa: ASYNC110 - it spins
                await asyncio.sleep(0)

        timeline.create_task(spin())
        with pytest.raises(RunawayError, match="10 callbacks at one moment"):
            timeline.run(0)
        assert asyncio.get_running_loop() is outer

    asyncio.run(test())


def test_waits_with_a_timeout_end_by_either() -> None:
    timeline = Timeline()
    ended: list[tuple[str, int]] = []

    async def wait(name: str, awaited: Callable[[], asyncio.Future[None]]) -> None:
        try:
            async with asyncio.timeout(10):
                await awaited()
            ended.append((f"{name} in time", timeline.now_ms))
        except TimeoutError:
            ended.append((f"{name} too late", timeline.now_ms))

    def after(delay_s: float) -> Callable[[], asyncio.Future[None]]:
        def made() -> asyncio.Future[None]:
            future = timeline.create_future()
            timeline.call_later(delay_s, future.set_result, None)
            return future

        return made

    timeline.create_task(wait("short", after(3)))
    timeline.create_task(wait("long", after(30)))
    timeline.run(20_000)
    assert ended == [("short in time", 3_000), ("long too late", 10_000)]


def test_what_a_callback_raises_is_kept() -> None:
    timeline = Timeline()

    def fail() -> None:
        raise LookupError("callback")

    timeline.call_soon(fail)
    timeline.run(0)
    assert [str(failure) for failure in timeline.failures] == ["callback"]
