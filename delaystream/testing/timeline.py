"""An event loop that stands still until it is told how far it may go, for an engine inside of a user's test.

:class:`VirtualTimeLoop` runs a whole test. This one is run by a test, from outside and a piece at a time, in
whatever thread the test is in and whether or not that thread runs a loop of its own::

    timeline = Timeline()
    timeline.create_task(work())
    timeline.run(until_ms=3_600_000)       # all that happens within an hour, in its order
    assert timeline.now_ms == 3_600_000

Time is a whole number of milliseconds: a due time is met to the millisecond however long the run is.
"""

from __future__ import annotations

import asyncio
from asyncio import Future, Handle, Task, TimerHandle
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import Context
from heapq import heappop, heappush
from math import ceil
from typing import Any, Final, TypeVar, TypeVarTuple

from delaystream.testing.loop import RunawayError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: A wait of so much less than a millisecond is the last digit of a float, and no wait.
_NO_WAIT_MS: Final = 1e-3


class Timeline(asyncio.BaseEventLoop):
    """A loop whose time moves only in :meth:`run`.

    ``most_steps`` bounds the callbacks that may run without time passing. Not for use from several threads
    at once; from one after the other it is.
    """

    def __init__(self, most_steps: int = 1_000_000) -> None:
        super().__init__()
        self._ready: deque[Handle] = deque()
        self._timers: list[tuple[int, int, TimerHandle]] = []
        self._number = 0
        self._closed = False
        self._most_steps = most_steps
        #: milliseconds since it was made
        self.now_ms = 0
        #: what callbacks have raised, and nobody has caught
        self.failures: list[BaseException] = []
        #: a callback sets it to have :meth:`run` return before time goes on
        self.halted = False

    # -- from outside -------------------------------------------------------------------------

    def run(self, until_ms: int) -> bool:
        """Let happen what happens up to a time, and be there; False when it halted before.

        Raises RunawayError where callbacks go on without end at one moment.
        """
        timers = self._timers
        with self._running():
            while True:
                self._settle()
                if self.halted:
                    self.halted = False
                    return False
                while timers and timers[0][2].cancelled():
                    heappop(timers)
                if not timers or timers[0][0] > until_ms:
                    self.now_ms = max(self.now_ms, until_ms)
                    return True
                self.now_ms = max(self.now_ms, timers[0][0])
                while timers and timers[0][0] <= self.now_ms:
                    self._ready.append(heappop(timers)[2])

    @property
    def next_ms(self) -> int | None:
        """When the next timer is set to; None for none."""
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heappop(timers)
        return timers[0][0] if timers else None

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Be the running loop, in place of the one that the caller is in."""
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            yield
        finally:
            asyncio._set_running_loop(before)

    def _settle(self) -> None:
        ready, left = self._ready, self._most_steps
        while ready:
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()
            left -= 1
            if not left:
                raise RunawayError(f"{self._most_steps} callbacks at one moment, and there are more")

    # -- as asyncio has it --------------------------------------------------------------------

    def time(self) -> float:
        """Seconds since it was made."""
        return self.now_ms / 1000

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> Handle:
        """As asyncio's."""
        handle = Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> Handle:
        """As :meth:`call_soon`: nobody sleeps who would have to be woken."""
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> TimerHandle:
        """As asyncio's."""
        return self.call_at(self.now_ms / 1000 + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> TimerHandle:
        """As asyncio's, at the next whole millisecond."""
        handle = TimerHandle(when, callback, args, self, context)
        self._number += 1
        heappush(self._timers, (ceil(when * 1000 - _NO_WAIT_MS), self._number, handle))
        return handle

    def _timer_handle_cancelled(self, handle: TimerHandle) -> None:
        """It is dropped when its time comes."""

    def create_future(self) -> Future[Any]:
        """As asyncio's."""
        return Future(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: Context | None = None,
    ) -> Task[T]:
        """As asyncio's."""
        return Task(coro, loop=self, name=None if name is None else str(name), context=context)

    def run_in_executor(self, executor: Any, func: Callable[[*Ts], T], *args: *Ts) -> Future[T]:
        """Call it here and now."""
        future: Future[T] = self.create_future()
        future.set_result(func(*args))
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what nobody has caught."""
        failure = context.get("exception")
        self.failures.append(failure if failure is not None else RuntimeError(str(context.get("message"))))

    def is_running(self) -> bool:
        """Whether a callback of it is at work in this thread."""
        return asyncio._get_running_loop() is self

    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def close(self) -> None:
        """Let go of all that is left."""
        self._closed = True
        self._ready.clear()
        self._timers.clear()

    def get_debug(self) -> bool:
        """It has no debug mode: what that says of slow callbacks and threads is of no use here."""
        return False
