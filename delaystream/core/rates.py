"""Rates: how many records a second a destination gets."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final

_MEMO_ENTRIES: Final = 10_000


class RateTable:
    """Records a second by destination: names and globs, of which the first that fits counts."""

    def __init__(self, rates: Sequence[tuple[str, float]] = ()) -> None:
        self._rates = tuple(rates)
        self._memo: dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self._rates)

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
