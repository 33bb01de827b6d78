"""What becomes of a worker when Faust ends: a failure while it serves, of no account once it stops."""

from __future__ import annotations

import asyncio

import pytest

from delaystream.adapters.batch_fetcher import ReaderSettings
from delaystream.adapters.faust_host import FaustCrashed, HostSettings, PartitionHost


def host() -> PartitionHost:
    """One that has joined no group; its processors and bounds are never asked for."""

    def unused(*_: object) -> None:
        raise AssertionError("not in this test")

    reader = ReaderSettings(
        client={"bootstrap_servers": "127.0.0.1:1"},
        group_id="group",
        group_instance_id=None,
        session_timeout_ms=6_000,
        heartbeat_interval_ms=500,
    )
    return PartitionHost(HostSettings(("requests", "commands"), reader), unused, unused)  # type: ignore[arg-type]


def crash(made: PartitionHost) -> asyncio.Task[None]:
    """Faust says that it has crashed, as it does when a cancelled fetcher takes the stop for a rebalance."""
    made._failure = asyncio.get_running_loop().create_future()
    made._app._crash(asyncio.CancelledError())
    return asyncio.create_task(made._watch_faust())


def test_a_crash_while_serving_ends_the_worker() -> None:
    async def scenario() -> None:
        with pytest.raises(FaustCrashed, match="CancelledError"):
            await crash(host())

    asyncio.run(scenario())


def test_a_crash_while_stopping_is_no_failure() -> None:
    """SIGTERM in the middle of a rebalance must end with 0: everything at stake has stopped before."""

    async def scenario() -> None:
        made = host()
        made._stopping = True
        watching = crash(made)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not watching.done()
        assert made._failure is not None
        made._failure.set_result(None)
        await watching

    asyncio.run(scenario())
