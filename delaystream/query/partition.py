"""Reads one partition's rows: its owner, its pending fires, its rates and holds."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from delaystream.codec import keys
from delaystream.codec.envelope import (
    FORMAT,
    Ended,
    Entry,
    Envelope,
    Hold,
    Meta,
    Rate,
    Schedule,
    SourceName,
    SourcePosition,
    decode_ended,
    decode_entry,
    decode_hold,
    decode_meta,
    decode_position,
    decode_rate,
    decode_schedule,
    decode_source,
)
from delaystream.core.order import Moment, newer
from delaystream.core.request import Coordinates
from delaystream.query.rows import Rows, everything, payload_of
from delaystream.query.view import PendingFire, ScheduleView, view_of


class UnknownLayout(Exception):
    """The rows have a layout that this version cannot read."""

    def __init__(self, layout: int) -> None:
        super().__init__(f"rows of layout {layout}")
        self.layout = layout


class StoredSchedule(msgspec.Struct, frozen=True):
    """A named schedule as it is stored, with its payload; None once it is over."""

    tenant: str
    id: str
    row: Schedule
    payload: Envelope | None

    @property
    def view(self) -> ScheduleView:
        """The public view, without the times ahead: each of those has to be computed from the calendar."""
        return view_of(self.id, self.row, upcoming=0)


class StoredPartition:
    """The rows of one partition, and the names behind their numbers.

    The names and the holds are read when the object is made, everything else on demand. Rows that cannot be
    decoded raise one of `delaystream.codec.envelope.UNREADABLE`. Raises UnknownLayout.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        meta = rows.get(keys.META)
        #: None for a partition that was never written to
        self.meta: Meta | None = None if meta is None else decode_meta(meta)
        if self.meta is not None and self.meta.format != FORMAT:
            raise UnknownLayout(self.meta.format)
        self.holds: list[Hold] = [decode_hold(value) for _, value in everything(rows, b"h", b"i")]
        #: holds that have ended, with some entries left
        self.ended: list[Ended] = [decode_ended(value) for _, value in everything(rows, b"e", b"f")]
        standing = {hold.name for hold in (*self.holds, *[ended.hold for ended in self.ended])}
        #: destination, tenant and hold of each
        self._wheels: dict[int, tuple[str, str | None, str | None]] = {}
        for key, value in everything(rows, b"d", b"e"):
            topic, tenant, hold = keys.split_wheel_name(value.decode())
            # An entry set aside for any other reason than a hold counts as in its own wheel.
            held_by = hold if hold in standing else None
            self._wheels[keys.split_number(key)] = (topic, tenant or None, held_by)
        self._sources: dict[int, SourceName] = {
            keys.split_number(key): decode_source(value) for key, value in everything(rows, b"n", b"o")
        }

    def positions(self) -> Iterator[tuple[str, SourcePosition]]:
        """The applied position of each source topic."""
        for key, value in everything(self._rows, b"o", b"p"):
            yield keys.split_offset_key(key), decode_position(value)

    def rates(self) -> Iterator[Rate]:
        """The rates that commands have set, by tenant and destination."""
        for _, value in everything(self._rows, b"v", b"w"):
            yield decode_rate(value)

    def entries(self) -> Iterator[tuple[PendingFire, Entry]]:
        """The entries of the destinations' wheels, by wheel and due time."""
        first = keys.wheel_bound(keys.HOUSEKEEPING + 1)
        for key, value in everything(self._rows, first, keys.WHEEL_END):
            yield self.fire(key), decode_entry(value)

    def schedules(self) -> Iterator[StoredSchedule]:
        """Named schedules, by tenant and id; includes those that are over."""
        for key, value in everything(self._rows, b"s", b"t"):
            tenant, id = keys.split_schedule_key(key)
            row = decode_schedule(value)
            yield StoredSchedule(tenant, id, row, payload_of(self._rows.get, id, row))

    def wheels(self) -> Iterator[tuple[int, str]]:
        """The number of every wheel, and its destination; a destination may have several."""
        for number, (topic, _, _) in self._wheels.items():
            if number != keys.HOUSEKEEPING:
                yield number, topic

    def source(self, number: int) -> SourceName:
        """The request partition that a number stands for."""
        return self._sources[number]

    def sources(self) -> Iterator[tuple[int, SourceName]]:
        """The number of every request partition that something was asked for on, and its name."""
        yield from self._sources.items()

    def held_by(self, fire: PendingFire, entry: Envelope) -> Hold | None:
        """The hold that keeps an entry back, or will when it is due; None for none of them."""
        if fire.held_by is not None:
            return next((hold for hold in self.holds if hold.name == fire.held_by), None)
        if entry.released:
            return None
        source = fire.source
        moment = Moment((source.topic, source.partition, source.origin), source.offset, entry.timestamp_ms)
        for hold in self.holds:
            match = hold.match
            if (
                hold.tenant == source.topic
                and match.id_prefix is None
                and match.fits_topic(fire.destination)
                and match.fits(entry.tags, entry.delivered_key)
                and (match.arriving or not newer(moment, hold.moment))
            ):
                return hold
        return None

    def fire(self, key: bytes) -> PendingFire:
        """An entry of a wheel, from its key."""
        wheel, due_ms, number, offset, index = keys.split_wheel_key(key)
        destination, tenant, held_by = self._wheels[wheel]
        source = self._sources[number]
        where = Coordinates(source.topic, source.partition, offset, source.origin)
        return PendingFire(destination, due_ms, where, index, tenant, held_by)
