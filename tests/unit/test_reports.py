"""What a worker finds out for its metrics, and how often."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from delaystream.adapters.kafka.source_bounds import SourceEnds
from delaystream.app.reports import Reports
from delaystream.engine.failures import LogUnavailable
from delaystream.engine.ports import TopicPartition
from delaystream.testing import VirtualTimeLoop

SOURCE = TopicPartition("requests", 0)


class World:
    """A processor, and brokers that may be away."""

    def __init__(self) -> None:
        self.told = 0
        self.asked: list[Sequence[TopicPartition]] = []
        self.found: list[Mapping[TopicPartition, SourceEnds]] = []
        self.away = False

    def tell_overdue(self) -> None:
        """As a processor."""
        self.told += 1

    async def ends(self, sources: Sequence[TopicPartition]) -> Mapping[TopicPartition, SourceEnds]:
        """As the brokers."""
        self.asked.append(sources)
        if self.away:
            await asyncio.sleep(60)
            raise LogUnavailable("away")
        return {SOURCE: SourceEnds(len(self.asked), 0)}

    async def report(self, seconds: float) -> None:
        """Have reports made for so long."""
        reports = Reports(lambda: [self], lambda: [SOURCE], self.ends, self.found.append)
        running = asyncio.create_task(reports.run())
        await asyncio.sleep(seconds)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_what_is_overdue_is_told_every_second_and_ends_are_looked_up_every_five() -> None:
    world = World()
    with VirtualTimeLoop() as loop:
        loop.run_until_complete(world.report(20.5))
    assert world.told == 21
    assert world.asked == [[SOURCE]] * 5
    assert [ends[SOURCE].high_watermark for ends in world.found] == [1, 2, 3, 4, 5]


def test_brokers_that_are_away_keep_nobody_from_telling_what_is_overdue() -> None:
    """That is when it matters; and the look-ups go on when they are back."""
    world = World()
    world.away = True
    with VirtualTimeLoop() as loop:

        async def run() -> None:
            asyncio.get_running_loop().call_later(70, setattr, world, "away", False)
            await world.report(130.5)

        loop.run_until_complete(run())
    assert world.told == 131
    assert len(world.asked) > 2
    assert world.found
