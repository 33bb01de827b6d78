"""Anybody can name any topic, and as many as they like: that costs the others nothing, and it ends."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delaystream.adapters.kafka import metadata as kafka_metadata
from delaystream.adapters.kafka.connections import TopicMetadata
from delaystream.adapters.kafka.metadata import KafkaDestinations
from delaystream.core.wheel import HOUSEKEEPING, WheelHeads
from delaystream.engine.fire import firing
from delaystream.engine.state import partition_state as state
from delaystream.testing import MemoryDestinations
from delaystream.testing.store import MemoryStore
from tests.unit.engine import Engine, header, in_virtual_time
from tests.unit.test_suspects import errors

# -- heads ---------------------------------------------------------------------------------------

wheels = st.integers(0, 5)
times = st.integers(0, 20)
changes = st.lists(
    st.one_of(
        st.tuples(st.just("add"), wheels, times),
        st.tuples(st.just("set"), wheels, st.none() | times),
        st.tuples(st.just("close"), wheels.filter(bool), st.none()),
        st.tuples(st.just("open"), wheels.filter(bool), st.none()),
    ),
    max_size=60,
)


@given(changes, times)
def test_heads_are_those_of_a_plain_table(made: list[tuple[str, int, int | None]], now_ms: int) -> None:
    heads = WheelHeads()
    table: dict[int, int] = {}
    closed: set[int] = set()
    for what, wheel, due_ms in made:
        if what == "add":
            assert due_ms is not None
            heads.add(wheel, due_ms)
            table[wheel] = min(due_ms, table.get(wheel, due_ms))
        elif what == "set":
            heads.set(wheel, due_ms)
            table.pop(wheel, None)
            if due_ms is not None:
                table[wheel] = due_ms
        elif what == "close":
            heads.close(wheel)
            closed.add(wheel)
        else:
            heads.open(wheel)
            closed.discard(wheel)
        opened = {wheel: due_ms for wheel, due_ms in table.items() if wheel not in closed}
        due = list(heads.due(now_ms))
        assert sorted(due) == sorted(wheel for wheel, due_ms in opened.items() if due_ms <= now_ms)
        delivered = [opened[wheel] for wheel in due if wheel != HOUSEKEEPING]
        assert delivered == sorted(delivered)
        assert heads.next_due() == min(opened.values(), default=None)
        oldest = [due_ms for wheel, due_ms in table.items() if wheel != HOUSEKEEPING]
        assert heads.oldest() == min(oldest, default=None)


# -- the engine --------------------------------------------------------------------------------


class Looking(MemoryDestinations):
    """Counts the topics that are looked up at once."""

    most = 0

    async def ensure(self, topics: Iterable[str], within_ms: float = math.inf) -> None:
        wanted = list(topics)
        self.most = max(self.most, len(wanted))
        await super().ensure(wanted, within_ms)


def test_thousands_of_missing_destinations_that_are_due_at_once_hold_up_nobody() -> None:
    async def test(engine: Engine) -> None:
        await engine.stop()
        looking = Looking(engine.log)
        engine.start(destinations=looking)
        for number in range(1_000):
            engine.request(destination=f"missing-{number}", delay="5s")
        for number in range(200):
            engine.request(destination="orders", delay=f"{4_990 + 5 * number}ms")
        await asyncio.sleep(4)
        looking.most = 0
        await asyncio.sleep(8)
        late = [int(header(r, "fired-at")) - int(header(r, "due-at")) for r in engine.read("orders")]
        assert len(late) == 200
        assert max(late) <= 100
        # Those of the wheels that are tried, and delaystream's own.
        assert looking.most <= firing._WHEELS_AT_ONCE + 10
        engine.log.create_topic("missing-999", 1)
        await asyncio.sleep(120)
        assert len(engine.read("missing-999")) == 1

    in_virtual_time(test)


def test_what_is_parked_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(engine: Engine) -> None:
        for number in range(500):
            engine.request(destination=f"missing-{number}", delay="1s")
        await asyncio.sleep(630)
        looked: list[Any] = []
        scan = MemoryStore.scan
        asked: list[Any] = []
        until = firing.Firing._closed_until

        def looking(*args: Any) -> Any:
            looked.append(args)
            return scan(*args)

        def asking(*args: Any) -> Any:
            asked.append(args)
            return until(*args)

        monkeypatch.setattr(MemoryStore, "scan", looking)
        monkeypatch.setattr(firing.Firing, "_closed_until", asking)
        for _ in range(50):
            engine.request(destination="orders", delay="0")
            await asyncio.sleep(0.05)
        assert len(engine.read("orders")) == 50
        assert len(looked) + len(asked) < 300, "500 destinations that are tried once a minute, in 50 steps"

    # All are tried again at the same moment, a minute apart: not within these 2.5 seconds.
    in_virtual_time(test, destination_backoff_min_ms=60_000, destination_backoff_max_ms=60_000)


def test_names_that_nothing_refers_to_are_forgotten_and_their_numbers_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state, "_NAMES_KEPT", 50)

    async def test(engine: Engine) -> None:
        engine.request(b"kept", destination="orders", id="kept", delay="1h")
        for number in range(250):
            engine.request(destination=f"missing-{number}", id=f"{number}", delay="30m")
        await asyncio.sleep(5)
        for number in range(250):
            engine.request(None, None, action="cancel", id=f"{number}")
        await asyncio.sleep(5)
        for number in range(50):
            engine.request(destination="emails", delay=f"{number * 10}ms")
        await asyncio.sleep(30)
        processor = engine.processors[0]
        names = [key for key in engine.stores.disks[0].values if key[:1] == b"d"]
        assert len(names) <= 52
        # New names take the numbers of those that are gone; a rebuilt store tells them apart as well.
        for number in range(120):
            engine.log.create_topic(f"new-{number}", 1)
            engine.request(b"%d" % number, destination=f"new-{number}", delay="20s")
        await asyncio.sleep(5)
        await engine.stop()
        engine.stores.destroy(0)
        engine.start()
        await asyncio.sleep(60)
        for number in range(120):
            assert [record.value for record in engine.read(f"new-{number}")] == [b"%d" % number]
        assert engine.processors[0] is not processor
        await asyncio.sleep(4_000)
        assert [record.value for record in engine.read("orders")] == [b"kept"]
        assert errors(engine) == []
        most = max(int.from_bytes(key[1:]) for key in engine.stores.disks[0].values if key[:1] == b"d")
        assert most <= 252

    in_virtual_time(test)


# -- the log ----------------------------------------------------------------------------------------


class Nothing:
    """A cluster without topics."""

    async def describe(
        self, topics: Iterable[str], *, authorizations: bool = False
    ) -> dict[str, TopicMetadata]:
        return {topic: TopicMetadata(topic, 3, "", ()) for topic in topics}

    async def close(self) -> None:
        pass


def test_destinations_that_cannot_be_written_to_are_summed_up_in_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[tuple[str, dict[str, Any]]] = []

    class Logger:
        def warning(self, event: str, **fields: Any) -> None:
            told.append((event, fields))

        def debug(self, event: str, **fields: Any) -> None:
            raise AssertionError(event)

    monkeypatch.setattr(kafka_metadata, "logger", Logger())

    async def test() -> None:
        now_s = [0.0]
        destinations = KafkaDestinations({}, now_s=lambda: now_s[0])
        destinations._connections = Nothing()  # type: ignore[assignment]
        for number in range(30_000):
            if number % 1_000 == 0:
                await destinations.ensure([f"t{n}" for n in range(number, number + 1_000)])
        assert len(told) == kafka_metadata._TOLD_BY_NAME
        assert len(destinations._seen) <= kafka_metadata._SEEN_TOPICS
        now_s[0] = 61.0
        await destinations.ensure(["one-more"])
        event, fields = told[kafka_metadata._TOLD_BY_NAME]
        assert (event, fields["count"]) == ("more destinations cannot be written to", 29_980)
        assert told[-1][1]["topic"] == "one-more"
        await destinations.close()

    asyncio.run(test())
