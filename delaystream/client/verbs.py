"""The verbs of delaystream: the one contract of every client, and of batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, Unpack

from delaystream.client.consuming.events import ScheduledEvent, event_record
from delaystream.client.requests.composing import CheckedRequest, Composer
from delaystream.client.requests.descriptions import ScheduleDescription
from delaystream.client.requests.numbers import span
from delaystream.client.requests.options import (
    CancelOptions,
    Changes,
    PauseOptions,
    RescheduleOptions,
    ResumeOptions,
    ScheduleOptions,
    Telling,
    TriggerOptions,
    tag_list,
)
from delaystream.client.requests.outcomes import Accepted
from delaystream.client.requests.payloads import CORRELATION_ID, Headers, HeaderValue, Key, record_headers
from delaystream.client.requests.records import (
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
from delaystream.client.requests.timing import Duration
from delaystream.core.request import Coordinates

if TYPE_CHECKING:
    from delaystream.config import Settings

AcceptedT_co = TypeVar("AcceptedT_co", covariant=True)
DescribedT_co = TypeVar("DescribedT_co", covariant=True)

Change = Callable[[ScheduleDescription], Changes | None]
"""The change to a schedule as it is now; None: no change. It may be called again."""

RECEIPT_WAIT: Final = timedelta(seconds=15)
"""How long the receipt of what cannot do without one is waited for, unless it is said."""
CLOSE_TIMEOUT: Final = timedelta(seconds=30)
"""Longest wait of `close()` for acknowledgements."""
LONGEST_WAIT: Final = timedelta(days=3650)
"""The longest wait; a longer one becomes this: Python's locks take no more than some three hundred years."""
CONFLICTS: Final = 10
"""Most attempts of a change when other changes come first."""


