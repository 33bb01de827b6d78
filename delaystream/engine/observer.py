"""What the engine tells of itself; the metrics adapter listens, tests may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from delaystream.codec.event import Unfired
from delaystream.engine.state.pending import PendingChange


class Phase(StrEnum):
    """Where in its life a partition processor is."""

    FENCING = "fencing"
    RECOVERING = "recovering"
    RUNNING = "running"
    BACKOFF = "backoff"
    STOPPED = "stopped"


class Observer(Protocol):
    """Hears what happened, after it is committed; calls are short and never raise."""

    def phase(self, partition: int, phase: Phase) -> None:
        """A processor entered a phase of its life."""
        ...

    def recovery(self, partition: int, applied: int, position: int, end: int) -> None:
        """Recovery has applied so many records and stands at ``position`` of ``end``."""
        ...

    def committed(
        self,
        partition: int,
        *,
        accepted: Mapping[str, int],
        rejected: Mapping[str, int],
        fired: Mapping[str, Sequence[int]],
        seconds: float,
    ) -> None:
        """A transaction was committed.

        Requests accepted by source topic, rejected by code; for each destination the lateness in ms of
        every record that was fired; how long the transaction took, from begin to commit.
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

    def committed(
        self,
        partition: int,
        *,
        accepted: Mapping[str, int],
        rejected: Mapping[str, int],
        fired: Mapping[str, Sequence[int]],
        seconds: float,
    ) -> None:
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
