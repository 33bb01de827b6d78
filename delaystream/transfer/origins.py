"""Origins: whether coordinates in an export belong to our request topics, or to others of the same names.

Offsets of two topics cannot be compared, and both begin at 0. So a request from a topic with another id keeps
that id as its *origin*. It is compared with requests here by timestamp, and its names cannot equal any name
that is given here. A request that returns to its own topic loses the origin again.
"""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from delaystream.codec.command import carried_over, is_origin
from delaystream.codec.envelope import Envelope, Fire, Hold, Schedule
from delaystream.core.identity import partition_of, place, schedule_id, split_schedule_id
from delaystream.transfer import lines
from delaystream.transfer.checking import Checked


class Origins:
    """The origins of one file's coordinates in one application.

    `topic_ids` are the ids of the application's request topics.
    """

    def __init__(self, read: Checked, topic_ids: Mapping[str, str]) -> None:
        self._exported = read.topic_ids
        #: the origin of partitions that nothing was read from
        self._of_topics = {topic: id for (topic, _), id in read.topic_ids.items()}
        #: the origin of topics that nothing was read from: only the application is known
        self._unknown = read.header.changelog_topic_id
        self._here = topic_ids

    def of(self, topic: str, partition: int, origin: str) -> str:
        """The origin here of coordinates that had `origin` in the old application. Raises LineError."""
        known = origin or self._exported.get((topic, partition)) or self._of_topics.get(topic, self._unknown)
        if not is_origin(known):
            raise lines.LineError(f"{known!r} is not a topic's id")
        return "" if known == self._here.get(topic) else known

    def of_revision(self, topic: str, revision: int, origin: str) -> str:
        """The origin of a revision. Raises LineError."""
        return self.of(topic, partition_of(revision), origin)

    def source(self, text: str) -> tuple[str, int, int, str]:
        """Topic, partition, offset and origin of `place/partition/offset`. Raises LineError."""
        found = split_schedule_id(text)
        if found is None:
            raise lines.LineError(f"{text!r} is not topic/partition/offset")
        topic, partition, offset, origin = found
        return topic, partition, offset, self.of(topic, partition, origin)

    def named(self, line: lines.Named) -> lines.Named:
        """A schedule with its origins. Raises LineError.

        A dialect may have made the id from the request's coordinates. Then the id is made again, because a
        later request here may get the same coordinates and would replace the schedule. Deliveries that have
        the id in a header of the dialect get the new id, which cancels the schedule here.
        """
        schedule = lines.from_fields(line.schedule, Schedule, lines.TOLD_LATER)
        origin = self.of(line.tenant, schedule.partition, schedule.origin)
        revised = self.of_revision(line.tenant, schedule.revision, schedule.revision_origin)
        history = [self._delivered(line.tenant, fire) for fire in schedule.history]
        id, payload, coordinates = line.id, line.payload, (schedule.partition, schedule.offset)
        if id == schedule_id(place(line.tenant, schedule.origin), *coordinates):
            id = schedule_id(place(line.tenant, origin), *coordinates)
            payload = None if payload is None else _renamed(payload, line.id, id)
        fields = {
            **line.schedule,
            "origin": origin,
            "revision_origin": revised,
            "held_by": self.held_by(schedule.held_by) if schedule.held_by else "",
            "history": [lines.as_fields(fire) for fire in history],
            # Of bulk commands at work there: none is left, and one here may have their coordinates.
            "swept": [],
        }
        return replace(line, id=id, schedule=fields, payload=payload)

    def hold(self, line: lines.Holding | lines.EndedHold) -> Hold:
        """A hold with its origin, and with the name that follows from it. Raises LineError."""
        hold = lines.from_fields(line.hold, Hold, lines.OF_A_HOLD)
        origin = self.of(hold.tenant, hold.partition, hold.origin)
        return replace(hold, origin=origin, name=self.held_by(hold.name))

    def held_by(self, name: str) -> str:
        """The name of a hold here. Raises LineError."""
        topic, partition, offset, origin = self.source(name)
        return schedule_id(place(topic, origin), partition, offset)

    def _delivered(self, tenant: str, fire: Fire) -> Fire:
        return replace(fire, origin=self.of_revision(tenant, fire.revision, fire.origin))

    def in_flight(self, line: lines.InFlight) -> lines.InFlight:
        """A command on its way, with its origin in its header. Raises LineError."""
        return replace(line, headers=carried_over(line.headers, self.of))


def _renamed(payload: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    """A payload whose headers have the new id instead of the old one."""
    stored = lines.from_fields(payload, Envelope, {})
    headers = [(name, new.encode() if value == old.encode() else value) for name, value in stored.headers]
    return lines.as_fields(replace(stored, headers=headers))
