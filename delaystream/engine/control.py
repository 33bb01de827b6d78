"""Deciding on requests that name an id: one id's life, from its first request until it is forgotten.

What a command does, by the status that it finds; it ends in a receipt and an event of that name, but for the
commands of a bulk. *Over* stands for fired, completed, dropped and quarantined.

========== ============================= =================== =================== ===================
command    unknown                       pending             paused              over
========== ============================= =================== =================== ===================
schedule   scheduled                     replaced, or by     as pending          scheduled
                                         ``if-exists`` kept
                                         or rejected
cancel     unknown (now *forestalled*)   cancelled           cancelled           too-late
pause      unknown                       paused              unchanged           too-late
resume     unknown                       unchanged           resumed             too-late
trigger    unknown                       triggered, or        as pending          too-late
                                         rejected: too many
reschedule unknown                       rescheduled         rescheduled         too-late
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

from msgspec.structs import replace

from delaystream.codec.envelope import (
    LIVE,
    Fire,
    Schedule,
    Status,
    decode_schedule,
    encode,
    envelope_of,
)
from delaystream.codec.event import coordinates
from delaystream.codec.keys import schedule_key
from delaystream.codec.outgoing import Outcome, delivery_headers
from delaystream.core.identity import named_fire_id, revision
from delaystream.core.misfire import DEFAULT_GRACE_MS
from delaystream.core.rejection import Code, Rejection, shown
from delaystream.core.request import Action, IfExists, Request
from delaystream.engine.answers import Answers, older
from delaystream.engine.arming import Arming
from delaystream.engine.bulk import Bulks
from delaystream.engine.commands import Commands
from delaystream.engine.deliveries import Deliveries
from delaystream.engine.events import Delivered
from delaystream.engine.holds import Holds
from delaystream.engine.quota import Quotas
from delaystream.engine.settings import EngineSettings
from delaystream.engine.state import PartitionState
from delaystream.engine.step import Step


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
        self._bulks = bulks

    def apply(self, step: Step, request: Request) -> Rejection | None:
        """Carry out one request; a rejection changes nothing."""
        assert request.id is not None
        self._bulks.settle(step, request.source.topic, request.id)
        stored = self._state.get(step, schedule_key(request.source.topic, request.id))
        schedule = decode_schedule(stored) if stored is not None else None
        if request.action is Action.SCHEDULE:
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
        self._commands.apply(step, request, schedule)
        return None

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
        if rejection := self._deliveries.out_of_range(request):
            return rejection
        outcome = Outcome.SCHEDULED
        if old is not None:
            if old.status in LIVE:
                if request.if_exists is IfExists.KEEP:
                    self._answers.tell(step, request, Outcome.KEPT, old)
                    return None
                if request.if_exists is IfExists.REJECT:
                    return Rejection(
                        Code.ALREADY_EXISTS,
                        f"id {shown(request.id)} names a {old.status} schedule, and if-exists is 'reject'",
                        id=request.id,
                        reply_to=request.reply_to,
                    )
                outcome = Outcome.REPLACED
            elif old.status in (Status.CANCELLED, Status.FORESTALLED) and older(request, old):
                return Rejection(
                    Code.CANCELLED_EARLIER,
                    f"id {shown(request.id)} was cancelled by a request with timestamp {old.timestamp_ms}, "
                    f"and this one's is {request.timestamp_ms}; a newer one would be scheduled",
                    id=request.id,
                    reply_to=request.reply_to,
                )
        if self._quotas.any and (rejection := self._quotas.refusal(step, request, old)):
            return rejection
        if old is not None:
            self._arming.clear(step, request.source.topic, request.id, old)
        hold = self._holds.meeting(request) if self._holds.any else None
        schedule = Schedule(
            status=Status.PENDING if hold is None else Status.PAUSED,
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
            actor=request.actor,
            origin=request.source.origin,
            revision_origin=request.source.origin,
            paused_ms=-1 if hold is None else step.now_ms,
            held_by="" if hold is None else hold.name,
        )
        if request.recurrence is None:
            self._define(step, request, schedule, outcome)
        else:
            self._define_recurring(step, request, schedule, outcome, old)
        return None

    def _define_recurring(
        self, step: Step, request: Request, schedule: Schedule, outcome: Outcome, old: Schedule | None
    ) -> None:
        assert request.id is not None
        assert request.recurrence is not None
        recurrence, first_ms, skipped = self._arming.begun(old, request.recurrence, request.timestamp_ms)
        resumed = old is not None and old.status is Status.PAUSED
        schedule = replace(
            schedule,
            recurrence=recurrence,
            skipped=skipped,
            resumed_ms=step.now_ms if resumed else -1,
            catch_up=request.catch_up,
            grace_ms=DEFAULT_GRACE_MS if request.grace_ms is None else request.grace_ms,
        )
        if schedule.status is Status.PAUSED:
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
        for index, due_ms in enumerate(request.due_ms):
            fire = named_fire_id(schedule.revision_place, schedule.revision, index, due_ms, request.id)
            fire_ids.append(fire)
            if (
                step.size_bytes < step.max_bytes
                and (route := self._deliveries.route(step, request, due_ms)) is not None
            ):
                where, count = coordinates(source), len(fired) + 1
                headers = delivery_headers(
                    request.headers, request.id, fire, due_ms, step.fired_at, where, count
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
        schedule = replace(schedule, history=history)
        if schedule.status is Status.PAUSED:
            schedule = replace(schedule, held=later)
            self._state.counts.withhold(tenant, schedule.withheld)
        else:
            schedule = self._arming.arm_all(step, request.id, schedule, later)
        schedule = replace(
            schedule,
            status=schedule.status if later else Status.FIRED,
            fire_count=len(fired),
            last_fire_id=fired[-1].fire_id if fired else None,
        )
        if later:
            schedule = self._arming.keep_payload(step, tenant, request.id, schedule, envelope_of(request))
            step.changes[schedule_key(tenant, request.id)] = encode(schedule)
        else:
            self._arming.finish(step, request.id, schedule)
        self._answers.tell(step, request, outcome, schedule, request.due_ms, fire_ids)
        for delivered in fired:
            self._answers.events.fired(step, request.id, delivered, schedule)
