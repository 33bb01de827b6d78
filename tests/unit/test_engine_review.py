"""Interleavings that lose, repeat or hold up deliveries in an engine that is a little less careful."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest

from delaystream.codec import keys
from delaystream.core.wheel import WheelHeads
from delaystream.engine.failures import (
    LogUnavailable,
    StoreUntrusted,
    TransactionFailed,
    TransactionStuck,
    WriteRefused,
)
from delaystream.engine.ports import (
    Headers,
    Marker,
    SourceBatch,
    TopicPartition,
    Transaction,
)
from delaystream.engine.state.partition_state import PartitionState
from delaystream.engine.state.step import Step
from delaystream.query.rows import CHUNK_BYTES, PIECE, size_of
from delaystream.testing import (
    MemoryChangelog,
    MemoryProducer,
    MemorySources,
    MemoryStateStores,
)
from delaystream.testing.store import MemoryStore
from tests.unit.engine import RECEIPTS, REQUESTS, Engine, header, in_virtual_time
from tests.unit.record_batches import batch

DAY_MS = 86_400_000


class Spy(MemoryProducer):
    """A producer that keeps what it committed."""

    committed: list[Transaction]

    async def commit(self, transaction: Transaction) -> Mapping[TopicPartition, int]:
        written = await super().commit(transaction)
        self.committed.append(transaction)
        return written


def spies(engine: Engine, committed: list[Transaction]) -> Callable[[int], Spy]:
    def new_producer(partition: int) -> Spy:
        spy = Spy(engine.log, f"delaystream-{partition}", "delaystream")
        spy.committed = committed
        return spy

    return new_producer


def size(transaction: Transaction) -> int:
    return sum(len(value or b"") for rows in transaction.writes.values() for _, value, _, _ in rows)


# -- lost ----------------------------------------------------------------------------------------


def test_a_request_older_than_what_is_drained_in_its_own_step_is_delivered() -> None:
    """It lies below the wheel's new watermark, and no key may be live there."""

    async def test(engine: Engine) -> None:
        for number in range(100):
            engine.request(b"%d" % number, destination="orders", delay="5s")
        await asyncio.sleep(5.03)
        assert 0 < len(engine.read("orders")) < 100
        engine.request(b"old", destination="orders", delay="1s", timestamp_ms=engine.clock.now_ms() - 60_000)
        await asyncio.sleep(60)
        assert len(engine.read("orders")) == 101

    in_virtual_time(test, transaction_max_records=10)


def test_entries_added_in_one_step_in_any_order_are_all_found_again() -> None:
    stores = MemoryStateStores()
    state = PartitionState(stores.open(0), 1, "delaystream")
    first = Step(1_000, 1)
    wheel = state.wheel_number(first, "orders")
    state.source(first, REQUESTS, 0)
    later = keys.wheel_key(wheel, 900, 0, 1, 0)
    state.add_entry(first, later, b"later", wheel, 900)
    marker = Marker("id", 0, -1, b"")
    state.apply(first, marker)
    second = Step(1_000, 2)
    state.remove_entry(second, later)
    state.drained(second, wheel, later, exhausted=True)
    state.apply(second, marker)
    third = Step(1_000, 3)
    for offset in (9, 8):
        state.add_entry(third, keys.wheel_key(wheel, 500, 0, offset, 0), b"%d" % offset, wheel, 500)
    state.apply(third, marker)
    assert [value for _, value in state.scan_due(wheel, None, 1_000, 10)] == [b"8", b"9"]


def test_a_late_fire_that_names_its_own_destination_is_delivered_there() -> None:
    async def test(engine: Engine) -> None:
        engine.request(b"1", destination="orders", delay="5s", on_late="orders", grace="2s")
        engine.request(b"2", id="n", destination="orders", delay="5s", on_late="orders", grace="2s")
        await asyncio.sleep(1)
        await engine.stop()
        await asyncio.sleep(9)
        engine.start()
        await asyncio.sleep(10)
        assert [r.value for r in engine.read("orders")] == [b"1", b"2"]

    in_virtual_time(test)


