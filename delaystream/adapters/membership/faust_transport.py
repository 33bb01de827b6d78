"""Faust's transport, changed to carry whole fetched batches instead of single records.

Faust moves a record through four tasks and queues (6-7 thousand a second and core). Here one Faust message
is one `Fetched`: up to some thousand records of one topic
partition. Everything else about membership is Faust's: its consumer thread, its rebalance, its services.

Positions never come from the group's committed offsets. A partition is paused when it is assigned and starts
to flow when its processor has recovered and seeks.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol, cast

import aiokafka
from aiokafka.errors import InconsistentGroupProtocolError, KafkaError
from faust.types import TP, Message

from delaystream.adapters.internals import aiokafka as aiokafka_internals
from delaystream.adapters.internals import faust as faust_internals
from delaystream.adapters.internals.aiokafka import Heartbeat, Join, Membership
from delaystream.adapters.membership.batch_fetcher import BatchFetcher, Fetched, ReaderSettings
from delaystream.adapters.membership.static_membership import InstanceFenced, holder_of, members_of
from delaystream.adapters.membership.sticky_assignor import StickyAssignor, StrategyRefused
from delaystream.adapters.tasks import end
from delaystream.engine.failures import LogUnavailable
from delaystream.engine.ports import TopicPartition

logger = logging.getLogger(__name__)

#: The URL scheme by which a Faust app chooses this transport.
SCHEME = "delaystream"
_JOIN_MARGIN_MS = 5_000
#: a member is gone within this time after its session timed out
_SESSION_MARGIN_MS = 5_000
#: interval between attempts to join a group that has refused this member
_REFUSED_RETRY_S = 2.0
#: a join that takes this long is told of: without a member that is gone it takes a second or two
_TOLD_AFTER_S = 3.0
#: members that are named when they are waited for, at most
_NAMED_MEMBERS = 10
#: interval between questions about topics that the brokers did not know
_UNKNOWN_RETRY_S = 1.0
faust_internals.register_transport(SCHEME, f"{__name__}:Transport")


class MembershipListener(Protocol):
    """Is informed of rebalances, in the main thread."""

    def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """A generation of the group began; these are all the partitions that this member has in it."""
        ...

    def on_fenced(self, failure: InstanceFenced) -> None:
        """Another member has this one's instance id, and with it all of its partitions."""
        ...

    def on_refused(self, failure: StrategyRefused) -> None:
        """For longer than a session, the group has had members that this one cannot share with."""
        ...


class BatchApp(Protocol):
    """The additional methods that the transport needs of the Faust app."""

    reader: ReaderSettings
    assignment_strategy: StickyAssignor
    membership_listener: MembershipListener


