"""Control by id: each command on each status ends in the outcome that `engine.control` names for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from delaystream.core.partitioning import owner_partition
from tests.unit.engine import REQUESTS, Engine, header, in_virtual_time
from tests.unit.test_recurring import dues, events

ID = "order-7"


def receipts(engine: Engine) -> list[dict[str, Any]]:
    return [json.loads(record.value or b"") for record in engine.read("replies")]


async def ask(engine: Engine, action: str, id: str = ID, **control: str) -> dict[str, Any]:
    """Send a command; its receipt."""
    before = len(receipts(engine))
    engine.request(action=action, id=id, reply_to="replies", control=control)
    await asyncio.sleep(0.5)
    assert len(receipts(engine)) == before + 1
    return receipts(engine)[-1]


async def unknown(_: Engine) -> None:
    pass


async def pending(engine: Engine) -> None:
    engine.request(destination="orders", id=ID, delay="1h")


async def recurring(engine: Engine) -> None:
    engine.request(destination="orders", id=ID, every="1h")


async def paused(engine: Engine) -> None:
    await pending(engine)
    engine.request(action="pause", id=ID)


async def paused_recurring(engine: Engine) -> None:
    await recurring(engine)
    engine.request(action="pause", id=ID)


async def fired(engine: Engine) -> None:
    engine.request(destination="orders", id=ID, delay="0")


async def completed(engine: Engine) -> None:
    engine.request(destination="orders", id=ID, every="1s", max_fires="1")
    await asyncio.sleep(2)


async def dropped(engine: Engine) -> None:
    engine.request(
        destination="orders",
        id=ID,
        at=str(engine.clock.now_ms() - 10_000),
        grace="1s",
        on_late="drop",
    )


async def cancelled(engine: Engine) -> None:
    await pending(engine)
    engine.request(action="cancel", id=ID)


async def forestalled(engine: Engine) -> None:
    engine.request(action="cancel", id=ID)


_TIMES = {"reschedule": {"delay": "2h"}, "schedule": {"delay": "2h", "destination": "orders"}}
_OVER = ["scheduled", *["too-late"] * 5]
TABLE: dict[Callable[[Engine], Awaitable[None]], list[str]] = {
    unknown: ["scheduled", *["unknown"] * 5],
    pending: ["replaced", "cancelled", "paused", "unchanged", "triggered", "rescheduled"],
    recurring: ["replaced", "cancelled", "paused", "unchanged", "triggered", "rescheduled"],
    paused: ["replaced", "cancelled", "unchanged", "resumed", "triggered", "rescheduled"],
    paused_recurring: ["replaced", "cancelled", "unchanged", "resumed", "triggered", "rescheduled"],
    fired: _OVER,
    completed: _OVER,
    dropped: _OVER,
    cancelled: ["scheduled", "cancelled", *["too-late"] * 4],
    forestalled: ["scheduled", *["unknown"] * 5],
}
ACTIONS = ("schedule", "cancel", "pause", "resume", "trigger", "reschedule")


@pytest.mark.parametrize("status", TABLE, ids=lambda status: status.__name__)
@pytest.mark.parametrize("action", ACTIONS)
def test_a_command_has_one_outcome(status: Callable[[Engine], Awaitable[None]], action: str) -> None:
    """Its receipt and its event say the same."""

    async def test(engine: Engine) -> None:
        await status(engine)
        await asyncio.sleep(0.5)
        told = len(events(engine))
        receipt = await ask(engine, action, **_TIMES.get(action, {}))
        assert receipt["outcome"] == TABLE[status][ACTIONS.index(action)]
        answers = [event for event in events(engine)[told:] if event["type"] != "fired"]
        assert [event["type"] for event in answers] == [receipt["outcome"]]
        assert answers[0].get("status") == receipt.get("status")
        assert answers[0]["source"] == receipt["source"]
        if receipt["outcome"] == "too-late" and status is not dropped and status is not cancelled:
            assert receipt["fire_id"] == header(engine.read("orders")[0], "fire-id")

    in_virtual_time(test)


def test_what_is_paused_does_not_fire_and_what_is_resumed_does() -> None:
    async def test(engine: Engine) -> None:
        due_ms = engine.clock.now_ms() + 10_000
        engine.request(destination="orders", id=ID, at=f"{due_ms},{due_ms + 60_000}")
        await ask(engine, "pause")
        await asyncio.sleep(30)
        assert engine.read("orders") == []
        assert (await ask(engine, "resume"))["status"] == "pending"
        assert dues(engine) == [due_ms]
        await asyncio.sleep(60)
        assert dues(engine) == [due_ms, due_ms + 60_000]

    in_virtual_time(test)


def test_a_paused_recurring_schedule_catches_up_by_its_policy() -> None:
    async def test(engine: Engine) -> None:
        began_ms = engine.clock.now_ms()
        for policy in ("latest", "all", "none"):
            engine.request(policy.encode(), destination="orders", id=policy, every="70s", catch_up=policy)
        await asyncio.sleep(1)
        for policy in ("latest", "all", "none"):
            await ask(engine, "pause", policy)
        await asyncio.sleep(275)
        for policy in ("latest", "all", "none"):
            await ask(engine, "resume", policy)
        times: dict[str, list[int]] = {policy: [] for policy in ("latest", "all", "none")}
        for record in engine.read("orders"):
            times[(record.value or b"").decode()].append(int(header(record, "due-at")) - began_ms)
        assert times == {"latest": [210_000 + 70_000 - 70_000], "all": [70_000, 140_000, 210_000], "none": []}
        told = {event["id"]: event for event in events(engine, "skipped", "missed")}
        assert {id: (event["type"], event["count"], event["reason"]) for id, event in told.items()} == {
            "latest": ("skipped", 2, "paused"),
            "none": ("missed", 3, "paused"),
        }

    in_virtual_time(test)


def test_a_trigger_fires_now_and_leaves_the_schedule_alone() -> None:
    async def test(engine: Engine) -> None:
        began_ms = engine.clock.now_ms()
        engine.request(b"beat", destination="orders", id=ID, every="10s", max_fires="3")
        await asyncio.sleep(5)
        receipt = await ask(engine, "trigger")
        (delivery,) = engine.read("orders")
        assert delivery.value == b"beat"
        assert header(delivery, "fire-id") == receipt["fires"][0]["fire_id"]
        assert "/t0.1/" in receipt["fires"][0]["fire_id"]
        await asyncio.sleep(60)
        assert dues(engine)[1:] == [began_ms + n * 10_000 for n in (1, 2, 3)]
        assert header(engine.read("orders")[-1], "fire-count") == "4"

    in_virtual_time(test)


def test_a_paused_schedule_can_be_triggered_and_stays_paused() -> None:
    async def test(engine: Engine) -> None:
        await paused(engine)
        await asyncio.sleep(1)
        assert (await ask(engine, "trigger"))["status"] == "paused"
        assert len(engine.read("orders")) == 1
        assert events(engine)[-1]["status"] == "paused"

    in_virtual_time(test)


def test_triggers_that_wait_for_their_destination_are_bounded() -> None:
    """Each is a part of the schedule's record: without a bound it outgrows what the changelog takes."""

    async def test(engine: Engine) -> None:
        engine.log.topics["delay-wheel-changelog"].max_message_bytes = 4_000
        engine.request(destination="not-there-yet", id=ID, every="1h")
        await asyncio.sleep(1)
        for _ in range(1_000):
            engine.request(value=None, action="trigger", id=ID)
        engine.request(destination="orders", delay="1s")
        await asyncio.sleep(10)
        assert (await ask(engine, "trigger"))["code"] == "too-many-triggers"
        refused = [header(record, "error") for record in engine.read("delay-dead-letters")]
        assert refused == ["too-many-triggers"] * 951
        assert len(engine.read("orders")) == 1
        engine.log.create_topic("not-there-yet", 1)
        await asyncio.sleep(120)
        assert len(engine.read("not-there-yet")) == 50
        assert (await ask(engine, "trigger"))["outcome"] == "triggered"

    in_virtual_time(test, max_triggers=50)


