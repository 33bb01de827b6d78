"""The client: requests to delay and to schedule, and what comes of them, in Python's types.

`Client` blocks and `AsyncClient` does not; one contract holds for both. The functions that make requests
(`schedule_request`, …) are pure. No Kafka library is imported before a client connects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from delaystream.client.checking import RECEIPTS_TOPIC, check
from delaystream.client.deliveries import Delivery
from delaystream.client.descriptions import PastTimes, Payload, ScheduleDefinition, ScheduleDescription
from delaystream.client.options import CLEAR, Changes, ScheduleOptions
from delaystream.client.outcomes import (
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
from delaystream.client.preview import Occurrence, preview
from delaystream.client.records import (
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
from delaystream.client.transport import AsyncTransport, Transport
from delaystream.core.request import Coordinates

if TYPE_CHECKING:
    from delaystream.client.asynchronous import AsyncBatch, AsyncClient
    from delaystream.client.blocking import Batch, Client
    from delaystream.client.sending import Pending
    from delaystream.client.verbs import Handle

__all__ = [
    "CLEAR",
    "RECEIPTS_TOPIC",
    "Accepted",
    "AsyncBatch",
    "AsyncClient",
    "AsyncTransport",
    "Batch",
    "Changes",
    "Client",
    "ClientError",
    "Coordinates",
    "Delivery",
    "Handle",
    "MissingPartitionError",
    "MissingTopicError",
    "Occurrence",
    "PastTimes",
    "Payload",
    "Pending",
    "Place",
    "Receipt",
    "ReceiptTimeout",
    "RejectedError",
    "RequestRecord",
    "ScheduleDefinition",
    "ScheduleDescription",
    "ScheduleOptions",
    "Sent",
    "Transport",
    "UnavailableError",
    "UnknownIdError",
    "cancel_request",
    "check",
    "describe_request",
    "pause_request",
    "preview",
    "rate_request",
    "reschedule_request",
    "resume_request",
    "schedule_request",
    "trigger_request",
    "update_request",
]

_LATER = {
    "AsyncBatch": "asynchronous",
    "AsyncClient": "asynchronous",
    "Batch": "blocking",
    "Client": "blocking",
    "Handle": "verbs",
    "Pending": "sending",
}
"""What is imported when it is first asked for: `import delaystream.client` is quick."""


def __getattr__(name: str) -> Any:
    from importlib import import_module

    try:
        module = _LATER[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(f"delaystream.client.{module}"), name)
