"""One field of a cron expression -> the set of its numbers. The only module that knows croniter.

A set is an int with bit n for the number n. croniter 5 expands lists, ranges and steps. It gets only terms
that it reads as Vixie's cron does. It reads the following in another way, so they are rewritten or refused
first:

| written | croniter reads | here |
|---|---|---|
| `5-5`, `5-5/2` | the whole field | 5 |
| `7`, `1-7` as weekday, in 6 fields | an error | Sunday, every day |
| `MON/2` | up to Saturday | up to Sunday, which 7 is too |
| `21-3/2` | 21, 23, 2 | refused: write two ranges |
| `0` as day of month, in 6 fields | 1 | refused |
| `5L`, `LW`, `15W` | an error | read in `days` |
| `MON#1,FRI` | an error | read in `days` |
| `H`, `R` | drawn at random at each parse | refused (`unsupported-cron`) |
| any expression | kept for ever in a global of its module | removed from there |
"""

import re
from typing import Final, NamedTuple

from croniter.croniter import EXPRESSIONS, CroniterError, croniter

from delaystream.core.rejection import Code, shown


class CronError(ValueError):
    """The expression is refused with `code`; the message is worded to follow "cron is '…': "."""

    def __init__(self, code: Code, complaint: str) -> None:
        super().__init__(complaint)
        self.code = code


class Field(NamedTuple):
    """One place of an expression, and its possible values."""

    name: str
    low: int
    high: int
    """Highest number in an expression; the weekday 7 is Sunday, as 0 is."""
    position: int
    """The position of such a field in croniter's expression of five fields."""
    words: tuple[str, ...] = ()
    """Names of the numbers from `low` on."""

    @property
    def size(self) -> int:
        """The number of different values."""
        return 7 if self.high == 7 else self.high - self.low + 1


SECOND: Final = Field("second", 0, 59, 0)
MINUTE: Final = Field("minute", 0, 59, 0)
HOUR: Final = Field("hour", 0, 23, 1)
DAY: Final = Field("day of month", 1, 31, 2)
MONTH: Final = Field(
    "month", 1, 12, 3, ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
)
WEEKDAY: Final = Field("day of week", 0, 7, 4, ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"))

_TERM: Final = re.compile(
    r"(?:(?P<star>\*)|(?P<low>[0-9]{1,2}|[A-Z]{3})(?:-(?P<high>[0-9]{1,2}|[A-Z]{3}))?)(?:/(?P<step>[0-9]{1,4}))?"
)
_WORD: Final = re.compile(r"[A-Z]{4,}")
_RANDOM: Final = re.compile(r"[HR](\([0-9]+-[0-9]+\))?(/[0-9]+)?")


def number_set(field: Field, text: str) -> int:
    """The numbers of a field without `L`, `W`, `#` and `?`; in upper case. Raises CronError."""
    terms = ",".join(_tamed(field, term) for term in text.split(","))
    fields = ["*"] * 5
    fields[field.position] = terms
    expression = " ".join(fields)
    try:
        expanded, _ = croniter.expand(expression)
    except CroniterError as error:  # nothing known gets here
        raise CronError(Code.INVALID_CRON, f"{shown(text)} is no {field.name}") from error
    finally:
        EXPRESSIONS.pop((expression, None, False), None)
    numbers = expanded[field.position]
    if "*" in numbers:
        return every_number(field)
    return sum(1 << value for value in numbers)


def every_number(field: Field) -> int:
    """The set of all numbers of a field."""
    return ((1 << field.size) - 1) << field.low


def number(field: Field, text: str) -> int:
    """One number or name, within the field's bounds. Raises CronError."""
    if text in field.words:
        return field.low + field.words.index(text)
    if text.isdigit() and field.low <= int(text) <= field.high:
        return int(text)
    expected = f"{field.low} to {field.high}"
    if field.words:
        expected += f" or {field.words[0]} to {field.words[-1]}"
    raise CronError(Code.INVALID_CRON, f"{shown(text)} is no {field.name}; expected {expected}")


def _tamed(field: Field, term: str) -> str:
    """The term in a form that croniter reads correctly. Raises CronError."""
    match = _TERM.fullmatch(term)
    if match is None:
        raise _refusal(field, term)
    step = 1 if match["step"] is None else int(match["step"])
    if not 1 <= step <= field.size:
        # Vixie's cron reads `*/90` as `0`, which is hardly what its author means.
        raise CronError(
            Code.INVALID_CRON, f"the step in {shown(term)} of the {field.name} must be 1 to {field.size}"
        )
    if match["star"]:
        return term
    low = number(field, match["low"])
    if match["high"] is None:
        # `10/5` has no end: it goes to the end of the field.
        high = field.high if match["step"] else low
    else:
        high = number(field, match["high"])
        if field is WEEKDAY and low > high:
            low, high = (low, 7) if high == 0 else (low % 7, high)
    if low <= high:
        return _range(field, low, high, step)
    if step > 1:
        raise CronError(
            Code.INVALID_CRON,
            f"{shown(term)} of the {field.name} runs over the end of the field with a step; write two ranges",
        )
    last = field.low + field.size - 1
    return f"{_range(field, low, last, 1)},{_range(field, field.low, high, 1)}"


def _range(field: Field, low: int, high: int, step: int) -> str:
    if field is WEEKDAY and low < high == 7:
        sunday = ",0" if (7 - low) % step == 0 else ""
        return _range(field, low, 6, step) + sunday
    return str(low) if low == high else f"{low}-{high}/{step}"


def _refusal(field: Field, term: str) -> CronError:
    if _RANDOM.fullmatch(term):
        return CronError(
            Code.UNSUPPORTED_CRON,
            f"{shown(term)} as {field.name} would be random; write the {field.name} out",
        )
    expected = "a number, a range such as '1-5', a step such as '*/5', a list of these, or '*'"
    if (short := _WORD.sub(lambda word: _shortened(field, word[0]), term)) != term:
        expected = f"{shown(short)}: a name has three letters"
    return CronError(Code.INVALID_CRON, f"{shown(term)} is no {field.name}; expected {expected}")


def _shortened(field: Field, word: str) -> str:
    """The name at the beginning of a longer one, `MON` of `MONDAY`; otherwise the word itself."""
    return word[:3] if word[:3] in field.words else word
