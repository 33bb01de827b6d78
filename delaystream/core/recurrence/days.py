"""The days of a month that the two day fields of a cron expression select.

| day of month | | day of week | |
|---|---|---|---|
| `15` | the 15th | `5`, `FRI` | Fridays; Sunday is 0 and 7 |
| `L` | the last day | `5L`, `FRIL`, `L5` | the last Friday |
| `15W` | the working day nearest to the 15th | `MON#2`, `1#2` | the second Monday |
| `LW` | the last working day | | |
| `*`, `?` | every day | `*`, `?` | every day |

A working day is Monday to Friday; the nearest one is searched for within the month. When both fields are
restricted, a day must match only one of them. When one of them begins with `*` (`*/2` too) or is `?`, a day
must match both. That is the rule of Vixie's and Debian's cron.
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple

from delaystream.core.recurrence.fields import DAY, WEEKDAY, CronError, every_number, number, number_set
from delaystream.core.rejection import Code, shown

DayTable = tuple[int, ...]
"""The matching days of every kind of month, as sets of numbers from 1 to 31; indexed by `kind_of_month`."""

SHORTEST_MONTH: Final = 28
_SATURDAY: Final = 6

_NEAREST_WORKING_DAY: Final = re.compile(r"([0-9]{1,2})W")
_FROM_THE_END: Final = re.compile(r"L-([0-9]{1,2})(W?)")
_LAST_WEEKDAY: Final = re.compile(r"([0-7]|[A-Z]{3})L|L([0-7])")
_NTH_WEEKDAY: Final = re.compile(r"([0-7]|[A-Z]{3})#([0-9])")


def kind_of_month(first_weekday: int, length: int) -> int:
    """The index of months that begin on this day of the week (Sunday is 0) and have 28 to 31 days."""
    return (length - SHORTEST_MONTH) * 7 + first_weekday


class _MonthDays(NamedTuple):
    days: int
    nearest: int
    """Days that stand for their nearest working day."""
    last: bool
    last_working_day: bool


class _Weekdays(NamedTuple):
    weekdays: int
    last: int
    nth: int
    """The second Monday (1) is bit 8: seven for each week of the month."""


@lru_cache(maxsize=1024)
def day_table(days_of_month: str, days_of_week: str) -> DayTable:
    """The days that the two fields select together; fields in upper case. Raises CronError."""
    of_month = _month_days("*" if days_of_month == "?" else days_of_month)
    of_week = _weekdays("*" if days_of_week == "?" else days_of_week)
    both = days_of_month[0] in "*?" or days_of_week[0] in "*?"
    table = []
    for length in range(SHORTEST_MONTH, 32):
        for first_weekday in range(7):
            by_month = _matching_days(of_month, first_weekday, length)
            by_week = _matching_weekdays(of_week, first_weekday, length)
            table.append(by_month & by_week if both else by_month | by_week)
    return tuple(table)


def _month_days(text: str) -> _MonthDays:
    plain, nearest, last, last_working_day = [], 0, False, False
    for term in text.split(","):
        if term == "L":
            last = True
        elif term == "LW":
            last_working_day = True
        elif match := _NEAREST_WORKING_DAY.fullmatch(term):
            nearest |= 1 << number(DAY, match[1])
        elif match := _FROM_THE_END.fullmatch(term):
            raise _from_the_end(term, int(match[1]), plain=not match[2])
        else:
            plain.append(term)
    return _MonthDays(number_set(DAY, ",".join(plain)) if plain else 0, nearest, last, last_working_day)


def _from_the_end(term: str, days: int, *, plain: bool) -> CronError:
    """Refuse `L-3`, the third day before the last, which other crons have."""
    complaint = f"{shown(term)} counts from the end of the month, which is not supported; write "
    if not plain or not 1 <= days < SHORTEST_MONTH:
        return CronError(Code.INVALID_CRON, complaint + "the days out")
    return CronError(
        Code.INVALID_CRON,
        f"{complaint}one schedule for each length of month: day {31 - days} in months 1,3,5,7,8,10,12, "
        f"day {30 - days} in 4,6,9,11, and day {28 - days} in 2",
    )


def _weekdays(text: str) -> _Weekdays:
    plain, last, nth = [], 0, 0
    for term in text.split(","):
        if term == "L":
            raise CronError(
                Code.INVALID_CRON, "'L' as day of week does not say which; write for instance '5L' or 'FRIL'"
            )
        if match := _LAST_WEEKDAY.fullmatch(term):
            last |= 1 << number(WEEKDAY, match[1] or match[2]) % 7
        elif match := _NTH_WEEKDAY.fullmatch(term):
            week = int(match[2])
            if not 1 <= week <= 5:
                raise CronError(Code.INVALID_CRON, f"{shown(term)} must have 1 to 5 after '#'")
            nth |= 1 << (week - 1) * 7 + number(WEEKDAY, match[1]) % 7
        else:
            plain.append(term)
    return _Weekdays(number_set(WEEKDAY, ",".join(plain)) if plain else 0, last, nth)


def _matching_days(of_month: _MonthDays, first_weekday: int, length: int) -> int:
    matching = of_month.days & every_number(DAY) & ((2 << length) - 1)
    if of_month.last:
        matching |= 1 << length
    if of_month.last_working_day:
        matching |= 1 << _nearest_working_day(length, first_weekday, length)
    for day in range(1, length + 1):
        if of_month.nearest >> day & 1:
            matching |= 1 << _nearest_working_day(day, first_weekday, length)
    return matching


def _nearest_working_day(day: int, first_weekday: int, length: int) -> int:
    weekday = (first_weekday + day - 1) % 7
    if weekday == _SATURDAY:
        return day - 1 if day > 1 else day + 2
    if weekday == 0:
        return day + 1 if day < length else day - 2
    return day


def _matching_weekdays(of_week: _Weekdays, first_weekday: int, length: int) -> int:
    matching = 0
    for day in range(1, length + 1):
        weekday = (first_weekday + day - 1) % 7
        week = (day - 1) // 7
        if (
            of_week.weekdays >> weekday & 1
            or of_week.nth >> week * 7 + weekday & 1
            or (day + 7 > length and of_week.last >> weekday & 1)
        ):
            matching |= 1 << day
    return matching
