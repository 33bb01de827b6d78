"""The first page: a verdict, what needs a person, the last hour and the next one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request
from starlette.responses import RedirectResponse, Response

from delaystream.codec.envelope import Hold, Status
from delaystream.codec.event import EventType
from delaystream.console.api.asking import Asked, Cursored, Entered
from delaystream.console.api.changing.destinations import standing
from delaystream.console.api.cursors import Cursors
from delaystream.console.api.models import (
    AgendaList,
    DestinationBody,
    LetterList,
    PendingBody,
    ScheduleBody,
    Summary,
)
from delaystream.console.api.reading import happening, overview, planning, schedules
from delaystream.console.pages.answering import router
from delaystream.console.pages.bars import Bars, stacked
from delaystream.console.pages.happened import last_events
from delaystream.console.pages.held import matched
from delaystream.console.pages.rendering import address, instant, pages_of, schedule_address
from delaystream.console.pages.snippets import Target, first_snippets
from delaystream.console.pages.verdict import Facts, Overdue, judge
from delaystream.console.replica.catalog import Sort
from delaystream.console.service import Console
from delaystream.core.identity import split_schedule_id
from delaystream.core.instants import format_instant

_MINUTE_MS: Final = 60_000
_HOUR_MS: Final = 60 * _MINUTE_MS
_SHOWN: Final = 8
_COUNTED: Final = 500
#: An event on its way is not late: the copy is behind, and a step takes its time.
_PATIENCE_MS: Final = 2_000
_WITHIN: Final = "1000"
_PASSED: Final = ("missed", "skipped", "expired")


@dataclass(frozen=True)
class Need:
    """Something that a person should look at."""

    #: of the style sheet: how bad it is
    kind: str
    title: str
    count: str
    detail: str
    address: str
    since_ms: int | None = None
    until_ms: int | None = None
    runbook: str | None = None


@router.get("/")
async def first(
    request: Request, console: Asked, cursors: Cursored, entrance: Entered, q: str = ""
) -> Response:
    """Is all well, and if not, what needs whom."""
    if q:
        return RedirectResponse(address("/where", q=q))
    now_ms = console.clock.now_ms()
    hour = await overview.summary(console, start=format_instant(max(0, now_ms - _HOUR_MS)))
    day = await overview.summary(console)
    destinations = (await overview.list_destinations(console, cursors, limit=schedules.MOST)).items
    agenda = await planning.agenda(
        console,
        planning.Range.model_validate(
            {"from": format_instant(now_ms), "to": format_instant(now_ms + _HOUR_MS), "limit": planning.MOST}
        ),
    )
    numbers = await schedules.stats(console)
    soon = (
        await schedules.list_pending(console, cursors, due_from=format_instant(now_ms), limit=_SHOWN)
    ).items
    overdue = await _overdue(console, cursors, now_ms)
    health = await overview.health(console, entrance)
    facts = _facts(console, health.problems, overdue, hour, destinations)
    pages = pages_of(request)
    target = Target(pages.appearance.bootstrap_servers, str(request.base_url).rstrip("/"))
    return pages.page(
        "first.html",
        console,
        {
            "section": "first",
            "verdict": judge(facts),
            "needs": [
                *_of_destinations(destinations),
                *map(_held, standing(console)),
                *await _paused(console, cursors),
                *await _letters(console, cursors, now_ms),
                *_passed(day),
                *_unowned(console),
            ],
            "hours": _hours(hour, agenda, now_ms),
            "ahead": _ahead(agenda),
            "fired": hour.total.counts.get("fired", 0),
            "missed": sum(hour.total.counts.get(type, 0) for type in _PASSED),
            "numbers": numbers,
            "soon": soon,
            "last": await last_events(console, [EventType.FIRED], _SHOWN),
            "snippets": first_snippets(target, pages.appearance.request_topic),
            "empty": not numbers.schedules and not numbers.unnamed and not day.total.counts,
        },
    )


async def _overdue(console: Console, cursors: Cursors, now_ms: int) -> tuple[list[PendingBody], bool]:
    """What is due and not held, as of the time up to which nothing is missing."""
    as_of_ms = console.freshness.as_of_ms
    due_to_ms = (now_ms if as_of_ms is None else min(now_ms, as_of_ms)) - _PATIENCE_MS
    if due_to_ms <= 0:
        return [], False
    page = await schedules.list_pending(console, cursors, due_to=format_instant(due_to_ms), limit=_COUNTED)
    return [one for one in page.items if one.status == "pending"], page.next_cursor is not None


def _facts(
    console: Console,
    problems: list[str],
    overdue: tuple[list[PendingBody], bool],
    hour: Summary,
    destinations: list[DestinationBody],
) -> Facts:
    freshness = console.freshness
    late, more = overdue
    return Facts(
        now_ms=console.clock.now_ms(),
        lag_ms=freshness.lag_ms,
        missing=len(freshness.missing),
        partitions=console.partitions,
        problems=problems,
        overdue=Overdue(
            len(late),
            more,
            late[0].due_at,
            list(dict.fromkeys(one.destination for one in late)),
            sorted({_partition(console, one) for one in late}),
        )
        if late
        else None,
        parked={
            one.destination: (one.parked[0].since, one.parked[0].reason) for one in destinations if one.parked
        },
        limited=frozenset(one.destination for one in destinations if one.rates),
        told_at_ms={
            status.partition: None if owner is None else owner.written_ms
            for status, owner in console.owners()
        },
        fired=hour.total.counts.get("fired", 0),
        within_1s=hour.total.within.get(_WITHIN),
    )


def _partition(console: Console, event: PendingBody) -> int:
    """Who has to deliver it."""
    if event.id is not None:
        return console.catalog.partition_of(event.id)
    place = split_schedule_id(event.source)
    return 0 if place is None else place[1]


def _of_destinations(destinations: list[DestinationBody]) -> list[Need]:
    return [
        Need(
            "bad",
            f"{one.destination} cannot be written to",
            _many(len(one.parked), "partition"),
            one.parked[0].reason,
            address("/destinations", destination=one.destination),
            since_ms=one.parked[0].since,
            runbook="destination-parked",
        )
        for one in destinations
        if one.parked
    ]


def _held(hold: Hold) -> Need:
    """By what it keeps back: a customer's hold is about one customer, and not about every destination."""
    return Need(
        "warning",
        f"Held: {matched(hold)}",
        "",
        _who_and_why(hold.actor, hold.note),
        "/holds",
        hold.since_ms,
        hold.until_ms,
    )


