"""What the history is asked: of one schedule, of one thing, of a span of time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection, Select, case, func, select, tuple_

from delaystream.codec.event import Event, EventType
from delaystream.console.access.caller import ITSELF, Caller
from delaystream.console.audit.log import verified
from delaystream.console.history.database import Database
from delaystream.console.history.rows import stored_key, stored_text
from delaystream.console.history.schema import WITHIN_MS, events, positions, rollups

OUTCOMES: Final = (
    EventType.FIRED,
    EventType.SKIPPED,
    EventType.MISSED,
    EventType.EXPIRED,
    EventType.MOVED,
    EventType.QUARANTINED,
)
"""Outcomes of due times."""

COUNTED: Final = 200_000
"""So many events are counted one by one."""
LOOKED_AT: Final = 1_000
"""So many events of a partition are looked at for the last ones."""

#: Workers' clocks, by which events of a partition are in the order of their offsets, differ by less.
_CLOCKS_MS: Final = 60_000
#: So many events tell when it was.
_SOME: Final = 15
#: Among sums: the largest lateness is not added.
_LARGEST_AT: Final = 2

_decode: Final = msgspec.json.Decoder(Event).decode
_PLACE: Final = (events.c.at_ms, events.c.partition, events.c.offset)


class Told(msgspec.Struct, frozen=True):
    """An event, and where it stands on its topic."""

    partition: int
    offset: int
    event: Event
    actor_verified: bool = False
    """Whether a console has written for the event's actor what the event is the outcome of."""


class EventPage(msgspec.Struct, frozen=True):
    """Some events, the latest first."""

    items: Sequence[Told]
    #: (at_ms, partition, offset) that the next page begins behind; None: there is none
    next: tuple[int, int, int] | None


class Sum(msgspec.Struct, frozen=True):
    """The events of a span of time."""

    start_ms: int
    request_topic: str
    destination: str
    type: str
    count: int
    lateness_ms: int
    lateness_max_ms: int
    #: of the fires, how many were no later than each of `WITHIN_MS`
    within: Sequence[int]
    #: where it is of one schedule alone
    schedule_id: str | None = None


class BySchedule(msgspec.Struct, frozen=True):
    """The events of a span of time, by schedule."""

    sums: Sequence[Sum]
    #: whether there are more events in the span than were counted
    partial: bool


class Chosen(msgspec.Struct, frozen=True):
    """Which events are meant; None: any."""

    tenants: Sequence[str] | None = None
    destination: str | None = None
    schedule_id: str | None = None


