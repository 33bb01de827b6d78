"""From local times to instants: a pattern's times when clocks are put forward or back.

A zone is cut into pieces of constant offset (`zones`). Each instant of a piece has one local time, so a piece
*covers* a range of local times; where two pieces meet, their ranges leave a gap or overlap. Clocks forward at
the instant T::

    local   …  01:30   02:00        03:00   03:30  …      dst-gap shift   any time in the gap means T, once
            ─ before ─▶│ gap        │◀─ after ──                  skip    nothing does

Clocks back at T; the policy says which of the two pieces covers the overlap::

    local   …  00:30   01:00        02:00                 dst-overlap first   the piece before
            ── before ──────────────▶│                                second  the piece after
                       │◀── after ──────────── …                      both    both

A pattern that follows the clock (a wildcard among its seconds, minutes or hours) fires by elapsed time:
`skip` and `both`, whatever the policy says. That is the rule of Debian's cron(8), but without its limit of
three hours: a day that a zone left out is a gap like any other.
"""

from typing import Final

import msgspec

from delaystream.core.recurrence.pattern import DAY_S, CronPattern
from delaystream.core.recurrence.recurrence import DstGap, DstOverlap
from delaystream.core.recurrence.zones import END_S, FIRST_S, Piece, piece_at

_HORIZON_S: Final = 100 * 366 * DAY_S
"""How far ahead the search for a time goes. A pattern that ever matches does so within 40 years (29 February
on one day of the week, across a year like 2100), unless gaps remove all of its times."""


def calendar_ends(after_ms: int) -> bool:
    """Whether the year 9999, and not the horizon of a century, ends the search after a time."""
    return after_ms // 1000 + _HORIZON_S >= END_S


class Scheduled(msgspec.Struct, frozen=True, gc=False):
    """The instants of a pattern in a zone; seconds since the epoch."""

    pattern: CronPattern
    zone: str
    shifts: bool
    """A time in a gap means the end of the gap."""
    in_first: bool
    in_second: bool
    """The occurrences of an ambiguous time that count."""

    def next_after(self, after_s: int) -> int | None:
        """The first instant after `after_s`; None when there is none within a century."""
        at_s = max(after_s + 1, FIRST_S)
        limit_s = min(at_s + _HORIZON_S, END_S)
        while at_s < limit_s:
            piece = piece_at(self.zone, at_s)
            if at_s == piece.start_s and self._shifted_to(piece):
                return at_s
            low_s, high_s = self._covered(piece)
            local_s = self.pattern.next(max(at_s + piece.offset_s, low_s))
            if local_s is None:
                return None
            if local_s < high_s:
                return local_s - piece.offset_s
            # The search has covered the last day of the piece, and so all times that clocks put back could
            # repeat. It goes on near the time found: one day before it, as a local time, is before its
            # instant in every zone.
            seen = piece.end_s - at_s > DAY_S
            at_s = max(piece.end_s, local_s - DAY_S) if seen else piece.end_s
        return None

    def last_until(self, until_s: int, after_s: int) -> int | None:
        """The last instant in (`after_s`, `until_s`]."""
        at_s = min(until_s, END_S - 1)
        while at_s > after_s and at_s >= FIRST_S:
            piece = piece_at(self.zone, at_s)
            low_s, high_s = self._covered(piece)
            local_s = self.pattern.previous(min(at_s + piece.offset_s, high_s - 1))
            if local_s is not None and local_s >= low_s:
                found_s = local_s - piece.offset_s
            elif self._shifted_to(piece):
                found_s = piece.start_s
            else:
                at_s = piece.start_s - 1
                continue
            return found_s if found_s > after_s else None
        return None

    def count(self, after_s: int, until_s: int) -> int:
        """The number of instants in (`after_s`, `until_s`]; the work grows with the months between."""
        at_s = max(after_s + 1, FIRST_S)
        end_s = min(until_s + 1, END_S)
        number = 0
        while at_s < end_s:
            piece = piece_at(self.zone, at_s)
            low_s, high_s = self._covered(piece)
            from_s = max(at_s + piece.offset_s, low_s)
            number += self.pattern.count(from_s, min(end_s + piece.offset_s, high_s))
            # A time of its own at the end of the gap is the same fire.
            if at_s == piece.start_s and self._shifted_to(piece):
                number += self.pattern.next(low_s) != low_s
            at_s = piece.end_s
        return number

    def _covered(self, piece: Piece) -> tuple[int, int]:
        return _covered(piece, in_first=self.in_first, in_second=self.in_second)

    def _shifted_to(self, piece: Piece) -> bool:
        """Whether the start of the piece ends a gap with a time in it that is shifted."""
        if not self.shifts or piece.offset_s <= piece.before_s:
            return False
        low_s, high_s = _left_out(piece)
        local_s = self.pattern.next(low_s)
        return local_s is not None and local_s < high_s


class LocalClock(msgspec.Struct, frozen=True):
    """The clock of a zone, with a policy for its changes."""

    zone: str
    """A name of the zone database."""
    gap: DstGap = "shift"
    overlap: DstOverlap = "first"

    def instants(self, local_ms: int) -> tuple[int, ...]:
        """The instants of one local time, in milliseconds since the epoch and in order.

        Two if it occurs twice and both count; none if it does not exist and is not shifted. `local_ms` are
        milliseconds since 1970-01-01 00:00:00 on this clock, at least two days before the year 9999. A
        shifted time is exactly the first instant after the gap, without the fraction of the local time.
        """
        local_s = local_ms // 1000
        in_first, in_second = self.overlap != "second", self.overlap != "first"
        found = []
        # No clock is a day ahead of UTC or behind it.
        at_s = local_s - DAY_S
        while at_s <= local_s + DAY_S:
            piece = piece_at(self.zone, at_s)
            low_s, high_s = _left_out(piece)
            if self.gap == "shift" and low_s <= local_s < high_s:
                found.append(piece.start_s * 1000)
            low_s, high_s = _covered(piece, in_first=in_first, in_second=in_second)
            if low_s <= local_s < high_s:
                found.append(local_ms - piece.offset_s * 1000)
            at_s = piece.end_s
        return tuple(found)


def _covered(piece: Piece, *, in_first: bool, in_second: bool) -> tuple[int, int]:
    """The local times whose instants are in the piece: from the first value to before the second."""
    low = piece.offset_s if in_second else max(piece.offset_s, piece.before_s)
    high = piece.offset_s if in_first else min(piece.offset_s, piece.after_s)
    return piece.start_s + low, piece.end_s + high


def _left_out(piece: Piece) -> tuple[int, int]:
    """The local times that the change at the beginning of the piece removes, in the form of `_covered`; an
    empty span if there are none."""
    return piece.start_s + piece.before_s, piece.start_s + piece.offset_s


def scheduled(pattern: CronPattern, zone: str, gap: DstGap, overlap: DstOverlap) -> Scheduled:
    """The instants of `pattern` in the named zone, under a policy."""
    if pattern.follows_clock:
        return Scheduled(pattern, zone, shifts=False, in_first=True, in_second=True)
    return Scheduled(pattern, zone, gap == "shift", overlap != "second", overlap != "first")
