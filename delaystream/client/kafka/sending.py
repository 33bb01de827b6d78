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
from delaystream.client.requests.records import Sent

T = TypeVar("T")

WAITING: Final = 10_000
"""Most requests that wait for receipts; a caller with one more waits for the oldest of them."""

Connect = Callable[[], Transport]


class Sending:
    """Sends by one transport, made when it is first needed; any thread may use it."""

    def __init__(self, connect: Connect, waiting: int = WAITING) -> None:
        self._connect = connect
        self._most_waiting = waiting
        self._begin_anew()
        self._closed = False
        self.handed_over = 0
        """How many requests were given to the transport, acknowledged or not."""
        _all.add(self)

    def _begin_anew(self) -> None:
        #: of what is waited for; held for some instructions alone, as those who tell of it need it, too
        self._lock = Lock()
        #: held while a connection is made or a topic begins to be followed, which takes a broker's time
        self._connecting = Lock()
        self._transport: Transport | None = None
        self._closing: Transport | None = None
        self._counts = PartitionCounts()
        self._receipts: dict[str, Receipts] = {}
        self._waiting: dict[PendingReceipt[Any], None] = {}

    def forked(self) -> None:
        """This is a child process: what the parent has connected is the parent's."""
        for transport in (self._transport, self._closing):
            if transport is not None:
                # What ends a client of librdkafka waits for its threads, which are none of this process.
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(transport))
        self._begin_anew()

    @property
    def transport(self) -> Transport:
        """The transport of the requests. Raises RuntimeError once it is closed."""
        if (transport := self._transport) is not None:
            return transport
        with self._connecting:
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
        transport = self._transport
        if transport is None:
            transport = self.transport
        record = request.record
        partitions = self._counts.known(record.topic)
        if partitions is None:
            partitions = self._counts.heard(record.topic, transport.partitions(record.topic))
        if record.id is not None or record.partition is not None:
            record = placed(record, partitions)
        if wait_s is None:
            pending = Pending(self, request, finish)
            self.handed_over += 1
            transport.produce(record, pending.acknowledged)
            return pending
        waiting = PendingReceipt(self, request, finish, wait_s)
        try:
            self._take_place(waiting)
            waiting.expects(self._followed(transport, request.reply_to or ""))
            self.handed_over += 1
            transport.produce(record, waiting.acknowledged)
        except BaseException as error:
            waiting.given_up(error)
            raise
        return waiting

    def settled(self, pending: PendingReceipt[Any]) -> None:
        """Nothing of it is waited for any more."""
        with self._lock:
            self._waiting.pop(pending, None)

    def waiter(self, pending: Pending[Any]) -> Promise[None]:
        """The promise that its acknowledgement keeps, one for all callers; one made later is not kept."""
        with self._lock:
            if pending.waiter is None:
                pending.waiter = Promise()
            return pending.waiter

    def doubt(self, topic: str) -> None:
        """Sending to a topic has failed."""
        self._counts.doubt(topic)

    def close(self, timeout_s: float) -> None:
        """Have what was sent acknowledged for at most so long; nothing can be sent any more."""
        with self._connecting:
            self._closed = True
            if self._transport is not None:
                self._closing, self._transport = self._transport, None
        if self._closing is not None:
            # Whoever is interrupted in this can close it again.
            self._closing.close(timeout_s)
            self._closing = None

    def _followed(self, transport: Transport, reply_to: str) -> Receipts:
        receipts = self._receipts.get(reply_to)
        if receipts is not None and not receipts.failed:
            return receipts
        with self._connecting:
            receipts = self._receipts.get(reply_to)
            if receipts is None or receipts.failed:
                receipts = Receipts()
                transport.follow(reply_to, receipts.take, receipts.fail)
                self._receipts[reply_to] = receipts
            return receipts

    def _take_place(self, pending: PendingReceipt[Any]) -> None:
        """One more is waited for, once there is room for it."""
        while True:
            with self._lock:
                if len(self._waiting) < self._most_waiting:
                    self._waiting[pending] = None
                    return
                oldest = next(iter(self._waiting))
            oldest.failure()  # whatever that is, it is for whoever asks for its result
            # By who was waited with: whoever else asked for it may have been interrupted before this.
            self.settled(oldest)


