"""The client for callers in an event loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar, Unpack

from delaystream.client.consuming.consumer import Consuming, ConsumingOptions, kafka_needed
from delaystream.client.consuming.retrying import DEAD_LETTERS_TOPIC, RetryTopics
from delaystream.client.kafka.async_sending import AsyncPending, AsyncSending, AsyncSettled
from delaystream.client.kafka.transport import AsyncTransport
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
    from delaystream.client.consuming.async_consuming import AsyncDeliveryConsumer
    from delaystream.config import Settings

T = TypeVar("T")
Answer: TypeAlias = Coroutine[Any, Any, T]


class AsyncClient(Verbs[Answer[Accepted], Answer[ScheduleDescription | None]]):
    """As `Client`, for one event loop: each verb is awaited.

    An asynchronous context manager; nothing is connected before the first request. A refusal before sending
    is raised by the call itself, all else by awaiting it.
    """

    def __init__(
        self,
        kafka: str | Mapping[str, str] | None = None,
        *,
        request_topic: str | None = None,
        reply_to: str | None = None,
        serializer: Serializer | None = None,
        transport: AsyncTransport | None = None,
        settings: Settings | None = None,
    ) -> None:
        now_ms = wall_ms if transport is None else transport.now_ms
        super().__init__(Composer(request_topic, reply_to, settings, serializer, now_ms))
        self._properties: Mapping[str, str] | None = None
        self._dead_letters = DEAD_LETTERS_TOPIC if settings is None else settings.dead_letters_topic
        if transport is None:
            self._properties = properties = kafka_settings(kafka, settings)
            self._sending = AsyncSending(partial(_connect, properties))
        else:
            self._sending = AsyncSending(lambda: transport)

    @classmethod
    def from_settings(
        cls,
        *,
        request_topic: str | None = None,
        reply_to: str | None = None,
        serializer: Serializer | None = None,
    ) -> Self:
        """As `Client.from_settings`."""
        from delaystream.config import load

        return cls(
            settings=load().settings,
            request_topic=request_topic,
            reply_to=reply_to,
            serializer=serializer,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self, timeout: timedelta = CLOSE_TIMEOUT) -> None:  # noqa: ASYNC109
        """Have everything that was sent acknowledged, for at most so long, and close every connection."""
        await self._sending.close(min(span("timeout", timeout), LONGEST_WAIT).total_seconds())

    preview = staticmethod(preview)

    def batch(self) -> AsyncBatch:
        """The same verbs, each awaited until it is on its way; an asynchronous context manager.

        It ends when all is done.
        """
        return AsyncBatch(self, self._composer, self._sending)

    def consumer(
        self, topics: str | Sequence[str], *, group: str, **options: Unpack[ConsumingOptions]
    ) -> AsyncDeliveryConsumer:
        """As `Client.consumer`; all members of a group have the same `transactional_id`."""
        from delaystream.adapters.security.client_config import ClientConfig
        from delaystream.client.consuming.async_consuming import AsyncDeliveryConsumer

        client = ClientConfig.parse(kafka_needed(self._properties))
        known: ConsumingOptions = {"dead_letters": self._dead_letters, **options}
        told = Consuming.of(
            topics, group, RetryTopics(self._composer.place, checker=self._composer.checker), known
        )
        return AsyncDeliveryConsumer(
            told, client.aiokafka_consumer(), client.aiokafka_producer(), client.confluent()
        )

    async def change(self, id: str, change: Change, *, wait: timedelta = RECEIPT_WAIT) -> Accepted:
        """See `Verbs.change`."""
        attempts = CONFLICTS
        while True:
            attempts -= 1
            found = await self.describe(id, wait=wait)
            if found is None:
                raise UnknownIdError(f"No schedule has the id {id!r}.")
            if (changes := change(found)) is None:
                return accepted_as_it_is(found)
            try:
                unchanged: Changes = {**changes, "if_version": found.version}
                return await self.update(id, wait=wait, **unchanged)
            except RejectedError as rejected:
                if rejected.code != "version-changed" or not attempts:
                    raise

    async def _carry_out(self, request: CheckedRequest, wait: timedelta | None) -> Accepted:
        return await (await self._sending.begin(request, seconds(wait), itself)).result()

    async def _ask_for(self, request: CheckedRequest, wait: timedelta) -> ScheduleDescription | None:
        return await (await self._sending.begin(request, seconds(wait), described)).result()


class AsyncBatch(Verbs[Answer[AsyncPending[Accepted]], Answer[AsyncPending[ScheduleDescription | None]]]):
    """As `Batch`: each verb is awaited until the request is on its way, and returns what is pending."""

    def __init__(self, client: AsyncClient, composer: Composer, sending: AsyncSending) -> None:
        super().__init__(composer)
        self._client = client
        self._sending = sending
        self._pending: deque[AsyncPending[Any]] = deque()
        self._failed: deque[AsyncPending[Any]] = deque()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.finish()

    async def finish(self) -> None:
        """Wait for all that is pending. Raises the first failure that nobody has looked at."""
        while self._pending:
            await self._let_go(self._pending.popleft())
        failed = [one for one in self._failed if not one.looked_at]
        failures = [failure for one in failed if (failure := (await one.settle())[1])]
        self._failed.clear()
        raise_first(failures)

    async def change(
        self, id: str, change: Change, *, wait: timedelta = RECEIPT_WAIT
    ) -> AsyncPending[Accepted]:
        """See `Verbs.change`: it goes back and forth, so it is done when this is."""
        accepted = await self._client.change(id, change, wait=wait)
        return AsyncSettled(accepted, accepted.sent)

    async def _carry_out(self, request: CheckedRequest, wait: timedelta | None) -> AsyncPending[Accepted]:
        return await self._taken(await self._sending.begin(request, seconds(wait), itself))

    async def _ask_for(
        self, request: CheckedRequest, wait: timedelta
    ) -> AsyncPending[ScheduleDescription | None]:
        return await self._taken(await self._sending.begin(request, seconds(wait), described))

    async def _taken(self, pending: AsyncPending[T]) -> AsyncPending[T]:
        self._pending.append(pending)
        while self._pending and self._pending[0].done():
            await self._let_go(self._pending.popleft())
        return pending

    async def _let_go(self, pending: AsyncPending[Any]) -> None:
        if (await pending.settle())[1] is not None:
            self._failed.append(pending)


def _connect(properties: Mapping[str, str]) -> AsyncTransport:
    from delaystream.adapters.security.client_config import ClientConfig
    from delaystream.client.kafka.aiokafka_transport import AiokafkaTransport

    client = ClientConfig.parse(properties)
    return AiokafkaTransport(client.aiokafka_producer(), client.aiokafka_consumer(), client.confluent())
