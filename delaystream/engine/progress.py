"""How far a recovery is, in a sentence for the log."""

from __future__ import annotations

from typing import Final

#: Least time between two sentences, ms.
_EVERY_MS: Final = 2_000


class Progress:
    """Follows one recovery; times are those of the event loop, in ms."""

    def __init__(self, loop_ms: float) -> None:
        self._began_ms = loop_ms
        self._told_ms = loop_ms
        self._first_position: int | None = None
        self.applied = 0

    def seconds(self, loop_ms: float) -> float:
        """How long it has taken."""
        return (loop_ms - self._began_ms) / 1000

    def advance(self, applied: int, position: int, end: int, loop_ms: float) -> str | None:
        """A sentence now and then: records applied, the rate, and the time that is left; else None.

        The time left is worked out from offsets, of which some hold no record (markers, compaction).
        """
        self.applied = applied
        if self._first_position is None:
            self._first_position = position
        elapsed_ms = loop_ms - self._began_ms
        if loop_ms - self._told_ms < _EVERY_MS or elapsed_ms <= 0:
            return None
        self._told_ms = loop_ms
        rate = applied / elapsed_ms * 1000
        offsets_a_second = (position - self._first_position) / elapsed_ms * 1000
        left = (
            f"{(end - position) / offsets_a_second:.0f} s left" if offsets_a_second else "time left unknown"
        )
        return f"recovering: {applied:,} records, at offset {position:,} of {end:,}, {rate:,.0f}/s, {left}"