def test_receipts_come_again_once_their_topic_takes_writes_again() -> None:
    async def test(engine: Engine) -> None:
        engine.request(destination="orders", delay="1s", reply_to="replies")
        await asyncio.sleep(5)
        assert len(engine.read("replies")) == 1
        engine.log.topics["replies"].refusal = "not authorized"
        engine.request(destination="orders", delay="1s", reply_to="replies")
        await asyncio.sleep(5)
        assert len(engine.read("orders")) == 2
        engine.log.topics["replies"].refusal = None
        await asyncio.sleep(120)
        engine.request(destination="orders", delay="1s", reply_to="replies")
        await asyncio.sleep(5)
        assert len(engine.read("replies")) == 2

    in_virtual_time(test)


def test_receipts_that_a_destination_refuses_hold_up_none_of_its_deliveries() -> None:
    async def test(engine: Engine) -> None:
        engine.log.create_topic("tiny", 1, max_message_bytes=300)
        for number in range(60):
            engine.request(b"%d" % number, destination="tiny", delay="1005ms", reply_to="tiny")
            await asyncio.sleep(1)
        await asyncio.sleep(5)
        fired = engine.read("tiny")
        assert [r.value for r in fired] == [b"%d" % number for number in range(60)]
        assert max(r.appended_ms - int(header(r, "due-at")) for r in fired) < 500

    in_virtual_time(test)


def test_a_record_refused_in_the_accepting_transaction_holds_up_no_other() -> None:
    async def test(engine: Engine) -> None:
        engine.log.create_topic("compact", 1, compacted=True)
        for number in range(20):
            engine.request(b"%d" % number, b"k", destination="compact", delay="0")
            if number % 5 == 0:
                engine.request(b"bad", None, destination="compact", delay="0")
            await asyncio.sleep(0.2)
        await asyncio.sleep(5)
        fired = engine.read("compact")
        assert [r.value for r in fired] == [b"%d" % number for number in range(20)]
        assert max(r.appended_ms - int(header(r, "due-at")) for r in fired) < 200
        assert [r.value for r in engine.read("delay-dead-letters")] == [b"bad"] * 4

    in_virtual_time(test)


# -- repeated ------------------------------------------------------------------------------------


def test_an_id_that_was_forgotten_does_not_repeat_a_fire_id() -> None:
    async def test(engine: Engine) -> None:
        at = str(engine.clock.now_ms() + 1_000)
        engine.request(b"1", id="a", destination="orders", at=at)
        await asyncio.sleep(65)
        engine.request(b"2", id="a", destination="orders", at=at)
        await asyncio.sleep(1)
        first, second = engine.read("orders")
        assert header(first, "fire-id") != header(second, "fire-id")

    in_virtual_time(test, id_retention_ms=60_000)


def test_a_list_too_heavy_for_one_transaction_is_refused_unless_it_has_an_id() -> None:
    async def test(engine: Engine) -> None:
        times = ",".join(["1s"] * 50)
        engine.request(b"x" * 100_000, destination="orders", delay=times, reply_to="replies")
        engine.request(b"x" * 100_000, destination="orders", delay=times, id="n")
        await asyncio.sleep(30)
        assert [header(r, "error") for r in engine.read("delay-dead-letters")] == ["list-too-long"]
        assert [header(r, "receipt") for r in engine.read("replies")] == ["rejected"]
        assert len(engine.read("orders")) == 50

    in_virtual_time(test, list_max_bytes=4_000_000, transaction_max_bytes=1_000_000)


class Slow(Spy):
    """A broker that takes no more than a little in the time that a transaction has."""

    async def commit(self, transaction: Transaction) -> Mapping[TopicPartition, int]:
        if size(transaction) > 300_000:
            await asyncio.sleep(5)
            raise TransactionFailed("not written in 5000 ms")
        return await super().commit(transaction)