def _who_and_why(who: str | None, note: str | None) -> str:
    why = f"“{note}”" if note else "no note"
    return f"by {who}: {why}" if who else why


async def _paused(console: Console, cursors: Cursors) -> list[Need]:
    page = await schedules.list_schedules(
        console, cursors, status=[Status.PAUSED], sort=Sort.CREATED, limit=100
    )
    own = [one for one in page.items if not one.held_by]
    if not own:
        return []
    if len(own) > 3:
        by = Counter(one.updated_by or "somebody" for one in own)
        who = ", ".join(f"{name} ({number})" for name, number in by.most_common(3))
        count = f"{page.total.count}{'' if page.total.relation == 'exact' else ' or more'}"
        return [
            Need("warning", "Paused schedules", count, f"by {who}", address("/schedules", status="paused"))
        ]
    return [_pause(one) for one in own]


def _pause(one: ScheduleBody) -> Need:
    return Need(
        "warning",
        f"{one.id} is paused",
        "",
        _who_and_why(one.updated_by, one.note),
        schedule_address(one.id, one.request_topic),
        one.paused_at,
        one.until,
    )


async def _letters(console: Console, cursors: Cursors, now_ms: int) -> list[Need]:
    since_ms = max(0, now_ms - 24 * _HOUR_MS)
    page: LetterList = await happening.list_dead_letters(
        console, cursors, at_from=format_instant(since_ms), limit=schedules.MOST
    )
    if not page.items:
        return []
    codes = Counter(one.code or "no code" for one in page.items)
    detail = ", ".join(f"{code} ({number})" for code, number in codes.most_common(3))
    count = f"{len(page.items)}{' or more' if page.next_cursor else ''}"
    return [
        Need(
            "warning",
            "Dead letters in 24 h",
            count,
            detail,
            "/dead-letters",
            since_ms=page.items[0].at,
            runbook="dead-letters",
        )
    ]


def _passed(day: Summary) -> list[Need]:
    passed = {type: day.total.counts[type] for type in _PASSED if day.total.counts.get(type)}
    if not passed:
        return []
    most = max(day.items, key=lambda one: sum(one.counts.get(type, 0) for type in _PASSED))
    detail = ", ".join(f"{number} {type}" for type, number in passed.items())
    return [
        Need(
            "warning",
            "Times that passed without a delivery in 24 h",
            str(sum(passed.values())),
            f"{detail}; most of them to {most.destination or 'unknown'}",
            address("/live", type=list(passed)),
            runbook="fires-missed",
        )
    ]


def _unowned(console: Console) -> list[Need]:
    missing = [status.partition for status, owner in console.owners() if status.indexed and owner is None]
    if not missing:
        return []
    names = ", ".join(map(str, missing[:8])) + ("…" if len(missing) > 8 else "")
    return [
        Need(
            "bad" if len(missing) == console.partitions else "warning",
            "Partitions that no worker has owned",
            str(len(missing)),
            f"No owner has written of itself on {names}. Is a worker running?",
            "/partitions",
            runbook="partition-unowned",
        )
    ]


def _hours(hour: Summary, agenda: AgendaList, now_ms: int) -> dict[str, Bars]:
    """The last sixty minutes and the next sixty, on one scale."""
    this_ms = now_ms - now_ms % _MINUTE_MS
    past: dict[int, dict[str, int]] = {}
    for one in hour.series:
        passed = sum(one.counts.get(type, 0) for type in _PASSED)
        past[one.start] = {"fired": one.counts.get("fired", 0), "passed": passed}
    ahead: dict[int, dict[str, int]] = {}
    for planned in agenda.items:
        column = ahead.setdefault(planned.due_at - planned.due_at % _MINUTE_MS, {})
        kind = "held" if planned.status == "held" else "expected" if planned.expected else "armed"
        column[kind] = column.get(kind, 0) + 1
    before = [this_ms + place * _MINUTE_MS for place in range(-59, 1)]
    after = [this_ms + place * _MINUTE_MS for place in range(60)]
    most = max((sum(parts.values()) for parts in [*past.values(), *ahead.values()]), default=0)
    return {
        "past": stacked([(_titled(at_ms, past), past.get(at_ms, {})) for at_ms in before], most),
        "ahead": stacked([(_titled(at_ms, ahead), _ordered(ahead.get(at_ms, {}))) for at_ms in after], most),
    }


def _ordered(parts: dict[str, int]) -> dict[str, int]:
    return {kind: parts[kind] for kind in ("armed", "expected", "held") if kind in parts}


def _titled(at_ms: int, columns: dict[int, dict[str, int]]) -> str:
    told = ", ".join(f"{number} {kind}" for kind, number in columns.get(at_ms, {}).items() if number)
    return f"{instant(at_ms)[11:16]} UTC: {told or 'none'}"


def _ahead(agenda: AgendaList) -> dict[str, Any]:
    return {
        "count": len(agenda.items),
        "more": agenda.next_from is not None,
        "until": agenda.next_from,
    }


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
