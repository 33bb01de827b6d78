"""Tenants: whose policy holds for what, on arrival, over the commands topic and when it fires."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec.structs import replace

from delaystream.codec.envelope import decode_entry, decode_schedule
from delaystream.codec.keys import schedule_key
from delaystream.codec.requests.headers import RequestParser
from delaystream.core.destinations import DestinationFilter
from delaystream.core.limits import Limits
from delaystream.core.partitioning import owner_partition
from delaystream.dialects import by_name
from delaystream.engine.policy.tenants import Tenant, Tenants
from delaystream.engine.ports import TopicPartition
from tests.unit.engine import OWN, RECEIPTS, REQUESTS, Engine, header
from tests.unit.tenants import (
    BY_REQUESTS,
    OTHER,
    errors,
    other_request,
    start,
    tenant,
    tenants,
    with_tenants,
)
from tests.unit.test_commands import receipts
from tests.unit.test_recurring import events


def elsewhere(topic: str, partitions: int) -> str:
    """An id that partition 0 does not own."""
    return next(id for id in map(str, range(100)) if owner_partition(id, partitions) != 0)


@pytest.mark.parametrize("named", ["destination", "on_late"])
def test_each_topic_has_its_own_destinations(named: str) -> None:
    """Also for late fires: what one may, the other may not."""

    async def test(engine: Engine) -> None:
        asked = {"destination": "orders", "delay": "1s", named: "emails"}
        engine.request(control=asked)
        other_request(engine, control=asked)
        await asyncio.sleep(3)
        assert errors(engine) == ["destination-denied"]
        assert header(engine.read("delay-dead-letters")[0], "error-topic") == OTHER

    with_tenants(test, tenants(tenant("orders")))


def test_each_topic_has_its_own_topics_for_receipts() -> None:
    """What one may, the other may not; and is carried out without."""

    async def test(engine: Engine) -> None:
        asked = {"destination": "orders", "delay": "1s", "reply_to": "emails"}
        engine.request(control=asked)
        other_request(engine, control=asked)
        await asyncio.sleep(3)
        assert len(engine.read("orders")) == 2
        [receipt] = engine.read("emails")
        assert json.loads(receipt.value or b"")["request_topic"] == REQUESTS

    with_tenants(test, tenants(tenant("orders")))


def test_a_command_that_is_handed_on_is_answered_by_the_policy_of_its_own_topic() -> None:
    """The partition that first saw it was of another opinion: a worker with settings from before."""
    id = elsewhere(OTHER, 2)

    async def test(engine: Engine) -> None:
        processor = engine.processors[1]
        processor._lasting = replace(processor._lasting, tenants=tenants(tenant("orders")))
        other_request(engine, id=id, destination="orders", delay="1s", reply_to="emails")
        await asyncio.sleep(3)
        assert len(engine.read("orders")) == 1
        assert not engine.read("emails")

    with_tenants(test, tenants(), partitions=2)


@pytest.mark.parametrize("named", ["destination", "on_late"])
def test_a_request_that_is_handed_on_keeps_the_policy_of_its_own_topic(named: str) -> None:
    """The worker that reads a command may write anywhere; the request may not.

    The partition that first saw it was of another opinion: a worker with settings from before.
    """
    id = elsewhere(OTHER, 2)

    async def test(engine: Engine) -> None:
        processor = engine.processors[1]
        processor._lasting = replace(processor._lasting, tenants=tenants(tenant("orders")))
        other_request(engine, id=id, control={"destination": "orders", "delay": "1s", named: "emails"})
        await asyncio.sleep(3)
        assert errors(engine) == ["destination-denied"]
        assert header(engine.read("delay-dead-letters")[0], "error-topic") == OTHER
        assert not engine.read("orders")

    with_tenants(test, tenants(), partitions=2)


def test_what_a_tenant_may_no_longer_do_is_refused_when_it_fires() -> None:
    """Its own entries, named and anonymous, and nobody else's in the same wheel."""

    async def test(engine: Engine) -> None:
        for number in range(3):
            engine.request(b"ours", destination="orders", delay=f"{10 + number}s")
            other_request(engine, destination="orders", delay=f"{10 + number}s")
        other_request(engine, destination="orders", delay="10s", id="n")
        await asyncio.sleep(1)
        await engine.stop()
        start(engine, tenants(tenant("emails")))
        await asyncio.sleep(20)
        assert [record.value for record in engine.read("orders")] == [b"ours"] * 3
        assert errors(engine) == ["quarantined"] * 4
        details = {header(letter, "error-detail") for letter in engine.read("delay-dead-letters")}
        assert details == {"orders is no longer among the allowed destinations"}

    with_tenants(test, tenants(tenant("*")))


