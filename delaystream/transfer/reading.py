"""Turns one partition's state into the lines of an export. The store must hold only the changelog's rows."""

from collections.abc import Iterator

from delaystream.codec.envelope import FORMAT, Envelope, Meta, Triggered
from delaystream.core.instants import format_instant
from delaystream.core.request import Coordinates
from delaystream.query.partition import StoredPartition, StoredSchedule, UnknownLayout
from delaystream.query.rows import Rows
from delaystream.transfer import lines

_FIRST_KEY = b"\1"
"""Keys below it belong to the store itself."""

#: kinds of keys that this module reads; and those of recoveries and of the owner, which do not concern
#: pending fires
_KINDS = frozenset({b"d", b"e", b"h", b"i", b"n", b"o", b"m", b"s", b"p", b"r", b"v", b"w"})


class UnknownState(Exception):
    """The state has something that this version cannot export; the message is a sentence."""


class PartitionReading:
    """The state of one partition."""

    def __init__(self, partition: int, store: Rows) -> None:
        self.partition = partition
        self._store = store
        try:
            self._rows = StoredPartition(store)
        except UnknownLayout as unknown:
            raise UnknownState(
                f"Partition {partition} has rows of layout {unknown.layout}, and this version reads layout "
                f"{FORMAT}: use the version that wrote them."
            ) from None

    @property
    def meta(self) -> Meta | None:
        """The meta row of the state; None for a partition that was never written to."""
        return self._rows.meta

    @property
    def empty(self) -> bool:
        """Whether the partition has no rows at all."""
        return not self._store.scan(_FIRST_KEY, b"\xff", 1)

    def check(self) -> None:
        """Raise UnknownState for a kind of key that an export would leave out."""
        start = _FIRST_KEY
        while found := self._store.scan(start, b"\xff", 1):
            kind = found[0][0][:1]
            if kind not in _KINDS:
                raise UnknownState(
                    f"Partition {self.partition} holds work under way (keys of kind {kind!r}), which an "
                    "export cannot contain: let the workers finish it, then export again."
                )
            start = bytes([kind[0] + 1])

    def positions(self) -> list[lines.Position]:
        """The applied position of each source topic."""
        return [
            lines.Position(self.partition, topic, position.next_offset, position.topic_id)
            for topic, position in self._rows.positions()
        ]

    def rates(self) -> Iterator[lines.Rate]:
        """The rates that commands have set, by tenant and destination."""
        for rate in self._rows.rates():
            where = Coordinates(rate.tenant, rate.partition, rate.offset, rate.origin).text
            yield lines.Rate(
                self.partition,
                rate.tenant,
                rate.destination,
                rate.rate,
                where,
                rate.timestamp_ms,
                rate.actor,
                rate.note,
            )

    def holds(self) -> list[lines.Holding]:
        """The bulk pauses in force."""
        return [lines.holding(self.partition, hold) for hold in self._rows.holds]

    def ended(self) -> list[lines.EndedHold]:
        """The holds that have ended, with some entries left."""
        return [lines.ended_hold(self.partition, ended) for ended in self._rows.ended]

    def anonymous(self) -> Iterator[lines.Anonymous]:
        """Requests without an id, by destination and due time."""
        for fire, entry in self._rows.entries():
            if type(entry) is Envelope:
                yield lines.Anonymous(self.partition, lines.fire(fire), lines.as_fields(entry))
            else:
                raise UnknownState(f"Partition {self.partition} has a wheel that this version does not know.")

    def named(self, *, remembered: bool) -> Iterator[lines.Named]:
        """Named schedules, by tenant and id; with `remembered` also those that are over."""
        for stored in self._rows.schedules():
            if remembered or stored.row.forget_key is None:
                yield self._named(stored)

    def _named(self, stored: StoredSchedule) -> lines.Named:
        row, payload, view = stored.row, stored.payload, stored.view
        return lines.Named(
            partition=self.partition,
            tenant=stored.tenant,
            id=stored.id,
            status=view.status.value,
            fires=[self._fire(key) for key in row.pending],
            forget_at_ms=view.forget_at_ms,
            schedule=lines.as_fields(row, lines.TOLD_APART),
            payload=None if payload is None else lines.as_fields(payload),
            until_ms=view.until_ms,
            triggers=[self._triggered(waiting) for waiting in row.triggers],
            next_at=None if row.next_ms < 0 else format_instant(row.next_ms),
        )

    def _triggered(self, waiting: Triggered) -> lines.Triggered:
        return lines.Triggered(self._fire(waiting.key), waiting.revision, waiting.revision_origin)

    def _fire(self, key: bytes) -> lines.Fire:
        return lines.fire(self._rows.fire(key))
