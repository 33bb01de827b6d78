"""The whole at a glance: destinations, what happened in numbers, and whether all of this can be relied on."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from heapq import nsmallest
from typing import Annotated, Literal

from fastapi import APIRouter, Query

from delaystream import __version__
from delaystream.codec.envelope import Hold
from delaystream.codec.event import EventType
from delaystream.console.api.asking import Asked, Cursored, Entered
from delaystream.console.api.models import (
    DestinationBody,
    DestinationList,
    Health,
    HoldBody,
    ParkedBody,
    RateBody,
    SeriesBody,
    Summary,
    SummaryBody,
)
from delaystream.console.api.problems import invalid
from delaystream.console.api.reading.schedules import LIMIT, LONGEST, Limit, Text, time_ms
from delaystream.console.api.rendering import fresh
from delaystream.console.history.queries import Chosen, Sum
from delaystream.console.history.schema import WITHIN_MS
from delaystream.console.service import Console
from delaystream.core.globs import matches_glob

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
#: ranges up to so long, ms, in spans of so many seconds
_SPANS = ((6 * _HOUR_MS, 60), (31 * _DAY_MS, 3_600))
_LONGEST_S = 86_400
_SERIES = 3_700
#: So many schedules are listed, those with the most events.
_SCHEDULES = 500
_FIRED = EventType.FIRED.value

By = Literal["destination", "request_topic", "schedule"]

router = APIRouter()


@router.get("/destinations")
async def list_destinations(
    console: Asked,
    cursors: Cursored,
    destination: Annotated[str | None, Query(description="This one alone.")] = None,
    limit: Limit = LIMIT,
    cursor: str | None = None,
) -> DestinationList:
    """Destinations by name: what is to come for each, which partitions have parked it, holds and rates."""
    asked = ("destinations", destination)
    place = cursors.place(cursor, asked)
    after = None if place is None else place.decode("utf-8", "replace")
    known = _Destinations(console)
    names = known.names if destination is None else known.names & {destination}
    first = nsmallest(limit + 1, (name for name in names if after is None or name > after))
    items = first[:limit]
    return DestinationList(
        items=[known.body(name) for name in items],
        next_cursor=cursors.cursor(items[-1].encode() if len(first) > limit else None, asked),
        **fresh(console.freshness),
    )


def rates_of(console: Console, destination: str) -> list[RateBody]:
    """What bounds how fast a destination gets records: by commands, and by the workers' settings."""
    return _Destinations(console).body(destination).rates


class _Destinations:
    """What stands about each destination."""

    def __init__(self, console: Console) -> None:
        self._schedules: dict[str, Counter[str]] = defaultdict(Counter)
        self._unnamed: Counter[str] = Counter()
        self._parked: dict[str, list[ParkedBody]] = defaultdict(list)
        self._rates: dict[tuple[str, str, str], RateBody] = {}
        self._holds: dict[tuple[str, str], Hold] = {}
        for _, destination, status, count in console.catalog.counts():
            self._schedules[destination][status.value] += count
        for _, destination, count in console.pending.counts():
            self._unnamed[destination] += count
        for (partition, destination), parked in console.parked().items():
            told = ParkedBody(partition=partition, since=max(0, parked.since_ms), reason=parked.reason)
            self._parked[destination].append(told)
        for _, owner in console.owners():
            for bound in () if owner is None else owner.rates:
                self._rates["settings", bound.tenant, bound.destination] = RateBody(
                    request_topic=bound.tenant or None,
                    destination=bound.destination,
                    per_second=bound.rate,
                    by="settings",
                    note=None,
                )
        for rate in console.rates():
            self._rates["command", rate.tenant, rate.destination] = RateBody(
                request_topic=rate.tenant,
                destination=rate.destination,
                per_second=rate.rate,
                by="command",
                note=rate.note,
            )
        for hold in console.holds():
            self._holds[hold.tenant, hold.name] = hold
        self._sees_everything = console.caller.sees_everything

    @property
    def names(self) -> set[str]:
        """Destinations that anything is known of.

        What is parked is no request topic's: for whoever sees only some it counts beside what they see.
        """
        by_command = {name for by, _, name in self._rates if by == "command"}
        parked = self._parked if self._sees_everything else ()
        known = {*self._schedules, *self._unnamed, *parked, *by_command}
        # A cancel of an unknown id is remembered, and is for none.
        return known - {""}

    def body(self, name: str) -> DestinationBody:
        """One of them."""
        return DestinationBody(
            destination=name,
            schedules=dict(self._schedules.get(name, {})),
            unnamed=self._unnamed.get(name, 0),
            parked=sorted(self._parked.get(name, []), key=lambda parked: parked.partition),
            rates=[rate for rate in self._rates.values() if _is_about(rate, name)],
            holds=[_hold(hold) for hold in self._holds.values() if hold.match.fits_topic(name)],
        )


def _is_about(rate: RateBody, destination: str) -> bool:
    return matches_glob(destination, rate.destination)


def _hold(hold: Hold) -> HoldBody:
    return HoldBody(
        name=hold.name,
        request_topic=hold.tenant,
        since=hold.since_ms,
        until=hold.until_ms,
        actor=hold.actor,
        note=hold.note,
    )


