"""What becomes of what is late: by its own word, or by that of the resume that let it go."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from delaystream.codec.envelope import Envelope, Schedule
from delaystream.core.misfire import DEFAULT_GRACE_MS
from delaystream.core.request import CatchUp, Lateness
from delaystream.engine.settings import EngineSettings

# Naming a member through its class is slow (Python 3.11).
_NONE: Final = CatchUp.NONE


def lateness(schedule: Schedule, settings: EngineSettings) -> tuple[CatchUp, int]:
    """What a recurring schedule does about times that passed, and how late one may be and still fire, ms.

    Times that had passed when it was resumed go by what the resume said.
    """
    catch_up, grace_ms = schedule.catch_up, schedule.grace_ms
    once = schedule.once
    if once is not None and schedule.next_ms <= schedule.resumed_ms:
        catch_up = catch_up if once.catch_up is None else once.catch_up
        grace_ms = grace_ms if once.grace_ms is None else once.grace_ms
    if grace_ms < 0:
        grace_ms = DEFAULT_GRACE_MS
    if catch_up is _NONE:
        grace_ms = min(grace_ms, settings.misfire_threshold_ms)
    return catch_up, grace_ms


def for_once(payload: Envelope, once: Lateness) -> Envelope:
    """What is for one time, with what a resume says of what is late."""
    grace_ms = payload.grace_ms if once.grace_ms is None else once.grace_ms
    if grace_ms < 0 and once.default_grace_ms is not None:
        grace_ms = once.default_grace_ms
    return replace(
        payload, on_late=payload.on_late if once.on_late is None else once.on_late, grace_ms=grace_ms
    )
