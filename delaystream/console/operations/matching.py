"""The items of an operation: found in the console's copies in slices, so that other work goes on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol, TypeAlias

import msgspec
from msgspec.structs import replace

from delaystream.codec.envelope import LIVE, Schedule, Status
from delaystream.codec.event import next_at_ms
from delaystream.console.operations.operation import SAMPLES, Action, Frozen, Item, Sample
from delaystream.console.replica.catalog import Catalog, Filter, Sort
from delaystream.console.replica.pending import Pending, PendingEvent, Wanted
from delaystream.core.durations import parse_duration
from delaystream.core.request import CatchUp, Coordinates, Lateness
from delaystream.engine.schedules.at_once import fires_at_once
from delaystream.engine.settings import EngineSettings
from delaystream.query.partition import StoredSchedule

_AT_ONCE: Final = 500
"""So many are read before others have their turn."""

APPLICABLE: Final[Mapping[Action, tuple[Status, ...]]] = {
    Action.CANCEL: LIVE,
    Action.PAUSE: (Status.PENDING,),
    Action.RESUME: (Status.PAUSED,),
    Action.TRIGGER: LIVE,
}
"""On what each can change anything."""
UNNAMED: Final = frozenset({Action.CANCEL, Action.TRIGGER})
"""Actions on a request without an id, by its coordinates."""

Subject: TypeAlias = tuple[str | None, str | Coordinates]
"""One that is given by itself: the request topic, None where one alone has the id; and id or coordinates."""


class Copies(Protocol):
    """What a caller sees of a console."""

    @property
    def catalog(self) -> Catalog:
        """Named schedules."""

    @property
    def pending(self) -> Pending:
        """Everything that is to come."""


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """What an operation is to be about: a filter, or each by itself."""

    filter: Filter | None = None
    #: of requests without an id; None: none of them
    unnamed: Wanted | None = None
    subjects: Sequence[Subject] = ()


class TooMany(Exception):
    """More match than an operation may be about."""


class Match(msgspec.Struct, frozen=True):
    """One that is meant."""

    request_topic: str
    about: str
    version: int
    sample: Sample
    #: None: it has no id
    row: Schedule | None


class Matching:
    """Finds what is meant, once, and adds up what there is to say about it."""

    def __init__(
        self,
        console: Copies,
        action: Action,
        options: Mapping[str, str],
        may_change: Callable[[str], bool],
        settings: EngineSettings,
    ) -> None:
        """`options` are those of the commands, and were checked."""
        self._console = console
        self._action = action
        self._may_change = may_change
        self._settings = settings
        self._once = _lateness(options) if action is Action.RESUME else None
        self._topics: Counter[str] = Counter()
        self._samples: list[Sample] = []
        self._at_once = 0
        self._unknown: list[str] = []
        self._passed_over = 0

    def told(self, frozen: Frozen) -> Frozen:
        """What was asked, with what was found so far."""
        return replace(
            frozen,
            topics=dict(sorted(self._topics.items())),
            samples=self._samples,
            at_once=self._at_once,
            unknown=len(self._unknown),
            unknown_first=self._unknown[:SAMPLES],
            passed_over=self._passed_over,
        )

    async def items(self, chosen: Chosen, most: int, now_ms: int) -> AsyncIterator[list[Item]]:
        """Everything that is meant, some at a time. Raises TooMany beyond so many."""
        number = 0
        async for matches in self._matches(chosen):
            if number + len(matches) > most:
                raise TooMany(
                    f"More than {most} match; expected {most} at most in one operation: narrow the filter."
                )
            items = []
            for match in matches:
                self._count(match, now_ms)
                items.append(
                    Item(
                        number=number,
                        request_topic=match.request_topic,
                        about=match.about,
                        named=match.row is not None,
                        version=match.version,
                    )
                )
                number += 1
            if items:
                yield items

    def _count(self, match: Match, now_ms: int) -> None:
        self._topics[match.request_topic] += 1
        if len(self._samples) < SAMPLES:
            self._samples.append(match.sample)
        if self._action is Action.TRIGGER:
            self._at_once += 1
        elif self._action is Action.RESUME and match.row is not None:
            resumed = replace(match.row, once=self._once, resumed_ms=now_ms)
            self._at_once += fires_at_once(self._settings, match.about, resumed, now_ms)

    # -- ways to what is meant -----------------------------------------------------------------------

    async def _matches(self, chosen: Chosen) -> AsyncIterator[list[Match]]:
        if chosen.filter is not None:
            async for some in self._filtered(chosen.filter):
                yield some
        if chosen.unnamed is not None:
            async for some in self._filtered_unnamed(chosen.unnamed):
                yield some
        # Each once, however often it is given.
        subjects = list(dict.fromkeys(chosen.subjects))
        found: set[tuple[str, str]] = set()
        for first in range(0, len(subjects), _AT_ONCE):
            some = [
                match
                for subject in subjects[first : first + _AT_ONCE]
                if (match := self._one(*subject)) is not None
                and (match.request_topic, match.about) not in found
            ]
            found.update((match.request_topic, match.about) for match in some)
            yield some
            await asyncio.sleep(0)

    async def _filtered(self, wanted: Filter) -> AsyncIterator[list[Match]]:
        applicable = APPLICABLE[self._action]
        wanted = replace(wanted, statuses=tuple(one for one in wanted.statuses if one in applicable))
        if not wanted.statuses:
            return
        after: bytes | None = None
        while True:
            # By id: what fires or changes meanwhile stays where it is.
            page = self._console.catalog.page(wanted, Sort.ID, _AT_ONCE, after)
            yield [_named(found) for found in page.items if self._may_change(found.tenant)]
            if (after := page.next) is None:
                return
            await asyncio.sleep(0)

    async def _filtered_unnamed(self, wanted: Wanted) -> AsyncIterator[list[Match]]:
        after: bytes | None = None
        known: set[str] = set()
        while True:
            page = self._console.pending.page(wanted, _AT_ONCE, after)
            some = {
                event.source: _unnamed(event)
                for event in page.items
                # One request may have several times.
                if event.id is None and event.source not in known and self._may_change(event.request_topic)
            }
            known.update(some)
            yield list(some.values())
            if (after := page.next) is None:
                return
            await asyncio.sleep(0)

    def _one(self, topic: str | None, about: str | Coordinates) -> Match | None:
        if isinstance(about, str):
            return self._one_named(topic, about)
        events: Iterable[PendingEvent] = ()
        if self._may_change(about.topic):
            events = self._console.pending.of_request(
                about.partition, about.topic, about.offset, about.origin
            )
        match = next((_unnamed(event) for event in events if event.id is None), None)
        if match is None:
            self._unknown.append(about.text)
        return match

    def _one_named(self, topic: str | None, id: str) -> Match | None:
        catalog = self._console.catalog
        topics = sorted(catalog.tenants()) if topic is None else [topic]
        found = [
            one for name in topics if self._may_change(name) and (one := catalog.get(name, id)) is not None
        ]
        if len(found) != 1:
            self._unknown.append(id)
            return None
        if found[0].row.status not in APPLICABLE[self._action]:
            self._passed_over += 1
            return None
        return _named(found[0])


def _named(found: StoredSchedule) -> Match:
    row = found.row
    sample = Sample(
        found.tenant, found.id, row.source.text, row.destination, row.name, row.status.value, next_at_ms(row)
    )
    return Match(found.tenant, found.id, row.version, sample, row)


def _unnamed(event: PendingEvent) -> Match:
    status = Status.PENDING.value if event.held_by is None else "held"
    sample = Sample(event.request_topic, None, event.source, event.destination, None, status, event.due_at_ms)
    return Match(event.request_topic, event.source, 0, sample, None)


def _lateness(options: Mapping[str, str]) -> Lateness | None:
    """What a resume says of what is late."""
    catch_up, grace = options.get("catch_up"), options.get("grace")
    if catch_up is None and grace is None:
        return None
    return Lateness(
        None if catch_up is None else CatchUp(catch_up),
        None,
        None if grace is None else parse_duration(grace),
    )
