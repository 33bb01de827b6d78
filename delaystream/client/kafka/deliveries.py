"""Deliveries to a consumer: records of a topic, with the headers of a delivery parsed.

`docs/headers.md` has the headers. Whoever may write to the topic may write anything: no record makes the
reading raise. What is no delivery, or has a header of ours that is none, has None there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import methodcaller
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from delaystream.client.requests.timing import aware, length
from delaystream.codec import outgoing
from delaystream.codec.requests import names
from delaystream.codec.requests.values import MAX_ATTEMPT
from delaystream.core.request import Header

if TYPE_CHECKING:
    from confluent_kafka import Message

NO_HEADERS: Final[Sequence[Header]] = (("(a name is not UTF-8)", None),)
"""In place of a record's headers that cannot be read."""
ATTEMPT: Final = names.PREFIX + names.ATTEMPT
"""The header that counts attempts."""

# Never `message.headers()`: of a name that is not UTF-8 it answers a tuple with nothing in it, and leaves an
# error behind. Where that is written as a call, Python looks for the error only the first few times; then it
# takes the tuple, and the process dies. A call from C is always looked at.
raw_headers: Final[Callable[[Message], list[Any] | None]] = methodcaller("headers")
"""`message.headers()`, for every record: UnicodeDecodeError or SystemError for a name that is not UTF-8."""

_MOST_DIGITS: Final = 18
_LONGEST_MS: Final = timedelta(days=999_999_999) // timedelta(milliseconds=1)


def headers_of(message: Message) -> list[Header]:
    """The headers of a record that confluent-kafka has read.

    Of a record with a name that is not UTF-8 confluent-kafka has none: `NO_HEADERS` stands for them.
    """
    try:
        found = raw_headers(message) or []
    except (UnicodeDecodeError, SystemError):  # the latter: its C code answers something beside the error
        return list(NO_HEADERS)
    return [(name, _bytes(value)) for name, value in found]


class FetchedRecord(Protocol):
    """A record as aiokafka's consumer has it."""

    @property
    def topic(self) -> str: ...  # noqa: D102
    @property
    def partition(self) -> int: ...  # noqa: D102
    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def timestamp(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...  # noqa: D102


@dataclass(frozen=True)
class Delivery:
    """A record read from a destination; None where it is not a delivery.

    `headers` are all of the record's, in order. `attempt` is 1 for what was not tried before.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]
    schedule_id: str | None = None
    """The schedule's id, or the coordinates of its request."""
    fire_id: str | None = None
    """The same on every copy of one fire, different for any two fires."""
    due_ms: int | None = None
    fired_ms: int | None = None
    source: str | None = None
    """`topic/partition/offset` of the request."""
    fire_count: int | None = None
    """How often the schedule has fired, this one included; without an id the place in the request's list."""
    skipped: int = 0
    """For how many earlier scheduled times it stands."""
    last_fired_ms: int | None = None
    next_ms: int | None = None
    attempt: int = 1
    """Which attempt at the same work it is."""

    @classmethod
    def of(
        cls,
        place: tuple[str, int, int],
        timestamp_ms: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header],
        **more: Any,
    ) -> Self:
        """The record at `place`: topic, partition, offset. `more` is what a subclass has beside.

        Where a delivery was itself delivered from a delivery, the last header of each name is ours.
        """
        ours = {name: text for name, text in headers if text is not None and name.startswith(names.PREFIX)}
        if not ours:
            return cls(*place, timestamp_ms=timestamp_ms, key=key, value=value, headers=headers, **more)
        return cls(
            *place,
            timestamp_ms=timestamp_ms,
            key=key,
            value=value,
            headers=headers,
            schedule_id=_text(ours.get(outgoing.SCHEDULE_ID)),
            fire_id=_text(ours.get(outgoing.FIRE_ID)),
            due_ms=_number(ours.get(outgoing.DUE_AT)),
            fired_ms=_number(ours.get(outgoing.FIRED_AT)),
            source=_text(ours.get(outgoing.SOURCE)),
            fire_count=_number(ours.get(outgoing.FIRE_COUNT)),
            skipped=_number(ours.get(outgoing.SKIPPED)) or 0,
            last_fired_ms=_number(ours.get(outgoing.LAST_FIRED_AT)),
            next_ms=_number(ours.get(outgoing.NEXT_AT)),
            attempt=min(_number(ours.get(ATTEMPT)) or 1, MAX_ATTEMPT),
            **more,
        )

    @classmethod
    def of_message(cls, message: Message, **more: Any) -> Self:
        """A record as confluent-kafka has it; its headers are `headers_of(message)`."""
        place = (message.topic() or "", message.partition() or 0, message.offset() or 0)
        key, value = _bytes(message.key()), _bytes(message.value())
        return cls.of(place, message.timestamp()[1], key, value, headers_of(message), **more)

    @classmethod
    def of_record(cls, record: FetchedRecord, **more: Any) -> Self:
        """A record as aiokafka has it."""
        place = (record.topic, record.partition, record.offset)
        return cls.of(place, record.timestamp, record.key, record.value, list(record.headers), **more)

    @property
    def coordinates(self) -> str:
        """`topic/partition/offset` of the record itself."""
        return f"{self.topic}/{self.partition}/{self.offset}"

    @property
    def identity(self) -> str:
        """The fire id; of a record that is no delivery its coordinates."""
        return self.fire_id or self.coordinates

    @property
    def is_readable(self) -> bool:
        """Whether its headers are known."""
        return self.headers != NO_HEADERS and tuple(self.headers) != NO_HEADERS

    @property
    def foreign(self) -> list[Header]:
        """The headers that are the producer's own: no name among them begins with `delaystream-`."""
        if not self.is_readable:
            return []
        prefix = names.PREFIX
        return [header for header in self.headers if header[0][: len(prefix)].lower() != prefix]

    def header(self, name: str) -> bytes | None:
        """The value of the last header of this name; None where there is none, or it is null."""
        return next((value for found, value in reversed(self.headers) if found == name), None)

    @property
    def lateness_ms(self) -> int | None:
        """When it stood on its topic minus when it was due; None for what delaystream did not deliver."""
        return None if self.due_ms is None else self.timestamp_ms - self.due_ms

    @property
    def due_at(self) -> datetime | None:
        """When it was due; of a recurring schedule the scheduled time."""
        return _aware(self.due_ms)

    @property
    def fired_at(self) -> datetime | None:
        """When the worker decided to deliver it."""
        return _aware(self.fired_ms)

    @property
    def last_fired_at(self) -> datetime | None:
        """When the schedule fired before this; None the first time, and without an id."""
        return _aware(self.last_fired_ms)

    @property
    def next_at(self) -> datetime | None:
        """The next scheduled time of a recurring schedule that is not paused."""
        return _aware(self.next_ms)

    @property
    def lateness(self) -> timedelta | None:
        """How long after it was due it stood on its topic, within what a timedelta holds."""
        late_ms = self.lateness_ms
        return None if late_ms is None else length(max(-_LONGEST_MS, min(late_ms, _LONGEST_MS)))


def _aware(time_ms: int | None) -> datetime | None:
    return None if time_ms is None else aware(time_ms)


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def _number(value: bytes | None) -> int | None:
    # Longer ones are no times of ours; they may come from anybody, and int() takes no thousands of digits.
    return int(value) if value is not None and value.isdigit() and len(value) <= _MOST_DIGITS else None