def test_a_cancel_takes_a_trigger_along_that_has_not_fired() -> None:
    async def test(engine: Engine) -> None:
        engine.request(destination="absent", id=ID, delay="1h")
        await asyncio.sleep(1)
        assert (await ask(engine, "trigger"))["outcome"] == "triggered"
        assert (await ask(engine, "cancel"))["outcome"] == "cancelled"
        engine.log.create_topic("absent", 1)
        await asyncio.sleep(7200)
        assert engine.read("absent") == []

    in_virtual_time(test)


def test_reschedule_sets_the_time_and_keeps_the_payload() -> None:
    async def test(engine: Engine) -> None:
        engine.request(b"payload", b"k", [("trace", b"1")], destination="orders", id=ID, delay="1h")
        await asyncio.sleep(1)
        receipt = await ask(engine, "reschedule", delay="5s")
        await asyncio.sleep(10)
        (delivery,) = engine.read("orders")
        assert (delivery.key, delivery.value, delivery.headers[0]) == (b"k", b"payload", ("trace", b"1"))
        assert header(delivery, "fire-id") == receipt["fires"][0]["fire_id"]
        await asyncio.sleep(7200)
        assert len(engine.read("orders")) == 1

    in_virtual_time(test)


def test_reschedule_turns_a_recurring_schedule_into_a_one_time_one_and_back() -> None:
    async def test(engine: Engine) -> None:
        engine.request(destination="orders", id=ID, every="10s")
        await asyncio.sleep(15)
        await ask(engine, "reschedule", delay="60s")
        await asyncio.sleep(50)
        assert len(engine.read("orders")) == 1
        began_ms = engine.clock.now_ms()
        await ask(engine, "reschedule", every="1s")
        await asyncio.sleep(3)
        assert dues(engine)[1:] == [began_ms + n * 1000 for n in (1, 2, 3)]

    in_virtual_time(test)


