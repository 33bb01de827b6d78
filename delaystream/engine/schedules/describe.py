"""Answers to `describe`: decided in their turn, without any change."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import msgspec

from delaystream.codec.envelope import LIVE, Envelope, Schedule
from delaystream.engine.policy.tenants import Tenants
from delaystream.engine.state.partition_state import PartitionState
from delaystream.engine.state.step import Step
from delaystream.query.view import (
    PastFire,
    PastRun,
    PendingFire,
    ScheduleView,
    view_of,
    view_of_unnamed,
)


class Descriptions:
    """Tells of schedules as they are at their turn."""

    def __init__(self, state: PartitionState, tenants: Tenants) -> None:
        self._state = state
        self._tenants = tenants

    def of(self, step: Step, id: str, schedule: Schedule) -> dict[str, Any]:
        """All that is known of a schedule, for a receipt's `schedule`; its payload if the tenant may."""
        told = _told(view_of(id, schedule))
        if schedule.status in LIVE and self._tenants.of(schedule.topic).describes_payload:
            told["payload"] = _payload(self._state.payload(step, id, schedule))
        return told

    def of_unnamed(
        self, fires: Sequence[PendingFire], entry: Envelope, held_by: str | None
    ) -> tuple[str, dict[str, Any]]:
        """Status and all else that is known of a request without an id, as `view_of_unnamed` has it."""
        view = view_of_unnamed(fires, entry, held_by)
        told = _told_unnamed(view)
        if self._tenants.of(view.source.topic).describes_payload:
            told["payload"] = _payload(entry)
        return view.status, told


def _told(view: ScheduleView) -> dict[str, Any]:
    """A schedule as its description has it; the receipt itself has status and version."""
    told: dict[str, Any] = {
        "revision": view.revision,
        "source": view.source.text,
        "definition": msgspec.to_builtins(view.definition),
        "fire_count": view.fire_count,
        "missed_count": view.missed_count,
        "triggered": view.triggered,
        "upcoming_at_ms": view.upcoming_at_ms,
        "history": [_told_past(past) for past in view.history],
    }
    optional = {
        "next_at_ms": view.next_at_ms,
        "last_fire_id": view.last_fire_id,
        "actor": view.actor,
        "note": view.note,
        "declared_by": view.declared_by,
        "deploy": view.deploy,
        "paused_at_ms": view.paused_at_ms,
        "until_ms": view.until_ms,
        "forget_at_ms": view.forget_at_ms,
    }
    return told | {name: value for name, value in optional.items() if value is not None}


def _told_past(past: PastFire | PastRun) -> dict[str, Any]:
    """An entry of a history by its kind; only what was delivered has a fire id."""
    kind = past.kind.name.lower()
    if isinstance(past, PastRun):
        times = {"from_ms": past.from_ms, "to_ms": past.to_ms, "count": past.count}
        return {"kind": kind, **times, "decided_at_ms": past.decided_at_ms}
    fired = {"due_at_ms": past.due_at_ms, "fired_at_ms": past.fired_at_ms, "fire_id": past.fire_id}
    return {"kind": kind, **fired}


def _told_unnamed(view: ScheduleView) -> dict[str, Any]:
    """The same of a request without an id."""
    told: dict[str, Any] = {
        "source": view.source.text,
        "created_at_ms": view.created_at_ms,
        "definition": msgspec.to_builtins(view.definition),
        "on_late": view.on_late,
        "upcoming_at_ms": view.upcoming_at_ms,
    }
    return told if view.held_by is None else told | {"held_by": view.held_by}


def _payload(envelope: Envelope) -> dict[str, Any]:
    """Bytes are base64 (RFC 4648), null is Kafka's null; header names that are not UTF-8 are escaped."""
    return {
        "key_base64": _base64(envelope.delivered_key),
        "value_base64": _base64(envelope.value),
        "headers": [
            [name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"), _base64(value)]
            for name, value in envelope.headers
        ],
    }


def _base64(value: bytes | None) -> str | None:
    return None if value is None else b64encode(value).decode()
