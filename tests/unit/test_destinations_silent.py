"""Kafka that is slow to say what it has of a topic costs time, never a receipt."""

from __future__ import annotations

import asyncio

from delaystream.engine.failures import LogUnavailable
from delaystream.testing import MemoryDestinations
from delaystream.testing.interruption import Calm
from tests.unit.engine import Engine, in_virtual_time


class _Silent(Calm):
    """The first look-ups of one topic come to nothing."""

    def __init__(self, topic: str, times: int) -> None:
        self._topic = topic
        self.left = times

    async def at(self, point: str, subject: str) -> None:
        if point == "ensure" and subject == self._topic and self.left:
            self.left -= 1
            raise LogUnavailable("no answer")


def test_a_receipt_waits_for_kafka_to_answer() -> None:
    """Longer than the look-ups of one attempt: the request stays unread until the topic is known."""

    async def test(engine: Engine) -> None:
        silence = _Silent("replies", 12)
        await engine.stop()
        engine.start(destinations=MemoryDestinations(engine.log, interruptions=silence))
        engine.request(b"a", destination="orders", delay="0", reply_to="replies")
        await asyncio.sleep(60)
        assert silence.left == 0
        assert len(engine.read("replies")) == 1
        assert len(engine.read("orders")) == 1

    in_virtual_time(test)
