"""What a history promises on any database.

A module that runs these cases has fixtures `url` and `fresh_url`, of two that are empty.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from itertools import count
from typing import Any

import msgspec
import pytest
from sqlalchemy import create_engine, inspect, text

from delaystream.codec.event import Event, EventType
from delaystream.console.history.database import Database, DatabaseError, Position
from delaystream.console.history.queries import Chosen, History
from delaystream.console.history.rows import Rows, rows_of
from delaystream.console.history.schema import WITHIN_MS, metadata
from delaystream.console.history.tail import Tail
from delaystream.engine.ports import TopicPartition
from delaystream.testing import VirtualTimeLoop
from tests.unit.console.history import (
    DAY_MS,
    EVENTS,
    KEPT,
    NOW_MS,
    EventsTopic,
    content,
    killed,
    rollups,
    summed,
)


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = Database.open(url)
    yield opened
    opened.close()


def events(database: Database) -> int:
    """How many are stored; the total that is kept agrees."""
    with database.reading() as connection:
        stored: int = connection.execute(text("SELECT count(*) FROM events")).scalar_one()
        assert connection.execute(text("SELECT events FROM totals")).scalar_one() == stored
    return stored


def test_sums_are_those_of_the_events(database: Database) -> None:
    topic = EventsTopic(3)
    told = topic.fill(random.Random(1), 700)
    topic.stored(database)
    assert events(database) == 700
    assert rollups(database) == summed(told)


def test_sums_of_a_span_are_asked_with_their_lateness(database: Database) -> None:
    topic = EventsTopic()
    for lateness_ms in (50, 150, 20_000):
        fired = Event(2, EventType.FIRED, NOW_MS, request_topic="r", destination="d")
        topic.write(msgspec.structs.replace(fired, lateness_ms=lateness_ms))
    topic.stored(database)
    [found] = History(database).sums(60, NOW_MS - 60_000, NOW_MS + 1, ["r"])
    assert (found.count, found.lateness_ms, found.lateness_max_ms) == (3, 20_200, 20_000)
    assert found.within == [1, 2, 2, 3]
    assert History(database).sums(60, NOW_MS - 60_000, NOW_MS + 1, ["another"]) == []


def test_after_a_kill_at_any_statement_it_is_what_a_rebuild_is(url: str, fresh_url: str) -> None:
    topic, dice = EventsTopic(2), random.Random(2)
    topic.fill(dice, 90, 200 * DAY_MS)
    kills = 0
    # The first of all is made in this process: making the tables is a promise of its own.
    Database.open(url).close()
    for statement in count(1, 3):
        if not killed(lambda: topic.stored(Database.open(url)), statement):
            break
        topic.fill(dice, 20, 100 * DAY_MS)
        kills += 1
    assert kills > 5
    interrupted, fresh = Database.open(url), Database.open(fresh_url)
    topic.stored(interrupted)
    topic.stored(fresh)
    assert 0 < events(fresh) < 90 + 20 * kills
    assert content(interrupted) == content(fresh)
    interrupted.close()
    fresh.close()


@pytest.mark.parametrize(("there", "transactions"), [(0, 0), (1, 1), (7, 1), (40, 2), (1_000, 29)])
def test_what_is_there_is_stored_in_few_transactions(
    database: Database, monkeypatch: pytest.MonkeyPatch, there: int, transactions: int
) -> None:
    """Of many small fetches one is made; and nothing waits for more to come."""
    stored: list[int] = []
    store = database.store

    def counted(partition: int, rows: Rows, *positions: Position) -> None:
        stored.append(len(rows.events))
        store(partition, rows, *positions)

    monkeypatch.setattr(database, "store", counted)
    topic = EventsTopic()
    topic.fill(random.Random(5), there)
    topic.stored(database, at_once=40)
    assert sum(stored) == events(database) == there
    assert max(stored, default=0) <= 40
    assert len(stored) == transactions


def test_an_event_that_is_read_twice_is_stored_once(database: Database) -> None:
    record = (0, b"", msgspec.json.encode(Event(2, EventType.FIRED, NOW_MS, lateness_ms=3)))
    database.begin(0, None, Position("t", 0))
    database.store(0, rows_of(0, [record]), Position("t", 0), Position("t", 1))
    before = content(database)
    with pytest.raises(DatabaseError, match="another console"):
        database.store(0, rows_of(0, [record]), Position("t", 0), Position("t", 1))
    assert content(database) == before


def test_a_stale_writer_changes_nothing(url: str, database: Database) -> None:
    """Two consoles that both believe to write: a transaction of the second is refused whole."""
    records = [(offset, b"", msgspec.json.encode(Event(2, EventType.FIRED, NOW_MS))) for offset in range(4)]
    stale = Database.open(url)
    stale.begin(0, None, Position("t", 0))
    stale.store(0, rows_of(0, records[:1]), Position("t", 0), Position("t", 1))
    database.store(0, rows_of(0, records[1:3]), Position("t", 1), Position("t", 3))
    before = content(database)
    with pytest.raises(DatabaseError, match="another console"):
        stale.store(0, rows_of(0, records[1:]), Position("t", 1), Position("t", 4))
    with pytest.raises(DatabaseError):
        stale.begin(0, None, Position("t", 0))
    with pytest.raises(DatabaseError, match="another console"):
        stale.begin(0, Position("t", 1), Position("u", 0))
    with pytest.raises(DatabaseError, match="another console"):
        stale.cut(0, Position("t", 1), Position("t", 0))
    assert content(database) == before
    stale.close()


def test_events_of_another_topic_of_the_name_take_the_place(database: Database) -> None:
    topic = EventsTopic()
    old = topic.fill(random.Random(3), 50)
    topic.stored(database)
    topic.log.create_topic(EVENTS, 1)
    new = topic.fill(random.Random(4), 20)
    topic.stored(database)
    assert events(database) == 20
    # Days stay for ever, of whichever topic.
    assert rollups(database) == summed(old + new)
    [(_, topic_id, next_offset, lost)] = content(database)["positions"]
    assert (topic_id, next_offset, lost) == (topic.log.topics[EVENTS].topic_id, 20, 0)


def test_a_topic_that_lost_its_end_is_read_on_from_there(database: Database) -> None:
    topic = EventsTopic()
    topic.fill(random.Random(5), 30)
    topic.stored(database)
    sums = rollups(database)
    partition = topic.log.partition(TopicPartition(EVENTS, 0))
    del partition.records[20:]
    partition.end = 20
    topic.stored(database)
    assert events(database) == 20
    new = Event(2, EventType.CANCELLED, NOW_MS, request_topic="r")
    topic.write(new)
    topic.stored(database)
    assert events(database) == 21
    # Nothing is counted twice; the sums of what was lost stay.
    assert rollups(database) == {**sums, **summed([new])}


def test_events_that_were_gone_before_they_were_read_are_counted_and_told(database: Database) -> None:
    topic = EventsTopic()
    topic.fill(random.Random(6), 10)
    topic.log.trim(TopicPartition(EVENTS, 0), 4)
    # What was gone before the history began is not lost to it.
    assert topic.stored(database).statuses[0].lost == 0
    topic.fill(random.Random(7), 30)
    topic.log.trim(TopicPartition(EVENTS, 0), 25)
    assert topic.stored(database).statuses[0].lost == 15
    topic.fill(random.Random(8), 5)
    topic.log.trim(TopicPartition(EVENTS, 0), 42)
    assert topic.stored(database).statuses[0].lost == 17
    assert database.positions()[0].lost == 17


@pytest.mark.parametrize("most", [1, 40, 299, 300, 1_000])
def test_the_newest_are_kept_up_to_a_number(database: Database, most: int) -> None:
    topic = EventsTopic()
    told = topic.fill(random.Random(9), 300)
    topic.stored(database, retention=msgspec.structs.replace(KEPT, events_most=most))
    kept = [row[1] for row in content(database)["events"]]
    assert kept == list(range(max(0, 300 - most), 300))
    assert events(database) == len(kept)
    assert rollups(database) == summed(told)


def test_what_is_too_old_goes_and_nothing_else(database: Database) -> None:
    topic = EventsTopic(2)
    told = topic.fill(random.Random(10), 300, 500 * DAY_MS)
    topic.stored(database)
    young = [one.at_ms for one in told if one.at_ms >= NOW_MS - KEPT.events_ms]
    assert sorted(row[2] for row in content(database)["events"]) == young
    assert events(database) == len(young) > 0
    kept_ms = {60: KEPT.minutes_ms, 3_600: KEPT.hours_ms, 86_400: NOW_MS}
    expected = {kind: sums for kind, sums in summed(told).items() if kind[1] >= NOW_MS - kept_ms[kind[0]]}
    assert len({kind[1] for kind in expected if kind[0] == 86_400}) > 200
    assert rollups(database) == expected
    assert History(database).kept_since_ms() == min(row[2] for row in content(database)["events"])


def test_an_event_of_the_far_future_does_not_keep_the_old_ones(database: Database) -> None:
    topic = EventsTopic()
    topic.write(Event(2, EventType.FIRED, NOW_MS * 2))
    told = topic.fill(random.Random(11), 50, 1_000 * DAY_MS)
    topic.stored(database)
    assert events(database) == 1 + sum(one.at_ms >= NOW_MS - KEPT.events_ms for one in told)


HOSTILE = [
    b"",
    b"\xff",
    b"[" * 5_000,
    b'{"schema_version":2,"type":"fired","at_ms":9223372036854775808}',
    b'{"schema_version":2,"type":"missed","at_ms":1,"count":99999999999999999999999}',
    b'{"schema_version":2,"type":"fired","at_ms":1,"due_at_ms":9223372036854775808}',
    b'{"schema_version":2,"type":"fired","at_ms":1,"lateness_ms":-99999999999999999999999999}',
    b'{"schema_version":2,"type":"fired","at_ms":1,"more":"\xff"}',
    b'{"schema_version":3,"type":"fired","at_ms":1}',
    b'{"schema_version":2,"type":"of tomorrow","at_ms":1}',
]


def test_what_no_table_can_hold_is_passed_over(database: Database) -> None:
    topic = EventsTopic()
    for value in HOSTILE:
        topic.write(value)
    topic.write(Event(2, EventType.FIRED, NOW_MS))
    assert topic.stored(database).statuses[0].problem is None
    assert [row[1] for row in content(database)["events"]] == [len(HOSTILE)]


@pytest.mark.parametrize("id", ["a\0b", "☂" * 256, "'; DROP TABLE events; --", "\\N\t\n", "x" * 9_000])
def test_events_of_any_id_are_stored_and_found(database: Database, id: str) -> None:
    topic = EventsTopic()
    told = Event(2, EventType.FIRED, NOW_MS, request_topic=id, schedule_id=id)
    topic.write(msgspec.structs.replace(told, source=id, key=id, destination=id, code=id, actor=id))
    topic.write(Event(2, EventType.FIRED, NOW_MS, schedule_id="another", key_base64="é"))
    topic.stored(database)
    asked = History(database)
    [found] = asked.of_schedule(id, id, 10).items
    assert found.event.schedule_id == id
    assert [each.event.schedule_id for each in asked.of_source(id, 10)] == [id]
    assert [each.event.schedule_id for each in asked.of_key(id.encode(), 10)] == [id]


@pytest.mark.parametrize("id", ["order-17", "☂" * 85, "a\0b", "x" * 9_000])
def test_events_are_found_by_what_they_are_correlated_with(database: Database, id: str) -> None:
    topic = EventsTopic(2)
    told = Event(2, EventType.FIRED, NOW_MS, request_topic="r", schedule_id="s")
    topic.write(msgspec.structs.replace(told, at_ms=NOW_MS + 1, correlation_id=id))
    topic.write(msgspec.structs.replace(told, request_id=id), 1)
    topic.write(msgspec.structs.replace(told, correlation_id="another", request_id="third"))
    topic.write(told)
    topic.stored(database)
    asked = History(database)
    assert [(one.partition, one.offset) for one in asked.of_correlation(id, 10)] == [(0, 0), (1, 0)]
    assert len(asked.of_correlation(id, 1)) == 1
    assert asked.of_correlation("none", 10) == []


def counted(told: list[Event]) -> dict[tuple[str, str, str, str], tuple[int, ...]]:
    """What events come to by schedule, the long way."""
    of: dict[tuple[str, str, str, str], list[Event]] = {}
    for one in told:
        if one.schedule_id is not None:
            kind = (one.request_topic or "", one.schedule_id, one.destination or "", one.type.value)
            of.setdefault(kind, []).append(one)
    found = {}
    for kind, some in of.items():
        late = [one.lateness_ms or 0 for one in some] if kind[3] == "fired" else []
        found[kind] = (
            sum(one.count or 1 for one in some),
            sum(late),
            max(late, default=0),
            *(sum(ms <= bound for ms in late) for bound in WITHIN_MS),
        )
    return found


def test_sums_by_schedule_are_those_of_its_events(database: Database) -> None:
    topic = EventsTopic(3)
    told = topic.fill(random.Random(15), 900, 30 * DAY_MS)
    # One whose worker had a wrong clock leads nobody astray.
    topic.write(Event(2, EventType.FIRED, NOW_MS * 2, request_topic="r", schedule_id="tomorrow"), 1)
    topic.stored(database)
    asked = History(database)

    def sums(from_ms: int, to_ms: int, chosen: Chosen = Chosen(), most: int = 10_000) -> Any:  # noqa: B008
        found = asked.by_schedule(from_ms, to_ms, chosen, most)
        by = {
            (one.request_topic, one.schedule_id, one.destination, one.type): (
                one.count,
                one.lateness_ms,
                one.lateness_max_ms,
                *one.within,
            )
            for one in found.sums
        }
        assert len(by) == len(found.sums)
        return by, found.partial

    everything = (0, NOW_MS + 1)
    assert sums(*everything) == (counted(told), False)
    for days in (1, 7, 20):
        span = NOW_MS - days * DAY_MS, NOW_MS - days * DAY_MS // 2
        inside = [one for one in told if span[0] <= one.at_ms < span[1]]
        assert len(inside) > 5
        assert sums(*span) == (counted(inside), False)
    of = [one for one in told if one.schedule_id == "user-3"]
    assert sums(*everything, Chosen(schedule_id="user-3")) == (counted(of), False)
    of = [one for one in of if one.request_topic == "requests-1"]
    one = Chosen(["requests-1"], None, "user-3")
    assert sums(*everything, one) == (counted(of), False)
    # The latest count, where there are more than are counted; one more is looked at to know.
    assert sums(*everything, one, most=len(of)) == (counted(of), False)
    assert sums(*everything, one, most=5) == (counted(of[-6:]), True)
    of = [one for one in told if one.request_topic == "requests-1" and one.destination == "orders"]
    assert sums(*everything, Chosen(["requests-1"], "orders")) == (counted(of), False)


def test_pages_hold_each_event_once_the_latest_first(database: Database) -> None:
    topic = EventsTopic(2)
    for number in range(25):
        fired = Event(2, EventType.FIRED, NOW_MS + number // 4, request_topic="r", schedule_id="id")
        topic.write(msgspec.structs.replace(fired, fire_count=number), number % 2)
    topic.stored(database)
    asked, after, found = History(database), None, []
    while True:
        page = asked.of_schedule("r", "id", 4, after)
        found += [(told.event.at_ms, told.partition, told.offset) for told in page.items]
        after = page.next
        if after is None:
            break
    assert len(found) == 25
    assert found == sorted(set(found), reverse=True)


def test_the_tables_are_those_that_the_migrations_make(database: Database) -> None:
    with database.reading() as connection:
        found = inspect(connection)
        assert set(found.get_table_names()) == {*metadata.tables, "delaystream_version"}
        for name, table in metadata.tables.items():
            columns = {
                one["name"]: (one["type"].as_generic()._type_affinity, one["nullable"])
                for one in found.get_columns(name)
            }
            assert columns == {
                one.name: (one.type.as_generic()._type_affinity, one.nullable) for one in table.columns
            }
            key = [one.name for one in table.primary_key.columns]
            assert found.get_pk_constraint(name)["constrained_columns"] == key
            indexes = {one["name"]: one["column_names"] for one in found.get_indexes(name)}
            assert indexes == {one.name: [c.name for c in one.columns] for one in table.indexes}


FIRES = (
    "fired_at_ms",
    "due_at_ms",
    "lateness_ms",
    "request_topic",
    "schedule_id",
    "source",
    "destination",
    "fire_id",
    "body",
)
"""Columns that people have built on: they are not renamed, moved or taken away."""


def test_the_view_of_fires_keeps_its_columns(database: Database) -> None:
    topic = EventsTopic()
    told = topic.fill(random.Random(12), 60)
    topic.stored(database)
    with database.reading() as connection:
        found = connection.execute(text("SELECT * FROM fires ORDER BY fired_at_ms"))
        assert tuple(found.keys())[: len(FIRES)] == FIRES
        fired = [one for one in told if one.type is EventType.FIRED]
        assert [(row.fired_at_ms, row.fire_id) for row in found] == [
            (one.at_ms, one.fire_id) for one in fired
        ]


def test_an_older_console_works_on_the_tables_of_a_newer_one(url: str, database: Database) -> None:
    with database.writing() as connection:
        connection.execute(text("ALTER TABLE events ADD COLUMN mood TEXT"))
        connection.execute(text("ALTER TABLE rollups ADD COLUMN moods BIGINT NOT NULL DEFAULT 0"))
        connection.execute(text("CREATE TABLE moods (mood TEXT)"))
        connection.execute(text("UPDATE delaystream_version SET version_num = '1.9'"))
    topic = EventsTopic()
    told = topic.fill(random.Random(13), 40)
    older = Database.open(url)
    topic.stored(older)
    assert events(older) == 40
    assert [sums[:-1] for sums in rollups(older).values()] == list(
        dict(sorted(summed(told).items())).values()
    )
    assert History(older).last(list(EventType), 5)
    older.close()


def test_tables_of_another_major_version_are_refused(url: str, database: Database) -> None:
    with database.writing() as connection:
        connection.execute(text("UPDATE delaystream_version SET version_num = '2.0'"))
    with pytest.raises(DatabaseError, match=r"newer delaystream: its tables are 2\.0"):
        Database.open(url)


def test_making_the_tables_may_be_interrupted_anywhere(url: str) -> None:
    """A migration is one transaction, on SQLite too: what was half done is not there."""
    kills = 0
    for statement in count(1, 2):
        if not killed(lambda: Database.open(url), statement):
            break
        kills += 1
        engine = create_engine(url)
        # Nothing, or everything.
        assert set(inspect(engine).get_table_names()) in (set(), {*metadata.tables, "delaystream_version"})
        engine.dispose()
    assert kills > 5
    opened = Database.open(url)
    topic = EventsTopic()
    topic.fill(random.Random(14), 10)
    topic.stored(opened)
    assert events(opened) == 10
    opened.close()


def test_a_history_that_has_not_seen_its_topic_yet_knows_where_it_stands(database: Database) -> None:
    """A stream that is resumed right after a start goes on from its place, and not from the beginning."""
    topic = EventsTopic(2)
    topic.fill(random.Random(8), 40)
    stored = topic.stored(database)
    places = [status.position for status in stored.statuses]
    assert min(places) > 0
    again = topic.follower(database)
    assert [status.position for status in again.statuses] == places
    assert [status.as_of_ms for status in again.statuses] == [None, None]
    tail = Tail(History(database), lambda: again.statuses)
    assert tail.now() == dict(enumerate(places))


def test_a_stream_tells_each_event_once_although_more_is_stored_than_is_said(database: Database) -> None:
    """A status follows its transaction: a look in between finds the event that is behind the position."""
    topic, steps = EventsTopic(), []
    topic.fill(random.Random(3), 5)
    (stored,) = topic.stored(database).statuses
    said = msgspec.structs.replace(stored, position=3)
    tail = Tail(History(database), lambda: [said])

    async def read() -> None:
        async for step in tail.follow({0: 3}, silence_s=1):
            steps.append(step)
            # It would go on without a pause.
            if len(steps) > 20:
                return

    async def story() -> None:
        nonlocal said
        with tail.counted():
            running = asyncio.create_task(tail.run())
            # From then on the latest are held, and no stream reads the database.
            await asyncio.sleep(1)
            reading = asyncio.create_task(read())
            for position in (4, 5):
                await asyncio.sleep(1)
                said = msgspec.structs.replace(stored, position=position)
            await asyncio.sleep(5)
            tail.close()
            running.cancel()
            await asyncio.gather(running, reading, return_exceptions=True)

    with VirtualTimeLoop() as loop:
        loop.run_until_complete(story())
    assert [one.offset for step in steps for one in step.told] == [3, 4]
