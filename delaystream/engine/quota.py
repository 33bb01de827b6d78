"""Quotas: how much a tenant may have pending, split over the partitions."""

from __future__ import annotations

from delaystream.core.rejection import Code, Rejection
from delaystream.core.request import Request
from delaystream.engine.deliveries import Deliveries
from delaystream.engine.pending import PendingCounts
from delaystream.engine.step import Step
from delaystream.engine.tenants import Tenants


def share(most: int, partition: int, partitions: int) -> int:
    """One partition's part of a bound; the parts of all partitions add up to it."""
    return most // partitions + (partition < most % partitions)


class Quotas:
    """Refuses what would leave a tenant with more pending than this partition's share of its quota."""

    def __init__(
        self,
        partition: int,
        partitions: int,
        tenants: Tenants,
        counts: PendingCounts,
        deliveries: Deliveries,
    ) -> None:
        self._partition = partition
        self._partitions = partitions
        self._tenants = tenants
        self._counts = counts
        self._deliveries = deliveries
        #: False: there is nothing to ask
        self.any = tenants.have_quotas

    def refusal(self, step: Step, request: Request, freed: int = 0) -> Rejection | None:
        """Why a request has to wait for room, if it does; ``freed`` is what it takes the place of.

        What is delivered at once is never refused, nor is what takes the place of as many: a quota that was
        lowered, or is used up, keeps nobody from replacing a schedule.
        """
        topic = request.source.topic
        most = self._tenants.of(topic).max_pending
        if not most:
            return None
        mine = share(most, self._partition, self._partitions)
        pending = self._counts.of_tenant(topic)
        more = max(1, len(request.due_ms)) - freed
        if more <= max(0, mine - pending):
            return None
        more = self._stored(step, request) - freed
        if more <= max(0, mine - pending):
            return None
        return Rejection(
            Code.QUOTA_EXCEEDED,
            f"{topic} has {pending} fires pending on partition {self._partition}, and the request would add "
            f"{more}; expected at most {mine}, the partition's share of max_pending = {most}",
            id=request.id,
            reply_to=request.reply_to,
        )

    def _stored(self, step: Step, request: Request) -> int:
        """How many of a request's fires do not go out at once."""
        may_deliver = self._deliveries.may_deliver
        if not request.due_ms:
            return 1  # the next one of a recurring schedule
        return sum(not may_deliver(step, request, due_ms) for due_ms in request.due_ms)
