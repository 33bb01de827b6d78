"""Where is my event: everything that is known by one word, with where it stands.

The word may be an id, the coordinates of a request, a fire id, a correlation id, a key or a tag; nobody has
to say which.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

from delaystream.codec.envelope import RUNS, Fire, Past, Schedule, Status
from delaystream.codec.event import Event, EventType
from delaystream.codec.keys import due_of, offset_of
from delaystream.console.history.queries import Told
from delaystream.console.letters.latest import Letter
from delaystream.console.replica.catalog import Filter, Sort
from delaystream.console.replica.pending import PendingEvent, Wanted
from delaystream.core.identity import FireName, split_fire_id, split_schedule_id, trigger_index
from delaystream.core.instants import LATEST_MS, format_instant
from delaystream.core.recurrence import CronError, UnknownZoneError, next_after
from delaystream.engine.failures import LogUnavailable, Misconfigured
from delaystream.query.partition import StoredSchedule

if TYPE_CHECKING:
    from delaystream.console.service import Console

MOST: Final = 50
"""Most answers of each kind."""


class State(StrEnum):
    """Where an event is."""

    #: its record is there, and the partition is not read that far
    UNREAD = "unread"
    PENDING = "pending"
    PAUSED = "paused"
    #: a bulk pause keeps it back, or will when it is due
    HELD = "held"
    #: it is due, and its destination cannot be written to
    PARKED = "parked"
    FIRED = "fired"
    #: its time passed without a delivery of its own
    MISSED = "missed"
    #: it was too late and dropped
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    #: it was refused, or proved impossible: a dead letter
    REJECTED = "rejected"
    UNKNOWN = "unknown"


class By(StrEnum):
    """The meaning that a word was taken for."""

    ID = "id"
    COORDINATES = "coordinates"
    FIRE_ID = "fire-id"
    CORRELATION_ID = "correlation-id"
    KEY = "key"
    TAG = "tag"


class LetterPlace(msgspec.Struct, frozen=True):
    """Where a dead letter is."""

    partition: int
    offset: int
    code: str


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that the word may mean."""

    by: By
    state: State
    #: a sentence, where there is more to say than the state
    detail: str | None = None
    #: the state follows from what is not there: nobody has told of it
    by_elimination: bool = False
    schedule: StoredSchedule | None = None
    pending: PendingEvent | None = None
    told: Told | None = None
    letter: LetterPlace | None = None


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
_STATE_PAST: Final = {
    Past.FIRED: State.FIRED,
    Past.TRIGGERED: State.FIRED,
    Past.MISSED: State.MISSED,
    Past.SKIPPED: State.MISSED,
}


