"""Partitions that a destination seems not to have: before a refusal it is looked up anew."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import pytest

from delaystream.testing import MemoryDestinations, MemoryLog
from tests.unit.engine import Engine, header, in_virtual_time


class Looking(MemoryDestinations):
    """Counts the answers about each topic."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.looks: Counter[str] = Counter()

    async def ensure(self, topics: Iterable[str], within_ms: float = math.inf) -> None:
        before = {topic: self._seen_ms.get(topic) for topic in topics}
        await super().ensure(before, within_ms)
        self.looks.update([topic for topic, at_ms in before.items() if self._seen_ms.get(topic) != at_ms])


def with_looking(test: Callable[[Engine, Looking], Coroutine[Any, Any, None]], **settings: Any) -> None:
    async def started(engine: Engine) -> None:
        await engine.stop()
        looking = Looking(engine.log)
        engine.start(destinations=looking)
        await test(engine, looking)

    in_virtual_time(started, **settings)


def errors(engine: Engine) -> list[str]:
    return [header(record, "error") for record in engine.read("delay-dead-letters")]


WAYS: dict[str, list[dict[str, str]]] = {
    "at once": [{"destination": "orders", "delay": "0", "destination_partition": "2"}],
    "later": [{"destination": "orders", "delay": "5s", "destination_partition": "2"}],
    "named": [{"destination": "orders", "delay": "5s", "id": "x", "destination_partition": "2"}],
    "recurring": [{"destination": "orders", "every": "5s", "id": "x", "destination_partition": "2"}],
    "an update": [
        {"destination": "orders", "delay": "5s", "id": "there"},
        {"action": "update", "id": "there", "destination_partition": "2"},
    ],
    "an update in the same step": [
        {"destination": "orders", "delay": "5s", "id": "x"},
        {"action": "update", "id": "x", "destination_partition": "2"},
    ],
    "an update to there": [
        {"destination": "wide", "delay": "5s", "id": "x", "destination_partition": "2"},
        {"action": "update", "id": "x", "destination": "orders"},
    ],
    "late": [
        {
            "destination": "wide",
            "at": "1600000000000",
            "on_late": "orders",
            "grace": "0",
            "destination_partition": "2",
        }
    ],
    "late, named": [
        {
            "destination": "wide",
            "at": "1600000000000",
            "on_late": "orders",
            "grace": "0",
            "destination_partition": "2",
            "id": "x",
        }
    ],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("owner", [0, 1])
def test_nothing_is_refused_for_a_partition_that_was_added_meanwhile(way: str, owner: int) -> None:
    async def test(engine: Engine, looking: Looking) -> None:
        engine.log.create_topic("wide", 3)
        engine.request(b"first", destination="orders", delay="0")
        engine.request(b"first", destination="wide", delay="0")
        await asyncio.sleep(30)
        engine.log.grow_topic("orders", 3)
        for control in WAYS[way]:
            value = None if "action" in control else b"value"
            engine.request(value, b"key", (), owner, None, control)
            if way == "an update":
                await asyncio.sleep(1)
        await asyncio.sleep(8)
        assert errors(engine) == []
        assert b"value" in [record.value for partition, record in engine.log.all("orders") if partition == 2]

    with_looking(test, partitions=2)


@pytest.mark.parametrize("kind", ["at once", "late", "an update"])
def test_a_destination_is_looked_up_once_a_second_however_many_ask_for_what_it_has_not(kind: str) -> None:
    async def test(engine: Engine, looking: Looking) -> None:
        engine.log.create_topic("wide", 3)
        engine.request(b"first", destination="orders", delay="0")
        engine.request(b"first", destination="wide", delay="0")
        await asyncio.sleep(30)
        looking.looks.clear()
        sent = 0
        for _ in range(100):
            for _ in range(5):
                for control in WAYS[kind]:
                    value = None if "action" in control else b"value"
                    engine.request(value, b"key", (), 0, None, control)
                sent += 1
            await asyncio.sleep(0.1)
        await asyncio.sleep(3)
        assert 2 <= looking.looks["orders"] <= 13
        assert len(errors(engine)) == sent
        assert set(errors(engine)) <= {"destination-partition-out-of-range", "quarantined"}

    with_looking(test)


def test_what_waits_for_a_look_up_keeps_its_order_and_holds_nobody_up() -> None:
    async def test(engine: Engine, looking: Looking) -> None:
        engine.log.create_topic("wide", 1)
        late = {"destination": "wide", "on_late": "orders", "grace": "0"}
        engine.request(b"first", destination="orders", delay="0")
        engine.request(b"first", destination="wide", delay="0")
        await asyncio.sleep(30)
        for number in range(6):
            asked = {"destination_partition": "2"} if number % 2 else {}
            engine.request(b"%d" % number, b"key", (), 0, None, {"at": "1600000000000", **asked, **late})
        engine.log.grow_topic("orders", 3)
        engine.log.grow_topic("wide", 3)
        await asyncio.sleep(2)
        assert errors(engine) == []
        assert sorted(record.value or b"" for record in engine.read("orders")) == [
            *[b"%d" % number for number in range(6)],
            b"first",
        ]

    with_looking(test)
