"""Requests as records: what is asked for in Python's types -> topic, partition, key, value and headers.

The functions are pure, for whoever has a producer already, and a transaction with their own offsets in it.
What they return is checked when it is sent with a client, by `delaystream.client.check`, and by the worker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Self, Unpack

import msgspec
from msgspec.structs import replace

from delaystream.client.requests.numbers import whole_number
from delaystream.client.requests.options import (
    CancelOptions,
    Changes,
    PauseOptions,
    RescheduleOptions,
    ResumeOptions,
    ScheduleOptions,
    Telling,
    TriggerOptions,
    control_headers,
)
from delaystream.client.requests.payloads import Headers, Key, Serializer, payload, record_headers, record_key
from delaystream.codec.requests.names import PREFIX
from delaystream.core.partitioning import owner_partition
from delaystream.core.request import Coordinates, Header

_SUBJECTS: Final = (
    "coordinates",
    "destination",
    "match-destination",
    "match-id-prefix",
    "match-key",
    "match-tags",
)
"""The subject of a command without an id."""
_OF_A_VALUE: Final = ("key", "headers")


class RequestRecord(msgspec.Struct, frozen=True, gc=False):
    """A record for a request topic, as any client could produce it."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]
    partition: int | None = None
    """None: by the key, as the Java client's partitioner does (murmur2)."""
    id: str | None = None
    """The id that it names."""

    def at_owner(self, partitions: int) -> Self:
        """The same for the partition that owns its id, of so many of the topic; the key stays as it is.

        Without an id, or with a partition already, it is what it was.
        """
        if self.id is None or self.partition is not None:
            return self
        partition = owner_partition(self.id, partitions)
        return type(self)(self.topic, self.key, self.value, self.headers, partition, self.id)


class Sent(msgspec.Struct, frozen=True, gc=False):
    """A record that was acknowledged: where it stands, and the timestamp that it has there, ms."""

    source: Coordinates
    timestamp_ms: int


class Place(msgspec.Struct, frozen=True):
    """Where requests go, and how their values are written."""

    topic: str
    partitions: int | None = None
    """How many the topic has: a request with an id is then for the partition that owns it. None: by the
    key."""
    serializer: Serializer | None = None

    def __post_init__(self) -> None:
        """Raises ValueError, TypeError for `partitions` that is no number of them."""
        if self.partitions is not None:
            whole_number("partitions", self.partitions, 1)

    def record(self, record: RequestRecord) -> RequestRecord:
        """The record, for the partition that owns its id where that is known."""
        return record if self.partitions is None else record.at_owner(self.partitions)


def schedule_request(
    place: str | Place,
    destination: str | None,
    value: Any = None,
    *,
    key: Key = None,
    headers: Headers = (),
    **options: Unpack[ScheduleOptions],
) -> RequestRecord:
    """A request to deliver `value` to the topic `destination`; `place` is the request topic, or a `Place`.

    Raises ValueError, TypeError for what cannot be written.
    """
    if isinstance(place, str):
        place = Place(place)
    control = control_headers({"destination": destination, **options})
    record = RequestRecord(
        place.topic,
        record_key(key),
        payload(value, place.serializer),
        [*control, *record_headers(headers)] if headers else control,
        None,
        options.get("id"),
    )
    return record if place.partitions is None else record.at_owner(place.partitions)


def update_request(place: str | Place, id: str, **changes: Unpack[Changes]) -> RequestRecord:
    """A request to change of the schedule `id` what is given, and nothing else.

    Raises ValueError where there is a key, or headers, of no value.
    """
    place = _place(place)
    options: dict[str, Any] = dict(changes)
    replaces = "value" in options
    value = payload(options.pop("value", None), place.serializer)
    key, headers = options.pop("key", None), options.pop("headers", ())
    if not replaces and (key is not None or headers):
        raise ValueError("key and headers belong to a new value: give the value, too")
    record = command_request(
        place.topic, "update", id, {"payload": "replace" if replaces else None, **options}
    )
    if replaces:
        foreign = record_headers(headers)
        record = replace(record, key=record_key(key), value=value, headers=[*record.headers, *foreign])
    return place.record(record)


def cancel_request(
    place: str | Place, id: str | None = None, **options: Unpack[CancelOptions]
) -> RequestRecord:
    """A request to cancel a schedule by its id, or what `coordinates` or `match_…` name."""
    return _command(place, "cancel", id, options)


def pause_request(
    place: str | Place, id: str | None = None, **options: Unpack[PauseOptions]
) -> RequestRecord:
    """A request to pause a schedule by its id, or what `match_…` name."""
    return _command(place, "pause", id, options)


def resume_request(
    place: str | Place, id: str | None = None, **options: Unpack[ResumeOptions]
) -> RequestRecord:
    """A request to resume a schedule by its id, or what `match_…` name."""
    return _command(place, "resume", id, options)


def trigger_request(
    place: str | Place, id: str | None = None, **options: Unpack[TriggerOptions]
) -> RequestRecord:
    """A request to fire a schedule now, by its id or `coordinates`."""
    return _command(place, "trigger", id, options)


def reschedule_request(
    place: str | Place, id: str | None = None, **options: Unpack[RescheduleOptions]
) -> RequestRecord:
    """A request to give a schedule another time, by its id or `coordinates`."""
    return _command(place, "reschedule", id, options)


def describe_request(
    place: str | Place, id: str | None = None, **options: Unpack[TriggerOptions]
) -> RequestRecord:
    """A request to tell of a schedule, on the topic `reply_to`."""
    return _command(place, "describe", id, options)


def rate_request(
    place: str | Place, destination: str, rate: float | str | None, **options: Unpack[Telling]
) -> RequestRecord:
    """A request to deliver to `destination` at most so fast: records a second, or `600/m`, `36/h`.

    None: as the workers' settings say.
    """
    text = "none" if rate is None else rate if isinstance(rate, str) else _plain(rate)
    return _command(place, "rate", None, {"destination": destination, "rate": text, **options})


def _plain(rate: float) -> str:
    """All digits, and no exponent, which a rate does not have."""
    if isinstance(rate, bool):
        raise TypeError("rate takes a number, text or None, not bool")
    return f"{Decimal(str(rate)).normalize():f}"


def _command(place: str | Place, action: str, id: str | None, options: Mapping[str, Any]) -> RequestRecord:
    place = _place(place)
    return place.record(command_request(place.topic, action, id, options))


def command_request(
    topic: str, action: str, id: str | None, options: Mapping[str, Any] | None = None
) -> RequestRecord:
    """A request that is a command, as docs/headers.md has them, to the requests of `topic`.

    Its key is the id, or what else it is about: all requests about the same then stay in order on one
    partition. Without an id `options` must say what that is (`coordinates`, `match_tags`, …).
    """
    headers = control_headers({"action": action, "id": id, **(options or {})})
    key = _subject(headers) if id is None else id.encode()
    return RequestRecord(topic, key, None, headers, None, id)


def _subject(headers: Sequence[Header]) -> bytes:
    """The subject of a command without an id, in one form for every order of its options."""
    said = dict(headers)
    names = [PREFIX + subject for subject in _SUBJECTS]
    return b"\n".join(
        b"%b=%b" % (name.removeprefix(PREFIX).encode(), value)
        for name in names
        if (value := said.get(name)) is not None
    )


def _place(place: str | Place) -> Place:
    return Place(place) if isinstance(place, str) else place
