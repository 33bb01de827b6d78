"""Ends a worker that looks alive but does nothing, so that an orchestrator can start another.

A Kafka consumer can die silently, a group can stay undecided, a processor can wait for something that never
comes, and the event loop itself can hang. The watchdog checks all of this several times a second. It acts on
a fault that lasts without a break for the progress timeout. Time in which the process was suspended does not
count, because the process could not work then.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from io import StringIO
from typing import Protocol

import msgspec
import structlog

from delaystream.adapters.membership.faust_host import PartitionStatus
from delaystream.engine.observer import Phase
from delaystream.exit_codes import ExitCode

logger = structlog.get_logger(__name__)

_INTERVAL_S = 0.5
#: A processor with a sign of life this recently is not stalled.
_LIVELY_MS = 2_000
#: The fetch loop comes around every second, and a little later when it is busy.
_POLLING_MS = 5_000


class Watched(Protocol):
    """The watched host: a :class:`~delaystream.adapters.membership.faust_host.PartitionHost`."""

    @property
    def joined(self) -> bool:
        """True once the group has given this member an assignment."""
        ...

    @property
    def membership_confirmed(self) -> bool:
        """True while the assignment is known to be valid."""
        ...

    @property
    def shortage(self) -> str | None:
        """Why this member lacks partitions that the group would assign to it."""
        ...

    @property
    def consumer_failure(self) -> str | None:
        """The part of the Kafka client that has ended."""
        ...

    @property
    def unpolled_ms(self) -> int:
        """Time since the fetch loop last came around."""
        ...

    def partitions(self) -> list[PartitionStatus]:
        """Every partition that is here."""
        ...


class Report(msgspec.Struct, frozen=True):
    """The worker's state at one check; the HTTP server's thread reads it."""

    #: number of the check
    number: int
    at_s: float
    joined: bool
    membership_confirmed: bool
    stopping: bool
    partitions: tuple[PartitionStatus, ...]
    #: present faults, as sentences; not yet long enough to end the process
    complaints: tuple[str, ...]
    #: this member lacks partitions that the group would assign to it
    shortage: bool = False

    @property
    def ready(self) -> bool:
        """True when every partition that should be here is here, has recovered and is running."""
        # A settled group is not required: during a rebalance, partitions that stay go on firing.
        return (
            self.joined
            and not self.stopping
            and not self.shortage
            and all(status.phase is Phase.RUNNING for status in self.partitions if status.assigned)
        )


class Patience:
    """How long each fault has lasted without a break."""

    def __init__(self) -> None:
        self._endured_ms: dict[str, float] = {}

    def endure(self, complaints: Iterable[str], elapsed_ms: float) -> Iterator[tuple[str, float]]:
        """Record the faults of this check; yields each with the time that it has lasted."""
        self._endured_ms = {
            complaint: self._endured_ms.get(complaint, 0.0) + elapsed_ms for complaint in complaints
        }
        yield from self._endured_ms.items()


class Watchdog:
    """Looks at a host from its event loop, and at the event loop from a thread.

    ``starting_timeout_ms`` is the patience with faults that others may cause: the group, an open transaction
    on the changelog. ``end`` is called once, from the loop or the thread, with one sentence; it does not
    return in production.
    """

    def __init__(
        self,
        watched: Watched,
        progress_timeout_ms: int,
        starting_timeout_ms: int,
        end: Callable[[str], None] | None = None,
    ) -> None:
        self._watched = watched
        self._progress_timeout_ms = progress_timeout_ms
        self._starting_timeout_ms = max(starting_timeout_ms, progress_timeout_ms)
        self._end = end or end_process
        self._patience = Patience()
        self._closing = threading.Event()
        self.stopping = False
        self.report = Report(0, time.monotonic(), False, False, False, (), ())

    async def run(self) -> None:
        """Check several times a second, until cancelled."""
        thread = threading.Thread(target=self._watch_loop, name="watchdog", daemon=True)
        thread.start()
        try:
            while True:
                self.look(_INTERVAL_S * 1000)
                await asyncio.sleep(_INTERVAL_S)
        finally:
            self._closing.set()

    def look(self, elapsed_ms: float) -> None:
        """Check once; a fault counts from the previous check."""
        watched = self._watched
        partitions = tuple(watched.partitions())
        wrong = {} if self.stopping else self._complaints(partitions)
        self.report = Report(
            self.report.number + 1,
            time.monotonic(),
            watched.joined,
            watched.membership_confirmed,
            self.stopping,
            partitions,
            tuple(wrong),
            watched.shortage is not None,
        )
        for complaint, endured_ms in self._patience.endure(wrong, elapsed_ms):
            if endured_ms >= wrong[complaint]:
                self._end(f"{complaint}, for {endured_ms / 1000:.0f} s")
                return

    def _complaints(self, partitions: Iterable[PartitionStatus]) -> dict[str, int]:
        """The present faults, each with the time that it may last, ms."""
        watched = self._watched
        wrong: dict[str, int] = {}
        if not watched.joined:
            wrong["the group has not given this member an assignment"] = self._starting_timeout_ms
        elif not watched.membership_confirmed:
            wrong["the group is undecided, or its coordinator does not answer"] = self._starting_timeout_ms
        if shortage := watched.shortage:
            wrong[shortage] = self._starting_timeout_ms
        if failure := watched.consumer_failure:
            wrong[failure] = 0
        if watched.unpolled_ms > _POLLING_MS:
            wrong["the fetch loop does not run"] = self._progress_timeout_ms
        for status in partitions:
            if status.phase is None:
                if status.assigned:
                    wrong[f"partition {status.partition} has no processor"] = self._starting_timeout_ms
            elif status.stalled_ms > _LIVELY_MS:
                running = status.phase is Phase.RUNNING
                wrong[f"partition {status.partition} ({status.phase}) shows no sign of life"] = (
                    self._progress_timeout_ms if running else self._starting_timeout_ms
                )
        return wrong

    def _watch_loop(self) -> None:
        """End the process when no check happened for too long; counts its own ticks, not the time."""
        seen, missed_s = self.report.number, 0.0
        while not self._closing.wait(1.0):
            number = self.report.number
            seen, missed_s = number, (missed_s + 1.0 if number == seen else 0.0)
            if missed_s * 1000 >= self._progress_timeout_ms:
                self._end(f"the event loop has not run for {missed_s:.0f} s")
                return


def end_process(reason: str) -> None:
    """Log the reason and all stacks; then end, without waiting for anything that may hang."""
    logger.critical("the worker makes no progress and is ended", reason=reason, tasks=_tasks())
    faulthandler.dump_traceback(sys.stderr, all_threads=True)
    sys.stderr.flush()
    os._exit(ExitCode.STALLED)


def _tasks() -> str:
    """The stacks of the tasks of this thread's event loop; empty if there is no loop."""
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:
        return ""
    text = StringIO()
    for task in tasks:
        task.print_stack(limit=6, file=text)
    return text.getvalue()
