"""The row that says how a partition stands, and the events that follow from it."""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec.structs import replace

from delaystream.codec import keys
from delaystream.codec.envelope import PARKED_TOLD, Bound, PartitionStatus, decode_status
from delaystream.core.rates import RateTable
from delaystream.engine.observer import Phase
from delaystream.engine.ports import TopicPartition
from tests.simulation.reckoning import differences, whole_state
from tests.unit.engine import Engine, in_virtual_time
from tests.unit.tenants import OTHER, tenant, tenants, with_tenants
from tests.unit.test_recurring import events

CHANGELOG = TopicPartition("delay-wheel-changelog", 0)


def rows(engine: Engine) -> list[PartitionStatus]:
    """All that were written, oldest first."""
    return [
        decode_status(record.value)
        for record in engine.read(CHANGELOG.topic)
        if record.key == keys.STATUS and record.value is not None
    ]


def told(engine: Engine) -> list[tuple[str, str]]:
    return [(e["type"], e["destination"]) for e in events(engine, "parked", "released")]


def run(test: Any, **settings: Any) -> None:
    in_virtual_time(test, **{"owner": "worker-0", "host": "host-7", **settings})


def test_an_idle_partition_tells_once_who_owns_it() -> None:
    async def test(engine: Engine) -> None:
        await asyncio.sleep(0.5)
        assert rows(engine) == [], "it waits for a step that it can go with"
        await asyncio.sleep(3_600)
        (row,) = rows(engine)
        assert (row.owner, row.host, row.parked) == ("worker-0", "host-7", [])
        assert len(engine.read(CHANGELOG.topic)) <= 4, "and nothing is written from then on"

    run(test)


def test_the_row_says_nothing_that_its_owner_may_not_be_there_to_take_back() -> None:
    """What a worker does at the moment, it says itself: the row outlives it."""

    async def test(engine: Engine) -> None:
        await asyncio.sleep(60)
        await engine.stop()
        written = [r.value or b"" for r in engine.read(CHANGELOG.topic) if r.key == keys.STATUS]
        assert written
        assert not any(phase.value.encode() in row for row in written for phase in Phase)
        engine.start()

    run(test)


def test_the_row_goes_with_the_next_step() -> None:
    """And is renewed by a busy partition now and then, not by each of its steps."""

    async def test(engine: Engine) -> None:
        engine.request(destination="orders", delay="0")
        await asyncio.sleep(0.1)
        assert len(rows(engine)) == 1
        for _ in range(100):
            engine.request(destination="orders", delay="1h")
            await asyncio.sleep(1)
        assert len(rows(engine)) == 2
        assert list(differences(whole_state(engine.log, CHANGELOG), engine.stores.disks[0])) == []

    run(test)


def test_a_parked_destination_and_its_end_are_told_once() -> None:
    """With reason and since when; however often it was tried in between."""

    async def test(engine: Engine) -> None:
        begin_ms = engine.clock.now_ms()
        engine.request(destination="missing", delay="1s")
        await asyncio.sleep(300)
        (parked,) = rows(engine)[-1].parked
        assert (parked.destination, parked.since_ms - begin_ms) == ("missing", 1_000)
        (event,) = events(engine, "parked")
        assert event["reason"] == parked.reason
        assert (event["partition"], event["since_ms"]) == (0, parked.since_ms)
        assert "schedule_id" not in event
        engine.log.create_topic("missing", 1)
        await asyncio.sleep(120)
        assert rows(engine)[-1].parked == []
        assert told(engine) == [("parked", "missing"), ("released", "missing")]
        assert len(rows(engine)) <= 4

    run(test)


def test_a_destination_that_nothing_waits_for_any_more_is_released() -> None:
    """Nobody would try it again; so nobody would ever find out that it can be written."""

    async def test(engine: Engine) -> None:
        refusing = engine.log.topics["orders"]
        refusing.refusal = "not authorized"
        engine.request(destination="orders", delay="1s", id="job")
        await asyncio.sleep(5)
        assert [parked.destination for parked in rows(engine)[-1].parked] == ["orders"]
        engine.request(id="job", action="cancel")
        refusing.refusal = None
        await asyncio.sleep(300)
        assert rows(engine)[-1].parked == []
        assert told(engine) == [("parked", "orders"), ("released", "orders")]
        assert engine.read("orders") == []

    run(test)


def test_the_next_owner_tells_that_it_is_another_one() -> None:
    """What the last one had parked is released by its first row; it parks what it finds to be so."""

    async def test(engine: Engine) -> None:
        engine.request(destination="missing", delay="1s")
        await asyncio.sleep(10)
        await engine.stop()
        engine.log.create_topic("missing", 1)
        engine.stores.disks.clear()
        engine.settings = replace(engine.settings, owner="worker-1")
        engine.start()
        await asyncio.sleep(60)
        assert [row.owner for row in rows(engine)][-1] == "worker-1"
        assert told(engine) == [("parked", "missing"), ("released", "missing")]
        before = len(rows(engine))
        await engine.stop()
        engine.start()
        await asyncio.sleep(60)
        assert len(rows(engine)) == before, "the same one has nothing new to tell"

    run(test)


def test_without_its_topic_for_events_it_waits_and_holds_nothing_up() -> None:
    async def test(engine: Engine) -> None:
        engine.log.delete_topic("delay-events")
        engine.request(destination="orders", delay="1s")
        engine.request(destination="missing", delay="1s")
        await asyncio.sleep(30)
        assert len(engine.read("orders")) == 1
        assert rows(engine) == []
        engine.log.create_topic("delay-events", 1)
        await asyncio.sleep(60)
        assert told(engine) == [("parked", "missing")]

    run(test)


def test_events_that_are_off_are_not_told_by_it() -> None:
    async def test(engine: Engine) -> None:
        engine.log.delete_topic("delay-events")
        engine.request(destination="missing", delay="1s")
        await asyncio.sleep(30)
        assert [parked.destination for parked in rows(engine)[-1].parked] == ["missing"]

    run(test, events=False)


def test_the_row_names_so_many_and_counts_all() -> None:
    async def test(engine: Engine) -> None:
        for number in range(PARKED_TOLD + 20):
            engine.request(destination=f"missing-{number:03}", delay="1s")
        await asyncio.sleep(300)
        row = rows(engine)[-1]
        assert (len(row.parked), row.parked_count) == (PARKED_TOLD, PARKED_TOLD + 20)

    run(test)


def test_the_rates_of_the_settings_are_told() -> None:
    async def test(engine: Engine) -> None:
        await asyncio.sleep(5)
        assert rows(engine)[-1].rates == [Bound("", "e*", 2.0), Bound(OTHER, "orders", 5.0)]

    limited = tenant("*", rates=RateTable([("orders", 5.0)]))
    with_tenants(test, tenants(limited, rates="e*=2"), owner="worker-0")


def test_where_nobody_is_named_nothing_is_told() -> None:
    async def test(engine: Engine) -> None:
        engine.request(destination="missing", delay="1s")
        await asyncio.sleep(60)
        assert rows(engine) == []

    in_virtual_time(test)
