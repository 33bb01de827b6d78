"""A request that changes something, from when it comes in until it is answered.

Whoever records what came of it says so here, and whoever refuses it says why. What nobody has recorded by
the time of the answer is recorded by `delaystream.console.audit.recording`.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final


class Attempt:
    """One request, as far as it is known."""

    def __init__(self) -> None:
        #: whether the audit log has it
        self.recorded = False
        #: whether it only asks, whatever its method says
        self.asks = False
        #: why it was refused
        self.code: str | None = None
        self.request_topic: str | None = None
        #: the id or the coordinates
        self.about: str | None = None
        self.note: str | None = None


ATTEMPT: Final[ContextVar[Attempt | None]] = ContextVar("attempt", default=None)
"""That of the request which is being answered; None: it changes nothing."""


def refused(code: str) -> None:
    """Say why the request that is being answered is refused."""
    if (attempt := ATTEMPT.get()) is not None:
        attempt.code = code


def asks() -> None:
    """Say that the request which is being answered changes nothing: it is recorded where it is refused."""
    if (attempt := ATTEMPT.get()) is not None:
        attempt.asks = True


def recorded() -> None:
    """Say that the audit log has the request that is being answered."""
    if (attempt := ATTEMPT.get()) is not None:
        attempt.recorded = True


def about(request_topic: str | None, about: str | None = None, note: str | None = None) -> None:
    """Say what the request that is being answered is about, as far as that is found out; None: as before."""
    if (attempt := ATTEMPT.get()) is not None:
        attempt.request_topic = request_topic or attempt.request_topic
        attempt.about = about or attempt.about
        attempt.note = note or attempt.note
