"""Rates: how fast destinations are delivered to, and what keeps whom waiting."""

from __future__ import annotations

import asyncio
import json
import math
from itertools import pairwise

import pytest

from delaystream.codec.envelope import decode_rate
from delaystream.core.rates import RateError, RateTable, parse_rate
from delaystream.engine.accept import rate_commands
from delaystream.engine.fire.firing import Firing
from delaystream.engine.ports import TopicPartition
from delaystream.testing import LogRecord, MemoryProducer
from tests.simulation.reckoning import miscounts
from tests.unit.engine import REQUESTS, Engine, header, in_virtual_time
from tests.unit.tenants import BY_REQUESTS, errors, other_request, start, tenant, tenants, with_tenants
from tests.unit.test_recurring import events


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
                engine, destination="orders", delay="5s", control={"id": str(number)} if number % 2 else {}
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


def test_a_moment_that_is_a_rounding_error_away_is_waited_for_and_not_spun_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found by the simulation: no timer ends between a moment and the next float."""

    async def test(engine: Engine) -> None:
        def next_opening(_: Firing) -> float:
            return math.nextafter(asyncio.get_running_loop().time() * 1000, math.inf)

        monkeypatch.setattr(Firing, "next_opening", next_opening)
        engine.loop.max_steps = engine.loop.steps + 10_000
        engine.request(b"late", destination="orders", delay="50ms")
        await asyncio.sleep(0.2)
        assert [record.value for record in engine.read("orders")] == [b"late"]

    with_tenants(test, tenants())


# -- rates by command ----------------------------------------------------------------------------


def rate_events(engine: Engine) -> list[tuple[str, str, float | None]]:
    return [(e["destination"], e.get("actor", ""), e.get("rate")) for e in events(engine, "rate")]


def spread(records: list[LogRecord], begin_ms: int, seconds: int) -> list[int]:
    """How many records went out in each second."""
    counts = [0] * seconds
    for record in records:
        if (number := second(record, begin_ms)) < seconds:
            counts[number] += 1
    return counts


@pytest.mark.parametrize("partitions", [1, 3])
def test_a_command_sets_a_rate_and_a_command_clears_it(partitions: int) -> None:
    """One receipt and one event, when every partition has it."""

    async def test(engine: Engine) -> None:
        engine.request(action="rate", destination="orders", rate="600/m", actor="ada", reply_to="replies")
        await asyncio.sleep(5)
        (receipt,) = engine.read("replies")
        assert json.loads(receipt.value or b"")["outcome"] == "rate-set"
        assert rate_events(engine) == [("orders", "ada", 10.0)]
        (event,) = engine.read("delay-events")
        assert event.key == b"orders"
        for number in range(90):
            engine.request(destination="orders", delay="5s", partition=number % partitions)
            engine.request(destination="emails", delay="5s", partition=number % partitions)
        await asyncio.sleep(5)
        begin_ms = engine.clock.now_ms()
        await asyncio.sleep(5)
        assert max(spread(engine.read("orders"), begin_ms, 4)) <= 20
        assert len(engine.read("emails")) == 90
        assert len(engine.read("orders")) < 90
        engine.request(action="rate", destination="orders", rate="none")
        await asyncio.sleep(1)
        assert len(engine.read("orders")) == 90
        assert rate_events(engine)[1:] == [("orders", "", None)]
        assert not engine.stores.disks[0].values.keys() & {b"g"}

    in_virtual_time(test, partitions=partitions)


@pytest.mark.parametrize("way", ["in place", "restarted", "rebuilt"])
def test_what_is_in_the_common_wheel_keeps_to_a_rate_that_is_set_later(way: str) -> None:
    """With an id, without one, recurring, and triggered: nothing is lost or doubled, and others go on."""

    async def test(engine: Engine) -> None:
        for number in range(60):
            engine.request(b"%d" % number, destination="orders", delay=f"{20_000 + number}ms")
            engine.request(b"n", destination="orders", delay="20s", id=f"named-{number}")
            other_request(engine, destination="orders", delay="20s")
        engine.request(destination="orders", id="beat", every="20s", max_fires="1")
        await asyncio.sleep(1)
        engine.request(action="rate", destination="orders", rate="10")
        await asyncio.sleep(2)
        if way != "in place":
            await engine.stop()
            if way == "rebuilt":
                engine.stores.disks.clear()
            start(engine, made)
        await asyncio.sleep(16)
        engine.request(action="trigger", id="named-59")
        await asyncio.sleep(1)
        begin_ms = engine.clock.now_ms()
        await asyncio.sleep(60)
        fired = engine.read("orders")
        ours = [r for r in fired if header(r, "source").startswith(REQUESTS)]
        theirs = [r for r in fired if not header(r, "source").startswith(REQUESTS)]
        assert (len(ours), len(theirs)) == (122, 60)
        assert len({header(record, "fire-id") for record in fired}) == 182
        assert max(record.appended_ms for record in theirs) - begin_ms < 2_000
        assert max(spread(ours, begin_ms, 30)) <= 20
        assert max(record.appended_ms for record in ours) - begin_ms > 9_000
        anonymous = [int(r.value or b"") for r in ours if (r.value or b"").isdigit()]
        assert anonymous == sorted(anonymous), "in due order"
        assert list(miscounts(engine.stores.disks[0])) == []

    made = tenants()
    with_tenants(test, made)


def test_a_rate_by_command_wins_over_the_tenants_setting_and_not_over_that_of_all() -> None:
    async def test(engine: Engine) -> None:
        other_request(engine, action="rate", destination="orders", rate="100")
        for _ in range(40):
            other_request(engine, destination="orders", delay="5s")
            other_request(engine, destination="emails", delay="5s")
        await asyncio.sleep(5)
        other_request(engine, action="rate", destination="emails", rate="100")
        begin_ms = engine.clock.now_ms()
        await asyncio.sleep(3)
        assert len(engine.read("orders")) == 40
        assert max(spread(engine.read("emails"), begin_ms, 3)) <= 10
        other_request(engine, action="rate", destination="orders", rate="none")
        for _ in range(40):
            other_request(engine, destination="orders", delay="0")
        await asyncio.sleep(3)
        assert len(engine.read("orders")) < 60

    limited = tenant("*", rates=RateTable([parse_rate("orders=2")]))
    with_tenants(test, tenants(limited, rates="emails=5"))


def test_a_rate_that_is_raised_does_not_wait_for_the_one_before() -> None:
    """A destination that gets one an hour is closed for as long."""

    async def test(engine: Engine) -> None:
        engine.request(action="rate", destination="orders", rate="1/h")
        for _ in range(3):
            engine.request(destination="orders", delay="1s")
        await asyncio.sleep(10)
        assert len(engine.read("orders")) == 1
        engine.request(action="rate", destination="orders", rate="50")
        await asyncio.sleep(1)
        assert len(engine.read("orders")) == 3

    in_virtual_time(test)


@pytest.mark.parametrize("between", ["1/h", "2/h", "0.5/h", "none"])
@pytest.mark.parametrize("own", [False, True], ids=["", "beside a setting"])
def test_a_rate_that_is_set_again_and_again_lets_no_more_out(between: str, own: bool) -> None:
    """Within t seconds no more than the rate, and in addition one burst, however many commands come."""

    async def test(engine: Engine) -> None:
        engine.request(action="rate", destination="orders", rate="1/h")
        await asyncio.sleep(1)
        for number in range(50):
            engine.request(b"%d" % number, destination="orders", delay="0")
        for _ in range(29):
            await asyncio.sleep(60)
            # Both are carried out in one step, so that nothing goes out in between.
            engine.request(action="rate", destination="orders", rate=between)
            engine.request(action="rate", destination="orders", rate="1/h")
        await asyncio.sleep(5)
        assert len(engine.read("orders")) <= 2

    with_tenants(test, tenants(tenant("*", rates=RateTable([parse_rate("orders=3/h")] if own else []))))


@pytest.mark.parametrize(("rate", "most"), [("10", 10), ("21", 21), ("600/h", 1)])
def test_what_was_not_used_stays_when_the_rate_changes(rate: str, most: int) -> None:
    """As much as the new rate holds."""

    async def test(engine: Engine) -> None:
        engine.request(action="rate", destination="orders", rate="20")
        await asyncio.sleep(1)
        engine.request(b"first", destination="orders", delay="0")
        await asyncio.sleep(60)
        engine.request(action="rate", destination="orders", rate=rate)
        await asyncio.sleep(0.5)
        for number in range(50):
            engine.request(b"%d" % number, destination="orders", delay="0")
        await asyncio.sleep(0.09)
        assert len(engine.read("orders")) - 1 == most

    in_virtual_time(test)


def test_of_two_rates_the_later_one_counts_wherever_it_is_read() -> None:
    """By their timestamps, where they stood on two partitions; also where it cleared the rate."""

    async def test(engine: Engine) -> None:
        now_ms = engine.clock.now_ms()
        engine.request(action="rate", destination="orders", rate="none", partition=1, timestamp_ms=now_ms)
        await asyncio.sleep(1)
        engine.request(action="rate", destination="orders", rate="5", timestamp_ms=now_ms - 1_000)
        engine.request(action="rate", destination="emails", rate="5", timestamp_ms=now_ms)
        engine.request(action="rate", destination="emails", rate="6", timestamp_ms=now_ms - 1_000)
        await asyncio.sleep(1)
        for disk in engine.stores.disks.values():
            rows = [decode_rate(value) for key, value in disk.values.items() if key[:1] == b"v"]
            assert {row.destination: row.rate for row in rows} == {"orders": None, "emails": 6.0}

    in_virtual_time(test, partitions=2)


def test_who_set_a_rate_and_why_is_kept_on_every_partition() -> None:
    async def test(engine: Engine) -> None:
        engine.request(action="rate", destination="orders", rate="5", actor="ada", note="incident 12")
        await asyncio.sleep(1)
        for disk in engine.stores.disks.values():
            (row,) = [decode_rate(value) for key, value in disk.values.items() if key[:1] == b"v"]
            assert (row.actor, row.note) == ("ada", "incident 12")

    in_virtual_time(test, partitions=2)


def test_there_are_no_more_rates_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was cleared makes room."""
    monkeypatch.setattr(rate_commands, "MOST_RATES", 2)

    async def test(engine: Engine) -> None:
        for topic, rate in (
            ("orders", "5"),
            ("emails", "5"),
            ("late", "5"),
            ("orders", "none"),
            ("late", "6"),
        ):
            engine.request(action="rate", destination=topic, rate=rate)
            await asyncio.sleep(1)
        assert errors(engine) == ["too-many-rates"]
        rows = [decode_rate(value) for key, value in engine.stores.disks[0].values.items() if key[:1] == b"v"]
        assert {row.destination: row.rate for row in rows} == {"emails": 5.0, "late": 6.0}

    in_virtual_time(test)


