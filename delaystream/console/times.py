"""Times to come, for people: with local time and offset, and what the clocks do to them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final

import msgspec

from delaystream.codec.envelope import LIVE, Schedule
from delaystream.codec.requests.headers import RequestParser
from delaystream.codec.requests.names import PREFIX
from delaystream.core.destinations import DestinationFilter
from delaystream.core.identity import named_fire_id
from delaystream.core.instants import EARLIEST_MS, LATEST_MS
from delaystream.core.limits import Limits
from delaystream.core.record import Record
from delaystream.core.recurrence import CronError, Recurrence, UnknownZoneError, due_ms, misses, next_after
from delaystream.core.recurrence.occurrences import occurrences
from delaystream.core.rejection import Rejection
from delaystream.core.request import Coordinates, Request

MOST: Final = 500
"""So many times are worked out at once."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: what a definition needs that has not said it: neither changes a time
_NAMED: Final = {"id": "preview", "destination": "preview"}
_parser: Final = RequestParser(DestinationFilter(["*"]), Limits())


class Time(msgspec.Struct, frozen=True):
    """One scheduled time."""

    at_ms: int
    #: RFC 3339 with the offset of the schedule's zone
    local: str
    #: such as +02:00
    offset: str
    #: what a change of the clocks does to it, or did to times before it
    note: str | None = None


class ClockChange(msgspec.Struct, frozen=True):
    """Between two of the times the offset from UTC is another one."""

    #: the first time after it
    at_ms: int
    before: str
    after: str


class Preview(msgspec.Struct, frozen=True):
    """When a definition fires."""

    timezone: str
    times: Sequence[Time]
    changes: Sequence[ClockChange]
    #: each time is put off by so much at most
    jitter_ms: int
    #: whether there are further times
    more: bool


def parsed(definition: Mapping[str, str], now_ms: int) -> Request | Rejection:
    """A definition as a request has it, by the names of the header contract without prefix.

    It is held to the contract's own limits. A worker may have others, and what it may write to.
    """
    headers = [(PREFIX + name, text.encode("utf-8", "surrogatepass")) for name, text in definition.items()]
    headers += [(PREFIX + name, text.encode()) for name, text in _NAMED.items() if name not in definition]
    return _parser.parse(Record(Coordinates("preview", 0, 0), now_ms, None, b"", headers), now_ms)


def preview(request: Request, after_ms: int, number: int) -> Preview:
    """The first `number` times of a request after a time; of what is one-time all that are after it."""
    recurrence = request.recurrence
    if recurrence is None:
        due = sorted(at_ms for at_ms in request.due_ms if at_ms > after_ms)
        return Preview("UTC", [_time(at_ms) for at_ms in due[:number]], [], 0, len(due) > number)
    most = min(number, recurrence.max_fires) if recurrence.max_fires else number
    found = recurring(recurrence, after_ms, number + 1)
    more = len(found) > most and not 0 < recurrence.max_fires <= number
    return Preview(recurrence.timezone, found[:most], changes(found[:most]), recurrence.jitter_ms, more)


def upcoming(row: Schedule, number: int) -> list[Time]:
    """The next scheduled times of a named schedule; of one that is paused those that it would have."""
    recurrence = row.recurrence
    if row.status not in LIVE:
        return []
    if recurrence is None:
        return [_time(at_ms) for at_ms, _ in row.ahead[:number]]
    if row.next_ms < 0:
        return []
    if recurrence.max_fires:
        number = min(number, max(0, recurrence.max_fires - row.run_count))
    return recurring(recurrence, row.next_ms - 1, number)


def recurring(recurrence: Recurrence, after_ms: int, number: int) -> list[Time]:
    """Scheduled times after a time; none where a newer release stored what this one cannot read."""
    try:
        found = occurrences(recurrence, after_ms, min(number, MOST + 1))
    except (CronError, UnknownZoneError):
        return []
    return [Time(one.due_ms, _rfc_3339(one.local), _offset(one.local), one.note) for one in found]


def changes(times: Sequence[Time]) -> list[ClockChange]:
    """Where the offset is another one than that of the time before."""
    return [
        ClockChange(after.at_ms, before.offset, after.offset)
        for before, after in pairwise(times)
        if before.offset != after.offset
    ]


class Expansion:
    """The fires of a recurring schedule behind its next one, with their jitter, one by one."""

    def __init__(self, id: str, row: Schedule) -> None:
        self._id = id
        self._row = row
        self._at_ms = row.next_ms
        recurrence = row.recurrence
        self._left = -1
        if recurrence is not None and recurrence.max_fires:
            self._left = recurrence.max_fires - row.run_count - 1

    def next(self, from_ms: int) -> int | None:
        """When the next fire is due that is not before a time; None: there is none."""
        recurrence = self._row.recurrence
        if recurrence is None or self._at_ms < 0:
            return None
        # What is due at a time was scheduled up to its jitter earlier.
        skipped_ms = from_ms - recurrence.jitter_ms - 1
        try:
            if skipped_ms > self._at_ms:
                if self._left > 0:
                    self._left = max(0, self._left - misses(recurrence, self._at_ms, skipped_ms).number)
                self._at_ms = skipped_ms
            while self._left:
                at_ms = next_after(recurrence, self._at_ms)
                if at_ms is None:
                    return None
                self._at_ms = at_ms
                self._left -= self._left > 0
                name = named_fire_id(self._row.revision_place, self._row.revision, 0, at_ms, self._id)
                if (due := due_ms(recurrence, at_ms, name)) >= from_ms:
                    return due
        except (CronError, UnknownZoneError):
            pass
        return None


def _time(at_ms: int) -> Time:
    at = _EPOCH + timedelta(milliseconds=min(max(at_ms, EARLIEST_MS), LATEST_MS))
    return Time(at_ms, _rfc_3339(at), "+00:00")


def _rfc_3339(local: datetime) -> str:
    # strftime leaves out zeros of years below 1000, which no schedule has; isoformat does not.
    return local.isoformat(timespec="milliseconds")


def _offset(local: datetime) -> str:
    return local.isoformat()[-6:]
