"""The file of tokens, read again when it changes."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final

from delaystream.console.access.caller import NONE, Exceptions
from delaystream.console.access.tokens import MOST_BYTES, Tokens, TokensError, parse

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 1.0


class TokenFile:
    """The tokens as the file last had them when it was as it should be. Raises TokensError at the start.

    The content is compared, not times or inodes: whether the file is written in place, replaced, or reached
    by links that are (as Kubernetes mounts secrets), makes no difference.
    """

    def __init__(self, path: Path, hidden_keys: Exceptions = NONE) -> None:
        self._path = path
        self._hidden_keys = hidden_keys
        self._content = _read(path)
        self.tokens: Tokens = parse(self._content, hidden_keys)
        #: what is wrong with the file as it is now; None: nothing
        self.problem: str | None = None

    async def run(self) -> None:
        """Look each second until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Read the file, and take what it says where it is as it should be; blocks."""
        try:
            content = _read(self._path)
            if content == self._content:
                # Also one that was broken meanwhile, and is as it was again.
                self._settle(None)
                return
            self.tokens = parse(content, self._hidden_keys)
        except TokensError as error:
            self._settle(str(error))
            return
        self._content = content
        self._settle(None)
        logger.info("%d tokens are in force, from %s", len(self.tokens.entries), self._path)

    def _settle(self, problem: str | None) -> None:
        if problem is not None and problem != self.problem:
            logger.warning("%s is rejected, the previous tokens stay in force: %s", self._path, problem)
        self.problem = problem


def _read(path: Path) -> bytes:
    """Raises TokensError."""
    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        # The latter for a path that no system takes.
        reason = getattr(error, "strerror", None) or error
        raise TokensError([f"it cannot be read: {reason}."]) from None
