"""How much is pending: by destination, by hour, by tenant; kept as entries come and go, never by a scan.

The counters are local to a store: each is one small key beside the entries that it counts, written in the
same batch, and all of them are counted anew when a store is rebuilt from the changelog.

=== ============================================================ =========================================
key rest of the key                                              value
=== ============================================================ =========================================
l   destination number (4), hour since the epoch (4)             entries of the wheel that are due in it (8)
q   tenant (a request topic)                                     its entries, in all wheels, and what its
                                                                 paused schedules would have there (8)
=== ============================================================ =========================================
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from struct import Struct
from typing import Final

import msgspec

from delaystream.codec import keys
from delaystream.codec.envelope import Status, decode_schedule, decode_source
from delaystream.engine.ports import Change, StateStore
from delaystream.query.rows import everything

HOUR_MS: Final = 3_600_000
_RECOUNTED_AT_ONCE: Final = 20_000
_bucket = Struct(">cII")
_count = Struct(">Q")


class PendingChange(msgspec.Struct, frozen=True):
    """The counts that a committed step has changed, as they are now; 0 where nothing is left."""

    #: by destination topic
    destinations: dict[str, int]
    #: by hour since the epoch, of the due time
    hours: dict[int, int]
    #: by request topic
    tenants: dict[str, int]


class PendingCounts:
    """The counters of one partition; housekeeping is not counted.

    ``total``, destinations and hours are those of committed steps; a tenant's counts include the step in
    hand.
    """

    def __init__(self) -> None:
        self.total = 0
        self._buckets: dict[tuple[int, int], int] = {}
        self._destinations: dict[str, int] = {}
        self._hours: dict[int, int] = {}
        #: entries of committed steps, by destination number
        self._wheels: dict[int, int] = {}
        #: what the step in hand adds or takes, by (destination number, hour)
        self._differences: dict[tuple[int, int], int] = {}
        #: by tenant number: the count with the step in hand, and the one that is stored
        self._tenants: list[int] = []
        self._stored: list[int] = []
        self._tenant_names: list[str] = []
        self._tenant_numbers: dict[str, int] = {}
        #: tenant number by source number
        self._tenant_of: list[int] = []
        #: by tenant: ids that a cancel forestalls, with the step in hand, and those that are stored
        self._forestalled: dict[str, int] = {}
        self._forestalled_stored: dict[str, int] = {}

    def load(self, store: StateStore, destinations: Sequence[str]) -> None:
        """Read what is stored."""
        for key, value in everything(store, b"l", b"m"):
            _, wheel, hour = _bucket.unpack(key)
            self._fold((wheel, hour), _count.unpack(value)[0], destinations)
        for key, value in everything(store, b"q", b"r"):
            number = self._tenant(key[1:].decode())
            self._tenants[number] = self._stored[number] = _count.unpack(value)[0]
        for key, value in everything(store, b"f", b"g"):
            count = _count.unpack(value)[0]
            self._forestalled[key[1:].decode()] = self._forestalled_stored[key[1:].decode()] = count

    def source(self, topic: str) -> None:
        """One more source number is in use, for a partition of a request topic."""
        self._tenant_of.append(self._tenant(topic))

    def _tenant(self, topic: str) -> int:
        number = self._tenant_numbers.get(topic)
        if number is None:
            number = self._tenant_numbers[topic] = len(self._tenant_names)
            self._tenant_names.append(topic)
            self._tenants.append(0)
            self._stored.append(0)
        return number

    def add_paused(self, topic: str, difference: int) -> None:
        """So many fires more of a tenant's are kept out of the wheels by a pause; fewer if negative."""
        if difference:
            self._tenants[self._tenant(topic)] += difference

    def forestall(self, topic: str, difference: int) -> None:
        """So many ids more of a tenant's are remembered as cancelled and never known; fewer if negative."""
        self._forestalled[topic] = self._forestalled.get(topic, 0) + difference

    def forestalled(self, topic: str) -> int:
        """How many such ids of a request topic there are, the step in hand included."""
        return self._forestalled.get(topic, 0)

    def of_tenant(self, topic: str) -> int:
        """Entries of a request topic, paused ones too, the step in hand included."""
        number = self._tenant_numbers.get(topic)
        return 0 if number is None else self._tenants[number]

    def add(self, wheel: int, hour: int, source: int, difference: int) -> None:
        """So many entries more in one hour of a wheel, from requests of one source; fewer if negative."""
        if wheel:
            bucket = (wheel, hour)
            differences = self._differences
            differences[bucket] = differences.get(bucket, 0) + difference
            self._tenants[self._tenant_of[source]] += difference

    def empty(self, wheel: int) -> bool:
        """Whether a wheel has no entry, and the step in hand neither adds one nor takes one out."""
        return wheel not in self._wheels and not any(changed == wheel for changed, _ in self._differences)

    def of_wheel(self, wheel: int) -> int:
        """Entries of a wheel, the step in hand included."""
        changed = sum(difference for (of, _), difference in self._differences.items() if of == wheel)
        return self._wheels.get(wheel, 0) + changed

    def _fold(self, bucket: tuple[int, int], difference: int, destinations: Sequence[str]) -> int:
        topic, hour = destinations[bucket[0]], bucket[1]
        count = self._buckets[bucket] = self._buckets.get(bucket, 0) + difference
        self._destinations[topic] = self._destinations.get(topic, 0) + difference
        self._hours[hour] = self._hours.get(hour, 0) + difference
        self.total += difference
        if not count:
            del self._buckets[bucket]
        left = self._wheels[bucket[0]] = self._wheels.get(bucket[0], 0) + difference
        if not left:
            del self._wheels[bucket[0]]
        return count

    def apply(self, destinations: Sequence[str]) -> tuple[list[Change], PendingChange]:
        """The step is committed: the rows of the counters that it changes, and their values."""
        rows: list[Change] = []
        topics: dict[str, int] = {}
        hours: dict[int, int] = {}
        for bucket, difference in self._differences.items():
            if difference:
                count = self._fold(bucket, difference, destinations)
                rows.append((_bucket.pack(b"l", *bucket), _count.pack(count) if count else None))
                topics[destinations[bucket[0]]] = hours[bucket[1]] = 0
        self._differences.clear()
        for topic in topics:
            topics[topic] = _taken(self._destinations, topic)
        for hour in hours:
            hours[hour] = _taken(self._hours, hour)
        tenants: dict[str, int] = {}
        for number, count in enumerate(self._tenants):
            if count != self._stored[number]:
                topic, self._stored[number] = self._tenant_names[number], count
                tenants[topic] = count
                rows.append((_tenant_key(topic), _count.pack(count) if count else None))
        for topic, count in [*self._forestalled.items()]:
            if count != self._forestalled_stored.get(topic, 0):
                rows.append((_forestalled_key(topic), _count.pack(count) if count else None))
            if count:
                self._forestalled_stored[topic] = count
            else:
                del self._forestalled[topic]
                self._forestalled_stored.pop(topic, None)
        return rows, PendingChange(topics, hours, tenants)

    def everything(self) -> PendingChange:
        """All counts as they are: for whoever begins to listen."""
        tenants = {name: self._stored[number] for name, number in self._tenant_numbers.items()}
        return PendingChange(dict(self._destinations), dict(self._hours), tenants)


