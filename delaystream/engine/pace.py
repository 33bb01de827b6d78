"""How a worker's partitions share its one event loop: how long one decides, and how often each commits.

A small transaction costs the worker about 4 ms and the broker more. A worker with many busy partitions
therefore makes larger ones instead of more: each waits for its turn, and meanwhile its inbox fills.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

#: Turns that may be taken at once after a quiet time.
_BURST_S: Final = 0.25
#: Records or entries that are read, or decided on, between two looks at whether a turn is over.
AT_ONCE: Final = 16


class Pace:
    """Hands out turns, first come first served; shared by the processors of a worker."""

    def __init__(self, per_second: int = 200) -> None:
        self._gap_s = 1 / per_second
        self._next_s = float("-inf")

    async def turn(self) -> None:
        """Wait until one more transaction may begin; at once while there are fewer than allowed."""
        now_s = asyncio.get_running_loop().time()
        turn_s = max(self._next_s, now_s - _BURST_S)
        self._next_s = turn_s + self._gap_s
        if turn_s > now_s:
            await asyncio.sleep(turn_s - now_s)


class Turn:
    """How long one partition reads and decides before the event loop has its turn; times are the loop's, s.

    Steps are bounded by records and bytes as well. But what a record costs is up to whoever sends it: a
    recurrence may take a thousand times as long to work out as an ordinary due time.
    """

    def __init__(self, clock: Callable[[], float], most_s: float) -> None:
        self._clock = clock
        self._most_s = most_s
        self._until_s = clock() + most_s

    def begin(self) -> None:
        """It begins anew."""
        self._until_s = self._clock() + self._most_s

    def over(self) -> bool:
        """Whether it has lasted for long enough."""
        return self._clock() >= self._until_s
