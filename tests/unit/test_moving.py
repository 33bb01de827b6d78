"""What was moved to another cluster, under the name of its request topic, beside what is asked for there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from msgspec.structs import replace

from delaystream.codec import keys
from delaystream.codec.command import Report, attach, report_headers
from delaystream.codec.envelope import Schedule, decode_envelope, decode_schedule, encode
from delaystream.codec.requests.headers import RequestParser
from delaystream.core.destinations import DestinationFilter
from delaystream.core.limits import Limits
from delaystream.core.partitioning import owner_partition
from delaystream.core.record import Record
from delaystream.core.request import Coordinates, Request
from delaystream.engine.ports import TopicPartition
from delaystream.engine.state.partition_state import PartitionState
from delaystream.testing import VirtualTimeLoop
from delaystream.transfer import lines
from tests.unit.engine import REQUESTS, Engine, header
from tests.unit.moving import CHANGELOG, exported, imported, moved
from tests.unit.test_commands import receipts
from tests.unit.test_dialects_engine import speakers, text, theirs
from tests.unit.test_recurring import events

OLD_ID = "topic-id-1"
Test = Callable[[Engine, Engine], Coroutine[Any, Any, None]]


def between_clusters(test: Test, *, partitions: int = 1, then: int | None = None, **settings: Any) -> None:
    """Run a test with two engines: the first has started, the second is for the test to move to."""
    with VirtualTimeLoop() as loop:

        async def run() -> None:
            old = Engine(loop, partitions, **settings)
            new = Engine(loop, then or partitions, **settings)
            for number, topic in enumerate(new.log.topics.values()):
                topic.topic_id = f"another-{number}"
            old.start()
            await test(old, new)
            await new.stop()

        loop.run_until_complete(run())


def ahead(engine: Engine, count: int) -> None:
    """Requests that do nothing but take offsets."""
    for _ in range(count):
        engine.request(action="cancel", id="nobody")


def fire_ids(engine: Engine, topic: str = "orders") -> list[str]:
    return [header(record, "fire-id") for record in engine.read(topic)]


def schedule_of(engine: Engine, id: str) -> Schedule:
    partition = owner_partition(id, engine.settings.partitions)
    return decode_schedule(engine.stores.disks[partition].values[keys.schedule_key(REQUESTS, id)])


# -- order ---------------------------------------------------------------------------------------


def test_a_bulk_command_reaches_what_was_moved_here() -> None:
    """Its offset on the new topic is below that of the schedule on the old one, and means nothing."""

    async def test(old: Engine, new: Engine) -> None:
        ahead(old, 10)
        old.request(destination="orders", id="a", delay="1h")
        await asyncio.sleep(1)
        await moved(old, new)
        new.request(action="cancel", match_destination="*", reply_to="replies")
        await asyncio.sleep(7_200)
        (receipt,) = receipts(new)
        assert (receipt["count"], new.read("orders")) == (1, [])

    between_clusters(test)


def test_what_bulk_commands_had_passed_elsewhere_is_not_passed_here() -> None:
    """One here may stand at the very coordinates of one there."""
    places = [(0, 3, "")]

    async def test(old: Engine, new: Engine) -> None:
        old.request(destination="orders", id="a", delay="1h")
        old.request(destination="orders", delay="1h")
        await asyncio.sleep(1)
        await old.stop()
        changelog = TopicPartition(CHANGELOG, 0)
        for record in old.log.read(changelog, 0)[0]:
            key, value = record.key or b"", record.value or b""
            if key[:1] == b"s":
                passed = encode(replace(decode_schedule(value), swept=places))
            elif key[:1] == b"w" and key >= keys.wheel_bound(keys.HOUSEKEEPING + 1):
                passed = encode(replace(decode_envelope(value), swept=places))
            else:
                continue
            old.log.append(changelog, (key, passed, (), old.clock.now_ms()))
        await imported(exported(old), new)
        new.start()
        ahead(new, 3)
        new.request(action="cancel", match_destination="*", match_anonymous="true", reply_to="replies")
        await asyncio.sleep(7_200)
        (receipt,) = receipts(new)
        assert receipt["source"] == f"{REQUESTS}/0/3"
        assert (receipt["count"], receipt["anonymous"], new.read("orders")) == (1, 1, [])

    between_clusters(test)


def test_a_bulk_command_leaves_alone_what_was_moved_and_is_newer() -> None:
    """By their timestamps: the command's is the producer's, from before."""

    async def test(old: Engine, new: Engine) -> None:
        before_ms = old.clock.now_ms() - 1_000
        old.request(destination="orders", id="a", delay="1h")
        await asyncio.sleep(1)
        await moved(old, new)
        ahead(new, 10)
        new.request(action="cancel", match_destination="*", timestamp_ms=before_ms, reply_to="replies")
        await asyncio.sleep(7_200)
        (receipt,) = receipts(new)
        assert (receipt["count"], len(new.read("orders"))) == (0, 1)

    between_clusters(test)


def test_a_schedule_is_newer_than_a_cancel_that_was_moved_here() -> None:
    async def test(old: Engine, new: Engine) -> None:
        ahead(old, 10)
        old.request(action="cancel", id="a")
        await asyncio.sleep(1)
        await moved(old, new)
        new.request(destination="orders", id="a", delay="1s", reply_to="replies")
        await asyncio.sleep(5)
        assert [receipt["outcome"] for receipt in receipts(new)] == ["scheduled"]
        assert len(new.read("orders")) == 1
        assert new.read("delay-dead-letters") == []

    between_clusters(test)


def test_a_schedule_is_older_than_a_cancel_that_was_moved_here() -> None:
    """Sent before the cancel, and read only now, at an offset that is higher."""

    async def test(old: Engine, new: Engine) -> None:
        before_ms = old.clock.now_ms() - 1_000
        old.request(action="cancel", id="a")
        await asyncio.sleep(1)
        await moved(old, new)
        ahead(new, 10)
        new.request(destination="orders", id="a", delay="1h", timestamp_ms=before_ms, reply_to="replies")
        await asyncio.sleep(7_200)
        assert [receipt["code"] for receipt in receipts(new)] == ["cancelled-earlier"]

    between_clusters(test)


def test_a_cancel_here_takes_the_place_of_one_that_was_moved() -> None:
    """From then on offsets of this topic are compared."""

    async def test(old: Engine, new: Engine) -> None:
        ahead(old, 10)
        old.request(action="cancel", id="a")
        await asyncio.sleep(1)
        await moved(old, new)
        ahead(new, 2)
        new.request(action="cancel", id="a")
        await asyncio.sleep(1)
        assert (schedule_of(new, "a").origin, schedule_of(new, "a").offset) == ("", 2)
        new.request(destination="orders", id="a", delay="1s")
        await asyncio.sleep(5)
        assert len(new.read("orders")) == 1

    between_clusters(test)


def test_the_order_on_the_same_topic_is_that_of_its_offsets() -> None:
    """To other partitions of the application, with the same request topics: whatever the timestamps say."""

    async def test(old: Engine, new: Engine) -> None:
        new.log.topics[REQUESTS] = old.log.topics[REQUESTS]
        later_ms = old.clock.now_ms() + 60_000
        old.request(destination="orders", id="a", delay="1h", timestamp_ms=later_ms)
        old.request(action="cancel", id="b", timestamp_ms=later_ms)
        await asyncio.sleep(1)
        await moved(old, new)
        new.request(action="cancel", match_destination="*", reply_to="replies")
        new.request(destination="orders", id="b", delay="1s", reply_to="replies")
        await asyncio.sleep(7_200)
        outcomes = {receipt["outcome"]: receipt.get("count") for receipt in receipts(new)}
        assert outcomes == {"cancelled": 1, "scheduled": None}
        assert [header(record, "schedule-id") for record in new.read("orders")] == ["b"]

    between_clusters(test)


# -- names ---------------------------------------------------------------------------------------


def test_events_without_an_id_and_equal_coordinates_all_fire_under_names_of_their_own() -> None:
    """Of three clusters: the second move leaves the marks of the first as they are."""

    async def test(old: Engine, new: Engine) -> None:
        due = str(old.clock.now_ms() + 3_600_000)
        newest = Engine(old.loop)
        newest.log.topics[REQUESTS].topic_id = "a-third"
        old.request(b"0", destination="orders", at=due)
        await asyncio.sleep(1)
        await moved(old, new)
        new.request(b"1", destination="orders", at=due)
        await asyncio.sleep(1)
        await new.stop()
        await imported(exported(new), newest)
        newest.start()
        newest.request(b"2", destination="orders", at=due)
        await asyncio.sleep(7_200)
        assert sorted(record.value or b"" for record in newest.read("orders")) == [b"0", b"1", b"2"]
        places = {f"{REQUESTS}@{OLD_ID}", f"{REQUESTS}@another-0", REQUESTS}
        assert set(fire_ids(newest)) == {f"{place}/0/0/0/{due}" for place in places}
        for name in ("schedule-id", "source"):
            assert {header(r, name) for r in newest.read("orders")} == {f"{place}/0/0" for place in places}
        await newest.stop()
        new.start()

    between_clusters(test)


def test_fire_ids_of_a_schedule_that_was_moved_and_forgotten_do_not_repeat() -> None:
    """The second request has the coordinates, the due time and the id of the first."""

    async def test(old: Engine, new: Engine) -> None:
        due = str(old.clock.now_ms() + 2_000)
        old.request(b"1", id="a", destination="orders", at=due, reply_to="replies")
        await asyncio.sleep(1)
        await moved(old, new)
        await asyncio.sleep(65)
        assert keys.schedule_key(REQUESTS, "a") not in new.stores.disks[0].values
        new.request(b"2", id="a", destination="orders", at=due)
        await asyncio.sleep(1)
        assert fire_ids(new) == [f"{REQUESTS}@{OLD_ID}/r1/0/{due}/a", f"{REQUESTS}/r1/0/{due}/a"]
        assert [record.value for record in new.read("orders")] == [b"1", b"2"]

    between_clusters(test, id_retention_ms=60_000)


def test_a_schedule_that_was_moved_and_then_rescheduled_has_new_fire_ids() -> None:
    """Its payload is still that of the request elsewhere, its revision that of the command here."""

    async def test(old: Engine, new: Engine) -> None:
        due = str(old.clock.now_ms() + 3_600_000)
        old.request(id="a", destination="orders", at=due)
        await asyncio.sleep(1)
        await moved(old, new)
        new.request(action="reschedule", id="a", at=due, reply_to="replies")
        await asyncio.sleep(1)
        (receipt,) = receipts(new)
        assert [fire["fire_id"] for fire in receipt["fires"]] == [f"{REQUESTS}/r1/0/{due}/a"]
        await asyncio.sleep(7_200)
        (fired,) = new.read("orders")
        assert header(fired, "fire-id") == f"{REQUESTS}/r1/0/{due}/a"
        assert header(fired, "source") == f"{REQUESTS}@{OLD_ID}/0/0"

    between_clusters(test)


def test_triggered_fires_of_two_clusters_have_names_of_their_own() -> None:
    """One was on its way when the schedule was moved; the other's command has the same coordinates here."""

    async def test(old: Engine, new: Engine) -> None:
        old.request(id="a", destination="absent", delay="1h")
        old.request(action="trigger", id="a")
        await asyncio.sleep(1)
        await moved(old, new)
        ahead(new, 1)
        new.request(action="trigger", id="a")
        await asyncio.sleep(1)
        new.log.create_topic("absent", 1)
        await asyncio.sleep(120)
        first, second = fire_ids(new, "absent")
        assert first.startswith(f"{REQUESTS}@{OLD_ID}/r1/t0.1@{OLD_ID}/")
        assert second.startswith(f"{REQUESTS}@{OLD_ID}/r1/t0.1/")
        assert [fire.index for fire in schedule_of(new, "a").history] == [f"t0.1@{OLD_ID}", "t0.1"]
        assert {fire.origin for fire in schedule_of(new, "a").history} == {OLD_ID}

    between_clusters(test)


