"""Requests on their way, for callers in an event loop: acknowledged, and matched with their receipts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar, cast

from delaystream.client.kafka.one_loop import OneLoop
from delaystream.client.kafka.partitions import PartitionCounts, placed
from delaystream.client.kafka.receipts import Receipts
from delaystream.client.kafka.transport import AsyncTransport
from delaystream.client.requests.composing import CheckedRequest
from delaystream.client.requests.outcomes import (
    Accepted,
    Receipt,
    ReceiptTimeout,
    UnavailableError,
)
from delaystream.client.requests.records import RequestRecord, Sent

T = TypeVar("T")

WAITING: Final = 10_000
"""Most requests that wait for receipts; a caller with one more waits for the oldest of them."""

Connect = Callable[[], AsyncTransport]


class AsyncSending:
    """Sends by one transport, made when it is first needed; for one event loop."""

    def __init__(self, connect: Connect, waiting: int = WAITING) -> None:
        self._connect = connect
        self._most_waiting = waiting
        self._transport: AsyncTransport | None = None
        self._counts = PartitionCounts()
        self._receipts: dict[str, Receipts] = {}
        self._following = asyncio.Lock()
        self._waiting: dict[AsyncPending[Any], None] = {}
        #: requests that have a place among those that are waited for, and are not on their way yet
        self._beginning: dict[asyncio.Future[None], None] = {}
        self._closed = False
        self.loop = OneLoop("An AsyncClient")

    @property
    def transport(self) -> AsyncTransport:
        """The transport of the requests. Raises RuntimeError once it is closed."""
        if self._transport is None:
            if self._closed:
                raise RuntimeError("The client is closed.")
            self._transport = self._connect()
        return self._transport

    async def begin(
        self, request: CheckedRequest, wait_s: float | None, finish: Callable[[Accepted], T]
    ) -> AsyncPending[T]:
        """As `Sending.begin`. Raises RuntimeError in another event loop than the first time."""
        self.loop.enter()
        transport = self.transport
        record = await self._placed(transport, request.record)
        if wait_s is None:
            sent = await self._produced(transport, record)
            return AsyncPending(self, transport, (request, sent), finish)
        begun = await self._place()
        try:
            receipts = await self._followed(transport, request.reply_to or "")
            told: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
            receipts.announce(told)
            try:
                sent = await self._produced(transport, record)
            except BaseException:
                receipts.retract(told)
                raise
            pending = AsyncPending(self, transport, (request, sent), finish)
            pending.waits(receipts, told, wait_s)
            self._waiting[pending] = None
            return pending
        finally:
            del self._beginning[begun]
            begun.set_result(None)

    async def _place(self) -> asyncio.Future[None]:
        """One more has a place among those that are waited for; the future is told when it is on its way."""
        while len(self._waiting) + len(self._beginning) >= self._most_waiting:
            if self._waiting:
                oldest = next(iter(self._waiting))
                await oldest.settle()
                self.settled(oldest)
            else:
                await asyncio.wait([next(iter(self._beginning))])
        # Nothing is awaited in between: however many are told at once, each looks at what the others left.
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._beginning[begun] = None
        return begun

    def settled(self, pending: AsyncPending[Any]) -> None:
        """Nothing of it is waited for any more."""
        self._waiting.pop(pending, None)

    def doubt(self, topic: str) -> None:
        """Sending to a topic has failed."""
        self._counts.doubt(topic)

    async def close(self, timeout_s: float) -> None:
        """Have what was sent acknowledged for at most so long; nothing can be sent any more."""
        if self._transport is not None:
            self.loop.enter()
        self._closed = True
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close(timeout_s)

    async def _produced(self, transport: AsyncTransport, record: RequestRecord) -> asyncio.Future[Sent]:
        try:
            return await transport.produce(record)
        except UnavailableError:
            self.doubt(record.topic)
            raise

    async def _placed(self, transport: AsyncTransport, record: RequestRecord) -> RequestRecord:
        partitions = self._counts.known(record.topic)
        if partitions is None:
            partitions = self._counts.heard(record.topic, await transport.partitions(record.topic))
        return placed(record, partitions)

    async def _followed(self, transport: AsyncTransport, reply_to: str) -> Receipts:
        receipts = self._receipts.get(reply_to)
        if receipts is not None and not receipts.failed:
            return receipts
        async with self._following:
            receipts = self._receipts.get(reply_to)
            if receipts is None or receipts.failed:
                receipts = Receipts()
                await transport.follow(reply_to, receipts.take, receipts.fail)
                self._receipts[reply_to] = receipts
            return receipts


class AsyncPending(Generic[T]):
    """A request on its way, and what comes of it. `await result()` waits for that."""

    def __init__(
        self,
        sending: AsyncSending,
        transport: AsyncTransport,
        asked: tuple[CheckedRequest, asyncio.Future[Sent]],
        finish: Callable[[Accepted], T],
    ) -> None:
        self._sending = sending
        self._transport = transport
        self._request, self._sent = asked
        self._finish = finish
        self._told: asyncio.Future[Receipt] | None = None
        self._receipts: Receipts | None = None
        self._wait_s = 0.0
        self._sent_at_s: float | None = None
        self._settled: tuple[T | None, Exception | None] | None = None
        self.looked_at = False
        """Whether its result was asked for."""
        self._sent.add_done_callback(self._acknowledged)

    def waits(self, receipts: Receipts, told: asyncio.Future[Receipt], wait_s: float) -> None:
        """Its receipt is waited for, that long after its acknowledgement; `told` was announced for it."""
        self._receipts = receipts
        self._wait_s = wait_s
        self._told = told

    def done(self) -> bool:
        """Whether the result is there."""
        if self._settled is not None:
            return True
        if self._told is None or (self._sent.done() and self._sent.exception() is not None):
            return self._sent.done()
        return self._told.done()

    async def sent(self) -> Sent:
        """Where it stands, once Kafka has acknowledged it; its receipt is not waited for.

        Raises UnavailableError, RuntimeError in another event loop than that of the client.
        """
        self._sending.loop.enter()
        return await self._transport.wait(self._sent, None)

    async def result(self) -> T:
        """The outcome, once it is there. Raises the error that prevents it."""
        self.looked_at = True
        value, failure = await self.settle()
        if failure is not None:
            raise failure
        return cast("T", value)

    async def settle(self) -> tuple[T | None, Exception | None]:
        """Wait for what comes of it, without looking at it: a result or an error."""
        if self._settled is None:
            self._sending.loop.enter()
            try:
                self._settled = self._finish(await self._accepted()), None
            except Exception as failure:  # noqa: BLE001 - kept for `result()`: whoever asks here may be another
                self._settled = None, failure
            # Whoever is cancelled before this takes nothing back: it may be asked for again.
            self._sending.settled(self)
        return self._settled

    async def _accepted(self) -> Accepted:
        sent = await self._transport.wait(self._sent, None)
        if self._told is None or self._receipts is None:
            return self._request.accepted(sent)
        # What was acknowledged already has its callback only on the way.
        left_s = max(0.0, self._acknowledged(self._sent) + self._wait_s - time.monotonic())
        try:
            receipt = await self._transport.wait(self._told, left_s)
        except TimeoutError:
            self._receipts.forget(sent.source)
            raise ReceiptTimeout(sent.source, self._request.reply_to or "", self._wait_s) from None
        return self._request.accepted(sent, receipt)

    def _acknowledged(self, sent: asyncio.Future[Sent]) -> float:
        """Kafka has answered: when that was heard, on the monotonic clock, however often it is asked."""
        if self._sent_at_s is not None:
            return self._sent_at_s
        self._sent_at_s = time.monotonic()
        if sent.cancelled() or sent.exception() is not None:
            self._sending.doubt(self._request.record.topic)
            if self._receipts is not None:
                self._receipts.retract(self._told)
        elif self._receipts is not None:
            self._receipts.expect(self._told, sent.result().source, self._answered)
        return self._sent_at_s

    def _answered(self, answer: Receipt | UnavailableError) -> None:
        if self._told is not None and not self._told.done():
            if isinstance(answer, UnavailableError):
                self._told.set_exception(answer)
                self._told.exception()  # whoever waits sees it; where nobody does, nobody is told
            else:
                self._told.set_result(answer)
        self._sending.settled(self)


class AsyncSettled(AsyncPending[T]):
    """What is there already."""

    def __init__(self, value: T, sent: Sent) -> None:
        self._settled = (value, None)
        self._acknowledgement = sent
        self.looked_at = False

    async def sent(self) -> Sent:
        """See the base."""
        return self._acknowledgement
