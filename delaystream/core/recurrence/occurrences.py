"""Scheduled times one by one, for people: with local time, and with the effect of clock changes."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final, NamedTuple

from delaystream.core.recurrence.expression import parse_cron
from delaystream.core.recurrence.fires import next_after
from delaystream.core.recurrence.recurrence import Recurrence
from delaystream.core.recurrence.scheduled import Scheduled, scheduled
from delaystream.core.recurrence.zones import FIRST_S, Piece, piece_at, zone

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Occurrence(NamedTuple):
    """One scheduled time."""

    due_ms: int
    local: datetime
    """In the zone of the schedule."""
    note: str | None
    """A note about a gap or a fold of the local clock that touches this time, or removed times before it."""


def occurrences(recurrence: Recurrence, after_ms: int, number: int) -> list[Occurrence]:
    """The first `number` scheduled times after `after_ms`; fewer when there are no more, up to the year
    9999."""
    return list(islice(_occurrences(recurrence, after_ms), number))


def _occurrences(recurrence: Recurrence, after_ms: int) -> Iterator[Occurrence]:
    times = _times(recurrence)
    rules = zone(recurrence.timezone)
    while (due_ms := next_after(recurrence, after_ms)) is not None:
        try:
            local = (_EPOCH + timedelta(milliseconds=due_ms)).astimezone(rules)
        except OverflowError:
            return  # after the last day that a calendar has here
        notes = [] if times is None else list(_notes(times, after_ms // 1000, due_ms // 1000))
        yield Occurrence(due_ms, local, "; ".join(notes) or None)
        after_ms = due_ms


def _times(recurrence: Recurrence) -> Scheduled | None:
    if recurrence.cron is None:
        return None
    pattern = parse_cron(recurrence.cron)
    return scheduled(pattern, recurrence.timezone, recurrence.dst_gap, recurrence.dst_overlap)


def _notes(times: Scheduled, after_s: int, due_s: int) -> Iterator[str]:
    at_s = max(after_s + 1, FIRST_S)
    while True:
        piece = piece_at(times.zone, at_s)
        if at_s == piece.start_s and (number := _in_gap(times, piece)):
            yield _gap(times, piece, number, due_s)
        if due_s < piece.end_s:
            break
        at_s = piece.end_s
    local_s = due_s + piece.offset_s
    if local_s >= piece.end_s + piece.after_s:
        yield f"fold: {_clock(local_s)} comes twice, this is the first" + _left_out(times.in_second)
    elif local_s < piece.start_s + piece.before_s:
        yield f"fold: {_clock(local_s)} comes twice, this is the second" + _left_out(times.in_first)


def _in_gap(times: Scheduled, piece: Piece) -> int:
    return times.pattern.count(piece.start_s + piece.before_s, piece.start_s + piece.offset_s)


def _gap(times: Scheduled, piece: Piece, number: int, due_s: int) -> str:
    first_s = times.pattern.next(piece.start_s + piece.before_s)
    assert first_s is not None
    end_s = piece.start_s + piece.offset_s
    missing = f"gap: {_clock(first_s)}"
    if first_s // 86_400 != (due_s + piece.offset_s) // 86_400:
        missing = f"gap: {(_EPOCH + timedelta(seconds=first_s)):%Y-%m-%d} {_clock(first_s)}"
    if number > 1:
        missing += f" and {number - 1} more before {_clock(end_s)}"
    missing += " does not exist" if number == 1 else " do not exist"
    return missing + (f", moved to {_clock(end_s)}" if times.shifts else ", left out")


def _left_out(other_counts: bool) -> str:
    return "" if other_counts else ", the other is left out"


def _clock(local_s: int) -> str:
    at = _EPOCH + timedelta(seconds=local_s)
    return f"{at:%H:%M:%S}" if at.second else f"{at:%H:%M}"
