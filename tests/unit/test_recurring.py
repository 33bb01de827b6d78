"""Recurring schedules in the engine: fired and re-armed in one step, bounded, and accounted for."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from delaystream.codec.event import decode_event
from delaystream.codec.outgoing import LAST_FIRED_AT, NEXT_AT
from delaystream.core import misfire
from delaystream.core.misfire import DEFAULT_GRACE_MS
from delaystream.core.recurrence import Recurrence, UnknownZoneError, fires, next_after
from delaystream.engine.ports import TopicPartition, Transaction
from delaystream.testing import MemoryProducer
from delaystream.testing.partition import row_bytes
from tests.unit.engine import Engine, header, in_virtual_time
from tests.unit.test_engine_review import size, spies

MINUTE_MS = 60_000


def events(engine: Engine, *types: str) -> list[dict[str, Any]]:
    """The events, of those types if any are named, in the order in which they were written."""
    told = [json.loads(record.value or b"") for record in engine.read("delay-events")]
    return [event for event in told if not types or event["type"] in types]


def dues(engine: Engine, topic: str = "orders") -> list[int]:
    return [int(header(record, "due-at")) for record in engine.read(topic)]


async def all_but_stopped(engine: Engine, seconds: float) -> None:
    """The worker is down for a while."""
    await engine.stop()
    await asyncio.sleep(seconds)
    engine.start()
    await asyncio.sleep(1)


def test_an_interval_fires_on_its_beat_however_late_a_fire_was() -> None:
    async def test(engine: Engine) -> None:
        began_ms = engine.clock.now_ms()
        engine.request(b"tick", destination="orders", id="beat", every="10s")
        await asyncio.sleep(35)
        assert dues(engine) == [began_ms + n * 10_000 for n in (1, 2, 3)]
        assert [record.value for record in engine.read("orders")] == [b"tick"] * 3
        assert [header(record, "fire-count") for record in engine.read("orders")] == ["1", "2", "3"]
        assert len({header(record, "fire-id") for record in engine.read("orders")}) == 3
        await all_but_stopped(engine, 100)
        assert all((due - began_ms) % 10_000 == 0 for due in dues(engine))

    in_virtual_time(test)


def test_a_cron_schedule_fires_at_its_times_and_completes_at_its_end() -> None:
    async def test(engine: Engine) -> None:
        now_ms = engine.clock.now_ms()
        end_ms = (now_ms // MINUTE_MS + 3) * MINUTE_MS
        engine.request(destination="orders", id="job", cron="* * * * *", end=str(end_ms))
        await asyncio.sleep(600)
        assert dues(engine) == [end_ms - 2 * MINUTE_MS, end_ms - MINUTE_MS, end_ms]
        types = [event["type"] for event in events(engine)]
        assert types == ["scheduled", "fired", "fired", "fired", "completed"]
        assert [event["status"] for event in events(engine)][-2:] == ["completed", "completed"]

    in_virtual_time(test)


def test_max_fires_counts_deliveries() -> None:
    async def test(engine: Engine) -> None:
        engine.request(destination="orders", id="few", every="1s", max_fires="3")
        await asyncio.sleep(60)
        assert len(engine.read("orders")) == 3
        assert events(engine)[-1]["type"] == "completed"

    in_virtual_time(test)


def test_start_is_the_anchor_and_the_first_fire() -> None:
    async def test(engine: Engine) -> None:
        start_ms = engine.clock.now_ms() + 25_000
        engine.request(destination="orders", id="later", every="10s", start=str(start_ms))
        await asyncio.sleep(50)
        assert dues(engine) == [start_ms, start_ms + 10_000, start_ms + 20_000]

    in_virtual_time(test)


def test_jitter_delays_a_fire_and_leaves_its_due_time_alone() -> None:
    async def test(engine: Engine) -> None:
        began_ms = engine.clock.now_ms()
        engine.request(destination="orders", id="spread", every="60s", jitter="30s")
        await asyncio.sleep(600)
        assert dues(engine) == [began_ms + n * 60_000 for n in range(1, len(dues(engine)) + 1)]
        late = [
            int(header(record, "fired-at")) - int(header(record, "due-at"))
            for record in engine.read("orders")
        ]
        assert all(0 <= ms <= 30_100 for ms in late)
        assert len(set(late)) > 5
        assert all(event["lateness_ms"] < 100 for event in events(engine, "fired"))

    in_virtual_time(test)


def test_a_start_in_the_past_anchors_and_calls_for_nothing() -> None:
    async def test(engine: Engine) -> None:
        began_ms = engine.clock.now_ms()
        engine.request(destination="orders", id="beat", every="60s", start=str(began_ms - 3_599_000))
        await asyncio.sleep(90)
        assert dues(engine) == [began_ms + 1_000, began_ms + 61_000]
        assert events(engine, "skipped", "missed") == []

    in_virtual_time(test)


# -- sent again ----------------------------------------------------------------------------------


def test_a_schedule_that_is_sent_again_keeps_the_time_that_its_jitter_holds_back() -> None:
    """A service sends its schedules whenever it starts: here between scheduled times and due times."""

    async def test(engine: Engine) -> None:
        hour_ms = engine.clock.now_ms() // 3_600_000 * 3_600_000 + 3_600_000
        for number in range(20):
            job = {"id": f"job-{number}", "cron": "0 * * * *", "jitter": "30m", "destination": "orders"}
            engine.request(b"old", control=job)
        await asyncio.sleep((hour_ms + 900_000 - engine.clock.now_ms()) / 1000)
        before = len(engine.read("orders"))
        assert 0 < before < 20
        for number in range(20):
            job = {"id": f"job-{number}", "cron": "0 * * * *", "jitter": "30m", "destination": "orders"}
            engine.request(b"new", control=job)
        await asyncio.sleep(1800)
        assert dues(engine) == [hour_ms] * 20
        assert [record.value for record in engine.read("orders")] == [b"old"] * before + [b"new"] * (
            20 - before
        )
        early = [record for record in engine.read("orders") if int(header(record, "fired-at")) < hour_ms]
        assert early == []

    in_virtual_time(test)


@pytest.mark.parametrize("action", ["schedule", "reschedule"])
@pytest.mark.parametrize("when", [{"cron": "* * * * *"}, {"every": "60s", "start": "1699999980000"}])
def test_a_time_that_fired_while_a_request_was_under_way_does_not_fire_again(
    when: dict[str, str], action: str
) -> None:
    async def test(engine: Engine) -> None:
        minute_ms = engine.clock.now_ms() // MINUTE_MS * MINUTE_MS + MINUTE_MS
        engine.request(destination="orders", id="job", control=when)
        await asyncio.sleep((minute_ms + 1_000 - engine.clock.now_ms()) / 1000)
        assert dues(engine) == [minute_ms]
        destination = {"destination": "orders"} if action == "schedule" else {}
        engine.request(id="job", action=action, timestamp_ms=minute_ms - 500, control={**when, **destination})
        await asyncio.sleep(120)
        assert dues(engine) == [minute_ms, minute_ms + MINUTE_MS, minute_ms + 2 * MINUTE_MS]

    in_virtual_time(test)


def test_what_passed_while_paused_is_told_when_the_schedule_is_sent_again() -> None:
    async def test(engine: Engine) -> None:
        minute_ms = engine.clock.now_ms() // MINUTE_MS * MINUTE_MS + MINUTE_MS
        engine.request(destination="orders", id="job", cron="* * * * *")
        engine.request(id="job", action="pause")
        await asyncio.sleep(300)
        engine.request(destination="orders", id="job", cron="* * * * *", catch_up="latest")
        await asyncio.sleep(1)
        assert events(engine, "skipped") == engine.read("orders") == []  # type: ignore[comparison-overlap]
        engine.request(destination="orders", id="job", cron="* * * * *", status="pending")
        await asyncio.sleep(1)
        (skipped,) = events(engine, "skipped")
        assert (skipped["from_ms"], skipped["count"], skipped["reason"]) == (minute_ms, 4, "paused")
        assert dues(engine) == [minute_ms + 4 * MINUTE_MS]

    in_virtual_time(test)


def test_a_schedule_with_other_times_begins_anew() -> None:
    """Also one whose start is still ahead: what was asked for first says nothing about the time before."""

    async def test(engine: Engine) -> None:
        minute_ms = engine.clock.now_ms() // MINUTE_MS * MINUTE_MS + MINUTE_MS
        engine.request(destination="orders", id="job", cron="* * * * *", start=str(minute_ms + 86_400_000))
        await asyncio.sleep(1)
        engine.request(destination="orders", id="job", cron="* * * * *")
        await asyncio.sleep((minute_ms + 30_000 - engine.clock.now_ms()) / 1000)
        assert dues(engine) == [minute_ms]
        engine.request(destination="orders", id="job", cron="* * * * *", timezone="Asia/Kathmandu")
        await asyncio.sleep(60)
        engine.request(destination="orders", id="job", cron="* * * * *", start=str(minute_ms + 3_600_000))
        await asyncio.sleep(3520)
        assert dues(engine) == [minute_ms, minute_ms + MINUTE_MS, minute_ms + 3_600_000]

    in_virtual_time(test)


# -- misses --------------------------------------------------------------------------------------


def accounted(engine: Engine) -> list[int]:
    """Every scheduled time that was fired, skipped or missed, however often."""
    times = [event["due_at_ms"] for event in events(engine, "fired", "quarantined")]
    for event in events(engine, "missed", "skipped"):
        step = (event["to_ms"] - event["from_ms"]) // max(1, event["count"] - 1)
        times += [event["from_ms"] + n * step for n in range(event["count"])]
    return sorted(times)


def test_latest_fires_once_for_all_that_was_missed_and_says_for_how_many() -> None:
    async def test(engine: Engine) -> None:
        began_ms = engine.clock.now_ms()
        engine.request(destination="orders", id="beat", every="10s")
        await asyncio.sleep(15)
        await all_but_stopped(engine, 60)
        assert dues(engine) == [began_ms + 10_000, began_ms + 70_000]
        assert header(engine.read("orders")[1], "skipped") == "5"
        await asyncio.sleep(10)
        assert "delaystream-skipped" not in dict(engine.read("orders")[2].headers)
        (skipped,) = events(engine, "skipped")
        assert (skipped["from_ms"], skipped["to_ms"], skipped["count"]) == (
            began_ms + 20_000,
            began_ms + 60_000,
            5,
        )
        assert accounted(engine) == [began_ms + n * 10_000 for n in range(1, 9)]

    in_virtual_time(test)


def test_all_fires_each_in_order_with_its_own_due_time() -> None:
    async def test(engine: Engine) -> None:
        began_ms = engine.clock.now_ms()
        engine.request(destination="orders", id="beat", every="10s", catch_up="all")
        await asyncio.sleep(15)
        await all_but_stopped(engine, 60)
        assert dues(engine) == [began_ms + n * 10_000 for n in range(1, 8)]
        assert events(engine, "missed", "skipped") == []

    in_virtual_time(test)


@pytest.mark.parametrize("when", [{"every": "1s"}, {"cron": "* * * * * *"}], ids=["every", "cron"])
def test_a_schedule_of_long_ago_catches_up_on_its_last_times_and_the_others_are_missed(
    when: dict[str, str],
) -> None:
    """A record may have any timestamp since 1971, and a grace of a century."""

    async def test(engine: Engine) -> None:
        engine.request(
            b"value", b"key", (), 0, 50_000_000_000, destination="orders", id="beat", catch_up="all",
            grace="36500d", reply_to="replies", control=when,
        )  # fmt: skip
        now_ms = engine.clock.now_ms() // 1000 * 1000
        engine.request(destination="emails", delay="0")
        await asyncio.sleep(20)
        assert len(engine.read("emails")) == 1
        fired = dues(engine)
        assert fired == list(range(fired[0], fired[-1] + 1, 1000))
        assert abs(fired[0] - (now_ms - 250_000)) <= 1000
        assert fired[-1] >= now_ms + 19_000
        (missed,) = events(engine, "missed")
        assert (missed["reason"], missed["from_ms"], missed["to_ms"]) == (
            "too-many",
            50_000_001_000,
            fired[0] - 1000,
        )
        assert missed["count"] == (fired[0] - 50_000_001_000) // 1000

    in_virtual_time(test, max_catch_up=250)


def test_a_resume_says_how_many_it_lets_go_of_all() -> None:
    async def test(engine: Engine) -> None:
        engine.request(destination="orders", id="beat", every="1s", catch_up="all", grace="1d")
        engine.request(action="pause", id="beat")
        await asyncio.sleep(600)
        engine.request(action="resume", id="beat", reply_to="replies")
        await asyncio.sleep(0.5)
        assert json.loads(engine.read("replies")[-1].value or b"")["fires_at_once"] == 100
        await asyncio.sleep(0.4)
        assert len(dues(engine)) == 100

    in_virtual_time(test, max_catch_up=100)


def test_all_catches_up_on_more_than_fits_into_one_step() -> None:
    async def test(engine: Engine) -> None:
        began_ms = engine.clock.now_ms()
        engine.request(destination="orders", id="beat", every="1s", catch_up="all")
        await asyncio.sleep(1.5)
        await all_but_stopped(engine, 600)
        await asyncio.sleep(5)
        assert dues(engine) == [began_ms + n * 1000 for n in range(1, len(dues(engine)) + 1)]
        assert len(dues(engine)) > 600

    in_virtual_time(test)


def deliveries(transaction: Transaction) -> int:
    return len(transaction.writes.get(TopicPartition("orders", 0), []))


@pytest.mark.parametrize(
    ("schedules", "size_bytes"), [pytest.param(3, 900_000, id="bytes"), pytest.param(90, 10, id="records")]
)
def test_catching_up_on_all_keeps_within_the_bounds_of_a_step(schedules: int, size_bytes: int) -> None:
    """Every delivery counts; the rest goes on in the next step, and each time is accounted for once."""

    async def test(engine: Engine) -> None:
        committed: list[Transaction] = []
        began_ms = engine.clock.now_ms()
        await engine.stop()
        engine.start(new_producer=spies(engine, committed))
        for number in range(schedules):
            engine.request(
                value=b"x" * size_bytes, id=f"{number}", destination="orders",
                every="1m", catch_up="all", grace="1d",
            )  # fmt: skip
        await asyncio.sleep(30)
        await engine.stop()
        await asyncio.sleep(3_600)
        committed.clear()
        engine.start(new_producer=spies(engine, committed))
        await asyncio.sleep(10)
        largest = max(size(transaction) for transaction in committed)
        assert largest <= engine.settings.transaction_max_bytes + 2 * size_bytes + 1024
        assert max(map(deliveries, committed)) <= engine.settings.transaction_max_records
        for number in range(schedules):
            own = [r for r in engine.read("orders") if header(r, "schedule-id") == f"{number}"]
            due = [int(header(record, "due-at")) for record in own]
            assert due == [began_ms + n * 60_000 for n in range(1, len(due) + 1)]
            assert len(due) == 60
        assert len(events(engine, "fired")) == 60 * schedules

    in_virtual_time(test, transaction_max_records=500, transaction_max_bytes=4 * 1024 * 1024)


@pytest.mark.parametrize("names_rows", [True, False])
@pytest.mark.parametrize("catch_up", ["latest", "all"])
def test_records_at_fault_are_found_while_a_schedule_catches_up(catch_up: str, names_rows: bool) -> None:
    """One entry brings many records: the one at fault has to be told from those before and behind it."""

    async def test(engine: Engine) -> None:
        def new_producer(partition: int) -> MemoryProducer:
            producer = MemoryProducer(engine.log, f"delaystream-{partition}", "delaystream")
            producer.names_rows = names_rows
            return producer

        await engine.stop()
        began_ms = engine.clock.now_ms()
        engine.log.create_topic("small", 1)
        engine.start(new_producer=new_producer)
        recurring = {"destination": "small", "every": "1m", "catch_up": catch_up, "grace": "1d"}
        # So that the revisions of the next two, and with them their fire ids, are of one length.
        engine.request(action="cancel", id="nobody")
        engine.request(id="probe", timestamp_ms=began_ms - 67_000, max_fires="1", control=recurring)
        await asyncio.sleep(1)
        (record,) = engine.read("small")
        # What a first and only fire does not tell: the fire before it, and the next time.
        later = [(LAST_FIRED_AT, b"%d" % began_ms), (NEXT_AT, b"%d" % began_ms)]
        # With a fire count of three digits a delivery is one byte too large.
        largest = row_bytes(record.key, record.value, [*record.headers, *later]) + 1
        engine.log.topics["small"].max_message_bytes = largest
        engine.request(id="large", timestamp_ms=began_ms - 7_200_000, control=recurring)
        await asyncio.sleep(120)
        engine.request(destination="orders", delay="1s")
        await asyncio.sleep(30)
        assert len(engine.read("orders")) == 1
        assert len(accounted(engine)) == len(set(accounted(engine))) >= 121
        delivered = {int(header(r, "due-at")) for r in engine.read("small")[1:]}
        refused = {int(header(r, "due-at")) for r in engine.read("delay-dead-letters")}
        assert not delivered & refused
        if catch_up == "all":
            assert delivered
            assert refused
            assert max(delivered) < min(refused)

    in_virtual_time(test)


def test_none_makes_up_for_nothing() -> None:
    async def test(engine: Engine) -> None:
        began_ms = engine.clock.now_ms()
        engine.request(destination="orders", id="beat", every="600s", catch_up="none")
        await asyncio.sleep(500)
        await all_but_stopped(engine, 400)
        assert dues(engine) == []
        (missed,) = events(engine, "missed")
        assert (missed["from_ms"], missed["count"], missed["reason"]) == (began_ms + 600_000, 1, "late")
        await asyncio.sleep(600)
        assert dues(engine) == [began_ms + 1_200_000]

    in_virtual_time(test)


def test_a_one_time_schedule_that_becomes_recurring_is_told_with_the_grace_that_counts() -> None:
    async def test(engine: Engine) -> None:
        engine.request(destination="orders", id="beat", delay="1h")
        engine.request(id="beat", action="reschedule", every="10s")
        await asyncio.sleep(1)
        told = [decode_event(record.value or b"") for record in engine.read("delay-events")]
        assert told[-1].definition is not None
        assert told[-1].definition.grace_ms == DEFAULT_GRACE_MS

    in_virtual_time(test)


def test_what_is_beyond_its_grace_is_one_missed_run() -> None:
    async def test(engine: Engine) -> None:
        began_ms = engine.clock.now_ms()
        engine.request(destination="orders", id="beat", every="10s", catch_up="all", grace="25s")
        await asyncio.sleep(15)
        await all_but_stopped(engine, 120)
        (missed,) = events(engine, "missed")
        assert missed["from_ms"] == began_ms + 20_000
        assert missed["to_ms"] == dues(engine)[1] - 10_000
        assert accounted(engine) == [began_ms + n * 10_000 for n in range(1, len(accounted(engine)) + 1)]

    in_virtual_time(test)


def test_a_month_of_seconds_is_one_event_at_once() -> None:
    async def test(engine: Engine) -> None:
        engine.request(destination="orders", id="beat", cron="* * * * * *", grace="1s")
        await asyncio.sleep(2)
        await all_but_stopped(engine, 30 * 86_400)
        (skipped,) = events(engine, "skipped", "missed")
        assert skipped["count"] > 30 * 86_400 - 5

    in_virtual_time(test)


def test_a_schedule_goes_on_from_the_changelog_alone() -> None:
    """The local state is lost again and again: no time is fired twice, none is passed over."""

    async def test(engine: Engine) -> None:
        began_ms = engine.clock.now_ms()
        engine.request(destination="orders", id="beat", every="1s", jitter="900ms", catch_up="all")
        for _ in range(8):
            await asyncio.sleep(1.7)
            await engine.stop()
            engine.stores.destroy(0)
            engine.start()
        await asyncio.sleep(2)
        assert dues(engine) == [began_ms + n * 1000 for n in range(1, len(dues(engine)) + 1)]
        assert len(dues(engine)) >= 13
        assert [int(header(record, "fire-count")) for record in engine.read("orders")] == list(
            range(1, len(dues(engine)) + 1)
        )

    in_virtual_time(test)


def test_a_schedule_that_cannot_be_read_any_more_is_paused_and_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A zone may be gone from the database of the release that an operator went back to."""

    async def test(engine: Engine) -> None:
        engine.request(b"gone", destination="orders", id="gone", every="10s", catch_up="all")
        engine.request(b"there", destination="orders", id="there", every="11s")
        await asyncio.sleep(5)

        def read(recurrence: Recurrence, after_ms: int) -> int | None:
            if recurrence.every_ms == 10_000:
                raise UnknownZoneError("there is no time zone 'Mars/Olympus'")
            return next_after(recurrence, after_ms)

        with monkeypatch.context() as other_release:
            other_release.setattr(misfire, "next_after", read)
            await asyncio.sleep(20)
        assert [record.value for record in engine.read("orders")] == [b"there"] * 2
        assert engine.read("delay-dead-letters") == []
        (event,) = events(engine, "paused")
        assert (event["id"], event["status"], event["code"]) == ("gone", "paused", "invalid-timezone")
        assert "Mars/Olympus" in event["detail"]
        engine.request(id="gone", action="resume", reply_to="replies")
        await asyncio.sleep(1)
        assert json.loads(engine.read("replies")[-1].value or b"")["outcome"] == "resumed"
        assert [record.value for record in engine.read("orders")].count(b"gone") == 2, "nothing was lost"

    in_virtual_time(test)


