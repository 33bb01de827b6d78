"""One line of an export: a JSON object with a `type`. Bytes are base64 (RFC 4648); null is Kafka's null.

| type | holds |
|---|---|
| `header` | format, which application, changelog and partition count, when, and the transfer if it is final |
| `position` | up to where a source partition was applied, and which topic of that name it was |
| `anonymous` | one fire of a request without an id |
| `schedule` | a named schedule: its record, its pending fires, its payload |
| `rate` | a tenant's rate for a destination that a command has set |
| `hold` | a bulk pause that stands |
| `ended-hold` | one that a resume has ended, and what that says of what is late |
| `command` | a request on its way to the partition that owns its id |
| `end` | how many entries there are, and the digest of all lines before it |

The lines have every stored field, by its name in `delaystream.codec.envelope`, so that nothing is lost.
`..._at` beside `..._at_ms` is the same time for people, and is not read. A missing field has its default; an
unknown type or field is refused.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from delaystream.codec.envelope import UNREADABLE, Answered, Ended, Envelope, Hold, Schedule
from delaystream.codec.envelope import Fire as Delivered
from delaystream.core.instants import format_instant
from delaystream.core.recurrence import Recurrence
from delaystream.core.request import Lateness
from delaystream.query.view import PendingFire

FORMAT: Final = 2

TOLD_APART: Final = frozenset({"pending", "forget_key", "until_key", "triggers", "payload"})
"""Fields of a schedule's record that a line has in another form: `fires`, `payload` and others."""
TOLD_LATER: Final[Mapping[str, Any]] = {
    "pending": [],
    "forget_key": None,
    "until_key": None,
    "triggers": [],
    "payload": None,
}

OF_A_HOLD: Final[Mapping[str, Any]] = {"until_key": None}
"""The fields of a hold that a line has in another form."""

Stored = TypeVar("Stored", Envelope, Schedule, Hold)


class LineError(ValueError):
    """A line cannot be read; the message says why."""


class Header(msgspec.Struct, frozen=True, tag_field="type", tag="header", omit_defaults=False):
    """The first line."""

    format: int
    app_id: str
    changelog_topic: str
    changelog_topic_id: str
    partitions: int
    exported_at_ms: int
    exported_at: str
    version: str
    transfer: str = ""
    """Name of the move that this export belongs to; empty if the application may still fire."""
    final: bool = False


class Position(msgspec.Struct, frozen=True, tag_field="type", tag="position"):
    """Next offset to apply from a source partition."""

    partition: int
    topic: str
    next_offset: int
    topic_id: str
    unread: int = 0
    """Number of records after it at the time of the export, up to a bound."""


class Fire(msgspec.Struct, frozen=True):
    """One entry of a wheel."""

    destination: str
    due_at_ms: int
    source: str
    """`place/partition/offset` of the request; `delaystream.core.identity` defines a place."""
    index: int
    wheel_tenant: str | None = None
    """The tenant that has a wheel of its own for the destination."""
    due_at: str = ""
    held_by: str | None = None
    """The hold that keeps it back, or did so before."""


class Triggered(msgspec.Struct, frozen=True):
    """A fire that a command triggered and that is not delivered yet; its source is the command."""

    fire: Fire
    revision: int
    revision_origin: str = ""


class Anonymous(msgspec.Struct, frozen=True, tag_field="type", tag="anonymous"):
    """A fire of a request without an id."""

    partition: int
    fire: Fire
    payload: dict[str, Any]


class Named(msgspec.Struct, frozen=True, tag_field="type", tag="schedule"):
    """A named schedule, of any status."""

    partition: int
    tenant: str
    id: str
    status: str
    fires: list[Fire]
    forget_at_ms: int | None
    """When the id of an ended schedule is forgotten."""
    schedule: dict[str, Any]
    payload: dict[str, Any] | None
    triggers: list[Triggered] = []
    until_ms: int | None = None
    """When its pause ends by itself."""
    next_at: str | None = None
    """Of a recurring schedule, running or paused."""


class Rate(msgspec.Struct, frozen=True, tag_field="type", tag="rate"):
    """A tenant's rate for a destination, set by a command; each partition has it."""

    partition: int
    tenant: str
    destination: str
    rate: float | None
    """Records a second. None: the settings' rate holds, and older commands are refused."""
    source: str
    """`place/partition/offset` of the command."""
    timestamp_ms: int
    actor: str | None = None
    note: str | None = None


class Holding(msgspec.Struct, frozen=True, tag_field="type", tag="hold"):
    """A hold of one partition."""

    partition: int
    hold: dict[str, Any]
    until_ms: int | None = None
    """When it ends by itself."""


