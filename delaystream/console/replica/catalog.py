"""Named schedules of all partitions: one by its id, a page of those that match, and how many there are."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import groupby, islice
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from delaystream.codec import keys
from delaystream.codec.envelope import LIVE, UNREADABLE, Schedule, Status, decode_schedule, kept_key
from delaystream.codec.event import next_at_ms
from delaystream.console.access.caller import ITSELF, Caller
from delaystream.console.replica import index_keys
from delaystream.console.replica.index import correlated, words
from delaystream.core.partitioning import owner_partition
from delaystream.engine.ports import StateStore
from delaystream.query.partition import StoredSchedule
from delaystream.query.rows import everything, payload_of

COUNTED: Final = 10_000
"""What is not counted by a counter is counted up to here."""
LOOKED_AT: Final = 20_000
"""So many index rows are looked at for one page; a page may be shorter for it, and has a cursor then."""
READ: Final = 4_000
"""So many schedules are read for one page, and for one total: one costs as much as several rows of the index.
A page may be shorter for it, likewise."""
FEW: Final = 4_000
"""Up to so many matches are read whole, and sorted."""
NARROWED: Final = 10_000
"""Up to so many index rows of one key, tag, word, destination or beginning of an id are taken as a whole."""

_CHUNK: Final = 100
_AT_ONCE: Final = 500
_SIGN_AT: Final = slice(8, 12)


class Sort(StrEnum):
    """Orders of a list."""

    #: the earliest next fire first, what has none last
    NEXT = "next"
    #: the latest fire first, what never fired last
    LAST = "last"
    #: the latest first
    CREATED = "created"
    ID = "id"


_KINDS: Final = {Sort.NEXT: b"A", Sort.LAST: b"B", Sort.CREATED: b"C", Sort.ID: b"I"}


class Filter(msgspec.Struct, frozen=True):
    """Which named schedules are meant; all of it holds at once, None and empty: any."""

    #: request topics; None: all of them
    tenants: frozenset[str] | None = None
    statuses: tuple[Status, ...] = LIVE
    destination: str | None = None
    key: bytes | None = None
    tag: str | None = None
    id_prefix: str = ""
    #: words that id, name or description have
    text: str = ""
    #: of the next fire, ms: from, and up to without that
    next_from_ms: int | None = None
    next_to_ms: int | None = None
    #: value of one of the headers `delaystream.codec.correlation.CORRELATING`, or a request id
    correlation_id: bytes | None = None

    def fits(self, tenant: str, id: str, schedule: Schedule) -> bool:
        """Whether a schedule is meant."""
        return (
            (self.tenants is None or tenant in self.tenants)
            and schedule.status in self.statuses
            and (self.destination is None or schedule.destination == self.destination)
            and (self.key is None or schedule.key == kept_key(self.key))
            and (self.tag is None or self.tag in schedule.tags)
            and (self.correlation_id is None or self.correlation_id in correlated(schedule))
            and id.startswith(self.id_prefix)
            and (not self.text or self._has_words(id, schedule))
            and (not self.bounded or self._within(next_at_ms(schedule)))
        )

    def _has_words(self, id: str, schedule: Schedule) -> bool:
        return set(words(self.text)) <= set(words(id, schedule.name, schedule.description))

    def _within(self, next_ms: int | None) -> bool:
        if next_ms is None:
            return False
        if self.next_from_ms is not None and next_ms < self.next_from_ms:
            return False
        return self.next_to_ms is None or next_ms < self.next_to_ms

    @property
    def prefixes(self) -> list[bytes]:
        """What the index has rows for: each of them narrows."""
        found = []
        if self.key is not None:
            found.append(index_keys.key_prefix(kept_key(self.key) or b""))
        if self.tag is not None:
            found.append(index_keys.tag_prefix(self.tag))
        if self.correlation_id is not None:
            found.append(index_keys.correlation_prefix(self.correlation_id))
        found += [index_keys.word_prefix(word) for word in words(self.text)]
        if self.destination is not None:
            found.append(index_keys.destination_prefix(self.destination))
        return found

    @property
    def counted(self) -> bool:
        """Whether counters tell how many there are."""
        narrow = (self.key, self.tag, self.correlation_id)
        return all(one is None for one in narrow) and not self.text and self._unranged

    @property
    def indexed(self) -> bool:
        """Whether what `prefixes` have in common is what it means, but for when the next fire is."""
        return len(self.correlation_id or b"") < index_keys.CORRELATION_BYTES

    @property
    def bounded(self) -> bool:
        """Whether it says when the next fire is."""
        return self.next_from_ms is not None or self.next_to_ms is not None

    @property
    def _unranged(self) -> bool:
        return not self.id_prefix and not self.bounded


class Page(msgspec.Struct, frozen=True):
    """Some of a list."""

    items: Sequence[StoredSchedule]
    #: where the next page begins; None: there is none
    next: bytes | None


class Total(msgspec.Struct, frozen=True):
    """How many match."""

    count: int
    #: whether there are no more than that
    exact: bool


class Narrowed(msgspec.Struct, frozen=True):
    """The rows among which all that matches is."""

    #: with the keys of their rows
    rows: Sequence[tuple[StateStore, bytes]]
    #: whether they are what matches, but for when the next fire is
    exact: bool


class _Rights(NamedTuple):
    """What a caller sees of a request topic."""

    sees: bool
    reads_payload: bool
    reads_key: bool


_Row = tuple[bytes, bytes, StateStore, bytes]
"""Where a row stands in a list, the code of its status, and its key."""
_Placed = tuple[bytes, StateStore, bytes]
"""Likewise, without the status."""


class Catalog:
    """The named schedules of every partition that a caller sees; without payload and key where it may not.

    ``stores`` are those that have an index, by partition.
    """

    def __init__(self, stores: Mapping[int, StateStore], partitions: int, caller: Caller = ITSELF) -> None:
        self._stores = stores
        self._partitions = partitions
        self._caller = caller
        self._rights: dict[str, _Rights] = {}

    def get(self, tenant: str, id: str) -> StoredSchedule | None:
        """One schedule, whatever its status; None where there is none, or its partition is not here."""
        store = self._stores.get(owner_partition(id, self._partitions))
        return None if store is None else self._read(store, keys.schedule_key(tenant, id))

    def partition_of(self, id: str) -> int:
        """Where an id belongs."""
        return owner_partition(id, self._partitions)

    def page(self, wanted: Filter, sort: Sort, limit: int, after: bytes | None = None) -> Page:
        """Up to ``limit`` schedules in order; ``after`` is the cursor of the page before.

        What moves behind the cursor meanwhile is left out, and what moves ahead is there again. The cursor
        may be the place of a schedule that the caller does not see.
        """
        return self._listed(wanted, sort, limit, after)[0]

    def listed(
        self, wanted: Filter, sort: Sort, limit: int, after: bytes | None = None
    ) -> tuple[Page, Total]:
        """A page, and how many match: see `page` and `total`."""
        page, narrowed, fitting = self._listed(wanted, sort, limit, after)
        return page, self._total(narrowed, wanted, fitting)

    def _listed(
        self, wanted: Filter, sort: Sort, limit: int, after: bytes | None
    ) -> tuple[Page, Narrowed | None, int | None]:
        """A page, what it was narrowed to, and how many match, where the page's reading has told."""
        narrowed = self._narrow(wanted)
        if narrowed is None or len(narrowed.rows) > FEW:
            return self._in_turn(narrowed, wanted, sort, limit, after), narrowed, None
        placed = self._placed(narrowed, wanted, sort)
        return self._sorted(placed, limit, after), narrowed, len(placed)

    def _in_turn(
        self, narrowed: Narrowed | None, wanted: Filter, sort: Sort, limit: int, after: bytes | None
    ) -> Page:
        """A page of what is gone through in its order."""
        items: list[StoredSchedule] = []
        last, read, looked_at = after, 0, 0
        members = None if narrowed is None else {row_key for _, row_key in narrowed.rows}
        tenants = self._caller.seen(wanted.tenants)
        rows, at_once = self._in_order(wanted, sort, after), 2 * limit
        while some := list(islice(rows, at_once)):
            meant = self._having(some, wanted, sort) if members is None else members
            for place, _, store, row_key in some:
                if looked_at == LOOKED_AT or read == READ:
                    return Page(items, last)
                looked_at += 1
                if _is_of(row_key, tenants):
                    if len(items) == limit:
                        return Page(items, last)
                    if row_key in meant:
                        read += 1
                        found = self._read(store, row_key, wanted)
                        if found is not None:
                            items.append(found)
                last = place
            at_once = _AT_ONCE
        return Page(items, None)

    def _having(self, rows: Sequence[_Row], wanted: Filter, sort: Sort) -> set[bytes]:
        """Of some rows the keys of those that may be meant, by all that the index tells; nothing is read."""
        if wanted.destination is not None and sort is not Sort.ID:
            sign = index_keys.sign(wanted.destination)
            rows = [row for row in rows if row[0][_SIGN_AT] == sign]
        if beginning := wanted.id_prefix:
            rows = [row for row in rows if keys.split_schedule_key(row[3])[1].startswith(beginning)]
        found = [(store, code + row_key) for _, code, store, row_key in rows]
        if prefixes := replace(wanted, destination=None).prefixes:
            found.sort(key=lambda row: id(row[0]))
            return {row_key for _, row_key in _agreeing(found, prefixes)}
        return {reference[1:] for _, reference in found}

    def total(self, wanted: Filter) -> Total:
        """How many match: exactly by request topic, status and destination; by other filters up to `COUNTED`.

        Where much has to be read for it, what was read by then is counted: there are at least so many.
        """
        return self._total(self._narrow(wanted), wanted)

    def _total(self, narrowed: Narrowed | None, wanted: Filter, fitting: int | None = None) -> Total:
        if wanted.counted:
            return Total(sum(count for _, _, _, count in self.counts(wanted)), True)
        tenants = self._caller.seen(wanted.tenants)
        if narrowed is not None:
            if narrowed.exact and not wanted.bounded:
                return _counted(len(narrowed.rows))
            if len(narrowed.rows) <= FEW:
                return _counted(len(self._placed(narrowed, wanted, Sort.ID)) if fitting is None else fitting)
        if (rows := self._matching(wanted)) is not None:
            looked_at = 0
            count = 0
            for _, reference in islice(rows, COUNTED + 1):
                looked_at += 1
                count += _is_of(reference[1:], tenants)
            return Total(min(count, COUNTED), looked_at <= COUNTED)
        return self._read_total(wanted, tenants)

    def _read_total(self, wanted: Filter, tenants: Container[str] | None) -> Total:
        looked_at = read = count = 0
        rows = islice(self._in_order(wanted, Sort.NEXT, None), COUNTED)
        while some := list(islice(rows, _AT_ONCE)):
            looked_at += len(some)
            meant = self._having(some, wanted, Sort.NEXT)
            for _, _, store, row_key in some:
                if row_key in meant and _is_of(row_key, tenants):
                    if read == READ:
                        return Total(count, False)
                    read += 1
                    count += self._read(store, row_key, wanted) is not None
        return Total(count, looked_at < COUNTED)

    def counts(self, wanted: Filter | None = None) -> Iterator[tuple[str, str, Status, int]]:
        """(request topic, destination, status, number) by the counters, in no order; not added up."""
        for store in self._stores.values():
            for key, value in _all(store, b"N", b"O"):
                tenant, destination, status = index_keys.split_named_counter(key)
                if not self._caller.sees(tenant):
                    continue
                if wanted is not None and (
                    (wanted.tenants is not None and tenant not in wanted.tenants)
                    or status not in wanted.statuses
                    or (wanted.destination is not None and destination != wanted.destination)
                ):
                    continue
                yield tenant, destination, status, index_keys.count_of(value)

    def tenants(self) -> set[str]:
        """Request topics that have named schedules."""
        found = set()
        for store in self._stores.values():
            start = b"N"
            while rows := store.scan(start, b"O", 1):
                tenant = rows[0][0][1:].partition(b"\0")[0]
                found.add(tenant.decode())
                start = b"N" + tenant + b"\1"
        return {tenant for tenant in found if self._caller.sees(tenant)}

    def _read(self, store: StateStore, row_key: bytes, wanted: Filter | None = None) -> StoredSchedule | None:
        """A schedule as the caller sees it; None where it does not, or where the filter says so."""
        tenant, _ = keys.split_schedule_key(row_key)
        rights = self._rights_on(tenant)
        found = read_schedule(store, row_key, wanted) if rights.sees else None
        if found is None:
            return None
        if not rights.reads_payload:
            found = replace(found, payload=None)
        if not rights.reads_key:
            found = replace(found, row=replace(found.row, key=None))
        return found

    def _rights_on(self, tenant: str) -> _Rights:
        rights = self._rights.get(tenant)
        if rights is None:
            caller = self._caller
            rights = _Rights(caller.sees(tenant), caller.reads_payload(tenant), caller.reads_key(tenant))
            self._rights[tenant] = rights
        return rights

    # -- ways to what matches ----------------------------------------------------------------------

    def _indexed(self, prefix: bytes, wanted: Filter) -> Iterator[tuple[StateStore, bytes]]:
        """What one thing narrows to: status and key of each row, in no order, whoever they belong to."""
        for store in self._stores.values():
            for status in wanted.statuses:
                start = prefix + index_keys.code(status) + b"s"
                for key, _ in _all(store, start, keys.after_prefix(start)):
                    yield store, key[len(prefix) :]

    def _ranged(self, wanted: Filter, sort: Sort) -> Iterator[tuple[StateStore, bytes]]:
        """What the beginning of an id, or a time, narrows to, likewise."""
        for store in self._stores.values():
            for status in wanted.statuses:
                code = index_keys.code(status)
                for place, _ in _places(store, _KINDS[sort] + code, *_range(wanted, sort, None)):
                    yield store, code + _row_key(place, sort)

    def _matching(self, wanted: Filter) -> Iterator[tuple[StateStore, bytes]] | None:
        """What matches, where one part of the index alone tells; in no order, whoever it belongs to."""
        prefixes = wanted.prefixes
        if len(prefixes) == 1 and wanted.indexed and not wanted.id_prefix and not wanted.bounded:
            return self._indexed(prefixes[0], wanted)
        if prefixes or (wanted.id_prefix and wanted.bounded):
            return None
        return self._ranged(wanted, Sort.ID if wanted.id_prefix else Sort.NEXT)

    def _narrow(self, wanted: Filter) -> Narrowed | None:
        """The rows among which all that matches is; None where there are too many of them."""
        prefixes = wanted.prefixes
        for at, prefix in enumerate(prefixes):
            if wanted.destination is not None and at == len(prefixes) - 1 and self._has_many(wanted):
                # The counters tell; and most of what is for others is passed over unread.
                continue
            found = self._some(self._indexed(prefix, wanted), wanted)
            if found is not None:
                return Narrowed(_agreeing(found, prefixes[:at] + prefixes[at + 1 :]), exact=wanted.indexed)
        if wanted.id_prefix:
            found = self._some(self._ranged(wanted, Sort.ID), replace(wanted, id_prefix=""))
            if found is not None:
                return Narrowed(_agreeing(found, prefixes), exact=wanted.indexed)
        tenants = self._caller.seen(wanted.tenants)
        few = None if tenants is None else self._of_few(tenants)
        return None if few is None else Narrowed(few, exact=False)

    def _some(
        self, rows: Iterable[tuple[StateStore, bytes]], wanted: Filter
    ) -> list[tuple[StateStore, bytes]] | None:
        """Those of them that may be meant; None where there are too many."""
        tenants, beginning = self._caller.seen(wanted.tenants), wanted.id_prefix
        if tenants is None and not beginning:
            found = list(islice(rows, NARROWED + 1))
            return found if len(found) <= NARROWED else None
        found = []
        for looked_at, (store, reference) in enumerate(rows):
            if len(found) > NARROWED or looked_at == LOOKED_AT:
                return None
            tenant, id = keys.split_schedule_key(reference[1:])
            if (tenants is None or tenant in tenants) and id.startswith(beginning):
                found.append((store, reference))
        return found

    def _has_many(self, wanted: Filter) -> bool:
        """Whether so much is for the destination that it is not read whole."""
        of_it = Filter(statuses=wanted.statuses, destination=wanted.destination)
        return sum(count for _, _, _, count in self.counts(of_it)) > FEW

    def _of_few(self, tenants: Container[str]) -> list[tuple[StateStore, bytes]] | None:
        """All rows of some request topics, so that nobody waits for what others have; None: too many."""
        meant = sorted(tenant for tenant in self.tenants() if tenant in tenants)
        stored = Counter[str]()
        for tenant, _, _, count in self.counts():
            stored[tenant] += count
        if sum(stored[tenant] for tenant in meant) > FEW:
            return None
        found: list[tuple[StateStore, bytes]] = []
        for store in self._stores.values():
            for tenant in meant:
                start = keys.schedule_key(tenant, "")
                found += [(store, row_key) for row_key, _ in _all(store, start, keys.after_prefix(start))]
        return found

    def _placed(self, narrowed: Narrowed, wanted: Filter, sort: Sort) -> list[_Placed]:
        """Where each of some rows that match stands, in no order; payloads are not read for it."""
        told = narrowed.exact and not wanted.bounded
        placed: list[_Placed] = []
        for store, row_keys in _by_store(narrowed.rows):
            for row_key, stored in zip(row_keys, store.get_many(row_keys), strict=True):
                tenant, id = keys.split_schedule_key(row_key)
                if stored is None or not self._rights_on(tenant).sees:
                    continue
                try:
                    row = decode_schedule(stored)
                    if told or wanted.fits(tenant, id, row):
                        placed.append((_place(row, row_key, sort), store, row_key))
                except UNREADABLE:
                    continue
        return placed

    def _sorted(self, placed: Sequence[_Placed], limit: int, after: bytes | None) -> Page:
        if after is not None:
            placed = [one for one in placed if one[0] > after]
        first = heapq.nsmallest(limit + 1, placed, key=lambda one: one[0])
        items = [self._read(store, row_key) for _, store, row_key in first[:limit]]
        last = first[limit - 1][0] if len(first) > limit else None
        return Page([found for found in items if found is not None], last)

    def _in_order(self, wanted: Filter, sort: Sort, after: bytes | None) -> Iterator[_Row]:
        """All that may match in the order of places, from behind a place on.

        Whoever they belong to: whoever looks counts those, too.
        """
        ways = [
            self._way(store, index_keys.code(status), wanted, sort, after)
            for store in self._stores.values()
            for status in wanted.statuses
        ]
        return heapq.merge(*ways, key=lambda row: row[0])

    def _way(
        self, store: StateStore, code: bytes, wanted: Filter, sort: Sort, after: bytes | None
    ) -> Iterator[_Row]:
        for place, _ in _places(store, _KINDS[sort] + code, *_range(wanted, sort, after)):
            yield place, code, store, _row_key(place, sort)


