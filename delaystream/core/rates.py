"""Rates: the records a second to a destination, and the token bucket that enforces them."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

_MEMO_ENTRIES: Final = 10_000
_MOST: Final = 10_000_000.0
_BURST_MS: Final = 1_000
_REOPENS_WITH_MS: Final = 100
#: Rounding error of added fractions of a record.
_ROUNDING: Final = 1e-6
_PER_SECOND: Final = {"s": 1, "m": 60, "h": 3600}
_COUNT: Final = r"(?P<count>[0-9]{1,9}(\.[0-9]{1,9})?)(/(?P<unit>[smh]))?"
_ONE_RATE: Final = re.compile(_COUNT)
_RATE: Final = re.compile(r"(?P<glob>[^=,\s]+)\s*=\s*" + _COUNT)


class RateError(ValueError):
    """The text is not a rate; the message is worded to follow the text."""


def parse_rate(text: str) -> tuple[str, float]:
    """`emails=50`, `sms-*=600/m` -> the topic name or glob, and records a second.

    The unit is `/s` (the default), `/m` or `/h`. Raises RateError, also for 0, which would deliver nothing.
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
    """Records a second by destination: names and globs, of which the first match counts."""

    def __init__(self, rates: Iterable[tuple[str, float]] = ()) -> None:
        self._rates = tuple(rates)
        self._memo: dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self._rates)

    @property
    def written(self) -> tuple[tuple[str, float], ...]:
        """Globs and records a second, in the given order."""
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


class Bucket:
    """The tokens of a destination, or of a tenant for it; times are the event loop's, ms.

    A bucket holds at most one second's worth of records, and begins with one. An empty bucket is closed until
    it has enough for a tenth of a second. So a limited destination costs ten transactions a second, and not
    one for each record. The time of the next opening is computed, so nobody polls. In any t seconds at most
    rate · t records go out, plus one second's worth of records, at least one.
    """

    __slots__ = (
        "_at_ms", "_capacity", "_per_ms", "_reopens_with", "_tokens", "has_closed", "lane", "opens_ms",
        "topic",
    )  # fmt: skip

    def __init__(self, topic: str, lane: str, rate: float, loop_ms: float) -> None:
        self.topic = topic
        #: the tenant that it limits; empty: all tenants together
        self.lane = lane
        self._set(rate)
        self._tokens = 1.0
        self._at_ms = loop_ms
        #: closed until this time
        self.opens_ms = loop_ms
        #: whether it ever was
        self.has_closed = False

    def _set(self, rate: float) -> None:
        self._per_ms = rate / 1000
        self._capacity = max(1.0, self._per_ms * _BURST_MS)
        self._reopens_with = max(1.0, self._per_ms * _REOPENS_WITH_MS)

    def retime(self, rate: float, loop_ms: float) -> None:
        """Go on at another rate with the present tokens: a change of the rate, however often, adds none.

        The same rate changes nothing.
        """
        if rate / 1000 == self._per_ms:
            return
        self._fill(loop_ms)
        self._set(rate)
        self._tokens = min(self._capacity, self._tokens)
        self.opens_ms = loop_ms
        self._close_if_empty(loop_ms)

    def room(self, loop_ms: float) -> int:
        """Records that may go out now."""
        self._fill(loop_ms)
        return max(0, int(self._tokens + _ROUNDING)) if loop_ms >= self.opens_ms else 0

    def spend(self, count: int, loop_ms: float) -> None:
        """Take the tokens of records that went out; this may close the bucket."""
        self._tokens -= count
        self._close_if_empty(loop_ms)

    def _fill(self, loop_ms: float) -> None:
        if loop_ms > self._at_ms:
            self._tokens = min(self._capacity, self._tokens + (loop_ms - self._at_ms) * self._per_ms)
            self._at_ms = loop_ms

    def _close_if_empty(self, loop_ms: float) -> None:
        if self._tokens + _ROUNDING < 1:
            self.opens_ms = loop_ms + (self._reopens_with - self._tokens) / self._per_ms
            self.has_closed = True


def room(buckets: Iterable[Bucket], loop_ms: float) -> int:
    """Records that all buckets of a wheel let out now; there is at least one bucket."""
    return min(bucket.room(loop_ms) for bucket in buckets)
