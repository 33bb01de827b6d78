"""How fast destinations are delivered to: token buckets, each with the partition's share of a rate.

A bucket holds at most one second's worth of records, and begins with one. When it is empty its wheel is
closed until there is enough for a tenth of a second, so that a limited destination costs ten transactions a
second and not one for each record; when that will be is computed, so nobody looks in between. Within any t
seconds no more than share · t records go out, and in addition as many as the share, at least one.

A rate that a command has set for a tenant's part of a destination holds in place of the tenant's setting. It
is state, loaded with it.

Rates are of fires: what is too late, given up or cancelled costs nothing. Buckets are not state: like what is
known of a destination's troubles they outlive a failed transaction, and are gone with the process.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from delaystream.codec.envelope import Rate
from delaystream.engine.tenants import Tenants

_BURST_MS: Final = 1_000
_REOPENS_WITH_MS: Final = 100
#: What adding up fractions of a record may leave out.
_ROUNDING: Final = 1e-6


class Bucket:
    """The tokens of one destination, or of one tenant's part of it; times are the event loop's, ms."""

    __slots__ = ("_at_ms", "_capacity", "_per_ms", "_reopens_with", "_tokens", "lane", "opens_ms", "topic")

    def __init__(self, topic: str, lane: str, rate: float, loop_ms: float) -> None:
        self.topic = topic
        #: the tenant that it is for; empty: all of them
        self.lane = lane
        self._per_ms = rate / 1000
        self._capacity = max(1.0, self._per_ms * _BURST_MS)
        self._reopens_with = max(1.0, self._per_ms * _REOPENS_WITH_MS)
        self._tokens = 1.0
        self._at_ms = loop_ms
        #: closed before this time
        self.opens_ms = loop_ms

    def room(self, loop_ms: float) -> int:
        """Records that may go out now."""
        if loop_ms > self._at_ms:
            self._tokens = min(self._capacity, self._tokens + (loop_ms - self._at_ms) * self._per_ms)
            self._at_ms = loop_ms
        return max(0, int(self._tokens + _ROUNDING)) if loop_ms >= self.opens_ms else 0

    def spend(self, count: int, loop_ms: float) -> None:
        """So many records went out, which may close the bucket."""
        self._tokens -= count
        if self._tokens + _ROUNDING < 1:
            self.opens_ms = loop_ms + (self._reopens_with - self._tokens) / self._per_ms


class Rates:
    """The buckets of one partition: of each limited destination, and of each tenant's limited part of one.

    A tenant with a rate of its own for a destination has a wheel of its own there (a *lane*), so that what
    waits for its rate keeps nobody else waiting.
    """

    def __init__(self, tenants: Tenants, partitions: int) -> None:
        self._tenants = tenants
        self._partitions = partitions
        #: False: nothing is limited
        self.active = tenants.have_rates
        #: what commands have set, by tenant and destination; among them what they have cleared again
        self.commanded: dict[tuple[str, str], Rate] = {}
        self._buckets: dict[tuple[str, str], tuple[Bucket, ...]] = {}

    def lane(self, tenant: str, topic: str) -> str:
        """The tenant, where it has a rate of its own for a destination, else ''."""
        return tenant if self._of(tenant, topic) else ""

    def _of(self, tenant: str, topic: str) -> float:
        """Records a second of a tenant's own; 0: no bound."""
        commanded = self.commanded.get((tenant, topic))
        if commanded is not None and commanded.rate is not None:
            return commanded.rate
        return self._tenants.of(tenant).rates.of(topic)

    def load(self, rows: Iterable[Rate]) -> None:
        """Begin with what commands have set, as it is stored; buckets whose rate is the same are kept."""
        before, self.commanded = self.commanded, {(row.tenant, row.destination): row for row in rows}
        for key in before.keys() | self.commanded.keys():
            old, new = before.get(key), self.commanded.get(key)
            if (old and old.rate) != (new and new.rate):
                self._buckets.pop((key[1], key[0]), None)
        self._activate()

    def command(self, row: Rate) -> None:
        """A command sets a tenant's rate for a destination, from now on."""
        self.commanded[row.tenant, row.destination] = row
        self._buckets.pop((row.destination, row.tenant), None)
        self._activate()

    def drop(self, row: Rate) -> None:
        """Forget what a command has cleared."""
        self.commanded.pop((row.tenant, row.destination), None)

    def _activate(self) -> None:
        self.active = self._tenants.have_rates or any(row.rate is not None for row in self.commanded.values())

    def buckets(self, topic: str, lane: str, loop_ms: float) -> tuple[Bucket, ...]:
        """What bounds the fires of one wheel; () for nothing."""
        found = self._buckets.get((topic, lane))
        if found is None:
            found = self._buckets[topic, lane] = tuple(self._made(topic, lane, loop_ms))
        return found

    def _made(self, topic: str, lane: str, loop_ms: float) -> Iterable[Bucket]:
        if lane:
            # The destination's own bucket is shared with all others.
            yield from self.buckets(topic, "", loop_ms)
            rate = self._of(lane, topic)
        else:
            rate = self._tenants.rates.of(topic)
        if rate:
            yield Bucket(topic, lane, rate / self._partitions, loop_ms)

    def spend(self, buckets: Iterable[Bucket], count: int, loop_ms: float) -> None:
        """So many records of one wheel went out."""
        for bucket in buckets:
            bucket.spend(count, loop_ms)

    def closed_until(self, topic: str, lane: str, loop_ms: float) -> float | None:
        """When something may be taken again from what bounds a wheel, the event loop's ms; None: now."""
        opens = [bucket.opens_ms for bucket in self.buckets(topic, lane, loop_ms)]
        until = max(opens, default=loop_ms)
        return until if until > loop_ms else None

    def forget(self, topic: str, lane: str) -> None:
        """Nothing refers to one wheel any more; a bucket that bounds it is kept, or it would begin anew."""
        if self._buckets.get((topic, lane)) == ():
            del self._buckets[topic, lane]


def room(buckets: Iterable[Bucket], loop_ms: float) -> int:
    """Records that may go out now by all of one wheel's buckets, of which there is at least one."""
    return min(bucket.room(loop_ms) for bucket in buckets)
