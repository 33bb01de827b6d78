"""Ending what runs in the background."""

from __future__ import annotations

import asyncio
from typing import Any


async def end(tasks: list[asyncio.Task[Any]]) -> None:
    """Cancel tasks, wait for their ends, and empty the list.

    A task keeps its exception, the exception every frame that it has passed through, and a frame its tasks:
    nothing but the garbage collector ends that cycle, and it would keep a transaction's megabytes until then.
    """
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    tasks.clear()
