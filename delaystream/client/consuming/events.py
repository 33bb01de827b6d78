"""Events as classes: an event is scheduled as an object, and a consumer gets one of the same class back.

    class InvoiceDue(ScheduledEvent, topic="invoices", key="customer"):
        customer: str
        amount: Decimal

    client.schedule_event(InvoiceDue(customer="acme", amount=Decimal(7)), delay=timedelta(days=30))

Fields are those of a frozen dataclass, written as JSON and checked when they are read (msgspec). A pydantic
model is an event as well, by its own JSON: `class InvoiceDue(ScheduledEvent, BaseModel, topic="invoices")`.

The headers `event_type` and `event_version` say what it is, `correlation_id` what it belongs to; they are the
producer's own, so a delivery has them, and so has every retry of it.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Mapping
from typing import ClassVar, Final, Self, TypeVar, dataclass_transform
from uuid import UUID

import msgspec

from delaystream.client.consuming.retrying import EVENT_TYPE
from delaystream.client.kafka.deliveries import Delivery
from delaystream.client.requests.payloads import CORRELATION_ID, utf8
from delaystream.core.destinations import is_topic_name
from delaystream.core.rejection import shown
from delaystream.core.request import Header

EVENT_VERSION: Final = "event_version"
"""The header with the version of an event's class."""

_MOST_VERSION: Final = 2**31 - 1


class EventError(ValueError):
    """A delivery is no event of the classes that are expected; the message is a sentence."""


class UnknownEventError(EventError):
    """It has no `event_type`, or one that no class has."""


class EventVersionError(EventError):
    """It was written by a version of its class that is newer, or older than the class still reads."""


class InvalidEventError(EventError):
    """Its value is not what its class has."""


@dataclass_transform(frozen_default=True)
class ScheduledEvent:
    """The base of events. A subclass says where its events go, and is a frozen dataclass by itself.

    `topic`: the destination. `key`: the field that the record's key is made of; none: a null key. `name`: the
    name that stands in headers and tags; the class's own, unless it is given. `version` is raised when fields
    change; `reads_from` is the oldest version that the class still reads (its own, unless it is given).

    A subclass without `topic` is no event itself, but a base of events. Raises TypeError where the class is
    written, for what cannot be.
    """

    event_topic: ClassVar[str] = ""
    event_name: ClassVar[str] = ""
    event_key: ClassVar[str | None] = None
    event_version: ClassVar[int] = 1
    event_reads_from: ClassVar[int] = 1

    def __init_subclass__(
        cls,
        *,
        topic: str | None = None,
        key: str | None = None,
        name: str | None = None,
        version: int = 1,
        reads_from: int | None = None,
    ) -> None:
        super().__init_subclass__()
        if not hasattr(cls, "model_fields"):  # a pydantic model has its own fields
            dataclasses.dataclass(frozen=True)(cls)
        if topic is None:
            if key is not None or name is not None:
                raise TypeError(f"{cls.__qualname__} has no topic; expected one beside key or name.")
            return
        if not is_topic_name(topic):
            raise TypeError(f"{cls.__qualname__} has the topic {shown(topic)}, which is not a topic name.")
        if key is not None and not any(key in inspect.get_annotations(base) for base in cls.__mro__):
            raise TypeError(f"{cls.__qualname__} has no field {shown(key)} for its key.")
        oldest = version if reads_from is None else reads_from
        if not 1 <= oldest <= version <= _MOST_VERSION:
            raise TypeError(
                f"{cls.__qualname__} has version {version} and reads from {oldest}; expected "
                "1 <= reads_from <= version."
            )
        cls.event_topic, cls.event_key = topic, key
        cls.event_name = _tag("The name of an event", cls.__name__ if name is None else name)
        cls.event_version, cls.event_reads_from = version, oldest

    @classmethod
    def of_json(cls, value: bytes) -> Self:
        """An event from its JSON. Raises InvalidEventError with what is wrong, and where."""
        validate = getattr(cls, "model_validate_json", None)
        try:
            return validate(value) if validate is not None else msgspec.json.decode(value, type=cls)
        except (ValueError, RecursionError) as error:  # pydantic's and msgspec's are ValueErrors
            said = " ".join(str(error).split())
            raise InvalidEventError(f"The value cannot be read as {cls.event_name}: {said}.") from error

    def to_json(self) -> bytes:
        """The event as JSON. Raises TypeError for a field that has no counterpart there."""
        dump = getattr(self, "model_dump_json", None)
        return dump().encode() if dump is not None else msgspec.json.encode(self)


@dataclasses.dataclass(frozen=True, slots=True)
class EventRecord:
    """What an event is on its topic, and the tags of the request that schedules it."""

    destination: str
    key: bytes | None
    value: bytes
    headers: tuple[Header, ...]
    tags: tuple[str, ...]


