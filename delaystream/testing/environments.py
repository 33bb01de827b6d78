"""A test's own delaystream: the real engine and the real client, on a log in memory, with time that it moves.

    with environment() as env:
        env.client.schedule("reminders", {"user": 7}, id="reminder-7", delay=timedelta(days=1))
        env.advance(timedelta(days=1))
        assert env.deliveries("reminders")[0].schedule_id == "reminder-7"

Time is the environment's alone: no clock of Python's is touched, and `time.time()` goes on as ever. Nothing
is shared: any number of environments live side by side, in as many threads as you like.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from inspect import isawaitable, iscoroutine, iscoroutinefunction
from threading import Lock
from types import TracebackType
from typing import Any, Final, TypeAlias, Unpack

import msgspec

from delaystream.client import AsyncClient, Client
from delaystream.client.kafka.deliveries import Delivery
from delaystream.client.requests.numbers import whole_number
from delaystream.client.requests.timing import aware, instant_ms, whole_ms
from delaystream.codec import outgoing
from delaystream.codec.event import Event, decode_event
from delaystream.core.destinations import is_topic_name
from delaystream.core.instants import LATEST_MS
from delaystream.testing.expectations import (
    Expected,
    Scheduled,
    described,
    differences,
    line,
    listed,
    moment,
    schedules,
    understood,
)
from delaystream.testing.log import MemoryLog
from delaystream.testing.loop import RunawayError
from delaystream.testing.readers import TopicReader, delivery_of
from delaystream.testing.transport import AsyncMemoryTransport, Followers, MemoryTransport
from delaystream.testing.worker import OWN_TOPICS, EngineFailedError, MemoryWorker, TopicPlan

__all__ = [
    "START",
    "AsyncEnvironment",
    "DeadLetter",
    "EngineFailedError",
    "Environment",
    "Scheduled",
    "environment",
]

Handler: TypeAlias = Callable[[Delivery], object]
AsyncHandler: TypeAlias = Callable[[Delivery], Awaitable[object] | object]

START: Final = datetime(2030, 1, 1, tzinfo=UTC)
"""The default time at which an environment begins."""
MOST_FIRES: Final = 10_000
"""Most due times that `run_until_idle` goes through."""
MOST_PARTITIONS: Final = 1_000
"""Of one topic."""
MOST_ROUNDS: Final = 1_000
"""Most rounds of handlers at one moment, each with the deliveries that the round before caused."""

_LAST: Final = 5
_NOT_AWAITED: Final = "The handler of '{topic}' is to be awaited, which takes `async with environment()`"
_TURNS: Final = 10

_handling: ContextVar[tuple[tuple[int, str], ...]] = ContextVar("delaystream_handling", default=())
"""Whose deliveries are being handled here: environments by their identity, and the topic of each."""


@dataclass(frozen=True)
class DeadLetter:
    """A request that was refused, or a fire that proved impossible, and why."""

    code: str
    detail: str
    source: str
    """Where the refused record stood: `topic/partition/offset`."""
    delivery: Delivery
    """The record itself: key, value and headers as they were, and then the reason."""

    def __str__(self) -> str:
        return f"{self.source}: {self.code}: {self.detail}"


def environment(
    *,
    start: datetime = START,
    request_topics: Sequence[str] = ("delay-requests",),
    topics: Mapping[str, int] | None = None,
    create_topics: bool = True,
    partitions: int = 1,
) -> EnvironmentContext:
    """What `with` makes an `Environment` of, and `async with` an `AsyncEnvironment`.

    It is `start` in the beginning, to the millisecond. Each of `request_topics` is a tenant: `env.client`
    sends to the first, `env.client_of(topic)` to any. `topics` are destinations by their number of
    partitions; others come into being with one partition when they are first named, unless `create_topics`
    is false: then what is due for them waits, as it does on a cluster. `partitions` is how many the request
    topics have.

    Raises ValueError for a `start` without time zone or out of the years 1971 to 9999, which requests are
    refused in; where there is no request topic, and for topics that cannot be. TypeError for one text in
    place of the request topics, and for what is no number of partitions.
    """
    start_ms = instant_ms("start", start)
    if isinstance(request_topics, str):
        raise TypeError(f"request_topics={request_topics!r} is one text: write [{request_topics!r}]")
    if not request_topics:
        raise ValueError("There is no request topic: name one at least")
    whole_number("partitions", partitions, 1, MOST_PARTITIONS)
    destinations = dict(topics or {})
    for name in (*request_topics, *destinations):
        if not isinstance(name, str) or not is_topic_name(name):
            raise ValueError(f"{name!r} is no name of a topic")
        if name in OWN_TOPICS:
            raise ValueError(
                f"{name!r} is a topic of delaystream's own: the environment has it, and a worker refuses it "
                "as a request topic and as a destination (destination-denied)"
            )
    for name, number in destinations.items():
        whole_number(f"topics: the number of partitions of {name!r}", number, 1, MOST_PARTITIONS)
        if name in request_topics:
            raise ValueError(f"topics: {name!r} is a request topic, which has `partitions`")
    plan = TopicPlan(tuple(request_topics), partitions, destinations, create_topics)
    return EnvironmentContext(plan, start_ms)


class EnvironmentContext:
    """Made by `environment`; each `with` begins anew, one after the other."""

    def __init__(self, plan: TopicPlan, start_ms: int) -> None:
        self.plan = plan
        self.start_ms = start_ms
        self._entered = Lock()
        self._opened: Environment | AsyncEnvironment | None = None

    def __enter__(self) -> Environment:
        with self._enter():
            opened = self._opened = Environment(MemoryWorker(self.plan, self.start_ms))
        return opened

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        opened = self._leave()
        assert isinstance(opened, Environment)
        if error is None:
            opened.close()
        else:
            opened.abandon()

    async def __aenter__(self) -> AsyncEnvironment:
        with self._enter():
            opened = self._opened = AsyncEnvironment(MemoryWorker(self.plan, self.start_ms))
        return opened

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        opened = self._leave()
        assert isinstance(opened, AsyncEnvironment)
        if error is None:
            await opened.close()
        else:
            opened.abandon()

    @contextmanager
    def _enter(self) -> Iterator[None]:
        if not self._entered.acquire(blocking=False):
            raise RuntimeError("This environment is open already: call environment() for another one")
        try:
            yield
        except BaseException:
            self._entered.release()
            raise

    def _leave(self) -> Environment | AsyncEnvironment | None:
        opened, self._opened = self._opened, None
        self._entered.release()
        return opened


@contextmanager
def async_environment(**options: Any) -> Iterator[AsyncEnvironment]:
    """An `AsyncEnvironment` for a fixture: it is made, and ends, outside of the test's event loop.

    `options` are those of `environment`. Nothing is handed over at the end: raises AssertionError where the
    test has left a handler's deliveries behind.
    """
    context = environment(**options)
    opened = AsyncEnvironment(MemoryWorker(context.plan, context.start_ms))
    try:
        yield opened
        opened.end_outside()
    finally:
        opened.abandon()


class _Consumer:
    """A handler of one topic, and how far it has come."""

    def __init__(self, topic: str, reader: TopicReader, handler: AsyncHandler) -> None:
        self.topic = topic
        self.reader = reader
        self.handler = handler


class _World:
    """The common part of both kinds of environment: everything but the handing over of deliveries."""

    def __init__(self, worker: MemoryWorker) -> None:
        self._worker = worker
        self._followers = Followers(worker)
        self._consumers: list[_Consumer] = []
        self._lock = Lock()
        self._closed = False
        #: when something was handed over last, and how often at that moment
        self._round_ms = -1
        self._rounds = 0
        worker.run(worker.start_ms)

    # -- time ---------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The time in the environment, in UTC."""
        return aware(self._worker.now_ms())

    @property
    def log(self) -> MemoryLog:
        """The topics themselves, for what is not offered here: a topic that takes no records, a larger one.

        Not for use by a thread while another one uses the environment.
        """
        return self._worker.log

    def _target_ms(self, by: timedelta) -> int:
        if not isinstance(by, timedelta):
            raise TypeError(f"Time passes by a timedelta, not {type(by).__qualname__} ({by!r})")
        if by < timedelta():
            raise ValueError(f"Time only goes forward, and {by} is negative")
        until_ms = self._worker.now_ms() + whole_ms(by)
        if until_ms > LATEST_MS:
            raise ValueError(f"{by} from {moment(self.now)} is after the year 9999, when time ends here")
        return until_ms

    def _until(self, at: datetime) -> timedelta:
        instant_ms("at", at)
        return at - self.now

    def _require_open(self, what: str) -> None:
        if self._closed:
            raise RuntimeError(f"{what}: the environment is closed, its `with` is over")
        for topic in [topic for handled, topic in _handling.get() if handled == id(self)]:
            raise RuntimeError(
                f"{what} in the handler of {topic!r}: time stands still while a delivery is handled. Let the "
                "handler schedule what comes later, and call it from the test."
            )

    def _taken(self, consumer: _Consumer) -> Delivery | None:
        """The next deliveries to hand over; each is handed over once, to the first caller."""
        with self._lock:
            return next(consumer.reader.take(), None)

    def _count_round(self, topics: Sequence[str]) -> None:
        """Handlers have been given something. Raises RunawayError where that goes on and on at one moment."""
        now_ms = self._worker.now_ms()
        self._rounds = self._rounds + 1 if now_ms == self._round_ms else 1
        self._round_ms = now_ms
        if self._rounds > MOST_ROUNDS:
            raise RunawayError(
                f"The handlers of {', '.join(topics)} have been called in {MOST_ROUNDS} rounds at "
                f"{moment(self.now)}, and there is more: does one schedule, for now, what it is then given?"
            )

    def _raise_endless(self, most: int) -> None:
        """`run_until_idle` has gone on for so long."""
        pending = [one for one in self._scheduled() if one.live]
        endless = [one for one in pending if one.endless]
        why = (
            "what recurs never ends; cancel it, give it max_fires or an end, or use advance()"
            if endless
            else "does a handler schedule, each time, what it is then given?"
        )
        raise RunawayError(
            f"{most} due times have passed by {moment(self.now)}, and more is pending: {why}. There is\n"
            f"{listed(endless or pending, self.now)}"
        )

    # -- what there is ------------------------------------------------------------------------

    def deliveries(self, topic: str) -> list[Delivery]:
        """All that was delivered to a topic so far, in order; over its partitions by the time of delivery."""
        self._settle()
        with self._worker.lock:
            if topic not in self._worker.log.topics:
                return []
            found = self._worker.log.all(topic)
        found.sort(key=lambda item: item[1].appended_ms)
        return [delivery_of(topic, partition, record) for partition, record in found]

    def events(self) -> list[Event]:
        """The events of schedules so far, in order, as a worker writes them to `delay-events`.

        Records of other producers there are left out.
        """
        topic = self._worker.settings.events_topic
        return [event for one in self.deliveries(topic) if (event := _event(one)) is not None]

    def dead_letters(self) -> list[DeadLetter]:
        """Requests that were refused and fires that proved impossible so far, in order."""
        return [_dead_letter(one) for one in self.deliveries(self._worker.settings.dead_letters_topic)]

    def scheduled(self) -> list[Scheduled]:
        """All schedules as they stand, what fires next first, and last those that are over."""
        self._settle()
        return self._scheduled()

    def assert_scheduled(self, **expected: Unpack[Expected]) -> Scheduled:
        """That something is pending or paused, and as expected; the first of all that is.

        `next_at` is a time or, as a timedelta, how far ahead it is. With `status` something that is over will
        do, too. Raises AssertionError, which says what is there instead.
        """
        meant = understood(expected)
        found = self.scheduled()
        wanted = [one for one in found if "status" in expected or one.live]
        judged = [(differences(one, meant, self.now), one) for one in wanted]
        for different, one in judged:
            if not different:
                return one
        raise AssertionError(self._missing(expected, judged, found))

    def refute_scheduled(self, **expected: Unpack[Expected]) -> None:
        """That nothing is pending or paused that is like this. Raises AssertionError, which says what is."""
        meant = understood(expected)
        live = [one for one in self.scheduled() if "status" in expected or one.live]
        found = [one for one in live if not differences(one, meant, self.now)]
        if found:
            raise AssertionError(
                f"Something is scheduled with {described(expected)}, at {moment(self.now)}:\n"
                f"{listed(found, self.now)}"
            )

    def assert_delivered(self, topic: str, count: int | None = None) -> list[Delivery]:
        """That something was delivered to a topic so far, or so many records; what it was.

        Raises AssertionError, which says what is pending for it.
        """
        if count is not None:
            whole_number("count", count, 0)
        found = self.deliveries(topic)
        if len(found) == count or (count is None and found):
            return found
        wanted = "something" if count is None else f"{count} deliveries"
        pending = [one for one in self._scheduled() if one.live and one.destination == topic]
        said = [f"Expected {wanted} on {topic!r} by {moment(self.now)}, and there are {len(found)}."]
        if pending:
            said += ["Pending for it:", listed(pending, self.now)]
            said.append("Time stands still until the test moves it: env.advance(timedelta(...)).")
        else:
            said.append("Nothing is pending for it.")
        raise AssertionError("\n".join([*said, *self._refused()]))

    def _missing(
        self,
        expected: Mapping[str, Any],
        judged: Sequence[tuple[list[str], Scheduled]],
        found: Sequence[Scheduled],
    ) -> str:
        said = [f"Nothing is scheduled with {described(expected)}, at {moment(self.now)}."]
        if judged:
            different, closest = min(judged, key=lambda each: len(each[0]))
            if len(judged) > 1 and len(different) < len(expected):
                said.append(f"The closest differs in {', '.join(different)}:\n  {line(closest, self.now)}")
            elif len(judged) == 1:
                said.append(f"Each of them differs in {', '.join(different)}.")
            said += ["There is", listed([one for _, one in judged], self.now)]
        else:
            said.append("Nothing is scheduled at all.")
        over = [one for one in found if not one.live and one.id is not None and one.id == expected.get("id")]
        if over:
            said += ["It is over:", listed(over, self.now)]
        return "\n".join([*said, *self._refused()])

    def _refused(self) -> list[str]:
        letters = self.dead_letters()
        if not letters:
            return []
        return [f"Among the dead letters ({len(letters)}):", *[f"  {one}" for one in letters[-_LAST:]]]

    def _scheduled(self) -> list[Scheduled]:
        return schedules(self._worker.state())

    def _settle(self) -> None:
        """Take in what was sent, before anybody looks."""
        if not self._closed:
            self._followers.settle()

    def _topic_of(self, request_topic: str | None) -> str:
        topics = self._worker.plan.requests
        if request_topic is None:
            return topics[0]
        if request_topic not in topics:
            raise ValueError(f"{request_topic!r} is not a request topic; there is {', '.join(topics)}")
        return request_topic

    def _consume(self, topic: str, handler: AsyncHandler) -> None:
        if topic not in self._worker.log.topics and not self._worker.plan.create:
            raise ValueError(f"There is no topic {topic!r}, and none is created")
        if not is_topic_name(topic):
            raise ValueError(f"{topic!r} is no name of a topic")
        if not callable(handler):
            raise TypeError(f"A handler is a function of a delivery, not {type(handler).__qualname__}")
        self._consumers.append(_Consumer(topic, TopicReader(self._worker, topic, self._worker.halt), handler))

    def abandon(self) -> None:
        """Leave everything as it is: the test has failed already."""
        if not self._closed:
            self._closed = True
            self._worker.abandon()