def test_a_description_names_each_fire_as_it_was_delivered() -> None:
    """Also those of a definition that was moved here, once another one was asked for here."""

    async def test(old: Engine, new: Engine) -> None:
        old.request(id="a", destination="orders", every="1h")
        await asyncio.sleep(1)
        await moved(old, new)
        await asyncio.sleep(3_700)
        new.request(id="a", destination="orders", every="2h")
        await asyncio.sleep(7_300)
        new.request(action="describe", id="a", reply_to="replies")
        await asyncio.sleep(1)
        (receipt,) = receipts(new)
        told = [fire["fire_id"] for fire in receipt["schedule"]["history"]]
        assert told == fire_ids(new)
        assert [fire.partition("/")[0] for fire in told] == [f"{REQUESTS}@{OLD_ID}", REQUESTS]

    between_clusters(test)


def test_what_comes_home_has_its_names_again() -> None:
    """The history too; and offsets count again."""

    async def test(old: Engine, new: Engine) -> None:
        home = Engine(old.loop)
        home.log.topics[REQUESTS] = old.log.topics[REQUESTS]
        ahead(old, 3)
        old.request(id="a", destination="orders", every="1h")
        await asyncio.sleep(3_700)
        await moved(old, new)
        await asyncio.sleep(3_600)
        await new.stop()
        await imported(exported(new), home)
        home.start()
        await asyncio.sleep(3_600)
        revision = schedule_of(home, "a").revision
        assert [fire.origin for fire in schedule_of(home, "a").history] == ["", "", ""]
        places = [fire.partition("/")[0] for engine in (old, new, home) for fire in fire_ids(engine)]
        assert places == [REQUESTS, f"{REQUESTS}@{OLD_ID}", REQUESTS]
        assert all(f"/r{revision}/0/" in fire for engine in (old, new, home) for fire in fire_ids(engine))
        await home.stop()
        new.start()

    between_clusters(test)


