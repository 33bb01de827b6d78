"""One partition of a topic, read for as long as there is a console: its log is opened again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

from delaystream.engine.failures import LogUnavailable, Misconfigured

RETRY_S: Final = 1.0
"""After a failure of Kafka it is tried again so much later."""


class Closing(Protocol):
    """What is opened for a partition."""

    async def close(self) -> None:
        """Let go of every connection."""
        ...


Log = TypeVar("Log", bound=Closing)


async def kept_open(
    partition: int,
    open_log: Callable[[int], Awaitable[Log]],
    read: Callable[[Log], Awaitable[None]],
    complain: Callable[[Exception], None],
    *also: type[Exception],
) -> None:
    """Open a partition's log and have it read, until cancelled.

    Where opening or reading ends with LogUnavailable, Misconfigured or one of `also`, `complain` is told, and
    it begins again after `RETRY_S`; so it does where reading returns. Every other exception is the caller's.
    """
    passing: tuple[type[Exception], ...] = (LogUnavailable, Misconfigured, *also)
    while True:
        try:
            log = await open_log(partition)
            try:
                await read(log)
            finally:
                await log.close()
        except passing as problem:
            complain(problem)
        await asyncio.sleep(RETRY_S)
