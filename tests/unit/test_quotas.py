"""Quotas: how much a tenant may have pending, whatever it does."""

from __future__ import annotations

import asyncio

from delaystream.engine.schedules.quotas import share
from tests.simulation.reckoning import miscounts
from tests.unit.engine import Engine, header
from tests.unit.tenants import OTHER, errors, other_request, start, tenant, tenants, with_tenants


def test_shares_add_up_to_the_whole() -> None:
    for most in range(3, 50):
        assert sum(share(most, partition, 3) for partition in range(3)) == most


def test_a_quota_bounds_what_one_tenant_has_pending() -> None:
    """What is over it is refused by its code; another tenant has nothing to do with it."""

    async def test(engine: Engine) -> None:
        for _ in range(5):
            other_request(engine, destination="orders", delay="1h", reply_to="replies")
            engine.request(destination="orders", delay="1h")
        await asyncio.sleep(1)
        assert errors(engine) == ["quota-exceeded"] * 2
        assert header(engine.read("delay-dead-letters")[0], "error-detail") == (
            "other-requests has 3 fires pending on partition 0, and the request would add 1; "
            "expected at most 3, the partition's share of max_pending = 3"
        )
        assert sum(b"quota-exceeded" in (r.value or b"") for r in engine.read("replies")) == 2
        await asyncio.sleep(3600)
        other_request(engine, destination="orders", delay="1h")
        await asyncio.sleep(1)
        assert len(errors(engine)) == 2, "what has fired makes room"

    with_tenants(test, tenants(tenant("*", max_pending=3)))


def test_what_goes_out_at_once_needs_no_room() -> None:
    """A list needs room for what it leaves pending, and is taken whole or not at all."""

    async def test(engine: Engine) -> None:
        other_request(engine, destination="orders", delay="1h,2h")
        other_request(engine, destination="orders", delay="0,0,0")
        other_request(engine, destination="orders", delay="0,3h")
        other_request(engine, destination="orders", delay="0,0,4h,5h")
        await asyncio.sleep(1)
        assert errors(engine) == ["quota-exceeded"]
        assert len(engine.read("orders")) == 4

    with_tenants(test, tenants(tenant("*", max_pending=3)))


def test_under_an_exhausted_quota_ids_can_be_replaced_and_cancelled() -> None:
    """Also when it was lowered below what is pending; a replacement that takes more is refused."""

    async def test(engine: Engine) -> None:
        for number in range(4):
            other_request(engine, destination="orders", delay="1h", id=str(number), reply_to="replies")
        await asyncio.sleep(1)
        await engine.stop()
        start(engine, tenants(tenant("*", max_pending=2)))
        await asyncio.sleep(1)
        other_request(engine, destination="orders", delay="2h", id="0")
        await asyncio.sleep(1)
        assert errors(engine) == []
        other_request(engine, destination="orders", delay="2h,3h", id="0")
        await asyncio.sleep(1)
        assert errors(engine) == ["quota-exceeded"]
        for number in (1, 2, 3):
            other_request(engine, action="cancel", id=str(number))
        other_request(engine, destination="orders", delay="3h", id="new")
        await asyncio.sleep(1)
        assert errors(engine) == ["quota-exceeded"], "cancelling has made room"
        other_request(engine, destination="orders", delay="3h", id="one more")
        await asyncio.sleep(1)
        assert errors(engine) == ["quota-exceeded"] * 2
        await asyncio.sleep(2 * 3600)
        assert [header(record, "schedule-id") for record in engine.read("orders")] == ["0"]

    with_tenants(test, tenants(tenant("*", max_pending=4)))