@pytest.mark.parametrize("max_records", [4, 8_000])
@pytest.mark.parametrize("between", [True, False])
def test_due_order_holds_while_entries_change_their_wheels(max_records: int, between: bool) -> None:
    """What was pending when the rate was set, what came after it, and what is due when it comes."""

    async def test(engine: Engine) -> None:
        begin_ms = engine.clock.now_ms()
        at = [begin_ms + 20_000 + number for number in range(40)]
        for due_ms in at[:30:2]:
            engine.request(b"%d" % due_ms, destination="orders", at=str(due_ms))
        await asyncio.sleep(1)
        engine.request(action="rate", destination="orders", rate="1000")
        await asyncio.sleep(1)
        for due_ms in at[1:30:2] if between else ():
            engine.request(b"%d" % due_ms, destination="orders", at=str(due_ms))
        await asyncio.sleep(1)
        await engine.stop()
        await asyncio.sleep(30)
        for due_ms in at[30:]:
            engine.request(b"%d" % due_ms, destination="orders", at=str(due_ms))
        engine.start()
        await asyncio.sleep(10)
        assert [int(record.value or b"") for record in engine.read("orders")] == sorted(
            [*at[:30:2], *(at[1:30:2] if between else ()), *at[30:]]
        )

    in_virtual_time(test, transaction_max_records=max_records)


