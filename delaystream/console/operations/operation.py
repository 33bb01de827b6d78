"""An operation: its request, its items, and its progress. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Final

import msgspec

from delaystream.console.access.caller import Caller
from delaystream.core.identity import split_schedule_id
from delaystream.core.request import Coordinates

DRY_RUN_MS: Final = 15 * 60_000
"""A dry run can be started for so long."""
UNDO_MS: Final = 10 * 60_000
"""A cancel can be undone for so long after its end."""
SAMPLES: Final = 10
"""So many of what matches are shown."""
LISTED: Final = 10_000
"""So many can be given one by one."""
UNTIL: Final = "until"
"""Purpose of the second command of an item: the end of a pause."""
_NAME_BYTES: Final = 16


class Action(StrEnum):
    """What is done to each."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    TRIGGER = "trigger"
    #: what a cancel took away is sent again
    UNDO = "undo"


class Stage(StrEnum):
    """Where an operation stands."""

    #: what matches is being written down
    FREEZING = "freezing"
    DRY_RUN = "dry-run"
    RUNNING = "running"
    STOPPED = "stopped"
    DONE = "done"


class ItemStage(StrEnum):
    """Where one of what it is about stands."""

    WAITING = "waiting"
    #: the command is about to be sent, or was; its outcome is not known
    SENT = "sent"
    CHANGED = "changed"
    #: it was so already
    UNCHANGED = "unchanged"
    FAILED = "failed"


OPEN: Final = (ItemStage.WAITING, ItemStage.SENT)
"""What is left to do."""


class Sample(msgspec.Struct, frozen=True):
    """One of what matches."""

    request_topic: str
    #: None: it is known by its source
    id: str | None
    source: str
    destination: str
    name: str | None
    status: str
    next_at_ms: int | None


class Frozen(msgspec.Struct, frozen=True, kw_only=True):
    """The request, and the items that it found."""

    action: Action
    #: as the commands say them: `until`, `catch_up`, `on_late`, `grace`
    options: Mapping[str, str] = {}
    note: str | None = None
    #: the filter as it was asked; None: they were given one by one
    filter: Mapping[str, Any] | None = None
    #: request topics that were named, or that ids without one were looked for in: also those without a match
    asked: Sequence[str] = ()
    #: how many of each request topic
    topics: Mapping[str, int] = {}
    samples: Sequence[Sample] = ()
    #: fires that are due at once when it is carried out, at most
    at_once: int = 0
    #: of those given one by one: how many are not known, and the first of them
    unknown: int = 0
    unknown_first: Sequence[str] = ()
    #: of those given one by one: over, or so already
    passed_over: int = 0

    @property
    def about(self) -> frozenset[str]:
        """The request topics that it tells something of: what was asked for is shown, too."""
        return frozenset(self.topics) | frozenset(self.asked)

    @property
    def count(self) -> int:
        """How many it is about."""
        return sum(self.topics.values())


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One operation; times are wall clock, ms."""

    id: str
    frozen: Frozen
    stage: Stage
    made_ms: int
    made_by: str
    #: whoever started it: on whose behalf it is carried out, and with whose rights
    caller: Caller | None = None
    started_ms: int | None = None
    ended_ms: int | None = None
    #: commands a second
    rate: int | None = None
    #: what keeps it from going on, or ended it
    problem: str | None = None
    #: the cancel that it undoes, and the operation that undoes it
    undo_of: str | None = None
    undone_by: str | None = None

    @property
    def actor(self) -> str | None:
        """Whoever started it, as events have it."""
        return None if self.caller is None else self.caller.who.actor

    @property
    def action(self) -> Action:
        """What is done to each."""
        return self.frozen.action

    @property
    def expires_ms(self) -> int | None:
        """Until when it can be started; None: it was."""
        return self.made_ms + DRY_RUN_MS if self.stage in (Stage.FREEZING, Stage.DRY_RUN) else None

    @property
    def undo_until_ms(self) -> int | None:
        """Until when it can be undone; None: it cannot."""
        if self.action is not Action.CANCEL or self.ended_ms is None or self.undone_by is not None:
            return None
        return self.ended_ms + UNDO_MS

    def expired(self, now_ms: int) -> bool:
        """Whether it is too late to start it."""
        return self.expires_ms is not None and now_ms >= self.expires_ms


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One of what an operation is about."""

    number: int
    request_topic: str
    #: an id, or coordinates
    about: str
    named: bool
    #: of the schedule when it was frozen; of an undo, when it was cancelled
    version: int
    stage: ItemStage = ItemStage.WAITING
    #: what has to be known to undo it, encoded (`delaystream.console.operations.restoring`)
    kept: bytes | None = None
    sent_ms: int | None = None
    decided_ms: int | None = None
    #: of its command, in the audit log
    entry: int | None = None

    @property
    def coordinates(self) -> Coordinates:
        """Of a request without an id."""
        return coordinates_of(self.about)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one."""

    number: int
    stage: ItemStage
    outcome: str
    #: of its command, in the audit log
    entry: int | None = None
    detail: str | None = None
    #: of the schedule afterwards
    version: int | None = None
    #: where the command stands: `topic/partition/offset`
    source: str | None = None
    decided_ms: int = 0


class Failure(msgspec.Struct, frozen=True):
    """One that was not changed, and why."""

    item: Item
    code: str
    detail: str | None


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far it is."""

    waiting: int = 0
    underway: int = 0
    changed: int = 0
    unchanged: int = 0
    failed: int = 0
    #: failures by code
    reasons: Mapping[str, int] = {}

    @property
    def left(self) -> int:
        """How many are not decided on."""
        return self.waiting + self.underway

    @property
    def done(self) -> int:
        """How many are."""
        return self.changed + self.unchanged + self.failed


def request_id(operation_id: str, number: int, purpose: str = "") -> str:
    """The name of an item's command: the same whoever sends it, and however often."""
    told = f"{operation_id}/{number}/{purpose}".encode()
    return blake2b(told, digest_size=_NAME_BYTES, person=b"operation").hexdigest()


def coordinates_of(text: str) -> Coordinates:
    """Coordinates from their text. Raises ValueError for what is none."""
    found = split_schedule_id(text)
    if found is None:
        raise ValueError(
            f"{text[:120]!r} is not the coordinates of a request; expected topic/partition/offset."
        )
    return Coordinates(*found)
