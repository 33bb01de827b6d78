"""The options of requests, as keywords: every header of the contract, in Python's types.

docs/headers.md says what each means. None is as if it were not given; `CLEAR` takes away what a schedule has.
What does not belong together is refused as a worker would refuse it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from enum import Enum
from typing import Any, Final, Literal, TypeAlias, TypedDict

from delaystream.client.requests.numbers import whole_number
from delaystream.client.requests.payloads import Headers, Key, utf8, written
from delaystream.client.requests.timing import (
    Duration,
    Instant,
    Zone,
    duration_text,
    durations_text,
    instant_text,
    instants_text,
    zone_name,
)
from delaystream.codec.requests.names import PREFIX
from delaystream.core.request import Coordinates, Header


class Clear(Enum):
    """The type of `CLEAR`."""

    CLEAR = "none"


CLEAR: Final = Clear.CLEAR
"""Of a reschedule and an update: what the schedule has of this is taken away."""

Tags: TypeAlias = str | Iterable[str]
"""Tags; a text is a comma list."""
Number: TypeAlias = int | str


class Telling(TypedDict, total=False):
    """Options of every request."""

    actor: str | None
    note: str | None
    reply_to: str | None
    """The topic of its receipt; where it is waited for, the client's is the default."""


class Naming(Telling, total=False):
    """Options of a request about one id."""

    if_version: Number | None
    request_id: str | None


class Declaring(TypedDict, total=False):
    """Which set of schedules an id belongs to."""

    declared_by: str | None
    deploy: Number | None


class Selecting(TypedDict, total=False):
    """Which schedules, where it is not one by its id."""

    match_tags: Tags | None
    match_destination: str | None
    match_id_prefix: str | None
    match_key: Key


class Timing(TypedDict, total=False):
    """When."""

    delay: Duration | Sequence[Duration] | None
    at: Instant | Sequence[Instant] | None
    every: Duration | None
    cron: str | None
    timezone: Zone | Clear | None
    dst_gap: Literal["shift", "skip"] | None
    dst_overlap: Literal["first", "second", "both"] | None
    start: Instant | None
    end: Instant | Clear | None
    max_fires: Number | Clear | None
    jitter: Duration | Clear | None


class Lateness(TypedDict, total=False):
    """Options for late fires."""

    catch_up: Literal["latest", "all", "none"] | None
    on_late: str | Clear | None
    grace: Duration | Clear | None


class Placing(TypedDict, total=False):
    """Where in the destination, and with which key."""

    destination_partition: Number | None
    destination_key: Key


class Labelling(TypedDict, total=False):
    """For people, and for `match_tags`."""

    name: str | Clear | None
    description: str | Clear | None
    tags: Tags | Clear | None


class ScheduleOptions(Naming, Declaring, Timing, Lateness, Placing, Labelling, total=False):
    """Options of a request to deliver something."""

    id: str | None
    if_exists: Literal["replace", "keep", "reject"] | None
    status: Literal["pending", "paused"] | None
    attempt: Number | None


class CancelOptions(Naming, Declaring, Selecting, total=False):
    """Options of a cancel."""

    coordinates: Coordinates | str | None
    match_anonymous: bool | str | None


class PauseOptions(Naming, Selecting, total=False):
    """Options of a pause."""

    until: Instant | None
    match_new: bool | str | None


class ResumeOptions(Naming, Selecting, Lateness, total=False):
    """Options of a resume."""


class TriggerOptions(Naming, total=False):
    """Options of a trigger and of a describe."""

    coordinates: Coordinates | str | None


class RescheduleOptions(Naming, Timing, total=False):
    """Options of a reschedule."""

    coordinates: Coordinates | str | None


class Changes(Naming, Declaring, Timing, Lateness, Placing, Labelling, total=False):
    """Options of an update; an option that is not given stays as it was.

    `value` takes the place of key, value and headers together; None is a tombstone.
    """

    destination: str | None
    value: Any
    key: Key
    headers: Headers


def _text(name: str, value: Any, _options: Mapping[str, Any]) -> bytes:
    if type(value) is str and value.isascii():
        return value.encode()
    return utf8(name, value if isinstance(value, str) else _other(name, value))


