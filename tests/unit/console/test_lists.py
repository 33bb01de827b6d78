"""Lists, counts and what is pending, against the rows themselves."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from delaystream.codec.envelope import Envelope, Status
from delaystream.codec.event import next_at_ms
from delaystream.console.replica import catalog
from delaystream.console.replica import pending as pending_list
from delaystream.console.replica.catalog import Catalog, Filter, Sort
from delaystream.console.replica.follower import Follower
from delaystream.console.replica.index_keys import CORRELATION_BYTES, correlation_prefix
from delaystream.console.replica.pending import Copy, Pending, PendingEvent, Wanted
from delaystream.engine.ports import StateStore
from delaystream.query.partition import StoredPartition, StoredSchedule
from delaystream.testing import MemoryStateStores, VirtualTimeLoop
from tests.unit.console.test_follower import act, at_work, caught_up, follower
from tests.unit.engine import Engine

TWO_TIMES = "2100-01-01T00:00:00Z,2100-01-02T00:00:00Z"
FILTERS = [
    Filter(),
    Filter(statuses=tuple(Status)),
    Filter(statuses=(Status.PAUSED,)),
    Filter(destination="orders"),
    Filter(destination="emails", statuses=tuple(Status)),
    Filter(key=b"key", statuses=tuple(Status)),
    Filter(tag="x"),
    Filter(correlation_id=b"order-1", statuses=tuple(Status)),
    Filter(id_prefix="user-1"),
    Filter(text="weekly"),
    Filter(text="WEEKLY user"),
    Filter(text="weekly", destination="orders", statuses=tuple(Status)),
    Filter(tag="x", id_prefix="user-1"),
    Filter(tag="x", destination="orders"),
    Filter(next_from_ms=0, next_to_ms=4_102_444_800_001),
    Filter(next_from_ms=1, destination="orders"),
    Filter(next_to_ms=4_102_444_800_001, id_prefix="li", statuses=tuple(Status)),
    Filter(tenants=frozenset({"delay-requests"})),
    Filter(tenants=frozenset({"another"})),
]
EVENTS = [
    Wanted(),
    Wanted(destination="orders"),
    Wanted(key=b"customer-2"),
    Wanted(key=b"key"),
    Wanted(tag="a"),
    Wanted(tag="x"),
    Wanted(key=b"customer-2", destination="orders"),
    Wanted(tag="a", destination="orders"),
    Wanted(tenants=frozenset({"another"})),
]


def pages(listed: Any, wanted: Any, *arguments: Any) -> list[Any]:
    found: list[Any] = []
    after = None
    while True:
        page = listed.page(wanted, *arguments, 3, after)
        assert len(page.items) <= 3
        found += page.items
        after = page.next
        if after is None:
            return found


def naive(stored: StoredPartition, wanted: Filter, sort: Sort) -> tuple[list[StoredSchedule], Any]:
    fitting = [found for found in stored.schedules() if wanted.fits(found.tenant, found.id, found.row)]
    far = 1 << 70

    def next_of(found: StoredSchedule) -> Any:
        due_ms = next_at_ms(found.row)
        return far if due_ms is None else due_ms

    order = {
        Sort.NEXT: next_of,
        Sort.LAST: lambda found: -found.row.last_fired_ms if found.row.last_fired_ms >= 0 else far,
        Sort.CREATED: lambda found: -found.row.created_ms if found.row.created_ms >= 0 else far,
        Sort.ID: lambda found: found.id,
    }[sort]
    return sorted(fitting, key=order), order


def all_events(stored: StoredPartition) -> list[tuple[int, str, bytes | None, list[str], str | None]]:
    events: list[tuple[int, str, bytes | None, list[str], str | None]] = [
        (fire.due_at_ms, fire.destination, entry.delivered_key, entry.tags, None)
        for fire, entry in stored.entries()
        if isinstance(entry, Envelope)
    ]
    for found in stored.schedules():
        row = found.row
        events += [
            (int.from_bytes(key[5:13]), row.destination, row.key, row.tags, found.id)
            for key in row.pending
            if row.status is Status.PENDING
        ]
    return sorted(events, key=lambda event: event[0])


def told(event: PendingEvent) -> tuple[int, str, bytes | None, list[str], str | None]:
    return (event.due_at_ms, event.destination, event.key, list(event.tags), event.id)


def check(following: Follower) -> None:
    store, stored = following.store, following.stored
    assert store is not None
    assert stored is not None
    listed = Catalog({0: store}, 1)
    for wanted in FILTERS:
        for sort in Sort:
            expected, order = naive(stored, wanted, sort)
            found = pages(listed, wanted, sort)
            assert [order(one) for one in found] == [order(one) for one in expected], (wanted, sort)
            assert {(one.tenant, one.id) for one in found} == {(one.tenant, one.id) for one in expected}
        total = listed.total(wanted)
        assert (total.count, total.exact) == (len(expected), True), wanted
    pending = Pending({0: Copy(store, stored)})
    everything = all_events(stored)
    for asked in EVENTS:
        events = [told(event) for event in pages(pending, asked)]
        fitting = [
            event
            for event in everything
            if asked.tenants is None
            and asked.destination in (None, event[1])
            and asked.key in (None, event[2])
            and (asked.tag is None or asked.tag in event[3])
        ]
        assert [event[0] for event in events] == [event[0] for event in fitting], asked
        assert sorted(map(repr, events)) == sorted(map(repr, fitting)), asked
    counted: Counter[tuple[str, str]] = Counter()
    for topic, destination, count in pending.counts():
        counted[topic, destination] += count
    assert counted == Counter(
        (fire.source.topic, fire.destination)
        for fire, entry in stored.entries()
        if isinstance(entry, Envelope)
    )


@pytest.mark.parametrize("seed", range(6))
def test_lists_hold_what_the_rows_hold_in_order(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if seed % 3:
        # Nothing is few: every list goes through the index in its order.
        monkeypatch.setattr(catalog, "FEW", -1)
    if seed % 3 == 1:
        # And nothing narrows.
        monkeypatch.setattr(catalog, "NARROWED", -1)
    if seed % 2:
        monkeypatch.setattr(pending_list, "FEW_NAMED", -1)
    dice = random.Random(seed)
    with VirtualTimeLoop() as loop:
        engine = Engine(loop)

        async def story() -> None:
            engine.start()
            following = follower(engine, MemoryStateStores())
            with at_work(loop, following):
                for _ in range(6):
                    for _ in range(20):
                        act(engine, dice)
                        await asyncio.sleep(dice.choice([0, 0.01, 5, 300]))
                    engine.request(
                        destination="orders", at="2100-01-01T00:00:00Z,2100-01-02T00:00:00Z", id="list"
                    )
                    await asyncio.sleep(1)
                    await caught_up(engine, following)
                    check(following)
            await engine.stop()

        loop.run_until_complete(story())


class Counted:
    """A store that counts the rows which are read."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self.rows = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def get(self, key: bytes) -> bytes | None:
        self.rows += 1
        return self._store.get(key)

    def scan(
        self, start: bytes, stop: bytes, limit: int, most_bytes: int | None = None
    ) -> list[tuple[bytes, bytes]]:
        found = self._store.scan(start, stop, limit, most_bytes)
        self.rows += len(found)
        return found


