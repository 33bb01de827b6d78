"""Receipts are never in the way: where none may or can be written, the request is carried out without."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
import pytest

from delaystream.core.partitioning import owner_partition
from delaystream.engine.policy.tenants import Tenants
from tests.unit.engine import RECEIPTS, REQUESTS, Engine, header
from tests.unit.tenants import OTHER, other_request, tenant, tenants, with_tenants

DENIED = ["billing", OTHER, REQUESTS, "delay-commands", "delay-wheel-changelog", "__consumer_offsets"]


def narrow() -> Tenants:
    """`other-requests` may write to `orders` and to `gone`, which does not exist."""
    return tenants(tenant("orders", "gone", "tiny"))


def others(engine: Engine) -> None:
    """Topics that are there, and that the workers could write to."""
    for topic in ("billing", "__consumer_offsets"):
        engine.log.create_topic(topic, 1)


def events(engine: Engine, **wanted: Any) -> list[dict[str, Any]]:
    """All events in which these fields have these values."""
    found = [msgspec.json.decode(record.value or b"") for record in engine.read("delay-events")]
    return [event for event in found if wanted.items() <= event.items()]


def receipts(engine: Engine, topic: str = RECEIPTS) -> list[str]:
    return [header(record, "receipt") for record in engine.read(topic)]


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "no receipt" in record.getMessage()]


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("reply_to", [*DENIED, "gone"])
def test_what_is_cancelled_is_not_delivered_wherever_its_receipt_should_go(
    reply_to: str, partitions: int
) -> None:
    """Denied or missing: the cancel counts, its event says why there is no receipt, nothing is written."""

    async def test(engine: Engine) -> None:
        others(engine)
        other_request(engine, destination="orders", delay="15s", id="invoice-7")
        await asyncio.sleep(1)
        before = {topic: len(engine.read(topic)) for topic in (REQUESTS, OTHER)}
        other_request(engine, action="cancel", id="invoice-7", reply_to=reply_to)
        await asyncio.sleep(60)
        assert not engine.read("orders")
        assert not engine.read("delay-dead-letters")
        [cancelled] = events(engine, type="cancelled")
        assert reply_to in cancelled["no_receipt"]
        assert {topic: len(engine.read(topic)) for topic in before} == {
            **before, OTHER: before[OTHER] + 1
        }  # fmt: skip
        assert not [
            record
            for topic in {*DENIED, "delay-wheel-changelog"}
            for record in engine.read(topic)
            if any(name == "delaystream-receipt" for name, _ in record.headers)
        ]

    with_tenants(test, narrow(), partitions)


@pytest.mark.parametrize(
    ("action", "more", "told"),
    [
        ("pause", {}, "paused"),
        ("resume", {}, "unchanged"),
        ("trigger", {}, "triggered"),
        ("reschedule", {"delay": "2h"}, "rescheduled"),
        ("schedule", {"destination": "orders", "delay": "3h"}, "replaced"),
    ],
)
def test_every_other_command_counts_as_well(action: str, more: dict[str, str], told: str) -> None:
    """One event with its outcome, which says that there is no receipt."""

    async def test(engine: Engine) -> None:
        others(engine)
        other_request(engine, destination="orders", delay="1h", id="x")
        await asyncio.sleep(1)
        other_request(engine, action=action, id="x", reply_to="billing", control=more)
        await asyncio.sleep(1)
        [event] = events(engine, type=told)
        assert event["no_receipt"] == "'billing' is not in the allow-list"
        assert not engine.read("delay-dead-letters")

    with_tenants(test, narrow())


def test_the_projects_own_topic_takes_receipts_whatever_the_allow_list_says() -> None:
    """Of every outcome; and no event says that there is none."""

    async def test(engine: Engine) -> None:
        others(engine)
        other_request(engine, destination="orders", delay="1h", id="x", reply_to=RECEIPTS)
        other_request(engine, action="cancel", id="x", reply_to=RECEIPTS)
        other_request(engine, destination="billing", delay="0", reply_to=RECEIPTS)
        other_request(engine, action="cancel", match_destination="*", reply_to=RECEIPTS)
        await asyncio.sleep(5)
        assert receipts(engine) == ["scheduled", "cancelled", "rejected", "no-match"]
        assert all("no_receipt" not in event for event in events(engine))

    with_tenants(test, narrow())


@pytest.mark.parametrize("allow", ["*", RECEIPTS])
@pytest.mark.parametrize("named", ["destination", "on_late"])
def test_nothing_but_receipts_is_written_to_it(named: str, allow: str) -> None:
    """Else any requester could write there what looks like another's receipt."""

    async def test(engine: Engine) -> None:
        others(engine)
        asked = {"destination": "orders", "delay": "0", "grace": "0", named: RECEIPTS}
        other_request(engine, control=asked)
        await asyncio.sleep(1)
        [letter] = engine.read("delay-dead-letters")
        assert header(letter, "error") == "destination-denied"
        assert not engine.read(RECEIPTS)

    with_tenants(test, tenants(tenant("orders", allow)))


