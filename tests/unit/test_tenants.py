"""Tenants: whose policy holds for what, on arrival, over the commands topic and when it fires."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any

import pytest

from delaystream.codec.headers import RequestParser
from delaystream.core.destinations import DestinationFilter
from delaystream.core.limits import Limits
from delaystream.core.partitioning import owner_partition
from delaystream.core.rates import RateError, RateTable, parse_rate
from delaystream.dialects import by_name
from delaystream.engine.ports import TopicPartition
from delaystream.engine.quota import share
from delaystream.engine.tenants import Tenant, Tenants
from delaystream.testing import LogRecord, MemoryProducer, MemorySources, VirtualTimeLoop
from tests.simulation.reckoning import miscounts
from tests.unit.engine import OWN, REQUESTS, Engine, header

OTHER = "other-requests"
BY_REQUESTS = [REQUESTS, OTHER]


def tenant(*allowed: str, **policy: Any) -> Tenant:
    limits = policy.pop("limits", Limits())
    default = policy.pop("default", None)
    parser = RequestParser(DestinationFilter(allowed, [*BY_REQUESTS, *OWN]), limits, default)
    return Tenant(parser, **policy)


def tenants(other: Tenant | None = None, rates: str = "", **policy: Any) -> Tenants:
    """`delay-requests` has the shared policy, `other-requests` its own."""
    shared = tenant("*", **policy)
    table = RateTable([parse_rate(rate) for rate in rates.split(",") if rate])
    return Tenants(shared, {OTHER: other} if other is not None else {}, table)


def with_tenants(
    test: Callable[[Engine], Coroutine[Any, Any, None]], made: Tenants, partitions: int = 1, **settings: Any
) -> None:
    """Run a test against a started engine with two request topics."""
    with VirtualTimeLoop() as loop:

        async def run() -> None:
            engine = Engine(loop, partitions, **settings)
            engine.log.create_topic(OTHER, partitions)
            start(engine, made)
            await test(engine)
            await engine.stop()

        loop.run_until_complete(run())


def start(engine: Engine, made: Tenants, **ports: Any) -> None:
    topics = [*BY_REQUESTS, "delay-commands"]
    engine.start(lambda partition: MemorySources(engine.log, topics, partition), tenants=made, **ports)


def other_request(engine: Engine, partition: int = 0, key: bytes = b"key", **control: str) -> None:
    headers = [(f"delaystream-{name.replace('_', '-')}", text.encode()) for name, text in control.items()]
    at = TopicPartition(OTHER, partition)
    engine.log.append(at, (key, b"value", headers, engine.clock.now_ms()))


def errors(engine: Engine) -> list[str]:
    return [header(letter, "error") for letter in engine.read("delay-dead-letters")]


def elsewhere(topic: str, partitions: int) -> str:
    """An id that partition 0 does not own."""
    return next(id for id in map(str, range(100)) if owner_partition(topic, id, partitions) != 0)


# -- whose policy --------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["destination", "reply_to", "on_late"])
def test_each_topic_has_its_own_destinations(named: str) -> None:
    """Also for receipts and late fires: what one may, the other may not."""

    async def test(engine: Engine) -> None:
        asked = {"destination": "orders", "delay": "1s", named: "emails"}
        engine.request(**asked)
        other_request(engine, **asked)
        await asyncio.sleep(3)
        assert errors(engine) == ["destination-denied"]
        assert header(engine.read("delay-dead-letters")[0], "error-topic") == OTHER

    with_tenants(test, tenants(tenant("orders")))


@pytest.mark.parametrize("named", ["destination", "reply_to", "on_late"])
def test_a_request_that_is_handed_on_keeps_the_policy_of_its_own_topic(named: str) -> None:
    """The worker that reads a command may write anywhere; the request may not.

    The partition that first saw it was of another opinion: a worker with settings from before.
    """
    id = elsewhere(OTHER, 2)

    async def test(engine: Engine) -> None:
        engine.processors[1]._tenants = tenants(tenant("orders"))
        other_request(engine, id=id, **{"destination": "orders", "delay": "1s", named: "emails"})
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
        engine.request(**late)
        other_request(engine, **late)
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


# -- quotas --------------------------------------------------------------------------------------


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


# -- rates ---------------------------------------------------------------------------------------


def second(record: LogRecord, begin_ms: int) -> int:
    return (record.appended_ms - begin_ms) // 1000


def test_what_is_overdue_drains_at_the_rate_in_due_order() -> None:
    """No second has more than the rate and what one burst adds; others are not delayed; nobody polls."""

    async def test(engine: Engine) -> None:
        for number in range(300):
            engine.request(b"%d" % number, destination="orders", delay=f"{10_000 + number}ms")
        engine.request(destination="emails", delay="11s")
        await asyncio.sleep(5)
        await engine.stop()
        await asyncio.sleep(60)
        begin_ms = engine.clock.now_ms()
        start(engine, made)
        await asyncio.sleep(5)
        assert len(engine.read("emails")) == 1
        assert engine.read("emails")[0].appended_ms - begin_ms < 500
        steps = engine.loop.steps
        await asyncio.sleep(30)
        fired = engine.read("orders")
        assert [record.value for record in fired] == [b"%d" % number for number in range(300)]
        assert abs(fired[-1].appended_ms - begin_ms - 15_000) < 300
        for number in range(16):
            assert sum(second(record, begin_ms) == number for record in fired) <= 22
        assert engine.loop.steps - steps < 1_200, "the next opening is computed, not looked for"

    made = tenants(rates="orders=20")
    with_tenants(test, made)


def test_an_idle_destination_has_its_second_and_no_more() -> None:
    """What is due at once may use what was not used for a second."""

    async def test(engine: Engine) -> None:
        await asyncio.sleep(60)
        begin_ms = engine.clock.now_ms()
        for number in range(50):
            engine.request(b"%d" % number, destination="orders", delay="0")
        await asyncio.sleep(10)
        fired = engine.read("orders")
        assert [record.value for record in fired] == [b"%d" % number for number in range(50)]
        by_second = [sum(second(r, begin_ms) == number for r in fired) for number in range(6)]
        assert sum(by_second[:1]) <= 20
        assert fired[-1].appended_ms - begin_ms >= 3_800

    with_tenants(test, tenants(rates="orders=10"))


def test_a_rate_is_split_over_the_partitions() -> None:
    """Three partitions with everything to do deliver at the rate, not at three times of it."""

    async def test(engine: Engine) -> None:
        for number in range(90):
            engine.request(b"%d" % number, destination="orders", delay="5s", partition=number % 3)
        await asyncio.sleep(5)
        begin_ms = engine.clock.now_ms()
        await asyncio.sleep(30)
        fired = engine.read("orders")
        assert len(fired) == 90
        assert 8_000 <= max(record.appended_ms for record in fired) - begin_ms <= 10_000

    with_tenants(test, tenants(rates="orders=10"), partitions=3)


def test_a_tenant_that_waits_for_its_rate_keeps_nobody_waiting() -> None:
    """Not even for the same destination; named ones and anonymous ones alike."""

    async def test(engine: Engine) -> None:
        for number in range(60):
            other_request(
                engine, destination="orders", delay="5s", **({"id": str(number)} if number % 2 else {})
            )
        await asyncio.sleep(6)
        begin_ms = engine.clock.now_ms()
        for _ in range(60):
            engine.request(destination="orders", delay="1s")
        await asyncio.sleep(30)
        fired = engine.read("orders")
        ours = [r for r in fired if header(r, "source").startswith(REQUESTS)]
        theirs = [r for r in fired if not header(r, "source").startswith(REQUESTS)]
        assert (len(ours), len(theirs)) == (60, 60)
        assert max(record.appended_ms for record in ours) - begin_ms < 1_500
        assert max(record.appended_ms for record in theirs) - begin_ms > 4_000

    limited = tenant("*", rates=RateTable([parse_rate("orders=10")]))
    with_tenants(test, tenants(limited))


def test_the_destinations_own_rate_holds_for_all_tenants_together() -> None:
    async def test(engine: Engine) -> None:
        for _ in range(50):
            other_request(engine, destination="orders", delay="5s")
            engine.request(destination="orders", delay="5s")
        await asyncio.sleep(5)
        begin_ms = engine.clock.now_ms()
        await asyncio.sleep(30)
        fired = engine.read("orders")
        assert len(fired) == 100
        assert 9_000 <= max(record.appended_ms for record in fired) - begin_ms <= 10_500

    limited = tenant("*", rates=RateTable([parse_rate("orders=8")]))
    with_tenants(test, tenants(limited, rates="orders=10"))


def test_a_schedule_that_catches_up_keeps_to_the_rate() -> None:
    """A hundred missed times are a hundred records, though they are one entry of the wheel."""

    async def test(engine: Engine) -> None:
        engine.request(destination="orders", every="1s", id="n", catch_up="all", grace="1h")
        await asyncio.sleep(1)
        await engine.stop()
        await asyncio.sleep(300)
        begin_ms = engine.clock.now_ms()
        start(engine, made)
        await asyncio.sleep(20)
        by_second = [
            sum(second(r, begin_ms) == number for r in engine.read("orders")) for number in range(20)
        ]
        assert max(by_second) <= 22
        assert sum(by_second) >= 190
        due = [int(header(record, "due-at")) for record in engine.read("orders")]
        assert due == list(range(due[0], due[-1] + 1, 1_000)), "each in order, none left out"

    made = tenants(rates="orders=10")
    with_tenants(test, made)


def test_records_that_a_destination_refuses_are_found_in_all_of_its_wheels() -> None:
    """The broker does not say which record is at fault, and two wheels hold one each."""

    async def test(engine: Engine) -> None:
        def new_producer(partition: int) -> MemoryProducer:
            producer = MemoryProducer(engine.log, f"delaystream-{partition}", "delaystream")
            producer.names_rows = False
            return producer

        await engine.stop()
        engine.log.create_topic("tiny", 1, max_message_bytes=600)
        start(engine, made, new_producer=new_producer)
        other_request(engine, destination="tiny", delay="0")
        await asyncio.sleep(10)
        for topic in BY_REQUESTS:
            for value in (b"small", b"x" * 1_000, b"small"):
                headers = [("delaystream-destination", b"tiny"), ("delaystream-delay", b"5s")]
                engine.log.append(TopicPartition(topic, 0), (b"k", value, headers, engine.clock.now_ms()))
        await asyncio.sleep(60)
        assert len(engine.read("tiny")) == 1 + 4
        assert errors(engine) == ["quarantined"] * 2

    made = tenants(tenant("*", rates=RateTable([("tiny", 1_000.0)])))
    with_tenants(test, made)


def test_a_rate_below_one_a_second_delivers_one_now_and_then() -> None:
    async def test(engine: Engine) -> None:
        for _ in range(3):
            engine.request(destination="orders", delay="5s")
        await asyncio.sleep(60)
        times = [record.appended_ms for record in engine.read("orders")]
        assert [round((later - earlier) / 1000) for earlier, later in pairwise(times)] == [20, 20]

    with_tenants(test, tenants(rates="orders=3/m"))


@pytest.mark.parametrize(
    "text", ["", "orders", "orders=", "orders=-1", "=5", "orders=0", "orders=5/d", "a=1e3"]
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(RateError):
        parse_rate(text)


def test_the_first_rate_that_fits_counts() -> None:
    table = RateTable(map(parse_rate, ("sms-vip=5", "sms-*=60/m", "reports = 36/h")))
    rates = [table.of(topic) for topic in ("sms-vip", "sms-x", "reports", "orders")]
    assert rates == [5, 1, 0.01, 0]


# -- fairness ------------------------------------------------------------------------------------


def test_a_hot_second_shares_its_time_among_destinations() -> None:
    """A thousand for one destination do not keep five for another waiting: they are in the first step."""

    async def test(engine: Engine) -> None:
        for wave in range(1, 7):
            due_ms = engine.clock.now_ms() + 30_000
            for _ in range(1_000):
                engine.request(destination="orders", at=str(due_ms))
            for topic in ("emails", "late"):
                for _ in range(5):
                    engine.request(destination=topic, at=str(due_ms))
            await asyncio.sleep(80 + wave)
            orders, emails, late = (engine.read(topic) for topic in ("orders", "emails", "late"))
            assert (len(orders), len(emails), len(late)) == (1_000 * wave, 5 * wave, 5 * wave)
            assert max(record.appended_ms for record in (*emails, *late)) < due_ms + 500
            assert orders[-1].appended_ms > due_ms + 5_000, "the hot one takes its time"

    with_tenants(test, tenants(), transaction_max_records=100, transaction_interval_ms=1_000)


def test_with_more_destinations_than_a_step_holds_each_gets_its_turn() -> None:
    async def test(engine: Engine) -> None:
        topics = [f"d{number}" for number in range(30)]
        for topic in topics:
            engine.log.create_topic(topic, 1)
        at = str(engine.clock.now_ms() + 10_000)
        for topic in topics:
            for _ in range(20):
                engine.request(destination=topic, at=at)
        await asyncio.sleep(30)
        firsts = [engine.read(topic)[0].appended_ms for topic in topics]
        lasts = [engine.read(topic)[-1].appended_ms for topic in topics]
        assert all(len(engine.read(topic)) == 20 for topic in topics)
        assert max(firsts) < min(lasts), "every destination has begun before the first one is done"

    with_tenants(test, tenants(), transaction_max_records=10)


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
