"""How fast destinations are delivered to: token buckets, each with the partition's share of a rate.

The wheel of an empty bucket is closed until that opens again (`core/rates.py`).

A rate that a command has set for a tenant's part of a destination holds in place of the tenant's setting. It
is state, loaded with it.

Rates are of fires: what is too late, given up or cancelled costs nothing. Buckets are not state: like what is
known of a destination's troubles they outlive a failed transaction, and are gone with the process.
"""

from __future__ import annotations

from collections.abc import Iterable

from delaystream.codec.envelope import Rate
from delaystream.core.rates import Bucket
from delaystream.engine.policy.tenants import Tenants


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
        #: by destination and tenant: what bounds a wheel
        self._buckets: dict[tuple[str, str], tuple[Bucket, ...]] = {}
        #: by the same: the bucket that a tenant's part has, or had before its rate was cleared
        self._own: dict[tuple[str, str], Bucket] = {}

    def lane(self, tenant: str, topic: str) -> str:
        """The tenant, where it has a rate of its own for a destination, else ''."""
        return tenant if self._of(tenant, topic) else ""

    def _of(self, tenant: str, topic: str) -> float:
        """Records a second of a tenant's own; 0: no bound."""
        commanded = self.commanded.get((tenant, topic))
        if commanded is not None and commanded.rate is not None:
            return commanded.rate
        return self._tenants.of(tenant).rates.of(topic)

    def load(self, rows: Iterable[Rate], loop_ms: float) -> None:
        """Begin with what commands have set, as it is stored."""
        before, self.commanded = self.commanded, {(row.tenant, row.destination): row for row in rows}
        for tenant, topic in before.keys() | self.commanded.keys():
            self._retime(topic, tenant, loop_ms)
        self._activate()

    def command(self, row: Rate, loop_ms: float) -> None:
        """A command sets a tenant's rate for a destination, from now on.

        The bucket keeps its content: the same command again, or one rate after another, lets no more out.
        """
        self.commanded[row.tenant, row.destination] = row
        self._retime(row.destination, row.tenant, loop_ms)
        self._activate()

    def _retime(self, topic: str, lane: str, loop_ms: float) -> None:
        self._buckets.pop((topic, lane), None)
        bucket, rate = self._own.get((topic, lane)), self._of(lane, topic)
        if bucket is not None and rate:
            bucket.retime(rate / self._partitions, loop_ms)

    def drop(self, row: Rate) -> None:
        """Forget what a command has cleared."""
        self.commanded.pop((row.tenant, row.destination), None)
        if not self._of(row.tenant, row.destination):
            self._own.pop((row.destination, row.tenant), None)

    def _activate(self) -> None:
        self.active = self._tenants.have_rates or any(row.rate is not None for row in self.commanded.values())

    def buckets(self, topic: str, lane: str, loop_ms: float) -> tuple[Bucket, ...]:
        """The buckets that bound the fires of one wheel; () for none."""
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
            bucket = self._own.get((topic, lane))
            if bucket is None:
                bucket = self._own[topic, lane] = Bucket(topic, lane, rate / self._partitions, loop_ms)
            yield bucket

    def spend(self, buckets: Iterable[Bucket], count: int, loop_ms: float) -> None:
        """So many records of one wheel went out."""
        for bucket in buckets:
            bucket.spend(count, loop_ms)

    def closed_until(self, topic: str, lane: str, loop_ms: float) -> float | None:
        """When something may be taken again from what bounds a wheel, the event loop's ms; None: now."""
        opens = [bucket.opens_ms for bucket in self.buckets(topic, lane, loop_ms)]
        until = max(opens, default=loop_ms)
        return until if until > loop_ms else None

    def opened_at(self, topic: str, lane: str, loop_ms: float) -> float | None:
        """When what bounds a wheel last let nothing out, the event loop's ms; None: it always has."""
        return max(
            [bucket.opens_ms for bucket in self.buckets(topic, lane, loop_ms) if bucket.has_closed],
            default=None,
        )

    def forget(self, topic: str, lane: str) -> None:
        """Nothing refers to one wheel any more; a bucket that bounds it is kept, or it would begin anew."""
        if self._buckets.get((topic, lane)) == ():
            del self._buckets[topic, lane]
