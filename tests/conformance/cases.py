"""What the engine relies on in Kafka and in the ports on top of it. Each case's docstring is the promise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any
from uuid import uuid4

import pytest

from delaystream.engine.failures import ProducerFenced, WriteRefused
from delaystream.engine.ports import (
    Changelog,
    Row,
    SourceBatch,
    TopicPartition,
    Transaction,
    TransactionalProducer,
)
from tests.conformance.world import World, keys, rows

Case = Callable[[World], Coroutine[Any, Any, None]]
CASES: list[Case] = []
#: those of sources, which on a real broker take a whole worker: its tests are in tests/integration
SOURCES_CASES: list[Case] = []


def case(function: Case) -> Case:
    CASES.append(function)
    return function


def sources_case(function: Case) -> Case:
    SOURCES_CASES.append(function)
    return case(function)


def names(count: int) -> list[str]:
    """Names that no other case has."""
    run = uuid4().hex[:10]
    return [f"conformance-{run}-{number}" for number in range(count)]


def at(topic: str, partition: int = 0) -> TopicPartition:
    return TopicPartition(topic, partition)


async def whole(changelog: Changelog, position: int = 0) -> tuple[list[tuple[int, bytes, bytes | None]], int]:
    """All records up to the last stable offset of now, as recovery reads them."""
    found: list[tuple[int, bytes, bytes | None]] = []
    end = (await changelog.bounds()).stable
    while position < end:
        batch = await changelog.read(position)
        assert batch.next_position >= position
        assert all(position <= offset < batch.next_position for offset, _, _ in batch.records)
        found += batch.records
        position = batch.next_position
    return found, position


async def settled(world: World, changelog: Changelog) -> None:
    """Wait until every transaction on a partition has its markers."""

    async def closed() -> bool:
        bounds = await changelog.bounds()
        return bounds.stable == bounds.end

    await world.until(closed)


def gathered(producer: TransactionalProducer, writes: Mapping[TopicPartition, Sequence[Row]]) -> Transaction:
    """A transaction whose rows have gathered with its producer, as those of a step do."""
    accumulators = {target: producer.accumulator(target) for target in writes}
    for target, gathering in writes.items():
        for row in gathering:
            accumulators[target].append(row)
        assert len(accumulators[target]) == len(gathering)
    return Transaction(accumulators, {})


# -- transactions


@case
async def a_committed_transaction_is_read_as_it_was_written(world: World) -> None:
    """Keys, values, headers and timestamps come back byte for byte; nulls, repeats and empties included."""
    topic, app = names(2)
    await world.create_topic(topic)
    producer = world.producer(app)
    await producer.fence()
    headers = [("a", b"1"), ("a", b"\xff\x00"), ("b", None), ("ü", b"")]
    written = [
        (b"k", b"v", headers, 1_700_000_000_001),
        (b"", b"", [], 1_700_000_000_002),
        (None, None, [], 1_700_000_000_003),
        (b"\x00\xff", bytes(range(256)) * 100, [], 1_700_000_000_004),
    ]
    await producer.commit(Transaction({at(topic): list(written)}, {}))
    await producer.commit(gathered(producer, {at(topic): written}))
    await producer.close()
    read = await world.read(at(topic))
    assert [(r.key, r.value, list(r.headers), r.timestamp) for r in read] == written * 2


@case
async def rows_that_gathered_and_were_dropped_leave_no_trace(world: World) -> None:
    """A step that is not committed is one of these; the next one writes in its place."""
    topic, app = names(2)
    await world.create_topic(topic)
    producer = world.producer(app)
    await producer.fence()
    for number in range(3):
        dropped = gathered(producer, {at(topic): rows("dropped")})
        assert [key for key, _, _, _ in dropped.writes[at(topic)]] == [b"dropped"]
        await producer.commit(gathered(producer, {at(topic): rows(f"a{number}", f"b{number}")}))
    await producer.close()
    assert keys(await world.read(at(topic))) == ["a0", "b0", "a1", "b1", "a2", "b2"]


@case
async def commit_returns_the_offset_of_the_last_record_of_each_partition(world: World) -> None:
    """Markers count as offsets: the next transaction's records stand behind them."""
    topic, other, app = names(3)
    await world.create_topic(topic, 2)
    await world.create_topic(other)
    producer = world.producer(app)
    await producer.fence()
    first = await producer.commit(Transaction({at(topic): rows("a", "b"), at(topic, 1): rows("c")}, {}))
    assert dict(first) == {at(topic): 1, at(topic, 1): 0}
    second = await producer.commit(Transaction({at(topic): rows("d"), at(other): rows("e", "f")}, {}))
    assert dict(second) == {at(topic): 3, at(other): 1}
    await producer.close()
    assert [r.offset for r in await world.read(at(topic))] == [0, 1, 3]