class Verbs(ABC, Generic[AcceptedT_co, DescribedT_co]):
    """Requests and commands. None counts as not given.

    Each is checked as a worker does before anything is sent: RejectedError. Options are the headers of
    docs/headers.md with underscores; times are datetimes with an offset (or local ones of `timezone`),
    lengths of time timedeltas, and both may be text in the contract's notation. ValueError, TypeError for
    what cannot be written.

    A call is done when all in-sync replicas have the request: `Accepted`. With `wait` it is done when its
    receipt is there, and raises RejectedError where that refuses it, ReceiptTimeout where none comes in that
    time. UnavailableError where Kafka does not take it.
    """

    def __init__(self, composer: Composer) -> None:
        self._composer = composer

    @abstractmethod
    def _carry_out(self, request: CheckedRequest, wait: timedelta | None) -> AcceptedT_co: ...

    @abstractmethod
    def _ask_for(self, request: CheckedRequest, wait: timedelta) -> DescribedT_co: ...

    @abstractmethod
    def change(self, id: str, change: Change, *, wait: timedelta = RECEIPT_WAIT) -> AcceptedT_co:
        """Change a schedule by what it is: `change` is given its description, and says what is to change.

        Where somebody else has changed it in between, it is described and changed anew (at most `CONFLICTS`
        times; then RejectedError with the code `version-changed`). Each wait is at most `wait`. Raises
        UnknownIdError where there is no such schedule. Where nothing is to change, the description is what is
        accepted.
        """

    def send(self, record: RequestRecord, *, wait: timedelta | None = None) -> AcceptedT_co:
        """Send a request that was built by the functions of `delaystream.client.requests.records`."""
        return self._carry_out(self._composer.composed(record, waits=wait is not None), wait)

    def schedule(
        self,
        destination: str | None,
        value: Any = None,
        *,
        key: Key = None,
        headers: Headers = (),
        wait: timedelta | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> AcceptedT_co:
        """Deliver `value` to the topic `destination`: later (`delay`, `at`) or recurring (`every`, `cron`).

        Without `id` only its coordinates name it. An id that is in use is replaced, unless `if_exists` says
        otherwise.
        """
        record = schedule_request(
            self._composer.place, destination, value, key=key, headers=headers, **options
        )
        return self.send(record, wait=wait)

    def publish_with_delay(
        self,
        topic: str,
        value: Any,
        delay: Duration,
        *,
        key: Key = None,
        headers: Headers = (),
        correlation_id: str | None = None,
        wait: timedelta | None = None,
    ) -> AcceptedT_co:
        """Deliver `value` to `topic` once, `delay` from now; the header `correlation_id` goes with it."""
        pairs: list[tuple[str, HeaderValue]] = [*record_headers(headers)]
        if correlation_id is not None:
            pairs.append((CORRELATION_ID, correlation_id))
        return self.schedule(topic, value, key=key, headers=pairs, delay=delay, wait=wait)

    def schedule_event(
        self,
        event: ScheduledEvent,
        *,
        correlation_id: str | None = None,
        headers: Headers = (),
        wait: timedelta | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> AcceptedT_co:
        """Deliver an event to the topic of its class, later: as `schedule`.

        Its name and the correlation id are tags of the request, beside those given, and headers of the
        delivery.
        """
        record = event_record(event, correlation_id)
        given: ScheduleOptions = {**options, "tags": [*record.tags, *tag_list(options.get("tags"))]}
        pairs = [*record.headers, *record_headers(headers)]
        return self.schedule(
            record.destination, record.value, key=record.key, headers=pairs, wait=wait, **given
        )

    def update(self, id: str, *, wait: timedelta | None = None, **changes: Unpack[Changes]) -> AcceptedT_co:
        """Change what is given of a schedule, and keep the rest; `CLEAR` takes away.

        `value` takes the place of key, value and headers together.
        """
        return self.send(update_request(self._composer.place, id, **changes), wait=wait)

    def cancel(
        self, id: str | None = None, *, wait: timedelta | None = None, **options: Unpack[CancelOptions]
    ) -> AcceptedT_co:
        """Cancel a schedule by its id, a request without one by its `coordinates`, or all that `match_…`
        select."""
        return self.send(cancel_request(self._composer.place, id, **options), wait=wait)

    def pause(
        self, id: str | None = None, *, wait: timedelta | None = None, **options: Unpack[PauseOptions]
    ) -> AcceptedT_co:
        """Keep a schedule from firing until it is resumed, or `until` a time; or all that `match_…`
        select."""
        return self.send(pause_request(self._composer.place, id, **options), wait=wait)

    def resume(
        self, id: str | None = None, *, wait: timedelta | None = None, **options: Unpack[ResumeOptions]
    ) -> AcceptedT_co:
        """End a pause. What was missed is subject to the schedule's `catch_up` and `grace`, or those given
        here."""
        return self.send(resume_request(self._composer.place, id, **options), wait=wait)

    def trigger(
        self, id: str | None = None, *, wait: timedelta | None = None, **options: Unpack[TriggerOptions]
    ) -> AcceptedT_co:
        """Fire a schedule now, beside its own times; a request without an id, in place of them."""
        return self.send(trigger_request(self._composer.place, id, **options), wait=wait)

    def reschedule(
        self, id: str | None = None, *, wait: timedelta | None = None, **options: Unpack[RescheduleOptions]
    ) -> AcceptedT_co:
        """Give a schedule another time; what it delivers, and where, stays."""
        return self.send(reschedule_request(self._composer.place, id, **options), wait=wait)

    def rate(
        self,
        destination: str,
        rate: float | str | None,
        *,
        wait: timedelta | None = None,
        **options: Unpack[Telling],
    ) -> AcceptedT_co:
        """Deliver to a topic at most so fast: records a second, or `600/m`; None: as the settings say."""
        return self.send(rate_request(self._composer.place, destination, rate, **options), wait=wait)

    def describe(
        self, id: str | None = None, *, wait: timedelta = RECEIPT_WAIT, **options: Unpack[TriggerOptions]
    ) -> DescribedT_co:
        """Tell what a schedule is and where it stands, in order with other commands about it.

        None for an id, or `coordinates`, of which nothing is known.
        """
        record = describe_request(self._composer.place, id, **options)
        return self._ask_for(self._composer.composed(record, waits=True), wait)

    def handle(self, id: str) -> Handle[AcceptedT_co, DescribedT_co]:
        """The commands about one id. Nothing is sent."""
        return Handle(self, id)


def itself(accepted: Accepted) -> Accepted:
    """The result of all that is not a describe."""
    return accepted


def described(accepted: Accepted) -> ScheduleDescription | None:
    """The answer of a describe; None if nothing is known."""
    return None if accepted.receipt is None else ScheduleDescription.of(accepted.receipt)


def raise_first(failures: Sequence[Exception]) -> None:
    """Raise the first of the failures of a batch, if there is one."""
    if not failures:
        return
    if len(failures) > 1:
        failures[0].add_note(f"{len(failures)} requests of the batch failed; this is the first.")
    raise failures[0]


def seconds(wait: timedelta | None) -> float | None:
    """For a transport, which takes no more than `LONGEST_WAIT`. Raises TypeError, ValueError."""
    if wait is None:
        return None
    return min(span("wait", wait), LONGEST_WAIT).total_seconds()


def accepted_as_it_is(found: ScheduleDescription) -> Accepted:
    """The outcome of a change that changes nothing: the description that it was decided on."""
    topic, partition, offset = found.receipt.source.rsplit("/", 2)
    source = Coordinates(topic, int(partition), int(offset))
    decided_ms = int(found.receipt.body.get("decided_at_ms", 0))
    return Accepted(Sent(source, decided_ms), found.id, found.receipt)


def kafka_settings(kafka: str | Mapping[str, str] | None, settings: Settings | None) -> Mapping[str, str]:
    """Kafka's client settings of a client. Raises TypeError, ConfigurationError."""
    from delaystream.config.errors import ConfigurationError
    from delaystream.config.kafka import SUPPORTED

    if kafka is None and settings is not None:
        return settings.kafka
    if kafka is None:
        raise TypeError("A client takes bootstrap servers, or settings or a transport in their place.")
    given = {"bootstrap.servers": kafka} if isinstance(kafka, str) else kafka
    if unknown := [name for name in given if name not in SUPPORTED]:
        raise ConfigurationError([f"Kafka's setting {name} is not supported." for name in unknown])
    return given


class Handle(Generic[AcceptedT_co, DescribedT_co]):
    """The commands about one schedule; made by `handle(id)`."""

    def __init__(self, client: Verbs[AcceptedT_co, DescribedT_co], id: str) -> None:
        self._client = client
        self.id = id

    def schedule(
        self,
        destination: str | None,
        value: Any = None,
        *,
        key: Key = None,
        headers: Headers = (),
        wait: timedelta | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> AcceptedT_co:
        """See `Verbs.schedule`."""
        named: ScheduleOptions = {**options, "id": self.id}
        return self._client.schedule(destination, value, key=key, headers=headers, wait=wait, **named)

    def schedule_event(
        self,
        event: ScheduledEvent,
        *,
        correlation_id: str | None = None,
        headers: Headers = (),
        wait: timedelta | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> AcceptedT_co:
        """See `Verbs.schedule_event`."""
        named: ScheduleOptions = {**options, "id": self.id}
        return self._client.schedule_event(
            event, correlation_id=correlation_id, headers=headers, wait=wait, **named
        )

    def cancel(self, *, wait: timedelta | None = None, **options: Unpack[CancelOptions]) -> AcceptedT_co:
        """See `Verbs.cancel`."""
        return self._client.cancel(self.id, wait=wait, **options)

    def pause(self, *, wait: timedelta | None = None, **options: Unpack[PauseOptions]) -> AcceptedT_co:
        """See `Verbs.pause`."""
        return self._client.pause(self.id, wait=wait, **options)

    def resume(self, *, wait: timedelta | None = None, **options: Unpack[ResumeOptions]) -> AcceptedT_co:
        """See `Verbs.resume`."""
        return self._client.resume(self.id, wait=wait, **options)

    def trigger(self, *, wait: timedelta | None = None, **options: Unpack[TriggerOptions]) -> AcceptedT_co:
        """See `Verbs.trigger`."""
        return self._client.trigger(self.id, wait=wait, **options)

    def reschedule(
        self, *, wait: timedelta | None = None, **options: Unpack[RescheduleOptions]
    ) -> AcceptedT_co:
        """See `Verbs.reschedule`."""
        return self._client.reschedule(self.id, wait=wait, **options)

    def describe(self, *, wait: timedelta = RECEIPT_WAIT) -> DescribedT_co:
        """See `Verbs.describe`."""
        return self._client.describe(self.id, wait=wait)

    def update(self, change: Change, *, wait: timedelta = RECEIPT_WAIT) -> AcceptedT_co:
        """See `Verbs.change`."""
        return self._client.change(self.id, change, wait=wait)