@router.get("/analytics/summary")
async def summary(
    console: Asked,
    start: Annotated[str | None, Query(description="A day before the end, unless it is given.")] = None,
    end: Annotated[str | None, Query(description="Up to without it; now, unless it is given.")] = None,
    by: By = "destination",
    request_topic: Annotated[list[str] | None, Query()] = None,
    destination: Text = None,
    id: Annotated[str | None, Query(max_length=LONGEST, description="Of this schedule alone.")] = None,
) -> Summary:
    """What happened between two times, added up by minute (up to 6 hours), hour (31 days) or day.

    By schedule, or of one, single events are counted: as far back as they are kept, the latest 200,000 of the
    range at most. There is no series then.
    """
    if by == "schedule" or id is not None:
        return await _by_schedule(console, (start, end), by, Chosen(request_topic, destination, id))
    return await summarized(console, (start, end), by, request_topic, destination)


def _between(console: Console, between: tuple[str | None, str | None]) -> tuple[int, int]:
    """The range that was asked for, ms. Raises ProblemError."""
    start, end = between
    end_ms = time_ms("end", end)
    if end_ms is None:
        end_ms = console.clock.now_ms() + 1
    start_ms = time_ms("start", start)
    if start_ms is None:
        start_ms = max(0, end_ms - _DAY_MS)
    if end_ms <= start_ms:
        raise invalid("invalid-end", "end is not after start.")
    return start_ms, end_ms


async def _by_schedule(
    console: Console, between: tuple[str | None, str | None], by: By, chosen: Chosen
) -> Summary:
    """The same from single events. Raises ProblemError, and DatabaseError."""
    start_ms, end_ms = _between(console, between)
    found = await asyncio.to_thread(console.history.by_schedule, start_ms, end_ms, chosen)
    groups: dict[tuple[tuple[str, str], ...], list[Sum]] = defaultdict(list)
    for one in found.sums:
        if by == "schedule":
            names = {"request_topic": one.request_topic, "schedule_id": one.schedule_id or ""}
        else:
            names = {by: one.destination if by == "destination" else one.request_topic}
        groups[tuple(names.items())].append(one)
    items = [_added(of, dict(names)) for names, of in sorted(groups.items())]
    if by == "schedule":
        items.sort(key=lambda item: sum(item.counts.values()), reverse=True)
    return Summary(
        start=start_ms,
        end=end_ms,
        span_s=max(1, -(-(end_ms - start_ms) // 1_000)),
        by=by,
        total=_added(found.sums, {}),
        items=items[:_SCHEDULES],
        series=[],
        partial=found.partial or len(items) > _SCHEDULES,
    )


async def summarized(
    console: Console,
    between: tuple[str | None, str | None],
    by: By,
    request_topics: list[str] | None,
    destination: str | None,
) -> Summary:
    """The summary of a range that was asked for. Raises ProblemError, and DatabaseError."""
    start_ms, end_ms = _between(console, between)
    span_s = next((span for longest, span in _SPANS if end_ms - start_ms <= longest), _LONGEST_S)
    span_ms = span_s * 1_000
    start_ms -= start_ms % span_ms
    end_ms += -end_ms % span_ms

    def added() -> Summary:
        sums = console.history.sums(span_s, start_ms, end_ms, request_topics, destination)
        groups: dict[str, list[Sum]] = defaultdict(list)
        series: dict[int, Counter[str]] = defaultdict(Counter)
        for one in sums:
            groups[one.destination if by == "destination" else one.request_topic].append(one)
            series[one.start_ms][one.type] += one.count
        return Summary(
            start=start_ms,
            end=end_ms,
            span_s=span_s,
            by=by,
            total=_added(sums, {}),
            items=[_added(of, {by: name}) for name, of in sorted(groups.items())],
            series=[
                SeriesBody(start=at_ms, counts=dict(counts))
                for at_ms, counts in sorted(series.items())[-_SERIES:]
            ],
        )

    # There may be many of them: others are answered meanwhile.
    return await asyncio.to_thread(added)


def _added(sums: Sequence[Sum], names: Mapping[str, str]) -> SummaryBody:
    counts: Counter[str] = Counter()
    for one in sums:
        counts[one.type] += one.count
    fires = [one for one in sums if one.type == _FIRED]
    fired = counts[_FIRED]
    within = {}
    if fired:
        within = {
            str(bound): round(_total(one.within[place] for one in fires) / fired, 6)
            for place, bound in enumerate(WITHIN_MS)
        }
    return SummaryBody(
        **names,
        counts=dict(counts),
        lateness_mean_ms=_total(one.lateness_ms for one in fires) / fired if fired else None,
        lateness_max_ms=max((one.lateness_max_ms for one in fires), default=None),
        within=within,
    )


def _total(numbers: Iterable[int]) -> int:
    return sum(numbers)


@router.get("/health")
async def health(console: Asked, entrance: Entered) -> Health:
    """Whether this console can be relied on, and what is not as it should be."""
    freshness = console.freshness
    problems = [
        f"partition {status.partition}: {status.problem}" for status in console.statuses if status.problem
    ]
    problems += [
        f"history, partition {status.partition}: {status.problem}"
        for status in console.history_statuses
        if status.problem
    ]
    problems += [
        f"history, partition {status.partition}: {status.lost} events were gone before they were read"
        for status in console.history_statuses
        if status.lost
    ]
    problems += [
        f"dead letters, partition {status.partition}: {status.problem}"
        for status in console.letters.statuses
        if status.problem
    ]
    problems += [entrance.problem] if entrance.problem else []
    return Health(
        version=__version__,
        ready=console.ready,
        authentication=entrance.authentication,
        as_of=freshness.as_of_ms,
        lag_ms=freshness.lag_ms,
        problems=problems,
    )