class ConsumerThread(faust_internals.ConsumerThread):
    """The thread that owns the aiokafka consumer; its heartbeats go on while the main loop is busy."""

    def prepare(self) -> None:
        """Start with nothing assigned and nothing confirmed."""
        self.batch_app = cast(BatchApp, self.app)
        self.batches = BatchFetcher(self.batch_app.reader, cast(Consumer, self.consumer).with_room)
        #: false from the first news of a rebalance until its outcome is known
        self.settled = False
        self._confirmed_until = 0.0
        self._confirmed_generation = -1
        #: topics of the group that the brokers did not know at the last question
        self.unknown_topics: frozenset[str] = frozenset()
        self._ask_again_at = 0.0
        #: None until the consumer has started
        self._membership: Membership | None = None

    # -- called from the main thread --------------------------------------------------------------------

    @property
    def membership_confirmed(self) -> bool:
        """True while the broker is known to hold this member's assignment valid.

        A successful heartbeat keeps the session for its timeout, counted from the time of sending. A process
        that was suspended for longer must not rely on its old assignment.
        """
        member = self._membership
        if member is None or not self.settled or time.monotonic() >= self._confirmed_until:
            return False
        return member.generation == self._confirmed_generation and not member.rejoin_needed

    @property
    def failure(self) -> str | None:
        """The part of the client that has ended unreported, as a sentence; None while all is well."""
        return None if self.should_stop else aiokafka_internals.failure(self.client)

    def request_seek(self, partition: TopicPartition, position: int, epoch: int) -> None:
        """Read on from a position, under a new epoch; takes effect in this thread, in order."""
        self.thread_loop.call_soon_threadsafe(self._seek_now, partition, position, epoch)

    def wake(self) -> None:
        """Look again which partitions have room."""
        self.thread_loop.call_soon_threadsafe(self.batches.wake)

    async def fetch(self) -> list[Fetched]:
        """Wait up to a second for batches of partitions that have room; called from the main thread."""
        batches: list[Fetched] = await self.call_thread(self.batches.fetch, self.started_client)
        return batches

    # -- in the consumer thread -------------------------------------------------------------------------

    def _seek_now(self, partition: TopicPartition, position: int, epoch: int) -> None:
        if self.client is not None:
            self.batches.seek(self.client, partition, position, epoch)

    def on_rebalance(self) -> None:
        """Mark the membership as unsettled, before anything else happens in a rebalance."""
        self.settled = False

    def new_client(self) -> aiokafka.AIOKafkaConsumer:
        """Make the consumer. It reads only committed records, and never sets a position by itself."""
        reader = self.batch_app.reader
        rebalance_timeout_ms = max(reader.rebalance_timeout_ms, reader.session_timeout_ms)
        arguments: dict[str, Any] = {
            "heartbeat_interval_ms": reader.heartbeat_interval_ms,
            "max_poll_interval_ms": reader.max_poll_interval_ms,
            # A join may take as long as the slowest member needs. An earlier timeout would only start it
            # again.
            "request_timeout_ms": max(reader.request_timeout_ms, rebalance_timeout_ms + _JOIN_MARGIN_MS),
            "max_partition_fetch_bytes": reader.partition_fetch_max_bytes,
            **reader.client,
        }
        return aiokafka.AIOKafkaConsumer(
            **arguments,
            group_id=reader.group_id,
            group_instance_id=reader.group_instance_id,
            partition_assignment_strategy=[self.batch_app.assignment_strategy],
            enable_auto_commit=False,
            # Positions are always set. If retention has removed one, that is an alarm, not a reset.
            auto_offset_reset="none",
            isolation_level="read_committed",
            session_timeout_ms=reader.session_timeout_ms,
            rebalance_timeout_ms=rebalance_timeout_ms,
            fetch_max_bytes=reader.fetch_max_bytes,
            fetch_max_wait_ms=reader.busy_fetch_wait_ms,
            check_crcs=True,
        )

    async def on_start(self) -> None:
        """Connect."""
        await super().on_start()
        consumer = self.started_client
        member = Membership(consumer)
        _watch_heartbeats(member, self._confirm)
        if self.batch_app.reader.group_instance_id is not None:
            _watch_identity(member, self._still_ours)
        _watch_strategy(member, self._refused)
        _watch_wait(member, self._still_waiting, self._waited)
        self.batches.adapt(consumer)
        self._membership = member

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Begin a rebalance. The processors keep their partitions until the outcome is known."""
        if not self.app.should_stop:
            await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Pause all assigned partitions until their processors seek; confirm the membership."""
        assert self._membership is not None
        self.batches.hold_all(self.started_client)
        await self._membership.heartbeat()
        self.settled = True
        if not self.app.should_stop:
            await super().on_partitions_assigned(assigned, generation_id)

    def _confirm(self, generation: int, sent_at: float) -> None:
        self._confirmed_generation = generation
        self._confirmed_until = sent_at + self.batch_app.reader.session_timeout_ms / 1000
        self._look_for_topics()

    def _look_for_topics(self) -> None:
        """Ask again for topics that the brokers did not know: they may be back, or a broker was behind.

        Called with each heartbeat, so only while this is a member of the group.
        """
        consumer, now = self.started_client, time.monotonic()
        self.unknown_topics = aiokafka_internals.unknown_topics(consumer)
        if self.unknown_topics and now >= self._ask_again_at:
            self._ask_again_at = now + _UNKNOWN_RETRY_S
            aiokafka_internals.ask_for_topics(consumer)

    def _refused(self, refused_s: float) -> bool:
        """Whether to give up on a group that refuses this member; logs the first refusal."""
        reader = self.batch_app.reader
        failure = StrategyRefused(reader.group_id)
        if not refused_s:
            logger.warning("waiting to join: %s", failure)
        if refused_s * 1000 < reader.session_timeout_ms + _SESSION_MARGIN_MS:
            return False
        self.parent_loop.call_soon_threadsafe(self.batch_app.membership_listener.on_refused, failure)
        return True

    async def _still_waiting(self) -> None:
        """Say what a join waits for: the group answers nobody before all of its members have answered."""
        reader, member = self.batch_app.reader, self._membership
        own = "" if member is None else member.member_id
        try:
            members = await members_of(reader.client, reader.group_id)
        except LogUnavailable as error:
            logger.warning("waiting to join the group %s: %s", reader.group_id, error)
            return
        others = [f"{holder.client_id} on {holder.host}" for _, holder in members if holder.member_id != own]
        logger.info(
            "waiting to join the group %s: the group waits for an answer from each member: %s. A member "
            "that was killed did not leave: the group waits until its session times out, up to %.0f s by "
            "session_timeout_ms here",
            reader.group_id,
            ", ".join(sorted(others)[:_NAMED_MEMBERS]) or "others are about to join",
            reader.session_timeout_ms / 1000,
        )

    def _waited(self, waited_s: float) -> None:
        logger.info("joined the group %s after %.0f s", self.batch_app.reader.group_id, waited_s)

    async def _still_ours(self, member_id: str) -> bool | None:
        """Whether nobody else has this member's instance id; None if the broker does not say."""
        reader = self.batch_app.reader
        instance_id = reader.group_instance_id
        assert instance_id is not None
        try:
            holder = await holder_of(reader.client, reader.group_id, instance_id)
        except LogUnavailable as error:
            logger.warning("cannot check whether the instance id is still ours: %s", error)
            return None
        if holder is None or holder.member_id == member_id:
            return True
        listener = self.batch_app.membership_listener
        self.parent_loop.call_soon_threadsafe(listener.on_fenced, InstanceFenced(instance_id, holder))
        return False