@pytest.mark.parametrize("max_records", [4, 8_000])
@pytest.mark.parametrize("idle_steps", [0, 1])
def test_due_order_holds_when_a_rate_ends(max_records: int, idle_steps: int) -> None:
    """What waited for the rate, what was not due yet, what comes after it, and what is due when it comes."""

    async def test(engine: Engine) -> None:
        at = [engine.clock.now_ms() + 5_000 + number for number in range(40)]
        engine.request(action="rate", destination="orders", rate="1/h")
        await asyncio.sleep(1)
        for due_ms in at[::2]:
            engine.request(b"%d" % due_ms, destination="orders", at=str(due_ms))
        await asyncio.sleep(10)
        for _ in range(idle_steps):
            engine.request(destination="emails", delay="1h")
            await asyncio.sleep(1)
        assert len(engine.read("orders")) == 1
        engine.request(action="rate", destination="orders", rate="none")
        for due_ms in at[1::2]:
            engine.request(b"%d" % due_ms, destination="orders", at=str(due_ms))
        engine.request(b"0", destination="orders", delay="0")
        await asyncio.sleep(60)
        found = [int(record.value or b"") for record in engine.read("orders")]
        assert found == [at[0], *at[1:], 0]

    in_virtual_time(test, transaction_max_records=max_records)


