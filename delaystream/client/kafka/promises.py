"""A promise that one thread waits for and another one keeps."""

from __future__ import annotations

import time
from _thread import LockType
from threading import TIMEOUT_MAX, Lock, current_thread, main_thread
from typing import Final, Generic, TypeVar, cast

T = TypeVar("T")

_LOOK_S: Final = 0.5
"""For so long the main thread waits at a time."""


class Promise(Generic[T]):
    """A value that is told once, or the error in its place; any thread may wait for it.

    It is `concurrent.futures.Future` for threads that may be interrupted. That one waits by a condition which
    is written in Python: Ctrl-C between two instructions of it leaves its lock held, and then whoever would
    set the result is stuck for ever. Nothing is held here between two instructions.
    """

    __slots__ = ("_told", "_waiters")

    def __init__(self) -> None:
        self._told: tuple[T | None, Exception | None] | None = None
        self._waiters: list[LockType] = []

    def done(self) -> bool:
        """Whether it was told."""
        return self._told is not None

    def tell(self, value: T) -> None:
        """This is the value."""
        self._end(value, None)

    def fail(self, error: Exception) -> None:
        """There is no value: whoever waits has this raised."""
        self._end(None, error)

    def result(self, timeout_s: float | None = None) -> T:
        """The value, waited for at most so long (None: for ever). Raises TimeoutError, and what it failed
        with."""
        if self._told is None:
            self._wait(timeout_s)
        assert self._told is not None
        value, error = self._told
        if error is not None:
            raise error
        return cast("T", value)

    def _end(self, value: T | None, error: Exception | None) -> None:
        self._told = value, error
        while self._waiters:
            self._waiters.pop().release()

    def _wait(self, timeout_s: float | None) -> None:
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        waiter = Lock()
        waiter.acquire()
        self._waiters.append(waiter)
        # Not every signal ends a wait: one that comes while Python's own lock is waited for, just before,
        # does not, nor does one that another thread was given. Python looks for both between instructions.
        longest_s = _LOOK_S if current_thread() is main_thread() else TIMEOUT_MAX
        # Told before it was there: that is seen here. Told after: then it is released.
        while self._told is None:
            left_s = longest_s if end_s is None else min(end_s - time.monotonic(), longest_s)
            if left_s <= 0:
                raise TimeoutError
            waiter.acquire(timeout=left_s)
