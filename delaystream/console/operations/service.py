"""Operations as typed calls: a dry run, a start, a stop, an undo; and what carries them out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from secrets import token_hex
from typing import Final

import msgspec
from msgspec.structs import replace

from delaystream.console.access.caller import Caller, Role
from delaystream.console.access.rights import permit
from delaystream.console.history.database import DatabaseError
from delaystream.console.operations.carrying import Carrying, Means
from delaystream.console.operations.ledger import OperationLedger, TooManyOperations, UnderWay
from delaystream.console.operations.matching import Chosen, Copies, Matching, TooMany
from delaystream.console.operations.operation import (
    Action,
    Failure,
    Frozen,
    Operation,
    Progress,
    Stage,
)
from delaystream.engine.settings import EngineSettings

logger = logging.getLogger(__name__)

RUNNING: Final = 5
"""Most operations that run at a time; of one caller one less: nobody keeps all others from theirs."""
_FREEZING: Final = 2
_LOOK_S: Final = 2.0
_FORGET_EVERY_S: Final = 60.0
_ID_BYTES: Final = 12


class OperationError(Exception):
    """Why nothing was done; the message is a sentence."""

    def __init__(self, status: HTTPStatus, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.code = code


class OperationBounds(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds on operations."""

    #: commands a second, where nobody says, and at most
    rate: int = 100
    most_rate: int = 1_000
    #: schedules of one operation, at most
    items: int = 100_000


