"""The way to Kafka: a request is checked as a client's is, sent to its owner's partition, and answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from delaystream.adapters.security.client_config import ClientConfig
from delaystream.client.kafka.aiokafka_transport import AiokafkaTransport
from delaystream.client.kafka.async_sending import AsyncPending, AsyncSending
from delaystream.client.kafka.transport import AsyncTransport
from delaystream.client.requests.composing import CheckedRequest, Composer
from delaystream.client.requests.outcomes import Accepted
from delaystream.client.requests.records import RequestRecord
from delaystream.client.verbs import itself
from delaystream.console.writing.outcomes import UnknownTopic
from delaystream.dialects import Dialect, by_name

if TYPE_CHECKING:
    from delaystream.config import Settings
    from delaystream.core.request import Request

RECEIPT_WAIT_S: Final = 600.0
"""How long a receipt is waited for, whoever has stopped waiting for the answer."""
CLOSE_S: Final = 5.0


class Sender:
    """Sends requests of every request topic by one transport; for one event loop."""

    def __init__(
        self, settings: Settings, connect: Callable[[], AsyncTransport], now_ms: Callable[[], int]
    ) -> None:
        reply_to = settings.console_reply_to or settings.receipts_topic
        self.topics = tuple(settings.request_topics)
        self._composers: Mapping[str, Composer] = {
            topic: Composer(topic, reply_to, settings, None, now_ms) for topic in self.topics
        }
        self._dialects = {
            topic: tuple(by_name(dialect) for dialect in settings.requests(topic).dialects)
            for topic in self.topics
        }
        self._sending = AsyncSending(connect)

    def read(self, record: RequestRecord) -> Request:
        """What a record asks for. Raises as `checked`."""
        request = self.checked(record)
        return request.checker.check(request.record)

    def dialects(self, topic: str) -> Sequence[Dialect]:
        """Other systems whose headers the requests of a topic may use."""
        return self._dialects.get(topic, ())

    def checked(self, record: RequestRecord) -> CheckedRequest:
        """The record with the console's topic for its receipt, as a worker would take it.

        Raises RejectedError where one would not, ValueError where no receipt could come, UnknownTopic.
        """
        composer = self._composers.get(record.topic)
        if composer is None:
            raise UnknownTopic(
                f"{record.topic[:60]!r} is not a request topic; expected one of {', '.join(self.topics)}."
            )
        return composer.composed(record, waits=True)

    async def send(self, request: CheckedRequest) -> AsyncPending[Accepted]:
        """Send it. Raises UnavailableError, MissingTopicError, MissingPartitionError."""
        return await self._sending.begin(request, RECEIPT_WAIT_S, itself)

    async def close(self) -> None:
        """Have what was sent acknowledged, for at most so long, and close every connection."""
        await self._sending.close(CLOSE_S)


def connected(client: ClientConfig) -> AsyncTransport:
    """The way to the brokers of a client's settings; nothing is connected before the first request."""
    return AiokafkaTransport(client.aiokafka_producer(), client.aiokafka_consumer(), client.confluent())
