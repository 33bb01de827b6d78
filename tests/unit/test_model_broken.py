"""The model is worth something: engines that are wrong in one way each do not live as it says."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import pytest
from msgspec.structs import replace

from delaystream.codec.envelope import Schedule, Status
from delaystream.codec.outgoing import Outcome
from delaystream.core.misfire import Verdict, decide_passed
from delaystream.core.recurrence import next_after
from delaystream.engine.fire import recurring as recurring_fires
from delaystream.engine.fire.due import DueFire
from delaystream.engine.fire.named import NamedFires
from delaystream.engine.output.events import Events
from delaystream.engine.schedules import terms
from delaystream.engine.schedules.arming import Arming
from delaystream.engine.schedules.changes import Changes
from delaystream.engine.schedules.commands import Commands
from delaystream.engine.schedules.describe import Descriptions
from delaystream.engine.state.step import Step
from delaystream.query import view
from tests.unit.test_model import live

#: examples that an engine may live through before it must have been found out
PATIENCE = 250
Breakage = Callable[[], AbstractContextManager[Any]]


def resume_forgets_what_passed() -> AbstractContextManager[Any]:
    """A schedule that is resumed begins anew, and nothing tells of the times of its pause."""
    original = Commands._resumed

    def resumed(self: Commands, step: Step, id: str, schedule: Schedule) -> Schedule:
        if schedule.recurrence is not None:
            upcoming_ms = next_after(schedule.recurrence, step.now_ms)
            schedule = replace(schedule, next_ms=schedule.next_ms if upcoming_ms is None else upcoming_ms)
        return original(self, step, id, schedule)

    return patch.object(Commands, "_resumed", resumed)


def resume_takes_one_of_several() -> AbstractContextManager[Any]:
    """Of the due times that a paused schedule holds, one comes back."""
    original = Commands._resumed
    return patch.object(
        Commands,
        "_resumed",
        lambda self, step, id, schedule: original(self, step, id, replace(schedule, held=schedule.held[:1])),
    )


def triggers_count() -> AbstractContextManager[Any]:
    """A triggered fire counts against max-fires."""
    original = NamedFires._fire_trigger

    def fire(self: NamedFires, step: Step, drain: Any, due: DueFire, trigger: Any) -> None:
        counted = replace(due.schedule, run_count=due.schedule.run_count + 1)
        original(self, step, drain, replace(due, schedule=counted), trigger)

    return patch.object(NamedFires, "_fire_trigger", fire)


def runs_are_one_short() -> AbstractContextManager[Any]:
    """The event on a run of skipped times leaves the first of them out."""

    def decide(*arguments: Any) -> Verdict:
        verdict = decide_passed(*arguments)
        run = verdict.skipped
        return replace(verdict, skipped=replace(run, number=run.number - 1) if run is not None else None)

    return patch.object(recurring_fires, "decide_passed", decide)


def misses_are_silent() -> AbstractContextManager[Any]:
    """Nothing is told of what was missed, skipped or dropped."""
    return patch.object(Events, "passed", lambda *_, **__: None)


def history_is_not_bounded() -> AbstractContextManager[Any]:
    """It grows with every fire."""
    return patch.object(Arming, "remembered", lambda self, history, fire: [*history, fire])


def a_new_definition_remembers_no_misses() -> AbstractContextManager[Any]:
    """What it does not decide on any more is told and counted, and is not in the history."""
    original = Changes.owe

    def owe(self: Changes, step: Step, id: str, old: Schedule) -> Schedule:
        return replace(original(self, step, id, old), history=old.history)

    return patch.object(Changes, "owe", owe)


def replaced_times_are_not_counted() -> AbstractContextManager[Any]:
    """What a change does not decide on any more is told and remembered, and is not in the count."""
    original = Changes.owe

    def owe(self: Changes, step: Step, id: str, old: Schedule) -> Schedule:
        return replace(original(self, step, id, old), missed_count=old.missed_count)

    return patch.object(Changes, "owe", owe)


def an_outage_begins_anew() -> AbstractContextManager[Any]:
    """After a fire that was late the next one is counted from now, and those between are lost."""

    def decide(recurrence: Any, scheduled_ms: int, now_ms: int, *rest: Any) -> Verdict:
        verdict = decide_passed(recurrence, scheduled_ms, now_ms, *rest)
        return replace(verdict, next_ms=next_after(recurrence, max(now_ms, scheduled_ms)))

    return patch.object(recurring_fires, "decide_passed", decide)


def pause_leaves_the_fire() -> AbstractContextManager[Any]:
    """A paused schedule's entry stays in its wheel."""
    return patch.object(Arming, "disarm", lambda self, step, schedule: replace(schedule, pending=[]))


def repeats_are_carried_out() -> AbstractContextManager[Any]:
    """A `request-id` means nothing."""
    return patch.object(terms, "answered", lambda *_: None)


def conditions_are_not_heeded() -> AbstractContextManager[Any]:
    """`if-version` means nothing."""
    return patch.object(terms, "_changed", lambda *_: None)


def cancels_remember_no_deploy() -> AbstractContextManager[Any]:
    """A schedule of a deployment that a later one has pruned is accepted again."""
    original = terms.refusal

    def refusal(request: Any, schedule: Schedule | None) -> Any:
        if schedule is not None and schedule.status in (Status.CANCELLED, Status.FORESTALLED):
            schedule = replace(schedule, deploy=-1)
        return original(request, schedule)

    return patch.object(terms, "refusal", refusal)


def triggers_change_no_version() -> AbstractContextManager[Any]:
    """A trigger leaves the version as it was."""
    original = terms.stamped

    def stamped(schedule: Schedule, request: Any, outcome: Outcome) -> Schedule:
        changed = original(schedule, request, outcome)
        return replace(changed, version=schedule.version) if outcome is Outcome.TRIGGERED else changed

    return patch.object(terms, "stamped", stamped)


def pauses_do_not_end() -> AbstractContextManager[Any]:
    """`until` means nothing."""
    return patch.object(Arming, "wake", lambda self, step, id, schedule, until_ms: schedule)


def descriptions_leave_the_end_of_a_pause_out() -> AbstractContextManager[Any]:
    """What is described does not say when a pause ends."""
    original = Descriptions.of

    def of(self: Descriptions, step: Step, id: str, schedule: Schedule) -> dict[str, Any]:
        return original(self, step, id, replace(schedule, until_key=None))

    return patch.object(Descriptions, "of", of)


def descriptions_tell_runs_as_fires() -> AbstractContextManager[Any]:
    """What was missed and skipped has a fire id in a description."""
    return patch.object(view, "RUNS", ())


BREAKAGES: list[Breakage] = [
    resume_forgets_what_passed,
    resume_takes_one_of_several,
    triggers_count,
    runs_are_one_short,
    misses_are_silent,
    history_is_not_bounded,
    a_new_definition_remembers_no_misses,
    replaced_times_are_not_counted,
    an_outage_begins_anew,
    pause_leaves_the_fire,
    repeats_are_carried_out,
    conditions_are_not_heeded,
    cancels_remember_no_deploy,
    triggers_change_no_version,
    pauses_do_not_end,
    descriptions_leave_the_end_of_a_pause_out,
    descriptions_tell_runs_as_fires,
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda breakage: breakage.__name__)
def test_a_broken_engine_does_not_live_as_the_model_says(breakage: Breakage) -> None:
    with breakage(), pytest.raises((AssertionError, BaseExceptionGroup)):
        live(PATIENCE)
