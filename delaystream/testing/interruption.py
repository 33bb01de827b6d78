"""Where a port waits for the outside world, something may happen to it.

Every port of this package passes a named point before and after each effect. What happens there is up to the
:class:`Interruptions` it was given: nothing (:class:`Calm`), or latency, an error, the death of the process.

=========================  ===========================================================================
point                      effect that lies behind it
=========================  ===========================================================================
``fence`` ``fenced``       InitProducerId
``write`` ``written``      the rows of one partition
``offsets``                the group's offsets
``end`` ``ended``          EndTxn: from there on the transaction is committed
``close``                  the abort of what is open
``open-changelog`` ``bounds`` ``read``   look at the changelog
``source-bounds`` ``fetch``              look at the requests
``ensure``                 look up destinations
``open-store`` ``look`` ``store`` ``stored``   the local store; synchronous
=========================  ===========================================================================
"""

from __future__ import annotations

import asyncio
from typing import Protocol


class Interruptions(Protocol):
    """Decides what happens at the points."""

    async def at(self, point: str, subject: str) -> None:
        """Pass a point of an asynchronous call; ``subject`` is the topic, transactional id or partition."""
        ...

    def at_once(self, point: str, subject: str) -> None:
        """Pass a point of a synchronous call."""
        ...


class Calm:
    """Nothing happens; other tasks get their turn."""

    async def at(self, point: str, subject: str) -> None:
        """Give way to other tasks."""
        await asyncio.sleep(0)

    def at_once(self, point: str, subject: str) -> None:
        """Go on."""
