"""Ends a worker that looks alive and does nothing, so that an orchestrator can start another.

A Kafka consumer can die without a word, a group can stay undecided, a processor can wait for something that
never comes, the event loop itself can hang. The watchdog looks at all of it several times a second; whatever
is wrong has to be wrong on end for the progress timeout. Time in which the process was suspended does not
count: it could not do anything either.
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
#: An actor that showed a sign of life this recently is not stalled.
_LIVELY_MS = 2_000
#: The fetch loop comes around every second; a busy one a little later.
_POLLING_MS = 5_000


class Watched(Protocol):
    """What the watchdog looks at: a :class:`~delaystream.adapters.membership.faust_host.PartitionHost`."""

    @property
    def joined(self) -> bool:
        """True once the group has given this member an assignment."""
        ...

    @property
    def membership_confirmed(self) -> bool:
        """True while the assignment is known to be valid."""
        ...

    @property
    def withheld(self) -> str | None:
        """Why partitions are not here that the group would give to this member."""
        ...

    @property
    def consumer_failure(self) -> str | None:
        """What has ended inside the Kafka client."""
        ...

    @property
    def unpolled_ms(self) -> int:
        """How long the fetch loop has not come around."""
        ...

    def partitions(self) -> list[PartitionStatus]:
        """Every partition that is here."""
        ...


class Report(msgspec.Struct, frozen=True):
    """How the worker was at one look; read by the HTTP server's thread."""

    #: counts the looks
    number: int
    at_s: float
    joined: bool
    membership_confirmed: bool
    stopping: bool
    partitions: tuple[PartitionStatus, ...]
    #: what is wrong now, in sentences; not yet for long enough to end the process
    complaints: tuple[str, ...]
    #: partitions are not here that the group would give to this member
    withheld: bool = False

    @property
    def ready(self) -> bool:
        """True when every partition that should be here is, has recovered and is at work."""
        # Not asked: whether the group is settled. Partitions that stay go on firing while it is not.
        return (
            self.joined
            and not self.stopping
            and not self.withheld
            and all(status.phase is Phase.RUNNING for status in self.partitions if status.assigned)
        )


class Patience:
    """For how long, on end, something has been wrong."""

    def __init__(self) -> None:
        self._endured_ms: dict[str, float] = {}

    def endure(self, complaints: Iterable[str], elapsed_ms: float) -> Iterator[tuple[str, float]]:
        """Take note of all that is wrong at this look; yields each with the time that it has lasted."""
        self._endured_ms = {
            complaint: self._endured_ms.get(complaint, 0.0) + elapsed_ms for complaint in complaints
        }
        yield from self._endured_ms.items()


class Watchdog:
    """Looks at a host from its event loop, and at the event loop from a thread.

    ``starting_timeout_ms`` is the patience with what may wait for others: the group, an open transaction on
    the changelog. ``end`` is called once, from either, with one sentence; it does not return in production.
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
        """Look, several times a second, until cancelled."""
        thread = threading.Thread(target=self._watch_loop, name="watchdog", daemon=True)
        thread.start()
        try:
            while True:
                self.look(_INTERVAL_S * 1000)
                await asyncio.sleep(_INTERVAL_S)
        finally:
            self._closing.set()

    def look(self, elapsed_ms: float) -> None:
        """Look once; what is wrong counts as having been so since the last look."""
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
            watched.withheld is not None,
        )
        for complaint, endured_ms in self._patience.endure(wrong, elapsed_ms):
            if endured_ms >= wrong[complaint]:
                self._end(f"{complaint}, for {endured_ms / 1000:.0f} s")
                return

    def _complaints(self, partitions: Iterable[PartitionStatus]) -> dict[str, int]:
        """What is wrong now, each with the patience that it deserves, ms."""
        watched = self._watched
        wrong: dict[str, int] = {}
        if not watched.joined:
            wrong["the group has not given this member an assignment"] = self._starting_timeout_ms
        elif not watched.membership_confirmed:
            wrong["the group is undecided, or its coordinator does not answer"] = self._starting_timeout_ms
        if withheld := watched.withheld:
            wrong[withheld] = self._starting_timeout_ms
        if failure := watched.consumer_failure:
            wrong[failure] = 0
        if watched.unpolled_ms > _POLLING_MS:
            wrong["the fetch loop does not come around"] = self._progress_timeout_ms
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
        """End the process when no look has been taken; counts its own ticks, not the time."""
        seen, missed_s = self.report.number, 0.0
        while not self._closing.wait(1.0):
            number = self.report.number
            seen, missed_s = number, (missed_s + 1.0 if number == seen else 0.0)
            if missed_s * 1000 >= self._progress_timeout_ms:
                self._end(f"the event loop has not come around for {missed_s:.0f} s")
                return


def end_process(reason: str) -> None:
    """Log why, and where everything stands; then end without waiting for anything that may hang."""
    logger.critical("the worker makes no progress and is ended", reason=reason, tasks=_tasks())
    faulthandler.dump_traceback(sys.stderr, all_threads=True)
    sys.stderr.flush()
    os._exit(ExitCode.STALLED)


def _tasks() -> str:
    """The stacks of the tasks of this thread's event loop; empty where there is none."""
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:
        return ""
    text = StringIO()
    for task in tasks:
        task.print_stack(limit=6, file=text)
    return text.getvalue()
