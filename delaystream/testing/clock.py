"""Clocks that a test sets."""

from __future__ import annotations

from asyncio import AbstractEventLoop


class ManualClock:
    """A clock that stands still until it is told otherwise; it may go either way."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return self._now_ms

    def set(self, now_ms: int) -> None:
        """Set it to a time."""
        self._now_ms = now_ms

    def step(self, by_ms: int) -> None:
        """Move it, forward or back."""
        self._now_ms += by_ms


class LoopClock:
    """A wall clock that runs with an event loop's time, and may be set wrong by ``ahead_ms``."""

    def __init__(self, loop: AbstractEventLoop, start_ms: int = 1_700_000_000_000) -> None:
        self._loop = loop
        self._start_ms = start_ms
        self.ahead_ms = 0

    def now_ms(self) -> int:
        """Milliseconds since the epoch, as this clock has it."""
        return self._start_ms + self.ahead_ms + int(self._loop.time() * 1000)

    def step(self, by_ms: int) -> None:
        """Set it forward or back, as NTP or an operator may."""
        self.ahead_ms += by_ms
