"""One seed's world: a broker, workers, producers, and what befalls them; then a calm, and the reckoning."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import Callable, Iterator
from contextvars import Context
from dataclasses import dataclass, field
from random import Random
from typing import Any

from msgspec.structs import replace

from delaystream.codec import keys
from delaystream.core.rates import RateTable
from delaystream.engine.observer import Phase
from delaystream.engine.ports import TopicPartition
from delaystream.engine.processor import PartitionProcessor
from delaystream.engine.schedules.quotas import share
from delaystream.testing import (
    DeadlockError,
    Disk,
    LoopClock,
    MemoryChangelog,
    MemorySources,
    Process,
    RunawayError,
    VirtualTimeLoop,
)
from delaystream.testing.partition import OpenTransaction
from tests.ledger import Asked, Circumstances, Report, audit
from tests.simulation.events import Events
from tests.simulation.group import Group
from tests.simulation.member import Member
from tests.simulation.producers import Producers
from tests.simulation.reckoning import (
    Span,
    WitnessedLog,
    accepted,
    at_work,
    delivered,
    differences,
    forestalled,
    leftovers,
    miscounts,
    misstated,
    overdrawn,
    paused,
    pending,
    tenant_counter,
    triggers,
    whole_state,
)
from tests.simulation.storm import LIMITED, Storm
from tests.simulation.weather import LateProducer

_CALM_SECONDS = 400
#: after a step of its clock a worker does what has come due by that
_NOTICED_WITHIN_SECONDS = 2
#: longer than it may take to end a pause in a world that nothing befalls
_ENDED_WITHIN_SECONDS = 3
#: in which a partition finds out that a destination can be written again, and tells so
_TOLD_WITHIN_SECONDS = 10
#: looks at a world that is not settled, half a second apart
_WOKEN_AFTER = 40
#: kinds of keys of commands for many that are under way
#: due times of a request, and triggers of its schedule, in one step
_MOST_FIRES = 5
_EVER: Span = (0.0, float("inf"))
_BULKS = (keys.bulk_key("", 0, 0)[:1], keys.gathering_key("", 0, 0)[:1])


@dataclass
class Engine:
    """The pieces under test; broken ones are put in their place to show that it is noticed."""

    processor: Any = PartitionProcessor
    producer: Any = LateProducer
    changelog: Any = MemoryChangelog
    sources: Any = MemorySources


@dataclass
class Result:
    """How a seed ended."""

    seed: int
    violations: list[str] = field(default_factory=list)
    report: Report = field(default_factory=Report)
    trace: list[str] = field(default_factory=list)
    steps: int = 0
    virtual_seconds: float = 0.0
    misfortunes: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing was lost, early, twice, damaged or out of order, and nothing broke."""
        return not self.violations and self.report.ok

    def __str__(self) -> str:
        return "\n".join([f"seed {self.seed}: {self.report}", *(f"  {v}" for v in self.violations)])


