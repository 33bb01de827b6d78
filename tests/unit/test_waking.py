"""How an actor rests: until somebody wakes it, or for so long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from delaystream.engine.waking import Waking
from delaystream.testing import Timeline, VirtualTimeLoop


def in_virtual_time(story: Callable[[VirtualTimeLoop], Coroutine[Any, Any, None]]) -> None:
    failures: list[dict[str, Any]] = []
    with VirtualTimeLoop() as loop:
        loop.set_exception_handler(lambda _, failure: failures.append(failure))
        loop.run_until_complete(story(loop))
    assert not failures


def test_a_rest_ends_when_its_time_is_over() -> None:
    async def story(loop: VirtualTimeLoop) -> None:
        assert not await Waking().rest(10)
        assert loop.time() == 10

    in_virtual_time(story)


def test_a_rest_ends_when_somebody_rings() -> None:
    async def story(loop: VirtualTimeLoop) -> None:
        waking = Waking()
        loop.call_later(3, waking.ring)
        loop.call_later(3, waking.ring)
        assert await waking.rest(10)
        assert loop.time() == 3

    in_virtual_time(story)


def test_who_was_woken_before_does_not_rest() -> None:
    async def story(loop: VirtualTimeLoop) -> None:
        waking = Waking()
        waking.ring()
        assert await waking.rest(10)
        assert await waking.rest(10)
        assert loop.time() == 0
        waking.clear()
        assert not await waking.rest(10)
        assert loop.time() == 10

    in_virtual_time(story)


def test_a_ring_at_the_very_end_is_heard() -> None:
    """Whichever of the two the loop has first: nobody has to ring again."""

    async def story(loop: VirtualTimeLoop) -> None:
        for first in (True, False):
            waking = Waking()
            at = loop.time() + 5
            if first:
                loop.call_at(at, waking.ring)
            resting = loop.create_task(waking.rest(5))
            await asyncio.sleep(0)
            if not first:
                loop.call_at(at, waking.ring)
            assert await resting

    in_virtual_time(story)


def test_a_rest_that_was_ended_leaves_no_timer() -> None:
    """A partition with much to do would leave thousands of them."""
    timeline, waking = Timeline(), Waking()
    timeline.create_task(waking.rest(10))
    timeline.call_later(3, waking.ring)
    timeline.run(3_000)
    assert timeline.next_ms is None


def test_a_rest_that_is_cancelled_leaves_nothing_behind() -> None:
    async def story(loop: VirtualTimeLoop) -> None:
        waking = Waking()
        resting = loop.create_task(waking.rest(10))
        await asyncio.sleep(1)
        resting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await resting
        waking.ring()
        assert await waking.rest(10)
        assert loop.time() == 1

    in_virtual_time(story)
