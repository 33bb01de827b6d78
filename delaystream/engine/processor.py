"""The partition processor: fence, recover, run, stop.

Each assigned partition is one actor with its own store, its own transactional producer and its own recovery.
Nothing is read before the fence; nothing is written to the local store before the commit; after any failure
the producer and every effect in memory are thrown away, and the actor begins again at the fence.
"""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

from delaystream.codec.envelope import decode_rate
from delaystream.engine.failures import (
    EngineError,
    LogUnavailable,
    Misconfigured,
    ProducerFenced,
    StoreFailed,
    StoreUntrusted,
    TooManyInternalErrors,
    TransactionStuck,
    WriteRefused,
    about_the_record,
)
from delaystream.engine.incarnation import Incarnation
from delaystream.engine.lifecycle.inbox import Arrival, Inbox
from delaystream.engine.lifecycle.recovery import Progress, Recovery, starting_positions
from delaystream.engine.observer import Observer, Phase
from delaystream.engine.policy.context import ProcessorContext
from delaystream.engine.policy.destination_health import DestinationHealth
from delaystream.engine.policy.rates import Rates
from delaystream.engine.policy.tenants import Tenants
from delaystream.engine.ports import (
    Ports,
    SourceBatch,
    Sources,
    StateStore,
)
from delaystream.engine.settings import EngineSettings
from delaystream.engine.state.partition_state import PartitionState
from delaystream.engine.suspects import Suspects
from delaystream.engine.waking import Waking
from delaystream.query.rows import everything

logger = logging.getLogger(__name__)

#: Of two moments that differ in a float's last digit, a wait for the later one may end before it, for ever.
_LEAST_WAIT_MS: Final = 0.1


