"""What a partition does with a record that stands for a whole record batch nobody could read."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from delaystream.adapters.kafka.record_batches import LegacyRecord
from delaystream.core.rejection import Code, Rejection
from delaystream.engine.observer import Silence, Work
from delaystream.engine.ports import SourceBatch, TopicPartition
from delaystream.testing import MemorySources, VirtualTimeLoop
from tests.unit.engine import REQUESTS, Engine, header

FIRST, LAST = 5, 24
REFUSED = Rejection(Code.BATCH_TOO_LARGE, "the record batch of offsets 5 to 24 is large", records=20)


class Refusing(MemorySources):
    """Cannot read one batch of one topic: hands out a record that stands for it, as the fetcher does."""

    refused_topic = REQUESTS

    def _take(self, topic: str) -> SourceBatch | None:
        batch = super()._take(topic)
        if batch is None or topic != self.refused_topic or not batch.start <= LAST < batch.stop:
            return batch
        first = max(FIRST, batch.start)
        records = [record for record in batch.records if record.offset < first]
        self._positions[topic] = self._delivered[topic] = LAST + 1
        stand_in = LegacyRecord(first, 1_000, None, None)
        return SourceBatch(topic, [*records, stand_in], batch.start, LAST + 1, 100, {first: REFUSED})


class Counting(Silence):
    """Counts what was rejected."""

    def __init__(self) -> None:
        self.rejected: Counter[str] = Counter()

    def committed(self, partition: int, work: Work) -> None:
        """Count."""
        for (_, code), count in work.rejected.items():
            self.rejected[code] += count


@pytest.mark.parametrize("topic", [REQUESTS, "delay-commands"])
@pytest.mark.parametrize("most", [1, 4, 8_000])
def test_a_refused_batch_is_one_dead_letter_and_is_gone_past(topic: str, most: int) -> None:
    """However few records a step takes; and another life begins behind it."""
    with VirtualTimeLoop() as loop:

        async def run() -> None:
            engine = Engine(loop, transaction_max_records=most)
            counting = engine.observer = Counting()
            for number in range(30):
                if topic == REQUESTS:
                    engine.request(b"%d" % number, destination="orders", delay="0")
                else:
                    engine.log.append(TopicPartition(topic, 0), (b"k", b"%d" % number, (), 1_000))

            def sources(partition: int) -> MemorySources:
                refusing = Refusing(engine.log, [REQUESTS, "delay-commands"], partition)
                refusing.refused_topic = topic
                return refusing

            engine.start(sources)
            await asyncio.sleep(5)
            letters = engine.read("delay-dead-letters")
            [letter] = [each for each in letters if header(each, "error") == "batch-too-large"]
            assert (letter.key, letter.value) == (None, None)
            assert header(letter, "error-detail") == REFUSED.detail
            coordinates = [header(letter, f"error-{part}") for part in ("topic", "partition", "offset")]
            assert coordinates == [topic, "0", str(FIRST)]
            others = [record.value for record in engine.read("orders")] or [
                each.value for each in letters if each is not letter
            ]
            assert others == [b"%d" % number for number in range(30) if not FIRST <= number <= LAST]
            assert counting.rejected["batch-too-large"] == 20
            await engine.stop()
            engine.start(sources)
            await asyncio.sleep(5)
            assert counting.rejected["batch-too-large"] == 20
            assert engine.read("delay-dead-letters") == letters
            await engine.stop()

        loop.run_until_complete(run())
