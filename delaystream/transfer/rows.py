"""The state of a new application, row by row, from the lines of an export.

The same lines in the same order always make the same rows: an import that was interrupted writes them again,
and nothing changes. Coordinates and due times stay those of the export. So do fire ids, where the request
topic is the same one; else they have an origin from then on, for another request may come to have the same
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
    """The partition of the new application that a line belongs to.

    What stood together without an id still does, so that its order remains.
    """
    if isinstance(line, lines.Named):
        return owner_partition(line.id, partitions)
    return line.partition % partitions


def homes(line: lines.Holding | lines.EndedHold, exported: int, partitions: int) -> list[int]:
    """The partitions that a hold of one of the `exported` ones belongs to: of more, each gets its share."""
    return [
        partition
        for partition in range(partitions)
        if partition == line.partition % partitions or partition % exported == line.partition
    ]


def meta_row(partitions: int, app_id: str, transfer: str, state: str) -> Change:
    """What the partition's state was made for, and how far the import is."""
    return META, encode(Meta(partitions, FORMAT, app_id=app_id, transfer=transfer, transfer_state=state))


class PartitionRows:
    """Rows of one partition; interns the names that they hold, in the order in which they come."""

    def __init__(self, origins: Origins) -> None:
        self._origins = origins
        self._wheels: dict[str, int] = {}
        self._ended = 0
        self._sources: dict[tuple[str, int, str], int] = {}

    def position(self, line: lines.Position) -> list[Change]:
        """Read on from where the old application stood."""
        return [(offset_key(line.topic), encode(SourcePosition(line.next_offset, line.topic_id)))]

    def rate(self, line: lines.Rate) -> list[Change]:
        """A rate that a command has set."""
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
        changes.append((key, encode(lines.from_fields(line.payload, Envelope, {}))))
        return changes

    def hold(self, line: lines.Holding | lines.EndedHold) -> list[Change]:
        """A bulk pause that stands, or one that has ended."""
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
        """A bulk pause that has ended; it is looked at anew whether anything is left of it."""
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
        """A schedule: the names that its fires need, its payload if it is large, its record last.

        `line` is as `Origins.named` made it.
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