def test_a_rate_that_ends_as_something_is_due_lets_nothing_overtake_what_had_to_wait() -> None:
    """What waited for the rate goes first, also where the command is decided in the very step."""

    async def test(engine: Engine) -> None:
        now_ms = engine.clock.now_ms()
        for value, due_ms in ((b"1", 1_000), (b"2", 1_500), (b"3", 10_000)):
            engine.request(value, destination="orders", at=str(now_ms + due_ms))
        await asyncio.sleep(0.5)
        engine.request(None, action="rate", destination="orders", rate="1/h")
        await asyncio.sleep((now_ms + 9_990 - engine.clock.now_ms()) / 1000)
        # A step for this: the next one comes after a while, and then has the command and what is due.
        engine.request(destination="emails", delay="0")
        await asyncio.sleep(0.005)
        engine.request(None, action="rate", destination="orders", rate="none")
        await asyncio.sleep(10)
        assert [record.value for record in engine.read("orders")] == [b"1", b"2", b"3"]

    in_virtual_time(test)


def test_what_a_hold_lets_go_has_the_rate_that_was_set_meanwhile() -> None:
    """It is in the hold's own wheel, and may have got there before the tenant had one for its rate."""

    async def test(engine: Engine) -> None:
        engine.request(None, action="pause", match_destination="orders", match_new="true")
        for number in range(20):
            engine.request(b"%d" % number, destination="orders", delay="1s")
        await asyncio.sleep(5)
        engine.request(None, action="rate", destination="orders", rate="60/h")
        await asyncio.sleep(5)
        engine.request(None, action="resume", match_destination="orders")
        began = engine.clock.now_ms()
        await asyncio.sleep(600)
        read = engine.read("orders")
        assert 9 <= len(read) <= 11
        assert read[-1].appended_ms - began > 500_000

    in_virtual_time(test)
