"""Partitions that a destination seems to lack: it may have got them a moment ago.

Topics get new partitions, and our metadata may be a minute old. So a request is refused for a missing
partition only after its destination has been looked up anew. Anybody can ask for missing partitions, so a
look-up within the last second is enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

from msgspec import UNSET

from delaystream.codec.envelope import UNREADABLE, decode_schedule
from delaystream.codec.keys import schedule_key
from delaystream.core.request import Request
from delaystream.engine.accept.reading import ParsedBatch
from delaystream.engine.ports import Destinations
from delaystream.engine.state.partition_state import PartitionState
from delaystream.engine.state.step import Step

FRESH_MS: Final = 1_000
"""How old may be what is known of a destination by which something is refused."""
#: a partition that no destination has
_BEYOND_ALL: Final = 1 << 31


class Doubts:
    """Tells which destinations are to be looked up anew before a step of one partition is decided on."""

    def __init__(self, state: PartitionState, destinations: Destinations) -> None:
        self._state = state
        self._destinations = destinations
        #: whose entries wait for that
        self._waiting: set[str] = set()
        #: looked up for the step that is being decided on, however long that takes
        self._looked_up: set[str] = set()

    def missing(self, topic: str, partition: int) -> bool:
        """Whether a destination seems not to have a partition, and may have it by now."""
        destinations = self._destinations
        return (
            0 < destinations.partitions(topic) <= partition
            and topic not in self._looked_up
            and destinations.age_ms(topic) > FRESH_MS
        )

    def wait(self, topic: str) -> None:
        """An entry that is due stays where it is until its destination was looked up."""
        self._waiting.add(topic)

    def before(self, parsed: ParsedBatch | None) -> set[str]:
        """The topics to look up before a step that begins with a batch; `looked_up` follows."""
        self._looked_up.clear()
        waiting, self._waiting = self._waiting, set()
        return waiting | (set() if parsed is None else self.of(parsed, None))

    def looked_up(self, topics: Iterable[str]) -> None:
        """They were looked up."""
        self._looked_up.update(topics)

    def of(self, parsed: ParsedBatch, step: Step | None) -> set[str]:
        """The destinations in doubt that a batch may be refused for, after what the step has changed."""
        found: set[str] = set()
        repartitioned: list[Request] = []
        for _, request in parsed.requests:
            if type(request) is not Request:
                continue
            update = request.update
            if request.destination_partition is not None:
                if self.missing(request.destination, request.destination_partition):
                    found.add(request.destination)
            elif update is None:
                continue
            elif update.destination is not UNSET:
                # Without a partition it asks for the one that the schedule has.
                asked = update.destination_partition
                if self.missing(update.destination, _BEYOND_ALL if asked is UNSET else asked):
                    found.add(update.destination)
            elif update.destination_partition is not UNSET:
                repartitioned.append(request)
        if repartitioned:
            found.update(self._of_other_partitions(step, parsed, repartitioned))
        return found

    def _of_other_partitions(
        self, step: Step | None, parsed: ParsedBatch, repartitioned: Iterable[Request]
    ) -> Iterator[str]:
        """Of updates to another partition of the destination that there is."""
        given = _destinations_given(parsed)
        for request in repartitioned:
            id, update = request.id, request.update
            assert id is not None
            assert update is not None
            topics = given.get(id, set())
            key = schedule_key(request.source.topic, id)
            stored = self._state.store.get(key) if step is None else self._state.get(step, key)
            if stored is not None:
                # An unreadable schedule is a failure of its request, when that has its turn.
                with suppress(*UNREADABLE):
                    topics = {*topics, decode_schedule(stored).destination}
            asked = update.destination_partition
            assert asked is not UNSET
            yield from [topic for topic in topics if self.missing(topic, asked)]


def _destinations_given(parsed: ParsedBatch) -> dict[str, set[str]]:
    """Where the schedules of a batch are to deliver, by their ids."""
    given: dict[str, set[str]] = {}
    for _, request in parsed.requests:
        if type(request) is not Request or request.id is None:
            continue
        topic = request.destination
        if request.update is not None and request.update.destination is not UNSET:
            topic = request.update.destination
        if topic:
            given.setdefault(request.id, set()).add(topic)
    return given
