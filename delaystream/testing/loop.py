"""An event loop with virtual time, and processes in it that can be stopped, resumed and killed.

Code under test runs unchanged: ``asyncio.sleep``, ``timeout``, ``wait_for`` and events work as ever, but no
second passes for real. When nothing is ready, time jumps to the next timer; when there is none either, all
wait for each other, which is a :class:`DeadlockError`. Callbacks run in the order asyncio gives them: a run
depends on nothing but the code and its seed.

    with VirtualTimeLoop() as loop:
        loop.run_until_complete(asyncio.sleep(3600))   # returns at once
        assert loop.time() == 3600
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")


class DeadlockError(Exception):
    """Nothing is ready and no timer is set: every task waits for another one."""


class RunawayError(Exception):
    """More steps than a run may take: something spins."""


class Killed(BaseException):
    """Raised out of a synchronous call at which the process was killed."""


class _Selector:
    """In place of waiting for sockets: time passes."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[object]:
        self._loop.idle(timeout)
        return []


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """An asyncio loop whose time is virtual; ``max_steps`` bounds how many callbacks may run in it."""

    def __init__(self, max_steps: int = 5_000_000) -> None:
        super().__init__()
        self._selector = _Selector(self)
        self._virtual_time = 0.0
        self._clock_resolution = 1e-7
        self.steps = 0
        self.max_steps = max_steps

    def time(self) -> float:
        """Seconds since the loop was made, none of which have passed."""
        return self._virtual_time

    def idle(self, timeout: float | None) -> None:
        """Let time pass up to the next timer; called when nothing is ready."""
        if timeout is None:
            raise DeadlockError(f"at {self._virtual_time:.3f} s: no timer, nothing ready")
        self._virtual_time += timeout

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """As asyncio's; a callback that belongs to a process runs only while the process does."""
        self.steps += 1
        if self.steps > self.max_steps:
            self.max_steps += 100_000  # what unwinds now still needs the loop
            raise RunawayError(f"more than {self.steps - 1} callbacks at {self._virtual_time:.3f} s")
        if context is None:
            context = copy_context()
        process = context.get(_process)
        if process is None:
            return super().call_soon(callback, *args, context=context)
        entry = _Entry(process, callback, args, context)
        entry.handle = super().call_soon(entry.run, context=context)
        return entry.handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's; see :meth:`call_soon`."""
        if context is None:
            context = copy_context()
        process = context.get(_process)
        if process is None:
            return super().call_at(when, callback, *args, context=context)
        entry = _Entry(process, callback, args, context)
        entry.handle = handle = super().call_at(when, entry.run, context=context)
        return handle

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        """As asyncio's; a process holds on to its tasks, so that the dead are not tidied up at random."""
        task = super().create_task(coro, name=None if name is None else str(name), context=context)
        process = _process.get() if context is None else context.get(_process)
        if process is not None:
            process.tasks.append(task)
        return task

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Call it here and now: threads would make a run depend on more than its seed."""
        future: asyncio.Future[T] = self.create_future()
        future.set_result(func(*args))
        return future

    def __enter__(self) -> VirtualTimeLoop:
        """Make it the current loop."""
        asyncio.set_event_loop(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        asyncio.set_event_loop(None)
        self.close()

    def _process_events(self, event_list: list[object]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps who would have to be woken."""


class _Entry:
    """A callback of a process, on its way through the loop."""

    __slots__ = ("args", "callback", "context", "handle", "process")

    def __init__(
        self, process: Process, callback: Callable[..., object], args: tuple[Any, ...], context: Context
    ) -> None:
        self.process = process
        self.callback = callback
        self.args = args
        self.context = context
        self.handle: asyncio.Handle | None = None

    def run(self) -> None:
        process = self.process
        if process.paused:
            process.backlog.append(self)
        elif process.alive and not (self.handle is not None and self.handle.cancelled()):
            self.callback(*self.args)


class Process:
    """Tasks that live and die together, as those of an operating system's process do.

    Tasks started with :meth:`spawn`, and all that they start in turn, belong to it. :meth:`pause` is SIGSTOP:
    nothing of it runs, while time goes on. :meth:`kill` is SIGKILL: nothing of it ever runs again, neither
    ``except`` nor ``finally``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.backlog: list[_Entry] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self._context = copy_context()
        self._context.run(_process.set, self)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task in this process."""
        return asyncio.get_running_loop().create_task(work, context=self._context.copy())

    def pause(self) -> None:
        """SIGSTOP."""
        self.paused = True

    def resume(self) -> None:
        """SIGCONT: what became due meanwhile runs now, in its order."""
        self.paused = False
        loop = asyncio.get_running_loop()
        backlog, self.backlog = self.backlog, []
        for entry in backlog:
            asyncio.BaseEventLoop.call_soon(loop, entry.run, context=entry.context)  # type: ignore[arg-type]

    def kill(self) -> None:
        """SIGKILL."""
        self.alive = False
        self.paused = False
        self.backlog.clear()

    def bury(self) -> None:
        """Let go of a dead process's tasks; only once nothing can come of what they do on being closed."""
        assert not self.alive
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            for task in self.tasks:
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                coroutine = task.get_coro()
                # Awaits in a ``finally`` are lost, as they are when a process dies.
                with suppress(RuntimeError, AssertionError, StopIteration, Killed):
                    coroutine.close()
            self.tasks.clear()


_process: ContextVar[Process | None] = ContextVar("process", default=None)


def current_process() -> Process | None:
    """The process whose task is running; None outside of any."""
    return _process.get()


async def never() -> None:
    """Wait for what does not come."""
    await asyncio.get_running_loop().create_future()
