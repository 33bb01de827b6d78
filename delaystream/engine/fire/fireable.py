"""Since when due entries could be fired, and why others cannot be; for metrics, not for decisions.

An event is on time when it is fired as soon as it can be. Its rate, a hold, or a destination that cannot be
written to may keep it beyond its due time. That wait is another state than being late, and ends the moment
that nothing keeps it any more.

A restart forgets when a destination's trouble or a rate's wait ended. What waited for these counts from its
due time then, until the next such wait.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from delaystream.engine.observer import Wait
from delaystream.engine.policy.context import Context


class Fireable:
    """The wheels of one partition; times in ms since the epoch, ``loop_ms`` by the event loop."""

    def __init__(self, context: Context) -> None:
        self._state = context.state
        self._health = context.health
        self._rates = context.rates
        self._holds = context.holds
        #: due times of the earliest entries that the step in hand may take out, by wheel
        self._in_hand: dict[int, int] = {}

    def take(self, wheels: Sequence[int]) -> None:
        """The step in hand drains these wheels: until it is committed, what is due in them is not fired."""
        head = self._state.heads.head
        self._in_hand = {wheel: due_ms for wheel in wheels if (due_ms := head(wheel)) is not None}

    def committed(self) -> None:
        """The step in hand is committed, or was empty."""
        self._in_hand = {}

    def since_ms(self, wheel: int, now_ms: int, loop_ms: float) -> int:
        """Since when nothing keeps a wheel as such from being drained; 0: nothing ever has.

        `now_ms` while its destination is in trouble: an attempt then is made as soon as it may be.
        """
        state, health = self._state, self._health
        topic = state.destinations[wheel]
        if topic in health:
            return now_ms
        since_ms = health.recovered_ms(topic)
        if name := state.withheld_by[wheel]:
            if wheel not in state.kept_until_ms:
                # Of an earlier life: where nothing tells when its hold ended, it is as if that were now.
                ended_ms = self._holds.ended_ms(name)
                state.kept_until_ms[wheel] = now_ms if ended_ms is None else ended_ms
            since_ms = max(since_ms, state.kept_until_ms[wheel])
        if self._rates.active:
            opened_at = self._rates.opened_at(topic, state.lanes[wheel], loop_ms)
            if opened_at is not None:
                since_ms = max(since_ms, now_ms - max(0, int(loop_ms - opened_at)))
        return since_ms

    def overdue(self, now_ms: int, loop_ms: float) -> Mapping[tuple[str, Wait], int]:
        """All that is due and not fired, for `Observer.overdue`."""
        state = self._state
        heads = dict(state.heads.all())
        for wheel, due_ms in self._in_hand.items():
            if wheel:
                heads[wheel] = min(due_ms, heads.get(wheel, due_ms))
        found: dict[tuple[str, Wait], int] = {}
        ahead = [
            (due_ms, wheel)
            for wheel, due_ms in heads.items()
            if due_ms >= now_ms and not state.heads.is_withheld(wheel)
        ]
        if ahead:
            due_ms, wheel = min(ahead)
            found[state.destinations[wheel], Wait.FIREABLE] = due_ms
        for wheel, due_ms in heads.items():
            if due_ms >= now_ms:
                continue
            wait, since_ms = self._wait(wheel, now_ms, loop_ms), due_ms
            if wait is Wait.FIREABLE:
                arrived_ms = state.arrived_ms.get(wheel, 0)
                since_ms = max(due_ms, arrived_ms, self.since_ms(wheel, now_ms, loop_ms))
            of = state.destinations[wheel], wait
            found[of] = min(since_ms, found.get(of, since_ms))
        return found

    def _wait(self, wheel: int, now_ms: int, loop_ms: float) -> Wait:
        state, topic = self._state, self._state.destinations[wheel]
        if state.heads.is_withheld(wheel):
            return Wait.HOLD
        if topic in self._health:
            return Wait.PARKED
        if self._rates.active:
            closed = self._rates.closed_until(topic, state.lanes[wheel], loop_ms) is not None
            if closed:
                return Wait.RATE
        return Wait.FIREABLE
