"""One partition's state, as the lines of an export. Reads a store that holds nothing but the changelog."""

from collections.abc import Iterator

from delaystream.codec import keys
from delaystream.codec.envelope import (
    FORMAT,
    Envelope,
    Meta,
    Schedule,
    SourceName,
    Status,
    Triggered,
    decode_ended,
    decode_entry,
    decode_envelope,
    decode_hold,
    decode_meta,
    decode_position,
    decode_rate,
    decode_schedule,
    decode_source,
)
from delaystream.core.identity import place, schedule_id
from delaystream.core.instants import format_instant
from delaystream.engine.ports import StateStore
from delaystream.transfer import lines

_CHUNK = 1000
_FIRST_KEY = b"\1"
"""Below it a store keeps what is its own."""

#: kinds of keys that this module reads, and those of recoveries and of the owner, which say nothing of what
#: is pending
_KINDS = frozenset({b"d", b"e", b"h", b"i", b"n", b"o", b"m", b"s", b"p", b"r", b"v", b"w"})


class UnknownState(Exception):
    """The state holds something that this version cannot tell; the message is a sentence."""


class PartitionReading:
    """The state of one partition."""

    def __init__(self, partition: int, store: StateStore) -> None:
        self.partition = partition
        self._store = store
        meta = store.get(keys.META)
        #: None for a partition that was never written to
        self.meta: Meta | None = None if meta is None else decode_meta(meta)
        if self.meta is not None and self.meta.format != FORMAT:
            raise UnknownState(
                f"Partition {partition} has rows of layout {self.meta.format}, and this version reads layout "
                f"{FORMAT}: use the version that wrote them."
            )
        #: destination, tenant and hold of each
        self._wheels: dict[int, tuple[str, str | None, str | None]] = {}
        self._sources: dict[int, SourceName] = {}
        self._holds = [decode_hold(value) for _, value in _entries(store, b"h", b"i")]
        self._ended = [decode_ended(value) for _, value in _entries(store, b"e", b"f")]
        standing = {hold.name for hold in (*self._holds, *[ended.hold for ended in self._ended])}
        for key, value in _entries(store, b"d", b"e"):
            topic, tenant, hold = keys.split_wheel_name(value.decode())
            # What is set aside for anything else than a hold is as good as in its own wheel.
            held_by = hold if hold in standing else None
            self._wheels[keys.split_number(key)] = (topic, tenant or None, held_by)
        for key, value in _entries(store, b"n", b"o"):
            self._sources[keys.split_number(key)] = decode_source(value)

    @property
    def empty(self) -> bool:
        """Whether there is nothing at all."""
        return not self._store.scan(_FIRST_KEY, b"\xff", 1)

    def check(self) -> None:
        """Raise UnknownState for a kind of key that an export would leave out."""
        start = _FIRST_KEY
        while found := self._store.scan(start, b"\xff", 1):
            kind = found[0][0][:1]
            if kind not in _KINDS:
                raise UnknownState(
                    f"Partition {self.partition} holds work under way (keys of kind {kind!r}), which an "
                    "export cannot tell: let the workers finish it, and export then."
                )
            start = bytes([kind[0] + 1])

    def positions(self) -> list[lines.Position]:
        """Up to where each source topic was applied."""
        return [
            lines.Position(self.partition, key[1:].decode(), position.next_offset, position.topic_id)
            for key, position in (
                (key, decode_position(value)) for key, value in _entries(self._store, b"o", b"p")
            )
        ]

    def rates(self) -> Iterator[lines.Rate]:
        """What commands have set, by tenant and destination."""
        for _, value in _entries(self._store, b"v", b"w"):
            rate = decode_rate(value)
            where = schedule_id(place(rate.tenant, rate.origin), rate.partition, rate.offset)
            yield lines.Rate(
                self.partition,
                rate.tenant,
                rate.destination,
                rate.rate,
                where,
                rate.timestamp_ms,
                rate.actor,
            )

    def holds(self) -> list[lines.Holding]:
        """The bulk pauses that stand."""
        return [lines.holding(self.partition, hold) for hold in self._holds]

    def ended(self) -> list[lines.EndedHold]:
        """Those that have ended, and have something left."""
        return [lines.ended_hold(self.partition, ended) for ended in self._ended]

    def anonymous(self) -> Iterator[lines.Anonymous]:
        """Requests without an id, by destination and due time."""
        first = keys.wheel_bound(keys.HOUSEKEEPING + 1)
        for key, value in _entries(self._store, first, keys.WHEEL_END):
            entry = decode_entry(value)
            if type(entry) is Envelope:
                yield lines.Anonymous(self.partition, self._fire(key), lines.as_fields(entry))
            else:
                raise UnknownState(f"Partition {self.partition} has a wheel that this version does not know.")

    def named(self, *, remembered: bool) -> Iterator[lines.Named]:
        """Named schedules, by tenant and id; with `remembered` those too that are over."""
        for key, value in _entries(self._store, b"s", b"t"):
            tenant, _, id = key[1:].decode().partition("\0")
            schedule = decode_schedule(value)
            if remembered or schedule.forget_key is None:
                yield self._named(tenant, id, schedule)

    def _named(self, tenant: str, id: str, schedule: Schedule) -> lines.Named:
        payload = schedule.payload or self._store.get(keys.payload_key(tenant, id))
        forget = schedule.forget_key
        return lines.Named(
            partition=self.partition,
            tenant=tenant,
            id=id,
            status=Status(schedule.status).value,
            fires=[self._fire(key) for key in schedule.pending],
            forget_at_ms=None if forget is None else keys.due_of(forget),
            schedule=lines.as_fields(schedule, lines.TOLD_APART),
            payload=None if payload is None else lines.as_fields(decode_envelope(payload)),
            until_ms=None if schedule.until_key is None else keys.due_of(schedule.until_key),
            triggers=[self._triggered(waiting) for waiting in schedule.triggers],
            next_at=None if schedule.next_ms < 0 else format_instant(schedule.next_ms),
        )

    def _triggered(self, waiting: Triggered) -> lines.Triggered:
        return lines.Triggered(self._fire(waiting.key), waiting.revision, waiting.revision_origin)

    def _fire(self, key: bytes) -> lines.Fire:
        wheel, due_ms, number, offset, index = keys.split_wheel_key(key)
        destination, tenant, held_by = self._wheels[wheel]
        source = self._sources[number]
        where = schedule_id(place(source.topic, source.origin), source.partition, offset)
        return lines.fire(destination, tenant, due_ms, where, index, held_by)


def _entries(store: StateStore, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
    while entries := store.scan(start, stop, _CHUNK):
        yield from entries
        start = entries[-1][0] + b"\0"
