"""One operation carried out: its commands sent at its rate, their outcomes noted, whatever ends in between.

An item is noted before its command is sent, and after its outcome is known. The command's name follows from
operation and number: whoever goes on after a crash sends the same one, and is answered as before. What is
known by its coordinates has no such name: the answer to a cancel that is sent twice is that it is over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from msgspec.structs import replace

from delaystream.client.requests.outcomes import (
    Accepted,
    ClientError,
    ReceiptTimeout,
    RejectedError,
    UnavailableError,
)
from delaystream.client.requests.records import RequestRecord
from delaystream.codec.envelope import Hold
from delaystream.codec.outgoing import Outcome as Receipted
from delaystream.console.access.caller import Caller, Role
from delaystream.console.audit.acts import SENT
from delaystream.console.history.database import DatabaseError
from delaystream.console.operations.ledger import OperationLedger
from delaystream.console.operations.matching import Copies
from delaystream.console.operations.operation import (
    UNTIL,
    Action,
    Item,
    ItemStage,
    Operation,
    Outcome,
    Stage,
    request_id,
)
from delaystream.console.operations.restoring import (
    NothingLeft,
    Restored,
    is_ahead,
    kept_of,
    kept_of_unnamed,
    restored,
    restored_unnamed,
)
from delaystream.console.writing.asking import Asked
from delaystream.console.writing.outcomes import ReadOnly, UnknownTopic
from delaystream.console.writing.positions import Position
from delaystream.console.writing.service import Writing
from delaystream.engine.failures import LogUnavailable, Misconfigured
from delaystream.engine.ports import Clock

logger = logging.getLogger(__name__)

IN_FLIGHT: Final = 500
"""Most commands that wait for their outcomes."""
_BATCH: Final = 500
_TICK_S: Final = 0.5
#: So much of a second's commands may be sent at once after a delay.
_BURST_S: Final = 0.1
_SHOWN_S: Final = 30.0
_PAUSES_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0)

_CHANGED: Final = frozenset(
    {
        Receipted.CANCELLED.value,
        Receipted.PAUSED.value,
        Receipted.RESUMED.value,
        Receipted.TRIGGERED.value,
        Receipted.SCHEDULED.value,
    }
)
_WHY: Final[Mapping[str, str]] = {
    Receipted.UNKNOWN.value: "It is not known any more.",
    Receipted.TOO_LATE.value: "It is over.",
    Receipted.KEPT.value: "There is a schedule of this id again: it was kept.",
}
_GONE: Final = frozenset({Receipted.UNKNOWN.value, Receipted.TOO_LATE.value})


class Whole(Copies, Protocol):
    """A console, as it sees itself."""

    partitions: int

    def holds(self) -> Iterable[Hold]:
        """The holds that stand."""

    async def ends(self, partitions: Iterable[int]) -> Position:
        """The high watermark of each partition of the changelog. Raises LogUnavailable, Misconfigured."""

    async def passed(self, position: Position) -> None:
        """Wait until every copy has applied all that is before a position."""

    def has_passed(self, position: Position) -> bool:
        """Whether they have, and can be asked now."""


class Means(NamedTuple):
    """What it takes to carry out operations."""

    console: Whole
    writing: Writing
    ledger: OperationLedger
    clock: Clock
    #: whether a caller would still be let in, with the same rights
    stands: Callable[[Caller], Awaitable[bool]]
    #: the console's name among those that could carry one out
    runner: str


class Carrying:
    """Carries one operation out, until it ends, is stopped, or another console does."""

    def __init__(self, id: str, means: Means) -> None:
        self._id = id
        self._means = means
        self._flying: dict[int, asyncio.Task[None]] = {}
        self._outcomes: list[Outcome] = []
        self._position: Position = {}
        self._halted = False
        self._trouble: str | None = None
        self._told: str | None = None
        self._next_s = 0.0

    def halt(self) -> None:
        """Send nothing more before its stage is looked up again: somebody has stopped it."""
        self._halted = True

    async def run(self) -> None:
        """Carry it out. What goes wrong around it is tried again."""
        attempt = 0
        try:
            while True:
                self._trouble = None
                try:
                    if await self._pass():
                        return
                except (DatabaseError, LogUnavailable, Misconfigured) as problem:
                    self._trouble = str(problem)
                if self._trouble is None:
                    # It was stopped, and goes on.
                    continue
                logger.warning("operation %s: %s", self._id, self._trouble)
                await self._complain(self._trouble)
                await asyncio.sleep(_PAUSES_S[min(attempt, len(_PAUSES_S) - 1)])
                attempt += 1
        finally:
            for task in self._flying.values():
                task.cancel()

    async def _pass(self) -> bool:
        """Go once through what is not decided on; whether there is nothing more to do."""
        means = self._means
        # What is decided here and not noted yet is open in the database: it would be sent again.
        await self._flush()
        # What was frozen is in no copy that is behind it.
        self._position = await means.console.ends(range(means.console.partitions))
        await means.console.passed(self._position)
        after = -1
        while (operation := await self._still()) is not None:
            if not await self._allowed(operation):
                continue
            rate = max(1, operation.rate or 1)
            limit = min(_BATCH, max(1, rate // 2))
            some = await asyncio.to_thread(means.ledger.next, self._id, after, limit)
            if not some:
                return await self._finished(operation)
            after = some[-1].number
            under_way = {*self._flying, *(outcome.number for outcome in self._outcomes)}
            await self._send(operation, [item for item in some if item.number not in under_way])
            await self._flush()
            if self._trouble is not None:
                return False
            await self._complain(None)
        return await self._stopped()

    async def _still(self) -> Operation | None:
        """The operation, where it is still to be carried out here."""
        means = self._means
        self._halted = False
        if not await asyncio.to_thread(means.ledger.take, self._id, means.runner, means.clock.now_ms()):
            return None
        operation = await asyncio.to_thread(means.ledger.find, self._id)
        return operation if operation is not None and operation.stage is Stage.RUNNING else None

    async def _allowed(self, operation: Operation) -> bool:
        caller, means = operation.caller, self._means
        if caller is not None and await means.stands(caller):
            return True
        name = operation.made_by if caller is None else caller.name
        problem = f"{name} has no access any more, or other rights than at the start."
        await asyncio.to_thread(means.ledger.end, self._id, Stage.STOPPED, means.clock.now_ms(), problem)
        return False

    async def _finished(self, operation: Operation) -> bool:
        means = self._means
        await self._landed()
        if await self._still() is None:
            return await self._stopped()
        left = await asyncio.to_thread(means.ledger.next, self._id, -1, 1)
        if left or self._trouble is not None:
            self._trouble = self._trouble or "Some of it was not sent."
            return False
        position = await means.console.ends(range(means.console.partitions))
        try:
            async with asyncio.timeout(_SHOWN_S):
                # Whoever reads that it is done reads what it did, too.
                await means.console.passed(position)
        except TimeoutError:
            logger.warning("operation %s is done before this console shows all of it", self._id)
        await asyncio.to_thread(means.ledger.end, self._id, Stage.DONE, means.clock.now_ms())
        logger.info("operation %s (%s) is done", self._id, operation.action)
        return True

    async def _stopped(self) -> bool:
        """Outcomes of what was sent are noted, too; whether it stays stopped."""
        while self._flying:
            await asyncio.wait(self._flying.values(), timeout=_TICK_S, return_when=asyncio.FIRST_COMPLETED)
            await self._flush()
            if await self._still() is not None:
                return False
        await self._flush()
        await asyncio.to_thread(self._means.ledger.leave, self._id, self._means.runner)
        return True

    async def _landed(self) -> None:
        """Wait for the outcomes of all that was sent, or for the operation to be stopped."""
        while self._flying:
            await asyncio.wait(self._flying.values(), timeout=_TICK_S, return_when=asyncio.FIRST_COMPLETED)
            await self._flush()
            if self._flying and await self._still() is None:
                return
        await self._flush()

    # -- one item ----------------------------------------------------------------------------------

    async def _send(self, operation: Operation, some: Sequence[Item]) -> None:
        caller = operation.caller
        assert caller is not None
        noted = [self._noted(operation, item) for item in some]
        noted = await asyncio.to_thread(self._means.ledger.sending, operation, noted)
        for place, item in enumerate(noted):
            # At each command: what is not sent any more waits, for somebody who may.
            if not (await self._room(operation) and await self._means.stands(caller)) or self._halted:
                # What was under way before may have been sent.
                left = [item.number for item in noted[place:] if item.stage is not ItemStage.SENT]
                await asyncio.to_thread(self._means.ledger.unsent, self._id, left)
                return
            if not caller.may(Role.OPERATOR, item.request_topic):
                detail = f"{caller.name} may not change schedules of {item.request_topic}."
                self._failed(item, "role-too-low", detail)
            else:
                self._flying[item.number] = asyncio.create_task(
                    self._carried_out(operation, item), name=f"operation {self._id}, {item.number}"
                )
                self._flying[item.number].add_done_callback(partial(self._flown, item.number))

    def _flown(self, number: int, task: asyncio.Task[None]) -> None:
        del self._flying[number]
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._trouble = f"{type(failure).__name__}: {failure}"
            logger.error("%s failed", task.get_name(), exc_info=failure)

    async def _room(self, operation: Operation) -> bool:
        """Wait for an item's turn, and until few enough are under way; whether to send it."""
        loop = asyncio.get_running_loop()
        rate = max(1, operation.rate or 1)
        self._next_s = max(self._next_s, loop.time() - _BURST_S) + 1 / rate
        wait_s = self._next_s - loop.time()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        while len(self._flying) >= IN_FLIGHT and self._trouble is None:
            await asyncio.wait(self._flying.values(), timeout=_TICK_S, return_when=asyncio.FIRST_COMPLETED)
            await self._flush()
            if await self._still() is None:
                return False
        return self._trouble is None

    def _noted(self, operation: Operation, item: Item) -> Item:
        """An item that is about to be sent, with what an undo has to know. Raises LogUnavailable."""
        if operation.action is not Action.CANCEL or item.kept is not None:
            return item
        console = self._means.console
        now_ms = self._means.clock.now_ms()
        self._check_copy(item)
        if not item.named:
            kept = kept_of_unnamed(console.pending.delivered_by(item.coordinates))
            return replace(item, kept=kept, sent_ms=now_ms)
        found = console.catalog.get(item.request_topic, item.about)
        if found is None or found.row.version != item.version:
            # The owner refuses it.
            return item
        return replace(item, kept=kept_of(found), sent_ms=now_ms)

    def _check_copy(self, item: Item) -> None:
        """Raise LogUnavailable where there is no copy to ask about an item: nothing is known of it then."""
        console = self._means.console
        # A request without an id may have its times in any of them.
        of = [console.catalog.partition_of(item.about)] if item.named else list(self._position)
        for partition in of:
            if not console.has_passed({partition: self._position[partition]}):
                raise LogUnavailable(
                    f"The console's copy of partition {partition} cannot be asked at the moment: "
                    "nothing is sent before what it changes is known."
                )

    async def _carried_out(self, operation: Operation, item: Item) -> None:
        try:
            accepted = await self._outcome(operation, item)
        except RejectedError as rejected:
            source = None if rejected.receipt is None else rejected.receipt.source
            self._failed(item, rejected.code, rejected.detail, source)
        except NothingLeft as nothing:
            self._failed(item, "nothing-left", str(nothing))
        except ReceiptTimeout as silence:
            # It stands on its topic. Sent again under its name, it is answered as it was decided on.
            self._trouble = str(silence)
            await self._stays_sent(item, silence.source.text)
        except (UnavailableError, ReadOnly, LogUnavailable) as problem:
            self._trouble = str(problem)
        except UnknownTopic as unknown:
            self._failed(item, "unknown-request-topic", str(unknown))
        except (ClientError, ValueError, TypeError) as refused:
            self._failed(item, "invalid", str(refused))
        else:
            self._decided(item, accepted)

    async def _stays_sent(self, item: Item, source: str) -> None:
        """Have the audit log say that a command stands on its topic, and no more is known of it."""
        if item.entry is None:
            return
        try:
            await asyncio.to_thread(self._means.ledger.settled, item.entry, SENT, source)
        except DatabaseError as problem:
            self._trouble = str(problem)

    async def _outcome(self, operation: Operation, item: Item) -> Accepted:
        writing = self._means.writing
        name = request_id(self._id, item.number)
        if operation.action is not Action.UNDO:
            asked = self._asked(operation, item, item.version if item.named else None)
            about = item.about if item.named else item.coordinates
            options = operation.frozen.options
            record = writing.command_record(asked, operation.action.value, about, options)
            return await (await writing.begin(record, name)).result()
        back = self._restored(item)
        # 0: whether it was cancelled is not known. Then it is kept if it was not.
        asked = self._asked(operation, item, item.version or None, note=None)
        options = {**back.options, "if_exists": "keep"}
        record = writing.schedule_record(asked, back.id, back, options)
        accepted = await (await writing.begin(record, name)).result()
        if back.until_ms is not None and _text(accepted, "outcome") == Receipted.SCHEDULED.value:
            asked = self._asked(operation, item, None, note=back.options.get("note"))
            pause = writing.command_record(asked, "pause", back.id, {"until": str(back.until_ms)})
            await self._paused(operation, item, pause)
        return accepted

    async def _paused(self, operation: Operation, item: Item, pause: RequestRecord) -> None:
        """Give a pause that came back the end that it had."""
        ledger, name = self._means.ledger, request_id(self._id, item.number, UNTIL)
        entry = await asyncio.to_thread(ledger.pausing, operation, item)
        paused = await (await self._means.writing.begin(pause, name)).result()
        source = paused.sent.source.text
        await asyncio.to_thread(ledger.settled, entry, _text(paused, "outcome"), source)

    def _asked(self, operation: Operation, item: Item, version: int | None, **said: Any) -> Asked:
        note = said.get("note", operation.frozen.note)
        assert operation.caller is not None
        return Asked(operation.caller.who, item.request_topic, if_version=version, note=note)

    def _restored(self, item: Item) -> Restored:
        """The request that brings something back. Raises NothingLeft, LogUnavailable."""
        console, now_ms = self._means.console, self._means.clock.now_ms()
        if item.kept is None:
            raise NothingLeft("What was there was not kept.")
        self._check_copy(item)
        if not item.named and item.decided_ms is None:
            # Its cancel may have been sent, and was not decided on as far as is known.
            if console.pending.delivered_by(item.coordinates):
                raise NothingLeft("It is still there. Its cancel may have been sent, and be carried out yet.")
            return restored_unnamed(item.about, item.kept, item.sent_ms or 0, now_ms)
        if not item.named:
            return restored_unnamed(item.about, item.kept, item.sent_ms or 0, item.decided_ms or 0)
        found = console.catalog.get(item.request_topic, item.about)
        now = None if found is None or found.row.version != item.version else found.row
        standing = {hold.name for hold in console.holds() if hold.tenant == item.request_topic}
        return restored(item.about, item.kept, now, standing, now_ms)

    def _decided(self, item: Item, accepted: Accepted) -> None:
        outcome = _text(accepted, "outcome")
        version = None if accepted.receipt is None else accepted.receipt.version
        stage = ItemStage.CHANGED if outcome in _CHANGED else ItemStage.UNCHANGED
        if outcome == Receipted.KEPT.value and not item.version:
            stage = ItemStage.UNCHANGED
        elif outcome in _GONE and self._was_cancelled(item):
            stage, outcome = ItemStage.CHANGED, Receipted.CANCELLED.value
        elif outcome in _WHY:
            stage = ItemStage.FAILED
        self._outcomes.append(
            Outcome(
                number=item.number,
                stage=stage,
                outcome=outcome,
                entry=item.entry,
                detail=_WHY.get(outcome) if stage is ItemStage.FAILED else None,
                version=version,
                source=accepted.sent.source.text,
                decided_ms=self._means.clock.now_ms(),
            )
        )

    def _was_cancelled(self, item: Item) -> bool:
        """Whether an earlier send of this cancel, whose answer was lost, is why it is over: not its time."""
        if item.stage is not ItemStage.SENT or item.named or item.kept is None:
            return False
        return is_ahead(item.kept, self._means.clock.now_ms())

    def _failed(self, item: Item, code: str, detail: str, source: str | None = None) -> None:
        self._outcomes.append(
            Outcome(
                number=item.number,
                stage=ItemStage.FAILED,
                outcome=code,
                entry=item.entry,
                detail=detail,
                source=source,
                decided_ms=self._means.clock.now_ms(),
            )
        )

    async def _flush(self) -> None:
        if not self._outcomes:
            return
        outcomes, self._outcomes = self._outcomes, []
        try:
            await asyncio.to_thread(self._means.ledger.decided, self._id, outcomes)
        except BaseException:
            self._outcomes = outcomes + self._outcomes
            raise

    async def _complain(self, problem: str | None) -> None:
        if problem == self._told:
            return
        try:
            await asyncio.to_thread(self._means.ledger.complain, self._id, problem)
        except DatabaseError:
            # It is the database that is in trouble.
            return
        self._told = problem


def _text(accepted: Accepted, name: str) -> str:
    return "" if accepted.receipt is None else str(accepted.receipt.body.get(name, ""))
