"""Rates: how many records a second a destination gets."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

_MEMO_ENTRIES: Final = 10_000
_MOST: Final = 10_000_000.0
_PER_SECOND: Final = {"s": 1, "m": 60, "h": 3600}
_COUNT: Final = r"(?P<count>[0-9]{1,9}(\.[0-9]{1,9})?)(/(?P<unit>[smh]))?"
_ONE_RATE: Final = re.compile(_COUNT)
_RATE: Final = re.compile(r"(?P<glob>[^=,\s]+)\s*=\s*" + _COUNT)


class RateError(ValueError):
    """A rate is not written as it should be; the message follows on what was written."""


def parse_rate(text: str) -> tuple[str, float]:
    """`emails=50`, `sms-*=600/m` -> the topic name or glob, and records a second.

    The unit is `/s` (the default), `/m` or `/h`. Raises RateError, for 0 too: nothing would be delivered.
    """
    found = _RATE.fullmatch(text.strip())
    if found is None:
        raise RateError("is not a rate; expected TOPIC=COUNT, such as 'emails=50' or 'sms-*=600/m'")
    return found["glob"], _per_second(found)


def parse_count(text: str) -> float:
    """`50`, `600/m`: a rate without its topic, records a second. Raises RateError as `parse_rate` does."""
    found = _ONE_RATE.fullmatch(text.strip())
    if found is None:
        raise RateError(
            "is not a rate; expected a number of records, such as '50' or '50/s', '600/m', '36/h'"
        )
    return _per_second(found)


def _per_second(found: re.Match[str]) -> float:
    rate = float(found["count"]) / _PER_SECOND[found["unit"] or "s"]
    if not 0 < rate <= _MOST:
        raise RateError(f"is out of bounds; expected more than 0 and at most {_MOST:.0f} a second")
    return rate


class RateTable:
    """Records a second by destination: names and globs, of which the first that fits counts."""

    def __init__(self, rates: Iterable[tuple[str, float]] = ()) -> None:
        self._rates = tuple(rates)
        self._memo: dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self._rates)

    @property
    def written(self) -> tuple[tuple[str, float], ...]:
        """Globs and records a second, in their order."""
        return self._rates

    def of(self, destination: str) -> float:
        """Records a second, in all partitions together; 0: no limit."""
        if not self._rates:
            return 0.0
        rate = self._memo.get(destination)
        if rate is None:
            rate = next((rate for glob, rate in self._rates if fnmatchcase(destination, glob)), 0.0)
            if len(self._memo) >= _MEMO_ENTRIES:
                self._memo.clear()
            self._memo[destination] = rate
        return rate
