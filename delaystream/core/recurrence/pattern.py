"""The times of a cron expression on a clock that is never put forward or back.

A local time is an int: seconds since 1970-01-01 00:00:00 on that clock, negative before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Final

import msgspec

from delaystream.core.recurrence.days import SHORTEST_MONTH, DayTable, kind_of_month

DAY_S: Final = 86_400
_LAST_YEAR: Final = 9999
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_LENGTHS: Final = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class CronPattern(msgspec.Struct, frozen=True, gc=False):
    """The numbers of each field, as sets: ints with bit n for the number n. `parse_cron` makes it."""

    seconds: int
    minutes: int
    hours: int
    months: int
    days: DayTable
    follows_clock: bool
    """Whether it fires by elapsed time when clocks are put forward or back, as a wildcard does."""

    def next(self, local_s: int) -> int | None:
        """The first time at or after `local_s`; None if there is none before the year 10000."""
        day, second = divmod(local_s, DAY_S)
        at = date.fromordinal(_EPOCH_DAY + day)
        if self._matches(at) and (time := self._next_time(second)) is not None:
            return day * DAY_S + time
        year, month, first = at.year, at.month, at.day + 1
        while year <= _LAST_YEAR:
            if later := self._days(year, month) >> first:
                found = date(year, month, first + _lowest(later))
                return (found.toordinal() - _EPOCH_DAY) * DAY_S + self._first_time()
            year, month, first = (year, month + 1, 0) if month < 12 else (year + 1, 1, 0)
        return None

    def previous(self, local_s: int) -> int | None:
        """The last time at or before `local_s`; None if there is none after the year 0."""
        day, second = divmod(local_s, DAY_S)
        at = date.fromordinal(_EPOCH_DAY + day)
        if self._matches(at) and (time := self._previous_time(second)) is not None:
            return day * DAY_S + time
        year, month, end = at.year, at.month, at.day
        while year >= 1:
            if earlier := self._days(year, month) & ((1 << end) - 1):
                found = date(year, month, _highest(earlier))
                return (found.toordinal() - _EPOCH_DAY) * DAY_S + self._last_time()
            year, month, end = (year, month - 1, 32) if month > 1 else (year - 1, 12, 32)
        return None

    def count(self, from_s: int, to_s: int) -> int:
        """Number of times in [`from_s`, `to_s`); the work grows with the months between, not the times."""
        if from_s >= to_s:
            return 0
        first, first_second = divmod(from_s, DAY_S)
        last, last_second = divmod(to_s, DAY_S)
        before = self._matches(date.fromordinal(_EPOCH_DAY + first)) * self._times_before(first_second)
        after = self._matches(date.fromordinal(_EPOCH_DAY + last)) * self._times_before(last_second)
        return self._count_days(first, last) * self._times_before(DAY_S) - before + after

    def shortest_gap_s(self) -> int:
        """Shortest distance of two times anywhere in the pattern; exact up to a day, `DAY_S + 1` for more."""
        seconds, minutes, hours = self.seconds, self.minutes, self.hours
        in_minute = _highest(seconds) - _lowest(seconds)
        in_hour = _highest(minutes) * 60 + _highest(seconds) - _lowest(minutes) * 60 - _lowest(seconds)
        in_day = self._last_time() - self._first_time()
        gaps = [
            *_nearest(seconds, 1, 0),
            *_nearest(minutes, 60, in_minute),
            *_nearest(hours, 3600, in_hour),
        ]
        if self._has_adjacent_days():
            gaps.append(DAY_S - in_day)
        return min(gaps, default=DAY_S + 1)

    def ever(self) -> bool:
        """Whether any day matches at all: 30 February does not."""
        # Every kind of year, by first day and length, occurs within 400 years.
        return any(days for _, _, days in self._kinds_of_months())

    def _days(self, year: int, month: int) -> int:
        if not self.months >> month & 1:
            return 0
        first_weekday = date(year, month, 1).toordinal() % 7
        length = _LENGTHS[month] + (month == 2 and _is_leap(year))
        return self.days[kind_of_month(first_weekday, length)]

    def _matches(self, at: date) -> bool:
        return bool(self._days(at.year, at.month) >> at.day & 1)

    def _count_days(self, first: int, end: int) -> int:
        """Matching days from the day `first` to before the day `end`, counted from 1970-01-01."""
        at = date.fromordinal(_EPOCH_DAY + first)
        until = date.fromordinal(_EPOCH_DAY + end)
        number = 0
        year, month, low = at.year, at.month, at.day
        while (year, month) < (until.year, until.month):
            number += (self._days(year, month) >> low).bit_count()
            year, month, low = (year, month + 1, 0) if month < 12 else (year + 1, 1, 0)
        rest = self._days(year, month) & ((1 << until.day) - 1)
        return number + (rest >> low).bit_count()

    def _next_time(self, second: int) -> int | None:
        """The first time of day at or after `second`."""
        hour, rest = divmod(second, 3600)
        if self.hours >> hour & 1:
            minute, rest = divmod(rest, 60)
            if self.minutes >> minute & 1 and (later := self.seconds >> rest):
                return hour * 3600 + minute * 60 + rest + _lowest(later)
            if later := self.minutes >> minute + 1:
                return hour * 3600 + (minute + 1 + _lowest(later)) * 60 + _lowest(self.seconds)
        if later := self.hours >> hour + 1:
            return (hour + 1 + _lowest(later)) * 3600 + _lowest(self.minutes) * 60 + _lowest(self.seconds)
        return None

    def _previous_time(self, second: int) -> int | None:
        """The last time of day at or before `second`: times mirrored at the day's middle run forward."""
        mirrored = msgspec.structs.replace(
            self,
            seconds=_mirrored(self.seconds, 60),
            minutes=_mirrored(self.minutes, 60),
            hours=_mirrored(self.hours, 24),
        )
        time = mirrored._next_time(DAY_S - 1 - second)
        return None if time is None else DAY_S - 1 - time

    def _first_time(self) -> int:
        return _lowest(self.hours) * 3600 + _lowest(self.minutes) * 60 + _lowest(self.seconds)

    def _last_time(self) -> int:
        return _highest(self.hours) * 3600 + _highest(self.minutes) * 60 + _highest(self.seconds)

    def _times_before(self, second: int) -> int:
        """The number of times of day before `second`, which is from 0 to `DAY_S`."""
        hour, rest = divmod(second, 3600)
        minute, rest = divmod(rest, 60)
        of_minute = self.seconds.bit_count()
        of_hour = self.minutes.bit_count() * of_minute
        number = _below(self.hours, hour) * of_hour
        if self.hours >> hour & 1:
            number += _below(self.minutes, minute) * of_minute
            if self.minutes >> minute & 1:
                number += _below(self.seconds, rest)
        return number

    def _has_adjacent_days(self) -> bool:
        for month, kind, days in self._kinds_of_months():
            if days & days >> 1:
                return True
            following = month % 12 + 1
            length = SHORTEST_MONTH + kind // 7
            first_weekday = (kind + length) % 7
            if days >> length & 1 and self.months >> following & 1:
                # Whether the 1st matches does not depend on the length of its month, not even in February.
                follower = kind_of_month(first_weekday, _LENGTHS[following])
                if self.days[follower] >> 1 & 1:
                    return True
        return False

    def _kinds_of_months(self) -> Iterator[tuple[int, int, int]]:
        """Every month that there can be: its number, its kind, its matching days."""
        for month in range(1, 13):
            if self.months >> month & 1:
                for length in {_LENGTHS[month], _LENGTHS[month] + (month == 2)}:
                    for first_weekday in range(7):
                        kind = kind_of_month(first_weekday, length)
                        yield month, kind, self.days[kind]


def _is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _lowest(numbers: int) -> int:
    return (numbers & -numbers).bit_length() - 1


def _highest(numbers: int) -> int:
    return numbers.bit_length() - 1


def _below(numbers: int, end: int) -> int:
    return (numbers & ((1 << end) - 1)).bit_count()


def _mirrored(numbers: int, size: int) -> int:
    return sum(1 << size - 1 - number for number in range(size) if numbers >> number & 1)


def _nearest(numbers: int, unit_s: int, span_s: int) -> Iterator[int]:
    """From the last time within one number to the first within the next; `span_s` is from first to last."""
    distance = 1
    while distance <= _highest(numbers):
        if numbers & numbers >> distance:
            yield distance * unit_s - span_s
            return
        distance += 1