def test_a_topic_that_has_grown_repeats_no_fire_id() -> None:
    """The same topic, moved to more partitions: the same id at the same time, from every place there is."""

    async def test(old: Engine, new: Engine) -> None:
        due = str(old.clock.now_ms() + 1_000)
        grown = new.log.topics[REQUESTS]
        grown.topic_id = old.log.topics[REQUESTS].topic_id
        for number in range(6):
            old.request(b"%d" % number, id="a", destination="orders", at=due, partition=number % 2)
            await asyncio.sleep(2)
        await old.stop()
        file = exported(old)
        for partition in range(2):
            grown.partitions[partition] = old.log.topics[REQUESTS].partitions[partition]
        await imported(file, new)
        new.start()
        for number in range(15):
            new.request(b"%d" % number, id="a", destination="orders", at=due, partition=number % 5)
            await asyncio.sleep(2)
        found = fire_ids(old) + fire_ids(new)
        assert len(found) == len(set(found)) == 21

    between_clusters(test, partitions=2, then=5)


# -- what else is made of coordinates ------------------------------------------------------------


def test_a_request_does_not_replace_what_a_dialect_named_by_its_coordinates_elsewhere() -> None:
    """Both are at the first offset of their topic, and neither says how it wants to be called."""
    with VirtualTimeLoop() as loop:

        async def run() -> None:
            old, new = Engine(loop), Engine(loop)
            new.log.topics[REQUESTS].topic_id = "another"
            old.start(tenants=speakers())
            spoken = [("AMQ_SCHEDULED_DELAY", b"60000"), ("delaystream-destination", b"orders")]
            old.request(b"old", b"k", spoken)
            await asyncio.sleep(1)
            await old.stop()
            now_ms = old.clock.now_ms()
            request = (
                speakers()
                .of(REQUESTS)
                .parse(Record(Coordinates(REQUESTS, 0, 1), now_ms, b"k", b"on its way", spoken), now_ms)
            )
            assert isinstance(request, Request)
            on_its_way = lines.InFlight(0, 0, now_ms, b"k", b"on its way", attach(spoken, request))
            await imported(exported(old, in_flight=[on_its_way]), new, speakers())
            new.start(tenants=speakers())
            for value in (b"new", b"newer"):
                new.request(value, b"k", spoken)
            await asyncio.sleep(120)
            fired = {record.value: header(record, "schedule-id") for record in new.read("orders")}
            assert fired == {
                b"old": f"{REQUESTS}@{OLD_ID}/0/0",
                b"on its way": f"{REQUESTS}@{OLD_ID}/0/1",
                b"new": f"{REQUESTS}/0/0",
                b"newer": f"{REQUESTS}/0/1",
            }
            await new.stop()

        loop.run_until_complete(run())


