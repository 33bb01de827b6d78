"""The client for callers that block."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from delaystream.client.consuming.consumer import Consuming, ConsumingOptions, kafka_needed
from delaystream.client.consuming.retrying import DEAD_LETTERS_TOPIC, RetryTopics
from delaystream.client.kafka.sending import Pending, Sending, Settled
from delaystream.client.kafka.transport import Transport
from delaystream.client.requests.checking import wall_ms
from delaystream.client.requests.composing import CheckedRequest, Composer
from delaystream.client.requests.descriptions import ScheduleDescription
from delaystream.client.requests.numbers import span
from delaystream.client.requests.options import Changes
from delaystream.client.requests.outcomes import Accepted, RejectedError, UnknownIdError
from delaystream.client.requests.payloads import Serializer
from delaystream.client.requests.preview import preview
from delaystream.client.verbs import (
    CLOSE_TIMEOUT,
    CONFLICTS,
    LONGEST_WAIT,
    RECEIPT_WAIT,
    Change,
    Verbs,
    accepted_as_it_is,
    described,
    itself,
    kafka_settings,
    raise_first,
    seconds,
)

if TYPE_CHECKING:
    from confluent_kafka import Producer

    from delaystream.client.consuming.blocking_consuming import DeliveryConsumer
    from delaystream.config import Settings

T = TypeVar("T")


class Client(Verbs[Accepted, ScheduleDescription | None]):
    """Sends requests, and waits: for Kafka's acknowledgement, and for a receipt where that is asked for.

    A context manager; `close()` has everything sent first. Any number of threads may use one client; after a
    fork the child has connections of its own. Nothing is connected before the first request.

    `kafka` are bootstrap servers, or client settings by the Java client's names (`bootstrap.servers`,
    `security.protocol`, …). In their place `settings` are those of the command line, against whose limits
    requests are held, or a `transport` takes the place of Kafka. Receipts are waited for on the topic
    `reply_to`, which is read from its end on when the first one is. `serializer` makes bytes of values.
    """

    def __init__(
        self,
        kafka: str | Mapping[str, str] | None = None,
        *,
        request_topic: str | None = None,
        reply_to: str | None = None,
        serializer: Serializer | None = None,
        transport: Transport | None = None,
        settings: Settings | None = None,
    ) -> None:
        now_ms = wall_ms if transport is None else transport.now_ms
        super().__init__(Composer(request_topic, reply_to, settings, serializer, now_ms))
        self._properties: Mapping[str, str] | None = None
        self._dead_letters = DEAD_LETTERS_TOPIC if settings is None else settings.dead_letters_topic
        if transport is None:
            self._properties = properties = kafka_settings(kafka, settings)
            self._sending = Sending(partial(_connect, properties))
        else:
            self._sending = Sending(lambda: transport)

    @classmethod
    def from_settings(
        cls,
        *,
        request_topic: str | None = None,
        reply_to: str | None = None,
        serializer: Serializer | None = None,
    ) -> Self:
        """A client by the settings of the command line: environment, file, defaults.

        `request_topic` is by default the first of `request_topics`,
        `reply_to` is `receipts_topic`. Raises ConfigurationError.
        """
        from delaystream.config import load

        return cls(
            settings=load().settings,
            request_topic=request_topic,
            reply_to=reply_to,
            serializer=serializer,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self, timeout: timedelta = CLOSE_TIMEOUT) -> None:
        """Have everything that was sent acknowledged, for at most so long, and close every connection."""
        self._sending.close(min(span("timeout", timeout), LONGEST_WAIT).total_seconds())

    preview = staticmethod(preview)

    def batch(self) -> Batch:
        """The same verbs, each of which waits for nothing; a context manager that ends when all is done."""
        return Batch(self, self._composer, self._sending)

    def consumer(
        self,
        topics: str | Sequence[str],
        *,
        group: str,
        producer: Producer | None = None,
        **options: Unpack[ConsumingOptions],
    ) -> DeliveryConsumer:
        """Deliveries of topics, as a member of a consumer group: what fails can be retried, or dead-lettered.

        Without more it is at least once, and no retry is asked for twice. With `transactional_id`, or a
        `producer` of the caller's whose transactions have been initialised, what is produced, retries and
        offsets are one transaction: exactly once. The options are those of
        `delaystream.client.consuming.consumer.Consuming`. Raises ValueError for what makes no sense, and
        where the client is not one of Kafka's.
        """
        from delaystream.adapters.security.client_config import ClientConfig
        from delaystream.client.consuming.blocking_consuming import DeliveryConsumer

        client = ClientConfig.parse(kafka_needed(self._properties))
        known: ConsumingOptions = {"dead_letters": self._dead_letters, **options}
        told = Consuming.of(
            topics, group, RetryTopics(self._composer.place, checker=self._composer.checker), known
        )
        return DeliveryConsumer(
            told, client.confluent(), client.confluent_producer() if producer is None else producer
        )

    def change(self, id: str, change: Change, *, wait: timedelta = RECEIPT_WAIT) -> Accepted:
        """See `Verbs.change`."""
        attempts = CONFLICTS
        while True:
            attempts -= 1
            found = self.describe(id, wait=wait)
            if found is None:
                raise UnknownIdError(f"No schedule has the id {id!r}.")
            if (changes := change(found)) is None:
                return accepted_as_it_is(found)
            try:
                unchanged: Changes = {**changes, "if_version": found.version}
                return self.update(id, wait=wait, **unchanged)
            except RejectedError as rejected:
                if rejected.code != "version-changed" or not attempts:
                    raise

    def _carry_out(self, request: CheckedRequest, wait: timedelta | None) -> Accepted:
        return self._sending.begin(request, seconds(wait), itself).result()

    def _ask_for(self, request: CheckedRequest, wait: timedelta) -> ScheduleDescription | None:
        return self._sending.begin(request, seconds(wait), described).result()


class Batch(Verbs[Pending[Accepted], Pending[ScheduleDescription | None]]):
    """Many requests of one client on their way at once: each verb returns what is pending, and waits for
    nothing.

    At the end of its `with` all are acknowledged, and their receipts are there where they are waited for. The
    first failure whose `result()` nobody has asked for is raised then, with a note that counts the others. As
    many are in flight as the transport lets be. A refusal before sending is raised at once. A batch is for
    one thread.
    """

    def __init__(self, client: Client, composer: Composer, sending: Sending) -> None:
        super().__init__(composer)
        self._client = client
        self._sending = sending
        self._pending: deque[Pending[Any]] = deque()
        self._failed: deque[Pending[Any]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()

    @property
    def handed_over(self) -> int:
        """How many requests of the client were given to Kafka so far, acknowledged or not.

        Whoever was interrupted in a verb sees by it whether the request may be on its way.
        """
        return self._sending.handed_over

    def finish(self) -> None:
        """Wait for all that is pending. Raises the first failure that nobody has looked at."""
        if self._pending:
            # The others are there by then, as good as all: one wait, and not one for each.
            self._pending[-1].failure()
        while self._pending:
            self._let_go(self._pending.popleft())
        failures = [failure for one in self._failed if not one.looked_at and (failure := one.failure())]
        self._failed.clear()
        raise_first(failures)

    def change(self, id: str, change: Change, *, wait: timedelta = RECEIPT_WAIT) -> Pending[Accepted]:
        """See `Verbs.change`: it goes back and forth, so it is done when this returns."""
        accepted = self._client.change(id, change, wait=wait)
        return Settled(accepted, accepted.sent)

    def _carry_out(self, request: CheckedRequest, wait: timedelta | None) -> Pending[Accepted]:
        wait_s = None if wait is None else seconds(wait)
        return self._taken(self._sending.begin(request, wait_s, itself))

    def _ask_for(self, request: CheckedRequest, wait: timedelta) -> Pending[ScheduleDescription | None]:
        return self._taken(self._sending.begin(request, seconds(wait), described))

    def _taken(self, pending: Pending[T]) -> Pending[T]:
        self._pending.append(pending)
        while self._pending[0].done():
            self._let_go(self._pending.popleft())
            if not self._pending:
                break
        return pending

    def _let_go(self, pending: Pending[Any]) -> None:
        if pending.failure() is not None:
            self._failed.append(pending)


def _connect(properties: Mapping[str, str]) -> Transport:
    from delaystream.client.kafka.threads import apart

    return apart(partial(_connected, properties), "delaystream connects")


def _connected(properties: Mapping[str, str]) -> Transport:
    from delaystream.adapters.security.client_config import ClientConfig
    from delaystream.client.kafka.confluent_transport import ConfluentTransport

    client = ClientConfig.parse(properties)
    return ConfluentTransport(client.confluent_producer(), client.confluent())
