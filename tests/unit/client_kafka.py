"""A Kafka for the client alone: what it produces is a list, and a test says when it is acknowledged."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from delaystream.client import Delivery, MissingTopicError, RequestRecord, Sent, UnavailableError
from delaystream.client.kafka.promises import Promise
from delaystream.client.kafka.transport import Done, Fail, Take
from delaystream.client.requests.checking import wall_ms
from delaystream.codec.outgoing import Answer, Outcome, receipt
from delaystream.core.request import Coordinates

T = TypeVar("T")


class Log:
    """Topics and their partitions, what was produced, and who follows."""

    def __init__(self, **partitions: int) -> None:
        self.partitions = {name.replace("_", "-"): count for name, count in partitions.items()}
        self.produced: list[RequestRecord] = []
        self.asked: Counter[str] = Counter()
        self.followed: dict[str, tuple[Take, Fail]] = {}
        self.refusal: UnavailableError | None = None

    def count(self, topic: str) -> int:
        self.asked[topic] += 1
        if topic not in self.partitions:
            raise MissingTopicError(topic)
        return self.partitions[topic]

    def source(self, number: int) -> Coordinates:
        record = self.produced[number]
        return Coordinates(record.topic, record.partition or 0, number)

    def answer(self, number: int, outcome: Outcome, *, reply_to: str = "delay-receipts") -> None:
        """A worker's receipt for the request of this number."""
        key, value, headers = receipt(self.source(number), self.produced[number].id, Answer(outcome), 1)
        self.tell(value, headers, reply_to, key)

    def tell(
        self,
        value: bytes | None,
        headers: list[tuple[str, bytes | None]],
        reply_to: str = "delay-receipts",
        key: bytes | None = None,
    ) -> None:
        each, _ = self.followed[reply_to]
        each(Delivery.of((reply_to, 0, 0), 1, key, value, headers))


class HeldTransport:
    """Of callers that block: whoever waits has the next of the test's events happen, and never sleeps."""

    def __init__(self, log: Log, *, at_once: bool = True) -> None:
        self.log = log
        self.at_once = at_once
        self.unacknowledged: list[tuple[int, Done]] = []
        self.events: list[Callable[[], None]] = []
        self.waited_s: list[float | None] = []

    def now_ms(self) -> int:
        return wall_ms()

    def partitions(self, topic: str) -> int:
        return self.log.count(topic)

    def produce(self, record: RequestRecord, done: Done) -> None:
        self.log.produced.append(record)
        self.unacknowledged.append((len(self.log.produced) - 1, done))
        if self.at_once:
            self.acknowledge()

    def acknowledge(self) -> None:
        """All that was produced is acknowledged, or refused."""
        waiting, self.unacknowledged = self.unacknowledged, []
        for number, done in waiting:
            done(self.log.refusal or Sent(self.log.source(number), 1_900_000_000_000))

    def follow(self, topic: str, each: Take, fail: Fail) -> None:
        self.log.count(topic)
        self.log.followed[topic] = (each, fail)

    def wait(self, promise: Promise[T], timeout_s: float | None) -> T:
        self.waited_s.append(timeout_s)
        while not promise.done():
            if not self.events:
                assert timeout_s is not None, "this would wait for ever"
                raise TimeoutError
            self.events.pop(0)()
        return promise.result(0)

    def close(self, timeout_s: float) -> None:
        assert timeout_s > 0
        self.acknowledge()


class HeldAsyncTransport:
    """The same of callers in an event loop."""

    def __init__(self, log: Log, *, at_once: bool = True) -> None:
        self._held = HeldTransport(log, at_once=at_once)
        self.events = self._held.events
        self.waited_s = self._held.waited_s

    def now_ms(self) -> int:
        return wall_ms()

    async def partitions(self, topic: str) -> int:
        return self._held.partitions(topic)

    async def produce(self, record: RequestRecord) -> asyncio.Future[Sent]:
        future: asyncio.Future[Sent] = asyncio.get_running_loop().create_future()

        def done(answer: Sent | UnavailableError) -> None:
            if isinstance(answer, UnavailableError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        self._held.produce(record, done)
        return future

    def acknowledge(self) -> None:
        self._held.acknowledge()

    async def follow(self, topic: str, each: Take, fail: Fail) -> None:
        self._held.follow(topic, each, fail)

    async def wait(self, future: asyncio.Future[T], timeout_s: float | None) -> T:
        self.waited_s.append(timeout_s)
        if future.done():
            return future.result()
        while not future.done():
            await asyncio.sleep(0)  # callbacks
            if future.done():
                break
            if not self.events:
                assert timeout_s is not None, "this would wait for ever"
                raise TimeoutError
            self.events.pop(0)()
        return future.result()

    async def close(self, timeout_s: float) -> None:
        self._held.close(timeout_s)
