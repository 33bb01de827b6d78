"""Requests that define a schedule: what its id is from then on, and which of its fires go out at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from delaystream.codec.envelope import (
    LIVE,
    Fire,
    Hold,
    Schedule,
    Status,
    delivered_key,
    encode,
    envelope_of,
    kept_actor,
    kept_key,
)
from delaystream.codec.keys import schedule_key
from delaystream.codec.outgoing import Delivery, Outcome, delivery_headers
from delaystream.core.identity import named_fire_id, revision
from delaystream.core.misfire import DEFAULT_GRACE_MS
from delaystream.core.order import newer
from delaystream.core.recurrence import Recurrence
from delaystream.core.rejection import Code, Rejection, shown
from delaystream.core.request import NO_TERMS, IfExists, Request
from delaystream.engine.output.events import Delivered
from delaystream.engine.policy.context import Context
from delaystream.engine.schedules import terms
from delaystream.engine.schedules.answers import Answers
from delaystream.engine.schedules.arming import Arming, jittered
from delaystream.engine.schedules.changes import Changes
from delaystream.engine.schedules.digest import digest_of, says_again
from delaystream.engine.schedules.immediate import Deliveries
from delaystream.engine.schedules.quotas import Quotas
from delaystream.engine.state.step import Step

# Naming a member through its class is slow (Python 3.11).
_SCHEDULED: Final = Outcome.SCHEDULED
_REPLACED: Final = Outcome.REPLACED
_PENDING: Final = Status.PENDING
_PAUSED: Final = Status.PAUSED
_FIRED: Final = Status.FIRED
_KEEP: Final = IfExists.KEEP
_REJECT: Final = IfExists.REJECT
_CANCELLED: Final = (Status.CANCELLED, Status.FORESTALLED)


def _in_the_way(request: Request, old: Schedule, *, live: bool) -> Rejection | None:
    """Why an id cannot be scheduled: it is in use, or was cancelled by what is newer."""
    code = detail = None
    if live and request.if_exists is _REJECT:
        code = Code.ALREADY_EXISTS
        detail = f"id {shown(request.id or '')} names a {old.status} schedule, and if-exists is 'reject'"
    elif old.status in _CANCELLED and newer(old.moment, request.moment):
        code = Code.CANCELLED_EARLIER
        detail = (
            f"id {shown(request.id or '')} was cancelled by a request with timestamp {old.timestamp_ms}, "
            f"and this one's is {request.timestamp_ms}; a newer one would be scheduled"
        )
    if code is None or detail is None:
        return None
    return Rejection(code, detail, id=request.id, reply_to=request.reply_to)


class _Pause(NamedTuple):
    """How a new definition begins paused: by a hold, by its request, or because its predecessor is paused."""

    since_ms: int
    #: when it ends by itself; None: not before a resume
    until_ms: int | None
    hold: Hold | None


def _pause(step: Step, request: Request, old: Schedule | None, hold: Hold | None) -> _Pause | None:
    since_ms = step.now_ms if hold is not None else _paused_since(step, request, old)
    return None if since_ms is None else _Pause(since_ms, _until_ms(request, old, hold), hold)


def _paused_since(step: Step, request: Request, old: Schedule | None) -> int | None:
    """Since when a new definition is paused: a paused schedule stays so unless its request says otherwise."""
    was = old is not None and old.status is _PAUSED
    if request.status == "pending" or not (was or request.status == "paused"):
        return None
    return old.paused_ms if old is not None and was else step.now_ms


def _until_ms(request: Request, old: Schedule | None, hold: Hold | None) -> int | None:
    """When the pause of a new definition ends by itself; None: not before a resume.

    A paused schedule stays paused until its own end, or until that of the hold that meets it, if that is
    later. For others the hold says how long, unless the request itself asks to be paused.
    """
    if old is not None and old.status is _PAUSED and request.status != "pending":
        until_ms = old.until_ms
        if hold is None or until_ms is None:
            return until_ms
        return None if hold.until_ms is None else max(until_ms, hold.until_ms)
    return None if hold is None or request.status == "paused" else hold.until_ms


class _Begun(NamedTuple):
    """The entries of a new definition, and its fires that went out at once."""

    pending: list[bytes]
    #: one-time: what has not fired, as (due_ms, list index)
    later: list[tuple[int, int]]
    fired: list[Delivered]
    #: what the id remembers of, with what has fired
    history: list[Fire]
    recurrence: Recurrence | None = None
    next_ms: int = -1
    skipped: int = 0

    @property
    def over(self) -> bool:
        """Whether nothing is ahead."""
        return self.recurrence is None and not self.later


def _defined(
    step: Step, request: Request, revised: int, digest: bytes, begun: _Begun, payload: bytes | None
) -> Schedule:
    """The record of an id that is what a request says, and was nothing before."""
    source, timestamp_ms = request.source, request.timestamp_ms
    schedule = Schedule(
        _FIRED if begun.over else _PENDING,
        revised,
        source.topic,
        source.partition,
        source.offset,
        timestamp_ms,
        request.destination,
        begun.pending,
        payload=payload,
        digest=digest,
        version=revised,
        created_ms=timestamp_ms,
        updated_ms=timestamp_ms,
        key=kept_key(delivered_key(request)),
    )
    # Naming a field costs as much as filling it: what few requests have is named where it is there.
    if begun.recurrence is not None:
        schedule = replace(
            schedule,
            recurrence=begun.recurrence,
            next_ms=begun.next_ms,
            skipped=begun.skipped,
            catch_up=request.catch_up,
            grace_ms=DEFAULT_GRACE_MS if request.grace_ms is None else request.grace_ms,
        )
    if source.origin:
        schedule = replace(schedule, origin=source.origin, revision_origin=source.origin)
    if request.name is not None or request.description is not None or request.tags:
        schedule = replace(
            schedule, name=request.name, description=request.description, tags=list(request.tags)
        )
    if request.actor is not None:
        actor = kept_actor(request.actor)
        schedule = replace(schedule, actor=request.actor, created_by=actor, updated_by=actor)
    if begun.fired:
        schedule = replace(
            schedule,
            fire_count=len(begun.fired),
            last_fire_id=begun.fired[-1].delivery.fire_id,
            last_fired_ms=step.now_ms,
            history=begun.history,
        )
    return schedule


def _after(schedule: Schedule, old: Schedule, begun: _Begun) -> Schedule:
    """The same with what the id remembers of the one before."""
    schedule = replace(
        schedule,
        history=begun.history,
        swept=old.swept,
        declared_by=old.declared_by,
        deploy=old.deploy,
        answered=old.answered,
    )
    if old.status not in LIVE:
        return schedule
    return replace(schedule, created_ms=old.created_ms, created_by=old.created_by)


def _fires(request: Request, revised: int, times: Sequence[int]) -> list[tuple[int, str]]:
    """A request's fires for its receipt, (due_ms, fire id) of each; none where it asks for no receipt."""
    if request.reply_to is None or request.id is None:
        return []
    place, recurs = request.source.place, request.recurrence is not None
    return [
        (due_ms, named_fire_id(place, revised, 0 if recurs else index, due_ms, request.id))
        for index, due_ms in enumerate(times)
    ]


