"""What is bound to the event loop that it is first used in."""

from __future__ import annotations

import asyncio


class OneLoop:
    """Remembers the loop. Its connections are that loop's: in another one nothing would ever be answered."""

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._loop: asyncio.AbstractEventLoop | None = None

    def enter(self) -> None:
        """It is used here. Raises RuntimeError in another loop than the first time."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError(
                f"{self._subject} belongs to the event loop that it was first used in, and this is another "
                "one: make one in each loop (each asyncio.run() has a loop of its own), or use the blocking "
                "client."
            )