def _whole(name: str, value: Any, _options: Mapping[str, Any]) -> bytes:
    if isinstance(value, str):
        return utf8(name, value)
    # Its own bounds are the contract's, and a request out of them is refused with its code.
    return b"%d" % whole_number(name, value, -_MOST, _MOST)


def _name(name: str, value: Any, _options: Mapping[str, Any]) -> bytes:
    if type(value) is str and value.isascii():
        return value.encode()
    if not isinstance(value, str):
        raise TypeError(f"{name} takes text, not {type(value).__qualname__}")
    return utf8(name, value)


def _other(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Coordinates):
        return value.text
    raise TypeError(f"{name} takes no {type(value).__qualname__}")


def _tags(name: str, value: Any, _options: Mapping[str, Any]) -> bytes:
    if isinstance(value, str):
        return utf8(name, value)
    tags = list(value)
    for tag in tags:
        if not isinstance(tag, str):
            raise TypeError(f"{name} takes texts, not {type(tag).__qualname__}")
        if "," in tag:
            raise ValueError(f"{name}: {tag!r} has a comma, which separates tags.")
    return utf8(name, ",".join(tags))


def tag_list(tags: Tags | Clear | None) -> list[str]:
    """Tags one by one."""
    if tags is None or isinstance(tags, Clear):
        return []
    return [tags] if isinstance(tags, str) else list(tags)


def _key(name: str, value: Any, _options: Mapping[str, Any]) -> bytes:
    return written(name, value)


def _duration(_name: str, value: Any, _options: Mapping[str, Any]) -> bytes:
    return utf8(_name, duration_text(value))


def _durations(_name: str, value: Any, _options: Mapping[str, Any]) -> bytes:
    return utf8(_name, durations_text(value))


def _zone_of(options: Mapping[str, Any]) -> Zone | None:
    zone = options.get("timezone")
    return None if isinstance(zone, Clear) else zone


def _instants(name: str, value: Any, options: Mapping[str, Any]) -> bytes:
    return utf8(name, instants_text(name, value, _zone_of(options)))


def _instant(name: str, value: Any, options: Mapping[str, Any]) -> bytes:
    return utf8(name, instant_text(name, value, _zone_of(options)))


def _zone(name: str, value: Any, _options: Mapping[str, Any]) -> bytes:
    return utf8(name, zone_name(value))


_MOST: Final = 2**64
"""Of any number in a request, by far."""

Writer: TypeAlias = Callable[[str, Any, Mapping[str, Any]], bytes]

_WRITERS: Final[Mapping[str, Writer]] = {
    **dict.fromkeys(
        (
            "action", "destination", "cron", "dst_gap", "dst_overlap", "catch_up", "on_late", "coordinates",
            "match_destination", "match_id_prefix", "match_new", "match_anonymous", "if_exists", "status",
            "payload", "rate", "reply_to", "name", "description", "actor", "note", "request_id",
            "declared_by",
        ),
        _text,
    ),
    **dict.fromkeys(("max_fires", "if_version", "destination_partition", "deploy", "attempt"), _whole),
    "id": _name,
    **dict.fromkeys(("tags", "match_tags"), _tags),
    **dict.fromkeys(("destination_key", "match_key"), _key),
    **dict.fromkeys(("every", "jitter", "grace"), _duration),
    **dict.fromkeys(("start", "end", "until"), _instant),
    "delay": _durations,
    "at": _instants,
    "timezone": _zone,
}  # fmt: skip
_WRITING: Final = {name: (PREFIX + name.replace("_", "-"), writer) for name, writer in _WRITERS.items()}


def control_headers(options: Mapping[str, Any]) -> list[Header]:
    """The control headers that options mean, in their order.

    Raises ValueError for what cannot be written, TypeError for an option that there is not.
    """
    headers: list[Header] = []
    for option, value in options.items():
        if value is None:
            continue
        try:
            name, writer = _WRITING[option]
        except KeyError:
            raise _unknown(option) from None
        content = b"none" if value is CLEAR else writer(option, value, options)
        headers.append((name, content))
    return headers


def _unknown(option: str) -> TypeError:
    close = get_close_matches(option, _WRITING, n=1)
    advice = f"; did you mean {close[0]}?" if close else ""
    return TypeError(f"There is no option {option!r} of a request{advice}")
