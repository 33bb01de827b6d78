"""Deciding on requests that name an id: one id's life, from its first request until it is forgotten.

The outcome of each command, by the status that it finds. Its receipt and its event have the same name; bulk
commands have neither for each id. *Over* stands for fired, completed, dropped and quarantined.

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
newer one. ``reschedule`` and ``update`` leave a paused schedule paused; one that meets a hold of what arrives
is paused by them.

A schedule changes without a command, too:

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

from delaystream.codec.envelope import LIVE, Schedule, decode_schedule
from delaystream.codec.keys import schedule_key
from delaystream.core.rejection import Code, Rejection, shown
from delaystream.core.request import NO_TERMS, Action, Request
from delaystream.engine.output.events import Events
from delaystream.engine.output.letters import Letters
from delaystream.engine.policy.context import Context
from delaystream.engine.schedules import terms
from delaystream.engine.schedules.answers import Answers
from delaystream.engine.schedules.arming import Arming
from delaystream.engine.schedules.changes import Changes
from delaystream.engine.schedules.commands import Commands
from delaystream.engine.schedules.definitions import Definitions
from delaystream.engine.schedules.describe import Descriptions
from delaystream.engine.schedules.immediate import Deliveries
from delaystream.engine.schedules.quotas import Quotas
from delaystream.engine.state.step import Step

# Naming a member through its class is slow (Python 3.11).
_SCHEDULE: Final = Action.SCHEDULE


class Schedules:
    """The ids of one partition: applies requests that name one; firing uses its parts."""

    def __init__(self, context: Context, letters: Letters, events: Events) -> None:
        self._settings = context.settings
        self._state = context.state
        self.arming = Arming(context.settings, context.state)
        self.answers = Answers(letters, events)
        self.descriptions = Descriptions(context.state, context.tenants)
        self.deliveries = Deliveries(context)
        self.quotas = Quotas(context, self.deliveries)
        changes = Changes(context, self.arming, self.answers, self.deliveries)
        self.commands = Commands(context, self.arming, self.answers, changes, self.descriptions)
        self.definitions = Definitions(
            context, self.deliveries, self.arming, self.answers, changes, self.quotas
        )

    def apply(self, step: Step, request: Request) -> Rejection | None:
        """Carry out one request; a rejection changes nothing."""
        assert request.id is not None
        stored = self._state.get(step, schedule_key(request.source.topic, request.id))
        schedule = decode_schedule(stored) if stored is not None else None
        if request.terms is not NO_TERMS:
            if before := terms.answered(request, schedule):
                assert schedule is not None
                self.answers.repeat(step, request, schedule, before)
                return None
            if rejection := terms.refusal(request, schedule):
                return rejection
        if request.action is _SCHEDULE:
            return self.definitions.define(step, request, schedule)
        if rejection := self._too_much(step, request, schedule):
            return rejection
        return self.commands.apply(step, request, schedule)

    def _too_much(self, step: Step, request: Request, schedule: Schedule | None) -> Rejection | None:
        """A rejection if there is no room for the result of a command; None if there is."""
        if schedule is None:
            return self.quotas.cancel_refusal(request) if request.action is Action.CANCEL else None
        rejection = None
        if self.quotas.any and schedule.status in LIVE:
            rejection = self.quotas.command_refusal(step, request, schedule)
        if rejection is None and request.action is Action.TRIGGER:
            rejection = self._too_many_triggers(request, schedule)
        return rejection

    def _too_many_triggers(self, request: Request, schedule: Schedule) -> Rejection | None:
        """Refuse one more fire beside those that wait: each is a part of the schedule's record."""
        most = self._settings.max_triggers
        if schedule.status not in LIVE or len(schedule.triggers) < most:
            return None
        return Rejection(
            Code.TOO_MANY_TRIGGERS,
            f"id {shown(request.id or '')} has {len(schedule.triggers)} triggered fires waiting for "
            f"{schedule.destination}; expected fewer than {most}",
            id=request.id,
            reply_to=request.reply_to,
        )