@case
async def a_large_transaction_goes_through(world: World) -> None:
    """More than one batch of a partition: offsets go on without a gap, and the last one is returned."""
    topic, app = names(2)
    await world.create_topic(topic)
    producer = world.producer(app)
    await producer.fence()
    many = rows(*(str(number) for number in range(5000)), value=b"x" * 400)
    assert dict(await producer.commit(Transaction({at(topic): many}, {}))) == {at(topic): 4999}
    await producer.close()
    assert keys(await world.read(at(topic))) == [str(number) for number in range(5000)]


@case
async def offsets_are_committed_with_the_transaction(world: World) -> None:
    """A group's offsets become visible by the commit; a transaction of offsets alone is one too."""
    topic, source, app = names(3)
    await world.create_topic(topic)
    await world.create_topic(source)
    producer = world.producer(app)
    await producer.fence()

    async def committed(offset: int) -> None:
        async def seen() -> bool:
            return await world.group_offset(at(source)) == offset

        await world.until(seen)

    await producer.commit(Transaction({at(topic): rows("a")}, {at(source): 7}))
    await committed(7)
    await producer.commit(Transaction({}, {at(source): 9}))
    await committed(9)
    await producer.close()


@case
async def fencing_refuses_the_older_owner(world: World) -> None:
    """After a fence with the same id, the older producer's commit is ProducerFenced and leaves nothing."""
    topic, source, app = names(3)
    await world.create_topic(topic)
    await world.create_topic(source)
    old, new = world.producer(app), world.producer(app)
    await old.fence()
    await old.commit(Transaction({at(topic): rows("before")}, {at(source): 1}))
    await new.fence()
    with pytest.raises(ProducerFenced):
        await old.commit(Transaction({at(topic): rows("too late")}, {at(source): 5}))
    await old.close()
    await new.commit(Transaction({at(topic): rows("after")}, {}))
    await new.close()
    assert keys(await world.read(at(topic))) == ["before", "after"]
    assert await world.group_offset(at(source)) == 1


@case
async def an_empty_transaction_tells_an_overtaken_owner(world: World) -> None:
    """Nothing to write, no offsets: it goes through for the owner, and is ProducerFenced for others."""
    (app,) = names(1)
    old, new = world.producer(app), world.producer(app)
    await old.fence()
    assert dict(await old.commit(Transaction({}, {}))) == {}
    await new.fence()
    with pytest.raises(ProducerFenced):
        await old.commit(Transaction({}, {}))
    await old.close()
    await new.close()


@case
async def other_ids_are_not_fenced(world: World) -> None:
    """Two transactional ids live side by side."""
    topic, first, second = names(3)
    await world.create_topic(topic)
    one, two = world.producer(first), world.producer(second)
    await one.fence()
    await two.fence()
    await one.commit(Transaction({at(topic): rows("one")}, {}))
    await two.commit(Transaction({at(topic): rows("two")}, {}))
    await one.close()
    await two.close()
    assert keys(await world.read(at(topic))) == ["one", "two"]


@case
async def a_fence_ends_what_the_older_owner_left_open(world: World) -> None:
    """The open transaction of a dead worker is aborted, all of it, before fence() returns or soon after."""
    topic, app = names(2)
    await world.create_topic(topic)
    await world.open_transaction(app, at(topic), rows("left", "open"))
    changelog = await world.changelog(topic)
    bounds = await changelog.bounds()
    assert (bounds.stable, bounds.end) == (0, 2)
    producer = world.producer(app)
    await producer.fence()
    await settled(world, changelog)
    # One marker ends it; the producer may write another one, for brokers that lose markers.
    records, position = await whole(changelog)
    assert records == []
    assert position >= 3
    await producer.commit(Transaction({at(topic): rows("mine")}, {}))
    await settled(world, changelog)
    [(offset, key, value)], position = await whole(changelog)
    assert (key, value, position) == (b"mine", b"value", offset + 2)
    assert offset >= 3
    await producer.close()
    await changelog.close()