class Environment(_World):
    """For tests that block. Made by `with environment()`."""

    def __init__(self, worker: MemoryWorker) -> None:
        super().__init__(worker)
        self.client = self.client_of()

    def client_of(self, request_topic: str | None = None) -> Client:
        """A client of its own, for one of the request topics; None: the first."""
        transport = MemoryTransport(self._worker, self._followers)
        return Client(
            transport=transport,
            request_topic=self._topic_of(request_topic),
            reply_to=self._worker.plan.receipts,
        )

    def advance(self, by: timedelta) -> None:
        """Let so much time pass, and all happen that is due by the end of it, each at its own time.

        What a handler of `consume` raises, it raises, at the time of that delivery.
        """
        self._require_open("advance()")
        self._pass_until(self._target_ms(by))

    def advance_to(self, at: datetime) -> None:
        """As `advance`, up to a time. Raises ValueError for one that has passed."""
        self.advance(self._until(at))

    def run_until_idle(self, most: int = MOST_FIRES) -> None:
        """Go from one due time to the next until nothing is pending any more; what is paused stays.

        Raises RunawayError after so many of them: a schedule that recurs for ever never ends.
        """
        self._require_open("run_until_idle()")
        whole_number("most", most, 1)
        self._pass_until(self._worker.now_ms())
        for _ in range(most):
            if (next_ms := self._worker.next_fire_ms) is None:
                return
            self._pass_until(next_ms)
        self._raise_endless(most)

    def consume(self, topic: str, handler: Handler) -> None:
        """Have a handler called with each delivery to a topic, at its time, while time passes.

        It is given what was delivered before, too. It may use the environment's client.
        """
        self._require_open("consume()")
        if iscoroutinefunction(handler):
            raise TypeError(_NOT_AWAITED.format(topic=topic))
        self._consume(topic, handler)

    def close(self) -> None:
        """Hand over what is there by now, and stop the engine. Raises what a handler raises."""
        if self._closed:
            return
        try:
            self._pass_until(self._worker.now_ms())
            self.client.close()
        except BaseException:
            self.abandon()
            raise
        self._closed = True
        self._worker.stop()

    def _pass_until(self, until_ms: int) -> None:
        while True:
            reached = self._followers.run(until_ms)
            if not self._hand_over() and reached:
                return

    def _hand_over(self) -> bool:
        """Whether there was anything to hand over."""
        topics: list[str] = []
        for consumer in [*self._consumers]:
            # The requests that these handlers send are for the next round.
            for _ in range(consumer.reader.unread):
                if (delivery := self._taken(consumer)) is None:
                    break
                topics.append(consumer.topic)
                with _handled(self, consumer.topic):
                    result = consumer.handler(delivery)
                if isawaitable(result):
                    if iscoroutine(result):
                        result.close()
                    raise TypeError(_NOT_AWAITED.format(topic=consumer.topic))
        if topics:
            self._count_round(sorted(set(topics)))
        return bool(topics)


