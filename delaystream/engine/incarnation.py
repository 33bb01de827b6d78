"""One life of a processor: what it has recovered, and the steps that it takes on top of that.

A life ends with the first failure; everything in this module is thrown away then.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from msgspec.structs import asdict

from delaystream.codec.keys import split_schedule_key, split_wheel_key
from delaystream.core.instants import format_instant
from delaystream.core.rejection import shown
from delaystream.engine.accept.bulk import Bulks
from delaystream.engine.accept.doubts import FRESH_MS, Doubts
from delaystream.engine.accept.intake import Intake
from delaystream.engine.accept.reading import ParsedBatch, Reader
from delaystream.engine.failures import (
    Culprit,
    LogUnavailable,
    TransactionFailed,
    Undecided,
    WriteRefused,
)
from delaystream.engine.fire.firing import Firing
from delaystream.engine.fire.named import NamedFires
from delaystream.engine.fire.undeliverable import Undeliverable
from delaystream.engine.lifecycle.inbox import Inbox, pieces, rest
from delaystream.engine.lifecycle.replica import advanced
from delaystream.engine.observer import Fires, Work
from delaystream.engine.output.events import Events
from delaystream.engine.output.letters import Letters
from delaystream.engine.output.standing import Standing
from delaystream.engine.pace import Turn
from delaystream.engine.policy.context import Context, ProcessorContext
from delaystream.engine.policy.holds import Holds
from delaystream.engine.ports import (
    Marker,
    Ports,
    SourceBatch,
    TopicPartition,
    Transaction,
    TransactionalProducer,
)
from delaystream.engine.schedules.schedules import Schedules
from delaystream.engine.state.partition_state import PartitionState
from delaystream.engine.state.pending import PendingChange
from delaystream.engine.state.step import Bounds, Step

logger = logging.getLogger(__name__)

#: how long a partition decides on what came in, and then on what is due, before others have their turn
_TURN_S = 0.15
#: most records that are read before they are decided on
_READ_AT_ONCE = 256
#: each waits for a second at most
_LOOK_UPS = 5
#: how long such a topic is not asked about again for the sake of one more batch of the same step
_ASKED_MS = 1_000
_ASKED_TOPICS = 10_000


class Incarnation:
    """A fenced producer, a recovered state, and the parts that decide on it."""

    def __init__(
        self,
        lasting: ProcessorContext,
        ports: Ports,
        topics: Sequence[str],
        load: Callable[[], PartitionState],
        marker: Marker,
        producer: TransactionalProducer,
    ) -> None:
        self._lasting = lasting
        self._partition = partition = lasting.partition
        self._settings = settings = lasting.settings
        self._ports = ports
        self._observer = lasting.observer
        self._health = lasting.health
        self._topics = frozenset(topics)
        self._marker = marker
        self._producer = producer
        self._changelog = TopicPartition(settings.changelog_topic, partition)
        self._steps = 0
        #: topics that could not be written to when they were last asked about, and when, the event loop's ms
        self._asked: dict[str, float] = {}
        #: when the group's offsets were last committed, and whether requests were applied since
        self._offsets_at_ms = float("-inf")
        self.offsets_behind = False
        self._load = load
        self._suspects = lasting.suspects
        self._reader = Reader(partition, settings, lasting.tenants, lasting.suspects)
        self._rates = lasting.rates
        #: id of each source topic
        self.topic_ids: dict[str, str] = {}
        #: where each source topic is read from
        self.starts: dict[str, int] = {}
        self._compose()

    def _compose(self) -> None:
        """Load the state as it is stored, and make what decides on it."""
        state = self.state = self._load()
        context = Context(
            **asdict(self._lasting),
            state=state,
            holds=Holds(self._settings, state),
        )
        events = Events(context)
        letters = Letters(context, events)
        self._standing = Standing(context, events)
        schedules = Schedules(context, letters, events)
        self._doubts = Doubts(state, context.destinations)
        self._bulks = Bulks(context, schedules, letters)
        self._intake = Intake(context, schedules, self._bulks, letters, events)
        undeliverable = Undeliverable(context, letters, events)
        named = NamedFires(context, schedules, self._bulks, undeliverable, events)
        self._firing = Firing(context, named, undeliverable, events, self._doubts)

    async def begin(self, starts: dict[str, int], topic_ids: dict[str, str]) -> None:
        """Read on from ``starts``; positions that the state does not have yet are stored first.

        Without it, nobody could tell later that retention took what was never read.
        """
        self.starts, self.topic_ids = starts, topic_ids
        now_ms, loop_ms = self._ports.clock.now_ms(), asyncio.get_running_loop().time() * 1000
        step = Step(now_ms, self._steps, loop_ms)
        known = self.state.positions
        step.positions = {
            topic: start
            for topic, start in starts.items()
            if topic not in known or known[topic].next_offset != start
        }
        self.state.seal(step, topic_ids, self._settings.partitions)
        if not step.empty:
            await self.commit(step)

    def next_due_ms(self, now_ms: int, loop_ms: float) -> int | None:
        """When the next entry is due, of the destinations that may be tried now."""
        return self._firing.next_due_ms(now_ms, loop_ms)

    def next_opening(self) -> float | None:
        """When the next destination that has something due may be tried again, the event loop's ms."""
        return self._firing.next_opening()

    async def check_ownership(self) -> None:
        """Commit the source positions as they are. Raises ProducerFenced if there is another owner by now."""
        await self._producer.commit(Transaction({}, self._offsets()))
        self._offsets_at_ms = asyncio.get_running_loop().time() * 1000
        self.offsets_behind = False

    def offsets_overdue(self, loop_ms: float) -> bool:
        """Whether the group's offsets are behind, and have been for as long as they may."""
        return self.offsets_behind and loop_ms - self._offsets_at_ms >= self._settings.offsets_interval_ms

    def _offsets(self) -> dict[TopicPartition, int]:
        return {
            TopicPartition(topic, self._partition): position.next_offset
            for topic, position in self.state.positions.items()
            if topic in self._topics
        }

    def status_overdue(self, loop_ms: float) -> bool:
        """Whether how the partition stands has waited long enough for a step that tells it."""
        self._unpark_unused(loop_ms)
        return self._standing.overdue(loop_ms)

    async def tell_status(self) -> bool:
        """Commit a step that tells how the partition stands, and nothing else; whether there was one."""
        settings, destinations = self._settings, self._ports.destinations
        if settings.events and not destinations.partitions(settings.events_topic):
            await destinations.ensure([settings.events_topic])
        self._steps += 1
        loop_ms = asyncio.get_running_loop().time() * 1000
        step = Step(self._ports.clock.now_ms(), self._steps, loop_ms)
        self._standing.put(step)
        if step.empty:
            return False
        self.state.seal(step, self.topic_ids, settings.partitions)
        await self.commit(step)
        return True

    # -- deciding -----------------------------------------------------------------------------

    async def decide(self, inbox: Inbox) -> Step:
        """Put together one step of what came in and of what is due.

        A few records at a time are read and decided on, so that what was made of them is still in the
        processor's cache. Unknown topics are looked up for the first ones alone: others begin a new step.
        """
        settings = self._settings
        now_ms = self._ports.clock.now_ms()
        loop_ms = asyncio.get_running_loop().time() * 1000
        width = self._health.width
        bounds = Bounds(
            width.of(settings.transaction_max_records),
            width.of(settings.transaction_max_bytes),
            settings.transaction_max_partitions,
        )
        taken = inbox.take(bounds.records, bounds.bytes)
        try:
            step, left = await self._decide(taken, now_ms, loop_ms, bounds)
        except Undecided as undecided:
            inbox.give_back(taken)
            await self._roll_back(undecided)
            return Step(now_ms, self._steps, loop_ms)
        inbox.give_back(left)
        if step.empty:
            self._firing.fireable.committed()
        self._forget_names(step)
        self._unpark_unused(loop_ms)
        if not (step.empty or step.alone):
            self._standing.put(step)
        self.state.seal(step, self.topic_ids, settings.partitions)
        return step

    def _forget_names(self, step: Step) -> None:
        """Forget what is known of destinations that nothing refers to any more."""
        if step.empty:
            return
        for topic, lane in self.state.forget_names(step):
            self._rates.forget(topic, lane)
            if not self.state.wheels([topic]) and self._health.forget(topic):
                self._observer.parked(self._partition, topic, None)

    def _unpark_unused(self, loop_ms: float) -> None:
        """Set nothing aside any more that nothing waits for."""
        for topic in self._health.unused(loop_ms):
            self._observer.parked(self._partition, topic, None)

    async def _roll_back(self, undecided: Undecided) -> None:
        """Forget all that the step has changed, and note what it failed on.

        Raises ProducerFenced where another worker owns the partition by now: what is here may be a state in
        the midst of a step of its.
        """
        culprit, failure = undecided.culprit, undecided.__cause__
        assert failure is not None
        logger.error(
            "partition %d: failed on %s; nothing of the step was written",
            self._partition,
            self._named(culprit),
            exc_info=failure,
        )
        self._observer.internal_error(self._partition)
        await self.check_ownership()
        self._suspects.failed(culprit, failure, asyncio.get_running_loop().time() * 1000)
        self._compose()

    def _named(self, culprit: Culprit) -> str:
        """A culprit for people."""
        if not isinstance(culprit, bytes):
            return f"the request at {culprit[0]}/{self._partition}/{culprit[1]}"
        if culprit[:1] != b"w":
            tenant, id = split_schedule_key(culprit)
            return f"schedule {shown(id)} of {tenant}"
        wheel, due_ms, source, offset, _ = split_wheel_key(culprit)
        destination = self.state.destinations[wheel] or "housekeeping"
        where = self.state.coordinates(source, offset).text
        return f"what {where} has due for {destination} at {format_instant(due_ms)}"

    async def _decide(
        self, taken: Sequence[SourceBatch], now_ms: int, loop_ms: float, bounds: Bounds
    ) -> tuple[Step, list[SourceBatch]]:
        """A step, and the batches that it has no room for. Raises Undecided."""
        settings = self._settings
        batches = deque(piece for batch in taken for piece in pieces(batch, _READ_AT_ONCE))
        turn = Turn(asyncio.get_running_loop().time, _TURN_S)
        parsed = self._parsed(batches, now_ms, turn)
        topics = set() if parsed is None else parsed.topics_named
        topics.update(self._firing.choose(now_ms, loop_ms))
        topics.update(self._bulks.replies)
        topics.add(settings.dead_letters_topic)
        if settings.events:
            topics.add(settings.events_topic)
        renewed = await self._renew(self._doubts.before(parsed))
        if await self._look_up(topics) or renewed:
            # Looking up takes time; a due time that has passed meanwhile is due.
            now_ms = self._ports.clock.now_ms()
            turn.begin()
        self._steps += 1
        step = Step(now_ms, self._steps, loop_ms, bounds, turn.over, self._producer.accumulator)
        cornered, self._suspects.cornered = self._suspects.cornered, None
        if cornered is not None:
            self._firing.fire_alone(step, cornered)
            if step.alone:
                return step, list(taken)
        left: list[SourceBatch] = []
        while parsed is not None:
            batch = parsed.batch
            number = self._take(step, parsed)
            if number < len(batch.records):
                # The rest waits for the next step.
                left = [rest(batch, number), *batches]
                break
            if step.alone:
                left = list(batches)
                break
            parsed = self._parsed(batches, now_ms, turn)
            if parsed is not None and (
                not self._known(parsed.topics_named, loop_ms) or self._doubts.of(parsed, step)
            ):
                left = [parsed.batch, *batches]
                break
        if not step.alone:
            # Due entries have a turn of their own, however long it took to read the requests.
            turn.begin()
            self._firing.fire(step)
        return step, left

    def _parsed(self, batches: deque[SourceBatch], now_ms: int, turn: Turn) -> ParsedBatch | None:
        """The next of the batches, read; None after the last."""
        return self._reader.read(batches.popleft(), now_ms, turn.over) if batches else None

    def _take(self, step: Step, parsed: ParsedBatch) -> int:
        position = self.state.positions.get(parsed.batch.topic)
        return self._intake.take(step, parsed, position.next_offset if position is not None else 0)

    def _known(self, topics: Iterable[str], loop_ms: float) -> bool:
        """Whether all of the topics can be written to, or were asked about a moment ago."""
        partitions, asked = self._ports.destinations.partitions, self._asked
        return all(
            partitions(topic) or loop_ms - asked.get(topic, float("-inf")) < _ASKED_MS for topic in topics
        )

    async def _look_up(self, topics: Iterable[str]) -> bool:
        """Make the topics known, unless they are; whether that took a look-up.

        Raises LogUnavailable where Kafka says nothing about one: a receipt for it would be lost otherwise.
        """
        destinations = self._ports.destinations
        unknown = [topic for topic in topics if not destinations.partitions(topic)]
        if not unknown:
            return False
        loop_ms = asyncio.get_running_loop().time() * 1000
        if len(self._asked) + len(unknown) > _ASKED_TOPICS:
            self._asked.clear()
        self._asked.update(dict.fromkeys(unknown, loop_ms))
        for _ in range(_LOOK_UPS):
            await destinations.ensure(unknown)
            unknown = [
                topic
                for topic in unknown
                if not destinations.partitions(topic) and destinations.problem(topic) is None
            ]
            if not unknown:
                return True
        raise LogUnavailable(f"Kafka does not answer about the topics {', '.join(sorted(unknown))}")

    async def _renew(self, doubted: set[str]) -> bool:
        """Look up anew topics that lack the partition of a request; whether there were any.

        Raises LogUnavailable where Kafka says nothing about it.
        """
        destinations, left = self._ports.destinations, doubted
        for _ in range(_LOOK_UPS):
            if not left:
                self._doubts.looked_up(doubted)
                return bool(doubted)
            await destinations.ensure(left, FRESH_MS)
            left = {topic for topic in left if destinations.age_ms(topic) > FRESH_MS}
        raise LogUnavailable(f"Kafka does not answer about the topics {', '.join(sorted(left))}")

    # -- doing --------------------------------------------------------------------------------

    async def commit(self, step: Step) -> None:
        """Commit a step to Kafka, and only then to the local store."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self.offsets_behind = self.offsets_behind or bool(step.positions)
        due = self.offsets_overdue(began * 1000)
        try:
            last_offsets = await self._producer.commit(
                step.transaction(self._changelog, self._offsets() if due else {})
            )
        except WriteRefused as refusal:
            self._note(step, refusal, loop.time() * 1000)
            raise
        except TransactionFailed:
            self._health.width.failed(step.size_bytes / self._settings.transaction_max_bytes)
            raise
        if due:
            self._offsets_at_ms = began * 1000
            self.offsets_behind = False
        self._health.width.succeeded()
        if rows := step.changes or step.names:
            last = last_offsets[self._changelog]
            key, value = next(reversed(rows.items()))
            self._marker = advanced(self._marker, last + 1, (last, key, value))
        change = self.state.apply(step, self._marker)
        self._firing.fireable.committed()
        self._tell(step, change, loop.time() - began)

    def _note(self, step: Step, refusal: WriteRefused, loop_ms: float) -> None:
        """Remember which destination refused, so that the next attempt goes around it.

        It is in trouble from now on: the step may have been under way for long.
        """
        now_ms = self._ports.clock.now_ms()
        for topic in (refusal.topic, *sorted(refusal.also)):
            if not self._settings.sets_aside(topic):
                continue
            if refusal.record_at_fault:
                self._note_record(step, refusal, now_ms, loop_ms)
            else:
                self._health.park(topic, refusal.reason, now_ms, loop_ms)
            self._ports.destinations.invalidate(topic)
            if topic in self._health:
                self._observer.parked(self._partition, topic, refusal.reason)

    def _note_record(self, step: Step, refusal: WriteRefused, now_ms: int, loop_ms: float) -> None:
        """One record cannot be written: the next attempt does without it, or comes closer to which it is."""
        health, topic = self._health, refusal.topic
        where = (topic, refusal.partition, refusal.row)
        if topic == self._settings.dead_letters_topic:
            health.letter_refused(step.largest_row(*where), loop_ms)
        if step.replied(*where):
            health.stop_receipts(topic, loop_ms)
        elif suspects := step.origins(*where):
            health.bisect(topic, suspects, refusal.reason, now_ms)
        else:
            health.through_wheel(topic, refusal.reason, now_ms)

    def _tell(self, step: Step, change: PendingChange, seconds: float) -> None:
        now_ms = self._ports.clock.now_ms()
        for topic, topic_writes in step.by_topic.items():
            if topic_writes.rows and topic in self._health and self._health.succeeded(topic, now_ms):
                self._firing.unpark(topic)
                self._observer.parked(self._partition, topic, None)
        if step.unanswered and (count := self._health.unanswered(step.unanswered, step.loop_ms)):
            logger.warning(
                "partition %d: %d requests got no receipt although they asked for one; the last one's: %s",
                self._partition,
                count,
                step.unanswered_why,
            )
        letters = step.by_topic.get(self._settings.dead_letters_topic)
        if letters is not None and letters.rows:
            self._health.letter_taken(asyncio.get_running_loop().time() * 1000)
        for key in step.quarantined:
            self._health.poisoned.pop(key, None)
        self._suspects.clear(step.cleared)
        for sentence in step.warnings:
            if self._health.telling.in_full("paused", sentence, step.loop_ms):
                logger.warning("partition %d: %s", self._partition, sentence)
        fired = {
            topic: Fires(topic_writes.fired, topic_writes.excused)
            for topic, topic_writes in step.by_topic.items()
            if topic_writes.fired
        }
        self._observer.committed(self._partition, Work(step.accepted, step.rejected, fired, seconds))
        if step.positions:
            self._observer.read(self._partition, step.positions)
        if step.missed:
            self._observer.missed(self._partition, step.missed)
        self._observer.counted(self._partition, change, anew=False)
        self._tell_pending()

    def tell_all_pending(self) -> None:
        """Report what waits, at the start: a partition that stays idle would not."""
        self._observer.counted(self._partition, self.state.counts.everything(), anew=True)
        positions = {topic: position.next_offset for topic, position in self.state.positions.items()}
        self._observer.read(self._partition, positions)
        self._tell_pending()
        self.tell_overdue()

    def tell_overdue(self) -> None:
        """Report due fires that have not gone out, and why; those that the present step would fire count."""
        now_ms, loop_ms = self._ports.clock.now_ms(), asyncio.get_running_loop().time() * 1000
        self._observer.overdue(self._partition, self._firing.fireable.overdue(now_ms, loop_ms))

    def _tell_pending(self) -> None:
        self._observer.pending(self._partition, self.state.counts.total, self.state.heads.oldest())