@case
async def an_open_transaction_holds_back_every_reader(world: World) -> None:
    """The last stable offset stands before it, whatever others have committed behind it."""
    topic, dead, alive = names(3)
    await world.create_topic(topic)
    await world.append(at(topic), rows("plain"))
    await world.open_transaction(dead, at(topic), rows("open"))
    producer = world.producer(alive)
    await producer.fence()
    await producer.commit(Transaction({at(topic): rows("committed")}, {}))
    changelog = await world.changelog(topic)

    async def marked() -> bool:
        return (await changelog.bounds()).end == 4

    await world.until(marked)
    assert (await changelog.bounds()).stable == 1
    assert await whole(changelog) == ([(0, b"plain", b"value")], 1)
    batch = await changelog.read(1)
    assert (list(batch.records), batch.next_position) == ([], 1)
    await world.producer(dead).fence()
    await settled(world, changelog)
    records, position = await whole(changelog, 1)
    assert records == [(2, b"committed", b"value")]
    assert position >= 5
    await producer.close()
    await changelog.close()


@case
async def aborted_records_stay_in_the_log_and_are_not_read(world: World) -> None:
    """read_committed skips them, read_uncommitted does not; their offsets are gone for good."""
    topic, app = names(2)
    await world.create_topic(topic)
    await world.open_transaction(app, at(topic), rows("aborted"))
    producer = world.producer(app)
    await producer.fence()
    await producer.commit(Transaction({at(topic): rows("kept")}, {}))
    await producer.close()
    [kept] = await world.read(at(topic))
    assert kept.key == b"kept"
    assert kept.offset >= 2
    assert keys(await world.read(at(topic), committed=False)) == ["aborted", "kept"]


# -- writes that are refused


async def refused(world: World, topic: str, row_list: list[Any], partition: int = 0) -> WriteRefused:
    """Write to ``topic`` beside a healthy one; nothing of it may be seen, and what was open is closed."""
    healthy, app = names(2)
    await world.create_topic(healthy)
    producer = world.producer(app)
    await producer.fence()
    writes = {at(healthy): rows("a"), at(topic, partition): row_list}
    transaction = gathered(producer, writes)
    with pytest.raises(WriteRefused) as error:
        await producer.commit(transaction)
    await producer.close()
    successor = world.producer(app)
    await successor.fence()
    await successor.commit(Transaction({at(healthy): rows("b")}, {}))
    await successor.close()
    assert keys(await world.read(at(healthy))) == ["b"]
    assert (error.value.topic, error.value.partition) == (topic, partition)
    return error.value


@case
async def a_record_that_is_too_large_is_refused_alone(world: World) -> None:
    """The record is at fault; nothing of its transaction is seen."""
    (topic,) = names(1)
    await world.create_topic(topic, max_message_bytes=1000)
    error = await refused(world, topic, rows("small") + rows("large", value=b"x" * 5000))
    assert error.record_at_fault
    assert await world.read(at(topic)) == []


@case
async def a_null_key_for_a_compacted_topic_is_refused(world: World) -> None:
    """The record is at fault."""
    (topic,) = names(1)
    await world.create_topic(topic, compacted=True)
    error = await refused(world, topic, [(None, b"v", [], 1_700_000_000_000)])
    assert error.record_at_fault


