"""A join that takes long is told of, with what it waits for: the group answers nobody while a member that was
killed may still come back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from delaystream.adapters.internals.aiokafka import Join, Membership
from delaystream.adapters.membership import faust_transport
from delaystream.adapters.membership.static_membership import Holder
from delaystream.engine.failures import LogUnavailable


class Member:
    """A membership whose joins end when they are told to."""

    def __init__(self) -> None:
        self.joins: list[asyncio.Future[bool]] = []
        self.join: Join = self._join

    async def _join(self, _: Any) -> bool:
        self.joins.append(asyncio.get_running_loop().create_future())
        return await self.joins[-1]

    def wrap_join(self, wrap: Callable[[Join], Join]) -> None:
        self.join = wrap(self.join)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(faust_transport, "_TOLD_AFTER_S", 0.05)
    return []


def _watched(told: list[str]) -> Member:
    member = Member()

    async def still_waiting() -> None:
        told.append("waiting")

    faust_transport._watch_wait(
        cast(Membership, member), still_waiting, lambda waited_s: told.append(f"waited {waited_s >= 0.05}")
    )
    return member


async def _ended(member: Member, *, joined: bool, after_s: float) -> None:
    joining = asyncio.ensure_future(member.join(None))
    await asyncio.sleep(after_s)
    member.joins[-1].set_result(joined)
    assert await joining is joined


def test_a_join_that_is_quick_is_not_told_of(told: list[str]) -> None:
    asyncio.run(_ended(_watched(told), joined=True, after_s=0))
    assert told == []


def test_a_join_that_takes_long_is_told_of_once_and_at_its_end(told: list[str]) -> None:
    """aiokafka tries again and again meanwhile: it is one wait to whoever looks on."""

    async def scenario() -> None:
        member = _watched(told)
        await _ended(member, joined=False, after_s=0.1)
        await _ended(member, joined=False, after_s=0.1)
        await _ended(member, joined=True, after_s=0)
        await _ended(member, joined=True, after_s=0)

    asyncio.run(scenario())
    assert told == ["waiting", "waited True"]


def test_attempts_that_are_short_add_up_to_a_wait(told: list[str]) -> None:
    async def scenario() -> None:
        member = _watched(told)
        for _ in range(20):
            await _ended(member, joined=False, after_s=0.01)

    asyncio.run(scenario())
    assert told == ["waiting"]


def _thread() -> Any:
    reader = SimpleNamespace(client={}, group_id="app", session_timeout_ms=45_000)
    return SimpleNamespace(
        batch_app=SimpleNamespace(reader=reader), _membership=SimpleNamespace(member_id="own")
    )


def test_what_is_waited_for_is_named_with_its_bound(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def members(*_: object) -> list[tuple[str | None, Holder]]:
        own, other = Holder("own", "client", "10.0.0.1"), Holder("other", "worker", "10.0.0.2")
        return [(None, own), (None, other)]

    monkeypatch.setattr(faust_transport, "members_of", members)
    with caplog.at_level(logging.INFO):
        asyncio.run(faust_transport.ConsumerThread._still_waiting(_thread()))
    [record] = caplog.records
    assert "waiting to join the group app" in record.message
    assert "worker on 10.0.0.2" in record.message
    assert "10.0.0.1" not in record.message
    assert "up to 45 s" in record.message


def test_where_nobody_knows_the_members_the_wait_is_told_of_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def members(*_: object) -> None:
        raise LogUnavailable("no answer")

    monkeypatch.setattr(faust_transport, "members_of", members)
    asyncio.run(faust_transport.ConsumerThread._still_waiting(_thread()))
    assert "waiting to join the group app: no answer" in caplog.text
