"""How many transactions a worker makes a second, all its partitions together.

A small transaction costs the worker about 4 ms and the broker more. A worker with many busy partitions
therefore makes larger ones instead of more: each waits for its turn, and meanwhile its inbox fills.
"""

from __future__ import annotations

import asyncio
from typing import Final

#: Turns that may be taken at once after a quiet time.
_BURST_S: Final = 0.25


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
