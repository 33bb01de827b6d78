"""The end of the history, for who watches: streams of events, each from where it stands.

Nothing is kept for a stream but its place. The latest events are held once for all of them; a stream that is
slower than what happens, or begins in the past, reads on from the database. So no stream costs more memory
than another, however slow it is, and none misses anything that is still kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from heapq import merge
from time import monotonic
from typing import Final

import msgspec

from delaystream.console.access.caller import ITSELF, Caller
from delaystream.console.history.database import DatabaseError
from delaystream.console.history.follower import HistoryStatus
from delaystream.console.history.queries import History, Told, shown

logger = logging.getLogger(__name__)

HELD: Final = 1_000
"""Of each partition, so many of the latest events are held."""
STREAMS: Final = 200
"""So many streams may be open at once."""

_AT_ONCE: Final = 500
_LOOK_EVERY_S: Final = 0.1
_RETRY_S: Final = 1.0

Places = dict[int, int]
"""By partition of the events' topic: the offset that comes next."""


class Step(msgspec.Struct, frozen=True):
    """What happened since the last one, for one stream."""

    #: what is meant of that which its caller sees, the earliest first
    told: Sequence[Told]
    #: where the stream stands behind it
    places: Places


def reached(at: Mapping[int, int], until: Mapping[int, int]) -> bool:
    """Whether places are as far as others."""
    return all(at.get(partition, 0) >= offset for partition, offset in until.items())


class TooManyStreams(Exception):
    """There are `STREAMS` already."""


class _Held:
    """The latest events of a partition: all that are stored from `start` on, up to `next`."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.next = start
        self.events: deque[Told] = deque()
        #: what was last asked for: most streams stand at the same place
        self._since: tuple[int, list[Told]] | None = None

    def add(self, told: Sequence[Told], next_offset: int) -> None:
        self._since = None
        self.events.extend(told)
        self.next = next_offset
        while len(self.events) > HELD:
            self.start = self.events.popleft().offset + 1

    def since(self, offset: int) -> list[Told]:
        if self._since is not None and self._since[0] == offset:
            return self._since[1]
        found: list[Told] = []
        for told in reversed(self.events):
            if told.offset < offset:
                break
            found.append(told)
        found.reverse()
        self._since = (offset, found)
        return found


class Tail:
    """Streams over one history. ``statuses`` tells how far each partition of it is."""

    def __init__(self, history: History, statuses: Callable[[], Sequence[HistoryStatus]]) -> None:
        self._history = history
        self._statuses = statuses
        self._held: dict[int, _Held] = {}
        self._moved = asyncio.Condition()
        self._closed = asyncio.Event()
        self.streams = 0

    async def run(self) -> None:
        """Hold the latest events while somebody watches, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            if not self.streams:
                self._held.clear()
                continue
            try:
                moved = [await self._look(status) for status in self._statuses()]
            except DatabaseError as problem:
                logger.warning("streams of events wait: %s", problem)
                await asyncio.sleep(_RETRY_S)
                continue
            if any(moved):
                async with self._moved:
                    self._moved.notify_all()

    def close(self) -> None:
        """End every stream: the server stops."""
        self._closed.set()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """While a stream is open. Raises TooManyStreams."""
        if self.streams >= STREAMS:
            raise TooManyStreams
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1

    def now(self) -> Places:
        """Where a stream begins that is about what happens from now on."""
        return {status.partition: status.position for status in self._statuses()}

    async def follow(
        self,
        places: Mapping[int, int],
        silence_s: float,
        caller: Caller = ITSELF,
        until: Mapping[int, int] | None = None,
        fits: Callable[[Told], bool] | None = None,
    ) -> AsyncIterator[Step]:
        """What happened from places on that a caller sees, some at a time; nothing after so long a silence.

        With ``until`` it ends behind these places. With ``fits`` only what fits is told; that there was
        something else that the caller sees is a step with nothing.

        What others cause is no end of the silence: the stream does not tell that it happened. Ends when the
        tail is closed. What retention took is passed over. Raises DatabaseError.
        """
        at = self.now() | dict(places)
        silent_until_s = monotonic() + silence_s
        while not self._closed.is_set():
            ways: list[list[Told]] = []
            happened = False
            for partition in sorted(at):
                found, at[partition] = await self._next(partition, at[partition])
                happened = happened or bool(found)
                ways.append(list(shown(found, caller)))
            seen = any(ways)
            if fits is not None:
                ways = [[one for one in way if fits(one)] for way in ways]
            # Those of a partition stay in the order of their offsets, whatever their times.
            told = list(merge(*ways, key=lambda one: one.event.at_ms))
            left_s = silent_until_s - monotonic()
            ended = until is not None and reached(at, until)
            if seen or ended or (not happened and not await self._waited(at, left_s)) or left_s <= 0:
                yield Step(told, dict(at))
                silent_until_s = monotonic() + silence_s
            if ended:
                return

    async def _look(self, status: HistoryStatus) -> bool:
        held = self._held.get(status.partition)
        if held is None:
            self._held[status.partition] = _Held(status.position)
            # Streams that wait may be behind it, with nothing in between.
            return True
        if status.position < held.next:
            # Another topic of the name, or a database that was restored.
            self._held[status.partition] = held = _Held(status.position)
        if status.position == held.next:
            return False
        stored = await asyncio.to_thread(self._history.after, status.partition, held.next, _AT_ONCE)
        # The status follows its transaction: what stands behind it is of the next look.
        found = [told for told in stored if told.offset < status.position]
        full = len(found) == _AT_ONCE
        held.add(found, found[-1].offset + 1 if full else max(status.position, held.next))
        return True

    async def _next(self, partition: int, offset: int) -> tuple[list[Told], int]:
        held = self._held.get(partition)
        if held is not None and held.start <= offset <= held.next:
            found = held.since(offset)[:_AT_ONCE]
            return found, found[-1].offset + 1 if len(found) == _AT_ONCE else held.next
        stop = held.next if held is not None else None
        found = list(await asyncio.to_thread(self._history.after, partition, offset, _AT_ONCE))
        if found:
            return found, found[-1].offset + 1
        return [], offset if stop is None else max(offset, stop)

    async def _waited(self, at: Places, silence_s: float) -> bool:
        """Whether there may be more before so long a silence is over, or the end has come."""

        def more() -> bool:
            return self._closed.is_set() or any(
                partition in self._held and self._held[partition].next > offset
                for partition, offset in at.items()
            )

        closed = asyncio.ensure_future(self._closed.wait())
        moved = asyncio.ensure_future(self._until(more))
        try:
            done, _ = await asyncio.wait(
                [closed, moved], timeout=silence_s, return_when=asyncio.FIRST_COMPLETED
            )
            return bool(done)
        finally:
            for task in (closed, moved):
                task.cancel()
            await asyncio.gather(closed, moved, return_exceptions=True)

    async def _until(self, more: Callable[[], bool]) -> None:
        async with self._moved:
            await self._moved.wait_for(more)
