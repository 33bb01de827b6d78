"""How long after they became fireable events are fired, and what keeps those that are not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest

from delaystream.engine.failures import TransactionFailed
from delaystream.engine.observer import Silence, Wait, Work
from delaystream.testing import MemoryProducer, VirtualTimeLoop
from tests.unit.engine import Engine, carried_out
from tests.unit.tenants import OTHER, start, tenants
from tests.unit.test_holds import ask


class Delays(Silence):
    """Keeps what the engine tells of fires, and of what is due and was not fired."""

    def __init__(self) -> None:
        self.internal_errors = 0
        self.lateness_ms: list[int] = []
        #: of each fire, in no order
        self.delay_ms: list[int] = []
        self.waiting: Mapping[tuple[str, Wait], int] = {}

    def internal_error(self, partition: int) -> None:
        self.internal_errors += 1

    def committed(self, partition: int, work: Work) -> None:
        """Keep the fires."""
        for fires in work.fired.values():
            delays = list(fires.lateness_ms)
            self.lateness_ms += delays
            for lateness_ms, delay_ms in fires.excused:
                delays.remove(lateness_ms)
                delays.append(delay_ms)
            self.delay_ms += delays

    def overdue(self, partition: int, since_ms: Mapping[tuple[str, Wait], int]) -> None:
        """Keep it."""
        self.waiting = since_ms


def told(
    test: Callable[[Engine, Delays], Coroutine[Any, Any, None]], rates: str = "", **settings: Any
) -> None:
    """Run a test against a started engine with somebody who listens."""
    with VirtualTimeLoop() as loop:

        async def run() -> None:
            engine = Engine(loop, **settings)
            engine.log.create_topic(OTHER, 1)
            engine.observer = delays = Delays()
            start(engine, tenants(rates=rates))
            await carried_out(engine, test(engine, delays))
            assert not delays.internal_errors

        loop.run_until_complete(run())


async def away(engine: Engine, seconds: float, rates: str = "") -> None:
    """The worker ends, is away, and is back."""
    await engine.stop()
    await asyncio.sleep(seconds)
    start(engine, tenants(rates=rates))


def tell(engine: Engine, delays: Delays) -> Mapping[tuple[str, Wait], int]:
    """What is due and was not fired, as the worker tells it every second."""
    for processor in engine.processors:
        processor.tell_overdue()
    now_ms = engine.clock.now_ms()
    return {of: since_ms for of, since_ms in delays.waiting.items() if since_ms < now_ms}


IDS: list[dict[str, str]] = [{}, {"id": "a"}]
each_kind = pytest.mark.parametrize("id", IDS, ids=["without id", "with id"])


# -- what counts in full ---------------------------------------------------------------------------------


@each_kind
def test_an_outage_counts_in_full(id: dict[str, str]) -> None:
    """Due while the worker was away: late is late."""

    async def test(engine: Engine, delays: Delays) -> None:
        engine.request(destination="orders", delay="10s", control=id)
        await asyncio.sleep(1)
        await away(engine, 609)
        await asyncio.sleep(5)
        assert delays.delay_ms == delays.lateness_ms
        assert delays.lateness_ms == [pytest.approx(600_000, abs=300)]

    told(test)


@each_kind
def test_a_request_that_nobody_read_was_late_from_its_due_time_on(id: dict[str, str]) -> None:
    async def test(engine: Engine, delays: Delays) -> None:
        await engine.stop()
        engine.request(destination="orders", delay="10s", control=id)
        await asyncio.sleep(610)
        start(engine, tenants())
        await asyncio.sleep(5)
        assert delays.delay_ms == [pytest.approx(600_000, abs=300)]

    told(test)


# -- what excuses ----------------------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("before_s", [1, 3_600])
def test_a_due_time_before_the_request_is_no_delay(id: dict[str, str], before_s: int) -> None:
    """However many such requests come: nobody could have been in time."""

    async def test(engine: Engine, delays: Delays) -> None:
        at_ms = engine.clock.now_ms() - before_s * 1000
        engine.request(destination="orders", at=str(at_ms), control=id)
        await asyncio.sleep(5)
        assert delays.lateness_ms == [pytest.approx(before_s * 1000, abs=300)]
        assert delays.delay_ms == [pytest.approx(0, abs=300)]

    told(test)


def test_a_request_in_the_past_that_nobody_read_is_late_from_its_own_time_on() -> None:
    async def test(engine: Engine, delays: Delays) -> None:
        await engine.stop()
        engine.request(destination="orders", at=str(engine.clock.now_ms() - 3_600_000))
        await asyncio.sleep(100)
        start(engine, tenants())
        await asyncio.sleep(5)
        assert delays.lateness_ms == [pytest.approx(3_700_000, abs=300)]
        assert delays.delay_ms == [pytest.approx(100_000, abs=300)]

    told(test)


def test_a_producers_clock_that_is_ahead_makes_no_negative_delay() -> None:
    async def test(engine: Engine, delays: Delays) -> None:
        ahead_ms = engine.clock.now_ms() + 3_600_000
        engine.request(destination="orders", at=str(engine.clock.now_ms() - 1_000), timestamp_ms=ahead_ms)
        await asyncio.sleep(5)
        assert delays.delay_ms == [0]

    told(test)


@each_kind
def test_a_wait_for_a_destination_that_is_missing_is_no_delay(id: dict[str, str]) -> None:
    """It begins to be one when the destination takes something again."""

    async def test(engine: Engine, delays: Delays) -> None:
        engine.request(destination="nowhere", delay="1s", control=id)
        for _ in range(20):
            engine.request(destination="nowhere", delay="1s")
        await asyncio.sleep(600)
        waiting = tell(engine, delays)
        assert waiting.keys() == {("nowhere", Wait.PARKED)}
        engine.log.create_topic("nowhere", 1)
        await asyncio.sleep(120)
        assert len(delays.delay_ms) == 21
        assert min(delays.lateness_ms) > 590_000
        assert max(delays.delay_ms) < 1_000
        assert tell(engine, delays) == {}

    told(test, transaction_max_records=5)


def test_a_missing_destination_hides_nothing_of_its_partition() -> None:
    """What is due for another one, and is stuck, is told as what it is."""

    async def test(engine: Engine, delays: Delays) -> None:
        engine.request(destination="nowhere", delay="1s")
        engine.request(destination="orders", delay="100s")
        await asyncio.sleep(99.9)
        stuck = asyncio.Event()
        commit, MemoryProducer.commit = MemoryProducer.commit, _never(stuck)  # type: ignore[method-assign]
        try:
            await asyncio.sleep(50.1)
            waiting = tell(engine, delays)
        finally:
            MemoryProducer.commit = commit  # type: ignore[method-assign]
            stuck.set()
        assert waiting.keys() == {("nowhere", Wait.PARKED), ("orders", Wait.FIREABLE)}
        assert waiting["orders", Wait.FIREABLE] == engine.clock.now_ms() - 50_000

    told(test)


def _never(stuck: asyncio.Event) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def commit(*_: object) -> None:
        await stuck.wait()
        raise TransactionFailed("it was stuck")

    return commit


@each_kind
def test_a_wait_for_a_rate_is_no_delay(id: dict[str, str]) -> None:
    """The last of so many goes out twenty seconds after its due time, in its turn."""

    async def test(engine: Engine, delays: Delays) -> None:
        engine.request(destination="orders", delay="10s", control=id)
        for _ in range(200):
            engine.request(destination="orders", delay="10s")
        await asyncio.sleep(20)
        waiting = tell(engine, delays)
        assert waiting.keys() <= {("orders", Wait.RATE), ("orders", Wait.FIREABLE)}
        assert waiting.get(("orders", Wait.FIREABLE), engine.clock.now_ms()) > engine.clock.now_ms() - 500
        await asyncio.sleep(30)
        assert len(delays.delay_ms) == 201
        assert max(delays.lateness_ms) > 18_000
        assert max(delays.delay_ms) < 500

    told(test, rates="orders=10")


def test_a_rate_excuses_nothing_that_came_before_it_began_to_bound() -> None:
    """The first event after an outage is late by the outage, although its destination has a rate."""

    async def test(engine: Engine, delays: Delays) -> None:
        engine.request(destination="orders", delay="10s")
        await asyncio.sleep(1)
        await away(engine, 309, "orders=10")
        await asyncio.sleep(5)
        assert delays.delay_ms == [pytest.approx(300_000, abs=300)]

    told(test, rates="orders=10")


@pytest.mark.parametrize("ends", ["by command", "by itself", "by itself, while nobody is there"])
def test_a_hold_is_no_delay_until_it_is_over(ends: str) -> None:
    async def test(engine: Engine, delays: Delays) -> None:
        engine.request(destination="orders", delay="10s")
        await asyncio.sleep(1)
        until = {} if ends == "by command" else {"until": str(engine.clock.now_ms() + 299_000)}
        ask(engine, "pause", match_destination="orders", **until)
        await asyncio.sleep(199)
        assert tell(engine, delays).keys() == {("orders", Wait.HOLD)}
        late_ms = 0
        if ends == "by command":
            await asyncio.sleep(100)
            ask(engine, "resume", match_destination="orders")
        elif ends.endswith("there"):
            late_ms = 50_000
            await away(engine, 150)
        await asyncio.sleep(110)
        assert delays.lateness_ms == [pytest.approx(290_000 + late_ms, abs=500)]
        assert delays.delay_ms == [pytest.approx(late_ms, abs=500)]

    told(test)


@pytest.mark.parametrize("by_itself", [False, True])
def test_a_pause_of_one_schedule_is_no_delay(*, by_itself: bool) -> None:
    async def test(engine: Engine, delays: Delays) -> None:
        engine.request(destination="orders", delay="10s", id="a")
        await asyncio.sleep(1)
        until = {"until": str(engine.clock.now_ms() + 300_000)} if by_itself else {}
        engine.request(action="pause", id="a", control=until)
        await asyncio.sleep(300)
        if not by_itself:
            engine.request(action="resume", id="a")
        await asyncio.sleep(5)
        assert delays.lateness_ms == [pytest.approx(291_000, abs=500)]
        assert delays.delay_ms == [pytest.approx(0, abs=500)]

    told(test)


# -- what is overdue -------------------------------------------------------------------------------------


def test_what_was_due_on_arrival_is_overdue_from_then_on() -> None:
    """A flood of events in the past is no outage of an hour."""

    async def test(engine: Engine, delays: Delays) -> None:
        arrived_ms = engine.clock.now_ms()
        times = ",".join(str(arrived_ms - 3_600_000 - number) for number in range(50))
        engine.request(destination="orders", id="a", at=times)
        oldest: list[int] = []
        for _ in range(200):
            await asyncio.sleep(0.1)
            oldest += tell(engine, delays).values()
        assert len(delays.delay_ms) == 50
        assert oldest, "it takes a while"
        assert min(oldest) >= arrived_ms

    told(test, transaction_max_bytes=1_000, transaction_interval_ms=200)


def test_what_was_due_on_arrival_is_no_older_where_something_else_is_due_already() -> None:
    async def test(engine: Engine, delays: Delays) -> None:
        due_ms = engine.clock.now_ms() + 1_000
        for _ in range(200):
            engine.request(destination="orders", at=str(due_ms))
        await asyncio.sleep(1.3)
        assert tell(engine, delays).keys() == {("orders", Wait.FIREABLE)}, "it takes a while"
        oldest: list[int] = []
        times = ",".join(str(due_ms - 3_600_000 - number) for number in range(50))
        engine.request(destination="orders", id="a", at=times)
        for _ in range(400):
            await asyncio.sleep(0.1)
            oldest += tell(engine, delays).values()
        assert len(delays.delay_ms) == 250
        assert min(oldest) >= due_ms

    told(test, transaction_max_bytes=1_000, transaction_interval_ms=200)


def test_nothing_is_overdue_before_its_due_time() -> None:
    async def test(engine: Engine, delays: Delays) -> None:
        engine.request(destination="orders", delay="100s")
        due_ms = engine.clock.now_ms() + 100_000
        engine.request(destination="emails", delay="200s")
        await asyncio.sleep(50)
        assert tell(engine, delays) == {}
        assert delays.waiting == {("orders", Wait.FIREABLE): due_ms}, "if nothing more is heard, it is late"

    told(test)
