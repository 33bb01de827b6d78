"""Who gets which partition."""

from collections import Counter
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from hypothesis import given
from hypothesis import strategies as st

from delaystream.adapters.membership.sticky_assignor import Claim, StickyAssignor, _claim, owners

claims = st.dictionaries(
    st.sampled_from("abcdefg"),
    st.builds(
        Claim,
        round=st.integers(-1, 5),
        owned=st.lists(st.integers(0, 15), unique=True).map(tuple),
        stored=st.lists(st.integers(0, 15), unique=True).map(tuple),
    ),
    min_size=1,
)


@given(claims, st.integers(0, 16))
def test_every_partition_has_an_owner_and_nobody_has_two_more_than_another(
    members: dict[str, Claim], partitions: int
) -> None:
    owner_of = owners(members, partitions)
    assert sorted(owner_of) == list(range(partitions))
    counts = [Counter(owner_of.values())[member] for member in members]
    assert max(counts) - min(counts) <= 1


@given(claims, st.integers(0, 16))
def test_a_balanced_assignment_stays_as_it_is(members: dict[str, Claim], partitions: int) -> None:
    """Whatever local state is where: to move costs more than it brings."""
    before = owners(members, partitions)
    settled = {
        member: Claim(1, 7, tuple(p for p, owner in before.items() if owner == member), claim.stored)
        for member, claim in members.items()
    }
    assert owners(settled, partitions) == before


def test_a_newcomer_takes_no_more_than_its_share() -> None:
    owner_of = owners({"a": Claim(1, 1, (0, 1, 2, 3)), "b": Claim(1, 1, (4, 5, 6, 7)), "c": Claim()}, 8)
    moved = [p for p, owner in owner_of.items() if owner == "c"]
    assert len(moved) == 2
    assert all(owner_of[p] == "a" for p in range(4) if p not in moved)
    assert all(owner_of[p] == "b" for p in range(4, 8) if p not in moved)


def test_a_worker_that_comes_back_gets_what_it_has_state_of() -> None:
    """A rolling restart without static membership moves partitions there and back, not around."""
    owner_of = owners({"a": Claim(1, 3, (0, 1, 2, 3)), "new": Claim(stored=(1, 3))}, 4)
    assert owner_of == {0: "a", 2: "a", 1: "new", 3: "new"}


def test_of_two_that_claim_a_partition_the_one_that_was_not_away_keeps_it() -> None:
    owner_of = owners({"away": Claim(1, 1, (0, 1)), "here": Claim(1, 4, (0, 1))}, 2)
    assert sorted(owner_of.values()) == ["away", "here"]
    members = {"away": Claim(1, 1, (0,)), "here": Claim(1, 4, (0, 1))}
    assert owners(members, 3)[0] == "here"


def assign(subscriptions: dict[str, list[str]], counts: dict[str, int]) -> dict[str, dict[str, list[int]]]:
    cluster: Any = SimpleNamespace(partitions_for_topic=lambda topic: set(range(counts[topic])) or None)
    assignors = {member: StickyAssignor() for member in subscriptions}
    members = {member: assignors[member].metadata(topics) for member, topics in subscriptions.items()}
    answer = StickyAssignor().assign(cluster, members)
    return {member: {t: list(p) for t, p in given.assignment} for member, given in answer.items()}


def test_partition_p_of_every_topic_goes_to_one_member() -> None:
    topics = ["requests", "other-requests", "commands"]
    answer = assign({"a": topics, "b": topics}, dict.fromkeys(topics, 5))
    for given_topics in answer.values():
        assert len({tuple(partitions) for partitions in given_topics.values()}) == 1


def test_a_topic_that_the_owner_does_not_know_goes_to_nobody() -> None:
    """During a rolling change of the request topics a partition is never split between two members."""
    old, new = ["requests", "commands"], ["requests", "tenant", "commands"]
    answer = assign({"old": old, "new": new}, dict.fromkeys(new, 4))
    assert "tenant" not in answer["old"]
    assert answer["new"]["tenant"] == answer["new"]["requests"] == answer["new"]["commands"]
    assert sorted(answer["old"]["requests"] + answer["new"]["requests"]) == [0, 1, 2, 3]