class EndedHold(msgspec.Struct, frozen=True, tag_field="type", tag="ended-hold"):
    """A hold of one partition that has ended, while fires that it kept back may still be pending."""

    partition: int
    hold: dict[str, Any]
    ended_at_ms: int
    once: Lateness | None = None
    """The rule for those fires if they are late."""


class InFlight(msgspec.Struct, frozen=True, tag_field="type", tag="command"):
    """A record of the commands topic that was not applied."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


class End(msgspec.Struct, frozen=True, tag_field="type", tag="end"):
    """The last line."""

    anonymous: int
    schedules: int
    commands: int
    digest: str
    """`sha256:` and the hexadecimal digest of all lines before, with their line ends."""
    holds: int = 0


Line: TypeAlias = Header | Position | Anonymous | Named | Rate | Holding | EndedHold | InFlight | End

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Line, strict=True).decode


def encoded(line: Line) -> bytes:
    """The line with its line end."""
    return _encode(line) + b"\n"


def decoded(text: bytes) -> Line:
    """Raises LineError."""
    try:
        line: Line = _decode(text)
    except UNREADABLE as error:
        raise LineError(str(error)) from None
    return line


def fire(pending: PendingFire) -> Fire:
    """The part of a line that is an entry of a wheel; it also has the time for people."""
    due_ms = pending.due_at_ms
    return Fire(
        pending.destination,
        due_ms,
        pending.source.text,
        pending.index,
        pending.wheel_tenant,
        format_instant(due_ms),
        pending.held_by,
    )


def holding(partition: int, hold: Hold) -> Holding:
    """The line of a hold."""
    return Holding(partition, as_fields(hold, frozenset(OF_A_HOLD)), hold.until_ms)


def ended_hold(partition: int, ended: Ended) -> EndedHold:
    """The line of a hold that has ended."""
    fields = as_fields(ended.hold, frozenset(OF_A_HOLD))
    return EndedHold(partition, fields, ended.ended_ms, ended.once)


def as_fields(stored: msgspec.Struct, left_out: frozenset[str] = frozenset()) -> dict[str, Any]:
    """A stored struct, field by field, in JSON's types."""
    return {name: _plain(getattr(stored, name)) for name in stored.__struct_fields__ if name not in left_out}


def from_fields(given: Mapping[str, Any], kind: type[Stored], set_later: Mapping[str, Any]) -> Stored:
    """The reverse of `as_fields`; `set_later` are the omitted fields. Raises LineError."""
    values = {**given, **{name: msgspec.to_builtins(value) for name, value in set_later.items()}}
    if isinstance(recurrence := values.get("recurrence"), Mapping):
        values["recurrence"] = _array(recurrence, Recurrence)
    if isinstance(history := values.get("history"), list):
        values["history"] = [_array(entry, Delivered) for entry in history]
    if isinstance(answered := values.get("answered"), list):
        values["answered"] = [_array(entry, Answered) for entry in answered]
    try:
        return msgspec.convert(_array(values, kind), kind)
    except msgspec.ValidationError as error:
        raise LineError(str(error)) from None


def _plain(value: Any) -> Any:
    """Write inner structs with field names, because nobody could read their arrays."""
    if isinstance(value, msgspec.Struct) and value.__struct_config__.array_like:
        return as_fields(value)
    if isinstance(value, list) and value and isinstance(value[0], msgspec.Struct):
        return [as_fields(entry) for entry in value]
    return msgspec.to_builtins(value)


def _array(given: Any, kind: type[msgspec.Struct]) -> list[Any]:
    """A struct that is stored as an array, from named fields; missing fields have their defaults."""
    if not isinstance(given, Mapping):
        raise LineError(f"a {kind.__name__.lower()} is an object with the names of its fields")
    defaults = _defaults(kind)
    if unknown := given.keys() - defaults:
        name = sorted(unknown)[0]
        raise LineError(f"{name!r} is not a field of a {kind.__name__.lower()} that this version knows")
    tag = kind.__struct_config__.tag
    values = [given.get(name, default) for name, default in defaults.items()]
    if msgspec.NODEFAULT in values:
        name = next(name for name, value in zip(defaults, values, strict=True) if value is msgspec.NODEFAULT)
        raise LineError(f"{name!r} is missing")
    return values if tag is None else [tag, *values]


@cache
def _defaults(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The fields of a struct in order, with their defaults in JSON's types; NODEFAULT if there is none."""
    found = {}
    for field in msgspec.structs.fields(kind):
        made = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        found[field.name] = made if made is msgspec.NODEFAULT else msgspec.to_builtins(made)
    return found
