"""The one outcome of a request about an id: its receipt, if it asked for one, and its event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from delaystream.codec.envelope import Answered, Schedule
from delaystream.codec.event import EventType
from delaystream.codec.outgoing import Outcome
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
        due_ms: Sequence[int] = (),
        fire_ids: Sequence[str] = (),
        at_once: int | None = None,
    ) -> None:
        """Tell the outcome, with the schedule as it is now and the fires that it has been given.

        The last fire is told to a command that came too late, as the one that won.
        """
        won = schedule.last_fire_id if schedule is not None and outcome is _TOO_LATE else None
        no_receipt = None
        # Most ask for none.
        if request.reply_to is not None or request.no_receipt is not None:
            no_receipt = self._letters.receipt(
                step, request, outcome, due_ms, fire_ids, won, schedule, at_once=at_once
            )
        if self.events.on:
            triggered = outcome is _TRIGGERED
            self.events.answered(
                step,
                request,
                _EVENTS[outcome],
                schedule,
                fire_ids[0] if triggered else won,
                due_ms[0] if triggered else None,
                no_receipt,
            )

    def reply(
        self,
        step: Step,
        request: Request,
        outcome: Outcome,
        schedule: Schedule | None,
        described: dict[str, object] | None = None,
    ) -> None:
        """Tell the outcome to whoever asked, and nobody else: nothing has happened."""
        self._letters.receipt(step, request, outcome, schedule=schedule, described=described)

    def repeat(self, step: Step, request: Request, schedule: Schedule, before: Answered) -> None:
        """Tell the outcome again of a request that was carried out before."""
        outcome = Outcome(before.outcome)
        no_receipt = self._letters.receipt(step, request, outcome, schedule=schedule, repeated=True)
        self.events.answered(step, request, EventType.REPEATED, schedule, no_receipt=no_receipt)
