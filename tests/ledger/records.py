"""What goes into the ledger, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from hashlib import blake2b
from typing import Any, NamedTuple

from delaystream.core.identity import place, split_schedule_id

Headers = Sequence[tuple[str, bytes | None]]
PREFIX = "delaystream-"
PASSED = frozenset({"fired", "skipped", "missed", "expired", "moved", "quarantined", "completed"})
"""Types of events about what became of fires; the others are outcomes of requests."""
_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What is known of the system that the ledger is about, beside what went in and came out."""

    partitions: Mapping[str, int] = field(default_factory=dict)
    """Counts of topics, to check that records lie on the partition of their key."""
    largest: Mapping[str, int] = field(default_factory=dict)
    """Bytes of a record that topics take at most, where that is little."""
    request_partitions: int | None = None
    """Of the request topics: revisions follow from it. None: revisions are not checked."""
    clock_ahead_ms: int = 0
    """By how much a worker's clock may have been ahead of the broker's."""
    clock_behind_ms: int = 0
    """By how much it may have been behind."""
    id_retention_ms: int = 86_400_000
    """For how long an id that is over is remembered."""
    misfire_threshold_ms: int = 60_000
    """The most grace that there is with ``catch-up: none``."""
    gives_up_after_ms: int | None = None
    """For how long a fire waits for a destination that cannot be written; None: longer than the run."""
    troubled: Callable[[str, int, int], bool] = lambda *_: False
    """Whether a topic could not be written at some moment of a span, both ends included."""
    events_anonymous: bool = False
    """Whether acceptance and fires of requests without an id are told too."""
    drained: bool = False
    """Whether everything that was paused was resumed before the end: nothing may be left."""
    receipts_hindered: bool = False
    """Whether topics for receipts may not have been writable: an event may say that there is none."""
    calm_ms: int | None = None
    """From when on nothing befalls the system any more, by the broker's clock; None: that is not known."""


@dataclass(slots=True)
class Beat:
    """When a recurring schedule is to fire, as whoever asks for it knows: every so often, within bounds.

    The scheduled times are worked out here, from the definition alone.
    """

    every_ms: int
    anchor_ms: int
    """Some scheduled time, in bounds or not."""
    start_ms: int
    end_ms: int | None = None
    max_fires: int = 0
    jitter_ms: int = 0
    cron: str | None = None
    """The expression, where it is not an interval."""

    def due(self, scheduled_ms: int, fire_id: str) -> int:
        """When a scheduled time is due: its jitter is drawn from the id of its fire.

        Where the jitter does not fit before the next scheduled time, or the end, it is drawn in proportion.
        """
        drawn = int.from_bytes(blake2b(fire_id.encode(), digest_size=8).digest(), "big")
        drawn %= self.jitter_ms + 1
        later_ms = self.after(scheduled_ms)
        bound_ms = later_ms - 1 if later_ms is not None else self.end_ms
        if bound_ms is not None and bound_ms - scheduled_ms < self.jitter_ms:
            drawn = drawn * (bound_ms - scheduled_ms + 1) // (self.jitter_ms + 1)
        return scheduled_ms + drawn

    def after(self, time_ms: int) -> int | None:
        """The first scheduled time after one."""
        time_ms = max(time_ms, self.start_ms - 1)
        found = time_ms + self.every_ms - (time_ms - self.anchor_ms) % self.every_ms
        return found if self.end_ms is None or found <= self.end_ms else None

    def merged(self, old: Beat, asked_ms: int) -> Beat:
        """What a change of an old one makes of it: what this one does not say, stays."""
        start_ms = old.start_ms if self.start_ms == asked_ms else self.start_ms
        return replace(
            self,
            start_ms=start_ms,
            anchor_ms=self.anchor_ms if self.cron else start_ms,
            end_ms=old.end_ms if self.end_ms is None else self.end_ms,
            max_fires=self.max_fires or old.max_fires,
            jitter_ms=self.jitter_ms or old.jitter_ms,
        )

    def carried_on(self, old: Beat, next_ms: int, asked_ms: int) -> tuple[Beat, int] | None:
        """What it is, and its first time, when it takes the place of a live one that stands at `next_ms`.

        None: it has other times, and begins with the first one after it was asked for.
        """
        beat = self
        if (self.every_ms, self.cron) != (old.every_ms, old.cron):
            return None
        if self.start_ms == asked_ms:  # it says no start
            if old.start_ms > asked_ms:
                return None
            beat = replace(self, start_ms=old.start_ms, anchor_ms=old.anchor_ms)
        elif self.cron is None and self.start_ms != old.start_ms:
            return None
        first_ms = beat.after(next_ms - 1)
        return None if first_ms is None else (beat, first_ms)


