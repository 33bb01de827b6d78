"""What goes into the ledger, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

Headers = Sequence[tuple[str, bytes | None]]
PREFIX = "delaystream-"
_SHOWN = 20


@dataclass(slots=True)
class Beat:
    """When a recurring schedule is to fire, as whoever asks for it knows: every so often, within bounds."""

    every_ms: int
    anchor_ms: int
    """Some scheduled time, in bounds or not."""
    start_ms: int
    end_ms: int | None = None
    max_fires: int = 0

    def after(self, time_ms: int) -> int | None:
        """The first scheduled time after one."""
        time_ms = max(time_ms, self.start_ms - 1)
        found = time_ms + self.every_ms - (time_ms - self.anchor_ms) % self.every_ms
        return found if self.end_ms is None or found <= self.end_ms else None

    def carried_on(self, old: Beat, next_ms: int, asked_ms: int) -> tuple[Beat, int] | None:
        """What it is, and its first time, when it takes the place of a live one that stands at `next_ms`.

        None: it has other times, and begins with the first one after it was asked for.
        """
        beat = self
        if (self.every_ms, self.anchor_ms) != (old.every_ms, old.anchor_ms):
            return None
        if self.anchor_ms:
            if self.start_ms != old.start_ms:
                return None
        elif self.start_ms == asked_ms:  # a cron expression without a start
            if old.start_ms > asked_ms:
                return None
            beat = replace(self, start_ms=old.start_ms)
        first_ms = beat.after(next_ms - 1)
        return None if first_ms is None else (beat, first_ms)


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
    cancel: bool = False
    if_exists: str = "replace"
    errors: frozenset[str] = frozenset()
    """Codes with which it may be refused; when it *must* be, ``due_ms`` is ()."""
    hopeless: bool = False
    """No fire of it can be delivered: all are to be quarantined."""
    may_quarantine: bool = False
    on_late: str = "fire"
    grace_ms: int | None = None
    delivered_key: bytes | None = None
    """The key that it is to be delivered with, where that is not ``key`` (see ``has_delivered_key``)."""
    has_delivered_key: bool = False
    destination_partition: int | None = None
    accepted_ms: int | None = None
    """When it was accepted (committed), if that is known: order is promised from then on."""
    receipt_expected: bool = False
    chronicled: bool = False
    """Judged by the events about its id (`tests.ledger.chronicle`): any command, any kind of schedule."""
    action: str = "schedule"
    beat: Beat | None = None
    """Of a recurring schedule."""
    prefix: str | None = None
    """Of a bulk command: of the ids that it is about."""

    @property
    def partition(self) -> tuple[str, str]:
        """Topic and partition of the request."""
        topic, partition, _ = self.source.rsplit("/", 2)
        return topic, partition

    @property
    def offset(self) -> int:
        """Its offset."""
        return int(self.source.rsplit("/", 1)[1])


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

    def header(self, name: str) -> str:
        """The last value of one of our headers; '' when there is none."""
        for found, value in reversed(self.headers):
            if found == PREFIX + name:
                return (value or b"").decode()
        return ""


class Fire(NamedTuple):
    """One delivery, taken apart."""

    record: Delivered
    index: int
    due_ms: int
    fired_ms: int


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
