"""Many letters that are sent again together: looked at first, then sent at a bounded rate, and stopped."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from delaystream.client.requests.outcomes import ClientError, RejectedError
from delaystream.client.requests.records import RequestRecord
from delaystream.console.access.caller import Caller
from delaystream.console.history.database import DatabaseError
from delaystream.console.letters.acts import Act, Run, Standing
from delaystream.console.letters.latest import Letter
from delaystream.console.letters.originals import Original
from delaystream.console.letters.redriving import Conflict, Redriving
from delaystream.console.letters.repair import Repair, RepairError
from delaystream.console.writing.asking import Asked
from delaystream.console.writing.outcomes import Busy, KeyReused, WritingError
from delaystream.engine.failures import LogUnavailable, Misconfigured

if TYPE_CHECKING:
    from delaystream.engine.ports import Clock

logger = logging.getLogger(__name__)

MOST: Final = 10_000
"""Letters of one run."""
RUNS: Final = 4
"""So many run at once."""
RUNS_OF_ONE: Final = RUNS - 1
"""So many of one caller: nobody keeps all others from theirs."""
RATE: Final = 10.0
"""Letters a second, unless it is said otherwise."""
LEAST_RATE: Final = 0.1
"""A run comes to an end."""
MOST_RATE: Final = 200.0
SAMPLES: Final = 5
"""So many letters a look shows."""
LATEST: Final = 20
"""So many runs are listed."""
INTERRUPTED_MS: Final = 60_000
"""A run that told nothing for so long has ended with its console."""
_CHUNK: Final = 100
_AT_ONCE: Final = 50
_TELL_EVERY_S: Final = 1.0
_MOST_FAILURES: Final = 10
_LOOK_S: Final = 0.1

RUNNING: Final = "running"
DONE: Final = "done"
STOPPED: Final = "stopped"
FAILED: Final = "failed"
INTERRUPTED: Final = "interrupted"


class Sample(msgspec.Struct, frozen=True):
    """One letter of a look."""

    original: Original
    record: RequestRecord | None
    """What would be sent; None: nothing."""
    code: str | None = None
    detail: str | None = None
    """Why nothing would be."""


class Look(msgspec.Struct, frozen=True):
    """What a run would do."""

    total: int
    refused: dict[str, int]
    samples: Sequence[Sample]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is asked for."""

    letters: Sequence[Letter]
    repair: Repair
    asked_of: Callable[[Letter], Asked]
    """Who asks, for the request topic of one letter; each was looked at before."""
    caller: Caller
    """On whose behalf, and with whose rights."""
    fingerprint: str | None = None
    """Of what was asked for, in short: a key that is used again has to come with the same."""
    rate: float = RATE
    again: bool = False


class Progressed(msgspec.Struct, frozen=True):
    """A run, and how far it is."""

    run: Run
    counts: dict[Standing, int]
    """Letters that were sent, by how they stand."""
    acts: Sequence[Act]


class _Running(NamedTuple):
    """A run at work, and whose it is."""

    task: asyncio.Task[None]
    stopping: asyncio.Event
    whose: str


