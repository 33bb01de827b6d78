"""The assignment of partitions: sticky, and one member for partition p of every source topic.

Faust's own assignor groups topics by their subscribers. While the set of request topics is changed member by
member, it may give partition 3 of two topics to two members, and then nobody can process partition 3. This
assignor assigns a partition number as a whole, for all topics.

Members and their leader exchange msgpack arrays that begin with a version. New fields are appended, and a
reader skips fields that it does not know. A member states the newest version that it speaks, and the leader
writes to each member in the newest version that both speak. So workers of two versions share a group while
they are replaced one by one. A change that an older member could not work with takes a new strategy name, and
the group then refuses to mix the two.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from delaystream.adapters.internals.aiokafka import (
    AbstractPartitionAssignor,
    ClusterMetadata,
    ConsumerProtocolMemberAssignment,
    ConsumerProtocolMemberMetadata,
)
from delaystream.engine.failures import Misconfigured

logger = logging.getLogger(__name__)

#: version of Kafka's own consumer protocol
_CONSUMER_PROTOCOL: Final = 0
#: the first version, which every member of the group speaks
_OLDEST: Final = 1
_NEVER: Final = -1

STRATEGY: Final = "delaystream-sticky-2"
"""The strategy's name. The name without a number is that of older workers, whose data had no version."""


class StrategyRefused(Misconfigured):
    """The group has members that do not know this worker's strategy."""

    def __init__(self, group: str) -> None:
        super().__init__(
            f"the group {group} has members that share its partitions in another way than {STRATEGY}: "
            "workers of another version of delaystream, or another program with this group id. This worker "
            "cannot join beside them. Stop all workers of the other version first, then start this one; "
            "those with DELAYSTREAM_INSTANCE_ID are in the group until their session has timed out"
        )


class Claim(msgspec.Struct, array_like=True, frozen=True):
    """The user data with which a member joins; the leader reads it.

    ``version`` is the newest that it speaks. ``owned`` are the partitions of its last assignment, which was
    made in ``round``. ``stored`` are the partitions of which it has local state, so that it would take them
    over fastest.
    """

    version: int = _OLDEST
    round: int = _NEVER
    owned: tuple[int, ...] = ()
    stored: tuple[int, ...] = ()


def owners(claims: Mapping[str, Claim], partitions: int) -> dict[int, str]:
    """Decide the owner of each partition number.

    The members' partition counts differ by at most one. Within that bound, a partition stays with its owner.
    A partition that has to move goes to a member with local state of it, if that member has room.
    """
    if not claims:
        return {}
    held: dict[str, list[int]] = {member: [] for member in sorted(claims)}
    taken: set[int] = set()
    # When two members claim the same partition, the one with the older round was away in between.
    for member in sorted(claims, key=lambda name: (-claims[name].round, name)):
        for partition in claims[member].owned:
            if partition < partitions and partition not in taken:
                taken.add(partition)
                held[member].append(partition)

    least, extra = divmod(partitions, len(held))
    by_holding = sorted(held, key=lambda name: (-len(held[name]), name))
    quota = {member: least + (place < extra) for place, member in enumerate(by_holding)}

    wanted_elsewhere = {partition: member for member in sorted(claims) for partition in claims[member].stored}
    free = [partition for partition in range(partitions) if partition not in taken]
    for member, partitions_held in held.items():
        # Partitions of which another member has local state come last: they are given up first.
        partitions_held.sort(key=lambda p: (wanted_elsewhere.get(p, member) != member, p))
        free += partitions_held[quota[member] :]
        del partitions_held[quota[member] :]

    homeless = []
    for partition in sorted(free):
        keeper = next(
            (m for m in held if partition in claims[m].stored and len(held[m]) < quota[m]),
            None,
        )
        if keeper is None:
            homeless.append(partition)
        else:
            held[keeper].append(partition)
    for partition in homeless:
        member = min(held, key=lambda name: (len(held[name]) - quota[name], name))
        held[member].append(partition)
    return {partition: member for member, partitions_held in held.items() for partition in partitions_held}


class Told(msgspec.Struct, array_like=True, frozen=True):
    """The user data of an assignment, in version 1: the ``round`` in which the leader made it."""

    version: int
    round: int


class StickyAssignor(AbstractPartitionAssignor):  # type: ignore[misc]  # aiokafka is not typed
    """The group's partition assignment strategy; the member that leads the group runs it.

    A topic's partition goes to the owner of the partition number if that member subscribes to the topic.
    Otherwise nobody gets it: a member that lacks one of the topics must not read the others.
    """

    version = 1
    """The newest version that this member speaks."""

    def __init__(self, stored: Callable[[], Iterable[int]] = tuple) -> None:
        self._stored = stored
        self._round = _NEVER
        self._owned: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The strategy's name; all members of a group must have one in common."""
        return STRATEGY

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """Describe this member to the leader."""
        claim = Claim(self.version, self._round, self._owned, tuple(sorted(self._stored())))
        user_data = msgspec.msgpack.encode(claim)
        return ConsumerProtocolMemberMetadata(_CONSUMER_PROTOCOL, sorted(topics), user_data)

    def assign(
        self, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Assign every partition of every topic that any member subscribes to."""
        claims = {member: _claim(metadata.user_data) for member, metadata in members.items()}
        subscriptions = {member: set(metadata.subscription) for member, metadata in members.items()}
        topics = sorted(set().union(*subscriptions.values()))
        counts = {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        owner_of = owners(claims, max(counts.values(), default=0))
        following = max((claim.round for claim in claims.values()), default=_NEVER) + 1
        return {
            member: ConsumerProtocolMemberAssignment(
                _CONSUMER_PROTOCOL,
                [
                    (topic, [p for p in range(counts[topic]) if owner_of[p] == member])
                    for topic in topics
                    if topic in subscriptions[member]
                ],
                self.told(max(_OLDEST, min(self.version, claims[member].version)), following),
            )
            for member in members
        }

    def told(self, version: int, round: int) -> bytes:
        """The user data of an assignment, for a member that speaks `version`."""
        return msgspec.msgpack.encode(Told(version, round))

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Remember the assignment, to claim it next time."""
        self._round = self.heard(assignment.user_data)
        self._owned = tuple(sorted({tp.partition for tp in assignment.partitions()}))

    def heard(self, user_data: bytes) -> int:
        """The round in the leader's user data; a claim without a round gives way to all others."""
        if not user_data:
            return _NEVER
        try:
            told = msgspec.msgpack.decode(user_data, type=Told)
        except msgspec.MsgspecError as error:
            logger.warning("the group leader's assignment cannot be read: %s", error)
            return _NEVER
        if told.version != _OLDEST:
            logger.warning("the group leader's assignment has version %d, this worker reads 1", told.version)
            return _NEVER
        return told.round


def _claim(user_data: bytes) -> Claim:
    """A member's claim. A damaged one counts as empty, and the other members go on."""
    if not user_data:
        return Claim()
    try:
        return msgspec.msgpack.decode(user_data, type=Claim)
    except msgspec.MsgspecError as error:
        logger.warning("the claim of a group member cannot be read: %s", error)
        return Claim()
