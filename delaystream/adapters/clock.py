"""Wall-clock time, and a watch that reports when the clock is stepped."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from delaystream.engine.ports import Clock

logger = logging.getLogger(__name__)

_INTERVAL_S: Final = 1.0
#: Smallest step that is logged, ms. NTP's slewing stays below it.
_STEP_MS: Final = 500


class SystemClock(Clock):
    """The system's clock; it may step in either direction."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, rounded down: nothing is due before its time."""
        return time.time_ns() // 1_000_000


class ClockWatch:
    """Compares the wall clock with the event loop's, which never steps.

    Due times follow the wall clock. After a step forward, everything that the clock passed over is due. After
    a step back, nothing fires until the clock has reached its due time again. Both are right by this clock,
    but look like early or late fires by any other clock. So each step is logged.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: sum of the steps seen, ms; forward is positive
        self.stepped_ms = 0
        self.steps = 0

    async def run(self) -> None:
        """Watch until cancelled."""
        ahead_ms = self._ahead_ms()
        while True:
            await asyncio.sleep(_INTERVAL_S)
            was_ms, ahead_ms = ahead_ms, self._ahead_ms()
            step_ms = round(ahead_ms - was_ms)
            if abs(step_ms) < _STEP_MS:
                continue
            self.steps += 1
            self.stepped_ms += step_ms
            if step_ms > 0:
                logger.warning(
                    "the system's clock went forward by %d ms: all due times in between are due now", step_ms
                )
            else:
                logger.warning(
                    "the system's clock went back by %d ms: fires wait until it has caught up", -step_ms
                )

    def _ahead_ms(self) -> float:
        return self._clock.now_ms() - asyncio.get_running_loop().time() * 1000
