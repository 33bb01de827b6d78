"""The rules for late fires: their request's, or those of the resume that released them."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from delaystream.codec.envelope import Envelope, Schedule
from delaystream.core.misfire import DEFAULT_GRACE_MS, MisfirePolicy
from delaystream.core.request import CatchUp, Lateness
from delaystream.engine.settings import EngineSettings

# Naming a member through its class is slow (Python 3.11).
_NONE: Final = CatchUp.NONE


def misfire_policy(schedule: Schedule, settings: EngineSettings) -> MisfirePolicy:
    """A recurring schedule's rule for its next time, if that has passed.

    For times that had passed when it was resumed, the fields of the resume come first.
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
    return MisfirePolicy(catch_up, grace_ms)


def for_once(payload: Envelope, once: Lateness) -> Envelope:
    """A payload with the rules for late fires that a resume has."""
    grace_ms = payload.grace_ms if once.grace_ms is None else once.grace_ms
    if grace_ms < 0 and once.default_grace_ms is not None:
        grace_ms = once.default_grace_ms
    return replace(
        payload, on_late=payload.on_late if once.on_late is None else once.on_late, grace_ms=grace_ms
    )
