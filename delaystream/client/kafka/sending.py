"""Requests on their way, for callers that block: acknowledged, and matched with their receipts."""

from __future__ import annotations

import ctypes
import os
import time
import weakref
from collections.abc import Callable
from threading import Lock
from typing import Any, Final, Generic, TypeVar, cast

from delaystream.client.kafka.partitions import PartitionCounts, placed
from delaystream.client.kafka.promises import Promise
from delaystream.client.kafka.receipts import Receipts
from delaystream.client.kafka.transport import Transport
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
"""Requests whose receipts are waited for, at most; who asks for one more waits for the oldest of them."""

Connect = Callable[[], Transport]


class Sending:
    """Sends by one transport, made when it is first needed; any thread may use it."""

    def __init__(self, connect: Connect, waiting: int = WAITING) -> None:
        self._connect = connect
        self._most_waiting = waiting
        self._begin_anew()
        self._closed = False
        _all.add(self)

    def _begin_anew(self) -> None:
        self._lock = Lock()
        self._transport: Transport | None = None
        self._counts = PartitionCounts()
        self._receipts: dict[str, Receipts] = {}
        self._waiting: dict[Pending[Any], None] = {}

    def forked(self) -> None:
        """This is a child process: what the parent has connected is the parent's."""
        if self._transport is not None:
            # What ends a client of librdkafka waits for its threads, which are none of this process.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._transport))
        self._begin_anew()

    @property
    def transport(self) -> Transport:
        """What carries the requests. Raises RuntimeError once it is closed."""
        if (transport := self._transport) is not None:
            return transport
        with self._lock:
            if self._closed:
                raise RuntimeError("The client is closed.")
            if self._transport is None:
                self._transport = self._connect()
            return self._transport

    def begin(
        self, request: CheckedRequest, wait_s: float | None, finish: Callable[[Accepted], T]
    ) -> Pending[T]:
        """Send it; `finish` makes its result of what was accepted.

        With `wait_s` that is when its receipt is there, which is waited for that long after the
        acknowledgement. Raises UnavailableError, MissingTopicError, MissingPartitionError where it cannot be
        sent at all.
        """
        transport = self.transport
        record = self._placed(transport, request.record)
        pending = Pending(self, request, wait_s, finish)
        if wait_s is None:
            transport.produce(record, pending.acknowledged)
            return pending
        self._make_room()
        pending.receipts = receipts = self._followed(transport, request.reply_to or "")
        try:
            receipts.announce(pending)
            with self._lock:
                self._waiting[pending] = None
            transport.produce(record, pending.acknowledged)
        except BaseException:
            receipts.retract(pending)
            self.settled(pending)
            raise
        return pending

    def settled(self, pending: Pending[Any]) -> None:
        """Nothing of it is waited for any more."""
        with self._lock:
            self._waiting.pop(pending, None)

    def waiter(self, pending: Pending[Any]) -> Promise[None]:
        """What is told with its acknowledgement, unless that is there already; one, whoever asks."""
        with self._lock:
            if pending.waiter is None:
                pending.waiter = Promise()
            return pending.waiter

    def doubt(self, topic: str) -> None:
        """Sending to a topic has failed."""
        self._counts.doubt(topic)

    def close(self, timeout_s: float) -> None:
        """Have what was sent acknowledged for at most so long; nothing can be sent any more."""
        with self._lock:
            self._closed = True
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.close(timeout_s)

    def _placed(self, transport: Transport, record: RequestRecord) -> RequestRecord:
        partitions = self._counts.known(record.topic)
        if partitions is None:
            partitions = self._counts.heard(record.topic, transport.partitions(record.topic))
        return placed(record, partitions)

    def _followed(self, transport: Transport, reply_to: str) -> Receipts:
        receipts = self._receipts.get(reply_to)
        if receipts is not None and not receipts.failed:
            return receipts
        with self._lock:
            receipts = self._receipts.get(reply_to)
            if receipts is None or receipts.failed:
                receipts = Receipts()
                transport.follow(reply_to, receipts.take, receipts.fail)
                self._receipts[reply_to] = receipts
            return receipts

    def _make_room(self) -> None:
        while len(self._waiting) >= self._most_waiting:
            with self._lock:
                oldest = next(iter(self._waiting), None)
            if oldest is not None:
                oldest.failure()  # whatever that is, it is for whoever asks for its result


