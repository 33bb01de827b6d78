"""Everything that is pending, in due order: events without an id and fires of named schedules."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from delaystream.codec import keys
from delaystream.codec.correlation import correlation_ids
from delaystream.codec.envelope import (
    UNREADABLE,
    Entry,
    Envelope,
    Schedule,
    Status,
    decode_entry,
    decode_schedule,
    kept_key,
)
from delaystream.console.access.caller import ITSELF, Caller
from delaystream.console.replica import index_keys
from delaystream.console.replica.catalog import LOOKED_AT, READ, read_schedule
from delaystream.console.replica.index import correlated
from delaystream.core.request import Coordinates
from delaystream.engine.ports import StateStore
from delaystream.query.partition import StoredPartition
from delaystream.query.rows import everything
from delaystream.query.view import PendingFire

FEW_NAMED: Final = 1_000
"""Of each partition, up to so many named schedules with one key, tag or correlation id are read whole."""

_CHUNK: Final = 100
_DUE_AT: Final = slice(0, 8)
_SIGN_AT: Final = slice(9, 13)
_NAMED: Final = b"s"
_UNNAMED: Final = b"w"
#: Offsets of Kafka are below it.
_OFFSETS: Final = 2**63


class Wanted(msgspec.Struct, frozen=True):
    """Which events are meant; None: any."""

    tenants: frozenset[str] | None = None
    destination: str | None = None
    key: bytes | None = None
    tag: str | None = None
    #: due from, and up to without that, ms
    from_ms: int | None = None
    to_ms: int | None = None
    #: as in a `Filter`
    correlation_id: bytes | None = None


class PendingEvent(msgspec.Struct, frozen=True):
    """One fire to come."""

    due_at_ms: int
    destination: str
    request_topic: str
    #: None: it has no id, and is known by its coordinates
    id: str | None
    #: coordinates of the request
    source: str
    index: int
    key: bytes | None
    tags: Sequence[str]
    #: the hold that keeps it back, or will
    held_by: str | None = None
    held_note: str | None = None
    #: of the request partition, where it waits
    partition: int = 0


class PendingPage(msgspec.Struct, frozen=True):
    """Some of what is pending."""

    items: Sequence[PendingEvent]
    #: where the next page begins; None: there is none
    next: bytes | None


class Copy(msgspec.Struct, frozen=True):
    """One partition's rows with their index, and read."""

    store: StateStore
    stored: StoredPartition
    partition: int = 0


