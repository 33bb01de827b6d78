"""What a command changes and what it leaves: changes, the same definition sent again, versions."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from typing import Any

import pytest

from delaystream.codec.envelope import Past, decode_schedule
from delaystream.codec.keys import schedule_key
from delaystream.codec.requests.headers import RequestParser
from delaystream.core.destinations import DestinationFilter
from delaystream.core.limits import Limits
from delaystream.engine.policy.tenants import Tenant, Tenants
from delaystream.engine.schedules.terms import REMEMBERED
from tests.unit.engine import NO_CONTROL, RECEIPTS, REQUESTS, Definitions, Engine, header, in_virtual_time
from tests.unit.tenants import tenant, tenants, with_tenants
from tests.unit.test_recurring import dues, events

ID = "job"


async def ask(
    engine: Engine, action: str, value: bytes | None = None, control: Definitions = NO_CONTROL, **named: str
) -> dict[str, Any]:
    """Send a request about the id, and wait for its receipt."""
    before = len(engine.read("replies"))
    engine.request(value, id=ID, action=action, reply_to="replies", control={**named, **control})
    await asyncio.sleep(0.1)
    (receipt,) = engine.read("replies")[before:]
    return json.loads(receipt.value or b"")  # type: ignore[no-any-return]


def record(engine: Engine) -> Any:
    """The schedule as it is stored."""
    return decode_schedule(engine.stores.disks[0].values[schedule_key(REQUESTS, ID)])


async def every(engine: Engine, **control: str) -> dict[str, Any]:
    return await ask(engine, "schedule", b"value", {"destination": "orders", "every": "10s", **control})


# -- update ----------------------------------------------------------------------------------------


def test_an_update_changes_what_it_gives_and_nothing_else() -> None:
    async def test(engine: Engine) -> None:
        began_ms = engine.clock.now_ms()
        await every(engine, jitter="2s", max_fires="5", tags="a,b", name="n", catch_up="all")
        await asyncio.sleep(25)
        before = record(engine)
        answer = await ask(engine, "update", description="why not", tags="none")
        assert (answer["outcome"], answer["status"]) == ("updated", "pending")
        after = record(engine)
        assert (after.description, after.tags, after.name) == ("why not", [], "n")
        for kept in ("recurrence", "next_ms", "fire_count", "run_count", "history", "catch_up", "payload"):
            assert getattr(after, kept) == getattr(before, kept), kept
        assert after.pending == before.pending, "not even its jitter moves"
        assert after.revision > before.revision
        await asyncio.sleep(60)
        assert dues(engine) == [began_ms + n * 10_000 for n in (1, 2, 3, 4, 5)]
        assert [event["type"] for event in events(engine)][-1] == "completed"

    in_virtual_time(test)


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("when", [{"every": "10s"}, {"delay": "30s,40s"}], ids=str)
def test_a_destination_that_is_updated_holds_for_all_that_is_ahead(
    when: dict[str, str], paused: bool
) -> None:
    async def test(engine: Engine) -> None:
        await ask(engine, "schedule", b"value", destination="nowhere", control=when)
        await ask(engine, "trigger")
        if paused:
            await ask(engine, "pause")
        await asyncio.sleep(5)
        await ask(engine, "update", destination="orders")
        await asyncio.sleep(1)
        # What was triggered goes there too, paused or not.
        assert len(engine.read("orders")) == 1
        await asyncio.sleep(60)
        assert (len(engine.read("orders")) > 1) is not paused
        if paused:
            await ask(engine, "resume")
            assert len(engine.read("orders")) > 1

    in_virtual_time(test)


def test_a_payload_is_replaced_or_kept_as_is_said() -> None:
    async def test(engine: Engine) -> None:
        await every(engine)
        assert (await ask(engine, "update", b"new", destination_key="k", payload="replace"))[
            "outcome"
        ] == "updated"
        await asyncio.sleep(10)
        (delivered,) = engine.read("orders")
        assert (delivered.key, delivered.value) == (b"k", b"new")
        await ask(engine, "update", None, payload="replace")
        await asyncio.sleep(10)
        assert engine.read("orders")[1].value is None
        large = bytes(5_000)
        await ask(engine, "update", large, payload="replace")
        await asyncio.sleep(10)
        assert engine.read("orders")[2].value == large
        await ask(engine, "update", b"small", payload="replace")
        await ask(engine, "cancel")
        assert not [key for key in engine.stores.disks[0].values if key[:1] == b"p"]

    in_virtual_time(test)


@pytest.mark.parametrize(
    ("first", "change", "code", "says"),
    [
        ({"delay": "1h"}, {"jitter": "1s"}, "not-applicable", "one-time schedule"),
        ({"every": "10s"}, {"timezone": "Europe/Paris"}, "not-applicable", "interval"),
        ({"every": "10s"}, {"jitter": "10s"}, "jitter-too-long", "10s"),
        ({"every": "10s"}, {"on_late": "drop", "grace": "1s"}, "not-applicable", "catch-up"),
        ({"delay": "1h"}, {"catch_up": "all"}, "not-applicable", "on-late"),
        ({"delay": "1h"}, {"destination_partition": "7"}, "destination-partition-out-of-range", "7"),
        ({"cron": "0 9 1 1 *"}, {"end": "1700000001000"}, "never-fires", "no time"),
    ],
    ids=str,
)
def test_a_change_that_means_nothing_to_the_schedule_is_refused(
    first: dict[str, str], change: dict[str, str], code: str, says: str
) -> None:
    async def test(engine: Engine) -> None:
        await ask(engine, "schedule", b"value", destination="orders", control=first)
        before = record(engine)
        answer = await ask(engine, "update", control=change)
        assert (answer["outcome"], answer["code"]) == ("rejected", code)
        assert says in answer["detail"]
        assert record(engine) == before

    in_virtual_time(test)


@pytest.mark.parametrize("action", ["update", "reschedule"])
def test_what_has_fired_as_often_as_it_may_is_given_no_further_times(action: str) -> None:
    """Where a triggered fire is all that is ahead of it; with `max-fires` its fires are counted anew."""

    async def test(engine: Engine) -> None:
        await every(engine, max_fires="1")
        await asyncio.sleep(9.8)
        await ask(engine, "trigger")  # the rate is used up by that
        await asyncio.sleep(0.5)
        await ask(engine, "trigger")
        await asyncio.sleep(0.5)
        assert (len(engine.read("orders")), record(engine).status) == (2, "pending")
        answer = await ask(engine, action, every="7s")
        assert (answer["outcome"], answer["code"]) == ("rejected", "never-fires")
        assert "has fired 1 times, and its max-fires is 1" in answer["detail"]
        assert (await ask(engine, action, every="7s", max_fires="1"))["status"] == "pending"
        await asyncio.sleep(60)
        assert len(engine.read("orders")) == 4

    with_tenants(test, tenants(tenant("*"), rates="orders=1"))


def test_a_reschedule_keeps_what_it_does_not_give() -> None:
    async def test(engine: Engine) -> None:
        await ask(
            engine, "schedule", b"value", destination="orders", cron="0 9 * * *", timezone="Europe/Paris",
            max_fires="3", end="1800000000000",
        )  # fmt: skip
        await ask(engine, "reschedule", cron="0 10 * * *")
        recurrence = record(engine).recurrence
        assert (recurrence.cron, recurrence.timezone) == ("0 10 * * *", "Europe/Paris")
        assert (recurrence.max_fires, recurrence.end_ms) == (3, 1_800_000_000_000)
        await ask(engine, "reschedule", end="none", max_fires="none", timezone="none")
        recurrence = record(engine).recurrence
        assert (recurrence.cron, recurrence.timezone) == ("0 10 * * *", "UTC")
        assert (recurrence.max_fires, recurrence.end_ms) == (0, None)

    in_virtual_time(test)


# -- the same definition sent again -----------------------------------------------------------------


@pytest.mark.parametrize(
    "when",
    [
        {"every": "10s", "jitter": "8s"},
        {"cron": "*/10 * * * * *", "jitter": "8s"},
        {"at": "1700000010000,1700000020000"},
    ],
    ids=str,
)
def test_what_is_sent_again_as_it_is_moves_nothing(when: dict[str, str]) -> None:
    """Every second, as by many deploys: also between a scheduled time and its jitter."""

    async def once(engine: Engine, again: bool) -> list[tuple[str, str]]:
        for second in range(35):
            # Once it is over, it would begin anew.
            if second == 0 or (again and second < 19):
                engine.request(
                    foreign=[("traceparent", b"%d" % second)], id=ID, destination="orders",
                    actor=f"deploy {second}", control=when,
                )  # fmt: skip
            await asyncio.sleep(1)
        return [(header(r, "fire-id"), header(r, "fired-at")) for r in engine.read("orders")]

    found = []
    for again in (False, True):

        async def test(engine: Engine, again: bool = again) -> None:
            found.append(await once(engine, again))
            told = [event["type"] for event in events(engine)]
            assert "missed" not in told
            assert "skipped" not in told
            assert (told.count("unchanged") > 0) is again

        in_virtual_time(test)
    assert found[0] == found[1] != []


def test_a_delay_that_is_sent_again_replaces() -> None:
    async def test(engine: Engine) -> None:
        for _ in range(3):
            engine.request(id=ID, destination="orders", delay="5s")
            await asyncio.sleep(4)
        await asyncio.sleep(5)
        assert [event["type"] for event in events(engine)] == ["scheduled", "replaced", "replaced", "fired"]

    in_virtual_time(test)


@pytest.mark.parametrize(
    "other",
    [
        {"tags": "x"},
        {"grace": "1s"},
        {"destination": "emails"},
        {"destination_key": "k"},
        {"value": b"other"},
    ],
    ids=str,
)
def test_what_differs_in_anything_replaces(other: dict[str, Any]) -> None:
    async def test(engine: Engine) -> None:
        await every(engine)
        engine.request(**{"value": b"value", "id": ID, "destination": "orders", "every": "10s", **other})
        await asyncio.sleep(1)
        assert [event["type"] for event in events(engine)] == ["scheduled", "replaced"]

    in_virtual_time(test)


@pytest.mark.parametrize("when", [{"every": "10s"}, {"cron": "*/10 * * * * *", "grace": "1m"}], ids=str)
@pytest.mark.parametrize("given", [("start",), ("grace",), ("start", "grace")], ids=str)
def test_start_and_grace_that_hold_are_the_same_given_or_not(
    when: dict[str, str], given: tuple[str, ...]
) -> None:
    """As a description tells them: whoever has read a schedule can send what was read."""

    async def test(engine: Engine) -> None:
        asked = {"destination": "orders", **when}
        await ask(engine, "schedule", b"value", control=asked)
        await asyncio.sleep(7)
        row = record(engine)
        told = {"start": str(row.recurrence.start_ms), "grace": f"{row.grace_ms}ms"}
        again = asked | {name: told[name] for name in given}
        assert (await ask(engine, "schedule", b"value", control=again))["outcome"] == "unchanged"
        other = again | {"start": str(row.recurrence.start_ms + 1)}
        assert (await ask(engine, "schedule", b"value", control=other))["outcome"] == "replaced"

    in_virtual_time(test)


def test_a_change_in_between_is_undone_by_what_is_sent_again() -> None:
    async def test(engine: Engine) -> None:
        await every(engine)
        await ask(engine, "update", tags="x")
        assert (await every(engine))["outcome"] == "replaced"
        assert record(engine).tags == []
        assert (await every(engine))["outcome"] == "unchanged"

    in_virtual_time(test)


def test_a_bulk_cancel_before_and_after_what_is_sent_again_are_told_apart() -> None:
    """Nothing moves but the coordinates: by them a command for many knows what it is about."""

    async def test(engine: Engine) -> None:
        await every(engine)
        engine.request(action="cancel", match_destination="*", timestamp_ms=engine.clock.now_ms() + 1_000)
        await asyncio.sleep(1)
        assert record(engine).status == "cancelled"
        await every(engine)
        assert (await every(engine))["outcome"] == "unchanged"
        # Older by its timestamp, from another request partition's point of view; here offsets count.
        engine.request(action="cancel", match_destination="*")
        await asyncio.sleep(1)
        assert record(engine).status == "cancelled"

    in_virtual_time(test)


def test_a_new_definition_owes_nothing_in_silence() -> None:
    async def test(engine: Engine) -> None:
        began_ms = engine.clock.now_ms()
        await every(engine, jitter="9999ms", destination="nowhere")
        await asyncio.sleep(45)
        await ask(engine, "schedule", b"value", destination="orders", delay="1h")
        (missed,) = events(engine, "missed")
        assert (missed["from_ms"], missed["count"], missed["reason"]) == (began_ms + 10_000, 4, "replaced")

    in_virtual_time(test)


@pytest.mark.parametrize(
    ("action", "control"),
    [
        ("schedule", {"destination": "orders", "every": "1h"}),
        ("schedule", {"destination": "orders", "delay": "1h"}),
        ("reschedule", {"every": "1h"}),
        ("update", {"delay": "1h", "payload": "keep"}),
    ],
    ids=["replaced", "replaced-by-one-time", "rescheduled", "updated"],
)
def test_what_a_new_definition_has_missed_is_in_the_history(action: str, control: dict[str, str]) -> None:
    """As a run of the definition that missed it, with what is told of it."""

    async def test(engine: Engine) -> None:
        await every(engine, destination="absent", jitter="9s")
        await asyncio.sleep(45)
        revised = record(engine).revision
        await ask(engine, action, b"v", control=control)
        (missed,) = events(engine, "missed")
        (run,) = record(engine).history
        assert (run.kind, run.revision) == (Past.MISSED, revised)
        assert (run.due_ms, run.to_ms, run.count) == (missed["from_ms"], missed["to_ms"], missed["count"])
        # A replacement counts anew.
        assert record(engine).missed_count == (0 if action == "schedule" else missed["count"])
        (told,) = (await ask(engine, "describe"))["schedule"]["history"]
        assert told == {
            "kind": "missed",
            **{name: missed[name] for name in ("from_ms", "to_ms", "count")},
            "decided_at_ms": missed["at_ms"],
        }

    in_virtual_time(test)


# -- paused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", [{"every": "5s"}, {"delay": "1s,2s"}], ids=str)
def test_what_is_paused_stays_paused_when_it_is_replaced(when: dict[str, str]) -> None:
    async def test(engine: Engine) -> None:
        await every(engine)
        await ask(engine, "pause")
        answer = await ask(engine, "schedule", b"other", destination="orders", control=when)
        assert (answer["outcome"], answer["status"]) == ("replaced", "paused")
        await asyncio.sleep(30)
        assert engine.read("orders") == []
        answer = await ask(engine, "schedule", b"third", destination="orders", status="pending", control=when)
        assert (answer["outcome"], answer["status"]) == ("replaced", "pending")
        await asyncio.sleep(30)
        assert {r.value for r in engine.read("orders")} == {b"third"}

    in_virtual_time(test)


def test_a_schedule_may_begin_paused() -> None:
    async def test(engine: Engine) -> None:
        answer = await ask(engine, "schedule", b"v", destination="orders", delay="0", status="paused")
        assert (answer["outcome"], answer["status"]) == ("scheduled", "paused")
        await asyncio.sleep(5)
        assert engine.read("orders") == []
        await ask(engine, "resume")
        assert len(engine.read("orders")) == 1

    in_virtual_time(test)


# -- versions, request ids, deploys -------------------------------------------------------------------


def test_a_version_changes_with_every_command_that_changes_anything() -> None:
    async def test(engine: Engine) -> None:
        versions = [(await every(engine, declared_by="shop", deploy="3"))["version"]]
        for action, control in (
            ("pause", {}),
            ("resume", {}),
            ("update", {"tags": "x"}),
            ("reschedule", {"every": "20s"}),
            ("trigger", {}),
        ):
            versions.append((await ask(engine, action, control=control))["version"])
        assert len(set(versions)) == len(versions)
        told = [event for event in events(engine) if event["type"] != "fired"]
        assert [event["version"] for event in told] == versions
        assert {(event["declared_by"], event["deploy"]) for event in told} == {("shop", 3)}
        assert (await ask(engine, "resume"))["version"] == versions[-1], "unchanged"
        engine.request(action="pause", match_destination="*")
        await asyncio.sleep(1)
        bulk = record(engine).version
        assert bulk not in versions
        await asyncio.sleep(30)
        assert record(engine).version == bulk, "a fire is no command"

    in_virtual_time(test)


def test_a_command_holds_for_the_version_that_it_names() -> None:
    async def test(engine: Engine) -> None:
        refused = await ask(engine, "pause", if_version="7")
        assert (refused["code"], "does not exist" in refused["detail"]) == ("version-changed", True)
        version = (await every(engine, if_version="0"))["version"]
        assert (await every(engine, if_version="0"))["code"] == "version-changed"
        paused = await ask(engine, "pause", if_version=str(version))
        assert paused["outcome"] == "paused"
        refused = await ask(engine, "cancel", if_version=str(version))
        assert refused["code"] == "version-changed"
        assert str(paused["version"]) in refused["detail"]
        assert (await ask(engine, "cancel", if_version=str(paused["version"])))["outcome"] == "cancelled"
        assert (await every(engine, if_version="0"))["outcome"] == "scheduled"

    in_virtual_time(test)


def test_a_request_that_is_repeated_is_answered_again_and_not_carried_out_again() -> None:
    async def test(engine: Engine) -> None:
        first = await every(engine, request_id="r-1")
        triggered = await ask(engine, "trigger", request_id="r-2")
        for _ in range(3):
            again = await ask(engine, "trigger", request_id="r-2")
            assert (again["outcome"], again["repeated"]) == ("triggered", True)
            assert again["version"] == triggered["version"]
        again = await every(engine, request_id="r-1", tags="other")
        assert (again["outcome"], again["repeated"]) == ("scheduled", True)
        await asyncio.sleep(1)
        assert len(engine.read("orders")) == 1
        assert record(engine).tags == []
        assert record(engine).version != first["version"]
        assert [event["type"] for event in events(engine)].count("repeated") == 4
        for number in range(REMEMBERED):
            await ask(engine, "pause" if number % 2 == 0 else "resume", request_id=f"p-{number}")
        assert "repeated" not in await ask(engine, "trigger", request_id="r-2"), "forgotten"
        assert len(record(engine).answered) == REMEMBERED

    in_virtual_time(test)


@pytest.mark.parametrize(("action", "outcome"), [("trigger", "triggered"), ("pause", "paused")])
@pytest.mark.parametrize("forestalled", [False, True])
def test_a_command_that_found_no_such_id_is_decided_on_anew_when_it_is_sent_again(
    action: str, outcome: str, forestalled: bool
) -> None:
    """It has changed nothing, and there was no id to remember it; once carried out, it is remembered."""

    async def test(engine: Engine) -> None:
        if forestalled:
            await ask(engine, "cancel")
        for _ in range(2):
            answer = await ask(engine, action, request_id="r")
            assert (answer["outcome"], "repeated" in answer) == ("unknown", False)
        rows = [key for key in engine.stores.disks[0].values if key == schedule_key(REQUESTS, ID)]
        assert len(rows) == forestalled, "it leaves nothing behind"
        await every(engine)
        for again in (False, True):
            answer = await ask(engine, action, request_id="r")
            assert (answer["outcome"], answer.get("repeated", False)) == (outcome, again)

    in_virtual_time(test)


def test_a_cancel_of_an_unknown_id_is_answered_again() -> None:
    """It is remembered: sent again it cancels nothing that was scheduled in between."""

    async def test(engine: Engine) -> None:
        assert (await ask(engine, "cancel", request_id="r"))["outcome"] == "unknown"
        await every(engine)
        again = await ask(engine, "cancel", request_id="r")
        assert (again["outcome"], again["repeated"]) == ("unknown", True)
        assert record(engine).status == "pending"

    in_virtual_time(test)


@pytest.mark.parametrize("action", ["trigger", "update"])
def test_a_command_that_was_rejected_is_decided_on_anew_when_it_is_sent_again(action: str) -> None:
    async def test(engine: Engine) -> None:
        change = {"tags": "x"} if action == "update" else {}
        await every(engine, status="paused")
        version = (await ask(engine, "update", tags="y"))["version"]
        refused = await ask(engine, action, request_id="r", if_version="7", control=change)
        assert refused["code"] == "version-changed"
        answer = await ask(engine, action, request_id="r", if_version=str(version), control=change)
        assert (answer["outcome"], "repeated" in answer) == (
            "triggered" if action == "trigger" else "updated",
            False,
        )

    in_virtual_time(test)


def test_an_older_deploy_is_refused_also_by_what_a_newer_one_has_cancelled() -> None:
    async def test(engine: Engine) -> None:
        await every(engine, declared_by="shop", deploy="7")
        refused = await every(engine, declared_by="shop", deploy="6", tags="old")
        assert refused["code"] == "deploy-superseded"
        assert "deploy 7" in refused["detail"]
        assert (await every(engine, declared_by="shop", deploy="8"))["outcome"] == "unchanged"
        assert (await ask(engine, "cancel", declared_by="shop", deploy="9"))["outcome"] == "cancelled"
        refused = await every(engine, declared_by="shop", deploy="8")
        assert refused["code"] == "deploy-superseded"
        assert (await every(engine, declared_by="shop", deploy="10"))["outcome"] == "scheduled"
        # Somebody else's set, or nobody's, has other numbers.
        assert (await every(engine, declared_by="other", deploy="1", tags="x"))["outcome"] == "replaced"
        assert (await ask(engine, "pause"))["outcome"] == "paused"

    in_virtual_time(test)


@pytest.mark.parametrize("action", ["schedule", "update", "cancel"])
def test_who_does_not_say_which_deploy_it_is_leaves_the_last_one_remembered(action: str) -> None:
    async def test(engine: Engine) -> None:
        await every(engine, declared_by="shop", deploy="7")
        same = {"destination": "orders", "every": "10s"} if action == "schedule" else {}
        changed = {"tags": "by-hand"} if action != "cancel" else {}
        await ask(engine, action, b"value" if same else None, declared_by="shop", control={**same, **changed})
        assert (record(engine).declared_by, record(engine).deploy) == ("shop", 7)
        assert (await every(engine, declared_by="shop", deploy="6"))["code"] == "deploy-superseded"
        await ask(
            engine, action, b"value" if same else None, declared_by="other", control={**same, **changed}
        )
        assert (record(engine).declared_by, record(engine).deploy) == ("other", -1)
        assert "code" not in await every(engine, declared_by="other", deploy="0", tags="x")

    in_virtual_time(test)


@pytest.mark.parametrize("first", ["unknown", "over", "cancelled"])
def test_a_prune_that_finds_nothing_to_cancel_is_remembered(first: str) -> None:
    """A late deployment that still has the schedule does not bring it back."""

    async def test(engine: Engine) -> None:
        if first != "unknown":
            declared = {"destination": "orders", "delay": "1s", "declared_by": "shop", "deploy": "7"}
            await ask(engine, "schedule", b"value", control=declared)
        if first == "cancelled":
            await ask(engine, "cancel")
        await asyncio.sleep(2)
        answer = await ask(engine, "cancel", declared_by="shop", deploy="9")
        outcomes = {"unknown": "unknown", "over": "too-late", "cancelled": "cancelled"}
        assert answer["outcome"] == outcomes[first]
        engine.request(action="cancel", match_destination="*", reply_to="replies")
        await asyncio.sleep(1)
        assert (await every(engine, declared_by="shop", deploy="8"))["code"] == "deploy-superseded"
        assert (await every(engine, declared_by="shop", deploy="9"))["outcome"] == "scheduled"

    in_virtual_time(test)


@pytest.mark.parametrize("action", ["cancel", "pause"])
def test_a_request_that_came_too_late_is_answered_again_as_well(action: str) -> None:
    """Its id may be in use anew by then."""

    async def test(engine: Engine) -> None:
        await ask(engine, "schedule", b"value", destination="orders", delay="0")
        assert (await ask(engine, action, request_id="r"))["outcome"] == "too-late"
        await every(engine)
        again = await ask(engine, action, request_id="r")
        assert (again["outcome"], again["repeated"], again["status"]) == ("too-late", True, "pending")

    in_virtual_time(test)


def test_a_note_is_kept_with_the_schedule() -> None:
    async def test(engine: Engine) -> None:
        await every(engine, note="first of all")
        assert record(engine).note == "first of all"
        await ask(engine, "pause", note="incident 12")
        assert record(engine).note == "incident 12"
        engine.request(action="resume", match_destination="*", note="it is over")
        await asyncio.sleep(1)
        assert record(engine).note == "it is over"
        told = [event.get("note") for event in events(engine) if event.get("id")]
        assert told == ["first of all", "incident 12", "it is over"]

    in_virtual_time(test)


# -- pauses that end, and what a resume says of what is late --------------------------------------------


@pytest.mark.parametrize("when", [{"every": "10s"}, {"delay": "5s,15s"}], ids=str)
@pytest.mark.parametrize("restart", ["no", "caught up", "rebuilt"])
def test_a_pause_ends_by_itself_when_it_says_so(when: dict[str, str], restart: str) -> None:
    async def test(engine: Engine) -> None:
        await ask(engine, "schedule", b"value", destination="orders", control=when)
        until_ms = engine.clock.now_ms() + 30_000
        engine.request(None, id=ID, action="pause", until=str(until_ms), note="maintenance")
        await asyncio.sleep(1)
        if restart != "no":
            await engine.stop()
            if restart == "rebuilt":
                engine.stores.destroy(0)
            engine.start()
        await asyncio.sleep(28)
        assert engine.read("orders") == []
        assert record(engine).status == "paused"
        await asyncio.sleep(3)
        (resumed,) = events(engine, "resumed")
        assert 0 <= resumed["at_ms"] - until_ms < 100
        assert len(engine.read("orders")) > 0
        assert record(engine).until_key is None

    in_virtual_time(test)


@pytest.mark.parametrize("end", ["resume", "cancel", "schedule"])
def test_a_pause_that_ended_otherwise_does_not_end_again(end: str) -> None:
    async def test(engine: Engine) -> None:
        await every(engine)
        await ask(engine, "pause", until=str(engine.clock.now_ms() + 30_000))
        if end == "schedule":
            # It stays paused, and for as long.
            assert (await every(engine, tags="x"))["status"] == "paused"
        else:
            await ask(engine, end)
            if end == "resume":
                await ask(engine, "pause")
        await asyncio.sleep(60)
        assert len(events(engine, "resumed")) == (end != "cancel")
        assert (
            record(engine).status == {"resume": "paused", "cancel": "cancelled", "schedule": "pending"}[end]
        )

    in_virtual_time(test)


def test_the_end_of_a_pause_goes_with_what_was_paused() -> None:
    """A triggered fire was all that was ahead of it, and goes out during the pause."""

    async def test(engine: Engine) -> None:
        await every(engine, max_fires="1")
        await asyncio.sleep(9.8)
        await ask(engine, "trigger")  # the rate is used up by that
        await asyncio.sleep(0.5)
        await ask(engine, "trigger")
        await asyncio.sleep(0.5)
        await ask(engine, "pause", until=str(engine.clock.now_ms() + 5_000))
        await asyncio.sleep(60)
        assert record(engine).status == "completed"
        assert [event["type"] for event in events(engine)][-2:] == ["fired", "completed"]
        assert engine.read("delay-dead-letters") == []

    with_tenants(test, tenants(tenant("*"), rates="orders=1"))


def test_a_pause_may_be_given_another_end() -> None:
    async def test(engine: Engine) -> None:
        await every(engine)
        await ask(engine, "pause", until=str(engine.clock.now_ms() + 20_000))
        until_ms = engine.clock.now_ms() + 50_000
        answer = await ask(engine, "pause", until=str(until_ms))
        assert (answer["outcome"], answer["until_ms"]) == ("paused", until_ms)
        assert (await ask(engine, "pause", until=str(until_ms)))["outcome"] == "unchanged"
        await asyncio.sleep(30)
        assert record(engine).status == "paused"
        await asyncio.sleep(30)
        assert record(engine).status == "pending"

    in_virtual_time(test)


def test_the_receipt_of_a_pause_of_many_says_when_it_ends() -> None:
    async def test(engine: Engine) -> None:
        await every(engine)
        until_ms = engine.clock.now_ms() + 20_000
        for end in (str(until_ms), "none"):
            engine.request(action="pause", match_destination="*", reply_to="replies", until=end)
            await asyncio.sleep(1)
        first, second = [json.loads(receipt.value or b"") for receipt in engine.read("replies")[-2:]]
        assert (first["outcome"], first["until_ms"]) == ("paused", until_ms)
        assert second["outcome"] == "paused"
        assert "until_ms" not in second
        assert record(engine).until_key is None

    in_virtual_time(test)


@pytest.mark.parametrize("control", [{}, {"until": "none"}], ids=str)
@pytest.mark.parametrize("restart", [False, True])
def test_a_pause_without_an_end_lasts_whatever_end_an_earlier_one_had(
    control: dict[str, str], restart: bool
) -> None:
    async def test(engine: Engine) -> None:
        await every(engine)
        assert "until_ms" in await ask(engine, "pause", until=str(engine.clock.now_ms() + 20_000))
        version = record(engine).version
        answer = await ask(engine, "pause", control=control)
        assert (answer["outcome"], answer["status"]) == ("paused", "paused")
        assert "until_ms" not in answer
        assert record(engine).version > version
        assert "until_ms" not in events(engine, "paused")[-1]
        # There is nothing left to lift.
        assert (await ask(engine, "pause", control=control))["outcome"] == "unchanged"
        if restart:
            await engine.stop()
            engine.stores.destroy(0)
            engine.start()
        await asyncio.sleep(60)
        assert record(engine).status == "paused"
        assert engine.read("orders") == []

    in_virtual_time(test)


@pytest.mark.parametrize(
    ("control", "at_once", "fired"),
    [
        ({}, 1, 1),
        ({"catch_up": "all"}, 6, 6),
        ({"catch_up": "all", "grace": "25s"}, 2, 2),
        ({"catch_up": "none", "grace": "1s"}, 0, 0),
        ({"grace": "0"}, 0, 0),
    ],
    ids=str,
)
def test_a_resume_says_what_becomes_of_what_passed_and_how_much_fires_at_once(
    control: dict[str, str], at_once: int, fired: int
) -> None:
    async def test(engine: Engine) -> None:
        await every(engine)
        await ask(engine, "pause")
        await asyncio.sleep(65)
        assert (await ask(engine, "resume", control=control))["fires_at_once"] == at_once
        await asyncio.sleep(2)
        assert len(engine.read("orders")) == fired
        await ask(engine, "pause")
        await asyncio.sleep(60)
        # That was for once.
        assert (await ask(engine, "resume"))["fires_at_once"] == 1

    in_virtual_time(test)


@pytest.mark.parametrize(
    ("control", "topic"),
    [
        ({}, "orders"),
        ({"on_late": "drop", "grace": "1s"}, None),
        ({"on_late": "late", "grace": "1s"}, "late"),
    ],
    ids=str,
)
def test_a_resume_says_what_becomes_of_one_time_fires_that_are_late(
    control: dict[str, str], topic: str | None
) -> None:
    async def test(engine: Engine) -> None:
        await ask(engine, "schedule", b"v", destination="orders", delay="5s,100s")
        await ask(engine, "pause")
        await asyncio.sleep(30)
        await ask(engine, "resume", control=control)
        await asyncio.sleep(1)
        found = {name: len(engine.read(name)) for name in ("orders", "late")}
        assert found == {name: int(name == topic) for name in found}
        await asyncio.sleep(100)
        # What was not late then goes by the schedule's own word.
        assert len(engine.read("orders")) == (topic == "orders") + 1

    in_virtual_time(test)


# -- describe -------------------------------------------------------------------------------------------


def test_a_description_tells_what_a_schedule_is_at_its_turn() -> None:
    async def test(engine: Engine) -> None:
        began_ms = engine.clock.now_ms()
        await every(engine, max_fires="4", tags="a", declared_by="shop", deploy="3", note="n", actor="ada")
        await asyncio.sleep(15)
        until_ms = engine.clock.now_ms() + 60_000
        engine.request(None, id=ID, action="pause", until=str(until_ms))
        answer = await ask(engine, "describe")
        told = answer["schedule"]
        assert (answer["outcome"], answer["status"], answer["version"]) == (
            "described",
            "paused",
            record(engine).version,
        )
        assert told["definition"]["every_ms"] == 10_000
        assert told["definition"]["tags"] == ["a"]
        assert told["upcoming_at_ms"] == [began_ms + n * 10_000 for n in (2, 3, 4)]
        assert (told["fire_count"], told["until_ms"]) == (1, until_ms)
        assert (told["declared_by"], told["deploy"], told["actor"]) == ("shop", 3, "ada")
        assert [(past["kind"], past["due_at_ms"]) for past in told["history"]] == [
            ("fired", began_ms + 10_000)
        ]
        assert told["history"][0]["fire_id"] == told["last_fire_id"]
        assert "payload" not in told
        assert "described" not in [event["type"] for event in events(engine)]
        await ask(engine, "cancel")
        assert (await ask(engine, "describe"))["status"] == "cancelled"

    in_virtual_time(test)


def test_a_description_tells_what_has_fired_from_what_was_missed_and_skipped() -> None:
    """Each entry says what became of its times; a run has its bounds and their number, and no fire id."""

    async def test(engine: Engine) -> None:
        began_ms = engine.clock.now_ms()
        await every(engine, catch_up="none", grace="0")
        await ask(engine, "pause")
        await asyncio.sleep(30)
        await ask(engine, "resume")
        await asyncio.sleep(10)
        await ask(engine, "update", catch_up="latest", grace="1h")
        await ask(engine, "pause")
        await asyncio.sleep(60)
        await ask(engine, "resume")
        await ask(engine, "trigger")
        await asyncio.sleep(1)
        history = (await ask(engine, "describe"))["schedule"]["history"]
        assert [past["kind"] for past in history] == ["missed", "fired", "skipped", "fired", "triggered"]
        fired = [past for past in history if "fire_id" in past]
        assert [past["kind"] for past in fired] == ["fired", "fired", "triggered"]
        assert [(past["fire_id"], past["due_at_ms"], past["fired_at_ms"]) for past in fired] == [
            (event["fire_id"], event["due_at_ms"], event["fired_at_ms"]) for event in events(engine, "fired")
        ]
        runs = [past for past in history if past not in fired]
        for run, last, count in zip(runs, (30_000, 90_000), (3, 5), strict=True):
            assert run.keys() == {"kind", "from_ms", "to_ms", "count", "decided_at_ms"}
            assert run["to_ms"] == began_ms + last
            assert run["from_ms"] == run["to_ms"] - (count - 1) * 10_000
            assert run["count"] == count

    in_virtual_time(test)


def test_nothing_is_told_of_what_is_unknown() -> None:
    async def test(engine: Engine) -> None:
        assert (await ask(engine, "describe"))["outcome"] == "unknown"
        assert events(engine) == []

    in_virtual_time(test)


@pytest.mark.parametrize("size", [3, 5_000])
def test_a_payload_is_told_where_the_tenant_may(size: int) -> None:
    async def test(engine: Engine) -> None:
        parser = RequestParser(DestinationFilter(["*"], [REQUESTS], RECEIPTS), Limits(), None)
        await engine.stop()
        engine.start(tenants=Tenants(Tenant(parser, describes_payload=True)))
        value = bytes(size)
        await ask(engine, "schedule", value, destination="orders", delay="1h", destination_key="k")
        payload = (await ask(engine, "describe"))["schedule"]["payload"]
        assert b64decode(payload["value_base64"]) == value
        assert b64decode(payload["key_base64"]) == b"k"

    in_virtual_time(test)