@pytest.mark.parametrize("when", [{"delay": "5s"}, {"every": "5s"}], ids=str)
def test_what_is_rescheduled_while_it_is_paused_stays_paused(when: dict[str, str]) -> None:
    async def test(engine: Engine) -> None:
        await paused_recurring(engine)
        await asyncio.sleep(1)
        # An interval keeps its anchor.
        due_ms = engine.clock.now_ms() + (5_000 if "delay" in when else 4_000)
        assert (await ask(engine, "reschedule", **when))["status"] == "paused"
        await asyncio.sleep(8)
        assert engine.read("orders") == []
        await ask(engine, "resume")
        assert dues(engine) == [due_ms]

    in_virtual_time(test)


def test_a_fire_and_its_repetition_after_a_reschedule_have_different_ids() -> None:
    async def test(engine: Engine) -> None:
        at_ms = engine.clock.now_ms() + 1000
        engine.request(destination="orders", id=ID, at=f"{at_ms},{at_ms + 60_000}")
        await asyncio.sleep(5)
        await ask(engine, "reschedule", at=f"{at_ms},{at_ms}")
        fire_ids = [header(record, "fire-id") for record in engine.read("orders")]
        assert len(fire_ids) == 3
        assert len(set(fire_ids)) == 3

    in_virtual_time(test)


def test_the_record_remembers_the_last_fires() -> None:
    async def test(engine: Engine) -> None:
        from delaystream.codec.envelope import decode_schedule
        from delaystream.codec.keys import schedule_key

        began_ms = engine.clock.now_ms()
        engine.request(destination="orders", id=ID, every="1s")
        await asyncio.sleep(10.5)
        rows = {record.key: record.value for record in engine.read("delay-wheel-changelog")}
        stored = rows[schedule_key(REQUESTS, ID)]
        assert stored is not None
        history = decode_schedule(stored).history
        assert [fire.due_ms for fire in history] == [began_ms + n * 1000 for n in (8, 9, 10)]

    in_virtual_time(test, history_length=3)


# -- bulk ----------------------------------------------------------------------------------------


def fill(engine: Engine, count: int, **control: str) -> None:
    for number in range(count):
        engine.request(
            destination="orders" if number % 2 else "emails",
            id=f"{'a' if number % 3 else 'b'}-{number}",
            delay="1h",
            tags="nightly,even" if number % 2 == 0 else "nightly",
            partition=number % engine.settings.partitions,
            control=control,
        )


