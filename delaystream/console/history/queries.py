"""What the history is asked: of one schedule, of one thing, of a span of time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Select, func, or_, select, tuple_

from delaystream.codec.event import Event, EventType
from delaystream.console.history.database import Database
from delaystream.console.history.schema import WITHIN_MS, events, positions, rollups

OUTCOMES: Final = (
    EventType.FIRED,
    EventType.SKIPPED,
    EventType.MISSED,
    EventType.EXPIRED,
    EventType.MOVED,
    EventType.QUARANTINED,
)
"""What becomes of due times."""

LOOKED_AT: Final = 1_000
"""So many events of a partition are looked at for the last ones."""

_decode: Final = msgspec.json.Decoder(Event).decode
_PLACE: Final = (events.c.at_ms, events.c.partition, events.c.offset)


class Told(msgspec.Struct, frozen=True):
    """An event, and where it stands on its topic."""

    partition: int
    offset: int
    event: Event


class EventPage(msgspec.Struct, frozen=True):
    """Some events, the latest first."""

    items: Sequence[Told]
    #: (at_ms, partition, offset) that the next page begins behind; None: there is none
    next: tuple[int, int, int] | None


class Sum(msgspec.Struct, frozen=True):
    """What happened in a span of time."""

    start_ms: int
    request_topic: str
    destination: str
    type: str
    count: int
    lateness_ms: int
    lateness_max_ms: int
    #: of the fires, how many were no later than each of `WITHIN_MS`
    within: Sequence[int]


class History:
    """Asks one database; blocks. Every method raises DatabaseError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_schedule(
        self,
        request_topic: str,
        schedule_id: str,
        limit: int,
        after: tuple[int, int, int] | None = None,
        types: Sequence[EventType] = OUTCOMES,
    ) -> EventPage:
        """What happened to one schedule, or to one request without an id by its coordinates."""
        asked = (
            select(events)
            .where(events.c.request_topic == request_topic, events.c.schedule_id == schedule_id)
            .where(events.c.type.in_([type.value for type in types]))
        )
        return self._page(asked, limit, after)

    def of_source(self, source: str, limit: int) -> Sequence[Told]:
        """The outcome of one request or command, by its coordinates."""
        return self._page(select(events).where(events.c.source == source), limit, None).items

    def of_fire(self, request_topic: str, schedule_id: str, fire_id: str, due_ms: int) -> Sequence[Told]:
        """What became of one fire of a schedule, or of a request without an id.

        Up to `LOOKED_AT` of what was decided since it was due are looked at.
        """
        asked = (
            select(events)
            .where(events.c.request_topic == request_topic, events.c.schedule_id == schedule_id)
            .where(events.c.type.in_([type.value for type in OUTCOMES]), events.c.at_ms >= due_ms)
            .order_by(events.c.at_ms)
            .limit(LOOKED_AT)
        )
        with self._database.reading() as connection:
            for row in connection.execute(asked):
                event = _decode(row.body)
                if event.fire_id == fire_id or _in_run(event, due_ms):
                    return [Told(row.partition, row.offset, event)]
        return []

    def of_key(self, key: bytes, limit: int, tenants: Sequence[str] | None = None) -> Sequence[Told]:
        """What happened to what is delivered with a key; up to 256 bytes of it tell."""
        asked = select(events).where(events.c.key == key)
        if tenants is not None:
            asked = asked.where(or_(events.c.request_topic.in_(tenants), events.c.request_topic.is_(None)))
        return self._page(asked, limit, None).items

    def last(self, types: Sequence[EventType], limit: int) -> Sequence[Told]:
        """The last events of some types; those of `LOOKED_AT` of each partition are looked at."""
        found: list[Told] = []
        wanted = [type.value for type in types]
        with self._database.reading() as connection:
            partitions = connection.execute(select(positions.c.partition)).scalars().all()
            for partition in partitions:
                recent = (
                    select(events.c.partition, events.c.offset, events.c.type, events.c.body)
                    .where(events.c.partition == partition)
                    .order_by(events.c.offset.desc())
                    .limit(LOOKED_AT)
                    .subquery()
                )
                asked = select(recent).where(recent.c.type.in_(wanted)).limit(limit)
                found += [
                    Told(row["partition"], row["offset"], _decode(row["body"]))
                    for row in connection.execute(asked).mappings()
                ]
        return sorted(found, key=lambda told: told.event.at_ms, reverse=True)[:limit]

    def after(self, partition: int, offset: int, limit: int) -> Sequence[Told]:
        """Events of one partition from an offset on, the earliest first."""
        asked = (
            select(events.c.offset, events.c.body)
            .where(events.c.partition == partition, events.c.offset >= offset)
            .order_by(events.c.offset)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return [Told(partition, row.offset, _decode(row.body)) for row in connection.execute(asked)]

    def sums(
        self, seconds: int, from_ms: int, to_ms: int, tenants: Sequence[str] | None = None
    ) -> Sequence[Sum]:
        """What happened from a time on up to another, in spans of 60, 3,600 or 86,400 seconds."""
        asked = (
            select(rollups)
            .where(rollups.c.seconds == seconds, rollups.c.start_ms >= from_ms, rollups.c.start_ms < to_ms)
            .order_by(rollups.c.start_ms)
        )
        if tenants is not None:
            asked = asked.where(rollups.c.request_topic.in_([*tenants, ""]))
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
        ]

    def kept_since_ms(self) -> int | None:
        """When the first event that is still there happened; None where there is none."""
        with self._database.reading() as connection:
            found: int | None = connection.execute(
                select(func.min(rollups.c.start_ms)).where(rollups.c.seconds == 86_400)
            ).scalar()
        return found

    def _page(self, asked: Select[Any], limit: int, after: tuple[int, int, int] | None) -> EventPage:
        if after is not None:
            asked = asked.where(tuple_(*_PLACE) < after)
        asked = asked.order_by(*(column.desc() for column in _PLACE)).limit(limit + 1)
        with self._database.reading() as connection:
            found = connection.execute(asked).all()
        items = [Told(row.partition, row.offset, _decode(row.body)) for row in found[:limit]]
        if len(found) <= limit:
            return EventPage(items, None)
        last = found[limit - 1]
        return EventPage(items, (last.at_ms, last.partition, last.offset))


def _in_run(event: Event, due_ms: int) -> bool:
    """Whether an event tells of a time that passed: those have no fire, and no fire id."""
    if event.fire_id is not None:
        return False
    if event.from_ms is not None and event.to_ms is not None:
        return event.from_ms <= due_ms <= event.to_ms
    return event.due_at_ms == due_ms