@pytest.mark.parametrize(
    ("control", "code"),
    [
        ({"destination": "orders", "delay": "sometime"}, "invalid-delay"),
        ({"destination": "orders", "delay": "1h", "if_exists": "reject"}, "already-exists"),
    ],
)
def test_a_refusal_tells_it_too(control: dict[str, str], code: str) -> None:
    """Whether the request is refused for what it says, or for what it finds."""

    async def test(engine: Engine) -> None:
        others(engine)
        other_request(engine, destination="orders", delay="1h", id="x")
        other_request(engine, id="x", reply_to="billing", control=control)
        await asyncio.sleep(1)
        [event] = events(engine, type="rejected")
        assert event["code"] == code
        assert event["no_receipt"] == "'billing' is not in the allow-list"
        assert not engine.read("billing")

    with_tenants(test, narrow())


@pytest.mark.parametrize("reply_to", ["billing", "gone"])
def test_a_command_for_many_tells_it_in_its_one_event(reply_to: str) -> None:
    """It is carried out on every partition all the same."""

    async def test(engine: Engine) -> None:
        others(engine)
        ids = ["a", "b", "c", "d", "e", "f", "g"]
        assert {owner_partition(id, 3) for id in ids} == {0, 1, 2}
        for id in ids:
            other_request(engine, destination="orders", delay="10s", id=id)
        await asyncio.sleep(1)
        other_request(engine, action="cancel", match_destination="orders", reply_to=reply_to)
        await asyncio.sleep(60)
        assert not engine.read("orders")
        [event] = events(engine, type="bulk")
        assert (event["count"], reply_to in event["no_receipt"]) == (7, True)

    with_tenants(test, narrow(), 3)


def test_a_topic_that_refuses_a_receipt_is_told_of() -> None:
    """What the brokers said of the first attempt; the second one does without."""

    async def test(engine: Engine) -> None:
        others(engine)
        engine.log.create_topic("tiny", 1, max_message_bytes=10)
        other_request(engine, destination="orders", delay="1h", id="x", reply_to="tiny")
        await asyncio.sleep(10)
        [event] = events(engine, type="scheduled")
        assert event["no_receipt"] == "'tiny': it refused a receipt"
        assert not engine.read("tiny")

    with_tenants(test, narrow())


def test_a_receipt_larger_than_a_worker_may_write_is_told_of_and_its_topic_goes_on() -> None:
    """Long lists with long ids make those; a producer that refused it would mute the topic for all."""

    async def test(engine: Engine) -> None:
        others(engine)
        delays = ",".join(["1h"] * 50)
        other_request(engine, destination="orders", delay=delays, id="i" * 200, reply_to="orders")
        other_request(engine, destination="orders", delay="1h", id="x", reply_to="orders")
        await asyncio.sleep(10)
        refused, answered = events(engine, type="scheduled")
        assert refused["no_receipt"].startswith("'orders': the receipt would have ")
        assert "no_receipt" not in answered
        [receipt] = engine.read("orders")
        assert receipt.key == b"x"

    with_tenants(test, narrow(), own_record_max_bytes=10_000)


@pytest.mark.parametrize("anonymous", [True, False])
def test_a_request_without_an_id_is_delivered_and_told_of(
    anonymous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """In its event where there is one, in the log always."""

    async def test(engine: Engine) -> None:
        others(engine)
        other_request(engine, destination="orders", delay="1s", reply_to="billing")
        await asyncio.sleep(5)
        assert len(engine.read("orders")) == 1
        told = [event["no_receipt"] for event in events(engine) if "no_receipt" in event]
        assert told == (["'billing' is not in the allow-list"] if anonymous else [])

    with_tenants(test, narrow(), events_anonymous=anonymous)
    [line] = lines(caplog)
    assert "1 requests got no receipt" in line
    assert "'billing' is not in the allow-list" in line


def test_requesters_cannot_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Once a minute, with the number of them, whatever names they ask for."""
    caplog.set_level(logging.WARNING)

    async def test(engine: Engine) -> None:
        others(engine)
        for number in range(100):
            other_request(engine, destination="orders", delay="1h", reply_to=f"made-up-{number}")
            await asyncio.sleep(0.5)
        assert len(lines(caplog)) == 1
        await asyncio.sleep(30)
        other_request(engine, destination="orders", delay="1h", reply_to="made-up")
        await asyncio.sleep(1)

    with_tenants(test, narrow())
    first, second = lines(caplog)
    assert "partition 0: 1 requests" in first
    assert "partition 0: 100 requests" in second
