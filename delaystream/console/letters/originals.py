"""Letters as they stand on their topic: bytes untouched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Final

import msgspec

from delaystream.console.letters.latest import Letter, LetterLog, letter_of
from delaystream.core.request import Header
from delaystream.engine.ports import TopicRecord

READERS: Final = 4
"""So many read the topic at once; one more waits."""
_LARGEST_OFFSET: Final = (1 << 63) - 1


class Original(msgspec.Struct, frozen=True):
    """A whole letter."""

    letter: Letter
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]


class Originals:
    """Reads letters from their topic; for one event loop."""

    def __init__(self, partitions: int, open_log: Callable[[int], Awaitable[LetterLog]]) -> None:
        self.partitions = partitions
        self._open_log = open_log
        self._room = asyncio.Semaphore(READERS)

    async def one(self, partition: int, offset: int) -> Original | None:
        """The letter at a place; None where none is (any more). Raises LogUnavailable, Misconfigured."""
        if not 0 <= partition < self.partitions or not 0 <= offset <= _LARGEST_OFFSET:
            return None
        async with aclosing(self.several(partition, [offset])) as found:
            return await anext(found, None)

    async def several(self, partition: int, offsets: Sequence[int]) -> AsyncGenerator[Original, None]:
        """Those of a partition that are at some offsets, in their order; what is not there is left out.

        Raises LogUnavailable, Misconfigured.
        """
        async with self._room:
            log = await self._open_log(partition)
            try:
                bounds = await log.bounds()
                wanted = sorted(offset for offset in set(offsets) if bounds.start <= offset < bounds.stable)
                while wanted:
                    batch = await log.read_records(wanted[0])
                    there = {record.offset: record for record in batch.records}
                    passed = [offset for offset in wanted if offset < batch.next_position]
                    for offset in passed:
                        if (record := there.get(offset)) is not None:
                            yield original_of(partition, record)
                    if not passed:
                        # Nothing was handed out, and nothing stands in between.
                        return
                    wanted = wanted[len(passed) :]
            finally:
                await log.close()

    async def start(self, partition: int) -> int:
        """The first offset that is still there. Raises LogUnavailable, Misconfigured."""
        async with self._room:
            log = await self._open_log(partition)
            try:
                return (await log.bounds()).start
            finally:
                await log.close()


def original_of(partition: int, record: TopicRecord) -> Original:
    """A record of the topic as a whole letter."""
    return Original(letter_of(partition, record), record.key, record.value, list(record.headers))