@pytest.mark.parametrize(
    ("match", "hit"),
    [
        ({"match_tags": "even"}, lambda n: n % 2 == 0),
        ({"match_tags": "even, nightly"}, lambda n: n % 2 == 0),
        ({"match_destination": "orders"}, lambda n: n % 2 == 1),
        ({"match_destination": "*"}, lambda n: True),
        ({"match_id_prefix": "b-"}, lambda n: n % 3 == 0),
        ({"match_id_prefix": "b-", "match_tags": "even"}, lambda n: n % 6 == 0),
        ({"match_id_prefix": "c"}, lambda n: False),
    ],
    ids=["one tag", "two tags", "destination", "every destination", "prefix", "prefix and tag", "nothing"],
)
def test_a_bulk_cancel_reaches_what_matches_on_every_partition(
    match: dict[str, str], hit: Callable[[int], bool]
) -> None:
    async def test(engine: Engine) -> None:
        fill(engine, 100)
        await asyncio.sleep(5)
        engine.request(action="cancel", reply_to="replies", control=match)
        await asyncio.sleep(5)
        expected = {f"{'a' if n % 3 else 'b'}-{n}" for n in range(100) if hit(n)}
        (receipt,) = receipts(engine)
        assert receipt["outcome"] == ("cancelled" if expected else "no-match")
        assert receipt["count"] == len(expected)
        assert {event["id"] for event in events(engine, "cancelled")} == expected
        (summary,) = events(engine, "bulk")
        assert (summary["action"], summary["count"]) == ("cancel", len(expected))
        await asyncio.sleep(7200)
        assert len(engine.read("orders")) + len(engine.read("emails")) == 100 - len(expected)

    in_virtual_time(test, partitions=3, bulk_slice=7)


def test_bulk_pause_and_resume() -> None:
    async def test(engine: Engine) -> None:
        fill(engine, 40)
        await asyncio.sleep(5)
        engine.request(action="pause", match_tags="nightly", reply_to="replies", partition=1)
        await asyncio.sleep(7200)
        assert engine.read("orders") == []
        engine.request(action="resume", match_destination="o*", reply_to="replies")
        await asyncio.sleep(60)
        assert len(engine.read("orders")) == 20
        assert engine.read("emails") == []
        assert [(r["outcome"], r["count"]) for r in receipts(engine)] == [("paused", 40), ("resumed", 20)]

    in_virtual_time(test, partitions=2, bulk_slice=3)


def test_a_bulk_command_leaves_alone_what_was_asked_for_after_it() -> None:
    async def test(engine: Engine) -> None:
        fill(engine, 30)
        await asyncio.sleep(5)
        engine.request(action="cancel", match_destination="*", reply_to="replies")
        engine.request(destination="orders", id="z-new", delay="1h")
        await asyncio.sleep(5)
        assert receipts(engine)[0]["count"] == 30
        await asyncio.sleep(7200)
        assert [header(record, "schedule-id") for record in engine.read("orders")] == ["z-new"]

    in_virtual_time(test, bulk_slice=2)


@pytest.mark.parametrize("partition", [0, 1])
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("id", ["a-first", "z-last"])
def test_a_command_after_a_bulk_command_comes_after_it(id: str, together: bool, partition: int) -> None:
    """Whichever of them reaches the schedule first, and wherever that is."""

    async def test(engine: Engine) -> None:
        fill(engine, 40)
        engine.request(destination="orders", id=id, every="1h")
        await asyncio.sleep(5)
        engine.request(action="pause", match_destination="*", reply_to="replies", partition=partition)
        if not together:
            await asyncio.sleep(0.1)
        engine.request(action="resume", id=id, reply_to="replies", partition=partition)
        await asyncio.sleep(5)
        told = {r.get("id", "*"): (r["outcome"], r.get("count")) for r in receipts(engine)}
        assert told == {id: ("resumed", None), "*": ("paused", 41)}
        assert [event["type"] for event in events(engine) if event.get("id") == id] == [
            "scheduled",
            "paused",
            "resumed",
        ]
        engine.request(action="cancel", match_destination="*", partition=partition)
        engine.request(action="reschedule", id=id, delay="1h", reply_to="replies", partition=partition)
        await asyncio.sleep(5)
        assert receipts(engine)[-1]["outcome"] == "too-late"
        await asyncio.sleep(7200)
        assert engine.read("orders") == []

    in_virtual_time(test, partitions=2, bulk_slice=2)


