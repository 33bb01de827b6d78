"""The console's parts at work: a follower for each partition, and what can be asked of their copies."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from delaystream.codec.envelope import (
    UNREADABLE,
    Hold,
    Parked,
    PartitionStatus,
    Rate,
    Schedule,
    decode_status,
)
from delaystream.codec.keys import STATUS
from delaystream.console.access.caller import ITSELF, Caller
from delaystream.console.audit.log import AuditLog
from delaystream.console.history.database import DatabaseError
from delaystream.console.history.follower import HistoryFollower, HistoryStatus
from delaystream.console.history.queries import History
from delaystream.console.history.tail import Tail
from delaystream.console.letters.latest import DeadLetters, Letters
from delaystream.console.letters.runs import Runs
from delaystream.console.operations.service import Operations
from delaystream.console.replica.catalog import Catalog
from delaystream.console.replica.follower import CopyStatus, Follower, Phase
from delaystream.console.replica.pending import Copy, Pending
from delaystream.console.signing.service import Signing
from delaystream.console.standing import Standing
from delaystream.console.writing.service import Writing
from delaystream.engine.ports import Clock, LogBounds

logger = logging.getLogger(__name__)

_FORGET_EVERY_S: Final = 600.0
READERS: Final = 4
"""So many request partitions are looked at in Kafka at once, whoever asks."""


class Freshness(msgspec.Struct, frozen=True):
    """How old an answer is."""

    #: wall clock, ms: nothing that was committed before is missing; None: something may be
    as_of_ms: int | None
    lag_ms: int | None
    #: partitions that have no part in it
    missing: Sequence[CopyStatus]


class Console:
    """What is pending, of all partitions; everything is called in the event loop that :meth:`run` is in.

    It is asked for somebody: the console as a whole, or as a caller sees it (:meth:`seen_by`).
    """

    def __init__(
        self,
        following: Sequence[Follower],
        history: HistoryFollower,
        asked: History,
        letters: DeadLetters,
        clock: Clock,
        bounds: Callable[[str, int], Awaitable[LogBounds]],
    ) -> None:
        """`bounds` looks up one request partition. It raises LogUnavailable and Misconfigured."""
        self.app_id = ""
        """Whose schedules they are."""
        self.caller = ITSELF
        self.partitions = len(following)
        self.clock = clock
        self._asked = asked
        self._followers = following
        self._history = history
        self._letters = letters
        self._look_up = bounds
        self._readers = asyncio.Semaphore(READERS)
        self.tail = Tail(asked, lambda: self.history_statuses)
        self._standing = Standing(following, history)
        self.writing: Writing | None = None
        """What writes for callers; None: nothing does."""
        self.signing: Signing | None = None
        """How people sign in; None: they do not."""
        self.audit: AuditLog | None = None
        """Who did what; None: nothing is recorded, and nothing may be changed."""
        self.runs: Runs | None = None
        """What is done about dead letters; None: nothing is."""
        self.operations: Operations | None = None
        """What carries out operations on many; None: nothing does."""

    async def run(self) -> None:
        """Follow until cancelled. Raises StoreFailed."""
        async with asyncio.TaskGroup() as group:
            for follower in self._followers:
                group.create_task(follower.run(), name=f"follow {follower.status.partition}")
            group.create_task(self._history.run(), name="history")
            group.create_task(self._letters.run(), name="letters")
            group.create_task(self.tail.run(), name="tail")
            group.create_task(self._standing.run(), name="schedules")
            if self.audit is not None:
                group.create_task(_forgetting(self.audit.forget, "the audit log"), name="audit")
            if self.signing is not None:
                group.create_task(_forgetting(self.signing.sessions.forget, "sessions"), name="sessions")
            if self.writing is not None:
                group.create_task(self.writing.run(), name="writing")
            if self.runs is not None:
                group.create_task(self.runs.run(), name="redriving")
            if self.operations is not None:
                group.create_task(self.operations.run(), name="operations")

    def seen_by(self, caller: Caller) -> Console:
        """The same console, as a caller sees it."""
        seen = copy.copy(self)
        seen.caller = caller
        return seen

    @property
    def writes(self) -> bool:
        """Whether it takes requests of callers."""
        return self.writing is not None and self.writing.allowed

    @property
    def catalog(self) -> Catalog:
        """Named schedules, as of now."""
        indexed = [follower for follower in self._followers if follower.status.indexed]
        stores = {f.status.partition: f.store for f in indexed if f.store is not None}
        return Catalog(stores, self.partitions, self.caller)

    def row_of(self, topic: str, id: str) -> Schedule | None:
        """A named schedule as its owner keeps it; None where none is known."""
        found = self.catalog.get(topic, id)
        return None if found is None else found.row

    @property
    def pending(self) -> Pending:
        """Everything that is to come, as of now."""
        return Pending(self._copies, self.caller)

    @property
    def history(self) -> History:
        """What was."""
        return self._asked.seen_by(self.caller)

    @property
    def letters(self) -> Letters:
        """Dead letters, the latest."""
        return Letters(self._letters, self.caller)

    def holds(self) -> Iterator[Hold]:
        """The bulk pauses that stand, of every partition that can be asked; one may come several times.

        Without the key that they match where the caller may not see keys.
        """
        for hold in self.whole_holds():
            if hold.match.key is not None and not self.caller.reads_key(hold.tenant):
                yield replace(hold, match=replace(hold.match, key=None))
            else:
                yield hold

    def whole_holds(self) -> Iterator[Hold]:
        """The same with their keys, whatever the caller may see: for what ends them, and not to be shown."""
        for found in self._copies.values():
            yield from (hold for hold in found.stored.holds if self.caller.sees(hold.tenant))

    def rates(self) -> Iterator[Rate]:
        """The rates that commands have set, likewise. What a newer release wrote is passed over."""
        for found in self._copies.values():
            try:
                yield from [rate for rate in found.stored.rates() if self.caller.sees(rate.tenant)]
            except UNREADABLE:
                continue

    @property
    def _copies(self) -> dict[int, Copy]:
        """The partitions that can be asked."""
        return {
            f.status.partition: Copy(f.store, f.stored, f.status.partition)
            for f in self._followers
            if f.store is not None and f.stored is not None and f.status.indexed
        }

    def parked(self) -> dict[tuple[int, str], Parked]:
        """Destinations that are set aside, by partition and name, as the partitions' owners last wrote."""
        return {
            (status.partition, parked.destination): parked
            for status, owner in self.owners()
            if owner is not None
            for parked in owner.parked
        }

    @property
    def statuses(self) -> list[CopyStatus]:
        """How far each partition's copy is."""
        return [follower.status for follower in self._followers]

    @property
    def freshness(self) -> Freshness:
        """How old what is answered now is: as old as the oldest copy."""
        now_ms = self.clock.now_ms()
        missing = [status for status in self.statuses if not status.indexed]
        times = [
            # One that has caught up is asked again within half a second; until then nothing new is known.
            status.as_of_ms
            for status in self.statuses
            if status.indexed and status.as_of_ms is not None
        ]
        if missing or len(times) < self.partitions:
            return Freshness(None, None, missing)
        as_of_ms = min(times)
        return Freshness(as_of_ms, max(0, now_ms - as_of_ms), missing)

    def owners(self) -> Iterator[tuple[CopyStatus, PartitionStatus | None]]:
        """How far each partition's copy is, and what the partition's owner last wrote of itself.

        Of the rates those of its settings that are about all request topics together, or about one that is
        seen.
        """
        for follower in self._followers:
            stored = None if follower.store is None else follower.store.get(STATUS)
            status = None if stored is None else _status(stored)
            if status is not None:
                rates = [rate for rate in status.rates if not rate.tenant or self.caller.sees(rate.tenant)]
                status = replace(status, rates=rates)
            yield follower.status, status

    async def bounds(self, topic: str, partition: int) -> LogBounds:
        """Those of a request partition. Raises LogUnavailable and Misconfigured.

        Each look opens a connection of its own, so that others wait their turn.
        """
        async with self._readers:
            return await self._look_up(topic, partition)

    async def ends(self, partitions: Iterable[int]) -> dict[int, int]:
        """The high watermark of each of these partitions of the changelog, now.

        Raises LogUnavailable, Misconfigured.
        """
        wanted = list(partitions)
        found = await asyncio.gather(*[self._followers[number].end() for number in wanted])
        return dict(zip(wanted, found, strict=True))

    async def passed(self, position: Mapping[int, int]) -> None:
        """Wait until each copy has applied everything before its place in a position."""
        await asyncio.gather(*[self._followers[number].passed(at) for number, at in position.items()])

    def has_passed(self, position: Mapping[int, int]) -> bool:
        """Whether they have; never for a partition that there is not."""
        return all(
            number < self.partitions
            and (status := self._followers[number].status).indexed
            and status.position >= at
            for number, at in position.items()
        )

    @property
    def history_statuses(self) -> list[HistoryStatus]:
        """How far the history of each partition of the events' topic is."""
        return self._history.statuses

    @property
    def ready(self) -> bool:
        """Whether every copy has caught up since the console started."""
        return all(status.phase is Phase.FOLLOWING for status in self.statuses)


async def _forgetting(forget: Callable[[], int], what: str) -> None:
    """Have what is too old forgotten, until cancelled; `forget` returns how much it was."""
    while True:
        gone = 0
        try:
            gone = await asyncio.to_thread(forget)
        except DatabaseError as problem:
            logger.warning("cannot delete old rows of %s: %s", what, problem)
        await asyncio.sleep(0 if gone else _FORGET_EVERY_S)


def _status(stored: bytes) -> PartitionStatus | None:
    try:
        return decode_status(stored)
    except UNREADABLE:
        # A newer release wrote it.
        return None
