"""Carrying out commands about one id; `delaystream.engine.control` has the table of what each does when."""

from __future__ import annotations

from msgspec.structs import replace

from delaystream.codec.envelope import LIVE, Schedule, Status, encode
from delaystream.codec.keys import schedule_key, split_wheel_key
from delaystream.codec.outgoing import Outcome
from delaystream.core.identity import named_fire_id, revision, trigger_index
from delaystream.core.request import Action, Request
from delaystream.engine.answers import Answers, older
from delaystream.engine.arming import Arming
from delaystream.engine.step import Step


class Commands:
    """Cancels, pauses, resumes, triggers and reschedules."""

    def __init__(self, arming: Arming, answers: Answers) -> None:
        self._arming = arming
        self._answers = answers

    def apply(self, step: Step, request: Request, schedule: Schedule | None) -> None:
        """Carry out a command on the schedule that its id names, if there is one, and tell its outcome."""
        action = request.action
        if action is Action.CANCEL:
            self._cancel(step, request, schedule)
        elif schedule is None or schedule.status is Status.FORESTALLED:
            self._answers.tell(step, request, Outcome.UNKNOWN, schedule)
        elif schedule.status not in LIVE:
            self._answers.tell(step, request, Outcome.TOO_LATE, schedule)
        elif action is Action.TRIGGER:
            self._trigger(step, request, schedule)
        elif action is Action.RESCHEDULE:
            self._reschedule(step, request, schedule)
        else:
            assert request.id is not None
            changed = self.switch(step, request.id, schedule, action)
            outcome = Outcome.UNCHANGED
            if changed is not None:
                outcome = Outcome.PAUSED if action is Action.PAUSE else Outcome.RESUMED
            self._answers.tell(step, request, outcome, changed or schedule)

    # -- pause and resume ---------------------------------------------------------------------

    def switch(self, step: Step, id: str, schedule: Schedule, action: Action) -> Schedule | None:
        """Cancel, pause or resume a live schedule, and store it; None when there is nothing to change."""
        if action is Action.CANCEL:
            self._arming.clear(step, schedule.topic, id, schedule)
            return self._arming.finish(step, id, replace(schedule, status=Status.CANCELLED))
        if action is Action.PAUSE and schedule.status is Status.PENDING:
            changed = self._paused(step, schedule)
        elif action is Action.RESUME and schedule.status is Status.PAUSED:
            changed = self._resumed(step, id, schedule)
        else:
            return None
        self._arming.withhold(schedule, changed)
        step.changes[schedule_key(schedule.topic, id)] = encode(changed)
        return changed

    def _paused(self, step: Step, schedule: Schedule) -> Schedule:
        held = []
        if schedule.recurrence is None:
            for key in schedule.pending:
                _, due_ms, _, _, index = split_wheel_key(key)
                held.append((due_ms, index))
        schedule = self._arming.disarm(step, schedule)
        return replace(schedule, status=Status.PAUSED, held=held, paused_ms=step.now_ms)

    def _resumed(self, step: Step, id: str, schedule: Schedule) -> Schedule:
        """Put everything back where it was: what is overdue by then is decided when it fires."""
        if schedule.recurrence is None:
            schedule = self._arming.arm_all(step, id, schedule, schedule.held)
        elif schedule.next_ms >= 0:
            schedule = self._arming.arm(step, id, schedule, schedule.next_ms)
        return replace(schedule, status=Status.PENDING, held=[], resumed_ms=step.now_ms, held_by="")

    # -- trigger and reschedule ---------------------------------------------------------------

    def _trigger(self, step: Step, request: Request, schedule: Schedule) -> None:
        assert request.id is not None
        source = request.source
        schedule = self._arming.arm_trigger(step, request.id, schedule, source)
        step.changes[schedule_key(schedule.topic, request.id)] = encode(schedule)
        index = trigger_index(source.partition, source.offset, source.origin)
        fire = named_fire_id(schedule.revision_place, schedule.revision, index, step.now_ms, request.id)
        self._answers.tell(step, request, Outcome.TRIGGERED, schedule, (step.now_ms,), (fire,))

    def _reschedule(self, step: Step, request: Request, schedule: Schedule) -> None:
        """Set all that says when anew; what is delivered, and where, stays as it is."""
        assert request.id is not None
        id = request.id
        recurrence = request.recurrence
        old = schedule
        schedule = replace(
            self._arming.disarm(step, schedule),
            revision=revision(request.source.partition, request.source.offset),
            revision_origin=request.source.origin,
            recurrence=recurrence,
            next_ms=-1,
            run_count=0,
            skipped=0,
            held=[],
        )
        times: tuple[int, ...] = request.due_ms
        if recurrence is not None:
            recurrence, first_ms, skipped = self._arming.begun(old, recurrence, request.timestamp_ms)
            schedule = replace(schedule, recurrence=recurrence, skipped=skipped)
            times = (first_ms,)
        schedule = self._armed_anew(step, id, schedule, times)
        self._arming.withhold(old, schedule)
        step.changes[schedule_key(schedule.topic, id)] = encode(schedule)
        fires = [
            named_fire_id(schedule.revision_place, schedule.revision, index, due_ms, id)
            for index, due_ms in enumerate(times)
        ]
        self._answers.tell(step, request, Outcome.RESCHEDULED, schedule, times, fires)

    def _armed_anew(self, step: Step, id: str, schedule: Schedule, times: tuple[int, ...]) -> Schedule:
        paused = schedule.status is Status.PAUSED
        if schedule.recurrence is None:
            fires = [(due_ms, index) for index, due_ms in enumerate(times)]
            if paused:
                return replace(schedule, held=fires)
            return self._arming.arm_all(step, id, schedule, fires)
        if paused:
            return replace(schedule, next_ms=times[0])
        return self._arming.arm(step, id, schedule, times[0])

    # -- cancel -------------------------------------------------------------------------------

    def _cancel(self, step: Step, request: Request, old: Schedule | None) -> None:
        assert request.id is not None
        if old is None or old.status is Status.FORESTALLED:
            outcome, status = Outcome.UNKNOWN, Status.FORESTALLED
        elif old.status in LIVE or old.status is Status.CANCELLED:
            outcome, status = Outcome.CANCELLED, Status.CANCELLED
        else:
            self._answers.tell(step, request, Outcome.TOO_LATE, old)
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
            )
        else:
            self._arming.clear(step, source.topic, request.id, old)
            schedule = replace(old, status=status)
            if old.status in LIVE or not older(request, old):
                # What is refused as overtaken is what is older than the newest cancel.
                schedule = replace(
                    schedule,
                    partition=source.partition,
                    offset=source.offset,
                    timestamp_ms=request.timestamp_ms,
                    origin=source.origin,
                )
        self._answers.tell(step, request, outcome, self._arming.finish(step, request.id, schedule))
