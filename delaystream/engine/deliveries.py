"""Delivering a request in the very transaction that accepts it."""

from __future__ import annotations

from delaystream.core.rejection import Code, Rejection
from delaystream.core.request import Header, Request
from delaystream.engine.ports import Destinations
from delaystream.engine.rates import Rates, room
from delaystream.engine.state import PartitionState
from delaystream.engine.step import Step, row_bytes
from delaystream.engine.trouble import Troubles


class Deliveries:
    """Decides whether a request may go out at once, and writes it."""

    def __init__(
        self, state: PartitionState, destinations: Destinations, troubles: Troubles, rates: Rates
    ) -> None:
        self._state = state
        self._rates = rates
        self._destinations = destinations
        self._troubles = troubles

    def out_of_range(self, request: Request) -> Rejection | None:
        """Refuse a partition that the destination does not have, if it is known not to have it."""
        asked = request.destination_partition
        if asked is None:
            return None
        count = self._destinations.partitions(request.destination)
        if count == 0 or asked < count:
            return None
        return Rejection(
            Code.DESTINATION_PARTITION_OUT_OF_RANGE,
            f"destination-partition is {asked}, and {request.destination} has partitions 0 to {count - 1}",
            id=request.id,
            reply_to=request.reply_to,
        )

    def may_deliver(self, step: Step, request: Request, due_ms: int) -> int:
        """Partitions of the destination if a fire can go out in this very transaction, else 0.

        It can when it is due, not too late, and nothing older waits for the destination: what is overdue
        keeps its order, and one that is full is not overtaken.
        """
        if due_ms > step.now_ms:
            return 0
        if (
            request.grace_ms is not None
            and step.now_ms - due_ms > request.grace_ms
            and request.on_late != "fire"
        ):
            return 0
        topic = request.destination
        return 0 if self.waits(step, topic, request.source.topic) else self._destinations.partitions(topic)

    def waits(self, step: Step, topic: str, tenant: str) -> bool:
        """Whether what is due has to wait: for a backlog, the rate, or the end of a trouble."""
        if topic in self._troubles:
            return True
        wheel = self._state.destination(step, topic, tenant)
        head = self._state.heads.head(wheel)
        if head is not None and head <= step.now_ms:
            return True
        if self._rates.active:
            buckets = self._rates.buckets(topic, self._state.lanes[wheel], step.loop_ms)
            return bool(buckets) and not room(buckets, step.loop_ms)
        return False

    def at_once(self, step: Step, request: Request) -> int:
        """How many of a request's fires go out in the accepting transaction; at least, not about."""
        count = sum(bool(self.may_deliver(step, request, due_ms)) for due_ms in request.due_ms)
        if count > 1 and self._rates.active:
            topic, tenant = request.destination, request.source.topic
            if buckets := self._rates.buckets(topic, self._rates.lane(tenant, topic), step.loop_ms):
                count = min(count, room(buckets, step.loop_ms))
        if count and request.id is not None:
            # Of a named request, what finds the step full is stored, the first one too: a pointer each.
            left = max(0, step.max_bytes - step.size_bytes)
            count = min(count, -(-left // row_bytes(request.key, request.value, request.headers)))
        return count

    def write(self, step: Step, request: Request, headers: list[Header], due_ms: int, partitions: int) -> int:
        """Deliver a request in the accepting transaction; the partition that it goes to."""
        topic = request.destination
        asked = request.destination_partition
        step.size_bytes += row_bytes(request.key, request.value, request.headers)
        partition = step.outlet(topic, partitions).write(
            request.destination_key if request.has_destination_key else request.key,
            request.value,
            headers,
            step.now_ms,
            -1 if asked is None else asked,
        )
        step.fired[topic].append(step.now_ms - due_ms)
        if self._rates.active:
            lane = self._rates.lane(request.source.topic, topic)
            self._rates.spend(self._rates.buckets(topic, lane, step.loop_ms), 1, step.loop_ms)
        return partition