class Search:
    """Looks in the copies, in the dead letters, in the history, and at last at how far partitions are read.

    All that it finds is what the caller of the console sees.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._catalog = console.catalog
        self._pending = console.pending
        self._now_ms = console.clock.now_ms()
        self._parked = console.parked()

    async def find(self, word: str) -> list[Found]:
        """All that is known under a word; empty where nothing is. Raises DatabaseError."""
        found = self.present(word)
        told = await asyncio.to_thread(self._correlated_events, word)
        found += list(self._correlated(told, word, found))
        found += await asyncio.to_thread(self._past, word, found)
        if not any(one.by in {By.COORDINATES, By.FIRE_ID} for one in found):
            found += await self._by_elimination(word)
        return found

    def present(self, word: str) -> list[Found]:
        """What is pending, paused or remembered under a word, and what is among the dead letters."""
        found = [*self._by_id(word), *self._by_coordinates(word), *self._by_fire(word)]
        content = word.encode()
        every = tuple(Status)
        found += self._by(
            By.CORRELATION_ID,
            Filter(correlation_id=content, statuses=every),
            Wanted(correlation_id=content),
        )
        found += self._by(By.KEY, Filter(key=content, statuses=every), Wanted(key=content))
        found += self._by(By.TAG, Filter(tag=word, statuses=every), Wanted(tag=word))
        found += self._refused(word)
        return found

    def _sees(self, tenant: str | None) -> bool:
        return self._console.caller.sees(tenant)

    # -- what is there -----------------------------------------------------------------------------

    def _by_id(self, word: str) -> Iterable[Found]:
        for tenant in sorted(self._catalog.tenants()):
            if self._sees(tenant) and (schedule := self._catalog.get(tenant, word)) is not None:
                yield self._schedule(By.ID, schedule)

    def _by_coordinates(self, word: str) -> Iterable[Found]:
        place = split_schedule_id(word)
        if place is None or not self._sees(place[0]):
            return
        topic, partition, offset, origin = place
        for event in self._pending.of_request(partition, topic, offset, origin):
            yield self._event(By.COORDINATES, event)

    def _by_fire(self, word: str) -> Iterable[Found]:
        name = split_fire_id(word)
        if name is None:
            return
        if name.id is None:
            for found in self._by_coordinates(name.of):
                event = found.pending
                if event is not None and (event.index, event.due_at_ms) == (name.index, name.due_ms):
                    yield msgspec.structs.replace(found, by=By.FIRE_ID)
            return
        topic = name.of.partition("@")[0]
        if self._sees(topic) and (schedule := self._catalog.get(topic, name.id)) is not None:
            state, detail = self._fire(name, schedule)
            if state is not None:
                yield Found(by=By.FIRE_ID, state=state, detail=detail, schedule=schedule)

    def _fire(self, name: FireName, found: StoredSchedule) -> tuple[State | None, str | None]:
        """Where one fire of a named schedule is, by the schedule's row; None where that does not tell."""
        row = found.row
        past = next((past for past in row.history if _is(past, name)), None)
        if past is not None:
            return _STATE_PAST[past.kind], f"Decided at {format_instant(past.fired_ms)}."
        if name.triggered:
            waiting = any(
                trigger_index(trigger.partition, offset_of(trigger.key), trigger.origin) == name.index
                for trigger in row.triggers
            )
            return (State.PENDING, "A triggered fire is on its way.") if waiting else (None, None)
        return self._ahead(name, found) if row.revision == name.revision else (None, None)

    def _ahead(self, name: FireName, found: StoredSchedule) -> tuple[State | None, str | None]:
        """The same of a fire of the schedule's own times that is not in its history."""
        row = found.row
        standing = self._schedule(By.FIRE_ID, found)
        if (name.due_ms, name.index) in row.ahead:
            return standing.state, standing.detail
        if standing.state in {State.PENDING, State.PAUSED, State.HELD, State.PARKED} and _comes(row, name):
            return standing.state, f"The schedule comes to it after {format_instant(row.next_ms)}."
        if standing.state is State.CANCELLED:
            return State.CANCELLED, "The schedule was cancelled; none of its fires that were ahead comes."
        return None, None

    def _by(self, by: By, named: Filter, unnamed: Wanted) -> Iterable[Found]:
        for schedule in self._catalog.page(named, Sort.NEXT, MOST).items:
            yield self._schedule(by, schedule)
        for event in self._pending.page(unnamed, MOST).items:
            if event.id is None:
                yield self._event(by, event)

    def _schedule(self, by: By, schedule: StoredSchedule) -> Found:
        row = schedule.row
        state = _STATE_OF[row.status]
        detail: str | None = None
        if state is State.PAUSED and row.held_by:
            state = State.HELD
        if state is State.PENDING and row.pending:
            partition = self._catalog.partition_of(schedule.id)
            state, detail = self._waiting(partition, row.destination, min(map(due_of, row.pending)))
        return Found(by=by, state=state, detail=detail, schedule=schedule)

    def _event(self, by: By, event: PendingEvent) -> Found:
        if event.held_by is not None:
            why = f"The hold {event.held_by} keeps it back, or will when it is due."
            return Found(by=by, state=State.HELD, detail=why, pending=event)
        state, detail = self._waiting(event.partition, event.destination, event.due_at_ms)
        return Found(by=by, state=state, detail=detail, pending=event)

    def _waiting(self, partition: int, destination: str, due_ms: int) -> tuple[State, str | None]:
        parked = self._parked.get((partition, destination))
        if parked is None:
            return State.PENDING, None
        since = f"since {format_instant(parked.since_ms)}: {parked.reason}"
        if due_ms <= self._now_ms:
            return State.PARKED, f"{destination} cannot be written to {since}"
        return State.PENDING, f"{destination} is parked now, {since}"

    def _refused(self, word: str) -> Iterable[Found]:
        for letter in self._console.letters.of(word):
            if self._sees(letter.request_topic):
                yield Found(
                    by=_known_by(letter, word),
                    state=State.REJECTED,
                    detail=letter.detail,
                    letter=LetterPlace(letter.partition, letter.offset, letter.code),
                )

    # -- what was ----------------------------------------------------------------------------------

    def _past(self, word: str, present: Sequence[Found]) -> list[Found]:
        """The outcome of something that is not pending any more. Raises DatabaseError."""
        history = self._console.history
        known = {(found.schedule.tenant, found.schedule.id) for found in present if found.schedule}
        found: list[Found] = []
        if split_schedule_id(word) is not None:
            found += self._told(By.COORDINATES, history.of_source(word, MOST), known)
        name = split_fire_id(word)
        if name is not None and name.due_ms <= LATEST_MS and not any(one.by is By.FIRE_ID for one in present):
            of = name.id if name.id is not None else name.of
            topic = name.of.partition("/")[0].partition("@")[0]
            if self._sees(topic):
                found += self._told(By.FIRE_ID, history.of_fire(topic, of, word, name.due_ms), set())
        found += self._told(By.KEY, history.of_key(word.encode(), MOST), known)
        return found

    def _told(self, by: By, told: Iterable[Told], known: set[tuple[str, str]]) -> Iterable[Found]:
        for one in told:
            event: Event = one.event
            if not self._sees(event.request_topic):
                continue
            if (event.request_topic, event.schedule_id) in known:
                continue
            state = _STATE_AFTER.get(event.type, State.UNKNOWN)
            yield Found(by=by, state=state, detail=event.detail, told=one)

    def _correlated_events(self, word: str) -> list[Told]:
        """Events with a correlation id or a request id, the latest first.

        What became of the schedules that these leave open stands ahead of them: a request names itself once,
        and what its schedule then does is told without. Raises DatabaseError.
        """
        history = self._console.history
        told = history.of_correlation(word, MOST)
        open_ = {(one.event.request_topic, one.event.id): one.event.revision for one in reversed(told)}
        for one in told:
            if one.event.type in _STATE_AFTER:
                open_.pop((one.event.request_topic, one.event.id), None)
        outcomes: list[Told] = []
        for (topic, id), revision in open_.items():
            if topic is not None and id is not None:
                last = history.of_schedule(topic, id, 1, types=tuple(_STATE_AFTER)).items
                outcomes += [one for one in last if one.event.revision == revision]
        return [*outcomes, *told]

    def _correlated(self, told: Sequence[Told], word: str, present: Sequence[Found]) -> Iterable[Found]:
        """Where that stands which a correlation id or a request id was told with; each thing once."""
        known = {(found.schedule.tenant, found.schedule.id) for found in present if found.schedule}
        known |= {(one.pending.request_topic, one.pending.source) for one in present if one.pending}
        refused = {letter.source for letter in self._console.letters.of(word)}
        of: dict[tuple[str, str], list[Told]] = {}
        for one in told:
            event = one.event
            if (
                event.request_topic is None
                or event.schedule_id is None
                or not self._sees(event.request_topic)
            ):
                continue
            if event.type is not EventType.REJECTED or event.source not in refused:
                of.setdefault((event.request_topic, event.schedule_id), []).append(one)
        for thing, events in of.items():
            if thing not in known:
                yield self._since(thing, events)

    def _since(self, thing: tuple[str, str], told: Sequence[Told]) -> Found:
        """The outcome of something by its events, the latest of them first."""
        tenant, id = thing
        last = next((one for one in told if one.event.type in _STATE_AFTER), told[0])
        state = _STATE_AFTER.get(last.event.type)
        # Of now: a copy may have been closed while the history was asked.
        schedule = None if last.event.id is None else self._console.catalog.get(tenant, id)
        if schedule is not None and state is not State.REJECTED:
            if schedule.row.revision == last.event.revision:
                standing = self._schedule(By.CORRELATION_ID, schedule)
                return msgspec.structs.replace(standing, told=last)
            if state is None:
                why = "Another definition has taken its place."
                return Found(by=By.CORRELATION_ID, state=State.CANCELLED, detail=why, told=last)
        if state is None:
            why = f"Its last event is {last.event.type.value!r}."
            return Found(by=By.CORRELATION_ID, state=State.UNKNOWN, detail=why, told=last)
        return Found(by=By.CORRELATION_ID, state=state, detail=last.event.detail, told=last)

    # -- what follows from what is not there -------------------------------------------------------

    async def _by_elimination(self, word: str) -> list[Found]:
        """The outcome of a request of which only the coordinates are known."""
        by = By.COORDINATES
        place = split_schedule_id(word)
        if place is None and (name := split_fire_id(word)) is not None and name.id is None:
            by, place = By.FIRE_ID, split_schedule_id(name.of)
        if place is None or not self._sees(place[0]):
            return []
        topic, partition, offset, origin = place
        applied = None if origin else self._pending.applied(topic, partition)
        if applied is None:
            return []
        state, detail = (
            await self._unread(topic, partition, offset, applied)
            if offset >= applied
            else (
                State.FIRED,
                "It was read, and nothing of it is pending: it has fired, unless it was cancelled or "
                "refused. Details are not kept: events of requests without an id are told only where "
                "their request topic has events_anonymous.",
            )
        )
        return [Found(by=by, state=state, detail=detail, by_elimination=True)]

    async def _unread(self, topic: str, partition: int, offset: int, applied: int) -> tuple[State, str]:
        read = f"Requests of {topic}-{partition} are read up to offset {applied}"
        try:
            bounds = await self._console.bounds(topic, partition)
        except (LogUnavailable, Misconfigured) as problem:
            return State.UNKNOWN, f"{read}; where the partition ends is not known: {problem}."
        if offset < bounds.start:
            return (
                State.UNKNOWN,
                f"{read}, and the partition begins at {bounds.start}: it was trimmed unread.",
            )
        if offset >= bounds.end:
            return State.UNKNOWN, f"{read}, and the partition ends at {bounds.end}: there is no such record."
        if offset >= bounds.stable:
            return State.UNREAD, f"{read}; a producer's transaction at {bounds.stable} is still open."
        return State.UNREAD, f"{read}, and the partition ends at {bounds.end}."


def _known_by(letter: Letter, word: str) -> By:
    if letter.source == word:
        return By.COORDINATES
    return By.ID if letter.id == word else By.CORRELATION_ID


def _is(past: Fire, name: FireName) -> bool:
    """Whether something in a schedule's history is what a fire id names."""
    if past.revision != name.revision or not past.due_ms <= name.due_ms <= max(past.due_ms, past.to_ms):
        return False
    return past.kind in RUNS or past.index == name.index


def _comes(row: Schedule, name: FireName) -> bool:
    """Whether a recurring schedule has a time that is still to come."""
    recurrence = row.recurrence
    if recurrence is None or row.next_ms < 0 or name.index != 0:
        return False
    if not row.next_ms < name.due_ms <= LATEST_MS:
        return False
    try:
        return next_after(recurrence, name.due_ms - 1) == name.due_ms
    except (CronError, UnknownZoneError):
        return False
