"""Names of schedules and fires. They are deterministic, so every retry of a fire has the same name.

Grammar (a topic name holds none of `/` and `@`, and an id, which may hold anything, comes last):

    place                     <topic>, or <topic>@<origin>
    schedule id   anonymous   <place>/<partition>/<offset>
                  named       <id>
    fire id       anonymous   <place>/<partition>/<offset>/<list index>/<due_ms>
                  named       <place>/r<revision>/<list index>/<due_ms>/<id>

`<topic>` is the request topic, which is the tenant; partition and offset are those of the request. The second
part begins with a digit or with `r`, so a named fire id never equals an anonymous one. The due time of a
recurring schedule's fire is its scheduled time, without jitter, and its list index is 0. A triggered fire has
`t<partition>.<offset>` of its command in place of the list index. Its due time is the time at which the
trigger was decided.

`<origin>` is present for an imported schedule whose request was on another topic of the same name, usually on
another cluster. It is that topic's id. Offsets, and with them revisions, begin at 0 on each topic, so names
would repeat without it. An imported command has it too: `t<partition>.<offset>@<origin>`.
"""

from typing import Final

import msgspec

REVISION_PARTITIONS: Final = 1 << 15
"""More partitions than a topic has. So revisions do not depend on the partition count, which a move to other
topics changes."""


_DIGITS: Final = 24
"""Most digits of a number in a name: a revision is an offset of 63 bits times `REVISION_PARTITIONS`."""


def place(topic: str, origin: str) -> str:
    """A request topic, marked with its id unless it is the topic of that name that is read here."""
    return f"{topic}@{origin}" if origin else topic


def revision(partition: int, offset: int) -> int:
    """A number that no other request of a topic ever gets, even after its schedule id was forgotten.

    A counter would begin again once the id is forgotten, and would repeat the fire ids of the same due times.
    """
    return offset * REVISION_PARTITIONS + partition + 1


def partition_of(revision: int) -> int:
    """The partition of the request behind a revision; revisions begin at 1."""
    return (revision - 1) % REVISION_PARTITIONS


def schedule_id(place: str, partition: int, offset: int, id: str | None = None) -> str:
    """The id that the producer chose; without one, the request's coordinates."""
    return f"{place}/{partition}/{offset}" if id is None else id


def split_schedule_id(text: str) -> tuple[str, int, int, str] | None:
    """(topic, partition, offset, origin or '') of a request's coordinates; None for another text."""
    parts = text.split("/")
    if len(parts) != 3 or not (_is_number(parts[1]) and _is_number(parts[2])):
        return None
    topic, marked, origin = parts[0].partition("@")
    if not topic or (marked and not origin):
        return None
    return topic, int(parts[1]), int(parts[2]), origin


def fire_id(coordinates: str, index: int, due_ms: int) -> str:
    """The name of one fire of a request without an id, the same for every attempt.

    `coordinates` are `place/partition/offset` of the request, and `index` is the position in its list of due
    times, from 0. Deliveries have it as bytes (`delaystream.codec.outgoing.anonymous_delivery_headers`).
    """
    return f"{coordinates}/{index}/{due_ms}"


def named_fire_id(place: str, revision: int, index: int | str, due_ms: int, id: str) -> str:
    """The name of one fire of a named schedule: unique, and the same for every attempt.

    `index` is the position in the request's list of due times (from 0), or `trigger_index`; `revision`
    distinguishes the requests that ever defined the schedule: an id never has the same one twice, even after
    it was forgotten. `place` is that of the revision's request.
    """
    return f"{place}/r{revision}/{index}/{due_ms}/{id}"


def trigger_index(partition: int, offset: int, origin: str = "") -> str:
    """The part in place of the list index in a triggered fire's id, from the coordinates of its command."""
    return place(f"t{partition}.{offset}", origin)


class FireName(msgspec.Struct, frozen=True):
    """The parts of a fire id."""

    #: `place/partition/offset` of a request without an id; otherwise the place of the revision's request
    of: str
    index: int | str
    due_ms: int
    #: None without an id, as `id`
    revision: int | None = None
    id: str | None = None

    @property
    def triggered(self) -> bool:
        """Whether a command asked for the fire, and not the schedule's times."""
        return isinstance(self.index, str)


def split_fire_id(text: str) -> FireName | None:
    """The parts of a fire id; None for another text."""
    place, _, rest = text.partition("/")
    second, _, rest = rest.partition("/")
    if second.startswith("r"):
        index, _, rest = rest.partition("/")
        due_ms, _, id = rest.partition("/")
        known = _is_number(index) or (index.startswith("t") and "." in index)
        if not (place and id and known and _is_number(second[1:]) and _is_number(due_ms)):
            return None
        return FireName(place, int(index) if _is_number(index) else index, int(due_ms), int(second[1:]), id)
    coordinates, _, last = text.rpartition("/")
    coordinates, _, index = coordinates.rpartition("/")
    if split_schedule_id(coordinates) is None or not (_is_number(index) and _is_number(last)):
        return None
    return FireName(coordinates, int(index), int(last))


def _is_number(text: str) -> bool:
    # The length check keeps thousands of digits away from int(), isascii the digits of other scripts.
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS
