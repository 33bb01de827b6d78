"""What a worker finds out for its metrics beside its work: what is overdue, and what is unread."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

from delaystream.adapters.kafka.source_bounds import SourceEnds
from delaystream.engine.failures import LogUnavailable
from delaystream.engine.ports import TopicPartition

#: How often what is overdue is told: more often than anybody scrapes.
_OVERDUE_EVERY_S: Final = 1.0
#: How often the ends of the source partitions are looked up: two requests to each leader.
_ENDS_EVERY_S: Final = 5.0


class Telling(Protocol):
    """A partition's processor, as the reports see it."""

    def tell_overdue(self) -> None:
        """Report what is due and has not gone out."""
        ...


class Reports:
    """Runs beside the processors, on their event loop.

    ``processors`` are those at work; ``sources`` the source partitions that are read here; ``ends`` looks up
    where they end, and may raise LogUnavailable; ``found`` takes that.
    """

    def __init__(
        self,
        processors: Callable[[], Iterable[Telling]],
        sources: Callable[[], Sequence[TopicPartition]],
        ends: Callable[[Sequence[TopicPartition]], Awaitable[Mapping[TopicPartition, SourceEnds]]],
        found: Callable[[Mapping[TopicPartition, SourceEnds]], None],
    ) -> None:
        self._processors = processors
        self._sources = sources
        self._ends = ends
        self._found = found

    async def run(self) -> None:
        """Report until cancelled; Kafka's answers are waited for beside the other reports."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tell_overdue())
            tasks.create_task(self._look_up_ends())

    async def _tell_overdue(self) -> None:
        while True:
            for processor in self._processors():
                processor.tell_overdue()
            await asyncio.sleep(_OVERDUE_EVERY_S)

    async def _look_up_ends(self) -> None:
        while True:
            began = time.monotonic()
            # The parts that need Kafka report a failure; the last figures stand.
            with contextlib.suppress(LogUnavailable):
                self._found(await self._ends(self._sources()))
            await asyncio.sleep(max(0.0, began + _ENDS_EVERY_S - time.monotonic()))