class Runs:
    """Runs of one console; for one event loop."""

    def __init__(
        self, redriving: Redriving, clock: Clock, stands: Callable[[Caller], Awaitable[bool]]
    ) -> None:
        """`stands`: whether a caller would still be let in, with the same rights."""
        self.redriving = self._redriving = redriving
        self._clock = clock
        self._stands = stands
        #: one at a time: two that are asked for at the same instant count each other
        self._beginning = asyncio.Lock()
        self._running: dict[str, _Running] = {}

    async def look(self, wanted: Wanted) -> Look:
        """What a run would do; nothing is sent. Raises LogUnavailable, Misconfigured."""
        refused: Counter[str] = Counter()
        samples: list[Sample] = []
        total = 0
        async for original in self._originals(wanted.letters):
            total += 1
            sample = self._sample(original, wanted)
            if sample.code is not None:
                refused[sample.code] += 1
            if len(samples) < SAMPLES:
                samples.append(sample)
            await asyncio.sleep(0)
        return Look(total, dict(refused), samples)

    async def begin(self, name: str, wanted: Wanted, asked: Asked) -> Run:
        """Begin a run; one that was begun under the name before is told as it is.

        Raises Busy, KeyReused, DatabaseError.
        """
        async with self._beginning:
            known = await self.known(name, wanted.fingerprint)
            if known is not None:
                return known
            whose = wanted.caller.who.unique
            if len(self._running) >= RUNS:
                raise Busy(f"{RUNS} runs are under way; expected fewer. Nothing was sent.")
            if [running.whose for running in self._running.values()].count(whose) >= RUNS_OF_ONE:
                raise Busy(
                    f"{RUNS_OF_ONE} runs of one caller are under way; expected fewer. Nothing was sent."
                )
            run = await self._noted(name, wanted, asked)
            if run is None:
                # Another console was first.
                run = await self.known(name, wanted.fingerprint)
                assert run is not None
                return run
            stopping = asyncio.Event()
            task = asyncio.create_task(self._carried_out(run, wanted, stopping), name=f"letters {name}")
            self._running[name] = _Running(task, stopping, whose)
            task.add_done_callback(lambda _: self._running.pop(name, None))
            return run

    async def known(self, name: str, fingerprint: str | None) -> Run | None:
        """The run that was begun under a name; None where none was.

        Raises KeyReused where it was asked for something else, and DatabaseError.
        """
        known = await asyncio.to_thread(self._redriving.acts.find_run, name)
        if known is not None and known.fingerprint not in (None, fingerprint):
            raise KeyReused("This idempotency key came with other letters, another repair or another rate.")
        return known

    async def _noted(self, name: str, wanted: Wanted, asked: Asked) -> Run | None:
        """The run, noted before its first letter; None where one of this name is there."""
        now_ms = self._clock.now_ms()
        run = Run(
            run=name,
            actor=asked.actor,
            note=asked.note,
            asked_ms=now_ms,
            told_ms=now_ms,
            request_topics=sorted({letter.request_topic or "" for letter in wanted.letters}),
            total=len(wanted.letters),
            refused={},
            stage=RUNNING,
            fingerprint=wanted.fingerprint,
        )
        return run if await asyncio.to_thread(self._redriving.acts.begin_run, run) else None

    async def find(self, name: str) -> Progressed | None:
        """A run, and how far it is; None where none is known. Raises DatabaseError."""
        acts = self._redriving.acts
        run = await asyncio.to_thread(acts.find_run, name)
        if run is None:
            return None
        done = await asyncio.to_thread(acts.of_run, name)
        counts = Counter(act.standing for act in done)
        return Progressed(self._now(run), dict(counts), done)

    async def latest(self) -> list[tuple[Run, dict[Standing, int]]]:
        """The latest runs of all consoles, the latest first, and how far each is. Raises DatabaseError."""
        acts = self._redriving.acts
        runs = await asyncio.to_thread(acts.latest_runs, LATEST)
        counts = await asyncio.to_thread(acts.counts, [run.run for run in runs])
        return [(self._now(run), counts.get(run.run, {})) for run in runs]

    def _now(self, run: Run) -> Run:
        late = self._clock.now_ms() - run.told_ms > INTERRUPTED_MS
        if run.stage == RUNNING and late and run.run not in self._running:
            return replace(run, stage=INTERRUPTED)
        return run

    def stop(self, name: str) -> bool:
        """Have nothing more sent of a run; False where this console does not run it."""
        if name not in self._running:
            return False
        self._running[name].stopping.set()
        return True

    async def run(self) -> None:
        """Tidy up after redrives, until cancelled."""
        await self.redriving.run()

    async def close(self) -> None:
        """End every run where it is, and follow nothing any more."""
        tasks = [running.task for running in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.redriving.close()

    # -- one run -----------------------------------------------------------------------------------

    async def _originals(self, letters: Sequence[Letter]) -> AsyncIterator[Original]:
        """In the order in which they were written, some at a time: the topic is not held for long."""
        by_partition: dict[int, list[int]] = {}
        for letter in letters:
            by_partition.setdefault(letter.partition, []).append(letter.offset)
        for partition, offsets in sorted(by_partition.items()):
            offsets.sort()
            for at in range(0, len(offsets), _CHUNK):
                chunk = offsets[at : at + _CHUNK]
                found = [one async for one in self._redriving.originals.several(partition, chunk)]
                for one in found:
                    yield one

    def _sample(self, original: Original, wanted: Wanted) -> Sample:
        try:
            asked = wanted.asked_of(original.letter)
            return Sample(original, self._redriving.record(original, wanted.repair, asked))
        except (RejectedError, RepairError) as refused:
            return Sample(original, None, refused.code, refused.detail)
        except (ValueError, TypeError, WritingError) as error:
            return Sample(original, None, "invalid-parameter", str(error))

    async def _carried_out(self, run: Run, wanted: Wanted, stopping: asyncio.Event) -> None:
        sending = _Sending(self._redriving, run.run, wanted, self._stands)
        loop = asyncio.get_running_loop()
        next_s = told_s = loop.time()
        stage = DONE
        try:
            async for original in self._originals(wanted.letters):
                wait_s = next_s - loop.time()
                if wait_s > 0:
                    await _either(stopping, wait_s)
                next_s = max(next_s, loop.time() - 1.0) + 1.0 / wanted.rate
                if not stopping.is_set():
                    await sending.begin(original, stopping)
                if stopping.is_set():
                    stage = STOPPED
                    break
                if sending.failures >= _MOST_FAILURES:
                    stage = FAILED
                    break
                if loop.time() - told_s >= _TELL_EVERY_S:
                    told_s = loop.time()
                    await self._tell(replace(run, refused=dict(sending.refused)))
        except (LogUnavailable, Misconfigured) as problem:
            logger.warning("run %s of dead letters: %s", run.run, problem)
            stage = FAILED
        if stage is not DONE:
            # What is on its way is followed; who asks need not wait for that.
            await self._tell(replace(run, refused=dict(sending.refused), stage=stage))
        await sending.end()
        await self._tell(replace(run, refused=dict(sending.refused), stage=stage))

    async def _tell(self, run: Run) -> None:
        try:
            told = replace(run, told_ms=self._clock.now_ms())
            await asyncio.to_thread(self._redriving.acts.tell_run, told)
        except DatabaseError as problem:
            logger.warning("run %s of dead letters: %s", run.run, problem)


class _Sending:
    """The letters of a run that are on their way."""

    def __init__(
        self,
        redriving: Redriving,
        run: str,
        wanted: Wanted,
        stands: Callable[[Caller], Awaitable[bool]],
    ) -> None:
        self._redriving = redriving
        self._stands = stands
        self._run = run
        self._wanted = wanted
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self.refused: Counter[str] = Counter()
        self.failures = 0
        """In a row."""

    async def begin(self, original: Original, stopping: asyncio.Event) -> None:
        """Send one, as soon as there is room, unless it is stopped before; a right that is gone stops it."""
        while self._room.locked() and not stopping.is_set():
            await _either(stopping, _LOOK_S)
        if stopping.is_set():
            return
        try:
            stands = await self._stands(self._wanted.caller)
        except DatabaseError as problem:
            # Nobody can tell: nothing is sent for somebody who may have no right to it.
            logger.warning("run %s of dead letters: %s", self._run, problem)
            stands = False
        if not stands:
            logger.warning("run %s of dead letters is stopped: its caller has no access any more", self._run)
            stopping.set()
            return
        await self._room.acquire()
        task = asyncio.create_task(self._sent(original))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """Wait for the outcomes."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _sent(self, original: Original) -> None:
        wanted = self._wanted
        try:
            asked = wanted.asked_of(original.letter)
            await self._redriving.redrive(original, wanted.repair, asked, again=wanted.again, run=self._run)
            self.failures = 0
        except (RejectedError, RepairError, Conflict) as refused:
            self.refused[refused.code] += 1
        except (ClientError, WritingError, DatabaseError) as failure:
            self.failures += 1
            logger.warning("dead letter %s was not sent again: %s", original.letter.name, failure)
            self.refused["not-sent"] += 1
        except (ValueError, TypeError):
            self.refused["invalid-parameter"] += 1
        finally:
            self._room.release()


async def _either(event: asyncio.Event, wait_s: float) -> None:
    """Wait for an event, for so long at most."""
    try:
        await asyncio.wait_for(event.wait(), wait_s)
    except TimeoutError:
        return
