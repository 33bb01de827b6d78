"""The bound on a worker's transactions a second."""

from __future__ import annotations

import asyncio

from delaystream.engine.pace import Pace
from delaystream.testing import VirtualTimeLoop


def test_turns_beyond_the_rate_wait_and_a_quiet_worker_does_not() -> None:
    with VirtualTimeLoop() as loop:

        async def run() -> None:
            pace = Pace(100)
            await asyncio.sleep(1)
            began = loop.time()
            await pace.turn()
            assert loop.time() == began
            await asyncio.gather(*(pace.turn() for _ in range(524)))
            assert 4.9 < loop.time() - began < 5.1

        loop.run_until_complete(run())
