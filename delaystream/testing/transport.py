"""A client's way to a worker in memory: what Kafka is to it elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from threading import RLock
from typing import Final, TypeVar

from delaystream.client.kafka.deliveries import Delivery
from delaystream.client.kafka.promises import Promise
from delaystream.client.kafka.transport import Done, Fail, Take
from delaystream.client.requests.outcomes import MissingTopicError, UnavailableError
from delaystream.client.requests.records import RequestRecord, Sent
from delaystream.core.request import Coordinates
from delaystream.testing.loop import DeadlockError, RunawayError
from delaystream.testing.partition import LogError, UnknownTopicError
from delaystream.testing.readers import TopicReader
from delaystream.testing.worker import MemoryWorker

T = TypeVar("T")

MOST_PIECES: Final = 1_000
"""Due times that may pass while something is waited for without a bound."""


class Followers:
    """Who follows topics: told of each new record whenever time has been let pass, by whoever did that."""

    def __init__(self, worker: MemoryWorker) -> None:
        self._worker = worker
        self._readers: list[tuple[TopicReader, Take]] = []
        # Whoever lets time pass has been told of all that came by then, also of what another thread has read.
        self._telling = RLock()

    def add(self, topic: str, take: Take) -> None:
        """From now on. Raises MissingTopicError."""
        if not self._worker.partitions(topic):
            raise _missing(topic)
        # Without the lock: who follows may hold one of its own, for which whoever tells it waits.
        self._readers.append((TopicReader(self._worker, topic, self._worker.halt, from_end=True), take))

    def run(self, until_ms: int) -> bool:
        """Let time pass, as `MemoryWorker.run`, and tell of what has come by then."""
        reached = self._worker.run(until_ms)
        with self._telling:
            for reader, take in [*self._readers]:
                for record in reader.take():
                    take(record)
        return reached

    def settle(self) -> None:
        """Let happen what happens without time passing."""
        while not self.run(self._worker.now_ms()):
            pass

    def until(self, done: Callable[[], bool], timeout_s: float | None) -> Iterator[None]:
        """Let time pass until something is so, and no longer; after each piece of it others have their turn.

        Raises TimeoutError. Without a timeout raises DeadlockError where there is nothing that could make it
        so, and RunawayError where it is not so although much has happened.
        """
        worker, pieces = self._worker, 0
        until_ms = None if timeout_s is None else worker.now_ms() + round(timeout_s * 1000)
        while not done():
            self.settle()
            yield
            if done():
                return
            next_ms = worker.next_ms
            if until_ms is not None and worker.now_ms() >= until_ms:
                raise TimeoutError
            if next_ms is None and until_ms is None:
                raise DeadlockError(
                    "The answer cannot come: nothing is due in the environment, and the wait has no limit. "
                    "Give one (`wait=timedelta(...)`), or look at env.dead_letters()."
                )
            pieces += 1
            if until_ms is None and pieces > MOST_PIECES:
                raise RunawayError(
                    f"The answer is still not there after {MOST_PIECES} due times, and the wait has no "
                    "limit: give one (`wait=timedelta(...)`)."
                )
            self.run(min(at_ms for at_ms in (until_ms, next_ms) if at_ms is not None))


class MemoryTransport:
    """A :class:`~delaystream.client.kafka.transport.Transport`."""

    def __init__(self, worker: MemoryWorker, followers: Followers) -> None:
        self._worker = worker
        self._followers = followers

    def now_ms(self) -> int:
        """The environment's time."""
        return self._worker.now_ms()

    def partitions(self, topic: str) -> int:
        """See the protocol."""
        return _partitions(self._worker, topic)

    def produce(self, record: RequestRecord, done: Done) -> None:
        """See the protocol."""
        try:
            sent = _append(self._worker, record)
        except UnavailableError as failure:
            done(failure)
        else:
            done(sent)

    def follow(self, topic: str, each: Take, fail: Fail) -> None:
        """See the protocol."""
        self._followers.add(topic, each)

    def wait(self, promise: Promise[T], timeout_s: float | None) -> T:
        """See the protocol: time passes until it is there."""
        for _ in self._followers.until(promise.done, timeout_s):
            pass
        return promise.result(0)

    def close(self, timeout_s: float) -> None:
        """See the protocol."""


class AsyncMemoryTransport:
    """A :class:`~delaystream.client.kafka.transport.AsyncTransport`."""

    def __init__(self, worker: MemoryWorker, followers: Followers) -> None:
        self._worker = worker
        self._followers = followers

    def now_ms(self) -> int:
        """The environment's time."""
        return self._worker.now_ms()

    async def partitions(self, topic: str) -> int:
        """See the protocol."""
        return _partitions(self._worker, topic)

    async def produce(self, record: RequestRecord) -> asyncio.Future[Sent]:
        """See the protocol."""
        future: asyncio.Future[Sent] = asyncio.get_running_loop().create_future()
        future.set_result(_append(self._worker, record))
        return future

    async def follow(self, topic: str, each: Take, fail: Fail) -> None:
        """See the protocol; `each` is called in the loop of whoever follows, whoever lets time pass."""
        loop = asyncio.get_running_loop()

        def take(record: Delivery) -> None:
            if _running_loop() is loop:
                each(record)
                return
            try:
                loop.call_soon_threadsafe(each, record)
            except RuntimeError:
                if not loop.is_closed():  # then nobody is there any more who waits
                    raise

        self._followers.add(topic, take)

    async def wait(self, future: asyncio.Future[T], timeout_s: float | None) -> T:
        """See the protocol: time passes until it is there."""
        await asyncio.sleep(0)  # whoever is told that it was sent is told first
        for _ in self._followers.until(future.done, timeout_s):
            await asyncio.sleep(0)
        return future.result()

    async def close(self, timeout_s: float) -> None:
        """See the protocol."""


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _partitions(worker: MemoryWorker, topic: str) -> int:
    found = worker.partitions(topic)
    if not found:
        raise _missing(topic)
    return found


def _missing(topic: str) -> MissingTopicError:
    return MissingTopicError(topic)


def _append(worker: MemoryWorker, record: RequestRecord) -> Sent:
    """Raises UnavailableError."""
    now_ms = worker.now_ms()
    row = record.key, record.value, tuple(record.headers), now_ms
    try:
        partition, offset = worker.append(record.topic, record.partition, row)
    except UnknownTopicError:
        if worker.partitions(record.topic):
            raise UnavailableError(
                f"{record.topic} took no record: it has no partition {record.partition}."
            ) from None
        raise _missing(record.topic) from None
    except LogError as error:
        raise UnavailableError(f"{record.topic} took no record: {error}.") from None
    return Sent(Coordinates(record.topic, partition, offset), now_ms)
