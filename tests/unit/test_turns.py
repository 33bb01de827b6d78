"""What takes long to decide on leaves other partitions their turn of the event loop."""

from __future__ import annotations

import asyncio
from itertools import count, islice
from typing import Any

import pytest

from delaystream.codec.requests.headers import RequestParser
from delaystream.core.partitioning import owner_partition
from delaystream.engine.fire.named import NamedFires
from delaystream.engine.schedules.schedules import Schedules
from tests.unit.engine import Engine, header, in_virtual_time

_SECONDS = 0.05
_DEAR = 100


@pytest.mark.parametrize(
    ("what", "name"),
    [
        pytest.param(RequestParser, "_check_sizes", id="read"),
        pytest.param(Schedules, "apply", id="decide"),
        pytest.param(NamedFires, "fire", id="fire"),
    ],
)
def test_what_takes_long_leaves_other_partitions_their_turn(
    monkeypatch: pytest.MonkeyPatch, what: type[Any], name: str
) -> None:
    """A hundred requests of 50 ms each on one partition; something is due on the other one meanwhile."""

    async def test(engine: Engine) -> None:
        original, took = getattr(what, name), 0

        def dear(self: Any, *rest: Any) -> Any:
            nonlocal took
            took += 1
            engine.loop.idle(_SECONDS)
            return original(self, *rest)

        now_ms = engine.clock.now_ms()
        engine.request(b"other", destination="emails", at=str(now_ms + 11_000), partition=1)
        await asyncio.sleep(1)
        ids = islice((id for n in count() if owner_partition(id := f"id-{n}", 2) == 0), _DEAR)
        for id in ids:
            engine.request(destination="orders", id=id, at=str(now_ms + 10_000))
        if what is NamedFires:
            await asyncio.sleep(8)
        else:
            # When they are read, and while they are, something is due elsewhere.
            engine.request(b"other", destination="emails", delay="1s", partition=1)
        monkeypatch.setattr(what, name, dear)
        await asyncio.sleep(30)
        assert took >= _DEAR
        assert len(engine.read("orders")) == _DEAR
        for other in engine.read("emails"):
            lateness_ms = other.timestamp - int(header(other, "due-at"))
            # Sixteen of them, and what the transactions take.
            assert lateness_ms < 20 * _SECONDS * 1000

    in_virtual_time(test, partitions=2)
