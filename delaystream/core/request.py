"""A delay request after parsing: what to deliver, where and when. Later layers see no control header."""

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
"""One Kafka record header: name, value (None is Kafka's null). Order and repeats of a list of them matter."""


class Action(StrEnum):
    """What a request asks for (header `delaystream-action`)."""

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
    """What to do when the id already names a pending schedule (header `delaystream-if-exists`)."""

    REPLACE = "replace"
    KEEP = "keep"
    REJECT = "reject"


class CatchUp(StrEnum):
    """What a recurring schedule does about scheduled times that passed unfired (`delaystream-catch-up`)."""

    LATEST = "latest"
    ALL = "all"
    NONE = "none"


WantedStatus: TypeAlias = Literal["pending", "paused"]
"""The status that a schedule asks for (`delaystream-status`)."""


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
        return place(self.topic, self.origin) if self.origin else self.topic

    @property
    def text(self) -> str:
        """`place/partition/offset`, as headers, events and names have it."""
        return schedule_id(self.place, self.partition, self.offset)


class Match(msgspec.Struct, frozen=True, omit_defaults=True):
    """What of a tenant's a bulk command is about: what meets every condition given.

    The conditions are `tags`, `destination`, `id_prefix` and `key`; at least one is given.
    """

    tags: tuple[str, ...] = ()
    """All of them are among the schedule's."""
    destination: str | None = None
    """A topic name or a glob (`*`, `?`, `[...]`)."""
    id_prefix: str | None = None
    key: bytes | None = None
    """The key that is delivered, byte for byte; b"" is the empty key, and nothing stands for the null key."""
    arriving: bool = False
    """Of a pause: what matches and arrives before a resume is held as well."""
    anonymous: bool = False
    """Of a cancel: it is about requests without an id as well. A pause and a resume always are."""

    def fits_topic(self, topic: str) -> bool:
        """Whether what is delivered to a topic meets the condition on that."""
        return self.destination is None or matches_glob(topic, self.destination)

    def fits_tags(self, tags: Sequence[str]) -> bool:
        """Whether what has these tags meets the condition on those."""
        return not self.tags or set(self.tags).issubset(tags)


ON_LATE_FIRE = "fire"
ON_LATE_DROP = "drop"


class Terms(msgspec.Struct, frozen=True, gc=False):
    """What a request says beside what it asks for; None for what is not given.

    All but `note` need an id.
    """

    note: str | None = None
    """Why, for people: at most 1024 bytes of UTF-8."""
    if_version: int | None = None
    """Only when the id has this version, from 0 to 2^63-1; 0: only when it does not exist."""
    request_id: str | None = None
    """Names this request, 1 to 128 bytes: sent again, it is answered again and not carried out again.

    Unless it was rejected, or found no such id.
    """
    declared_by: str | None = None
    """Whose set of schedules the id belongs to, 1 to 128 bytes."""
    deploy: int | None = None
    """Which deployment of that set, from 0 to 2^63-1: a lower one is refused."""


NO_TERMS: Final = Terms()


class Lateness(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What a resume does about what is late, for this once; None: as the schedule itself says."""

    catch_up: CatchUp | None = None
    on_late: str | None = None
    """As `Request.on_late`."""
    grace_ms: int | None = None
    default_grace_ms: int | None = None
    """Beside `on_late`: the grace of a schedule that has none either."""


class Update(msgspec.Struct, frozen=True, gc=False):
    """What changes of a schedule but for when it fires: UNSET is not given and stays, None is cleared."""

    replaces_payload: bool = False
    """Whether the request's key, value and headers take the place of the stored ones."""
    destination: str | UnsetType = UNSET
    destination_partition: int | UnsetType = UNSET
    destination_key: bytes | UnsetType = UNSET
    on_late: str | UnsetType | None = UNSET
    """As `Request.on_late`; cleared it is 'fire' again."""
    grace_ms: int | UnsetType | None = UNSET
    catch_up: CatchUp | UnsetType = UNSET
    name: str | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET
    """Cleared they are ()."""


class Request(msgspec.Struct, frozen=True, gc=False):
    """One accepted delay request; built by `delaystream.codec.headers.RequestParser` only.

    Every action has `source`, `timestamp_ms`, `key`, `value`, `headers`, `reply_to`, `actor` and `terms`.
    What else means something depends on it; the rest has its default, and `destination` is empty:

    | action | also |
    |---|---|
    | `schedule` | what is not listed below, and `status` |
    | `cancel` | `id`, `subject` or `match` |
    | `pause` | `id` or `match`, `until_ms` |
    | `resume` | `id` or `match`, `lateness` |
    | `trigger`, `describe` | `id` or `subject` |
    | `reschedule` | `id` or `subject`, `due_ms`, `timing` |
    | `update` | `id`, `due_ms`, `timing`, `update` |
    | `rate` | `destination`, `rate` |
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
    """1 to `Limits.max_id_bytes` bytes of UTF-8, any characters; None: only its coordinates name it."""
    destination: str
    due_ms: tuple[int, ...]
    """Resolved due times in the order of the header's list, repeats kept; the position is the list index.

    () for a recurring schedule, and for commands that set no such times."""
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
    terms: Terms = NO_TERMS
    status: WantedStatus | None = None
    """None: not given."""
    subject: Coordinates | None = None
    """The request without an id that a command is about, in `source.topic`; the command then has no id."""
    until_ms: int | None = None
    """When a pause ends by itself, after `timestamp_ms`; None: never."""
    lateness: Lateness | None = None
    """Set for a resume that says anything of it."""
    timing: Timing | None = None
    """Set for `reschedule` and `update`: what changes of when a recurring schedule fires."""
    update: Update | None = None
    """Set for `update`."""
    relative: bool = False
    """Whether its due times count from its own timestamp (`delay`): sent again, it asks for other ones."""
    rate: float | None = None
    """Records a second, more than 0; None: whatever the settings say again."""
    defaults: Defaults = NO_DEFAULTS
    """Of its topic: `reschedule` and `update` need them where the schedule has nothing to keep."""

    @property
    def moment(self) -> Moment:
        """When it was asked for."""
        source = self.source
        return Moment((source.topic, source.partition, source.origin), source.offset, self.timestamp_ms)