def test_a_late_fire_is_moved_only_where_its_tenant_may_still_go() -> None:
    """The topic for late ones is looked at again too."""

    async def test(engine: Engine) -> None:
        late = {"destination": "orders", "delay": "5s", "on_late": "late", "grace": "1s"}
        engine.request(control=late)
        other_request(engine, control=late)
        await asyncio.sleep(1)
        await engine.stop()
        await asyncio.sleep(60)
        start(engine, tenants(tenant("orders")))
        await asyncio.sleep(5)
        assert [header(record, "source") for record in engine.read("late")] == [f"{REQUESTS}/0/0"]
        assert errors(engine) == ["quarantined"]

    with_tenants(test, tenants(tenant("*")))


def test_caps_and_default_destination_are_the_topics_own() -> None:
    async def test(engine: Engine) -> None:
        engine.request(delay="0")
        engine.request(destination="orders", delay="2h")
        other_request(engine, delay="0")
        other_request(engine, destination="orders", delay="2h")
        await asyncio.sleep(1)
        assert errors(engine) == ["missing-destination", "delay-too-long"]
        assert len(engine.read("emails")) == 1

    with_tenants(test, tenants(tenant("*", limits=Limits(max_delay_ms=3_600_000), default="emails")))


def test_a_request_topic_that_is_no_tenant_any_more_has_the_shared_policy() -> None:
    made = tenants(tenant("orders"))
    assert made.of("former") is made.of(REQUESTS)
    assert not made.denial("emails").of("former")
    assert made.denial("emails").of(OTHER)
    assert (made.denial("emails").anyone, made.denial("emails").everyone) == (True, False)
    assert made.denial("__internal").everyone


# -- dialects ------------------------------------------------------------------------------------


def etf1(engine: Engine, topic: str, at_s: int) -> None:
    headers = [
        ("scheduler-epoch", b"%d" % at_s),
        ("scheduler-target-topic", b"orders"),
        ("scheduler-target-key", b"target"),
    ]
    engine.log.append(TopicPartition(topic, 0), (b"some-id", b"value", headers, engine.clock.now_ms()))


@pytest.mark.parametrize("partitions", [1, 7])
def test_a_topic_reads_the_dialects_that_it_is_set_to_and_no_other_does(partitions: int) -> None:
    """Also on the partition that owns the id; a dead letter holds the record as it was produced."""

    async def test(engine: Engine) -> None:
        at_s = engine.clock.now_ms() // 1000 + 5
        etf1(engine, OTHER, at_s)
        etf1(engine, REQUESTS, at_s)
        other_request(engine, destination="orders", delay="1s")
        await asyncio.sleep(10)
        assert [record.key for record in engine.read("orders")] == [b"key", b"target"]
        (letter,) = engine.read("delay-dead-letters")
        assert header(letter, "error-topic") == REQUESTS
        assert ("scheduler-target-topic", b"orders") in list(letter.headers)

    with_tenants(test, tenants(tenant("*", dialects=[by_name("etf1")])), partitions)


