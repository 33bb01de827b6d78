"""What a partition does with requests, from the topic they come from to the topic they go to."""

from __future__ import annotations

import asyncio
import json

import pytest
from msgspec.structs import replace

from delaystream.engine.failures import Misconfigured
from delaystream.engine.ports import TopicPartition
from delaystream.testing import Calm, LoopClock, MemoryProducer, MemorySources, VirtualTimeLoop
from delaystream.testing.partition import Epoch, Topic
from delaystream.testing.store import MemoryStore
from tests.unit.engine import Engine, header, in_virtual_time


def test_a_request_is_delivered_at_its_due_time_and_not_before() -> None:
    async def test(engine: Engine) -> None:
        due_ms = engine.clock.now_ms() + 5000
        engine.request(
            b"pay", b"order-1", [("trace", b"\xff"), ("trace", None)], destination="orders", delay="5s"
        )
        await asyncio.sleep(4.9)
        assert engine.read("orders") == []
        await asyncio.sleep(0.2)
        (record,) = engine.read("orders")
        assert (record.key, record.value) == (b"order-1", b"pay")
        assert list(record.headers)[:2] == [("trace", b"\xff"), ("trace", None)]
        assert header(record, "due-at") == str(due_ms)
        assert header(record, "schedule-id") == "delay-requests/0/0"
        assert header(record, "fire-id") == f"delay-requests/0/0/0/{due_ms}"

    in_virtual_time(test)


def test_a_request_that_is_due_on_arrival_is_delivered_at_once() -> None:
    async def test(engine: Engine) -> None:
        engine.request(destination="orders", delay="0")
        await asyncio.sleep(0.1)
        assert len(engine.read("orders")) == 1

    in_virtual_time(test)


def test_each_due_time_of_a_list_is_delivered() -> None:
    async def test(engine: Engine) -> None:
        engine.request(destination="orders", delay="0,2s,2s,10s")
        await asyncio.sleep(5)
        assert [header(r, "fire-count") for r in engine.read("orders")] == ["1", "2", "3"]
        await asyncio.sleep(6)
        assert len(engine.read("orders")) == 4

    in_virtual_time(test)


def test_what_is_pending_survives_a_restart_with_and_without_its_local_state() -> None:
    async def test(engine: Engine) -> None:
        for delay in ("10s", "20s", "30s"):
            engine.request(destination="orders", delay=delay)
        await asyncio.sleep(1)
        await engine.stop()
        await asyncio.sleep(14)
        engine.start()
        await asyncio.sleep(1)
        assert len(engine.read("orders")) == 1
        await engine.stop()
        engine.stores.destroy(0)
        engine.start()
        await asyncio.sleep(20)
        assert len(engine.read("orders")) == 3

    in_virtual_time(test)


def test_a_cancelled_schedule_is_not_delivered_and_a_replaced_one_once() -> None:
    async def test(engine: Engine) -> None:
        for id in ("a", "b", "c", "d"):
            engine.request(id.encode(), id=id, destination="orders", delay="10s", reply_to="replies")
        await asyncio.sleep(1)
        engine.request(id="a", action="cancel", reply_to="replies")
        engine.request(b"b2", id="b", destination="orders", delay="3s", reply_to="replies", partition=1)
        await asyncio.sleep(20)
        assert sorted(record.value for record in engine.read("orders")) == [b"b2", b"c", b"d"]  # type: ignore[type-var]
        engine.request(id="c", action="cancel", reply_to="replies")
        engine.request(id="z", action="cancel", reply_to="replies")
        await asyncio.sleep(1)
        outcomes = [header(r, "receipt") for r in engine.read("replies")]
        assert sorted(outcomes) == sorted(
            [*["scheduled"] * 4, "cancelled", "replaced", "too-late", "unknown"]
        )

    in_virtual_time(test, partitions=3)


def test_an_id_is_forgotten_after_its_retention() -> None:
    async def test(engine: Engine) -> None:
        engine.request(id="a", destination="orders", delay="1s")
        await asyncio.sleep(65)
        engine.request(id="a", action="cancel", reply_to="replies")
        await asyncio.sleep(1)
        assert [header(r, "receipt") for r in engine.read("replies")] == ["unknown"]

    in_virtual_time(test, id_retention_ms=60_000)


