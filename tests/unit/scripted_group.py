"""A real aiokafka consumer, alone in a group, whose broker is a script: nothing is sent anywhere."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiokafka
from aiokafka.structs import TopicPartition

from delaystream.adapters.internals.aiokafka import (
    ConsumerProtocolMemberAssignment,
    ConsumerProtocolMemberMetadata,
)
from tests.unit.contracts import patience_s

TOPIC = "requests"
GROUP = "group"
STRATEGY = "one-takes-all"
_NODE = 0
_OFFSET_OUT_OF_RANGE = 1


class Broker:
    """What it answers, and what it was asked."""

    def __init__(self, partitions: int = 2) -> None:
        self.partitions = partitions
        #: whether the topic exists
        self.knows = True
        #: error codes of the next heartbeats and joins; 0 once there are no more
        self.heartbeats: list[int] = []
        self.joins: list[int] = []
        self.joined = 0
        self.left = 0
        #: record batches by partition and offset; what is not there is waited for
        self.batches: dict[tuple[int, int], bytes] = {}
        self.aborted: list[tuple[int, int]] = []
        self.out_of_range: set[int] = set()
        #: of each fetch: least bytes, longest wait, and the offset of each partition
        self.fetches: list[tuple[int, int, dict[int, int]]] = []
        self.more = asyncio.Event()

    @property
    def metadata(self) -> SimpleNamespace:
        partitions = [(0, number, _NODE, [_NODE], [_NODE]) for number in range(self.partitions)]
        return SimpleNamespace(
            API_VERSION=1,
            brokers=[(_NODE, "127.0.0.1", 9, None)],
            controller_id=_NODE,
            topics=[(0, TOPIC, False, partitions) if self.knows else (3, TOPIC, False, [])],
        )

    async def send(self, node_id: int, request: Any, **_: Any) -> SimpleNamespace:
        """Answer a request."""
        assert node_id == _NODE
        words = re.sub("(?<!^)(?=[A-Z])", "_", type(request).__name__.removesuffix("Request"))
        called = getattr(self, words.lower())(request)
        answer: SimpleNamespace = await called if asyncio.iscoroutine(called) else called
        return answer

    def find_coordinator(self, _: Any) -> SimpleNamespace:
        return SimpleNamespace(error_code=0, coordinator_id=_NODE)

    def join_group(self, request: Any) -> SimpleNamespace:
        error = self.joins.pop(0) if self.joins else 0
        if not error:
            self.joined += 1
        [(name, metadata)] = request.prepare({11: (5, 5)}).group_protocols
        member = f"member-{self.joined}"
        return SimpleNamespace(
            API_VERSION=5,
            error_code=error,
            member_id=member,
            generation_id=self.joined,
            group_protocol=name,
            leader_id=member,
            members=[(member, None, metadata)],
        )

    def sync_group(self, request: Any) -> SimpleNamespace:
        [(_, assignment)] = request.prepare({14: (3, 3)}).group_assignment
        return SimpleNamespace(error_code=0, member_assignment=assignment)

    def offset_fetch(self, _: Any) -> SimpleNamespace:
        """Nothing is committed."""
        return SimpleNamespace(error_code=0, topics=[])

    def heartbeat(self, _: Any) -> SimpleNamespace:
        return SimpleNamespace(error_code=self.heartbeats.pop(0) if self.heartbeats else 0)

    def leave_group(self, _: Any) -> SimpleNamespace:
        self.left += 1
        return SimpleNamespace(error_code=0)

    async def fetch(self, request: Any) -> SimpleNamespace:
        struct = request.prepare({1: (4, 4)})
        wanted = {p: offset for _, partitions in struct.topics for p, offset, _ in partitions}
        self.fetches.append((struct.min_bytes, struct.max_wait_time, wanted))
        while True:
            answers = [
                (p, _OFFSET_OUT_OF_RANGE if p in self.out_of_range else 0, 9, 9, 0, self.aborted, -1, data)
                for p, offset in wanted.items()
                if (data := self.batches.get((p, offset), b"")) or p in self.out_of_range
            ]
            if answers:
                return SimpleNamespace(API_VERSION=11, topics=[(TOPIC, answers)])
            self.more.clear()
            await self.more.wait()

    def put(self, partition: int, offset: int, batches: bytes) -> None:
        """Have something to fetch."""
        self.batches[partition, offset] = batches
        self.more.set()


class OneTakesAll:
    """An assignment strategy that notes what it is asked."""

    name = STRATEGY

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.members: list[str] = []
        self.told = b""

    def metadata(self, topics: Iterable[str]) -> Any:
        self.calls.append("metadata")
        return ConsumerProtocolMemberMetadata(0, sorted(topics), b"of the member")

    def assign(self, cluster: Any, members: Any) -> Any:
        self.calls.append("assign")
        assert cluster.partitions_for_topic("unknown") is None
        all_partitions = sorted(cluster.partitions_for_topic(TOPIC) or ())
        assert {m: (each.subscription, each.user_data) for m, each in members.items()} == dict.fromkeys(
            members, ([TOPIC], b"of the member")
        )
        return {
            member: ConsumerProtocolMemberAssignment(0, [(TOPIC, all_partitions)], b"of the leader")
            for member in members
        }

    def on_assignment(self, assignment: Any) -> None:
        self.calls.append("on_assignment")
        self.told = assignment.user_data
        assert {tp.topic for tp in assignment.partitions()} <= {TOPIC}


class Listener(aiokafka.ConsumerRebalanceListener):  # type: ignore[misc]
    """Notes what the consumer tells, beside what the strategy was asked."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls
        self.assigned = asyncio.Event()
        self.take_up: Callable[[], None] = lambda: None

    async def on_partitions_revoked(self, revoked: Any) -> None:
        self.calls.append("revoked")

    async def on_partitions_assigned(self, assigned: Any) -> None:
        self.calls.append("assigned")
        self.take_up()
        self.assigned.set()


