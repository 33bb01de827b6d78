"""What is told of a schedule to whoever asks with `describe`: decided in its turn, and nothing changes."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from delaystream.codec.envelope import LIVE, Envelope, Schedule
from delaystream.codec.event import Definition, coordinates, definition_of, next_at_ms
from delaystream.codec.keys import due_of, wheel_of
from delaystream.core.identity import named_fire_id, schedule_id
from delaystream.core.recurrence import CronError, UnknownZoneError, next_after
from delaystream.core.request import Coordinates
from delaystream.engine.arming import Arming
from delaystream.engine.state import PartitionState
from delaystream.engine.step import Step
from delaystream.engine.tenants import Tenants

UPCOMING: Final = 10
"""Times ahead that are told."""


class Descriptions:
    """Tells of schedules as they are at their turn."""

    def __init__(self, state: PartitionState, arming: Arming, tenants: Tenants) -> None:
        self._state = state
        self._arming = arming
        self._tenants = tenants

    def of(self, step: Step, id: str, schedule: Schedule) -> dict[str, Any]:
        """All that is known of a schedule, for a receipt's `schedule`; its payload if the tenant may."""
        told: dict[str, Any] = {
            "revision": schedule.revision,
            "source": schedule_id(schedule.place, schedule.partition, schedule.offset),
            "definition": msgspec.to_builtins(definition_of(schedule)),
            "fire_count": schedule.fire_count,
            "missed_count": schedule.missed_count,
            "triggered": len(schedule.triggers),
            "upcoming_at_ms": self._upcoming(schedule) if schedule.status in LIVE else [],
            "history": [
                {
                    "due_at_ms": fire.due_ms,
                    "fired_at_ms": fire.fired_ms,
                    "fire_id": named_fire_id(
                        schedule.revision_place, fire.revision, fire.index, fire.due_ms, id
                    ),
                }
                for fire in schedule.history
            ],
        }
        optional = {
            "next_at_ms": next_at_ms(schedule),
            "last_fire_id": schedule.last_fire_id,
            "actor": schedule.actor,
            "note": schedule.note,
            "declared_by": schedule.declared_by,
            "deploy": None if schedule.deploy < 0 else schedule.deploy,
            "paused_at_ms": schedule.paused_ms if schedule.status == "paused" else None,
            "until_ms": None if schedule.until_key is None else due_of(schedule.until_key),
            "forget_at_ms": None if schedule.forget_key is None else due_of(schedule.forget_key),
        }
        told |= {name: value for name, value in optional.items() if value is not None}
        if schedule.status in LIVE and self._tenants.of(schedule.topic).describes_payload:
            told["payload"] = _payload(self._state.payload(step, id, schedule))
        return told

    def of_unnamed(
        self, subject: Coordinates, entries: Sequence[tuple[bytes, Envelope]], held_by: str | None
    ) -> dict[str, Any]:
        """All that is known of a request without an id, by what is pending of it, in due order."""
        key, first = entries[0]
        due_ms = [due_of(key) for key, _ in entries]
        definition = Definition(
            self._state.destinations[wheel_of(key)],
            due_ms,
            grace_ms=first.grace_ms if first.grace_ms >= 0 else None,
            tags=first.tags,
        )
        told: dict[str, Any] = {
            "source": coordinates(subject),
            "created_at_ms": first.timestamp_ms,
            "definition": msgspec.to_builtins(definition),
            "on_late": first.on_late,
            "upcoming_at_ms": due_ms[:UPCOMING],
        }
        if held_by is not None:
            told["held_by"] = held_by
        if self._tenants.of(subject.topic).describes_payload:
            told["payload"] = _payload(first)
        return told

    def _upcoming(self, schedule: Schedule) -> list[int]:
        """Scheduled times ahead, without jitter; of a paused schedule those that it would have."""
        if schedule.recurrence is None:
            return [due_ms for due_ms, _ in self._arming.ahead(schedule)][:UPCOMING]
        times: list[int] = []
        time_ms: int | None = schedule.next_ms if schedule.next_ms >= 0 else None
        left = schedule.recurrence.max_fires - schedule.run_count or UPCOMING
        try:
            while time_ms is not None and len(times) < min(UPCOMING, left if left > 0 else UPCOMING):
                times.append(time_ms)
                time_ms = next_after(schedule.recurrence, time_ms)
        except (CronError, UnknownZoneError):
            # A newer release stored it: what was worked out before holds.
            pass
        return times


def _payload(envelope: Envelope) -> dict[str, Any]:
    """Bytes are base64 (RFC 4648), null is Kafka's null; header names that are not UTF-8 are escaped."""
    key = envelope.destination_key if envelope.has_destination_key else envelope.key
    return {
        "key_base64": _base64(key),
        "value_base64": _base64(envelope.value),
        "headers": [
            [name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"), _base64(value)]
            for name, value in envelope.headers
        ],
    }


def _base64(value: bytes | None) -> str | None:
    return None if value is None else b64encode(value).decode()
