"""All fires between two times: what is in the wheels, and what recurring schedules will put there."""

from __future__ import annotations

import asyncio
import heapq
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from delaystream.codec.envelope import Status
from delaystream.console.replica.catalog import Filter, Sort
from delaystream.console.replica.pending import PendingEvent, Wanted
from delaystream.console.times import Expansion

if TYPE_CHECKING:
    from delaystream.console.service import Console

SCHEDULES: Final = 20_000
"""So many schedules are looked at that have fires before the first of the two times."""

_AT_ONCE: Final = 200


class Planned(msgspec.Struct, frozen=True):
    """A fire to come."""

    event: PendingEvent
    #: it is not in a wheel yet: its schedule comes to it if it stays as it is
    expected: bool


class Agenda(msgspec.Struct, frozen=True):
    """Fires in due order."""

    items: list[Planned]
    #: from here on there may be more; None: that is all of them
    next_from_ms: int | None
    #: whether schedules were left out, for there are more than `SCHEDULES`
    partial: bool


class _Plan:
    """The next times of the recurring schedules found so far."""

    def __init__(self, console: Console, wanted: Wanted) -> None:
        self._catalog = console.catalog
        self._from_ms = wanted.from_ms or 0
        self._to_ms = wanted.to_ms
        self._next: list[tuple[int, int, PendingEvent, Expansion]] = []
        self._met: set[tuple[str, str]] = set()

    def meet(self, event: PendingEvent) -> None:
        """Have the further fires of an event's schedule told."""
        if event.id is None or (event.request_topic, event.id) in self._met:
            return
        found = self._catalog.get(event.request_topic, event.id)
        if found is not None and found.row.recurrence is not None:
            self._met.add((event.request_topic, event.id))
            self._push(event, Expansion(event.id, found.row))

    def before(self, due_ms: int | None) -> PendingEvent | None:
        """The earliest fire that is due before a time."""
        if not self._next or (due_ms is not None and self._next[0][0] >= due_ms):
            return None
        at_ms, _, event, expansion = heapq.heappop(self._next)
        self._push(event, expansion)
        return replace(event, due_at_ms=at_ms)

    def _push(self, event: PendingEvent, expansion: Expansion) -> None:
        due_ms = expansion.next(self._from_ms)
        if due_ms is not None and (self._to_ms is None or due_ms < self._to_ms):
            heapq.heappush(self._next, (due_ms, id(expansion), event, expansion))


async def agenda(console: Console, wanted: Wanted, limit: int) -> Agenda:
    """Up to `limit` fires between the times of ``wanted``, and all that are due in the same ms as the last.

    Schedules that are paused are left out. Others have their turn in the event loop between slices.
    """
    plan = _Plan(console, wanted)
    partial = await _earlier(console, wanted, plan)
    items: list[Planned] = []
    after: bytes | None = None
    while True:
        page = console.pending.page(wanted, _AT_ONCE, after)
        for event in page.items:
            while (expected := plan.before(event.due_at_ms)) is not None:
                if _full(items, limit, expected):
                    return Agenda(items, expected.due_at_ms, partial)
                items.append(Planned(expected, True))
            if _full(items, limit, event):
                return Agenda(items, event.due_at_ms, partial)
            items.append(Planned(event, False))
            plan.meet(event)
        await asyncio.sleep(0)
        after = page.next
        if after is None:
            break
    while (expected := plan.before(None)) is not None:
        if _full(items, limit, expected):
            return Agenda(items, expected.due_at_ms, partial)
        items.append(Planned(expected, True))
    return Agenda(items, None, partial)


def _full(items: list[Planned], limit: int, next: PendingEvent) -> bool:
    if len(items) < limit:
        return False
    # The time is what the next question begins at: of one ms all are told, within a bound.
    return len(items) >= 10 * limit or items[-1].event.due_at_ms != next.due_at_ms


async def _earlier(console: Console, wanted: Wanted, plan: _Plan) -> bool:
    """Meet the schedules whose next fire is before the first time; whether some were left out."""
    named = Filter(
        tenants=wanted.tenants,
        statuses=(Status.PENDING,),
        destination=wanted.destination,
        key=wanted.key,
        tag=wanted.tag,
        next_to_ms=wanted.from_ms,
    )
    after: bytes | None = None
    for _ in range(SCHEDULES // _AT_ONCE):
        page = console.catalog.page(named, Sort.NEXT, _AT_ONCE, after)
        for found in page.items:
            row = found.row
            if row.recurrence is not None:
                plan.meet(
                    PendingEvent(
                        row.next_ms,
                        row.destination,
                        found.tenant,
                        found.id,
                        row.source.text,
                        0,
                        row.key,
                        row.tags,
                        row.held_by or None,
                    )
                )
        after = page.next
        if after is None:
            return False
        await asyncio.sleep(0)
    return True