def test_transactions_that_are_never_written_in_time_become_smaller_until_they_are() -> None:
    committed: list[Transaction] = []

    async def test(engine: Engine) -> None:
        await engine.stop()

        def new_producer(partition: int) -> Slow:
            slow = Slow(engine.log, f"delaystream-{partition}", "delaystream")
            slow.committed = committed
            return slow

        for _ in range(500):
            engine.request(b"x" * 10_000, destination="orders", delay="100s")
        engine.start(new_producer=new_producer)
        await asyncio.sleep(200)
        assert len(engine.read("orders")) == 500

    in_virtual_time(test)


class Refusing(Spy):
    """A broker on which several topics lack replicas: each write to one of them takes its whole time."""

    down: ClassVar[set[str]] = set()

    async def commit(self, transaction: Transaction) -> Mapping[TopicPartition, int]:
        late = [at for at in transaction.writes if at.topic in self.down]
        if late:
            await asyncio.sleep(5)
            also = {at.topic for at in late[1:]}
            raise WriteRefused(*late[0], "NOT_ENOUGH_REPLICAS", record_at_fault=False, also=also)
        return await super().commit(transaction)


def test_topics_that_are_late_together_are_set_aside_together() -> None:
    async def test(engine: Engine) -> None:
        await engine.stop()
        topics = [f"down-{number}" for number in range(30)]
        for topic in topics:
            engine.log.create_topic(topic, 1)
        Refusing.down = set(topics)

        def new_producer(partition: int) -> Refusing:
            refusing = Refusing(engine.log, f"delaystream-{partition}", "delaystream")
            refusing.committed = []
            return refusing

        engine.start(new_producer=new_producer)
        for topic in topics:
            engine.request(destination=topic, delay="1s")
        engine.request(destination="orders", delay="2s")
        await asyncio.sleep(15)
        assert len(engine.read("orders")) == 1
        Refusing.down = set()
        await asyncio.sleep(120)
        assert all(len(engine.read(topic)) == 1 for topic in topics)

    in_virtual_time(test)


# -- stuck ---------------------------------------------------------------------------------------


class InFlight(MemorySources):
    """Sources with a batch on its way when they are told that there is no room."""

    room = True

    def open(self, positions: Mapping[str, int], deliver: Callable[[SourceBatch], bool]) -> None:
        self.hand = deliver
        self.room = True

    def resume(self) -> None:
        self.room = True

    def send(self, batch: SourceBatch) -> None:
        if not self.hand(batch):
            self.room = False


def test_a_batch_on_its_way_does_not_make_the_processor_forget_that_it_has_to_call_for_more() -> None:
    async def test(engine: Engine) -> None:
        await engine.stop()
        sources = InFlight(engine.log, [REQUESTS, "delay-commands"], 0)
        for _ in range(30):
            engine.request(destination="orders", delay="1s")
        records, _ = engine.log.read(TopicPartition(REQUESTS, 0), 0)
        engine.start(sources=lambda _: sources)
        (processor,) = engine.processors
        await asyncio.sleep(0.5)
        sources.send(SourceBatch(REQUESTS, records[:20], 0, 20, 2000))
        assert not sources.room
        while processor._inbox.full:  # noqa: ASYNC110 - the moment between taking and committing
            await asyncio.sleep(0)
        sources.send(SourceBatch(REQUESTS, records[20:22], 20, 22, 200))
        await asyncio.sleep(1)
        assert sources.room

    in_virtual_time(test, inbox_max_records=20)


def test_a_dead_letter_that_its_topic_finds_too_large_is_written_without_its_bytes() -> None:
    async def test(engine: Engine) -> None:
        engine.log.topics["delay-dead-letters"].max_message_bytes = 1000
        engine.request(b"x" * 5000, destination="orders", delay="30")
        engine.request(b"small", destination="orders", delay="31")
        engine.request(b"good", destination="orders", delay="1s")
        await asyncio.sleep(30)
        assert [r.value for r in engine.read("delay-dead-letters")] == [None, b"small"]
        assert [r.value for r in engine.read("orders")] == [b"good"]

    in_virtual_time(test)


