"""Deciding on requests that name an id: one id's life, from its first request until it is forgotten.

What a command does, by the status that it finds; it ends in a receipt and an event of that name, but for the
commands of a bulk. *Over* stands for fired, completed, dropped and quarantined.

========== ============================= =================== =================== ===================
command    unknown                       pending             paused              over
========== ============================= =================== =================== ===================
schedule   scheduled                     replaced, or        as pending; stays   scheduled
                                         unchanged; by       paused
                                         ``if-exists`` kept
                                         or rejected
cancel     unknown (now *forestalled*)   cancelled           cancelled           too-late
pause      unknown                       paused              unchanged           too-late
resume     unknown                       unchanged           resumed             too-late
trigger    unknown                       triggered, or        as pending          too-late
                                         rejected: too many
reschedule unknown                       rescheduled         rescheduled         too-late
update     unknown                       updated             updated             too-late
describe   unknown                       described           described           described
========== ============================= =================== =================== ===================

A *cancelled* id answers ``cancelled`` to another cancel and ``too-late`` to the other commands, a
*forestalled* one ``unknown`` to all; either refuses a schedule that is older than the cancel, and takes a
newer one. ``reschedule`` leaves a paused schedule paused.

What happens to a schedule without a command:

=========================== ========================================= ==================================
status                      what happens                              status after it, events
=========================== ========================================= ==================================
pending, one-time           a due time is delivered                   pending, or fired: ``fired``
pending, one-time           it is too late, ``on-late: drop``         pending, or dropped: ``expired``
pending, one-time           it is too late, ``on-late: <topic>``      pending: ``moved``, then ``fired``
pending, recurring          a scheduled time is delivered             pending, or completed: ``fired``
                                                                      (and ``completed``)
pending, recurring          scheduled times passed                    as above: ``skipped``, ``missed``
pending                     a fire is impossible                      pending, or over: ``quarantined``
any live                    a triggered fire is delivered             unchanged, or over: ``fired``
=========================== ========================================= ==================================

An id that is over is remembered for ``id_retention_ms``, by an entry of the housekeeping wheel.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from delaystream.codec.envelope import (
    LIVE,
    Fire,
    Hold,
    Schedule,
    Status,
    decode_schedule,
    delivered_key,
    encode,
    envelope_of,
    kept_actor,
    kept_key,
)
from delaystream.codec.event import coordinates
from delaystream.codec.keys import due_of, schedule_key
from delaystream.codec.outgoing import Outcome, delivery_headers
from delaystream.core.identity import named_fire_id, revision
from delaystream.core.misfire import DEFAULT_GRACE_MS
from delaystream.core.rejection import Code, Rejection, shown
from delaystream.core.request import NO_TERMS, Action, IfExists, Request
from delaystream.engine import terms
from delaystream.engine.answers import Answers, older
from delaystream.engine.arming import Arming
from delaystream.engine.bulk import Bulks
from delaystream.engine.changes import Changes
from delaystream.engine.commands import Commands
from delaystream.engine.deliveries import Deliveries
from delaystream.engine.digest import digest_of
from delaystream.engine.events import Delivered
from delaystream.engine.holds import Holds
from delaystream.engine.quota import Quotas
from delaystream.engine.settings import EngineSettings
from delaystream.engine.state import PartitionState
from delaystream.engine.step import Step

# Naming a member through its class is slow (Python 3.11).
_SCHEDULE: Final = Action.SCHEDULE
_CANCELLED: Final = (Status.CANCELLED, Status.FORESTALLED)


def _in_the_way(request: Request, old: Schedule | None, *, live: bool) -> Rejection | None:
    """Why an id cannot be scheduled: it is in use, or was cancelled by what is newer."""
    code = detail = None
    if old is not None and live and request.if_exists is IfExists.REJECT:
        code = Code.ALREADY_EXISTS
        detail = f"id {shown(request.id or '')} names a {old.status} schedule, and if-exists is 'reject'"
    elif old is not None and old.status in _CANCELLED and older(request, old):
        code = Code.CANCELLED_EARLIER
        detail = (
            f"id {shown(request.id or '')} was cancelled by a request with timestamp {old.timestamp_ms}, "
            f"and this one's is {request.timestamp_ms}; a newer one would be scheduled"
        )
    if code is None or detail is None:
        return None
    return Rejection(code, detail, id=request.id, reply_to=request.reply_to)


def _paused_since(step: Step, request: Request, old: Schedule | None) -> int | None:
    """Since when what a request defines is paused: a schedule that is, stays so unless it says otherwise."""
    was = old is not None and old.status is Status.PAUSED
    if request.status == "pending" or not (was or request.status == "paused"):
        return None
    return old.paused_ms if old is not None and was else step.now_ms


def _until_ms(request: Request, old: Schedule | None, hold: Hold | None) -> int | None:
    """When the pause of what a request defines ends by itself; None: not before a resume.

    What was paused stays so for as long. Of what is not, the hold that meets it says how long, unless the
    request itself asks to be paused.
    """
    if old is not None and old.status is Status.PAUSED and request.status != "pending":
        return None if old.until_key is None else due_of(old.until_key)
    return None if hold is None or request.status == "paused" else hold.until_ms


class Control:
    """Applies requests that name an id, on the partition that owns it."""

    def __init__(
        self,
        settings: EngineSettings,
        state: PartitionState,
        deliveries: Deliveries,
        arming: Arming,
        answers: Answers,
        commands: Commands,
        changes: Changes,
        bulks: Bulks,
        quotas: Quotas,
        holds: Holds,
    ) -> None:
        self._settings = settings
        self._holds = holds
        self._quotas = quotas
        self._state = state
        self._deliveries = deliveries
        self._arming = arming
        self._answers = answers
        self._commands = commands
        self._changes = changes
        self._bulks = bulks

    def apply(self, step: Step, request: Request) -> Rejection | None:
        """Carry out one request; a rejection changes nothing."""
        assert request.id is not None
        self._bulks.settle(step, request.source.topic, request.id)
        stored = self._state.get(step, schedule_key(request.source.topic, request.id))
        schedule = decode_schedule(stored) if stored is not None else None
        if request.terms is not NO_TERMS:
            if before := terms.answered(request, schedule):
                assert schedule is not None
                self._answers.repeat(step, request, schedule, before)
                return None
            if rejection := terms.refusal(request, schedule):
                return rejection
        if request.action is _SCHEDULE:
            return self._schedule(step, request, schedule)
        if (
            self._quotas.any
            and schedule is not None
            and schedule.status in LIVE
            and (rejection := self._quotas.command_refusal(step, request, schedule))
        ):
            return rejection
        if request.action is Action.TRIGGER and (rejection := self._too_many_triggers(request, schedule)):
            return rejection
        return self._commands.apply(step, request, schedule)

    def _too_many_triggers(self, request: Request, schedule: Schedule | None) -> Rejection | None:
        """Refuse one more fire beside those that wait: each is a part of the schedule's record."""
        most = self._settings.max_triggers
        if schedule is None or schedule.status not in LIVE or len(schedule.triggers) < most:
            return None
        return Rejection(
            Code.TOO_MANY_TRIGGERS,
            f"id {shown(request.id or '')} has {len(schedule.triggers)} triggered fires waiting for "
            f"{schedule.destination}; expected fewer than {most}",
            id=request.id,
            reply_to=request.reply_to,
        )

    def _schedule(self, step: Step, request: Request, old: Schedule | None) -> Rejection | None:
        assert request.id is not None
        live = old is not None and old.status in LIVE
        if rejection := self._deliveries.out_of_range(request) or _in_the_way(request, old, live=live):
            return rejection
        digest = digest_of(request)
        hold = self._holds.meeting(request) if self._holds.any else None
        if old is not None and live:
            if request.if_exists is IfExists.KEEP:
                self._answer(step, request, Outcome.KEPT, old)
                return None
            met = hold is not None and old.status is Status.PENDING
            if digest and digest == old.digest and not met and request.status in (None, old.status.value):
                self._stay(step, request, old)
                return None
        outcome = Outcome.REPLACED if live else Outcome.SCHEDULED
        paused_ms = step.now_ms if hold is not None else _paused_since(step, request, old)
        if self._quotas.any and (
            rejection := self._quotas.refusal(step, request, old, paused=paused_ms is not None)
        ):
            return rejection
        if old is not None:
            self._arming.clear(step, request.source.topic, request.id, old)
        schedule = Schedule(
            status=Status.PENDING if paused_ms is None else Status.PAUSED,
            revision=revision(request.source.partition, request.source.offset),
            topic=request.source.topic,
            partition=request.source.partition,
            offset=request.source.offset,
            timestamp_ms=request.timestamp_ms,
            destination=request.destination,
            name=request.name,
            description=request.description,
            tags=list(request.tags),
            history=old.history if old is not None else [],
            swept=old.swept if old is not None else [],
            declared_by=old.declared_by if old is not None else None,
            deploy=old.deploy if old is not None else -1,
            answered=old.answered if old is not None else [],
            digest=digest,
            paused_ms=-1 if paused_ms is None else paused_ms,
            actor=request.actor,
            origin=request.source.origin,
            revision_origin=request.source.origin,
            created_ms=old.created_ms if old is not None and live else request.timestamp_ms,
            created_by=old.created_by if old is not None and live else kept_actor(request.actor),
            key=kept_key(delivered_key(request)),
            held_by="" if hold is None else hold.name,
        )
        schedule = terms.stamped(schedule, request, outcome)
        if paused_ms is not None and (until_ms := _until_ms(request, old, hold)) is not None:
            schedule = self._arming.wake(step, request.id, schedule, until_ms)
        if request.recurrence is None:
            self._changes.owe(step, request.id, old)
            self._define(step, request, schedule, outcome)
        else:
            self._define_recurring(step, request, schedule, outcome, old)
        return None

    def _answer(self, step: Step, request: Request, outcome: Outcome, schedule: Schedule) -> None:
        """Tell an outcome that leaves a schedule as it is, and remember it where that was asked for."""
        noted = terms.noted(schedule, request, outcome)
        if noted is not schedule:
            assert request.id is not None
            step.changes[schedule_key(schedule.topic, request.id)] = encode(noted)
        self._answers.tell(step, request, outcome, noted)

    def _stay(self, step: Step, request: Request, old: Schedule) -> None:
        """The same definition was sent again: nothing moves but where, and when, it was asked for.

        By that it is told what came before it and what came after.
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
        fires = self._arming.ahead(schedule)
        ids = [
            named_fire_id(schedule.revision_place, schedule.revision, index, due_ms, request.id)
            for due_ms, index in fires
        ]
        self._answers.tell(step, request, Outcome.UNCHANGED, schedule, [due_ms for due_ms, _ in fires], ids)

    def _define_recurring(
        self, step: Step, request: Request, schedule: Schedule, outcome: Outcome, old: Schedule | None
    ) -> None:
        assert request.id is not None
        assert request.recurrence is not None
        recurrence, first_ms, skipped = self._arming.begun(old, request.recurrence, request.timestamp_ms)
        if old is not None and old.next_ms != first_ms:
            self._changes.owe(step, request.id, old)
        paused = schedule.status is Status.PAUSED
        resumed = old is not None and old.status is Status.PAUSED and not paused
        schedule = replace(
            schedule,
            recurrence=recurrence,
            skipped=skipped,
            resumed_ms=step.now_ms if resumed else -1,
            catch_up=request.catch_up,
            grace_ms=DEFAULT_GRACE_MS if request.grace_ms is None else request.grace_ms,
        )
        if paused:
            schedule = replace(schedule, next_ms=first_ms)
            self._state.counts.withhold(schedule.topic, schedule.withheld)
        else:
            schedule = self._arming.arm(step, request.id, schedule, first_ms)
        tenant = request.source.topic
        schedule = self._arming.keep_payload(step, tenant, request.id, schedule, envelope_of(request))
        step.changes[schedule_key(tenant, request.id)] = encode(schedule)
        fire = named_fire_id(schedule.revision_place, schedule.revision, 0, first_ms, request.id)
        self._answers.tell(step, request, outcome, schedule, (first_ms,), (fire,))

    def _define(self, step: Step, request: Request, schedule: Schedule, outcome: Outcome) -> None:
        assert request.id is not None
        source = request.source
        tenant = source.topic
        step.records += len(request.due_ms) - 1
        later: list[tuple[int, int]] = []
        fire_ids: list[str] = []
        fired: list[Delivered] = []
        history = schedule.history
        paused = schedule.status is Status.PAUSED
        for index, due_ms in enumerate(request.due_ms):
            fire = named_fire_id(schedule.revision_place, schedule.revision, index, due_ms, request.id)
            fire_ids.append(fire)
            if (
                not paused
                and step.size_bytes < step.max_bytes
                and (route := self._deliveries.route(step, request, due_ms)) is not None
            ):
                where, count = coordinates(source), len(fired) + 1
                headers = delivery_headers(
                    request.headers,
                    request.id,
                    fire,
                    due_ms,
                    step.fired_at,
                    where,
                    count,
                    last_fired_ms=step.now_ms if fired else -1,
                )
                partition = self._deliveries.write(step, route, request, headers, due_ms)
                lateness_ms = step.now_ms - due_ms
                fired.append(
                    Delivered(fire, due_ms, lateness_ms, request.destination, partition, where, count)
                )
                history = self._arming.remembered(
                    history, Fire(due_ms, step.now_ms, schedule.revision, index, schedule.revision_origin)
                )
            else:
                later.append((due_ms, index))
        if paused:
            schedule = replace(schedule, held=later)
            self._state.counts.withhold(schedule.topic, schedule.withheld)
        else:
            schedule = self._arming.arm_all(step, request.id, replace(schedule, history=history), later)
        schedule = replace(
            schedule,
            status=schedule.status if later else Status.FIRED,
            fire_count=len(fired),
            last_fire_id=fired[-1].fire_id if fired else None,
            last_fired_ms=step.now_ms if fired else -1,
        )
        if later:
            schedule = self._arming.keep_payload(step, tenant, request.id, schedule, envelope_of(request))
            step.changes[schedule_key(tenant, request.id)] = encode(schedule)
        else:
            self._arming.finish(step, request.id, schedule)
        self._answers.tell(step, request, outcome, schedule, request.due_ms, fire_ids)
        for delivered in fired:
            self._answers.events.fired(step, request.id, delivered, schedule)
