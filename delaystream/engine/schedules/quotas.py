"""Quotas: how much a tenant may have pending, and remembered, split over the partitions."""

from __future__ import annotations

from delaystream.codec.envelope import Schedule
from delaystream.core.rejection import Code, Rejection
from delaystream.core.request import Action, Request
from delaystream.engine.policy.context import Context
from delaystream.engine.schedules.immediate import Deliveries
from delaystream.engine.state.step import Step


def share(most: int, partition: int, partitions: int) -> int:
    """One partition's part of a bound; the parts of all partitions add up to it."""
    return most // partitions + (partition < most % partitions)


class Quotas:
    """Refuses what would leave a tenant with more pending than this partition's share of its quota."""

    def __init__(self, context: Context, deliveries: Deliveries) -> None:
        self._partition = context.partition
        self._partitions = context.settings.partitions
        self._most_cancels = context.settings.max_remembered_cancels
        self._tenants = context.tenants
        self._counts = context.state.counts
        self._deliveries = deliveries
        #: False: there is nothing to ask
        self.any = context.tenants.have_quotas

    def refusal(
        self, step: Step, request: Request, old: Schedule | None = None, *, paused: bool = False
    ) -> Rejection | None:
        """A rejection if a request finds no room for its fires; ``old`` is the schedule that it replaces.

        Requests that are delivered at once are never refused. A schedule may always be replaced by one with
        as many fires, even after the quota was lowered or used up.
        """
        room = self._room(request.source.topic)
        if room is None or max(1, len(request.due_ms)) <= room:
            return None
        # Of a recurring schedule, the next one.
        count = len(request.due_ms) or 1
        at_once = 0 if paused else self._deliveries.at_once(step, request)
        more = count - at_once - (_entries(old) if old is not None else 0)
        return self._judge(request, room, more)

    def command_refusal(self, step: Step, request: Request, schedule: Schedule) -> Rejection | None:
        """Why a command has to wait for room, if it does: those that leave more pending than there was."""
        room = self._room(request.source.topic)
        if room is None:
            return None
        if request.action is Action.RESCHEDULE or request.action is Action.UPDATE:
            # The fires that were triggered stay.
            recurs = request.timing is not None and request.timing.recurs
            count = len(request.due_ms) or int(recurs)
            more = count - (_entries(schedule) - len(schedule.triggers)) if count else 0
        elif request.action is Action.TRIGGER:
            more = int(self._deliveries.waits(step, schedule.destination, schedule.topic))
        else:
            more = 0
        return self._judge(request, room, more)

    def cancel_refusal(self, request: Request) -> Rejection | None:
        """Why a cancel of an id that nobody knows cannot be remembered; None where it can."""
        topic, most = request.source.topic, self._most_cancels
        mine = max(1, share(most, self._partition, self._partitions))
        count = self._counts.forestalled(topic)
        if count < mine:
            return None
        return Rejection(
            Code.TOO_MANY_CANCELS,
            f"{topic} has {count} cancels of unknown ids remembered on partition {self._partition}; expected "
            f"fewer than {mine}, the partition's share of max_remembered_cancels = {most}",
            id=request.id,
            reply_to=request.reply_to,
        )

    def _room(self, topic: str) -> int | None:
        """How many more there is room for on this partition, below 0 for too many; None: no bound."""
        most = self._tenants.of(topic).max_pending
        return (
            share(most, self._partition, self._partitions) - self._counts.of_tenant(topic) if most else None
        )

    def _judge(self, request: Request, room: int, more: int) -> Rejection | None:
        if more <= max(0, room):
            return None
        topic = request.source.topic
        most = self._tenants.of(topic).max_pending
        mine = share(most, self._partition, self._partitions)
        return Rejection(
            Code.QUOTA_EXCEEDED,
            f"{topic} has {mine - room} fires pending on partition {self._partition}, and the request would "
            f"add {more}; expected at most {mine}, the partition's share of max_pending = {most}",
            id=request.id,
            reply_to=request.reply_to,
        )


def _entries(schedule: Schedule) -> int:
    """The number of fires that a schedule has pending, or would have if it were not paused."""
    return len(schedule.pending) + len(schedule.triggers) + schedule.paused_fires
