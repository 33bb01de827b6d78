"""Numbers that callers say: held against their bounds where they come in, each refused in a sentence."""

from __future__ import annotations

from datetime import timedelta
from math import isfinite
from operator import index
from typing import Any

LARGEST: int = 2**31 - 1
"""What Kafka counts partitions with, and its clients most else."""


def whole_number(name: str, value: Any, least: int, most: int = LARGEST) -> int:
    """`value` as an int, from `least` to `most`. ValueError for others, TypeError for a bool and whatever is
    no whole number by its type."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} takes a whole number, not {type(value).__qualname__} ({_shown(value)})")
    number = index(value)
    if not least <= number <= most:
        raise ValueError(f"{name} is {_shown(number)}; expected a whole number from {least} to {most}.")
    return number


def real_number(name: str, value: Any, least: float, most: float) -> float:
    """`value`, from `least` to `most`. ValueError for others and for what is not finite, TypeError for a bool
    and what is no int or float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} takes a number, not {type(value).__qualname__} ({_shown(value)})")
    if not (isinstance(value, int) or isfinite(value)) or not least <= value <= most:
        raise ValueError(f"{name} is {_shown(value)}; expected a number from {least:g} to {most:g}.")
    return value


def span(name: str, value: Any) -> timedelta:
    """`value`, a length of time that is not negative. Raises ValueError, TypeError."""
    if not isinstance(value, timedelta):
        raise TypeError(f"{name} takes a timedelta, not {type(value).__qualname__} ({_shown(value)})")
    if value < timedelta():
        raise ValueError(f"{name} is {value}; expected a length of time that is not negative.")
    return value


def _shown(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return "a number of more than a hundred digits"  # Python may refuse to write it out
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


_MOST_BITS = 333
_MOST_SHOWN = 120
