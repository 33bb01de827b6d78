"""Dialects in the engine: what other systems' consumers find on the deliveries of recurring schedules."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from delaystream.codec.requests.headers import RequestParser
from delaystream.core.destinations import DestinationFilter
from delaystream.core.limits import Limits
from delaystream.dialects import NAMES, by_name
from delaystream.engine.policy.tenants import Tenant, Tenants
from delaystream.testing import LogRecord, VirtualTimeLoop
from tests.unit.engine import OWN, REQUESTS, Engine


def speakers() -> Tenants:
    """A request topic that speaks every dialect.

    etf1 comes last: any record with a null value and no headers of ours is a cancel to it.
    """
    parser = RequestParser(DestinationFilter(["*"], [REQUESTS, *OWN]), Limits())
    dialects = [by_name(name) for name in sorted(NAMES, key=lambda name: name == "etf1")]
    return Tenants(Tenant(parser, dialects=dialects))


def speaking_all(test: Callable[[Engine], Coroutine[Any, Any, None]]) -> None:
    """Run a test against an engine whose request topic speaks every dialect."""
    with VirtualTimeLoop() as loop:

        async def run() -> None:
            engine = Engine(loop)
            engine.start(tenants=speakers())
            await test(engine)
            await engine.stop()

        loop.run_until_complete(run())


def theirs(**headers: str) -> list[tuple[str, bytes | None]]:
    return [(name.replace("_", "-"), value.encode()) for name, value in headers.items()]


def text(record: LogRecord, name: str) -> str:
    (value,) = [value for key, value in record.headers if key == name]
    return (value or b"").decode()


def test_a_kaspr_schedule_that_is_paused_stays_so_when_it_is_added_again() -> None:
    """Until a `CRON_RESUME`, or unless the record says otherwise beside Kaspr's headers."""

    async def test(engine: Engine) -> None:
        about = {"x_scheduler_request_id": "a"}
        add = about | {
            "x_scheduler_action": "CRON_ADD",
            "x_scheduler_deliver_to": "orders",
            "x_scheduler_cron_expr": "* * * * *",
        }
        # What each step of these leaves delivered.
        for number, (headers, fires) in enumerate((
            (add, True),
            (about | {"x_scheduler_action": "CRON_PAUSE"}, False),
            (add, False),
            (about | {"x_scheduler_action": "CRON_RESUME"}, True),
            (about | {"x_scheduler_action": "CRON_PAUSE"}, False),
            (add | {"delaystream_status": "pending"}, True),
        )):  # fmt: skip
            # Another value: the same again would change nothing anyway.
            engine.request(b"%d" % number, b"k", theirs(**headers))
            await asyncio.sleep(1)
            before = len(engine.read("orders"))
            await asyncio.sleep(120)
            assert (len(engine.read("orders")) > before) is fires, headers

    speaking_all(test)


def test_nats_deliveries_tell_the_next_time_until_the_last_one() -> None:
    """Whatever the fire: in time, triggered, or the last before the schedule's time to live is over."""

    async def test(engine: Engine) -> None:
        headers = theirs(
            Nats_Schedule="@every 10s", Nats_Schedule_Target="orders", Nats_TTL="35s", Nats_Schedule_TTL="5m"
        )
        engine.request(b"v", b"schedules.1", headers)
        await asyncio.sleep(12)
        engine.request(None, b"k", action="trigger", id="schedules.1")
        await asyncio.sleep(60)
        fires = engine.read("orders")
        dues = [int(text(record, "delaystream-due-at")) for record in fires]
        nexts = [text(record, "Nats-Schedule-Next") for record in fires]
        assert [later - dues[0] for later in (dues[2], dues[3])] == [10_000, 20_000]
        assert nexts[-1] == "purge"
        # The triggered one tells the same next time as the one before it.
        assert nexts[0] == nexts[1] < nexts[2]
        assert {text(record, "Nats-Scheduler") for record in fires} == {"schedules.1"}
        assert {text(record, "Nats-TTL") for record in fires} == {"5m"}

    speaking_all(test)