class Definitions:
    """Defines schedules, on the partition that owns their ids."""

    def __init__(
        self,
        context: Context,
        deliveries: Deliveries,
        arming: Arming,
        answers: Answers,
        changes: Changes,
        quotas: Quotas,
    ) -> None:
        self._settings = context.settings
        self._holds = context.holds
        self._quotas = quotas
        self._state = context.state
        self._deliveries = deliveries
        self._arming = arming
        self._answers = answers
        self._changes = changes

    def define(self, step: Step, request: Request, old: Schedule | None) -> Rejection | None:
        """Carry out a request; `old` is what its id is so far. A rejection changes nothing."""
        assert request.id is not None
        live = old is not None and old.status in LIVE
        rejection = None
        if request.destination_partition is not None:
            rejection = self._deliveries.out_of_range(request)
        if rejection is None and old is not None:
            rejection = _in_the_way(request, old, live=live)
        if rejection is not None:
            return rejection
        digest = digest_of(request)
        hold = self._holds.matching_arrival(request) if self._holds.any else None
        if old is not None and live:
            if request.if_exists is _KEEP:
                self._answer(step, request, Outcome.KEPT, old)
                return None
            met = hold is not None and old.status is Status.PENDING
            if not met and request.status in (None, old.status.value) and says_again(request, digest, old):
                self._stay(step, request, old)
                return None
        outcome = _REPLACED if live else _SCHEDULED
        pause = _pause(step, request, old, hold)
        if self._quotas.any and (
            rejection := self._quotas.refusal(step, request, old, paused=pause is not None)
        ):
            return rejection
        self._define(step, request, outcome, digest, old, pause)
        return None

    def _define(
        self,
        step: Step,
        request: Request,
        outcome: Outcome,
        digest: bytes,
        old: Schedule | None,
        pause: _Pause | None,
    ) -> None:
        """Have the id be what a request says, from now on."""
        assert request.id is not None
        id, topic, paused = request.id, request.source.topic, pause is not None
        if old is not None:
            self._arming.clear(step, topic, id, old)
        revised = revision(request.source.partition, request.source.offset)
        if request.recurrence is None:
            if old is not None:
                old = self._changes.owe(step, id, old)
            begun = self._begin(step, request, revised, old, paused=paused)
            times = request.due_ms
        else:
            begun = self._begin_recurring(step, request, request.recurrence, revised, old, paused=paused)
            times = (begun.next_ms,)
        payload = None if begun.over else self._arming.keep_payload(step, topic, id, envelope_of(request))
        schedule = _defined(step, request, revised, digest, begun, payload)
        if old is not None:
            schedule = _after(schedule, old, begun)
        if pause is not None:
            schedule = self._begun_paused(step, id, schedule, begun, pause)
        elif old is not None and old.status is _PAUSED and request.recurrence is not None:
            schedule = replace(schedule, resumed_ms=step.now_ms)
        if request.terms is not NO_TERMS:
            schedule = terms.noted(replace(schedule, note=request.terms.note), request, outcome)
        if begun.over:
            self._arming.finish(step, id, schedule, _FIRED)
        else:
            step.changes[schedule_key(topic, id)] = encode(schedule)
        self._answers.tell(step, request, outcome, schedule, _fires(request, revised, times))
        for delivered in begun.fired:
            self._answers.events.fired(step, delivered, schedule)

    def _begun_paused(
        self, step: Step, id: str, schedule: Schedule, begun: _Begun, pause: _Pause
    ) -> Schedule:
        schedule = replace(
            schedule,
            status=_PAUSED,
            paused_ms=pause.since_ms,
            held=begun.later,
            held_by="" if pause.hold is None else pause.hold.name,
        )
        if pause.until_ms is not None:
            schedule = self._arming.wake(step, id, schedule, pause.until_ms)
        self._state.counts.add_paused(schedule.topic, schedule.paused_fires)
        return schedule

    def _answer(self, step: Step, request: Request, outcome: Outcome, schedule: Schedule) -> None:
        """Tell an outcome that leaves a schedule as it is, and remember it where that was asked for."""
        noted = terms.noted(schedule, request, outcome)
        if noted is not schedule:
            assert request.id is not None
            step.changes[schedule_key(schedule.topic, request.id)] = encode(noted)
        self._answers.tell(step, request, outcome, noted)

    def _stay(self, step: Step, request: Request, old: Schedule) -> None:
        """The same definition was sent again: only the coordinates and the timestamp of its request change.

        These tell which requests are older and which are newer.
        """
        assert request.id is not None
        source = request.source
        schedule = replace(
            old,
            partition=source.partition,
            offset=source.offset,
            origin=source.origin,
            timestamp_ms=request.timestamp_ms,
        )
        schedule = terms.noted(schedule, request, Outcome.UNCHANGED)
        step.changes[schedule_key(old.topic, request.id)] = encode(schedule)
        fires = [
            (due_ms, named_fire_id(schedule.revision_place, schedule.revision, index, due_ms, request.id))
            for due_ms, index in schedule.ahead
        ]
        self._answers.tell(step, request, Outcome.UNCHANGED, schedule, fires)

    def _begin_recurring(
        self,
        step: Step,
        request: Request,
        recurrence: Recurrence,
        revised: int,
        old: Schedule | None,
        *,
        paused: bool,
    ) -> _Begun:
        """Find the first time of a recurring schedule, and file it."""
        assert request.id is not None
        id, source = request.id, request.source
        recurrence, first_ms, skipped = self._arming.begun(old, recurrence, request.timestamp_ms)
        if old is not None and old.next_ms != first_ms:
            old = self._changes.owe(step, id, old)
        pending: list[bytes] = []
        if not paused:
            due_ms = jittered(recurrence, source.place, revised, id, first_ms)
            pending = self._arming.entries(step, id, source, request.destination, revised, ((due_ms, 0),))
        return _Begun(pending, [], [], [] if old is None else old.history, recurrence, first_ms, skipped)

    def _begin(
        self, step: Step, request: Request, revised: int, old: Schedule | None, *, paused: bool
    ) -> _Begun:
        """Deliver what is due of a one-time schedule, and file the rest."""
        assert request.id is not None
        id, source = request.id, request.source
        step.records += len(request.due_ms) - 1
        later: list[tuple[int, int]] = []
        fired: list[Delivered] = []
        history = [] if old is None else old.history
        for index, due_ms in enumerate(request.due_ms):
            if (
                paused
                or due_ms > step.now_ms
                or step.size_bytes >= step.max_bytes
                or (route := self._deliveries.route(step, request, due_ms)) is None
            ):
                later.append((due_ms, index))
                continue
            fire = named_fire_id(source.place, revised, index, due_ms, id)
            last_fired_ms = step.now_ms if fired else -1
            delivery = Delivery(id, fire, due_ms, source.text, len(fired) + 1, 0, last_fired_ms)
            headers = delivery_headers(request.headers, delivery, step.fired_at)
            partition = self._deliveries.write(step, route, request, headers, due_ms)
            lateness_ms = step.now_ms - due_ms
            fired.append(Delivered(delivery, lateness_ms, request.destination, partition, request.headers))
            history = self._arming.remembered(
                history, Fire(due_ms, step.now_ms, revised, index, source.origin)
            )
        pending: list[bytes] = []
        if later and not paused:
            pending = self._arming.entries(step, id, source, request.destination, revised, later)
        return _Begun(pending, later, fired, history)