def test_a_pause_makes_no_room() -> None:
    """Else a tenant could have any number of schedules, all of them paused."""

    async def test(engine: Engine) -> None:
        other_request(engine, destination="orders", delay="1h,2h", id="a")
        other_request(engine, destination="orders", cron="0 * * * *", id="b")
        for id in ("a", "b"):
            other_request(engine, action="pause", id=id)
        other_request(engine, destination="orders", delay="1h", id="c")
        await asyncio.sleep(1)
        assert errors(engine) == ["quota-exceeded"]
        for id in ("a", "b"):
            other_request(engine, action="resume", id=id)
        other_request(engine, destination="orders", delay="1h", id="d")
        await asyncio.sleep(1)
        assert errors(engine) == ["quota-exceeded"] * 2, "and to resume needs none"
        other_request(engine, action="pause", id="a")
        other_request(engine, destination="orders", delay="5m,10m", id="a")
        other_request(engine, action="pause", id="b")
        other_request(engine, action="cancel", id="b")
        other_request(engine, destination="orders", delay="1h", id="e")
        await asyncio.sleep(1)
        assert errors(engine) == ["quota-exceeded"] * 2, "what is paused can be replaced and cancelled"
        other_request(engine, destination="orders", delay="1h", id="f")
        await asyncio.sleep(1)
        assert errors(engine) == ["quota-exceeded"] * 3
        other_request(engine, action="pause", id="a")
        other_request(engine, action="reschedule", delay="20m", id="a")
        other_request(engine, destination="orders", delay="1h", id="g")
        await asyncio.sleep(1)
        assert errors(engine) == ["quota-exceeded"] * 3, "one of two is left of it"
        assert list(miscounts(engine.stores.disks[0])) == []

    with_tenants(test, tenants(tenant("*", max_pending=3)))


def test_commands_cannot_be_used_to_have_more_pending() -> None:
    """A new time for each old one is welcome, more than there were are not; a trigger that goes out is."""

    async def test(engine: Engine) -> None:
        for id in ("a", "b"):
            other_request(engine, destination="orders", delay="1h", id=id)
        other_request(engine, action="reschedule", delay="2h", id="a")
        other_request(engine, action="reschedule", delay="2h,3h", id="b")
        other_request(engine, action="pause", id="b")
        other_request(engine, action="reschedule", delay="2h,3h", id="b")
        other_request(engine, action="trigger", id="a")
        await asyncio.sleep(1)
        assert errors(engine) == ["quota-exceeded"] * 2
        assert len(engine.read("orders")) == 1
        engine.log.topics["orders"].refusal = "not authorized"
        for _ in range(20):
            other_request(engine, action="trigger", id="a")
            await asyncio.sleep(1)
        assert 19 <= errors(engine).count("quota-exceeded") - 2 <= 20
        engine.log.topics["orders"].refusal = None
        await asyncio.sleep(120)
        assert list(miscounts(engine.stores.disks[0])) == []

    with_tenants(test, tenants(tenant("*", max_pending=2)))


def test_a_reschedule_makes_no_room_of_triggered_fires_that_stay() -> None:
    """They wait for their destination, and are pending beside the new times."""

    async def test(engine: Engine) -> None:
        other_request(engine, destination="not-there", delay="1h", id="a")
        await asyncio.sleep(1)
        other_request(engine, action="trigger", id="a")
        await asyncio.sleep(1)
        other_request(engine, action="reschedule", delay="2h,3h", id="a")
        await asyncio.sleep(1)
        assert errors(engine) == ["quota-exceeded"]
        other_request(engine, action="reschedule", delay="2h", id="a")
        await asyncio.sleep(1)
        assert errors(engine) == ["quota-exceeded"]

    with_tenants(test, tenants(tenant("*", max_pending=2)))


def test_a_quota_and_a_rate_together_are_kept() -> None:
    """Of a list that is due at once only as much goes out as the rate allows: the rest would be pending."""

    async def test(engine: Engine) -> None:
        other_request(engine, destination="orders", delay="0,0,0,0")
        other_request(engine, destination="orders", delay="0,0,0")
        await asyncio.sleep(0.5)
        assert errors(engine) == ["quota-exceeded"]
        await asyncio.sleep(10)
        assert len(engine.read("orders")) == 3

    with_tenants(test, tenants(tenant("*", max_pending=2), rates="orders=1"))


def test_a_quota_is_as_exact_after_a_rebuild() -> None:
    """Of what is paused too."""

    async def test(engine: Engine) -> None:
        for number in range(4):
            other_request(engine, destination="orders", delay="1h", id=str(number))
        other_request(engine, action="pause", id="0")
        await asyncio.sleep(1)
        await engine.stop()
        behind = engine.stores.disks[0].copy()
        start(engine, tenants(tenant("*", max_pending=5)))
        for id in ("1", "2"):
            other_request(engine, action="pause", id=id)
        other_request(engine, action="resume", id="0")
        await asyncio.sleep(1)
        await engine.stop()
        current = engine.stores.disks[0].copy()
        for disk in (behind, current, None):
            engine.stores.disks.clear()
            if disk is not None:
                engine.stores.disks[0] = disk
            start(engine, tenants(tenant("*", max_pending=5)))
            await asyncio.sleep(1)
            await engine.stop()
            assert engine.stores.disks[0].values[b"q" + OTHER.encode()] == (4).to_bytes(8, "big")
            assert list(miscounts(engine.stores.disks[0])) == []
        start(engine, tenants(tenant("*", max_pending=5)))
        for number in range(4, 6):
            other_request(engine, destination="orders", delay="1h", id=str(number))
        await asyncio.sleep(1)
        assert errors(engine) == ["quota-exceeded"]

    with_tenants(test, tenants(tenant("*", max_pending=5)))


