"""Names of schedules and fires: deterministic, so that every retry of a fire carries the same one.

Grammar (a topic name holds none of `/` and `@`, and an id, which may hold anything, comes last):

    place                     <topic>, or <topic>@<origin>
    schedule id   anonymous   <place>/<partition>/<offset>
                  named       <id>
    fire id       anonymous   <place>/<partition>/<offset>/<list index>/<due_ms>
                  named       <place>/r<revision>/<list index>/<due_ms>/<id>

`<topic>` is the request topic, which is the tenant; partition and offset are those of the request. The second
part begins with a digit or with `r`, so a named fire id never equals an anonymous one. The due time of a
recurring schedule's fire is its scheduled time, without jitter, and its list index is 0. A triggered fire has
`t<partition>.<offset>` of its command in place of the list index, and the time of the decision on it as its
due time.

`<origin>` is there for what was imported and was asked for on another topic of the same name, as a rule on
another cluster: it is that topic's id. Offsets, and with them revisions, begin anew on each topic, so that
names would repeat without it. A command that was imported has it too: `t<partition>.<offset>@<origin>`.
"""

from typing import Final

REVISION_PARTITIONS: Final = 1 << 15
"""More than a topic has. Revisions do not hang on their number, which a move to other topics changes."""


def place(topic: str, origin: str) -> str:
    """A request topic, marked with its id where it is not the topic of that name that is read here."""
    return f"{topic}@{origin}" if origin else topic


def revision(partition: int, offset: int) -> int:
    """A number that no other request of a topic ever gets, whatever is remembered of its id.

    A count would begin anew once the id is forgotten, and repeat the fire ids of the same due times.
    """
    return offset * REVISION_PARTITIONS + partition + 1


def partition_of(revision: int) -> int:
    """The partition of the request that a revision, from 1, is of."""
    return (revision - 1) % REVISION_PARTITIONS


def schedule_id(place: str, partition: int, offset: int, id: str | None = None) -> str:
    """The id the producer chose or, without one, the request's coordinates."""
    return f"{place}/{partition}/{offset}" if id is None else id


def fire_id(place: str, partition: int, offset: int, index: int, due_ms: int) -> str:
    """The name of one fire of a request without an id: the same for every attempt at it.

    `index` is the position in the request's list of due times, from 0.
    """
    return f"{place}/{partition}/{offset}/{index}/{due_ms}"


def named_fire_id(place: str, revision: int, index: int | str, due_ms: int, id: str) -> str:
    """The name of one fire of a named schedule: its own, and the same for every attempt at it.

    `index` is the position in the request's list of due times (from 0), or `trigger_index`; `revision` tells
    apart the requests that ever defined the schedule: none is used twice for one id, not even after the id
    was forgotten; `place` is that of the request of the revision.
    """
    return f"{place}/r{revision}/{index}/{due_ms}/{id}"


def trigger_index(partition: int, offset: int, origin: str = "") -> str:
    """What stands for the list index in the id of a triggered fire, by the coordinates of its command."""
    return place(f"t{partition}.{offset}", origin)