@pytest.mark.parametrize("wanted", [Wanted(key=b"hot"), Wanted(tag="hot"), Wanted(correlation_id=b"hot")])
def test_a_page_of_what_very_many_have_is_read_from_few_rows(
    wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are: those without an id, and those with one, each in due order."""
    many = 1_200
    monkeypatch.setattr(pending_list, "FEW_NAMED", 20)
    with VirtualTimeLoop() as loop:
        engine = Engine(loop)

        async def story() -> None:
            engine.start()
            hot: dict[str, Any] = {
                "key": b"hot",
                "tags": "hot",
                "foreign": [("correlation-id", b"hot")],
                "destination": "orders",
            }
            for number in range(many):
                engine.request(delay=f"{100_000 + 2 * number}s", **hot)
                engine.request(delay=f"{100_001 + 2 * number}s", id=f"user-{number}", **hot)
            following = follower(engine, MemoryStateStores())
            with at_work(loop, following):
                await asyncio.sleep(30)
                await caught_up(engine, following)
                store, stored = following.store, following.stored
                assert store is not None
                assert stored is not None
                counted = Counted(store)
                listed = Pending({0: Copy(counted, stored)})
                first = listed.page(wanted, 50)
                assert counted.rows < 600, counted.rows
                counted.rows = 0
                second = listed.page(wanted, 50, first.next)
                assert counted.rows < 600, counted.rows
            due = [event.due_at_ms for event in (*first.items, *second.items)]
            assert due == [due[0] + 1_000 * number for number in range(100)]
            assert [event.id for event in first.items[:4]] == [None, "user-0", None, "user-1"]
            await engine.stop()

        loop.run_until_complete(story())


def test_of_a_long_correlation_id_the_index_keeps_a_part_and_the_whole_of_it_finds() -> None:
    """Anybody may write a header of any length: it must neither stop a copy nor fill its index."""
    longest = b"x" * 30_000
    ids = [longest, longest[:-1], longest[:CORRELATION_BYTES]]
    # Workers may be told to take headers of up to 1 MiB.
    assert correlation_prefix(b"x" * 1_000_000) == correlation_prefix(longest)
    with VirtualTimeLoop() as loop:
        engine = Engine(loop)

        async def story() -> None:
            engine.start()
            for number, id in enumerate(ids):
                headers = [("correlation-id", id)]
                engine.request(delay=f"{number + 1}h", destination="orders", foreign=headers)
            engine.request(delay="1h", destination="orders", id="named", foreign=[("x-request-id", ids[2])])
            following = follower(engine, MemoryStateStores())
            with at_work(loop, following):
                await asyncio.sleep(1)
                await caught_up(engine, following)
                store, stored = following.store, following.stored
                assert store is not None
                assert stored is not None
                rows = store.scan(b"H", b"I", 100)
                assert len(rows) == 4
                assert max(len(key) for key, _ in rows) < 2 * CORRELATION_BYTES
                listed = Pending({0: Copy(store, stored)})
                for number, id in enumerate(ids):
                    found = listed.page(Wanted(correlation_id=id), 10).items
                    assert [one.source for one in found if one.id is None] == [f"delay-requests/0/{number}"]
                named = Filter(correlation_id=ids[2])
                assert [one.id for one in Catalog({0: store}, 1).page(named, Sort.ID, 9).items] == ["named"]
                named = Filter(correlation_id=ids[1])
                page, total = Catalog({0: store}, 1).listed(named, Sort.ID, 9)
                assert (list(page.items), total.count, total.exact) == ([], 0, True)
            await engine.stop()

        loop.run_until_complete(story())
