"""Carrying out commands about one id; the table of what each does when is in `schedules`."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from delaystream.codec.envelope import (
    LIVE,
    Bulk,
    Hold,
    Schedule,
    Status,
    Wake,
    decode_schedule,
    encode,
    kept_actor,
)
from delaystream.codec.event import EventType
from delaystream.codec.keys import due_of, index_of, schedule_key
from delaystream.codec.outgoing import Outcome
from delaystream.core.identity import named_fire_id, trigger_index
from delaystream.core.order import newer
from delaystream.core.rejection import Rejection
from delaystream.core.request import Action, Lateness, Request
from delaystream.engine.policy.context import Context
from delaystream.engine.schedules import terms
from delaystream.engine.schedules.answers import Answers
from delaystream.engine.schedules.arming import Arming
from delaystream.engine.schedules.at_once import fires_at_once
from delaystream.engine.schedules.changes import Changes
from delaystream.engine.schedules.describe import Descriptions
from delaystream.engine.state.step import Step


class Commands:
    """Cancels, pauses, resumes and triggers; changes go to `delaystream.engine.schedules.changes`."""

    def __init__(
        self, context: Context, arming: Arming, answers: Answers, changes: Changes, descriptions: Descriptions
    ) -> None:
        self._settings = context.settings
        self._holds = context.holds
        self._state = context.state
        self._descriptions = descriptions
        self._arming = arming
        self._answers = answers
        self._changes = changes

    def apply(self, step: Step, request: Request, schedule: Schedule | None) -> Rejection | None:
        """Carry out a command on the schedule that its id names, if there is one, and tell its outcome.

        A rejection changes nothing.
        """
        action = request.action
        if action is Action.CANCEL:
            self._cancel(step, request, schedule)
        elif action is Action.DESCRIBE:
            self._describe(step, request, schedule)
        elif schedule is None or schedule.status is Status.FORESTALLED:
            self._answers.tell(step, request, Outcome.UNKNOWN, schedule)
        elif schedule.status not in LIVE:
            self._too_late(step, request, schedule)
        elif action is Action.TRIGGER:
            self._trigger(step, request, schedule)
        elif action is Action.RESCHEDULE or action is Action.UPDATE:
            return self._changes.apply(step, request, schedule)
        else:
            self._switch(step, request, schedule)
        return None

    def _too_late(self, step: Step, request: Request, schedule: Schedule) -> None:
        """Nothing happens to an id that is over; which deployment pruned it is remembered all the same."""
        assert request.id is not None
        noted = terms.noted(schedule, request, Outcome.TOO_LATE)
        if noted is not schedule:
            step.changes[schedule_key(schedule.topic, request.id)] = encode(noted)
        self._answers.tell(step, request, Outcome.TOO_LATE, noted)

    def _describe(self, step: Step, request: Request, schedule: Schedule | None) -> None:
        assert request.id is not None
        if schedule is None or schedule.status is Status.FORESTALLED:
            self._answers.reply(step, request, Outcome.UNKNOWN, schedule)
        else:
            described = self._descriptions.of(step, request.id, schedule)
            self._answers.reply(step, request, Outcome.DESCRIBED, schedule, described)

    def _switch(self, step: Step, request: Request, schedule: Schedule) -> None:
        assert request.id is not None
        outcome = Outcome.PAUSED if request.action is Action.PAUSE else Outcome.RESUMED
        stamped = terms.stamped(schedule, request, outcome)
        changed = self.switch(step, request.id, stamped, request.action, request.until_ms, request.lateness)
        if changed is None:
            outcome = Outcome.UNCHANGED
            changed = terms.noted(schedule, request, outcome)
            if changed is not schedule:
                step.changes[schedule_key(schedule.topic, request.id)] = encode(changed)
        at_once = self.at_once(step, request.id, changed) if outcome is Outcome.RESUMED else None
        self._answers.tell(step, request, outcome, changed, at_once=at_once)

    def at_once(self, step: Step, id: str, schedule: Schedule) -> int:
        """How many fires of a schedule that was just resumed are due; an upper bound if all catch up."""
        return fires_at_once(self._settings, id, schedule, step.now_ms)

    # -- pause and resume ---------------------------------------------------------------------

    def switch(
        self,
        step: Step,
        id: str,
        schedule: Schedule,
        action: Action,
        until_ms: int | None = None,
        once: Lateness | None = None,
    ) -> Schedule | None:
        """Cancel, pause or resume a live schedule, and store it; None when there is nothing to change.

        A pause ends by itself at `until_ms`; None: not before a resume, even if an earlier pause had an end.
        `once` are the rules of a resume for late fires.
        """
        if action is Action.CANCEL:
            self._arming.clear(step, schedule.topic, id, schedule)
            return self._arming.finish(step, id, schedule, Status.CANCELLED)
        if action is Action.PAUSE and schedule.status is Status.PENDING:
            changed = self._paused(step, schedule)
            if until_ms is not None:
                changed = self._arming.wake(step, id, changed, until_ms)
        elif action is Action.PAUSE and until_ms != schedule.until_ms:
            changed = self._arming.wake(step, id, schedule, until_ms)
        elif action is Action.RESUME and schedule.status is Status.PAUSED:
            changed = replace(self._resumed(step, id, schedule), once=once)
        else:
            return None
        self._arming.count_paused(schedule, changed)
        step.changes[schedule_key(schedule.topic, id)] = encode(changed)
        return changed

    def switch_one_of_many(
        self, step: Step, id: str, schedule: Schedule, bulk: Bulk, holds: Iterable[Hold]
    ) -> Schedule | None:
        """The same by a bulk command, which leaves the schedule paused if another hold keeps it back.

        `holds` are those that stood at the command's turn. A pause ends with the last of them. If the resume
        has ended one hold and another still keeps the schedule back, the schedule passes to that one, without
        the resume's rules for late fires. A schedule that was paused by itself is resumed by a narrower match
        than its hold's, too.
        """
        action, until_ms = bulk.action, None if bulk.until_ms < 0 else bulk.until_ms
        hold = self._holds.keeping(step, id, schedule, holds) if action is not Action.CANCEL else None
        if hold is not None and action is Action.RESUME and (bulk.holds or schedule.held_by):
            passes = schedule.status is Status.PAUSED and (
                schedule.held_by != hold.name or schedule.until_ms != hold.until_ms
            )
            return self._pass_on(step, id, schedule, hold) if passes else None
        if hold is not None and action is Action.PAUSE:
            if until_ms is not None:
                until_ms = None if hold.until_ms is None else max(until_ms, hold.until_ms)
            if schedule.held_by:
                schedule = replace(schedule, held_by=hold.name)
        return self.switch(step, id, schedule, action, until_ms, bulk.once)

    def _pass_on(self, step: Step, id: str, schedule: Schedule, hold: Hold) -> Schedule:
        """Have a paused schedule be kept back by a hold for as long as that stands, and store it."""
        passed = replace(self._arming.wake(step, id, schedule, hold.until_ms), held_by=hold.name)
        step.changes[schedule_key(schedule.topic, id)] = encode(passed)
        return passed

    def _paused(self, step: Step, schedule: Schedule) -> Schedule:
        held = []
        if schedule.recurrence is None:
            held = [(due_of(key), index_of(key)) for key in schedule.pending]
        schedule = self._arming.disarm(step, schedule)
        return replace(schedule, status=Status.PAUSED, held=held, paused_ms=step.now_ms)

    def _resumed(self, step: Step, id: str, schedule: Schedule) -> Schedule:
        """Put everything back where it was: what is overdue by then is decided when it fires."""
        if schedule.recurrence is None:
            schedule = self._arming.arm_all(step, id, schedule, schedule.held)
        elif schedule.next_ms >= 0:
            schedule = self._arming.arm(step, id, schedule, schedule.next_ms)
        if schedule.until_key is not None:
            schedule = self._arming.wake(step, id, schedule, None)
        return replace(schedule, status=Status.PENDING, held=[], resumed_ms=step.now_ms, held_by="")

    def wake(self, step: Step, key: bytes, entry: Wake) -> None:
        """The pause of an id ends by itself, unless a hold keeps it back."""
        stored = self._state.get(step, schedule_key(entry.tenant, entry.id))
        schedule = None if stored is None else decode_schedule(stored)
        assert schedule is not None, "a pause that ends by itself is of a schedule"
        assert schedule.until_key == key, "there is one end of a pause"
        # The entry is out of its wheel already.
        schedule = replace(schedule, until_key=None)
        if hold := self._holds.keeping(step, entry.id, schedule):
            passed = self._pass_on(step, entry.id, schedule, hold)
            self._answers.events.changed(step, entry.id, EventType.PAUSED, passed)
            return
        changed = self.switch(step, entry.id, schedule, Action.RESUME)
        assert changed is not None, "only what is paused has an end of its pause"
        self._answers.events.changed(step, entry.id, EventType.RESUMED, changed)

    # -- trigger and reschedule ---------------------------------------------------------------

    def _trigger(self, step: Step, request: Request, schedule: Schedule) -> None:
        assert request.id is not None
        source = request.source
        schedule = terms.stamped(schedule, request, Outcome.TRIGGERED)
        schedule = self._arming.arm_trigger(step, request.id, schedule, source)
        step.changes[schedule_key(schedule.topic, request.id)] = encode(schedule)
        index = trigger_index(source.partition, source.offset, source.origin)
        fire = named_fire_id(schedule.revision_place, schedule.revision, index, step.now_ms, request.id)
        self._answers.tell(step, request, Outcome.TRIGGERED, schedule, [(step.now_ms, fire)])

    # -- cancel -------------------------------------------------------------------------------

    def _cancel(self, step: Step, request: Request, old: Schedule | None) -> None:
        assert request.id is not None
        if old is None or old.status is Status.FORESTALLED:
            outcome, status = Outcome.UNKNOWN, Status.FORESTALLED
        elif old.status in LIVE or old.status is Status.CANCELLED:
            outcome, status = Outcome.CANCELLED, Status.CANCELLED
        else:
            self._too_late(step, request, old)
            return
        source = request.source
        if old is None:
            schedule = Schedule(
                status,
                0,
                source.topic,
                source.partition,
                source.offset,
                request.timestamp_ms,
                "",
                origin=source.origin,
                created_ms=request.timestamp_ms,
                created_by=kept_actor(request.actor),
                updated_ms=request.timestamp_ms,
                updated_by=kept_actor(request.actor),
            )
        else:
            self._arming.clear(step, source.topic, request.id, old)
            schedule = replace(old, status=status)
            if old.status in LIVE or not newer(old.moment, request.moment):
                # Requests older than the newest cancel are refused as overtaken.
                schedule = replace(
                    schedule,
                    partition=source.partition,
                    offset=source.offset,
                    timestamp_ms=request.timestamp_ms,
                    origin=source.origin,
                )
        # A cancel of what is cancelled changes nothing but how long that is remembered.
        changes = old is None or old.status in LIVE
        schedule = (terms.stamped if changes else terms.noted)(schedule, request, outcome)
        self._answers.tell(
            step, request, outcome, self._arming.finish(step, request.id, schedule, schedule.status)
        )