class Pending:
    """What is pending on every partition that has an index, as a caller sees it."""

    def __init__(self, copies: Mapping[int, Copy], caller: Caller = ITSELF) -> None:
        self._copies = copies
        self._caller = caller

    def page(self, wanted: Wanted, limit: int, after: bytes | None = None) -> PendingPage:
        """Up to ``limit`` events in due order; ``after`` is the cursor of the page before.

        The cursor may be the place of an event that the caller does not see.
        """
        items: list[PendingEvent] = []
        last = after
        ways = [way for number, copy in self._copies.items() for way in _ways(number, copy, wanted, after)]
        read = 0
        for looked_at, (place, copy) in enumerate(heapq.merge(*ways, key=lambda pair: pair[0])):
            if looked_at == LOOKED_AT:
                return PendingPage(items, last)
            if self._may_be_meant(_topic(place, copy), wanted):
                if read == READ:
                    return PendingPage(items, last)
                read += 1
                if (event := self._seen(_event(place, copy, wanted))) is not None:
                    if len(items) == limit:
                        return PendingPage(items, last)
                    items.append(event)
            last = place
        return PendingPage(items, None)

    def of_request(self, partition: int, topic: str, offset: int, origin: str) -> list[PendingEvent]:
        """What is pending of a request without an id, by its coordinates."""
        at = Coordinates(topic, partition, offset, origin)
        found = [
            event
            for key, copy in self._entries(at)
            if (event := self._seen(_unnamed(key, copy, Wanted()))) is not None
        ]
        return sorted(found, key=lambda event: (event.due_at_ms, event.index))

    def delivered_by(self, at: Coordinates) -> list[tuple[PendingFire, Envelope]]:
        """What is pending of a request without an id, with what it delivers, in due order.

        Nothing for a caller that may not see that.
        """
        found: list[tuple[PendingFire, Envelope]] = []
        if not self._caller.reads_payload(at.topic):
            return found
        for key, copy in self._entries(at):
            stored = copy.store.get(key)
            entry = None if stored is None else _entry(stored)
            if isinstance(entry, Envelope):
                found.append((copy.stored.fire(key), entry))
        return sorted(found, key=lambda pair: (pair[0].due_at_ms, pair[0].index))

    def _entries(self, at: Coordinates) -> Iterator[tuple[bytes, Copy]]:
        """Keys of the wheel entries of a request without an id."""
        if at.offset >= _OFFSETS or not self._caller.sees(at.topic):
            return
        for copy in self._copies.values():
            for number, name in copy.stored.sources():
                if (name.topic, name.partition, name.origin) == (at.topic, at.partition, at.origin):
                    prefix = index_keys.place_prefix(number, at.offset)
                    for row, _ in everything(copy.store, prefix, keys.after_prefix(prefix), _CHUNK):
                        yield index_keys.wheel_key_of(row), copy

    def applied(self, topic: str, partition: int) -> int | None:
        """The offset up to which a request partition was read; None where nothing is known of it."""
        copy = self._copies.get(partition)
        if copy is None or not self._caller.sees(topic):
            return None
        for name, position in copy.stored.positions():
            if name == topic:
                return position.next_offset
        return None

    def counts(self) -> Iterator[tuple[str, str, int]]:
        """(request topic, destination, number) of events without an id; not added up."""
        for copy in self._copies.values():
            destinations = dict(copy.stored.wheels())
            for key, value in everything(copy.store, b"M", b"N"):
                wheel, source = index_keys.split_entry_counter(key)
                topic = copy.stored.source(source).topic
                if not self._caller.sees(topic):
                    continue
                yield topic, destinations[wheel], index_keys.count_of(value)

    def _may_be_meant(self, topic: str, wanted: Wanted) -> bool:
        """Whether a row is worth reading, by its request topic."""
        return self._caller.sees(topic) and (wanted.tenants is None or topic in wanted.tenants)

    def _seen(self, event: PendingEvent | None) -> PendingEvent | None:
        if event is None or not self._caller.sees(event.request_topic):
            return None
        return event if self._caller.reads_key(event.request_topic) else replace(event, key=None)


# A place is: due time (8), kind, and of a named schedule's fire: sign, tenant, NUL, id; of an event without
# an id: number of the partition (4), wheel key.


def _ways(
    number: int, copy: Copy, wanted: Wanted, after: bytes | None
) -> Iterator[Iterator[tuple[bytes, Copy]]]:
    start = index_keys.time_bytes(wanted.from_ms or 0)
    stop = index_keys.time_bytes(wanted.to_ms)
    if after is not None:
        start = max(start, after[_DUE_AT])
    behind = after or b""
    partition = number.to_bytes(4)
    narrow = _narrow(wanted)
    few = None if narrow is None else _few_named(copy, narrow)
    if few is not None:
        places = sorted(place for place in few if start <= place[_DUE_AT] < stop and place > behind)
        yield ((place, copy) for place in places)
    else:
        for prefix in (b"A" + index_keys.code(Status.PENDING), b"E"):
            yield _named_places(copy, prefix, start, stop, behind)
    for wheel, destination in copy.stored.wheels():
        if wanted.destination is None or destination == wanted.destination:
            yield _unnamed_places(copy, partition, (narrow or b"", wheel), start, stop, behind)


def _narrow(wanted: Wanted) -> bytes | None:
    """What index rows begin with of what has the key, the tag or the correlation id; None: any is meant."""
    if wanted.key is not None:
        prefix = index_keys.key_prefix(kept_key(wanted.key) or b"")
    elif wanted.tag is not None:
        prefix = index_keys.tag_prefix(wanted.tag)
    elif wanted.correlation_id is not None:
        prefix = index_keys.correlation_prefix(wanted.correlation_id)
    else:
        return None
    return prefix + index_keys.code(Status.PENDING)


def _few_named(copy: Copy, narrow: bytes) -> list[bytes] | None:
    """Places of the named schedules of a part of the index, in no order; None where there are too many.

    Where there are that many, a walk through all of them in due order soon comes to some.
    """
    start = narrow + _NAMED
    rows = copy.store.scan(start, keys.after_prefix(start), FEW_NAMED + 1)
    if len(rows) > FEW_NAMED:
        return None
    references = [row[len(narrow) :] for row, _ in rows]
    places: list[bytes] = []
    for reference, stored in zip(references, copy.store.get_many(references), strict=True):
        try:
            schedule = None if stored is None else decode_schedule(stored)
        except UNREADABLE:
            # A newer release wrote it.
            continue
        if schedule is not None:
            sign = index_keys.sign(schedule.destination)
            places += [entry[5:13] + _NAMED + sign + reference[1:] for entry in schedule.pending]
    return places