@pytest.mark.parametrize(
    "foreign",
    [[("\N{GRINNING FACE}" * 700, b"")], [("", None)] * 1_300],
    ids=["wide names", "empty headers"],
)
def test_a_dead_letter_is_measured_as_kafka_does(foreign: Headers) -> None:
    """Names take up to four bytes a character, and each header has its lengths: nobody has bounded these."""

    async def test(engine: Engine) -> None:
        engine.request(b"value", foreign=foreign, destination="orders", delay="rubbish")
        await asyncio.sleep(1)
        [letter] = engine.read("delay-dead-letters")
        assert letter.value is None
        assert len(batch(0, [(letter.key, letter.value, letter.headers)])) < 2_000

    in_virtual_time(test, own_record_max_bytes=2_500)


def test_no_transaction_is_much_larger_than_its_bound_however_large_the_values() -> None:
    committed: list[Transaction] = []

    async def test(engine: Engine) -> None:
        await engine.stop()
        engine.start(new_producer=spies(engine, committed))
        for number in range(100):
            engine.request(b"x" * 100_000, destination="orders", delay="5s", key=b"%d" % number)
            if number % 4 == 0:
                engine.request(b"x" * 100_000, id=str(number), destination="emails", delay="5s")
        await asyncio.sleep(10)
        assert (len(engine.read("orders")), len(engine.read("emails"))) == (100, 25)
        assert max(map(size, committed)) <= 2_000_000

    in_virtual_time(test, transaction_max_bytes=1_000_000)


def test_lists_of_due_times_count_with_all_that_they_store() -> None:
    committed: list[Transaction] = []

    async def test(engine: Engine) -> None:
        await engine.stop()
        engine.start(new_producer=spies(engine, committed))
        for _ in range(20):
            engine.request(b"x" * 9_000, destination="orders", delay=",".join(["5s"] * 100))
        await asyncio.sleep(10)
        assert len(engine.read("orders")) == 2_000
        assert max(map(size, committed)) <= 2_000_000

    in_virtual_time(test, transaction_max_bytes=1_000_000)


def test_requests_that_fill_a_step_with_partitions_do_not_hold_up_what_is_due() -> None:
    async def test(engine: Engine) -> None:
        engine.log.create_topic("wide", 64)
        for number in range(20):
            engine.request(b"%d" % number, destination="orders", delay="2s")
        await asyncio.sleep(1.9)
        due = engine.clock.now_ms() + 100

        async def flood() -> None:
            for number in range(100_000):
                engine.request(key=b"%d" % number, destination="wide", delay="0")
                if number % 40 == 0:
                    await asyncio.sleep(0.01)

        flooding = asyncio.create_task(flood())
        await asyncio.sleep(5)
        assert not flooding.done()
        fired = engine.read("orders")
        assert len(fired) == 20
        assert max(r.appended_ms for r in fired) - due < 1_000
        flooding.cancel()

    in_virtual_time(test, transaction_max_partitions=16)


class Corrupt(MemoryStore):
    """A store with a block that cannot be read."""

    broken = False

    def scan(
        self, start: bytes, stop: bytes, limit: int, most_bytes: int | None = None
    ) -> list[tuple[bytes, bytes]]:
        if self.broken:
            raise StoreUntrusted("checksum mismatch")
        return super().scan(start, stop, limit, most_bytes)


class Weighed(MemoryStore):
    """A store that knows the most that was read from it at once."""

    largest = 0

    def scan(
        self, start: bytes, stop: bytes, limit: int, most_bytes: int | None = None
    ) -> list[tuple[bytes, bytes]]:
        found = super().scan(start, stop, limit, most_bytes)
        Weighed.largest = max(Weighed.largest, size_of(found))
        return found


class WeighedStores(MemoryStateStores):
    def open(self, partition: int) -> MemoryStore:
        store = super().open(partition)
        store.__class__ = Weighed
        return store


LARGE = b"v" * 200_000
#: Two mebibytes, and the piece that went beyond.
AT_ONCE_BYTES = CHUNK_BYTES + PIECE * 201_000


