"""Rewrites cron expressions of other systems into expressions that mean the same to our parser.

Schedulers agree on the fields. They differ on steps, on wildcards, and on the meaning of two restricted day
fields. So an expression is read by its own system's rules, and rewritten as numbers, ranges and lists,
without ambiguous parts: a day field is `*` only if its system treats it as `*`.
"""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from delaystream.dialects.translation import invalid

_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


class Field(NamedTuple):
    """The bounds of one field, inclusive, and the names that its system knows."""

    name: str
    least: int
    most: int
    names: Mapping[str, int] = {}


SECOND: Final = Field("second", 0, 59)
MINUTE: Final = Field("minute", 0, 59)
HOUR: Final = Field("hour", 0, 23)
DAY: Final = Field("day of month", 1, 31)
MONTH: Final = Field("month", 1, 12)
WEEKDAY: Final = Field("day of week", 0, 6)
NAMED_MONTH: Final = MONTH._replace(names={name: at for at, name in enumerate(_MONTHS, 1)})
NAMED_WEEKDAY: Final = WEEKDAY._replace(names={name: at for at, name in enumerate(_WEEKDAYS)})


class Grammar(NamedTuple):
    """The rules by which a system reads its expressions."""

    fields: tuple[Field, ...]
    """The last three are day of month, month, day of week."""
    multiples: bool = False
    """Whether a step selects the multiples of its number, independent of the start of the range."""
    open_steps: bool = False
    """Whether `5/10` means from 5 to the end in steps of 10."""


class _Values(NamedTuple):
    numbers: frozenset[int]
    wildcard: bool


def rewritten(header: str, expression: str, grammar: Grammar) -> str:
    """The expression in our form; raises `DialectError` if its own system refuses it."""
    tokens = expression.split()
    if len(tokens) != len(grammar.fields):
        count = len(grammar.fields)
        names = ", ".join(field.name for field in grammar.fields)
        raise invalid(header, expression, f"{count} fields ({names})")
    try:
        read = [_values(token, field, grammar) for token, field in zip(tokens, grammar.fields, strict=True)]
    except _FieldError as error:
        raise invalid(header, expression, str(error)) from None
    day, month, weekday = read[-3:]
    if not day.wildcard and not weekday.wildcard and (len(day.numbers) == 31 or len(weekday.numbers) == 7):
        # One matching day field is enough, and one of the fields has every day.
        day = weekday = _Values(frozenset(), wildcard=True)
    clock = [
        _clock_token(token, values, field)
        for token, values, field in zip(tokens[:-3], read, grammar.fields, strict=False)
    ]
    return " ".join([*clock, _token(day), _token(month), _token(weekday)])


def listed_steps(expression: str) -> str:
    """An expression with ranges for `*/n` in the day fields: croniter does not read `*/n` as a wildcard.

    The last five fields are those of a crontab. An unreadable field stays, and the parser refuses it.
    """
    tokens = expression.split()
    if len(tokens) in {5, 6}:
        for at, everything in ((-3, "1-31"), (-1, "0-6")):
            tokens[at] = ",".join(
                everything + item[1:] if item.startswith("*/") and item != "*/1" else item
                for item in tokens[at].split(",")
            )
    return " ".join(tokens)


class _FieldError(Exception):
    """A field cannot be read; the message says what is expected."""


def _values(token: str, field: Field, grammar: Grammar) -> _Values:
    numbers: set[int] = set()
    wildcard = False
    for item in token.split(","):
        span, slash, step_text = item.partition("/")
        step = _number(step_text, field) if slash else 1
        if step < 1:
            raise _FieldError(f"a step of 1 or more in the field {field.name}")
        first, last = _span(span, field, to_the_end=bool(slash) and grammar.open_steps)
        found = range(first, last + 1)
        numbers.update(n for n in found if (n % step == 0 if grammar.multiples else (n - first) % step == 0))
        wildcard |= span in {"*", "?"} and step == 1
    if not numbers:
        raise _FieldError(f"a value from {field.least} to {field.most} in the field {field.name}")
    return _Values(frozenset(numbers), wildcard)


def _span(span: str, field: Field, *, to_the_end: bool) -> tuple[int, int]:
    if span in {"*", "?"}:
        return field.least, field.most
    low, hyphen, high = span.partition("-")
    first = _number(low, field)
    last = _number(high, field) if hyphen else field.most if to_the_end else first
    if not field.least <= first <= last <= field.most:
        raise _FieldError(f"{field.least} to {field.most}, the lower one first, in the field {field.name}")
    return first, last


def _number(text: str, field: Field) -> int:
    named = field.names.get(text.lower())
    if named is not None:
        return named
    if text.isascii() and text.isdigit() and len(text) <= 4:
        return int(text)
    raise _FieldError(f"numbers{' or names' if field.names else ''} in the field {field.name}")


def _clock_token(token: str, values: _Values, field: Field) -> str:
    # The wildcard decides whether the expression follows elapsed time at clock changes, so it is kept.
    span, _, step = token.partition("/")
    if span in {"*", "?"} and field.least == 0 and "," not in token:
        return f"*/{step}" if step else "*"
    return _token(values)


def _token(values: _Values) -> str:
    return "*" if values.wildcard else ",".join(_items(sorted(values.numbers)))


def _items(numbers: list[int]) -> Iterator[str]:
    """The numbers as a list; three or more at equal distances become a range with a step."""
    at = 0
    while at < len(numbers):
        end = at + 1
        if end < len(numbers):
            step = numbers[end] - numbers[at]
            while end + 1 < len(numbers) and numbers[end + 1] - numbers[end] == step:
                end += 1
            if end - at >= 2:
                yield f"{numbers[at]}-{numbers[end]}" + (f"/{step}" if step > 1 else "")
                at = end + 1
                continue
        yield str(numbers[at])
        at += 1