@case
async def a_timestamp_that_is_out_of_range_is_not_the_records_fault(world: World) -> None:
    """It is the time of writing by the producer's clock; the clocks are at odds, before or behind."""
    hour_ms = 3_600_000
    (topic,) = names(1)
    await world.create_topic(topic, timestamp_before_max_ms=hour_ms, timestamp_after_max_ms=hour_ms)
    now_ms = world.now_ms()
    for off_ms in (-2 * hour_ms, 2 * hour_ms):
        right, wrong = rows("right", timestamp_ms=now_ms), rows("wrong", timestamp_ms=now_ms + off_ms)
        assert not (await refused(world, topic, right + wrong)).record_at_fault
    assert await world.read(at(topic)) == []
    producer = world.producer(names(1)[0])
    await producer.fence()
    within = [
        *rows("old", timestamp_ms=now_ms - hour_ms // 2),
        *rows("new", timestamp_ms=now_ms + hour_ms // 2),
    ]
    await producer.commit(Transaction({at(topic): within}, {}))
    await producer.close()
    assert keys(await world.read(at(topic))) == ["old", "new"]


@case
async def a_missing_topic_is_refused_in_time(world: World) -> None:
    """The topic is at fault, and it is not created by the attempt."""
    (topic,) = names(1)
    async with asyncio.timeout(30):
        error = await refused(world, topic, rows("a"))
    assert not error.record_at_fault
    destinations = world.destinations()
    await destinations.ensure([topic])
    assert destinations.partitions(topic) == 0


@case
async def a_missing_partition_is_refused_in_time(world: World) -> None:
    """As a missing topic is."""
    (topic,) = names(1)
    await world.create_topic(topic, 2)
    async with asyncio.timeout(30):
        assert not (await refused(world, topic, rows("a"), 7)).record_at_fault


@case
async def close_is_always_possible(world: World) -> None:
    """Before the fence, and twice."""
    (app,) = names(1)
    producer = world.producer(app)
    await producer.close()
    await producer.close()


# -- the changelog


@case
async def the_changelog_is_read_by_fetch_position(world: World) -> None:
    """Positions pass markers and aborted records, and end at the last stable offset."""
    topic, app = names(2)
    await world.create_topic(topic, compacted=True)
    await world.open_transaction(app, at(topic), rows("x", "y"))
    producer = world.producer(app)
    await producer.fence()
    for number in range(5):
        await producer.commit(Transaction({at(topic): rows(f"a{number}", f"b{number}")}, {}))
    await producer.close()
    changelog = await world.changelog(topic)
    await settled(world, changelog)
    records, position = await whole(changelog)
    first = records[0][0]
    assert first >= 3, "two aborted records and their marker come before"
    assert [offset - first for offset, _, _ in records] == [0, 1, 3, 4, 6, 7, 9, 10, 12, 13]
    assert position == first + 15
    assert await changelog.bounds() == (0, position, position)
    assert (await whole(changelog, first + 2))[0] == records[2:]
    batch = await changelog.read(position)
    assert (list(batch.records), batch.next_position) == ([], position)
    await changelog.close()


@case
async def a_tombstone_is_read_as_one(world: World) -> None:
    """A null value is None, an empty one is empty."""
    topic, app = names(2)
    await world.create_topic(topic, compacted=True)
    producer = world.producer(app)
    await producer.fence()
    await producer.commit(Transaction({at(topic): [*rows("a", value=None), *rows("b", value=b"")]}, {}))
    await producer.close()
    changelog = await world.changelog(topic)
    await settled(world, changelog)
    assert (await whole(changelog))[0] == [(0, b"a", None), (1, b"b", b"")]
    await changelog.close()


@case
async def compaction_leaves_gaps_and_the_newest_of_each_key(world: World) -> None:
    """Offsets are never moved; bounds stay; a reader from any position gets on."""
    topic, app = names(2)
    await world.create_topic(topic, compacted=True)
    producer = world.producer(app)
    await producer.fence()
    for number in range(6):
        await producer.commit(
            Transaction({at(topic): rows("same", f"own{number}", value=b"%d" % number)}, {})
        )
    changelog = await world.changelog(topic)
    await settled(world, changelog)
    before, _ = await whole(changelog)
    await world.compact(at(topic))
    end = (await changelog.bounds()).end
    after, position = await whole(changelog)
    assert position == end
    assert set(after) < set(before)
    newest = {key: (offset, key, value) for offset, key, value in before}
    assert set(newest.values()) <= set(after)
    assert [offset for offset, _, _ in after] == sorted(offset for offset, _, _ in after)
    assert (await whole(changelog, 1))[0] == [record for record in after if record[0] >= 1]
    await producer.close()
    await changelog.close()


@case
async def retention_moves_the_log_start(world: World) -> None:
    """bounds() shows it, and what lies behind it is as before."""
    (topic,) = names(1)
    await world.create_topic(topic)
    await world.append(at(topic), rows("a", "b", "c"))
    await world.trim(at(topic), 2)
    changelog = await world.changelog(topic)
    assert await changelog.bounds() == (2, 3, 3)
    assert (await whole(changelog, 2))[0] == [(2, b"c", b"value")]
    await changelog.close()


@case
async def a_topic_made_anew_has_another_id(world: World) -> None:
    """The same name, and another topic."""
    (topic,) = names(1)
    await world.create_topic(topic)
    first = await world.changelog(topic)
    again = await world.changelog(topic)
    assert first.topic_id == again.topic_id
    await first.close()
    await again.close()
    await world.delete_topic(topic)
    await world.create_topic(topic)
    second = await world.changelog(topic)
    assert second.topic_id != first.topic_id
    await second.close()


@case
async def a_record_is_looked_at_alone(world: World) -> None:
    """By its offset, with key and value; what is a marker, aborted, uncommitted or compacted is no record."""
    topic, app, other = names(3)
    await world.create_topic(topic, compacted=True)
    await world.open_transaction(app, at(topic), rows("aborted"))
    producer = world.producer(app)
    await producer.fence()
    await producer.commit(Transaction({at(topic): rows("a", "a", "b")}, {}))
    changelog = await world.changelog(topic)
    await settled(world, changelog)
    [first, *_], end = await whole(changelog)
    await world.open_transaction(other, at(topic), rows("open"))

    async def look(offset: int) -> tuple[bytes, bytes | None] | None:
        record = await changelog.record_at(offset)
        return None if record is None else (record.key, record.value)

    start = first[0]
    found = [await look(offset) for offset in range(end + 1)]
    assert found[start : start + 3] == [(b"a", b"value"), (b"a", b"value"), (b"b", b"value")]
    assert all(record is None for record in (*found[:start], *found[start + 3 :]))
    # An end of its own, so that the cleaner may pass.
    await world.producer(other).fence()
    await settled(world, changelog)
    await producer.commit(Transaction({at(topic): [*rows("a", value=None), *rows("c")]}, {}))
    await world.compact(at(topic))
    assert (await look(start), await look(start + 2)) == (None, (b"b", b"value"))
    await producer.close()
    await changelog.close()


@case
async def an_append_time_is_the_brokers(world: World) -> None:
    """With LogAppendTime, whatever the producer said; else there is none. It never falls."""
    topic, plain, app = names(3)
    await world.create_topic(topic, compacted=True, append_time=True)
    await world.create_topic(plain, compacted=True)
    producer = world.producer(app)
    await producer.fence()
    began_ms = world.now_ms()
    before = await producer.commit(
        Transaction({at(topic): rows("a", timestamp_ms=began_ms + 3_600_000), at(plain): rows("a")}, {})
    )
    await asyncio.sleep(0.1)
    after = await producer.commit(Transaction({at(topic): rows("b", timestamp_ms=1_700_000_000_000)}, {}))
    await producer.close()
    changelog, other = await world.changelog(topic), await world.changelog(plain)
    await settled(world, changelog)
    await settled(world, other)
    first = await changelog.record_at(before[at(topic)])
    second = await changelog.record_at(after[at(topic)])
    undated = await other.record_at(before[at(plain)])
    assert first is not None
    assert second is not None
    assert undated is not None
    assert first.appended_ms is not None
    assert second.appended_ms is not None
    assert began_ms <= first.appended_ms <= second.appended_ms - 90
    assert second.appended_ms <= world.now_ms()
    assert undated.appended_ms is None
    assert [record.timestamp for record in await world.read(at(topic))] == [
        first.appended_ms,
        second.appended_ms,
    ]
    await changelog.close()
    await other.close()


@case
async def an_append_time_outlives_compaction(world: World) -> None:
    """What is left of a batch keeps the time at which it was appended."""
    topic, app = names(2)
    await world.create_topic(topic, compacted=True, append_time=True)
    producer = world.producer(app)
    await producer.fence()
    written = await producer.commit(Transaction({at(topic): rows("same", "own")}, {}))
    await producer.commit(Transaction({at(topic): rows("same", "last")}, {}))
    await producer.close()
    changelog = await world.changelog(topic)
    await settled(world, changelog)
    before = await changelog.record_at(written[at(topic)])
    await world.compact(at(topic))
    assert before is not None
    assert before.appended_ms is not None
    assert await changelog.record_at(written[at(topic)]) == before
    assert await changelog.record_at(written[at(topic)] - 1) is None
    await changelog.close()


# -- destinations


@case
async def destinations_are_known_once_they_were_looked_up(world: World) -> None:
    """Zero partitions before; after invalidate() they are looked up again."""
    here, missing = names(2)
    await world.create_topic(here, 3)
    destinations = world.destinations()
    assert (destinations.partitions(here), destinations.problem(here)) == (0, None)
    await destinations.ensure([here, missing])
    assert (destinations.partitions(here), destinations.problem(here)) == (3, None)
    assert destinations.partitions(missing) == 0
    assert destinations.problem(missing)
    destinations.invalidate(missing)
    await world.create_topic(missing)

    async def seen() -> bool:
        destinations.invalidate(missing)
        await destinations.ensure([missing])
        return destinations.partitions(missing) == 1

    await world.until(seen)


# -- sources


@sources_case
async def batches_follow_on_from_each_other(world: World) -> None:
    """From the position asked for, without gap or overlap, over markers too; when there is no room, none."""
    topic, app = names(2)
    await world.create_topic(topic)
    sources = world.sources([topic])
    assert sources is not None
    producer = world.producer(app)
    await producer.fence()
    for number in range(4):
        await producer.commit(Transaction({at(topic): rows(f"{number}a", f"{number}b")}, {}))
    await world.append(at(topic), rows("tail"))
    batches: list[SourceBatch] = []
    room = [2]

    def deliver(batch: SourceBatch) -> bool:
        batches.append(batch)
        return len(batches) < room[0]

    sources.open({topic: 1}, deliver)

    async def enough() -> bool:
        return len(batches) >= room[0]

    await world.until(enough)
    await asyncio.sleep(0.2)
    assert len(batches) == 2
    room[0] = 1000
    sources.resume()

    async def all_read() -> bool:
        return batches[-1].stop >= 13

    await world.until(all_read)
    sources.close()
    position = 1
    for batch in batches:
        assert batch.start == position
        assert all(position <= record.offset < batch.stop for record in batch.records)
        position = batch.stop
    read = [(record.key or b"").decode() for batch in batches for record in batch.records]
    assert read == ["0b", "1a", "1b", "2a", "2b", "3a", "3b", "tail"]
    assert (await sources.bounds())[topic].end == 13


@sources_case
async def what_was_aborted_is_passed(world: World) -> None:
    """Also where nothing comes behind it: the position is told, without a record."""
    topic, app = names(2)
    await world.create_topic(topic)
    sources = world.sources([topic])
    assert sources is not None
    await world.append(at(topic), rows("first"))
    stops: list[int] = []
    read: list[int] = []

    def deliver(batch: SourceBatch) -> bool:
        assert batch.start == (stops[-1] if stops else 0)
        stops.append(batch.stop)
        read.extend(record.offset for record in batch.records)
        return True

    sources.open({topic: 0}, deliver)

    async def first() -> bool:
        return stops == [1]

    await world.until(first)
    await world.open_transaction(app, at(topic), rows("a", "b"))
    producer = world.producer(app)
    await producer.fence()
    await producer.close()

    async def passed() -> bool:
        return stops[-1] == (await sources.bounds())[topic].end >= 4

    await world.until(passed)
    assert read == [0]
    sources.close()


@sources_case
async def a_seek_goes_back_and_forth(world: World) -> None:
    """Reading goes on from there."""
    (topic,) = names(1)
    await world.create_topic(topic)
    sources = world.sources([topic])
    assert sources is not None
    await world.append(at(topic), rows("a", "b", "c"))
    read: list[int] = []

    def deliver(batch: SourceBatch) -> bool:
        read.extend(record.offset for record in batch.records)
        return True

    async def idle() -> bool:
        return bool(read) and read[-1] == 2

    sources.open({topic: 0}, deliver)
    await world.until(idle)
    read.clear()
    sources.seek(topic, 1)
    await world.until(idle)
    assert read == [1, 2]
    sources.close()