def event_record(event: ScheduledEvent, correlation_id: str | None = None) -> EventRecord:
    """An event as a record: its name, and the correlation id, are tags.

    Raises TypeError for an object of a class that has no topic, and for a key that is no text, number, bytes
    or UUID; ValueError for a correlation id that cannot be a tag (it is empty, or has a comma or outer
    spaces).
    """
    kind = type(event)
    if not kind.event_topic:
        raise TypeError(f"{kind.__qualname__} has no topic: it is a base class, not an event.")
    headers: list[Header] = [
        (EVENT_TYPE, kind.event_name.encode()),
        (EVENT_VERSION, b"%d" % kind.event_version),
    ]
    tags = [kind.event_name]
    if correlation_id is not None:
        tags.append(_tag("The correlation id", correlation_id))
        headers.append((CORRELATION_ID, correlation_id.encode()))
    key = None if kind.event_key is None else _key(kind, event, kind.event_key)
    return EventRecord(kind.event_topic, key, event.to_json(), tuple(headers), tuple(tags))


EventT = TypeVar("EventT", bound=ScheduledEvent)


class Events:
    """Classes of events by their names: what a consumer expects. ValueError where two have one name."""

    def __init__(self, kinds: Iterable[type[ScheduledEvent]]) -> None:
        self._kinds: dict[str, type[ScheduledEvent]] = {}
        for kind in kinds:
            if not kind.event_topic:
                raise ValueError(f"{kind.__qualname__} has no topic: it is a base class, not an event.")
            if self._kinds.setdefault(kind.event_name, kind) is not kind:
                raise ValueError(f"Two classes have the name {shown(kind.event_name)}.")

    @property
    def kinds(self) -> Mapping[str, type[ScheduledEvent]]:
        """The classes by their names."""
        return self._kinds

    def of(self, delivery: Delivery) -> ScheduledEvent:
        """The event that a delivery holds: an object of one of the classes.

        Raises UnknownEventError, EventVersionError, InvalidEventError. The delivery itself still has its
        bytes.
        """
        name = _header(delivery, EVENT_TYPE)
        if name is None:
            raise UnknownEventError(f"{delivery.coordinates} is not an event: it has no header {EVENT_TYPE}.")
        kind = self._kinds.get(name)
        if kind is None:
            known = ", ".join(sorted(self._kinds)) or "none"
            raise UnknownEventError(
                f"{delivery.coordinates} is an event {shown(name)}, which is not expected here; expected: "
                f"{known}."
            )
        return read_event(kind, delivery)


def read_event(kind: type[EventT], delivery: Delivery) -> EventT:
    """The event of one class that a delivery holds.

    Raises UnknownEventError for one of another class, EventVersionError, InvalidEventError.
    """
    name = _header(delivery, EVENT_TYPE)
    if name != kind.event_name:
        what = "no event" if name is None else f"an event {shown(name)}"
        raise UnknownEventError(f"{delivery.coordinates} is {what}; expected {kind.event_name}.")
    version = _version(delivery)
    if version is None or not kind.event_reads_from <= version <= kind.event_version:
        written = _header(delivery, EVENT_VERSION) or "(none)"
        raise EventVersionError(
            f"{delivery.coordinates} is a {kind.event_name} of version {shown(written)}; this program reads "
            f"{kind.event_reads_from} to {kind.event_version}."
        )
    if delivery.value is None:
        raise InvalidEventError(f"{delivery.coordinates} is a {kind.event_name} without a value.")
    try:
        return kind.of_json(delivery.value)
    except InvalidEventError as error:
        raise InvalidEventError(f"{delivery.coordinates}: {error}") from error.__cause__


def _version(delivery: Delivery) -> int | None:
    written = delivery.header(EVENT_VERSION)
    return int(written) if written is not None and written.isdigit() and len(written) <= 10 else None


def _header(delivery: Delivery, name: str) -> str | None:
    value = delivery.header(name)
    return None if value is None else value.decode("utf-8", "replace")


def _key(kind: type[ScheduledEvent], event: ScheduledEvent, field: str) -> bytes | None:
    value = getattr(event, field)
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, bool | float) or not isinstance(value, str | int | UUID):
        raise TypeError(
            f"The key of {kind.__qualname__} is a {type(value).__qualname__}; expected text, bytes, a whole "
            "number or a UUID."
        )
    return utf8(f"the key of {kind.__qualname__}", str(value))


def _tag(what: str, text: str) -> str:
    if not text or text != text.strip() or "," in text:
        raise ValueError(
            f"{what} is {shown(text)}; expected text without a comma or outer spaces, for it is a tag."
        )
    utf8(what, text)
    return text
