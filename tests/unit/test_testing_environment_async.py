"""The same in an event loop: the engine stands beside the test's own loop, and neither knows of the other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any

import anyio
import anyio.from_thread
import pytest

from delaystream.client import Delivery, ReceiptTimeout, RejectedError
from delaystream.testing import AsyncEnvironment, RunawayError, environment

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
NOW = timedelta()
START = datetime(2030, 1, 1, tzinfo=UTC)


def in_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """As pytest-asyncio does."""

    @wraps(test)
    def run() -> None:
        asyncio.run(test())

    del run.__wrapped__
    return run


@in_a_loop
async def test_the_reminder_goes_out_after_a_day() -> None:
    async with environment() as env:
        await env.client.schedule("reminders", {"user": 7}, id="reminder-7", delay=DAY)
        await env.advance(DAY - timedelta(milliseconds=1))
        assert env.deliveries("reminders") == []
        await env.advance(timedelta(milliseconds=1))
        assert [delivery.schedule_id for delivery in env.deliveries("reminders")] == ["reminder-7"]


@in_a_loop
async def test_what_there_is_can_be_looked_at() -> None:
    async with environment() as env:
        await env.client.schedule("emails", b"1", id="a", every=HOUR)
        env.assert_scheduled(id="a", next_at=HOUR, every=HOUR)
        with pytest.raises(RunawayError):
            await env.run_until_idle(most=10)
        await env.client.cancel("a")
        env.refute_scheduled(id="a")
        await env.run_until_idle()
        await env.advance_to(env.now + DAY)
        assert env.events()[-1].type.value == "cancelled"


@in_a_loop
async def test_receipts_come_without_time_passing() -> None:
    async with environment() as env:
        accepted = await env.client.schedule("emails", b"1", id="a", delay=HOUR, wait=MINUTE)
        assert accepted.outcome == "scheduled"
        with pytest.raises(RejectedError, match="already-exists"):
            await env.client.schedule("emails", b"1", id="a", delay=HOUR, if_exists="reject", wait=MINUTE)
        described = await env.client.describe("a")
        assert described is not None
        assert env.now == START


@in_a_loop
async def test_a_receipt_that_does_not_come_is_waited_for_in_virtual_time() -> None:
    async with environment() as env:
        env.log.topics["delay-receipts"].refusal = "not authorized"
        with pytest.raises(ReceiptTimeout):
            await env.client.schedule("t", b"1", id="a", delay=DAY, wait=MINUTE)
        assert env.now >= START + MINUTE
        env.assert_scheduled(id="a")


@in_a_loop
async def test_a_request_is_held_against_the_time_in_the_environment() -> None:
    async with environment(start=datetime(2090, 1, 1, tzinfo=UTC)) as env:
        await env.client.schedule("emails", b"1", at=env.now + DAY)
        await env.advance(DAY)
        env.assert_delivered("emails", count=1)


@in_a_loop
async def test_many_receipts_are_waited_for_at_once() -> None:
    async with environment() as env:
        accepted = await asyncio.gather(
            *[env.client.schedule("t", b"1", id=f"{n}", delay=HOUR, wait=MINUTE) for n in range(200)]
        )
        assert [each.schedule_id for each in accepted] == [f"{n}" for n in range(200)]
        assert env.now == START


@in_a_loop
async def test_handlers_are_awaited_in_the_loop_of_the_test() -> None:
    async with environment() as env:
        loop, seen = asyncio.get_running_loop(), list[tuple[bytes | None, datetime]]()

        async def handle(delivery: Delivery) -> None:
            assert asyncio.get_running_loop() is loop
            await asyncio.sleep(0)
            seen.append((delivery.value, env.now))
            if delivery.value == b"1":
                await env.client.schedule("emails", b"2", id="two", delay=HOUR, wait=MINUTE)

        plain: list[Delivery] = []
        env.consume("emails", handle)
        env.consume("emails", plain.append)
        await env.client.schedule("emails", b"1", delay=HOUR)
        await env.advance(DAY)
        assert seen == [(b"1", START + HOUR), (b"2", START + 2 * HOUR)]
        assert [delivery.value for delivery in plain] == [b"1", b"2"]


@in_a_loop
async def test_what_a_handler_raises_advance_raises() -> None:
    async with environment() as env:

        async def fail(delivery: Delivery) -> None:
            raise LookupError("no such user")

        env.consume("emails", fail)
        await env.client.schedule("emails", b"1", delay=HOUR)
        with pytest.raises(LookupError):
            await env.advance(DAY)
        assert env.now == START + HOUR


def test_what_is_left_to_handle_is_handled_at_the_end() -> None:
    async def test() -> None:
        async with environment() as env:

            async def fail(delivery: Delivery) -> None:
                raise LookupError("nobody had looked")

            env.consume("emails", fail)
            await env.client.schedule("emails", b"1", delay=NOW)

    with pytest.raises(LookupError):
        asyncio.run(test())


@in_a_loop
async def test_time_stands_still_for_a_handler() -> None:
    async with environment() as env:

        async def handle(delivery: Delivery) -> None:
            await env.advance(HOUR)

        env.consume("emails", handle)
        await env.client.schedule("emails", b"1", delay=HOUR)
        with pytest.raises(RuntimeError, match="in the handler of 'emails'"):
            await env.advance(DAY)


@in_a_loop
async def test_tasks_of_the_test_have_their_turn() -> None:
    """A task that waits for something that a handler brings about goes on before the next delivery."""
    async with environment() as env:
        paid, seen = asyncio.Event(), list[str]()

        async def wait() -> None:
            await paid.wait()
            seen.append(f"paid at {env.now:%H}")

        async def handle(delivery: Delivery) -> None:
            seen.append(f"handled at {env.now:%H}")
            paid.set()

        task = asyncio.create_task(wait())
        env.consume("payments", handle)
        await env.client.schedule("payments", b"", delay=[HOUR, 2 * HOUR])
        await env.advance(DAY)
        await task
        assert seen == ["handled at 01", "paid at 01", "handled at 02"]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_it_works_with_anyio(anyio_backend: str) -> None:
    async with environment() as env, anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(send, env, number)
    assert env.now == START


async def send(env: AsyncEnvironment, number: int) -> None:
    await env.client.schedule("t", b"", id=f"{number}", delay=HOUR, wait=MINUTE)


def test_an_application_in_a_loop_of_its_own_uses_it() -> None:
    """As a test client has it: the application has a loop in a thread of its own."""
    with anyio.from_thread.start_blocking_portal() as portal:
        context = environment()

        async def enter() -> AsyncEnvironment:
            return await context.__aenter__()

        env = portal.call(enter)
        seen: list[bytes | None] = []

        async def handle(delivery: Delivery) -> None:
            seen.append(delivery.value)

        def send(value: bytes) -> str | None:
            async def sending() -> str | None:
                accepted = await env.client.schedule("t", value, id="a", delay=HOUR, wait=MINUTE)
                return accepted.outcome

            return portal.call(sending)

        assert send(b"1") == "scheduled"
        assert send(b"2") == "replaced"
        env.consume("t", handle)
        portal.call(env.advance, HOUR)
        assert seen == [b"2"]
        portal.call(context.__aexit__, None, None, None)


def test_receipts_find_their_loop_whoever_lets_time_pass() -> None:
    """Each of two loops in two threads waits for receipts; either may be the one that has them written."""
    contexts = environment()
    env = asyncio.run(contexts.__aenter__())
    clients = [env.client_of(), env.client_of()]
    outcomes: list[str | None] = []

    def run(number: int) -> None:
        async def sending() -> None:
            for count in range(100):
                accepted = await clients[number].schedule(
                    "t", b"", id=f"{number}-{count}", delay=HOUR, wait=MINUTE
                )
                outcomes.append(accepted.outcome)

        asyncio.run(sending())

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert outcomes == ["scheduled"] * 200
    assert env.now == START
    asyncio.run(contexts.__aexit__(None, None, None))
