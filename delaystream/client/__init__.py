"""The client: requests to delay and to schedule, and what comes of them, in Python's types.

`Client` blocks and `AsyncClient` does not; one contract holds for both. The functions that make requests
(`schedule_request`, …) are pure. No Kafka library is imported before a client connects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from delaystream.client.consuming.events import (
    EventError,
    Events,
    EventVersionError,
    InvalidEventError,
    ScheduledEvent,
    UnknownEventError,
    event_record,
    read_event,
)
from delaystream.client.consuming.retrying import Backoff, Retry, RetryPolicy, RetryTopics, dead_letter, retry
from delaystream.client.kafka.deliveries import Delivery
from delaystream.client.kafka.transport import AsyncTransport, Transport
from delaystream.client.requests.checking import RECEIPTS_TOPIC, check
from delaystream.client.requests.descriptions import (
    PastTimes,
    Payload,
    ScheduleDefinition,
    ScheduleDescription,
)
from delaystream.client.requests.options import CLEAR, Changes, ScheduleOptions
from delaystream.client.requests.outcomes import (
    Accepted,
    ClientError,
    MissingPartitionError,
    MissingTopicError,
    Receipt,
    ReceiptTimeout,
    RejectedError,
    UnavailableError,
    UnknownIdError,
)
from delaystream.client.requests.preview import Occurrence, preview
from delaystream.client.requests.records import (
    Place,
    RequestRecord,
    Sent,
    cancel_request,
    describe_request,
    pause_request,
    rate_request,
    reschedule_request,
    resume_request,
    schedule_request,
    trigger_request,
    update_request,
)
from delaystream.core.request import Coordinates

if TYPE_CHECKING:
    from delaystream.client.asynchronous import AsyncBatch, AsyncClient
    from delaystream.client.blocking import Batch, Client
    from delaystream.client.consuming.async_consuming import AsyncDeliveryConsumer, AsyncReceivedDelivery
    from delaystream.client.consuming.blocking_consuming import DeliveryConsumer, ReceivedDelivery
    from delaystream.client.kafka.async_sending import AsyncPending
    from delaystream.client.kafka.sending import Pending
    from delaystream.client.verbs import Handle

__all__ = [
    "CLEAR",
    "RECEIPTS_TOPIC",
    "Accepted",
    "AsyncBatch",
    "AsyncClient",
    "AsyncDeliveryConsumer",
    "AsyncPending",
    "AsyncReceivedDelivery",
    "AsyncTransport",
    "Backoff",
    "Batch",
    "Changes",
    "Client",
    "ClientError",
    "Coordinates",
    "Delivery",
    "DeliveryConsumer",
    "EventError",
    "EventVersionError",
    "Events",
    "Handle",
    "InvalidEventError",
    "MissingPartitionError",
    "MissingTopicError",
    "Occurrence",
    "PastTimes",
    "Payload",
    "Pending",
    "Place",
    "Receipt",
    "ReceiptTimeout",
    "ReceivedDelivery",
    "RejectedError",
    "RequestRecord",
    "Retry",
    "RetryPolicy",
    "RetryTopics",
    "ScheduleDefinition",
    "ScheduleDescription",
    "ScheduleOptions",
    "ScheduledEvent",
    "Sent",
    "Transport",
    "UnavailableError",
    "UnknownEventError",
    "UnknownIdError",
    "cancel_request",
    "check",
    "dead_letter",
    "describe_request",
    "event_record",
    "pause_request",
    "preview",
    "rate_request",
    "read_event",
    "reschedule_request",
    "resume_request",
    "retry",
    "schedule_request",
    "trigger_request",
    "update_request",
]

_LATER = {
    "AsyncDeliveryConsumer": "consuming.async_consuming",
    "AsyncReceivedDelivery": "consuming.async_consuming",
    "DeliveryConsumer": "consuming.blocking_consuming",
    "ReceivedDelivery": "consuming.blocking_consuming",
    "AsyncBatch": "asynchronous",
    "AsyncClient": "asynchronous",
    "AsyncPending": "kafka.async_sending",
    "Batch": "blocking",
    "Client": "blocking",
    "Handle": "verbs",
    "Pending": "kafka.sending",
}
"""What is imported when it is first asked for: `import delaystream.client` is quick."""


def __getattr__(name: str) -> Any:
    from importlib import import_module

    try:
        module = _LATER[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(f"delaystream.client.{module}"), name)