@pytest.mark.parametrize("command", [{"action": "pause"}, {"action": "cancel", "match_anonymous": "true"}])
def test_a_bulk_command_reads_no_more_at_once_however_large_payloads_are(command: dict[str, str]) -> None:
    """A worker that reads all of a slice would be out of memory, and so would each later owner."""

    async def test(engine: Engine) -> None:
        await engine.stop()
        engine.start(stores=WeighedStores())
        for _ in range(200):
            engine.request(LARGE, destination="orders", delay="1d")
        await asyncio.sleep(60)
        Weighed.largest = 0
        engine.request(None, control=command, match_destination="*", reply_to=RECEIPTS)
        await asyncio.sleep(60)
        assert 0 < Weighed.largest <= AT_ONCE_BYTES
        [receipt] = engine.read(RECEIPTS)
        assert json.loads(receipt.value or b"{}")["anonymous"] == 200
        await asyncio.sleep(2 * DAY_MS / 1_000)
        assert engine.read("orders") == []

    in_virtual_time(test)


def test_firing_reads_no_more_at_once_where_another_destination_has_small_entries() -> None:
    async def test(engine: Engine) -> None:
        await engine.stop()
        engine.start(stores=WeighedStores())
        for _ in range(200):
            engine.request(LARGE, destination="emails", delay="1h")
        for _ in range(2_000):
            engine.request(b"v", destination="orders", delay="1m")
        await asyncio.sleep(120)
        assert len(engine.read("orders")) == 2_000
        Weighed.largest = 0
        await asyncio.sleep(7_200)
        assert len(engine.read("emails")) == 200
        assert 0 < Weighed.largest <= AT_ONCE_BYTES

    in_virtual_time(test)


def test_a_store_that_turns_out_corrupt_while_in_use_is_rebuilt() -> None:
    class Stores(MemoryStateStores):
        opened = 0

        def open(self, partition: int) -> MemoryStore:
            store = super().open(partition)
            self.opened += 1
            if self.opened == 1:
                store.__class__ = Corrupt
            return store

    async def test(engine: Engine) -> None:
        await engine.stop()
        stores = Stores()
        engine.start(stores=stores)
        engine.request(destination="orders", delay="5s")
        await asyncio.sleep(1)
        Corrupt.broken = True
        await asyncio.sleep(20)
        assert len(engine.read("orders")) == 1

    in_virtual_time(test)


def test_waiting_for_the_partition_does_not_count_as_failing() -> None:
    async def test(engine: Engine) -> None:
        await engine.stop()
        sources = MemorySources(engine.log, [REQUESTS, "delay-commands"], 0)
        sources.assigned = False
        failures = 1

        async def open_changelog(partition: int) -> Any:
            nonlocal failures
            if failures:
                failures -= 1
                raise LogUnavailable("not now")
            return await MemoryChangelog.open(engine.log, "delay-wheel-changelog", partition)

        engine.start(sources=lambda _: sources, open_changelog=open_changelog)
        await asyncio.sleep(1_000)
        sources.assigned = True
        engine.request(destination="orders", delay="1s")
        await asyncio.sleep(20)
        assert len(engine.read("orders")) == 1

    in_virtual_time(test)


def test_a_transaction_that_kafka_never_completes_stops_its_partition_alone() -> None:
    """To end the worker would stop its other partitions, and help nothing; a person frees the transaction."""
    stuck = [True]

    class Stuck(MemoryProducer):
        async def fence(self) -> None:
            if stuck[0]:
                await asyncio.sleep(30)
                raise TransactionStuck("no marker in orders-0")
            await super().fence()

    async def test(engine: Engine) -> None:
        await engine.stop()
        engine.start(new_producer=lambda partition: Stuck(engine.log, f"p-{partition}", "group"))
        engine.request(destination="orders", delay="1s")
        await asyncio.sleep(2 * 3_600)
        assert not engine.lives[0].done()
        stuck[0] = False
        await asyncio.sleep(60)
        assert len(engine.read("orders")) == 1

    in_virtual_time(test)


