"""A delay request after parsing: payload, destination and times. Later layers see no control header."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from delaystream.core.defaults import NO_DEFAULTS, Defaults
from delaystream.core.globs import matches_glob
from delaystream.core.identity import place, schedule_id
from delaystream.core.order import Moment
from delaystream.core.recurrence import Recurrence, Timing

Header = tuple[str, bytes | None]
"""One Kafka record header: name, value (None is Kafka's null). In a list of headers, order and repeats
matter."""


class Action(StrEnum):
    """The action of a request (header `delaystream-action`)."""

    SCHEDULE = "schedule"
    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    TRIGGER = "trigger"
    RESCHEDULE = "reschedule"
    UPDATE = "update"
    DESCRIBE = "describe"
    RATE = "rate"


class IfExists(StrEnum):
    """The reaction when the id already names a pending schedule (header `delaystream-if-exists`)."""

    REPLACE = "replace"
    KEEP = "keep"
    REJECT = "reject"


class CatchUp(StrEnum):
    """How a recurring schedule treats scheduled times that passed unfired (`delaystream-catch-up`)."""

    LATEST = "latest"
    ALL = "all"
    NONE = "none"


WantedStatus: TypeAlias = Literal["pending", "paused"]
"""The status that a schedule asks for (`delaystream-status`)."""


class Coordinates(msgspec.Struct, frozen=True, gc=False):
    """The position of a record in Kafka. For a request: where its producer put it, before any re-routing."""

    topic: str
    partition: int
    offset: int
    origin: str = ""
    """The topic's id, for an imported record whose topic is not the one of that name that is read here."""

    @property
    def place(self) -> str:
        """The topic, marked with its origin. It identifies the topic, and is written into names."""
        return place(self.topic, self.origin) if self.origin else self.topic

    @property
    def text(self) -> str:
        """`place/partition/offset`, as in headers, events and names."""
        return schedule_id(self.place, self.partition, self.offset)


class Match(msgspec.Struct, frozen=True, omit_defaults=True):
    """The selection of a bulk command: those of a tenant's schedules that meet every given condition.

    The conditions are `tags`, `destination`, `id_prefix` and `key`; at least one is given.
    """

    tags: tuple[str, ...] = ()
    """The schedule has all of these tags."""
    destination: str | None = None
    """A topic name or a glob (`*`, `?`, `[...]`)."""
    id_prefix: str | None = None
    key: bytes | None = None
    """The delivered key, byte for byte. b"" is the empty key; the null key cannot be selected."""
    arriving: bool = False
    """For a pause: also hold matching schedules that arrive before a resume."""
    anonymous: bool = False
    """For a cancel: include requests without an id. A pause and a resume always include them."""

    def fits_topic(self, topic: str) -> bool:
        """Whether deliveries to a topic meet the condition on the destination."""
        return self.destination is None or matches_glob(topic, self.destination)

    def fits(self, tags: Sequence[str], key: bytes | None) -> bool:
        """Whether a schedule with these tags and this delivered key meets the conditions on both."""
        return (self.key is None or self.key == key) and self.fits_tags(tags)

    def fits_tags(self, tags: Sequence[str]) -> bool:
        """Whether a schedule with these tags meets the condition on tags: the key may be costly to read."""
        return not self.tags or set(self.tags).issubset(tags)


ON_LATE_FIRE = "fire"
ON_LATE_DROP = "drop"


class Terms(msgspec.Struct, frozen=True, gc=False):
    """Accompanying terms of a request; None: not given.

    All but `note` need an id.
    """

    note: str | None = None
    """The reason, for people: at most 1024 bytes of UTF-8."""
    if_version: int | None = None
    """Act only if the id has this version, from 0 to 2^63-1; 0: only if it does not exist."""
    request_id: str | None = None
    """Names this request, 1 to 128 bytes. The same request again is answered again, but not executed again.

    Exception: a request that was rejected, or found no such id, is executed again.
    """
    declared_by: str | None = None
    """The owner of the set of schedules that the id belongs to, 1 to 128 bytes."""
    deploy: int | None = None
    """The number of the set's deployment, from 0 to 2^63-1; a lower one is refused."""


NO_TERMS: Final = Terms()


class Lateness(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """How one resume treats late fires; None: as the schedule itself says."""

    catch_up: CatchUp | None = None
    on_late: str | None = None
    """As `Request.on_late`."""
    grace_ms: int | None = None
    default_grace_ms: int | None = None
    """With `on_late`: the grace of a schedule that has none of its own."""


class Update(msgspec.Struct, frozen=True, gc=False):
    """A schedule's changes, without those of its times. UNSET: not given, stays. None: cleared."""

    replaces_payload: bool = False
    """Whether the request's key, value and headers replace the stored ones."""
    destination: str | UnsetType = UNSET
    destination_partition: int | UnsetType = UNSET
    destination_key: bytes | UnsetType = UNSET
    on_late: str | UnsetType | None = UNSET
    """As `Request.on_late`; when cleared, it is 'fire' again."""
    grace_ms: int | UnsetType | None = UNSET
    catch_up: CatchUp | UnsetType = UNSET
    name: str | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET
    """When cleared, they are ()."""


class Request(msgspec.Struct, frozen=True, gc=False):
    """One accepted delay request; built by `delaystream.codec.requests.headers.RequestParser` only.

    Every action has `source`, `timestamp_ms`, `key`, `value`, `headers`, `reply_to`, `actor` and `terms`. The
    action decides which other fields have a meaning. The rest has its defaults, and `destination` is empty:

    | action | also | |---|---| | `schedule` | all fields not listed below, and `status` | | `cancel` | `id`,
    `subject` or `match` | | `pause` | `id` or `match`, `until_ms` | | `resume` | `id` or `match`, `lateness`
    | | `trigger`, `describe` | `id` or `subject` | | `reschedule` | `id` or `subject`, `due_ms`, `timing` | |
    `update` | `id`, `due_ms`, `timing`, `update` | | `rate` | `destination`, `rate` |
    """

    source: Coordinates
    """The tenant of a schedule is `source.topic`."""
    timestamp_ms: int
    """The record's timestamp, or the time it was first seen when it had none; never negative."""
    key: bytes | None
    value: bytes | None
    headers: list[Header]
    """Only the foreign headers, in order, with repeats; delivered byte for byte."""
    action: Action
    id: str | None
    """1 to `Limits.max_id_bytes` bytes of UTF-8, any characters. None: only the coordinates name the request.
    """
    destination: str
    due_ms: tuple[int, ...]
    """Resolved due times in the order of the header's list, repeats kept; the position is the list index.

    () for a recurring schedule, and for commands that set no such times."""
    destination_partition: int | None
    """Not negative. Nobody has checked here that the destination has this partition."""
    destination_key: bytes | None
    has_destination_key: bool
    """Whether `destination_key` replaces `key` on delivery."""
    if_exists: IfExists
    on_late: str
    """Rule for a fire that is later than `grace_ms`: 'fire', 'drop', or the topic to deliver to."""
    grace_ms: int | None
    """None: never too late; for a recurring schedule, the default grace."""
    reply_to: str | None
    """A topic that receipts may be written to."""
    name: str | None
    description: str | None
    tags: tuple[str, ...]
    recurrence: Recurrence | None = None
    """Set for a recurring schedule, which always has an id."""
    catch_up: CatchUp = CatchUp.LATEST
    """Only for a recurring schedule."""
    actor: str | None = None
    """The requester's name, as the request itself states it; unchecked."""
    match: Match | None = None
    """Set for a bulk command, which has no id."""
    no_receipt: str | None = None
    """Why there will be no receipt although one was requested; then `reply_to` is None."""
    terms: Terms = NO_TERMS
    status: WantedStatus | None = None
    """None: not given."""
    subject: Coordinates | None = None
    """The request without an id, in `source.topic`, that a command addresses; the command has no id."""
    until_ms: int | None = None
    """When a pause ends by itself, after `timestamp_ms`; None: never."""
    lateness: Lateness | None = None
    """Set for a resume that has its own rule for late fires."""
    timing: Timing | None = None
    """Set for `reschedule` and `update`: the change of a recurring schedule's times."""
    update: Update | None = None
    """Set for `update`."""
    relative: bool = False
    """Whether its due times count from its own timestamp (`delay`): the same request again has other due
    times."""
    rate: float | None = None
    """Records a second, more than 0. None: the settings' rate holds again."""
    defaults: Defaults = NO_DEFAULTS
    """The defaults of its topic. `reschedule` and `update` need them for values that the schedule does not
    have."""

    @property
    def moment(self) -> Moment:
        """The moment of the request."""
        source = self.source
        return Moment((source.topic, source.partition, source.origin), source.offset, self.timestamp_ms)
