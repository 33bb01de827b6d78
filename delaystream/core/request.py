"""A delay request after parsing: what to deliver, where and when. Later layers see no control header."""

from enum import StrEnum

import msgspec

Header = tuple[str, bytes | None]
"""One Kafka record header: name, value (None is Kafka's null). Order and repeats of a list of them matter."""


class Action(StrEnum):
    """What a request asks for (header `delaystream-action`)."""

    SCHEDULE = "schedule"
    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    TRIGGER = "trigger"
    RESCHEDULE = "reschedule"


class IfExists(StrEnum):
    """What to do when the id already names a pending schedule (header `delaystream-if-exists`)."""

    REPLACE = "replace"
    KEEP = "keep"
    REJECT = "reject"


class Coordinates(msgspec.Struct, frozen=True, gc=False):
    """Where a record stands in Kafka; of a request, where its producer put it, before any re-routing."""

    topic: str
    partition: int
    offset: int


ON_LATE_FIRE = "fire"
ON_LATE_DROP = "drop"


class Request(msgspec.Struct, frozen=True, gc=False):
    """One accepted delay request; built by `delaystream.codec.headers.RequestParser` only.

    For the action `cancel` only `source`, `timestamp_ms`, `id` and `reply_to` mean something: `destination`
    is empty and `due_ms` is ().
    """

    source: Coordinates
    """The tenant of a schedule is `source.topic`."""
    timestamp_ms: int
    """The record's timestamp, or the time it was first seen when it had none; never negative."""
    key: bytes | None
    value: bytes | None
    headers: list[Header]
    """The foreign headers only, in order, repeats included; delivered byte for byte."""
    action: Action
    id: str | None
    """1 to `Limits.max_id_bytes` bytes of UTF-8, any characters; None: nothing can address this schedule."""
    destination: str
    due_ms: tuple[int, ...]
    """Resolved due times in the order of the header's list, repeats kept; the position is the list index."""
    destination_partition: int | None
    """Not negative; whether the destination has that partition is not known here."""
    destination_key: bytes | None
    has_destination_key: bool
    """Whether `destination_key` replaces `key` on delivery."""
    if_exists: IfExists
    on_late: str
    """'fire', 'drop', or the topic to deliver to when a fire is later than `grace_ms`."""
    grace_ms: int | None
    """None: never too late."""
    reply_to: str | None
    name: str | None
    description: str | None
    tags: tuple[str, ...]
