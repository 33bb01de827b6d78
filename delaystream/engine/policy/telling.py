"""Log lines of failures that repeat: the first ones in full, then one line a minute with their number.

Otherwise any producer whose records cause failures could fill the log. Pure: times are arguments, in ms.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Final

import msgspec

#: Failures of one kind that are told in full, before the others are counted.
IN_FULL: Final = 3
#: From one line with a number to the next; and how long a kind must be quiet to be told in full again.
EVERY_MS: Final = 60_000
#: Kinds that are told apart; the others count as one, until a kind has been quiet.
KINDS: Final = 100

_OTHERS: Final = object()


class Untold(msgspec.Struct, frozen=True):
    """Failures of one kind that were only counted: how many, and the text of the last one."""

    count: int
    last: str


class _Kind:
    """The failures of one kind so far."""

    def __init__(self, now_ms: float) -> None:
        self.in_full = 0
        self.untold = 0
        self.last = ""
        self.heard_ms = now_ms
        #: when what was counted is told
        self.due_ms = now_ms + EVERY_MS


class Telling:
    """Decides which of many failures are logged; what it counts is handed out by :meth:`due`."""

    def __init__(self) -> None:
        self._kinds: dict[Hashable, _Kind] = {}
        self._due_ms = math.inf

    def in_full(self, kind: Hashable, sentence: str, now_ms: float) -> bool:
        """Whether to log the failure now; it is counted otherwise."""
        found = self._kinds.get(kind)
        if found is None:
            if len(self._kinds) >= KINDS:
                kind = _OTHERS
            found = self._kinds.setdefault(kind, _Kind(now_ms))
            self._due_ms = min(self._due_ms, found.due_ms)
        found.heard_ms = now_ms
        if found.in_full < IN_FULL:
            found.in_full += 1
            return True
        found.untold += 1
        found.last = sentence
        return False

    def due(self, now_ms: float) -> list[Untold]:
        """The counts that are due for a log line; all of them with ``now_ms`` infinite."""
        if now_ms < self._due_ms:
            return []
        told = []
        for kind, found in list(self._kinds.items()):
            if now_ms < found.due_ms:
                continue
            if found.untold:
                told.append(Untold(found.untold, found.last))
                found.untold = 0
            if now_ms - found.heard_ms >= EVERY_MS:
                del self._kinds[kind]
            else:
                found.due_ms = now_ms + EVERY_MS
        self._due_ms = min((found.due_ms for found in self._kinds.values()), default=math.inf)
        return told