def _watch_heartbeats(member: Membership, confirm: Callable[[int, float], None]) -> None:
    """Record every successful heartbeat: its generation, and when it was sent."""

    def watched(send: Heartbeat) -> Heartbeat:
        async def heartbeat() -> bool:
            sent_at, generation = time.monotonic(), member.generation
            succeeded = await send()
            # A heartbeat also "succeeds" while the group rebalances; then a rejoin is needed.
            if succeeded and generation == member.generation and not member.rejoin_needed:
                confirm(generation, sent_at)
            return succeeded

        return heartbeat

    member.wrap_heartbeat(watched)


def _watch_identity(member: Membership, still_ours: Callable[[str], Awaitable[bool | None]]) -> None:
    """Let a member that the group no longer knows join again only if nobody took its place.

    To aiokafka, a session that timed out and an instance id that another member took look alike. The
    exception is a member that is about to join: the broker refuses it with an error that aiokafka does not
    know (FENCED_INSTANCE_ID).
    """
    known = ""

    def remembered(reset: Callable[[], None]) -> Callable[[], None]:
        def reset_generation() -> None:
            nonlocal known
            known = member.member_id or known
            reset()

        return reset_generation

    def watched(join: Join) -> Join:
        async def join_unless_taken(subscription: Any) -> bool:
            nonlocal known
            if known and not await may_join(known):
                return False
            # From here on the broker may have given us the id, although its answer was lost.
            known = ""
            try:
                return await join(subscription)
            except KafkaError:
                # This check comes before the error reaches the user, because the error does not say who took
                # the place.
                if member.member_id and await may_join(member.member_id) is False:
                    return False
                raise

        return join_unless_taken

    async def may_join(member_id: str) -> bool | None:
        ours = await still_ours(member_id)
        if ours is False:
            # The worker ends soon; until then there is nothing to do here.
            await member.until_closing()
        return ours

    member.wrap_reset(remembered)
    member.wrap_join(watched)


def _watch_strategy(member: Membership, give_up: Callable[[float], bool]) -> None:
    """Repeat a join that the group refuses because of its members, until it is time to give up.

    Such members may be about to leave: one with an instance id is in the group for a session timeout after
    its process has ended. The argument of ``give_up`` is how long the group has refused, s.
    """
    since: float | None = None

    def watched(join: Join) -> Join:
        async def join_once_they_left(subscription: Any) -> bool:
            nonlocal since
            try:
                joined = await join(subscription)
            except InconsistentGroupProtocolError:
                now = time.monotonic()
                since = now if since is None else since
                # The worker ends once ``give_up`` says so; until then there is nothing to do here.
                await member.until_closing(None if give_up(now - since) else _REFUSED_RETRY_S)
                return False
            since = None
            return joined

        return join_once_they_left

    member.wrap_join(watched)