class Group:
    """The consumer, the script of its broker, and what it went through."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.strategy = OneTakesAll()
        self.listener = Listener(self.strategy.calls)
        self.consumer = aiokafka.AIOKafkaConsumer(
            bootstrap_servers="127.0.0.1:9",
            group_id=GROUP,
            group_instance_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            heartbeat_interval_ms=20,
            session_timeout_ms=10_000,
            retry_backoff_ms=10,
            fetch_max_wait_ms=123,
            partition_assignment_strategy=[self.strategy],
        )
        client = self.consumer._client

        async def bootstrap() -> None:
            client.cluster.update_metadata(broker.metadata)

        async def ready(*_: Any, **__: Any) -> bool:
            return True

        def up_to_date() -> asyncio.Future[bool]:
            client.cluster.update_metadata(broker.metadata)
            done = asyncio.get_running_loop().create_future()
            done.set_result(True)
            return done

        client.bootstrap, client.ready, client.send = bootstrap, ready, broker.send
        client.force_metadata_update = up_to_date

    def subscribe(self) -> None:
        """Join."""
        self.consumer.subscribe([TOPIC], listener=self.listener)

    async def assigned(self) -> None:
        """Wait until an assignment was taken up; the next call waits for the next one."""
        await self.listener.assigned.wait()
        self.listener.assigned.clear()

    def partitions(self) -> Sequence[TopicPartition]:
        return [TopicPartition(TOPIC, number) for number in range(self.broker.partitions)]


@asynccontextmanager
async def started(broker: Broker | None = None) -> AsyncIterator[Group]:
    """A consumer that has started and has not joined; it is stopped in the end."""
    group = Group(broker or Broker())
    await group.consumer.start()
    try:
        yield group
    finally:
        async with asyncio.timeout(patience_s.get()):
            await group.consumer.stop()


@asynccontextmanager
async def joined(broker: Broker | None = None) -> AsyncIterator[Group]:
    """A consumer that has joined."""
    async with started(broker) as group:
        group.subscribe()
        await group.assigned()
        yield group
