"""Values of the state: versioned msgpack arrays, whose leading tag says type and age.

A value's first element is its tag. A new field is appended with a default, which old readers skip and
new readers fill in; a change of meaning takes a new tag. ``tests/unit/golden`` holds one encoding of
each tag ever released, and a test that they still read.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Final, TypeAlias

import msgspec

from delaystream.codec.keys import due_of, index_of
from delaystream.core.identity import place, schedule_id
from delaystream.core.order import Moment
from delaystream.core.recurrence import Recurrence
from delaystream.core.request import Action, CatchUp, Coordinates, Lateness, Match, Request


class Envelope(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=1):
    """A pending anonymous request: all that its delivery needs. Its due time is in its key."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp_ms: int
    #: -1: by key
    destination_partition: int = -1
    has_destination_key: bool = False
    destination_key: bytes | None = None
    #: 'fire', 'drop' or a topic
    on_late: str = "fire"
    #: -1: never too late
    grace_ms: int = -1
    #: of a request without an id
    tags: list[str] = []
    #: whether it goes out although a hold matches it: a trigger asked for it
    released: bool = False
    #: (partition, offset, origin) of bulk commands at work that were not about it before it went to the topic
    #: for late ones, and would be there
    swept: list[tuple[int, int, str]] = []

    @property
    def delivered_key(self) -> bytes | None:
        """The key that its delivery has."""
        return self.destination_key if self.has_destination_key else self.key


class Pointer(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=2):
    """A pending fire of a named schedule."""

    tenant: str
    id: str
    revision: int


class Forget(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=3):
    """An entry of the housekeeping wheel: this id is over since ``revision``."""

    tenant: str
    id: str
    revision: int


class Trigger(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=4):
    """A fire of a named schedule that a command asked for, beside those of the schedule itself."""

    tenant: str
    id: str
    revision: int
    #: coordinates of the command, in the tenant's topic
    partition: int
    offset: int
    #: that topic's id, and the id of the one that the revision is of, as in a schedule
    origin: str = ""
    revision_origin: str = ""


class Sweep(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=5):
    """An entry of the housekeeping wheel: go on with a bulk command, whose state is under this key."""

    key: bytes


class Wake(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=6):
    """An entry of the housekeeping wheel: the pause of this id ends by itself."""

    tenant: str
    id: str


class HoldEnd(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=7):
    """An entry of the housekeeping wheel: the hold under this key ends by itself.

    Or look whether anything is left of one that has ended.
    """

    key: bytes


#: An entry of a wheel.
Entry: TypeAlias = Envelope | Pointer | Forget | Trigger | Sweep | Wake | HoldEnd


class Status(StrEnum):
    """Where a named schedule stands."""

    PENDING = "pending"
    #: nothing of it fires until it is resumed
    PAUSED = "paused"
    #: one-time: every due time is over, and at least one was delivered
    FIRED = "fired"
    #: recurring: it has no further time
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    DROPPED = "dropped"
    QUARANTINED = "quarantined"
    #: never scheduled: a cancel came first and is remembered
    FORESTALLED = "forestalled"


LIVE: Final = (Status.PENDING, Status.PAUSED)
"""The statuses of a schedule that may still fire."""


class Past(IntEnum):
    """The outcomes of due times, in a schedule's history."""

    FIRED = 0
    TRIGGERED = 1
    #: they will never fire
    MISSED = 2
    #: a later fire stood for them
    SKIPPED = 3


RUNS: Final = (Past.MISSED, Past.SKIPPED)
"""Runs of times without a fire in a history."""