def _named_places(
    copy: Copy, prefix: bytes, start: bytes, stop: bytes, behind: bytes
) -> Iterator[tuple[bytes, Copy]]:
    for row, _ in everything(copy.store, prefix + start, prefix + stop, _CHUNK):
        place = row[len(prefix) : len(prefix) + 8] + _NAMED + row[len(prefix) + 8 :]
        if place > behind:
            yield place, copy


def _unnamed_places(
    copy: Copy, partition: bytes, of: tuple[bytes, int], start: bytes, stop: bytes, behind: bytes
) -> Iterator[tuple[bytes, Copy]]:
    """Of a wheel in due order: all of it, or what a part of the index has of it."""
    narrow, wheel = of
    prefix = narrow + _UNNAMED + wheel.to_bytes(4)
    for row, _ in everything(copy.store, prefix + start, prefix + stop, _CHUNK):
        entry = row[len(narrow) :]
        place = entry[5:13] + _UNNAMED + partition + entry
        if place > behind:
            yield place, copy


def _topic(place: bytes, copy: Copy) -> str:
    """The request topic of what has a place: its row is not read for it."""
    if place[8:9] == _UNNAMED:
        return copy.stored.fire(place[13:]).source.topic
    tenant, _ = keys.split_schedule_key(_NAMED + place[_SIGN_AT.stop :])
    return tenant


def _event(place: bytes, copy: Copy, wanted: Wanted) -> PendingEvent | None:
    if place[8:9] == _UNNAMED:
        return _unnamed(place[13:], copy, wanted)
    if wanted.destination is not None and place[_SIGN_AT] != index_keys.sign(wanted.destination):
        return None
    found = read_schedule(copy.store, b"s" + place[_SIGN_AT.stop :])
    if found is None or (wanted.tenants is not None and found.tenant not in wanted.tenants):
        return None
    schedule: Schedule = found.row
    if (
        (wanted.destination is not None and schedule.destination != wanted.destination)
        or (wanted.key is not None and schedule.key != kept_key(wanted.key))
        or (wanted.tag is not None and wanted.tag not in schedule.tags)
        or (wanted.correlation_id is not None and wanted.correlation_id not in correlated(schedule))
    ):
        return None
    due_ms = int.from_bytes(place[_DUE_AT])
    index = next((keys.index_of(key) for key in schedule.pending if keys.due_of(key) == due_ms), 0)
    return PendingEvent(
        due_ms,
        schedule.destination,
        found.tenant,
        found.id,
        schedule.source.text,
        index,
        schedule.key,
        schedule.tags,
        schedule.held_by or None,
        partition=copy.partition,
    )


def _entry(stored: bytes) -> Entry | None:
    try:
        entry: Entry = decode_entry(stored)
    except UNREADABLE:
        # A newer release wrote it.
        return None
    return entry


def _unnamed(key: bytes, copy: Copy, wanted: Wanted) -> PendingEvent | None:
    stored = copy.store.get(key)
    if stored is None:
        return None
    entry = _entry(stored)
    if not isinstance(entry, Envelope):
        return None
    fire: PendingFire = copy.stored.fire(key)
    delivered = kept_key(entry.delivered_key)
    if (
        (wanted.tenants is not None and fire.source.topic not in wanted.tenants)
        or (wanted.destination is not None and fire.destination != wanted.destination)
        or (wanted.key is not None and delivered != kept_key(wanted.key))
        or (wanted.tag is not None and wanted.tag not in entry.tags)
        or (wanted.correlation_id is not None and wanted.correlation_id not in correlation_ids(entry.headers))
    ):
        return None
    hold = copy.stored.held_by(fire, entry)
    return PendingEvent(
        fire.due_at_ms,
        fire.destination,
        fire.source.topic,
        None,
        fire.source.text,
        fire.index,
        delivered,
        entry.tags,
        None if hold is None else hold.name,
        None if hold is None else hold.note,
        copy.partition,
    )
