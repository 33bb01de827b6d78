"""Names of schedules and fires: deterministic, so that every retry of a fire carries the same one.

Grammar (a topic name holds none of `/`, and an id, which may hold anything, comes last):

    schedule id   anonymous   <topic>/<partition>/<offset>
                  named       <id>
    fire id       anonymous   <topic>/<partition>/<offset>/<list index>/<due_ms>
                  named       <topic>/r<revision>/<list index>/<due_ms>/<id>

`<topic>` is the request topic, which is the tenant; partition and offset are those of the request. The second
part begins with a digit or with `r`, so a named fire id never equals an anonymous one. The due time of a
recurring schedule's fire is its scheduled time, without jitter, and its list index is 0. A triggered fire has
`t<partition>.<offset>` of its command in place of the list index, and the time of the decision on it as its
due time.
"""


def schedule_id(topic: str, partition: int, offset: int, id: str | None = None) -> str:
    """The id the producer chose or, without one, the request's coordinates."""
    return f"{topic}/{partition}/{offset}" if id is None else id


def fire_id(topic: str, partition: int, offset: int, index: int, due_ms: int) -> str:
    """The name of one fire of a request without an id: the same for every attempt at it.

    `index` is the position in the request's list of due times, from 0.
    """
    return f"{topic}/{partition}/{offset}/{index}/{due_ms}"


def named_fire_id(topic: str, revision: int, index: int | str, due_ms: int, id: str) -> str:
    """The name of one fire of a named schedule: its own, and the same for every attempt at it.

    `index` is the position in the request's list of due times (from 0), or `trigger_index`; `revision` tells
    apart the requests that ever defined the schedule: none is used twice for one id, not even after the id
    was forgotten.
    """
    return f"{topic}/r{revision}/{index}/{due_ms}/{id}"


def trigger_index(partition: int, offset: int) -> str:
    """What stands for the list index in the id of a triggered fire, by the coordinates of its command."""
    return f"t{partition}.{offset}"
