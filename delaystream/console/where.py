"""Where is my event: everything that is known by one word, with where it stands.

The word may be an id, the coordinates of a request, a fire id, a key or a tag; nobody has to say which.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from delaystream.codec.envelope import Status
from delaystream.codec.event import Event, EventType
from delaystream.console.history.queries import History, Told
from delaystream.console.replica.catalog import Catalog, Filter, Sort
from delaystream.console.replica.pending import Pending, PendingEvent, Wanted
from delaystream.core.identity import split_fire_id, split_schedule_id
from delaystream.query.partition import StoredSchedule

MOST: Final = 50
"""Of each kind of answer there are so many at most."""


class State(StrEnum):
    """Where an event is."""

    UNREAD = "unread"
    PENDING = "pending"
    PAUSED = "paused"
    HELD = "held"
    PARKED = "parked"
    FIRED = "fired"
    MISSED = "missed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that the word may mean."""

    #: by what it was found: id, coordinates, fire-id, key or tag
    by: str
    state: State
    #: a sentence, where there is more to say than the state
    detail: str | None = None
    schedule: StoredSchedule | None = None
    pending: PendingEvent | None = None
    told: Told | None = None


_STATE_OF: Final = {
    Status.PENDING: State.PENDING,
    Status.PAUSED: State.PAUSED,
    Status.FIRED: State.FIRED,
    Status.COMPLETED: State.FIRED,
    Status.CANCELLED: State.CANCELLED,
    Status.FORESTALLED: State.CANCELLED,
    Status.DROPPED: State.EXPIRED,
    Status.QUARANTINED: State.REJECTED,
}
_STATE_AFTER: Final = {
    EventType.FIRED: State.FIRED,
    EventType.MISSED: State.MISSED,
    EventType.SKIPPED: State.MISSED,
    EventType.EXPIRED: State.EXPIRED,
    EventType.CANCELLED: State.CANCELLED,
    EventType.REJECTED: State.REJECTED,
    EventType.QUARANTINED: State.REJECTED,
}


class Search:
    """Looks in the copies first, then in the history, which blocks: call :meth:`past` in a thread."""

    def __init__(self, catalog: Catalog, pending: Pending, tenants: frozenset[str] | None) -> None:
        self._catalog = catalog
        self._pending = pending
        #: request topics that whoever asks may see; None: all
        self._tenants = tenants

    def present(self, word: str) -> list[Found]:
        """What is pending, paused or remembered under a word."""
        found = [*self._by_id(word), *self._by_coordinates(word), *self._by_fire(word)]
        found += self._by("key", Filter(key=word.encode(), statuses=tuple(Status)), Wanted(key=word.encode()))
        found += self._by("tag", Filter(tag=word, statuses=tuple(Status)), Wanted(tag=word))
        return found

    def past(self, word: str, history: History, present: Sequence[Found]) -> list[Found]:
        """What became of what is not there any more. Raises DatabaseError."""
        known = {(found.schedule.tenant, found.schedule.id) for found in present if found.schedule}
        found: list[Found] = []
        if split_schedule_id(word) is not None:
            found += self._told("coordinates", history.of_source(word, MOST), known)
        name = split_fire_id(word)
        if name is not None:
            of = name.id if name.id is not None else name.of
            topic = name.of.partition("/")[0].partition("@")[0]
            fires = history.of_schedule(topic, of, MOST).items
            found += self._told("fire-id", [one for one in fires if one.event.fire_id == word], set())
        found += self._told("key", history.of_key(word.encode(), MOST), known)
        if not present and not found:
            found += self._by_elimination(word)
        return found

    def _by_elimination(self, word: str) -> Iterable[Found]:
        """What a request must have come to of which nothing is known but where it stood."""
        place = split_schedule_id(word)
        if place is None or not self._sees(place[0]):
            return
        topic, partition, offset, origin = place
        applied = None if origin else self._pending.applied(topic, partition)
        if applied is None:
            return
        if offset >= applied:
            detail = f"Requests of {topic}-{partition} are read up to offset {applied}."
            yield Found(by="coordinates", state=State.UNREAD, detail=detail)
            return
        yield Found(
            by="coordinates",
            state=State.FIRED,
            detail="It was read, and nothing of it is pending: it has fired, unless it was cancelled or "
            "refused. Events of requests without an id are not kept here (`events_anonymous`).",
        )

    def _sees(self, tenant: str | None) -> bool:
        return self._tenants is None or tenant in self._tenants

    def _by_id(self, word: str) -> Iterable[Found]:
        for tenant in sorted(self._catalog.tenants()):
            if self._sees(tenant) and (schedule := self._catalog.get(tenant, word)) is not None:
                yield _schedule("id", schedule)

    def _by_coordinates(self, word: str) -> Iterable[Found]:
        place = split_schedule_id(word)
        if place is None or not self._sees(place[0]):
            return
        topic, partition, offset, origin = place
        for event in self._pending.of_request(partition, topic, offset, origin):
            yield _event("coordinates", event)

    def _by_fire(self, word: str) -> Iterable[Found]:
        name = split_fire_id(word)
        if name is None:
            return
        if name.id is not None:
            topic = name.of.partition("@")[0]
            if self._sees(topic) and (schedule := self._catalog.get(topic, name.id)) is not None:
                yield _schedule("fire-id", schedule)
            return
        for found in self._by_coordinates(name.of):
            if found.pending is not None and found.pending.index == name.index:
                yield msgspec.structs.replace(found, by="fire-id")

    def _by(self, by: str, named: Filter, unnamed: Wanted) -> Iterable[Found]:
        named = msgspec.structs.replace(named, tenants=self._tenants)
        unnamed = msgspec.structs.replace(unnamed, tenants=self._tenants)
        for schedule in self._catalog.page(named, Sort.NEXT, MOST).items:
            yield _schedule(by, schedule)
        for event in self._pending.page(unnamed, MOST).items:
            if event.id is None:
                yield _event(by, event)

    def _told(self, by: str, told: Iterable[Told], known: set[tuple[str, str]]) -> Iterable[Found]:
        for one in told:
            event: Event = one.event
            if not self._sees(event.request_topic):
                continue
            if (event.request_topic, event.schedule_id) in known:
                continue
            yield Found(by=by, state=_STATE_AFTER.get(event.type, State.UNKNOWN), told=one)


def _schedule(by: str, schedule: StoredSchedule) -> Found:
    state = _STATE_OF[schedule.row.status]
    if state is State.PAUSED and schedule.row.held_by:
        state = State.HELD
    return Found(by=by, state=state, schedule=schedule)


def _event(by: str, event: PendingEvent) -> Found:
    return Found(by=by, state=State.PENDING if event.held_by is None else State.HELD, pending=event)
