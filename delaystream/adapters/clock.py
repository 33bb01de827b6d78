"""Wall-clock time, and a watch that tells when it is stepped."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from delaystream.engine.ports import Clock

logger = logging.getLogger(__name__)

_INTERVAL_S: Final = 1.0
#: What a step must differ by from the passing of time to be told: NTP's slewing stays below.
_STEP_MS: Final = 500


class SystemClock(Clock):
    """The system's clock; it may step in either direction."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, rounded down: nothing is due before its time."""
        return time.time_ns() // 1_000_000


class ClockWatch:
    """Compares the wall clock with the event loop's, which never steps.

    Due times are points of the wall clock and follow it: after a step forward, everything that it passed over
    is due; after a step back, nothing fires until the clock has come to its due time again. Both are right by
    that clock, and look like early or late fires by any other: hence the word in the log.
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
                    "the system's clock went forward by %d ms: what it passed over is due now", step_ms
                )
            else:
                logger.warning(
                    "the system's clock went back by %d ms: fires wait until it has caught up", -step_ms
                )

    def _ahead_ms(self) -> float:
        return self._clock.now_ms() - asyncio.get_running_loop().time() * 1000
