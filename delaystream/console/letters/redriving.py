"""Letters are sent again, each redrive once, and followed to its outcome; or they are set aside.

What is sent is noted before, under a name that follows from the letter: whoever asks a second time, or after
an end of the console in between, asks for the same request, and the owner of its id carries it out once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from delaystream.client.requests.outcomes import ClientError
from delaystream.client.requests.records import RequestRecord
from delaystream.console.history.database import DatabaseError
from delaystream.console.letters.acts import Act, Acts, Does, Key, Standing, key_of
from delaystream.console.letters.latest import DeadLetters, Letter
from delaystream.console.letters.originals import Original, Originals
from delaystream.console.letters.repair import (
    Reading,
    Repair,
    RepairError,
    Said,
    composed,
    request_id_of,
    unsendable,
)
from delaystream.console.writing.asking import Asked
from delaystream.console.writing.outcomes import Progress, ReadOnly, Stage, WritingError, remembered
from delaystream.console.writing.sending import RECEIPT_WAIT_S
from delaystream.console.writing.service import Writing
from delaystream.engine.failures import LogUnavailable, Misconfigured

if TYPE_CHECKING:
    from delaystream.codec.envelope import Schedule
    from delaystream.engine.ports import Clock

logger = logging.getLogger(__name__)

_ATTEMPTS: Final = 5
#: A letter that was refused again is there as soon as its receipt is; its reader may be behind.
_LETTER_WAIT_S: Final = 5.0
_LOOK_EVERY_S: Final = 0.05
_SETTLE_EVERY_S: Final = 30.0
_FORGET_EVERY_S: Final = 600.0
_SETTLE_AFTER_MS: Final = 15_000
_RUNS_KEPT_MS: Final = 30 * 86_400_000


class Conflict(WritingError):
    """An earlier act on the letter forbids this one; `act` has it."""

    def __init__(self, code: str, detail: str, act: Act) -> None:
        super().__init__(detail)
        self.code = code
        self.act = act


class Redriving:
    """What is done about letters; for one event loop.

    Calls raise DatabaseError, and what `Writing` raises where they send.
    """

    def __init__(
        self,
        originals: Originals,
        letters: DeadLetters,
        acts: Acts,
        writing: Writing,
        schedule_of: Callable[[str, str], Schedule | None],
        clock: Clock,
    ) -> None:
        """`schedule_of` tells of a request topic and an id what the copies know."""
        self.originals = originals
        self.acts = acts
        self._letters = letters
        self._writing = writing
        self._schedule_of = schedule_of
        self._clock = clock
        self._underway: dict[str, asyncio.Task[Act]] = {}

    # -- one letter --------------------------------------------------------------------------------

    def record(self, original: Original, repair: Repair, asked: Asked, number: int = 1) -> RequestRecord:
        """The request that a letter comes back as, as a worker would take it; nothing is sent.

        Raises RejectedError with the sentence where one would not, RepairError, ValueError, UnknownTopic.
        """
        said = Said(
            request_topic=asked.request_topic,
            actor=asked.actor,
            number=number,
            request_id=request_id_of(original.letter, number),
            note=asked.note,
        )
        reading = Reading(self._writing.read, self._writing.dialects(asked.request_topic))
        record = composed(original, repair, said, reading)
        # What was added is held to the contract, too.
        return self._writing.checked(record).record

    async def redrive(
        self, original: Original, repair: Repair, asked: Asked, *, again: bool = False, run: str | None = None
    ) -> Act:
        """Send a letter again, and what came of it within `asked.wait_s`; asked twice, it is sent once.

        `again`: also where it was sent again before, and a worker took it; or where it was discarded. Raises
        as `record`, Conflict, Busy, ReadOnly, UnavailableError.
        """
        if not self._writing.allowed:
            raise ReadOnly("This console writes nothing: its setting console_writes is off.")
        for _ in range(_ATTEMPTS):
            before = await asyncio.to_thread(self.acts.of, key_of(original.letter))
            act, is_new = self._next(before, original.letter, repair, asked, again=again)
            if act.stage is Stage.DECIDED:
                return act
            task = self._underway.get(act.request_id or "")
            if task is None:
                # Who resumes what another one has begun, sends what that one has asked for.
                said = replace(asked, note=act.note)
                record = self._recorded(original, repair, said, act)
                act = replace(act, about=record.id, run=act.run or run)
                if is_new and not await asyncio.to_thread(self.acts.add, act):
                    continue
                task = self._underway.get(act.request_id or "") or self._begin(act, record, asked)
            return await self._waited(task, act, asked.wait_s)
        raise Conflict("redrive-under-way", "Others are changing it at the same time.", act)

    async def discard(self, letters: Sequence[Letter], asked: Asked) -> int:
        """Set letters aside, each that nothing else is done about; how many. Nothing is taken from Kafka."""
        return await asyncio.to_thread(self._set_aside, letters, asked, Does.DISCARD)

    async def reopen(self, letters: Sequence[Letter], asked: Asked) -> int:
        """Take back that letters were discarded; how many."""
        return await asyncio.to_thread(self._set_aside, letters, asked, Does.REOPEN)

    async def done(self, letter: Letter) -> list[Act]:
        """Everything that was done about a letter, in order, as far as it is known by now."""
        acts = await asyncio.to_thread(self.acts.of, key_of(letter))
        return [await self.known(act) for act in acts]

    async def last(self, since: Mapping[int, int]) -> dict[Key, Act]:
        """The last act of each letter from an offset on, by partition."""
        return await asyncio.to_thread(self.acts.last, since)

    async def known(self, act: Act) -> Act:
        """An act with what has come of it since."""
        if act.standing is not Standing.SENDING or act.request_id is None:
            return act
        progress = await self._writing.find(act.request_id)
        return act if progress is None else _with(act, progress)

    def _set_aside(self, letters: Sequence[Letter], asked: Asked, does: Does) -> int:
        acts = []
        for letter in letters:
            before = self.acts.of(key_of(letter))
            standing = before[-1].standing if before else Standing.OPEN
            wrong = standing is not Standing.DISCARDED if does is Does.REOPEN else standing in _ASIDE
            if wrong:
                continue
            act = _act(letter, len(before) + 1, does, asked, self._clock.now_ms())
            acts.append(replace(act, request_topic=letter.request_topic))
        return self.acts.set_aside(acts, asked.who)

    def _recorded(self, original: Original, repair: Repair, asked: Asked, act: Act) -> RequestRecord:
        record = self.record(original, repair, asked, act.number)
        if act.actor == asked.actor:
            return record
        headers = [
            (name, act.actor.encode() if name == "delaystream-actor" else content)
            for name, content in record.headers
        ]
        return replace(record, headers=headers)

    def _next(
        self, before: Sequence[Act], letter: Letter, repair: Repair, asked: Asked, *, again: bool
    ) -> tuple[Act, bool]:
        """The redrive that is asked for: one that was begun before, or a new one."""
        if (why := unsendable(letter)) is not None:
            raise RepairError("not-redrivable", why)
        told = repair.fingerprint
        for act in before:
            if asked.key is not None and (act.key, act.actor) == (asked.key, asked.actor):
                if act.fingerprint != told:
                    raise Conflict(
                        "idempotency-key-reused",
                        "The idempotency key came with another repair of this letter before; expected a new "
                        "one.",
                        act,
                    )
                return act, False
        last = before[-1] if before else None
        standing = Standing.OPEN if last is None else last.standing
        same = last is not None and (last.fingerprint, last.request_topic) == (told, asked.request_topic)
        if last is not None and not again:
            if standing in (Standing.SENDING, Standing.FAILED) and same:
                return last, False
            if standing is Standing.SENDING:
                raise Conflict(
                    "redrive-under-way",
                    f"{last.actor} has it sent again with another repair, and no outcome is known yet; "
                    "expected the same repair, or `again`.",
                    last,
                )
            if standing is Standing.DISCARDED:
                raise Conflict(
                    "discarded", f"{last.actor} has discarded it; expected it reopened, or `again`.", last
                )
            if standing in (Standing.ACCEPTED, Standing.UNCHANGED):
                if same:
                    return last, False
                raise Conflict(
                    "already-redriven",
                    f"{last.actor} has had it sent again, and a worker took it ({last.outcome}); expected "
                    "`again` for one more.",
                    last,
                )
        number = len(before) + 1
        act = _act(letter, number, Does.REDRIVE, asked, self._clock.now_ms())
        return (
            replace(
                act,
                key=asked.key,
                request_id=request_id_of(letter, number),
                request_topic=asked.request_topic,
                fingerprint=told,
                changed=repair.changed,
                stage=Stage.BEGUN,
            ),
            True,
        )

    # -- to the outcome ----------------------------------------------------------------------------

    def _begin(self, act: Act, record: RequestRecord, asked: Asked) -> asyncio.Task[Act]:
        assert act.request_id is not None
        name = act.request_id
        task = asyncio.create_task(self._followed(act, record, asked), name=f"redrive {name}")
        self._underway[name] = task
        task.add_done_callback(lambda _: self._underway.pop(name, None))
        task.add_done_callback(_ended)
        return task

    async def _waited(self, task: asyncio.Task[Act], act: Act, wait_s: float) -> Act:
        # The work goes on, whoever waits for it.
        await asyncio.wait([task], timeout=wait_s)
        if task.done() and not task.cancelled():
            return task.result()
        return await self.known(act)

    async def _followed(self, act: Act, record: RequestRecord, asked: Asked) -> Act:
        following = replace(asked, key=None, if_version=None, name=act.request_id, wait_s=2 * RECEIPT_WAIT_S)
        try:
            progress = await self._writing.request(following, "redrive", record)
        except (ClientError, WritingError, DatabaseError) as failure:
            await self._tell(replace(act, stage=Stage.FAILED, detail=str(failure)))
            raise
        act = _with(act, progress)
        if act.standing is Standing.REJECTED and act.source is not None:
            act = replace(act, letter=await self._letter_of(act.source))
        await self._tell(act)
        return act

    async def _letter_of(self, source: str) -> str | None:
        """Where the letter of a request stands that was refused."""
        for _ in range(round(_LETTER_WAIT_S / _LOOK_EVERY_S)):
            if (found := self._letters.of_source(source)) is not None:
                return found.name
            await asyncio.sleep(_LOOK_EVERY_S)
        return None

    async def _tell(self, act: Act) -> None:
        try:
            await asyncio.to_thread(self.acts.tell, act)
        except DatabaseError as problem:
            # The ledger of requests, the schedule or the new letter tells of it later.
            logger.warning("the redrive of dead letter %d.%d: %s", act.partition, act.offset, problem)

    async def settle(self) -> None:
        """Find out what came of redrives that nobody follows: of those that a console left behind.

        Raises DatabaseError.
        """
        before_ms = self._clock.now_ms() - _SETTLE_AFTER_MS
        for act in await asyncio.to_thread(self.acts.undecided, before_ms):
            if act.request_id is None or act.request_id in self._underway:
                continue
            settled = await self._settled(act)
            if settled != act:
                await asyncio.to_thread(self.acts.tell, settled)

    async def _settled(self, act: Act) -> Act:
        progress = await self._writing.find(act.request_id or "")
        if progress is None:
            progress = Progress(
                request_id=act.request_id or "",
                request_topic=act.request_topic or "",
                action="redrive",
                about=act.about or "",
                asked_ms=act.asked_ms,
                stage=act.stage or Stage.BEGUN,
                source=act.source,
            )
        schedule = self._schedule_of(progress.request_topic, progress.about) if progress.about else None
        if schedule is not None:
            progress = remembered(progress, schedule)
        act = _with(act, progress)
        if act.source is not None and (found := self._letters.of_source(act.source)) is not None:
            # It is not known to be accepted, and stands among the letters.
            if act.standing is Standing.SENDING:
                told = {"outcome": "rejected", "code": found.code, "detail": found.detail}
                act = replace(act, stage=Stage.DECIDED, **told)
            if act.standing is Standing.REJECTED:
                act = replace(act, letter=found.name)
        return act

    # -- life --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Settle what was left behind, and forget what the topic has forgotten, until cancelled."""
        forgets_at_s = 0.0
        while True:
            await asyncio.sleep(_SETTLE_EVERY_S)
            try:
                await self.settle()
                if (now_s := asyncio.get_running_loop().time()) >= forgets_at_s:
                    forgets_at_s = now_s + _FORGET_EVERY_S
                    await self._forget()
            except (DatabaseError, LogUnavailable, Misconfigured) as problem:
                logger.warning("cannot delete old acts on dead letters: %s", problem)

    async def _forget(self) -> None:
        for partition in range(self.originals.partitions):
            start = await self.originals.start(partition)
            await asyncio.to_thread(self.acts.forget, partition, start)
        await asyncio.to_thread(self.acts.forget_runs, self._clock.now_ms() - _RUNS_KEPT_MS)

    async def close(self) -> None:
        """Stop following."""
        tasks = list(self._underway.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


_ASIDE: Final = frozenset({Standing.DISCARDED, Standing.SENDING})


def _act(letter: Letter, number: int, does: Does, asked: Asked, now_ms: int) -> Act:
    partition, offset, at_ms = key_of(letter)
    return Act(
        partition=partition,
        offset=offset,
        at_ms=at_ms,
        number=number,
        does=does,
        actor=asked.actor,
        note=asked.note,
        asked_ms=now_ms,
    )


def _with(act: Act, progress: Progress) -> Act:
    receipt = progress.receipt or {}
    return replace(
        act,
        stage=progress.stage,
        source=progress.source or act.source,
        outcome=progress.outcome,
        code=progress.code,
        detail=receipt.get("detail", progress.problem),
    )


def _ended(task: asyncio.Task[Act]) -> None:
    if not task.cancelled() and (failure := task.exception()) is not None:
        logger.warning("%s failed: %s", task.get_name(), failure)
