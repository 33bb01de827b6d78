"""The engine's reports about itself: the metrics adapter listens, and so may tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from delaystream.codec.event import Unfired
from delaystream.engine.state.pending import PendingChange


class Phase(StrEnum):
    """Where in its life a partition processor is."""

    FENCING = "fencing"
    RECOVERING = "recovering"
    RUNNING = "running"
    BACKOFF = "backoff"
    STOPPED = "stopped"


class Wait(StrEnum):
    """Why something that is due has not gone out."""

    #: nothing keeps it: it waits for the worker
    FIREABLE = "fireable"
    #: its destination, or its tenant's part of it, has had what its rate allows
    RATE = "rate"
    #: a hold (a pause of many) keeps it back
    HOLD = "hold"
    #: its destination cannot be written to
    PARKED = "parked"


class Fires(msgspec.Struct, frozen=True):
    """The records that one transaction delivered to one destination."""

    #: how long after its due time each was fired, ms
    lateness_ms: Sequence[int]
    #: of those that could not be fired at their due times: (lateness, time since it became possible), ms.
    #: The others were as late as they were late after becoming fireable
    excused: Sequence[tuple[int, int]] = ()


class Work(msgspec.Struct, frozen=True):
    """The effects of one committed transaction."""

    #: requests by source topic
    accepted: Mapping[str, int]
    #: requests and fires by request topic and code
    rejected: Mapping[tuple[str, str], int]
    #: by destination
    fired: Mapping[str, Fires]
    #: from begin to commit, s
    seconds: float


class Observer(Protocol):
    """Hears of committed transactions and changes of state; calls are short and never raise."""

    def phase(self, partition: int, phase: Phase) -> None:
        """A processor entered a phase of its life."""
        ...

    def recovery(self, partition: int, applied: int, position: int, end: int) -> None:
        """Recovery has applied so many records and stands at ``position`` of ``end``."""
        ...

    def committed(self, partition: int, work: Work) -> None:
        """A transaction was committed."""
        ...

    def read(self, partition: int, positions: Mapping[str, int]) -> None:
        """Requests were applied: the next offset to apply, for each source topic where it has changed."""
        ...

    def overdue(self, partition: int, since_ms: Mapping[tuple[str, Wait], int]) -> None:
        """All that is due and was not fired, now: since when, by destination and by what it waits for.

        Milliseconds since the epoch; of several entries the earliest. FIREABLE counts from when nothing kept
        the entry any more, the others from its due time. What is due next is among it: a partition that does
        not get on from now on tells nothing more.
        """
        ...

    def missed(self, partition: int, missed: Mapping[tuple[Unfired, str], int]) -> None:
        """A committed transaction gave up due times, or let others stand for them: by reason, destination."""
        ...

    def trimmed(self, partition: int, topic: str, offsets: int) -> None:
        """So many offsets of a source topic were removed before they were read: up to so many requests."""
        ...

    def aborted(self, partition: int, reason: str) -> None:
        """A transaction failed; ``reason`` is the exception's class name."""
        ...

    def internal_error(self, partition: int) -> None:
        """Deciding on one record or entry failed as nobody expected, or a life of the processor did."""
        ...

    def pending(self, partition: int, count: int, oldest_due_ms: int | None) -> None:
        """Entries in the wheels, and when the earliest of them is due."""
        ...

    def counted(self, partition: int, change: PendingChange, *, anew: bool) -> None:
        """The counts of pending entries that have changed; ``anew``: all of them, and no others."""
        ...

    def parked(self, partition: int, destination: str, reason: str | None) -> None:
        """A destination was set aside (reason) or is in use again (None)."""
        ...


class Silence:
    """An observer that takes no notice."""

    def phase(self, partition: int, phase: Phase) -> None:
        """Take no notice."""

    def recovery(self, partition: int, applied: int, position: int, end: int) -> None:
        """Take no notice."""

    def committed(self, partition: int, work: Work) -> None:
        """Take no notice."""

    def read(self, partition: int, positions: Mapping[str, int]) -> None:
        """Take no notice."""

    def overdue(self, partition: int, since_ms: Mapping[tuple[str, Wait], int]) -> None:
        """Take no notice."""

    def missed(self, partition: int, missed: Mapping[tuple[Unfired, str], int]) -> None:
        """Take no notice."""

    def trimmed(self, partition: int, topic: str, offsets: int) -> None:
        """Take no notice."""

    def aborted(self, partition: int, reason: str) -> None:
        """Take no notice."""

    def internal_error(self, partition: int) -> None:
        """Take no notice."""

    def pending(self, partition: int, count: int, oldest_due_ms: int | None) -> None:
        """Take no notice."""

    def counted(self, partition: int, change: PendingChange, *, anew: bool) -> None:
        """Take no notice."""

    def parked(self, partition: int, destination: str, reason: str | None) -> None:
        """Take no notice."""
