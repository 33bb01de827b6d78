"""The log in memory keeps what the engine relies on; :mod:`test_broker` holds a real broker to the same."""

from __future__ import annotations

import asyncio

import pytest

from delaystream.engine.failures import WriteRefused
from delaystream.engine.ports import TopicPartition, Transaction
from delaystream.testing import LoopClock, MemoryLog, MemoryProducer, SteadyProducer, VirtualTimeLoop
from delaystream.testing.partition import StaleEpochError
from tests.conformance.cases import CASES, Case
from tests.conformance.world import rows, run_in_memory


@pytest.mark.parametrize("producer", [MemoryProducer, SteadyProducer])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_memory(case: Case, producer: type[MemoryProducer | SteadyProducer]) -> None:
    run_in_memory(case, producer)


def test_a_transaction_that_times_out_is_aborted_and_its_owner_fenced() -> None:
    with VirtualTimeLoop() as loop:

        async def story() -> None:
            clock = LoopClock(loop)
            log = MemoryLog(clock.now_ms)
            log.create_topic("t")
            epoch = log.init_producer("app-0", 1_000)
            log.write(epoch, TopicPartition("t", 0), rows("a"))
            await asyncio.sleep(2)
            log.expire()
            assert log.bounds(TopicPartition("t", 0)) == (0, 2, 2)
            with pytest.raises(StaleEpochError):
                log.end(epoch, commit=True)

        loop.run_until_complete(story())


def test_tombstones_stay_for_delete_retention_after_the_first_pass() -> None:
    now = [0]
    log = MemoryLog(lambda: now[0], delete_retention_ms=1_000)
    log.create_topic("t", compacted=True)
    at = TopicPartition("t", 0)
    for row in [*rows("a"), *rows("a", value=None), *rows("b")]:
        log.append(at, row)
    now[0] = 5_000
    assert log.compact(at) == 1
    now[0] = 5_900
    assert log.compact(at) == 0
    now[0] = 6_100
    assert log.compact(at) == 1
    assert [r.key for r in log.read(at, 0)[0]] == [b"b"]
    assert log.bounds(at) == (0, 3, 3)


def test_a_failed_producer_is_of_no_more_use() -> None:
    """Committing with it again is an error of whoever does."""
    with VirtualTimeLoop() as loop:

        async def story() -> None:
            producer = MemoryProducer(MemoryLog(lambda: 0), "app-0", "group")
            await producer.fence()
            with pytest.raises(WriteRefused):
                await producer.commit(Transaction({TopicPartition("missing", 0): rows("a")}, {}))
            with pytest.raises(AssertionError):
                await producer.commit(Transaction({}, {}))

        loop.run_until_complete(story())
