"""Ends background tasks."""

from __future__ import annotations

import asyncio
from typing import Any


async def end(tasks: list[asyncio.Task[Any]]) -> None:
    """Cancel tasks, wait for their ends, and empty the list.

    A task keeps its exception, the exception keeps every frame that it has passed through, and a frame keeps
    its tasks. Only the garbage collector ends such a cycle, and until then the cycle would keep a
    transaction's megabytes.
    """
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    tasks.clear()