@pytest.mark.parametrize("happens", [False, True], ids=["", "workers die"])
@pytest.mark.parametrize(
    ("match", "update"),
    [
        ({"match_tags": "vip"}, {"tags": "vip"}),
        ({"match_destination": "late"}, {"destination": "late"}),
        ({"match_key": "customer-2"}, {"payload": "replace", "key": "customer-2"}),
    ],
    ids=["tags", "destination", "key"],
)
def test_a_bulk_command_leaves_alone_what_comes_to_match_after_it(
    match: dict[str, str], update: dict[str, str], happens: bool
) -> None:
    """Its sweep comes by later than the update that makes it match; it had been settled before that."""

    async def test(engine: Engine) -> None:
        fill(engine, 40)
        engine.request(b"a", b"customer-1", id="z-last", destination="orders", delay="60s", tags="plain")
        await asyncio.sleep(5)
        engine.request(action="cancel", reply_to="replies", control=match)
        key = update.pop("key", None)
        engine.request(
            b"b" if key else None, key.encode() if key else None, id="z-last", action="update", control=update
        )
        if happens:
            await asyncio.sleep(0.1)
            await engine.stop()
            engine.stores.destroy(0)
            engine.start()
        await asyncio.sleep(120)
        told = [event["type"] for event in events(engine) if event.get("id") == "z-last"]
        assert told == ["scheduled", "updated", "fired"]
        assert [(r["outcome"], r["matched"]) for r in receipts(engine)] == [("no-match", 0)]
        # What is sent after the update reaches it.
        engine.request(b"a", b"customer-1", id="z-next", destination="orders", delay="60s", tags="plain")
        key = "customer-2" if "match_key" in match else None
        engine.request(
            b"b" if key else None, key.encode() if key else None, id="z-next", action="update", control=update
        )
        engine.request(action="cancel", reply_to="replies", control=match)
        await asyncio.sleep(120)
        assert (receipts(engine)[-1]["outcome"], receipts(engine)[-1]["count"]) == ("cancelled", 1)

    update = dict(update)
    in_virtual_time(test, bulk_slice=2)


def test_a_bulk_resume_does_not_undo_the_later_pause_of_what_comes_to_match() -> None:
    async def test(engine: Engine) -> None:
        fill(engine, 20)
        engine.request(b"a", id="z-last", destination="orders", delay="60s")
        await asyncio.sleep(5)
        engine.request(action="resume", match_destination="late", reply_to="replies")
        engine.request(id="z-last", action="pause")
        engine.request(id="z-last", action="update", destination="late")
        await asyncio.sleep(120)
        assert receipts(engine)[0]["outcome"] == "no-match"
        assert engine.read("late") == []

    in_virtual_time(test, bulk_slice=2)


@pytest.mark.parametrize("id", ["a-first", "z-last"])
def test_what_a_bulk_command_has_stopped_does_not_fire_before_its_sweep_comes_by(id: str) -> None:
    async def test(engine: Engine) -> None:
        fill(engine, 400)
        engine.request(destination="late", id=id, delay="10s")
        await asyncio.sleep(9.9)
        engine.request(action="pause", match_destination="*", reply_to="replies")
        await asyncio.sleep(60)
        assert engine.read("late") == []
        assert receipts(engine)[0]["count"] == 401

    in_virtual_time(test, bulk_slice=2)


def test_two_bulk_commands_at_work_have_their_order_everywhere() -> None:
    async def test(engine: Engine) -> None:
        fill(engine, 100)
        await asyncio.sleep(5)
        engine.request(action="pause", match_destination="*", reply_to="replies")
        engine.request(action="resume", match_tags="nightly", reply_to="replies")
        engine.request(action="pause", match_id_prefix="z", reply_to="replies")
        engine.request(id="zz", destination="late", delay="1s")
        await asyncio.sleep(0.1)
        engine.request(id="zz", action="trigger")
        await asyncio.sleep(60)
        assert sorted((r["outcome"], r["count"]) for r in receipts(engine)) == [
            ("no-match", 0),
            ("paused", 100),
            ("resumed", 100),
        ]
        assert len(engine.read("late")) == 2

    in_virtual_time(test, partitions=2, bulk_slice=2)