class Pending(Generic[T]):
    """A request on its way, and what comes of it. `result()` waits for that."""

    __slots__ = ("_answer", "_finish", "_request", "_sending", "looked_at", "waiter")

    def __init__(self, sending: Sending, request: CheckedRequest, finish: Callable[[Accepted], T]) -> None:
        self._sending = sending
        self._request = request
        self._finish = finish
        self._answer: Sent | UnavailableError | None = None
        self.waiter: Promise[None] | None = None
        """Made where somebody waits for the acknowledgement."""
        self.looked_at = False
        """Whether its result was asked for."""

    def done(self) -> bool:
        """Whether the result is there."""
        return self._answer is not None

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

    def answer(self) -> Sent | UnavailableError | None:
        """Where it stands, or why it does not, as far as that is known by now; nothing is waited for."""
        return self._answer

    def result(self) -> T:
        """The outcome, once it is there. Raises the error that prevents it."""
        self.looked_at = True
        return self._finish(self._request.accepted(self.sent()))

    def failure(self) -> Exception | None:
        """The error that prevents a result, once it is known; asking does not count as looking at it."""
        try:
            self.sent()
        except Exception as failure:  # noqa: BLE001 - raised by `result()`: whoever asks here may be another
            return failure
        return None

    def acknowledged(self, answer: Sent | UnavailableError) -> None:
        """For the transport: Kafka has answered."""
        if type(answer) is not Sent:
            self._sending.doubt(self._request.record.topic)
        self._answer = answer
        if (waiter := self.waiter) is not None:
            waiter.tell(None)


class PendingReceipt(Pending[T]):
    """One whose receipt is waited for, `wait_s` from its acknowledgement on."""

    __slots__ = ("_receipts", "_sent_at_s", "_settled", "_told", "_wait_s")

    def __init__(
        self, sending: Sending, request: CheckedRequest, finish: Callable[[Accepted], T], wait_s: float
    ) -> None:
        super().__init__(sending, request, finish)
        self._wait_s = wait_s
        self._told: Promise[Receipt] = Promise()
        self._sent_at_s = 0.0
        self._settled: tuple[T | None, Exception | None] | None = None
        self._receipts: Receipts | None = None

    def expects(self, receipts: Receipts) -> None:
        """It is about to be sent; its receipt comes from there."""
        self._receipts = receipts
        receipts.announce(self)

    def given_up(self, error: BaseException) -> None:
        """It was not sent, or whoever sends it was interrupted and will not ask for it."""
        if self._receipts is not None:
            self._receipts.retract(self)
        self._sending.settled(self)
        if self._answer is None:
            # Somebody may wait for it already, to have room for a request of his own.
            self._answer = UnavailableError(f"Sending it was interrupted: {error!r}.")
            if (waiter := self.waiter) is not None:
                waiter.tell(None)

    def done(self) -> bool:
        """Whether the result is there."""
        return self._settled is not None or self._told.done() or isinstance(self._answer, UnavailableError)

    def result(self) -> T:
        """The outcome, once it is there. Raises the error that prevents it."""
        self.looked_at = True
        value, failure = self._settle()
        if failure is not None:
            raise failure
        return cast("T", value)

    def failure(self) -> Exception | None:
        """The error that prevents a result, once it is known; asking does not count as looking at it."""
        return self._settle()[1]

    def acknowledged(self, answer: Sent | UnavailableError) -> None:
        """For the transport: Kafka has answered."""
        self._sent_at_s = time.monotonic()
        if self._receipts is not None:
            if isinstance(answer, UnavailableError):
                self._receipts.retract(self)
            elif self._answer is None:
                self._receipts.expect(self, answer.source, self._answered)
        super().acknowledged(answer)

    def _settle(self) -> tuple[T | None, Exception | None]:
        if self._settled is None:
            try:
                self._settled = self._finish(self._carried_out()), None
            except Exception as failure:  # noqa: BLE001 - kept for `result()`: whoever asks here may be another
                self._settled = None, failure
            # Whoever is interrupted before this takes nothing back: it may be asked for again.
            self._sending.settled(self)
        return self._settled

    def _answered(self, answer: Receipt | UnavailableError) -> None:
        if isinstance(answer, UnavailableError):
            self._told.fail(answer)
        else:
            self._told.tell(answer)
        self._sending.settled(self)

    def _carried_out(self) -> Accepted:
        sent = self.sent()
        left_s = max(0.0, self._sent_at_s + self._wait_s - time.monotonic())
        try:
            receipt = self._sending.transport.wait(self._told, left_s)
        except TimeoutError:
            if self._receipts is not None:
                self._receipts.forget(sent.source)
            raise ReceiptTimeout(sent.source, self._request.reply_to or "", self._wait_s) from None
        return self._request.accepted(sent, receipt)


class Settled(Pending[T]):
    """What is there already."""

    __slots__ = ("_value",)

    def __init__(self, value: T, sent: Sent) -> None:
        self._value = value
        self._answer = sent
        self.looked_at = False

    def result(self) -> T:
        """See the base."""
        self.looked_at = True
        return self._value


_all: Final[weakref.WeakSet[Sending]] = weakref.WeakSet()


def _forked() -> None:
    for sending in [*_all]:
        sending.forked()


os.register_at_fork(after_in_child=_forked)
