"""What the contract has and the engine does not carry out: refused here, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from delaystream.codec.names import PREFIX
from delaystream.core.recurrence import NO_TIMING
from delaystream.core.rejection import Code, Rejection
from delaystream.core.request import NO_TERMS, Action, Request

RESERVED: Final = frozenset({
    "update", "describe", "rate", "note", "until", "status", "if-version", "request-id", "declared-by",
    "deploy", "resume: lateness", "reschedule: bounds",
})  # fmt: skip
"""Names of headers and of actions, and what two older commands could not do.

`resume: lateness` is a resume with `catch-up`, `on-late` or `grace`; `reschedule: bounds` is a reschedule
that changes how a schedule recurs and says neither `every` nor `cron`.
"""

_WORDED: Final = {
    "update": f"{PREFIX}action is 'update'",
    "describe": f"{PREFIX}action is 'describe'",
    "rate": f"{PREFIX}action is 'rate'",
    "resume: lateness": f"{PREFIX}catch-up, -on-late or -grace is given with the action 'resume'",
    "reschedule: bounds": f"{PREFIX}action is 'reschedule' without a delay, at, every or cron",
}
# Naming a member through its class is slow (Python 3.11).
_SCHEDULE: Final = Action.SCHEDULE
_YOUNG: Final = (Action.UPDATE, Action.DESCRIBE, Action.RATE)


def refusal(request: Request) -> Rejection | None:
    """Why a request is refused that asks for what the engine does not carry out; None where it does all."""
    if request.action is _SCHEDULE and request.terms is NO_TERMS and request.status is None:
        return None
    for name in _asked(request):
        if name in RESERVED:
            what = _WORDED.get(name, f"{PREFIX}{name} is given")
            return Rejection(
                Code.NOT_SUPPORTED,
                f"{what}, which this version knows and does not carry out; expected a request without it.",
                request.id,
                request.reply_to,
            )
    return None


def _asked(request: Request) -> Iterator[str]:
    """What a request asks for of all that may be in `RESERVED`."""
    action = request.action
    if action in _YOUNG:
        yield action.value
    if request.terms is not NO_TERMS:
        terms = request.terms
        yield from _given(
            ("note", terms.note),
            ("if-version", terms.if_version),
            ("request-id", terms.request_id),
            ("declared-by", terms.declared_by),
            ("deploy", terms.deploy),
        )
    yield from _given(
        ("until", request.until_ms),
        ("status", request.status),
        ("resume: lateness", request.lateness),
    )
    if (timing := request.timing) is not None and timing != NO_TIMING and not timing.recurs:
        yield "reschedule: bounds"


def _given(*asked: tuple[str, object]) -> Iterator[str]:
    return (name for name, value in asked if value is not None)