class World:
    """Everything of one seed."""

    def __init__(self, seed: int, *, engine: Engine | None = None, trace: bool = False) -> None:
        self.seed = seed
        self.engine = engine or Engine()
        self.random = random = Random(f"{seed}")
        self.result = Result(seed)
        self._tracing = trace
        self.calm = False
        #: from when on nothing has befallen it; None: it was not looked at
        self.calm_ms: int | None = None
        self._over = False
        self.graveyard: list[Process] = []
        self.storm = Storm.draw(random)
        # In some worlds everything about requests without an id is told as well.
        self.settings = replace(
            self.storm.settings(random), events_anonymous=Random(f"events {seed}").random() < 0.15
        )
        bounds = Random(f"bounds {seed}")
        self.settings = replace(
            self.settings,
            max_commands_at_work=bounds.choice((1_000, 1_000, 2, 3)),
            max_remembered_cancels=bounds.choice((1_000_000, 1_000_000, 1, 4)),
        )
        #: of all tenants together, and of `orders` alone
        self.rates, self.tenants_rates = _rates(Random(f"rates {seed}"))
        #: what `orders` may have pending; 0: anything
        self.max_pending = Random(f"quota {seed}").choice((0, 0, 3, 9))
        self.loop = VirtualTimeLoop(max_steps=400_000)
        self.loop.set_exception_handler(self._unhandled)
        self.clock = LoopClock(self.loop)
        self.log = WitnessedLog(
            self.clock.now_ms,
            changelog=self.settings.changelog_topic,
            delete_retention_ms=self.storm.delete_retention_ms,
            defer_marker=self._defer_marker,
        )
        self.log.committing = self._committing
        #: by the source of a request that the quota refused: how much was pending at most, and might be
        self.refusals: dict[str, tuple[int, int]] = {}
        #: by how much, at most, a worker's clock was ahead of the broker's, and behind it
        self.ahead_ms = self.behind_ms = 0
        self.request_topics = [LIMITED, "mails"][: random.choice((1, 2))]
        self.destinations = {"dest-a": 3, "dest-b": 1, "dest-late": 1, "dest-small": 2}
        self.own_topics = [
            *self.request_topics,
            self.settings.commands_topic,
            self.settings.changelog_topic,
            self.settings.dead_letters_topic,
        ]
        self._create_topics()
        self.members = [Member(self, number) for number in range(random.choice((1, 2, 2, 3)))]
        self.group = Group(self)
        self.events = Events(self)
        self.producers = Producers(self)

    @property
    def asked(self) -> list[Asked]:
        """All requests that were committed to a request topic."""
        return self.producers.asked

    # -- the broker

    def _create_topics(self) -> None:
        partitions = self.settings.partitions
        for name in (*self.request_topics, self.settings.commands_topic):
            self.log.create_topic(name, partitions)
        # As `topics check` asks for, or as somebody has made it.
        append_time = Random(f"append time {self.seed}").random() < 0.9
        self.log.create_topic(
            self.settings.changelog_topic, partitions, compacted=True, append_time=append_time
        )
        letter_bytes = self.random.choice((1_500, None))
        self.log.create_topic(self.settings.dead_letters_topic, 2, max_message_bytes=letter_bytes)
        self.log.create_topic("receipts", 1)
        self.log.create_topic(self.settings.events_topic, 2)
        for name, count in self.destinations.items():
            self.log.create_topic(name, count)
        self.log.topics["dest-small"].max_message_bytes = 600

    def later(self, delay_s: float, call: Callable[[], object]) -> None:
        """Do something in the broker's time, whatever becomes of the process that asked for it."""
        self.loop.call_later(delay_s, call, context=Context())

    def _defer_marker(self, mark: Callable[[], None]) -> None:
        self.later(self.random.choice((0.0, 0.001, 0.02)), mark)

    # -- telling

    def say(self, who: str, what: str) -> None:
        """Note something in the trace."""
        self.result.misfortunes += 1
        if self._tracing:
            self.result.trace.append(f"{self.loop.time() * 1000:>9.1f} {who:<9} {what}")

    def violated(self, what: str, error: BaseException | None = None) -> None:
        """Note what must not be."""
        if self._over:
            return
        if self._tracing and error is not None:
            what += "\n" + "".join(traceback.format_exception(error))
        self.say("WORLD", f"VIOLATED: {what}")
        self.result.violations.append(what)

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if context.get("message", "").startswith("Task was destroyed"):
            return
        error = context.get("exception")
        self.violated(f"unhandled: {context.get('message')}: {error!r}", error)

    def applied(self, topic: str, partition: int) -> int:
        """Up to where a source partition has been applied, as its group's offsets have it."""
        return self.log.group_offsets.get((self.settings.app_id, TopicPartition(topic, partition)), 0)

    async def _housekeeping(self) -> None:
        while True:
            await asyncio.sleep(1)
            self.log.expire()
            self._recount()

    def _recount(self) -> None:
        """Hold the counters of every store that is in use against what they count."""
        for member in self.members:
            for partition, processor in member.processors.items():
                disk = member.stores.disks.get(partition)
                if member.running and disk is not None and processor.phase is Phase.RUNNING:
                    for miscount in miscounts(disk):
                        self.violated(f"{member.name}, partition {partition}: {miscount}")
                    self._hold_to_quota(partition, disk)
                    self._hold_to_bound(partition, disk)

    def _hold_to_bound(self, partition: int, disk: Disk) -> None:
        most = self._most_cancels(partition)
        for key, value in disk.values.items():
            if key[:1] == b"f" and int.from_bytes(value, "big") > most:
                self.violated(f"partition {partition}: {key!r} remembers more than {most} cancels")

    def _most_cancels(self, partition: int) -> int:
        return max(1, share(self.settings.max_remembered_cancels, partition, self.settings.partitions))

    def _hold_to_quota(self, partition: int, disk: Disk) -> None:
        pending = int.from_bytes(disk.values.get(tenant_counter(LIMITED), b""), "big")
        # A triggered fire that was to go out at once may find the step full, and waits for the next one.
        pending -= triggers(disk, LIMITED)
        if self.max_pending and pending > share(self.max_pending, partition, self.settings.partitions):
            self.violated(f"partition {partition}: {LIMITED} has {pending} of {self.max_pending} pending")

    def _committing(self, transaction: OpenTransaction) -> None:
        """Remember how much was pending when the quota refused something; judge what bounds have refused."""
        for _, letter in self.log.written(transaction, self.settings.dead_letters_topic):
            headers = {name: value or b"" for name, value in letter.headers}
            code = headers["delaystream-error"].decode()
            if code not in ("quota-exceeded", "too-many-cancels", "too-many-commands"):
                continue
            partition = int(self.log.writers[transaction][0].transactional_id.rsplit("-", 1)[1])
            at = TopicPartition(self.settings.changelog_topic, partition)
            if code != "quota-exceeded":
                self._judge_refusal(transaction, at, code, headers["delaystream-error-topic"].decode())
                continue
            # The step itself may have added some before it refused this one, and fired them after it.
            rows = self.log.written(transaction, at.topic)
            most = pending(whole_state(self.log, at), LIMITED) + sum(
                _entries(record.key or b"") for _, record in rows
            )
            where = [headers[f"delaystream-error-{part}"] for part in ("topic", "partition", "offset")]
            mine = share(self.max_pending, partition, self.settings.partitions)
            self.refusals[b"/".join(where).decode()] = (most, mine)

    def _judge_refusal(
        self, transaction: OpenTransaction, at: TopicPartition, code: str, tenant: str
    ) -> None:
        """What is refused by a bound has reached it, before its step or in it."""
        before = whole_state(self.log, at)
        written = [(record.key or b"", record.value) for _, record in self.log.written(transaction, at.topic)]
        rows = [*before.items(), *written]
        if code == "too-many-cancels":
            found, most = forestalled(rows, tenant), self._most_cancels(at.partition)
            # An id that nobody knew may have been cancelled and then scheduled in the very step.
            mine = keys.schedule_key(tenant, "")
            found += sum(key.startswith(mine) and key not in before for key, _ in written)
        else:
            found, most = at_work(rows, tenant), self.settings.max_commands_at_work
        if found < most:
            self.violated(f"partition {at.partition}: {code}, and there are {found} of {most}")

    # -- the story

    def run(self) -> Result:
        """The storm, the calm, the reckoning."""
        logging.disable(logging.CRITICAL)
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self._story())
        except (DeadlockError, RunawayError, TimeoutError) as error:
            self.violated(f"{type(error).__name__}: {error}")
        finally:
            self._bury()
            asyncio.set_event_loop(None)
            self.loop.close()
            logging.disable(logging.NOTSET)
        self.result.steps = self.loop.steps
        self.result.virtual_seconds = self.loop.time()
        return self.result

    async def _story(self) -> None:
        housekeeping = asyncio.ensure_future(self._housekeeping())
        for member in self.members:
            member.start()
        self.group.rebalance()
        await asyncio.gather(self.producers.run(self.storm.seconds), self.events.run())
        self.say("WORLD", "calm")
        self.calm = True
        self.producers.lift()
        if any(request.until_ms is not None for request in self.asked):
            await self._outlast()
        if any(request.action == "pause" for request in self.asked):
            self._wake()
        await self._settle()
        if self._paused():
            self._wake()
            await self._settle()
        await self._told()
        housekeeping.cancel()
        self._reckon()

    async def _outlast(self) -> None:
        """Let pauses that end by themselves do so, before all others are ended."""
        await self._settle()
        self.calm_ms = self.clock.now_ms()
        last_ms = max(request.until_ms or 0 for request in self.asked)
        later_ms = max(last_ms + self.behind_ms - self.calm_ms, 0)
        await asyncio.sleep(later_ms / 1000 + _ENDED_WITHIN_SECONDS)

    async def _told(self) -> None:
        """Give each partition the time to tell how it stands."""
        for _ in range(_TOLD_WITHIN_SECONDS):
            if not any(self._misstated()):
                break
            await asyncio.sleep(1)

    def _misstated(self) -> Iterator[str]:
        """What the rows that tell how partitions stand are wrong in."""
        for partition in range(self.settings.partitions):
            for untruth in misstated(self._state(partition), self.group.owners[partition].name):
                yield f"partition {partition}: {untruth}"

    def _paused(self) -> bool:
        return any(paused(self._state(partition)) for partition in range(self.settings.partitions))

    def _wake(self) -> None:
        for topic in self.request_topics:
            self.producers.wake(topic)

    async def _settle(self) -> None:
        """Wait until every request is applied and every wheel is empty."""
        deadline = self.loop.time() + _CALM_SECONDS
        quiet = waits = 0
        while quiet < 2:  # what was committed last is being written to the store
            await asyncio.sleep(0.5)
            if self.group.vacant:
                self.group.rebalance()
            unsettled = self._unsettled()
            quiet = 0 if unsettled else quiet + 1
            waits = waits + 1 if unsettled else 0
            if waits % _WOKEN_AFTER == _WOKEN_AFTER - 1 and self._paused():
                # The pauses came after the resume, from other partitions.
                self._wake()
            if self.loop.time() > deadline:
                self.violated(f"not done {_CALM_SECONDS} s after the storm: {unsettled}")
                return

    def _unsettled(self) -> str:
        if missing := self.destinations.keys() - self.log.topics.keys():
            return f"{missing} are missing"
        for member in self.members:
            if self.loop.time() < member.right_at_s + _NOTICED_WITHIN_SECONDS:
                return f"the clock of {member.name} was just behind"
        for partition in range(self.settings.partitions):
            owner = self.group.owners.get(partition)
            processor = owner.processors.get(partition) if owner is not None and owner.running else None
            if owner is None or processor is None or processor.phase is not Phase.RUNNING or owner.frozen:
                return f"partition {partition} is not running"
            for topic in (*self.request_topics, self.settings.commands_topic):
                at = TopicPartition(topic, partition)
                bounds = self.log.bounds(at)
                if bounds.stable < bounds.end:
                    return f"{at} has an open transaction"
                if self.log.read(at, max(bounds.start, self.applied(topic, partition)))[0]:
                    return f"{at} is applied up to {self.applied(topic, partition)} of {bounds.end}"
            state = self._state(partition)
            if wheels := sum(key[:1] == b"w" and keys.wheel_of(key) > 0 for key in state):
                return f"partition {partition} has {wheels} entries pending"
            if bulks := sum(key[:1] in _BULKS for key in state):
                return f"partition {partition} is at {bulks} commands for many"
            for difference in differences(state, owner.stores.disks.get(partition, Disk())):
                return f"partition {partition}: {difference}"
            if self.log.hanging:
                return "a transaction is open"
        return ""

    def _state(self, partition: int) -> dict[bytes, bytes]:
        return whole_state(self.log, TopicPartition(self.settings.changelog_topic, partition))

    def _reckon(self) -> None:
        for request in self.asked:
            request.accepted_ms = accepted(self.log.accepted, request)
        report = audit(
            self.asked,
            [record for topic in self.destinations for record in delivered(self.log, topic)],
            dead_letters=delivered(self.log, self.settings.dead_letters_topic),
            receipts=delivered(self.log, "receipts"),
            events=delivered(self.log, self.settings.events_topic),
            circumstances=self._circumstances(),
        )
        self.result.report = report
        for partition in range(self.settings.partitions):
            for leftover in leftovers(self._state(partition), self.clock.now_ms()):
                self.violated(f"partition {partition}: {leftover}")
        asked = {request.source: request for request in self.asked}
        for source, (most, mine) in self.refusals.items():
            refused = asked.get(source)
            if refused is not None and most + max(1, len(refused.due_ms)) <= mine:
                self.violated(f"{source}: refused by a quota of {mine}, with {most} pending")
        for topic in self.destinations:
            self._hold_to_rate(topic, None, [(self.rates.of(topic), _EVER)])
            for tenant in self.request_topics:
                settings = self.tenants_rates.of(topic) if tenant == LIMITED else 0.0
                self._hold_to_rate(topic, tenant, self._spans(topic, tenant, settings))
        for untruth in self._misstated():
            self.violated(untruth)

    def _hold_to_rate(self, topic: str, tenant: str | None, spans: list[tuple[float, Span]]) -> None:
        for rate, span in spans:
            if rate:
                for excess in overdrawn(self.log, topic, tenant, rate / self.settings.partitions, span):
                    self.violated(excess)

    def _spans(self, topic: str, tenant: str, settings: float) -> list[tuple[float, Span]]:
        """Rates of a tenant's own for a destination, and during which times they are known to hold.

        From the event that tells of one until a later one is asked for; 0: any.
        """
        commands = [
            request
            for request in self.asked
            if request.action == "rate" and (request.partition[0], request.destination) == (tenant, topic)
        ]
        if not commands:
            return [(settings, _EVER)]
        in_force = {
            json.loads(event.value or b"{}").get("source"): event.appended_ms or 0
            for event in delivered(self.log, self.settings.events_topic)
        }
        commands.sort(key=lambda request: (request.timestamp_ms, request.partition, request.offset))
        spans: list[tuple[float, Span]] = []
        rate, since_ms = settings, 0.0
        for command in commands:
            spans.append((rate, (since_ms, command.timestamp_ms)))
            rate = settings if command.rate is None else command.rate
            # Until it is told of, the one before may hold; and an older one is told of any time.
            since_ms = in_force.get(command.source, float("inf"))
        return [*spans, (rate, (since_ms, float("inf")))]

    def _circumstances(self) -> Circumstances:
        settings, topics = self.settings, self.log.topics
        names = (*self.destinations, settings.dead_letters_topic)
        return Circumstances(
            partitions={name: len(topics[name].partitions) for name in names},
            largest={name: topics[name].max_message_bytes for name in names},
            request_partitions=settings.partitions,
            clock_ahead_ms=self.ahead_ms,
            clock_behind_ms=self.behind_ms,
            id_retention_ms=settings.id_retention_ms,
            misfire_threshold_ms=settings.misfire_threshold_ms,
            gives_up_after_ms=settings.destination_timeout_ms if self.storm.gives_up else None,
            troubled=self.log.troubled,
            events_anonymous=settings.events_anonymous,
            drained=True,
            calm_ms=self.calm_ms,
        )

    def _bury(self) -> None:
        """Let go of every task without its getting to run again."""
        self._over = True
        for member in self.members:
            if member.process is not None and member.process.alive:
                member.process.kill()
                self.graveyard.append(member.process)
        for process in self.graveyard:
            process.bury()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))


def _entries(key: bytes) -> int:
    """How many fires that waited a row of the changelog may stand for, at most, at any time of its step."""
    return {b"s": _MOST_FIRES, b"w": 1}.get(key[:1], 0)


def _rates(random: Random) -> tuple[RateTable, RateTable]:
    """Records a second: of one destination for all, of another for one tenant, or no limits at all."""
    if random.random() < 0.6:
        return RateTable(), RateTable()
    return (
        RateTable([("dest-b", random.choice((8.0, 100.0))), ("dest-late", 30.0)]),
        RateTable([("dest-a", random.choice((8.0, 100.0)))]),
    )


def run(seed: int, *, engine: Engine | None = None, trace: bool = False) -> Result:
    """Run one seed."""
    return World(seed, engine=engine, trace=trace).run()
