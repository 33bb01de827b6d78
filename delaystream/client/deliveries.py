"""What a consumer gets: a delivered record, with the headers of a delivery understood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from delaystream.client.timing import aware, length
from delaystream.codec import names, outgoing
from delaystream.core.request import Header

_MOST_DIGITS = 18


@dataclass(frozen=True)
class Delivery:
    """A record read from a destination; None where it is not a delivery."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]
    schedule_id: str | None
    fire_id: str | None
    due_ms: int | None
    fired_ms: int | None

    @classmethod
    def of(
        cls,
        place: tuple[str, int, int],
        timestamp_ms: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header],
    ) -> Self:
        """The record at `place`: topic, partition, offset.

        Where a delivery was itself delivered from a delivery, the last header of each name is ours.
        """
        ours = {name: text for name, text in headers if text is not None and name.startswith(names.PREFIX)}
        return cls(
            *place,
            timestamp_ms=timestamp_ms,
            key=key,
            value=value,
            headers=headers,
            schedule_id=_text(ours.get(outgoing.SCHEDULE_ID)),
            fire_id=_text(ours.get(outgoing.FIRE_ID)),
            due_ms=_number(ours.get(outgoing.DUE_AT)),
            fired_ms=_number(ours.get(outgoing.FIRED_AT)),
        )

    @property
    def lateness_ms(self) -> int | None:
        """Fired minus due; None for a record that delaystream did not deliver."""
        return None if self.due_ms is None else self.timestamp_ms - self.due_ms

    @property
    def due_at(self) -> datetime | None:
        """When it was due."""
        return None if self.due_ms is None else aware(self.due_ms)

    @property
    def fired_at(self) -> datetime | None:
        """When the worker decided to deliver it."""
        return None if self.fired_ms is None else aware(self.fired_ms)

    @property
    def lateness(self) -> timedelta | None:
        """How long after it was due it stood on its topic."""
        return None if self.lateness_ms is None else length(self.lateness_ms)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def _number(value: bytes | None) -> int | None:
    # Longer ones are no times of ours; they may come from anybody, and int() takes no thousands of digits.
    return int(value) if value is not None and value.isdigit() and len(value) <= _MOST_DIGITS else None
