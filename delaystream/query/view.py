"""The public view of a schedule: one value for all uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from delaystream.codec.envelope import LIVE, RUNS, Envelope, Fire, Past, Schedule, Status
from delaystream.codec.event import Definition, asked_at, definition_of, next_at_ms
from delaystream.core.identity import fire_id, named_fire_id, place
from delaystream.core.recurrence import CronError, UnknownZoneError, next_after
from delaystream.core.request import Coordinates

UPCOMING: Final = 10
"""Most times ahead in a view."""


class PendingFire(msgspec.Struct, frozen=True):
    """An entry of a wheel, with names for the numbers in its key."""

    destination: str
    due_at_ms: int
    source: Coordinates
    """Coordinates of the request; for a triggered fire, of the command."""
    index: int
    """The position in the request's list of due times, from 0."""
    wheel_tenant: str | None = None
    """The tenant that has a wheel of its own for the destination."""
    held_by: str | None = None
    """The hold that keeps it back, or did."""

    @property
    def fire_id(self) -> str:
        """The fire's id, if it belongs to a request without an id."""
        return fire_id(self.source.text, self.index, self.due_at_ms)


class PastFire(msgspec.Struct, frozen=True):
    """A fire in a schedule's history, triggered or of the schedule's own."""

    due_at_ms: int
    fired_at_ms: int
    fire_id: str
    kind: Past = Past.FIRED


class PastRun(msgspec.Struct, frozen=True):
    """One or more consecutive due times without a fire, in a schedule's history."""

    kind: Past
    """MISSED or SKIPPED."""
    from_ms: int
    """The first of them."""
    to_ms: int
    """The last of them."""
    count: int
    decided_at_ms: int
    """When the engine decided about the last of them."""


class ScheduleView(msgspec.Struct, frozen=True, kw_only=True):
    """The present state of a schedule, or of a request without an id. None: unknown, or not so.

    The payload is left out: only some people may see key, value and headers. Of a request without an id only
    the pending fires are known: there is no revision, no version, no history and no counter.
    """

    source: Coordinates
    """Coordinates of the request that defined it last."""
    id: str | None = None
    status: Status
    definition: Definition
    next_at_ms: int | None = None
    """The earliest due time in the wheels, with its jitter; a paused schedule has none there."""
    upcoming_at_ms: Sequence[int] = ()
    """Times ahead without jitter, `UPCOMING` at most; of a paused schedule, the times that it would have."""
    revision: int | None = None
    version: int | None = None
    fire_count: int = 0
    missed_count: int = 0
    triggered: int = 0
    """Number of triggered fires that are still pending."""
    last_fire_id: str | None = None
    last_fired_at_ms: int | None = None
    history: Sequence[PastFire | PastRun] = ()
    """The outcome of its last due times, the latest last."""
    created_at_ms: int | None = None
    """Timestamp of the request that made it."""
    created_by: str | None = None
    updated_at_ms: int | None = None
    """Timestamp of the last request or command that changed it."""
    updated_by: str | None = None
    actor: str | None = None
    note: str | None = None
    declared_by: str | None = None
    deploy: int | None = None
    on_late: str | None = None
    """The rule for late fires, of a request without an id; named schedules have it in their payload."""
    paused_at_ms: int | None = None
    until_ms: int | None = None
    """When its pause ends by itself."""
    held_by: str | None = None
    """The hold that keeps it back, or any of its fires."""
    forget_at_ms: int | None = None
    """When the id of an ended schedule is forgotten."""


def view_of(id: str, schedule: Schedule, upcoming: int = UPCOMING) -> ScheduleView:
    """A named schedule from its row; at most ``upcoming`` times ahead, each computed from its calendar."""
    return ScheduleView(
        source=schedule.source,
        id=id,
        status=schedule.status,
        definition=definition_of(schedule),
        next_at_ms=next_at_ms(schedule),
        upcoming_at_ms=_upcoming(schedule, upcoming),
        revision=schedule.revision,
        version=schedule.version or None,
        fire_count=schedule.fire_count,
        missed_count=schedule.missed_count,
        triggered=len(schedule.triggers),
        last_fire_id=schedule.last_fire_id,
        last_fired_at_ms=asked_at(schedule.last_fired_ms),
        history=[_past(id, schedule, fire) for fire in schedule.history],
        created_at_ms=asked_at(schedule.created_ms),
        created_by=schedule.created_by,
        updated_at_ms=asked_at(schedule.updated_ms),
        updated_by=schedule.updated_by,
        actor=schedule.actor,
        note=schedule.note,
        declared_by=schedule.declared_by,
        deploy=schedule.deploy if schedule.deploy >= 0 else None,
        paused_at_ms=schedule.paused_ms if schedule.status is Status.PAUSED else None,
        until_ms=schedule.until_ms,
        held_by=schedule.held_by or None,
        forget_at_ms=schedule.forget_ms,
    )


def view_of_unnamed(
    fires: Sequence[PendingFire], entry: Envelope, held_by: str | None = None
) -> ScheduleView:
    """A request without an id, from its pending fires in due order; `entry` is the first of them.

    `held_by` is the hold that keeps back any of its fires, or will when they are due.
    """
    first = fires[0]
    due_ms = [fire.due_at_ms for fire in fires]
    grace_ms = entry.grace_ms if entry.grace_ms >= 0 else None
    return ScheduleView(
        source=first.source,
        status=Status.PENDING if held_by is None else Status.PAUSED,
        definition=Definition(first.destination, due_ms, grace_ms=grace_ms, tags=entry.tags),
        next_at_ms=due_ms[0],
        upcoming_at_ms=due_ms[:UPCOMING],
        created_at_ms=entry.timestamp_ms,
        on_late=entry.on_late,
        held_by=held_by,
    )


def _past(id: str, schedule: Schedule, fire: Fire) -> PastFire | PastRun:
    if fire.kind in RUNS:
        return PastRun(fire.kind, fire.due_ms, fire.to_ms, fire.count, fire.fired_ms)
    # The request of an earlier revision may have been in another topic of the same name.
    where = place(schedule.topic, fire.origin)
    name = named_fire_id(where, fire.revision, fire.index, fire.due_ms, id)
    return PastFire(fire.due_ms, fire.fired_ms, name, fire.kind)


def _upcoming(schedule: Schedule, most: int) -> list[int]:
    """The scheduled times ahead of a live schedule."""
    if schedule.status not in LIVE:
        return []
    recurrence = schedule.recurrence
    if recurrence is None:
        return [due_ms for due_ms, _ in schedule.ahead][:most]
    if (left := recurrence.max_fires - schedule.run_count) > 0:
        most = min(most, left)
    times: list[int] = []
    time_ms: int | None = schedule.next_ms if schedule.next_ms >= 0 else None
    try:
        while time_ms is not None and len(times) < most:
            times.append(time_ms)
            time_ms = next_after(recurrence, time_ms)
    except (CronError, UnknownZoneError):
        # A newer release stored it: the times computed before remain valid.
        pass
    return times