def _agreeing(
    rows: Sequence[tuple[StateStore, bytes]], prefixes: Iterable[bytes]
) -> list[tuple[StateStore, bytes]]:
    """With the keys of their rows, those that other parts of the index have, too."""
    for prefix in prefixes:
        agreeing = []
        for store, some in _by_store(rows):
            stored = store.get_many([prefix + reference for reference in some])
            agreeing += [
                (store, reference) for reference, there in zip(some, stored, strict=True) if there is not None
            ]
        rows = agreeing
    return [(store, reference[1:]) for store, reference in rows]


def _counted(count: int) -> Total:
    return Total(min(count, COUNTED), count <= COUNTED)


def _by_store(
    rows: Sequence[tuple[StateStore, bytes]],
) -> Iterator[tuple[StateStore, list[bytes]]]:
    """Rows of one store at a time, some at once."""
    for first in range(0, len(rows), _AT_ONCE):
        for _, some in groupby(rows[first : first + _AT_ONCE], key=lambda row: id(row[0])):
            group = list(some)
            yield group[0][0], [reference for _, reference in group]


def _range(wanted: Filter, sort: Sort, after: bytes | None) -> tuple[bytes, bytes | None]:
    """Places from, and up to: what the filter says of the sorted value."""
    start, stop = b"", None
    if sort is Sort.NEXT:
        if wanted.next_from_ms is not None:
            start = index_keys.time_bytes(wanted.next_from_ms)
        if wanted.bounded:
            # What has no next fire stands behind every time.
            stop = index_keys.time_bytes(wanted.next_to_ms)
    elif sort is Sort.ID and wanted.id_prefix:
        start = wanted.id_prefix.encode()
        stop = keys.after_prefix(start)
    return (start if after is None else max(start, after + b"\0")), stop