class AsyncEnvironment(_World):
    """For tests in an event loop of asyncio's. Made by `async with environment()`."""

    def __init__(self, worker: MemoryWorker) -> None:
        super().__init__(worker)
        self.client = self.client_of()

    def client_of(self, request_topic: str | None = None) -> AsyncClient:
        """As `Environment.client_of`."""
        transport = AsyncMemoryTransport(self._worker, self._followers)
        return AsyncClient(
            transport=transport,
            request_topic=self._topic_of(request_topic),
            reply_to=self._worker.plan.receipts,
        )

    async def advance(self, by: timedelta) -> None:
        """As `Environment.advance`."""
        self._require_open("advance()")
        await self._pass_until(self._target_ms(by))

    async def advance_to(self, at: datetime) -> None:
        """As `Environment.advance_to`."""
        await self.advance(self._until(at))

    async def run_until_idle(self, most: int = MOST_FIRES) -> None:
        """As `Environment.run_until_idle`."""
        self._require_open("run_until_idle()")
        whole_number("most", most, 1)
        await self._pass_until(self._worker.now_ms())
        for _ in range(most):
            if (next_ms := self._worker.next_fire_ms) is None:
                return
            await self._pass_until(next_ms)
        self._raise_endless(most)

    def consume(self, topic: str, handler: AsyncHandler) -> None:
        """As `Environment.consume`; a coroutine function is awaited, in the test's own loop."""
        self._require_open("consume()")
        self._consume(topic, handler)

    async def close(self) -> None:
        """As `Environment.close`."""
        if self._closed:
            return
        try:
            await self._pass_until(self._worker.now_ms())
        except BaseException:
            self.abandon()
            raise
        self._closed = True
        self._worker.stop()

    def end_outside(self) -> None:
        """End where nothing can be awaited any more."""
        if self._closed:
            return
        self._settle()
        left = {consumer.topic: consumer.reader.unread for consumer in self._consumers}
        if any(left.values()):
            told = ", ".join(f"{count} of {topic!r}" for topic, count in left.items() if count)
            raise AssertionError(
                f"The test has ended before its handlers were given all that was delivered: {told}. End it "
                "with `await env.advance(timedelta())`."
            )
        self._closed = True
        self._worker.stop()

    async def _pass_until(self, until_ms: int) -> None:
        await _give_way()
        while True:
            reached = self._followers.run(until_ms)
            if await self._hand_over():
                await _give_way()
            elif reached:
                break
        await _give_way()

    async def _hand_over(self) -> bool:
        topics: list[str] = []
        for consumer in [*self._consumers]:
            for _ in range(consumer.reader.unread):
                if (delivery := self._taken(consumer)) is None:
                    break
                topics.append(consumer.topic)
                with _handled(self, consumer.topic):
                    result = consumer.handler(delivery)
                    if isawaitable(result):
                        await result
        if topics:
            self._count_round(sorted(set(topics)))
        return bool(topics)


async def _give_way() -> None:
    """Tasks of the test that something was done for have a few turns before time goes on."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


@contextmanager
def _handled(handled: _World, topic: str) -> Iterator[None]:
    """A delivery of the topic is being handled, in an environment."""
    token = _handling.set((*_handling.get(), (id(handled), topic)))
    try:
        yield
    finally:
        _handling.reset(token)


def _event(record: Delivery) -> Event | None:
    try:
        return None if record.value is None else decode_event(record.value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _dead_letter(record: Delivery) -> DeadLetter:
    # A record that was refused twice carries two reasons: the last one counts.
    told = {name: value.decode("utf-8", "replace") for name, value in record.headers if value is not None}
    where = (outgoing.ERROR_TOPIC, outgoing.ERROR_PARTITION, outgoing.ERROR_OFFSET)
    source = "/".join(told.get(name, "") for name in where)
    return DeadLetter(told.get(outgoing.ERROR, ""), told.get(outgoing.ERROR_DETAIL, ""), source, record)
