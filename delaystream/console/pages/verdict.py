"""One sentence for who opens the console at night: is all well, and if not, why, since when, and what to do.

Pure: it is decided on numbers that were looked up before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from delaystream.console.pages.rendering import address, length
from delaystream.core.instants import format_instant

SLOW: Final = 0.99
"""With a smaller share of fires within a second, the verdict is no longer good."""
OLD_MS: Final = 15_000
"""An answer that is older is said to be old before anything else is."""
SILENT_MS: Final = 150_000
"""A busy partition's owner writes of itself each minute by default: silent so long, it may be gone."""


class Tone(StrEnum):
    """How bad it is."""

    GOOD = "good"
    QUIET = "quiet"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True)
class Verdict:
    """What is said at the top."""

    tone: Tone
    headline: str
    detail: str
    since_ms: int | None = None
    #: name of a page of docs/runbooks
    runbook: str | None = None
    #: path of this console that shows more
    more: str | None = None
    #: path of this console that lists the events that are overdue
    events: str | None = None


@dataclass(frozen=True)
class Overdue:
    """Events that are due and were not delivered, not counting what a hold keeps back."""

    count: int
    #: whether there are more than were counted
    more: bool
    #: when the first of them was due, ms
    since_ms: int
    destinations: Sequence[str]
    partitions: Sequence[int]


@dataclass(frozen=True)
class Facts:
    """What a verdict is made from."""

    now_ms: int
    lag_ms: int | None
    #: copies that cannot be asked yet, of how many partitions
    missing: int
    partitions: int
    #: why something cannot be read
    problems: Sequence[str]
    overdue: Overdue | None
    #: destination -> (since when, why), of those that are set aside
    parked: dict[str, tuple[int, str]]
    #: destinations that are bound to a rate
    limited: frozenset[str]
    #: partition -> when its owner last wrote of itself; None: never
    told_at_ms: dict[int, int | None]
    #: fires of the last hour, and how many of them came within a second
    fired: int
    within_1s: float | None


def judge(facts: Facts) -> Verdict:
    """The worst that is true comes first."""
    if facts.missing:
        read = facts.partitions - facts.missing
        return Verdict(
            Tone.WARNING,
            "Still reading",
            f"{read} of {facts.partitions} partitions can be asked. What is said below is not all there is"
            + (f": {facts.problems[0]}" if facts.problems else "."),
            more="/partitions",
        )
    if facts.lag_ms is not None and facts.lag_ms > OLD_MS:
        why = f" {facts.problems[0]}" if facts.problems else " Kafka may not answer."
        return Verdict(
            Tone.WARNING,
            f"This is {length(facts.lag_ms)} old",
            f"The console no longer follows what the workers write.{why}",
            since_ms=facts.now_ms - facts.lag_ms,
            more="/partitions",
        )
    if facts.overdue is not None:
        overdue = address("/pending", due_to=format_instant(facts.now_ms))
        return replace(_late(facts, facts.overdue), events=overdue)
    return _on_time(facts)


def _late(facts: Facts, overdue: Overdue) -> Verdict:
    count = f"{overdue.count}{' or more' if overdue.more else ''}"
    one = overdue.count == 1 and not overdue.more
    headline = f"{count} event{'' if one else 's'} overdue"
    parked = [name for name in overdue.destinations if name in facts.parked]
    silent = [partition for partition in overdue.partitions if _silent(facts, partition)]
    to = f"{overdue.destinations[0]}" if overdue.destinations else "their destinations"
    if parked:
        since_ms, reason = facts.parked[parked[0]]
        others = f", and {len(parked) - 1} more destinations likewise" if len(parked) > 1 else ""
        more = address("/destinations", destination=parked[0])
        why = f"{parked[0]} cannot be written to: {reason}{others}. Other destinations go on."
        return Verdict(Tone.BAD, headline, why, since_ms, "destination-parked", more)
    if silent:
        names = ", ".join(map(str, silent[:3]))
        why = f"Nothing is heard from the owner of partition {names}. Its worker may be down."
        return Verdict(Tone.BAD, headline, why, overdue.since_ms, "partition-unowned", "/partitions")
    if any(name in facts.limited for name in overdue.destinations):
        why = f"{to} has a rate, and more is due than it lets through."
        return Verdict(Tone.WARNING, headline, why, overdue.since_ms, None, "/destinations")
    why = f"The workers are behind with what is due to {to}."
    return Verdict(Tone.BAD, headline, why, overdue.since_ms, "overdue-grows", "/partitions")


def _silent(facts: Facts, partition: int) -> bool:
    told_ms = facts.told_at_ms.get(partition)
    return told_ms is None or facts.now_ms - told_ms > SILENT_MS


def _on_time(facts: Facts) -> Verdict:
    if facts.within_1s is None:
        return Verdict(Tone.QUIET, "All quiet", "Nothing fired in the last hour, and nothing is overdue.")
    share = f"{facts.within_1s * 100:.2f}".rstrip("0").rstrip(".")
    fires = f"{facts.fired} fire{'' if facts.fired == 1 else 's'}"
    detail = f"{share} % of {fires} in the last hour came within 1 s of being due. Nothing is overdue."
    if facts.within_1s < SLOW:
        return Verdict(Tone.WARNING, "On time again", detail, None, "lateness-budget-burns", "/destinations")
    return Verdict(Tone.GOOD, "On time", detail)
