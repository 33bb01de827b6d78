"""How much may be asked: bounds, rates and streams, counted in bounded memory. Pure: time is an argument."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address
from typing import Final

import msgspec

MOST_ADDRESSES: Final = 10_000
"""Of so many addresses failures are remembered; of more the one that was quiet for longest is forgotten."""
_MINUTE_S: Final = 60.0
_NETWORK_BITS: Final = 64
_LONGEST: Final = 64


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds on what is asked; bytes where nothing else is said."""

    #: of one caller; None: any number
    requests_per_second: int | None = None
    #: of one address, failed authentications; and sign-ins that are begun
    failures_per_minute: int = 30
    body_bytes: int = 2 << 20
    #: path and query, as they were sent
    url_bytes: int = 16 << 10
    header_bytes: int = 16 << 10
    #: of one caller at once
    streams: int = 100


class Buckets:
    """Token buckets: a second's worth of `per_second`, or `burst`, may be used at once."""

    def __init__(self, per_second: float, burst: float, most: int) -> None:
        self._per_second = per_second
        self._burst = burst
        self._most = most
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._left)

    def take(self, name: str, now_s: float) -> float:
        """Take one: 0.0 if there was one left, otherwise the seconds until there is one."""
        left, at_s = self._left.pop(name, (self._burst, now_s))
        left = min(self._burst, left + max(0.0, now_s - at_s) * self._per_second)
        wait_s = 0.0 if left >= 1 else (1 - left) / self._per_second
        self._left[name] = (left - (wait_s == 0), now_s)
        if len(self._left) > self._most:
            self._left.popitem(last=False)
        return wait_s


class TooManyOfOneCaller(Exception):
    """A caller has as many streams open as it may."""


class Limits:
    """What was asked lately, and what is open."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        per_second = bounds.requests_per_second
        # The names of callers are those of the file of tokens: they are not many.
        self._requests = None if per_second is None else Buckets(per_second, 2 * per_second, MOST_ADDRESSES)
        failures = bounds.failures_per_minute
        self._failures = Buckets(failures / _MINUTE_S, failures, MOST_ADDRESSES)
        self._sign_ins = Buckets(failures / _MINUTE_S, failures, MOST_ADDRESSES)
        self._streams: Counter[str] = Counter()

    def request(self, caller: str, now_s: float) -> float:
        """Count a request: 0.0, or after how many seconds the caller may ask again."""
        return 0.0 if self._requests is None else self._requests.take(caller, now_s)

    def failure(self, address: str, now_s: float) -> float:
        """Count a failed authentication, likewise."""
        return self._failures.take(network(address), now_s)

    def sign_in(self, address: str, now_s: float) -> float:
        """Count a sign-in that is begun, likewise: whoever begins one has shown nothing yet."""
        return self._sign_ins.take(network(address), now_s)

    def may_stream(self, caller: str) -> bool:
        """Whether a caller may open another stream."""
        return self._streams[caller] < self.bounds.streams

    @contextmanager
    def stream(self, caller: str) -> Iterator[None]:
        """While a stream is open. Raises TooManyOfOneCaller."""
        if not self.may_stream(caller):
            raise TooManyOfOneCaller(caller)
        self._streams[caller] += 1
        try:
            yield
        finally:
            self._streams[caller] -= 1
            if not self._streams[caller]:
                del self._streams[caller]


def network(address: str) -> str:
    """Who has an address of IPv6 has its network of 64 bits, too."""
    try:
        found = ip_address(address)
    except ValueError:
        return address[:_LONGEST]
    if isinstance(found, IPv6Address) and found.ipv4_mapped is None:
        return str(int(found) >> _NETWORK_BITS)
    return address
