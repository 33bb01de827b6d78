"""Who owns which partition: sticky, and the same member for partition p of every source topic.

Faust's own assignor groups topics by their subscribers: while the set of request topics is changed member
by member, partition 3 of two topics may land on two members, and then nobody can process partition 3. Here a
partition number is assigned as a whole, whatever the topics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

_VERSION = 0
_NEVER = -1


class Claim(msgspec.Struct, array_like=True, frozen=True):
    """What a member tells of itself when it joins.

    ``owned`` are the partitions of its last assignment, made in that ``round``; ``stored`` are those that it
    has local state of, and so would take over fastest.
    """

    round: int = _NEVER
    owned: tuple[int, ...] = ()
    stored: tuple[int, ...] = ()


def owners(claims: Mapping[str, Claim], partitions: int) -> dict[int, str]:
    """Decide the owner of each partition number.

    Nobody holds more than one partition more than anybody else. Within that, a partition stays where it
    was; one that has to move goes to a member with local state of it, if there is room.
    """
    if not claims:
        return {}
    held: dict[str, list[int]] = {member: [] for member in sorted(claims)}
    taken: set[int] = set()
    # Of two members that claim the same partition, the one with the older round was away meanwhile.
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
        # Those to give up come last: what another member has local state of.
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


class StickyAssignor(AbstractPartitionAssignor):  # type: ignore[misc]  # aiokafka is not typed
    """The group's partition assignment strategy, carried out by whichever member leads the group.

    A topic's partition goes to the partition number's owner if that member subscribes to the topic, else to
    nobody: a member that lacks one of the topics must not read the others.
    """

    def __init__(self, stored: Callable[[], Iterable[int]] = tuple) -> None:
        self._stored = stored
        self._round = _NEVER
        self._owned: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The strategy's name; all members of a group must have one in common."""
        return "delaystream-sticky"

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """Describe this member to the leader."""
        claim = Claim(self._round, self._owned, tuple(sorted(self._stored())))
        return ConsumerProtocolMemberMetadata(_VERSION, sorted(topics), msgspec.msgpack.encode(claim))

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
        round_ = msgspec.msgpack.encode(following)
        return {
            member: ConsumerProtocolMemberAssignment(
                _VERSION,
                [
                    (topic, [p for p in range(counts[topic]) if owner_of[p] == member])
                    for topic in topics
                    if topic in subscriptions[member]
                ],
                round_,
            )
            for member in members
        }

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Remember what was assigned, to claim it next time."""
        self._round = (
            msgspec.msgpack.decode(assignment.user_data, type=int) if assignment.user_data else _NEVER
        )
        self._owned = tuple(sorted({tp.partition for tp in assignment.partitions()}))


def _claim(user_data: bytes) -> Claim:
    return msgspec.msgpack.decode(user_data, type=Claim) if user_data else Claim()
