"""How a partition stands, as a row of its changelog: who owns it, and which destinations are parked.

That is knowledge about the world, and no state: nothing is decided by it. It is written for whoever looks at
the changelog from outside, when it differs from what stands there: with the next step or, where there is
none, in one of its own after `status_delay_ms`. A destination that is parked, or is no longer, is an event of
the same transaction: so the events follow from the rows, whoever wrote them, and none is told twice.

A busy partition renews its row every `status_interval_ms`; an idle one writes nothing. Nor does one that
recovers or stops: a hand-over waits for no row.
"""

from __future__ import annotations

from typing import Final

from delaystream.codec.envelope import (
    PARKED_TOLD,
    UNREADABLE,
    Parked,
    PartitionStatus,
    decode_status,
    encode,
)
from delaystream.codec.event import EventType
from delaystream.codec.keys import STATUS
from delaystream.engine.output.events import Events
from delaystream.engine.policy.context import Context
from delaystream.engine.state.step import Step

_REASON_CHARACTERS: Final = 200


class Standing:
    """Puts the row of one partition into steps."""

    def __init__(self, context: Context, events: Events) -> None:
        self._partition = context.partition
        self._settings = context.settings
        self._destinations = context.destinations
        self._health = context.health
        self._events = events
        self._rates = context.tenants.bounds()
        self._stored = _read(context.state.store.get(STATUS))
        #: of what is stored, as this worker knows it; None: not looked at yet
        self._changes: int | None = None
        #: since when something is to be told, the event loop's ms
        self._waits_since: float | None = None

    def overdue(self, loop_ms: float) -> bool:
        """Whether something is to be told, and has waited for a step for as long as it may."""
        if not self._settings.owner or not self._differs():
            self._waits_since = None
            return False
        if self._waits_since is None:
            self._waits_since = loop_ms
        return loop_ms - self._waits_since >= self._settings.status_delay_ms

    def put(self, step: Step) -> None:
        """Write the row, if it differs or is old, and the events since the last one."""
        settings, stored = self._settings, self._stored
        if not settings.owner:
            return
        old = stored is None or step.now_ms - stored.written_ms >= settings.status_interval_ms
        if not (old or self._differs()):
            return
        status = self._now(step.now_ms)
        told = self._events.on and settings.events_topic not in self._health
        if told and not self._destinations.partitions(settings.events_topic):
            return  # it waits: what happened is told together with the row
        step.changes[STATUS] = encode(status)
        if told:
            self._tell(step, status)
        self._stored, self._changes, self._waits_since = status, self._health.changes, None

    def _differs(self) -> bool:
        changes = self._health.changes
        if self._changes == changes:
            return False
        stored = self._stored
        if stored is not None and stored == self._now(stored.written_ms):
            self._changes = changes
            return False
        return True

    def _now(self, now_ms: int) -> PartitionStatus:
        parked = sorted(self._health.parked().items())
        return PartitionStatus(
            self._settings.owner,
            self._settings.host,
            now_ms,
            [
                # Another try may have failed for another reason: that is no news.
                self._as_told(topic) or Parked(topic, trouble.reason[:_REASON_CHARACTERS], trouble.since_ms)
                for topic, trouble in parked[:PARKED_TOLD]
            ],
            len(parked),
            self._rates,
        )

    def _as_told(self, topic: str) -> Parked | None:
        """The row's field of a destination, if it is this worker's row."""
        stored = self._stored
        if stored is None or stored.owner != self._settings.owner:
            return None
        return next((parked for parked in stored.parked if parked.destination == topic), None)

    def _tell(self, step: Step, status: PartitionStatus) -> None:
        before = {} if self._stored is None else {p.destination: p for p in self._stored.parked}
        after = {parked.destination: parked for parked in status.parked}
        for destination, parked in after.items():
            if destination not in before:
                self._events.of_destination(step, EventType.PARKED, self._partition, parked)
        for destination, parked in before.items():
            if destination not in after:
                self._events.of_destination(step, EventType.RELEASED, self._partition, parked)


def _read(stored: bytes | None) -> PartitionStatus | None:
    try:
        return None if stored is None else decode_status(stored)
    except UNREADABLE:
        # Nothing is decided by it: it is written anew.
        return None
