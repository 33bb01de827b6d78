"""Recurrences as people say them: `30 9 * * MON-FRI` is "at 09:30, Monday to Friday". Pure.

The words follow the expression's text, field by field, and not its times: a reader can hold the one against
the other. What has no short form is told by its numbers. The times themselves stand beside the words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from delaystream.core.durations import format_duration
from delaystream.core.recurrence import CronError
from delaystream.core.recurrence.expression import NAMES, parse_cron
from delaystream.core.recurrence.fields import HOUR, MINUTE, MONTH, SECOND, WEEKDAY, Field, number

_DAYS: Final = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_MONTHS: Final = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_ORDINALS: Final = ("", "first", "second", "third", "fourth", "fifth")
_LAST_WEEKDAY: Final = re.compile(r"([0-7]|[A-Z]{3})L|L([0-7])")
_NTH_WEEKDAY: Final = re.compile(r"([0-7]|[A-Z]{3})#([1-5])")
_STEP: Final = re.compile(r"\*/0*([1-9][0-9]*)")
_SINGLE: Final = re.compile(r"[0-9]{1,2}")
#: so many times of a day are written out
_WRITTEN_OUT: Final = 6
#: days from the 11th to the 13th end otherwise than their last digit says
_TEENS: Final = range(11, 14)


def cron_in_words(expression: str) -> str | None:
    """An expression in words, without its zone; None for what this version does not read."""
    try:
        parse_cron(expression)
    except CronError:
        return None
    written = expression.upper().strip()
    fields = NAMES.get(written, written).split()
    second, minute, hour, day, month, weekday = fields if len(fields) == 6 else ["0", *fields]
    said = [_time(second, minute, hour), *_days(day, weekday)]
    if said[0].startswith(("every", "on the hour of")) and said[1] == "every day":
        del said[1]
    if month != "*":
        told = _list(MONTH, month, "month")
        said.append(f"from {told}" if " to " in told and not told.startswith("every") else f"in {told}")
    return ", ".join(said)


def every_in_words(every_ms: int) -> str:
    """An interval in words."""
    for unit_ms, name in ((86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute"), (1_000, "second")):
        if every_ms % unit_ms == 0:
            number = every_ms // unit_ms
            return f"every {name}" if number == 1 else f"every {number} {name}s"
    return f"every {format_duration(every_ms)}"


def _time(second: str, minute: str, hour: str) -> str:
    hours, minutes, seconds = _singles(HOUR, hour), _singles(MINUTE, minute), _singles(SECOND, second)
    if hours and minutes and seconds and len(hours) * len(minutes) * len(seconds) <= _WRITTEN_OUT:
        plain = seconds == [0]
        written = [
            f"{h:02}:{m:02}" if plain else f"{h:02}:{m:02}:{s:02}"
            for h in hours
            for m in minutes
            for s in seconds
        ]
        return f"at {_and(written)}"
    step = _STEP.fullmatch(hour)
    if step is not None and (minutes, seconds) == ([0], [0]):
        return f"every {step[1]} hours, on the hour" if step[1] != "1" else "every hour, on the hour"
    said = []
    if second != "0":
        said.append(_part(SECOND, second))
    if minute != "*" or second == "0":
        said.append(_part(MINUTE, minute))
    if hour != "*":
        said.append(_hours(hour))
    elif not (minute[0] == "*" or second[0] == "*"):
        said.append("of every hour")
    return " ".join(said)


def _part(field: Field, text: str) -> str:
    """Seconds or minutes."""
    if text == "*":
        return f"every {field.name}"
    if match := _STEP.fullmatch(text):
        return f"every {field.name}" if match[1] == "1" else f"every {match[1]} {field.name}s"
    numbers = _singles(field, text)
    if numbers == [0] and field is MINUTE:
        return "on the hour"
    told = _list(field, text, field.name)
    return told if told.startswith("every") else f"at {field.name} {told}"


def _hours(text: str) -> str:
    if match := _STEP.fullmatch(text):
        return "of every hour" if match[1] == "1" else f"of every {_ordinal(int(match[1]))} hour"
    if match := re.fullmatch(r"([0-9]+)-([0-9]+)", text):
        return f"from {int(match[1]):02}:00 to {int(match[2]):02}:59"
    numbers = _singles(HOUR, text)
    if numbers:
        return f"between {_and([f'{h:02}:00 and {h:02}:59' for h in numbers])}"
    return f"in hours {_list(HOUR, text, 'hour')}"


def _days(day: str, weekday: str) -> list[str]:
    of_month = None if day in "*?" else _of_month(day)
    of_week = None if weekday in "*?" else _of_week(weekday)
    if of_month is None and of_week is None:
        return ["every day"]
    if of_month is None or of_week is None:
        return [of_month or of_week or ""]
    # The rule of Vixie's cron: one of them is enough, unless one of them begins with a star.
    joint = "if it is also" if day[0] in "*?" or weekday[0] in "*?" else "and also"
    return [f"{of_month} {joint} {of_week}"]


def _of_month(text: str) -> str:
    if match := _STEP.fullmatch(text):
        return "every day" if match[1] == "1" else f"every {_ordinal(int(match[1]))} day from the 1st on"
    said = []
    for term in text.split(","):
        if term == "L":
            said.append("the last day")
        elif term == "LW":
            said.append("the last working day")
        elif term.endswith("W"):
            said.append(f"the working day nearest to the {_ordinal(int(term[:-1]))}")
        elif _SINGLE.fullmatch(term):
            said.append(f"the {_ordinal(int(term))}")
        else:
            said.append(f"days {_term(term, str, 'day')}")
    return f"on {_and(said)} of the month"


def _of_week(text: str) -> str:
    said = []
    for term in text.split(","):
        if match := _LAST_WEEKDAY.fullmatch(term):
            said.append(f"the last {_weekday(match[1] or match[2])} of the month")
        elif match := _NTH_WEEKDAY.fullmatch(term):
            said.append(f"the {_ORDINALS[int(match[2])]} {_weekday(match[1])} of the month")
        else:
            said.append(_term(term, _weekday, "day of the week"))
    plain = all("the " not in one for one in said)
    return _and(said) if plain and any(" to " in one for one in said) else f"on {_and(said)}"


def _list(field: Field, text: str, unit: str) -> str:
    name = _month if field is MONTH else str
    return _and([_term(term, name, unit) for term in text.split(",")])


def _term(term: str, name: Callable[[str], str], unit: str) -> str:
    """One number, range or step; `name` says a number."""
    body, _, step = term.partition("/")
    low, _, high = body.partition("-")
    if body == "*":
        return f"every {unit}" if step in ("", "1") else f"every {_ordinal(int(step))} {unit}"
    said = f"{name(low)} to {name(high)}" if high else str(name(low))
    if not step or step == "1":
        return said
    return f"every {_ordinal(int(step))} {unit} from {said}" + ("" if high else " on")


def _weekday(text: str) -> str:
    return _DAYS[number(WEEKDAY, text) % 7]


def _month(text: str) -> str:
    return _MONTHS[number(MONTH, text) - 1]


def _singles(field: Field, text: str) -> list[int]:
    """The numbers of a list of single numbers; empty for anything else."""
    terms = text.split(",")
    if not all(_SINGLE.fullmatch(term) for term in terms):
        return []
    return sorted({number(field, term) for term in terms})


def _and(said: list[str]) -> str:
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in _TEENS else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