class Pending(Generic[T]):
    """A request on its way, and what comes of it. `result()` waits for that."""

    __slots__ = (
        "_answer", "_finish", "_request", "_sending", "_sent_at_s", "_settled", "_told", "_wait_s",
        "looked_at", "receipts", "waiter",
    )  # fmt: skip

    def __init__(
        self,
        sending: Sending,
        request: CheckedRequest,
        wait_s: float | None,
        finish: Callable[[Accepted], T],
    ) -> None:
        self._sending = sending
        self._request = request
        self._wait_s = wait_s
        self._finish = finish
        self._answer: Sent | UnavailableError | None = None
        self.waiter: Promise[None] | None = None
        """Made where somebody waits for the acknowledgement."""
        self._told: Promise[Receipt] | None = None if wait_s is None else Promise()
        self._sent_at_s = 0.0
        self._settled: tuple[T | None, Exception | None] | None = None
        self.receipts: Receipts | None = None
        """Where its receipt comes from, if it is waited for."""
        self.looked_at = False
        """Whether its result was asked for."""

    def done(self) -> bool:
        """Whether the result is there."""
        if self._told is None or isinstance(self._answer, UnavailableError):
            return self._answer is not None or self._settled is not None
        return self._told.done() or self._settled is not None

    def sent(self) -> Sent:
        """Where it stands, once Kafka has acknowledged it; its receipt is not waited for.

        Raises UnavailableError.
        """
        if self._answer is None:
            waiter = self._sending.waiter(self)
            # It may have come meanwhile, and then nobody tells the waiter.
            if self._answer is None:
                self._sending.transport.wait(waiter, None)
        answer = self._answer
        if isinstance(answer, UnavailableError):
            raise answer
        assert answer is not None
        return answer

    def result(self) -> T:
        """What came of it, once it is there. Raises what is in the way of that."""
        self.looked_at = True
        if (failure := self.failure()) is not None:
            raise failure
        if self._settled is not None:
            return cast("T", self._settled[0])
        return self._finish(self._request.accepted(self.sent()))

    def failure(self) -> Exception | None:
        """What is in the way of a result, once that is known; whoever asks has not looked at it."""
        if self._settled is None:
            try:
                if self._told is None:
                    self.sent()
                    return None
                self._settled = self._finish(self._carried_out(self._told)), None
            except Exception as failure:  # noqa: BLE001 - kept for `result()`: whoever asks here may be another
                self._settled = None, failure
            # Whoever is interrupted before this takes nothing back: it may be asked for again.
            if self._told is not None:
                self._sending.settled(self)
        return self._settled[1]

    def acknowledged(self, answer: Sent | UnavailableError) -> None:
        """For the transport: Kafka has answered."""
        if self.receipts is not None:
            self._sent_at_s = time.monotonic()
            if isinstance(answer, UnavailableError):
                self.receipts.retract(self)
            else:
                self.receipts.expect(self, answer.source, self._answered)
        if isinstance(answer, UnavailableError):
            self._sending.doubt(self._request.record.topic)
        self._answer = answer
        if (waiter := self.waiter) is not None:
            waiter.tell(None)

    def _answered(self, answer: Receipt | UnavailableError) -> None:
        assert self._told is not None
        if isinstance(answer, UnavailableError):
            self._told.fail(answer)
        else:
            self._told.tell(answer)
        self._sending.settled(self)

    def _carried_out(self, told: Promise[Receipt]) -> Accepted:
        sent = self.sent()
        wait_s = self._wait_s or 0.0
        left_s = max(0.0, self._sent_at_s + wait_s - time.monotonic())
        try:
            receipt = self._sending.transport.wait(told, left_s)
        except TimeoutError:
            if self.receipts is not None:
                self.receipts.forget(sent.source)
            raise ReceiptTimeout(sent.source, self._request.reply_to or "", wait_s) from None
        return self._request.accepted(sent, receipt)


class Settled(Pending[T]):
    """What is there already."""

    __slots__ = ()

    def __init__(self, value: T, sent: Sent) -> None:
        self._settled = (value, None)
        self._answer = sent
        self._told = None
        self.looked_at = False


_all: Final[weakref.WeakSet[Sending]] = weakref.WeakSet()


def _forked() -> None:
    for sending in [*_all]:
        sending.forked()


os.register_at_fork(after_in_child=_forked)
