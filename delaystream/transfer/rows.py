"""Turns the lines of an export into the rows of a new application's state.

The same lines in the same order always make the same rows, so an interrupted import writes them again and
nothing changes. Coordinates and due times stay those of the export. Fire ids stay, too, if the request topic
is the same one. Otherwise they have an origin from then on, because another request may get the same
coordinates (`delaystream.transfer.origins`).
"""

from msgspec.structs import replace

from delaystream.codec.envelope import (
    FORMAT,
    INLINE_BYTES,
    Ended,
    Envelope,
    Meta,
    Rate,
    Schedule,
    SourceName,
    SourcePosition,
    Triggered,
    encode,
)
from delaystream.codec.keys import (
    HOUSEKEEPING,
    META,
    destination_key,
    ended_key,
    hold_key,
    offset_key,
    payload_key,
    rate_key,
    schedule_key,
    source_key,
    wheel_key,
    wheel_name,
)
from delaystream.core.identity import place
from delaystream.core.partitioning import owner_partition
from delaystream.engine.policy.holds import LOOK_MS
from delaystream.engine.ports import Change
from delaystream.transfer import lines
from delaystream.transfer.origins import Origins


def home(line: lines.Anonymous | lines.Named | lines.Position, partitions: int) -> int:
    """The partition of the new application that owns a line.

    Requests without an id that shared a partition still share one, so their order remains.
    """
    if isinstance(line, lines.Named):
        return owner_partition(line.id, partitions)
    return line.partition % partitions


def homes(line: lines.Holding | lines.EndedHold, exported: int, partitions: int) -> list[int]:
    """The partitions of a hold from one of the `exported` ones; with several, each gets its share."""
    return [
        partition
        for partition in range(partitions)
        if partition == line.partition % partitions or partition % exported == line.partition
    ]


def meta_row(partitions: int, app_id: str, transfer: str, state: str) -> Change:
    """The meta row of the partition, with the progress of the import."""
    return META, encode(Meta(partitions, FORMAT, app_id=app_id, transfer=transfer, transfer_state=state))


class PartitionRows:
    """Rows of one partition; interns their names, in the order of appearance."""

    def __init__(self, origins: Origins) -> None:
        self._origins = origins
        self._wheels: dict[str, int] = {}
        self._ended = 0
        self._sources: dict[tuple[str, int, str], int] = {}

    def position(self, line: lines.Position) -> list[Change]:
        """The position from which to read on: that of the old application."""
        return [(offset_key(line.topic), encode(SourcePosition(line.next_offset, line.topic_id)))]

    def rate(self, line: lines.Rate) -> list[Change]:
        """A rate set by a command."""
        _, partition, offset, origin = self._origins.source(line.source)
        row = Rate(
            line.tenant,
            line.destination,
            line.rate,
            partition,
            offset,
            line.timestamp_ms,
            line.actor,
            origin,
            line.note,
        )
        return [(rate_key(line.tenant, line.destination), encode(row))]

    def anonymous(self, line: lines.Anonymous) -> list[Change]:
        """A fire without an id."""
        changes: list[Change] = []
        key = self._wheel_key(changes, line.fire)
        entry = lines.from_fields(line.payload, Envelope, {})
        # As in `Origins.named`.
        changes.append((key, encode(replace(entry, swept=[]))))
        return changes

    def hold(self, line: lines.Holding | lines.EndedHold) -> list[Change]:
        """A bulk pause in force, or one that has ended."""
        if isinstance(line, lines.EndedHold):
            return self._ended_hold(line)
        changes: list[Change] = []
        hold = self._origins.hold(line)
        if line.until_ms is not None:
            number = self._source(changes, hold.tenant, hold.partition, hold.origin)
            hold = replace(hold, until_key=wheel_key(HOUSEKEEPING, line.until_ms, number, hold.offset, 2))
        topic, partition, offset, origin = self._origins.source(line.hold["name"])
        changes.append((hold_key(place(topic, origin), partition, offset), encode(hold)))
        return changes

    def _ended_hold(self, line: lines.EndedHold) -> list[Change]:
        """A bulk pause that has ended. Later a new check decides whether any of its entries are left."""
        changes: list[Change] = []
        hold = self._origins.hold(line)
        number = self._source(changes, hold.tenant, hold.partition, hold.origin)
        index = 3 + self._ended
        self._ended += 1
        entry = wheel_key(HOUSEKEEPING, line.ended_at_ms + LOOK_MS, number, hold.offset, index)
        topic, partition, offset, origin = self._origins.source(line.hold["name"])
        key = ended_key(hold_key(place(topic, origin), partition, offset))
        changes.append((key, encode(Ended(hold, line.ended_at_ms, entry, line.once))))
        return changes

    def named(self, line: lines.Named) -> list[Change]:
        """A schedule: the names that its fires need, its payload if it is large, then its record.

        `line` comes from `Origins.named`.
        """
        changes: list[Change] = []
        pending = [self._wheel_key(changes, fire) for fire in line.fires]
        triggers = [self._triggered(changes, line.tenant, triggered) for triggered in line.triggers]
        schedule = lines.from_fields(line.schedule, Schedule, lines.TOLD_LATER)
        schedule = replace(schedule, pending=pending, triggers=triggers)
        if line.forget_at_ms is not None:
            number = self._source(changes, schedule.topic, schedule.partition, schedule.origin)
            forget_key = wheel_key(HOUSEKEEPING, line.forget_at_ms, number, schedule.offset, 0)
            schedule = replace(schedule, forget_key=forget_key)
        if line.until_ms is not None:
            number = self._source(changes, schedule.topic, schedule.partition, schedule.origin)
            until_key = wheel_key(HOUSEKEEPING, line.until_ms, number, schedule.offset, 1)
            schedule = replace(schedule, until_key=until_key)
        if line.payload is not None:
            payload = encode(lines.from_fields(line.payload, Envelope, {}))
            if len(payload) <= INLINE_BYTES:
                schedule = replace(schedule, payload=payload)
            else:
                changes.append((payload_key(line.tenant, line.id), payload))
        changes.append((schedule_key(line.tenant, line.id), encode(schedule)))
        return changes

    def _triggered(self, changes: list[Change], tenant: str, line: lines.Triggered) -> Triggered:
        _, partition, _, origin = self._origins.source(line.fire.source)
        revised = self._origins.of_revision(tenant, line.revision, line.revision_origin)
        return Triggered(self._wheel_key(changes, line.fire), line.revision, partition, origin, revised)

    def _wheel_key(self, changes: list[Change], fire: lines.Fire) -> bytes:
        topic, partition, offset, origin = self._origins.source(fire.source)
        held_by = "" if fire.held_by is None else self._origins.held_by(fire.held_by)
        name = wheel_name(fire.destination, fire.wheel_tenant or "", held_by)
        wheel = self._wheels.get(name)
        if wheel is None:
            # Number 0 is the wheel of housekeeping.
            wheel = self._wheels[name] = len(self._wheels) + 1
            changes.append((destination_key(wheel), name.encode()))
        number = self._source(changes, topic, partition, origin)
        return wheel_key(wheel, fire.due_at_ms, number, offset, fire.index)

    def _source(self, changes: list[Change], topic: str, partition: int, origin: str) -> int:
        number = self._sources.get((topic, partition, origin))
        if number is None:
            number = self._sources[topic, partition, origin] = len(self._sources)
            changes.append((source_key(number), encode(SourceName(topic, partition, origin))))
        return number