def test_what_a_dialect_tells_on_deliveries_is_the_name_to_cancel_it_by() -> None:
    """NATS's consumers find a schedule's name in a header, here the coordinates that it was given for one."""
    with VirtualTimeLoop() as loop:

        async def run() -> None:
            old, new = Engine(loop), Engine(loop)
            new.log.topics[REQUESTS].topic_id = "another"
            old.start(tenants=speakers())
            old.request(b"v", None, theirs(Nats_Schedule="@every 10s", Nats_Schedule_Target="orders"))
            await asyncio.sleep(1)
            await old.stop()
            await imported(exported(old), new, speakers())
            new.start(tenants=speakers())
            await asyncio.sleep(10)
            (fired,) = new.read("orders")
            name = text(fired, "Nats-Scheduler")
            assert name == header(fired, "schedule-id") == f"{REQUESTS}@{OLD_ID}/0/0"
            new.request(None, b"k", theirs(Nats_Scheduler=name, Nats_Schedule_Next="purge"))
            await asyncio.sleep(60)
            assert len(new.read("orders")) == 1
            await new.stop()

        loop.run_until_complete(run())


def in_flight(partition: int, id: str, due_ms: int, offset: int = 5) -> lines.InFlight:
    """A request that a worker of the old application had sent to its owner."""
    headers = [
        ("delaystream-id", id.encode()),
        ("delaystream-destination", b"orders"),
        ("delaystream-at", b"%d" % due_ms),
        ("delaystream-reply-to", b"replies"),
    ]
    request = RequestParser(DestinationFilter(["*"]), Limits()).parse(
        Record(Coordinates(REQUESTS, 0, offset), due_ms - 1_000, b"k", b"on its way", headers), due_ms - 1_000
    )
    assert isinstance(request, Request)
    return lines.InFlight(partition, 0, due_ms, b"k", b"on its way", attach(headers, request))


