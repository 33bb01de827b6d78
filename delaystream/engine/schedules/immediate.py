"""Delivering a request in the very transaction that accepts it."""

from __future__ import annotations

from msgspec.structs import replace

from delaystream.core.rates import Bucket, room
from delaystream.core.rejection import Code, Rejection
from delaystream.core.request import Header, Request
from delaystream.engine.policy.context import Context
from delaystream.engine.state.step import Route, Step, row_bytes


class Deliveries:
    """Decides whether a request may go out at once, and writes it."""

    def __init__(self, context: Context) -> None:
        self._state = context.state
        self._holds = context.holds
        self._rates = context.rates
        self._destinations = context.destinations
        self._health = context.health

    def out_of_range(self, request: Request) -> Rejection | None:
        """Refuse a partition that the destination does not have, if it is known not to have it."""
        asked = request.destination_partition
        if asked is None:
            return None
        rejection = self.no_partition(request.destination, asked)
        return rejection and replace(rejection, id=request.id, reply_to=request.reply_to)

    def no_partition(self, destination: str, asked: int) -> Rejection | None:
        """Refuse a partition that a destination is known not to have; a negative one stands for none."""
        count = self._destinations.partitions(destination)
        if count == 0 or asked < count:
            return None
        return Rejection(
            Code.DESTINATION_PARTITION_OUT_OF_RANGE,
            f"destination-partition is {asked}, and {destination} has partitions 0 to {count - 1}",
        )

    def route(self, step: Step, request: Request, due_ms: int) -> Route | None:
        """Where a fire goes that can go out in this very transaction; None when it cannot.

        It can when it is due, not too late, no hold meets it and nothing older waits for the destination:
        what is overdue keeps its order, and one that is full is not overtaken.
        """
        if due_ms > step.now_ms or (self._holds.any and self._holds.matching_arrival(request) is not None):
            return None
        if (
            request.grace_ms is not None
            and step.now_ms - due_ms > request.grace_ms
            and request.on_late != "fire"
        ):
            return None
        return self._open(step, request.destination, request.source.topic)

    def waits(self, step: Step, topic: str, tenant: str) -> bool:
        """Whether what is due has to wait: for a backlog, the rate, or the end of a trouble.

        A destination that nobody has looked up yet is not in trouble.
        """
        destinations = self._destinations
        if topic in self._health or (
            not destinations.partitions(topic) and destinations.problem(topic) is not None
        ):
            return True
        wheel = self._state.wheel_number(step, topic, tenant)
        behind = self._behind(topic, tenant, wheel)
        return self._held(step, wheel, self._buckets(step, topic, wheel), behind)

    def _open(self, step: Step, topic: str, tenant: str) -> Route | None:
        routes = step.routes
        where = (topic, tenant)
        # The answer is the same for the whole step: most steps have a thousand requests for one topic.
        route = routes[where] if where in routes else self._found(step, topic, tenant)
        return None if route is None or self._held(step, route.wheel, route.buckets, route.behind) else route

    def _held(self, step: Step, wheel: int, buckets: tuple[Bucket, ...], behind: int | None) -> bool:
        for waiting in (wheel,) if behind is None else (wheel, behind):
            head = self._state.heads.head(waiting)
            if head is not None and head <= step.now_ms:
                return True
        return bool(buckets) and not room(buckets, step.loop_ms)

    def _found(self, step: Step, topic: str, tenant: str) -> Route | None:
        route = None
        if topic not in self._health and (partitions := self._destinations.partitions(topic)):
            wheel = self._state.wheel_number(step, topic, tenant)
            buckets = self._buckets(step, topic, wheel)
            topic_writes, behind = step.writes_to(topic, partitions), self._behind(topic, tenant, wheel)
            route = Route(wheel, topic_writes, buckets, behind)
        step.routes[topic, tenant] = route
        return route

    def _behind(self, topic: str, tenant: str, wheel: int) -> int | None:
        """The wheel that a tenant's entries are in until they are due, where a command has given it another.

        That is the common one or, where the command's rate has ended, the tenant's own.
        """
        if (tenant, topic) not in self._rates.commanded:
            return None
        common = self._state.common_wheel(topic)
        return self._state.own_wheel(topic, tenant) if wheel == common else common

    def _buckets(self, step: Step, topic: str, wheel: int) -> tuple[Bucket, ...]:
        if not self._rates.active:
            return ()
        return self._rates.buckets(topic, self._state.lanes[wheel], step.loop_ms)

    def at_once(self, step: Step, request: Request) -> int:
        """The least number of a request's fires that go out in the accepting transaction."""
        routes = [self.route(step, request, due_ms) for due_ms in request.due_ms]
        opened = [route for route in routes if route is not None]
        count = len(opened)
        if count > 1 and (buckets := opened[0].buckets):
            count = min(count, room(buckets, step.loop_ms))
        if count and request.id is not None:
            # Of a named request, what finds the step full is stored, the first one too: a pointer each.
            left = max(0, step.max_bytes - step.size_bytes)
            count = min(count, -(-left // row_bytes(request.key, request.value, request.headers)))
        return count

    def write(self, step: Step, route: Route, request: Request, headers: list[Header], due_ms: int) -> int:
        """Deliver a request in the accepting transaction; the partition that it goes to."""
        step.size_bytes += row_bytes(request.key, request.value, request.headers)
        asked = request.destination_partition
        partition = route.topic_writes.deliver(request, headers, due_ms, 0, -1 if asked is None else asked)
        if route.buckets:
            self._rates.spend(route.buckets, 1, step.loop_ms)
        return partition
