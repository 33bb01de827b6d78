"""While Kafka is away, a console answers with what it has, and says how old that is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from delaystream.console import partitions
from delaystream.console.replica.follower import Phase
from delaystream.console.writing.positions import position_text
from delaystream.engine.failures import LogUnavailable, StoreUntrusted
from delaystream.engine.ports import ChangelogBatch
from delaystream.testing import MemoryChangelog
from tests.unit.console.serving import CHANGELOG
from tests.unit.console.writable import World, in_world

IDS = [f"user-{number}" for number in range(8)]
LISTS = ("/v1/schedules?sort=id", "/v1/pending", "/v1/stats", "/v1/agenda", "/v1/destinations")
LATER = {"delay": "1h", "destination": "orders", "value": "x"}


class Outage:
    """Partition 0 of the changelog, which can be away, or say that the copy is no copy of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.problem: Exception | None = None
        self.tries = asyncio.Event()
        read, bounds = MemoryChangelog.read, MemoryChangelog.bounds

        def check(log: MemoryChangelog) -> None:
            if self.problem is not None and tuple(log._at) == (CHANGELOG, 0):
                self.tries.set()
                raise self.problem

        async def reading(log: MemoryChangelog, position: int) -> ChangelogBatch:
            check(log)
            return await read(log, position)

        async def bounding(log: MemoryChangelog) -> Any:
            check(log)
            return await bounds(log)

        monkeypatch.setattr(partitions, "RETRY_S", 0.01)
        monkeypatch.setattr(MemoryChangelog, "read", reading)
        monkeypatch.setattr(MemoryChangelog, "bounds", bounding)

    async def tried(self) -> None:
        """Until the console has found it away some times more."""
        for _ in range(3):
            self.tries.clear()
            await asyncio.wait_for(self.tries.wait(), 20)


async def caught_up(world: World) -> None:
    """Until the console follows again, and shows everything."""
    async with asyncio.timeout(20):
        while not world.console.ready or world.console.statuses[0].problem is not None:  # noqa: ASYNC110  # it is told nowhere
            await asyncio.sleep(0.01)
    await world.caught_up()


async def made(world: World) -> None:
    """A schedule on each partition at least, and one event without an id."""
    for id in IDS:
        assert (await world.ask.put(f"/v1/schedules/{id}", json=LATER)).status_code == 201
    await world.caught_up()


def known(body: dict[str, Any]) -> dict[str, Any]:
    """An answer without its age."""
    return {name: value for name, value in body.items() if name not in {"as_of", "lag_ms", "problems"}}


def test_what_a_copy_has_is_shown_while_kafka_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage = Outage(monkeypatch)

    async def story(world: World) -> None:
        await made(world)
        before = {path: known((await world.ask.get(path)).json()) for path in LISTS}
        assert before[LISTS[0]]["missing_partitions"] == []
        assert [one["id"] for one in before[LISTS[0]]["items"]] == IDS
        outage.problem = LogUnavailable("no leader")
        await outage.tried()
        world.advance(60)
        for path, expected in before.items():
            answer = (await world.ask.get(path)).json()
            assert known(answer) == expected, path
            assert answer["lag_ms"] >= 60_000, path
        assert [(await world.ask.get(f"/v1/schedules/{id}")).status_code for id in IDS] == [200] * len(IDS)
        assert world.console.statuses[0].problem == "no leader"
        # What came since is not shown: a position behind it is not reached.
        beyond = world.console.statuses[0].position + 1
        asked = {"If-Position": position_text({0: beyond})}
        assert (await world.ask.get("/v1/schedules", headers=asked)).status_code == 425
        outage.problem = None
        await caught_up(world)
        assert world.console.statuses[0].phase in {Phase.FOLLOWING, Phase.CATCHING_UP}
        assert (await world.ask.put("/v1/schedules/another", json=LATER)).status_code == 201
        await world.caught_up()
        assert len((await world.ask.get("/v1/schedules")).json()["items"]) == len(IDS) + 1

    in_world(tmp_path, story)


def test_a_copy_that_was_thrown_away_is_missing_until_it_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage = Outage(monkeypatch)

    async def story(world: World) -> None:
        await made(world)
        outage.problem = StoreUntrusted("tombstones are gone")
        await outage.tried()
        answer = (await world.ask.get("/v1/schedules")).json()
        assert not answer["complete"]
        assert [one["partition"] for one in answer["missing_partitions"]] == [0]
        assert answer["lag_ms"] is None
        assert not world.console.ready
        assert (await world.ask.get("/health/ready")).status_code == 503
        asked = {"If-Position": position_text({0: 1})}
        assert (await world.ask.get("/v1/schedules", headers=asked)).status_code == 425
        outage.problem = None
        await caught_up(world)
        answer = (await world.ask.get("/v1/schedules?sort=id")).json()
        assert [one["id"] for one in answer["items"]] == IDS
        assert answer["missing_partitions"] == []

    in_world(tmp_path, story)
