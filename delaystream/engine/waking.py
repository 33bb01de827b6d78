"""How an actor rests: until somebody wakes it, or for so long."""

from __future__ import annotations

import asyncio


class Waking:
    """A bell for one who rests; a ring that comes before the rest ends it at once.

    An event with a timeout does the same, by cancelling the task and catching that: twice the work, in a loop
    that does little else where a partition has little to do.
    """

    def __init__(self) -> None:
        self._rung = False
        self._resting: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake who rests, or who is about to."""
        self._rung = True
        if self._resting is not None:
            _end(self._resting)

    def clear(self) -> None:
        """The work of the last ring is in hand: the next rest ends with the next ring."""
        self._rung = False

    async def rest(self, at_most_s: float) -> bool:
        """Rest until woken; False when that took too long. One rests at a time."""
        if self._rung:
            return True
        loop = asyncio.get_running_loop()
        resting = self._resting = loop.create_future()
        timer = loop.call_later(at_most_s, _end, resting)
        try:
            await resting
        finally:
            timer.cancel()
            self._resting = None
        return self._rung


def _end(resting: asyncio.Future[None]) -> None:
    if not resting.done():
        resting.set_result(None)