def _watch_wait(
    member: Membership, still_waiting: Callable[[], Awaitable[None]], waited: Callable[[float], None]
) -> None:
    """Tell of a join that takes long: once what is waited for, and at its end how long it took, s."""
    began: float | None = None
    told = False

    def watched(join: Join) -> Join:
        async def join_and_tell(subscription: Any) -> bool:
            nonlocal began, told
            since = began = time.monotonic() if began is None else began

            async def tell() -> None:
                nonlocal told
                await asyncio.sleep(since + _TOLD_AFTER_S - time.monotonic())
                told = True
                await still_waiting()

            telling = [] if told else [asyncio.create_task(tell())]
            try:
                joined = await join(subscription)
            finally:
                await end(telling)
            if joined:
                if told:
                    waited(time.monotonic() - since)
                began, told = None, False
            return joined

        return join_and_tell

    member.wrap_join(watched)


class Consumer(faust_internals.Consumer):
    """Hands batches to Faust's conductor; the main thread's side of the consumer."""

    thread: ConsumerThread

    def __init__(self, *arguments: Any, **options: Any) -> None:
        #: Partitions that may be handed out. The main thread writes it, the consumer thread reads it.
        self.with_room: set[TopicPartition] = set()
        self.polled_at = time.monotonic()
        self._last_epoch = 0
        super().__init__(*arguments, **options)

    def new_thread(self) -> ConsumerThread:
        """Make the thread's service."""
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def membership_confirmed(self) -> bool:
        """See :attr:`ConsumerThread.membership_confirmed`."""
        return self.thread.membership_confirmed

    @property
    def failure(self) -> str | None:
        """See :attr:`ConsumerThread.failure`."""
        return self.thread.failure

    @property
    def unknown_topics(self) -> frozenset[str]:
        """Topics of the group that the brokers do not know."""
        return self.thread.unknown_topics

    @property
    def corrupt(self) -> frozenset[TopicPartition]:
        """See :attr:`BatchFetcher.corrupt`."""
        return self.thread.batches.corrupt

    def request_seek(self, partition: TopicPartition, position: int) -> int:
        """Read on from a position; returns the epoch that its batches will carry."""
        self._last_epoch += 1
        self.thread.request_seek(partition, position, self._last_epoch)
        return self._last_epoch

    def give_room(self, partitions: Iterable[TopicPartition]) -> None:
        """Hand out batches of these partitions from now on."""
        before = len(self.with_room)
        self.with_room.update(partitions)
        if len(self.with_room) != before:
            self.thread.wake()

    def take_room(self, partitions: Iterable[TopicPartition]) -> None:
        """Hand out no more batches of these partitions."""
        self.with_room.difference_update(partitions)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Inform Faust of the assignment, then the host."""
        await super().on_partitions_assigned(assigned, generation_id)
        listener = cast(BatchApp, self.app).membership_listener
        listener.on_assigned(frozenset(TopicPartition(tp.topic, tp.partition) for tp in assigned))

    async def hand_out(self, stopping: Callable[[], bool]) -> None:
        """Move batches from the consumer thread to the agent; Faust runs this as a service of its own.

        It ends only with an exception, or because the app stops. The watchdog handles everything else.
        """
        while not stopping():
            self.polled_at = time.monotonic()
            for fetched in await self.thread.fetch():
                await self.callback(_message(fetched, self.app.consumer_generation_id))


def _message(fetched: Fetched, generation: int) -> Message:
    topic, partition = fetched.partition
    return Message(
        topic,
        partition,
        fetched.batch.start if fetched.batch else -1,
        timestamp=0.0,
        timestamp_type=0,
        headers=None,
        key=None,
        value=cast(Any, fetched),
        checksum=None,
        serialized_key_size=0,
        serialized_value_size=0,
        tp=TP(topic, partition),
        generation_id=generation,
    )


class Transport(faust_internals.Transport):
    """Kafka through aiokafka, in whole batches."""

    Consumer = Consumer