def test_a_trigger_needs_no_room_where_its_destination_was_not_looked_up_yet() -> None:
    """A worker that has just started knows no topic that the request does not name."""
    made = tenants(tenant("*", max_pending=1))

    async def test(engine: Engine) -> None:
        other_request(engine, destination="orders", delay="1h", id="a")
        await asyncio.sleep(1)
        await engine.stop()
        start(engine, made)
        await asyncio.sleep(1)
        other_request(engine, action="trigger", id="a")
        await asyncio.sleep(1)
        assert errors(engine) == []
        assert len(engine.read("orders")) == 1

    with_tenants(test, made)


def test_cancels_of_unknown_ids_that_are_remembered_have_a_bound() -> None:
    """Else anybody could fill the state with made-up ids; other tenants have bounds of their own."""
    made = tenants(tenant("*"))

    async def test(engine: Engine) -> None:
        engine.request(action="cancel", id="other")
        other_request(engine, destination="orders", delay="1h", id="live")
        for id in ("a", "b", "c", "b"):
            other_request(engine, action="cancel", id=id, reply_to="replies")
        await asyncio.sleep(1)
        assert errors(engine) == ["too-many-cancels"], "to cancel again is to remember no more"
        assert header(engine.read("delay-dead-letters")[0], "error-detail") == (
            "other-requests has 2 cancels of unknown ids remembered on partition 0; expected fewer than 2, "
            "the partition's share of max_remembered_cancels = 2"
        )
        assert sum(b"too-many-cancels" in (r.value or b"") for r in engine.read("replies")) == 1
        other_request(engine, action="cancel", id="live")
        other_request(engine, destination="orders", delay="1h", id="c")
        await asyncio.sleep(1)
        assert len(errors(engine)) == 1, "what is known can be cancelled, and nothing was remembered of c"
        await engine.stop()
        current = engine.stores.disks[0].copy()
        for disk in (current, None):
            engine.stores.disks.clear()
            if disk is not None:
                engine.stores.disks[0] = disk
            start(engine, made)
            other_request(engine, action="cancel", id="d")
            await asyncio.sleep(1)
            assert errors(engine).pop() == "too-many-cancels"
            await engine.stop()
            assert engine.stores.disks[0].values[b"f" + OTHER.encode()] == (2).to_bytes(8, "big")
            assert list(miscounts(engine.stores.disks[0])) == []
        start(engine, made)
        other_request(engine, destination="orders", delay="1h", id="a")
        other_request(engine, action="cancel", id="e")
        await asyncio.sleep(1)
        assert len(errors(engine)) == 3, "a schedule has taken the place of one"
        await asyncio.sleep(1_000)
        for id in ("f", "g", "h"):
            other_request(engine, action="cancel", id=id)
        await asyncio.sleep(1)
        assert len(errors(engine)) == 4, "those that are forgotten have made room"
        assert list(miscounts(engine.stores.disks[0])) == []

    with_tenants(test, made, max_remembered_cancels=2, id_retention_ms=900_000)


def test_what_is_replayed_counts_remembered_cancels_as_well() -> None:
    """A store that is behind knows as much of them, when it is brought up, as one that is not."""
    made = tenants(tenant("*"))

    async def test(engine: Engine) -> None:
        for id in ("a", "b"):
            other_request(engine, action="cancel", id=id)
        await asyncio.sleep(1)
        await engine.stop()
        behind = engine.stores.disks[0].copy()
        start(engine, made)
        other_request(engine, action="cancel", id="c")
        other_request(engine, destination="orders", delay="1h", id="a")
        other_request(engine, destination="orders", delay="1h", id="b")
        await asyncio.sleep(1)
        await engine.stop()
        engine.stores.disks[0] = behind
        start(engine, made)
        await asyncio.sleep(1)
        await engine.stop()
        assert engine.stores.disks[0].values[b"f" + OTHER.encode()] == (1).to_bytes(8, "big")
        assert list(miscounts(engine.stores.disks[0])) == []

    with_tenants(test, made)