def test_whoever_asks_in_a_dialect_hears_that_it_was_refused() -> None:
    """Receipts are asked for by our own header, in any dialect."""

    async def test(engine: Engine) -> None:
        headers = [("scheduler-epoch", b"soon"), ("scheduler-target-topic", b"orders")]
        headers += [("scheduler-target-key", b"k"), ("delaystream-reply-to", b"replies")]
        engine.log.append(TopicPartition(OTHER, 0), (b"id", b"", headers, engine.clock.now_ms()))
        await asyncio.sleep(1)
        assert errors(engine) == ["dialect-invalid"]
        (receipt,) = engine.read("replies")
        assert b"dialect-invalid" in (receipt.value or b"")

    with_tenants(test, tenants(tenant("*", dialects=[by_name("etf1")])))


def test_a_refused_request_in_a_dialect_is_buried_as_it_was_produced() -> None:
    """Refused by the policy, on the partition that owns its id."""

    async def test(engine: Engine) -> None:
        etf1(engine, OTHER, engine.clock.now_ms() // 1000 + 5)
        await asyncio.sleep(10)
        (letter,) = engine.read("delay-dead-letters")
        assert header(letter, "error") == "quota-exceeded"
        assert letter.key == b"some-id"
        assert [name for name, _ in letter.headers if name.startswith("scheduler-")] == [
            "scheduler-epoch",
            "scheduler-target-topic",
            "scheduler-target-key",
        ]
        assert not [name for name, _ in letter.headers if name in ("delaystream-at", "delaystream-id")]

    full = tenant("*", max_pending=1, dialects=[by_name("etf1")])
    with_tenants(test, tenants(full), partitions=7)


# -- defaults ------------------------------------------------------------------------------------


def defaults(**policy: Any) -> Tenants:
    """Those of `other-requests`."""
    parser = RequestParser(DestinationFilter(["*"], [*BY_REQUESTS, *OWN], RECEIPTS), Limits(), None, **policy)
    return tenants(Tenant(parser))


@pytest.mark.parametrize("partitions", [1, 2])
def test_a_tenants_cron_expressions_are_in_its_time_zone(partitions: int) -> None:
    """On the partition that owns the id, and where it is handed on; not where the request says another."""

    async def test(engine: Engine) -> None:
        for number, control in enumerate(({}, {}, {"timezone": "UTC"})):
            other_request(
                engine, 0, destination="orders", id=f"id-{number}", cron="0 9 * * *", control=control
            )
        engine.request(destination="orders", id="mine", cron="0 9 * * *")
        other_request(engine, 0, destination="orders", id="again", every="1h")
        other_request(engine, 0, action="reschedule", id="again", cron="0 9 * * *")
        await asyncio.sleep(1)
        zones = {
            event["id"]: event["definition"].get("timezone")
            for event in events(engine)
            if "definition" in event
        }
        tokyo = "Asia/Tokyo"
        assert zones == {"id-0": tokyo, "id-1": tokyo, "id-2": "UTC", "mine": "UTC", "again": tokyo}

    with_tenants(test, defaults(default_timezone="Asia/Tokyo"), partitions)


@pytest.mark.parametrize("partitions", [1, 2])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_a_tenants_local_times_are_in_its_time_zone(zone: str | None, partitions: int) -> None:
    """On the partition that owns the id, and where it is handed on; not where the request says another."""

    async def test(engine: Engine) -> None:
        engine.log.create_topic("late", 1)
        at = "2023-11-20T09:00"
        for number, control in enumerate(({}, {"id": "a"}, {"id": "b"}, {"timezone": "America/New_York"})):
            other_request(
                engine, 0, destination="orders", name=f"{number}", at=at, reply_to="replies", control=control
            )
        other_request(
            engine, 0, destination="orders", at=f"2023-11-20T10:00:00Z,{at},1700500000000", reply_to="replies"
        )
        other_request(engine, 0, destination="orders", at="2023-11-20T10:00:00Z", reply_to="replies")
        other_request(engine, 0, destination="orders", at=at, dst_gap="skip", reply_to="replies")
        for action, payload in (("reschedule", {}), ("update", {"payload": "keep"})):
            other_request(engine, 0, destination="orders", delay="1h", id=action, reply_to="replies")
            other_request(engine, 0, action=action, id=action, at=at, reply_to="replies", control=payload)
        engine.request(destination="orders", at=at, reply_to="replies")
        await asyncio.sleep(2)
        told: dict[str, Any] = {}
        for receipt in receipts(engine):
            due_ms = [fire["due_at_ms"] for fire in receipt.get("fires", ())]
            told[receipt["source"]] = receipt.get("code") or due_ms
        nine_ms = 1_700_470_800_000
        here_ms = nine_ms - (9 * 3_600_000 if zone == "Asia/Tokyo" else 0)
        local: Any = [here_ms] if zone else "invalid-at"
        offset_ms = nine_ms + 3_600_000
        assert [told[f"other-requests/0/{offset}"] for offset in range(7)] == [
            local, local, local, [nine_ms + 5 * 3_600_000],
            [offset_ms, here_ms, 1_700_500_000_000] if zone else "invalid-at",
            [offset_ms],
            local if zone else "not-applicable",
        ]  # fmt: skip
        assert told["other-requests/0/8"] == told["other-requests/0/10"] == local
        assert told["delay-requests/0/0"] == "invalid-at"

    with_tenants(test, defaults(default_timezone=zone), partitions)


def stored(engine: Engine, id: str) -> Any:
    """A schedule of `other-requests`, and what it delivers."""
    for store in engine.stores.disks.values():
        if (value := store.values.get(schedule_key(OTHER, id))) is not None:
            schedule = decode_schedule(value)
            assert schedule.payload is not None
            return schedule, decode_entry(schedule.payload)
    raise AssertionError(id)


PARIS = {"cron": "0 9 * * *", "timezone": "Europe/Paris", "grace": "2h"}
HOUR_MS = 3_600_000


@pytest.mark.parametrize("partitions", [1, 2])
@pytest.mark.parametrize(
    ("first", "change", "zone", "grace_ms"),
    [
        (PARIS, {"cron": "0 11 * * *"}, "Europe/Paris", 2 * HOUR_MS),
        (PARIS, {"end": "1800000000000"}, "Europe/Paris", 2 * HOUR_MS),
        (PARIS, {"timezone": "none"}, "Asia/Tokyo", 2 * HOUR_MS),
        (PARIS, {"every": "1h"}, "UTC", 2 * HOUR_MS),
        ({"every": "1h"}, {"cron": "0 11 * * *"}, "Asia/Tokyo", HOUR_MS),
        ({"delay": "1h"}, {"cron": "0 11 * * *"}, "Asia/Tokyo", HOUR_MS),
        ({"delay": "1h"}, {"every": "1h"}, "UTC", HOUR_MS),
        ({"delay": "1h", "on_late": "drop", "grace": "5m"}, {"every": "1h"}, "UTC", 300_000),
    ],
    ids=str,
)
@pytest.mark.parametrize("action", ["reschedule", "update"])
def test_a_change_keeps_zone_and_grace_and_the_defaults_are_of_what_has_none(
    action: str, first: dict[str, str], change: dict[str, str], zone: str, grace_ms: int, partitions: int
) -> None:
    """On the partition that owns the id, and where it is handed on."""

    async def test(engine: Engine) -> None:
        keeps = {"payload": "keep"} if action == "update" else {}
        for id in ("a", "b"):
            other_request(engine, 0, destination="orders", id=id, control=first)
            other_request(engine, 0, action=action, id=id, control={**change, **keeps})
        await asyncio.sleep(1)
        for id in ("a", "b"):
            schedule, _ = stored(engine, id)
            assert (schedule.recurrence.timezone, schedule.grace_ms) == (zone, grace_ms)

    with_tenants(test, defaults(default_timezone="Asia/Tokyo", default_grace_ms=HOUR_MS), partitions)


def test_what_is_cleared_has_the_tenants_default_again() -> None:
    async def test(engine: Engine) -> None:
        other_request(engine, destination="orders", id="a", control=PARIS)
        other_request(engine, action="update", id="a", payload="keep", timezone="none", grace="none")
        once = {"delay": "3h", "on_late": "drop", "grace": "2h"}
        other_request(engine, destination="orders", id="b", control=once)
        other_request(engine, action="update", id="b", payload="keep", grace="none")
        other_request(engine, destination="orders", id="c", control=once)
        other_request(engine, action="update", id="c", payload="keep", grace="none", on_late="none")
        await asyncio.sleep(1)
        definition = events(engine, "updated")[0]["definition"]
        assert (definition["timezone"], definition["grace_ms"]) == ("Asia/Tokyo", HOUR_MS)
        assert [stored(engine, id)[1].grace_ms for id in "abc"] == [HOUR_MS, HOUR_MS, -1]

    with_tenants(test, defaults(default_timezone="Asia/Tokyo", default_grace_ms=HOUR_MS))


@pytest.mark.parametrize(("default_ms", "delivered"), [(30_000, 1), (None, 2)])
@pytest.mark.parametrize("how", ["update", "resume", "bulk resume"])
def test_what_is_to_be_dropped_from_now_on_has_the_tenants_grace(
    how: str, default_ms: int | None, delivered: int
) -> None:
    """Where nobody has said how late is too late: by an update, or for the once of a resume."""

    async def test(engine: Engine) -> None:
        for id in ("a", "b"):
            grace = {"grace": "1h"} if id == "b" else {}
            other_request(engine, destination="orders", id=id, delay="10s", control=grace)
            other_request(engine, action="pause", id=id)
        await asyncio.sleep(60)
        if how == "bulk resume":
            other_request(engine, action="resume", match_destination="orders", on_late="drop")
        for id in ("a", "b"):
            if how == "update":
                other_request(engine, action="update", id=id, payload="keep", on_late="drop")
            if how != "bulk resume":
                once = {"on_late": "drop"} if how == "resume" else {}
                other_request(engine, action="resume", id=id, control=once)
        await asyncio.sleep(5)
        assert len(engine.read("orders")) == delivered
        assert {event["id"] for event in events(engine, "expired")} == ({"a"} if delivered == 1 else set())

    with_tenants(test, defaults(default_grace_ms=default_ms))


def test_fires_without_an_id_that_a_resume_drops_have_the_tenants_grace() -> None:
    async def test(engine: Engine) -> None:
        other_request(engine, destination="orders", delay="10s")
        other_request(engine, destination="orders", delay="10s", grace="1h")
        other_request(engine, action="pause", match_destination="orders")
        await asyncio.sleep(60)
        other_request(engine, action="resume", match_destination="orders", on_late="drop")
        await asyncio.sleep(5)
        assert len(engine.read("orders")) == 1
        assert len(events(engine, "expired")) == 1

    with_tenants(test, defaults(default_grace_ms=30_000))


def test_a_tenants_grace_holds_where_a_request_names_none() -> None:
    """Where it recurs, or says what to do when it is late."""

    async def test(engine: Engine) -> None:
        past = str(engine.clock.now_ms() - 60_000)
        other_request(engine, destination="orders", at=past)
        other_request(engine, destination="orders", at=past, on_late="drop")
        other_request(engine, destination="orders", at=past, on_late="drop", grace="2h")
        engine.request(destination="orders", at=past, on_late="drop")
        other_request(engine, destination="orders", id="a", every="1h")
        await asyncio.sleep(1)
        assert len(engine.read("orders")) == 3
        assert [event["type"] for event in events(engine)] == ["scheduled", "expired"]
        assert events(engine, "scheduled")[0]["definition"]["grace_ms"] == 30_000

    with_tenants(test, defaults(default_grace_ms=30_000))