def test_a_triggered_fire_after_the_last_scheduled_one_tells_that_none_follows() -> None:
    """Not the time of that last one, which has gone out before it."""

    async def test(engine: Engine) -> None:
        headers = theirs(Nats_Schedule="@every 10s", Nats_Schedule_Target="orders", Nats_TTL="15s")
        engine.request(b"v", b"schedules.1", headers)
        await asyncio.sleep(1)
        await engine.stop()
        await asyncio.sleep(20)
        engine.request(None, b"k", action="trigger", id="schedules.1")
        engine.start(tenants=speakers())
        await asyncio.sleep(5)
        fires = engine.read("orders")
        assert [text(record, "Nats-Schedule-Next") for record in fires] == ["purge", "purge"]
        assert len({text(record, "delaystream-fire-id") for record in fires}) == 2

    speaking_all(test)


def test_kaspr_deliveries_tell_their_own_time() -> None:
    """In seconds; not those of one-time messages."""

    async def test(engine: Engine) -> None:
        cron = theirs(
            x_scheduler_action="CRON_ADD",
            x_scheduler_request_id="c",
            x_scheduler_deliver_to="orders",
            x_scheduler_cron_expr="* * * * *",
        )
        once = theirs(x_scheduler_deliver_to="emails", x_scheduler_deliver_at="2000-01-01T00:00:00Z")
        engine.request(b"v", foreign=cron)
        engine.request(b"v", foreign=once)
        await asyncio.sleep(130)
        for record in engine.read("orders"):
            due_s = int(text(record, "delaystream-due-at")) // 1000
            assert text(record, "x-scheduler-cron-fire-timestamp") == str(due_s)
        assert len(engine.read("orders")) == 2
        (message,) = engine.read("emails")
        assert "x-scheduler-cron-fire-timestamp" not in dict(message.headers)
        engine.request(b"", foreign=theirs(x_scheduler_action="CRON_PAUSE", x_scheduler_request_id="c"))
        await asyncio.sleep(300)
        assert len(engine.read("orders")) == 2
        engine.request(b"", foreign=theirs(x_scheduler_action="CRON_RESUME", x_scheduler_request_id="c"))
        await asyncio.sleep(1)
        # Replayed, as Kaspr does unless it is told to skip.
        assert len(engine.read("orders")) == 7

    speaking_all(test)


def test_activemq_repeats_and_is_removed_by_the_coordinates() -> None:
    """Ten were asked for; the job's id is what the producer learned from Kafka."""

    async def test(engine: Engine) -> None:
        headers = theirs(AMQ_SCHEDULED_DELAY="30000", AMQ_SCHEDULED_PERIOD="10000", AMQ_SCHEDULED_REPEAT="9")
        headers = [(name.replace("-", "_"), value) for name, value in headers]
        headers.append(("delaystream-destination", b"orders"))
        ended = engine.request(b"v", foreign=headers)
        removed = engine.request(b"w", foreign=headers)
        began_ms = engine.clock.now_ms()
        await asyncio.sleep(35)
        remove = [("AMQ_SCHEDULER_ACTION", b"REMOVE"), ("scheduledJobId", f"{REQUESTS}/0/{removed}".encode())]
        engine.request(None, foreign=remove)
        await asyncio.sleep(600)
        fires = [record for record in engine.read("orders") if record.value == b"v"]
        dues = [int(text(record, "delaystream-due-at")) - began_ms for record in fires]
        assert dues == [30_000 + n * 10_000 for n in range(10)]
        assert {text(record, "scheduledJobId") for record in fires} == {f"{REQUESTS}/0/{ended}"}
        assert len([record for record in engine.read("orders") if record.value == b"w"]) == 1

    speaking_all(test)