class History:
    """Asks one database for a caller; blocks. Every method raises DatabaseError.

    Events of no request topic are for callers that see every one. A key that is not to be seen is left out.
    """

    def __init__(self, database: Database, caller: Caller = ITSELF) -> None:
        self._database = database
        self._caller = caller

    def seen_by(self, caller: Caller) -> History:
        """The same history, as a caller sees it."""
        return History(self._database, caller)

    def of_schedule(
        self,
        request_topic: str,
        schedule_id: str,
        limit: int,
        after: tuple[int, int, int] | None = None,
        types: Sequence[EventType] = OUTCOMES,
    ) -> EventPage:
        """The events of one schedule, or of one request without an id by its coordinates."""
        if not self._caller.sees(request_topic):
            return EventPage([], None)
        asked = (
            select(events)
            .where(
                events.c.request_topic == stored_text(request_topic),
                events.c.schedule_id == stored_text(schedule_id),
            )
            .where(events.c.type.in_([type.value for type in types]))
        )
        return self._page(asked, limit, after)

    def of_source(self, source: str, limit: int) -> Sequence[Told]:
        """The outcome of one request or command, by its coordinates."""
        return self._page(select(events).where(events.c.source == stored_text(source)), limit, None).items

    def of_fire(self, request_topic: str, schedule_id: str, fire_id: str, due_ms: int) -> Sequence[Told]:
        """The outcome of one fire of a schedule, or of a request without an id.

        Up to `LOOKED_AT` of what was decided since it was due are looked at.
        """
        if not self._caller.sees(request_topic):
            return []
        asked = (
            select(events)
            .where(events.c.request_topic == request_topic, events.c.schedule_id == schedule_id)
            .where(events.c.type.in_([type.value for type in OUTCOMES]), events.c.at_ms >= due_ms)
            .order_by(events.c.at_ms)
            .limit(LOOKED_AT)
        )
        with self._database.reading() as connection:
            for row in connection.execute(asked):
                told = Told(row.partition, row.offset, _decode(row.body))
                if told.event.fire_id == fire_id or _in_run(told.event, due_ms):
                    return list(shown(with_verified(connection, [told]), self._caller))
        return []

    def of_key(self, key: bytes, limit: int) -> Sequence[Told]:
        """What happened to what is delivered with a key; up to 256 bytes of it tell."""
        asked = select(events).where(events.c.key == stored_key(key))
        if not self._caller.sees_everything:
            asked = asked.where(events.c.request_topic.in_(self._request_topics()))
        return self._page(asked, limit, None).items

    def of_correlation(self, word: str, limit: int) -> Sequence[Told]:
        """What happened with a correlation id, or by a request that named itself so, the latest first.

        What was stored by a release that did not keep them is not found.
        """
        asked = select(events)
        if not self._caller.sees_everything:
            asked = asked.where(events.c.request_topic.in_(self._request_topics()))
        found = {
            (told.partition, told.offset): told
            for column in (events.c.correlation_id, events.c.request_id)
            for told in self._page(asked.where(column == stored_text(word)), limit, None).items
        }
        latest = sorted(found.values(), key=lambda one: (one.event.at_ms, one.partition, one.offset))
        return latest[::-1][:limit]

    def last(self, types: Sequence[EventType], limit: int) -> Sequence[Told]:
        """The last events of some types; those of `LOOKED_AT` of each partition are looked at."""
        found: list[Told] = []
        wanted = [type.value for type in types]
        topics = None if self._caller.sees_everything else self._request_topics()
        with self._database.reading() as connection:
            partitions = connection.execute(select(positions.c.partition)).scalars().all()
            for partition in partitions:
                recent = (
                    select(
                        events.c.partition,
                        events.c.offset,
                        events.c.type,
                        events.c.request_topic,
                        events.c.body,
                    )
                    .where(events.c.partition == partition)
                    .order_by(events.c.offset.desc())
                    .limit(LOOKED_AT)
                    .subquery()
                )
                asked = select(recent).where(recent.c.type.in_(wanted)).limit(limit)
                if topics is not None:
                    asked = asked.where(recent.c.request_topic.in_(topics))
                found += [
                    Told(row["partition"], row["offset"], _decode(row["body"]))
                    for row in connection.execute(asked).mappings()
                ]
            latest = sorted(shown(found, self._caller), key=lambda told: told.event.at_ms, reverse=True)
            return with_verified(connection, latest[:limit])

    def after(self, partition: int, offset: int, limit: int) -> Sequence[Told]:
        """Events of one partition from an offset on, the earliest first."""
        asked = (
            select(events.c.offset, events.c.body)
            .where(events.c.partition == partition, events.c.offset >= offset)
            .order_by(events.c.offset)
            .limit(limit)
        )
        with self._database.reading() as connection:
            told = [Told(partition, row.offset, _decode(row.body)) for row in connection.execute(asked)]
            return list(shown(with_verified(connection, told), self._caller))

    def sums(
        self,
        seconds: int,
        from_ms: int,
        to_ms: int,
        tenants: Sequence[str] | None = None,
        destination: str | None = None,
    ) -> Sequence[Sum]:
        """The events between two times, in spans of 60, 3,600 or 86,400 seconds."""
        asked = (
            select(rollups)
            .where(rollups.c.seconds == seconds, rollups.c.start_ms >= from_ms, rollups.c.start_ms < to_ms)
            .order_by(rollups.c.start_ms)
        )
        if tenants is not None:
            asked = asked.where(rollups.c.request_topic.in_([*tenants, ""]))
        if destination is not None:
            asked = asked.where(rollups.c.destination == destination)
        caller = self._caller
        with self._database.reading() as connection:
            found = connection.execute(asked).mappings().all()
        return [
            Sum(
                row["start_ms"],
                row["request_topic"],
                row["destination"],
                row["type"],
                row["count"],
                row["lateness_ms"],
                row["lateness_max_ms"],
                [row[f"within_{bound}_ms"] for bound in WITHIN_MS],
            )
            for row in found
            if caller.sees(row["request_topic"] or None)
        ]

    def by_schedule(self, from_ms: int, to_ms: int, chosen: Chosen, most: int = COUNTED) -> BySchedule:
        """The events between two times, by schedule, from single events.

        Up to `most` of them are counted, of each partition its share, the latest.
        """
        counted: dict[tuple[str, str, str, str], list[int]] = {}
        partial = False
        if chosen.tenants is not None:
            seen = [topic for topic in chosen.tenants if self._caller.sees(topic)]
            chosen = replace(chosen, tenants=seen)
        elif chosen.schedule_id is not None or not self._caller.sees_everything:
            chosen = replace(chosen, tenants=self._request_topics())
        with self._database.reading() as connection:
            ways = list(self._ways(connection, from_ms, to_ms, chosen))
            share = max(1, most // max(1, len(ways)))
            for way in ways:
                looked_at = 0
                for topic, id, destination, type, number, *sums in connection.execute(
                    _grouped(way.limit(share + 1))
                ):
                    looked_at += number
                    added = counted.setdefault((topic, id, destination, type), [0] * len(sums))
                    for place, one in enumerate(sums):
                        adds = max if place == _LARGEST_AT else int.__add__
                        added[place] = adds(added[place], int(one or 0))
                partial = partial or looked_at > share
        found = [
            Sum(from_ms, topic, destination, type, count, late_ms, largest_ms, within, id)
            for (topic, id, destination, type), (count, late_ms, largest_ms, *within) in counted.items()
        ]
        return BySchedule(found, partial)

    def _ways(
        self, connection: Connection, from_ms: int, to_ms: int, chosen: Chosen
    ) -> Iterator[Select[Any]]:
        """What to ask for the events of a span, each the latest first."""
        asked = select(
            func.coalesce(events.c.request_topic, "").label("request_topic"),
            events.c.schedule_id,
            func.coalesce(events.c.destination, "").label("destination"),
            events.c.type,
            func.coalesce(events.c.times, 1).label("times"),
            case((events.c.type == EventType.FIRED.value, events.c.lateness_ms)).label("late_ms"),
        ).where(events.c.at_ms >= from_ms, events.c.at_ms < to_ms, events.c.schedule_id.is_not(None))
        if chosen.tenants is not None:
            asked = asked.where(events.c.request_topic.in_([stored_text(one) for one in chosen.tenants]))
        if chosen.destination is not None:
            asked = asked.where(events.c.destination == stored_text(chosen.destination))
        if chosen.schedule_id is not None:
            for topic in chosen.tenants or ():
                one = asked.where(
                    events.c.request_topic == stored_text(topic),
                    events.c.schedule_id == stored_text(chosen.schedule_id),
                )
                yield one.order_by(events.c.at_ms.desc())
            return
        for partition in connection.execute(select(positions.c.partition)).scalars().all():
            first = _offset_at(connection, partition, from_ms - _CLOCKS_MS, later=True)
            last = _offset_at(connection, partition, to_ms + _CLOCKS_MS, later=False)
            yield asked.where(
                events.c.partition == partition, events.c.offset >= first, events.c.offset < last
            ).order_by(events.c.offset.desc())

    def kept_since_ms(self) -> int | None:
        """When the first event that is still there happened; None where there is none."""
        with self._database.reading() as connection:
            firsts = [
                connection.execute(
                    select(events.c.at_ms)
                    .where(events.c.partition == partition)
                    .order_by(events.c.offset)
                    .limit(1)
                ).scalar()
                for partition in connection.execute(select(positions.c.partition)).scalars().all()
            ]
        return min((first for first in firsts if first is not None), default=None)

    def _request_topics(self) -> list[str]:
        """Request topics of events, of those that the caller sees: each is found by one look at an index."""
        found: list[str] = []
        last = ""
        with self._database.reading() as connection:
            while True:
                topic: str | None = connection.execute(
                    select(func.min(events.c.request_topic)).where(events.c.request_topic > last)
                ).scalar()
                if topic is None:
                    return [one for one in found if self._caller.sees(one)]
                found.append(topic)
                last = topic

    def _page(self, asked: Select[Any], limit: int, after: tuple[int, int, int] | None) -> EventPage:
        if after is not None:
            asked = asked.where(tuple_(*_PLACE) < after)
        asked = asked.order_by(*(column.desc() for column in _PLACE)).limit(limit + 1)
        with self._database.reading() as connection:
            found = connection.execute(asked).all()
            told = [Told(row.partition, row.offset, _decode(row.body)) for row in found[:limit]]
            told = with_verified(connection, told)
        items = list(shown(told, self._caller))
        if len(found) <= limit:
            return EventPage(items, None)
        last = found[limit - 1]
        return EventPage(items, (last.at_ms, last.partition, last.offset))


def _grouped(asked: Select[Any]) -> Select[Any]:
    """How many there are of each kind, how many times they stand for, and how late fires were."""
    found = asked.subquery()
    kind = (found.c.request_topic, found.c.schedule_id, found.c.destination, found.c.type)
    late_ms = found.c.late_ms
    within = [func.sum(case((late_ms <= bound, 1), else_=0)) for bound in WITHIN_MS]
    sums = (func.sum(found.c.times), func.sum(late_ms), func.max(late_ms), *within)
    return select(*kind, func.count(), *sums).group_by(*kind)


def _offset_at(connection: Connection, partition: int, at_ms: int, *, later: bool) -> int:
    """Where the events of a partition begin that happened at a time or later, about: as far as clocks agree.

    There may be some before that did, or some behind that did not: with ``later`` none of those is left out
    that did, else none of those that did not.
    """
    ends = select(func.min(events.c.offset), func.max(events.c.offset)).where(events.c.partition == partition)
    low, high = connection.execute(ends).one()
    if low is None:
        return 0
    high += 1
    while low < high:
        middle = (low + high) // 2
        next_ones = _some_from(connection, partition, middle)
        # Not the first alone: one event with a wrong time would lead elsewhere.
        if next_ones and sorted(one.at_ms for one in next_ones)[(len(next_ones) - (not later)) // 2] < at_ms:
            low = next_ones[0].offset + 1
        else:
            high = middle
    if later:
        return int(low)
    # The time of one is told by those behind it, too.
    return max((one.offset + 1 for one in _some_from(connection, partition, low)), default=int(low))


def _some_from(connection: Connection, partition: int, offset: int) -> Sequence[Any]:
    """Offset and time of the next events of a partition."""
    asked = (
        select(events.c.offset, events.c.at_ms)
        .where(events.c.partition == partition, events.c.offset >= offset)
        .order_by(events.c.offset)
        .limit(_SOME)
    )
    return connection.execute(asked).all()


def with_verified(connection: Connection, told: Sequence[Told]) -> list[Told]:
    """Events with what the audit log knows of their actors."""
    pairs = {
        (one.partition, one.offset): (one.event.source, one.event.actor)
        for one in told
        if one.event.source is not None and one.event.actor is not None
    }
    known = verified(connection, pairs.values())
    return [
        replace(one, actor_verified=True) if pairs.get((one.partition, one.offset)) in known else one
        for one in told
    ]


def shown(told: Iterable[Told], caller: Caller) -> Iterator[Told]:
    """Those of some events that a caller sees, as it sees them."""
    rights: dict[str | None, tuple[bool, bool]] = {}
    for one in told:
        topic = one.event.request_topic
        found = rights.get(topic)
        if found is None:
            found = rights[topic] = (caller.sees(topic), caller.reads_key(topic))
        sees, reads_key = found
        if not sees:
            continue
        if not reads_key:
            yield replace(one, event=replace(one.event, key=None, key_base64=None))
        else:
            yield one


def _in_run(event: Event, due_ms: int) -> bool:
    """Whether an event tells of a time that passed: those have no fire, and no fire id."""
    if event.fire_id is not None:
        return False
    if event.from_ms is not None and event.to_ms is not None:
        return event.from_ms <= due_ms <= event.to_ms
    return event.due_at_ms == due_ms