def _places(
    store: StateStore, kind: bytes, start: bytes, stop: bytes | None
) -> Iterator[tuple[bytes, StateStore]]:
    end = keys.after_prefix(kind) if stop is None else kind + stop
    for key, _ in _all(store, kind + start, end):
        yield key[len(kind) :], store


def _all(store: StateStore, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
    # Most are done with the first; whoever goes on goes far.
    first = store.scan(start, stop, _CHUNK)
    yield from first
    if len(first) == _CHUNK:
        yield from everything(store, first[-1][0] + b"\0", stop)


def _place(schedule: Schedule, row_key: bytes, sort: Sort) -> bytes:
    """Where a schedule stands in a list: its key in the index, without kind and status."""
    if sort is Sort.ID:
        return index_keys.by_id(schedule.status, *keys.split_schedule_key(row_key))[2:]
    sign = index_keys.sign(schedule.destination)
    if sort is Sort.NEXT:
        return index_keys.by_next(schedule.status, next_at_ms(schedule), sign, row_key)[2:]
    if sort is Sort.LAST:
        return index_keys.by_last(schedule.status, schedule.last_fired_ms, sign, row_key)[2:]
    return index_keys.by_created(schedule.status, schedule.created_ms, sign, row_key)[2:]


def _row_key(place: bytes, sort: Sort) -> bytes:
    if sort is Sort.ID:
        id, _, tenant = place.rpartition(b"\0")
        return b"s" + tenant + b"\0" + id
    return b"s" + place[_SIGN_AT.stop :]


def _is_of(row_key: bytes, tenants: Container[str] | None) -> bool:
    return tenants is None or keys.split_schedule_key(row_key)[0] in tenants


def read_schedule(store: StateStore, row_key: bytes, wanted: Filter | None = None) -> StoredSchedule | None:
    """A schedule by its row's key; None where there is none that is meant, or this version cannot read it."""
    stored = store.get(row_key)
    if stored is None:
        return None
    tenant, id = keys.split_schedule_key(row_key)
    try:
        row = decode_schedule(stored)
        if wanted is not None and not wanted.fits(tenant, id, row):
            return None
        return StoredSchedule(tenant, id, row, payload_of(store.get, id, row))
    except UNREADABLE:
        return None