@dataclass(frozen=True, slots=True)
class Selector:
    """The conditions of a bulk command that also requests without an id can meet."""

    destination: str | None = None
    """A glob."""
    key: bytes | None = None
    tag: str | None = None
    arriving: bool = False
    anonymous: bool = False

    def meets(self, request: Asked) -> bool:
        """Whether a request meets all of them."""
        key = request.delivered_key if request.has_delivered_key else request.key
        return (
            (self.destination is None or fnmatchcase(request.destination, self.destination))
            and self.key in (None, key)
            and (self.tag is None or self.tag in request.tags)
        )


class Once(NamedTuple):
    """What a resume says of what is late, for what it lets go; None: the schedule's own word."""

    catch_up: str | None = None
    on_late: str | None = None
    grace_ms: int | None = None


@dataclass(slots=True)
class Asked:
    """One request, as its producer knows it. Only the first six fields are needed for a plain one."""

    source: str
    """``topic/partition/offset``."""
    key: bytes | None
    value: bytes | None
    headers: Headers
    """The foreign headers, which are to be delivered."""
    destination: str
    due_ms: tuple[int, ...]
    timestamp_ms: int = 0
    id: str | None = None
    action: str = "schedule"
    if_exists: str = "replace"
    errors: frozenset[str] = frozenset()
    """Codes with which it may be refused; when it *must* be, ``due_ms`` is ()."""
    hopeless: bool = False
    """No fire of it can be delivered where it is asked for: all are to be quarantined."""
    on_late: str = "fire"
    grace_ms: int | None = None
    """None: never too late; of a recurring schedule, a quarter of an hour."""
    catch_up: str = "latest"
    delivered_key: bytes | None = None
    """The key that it is to be delivered with, where that is not ``key`` (see ``has_delivered_key``)."""
    has_delivered_key: bool = False
    destination_partition: int | None = None
    accepted_ms: int | None = None
    """When it was accepted (committed), if that is known: order is promised from then on."""
    receipt_expected: bool = False
    receipt_refused: bool = False
    """It asks for a receipt where none may be written: there is none, and its outcome says so."""
    beat: Beat | None = None
    """Of a recurring schedule."""
    wanted: str | None = None
    """The status that it asks for."""
    relative: bool = False
    """Whether its due times count from its own timestamp."""
    prefix: str | None = None
    """Of a bulk command: of the ids that it is about."""
    selector: Selector | None = None
    """Of a bulk command: what else it is about."""
    tags: tuple[str, ...] = ()
    subject: str | None = None
    """Of a command about a request without an id: where that stands."""
    request_id: str | None = None
    if_version: int | None = None
    declared_by: str | None = None
    deploy: int | None = None
    until_ms: int | None = None
    """Of a pause: when it is to end by itself."""
    update: Mapping[str, Any] | None = None
    """Of an update: the fields that it changes of the request that says what, and where to."""
    once: Once | None = None
    """Of a resume: what it says of what is late."""
    rate: float | None = None
    """Of a command about its destination: records a second; None: as the settings say."""

    def is_hopeless(self, topic: str) -> bool:
        """Whether no fire of it can be delivered to a topic.

        A topic for late fires may take what is too large for its own; no topic has a partition that is beyond
        those of all.
        """
        return self.hopeless and (topic == self.destination or self.destination_partition is not None)

    @property
    def is_of_no_schedule(self) -> bool:
        """Whether it is about a destination."""
        return self.action == "rate"

    @property
    def is_for_many(self) -> bool:
        """Whether it is a bulk command."""
        return self.prefix is not None or self.selector is not None

    def selects(self, id: str | None, payload: Asked | None) -> bool:
        """Whether a bulk command is about an id, or about a request without one."""
        if self.prefix is not None and not (id or "").startswith(self.prefix):
            return False
        return self.selector is None or (payload is not None and self.selector.meets(payload))

    @property
    def partition(self) -> tuple[str, int]:
        """Topic and partition of the request."""
        topic, partition, _ = self._stands
        return topic, partition

    @property
    def offset(self) -> int:
        """Its offset."""
        return self._stands[2]

    @property
    def _stands(self) -> tuple[str, int, int]:
        found = split_schedule_id(self.source)
        assert found is not None, self.source
        topic, partition, offset, origin = found
        return place(topic, origin), partition, offset

    def defines(self, beat: Beat | None) -> tuple[object, ...]:
        """What it asks for, whenever it is sent, where it recurs like that."""
        return (
            self.destination, None if beat else self.due_ms, beat, self.value, self.key, tuple(self.headers),
            self.on_late, self.grace_ms, self.catch_up, self.has_delivered_key, self.delivered_key,
            self.destination_partition,
        )  # fmt: skip

    def changed(self, command: Asked) -> Asked:
        """What it is after an update: this one stands for it still, and when it fires is told elsewhere."""
        if not command.update:
            return self
        return replace(self, **command.update, hopeless=self.hopeless and set(command.update) <= {"tags"})

    @property
    def diverts(self) -> bool:
        """Whether something else than firing was asked for when it is late."""
        return self.grace_ms is not None and self.on_late not in ("fire", self.destination)

    def by(self, once: Once | None) -> Asked:
        """The same, one-time, with what a resume says of what is late."""
        if once is None:
            return self
        return replace(
            self,
            on_late=self.on_late if once.on_late is None else once.on_late,
            grace_ms=self.grace_ms if once.grace_ms is None else once.grace_ms,
        )

    def is_late(self, due_ms: int, at_ms: int) -> bool:
        """Whether a one-time fire that is decided on at a time has outlived its grace."""
        return self.grace_ms is not None and at_ms - due_ms > self.grace_ms


