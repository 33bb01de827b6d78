"""The one outcome of a request about an id: its receipt, if it asked for one, and its event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from delaystream.codec.envelope import Answered, Schedule
from delaystream.codec.event import EventType
from delaystream.codec.outgoing import Answer, Outcome, ScheduleStatus
from delaystream.core.request import Request
from delaystream.engine.output.events import Events
from delaystream.engine.output.letters import Letters
from delaystream.engine.state.step import Step

# Naming a member through its class, or looking it up by its value, is slow (Python 3.11).
_EVENTS: Final[dict[Outcome, EventType]] = {
    outcome: EventType(outcome.value)
    for outcome in Outcome
    if outcome not in (Outcome.DESCRIBED, Outcome.RATE_SET, Outcome.NO_MATCH)
}
_TOO_LATE: Final = Outcome.TOO_LATE
_TRIGGERED: Final = Outcome.TRIGGERED


class Answers:
    """Tells what became of requests."""

    def __init__(self, letters: Letters, events: Events) -> None:
        self._letters = letters
        self.events = events

    def tell(
        self,
        step: Step,
        request: Request,
        outcome: Outcome,
        schedule: Schedule | None,
        fires: Sequence[tuple[int, str]] = (),
        at_once: int | None = None,
    ) -> None:
        """Tell the outcome, with the schedule as it is now and its new fires: (due_ms, fire id) of each.

        The last fire is told to a command that came too late, as the one that won.
        """
        won = schedule.last_fire_id if schedule is not None and outcome is _TOO_LATE else None
        if request.reply_to is None:
            no_receipt = self._letters.unanswered(step, request.no_receipt)
        else:
            answer = Answer(outcome, fires, schedule=_status(schedule), won=won, at_once=at_once)
            no_receipt = self._letters.receipt(step, request, answer)
        if self.events.on:
            fire = fires[0] if outcome is _TRIGGERED else None if won is None else (None, won)
            self.events.answered(step, request, _EVENTS[outcome], schedule, fire, no_receipt)

    def reply(
        self,
        step: Step,
        request: Request,
        outcome: Outcome,
        schedule: Schedule | None,
        described: dict[str, object] | None = None,
    ) -> None:
        """Tell the outcome to whoever asked, and nobody else: nothing has happened."""
        self._letters.receipt(step, request, Answer(outcome, schedule=_status(schedule), described=described))

    def repeat(self, step: Step, request: Request, schedule: Schedule, before: Answered) -> None:
        """Tell the outcome again of a request that was carried out before."""
        outcome = Outcome(before.outcome)
        no_receipt = self._letters.receipt(
            step, request, Answer(outcome, schedule=_status(schedule), repeated=True)
        )
        self.events.answered(step, request, EventType.REPEATED, schedule, no_receipt=no_receipt)


def _status(schedule: Schedule | None) -> ScheduleStatus | None:
    if schedule is None:
        return None
    return ScheduleStatus(schedule.status, schedule.version or None, schedule.until_ms)