class PartitionProcessor:
    """One partition's actor; every method is called on one event loop."""

    def __init__(
        self,
        partition: int,
        settings: EngineSettings,
        ports: Ports,
        sources: Sources,
        tenants: Tenants,
        observer: Observer,
    ) -> None:
        self.partition = partition
        self.phase = Phase.STOPPED
        self._settings = settings
        self._ports = ports
        self._sources = sources
        self._observer = observer
        self._rates = Rates(tenants, settings.partitions)
        self._health = DestinationHealth(
            settings.destination_backoff_min_ms, settings.destination_backoff_max_ms
        )
        self._lasting = ProcessorContext(
            partition,
            settings,
            ports.destinations,
            tenants,
            self._health,
            self._rates,
            Suspects(ports.internal_errors),
            observer,
        )
        self._inbox = Inbox(settings)
        self._paused = False
        self._gap = False
        self._check_requested = False
        self._wake = Waking()
        self._stopping = False
        self._finished = asyncio.Event()
        #: kept open from one life to the next: it is never ahead of the changelog, whatever failed
        self._store: StateStore | None = None
        #: it turned out, while in use, not to be what it should
        self._distrusted = False
        #: the life that serves; None: between two of them
        self._serving: Incarnation | None = None
        #: fence and recovery, which a request to stop interrupts
        self._preparing: asyncio.Task[Incarnation] | None = None
        #: the last failure was counted rather than logged
        self._untold = False
        self._progress = Progress(0.0)
        self._alive_at = 0.0
        #: the last success, and for how long since then recoveries have got on, the event loop's ms
        self._healthy_at = self._recovering_ms = 0.0
        self._recovered_at = 0.0

    # -- seen from outside --------------------------------------------------------------------

    @property
    def stalled_ms(self) -> int:
        """How long the actor has shown no sign of life; failing attempts are signs of life."""
        return int(self._loop_ms() - self._alive_at) if self._alive_at else 0

    def deliver(self, batch: SourceBatch) -> bool:
        """Take a fetched batch into the inbox; False when nothing more should be fetched for now."""
        arrival = self._inbox.put(batch)
        if arrival is Arrival.GAP:
            self._gap = True
        if arrival is not Arrival.OLD:
            self._wake.ring()
        # Once it was said that there is no room, only resume() is heard: a batch that was on its way by then
        # must not make us forget to call it.
        self._paused = self._paused or self._inbox.full
        return not self._paused

    def request_ownership_check(self) -> None:
        """Ownership was in doubt (a rebalance): make sure of it, even if there is nothing to do.

        A worker that stood still while another one owned the partition may get it back without having heard
        of that, and would not notice what the other one has stored before it next commits.
        """
        self._check_requested = True
        self._wake.ring()

    def tell_overdue(self) -> None:
        """Report to the observer what is due and has not gone out.

        Nothing between two lives: what was told last stands, and gets older.
        """
        if self._serving is not None:
            self._serving.tell_overdue()

    async def stop(self) -> None:
        """Finish the present transaction, close the producer and the store; returns when that is done."""
        self._stopping = True
        self._wake.ring()
        if self._preparing is not None:
            self._preparing.cancel()
        if self.phase is not Phase.STOPPED:
            await self._finished.wait()

    # -- life ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until stopped, or until the partition is no longer assigned here.

        Raises what concerns the process, not this partition alone: Misconfigured when a person has to
        decide, TooManyInternalErrors, lack of memory; and the last failure when there was no success for
        ``failure_timeout_ms``, unless it is TransactionStuck.
        """
        self._finished.clear()
        self._healthy()
        failures = 0
        try:
            while not self._stopping:
                self._alive()
                attempted_at = self._loop_ms()
                try:
                    await self._live()
                except Exception as failure:
                    if isinstance(failure, (Misconfigured, TooManyInternalErrors, MemoryError)):
                        raise
                    if self._stopping and isinstance(failure, EngineError):
                        return
                    if not isinstance(failure, EngineError):
                        logger.exception("partition %d: an unexpected failure", self.partition)
                        self._observer.internal_error(self.partition)
                    failures = 1 if self._healthy_at > attempted_at else failures + 1
                    if not await self._survive(failure, failures):
                        return
        finally:
            self._tell_counted(math.inf)
            self._close_store()
            self._enter(Phase.STOPPED)
            self._finished.set()

    async def _survive(self, failure: Exception, failures: int) -> bool:
        """Wait before the next attempt; False when there is to be none."""
        settings = self._settings
        self._observer.aborted(self.partition, type(failure).__name__)
        if isinstance(failure, StoreFailed | StoreUntrusted):
            self._close_store()
        if isinstance(failure, StoreUntrusted):
            self._distrusted = True
        if isinstance(failure, ProducerFenced) and not self._sources.assigned:
            logger.info("partition %d: another worker owns it now", self.partition)
            return False
        self._tell(failure)
        stuck = isinstance(failure, TransactionStuck)
        failing_ms = self._loop_ms() - self._healthy_at - self._recovering_ms
        if not stuck and failing_ms > settings.failure_timeout_ms:
            raise failure
        self._enter(Phase.BACKOFF)
        backoff_ms = min(
            settings.restart_backoff_max_ms, settings.restart_backoff_min_ms * 2 ** min(failures - 1, 30)
        )
        if isinstance(failure, WriteRefused) and settings.sets_aside(failure.topic) and failures < 32:
            backoff_ms = 0  # the destination is set aside, or the next attempt is narrower
        if backoff_ms:
            await self._sleep(backoff_ms)
        return True

    async def _live(self) -> None:
        """One life: from the fence to the first failure, or to the end."""
        if not self._sources.assigned:
            await self._sleep(self._settings.idle_wait_max_ms)
            self._healthy()
            return
        async with AsyncExitStack() as closing:
            self._preparing = asyncio.create_task(self._prepare(closing))
            try:
                incarnation = await self._preparing
            except asyncio.CancelledError:
                if self._stopping:
                    return
                raise
            finally:
                self._preparing = None
            if not self._sources.assigned:
                return
            closing.callback(self._sources.close)
            self._inbox.open(incarnation.starts)
            self._gap = self._paused = False
            self._sources.open(incarnation.starts, self.deliver)
            incarnation.tell_all_pending()
            self._enter(Phase.RUNNING)
            # Each record that is refused begins a life: of those that are only counted, nothing is said.
            if not self._untold:
                logger.info(
                    "partition %d: running, %d pending, recovered %d records in %.1f s",
                    self.partition,
                    incarnation.state.counts.total,
                    self._progress.applied,
                    self._progress.seconds(self._loop_ms()),
                )
            self._untold = False
            self._serving = incarnation
            try:
                await self._serve(incarnation)
            finally:
                self._serving = None

    async def _prepare(self, closing: AsyncExitStack) -> Incarnation:
        """Fence, recover, find out where to read on; what is opened is left to ``closing``."""
        settings, ports = self._settings, self._ports
        if self._distrusted:
            self._say("the local state is thrown away and rebuilt from the changelog")
            ports.stores.destroy(self.partition)
            self._distrusted = False
        self._enter(Phase.FENCING)
        producer = ports.new_producer(self.partition)
        closing.push_async_callback(producer.close)
        await producer.fence()
        self._enter(Phase.RECOVERING)
        self._recovered_at = self._loop_ms()
        self._progress = Progress(self._recovered_at)
        changelog = await ports.open_changelog(self.partition)
        closing.push_async_callback(changelog.close)
        recovery = Recovery(self.partition, settings, ports, changelog, producer, self._recovered)
        store, self._store = self._store, None
        self._store, marker = await recovery.run(store)
        load = partial(self._load, self._store)
        incarnation = Incarnation(self._lasting, ports, self._sources.topics, load, marker, producer)
        starts, topic_ids = await starting_positions(
            settings,
            self.partition,
            self._sources,
            incarnation.state.positions,
            incarnation.check_ownership,
            self._observer,
        )
        await incarnation.begin(starts, topic_ids)
        return incarnation

    def _load(self, store: StateStore) -> PartitionState:
        """The state as it is stored. Raises StoreUntrusted where it cannot be read."""
        settings = self._settings
        try:
            rates = [decode_rate(value) for _, value in everything(store, b"v", b"w")]
            self._rates.load(rates, self._loop_ms())
            lane = self._rates.lane if self._rates.active else None
            return PartitionState(store, settings.partitions, settings.app_id, lane)
        except Exception as failure:
            if not about_the_record(failure):
                raise
            raise StoreUntrusted(f"it cannot be read: {type(failure).__name__}: {failure}") from failure

    def _close_store(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()

    async def _serve(self, incarnation: Incarnation) -> None:
        """The loop: wait for work, decide, commit, apply."""
        settings = self._settings
        interval_ms = settings.transaction_interval_ms
        began = proven_at = self._loop_ms()
        while not self._stopping:
            self._alive()
            self._tell_counted(self._loop_ms())
            work = await self._work(incarnation)
            loop_ms = self._loop_ms()
            idle_too_long = loop_ms - proven_at > settings.ownership_check_ms
            if self._check_requested or idle_too_long or (not work and incarnation.offsets_overdue(loop_ms)):
                self._check_requested = False
                proven_at = loop_ms
                await incarnation.check_ownership()
            if not work:
                if incarnation.status_overdue(loop_ms):
                    await self._ports.pace.turn()
                    if await incarnation.tell_status():
                        self._healthy()
                        proven_at = self._healthy_at
                continue
            if (early := began + interval_ms - self._loop_ms()) > 0:
                await asyncio.sleep(early / 1000)
            await self._ports.pace.turn()
            began = self._loop_ms()
            if self._gap:
                await self._close_gap()
            step = await incarnation.decide(self._inbox)
            if step.empty:
                await asyncio.sleep(0)
                continue
            await incarnation.commit(step)
            self._healthy()
            proven_at = self._healthy_at
            if self._paused and not self._inbox.full:
                self._paused = False
                self._sources.resume()
        if incarnation.offsets_behind:
            await incarnation.check_ownership()

    async def _work(self, incarnation: Incarnation) -> bool:
        """Wait until there is something to do, or for a bounded time; whether there is."""
        loop_ms = self._loop_ms()
        now_ms = self._ports.clock.now_ms()
        due_ms = incarnation.next_due_ms(now_ms, loop_ms)
        wait_ms = float(self._settings.idle_wait_max_ms)
        if due_ms is not None:
            wait_ms = min(wait_ms, due_ms - now_ms)
        opening = incarnation.next_opening()
        if opening is not None:
            wait_ms = min(wait_ms, max(opening - loop_ms, _LEAST_WAIT_MS))
        if self._inbox or self._gap or self._check_requested or wait_ms <= 0:
            return True
        self._wake.clear()
        if not await self._wake.rest(wait_ms / 1000):
            if due_ms is not None and due_ms <= self._ports.clock.now_ms():
                return True
            self._healthy()
            return False
        return not self._stopping

    # -- what goes wrong ----------------------------------------------------------------------

    async def _close_gap(self) -> None:
        """A batch did not follow on from the one before: seek, unless what is missing is gone for good."""
        self._gap = False
        bounds = await self._sources.bounds()
        for topic, position in self._inbox.expected.items():
            if bounds[topic].start > position:
                raise LogUnavailable(f"{topic}: requests up to {bounds[topic].start} are gone")
            if bounds[topic].end < position:
                raise LogUnavailable(f"{topic}: ends at {bounds[topic].end}, was read up to {position}")
            self._sources.seek(topic, position)

    # -- telling ------------------------------------------------------------------------------

    def _recovered(self, applied: int, position: int, end: int) -> None:
        self._alive()
        if applied:
            # It is no success: what a failing partition reads may be its own last attempt. But a long one is
            # no failure either.
            now_ms = self._loop_ms()
            self._recovering_ms += now_ms - self._recovered_at
            self._recovered_at = now_ms
        if self._stopping:
            raise EngineError("asked to stop")
        self._observer.recovery(self.partition, applied, position, end)
        if sentence := self._progress.advance(applied, position, end, self._loop_ms()):
            logger.info("partition %d: %s", self.partition, sentence)

    def _tell(self, failure: Exception) -> None:
        """Log a failure; what one topic refuses is summed up, as each record there can be refused at once."""
        name, sentence, loop_ms = type(failure).__name__, str(failure), self._loop_ms()
        self._untold = False
        if isinstance(failure, WriteRefused):
            kind = (failure.topic, failure.record_at_fault)
            self._untold = not self._health.telling.in_full(kind, sentence, loop_ms)
        if not self._untold:
            logger.warning("partition %d: %s: %s", self.partition, name, sentence)
        self._tell_counted(loop_ms)

    def _tell_counted(self, loop_ms: float) -> None:
        for untold in self._health.telling.due(loop_ms):
            logger.warning(
                "partition %d: %d more like it were not logged; the last one: %s",
                self.partition,
                untold.count,
                untold.last,
            )

    def _say(self, sentence: str) -> None:
        logger.warning("partition %d: %s", self.partition, sentence)

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._observer.phase(self.partition, phase)

    # -- time ---------------------------------------------------------------------------------

    def _healthy(self) -> None:
        self._healthy_at = self._loop_ms()
        self._recovering_ms = 0.0

    def _alive(self) -> None:
        self._alive_at = self._loop_ms()

    @staticmethod
    def _loop_ms() -> float:
        return asyncio.get_running_loop().time() * 1000

    async def _sleep(self, duration_ms: float) -> None:
        """Sleep, but not past a request to stop."""
        self._wake.clear()
        if not self._stopping:
            await self._wake.rest(duration_ms / 1000)
