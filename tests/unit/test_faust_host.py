"""When a worker ends: when Faust does while it serves, and when a topic grows under it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from delaystream.adapters.kafka.source_bounds import TopicShape
from delaystream.adapters.membership.batch_fetcher import ReaderSettings
from delaystream.adapters.membership.faust_host import FaustCrashed, HostSettings, PartitionHost
from delaystream.engine.failures import LogUnavailable, Misconfigured
from delaystream.engine.ports import TopicPartition
from delaystream.testing import VirtualTimeLoop


def host() -> PartitionHost:
    """One that has joined no group; its processors and bounds are never asked for."""

    def unused(*_: object) -> None:
        raise AssertionError("not in this test")

    reader = ReaderSettings(
        client={"bootstrap_servers": "127.0.0.1:1"},
        group_id="group",
        group_instance_id=None,
        session_timeout_ms=6_000,
        heartbeat_interval_ms=500,
    )
    return PartitionHost(HostSettings(("requests", "commands"), reader), unused, unused)  # type: ignore[arg-type]


def crash(made: PartitionHost) -> asyncio.Task[None]:
    """Faust says that it has crashed, as it does when a cancelled fetcher takes the stop for a rebalance."""
    made._failure = asyncio.get_running_loop().create_future()
    made._app._crash(asyncio.CancelledError())
    return asyncio.create_task(made._watch_faust())


def test_a_crash_while_serving_ends_the_worker() -> None:
    async def scenario() -> None:
        with pytest.raises(FaustCrashed, match="CancelledError"):
            await crash(host())

    asyncio.run(scenario())


def test_a_crash_while_stopping_is_no_failure() -> None:
    """SIGTERM in the middle of a rebalance must end with 0: everything at stake has stopped before."""

    async def scenario() -> None:
        made = host()
        made._stopping = True
        watching = crash(made)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not watching.done()
        assert made._failure is not None
        made._failure.set_result(None)
        await watching

    asyncio.run(scenario())


def assigned(**counts: int) -> frozenset[TopicPartition]:
    """The first partitions of each topic, as many as are named."""
    return frozenset(TopicPartition(topic, n) for topic, count in counts.items() for n in range(count))


class Room:
    """What the host touches of a consumer when it takes an assignment up."""

    def __init__(self) -> None:
        self.with_room: set[TopicPartition] = set()
        self.membership_confirmed = False
        self.unknown_topics: frozenset[str] = frozenset()


def held_to(partitions: int) -> PartitionHost:
    """A host that serves, and was told how many partitions there are."""
    made = host()
    made._failure = asyncio.get_running_loop().create_future()
    made._app._consumer = Room()  # type: ignore[assignment]
    made.hold_to(partitions)
    return made


@pytest.mark.parametrize(
    ("counts", "named"),
    [
        ({"requests": 5, "commands": 4}, "requests has at least 5"),
        ({"requests": 4, "commands": 5}, "commands has at least 5"),
        ({"requests": 6, "commands": 5}, "commands has at least 5, requests has at least 6"),
    ],
)
def test_a_topic_that_grew_ends_the_worker(counts: Mapping[str, int], named: str) -> None:
    """One that grew alone as well: its new partition would never be whole, and nobody would read it."""

    async def scenario() -> None:
        made = held_to(4)
        with pytest.raises(Misconfigured):
            made.on_assigned(assigned(**counts))
        assert made._failure is not None
        with pytest.raises(Misconfigured, match=f"{named} partitions.* had 4 each .*Moving"):
            await made._failure

    asyncio.run(scenario())


def test_an_assignment_within_the_known_count_is_taken_up() -> None:
    async def scenario() -> None:
        made = held_to(4)
        made.on_assigned(assigned(requests=4, commands=4))
        assert [status.partition for status in made.partitions()] == [0, 1, 2, 3]
        assert made._failure is not None
        assert not made._failure.done()

    asyncio.run(scenario())


def test_partitions_that_lack_a_topic_are_told() -> None:
    """A worker at which nothing is whole has nothing else to tell of."""

    async def scenario() -> None:
        made = held_to(4)
        room = Room()
        made._app._consumer = room  # type: ignore[assignment]
        assert made.shortage is None
        made.on_assigned(assigned(requests=4, commands=4))
        assert made.shortage is None
        made.on_assigned(assigned(commands=4))
        assert made.partitions() == []
        assert str(made.shortage).startswith("partitions 0-3 are idle here")
        room.unknown_topics = frozenset({"requests", "of-others"})
        assert str(made.shortage).startswith("the brokers do not know requests,")
        made.on_assigned(frozenset())
        assert made.shortage is not None
        room.unknown_topics = frozenset({"of-others"})
        assert made.shortage is None

    asyncio.run(scenario())


def test_a_topic_that_is_not_subscribed_to_and_grows_ends_the_worker() -> None:
    """The changelog, or one whose new partitions went to another member; that Kafka is away ends nothing."""
    of_four = {"requests": TopicShape("a", 4), "changelog": TopicShape("b", 4)}
    grown = of_four | {"changelog": TopicShape("b", 5)}
    assert watched([of_four, None, grown], "changelog has at least 5 partitions") <= 10


def watched(answers: list[Mapping[str, TopicShape] | None], refused: str) -> float:
    """Have a worker look at its topics (None: in vain). How long it took until it ended so, s."""

    async def shapes() -> Mapping[str, TopicShape]:
        answer = answers.pop(0)
        if answer is None:
            raise LogUnavailable("no answer")
        return answer

    async def scenario() -> float:
        made = held_to(4)
        made._shapes = shapes
        began = loop.time()
        with pytest.raises(Misconfigured, match=refused):
            await made._watch_topics()
        assert not answers
        return loop.time() - began

    with VirtualTimeLoop() as loop:
        return loop.run_until_complete(scenario())


def test_a_topic_that_is_another_one_of_its_name_ends_the_worker() -> None:
    """Its log may go on where the old one ended, so that no offset tells; one answer may be out of date."""
    old = {"requests": TopicShape("a", 4), "changelog": TopicShape("b", 4)}
    new = old | {"requests": TopicShape("c", 4)}
    gone = {"changelog": TopicShape("b", 4)}
    told = "requests had the id a .* now it has c: .* deleted and created anew"
    assert watched([old, new, new, new], told) <= 7
    assert watched([old, gone, None, new, gone, None, new, new], told) < 30
    watched([old, new, new, old, new, new, old, new, new, new], told)
