"""The outcome of a request that a console has written."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from delaystream.codec.envelope import Schedule
from delaystream.core.rejection import USED_UP, Code

RETRIED: Final = USED_UP | {Code.INTERNAL_ERROR}
"""Refusals that a later attempt may not meet: the same key asks anew."""


class Stage(StrEnum):
    """How far a request is."""

    BEGUN = "begun"
    """About to be sent. Where a console ended then, nobody knows whether it was."""
    SENT = "sent"
    """It stands on its topic, and no receipt is there yet."""
    DECIDED = "decided"
    """A worker has decided on it."""
    FAILED = "failed"
    """Kafka did not take it; a later attempt may."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One request, and how far it is."""

    request_id: str
    request_topic: str
    action: str
    about: str
    """The id or the coordinates; empty where it is about several."""
    asked_ms: int
    stage: Stage = Stage.BEGUN
    source: str | None = None
    """Where it stands: `topic/partition/offset`."""
    receipt: Mapping[str, Any] | None = None
    """The worker's answer, as in docs/headers.md."""
    position: str | None = None
    """How far a copy must have read to show the outcome (`delaystream.console.writing.positions`)."""
    problem: str | None = None
    """Why it failed, in a sentence."""
    shown: bool = False
    """Whether this console shows it. It is not stored."""

    @property
    def outcome(self) -> str | None:
        """By its receipt; None while there is none."""
        return None if self.receipt is None else str(self.receipt.get("outcome", ""))

    @property
    def code(self) -> str | None:
        """Why it was rejected."""
        return None if self.receipt is None else self.receipt.get("code")


def remembered(progress: Progress, schedule: Schedule) -> Progress:
    """A request whose outcome was not stored, with what its schedule remembers of it."""
    if progress.receipt is not None:
        return progress
    known = next((one for one in schedule.answered if one.request_id == progress.request_id), None)
    if known is None:
        return progress
    receipt = {"outcome": known.outcome, "version": known.version, "id": progress.about}
    return replace(progress, stage=Stage.DECIDED, receipt=receipt, problem=None, shown=True)


class WritingError(Exception):
    """Why nothing was written; the message is a sentence."""


class Busy(WritingError):
    """As many requests are under way as may be."""


class KeyReused(WritingError):
    """The idempotency key came with another request before."""


class ReadOnly(WritingError):
    """This console writes nothing."""


class UnknownTopic(WritingError):
    """The topic is none that requests are read from."""
