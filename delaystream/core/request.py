"""A delay request after parsing: what to deliver, where and when. Later layers see no control header."""

from enum import StrEnum

import msgspec

from delaystream.core.identity import place
from delaystream.core.recurrence import Recurrence

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


class CatchUp(StrEnum):
    """What a recurring schedule does about scheduled times that passed unfired (`delaystream-catch-up`)."""

    LATEST = "latest"
    ALL = "all"
    NONE = "none"


class Coordinates(msgspec.Struct, frozen=True, gc=False):
    """Where a record stands in Kafka; of a request, where its producer put it, before any re-routing."""

    topic: str
    partition: int
    offset: int
    origin: str = ""
    """The topic's id, where it is not the topic of that name that is read here: what was imported."""

    @property
    def place(self) -> str:
        """The topic, marked with its origin: by this it is told apart, and written where names are made."""
        return place(self.topic, self.origin)


class Match(msgspec.Struct, frozen=True):
    """Which schedules of a tenant a bulk command is about: those that meet every condition given."""

    tags: tuple[str, ...] = ()
    """All of them are among the schedule's."""
    destination: str | None = None
    """A topic name or a glob (`*`, `?`, `[...]`)."""
    id_prefix: str | None = None


ON_LATE_FIRE = "fire"
ON_LATE_DROP = "drop"


class Request(msgspec.Struct, frozen=True, gc=False):
    """One accepted delay request; built by `delaystream.codec.headers.RequestParser` only.

    For the actions but `schedule` and `reschedule` only `source`, `timestamp_ms`, `id`, `match`, `reply_to`
    and `actor` mean something, and for `reschedule` those and what says when: `destination` is empty.
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
    """Resolved due times in the order of the header's list, repeats kept; the position is the list index.

    () for a recurring schedule, and for commands that set no time."""
    destination_partition: int | None
    """Not negative; whether the destination has that partition is not known here."""
    destination_key: bytes | None
    has_destination_key: bool
    """Whether `destination_key` replaces `key` on delivery."""
    if_exists: IfExists
    on_late: str
    """'fire', 'drop', or the topic to deliver to when a fire is later than `grace_ms`."""
    grace_ms: int | None
    """None: never too late; of a recurring schedule, its default."""
    reply_to: str | None
    """A topic that receipts may be written to."""
    name: str | None
    description: str | None
    tags: tuple[str, ...]
    recurrence: Recurrence | None = None
    """Set for a recurring schedule, which then has an id."""
    catch_up: CatchUp = CatchUp.LATEST
    """Of a recurring schedule."""
    actor: str | None = None
    """Who asks, as the request itself says; nobody has checked it."""
    match: Match | None = None
    """Set for a bulk command, which then has no id."""
    no_receipt: str | None = None
    """Why there will be no receipt although one was asked for; `reply_to` is None then."""
