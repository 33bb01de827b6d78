"""A process that hangs is ended, and says where it hung."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time

import pytest

from delaystream.exit_codes import ExitCode

HANGS = textwrap.dedent(
    """
    import asyncio, time
    from types import SimpleNamespace
    from delaystream.adapters.operate.watchdog import Watchdog

    host = SimpleNamespace(
        joined=True,
        membership_confirmed=True,
        shortage=None,
        consumer_failure=None,
        unpolled_ms=0,
        partitions=list,
    )

    def hang_here():
        time.sleep(60)

    async def main():
        watching = asyncio.create_task(Watchdog(host, 2_000, 2_000).run())
        await asyncio.sleep(1)
        hang_here()

    asyncio.run(main())
    """
)


@pytest.mark.timeout(60)
def test_an_event_loop_that_hangs_is_ended_from_a_thread_with_its_stack() -> None:
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=40, check=False
    )
    assert ended.returncode == ExitCode.STALLED
    assert "hang_here" in ended.stderr
    assert "event loop has not run" in ended.stdout + ended.stderr
    assert time.monotonic() - began < 30
