"""Kafka, as a client needs it: what carries requests, and brings receipts back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from delaystream.client.kafka.deliveries import Delivery
from delaystream.client.kafka.promises import Promise
from delaystream.client.requests.outcomes import UnavailableError
from delaystream.client.requests.records import RequestRecord, Sent

T = TypeVar("T")

SEND_TIMEOUT_S: Final = 30.0
"""The longest wait for a record's acknowledgement. By aiokafka it may still be written after that."""

Done = Callable[[Sent | UnavailableError], None]
"""Told once for each record: where it stands, or why it does not. It returns at once, and raises nothing."""
Take = Callable[[Delivery], None]
Fail = Callable[[UnavailableError], None]


class Transport(Protocol):
    """For callers that block; any thread may use it."""

    def now_ms(self) -> int:
        """The time that requests are held against, ms since the epoch: of Kafka the machine's."""

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has, asked anew. Raises UnavailableError, MissingTopicError."""

    def produce(self, record: RequestRecord, done: Done) -> None:
        """Send a record; waits where as many are in flight as may be. `done` is told, by whatever thread."""

    def follow(self, topic: str, each: Take, fail: Fail) -> None:
        """Have each record that is committed to a topic from now on read, once the start is fixed.

        Where it cannot be read any more, `fail` is told, and nothing comes. Raises UnavailableError,
        MissingTopicError where it cannot be begun.
        """

    def wait(self, promise: Promise[T], timeout_s: float | None) -> T:
        """The value of the promise. Raises TimeoutError, and the error that the promise failed with."""

    def close(self, timeout_s: float) -> None:
        """Have what was sent acknowledged for at most so long, and close every connection."""


class AsyncTransport(Protocol):
    """For callers in an event loop, and for that one alone."""

    def now_ms(self) -> int:
        """As `Transport.now_ms`."""

    async def partitions(self, topic: str) -> int:
        """As `Transport.partitions`."""

    async def produce(self, record: RequestRecord) -> asyncio.Future[Sent]:
        """Send a record; waits where as many are in flight as may be. The future has its acknowledgement.

        Raises UnavailableError, and so does the future.
        """

    async def follow(self, topic: str, each: Take, fail: Fail) -> None:
        """As `Transport.follow`."""

    async def wait(self, future: asyncio.Future[T], timeout_s: float | None) -> T:
        """As `Transport.wait`; the future is not cancelled where it takes too long."""

    async def close(self, timeout_s: float) -> None:
        """As `Transport.close`."""