def test_a_refused_request_goes_to_the_dead_letters_with_its_bytes() -> None:
    async def test(engine: Engine) -> None:
        engine.request(b"\0\xff", b"k", [("x", b"y")], destination="orders", delay="30", reply_to="replies")
        await asyncio.sleep(1)
        (letter,) = engine.read("delay-dead-letters")
        assert (letter.key, letter.value) == (b"k", b"\0\xff")
        assert ("x", b"y") in list(letter.headers)
        assert header(letter, "error") == "invalid-delay"
        assert "30" in header(letter, "error-detail")
        assert [header(r, "receipt") for r in engine.read("replies")] == ["rejected"]

    in_virtual_time(test)


def test_a_late_fire_is_dropped_or_moved_as_asked() -> None:
    async def test(engine: Engine) -> None:
        engine.request(b"1", destination="orders", delay="5s", on_late="drop", grace="2s")
        engine.request(b"2", destination="orders", delay="5s", on_late="late", grace="2s")
        engine.request(b"3", destination="orders", delay="5s", on_late="fire", grace="2s")
        engine.request(b"4", destination="orders", delay="9s", on_late="drop", grace="2s")
        engine.request(b"5", id="n", destination="orders", delay="5s", on_late="late", grace="2s")
        await asyncio.sleep(1)
        await engine.stop()
        await asyncio.sleep(9)
        engine.start()
        await asyncio.sleep(1)
        assert [r.value for r in engine.read("orders")] == [b"3", b"4"]
        late = engine.read("late")
        assert [r.value for r in late] == [b"2", b"5"]
        told = [json.loads(record.value or b"") for record in engine.read("delay-events")]
        moved = {event["fire_id"]: event for event in told if event["type"] == "moved"}
        assert [header(record, "fire-id") for record in late] == [*moved]
        assert {event["destination"] for event in moved.values()} == {"late"}
        assert all(event["lateness_ms"] > 2_000 for event in moved.values())

    in_virtual_time(test)


def test_a_missing_destination_delays_only_itself() -> None:
    async def test(engine: Engine) -> None:
        engine.request(b"1", destination="absent", delay="1s")
        engine.request(b"2", destination="orders", delay="2s")
        await asyncio.sleep(3)
        assert [r.value for r in engine.read("orders")] == [b"2"]
        engine.log.create_topic("absent", 1)
        await asyncio.sleep(10)
        assert [r.value for r in engine.read("absent")] == [b"1"]

    in_virtual_time(test)


def test_fires_for_a_destination_that_stays_away_are_quarantined() -> None:
    async def test(engine: Engine) -> None:
        engine.request(b"1", destination="absent", delay="1s")
        engine.request(b"2", id="n", destination="absent", delay="1s")
        await asyncio.sleep(300)
        letters = engine.read("delay-dead-letters")
        assert [letter.value for letter in letters] == [b"1", b"2"]
        assert {header(letter, "error") for letter in letters} == {"quarantined"}

    in_virtual_time(test, destination_timeout_ms=60_000)


@pytest.mark.parametrize("off_hours", [-2, 2])
def test_a_timestamp_that_the_broker_refuses_is_a_matter_of_the_clock(off_hours: int) -> None:
    """The fires wait until the clock is right, however far it was off; none is taken for unwritable."""
    hour_ms = 3_600_000

    async def test(engine: Engine) -> None:
        clock = LoopClock(engine.loop)
        clock.step(off_hours * hour_ms)
        engine.log.create_topic("strict", timestamp_before_max_ms=hour_ms, timestamp_after_max_ms=hour_ms)
        engine.start(clock=clock)
        for number in range(30):
            control = {"id": f"id-{number}"} if number % 2 else {}
            engine.request(
                b"%d" % number,
                b"k",
                destination="strict",
                delay="5s",
                timestamp_ms=clock.now_ms(),
                control=control,
            )
        engine.request(b"at once", destination="strict", delay="0", timestamp_ms=clock.now_ms() - 10_000)
        engine.request(b"other", destination="orders", delay="10s", timestamp_ms=clock.now_ms())
        await asyncio.sleep(120)
        assert [record.value for record in engine.read("orders")] == [b"other"]
        assert engine.read("strict") == []
        clock.step(-off_hours * hour_ms)
        await asyncio.sleep(3 * hour_ms / 1000)
        delivered = {record.value for record in engine.read("strict")}
        assert delivered == {b"at once", *(b"%d" % number for number in range(30))}
        assert len(engine.read("strict")) == 31
        assert engine.read("delay-dead-letters") == []
        await engine.stop()

    # Less than the clock is off: waiting is not what made it jump.
    with VirtualTimeLoop() as loop:
        loop.run_until_complete(test(Engine(loop, destination_timeout_ms=hour_ms)))