class Operations:
    """Operations of callers; for one event loop. Every call raises DatabaseError."""

    def __init__(self, means: Means, bounds: OperationBounds, settings: EngineSettings) -> None:
        self.bounds = bounds
        self._means = means
        self._ledger: OperationLedger = means.ledger
        self._settings = settings
        self._freezing = asyncio.Semaphore(_FREEZING)
        self._carried: dict[str, tuple[Carrying, asyncio.Task[None]]] = {}
        self._wake = asyncio.Event()

    # -- making ------------------------------------------------------------------------------------

    async def dry_run(self, caller: Caller, seen: Copies, asked: Frozen, chosen: Chosen) -> Operation:
        """Freeze what matches of what the caller sees and may change. Raises OperationError."""
        now_ms = self._means.clock.now_ms()
        operation = Operation(
            id=token_hex(_ID_BYTES),
            frozen=asked,
            stage=Stage.FREEZING,
            made_ms=now_ms,
            made_by=caller.who.actor,
        )
        matching = Matching(
            seen,
            asked.action,
            asked.options,
            lambda topic: caller.may(Role.OPERATOR, topic),
            self._settings,
        )
        async with self._freezing:
            try:
                await asyncio.to_thread(self._ledger.begin, operation)
                async for some in matching.items(chosen, self.bounds.items, now_ms):
                    await asyncio.to_thread(self._ledger.add, operation.id, some)
            except TooManyOperations as many:
                raise _too_many(many) from None
            except TooMany as many:
                await asyncio.to_thread(self._ledger.drop, operation.id)
                raise OperationError(HTTPStatus.BAD_REQUEST, "too-many-matches", str(many)) from None
            operation = replace(operation, frozen=matching.told(asked), stage=Stage.DRY_RUN)
            await asyncio.to_thread(self._ledger.frozen, operation)
        return operation

    async def start(self, id: str, caller: Caller, rate: int | None = None) -> Operation:
        """Have it carried out; one that was stopped goes on. Raises OperationError, and Refused."""
        operation = await self.find(id, caller)
        self._permit(operation, caller)
        now_ms = self._means.clock.now_ms()
        if operation.stage is Stage.RUNNING:
            return operation
        if operation.expired(now_ms):
            raise OperationError(
                HTTPStatus.CONFLICT, "expired", "The dry run is too old to be started: make another one."
            )
        if operation.stage is Stage.DONE:
            raise OperationError(HTTPStatus.CONFLICT, "done", "It is done: nothing of it is left.")
        if operation.undone_by is not None:
            raise OperationError(HTTPStatus.CONFLICT, "undone", "It was undone: make another dry run.")
        self._means.writing.check_allowed()
        started = replace(
            operation,
            stage=Stage.RUNNING,
            caller=caller,
            started_ms=operation.started_ms or now_ms,
            ended_ms=None,
            rate=self._rate(rate, operation.rate),
            problem=None,
        )
        try:
            await asyncio.to_thread(self._ledger.start, started, RUNNING)
        except TooManyOperations as many:
            raise _too_many(many) from None
        self._wake.set()
        return await self.find(id, caller)

    async def stop(self, id: str, caller: Caller) -> Operation:
        """Send no more of it; what was sent, stands. Raises OperationError, and Refused."""
        operation = await self.find(id, caller)
        self._permit(operation, caller)
        problem = f"{caller.who.actor} stopped it."
        await asyncio.to_thread(self._ledger.end, id, Stage.STOPPED, self._means.clock.now_ms(), problem)
        if id in self._carried:
            self._carried[id][0].halt()
        return await self.find(id, caller)

    async def undo(self, id: str, caller: Caller, rate: int | None = None) -> Operation:
        """Bring back what a cancel took away; returns the operation that does, once for each cancel.

        Raises OperationError, and Refused.
        """
        operation = await self.find(id, caller)
        self._permit(operation, caller)
        if operation.undone_by is not None:
            return await self.find(operation.undone_by, caller)
        now_ms = self._means.clock.now_ms()
        if operation.action is not Action.CANCEL:
            raise OperationError(
                HTTPStatus.CONFLICT,
                "not-undoable",
                f"It is a {operation.action}: only a cancel can be undone.",
            )
        until_ms = operation.undo_until_ms
        if until_ms is None:
            sentence = (
                "It has not ended: stop it first, or wait." if operation.started_ms else "It was not started."
            )
            raise OperationError(HTTPStatus.CONFLICT, "not-ended", sentence)
        if now_ms >= until_ms:
            raise OperationError(
                HTTPStatus.CONFLICT,
                "undo-over",
                "It ended too long ago: what it cancelled is not kept any more.",
            )
        self._means.writing.check_allowed()
        undo = Operation(
            id=token_hex(_ID_BYTES),
            frozen=Frozen(
                action=Action.UNDO,
                asked=operation.frozen.asked,
                topics=operation.frozen.topics,
                samples=operation.frozen.samples,
            ),
            stage=Stage.RUNNING,
            made_ms=now_ms,
            made_by=caller.who.actor,
            caller=caller,
            started_ms=now_ms,
            rate=self._rate(rate, operation.rate),
            undo_of=id,
        )
        try:
            begin = partial(self._ledger.begin_undo, undo, RUNNING, runs=id in self._carried)
            begun = await asyncio.to_thread(begin)
        except UnderWay as under_way:
            raise OperationError(HTTPStatus.CONFLICT, "not-ended", str(under_way)) from None
        except TooManyOperations as many:
            raise _too_many(many) from None
        self._wake.set()
        return await self.find(begun, caller)

    # -- asking ------------------------------------------------------------------------------------

    async def find(self, id: str, caller: Caller) -> Operation:
        """One that the caller sees: every request topic of it. Raises OperationError."""
        operation = await asyncio.to_thread(self._ledger.find, id)
        if operation is None or operation.stage is Stage.FREEZING or not _sees(caller, operation):
            raise OperationError(HTTPStatus.NOT_FOUND, "unknown", f"No operation {id[:60]!r} is known.")
        return operation

    async def latest(
        self, caller: Caller, limit: int, before: tuple[int, str] | None = None
    ) -> tuple[Sequence[Operation], tuple[int, str] | None]:
        """Some of those that the caller sees, the latest first, and where the next page begins."""
        found = await asyncio.to_thread(self._ledger.latest, limit + 1, before)
        next_place = (found[limit - 1].made_ms, found[limit - 1].id) if len(found) > limit else None
        return [one for one in found[:limit] if _sees(caller, one)], next_place

    async def progress(self, operation: Operation) -> Progress:
        """How far it is."""
        return await asyncio.to_thread(self._ledger.progress, operation.id)

    async def failures(self, operation: Operation, limit: int, after: int | None) -> Sequence[Failure]:
        """What of it was not changed, and why."""
        return await asyncio.to_thread(self._ledger.failures, operation.id, limit, after)

    # -- carrying out ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Carry out what was started, here or on another console that has ended, until cancelled."""
        forget_s = 0.0
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self._look()
                if loop.time() >= forget_s:
                    await asyncio.to_thread(self._ledger.forget, self._means.clock.now_ms())
                    forget_s = loop.time() + _FORGET_EVERY_S
            except DatabaseError as problem:
                logger.warning("cannot look for operations: %s", problem)
            self._wake.clear()
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _look(self) -> None:
        for id in await asyncio.to_thread(self._ledger.running):
            if id in self._carried:
                continue
            now_ms = self._means.clock.now_ms()
            if await asyncio.to_thread(self._ledger.take, id, self._means.runner, now_ms):
                carrying = Carrying(id, self._means)
                task = asyncio.create_task(carrying.run(), name=f"operation {id}")
                self._carried[id] = carrying, task
                task.add_done_callback(lambda task, id=id: self._ended(id, task))  # type: ignore[misc]

    def _ended(self, id: str, task: asyncio.Task[None]) -> None:
        del self._carried[id]
        if not task.cancelled() and (failure := task.exception()) is not None:
            logger.error("%s failed, and is taken up again", task.get_name(), exc_info=failure)

    async def close(self) -> None:
        """Send nothing more; another console, or this one when it runs again, goes on."""
        tasks = [task for _, task in self._carried.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _permit(self, operation: Operation, caller: Caller) -> None:
        for topic in operation.frozen.topics:
            permit(caller, Role.OPERATOR, topic)

    def _rate(self, rate: int | None, before: int | None) -> int:
        if rate is not None and not 1 <= rate <= self.bounds.most_rate:
            raise OperationError(
                HTTPStatus.BAD_REQUEST,
                "invalid-rate",
                f"rate is {rate}; expected 1 to {self.bounds.most_rate} commands a second.",
            )
        return rate or before or min(self.bounds.rate, self.bounds.most_rate)


def _sees(caller: Caller, operation: Operation) -> bool:
    topics = operation.frozen.about
    if not topics:
        return caller.sees_everything or operation.made_by == caller.who.actor
    return all(caller.sees(topic) for topic in topics)


def _too_many(many: TooManyOperations) -> OperationError:
    return OperationError(HTTPStatus.TOO_MANY_REQUESTS, "too-many-operations", str(many))
