"""A client's way to the engine in memory: what the client relies on, and its tests cannot see."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import pytest

from delaystream.client import Delivery, MissingTopicError, RequestRecord, Sent, UnavailableError
from delaystream.client.kafka.promises import Promise
from delaystream.core.partitioning import partition_for_key
from delaystream.testing import DeadlockError, RunawayError, environment
from delaystream.testing.environments import AsyncEnvironment, Environment
from delaystream.testing.transport import AsyncMemoryTransport, MemoryTransport

HOUR = timedelta(hours=1)


def transport(env: Environment) -> MemoryTransport:
    return MemoryTransport(env._worker, env._followers)


def async_transport(env: AsyncEnvironment) -> AsyncMemoryTransport:
    return AsyncMemoryTransport(env._worker, env._followers)


def test_a_record_goes_where_it_says_or_where_its_key_belongs() -> None:
    with environment(partitions=8) as env:
        answers: list[Sent | UnavailableError] = []
        for record in (
            RequestRecord("delay-requests", b"key", b"", [], partition=5),
            RequestRecord("delay-requests", b"key", b"", []),
            RequestRecord("delay-requests", b"key", b"", []),
            RequestRecord("delay-requests", b"other", b"", []),
        ):
            transport(env).produce(record, answers.append)
        found = [answer.source.partition for answer in answers if isinstance(answer, Sent)]
        by_key = [partition_for_key(key, 8) for key in (b"key", b"other")]
        assert found == [5, by_key[0], by_key[0], by_key[1]]
        assert by_key[0] != by_key[1]


@pytest.mark.parametrize(
    ("record", "kind", "sentence"),
    [
        (RequestRecord("nowhere", b"", b"", []), MissingTopicError, "nowhere cannot be used"),
        (RequestRecord("delay-requests", b"", b"", [], partition=7), UnavailableError, "no partition 7"),
        (RequestRecord("delay-requests", b"", b"x" * 2_000_000, []), UnavailableError, "larger than"),
    ],
    ids=["topic", "partition", "size"],
)
def test_what_the_log_does_not_take_is_told(
    record: RequestRecord, kind: type[UnavailableError], sentence: str
) -> None:
    with environment() as env:
        answers: list[Sent | UnavailableError] = []
        transport(env).produce(record, answers.append)
        [answer] = answers
        assert type(answer) is kind
        assert sentence in str(answer)


def test_a_topic_that_is_not_there_is_neither_followed_nor_counted() -> None:
    with environment() as env:
        with pytest.raises(MissingTopicError):
            transport(env).partitions("nowhere")
        with pytest.raises(MissingTopicError):
            transport(env).follow("nowhere", lambda record: None, lambda failure: None)


def test_a_topic_is_followed_from_now_on() -> None:
    with environment(topics={"t": 2}) as env:
        env.client.schedule("t", b"before", delay=HOUR)
        env.advance(HOUR)
        seen: list[Delivery] = []
        transport(env).follow("t", seen.append, lambda failure: None)
        env.client.schedule("t", b"after", delay=HOUR)
        env.advance(HOUR)
        assert [record.value for record in seen] == [b"after"]


def test_who_waits_for_what_cannot_come_is_told() -> None:
    with environment() as env:
        with pytest.raises(DeadlockError, match="nothing is due"):
            transport(env).wait(Promise[None](), None)
        with pytest.raises(TimeoutError):
            transport(env).wait(Promise[None](), 60)


def test_who_waits_beside_a_schedule_that_never_ends_is_told() -> None:
    with environment() as env:
        env.client.schedule("t", b"", id="a", every=HOUR)
        with pytest.raises(RunawayError, match="still not there"):
            transport(env).wait(Promise[None](), None)


def test_who_follows_in_a_loop_is_told_in_that_loop() -> None:
    """Whichever thread lets time pass; a loop that sleeps wakes up."""
    heard: list[int] = []
    following, ended = threading.Event(), threading.Event()
    context = environment()
    env = asyncio.run(context.__aenter__())

    async def follow() -> None:
        told = asyncio.Event()

        def take(record: Delivery) -> None:
            heard.append(threading.get_ident())
            told.set()

        await async_transport(env).follow("delay-events", take, lambda failure: None)
        following.set()
        async with asyncio.timeout(30):
            await told.wait()
        ended.set()

    follower = threading.Thread(target=asyncio.run, args=(follow(),))
    follower.start()
    assert following.wait(30)

    async def send() -> None:
        await env.client.schedule("t", b"", id="a", delay=HOUR)
        env.assert_scheduled(id="a")

    asyncio.run(send())
    follower.join(30)
    assert ended.is_set()
    assert heard == [follower.ident]
    asyncio.run(context.__aexit__(None, None, None))