class Fire(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A delivery in a schedule's history, which `delaystream.core.identity.fire_id` names.

    Or what became of due times that had none: a run of them is one entry.
    """

    #: of a run, the first
    due_ms: int
    #: when it was decided; of a run, on the last of it
    fired_ms: int
    revision: int
    #: the list index, or that of a trigger
    index: int | str = 0
    #: of the revision, as in a schedule
    origin: str = ""
    kind: Past = Past.FIRED
    #: the last due time of a run; 0 of a delivery
    to_ms: int = 0
    #: due times of a run
    count: int = 1


class Triggered(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A triggered fire of a schedule that waits in a wheel."""

    #: of its wheel entry, with the command's offset
    key: bytes
    #: of the schedule when it was triggered
    revision: int
    #: of the command, in the tenant's topic
    partition: int
    #: the command's, and that of the revision, as in a schedule
    origin: str = ""
    revision_origin: str = ""


class Answered(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A request with a `request-id`, and how it was answered."""

    request_id: str
    #: one of `delaystream.codec.outgoing.Outcome`
    outcome: str
    #: of the schedule, after it
    version: int


class Schedule(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=10):
    """A named schedule: definition, status, counters and where its wheel entries are."""

    status: Status
    revision: int
    #: where and when the request that made this revision was produced
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    destination: str
    #: keys of the wheel entries that are still pending
    pending: list[bytes] = []
    fire_count: int = 0
    last_fire_id: str | None = None
    #: wheel entry of the housekeeping wheel, once the id is over
    forget_key: bytes | None = None
    name: str | None = None
    description: str | None = None
    tags: list[str] = []
    recurrence: Recurrence | None = None
    #: scheduled time of the next fire of a recurring schedule, paused or not; -1: none
    next_ms: int = -1
    catch_up: CatchUp = CatchUp.LATEST
    #: of a recurring schedule; that of a one-time schedule is in its payload
    grace_ms: int = -1
    #: deliveries that count against ``max_fires``: those of scheduled times, of this revision
    run_count: int = 0
    #: scheduled times that passed without a delivery of their own
    missed_count: int = 0
    #: earlier scheduled times that the next delivery stands for
    skipped: int = 0
    #: of a paused one-time schedule: (due_ms, list index) of what would be in the wheel
    held: list[tuple[int, int]] = []
    #: triggered fires that wait in the wheel
    triggers: list[Triggered] = []
    #: when it was last paused and last resumed; -1: never
    paused_ms: int = -1
    resumed_ms: int = -1
    #: its last deliveries, latest last
    history: list[Fire] = []
    actor: str | None = None
    #: what it delivers, an envelope as it is stored; None: under a key of its own, or over
    payload: bytes | None = None
    #: (partition, offset, origin) of bulk commands that are done with it before their sweeps come by: they
    #: were carried out on it, or it did not match them before a later command changed it, or came after them
    swept: list[tuple[int, int, str]] = []
    #: id of the topic that partition and offset are of, and of the one that the revision is of, where that is
    #: another topic of this name than the one that is read here: what was imported. Empty: it is that one
    origin: str = ""
    revision_origin: str = ""
    #: changes with every command that changes anything: the `revision` of the command
    version: int = 0
    #: why, as the last one said
    note: str | None = None
    #: whose set it belongs to, and by which deployment of that set; -1: it does not say
    declared_by: str | None = None
    deploy: int = -1
    #: the last requests with a request-id, latest last
    answered: list[Answered] = []
    #: of what defined it (`delaystream.engine.schedules.digest`); empty: whatever is sent again, replaces it
    digest: bytes = b""
    #: wheel entry of the housekeeping wheel, of a pause that ends by itself
    until_key: bytes | None = None
    #: what its last resume says of times that had passed by then
    once: Lateness | None = None
    #: timestamps of the request that made it and of the last one that changed it, ms, and who asked, cut; -1:
    #: not known
    created_ms: int = -1
    created_by: str | None = None
    updated_ms: int = -1
    updated_by: str | None = None
    #: the beginning of the key that it delivers with
    key: bytes | None = None
    #: when it last fired since it was scheduled or replaced; -1: never
    last_fired_ms: int = -1
    #: name of the hold that met it when it arrived; empty once it is resumed
    held_by: str = ""

    @property
    def source(self) -> Coordinates:
        """Where the request stood that asked for it last."""
        return Coordinates(self.topic, self.partition, self.offset, self.origin)

    @property
    def source_text(self) -> str:
        """`place/partition/offset` of that request."""
        return schedule_id(self.place if self.origin else self.topic, self.partition, self.offset)

    @property
    def moment(self) -> Moment:
        """When it was asked for, last."""
        return Moment((self.topic, self.partition, self.origin), self.offset, self.timestamp_ms)

    @property
    def place(self) -> str:
        """The topic that partition and offset are of, as it is written in names."""
        return place(self.topic, self.origin) if self.origin else self.topic

    @property
    def revision_place(self) -> str:
        """The topic that the revision is of, as it is written in fire ids."""
        return place(self.topic, self.revision_origin) if self.revision_origin else self.topic

    @property
    def ahead(self) -> list[tuple[int, int]]:
        """Its next fires while it is live, as (due ms, list index); of a recurring one its next time."""
        if self.recurrence is not None:
            return [(self.next_ms, 0)] if self.next_ms >= 0 else []
        return sorted([(due_of(key), index_of(key)) for key in self.pending] + self.held)

    @property
    def until_ms(self) -> int | None:
        """When its pause ends by itself; None: not before a resume, or it is not paused."""
        return None if self.until_key is None else due_of(self.until_key)

    @property
    def forget_ms(self) -> int | None:
        """When it is forgotten; None: it is not over."""
        return None if self.forget_key is None else due_of(self.forget_key)

    @property
    def paused_fires(self) -> int:
        """How many fires it would have in the wheels if it were not paused."""
        if self.status is not Status.PAUSED:
            return 0
        return len(self.held) if self.recurrence is None else int(self.next_ms >= 0)

    @property
    def over(self) -> bool:
        """Whether nothing is left of it to fire."""
        return not (self.pending or self.held or self.triggers or self.next_ms >= 0)


class Bulk(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """A command on one partition that takes a sweep: how far what is pending was gone through.

    It is about all that matches, or about the one request without an id that is its `subject`.
    """

    tenant: str
    partition: int
    offset: int
    timestamp_ms: int
    action: Action
    match: Match
    #: the key to go on from: of a schedule, and later of a wheel entry
    cursor: bytes
    #: its entry in the wheel of housekeeping
    entry: bytes
    #: of several that are at work, those with lower numbers came first
    number: int = 0
    #: schedules changed so far
    count: int = 0
    reply_to: str | None = None
    actor: str | None = None
    #: of the coordinates, as in a schedule
    origin: str = ""
    #: why, as the command says
    note: str | None = None
    #: of a pause: when it ends by itself, -1: never
    until_ms: int = -1
    #: of a resume
    once: Lateness | None = None
    #: schedules that it was about, whether or not there was something to change
    matched: int = 0
    #: fires without an id that it was about
    anonymous: int = 0
    #: of a pause, the name of its hold, if it has one; of a resume, those of the holds that it has ended
    holds: list[str] = []
    #: the request without an id that it is about: partition, offset and origin in the tenant's topic
    subject: tuple[int, int, str] | None = None
    #: of a reschedule, the new due time
    due_ms: int = -1
    #: entries of the subject that were found so far
    found: list[bytes] = []
    #: why there will be no receipt although one was asked for
    no_receipt: str | None = None
    #: of a resume: fires that were due when it was carried out
    at_once: int = 0
    #: whether its subject had been read here when it was taken up: what is read later is not over
    read: bool = True

    @property
    def source(self) -> Coordinates:
        """Where it stood."""
        return Coordinates(self.tenant, self.partition, self.offset, self.origin)

    @property
    def moment(self) -> Moment:
        """When it was asked for."""
        return Moment((self.tenant, self.partition, self.origin), self.offset, self.timestamp_ms)

    @property
    def place(self) -> tuple[int, int, str]:
        """Where it stood in the tenant's topic."""
        return self.partition, self.offset, self.origin

    @property
    def sweeps_wheels(self) -> bool:
        """Whether it goes through the entries without an id too."""
        if self.subject is not None:
            return True
        if self.match.id_prefix is not None:
            return False
        return bool(self.holds) if self.action is Action.PAUSE else self.match.anonymous


class Gathering(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """A bulk command on the partition that it was read from: what the others have reported."""

    action: Action
    #: partitions that have reported
    reported: list[int] = []
    count: int = 0
    actor: str | None = None
    #: why there will be no receipt although one was asked for
    no_receipt: str | None = None
    #: of a rate: whose it is, and records a second; None: what the settings say
    destination: str = ""
    rate: float | None = None
    #: as in a bulk command; of the holds, how many there were where there were most
    matched: int = 0
    anonymous: int = 0
    holds: int = 0
    #: of a pause: when it ends by itself, -1: never
    until_ms: int = -1
    #: as in a bulk command
    at_once: int = 0
    #: why, as the command says
    note: str | None = None


class Hold(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """A bulk pause that stands: what it matches of requests without an id is kept back when it comes due."""

    tenant: str
    #: where and when the pause was produced; what is newer is not concerned unless the match is `arriving`
    partition: int
    offset: int
    timestamp_ms: int
    match: Match
    #: names it, for as long as it stands: the coordinates of the first pause that asked for it
    name: str
    #: when it began, by the worker's clock
    since_ms: int
    actor: str | None = None
    note: str | None = None
    #: of the coordinates, as in a schedule
    origin: str = ""
    #: its entry in the wheel of housekeeping, if it ends by itself
    until_key: bytes | None = None

    @property
    def source(self) -> Coordinates:
        """Where the pause stood."""
        return Coordinates(self.tenant, self.partition, self.offset, self.origin)

    @property
    def moment(self) -> Moment:
        """When the pause was asked for."""
        return Moment((self.tenant, self.partition, self.origin), self.offset, self.timestamp_ms)

    @property
    def until_ms(self) -> int | None:
        """When it ends by itself; None: not before a resume."""
        return None if self.until_key is None else due_of(self.until_key)


class Ended(msgspec.Struct, frozen=True, array_like=True, tag=15):
    """A hold that has ended, while anything that it kept back may be pending: what becomes of that if late.

    Of a hold that met what arrives, the coordinates and the timestamp are those of the resume.
    """

    hold: Hold
    #: what was due by then, by the worker's clock
    ended_ms: int
    #: its entry in the wheel of housekeeping: when to look whether anything is left
    entry: bytes
    #: what the resume says; None: as each request says itself
    once: Lateness | None = None


class Before(msgspec.Struct, frozen=True, array_like=True, tag=17):
    """A hold as it was before a bulk command at work ended or changed it, for those that came before that."""

    #: key of the command's work
    bulk: bytes
    #: key of the hold
    key: bytes
    hold: Hold


class Rate(msgspec.Struct, frozen=True, array_like=True, tag=16):
    """How fast a destination gets a tenant's records, as a command said."""

    tenant: str
    destination: str
    #: records a second, in all partitions together; None: what the settings say, again
    rate: float | None
    #: where and when the command was produced
    partition: int
    offset: int
    timestamp_ms: int
    actor: str | None = None
    #: of the coordinates, as in a schedule
    origin: str = ""
    #: why, as the command says
    note: str | None = None

    @property
    def moment(self) -> Moment:
        """When the command was asked for."""
        return Moment((self.tenant, self.partition, self.origin), self.offset, self.timestamp_ms)


class SourcePosition(msgspec.Struct, frozen=True, array_like=True, tag=20):
    """Next offset to apply from a source topic, and which topic of that name it was."""

    next_offset: int
    topic_id: str


class SourceName(msgspec.Struct, frozen=True, array_like=True, tag=21):
    """An interned source partition."""

    topic: str
    partition: int
    #: the topic's id, as in a schedule
    origin: str = ""


class TransferState(StrEnum):
    """How far a move to another application is, as the state of either end tells it."""

    #: everything here was exported for good: it fires elsewhere
    EXPORTED = "exported"
    #: not everything is here yet
    IMPORTING = "importing"
    IMPORTED = "imported"


class Meta(msgspec.Struct, frozen=True, array_like=True, tag=22):
    """The circumstances that the partition's state was made for."""

    partitions: int
    format: int
    app_id: str = ""
    #: the last move that this state was part of
    transfer: str = ""
    #: where that move stands: one of TransferState, empty without one
    transfer_state: str = ""


class Parked(msgspec.Struct, frozen=True, array_like=True):
    """A destination that is set aside."""

    destination: str
    reason: str
    #: wall clock of the first failure, ms
    since_ms: int


class Bound(msgspec.Struct, frozen=True, array_like=True):
    """A rate of the settings; those that commands have set have rows of their own."""

    #: whose; empty: of all tenants together
    tenant: str
    #: topic name or glob
    destination: str
    #: records a second, in all partitions together
    rate: float


class PartitionStatus(msgspec.Struct, frozen=True, array_like=True, tag=24):
    """Who owns a partition, and what they know that is no state: for whoever looks from outside.

    It is as true as its owner is alive: nobody writes that they died, have stopped or recover.
    """

    #: the worker's instance id, or a name of its process
    owner: str
    host: str
    #: wall clock of the step that wrote it, ms
    written_ms: int
    #: by destination, `PARKED_TOLD` at most
    parked: list[Parked] = []
    #: how many there are
    parked_count: int = 0
    rates: list[Bound] = []


PARKED_TOLD: Final = 100
"""Most parked destinations that a status names."""

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""The exceptions of decoding wrong bytes; the latter two for text that is not UTF-8, and for arrays that are
nested too deeply."""

FORMAT: Final = 2
"""Of a partition's rows; another one is refused. 2: pointers are local, small payloads beside schedules."""

INLINE_BYTES: Final = 1024
"""A payload up to this size is in its schedule's row; a larger one is not written again by each fire."""

_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
decode_entry = msgspec.msgpack.Decoder(Entry).decode
decode_envelope = msgspec.msgpack.Decoder(Envelope).decode
decode_schedule = msgspec.msgpack.Decoder(Schedule).decode
decode_bulk = msgspec.msgpack.Decoder(Bulk).decode
decode_hold = msgspec.msgpack.Decoder(Hold).decode
decode_before = msgspec.msgpack.Decoder(Before).decode
decode_ended = msgspec.msgpack.Decoder(Ended).decode
decode_gathering = msgspec.msgpack.Decoder(Gathering).decode
decode_rate = msgspec.msgpack.Decoder(Rate).decode
decode_position = msgspec.msgpack.Decoder(SourcePosition).decode
decode_source = msgspec.msgpack.Decoder(SourceName).decode
decode_status = msgspec.msgpack.Decoder(PartitionStatus).decode
decode_meta = msgspec.msgpack.Decoder(Meta).decode


KEY_BYTES: Final = 256
"""As much of a delivered key is kept in its schedule's row, and told in events."""


ACTOR_CHARACTERS: Final = 256
"""As much of who made or changed a schedule is kept in its row."""


def kept_actor(actor: str | None) -> str | None:
    """The beginning of who asked."""
    return None if actor is None else actor[:ACTOR_CHARACTERS]


def kept_key(key: bytes | None) -> bytes | None:
    """The beginning of a key, cut between characters where it is UTF-8."""
    if key is None or len(key) <= KEY_BYTES:
        return key
    for length in range(KEY_BYTES, KEY_BYTES - 4, -1):
        try:
            key[:length].decode()
        except UnicodeDecodeError:
            continue
        return key[:length]
    return key[:KEY_BYTES]


def delivered_key(request: Request | Envelope) -> bytes | None:
    """The key that a request's fires have."""
    return request.destination_key if request.has_destination_key else request.key


def envelope_of(request: Request) -> Envelope:
    """The stored form of a request until it is due."""
    partition = request.destination_partition
    grace_ms = request.grace_ms
    return Envelope(
        request.key,
        request.value,
        request.headers,
        request.timestamp_ms,
        -1 if partition is None else partition,
        request.has_destination_key,
        request.destination_key,
        request.on_late,
        -1 if grace_ms is None else grace_ms,
        # A schedule has its tags beside what it delivers.
        [*request.tags] if request.id is None else [],
    )