@pytest.mark.parametrize("then", [1, 3])
def test_a_command_that_was_on_its_way_keeps_its_origin(then: int) -> None:
    """In its receipt, which no request here takes for its own, in its events and its fires' names."""

    async def test(old: Engine, new: Engine) -> None:
        due_ms = old.clock.now_ms() + 3_600_000
        await asyncio.sleep(1)
        await old.stop()
        await imported(exported(old, in_flight=[in_flight(0, "a", due_ms)]), new)
        new.start()
        await asyncio.sleep(7_200)
        (receipt,) = receipts(new)
        assert receipt["source"] == f"{REQUESTS}@{OLD_ID}/0/5"
        assert {event["source"] for event in events(new)} == {receipt["source"]}
        (fired,) = new.read("orders")
        assert [fire["fire_id"] for fire in receipt["fires"]] == [header(fired, "fire-id")]
        assert header(fired, "fire-id").startswith(f"{REQUESTS}@{OLD_ID}/r")
        assert header(fired, "source") == receipt["source"]

    between_clusters(test, partitions=2, then=then)


def test_a_bulk_command_that_was_on_its_way_is_not_taken_for_one_of_the_same_coordinates_here() -> None:
    """A copy may hold one; here nobody gathers what it does, and its reports count for no other."""

    async def test(old: Engine, new: Engine) -> None:
        for number in range(20):
            old.request(destination="orders", id=f"a{number}", delay="1h")
        await asyncio.sleep(1)
        headers = [
            ("delaystream-action", b"pause"),
            ("delaystream-match-destination", b"*"),
            ("delaystream-reply-to", b"replies"),
        ]
        now_ms = old.clock.now_ms()
        request = RequestParser(DestinationFilter(["*"]), Limits()).parse(
            Record(Coordinates(REQUESTS, 0, 0), now_ms, None, None, headers), now_ms
        )
        assert isinstance(request, Request)
        on_its_way = [
            lines.InFlight(0, 0, now_ms, None, None, attach(headers, request)),
            lines.InFlight(
                0, 1, now_ms, None, None, report_headers(Report(request.source, 0, 77, "replies"))
            ),
        ]
        await old.stop()
        await imported(exported(old, in_flight=on_its_way), new)
        new.start()
        new.request(action="cancel", match_destination="*", reply_to="replies")
        await asyncio.sleep(60)
        assert [(r["outcome"], r["count"], r["source"]) for r in receipts(new)] == [
            ("cancelled", 20, f"{REQUESTS}/0/0")
        ]
        await asyncio.sleep(7_200)
        assert new.read("orders") == []

    between_clusters(test, bulk_slice=3)