def test_a_wheel_with_one_far_entry_and_many_near_ones_holds_no_more_than_it_must() -> None:
    heads = WheelHeads()
    far = 1_000_000_000
    for number in range(100_000):
        heads.add(1, number)
        assert list(heads.due(number)) == [1]
        heads.set(1, far)
    assert len(heads._open_heap) < 1_000
    assert list(heads.due(far)) == [1]


# -- what is larger than a topic takes -----------------------------------------------------------------


@pytest.mark.parametrize("text", ["description", "name", "tags", "actor"])
def test_an_event_that_would_be_too_large_leaves_texts_out_and_stops_nothing(text: str) -> None:
    """JSON makes six bytes of each control character."""

    async def test(engine: Engine) -> None:
        engine.log.topics["delay-events"].max_message_bytes = 80_000
        engine.request(destination="orders", id="x", delay="5s", control={text: "\x01" * 31_000})
        engine.request(destination="orders", id="y", delay="5s")
        engine.request(None, None, id="x", action="pause", actor="\x01" * 31_000)
        engine.request(None, None, id="x", action="resume")
        await asyncio.sleep(20)
        assert len(engine.read("orders")) == 2
        told = [json.loads(record.value or b"") for record in engine.read("delay-events")]
        shortened = [event for event in told if event.get("shortened")]
        assert shortened
        assert [event["type"] for event in told if event["id"] == "x"] == [
            "scheduled",
            "paused",
            "resumed",
            "fired",
        ]

    in_virtual_time(test, own_record_max_bytes=76_000)


def test_a_partition_that_fails_on_end_ends_the_worker_whatever_its_recoveries_read() -> None:
    """Each reads what the attempt before it has left, which is no success."""

    async def test(engine: Engine) -> None:
        engine.request(destination="orders", id="x", delay="5s")
        await asyncio.sleep(1)
        engine.log.topics["delay-events"].max_message_bytes = 100
        began_s = engine.loop.time()
        engine.request(destination="orders", id="y", delay="0")
        with pytest.raises(WriteRefused):
            await engine.lives[0]
        assert 15 <= engine.loop.time() - began_s <= 60
        engine.log.topics["delay-events"].max_message_bytes = 1_000_000
        engine.start()
        await asyncio.sleep(10)
        assert len(engine.read("orders")) == 2

    in_virtual_time(test, failure_timeout_ms=15_000)


def test_a_dead_letter_that_was_refused_once_does_not_cost_later_ones_their_bytes() -> None:
    async def test(engine: Engine) -> None:
        letters = engine.log.topics["delay-dead-letters"]
        whole, letters.max_message_bytes = letters.max_message_bytes, 1_500
        engine.request(b"x" * 3_000, destination="orders", delay="soon")
        await asyncio.sleep(5)
        (letter,) = engine.read("delay-dead-letters")
        assert letter.value is None
        assert "bytes are left out" in header(letter, "error-detail")
        letters.max_message_bytes = whole
        await asyncio.sleep(70)
        engine.request(b"y" * 3_000, destination="orders", delay="soon")
        await asyncio.sleep(5)
        assert engine.read("delay-dead-letters")[-1].value == b"y" * 3_000

    in_virtual_time(test)


def test_a_quarantined_fire_tells_whose_it_is_even_where_its_bytes_are_left_out() -> None:
    async def test(engine: Engine) -> None:
        engine.log.create_topic("tiny", 1, max_message_bytes=600)
        engine.log.topics["delay-dead-letters"].max_message_bytes = 1_500
        engine.request(b"x" * 5_000, destination="tiny", id="order-7", delay="1s")
        await asyncio.sleep(30)
        (letter,) = engine.read("delay-dead-letters")
        assert letter.value is None
        assert header(letter, "destination") == "tiny"
        assert header(letter, "schedule-id") == "order-7"
        assert header(letter, "fire-id").endswith("/order-7")

    in_virtual_time(test)
