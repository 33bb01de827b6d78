"""Commands for many at work together: what each reaches, in their order, and what a step of them costs."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from random import Random
from typing import Any
from unittest.mock import patch

import pytest

from delaystream.engine.bulk import Bulks
from delaystream.engine.step import Step
from tests.unit.engine import Engine, in_virtual_time
from tests.unit.test_commands import receipts
from tests.unit.test_recurring import events

_DONE = {"pause": "paused", "resume": "resumed", "cancel": "cancelled"}
_STATUS = {"pause": "paused", "resume": "pending", "cancel": "cancelled"}


class _Expected:
    """What would be if each command for many were carried out at once."""

    def __init__(self) -> None:
        self.status: dict[str, str] = {}
        self.tags: dict[str, set[str]] = {}
        self.destinations: dict[str, str] = {}
        #: the events of each id
        self.told: dict[str, list[str]] = defaultdict(list)
        #: (matched, count) in the receipt of each command for many, by its offset
        self.counted: dict[int, tuple[int, int]] = {}

    def define(self, id: str, tags: set[str], destination: str) -> None:
        self.status[id], self.tags[id], self.destinations[id] = "pending", tags, destination
        self.told[id].append("scheduled")

    def many(self, offset: int, action: str, prefix: str, tags: set[str], destination: str | None) -> None:
        hit = [
            id
            for id, status in self.status.items()
            if status != "cancelled"
            and id.startswith(prefix)
            and tags <= self.tags[id]
            and destination in (None, self.destinations[id])
        ]
        changed = [id for id in hit if self.status[id] != _STATUS[action]]
        for id in changed:
            self.status[id] = _STATUS[action]
            self.told[id].append(_DONE[action])
        self.counted[offset] = (len(hit), len(changed))

    def one(self, id: str, action: str) -> bool:
        """A command about an id; whether that is live."""
        if self.status[id] == "cancelled":
            self.told[id].append("too-late")
        elif action == "update":
            self.told[id].append("updated")
        elif self.status[id] == _STATUS[action]:
            self.told[id].append("unchanged")
        else:
            self.status[id] = _STATUS[action]
            self.told[id].append(_DONE[action])
        return self.status[id] != "cancelled"


def _tags(random: Random) -> set[str]:
    return {tag for tag in "xyz" if random.random() < 0.45}


def _ask_many(engine: Engine, random: Random, expected: _Expected) -> None:
    action = random.choice(("pause", "resume", "pause", "resume", "pause", "resume", "cancel"))
    # By a prefix a pause is about ids alone, and has no hold: what two of them hold ends with both.
    prefix = random.choice(("a", "b", "c", "a1", "c1") if action == "pause" else ("", "", "a", "b", "c"))
    tags = _tags(random) if random.random() < 0.5 else set[str]()
    destination = random.choice((None, None, "orders", "emails"))
    if action == "cancel":
        tags = {"x", "y"}
    elif not (prefix or tags or destination):
        destination = "orders"
    match = {"match_id_prefix": prefix, "match_tags": ",".join(sorted(tags))}
    match = {
        name: value for name, value in {**match, "match_destination": destination or ""}.items() if value
    }
    offset = engine.request(action=action, reply_to="replies", partition=0, control=match)
    expected.many(offset, action, prefix, tags, destination)


def _ask_one(engine: Engine, random: Random, expected: _Expected) -> None:
    id = random.choice([*expected.status])
    action = random.choice(("pause", "resume", "update", "update"))
    change: dict[str, str] = {}
    live = expected.one(id, action)
    if action == "update" and random.random() < 0.5:
        destination = change["destination"] = random.choice(("orders", "emails"))
        if live:
            expected.destinations[id] = destination
    elif action == "update":
        tags = _tags(random)
        change["tags"] = ",".join(sorted(tags)) or "none"
        if live:
            expected.tags[id] = tags
    engine.request(None, action=action, id=id, partition=0, control=change)


@pytest.mark.parametrize("seed", range(24))
def test_commands_for_many_are_as_if_each_had_been_carried_out_at_once(seed: int) -> None:
    """However many are at work, at whatever points of their sweeps, and whoever dies meanwhile."""
    random = Random(f"{seed}")

    async def test(engine: Engine) -> None:
        expected = _Expected()
        for id in [f"{letter}{number}" for number in range(random.choice((2, 7, 14))) for letter in "abc"]:
            tags, destination = _tags(random), random.choice(("orders", "emails"))
            told = {"tags": ",".join(sorted(tags))} if tags else {}
            engine.request(b"v", id=id, delay="100h", destination=destination, partition=0, control=told)
            expected.define(id, tags, destination)
        await asyncio.sleep(20)
        for _ in range(random.choice((3, 10, 40))):
            if random.random() < 0.5:
                await asyncio.sleep(random.choice((0.001, 0.01, 0.03, 0.1)))
            if random.random() < 0.1:
                await engine.stop()
                if random.random() < 0.5:
                    engine.stores.disks.clear()
                engine.start()
            ask = _ask_many if random.random() < 0.6 else _ask_one
            ask(engine, random, expected)
        await asyncio.sleep(200)
        told_of: dict[str, list[str]] = defaultdict(list)
        for event in events(engine):
            if "id" in event:
                told_of[event["id"]].append(event["type"])
        assert told_of == expected.told
        counted = {int(r["source"].rsplit("/")[-1]): (r["matched"], r["count"]) for r in receipts(engine)}
        assert counted == expected.counted

    in_virtual_time(
        test,
        partitions=random.choice((1, 2)),
        bulk_slice=random.choice((1, 2, 3, 5)),
        transaction_max_records=random.choice((8_000, 3, 10)),
    )


# -- what they cost ------------------------------------------------------------------------------


def _compared(engine_test: Any, **settings: int) -> Counter[int]:
    """How many commands were compared with schedules, by step."""
    by_step: Counter[int] = Counter()
    original: Any = Bulks._settle

    def settle(self: Bulks, step: Step, key: bytes, stored: bytes, *sweeping: Any) -> int:
        together = sweeping[0] if sweeping and isinstance(sweeping[0], list) else self._at_work
        by_step[step.number] += len(together)
        settled: int = original(self, step, key, stored, *sweeping)
        return settled

    with patch.object(Bulks, "_settle", settle):
        in_virtual_time(engine_test, **settings)
    return by_step


@pytest.mark.parametrize("together", [True, False], ids=["at once", "one by one"])
@pytest.mark.parametrize("prefix", [{}, {"match_id_prefix": "customer"}], ids=["", "prefix"])
def test_many_commands_compare_each_schedule_with_each_of_them_but_once(
    prefix: dict[str, str], together: bool
) -> None:
    count = 60

    async def test(engine: Engine) -> None:
        for number in range(count):
            engine.request(id=f"customer-{number}", delay="1h", destination="orders", tags=f"c-{number}")
        await asyncio.sleep(5)
        for number in range(count):
            engine.request(action="pause", match_tags=f"c-{number}", reply_to="replies", control=prefix)
            if not together:
                await asyncio.sleep(0.02)
        await asyncio.sleep(60)
        assert [(r["matched"], r["count"]) for r in receipts(engine)] == [(1, 1)] * count

    by_step = _compared(test, bulk_slice=10)
    # What is nearly a slice ahead of another one may be looked at in vain.
    assert count * count <= by_step.total() <= count * (count + 10)
    # 16 schedules at least, however many commands there are.
    assert max(by_step.values()) <= 16 * count


@pytest.mark.parametrize("later", ["commands", "ends of pauses"])
def test_a_step_of_what_comes_later_is_bounded_by_what_it_is_compared_with(later: str) -> None:
    """Each of them is compared with all that is at work before it is carried out."""
    count = 80

    async def test(engine: Engine) -> None:
        for number in range(200):
            engine.request(id=f"a-{number}", delay="1h", destination="orders")
        until = str(engine.clock.now_ms() + 10_050)
        if later != "commands":
            for number in range(200):
                engine.request(action="pause", id=f"a-{number}", until=until)
        await asyncio.sleep(10)
        for number in range(count):
            engine.request(action="pause", match_tags=f"c-{number}", match_id_prefix="a", reply_to="replies")
        if later == "commands":
            for number in range(200):
                engine.request(action="trigger", id=f"a-{number}")
        await asyncio.sleep(60)
        assert len(receipts(engine)) == count
        assert len(events(engine, "resumed" if later != "commands" else "triggered")) == 200

    by_step = _compared(test, bulk_slice=1, transaction_max_records=100)
    # A step has room for 100 records, and a quarter more for what is due.
    assert max(by_step.values()) <= 1.5 * 100 * 8


def test_who_has_no_room_in_a_step_comes_first_in_the_next() -> None:
    """Sweeps at points of their own share a step, and none waits until all before it have ended."""

    async def test(engine: Engine) -> None:
        for prefix in "abcdefgh":
            for number in range(40 if prefix < "h" else 2):
                engine.request(id=f"{prefix}-{number}", delay="1h", destination="orders")
        await asyncio.sleep(5)
        for prefix in "abcdefgh":
            engine.request(action="pause", match_id_prefix=prefix, reply_to="replies")
        await asyncio.sleep(60)
        assert [r["count"] for r in receipts(engine)].index(2) == 0
        assert sorted(r["count"] for r in receipts(engine)) == [2, *[40] * 7]

    in_virtual_time(test, bulk_slice=1)