def test_one_record_that_the_broker_refuses_holds_up_no_other() -> None:
    async def test(engine: Engine) -> None:
        engine.log.create_topic("compact", 1, compacted=True)
        for number in range(50):
            key = None if number == 17 else b"k"
            engine.request(b"%d" % number, key, destination="compact", delay="1s")
        await asyncio.sleep(60)
        delivered = [int(record.value or b"") for record in engine.read("compact")]
        assert delivered == [number for number in range(50) if number != 17]
        (letter,) = engine.read("delay-dead-letters")
        assert letter.value == b"17"

    in_virtual_time(test)


def test_a_quarantined_fire_says_where_it_should_have_gone_and_when() -> None:
    async def test(engine: Engine) -> None:
        due_ms = engine.clock.now_ms() + 1000
        engine.request(b"1", destination="absent", delay="1s")
        await asyncio.sleep(300)
        (letter,) = engine.read("delay-dead-letters")
        assert header(letter, "destination") == "absent"
        assert header(letter, "schedule-id") == "delay-requests/0/0"
        assert header(letter, "due-at") == str(due_ms)
        assert header(letter, "fire-id") == f"delay-requests/0/0/0/{due_ms}"
        (event,) = [json.loads(record.value or b"") for record in engine.read("delay-events")]
        assert (event["type"], event["code"]) == ("quarantined", "quarantined")
        assert (event["fire_id"], event["due_at_ms"]) == (header(letter, "fire-id"), due_ms)
        assert "absent" in header(letter, "error-detail")

    in_virtual_time(test, destination_timeout_ms=60_000)


def test_a_late_fire_for_a_destination_given_up_still_goes_where_late_ones_go() -> None:
    async def test(engine: Engine) -> None:
        for id in ({}, {"id": "n"}):
            engine.request(b"1", destination="absent", delay="1s", on_late="late", grace="5s", control=id)
            engine.request(b"2", destination="absent", delay="1s", on_late="drop", grace="5s", control=id)
        await asyncio.sleep(300)
        assert {record.value for record in engine.read("late")} == {b"1"}
        assert engine.read("delay-dead-letters") == []

    in_virtual_time(test, destination_timeout_ms=60_000)


def test_the_state_of_another_application_is_refused() -> None:
    async def test(engine: Engine) -> None:
        engine.request(destination="orders", delay="1h")
        await asyncio.sleep(1)
        await engine.stop()
        engine.stores.destroy(0)
        engine.settings = replace(engine.settings, app_id="another")
        engine.start()
        await asyncio.sleep(1)
        with pytest.raises(Misconfigured, match="application delaystream"):
            await engine.stop()
        engine.lives.clear()

    in_virtual_time(test)


def test_local_state_is_not_thrown_away_when_it_is_the_last_copy() -> None:
    async def test(engine: Engine) -> None:
        engine.request(destination="orders", delay="1h")
        await asyncio.sleep(1)
        await engine.stop()
        engine.log.delete_topic("delay-wheel-changelog")
        engine.log.create_topic("delay-wheel-changelog", 1, compacted=True)
        engine.start()
        await asyncio.sleep(1)
        with pytest.raises(Misconfigured, match="exists only here"):
            await engine.stop()
        engine.lives.clear()
        assert engine.stores.open(0).marker() is not None

    in_virtual_time(test)


