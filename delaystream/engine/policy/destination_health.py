"""Destinations in trouble: set aside, tried again with backoff, narrowed down to the record at fault.

This is knowledge about the world, not state: it outlives a failed transaction and the recovery after it,
and is gone with the process. Times are those of the event loop, in ms, but for ``since_ms``.
"""

from __future__ import annotations

import math
import sys

import msgspec

from delaystream.engine.policy.telling import Telling


class Trouble(msgspec.Struct):
    """The record of one destination that refused a write, or cannot be written."""

    reason: str
    #: wall clock of the first failure, ms
    since_ms: int
    attempts: int = 0
    #: not to be tried before this time of the event loop, ms
    until: float = 0.0
    #: when it was first set aside, the event loop's ms; None: it never was
    parked_at: float | None = None
    #: most entries to fire in one transaction, until one succeeds; None: no bound
    limit: int | None = None


class Width:
    """How much of a full step is tried: half as much after each one that was not written in time.

    A step may be too large for the brokers, or for the network, in the time of a transaction. With its full
    size it would be tried for ever.
    """

    #: steps that must succeed before twice as much is tried
    _STEPS = 20
    #: the share of a full step below which it is not the size that matters
    _LEAST = 1 / 4096

    def __init__(self) -> None:
        self._halvings = 0
        self._successes = 0

    def of(self, bound: int) -> int:
        """The bound on something in the next step; at least 1."""
        return max(1, bound >> self._halvings)

    def failed(self, share: float) -> None:
        """A step that held such a share of a full one was not written in time."""
        self._successes = 0
        if share > self._LEAST:
            self._halvings = min(self._halvings + 1, 12)

    def succeeded(self) -> None:
        """A step was written."""
        if self._halvings:
            self._successes += 1
            if self._successes >= self._STEPS:
                self._successes = 0
                self._halvings -= 1