def _taken(counts: dict[str, int] | dict[int, int], name: str | int) -> int:
    """A count, which is forgotten when it is 0."""
    known: dict[str | int, int] = counts  # type: ignore[assignment]
    count = known[name]
    if not count:
        del known[name]
    return count


def _tenant_key(topic: str) -> bytes:
    return b"q" + topic.encode()


class _Tally:
    """Counts entries of wheels, entries that paused schedules would have there, and forestalled ids."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[int, int], int] = {}
        self._sources: dict[int, int] = {}
        self._tenants: dict[str, int] = {}
        self._forestalled: dict[str, int] = {}

    def entries(self, wheel_keys: Iterable[bytes], difference: int) -> None:
        """Each of these entries has come (1) or gone (-1); none is of housekeeping."""
        buckets, sources = self._buckets, self._sources
        for key in wheel_keys:
            wheel, due_ms, source, _, _ = keys.split_wheel_key(key)
            bucket = (wheel, due_ms // HOUR_MS)
            buckets[bucket] = buckets.get(bucket, 0) + difference
            sources[source] = sources.get(source, 0) + difference

    def schedule(self, key: bytes, stored: bytes | None, difference: int) -> None:
        """A row of a schedule has come (1) or gone (-1)."""
        # Few are either: what does not hold the word need not be decoded.
        if stored is None or not (b"paused" in stored or b"forestalled" in stored):
            return
        schedule = decode_schedule(stored)
        tenant, _ = keys.split_schedule_key(key)
        if withheld := schedule.paused_fires:
            self._tenants[tenant] = self._tenants.get(tenant, 0) + difference * withheld
        if schedule.status is Status.FORESTALLED:
            self._forestalled[tenant] = self._forestalled.get(tenant, 0) + difference

    def counters(self, topic_of: Callable[[int], str]) -> Iterator[tuple[bytes, int]]:
        """The counters that this changes, and by how much; `topic_of` a source number is its tenant."""
        for bucket, difference in self._buckets.items():
            yield _bucket.pack(b"l", *bucket), difference
        tenants = dict(self._tenants)
        for source, difference in self._sources.items():
            topic = topic_of(source)
            tenants[topic] = tenants.get(topic, 0) + difference
        for topic, difference in tenants.items():
            yield _tenant_key(topic), difference
        for topic, difference in self._forestalled.items():
            yield _forestalled_key(topic), difference


def _forestalled_key(topic: str) -> bytes:
    return b"f" + topic.encode()


async def recount(store: StateStore) -> list[Change]:
    """The counters, counted anew from every wheel key and every schedule's record: after a rebuild.

    Ten million keys take some seconds; others have their turn meanwhile.
    """
    tally = _Tally()
    wheel_keys = iter(store.keys(keys.wheel_bound(keys.HOUSEKEEPING + 1), keys.WHEEL_END))
    while some := list(islice(wheel_keys, _RECOUNTED_AT_ONCE)):
        tally.entries(some, 1)
        await asyncio.sleep(0)
    for number, (key, value) in enumerate(everything(store, b"s", b"t")):
        tally.schedule(key, value, 1)
        if number % _RECOUNTED_AT_ONCE == 0:
            await asyncio.sleep(0)
    return [(counter, _count.pack(count)) for counter, count in tally.counters(partial(_topic_of, store, {}))]


def recounted(store: StateStore, changes: Sequence[Change]) -> Iterator[Change]:
    """The counters that replaying ``changes`` on the store alters, with their new values.

    Must be asked before the changes are written. A change counts by what the store holds, not by what the
    log says: compaction may have dropped the other half of a pair.
    """
    tally = _Tally()
    named = {key: value for key, value in changes if key[:1] == b"n"}
    present: dict[bytes, bool] = {}
    schedules: dict[bytes, bytes | None] = {}
    for key, value in changes:
        if key[:1] == b"s":
            tally.schedule(key, schedules[key] if key in schedules else store.get(key), -1)
            tally.schedule(key, value, 1)
            schedules[key] = value
        elif key[:1] == b"w" and keys.wheel_of(key) != keys.HOUSEKEEPING:
            was = present[key] if key in present else store.get(key) is not None
            present[key] = value is not None
            if was != present[key]:
                tally.entries([key], -1 if was else 1)
    for counter, difference in tally.counters(partial(_topic_of, store, named)):
        stored = store.get(counter)
        count = difference + (_count.unpack(stored)[0] if stored is not None else 0)
        yield counter, _count.pack(count) if count else None


def _topic_of(store: StateStore, named: dict[bytes, bytes | None], source: int) -> str:
    key = keys.source_key(source)
    stored = named.get(key) or store.get(key)
    assert stored is not None, "a wheel entry's source has its name"
    return decode_source(stored).topic