def test_a_schedule_with_jitter_that_cannot_be_read_any_more_is_resumed_and_paused_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When it is due cannot be bounded by its next time then: that ends nothing but the schedule."""

    async def test(engine: Engine) -> None:
        engine.request(destination="orders", id="gone", cron="* * * * *", jitter="30s")
        engine.request(id="gone", action="pause")
        await asyncio.sleep(1)

        def read(recurrence: Recurrence, after_ms: int) -> int | None:
            raise UnknownZoneError("there is no time zone 'Mars/Olympus'")

        monkeypatch.setattr(misfire, "next_after", read)
        monkeypatch.setattr(fires, "next_after", read)
        engine.request(id="gone", action="resume")
        await asyncio.sleep(100)
        assert [event["type"] for event in events(engine)] == [
            "scheduled",
            "paused",
            "resumed",
            "paused",
        ]

    in_virtual_time(test)


def test_a_dead_letter_and_its_event_tell_the_same_scheduled_time() -> None:
    """Each time that is given up on has its own, also when several are given up on at once."""

    async def test(engine: Engine) -> None:
        engine.request(destination="absent", id="beat", every="10s", catch_up="all", grace="1h")
        await asyncio.sleep(300)
        letters = engine.read("delay-dead-letters")
        told = {event["fire_id"]: event["due_at_ms"] for event in events(engine, "quarantined")}
        assert len(letters) == len(told) > 5
        assert {header(r, "fire-id"): int(header(r, "due-at")) for r in letters} == told

    in_virtual_time(test, destination_timeout_ms=60_000)


@pytest.mark.parametrize(("every", "stands_for"), [("10s", True), ("7m", False)])
@pytest.mark.parametrize("action", ["schedule", "reschedule"])
def test_a_fire_stands_for_skipped_times_only_of_a_schedule_that_it_carries_on(
    action: str, every: str, stands_for: bool
) -> None:
    async def test(engine: Engine) -> None:
        began_ms = engine.clock.now_ms()
        what = {"destination": "not-there"} if action == "schedule" else {}
        start = str(began_ms)
        engine.request(destination="not-there", id="x", every="10s", start=start)
        await asyncio.sleep(60)
        assert [event["count"] for event in events(engine, "skipped")] != []
        engine.request(id="x", action=action, every=every, start=start, control=what)
        await asyncio.sleep(1)
        engine.log.create_topic("not-there", 1)
        await asyncio.sleep(900)
        first = engine.read("not-there")[0]
        assert ("delaystream-skipped" in dict(first.headers)) is stands_for

    in_virtual_time(test, destination_timeout_ms=20_000, destination_backoff_max_ms=1_000)


@pytest.mark.parametrize("name", ["Nats-Schedule-Next", "x-scheduler-cron-fire-timestamp"])
@pytest.mark.parametrize("value", [b"", None, b"mine"])
def test_a_header_that_only_another_system_fills_in_is_delivered_as_it_is(
    name: str, value: bytes | None
) -> None:
    """The topic speaks no dialect: what the header means is its reader's affair."""

    async def test(engine: Engine) -> None:
        engine.request(destination="orders", id="x", every="10s", foreign=[(name, value)])
        await asyncio.sleep(12)
        (record,) = engine.read("orders")
        assert record.headers[0] == (name, value)

    in_virtual_time(test)