def test_fires_go_on_while_a_bulk_command_is_at_work() -> None:
    async def test(engine: Engine) -> None:
        fill(engine, 400)
        await asyncio.sleep(5)
        engine.request(action="pause", match_destination="*", reply_to="replies")
        await asyncio.sleep(0.05)
        engine.request(b"meanwhile", destination="late", delay="0")
        await asyncio.sleep(0.2)
        assert receipts(engine) == []
        assert len(engine.read("late")) == 1
        await asyncio.sleep(30)
        assert receipts(engine)[0]["count"] == 400

    in_virtual_time(test, bulk_slice=2)


def test_a_bulk_command_survives_its_workers() -> None:
    async def test(engine: Engine) -> None:
        fill(engine, 60)
        await asyncio.sleep(5)
        engine.request(action="cancel", match_destination="*", reply_to="replies")
        for _ in range(6):
            await asyncio.sleep(0.1)
            await engine.stop()
            engine.stores.destroy(0)
            engine.start()
        await asyncio.sleep(20)
        assert [r["count"] for r in receipts(engine)] == [60]
        assert len(events(engine, "cancelled")) == 60

    in_virtual_time(test, partitions=2, bulk_slice=1)


def test_commands_are_carried_out_by_the_partition_that_owns_the_id() -> None:
    async def test(engine: Engine) -> None:
        elsewhere = next(p for p in range(3) if p != owner_partition(ID, 3))
        engine.request(
            destination="orders", id=ID, cron="0 0 1 1 *", timezone="Europe/Berlin", partition=elsewhere
        )
        engine.request(action="pause", id=ID, reply_to="replies", partition=elsewhere)
        engine.request(action="reschedule", id=ID, every="10s", reply_to="replies", partition=elsewhere)
        began_ms = engine.clock.now_ms()
        engine.request(action="resume", id=ID, reply_to="replies", partition=elsewhere)
        await asyncio.sleep(25)
        assert [r["outcome"] for r in receipts(engine)] == ["paused", "rescheduled", "resumed"]
        assert dues(engine) == [began_ms + 10_000, began_ms + 20_000]

    in_virtual_time(test, partitions=3)


def test_a_dead_letter_tells_when_the_request_was_produced_and_not_when_it_was_handed_on() -> None:
    async def test(engine: Engine) -> None:
        elsewhere = next(p for p in range(3) if p != owner_partition(ID, 3))
        engine.request(destination="orders", id=ID, delay="1h", partition=elsewhere)
        produced_ms = engine.clock.now_ms() - 5_000
        engine.request(
            destination="orders",
            id=ID,
            delay="1h",
            if_exists="reject",
            partition=elsewhere,
            timestamp_ms=produced_ms,
        )
        await asyncio.sleep(5)
        (letter,) = engine.read("delay-dead-letters")
        assert header(letter, "error") == "already-exists"
        assert header(letter, "error-timestamp") == str(produced_ms)

    in_virtual_time(test, partitions=3)


def test_a_bulk_command_goes_on_when_the_clock_steps_back() -> None:
    """What it has to do is due whatever the time is."""

    async def test(engine: Engine) -> None:
        for number in range(20):
            engine.request(id=f"id-{number}", destination="orders", delay="3h")
        await asyncio.sleep(1)
        engine.request(action="cancel", match_destination="orders", reply_to="replies")
        await asyncio.sleep(0.02)
        assert engine.read("replies") == []
        engine.clock.step(-3_600_000)
        await asyncio.sleep(5)
        (receipt,) = engine.read("replies")
        assert json.loads(receipt.value or b"")["count"] == 20

    in_virtual_time(test, bulk_slice=1)


def test_a_command_by_coordinates_that_is_refused_keeps_its_bytes_wherever_it_was_read() -> None:
    async def test(engine: Engine) -> None:
        engine.request(destination="orders", delay="1h")
        for partition in (0, 1):
            engine.request(
                b"v", partition=partition, action="reschedule", coordinates=f"{REQUESTS}/0/0", delay="1s,2s"
            )
        await asyncio.sleep(1)
        letters = engine.read("delay-dead-letters")
        assert [(letter.key, letter.value, header(letter, "error")) for letter in letters] == [
            (b"key", b"v", "list-too-long")
        ] * 2

    in_virtual_time(test, partitions=2)