def sent_again(first: Asked, now_ms: int) -> Asked:
    """A request whose record is produced once more, as it is then."""
    request = replace(first, source="", timestamp_ms=now_ms, accepted_ms=None)
    if first.relative:
        request.due_ms = tuple(due_ms - first.timestamp_ms + now_ms for due_ms in first.due_ms)
    if (beat := first.beat) is not None:
        if beat.start_ms == first.timestamp_ms:
            request.beat = beat = replace(beat, start_ms=now_ms, anchor_ms=beat.anchor_ms and now_ms)
        if beat.after(now_ms) is None:
            request.errors = frozenset({"never-fires"})
    if first.until_ms is not None and first.until_ms <= now_ms:
        request.errors = frozenset({"invalid-until"})
    return request


@dataclass(slots=True)
class Delivered:
    """One record as a read_committed reader got it; times are the broker's or the reader's."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int
    appended_ms: int | None = None
    """When the broker appended it; None when that is not known."""
    decided_after_ms: int | None = None
    """When the commit before its own was decided, by the broker's clock; None when that is not known."""

    @property
    def where(self) -> str:
        """Its place, for people."""
        return f"{self.topic}-{self.partition}@{self.offset}"

    @property
    def foreign(self) -> list[tuple[str, bytes | None]]:
        """The headers that are not ours."""
        return [header for header in self.headers if not header[0].startswith(PREFIX)]

    @property
    def ours(self) -> list[str]:
        """The names of the headers that are, without their prefix."""
        return [name.removeprefix(PREFIX) for name, _ in self.headers if name.startswith(PREFIX)]

    @property
    def size_bytes(self) -> int:
        """Key, value and headers."""
        size = len(self.key or b"") + len(self.value or b"")
        return size + sum(len(name) + len(content or b"") for name, content in self.headers)

    def header(self, name: str) -> str:
        """The last value of one of our headers; '' when there is none."""
        for found, value in reversed(self.headers):
            if found == PREFIX + name:
                return (value or b"").decode()
        return ""


class Fire(NamedTuple):
    """One delivery, taken apart."""

    record: Delivered
    fire_id: str
    due_ms: int
    fired_ms: int


class Told(NamedTuple):
    """One event, read."""

    facts: dict[str, Any]
    record: Delivered

    @property
    def kind(self) -> str:
        """Its type."""
        return str(self.facts["type"])

    @property
    def at_ms(self) -> int:
        """When the worker decided what it tells, by its own clock."""
        return int(self.facts["at_ms"])

    def __str__(self) -> str:
        return str({name: fact for name, fact in self.facts.items() if name != "schema_version"})


@dataclass
class Report:
    """What is wrong, as sentences; and how much was looked at."""

    lost: list[str] = field(default_factory=list)
    early: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    disordered: list[str] = field(default_factory=list)
    inconsistent: list[str] = field(default_factory=list)
    requests: int = 0
    delivered: int = 0
    quarantined: int = 0
    refused: int = 0
    dropped: int = 0

    @property
    def wrong(self) -> dict[str, list[str]]:
        """The findings by kind, without the kinds that have none."""
        kinds = ("lost", "early", "duplicated", "damaged", "disordered", "inconsistent")
        return {kind: found for kind in kinds if (found := getattr(self, kind))}

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.wrong

    def __str__(self) -> str:
        counts = ", ".join(f"{kind} {len(found)}" for kind, found in self.wrong.items()) or "all is well"
        lines = [
            f"{counts} ({self.requests} requests, {self.delivered} delivered, "
            f"{self.quarantined} quarantined, {self.refused} refused, {self.dropped} dropped)"
        ]
        for kind, found in self.wrong.items():
            lines += [f"  {kind}: {sentence}" for sentence in found[:_SHOWN]]
            if len(found) > _SHOWN:
                lines.append(f"  {kind}: ... and {len(found) - _SHOWN} more")
        return "\n".join(lines)