class DestinationHealth:
    """The destinations of one partition that are in trouble, by topic."""

    #: from one line about missing receipts to the next
    _UNANSWERED_MS = 60_000

    def __init__(self, backoff_min_ms: int, backoff_max_ms: int) -> None:
        self._backoff_min_ms = backoff_min_ms
        self._backoff_max_ms = backoff_max_ms
        self._troubles: dict[str, Trouble] = {}
        #: when the last trouble of a topic ended, wall clock, ms
        self._recovered_ms: dict[str, int] = {}
        #: goes up with each destination that is parked, or not parked any more
        self.changes = 0
        #: what a record can cause again and again, in the log
        self.telling = Telling()
        #: wheel entries that were alone in a refused write, and why
        self.poisoned: dict[bytes, str] = {}
        #: the largest dead letter that is tried with all its bytes, and until when, the event loop's ms
        self._letter_max_bytes, self._letters_until = sys.maxsize, 0.0
        self.width = Width()
        #: requests without the receipt that they asked for, of which nothing was told yet, and when it was
        self._unanswered = 0
        self._unanswered_told = float("-inf")
        #: until when no receipts are written to a topic, the event loop's ms
        self._receipts_stopped: dict[str, float] = {}

    def __contains__(self, topic: str) -> bool:
        return topic in self._troubles

    def get(self, topic: str) -> Trouble | None:
        """A topic's trouble; None when nothing is wrong with it."""
        return self._troubles.get(topic)

    def parked_until(self, topic: str, loop_ms: float) -> float | None:
        """When the topic may be tried again, the event loop's ms; None: now."""
        trouble = self._troubles.get(topic)
        return trouble.until if trouble is not None and loop_ms < trouble.until else None

    def forget(self, topic: str) -> bool:
        """Nothing refers to the topic any more; whether it was in trouble."""
        trouble = self._troubles.pop(topic, None)
        self._recovered_ms.pop(topic, None)
        if trouble is not None and trouble.parked_at is not None:
            self.changes += 1
        return trouble is not None

    def parked(self) -> dict[str, Trouble]:
        """The destinations that were set aside and have taken nothing since."""
        return {topic: trouble for topic, trouble in self._troubles.items() if trouble.parked_at is not None}

    def unused(self, loop_ms: float) -> list[str]:
        """Forget the topics that could have been tried long ago and were not: nothing waits for them.

        Due fires are tried as soon as they may be. A topic without any would stay parked for ever.
        """
        unused = [
            topic
            for topic, trouble in self._troubles.items()
            if trouble.parked_at is not None and trouble.until + self._backoff_max_ms <= loop_ms
        ]
        for topic in unused:
            self.forget(topic)
        return unused

    def park(self, topic: str, reason: str, now_ms: int, loop_ms: float) -> Trouble:
        """The topic cannot be written: leave it alone for a while, longer each time."""
        trouble = self._troubles.setdefault(topic, Trouble(reason, now_ms))
        trouble.reason = reason
        backoff = min(self._backoff_max_ms, self._backoff_min_ms * 2 ** min(trouble.attempts, 30))
        trouble.attempts += 1
        trouble.until = loop_ms + backoff
        if trouble.parked_at is None:
            trouble.parked_at = loop_ms
            self.changes += 1
        return trouble

    def letter_refused(self, size_bytes: int, loop_ms: float) -> None:
        """The topic refused a dead letter of this size: none as large is tried until smaller ones are taken.

        And for a while after that.
        """
        self._letter_max_bytes = min(self.letter_max_bytes(loop_ms), size_bytes - 1)
        self._letters_until = math.inf

    def letter_taken(self, loop_ms: float) -> None:
        """The topic took a dead letter."""
        if self._letters_until == math.inf:
            self._letters_until = loop_ms + self._backoff_max_ms

    def letter_max_bytes(self, loop_ms: float) -> int:
        """The largest dead letter that is tried with all its bytes; one with more leaves them out."""
        return self._letter_max_bytes if loop_ms < self._letters_until else sys.maxsize

    def takes_receipts(self, topic: str, loop_ms: float) -> bool:
        """False while the topic is not to be tried, or refuses what receipts look like."""
        return self.parked_until(topic, loop_ms) is None and self._receipts_stopped.get(topic, 0.0) <= loop_ms

    def stop_receipts(self, topic: str, loop_ms: float) -> None:
        """The topic may have refused a receipt, as it was: write none there for the longest backoff."""
        self._receipts_stopped[topic] = loop_ms + self._backoff_max_ms

    def unanswered(self, count: int, loop_ms: float) -> int:
        """Requests got no receipt although they asked for one: how many to tell of now.

        0 while it was told a short time ago: requesters must not be able to fill the log.
        """
        self._unanswered += count
        if loop_ms - self._unanswered_told < self._UNANSWERED_MS:
            return 0
        told, self._unanswered, self._unanswered_told = self._unanswered, 0, loop_ms
        return told

    def through_wheel(self, topic: str, reason: str, now_ms: int) -> None:
        """The topic refused a record that came from no wheel: have all take their way through one."""
        self._troubles.setdefault(topic, Trouble(reason, now_ms))

    def bisect(self, topic: str, suspects: list[bytes], reason: str, now_ms: int) -> None:
        """One of the entries cannot be written as it is: try half as many; one that is alone is poisoned."""
        trouble = self._troubles.setdefault(topic, Trouble(reason, now_ms))
        trouble.reason = reason
        if len(suspects) == 1:
            self.poisoned[suspects[0]] = reason
        trouble.limit = max(1, len(suspects) // 2)

    def recovered_ms(self, topic: str) -> int:
        """When the last trouble of a topic ended, ms since the epoch; 0: it had none."""
        return self._recovered_ms.get(topic, 0)

    def succeeded(self, topic: str, now_ms: int) -> bool:
        """The topic took a write; True when that ends its trouble."""
        trouble = self._troubles.get(topic)
        if trouble is None:
            return False
        if trouble.limit is not None and trouble.limit < 1024:
            trouble.limit *= 2
            trouble.until = 0.0
            trouble.attempts = 0
            return False
        del self._troubles[topic]
        self._recovered_ms[topic] = now_ms
        if trouble.parked_at is not None:
            self.changes += 1
        return True
