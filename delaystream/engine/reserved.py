"""What the contract has and the engine does not carry out: refused here, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from delaystream.codec.names import PREFIX
from delaystream.core.rejection import Code, Rejection
from delaystream.core.request import Action, Request

RESERVED: Final = frozenset({
    "coordinates", "match-key", "match-new", "match-anonymous",
})  # fmt: skip
"""Names of headers and of actions."""

# Naming a member through its class is slow (Python 3.11).
_SCHEDULE: Final = Action.SCHEDULE


def refusal(request: Request) -> Rejection | None:
    """Why a request is refused that asks for what the engine does not carry out; None where it does all."""
    if request.action is _SCHEDULE:
        return None
    for name in _asked(request):
        if name in RESERVED:
            what = f"{PREFIX}{name} is given"
            return Rejection(
                Code.NOT_SUPPORTED,
                f"{what}, which this version knows and does not carry out; expected a request without it.",
                request.id,
                request.reply_to,
            )
    return None


def _asked(request: Request) -> Iterator[str]:
    """What a request asks for of all that may be in `RESERVED`."""
    yield from _given(("coordinates", request.subject))
    if (match := request.match) is not None:
        yield from _given(
            ("match-key", match.key),
            ("match-new", match.arriving or None),
            ("match-anonymous", match.anonymous or None),
        )


def _given(*asked: tuple[str, object]) -> Iterator[str]:
    return (name for name, value in asked if value is not None)
