"""Compares what a test expects to be scheduled with what is scheduled, and words the difference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from types import UnionType
from typing import TYPE_CHECKING, Any, Final, TypedDict

import orjson

from delaystream.client.requests.options import Tags
from delaystream.client.requests.payloads import payload, record_key
from delaystream.client.requests.timing import Zone, aware, length, whole_ms, zone_name
from delaystream.codec.envelope import LIVE, Envelope, Status
from delaystream.core.durations import format_duration, parse_duration
from delaystream.core.instants import format_instant
from delaystream.core.request import Coordinates
from delaystream.query.view import ScheduleView, view_of_unnamed

if TYPE_CHECKING:
    from delaystream.core.request import Header
    from delaystream.query.partition import StoredPartition
    from delaystream.query.view import PendingFire

#: Schedules that a message shows.
_SHOWN: Final = 10
_LONGEST: Final = 60


@dataclass(frozen=True, kw_only=True)
class Scheduled:
    """A schedule as it stands, or what is pending of a request without an id."""

    id: str | None
    source: str
    """`topic/partition/offset` of the request."""
    request_topic: str
    status: str
    """`pending` or `paused`; of what is over `fired`, `completed`, `cancelled`, ..."""
    destination: str
    next_at: datetime | None
    """The earliest time at which it fires; None while it is paused, and when it is over."""
    every: timedelta | None
    cron: str | None
    timezone: str | None
    tags: tuple[str, ...]
    fire_count: int
    key: bytes | None
    """As it is delivered."""
    value: bytes | None
    headers: tuple[Header, ...]

    @property
    def live(self) -> bool:
        """Whether anything of it may still fire."""
        return self.status in LIVE

    @property
    def endless(self) -> bool:
        """Whether it fires for ever, as far as is known."""
        return self.live and self.status != Status.PAUSED and (self.every, self.cron) != (None, None)


class Expected(TypedDict, total=False):
    """Fields that a test may expect of a schedule; a field that is left out may be anything.

    `next_at` is a time, or how far ahead it is; `tags` are some of its tags; `value` is compared as JSON,
    where it is neither bytes nor text. All may be said as a request says them.
    """

    id: str | None
    next_at: datetime | timedelta | None
    destination: str
    key: bytes | str | None
    value: Any
    every: timedelta | str | None
    cron: str | None
    timezone: Zone | None
    tags: Tags
    status: str
    request_topic: str
    source: str
    fire_count: int


_NAMES: Final = frozenset(Expected.__annotations__)


def schedules(partitions: Iterable[StoredPartition]) -> list[Scheduled]:
    """All that is stored: what fires next first, then what is paused, then what is over."""
    found: list[Scheduled] = []
    for partition in partitions:
        unnamed: dict[str, tuple[list[PendingFire], Envelope]] = {}
        for fire, entry in partition.entries():
            if isinstance(entry, Envelope):
                unnamed.setdefault(fire.source.text, ([], entry))[0].append(fire)
        for fires, first in unnamed.values():
            view = view_of_unnamed(fires, first, fires[0].held_by)
            found.append(_scheduled(view, fires[0].source.topic, first))
        for stored in partition.schedules():
            found.append(_scheduled(stored.view, stored.tenant, stored.payload))
    return sorted(found, key=_order)


def _order(one: Scheduled) -> tuple[bool, bool, float, str]:
    at = one.next_at.timestamp() if one.next_at is not None else 0.0
    return not one.live, one.next_at is None, at, one.id or one.source


def _scheduled(view: ScheduleView, topic: str, delivered: Envelope | None) -> Scheduled:
    definition = view.definition
    return Scheduled(
        id=view.id,
        source=view.source.text,
        request_topic=topic,
        status=view.status.value,
        destination=definition.destination,
        next_at=None if view.next_at_ms is None else aware(view.next_at_ms),
        every=length(definition.every_ms) if definition.every_ms else None,
        cron=definition.cron,
        timezone=definition.timezone,
        tags=tuple(definition.tags),
        fire_count=view.fire_count,
        key=None if delivered is None else delivered.delivered_key,
        value=None if delivered is None else delivered.value,
        headers=() if delivered is None else tuple(delivered.headers),
    )


def understood(expected: Mapping[str, Any]) -> dict[str, Any]:
    """What is expected, in the types of what is found.

    Raises TypeError for what is none of `Expected`, or cannot be equal to anything: it would be refuted
    whatever there is. ValueError for a time without zone, and for text that says nothing.
    """
    unknown = sorted(expected.keys() - _NAMES)
    if unknown:
        raise TypeError(f"A schedule has no field {unknown[0]}; there is {', '.join(sorted(_NAMES))}.")
    next_at = expected.get("next_at")
    if isinstance(next_at, datetime) and next_at.utcoffset() is None:
        raise ValueError(f"next_at={next_at!r} has no time zone: write datetime(..., tzinfo=UTC)")
    return {name: _understood(name, value) for name, value in expected.items()}


def _understood(name: str, value: Any) -> Any:
    if name == "value" or value is None:
        return value
    if name == "key":
        return record_key(value)
    if name == "every" and isinstance(value, str):
        value = length(parse_duration(value))
    elif name == "timezone":
        value = zone_name(value)
    elif name == "tags":
        tags = [value] if isinstance(value, str) else list(value)
        value = [tag.strip() for text in tags for tag in text.split(",") if tag.strip()]
    elif name == "source" and isinstance(value, Coordinates):
        value = value.text
    if not isinstance(value, _TYPES.get(name, str)):
        raise TypeError(
            f"{name}={value!r}: no schedule can match it; {type(value).__qualname__} is not the field's type"
        )
    return value


_TYPES: Final[Mapping[str, type | UnionType]] = {
    "next_at": datetime | timedelta,
    "every": timedelta,
    "tags": list,
    "fire_count": int,
}
"""The types of fields that are not text."""


def differences(one: Scheduled, expected: Mapping[str, Any], now: datetime) -> list[str]:
    """The names of what is not as expected."""
    return [name for name, value in expected.items() if not _is(one, name, value, now)]


def _is(one: Scheduled, name: str, value: Any, now: datetime) -> bool:
    found = getattr(one, name)
    if name == "next_at":
        return found is value or (found is not None and _is_at(found, value, now))
    if name == "tags":
        return set(value) <= set(found)
    if name == "value":
        return _same_value(found, value)
    return bool(found == value)


def _is_at(found: datetime, value: datetime | timedelta | None, now: datetime) -> bool:
    """To the millisecond: what is finer is rounded up, as in a request."""
    if value is None:
        return False
    ahead = value if isinstance(value, timedelta) else value - now
    return whole_ms(found - now) == whole_ms(ahead)


def _same_value(found: bytes | None, value: Any) -> bool:
    expected = payload(value)
    if found == expected or found is None or expected is None or isinstance(value, bytes | str):
        return found == expected
    try:
        return bool(orjson.loads(found) == orjson.loads(expected))
    except orjson.JSONDecodeError:
        return False


def described(expected: Mapping[str, Any]) -> str:
    """The expectation in words."""
    if not expected:
        return "anything"
    return ", ".join(f"{name}={_shown(value)}" for name, value in expected.items())


def listed(found: Sequence[Scheduled], now: datetime) -> str:
    """Schedules in words, one a line; a bounded number of them."""
    lines = [f"  {line(one, now)}" for one in found[:_SHOWN]]
    if len(found) > _SHOWN:
        lines.append(f"  and {len(found) - _SHOWN} more")
    return "\n".join(lines)


def line(one: Scheduled, now: datetime) -> str:
    """One schedule in words."""
    name = one.source if one.id is None else repr(one.id)
    parts = [f"{name} to {one.destination}"]
    if one.next_at is not None:
        parts.append(f"next at {_at(one.next_at)} ({_from(now, one.next_at)})")
    else:
        parts.append(one.status)
    if one.every is not None:
        parts.append(f"every {_length(one.every)}")
    if one.cron is not None:
        parts.append(f"cron {one.cron!r}" + (f" {one.timezone}" if one.timezone else ""))
    if one.tags:
        parts.append(f"tags {', '.join(one.tags)}")
    if one.key is not None:
        parts.append(f"key {_shown(one.key)}")
    if one.value is not None:
        parts.append(f"value {_shown(one.value)}")
    return ", ".join(parts)


def moment(at: datetime) -> str:
    """A time in words."""
    return _at(at)


def _at(at: datetime) -> str:
    return format_instant(round(at.timestamp() * 1000)).replace(".000Z", "Z")


def _length(of: timedelta) -> str:
    return format_duration(of // timedelta(milliseconds=1))


def _from(now: datetime, at: datetime) -> str:
    return "now" if at == now else f"in {_length(at - now)}" if at > now else f"{_length(now - at)} ago"


def _shown(value: Any) -> str:
    if isinstance(value, datetime):
        return _at(value) if value.utcoffset() is not None else repr(value)
    if isinstance(value, timedelta):
        return f"in {_length(value)}" if value >= timedelta() else repr(value)
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            pass
        else:
            return _cut(repr(value))
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


assert {field.name for field in fields(Scheduled)} >= _NAMES, "what is expected is what is known"