def test_a_bulk_command_on_its_way_reports_to_nobody_where_there_are_fewer_partitions() -> None:
    """The partition that gathered the reports may not be there."""

    async def test(old: Engine, new: Engine) -> None:
        old.request(destination="orders", id="a", delay="1h")
        await asyncio.sleep(1)
        headers = [("delaystream-action", b"cancel"), ("delaystream-match-destination", b"*")]
        now_ms = old.clock.now_ms()
        request = RequestParser(DestinationFilter(["*"]), Limits()).parse(
            Record(Coordinates(REQUESTS, 2, 0), now_ms, None, None, headers), now_ms
        )
        assert isinstance(request, Request)
        await old.stop()
        copy = lines.InFlight(0, 0, now_ms, None, None, attach(headers, request))
        await imported(exported(old, in_flight=[copy]), new)
        new.start()
        await asyncio.sleep(7_200)
        assert new.read("orders") == []
        assert [event["type"] for event in events(new)] == ["cancelled"]

    between_clusters(test, partitions=3, then=1)


def test_what_was_moved_is_found_again_after_a_rebuild() -> None:
    """Its origin is in the changelog: in the names of request partitions and in the records."""

    async def test(old: Engine, new: Engine) -> None:
        due = str(old.clock.now_ms() + 3_600_000)
        old.request(b"plain", destination="orders", at=due)
        old.request(b"named", id="a", destination="orders", at=due)
        await asyncio.sleep(1)
        await moved(old, new)
        new.request(b"plain here", destination="orders", at=due)
        await asyncio.sleep(1)
        await new.stop()
        new.stores.destroy(0)
        new.start()
        await asyncio.sleep(7_200)
        assert sorted(fire_ids(new)) == [
            f"{REQUESTS}/0/0/0/{due}",
            f"{REQUESTS}@{OLD_ID}/0/0/0/{due}",
            f"{REQUESTS}@{OLD_ID}/r{1 + (1 << 15)}/0/{due}/a",
        ]

    between_clusters(test)


def test_a_dead_letter_of_what_was_moved_names_the_topic_and_the_fire() -> None:
    async def test(old: Engine, new: Engine) -> None:
        old.request(b"x", destination="absent", delay="1s")
        await asyncio.sleep(2)
        await moved(old, new)
        await asyncio.sleep(100_000)
        (letter,) = new.read("delay-dead-letters")
        assert header(letter, "error-topic") == REQUESTS
        assert header(letter, "fire-id").startswith(f"{REQUESTS}@{OLD_ID}/0/0/0/")

    between_clusters(test)


def test_a_quota_counts_what_was_moved() -> None:
    """By the name of the request topic, which is the tenant, whichever of that name it was."""

    async def test(old: Engine, new: Engine) -> None:
        for _ in range(3):
            old.request(destination="orders", delay="1h")
        await asyncio.sleep(1)
        await moved(old, new)
        new.request(destination="orders", delay="1h")
        await asyncio.sleep(1)
        await new.stop()
        store = new.stores.open(0)
        assert PartitionState(store, 1, new.settings.app_id).counts.of_tenant(REQUESTS) == 4
        store.close()

    between_clusters(test)