def test_a_stop_interrupts_a_fence_that_waits() -> None:
    async def test(engine: Engine) -> None:
        await engine.stop()
        # Somebody's open transaction on the changelog: recovery waits for its end.
        stuck = engine.log.init_producer("stuck", timeout_ms=600_000)
        engine.log.write(stuck, TopicPartition("delay-wheel-changelog", 0), [(b"x", b"", (), 0)])
        engine.start()
        await asyncio.sleep(5)
        began = engine.loop.time()
        await engine.stop()
        assert engine.loop.time() - began < 1

    in_virtual_time(test)


def test_a_commit_that_was_confirmed_and_then_lost_is_undone_and_fired_again() -> None:
    """A broker that shuts down may confirm a commit and lose its markers; the next fence aborts it."""

    async def test(engine: Engine) -> None:
        engine.request(b"1", destination="orders", delay="10s")
        await asyncio.sleep(5)
        await engine.stop()
        LosesMarkers.losing = True
        engine.start(new_producer=lambda partition: LosesMarkers(engine.log, "delaystream-0", "delaystream"))
        await asyncio.sleep(5.5)
        assert engine.read("orders") == []
        for life in engine.lives:
            life.cancel()
        await asyncio.gather(*engine.lives, return_exceptions=True)
        LosesMarkers.losing = False
        engine.start()
        await asyncio.sleep(5)
        assert [record.value for record in engine.read("orders")] == [b"1"]

    in_virtual_time(test)


class LosesMarkers(MemoryProducer):
    """Confirms commits and leaves the transaction open."""

    losing = False

    async def _end(self, epoch: Epoch) -> None:
        if not self.losing:
            await super()._end(epoch)


def test_large_payloads_of_named_schedules_are_read_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read ahead is bounded in bytes, and little of it is read again."""
    sizes: list[int] = []
    get_many = MemoryStore.get_many

    def counted(store: MemoryStore, keys: list[bytes]) -> list[bytes | None]:
        values = get_many(store, keys)
        sizes.append(sum(len(value or b"") for value in values))
        return values

    monkeypatch.setattr(MemoryStore, "get_many", counted)

    async def test(engine: Engine) -> None:
        for number in range(300):
            engine.request(bytes(200_000), destination="orders", delay="10s", id=f"large-{number}")
        await asyncio.sleep(60)
        assert len(engine.read("orders")) == 300
        assert max(sizes[1:]) < 3_000_000, "but for the first, of which nothing is known"
        assert sum(sizes) < 1.5 * 300 * 200_000

    in_virtual_time(test)


def test_requests_for_a_topic_that_is_missing_hold_up_no_others() -> None:
    """Batch after batch names it: each step takes as many of them as it has room for."""

    async def test(engine: Engine) -> None:
        await engine.stop()
        for _ in range(300):
            engine.request(destination="absent", delay="1h")
        engine.request(b"good", destination="orders", delay="1ms")
        topics = ["delay-requests", "delay-commands"]
        engine.start(lambda partition: MemorySources(engine.log, topics, partition, batch_records=1))
        await asyncio.sleep(0.5)
        assert [record.value for record in engine.read("orders")] == [b"good"]

    in_virtual_time(test)


def test_a_destination_is_in_trouble_from_its_first_refusal_and_not_from_the_step_that_met_it() -> None:
    """A fire waits for its destination for as long as it should, however long a write took to fail."""

    class SlowToRefuse(Calm):
        def __init__(self, topic: Topic) -> None:
            self._topic = topic

        async def at(self, point: str, subject: str) -> None:
            if point == "write" and subject == self._topic.name and self._topic.refusal is None:
                await asyncio.sleep(5)
                self._topic.refusal = "not authorized"

    with VirtualTimeLoop() as loop:

        async def run() -> None:
            engine = Engine(loop, destination_timeout_ms=20_000, destination_backoff_max_ms=100)
            slow = SlowToRefuse(engine.log.topics["orders"])
            engine.start(
                new_producer=lambda partition: MemoryProducer(
                    engine.log, f"delaystream-{partition}", "delaystream", interruptions=slow
                )
            )
            began_ms = engine.clock.now_ms()
            engine.request(destination="orders", delay="0")
            await asyncio.sleep(60)
            (letter,) = engine.read("delay-dead-letters")
            assert letter.timestamp >= began_ms + 25_000
            await engine.stop()

        loop.run_until_complete(run())