def test_a_member_claims_what_it_was_assigned() -> None:
    """The round goes up, so that a later claim wins over an older one."""
    cluster: Any = SimpleNamespace(partitions_for_topic=lambda topic: {0, 1, 2})
    assignor = StickyAssignor()
    for _ in range(3):
        answer = assignor.assign(cluster, {"me": assignor.metadata(["requests"])})
        assignor.on_assignment(
            SimpleNamespace(
                user_data=answer["me"].user_data,
                partitions=lambda: [SimpleNamespace(partition=p) for p in (0, 1, 2)],
            )
        )
    assert (assignor._round, assignor._owned) == (2, (0, 1, 2))


# -- versions --------------------------------------------------------------------------------------


class Later(StickyAssignor):
    """A made-up later version: its assignments are of another form, and its claims have a field more."""

    version = 2

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        described = super().metadata(topics)
        claim = [*msgspec.msgpack.decode(described.user_data), "rack-1"]
        return ConsumerProtocolMemberMetadata(
            described.version, described.subscription, msgspec.msgpack.encode(claim)
        )

    def told(self, version: int, round: int) -> bytes:
        return super().told(version, round) if version < 2 else msgspec.msgpack.encode([2, "rack-1", round])

    def heard(self, user_data: bytes) -> int:
        version, *rest = msgspec.msgpack.decode(user_data)
        return super().heard(user_data) if version < 2 else int(rest[1])


def dealt(leader: StickyAssignor, members: dict[str, StickyAssignor]) -> dict[str, Any]:
    """One rebalance: what the leader wrote for each member, which each has read."""
    cluster: Any = SimpleNamespace(partitions_for_topic=lambda topic: {0, 1, 2, 3})
    answer = leader.assign(cluster, {name: member.metadata(["requests"]) for name, member in members.items()})
    for name, member in members.items():
        # As the bytes that travel.
        member.on_assignment(ConsumerProtocolMemberAssignment.decode(answer[name].encode()))
    return {name: msgspec.msgpack.decode(answer[name].user_data) for name in members}


def test_workers_of_two_versions_share_a_group_whoever_leads() -> None:
    """A rolling update: each is told in the newest version that it and the leader speak; all keep theirs."""
    old, new = StickyAssignor(), Later()
    members = {"old": old, "new": new}
    assert dealt(old, members) == {"old": [1, 0], "new": [1, 0]}
    owned = (old._owned, new._owned)
    assert dealt(new, members) == {"old": [1, 1], "new": [2, "rack-1", 1]}
    assert dealt(old, members) == {"old": [1, 2], "new": [1, 2]}
    assert (old._round, new._round) == (2, 2)
    assert (old._owned, new._owned) == owned
    assert sorted(old._owned + new._owned) == [0, 1, 2, 3]
    # Once all are replaced.
    assert dealt(new, {"new": new}) == {"new": [2, "rack-1", 3]}
    assert new._owned == (0, 1, 2, 3)


def test_fields_that_a_later_version_appends_are_skipped() -> None:
    """To a claim and to an assignment alike."""
    member = StickyAssignor()
    assert member.heard(msgspec.msgpack.encode([1, 7, "new"])) == 7
    claimed = msgspec.msgpack.encode([2, 5, [0, 1], [0], "new"])
    assert _claim(claimed) == Claim(2, 5, (0, 1), (0,))


@pytest.mark.parametrize("user_data", [b"", b"\xc1", b"\x07", msgspec.msgpack.encode([3, "all", "new"])])
def test_what_cannot_be_read_costs_no_more_than_what_was_owned(user_data: bytes) -> None:
    """Who owns a partition is proved by fencing: a claim is advice. A bare number is what others wrote."""
    member = StickyAssignor()
    member._round = 4
    member.on_assignment(
        SimpleNamespace(user_data=user_data, partitions=lambda: [SimpleNamespace(partition=1)])
    )
    assert (member._round, member._owned) == (-1, (1,))
    assert _claim(user_data).round == -1


def test_the_strategy_has_another_name_than_that_of_workers_without_versions() -> None:
    """The brokers keep them out of one group."""
    assert StickyAssignor().name == "delaystream-sticky-2"
