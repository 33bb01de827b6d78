"""What one question costs is bounded: rows that are read, events that are added up, readers of Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from delaystream.console import service
from delaystream.console.access.caller import ITSELF, Caller, Grant, Role
from delaystream.console.replica import pending
from delaystream.console.replica.pending import Pending, PendingEvent, Wanted
from delaystream.console.service import Console
from delaystream.engine.ports import LogBounds
from tests.unit.console.neighbours import MINE, neighbours
from tests.unit.console.serving import console

MY_CALLER = Caller(name="mine", grants=(Grant(MINE, Role.VIEWER),), payload=True)


class Counting:
    """A store that counts the rows that are read by their key."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.read = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def get(self, key: bytes) -> bytes | None:
        self.read += key[:1] in b"sw"
        found: bytes | None = self._store.get(key)
        return found


def beside(directory: Path, story: Callable[[Console], Awaitable[None]]) -> None:
    """A console over what two request topics left behind."""

    of = neighbours()

    async def happen() -> None:
        async with console(of, directory) as made:
            await story(made)

    asyncio.run(happen())


@pytest.mark.parametrize(
    ("caller", "wanted"),
    [(MY_CALLER, Wanted()), (ITSELF, Wanted(tenants=frozenset({MINE})))],
    ids=["may see", "asks for"],
)
def test_of_what_is_pending_nothing_is_read_that_is_another_request_topic_s(
    caller: Caller, wanted: Wanted, tmp_path: Path
) -> None:
    async def story(made: Console) -> None:
        ((number, copy),) = made._copies.items()
        store = Counting(copy.store)
        page = Pending({number: replace(copy, store=store)}, caller).page(wanted, 500)
        assert {one.request_topic for one in page.items} == {MINE}
        assert store.read == len(page.items)

    beside(tmp_path, story)


def test_a_page_of_what_is_pending_reads_so_many_rows_and_the_next_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(made: Console) -> None:
        expected = made.pending.page(Wanted(tag="shared"), 500).items
        ((number, copy),) = made._copies.items()
        monkeypatch.setattr(pending, "READ", 1)
        monkeypatch.setattr(pending, "FEW_NAMED", 0)
        found: list[PendingEvent] = []
        after = None
        while True:
            store = Counting(copy.store)
            page = Pending({number: replace(copy, store=store)}).page(Wanted(tag="shared"), 500, after)
            assert store.read <= 1
            found += page.items
            after = page.next
            if after is None:
                break
        assert found == expected
        assert len(expected) > 2

    beside(tmp_path, story)


def test_of_a_summary_only_the_destination_is_loaded_that_is_asked_for(tmp_path: Path) -> None:
    async def story(made: Console) -> None:
        everything = made.history.sums(60, 0, 2**50)
        found = made.history.sums(60, 0, 2**50, destination="orders")
        assert found == [one for one in everything if one.destination == "orders"]
        assert 0 < len(found) < len(everything)

    beside(tmp_path, story)


def test_so_many_readers_of_kafka_are_open_for_questions(tmp_path: Path) -> None:
    async def story(made: Console) -> None:
        opened = most = 0

        async def counted(topic: str, partition: int) -> LogBounds:
            nonlocal opened, most
            opened += 1
            most = max(most, opened)
            await asyncio.sleep(0)
            opened -= 1
            return LogBounds(0, 0, 0)

        made._look_up = counted
        seen = [made.seen_by(MY_CALLER) for _ in range(20)]
        await asyncio.gather(*[one.bounds(MINE, 0) for one in seen])
        assert most == service.READERS

    beside(tmp_path, story)
