"""How far one wheel has been drained in one step."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from delaystream.codec.envelope import Ended, Hold
from delaystream.core.rates import Bucket
from delaystream.engine.policy.destination_health import Trouble
from delaystream.engine.policy.tenants import Denial


class WheelCursor:
    """One wheel in one step."""

    __slots__ = (
        "at", "buckets", "denial", "done", "ended", "fireable_ms", "holds", "leaving", "limit", "most_fired",
        "parked", "partitions", "position", "released_ms", "requeued", "suspicious", "taken", "topic",
        "trouble", "wheel",
    )  # fmt: skip

    def __init__(
        self, wheel: int, topic: str, trouble: Trouble | None, denial: Denial, partitions: int
    ) -> None:
        self.wheel = wheel
        self.topic = topic
        self.trouble = trouble
        self.limit = trouble.limit if trouble is not None else None
        self.denial = denial
        #: of the destination; 0 while it cannot be written, or may not be any more
        self.partitions = 0 if denial.everyone else partitions
        #: whether any of its fires may be impossible
        self.suspicious = trouble is not None or denial.anyone
        #: when the hold that kept its entries back ended; the wait for the destination counts from then on
        self.released_ms = 0
        #: since when its entries may go out: nothing has kept the wheel as such waiting since; 0: ever since
        self.fireable_ms = 0
        #: what may keep an entry without an id back
        self.holds: Sequence[Hold] = ()
        #: what may have kept it back, and says what becomes of it if it is late
        self.ended: Sequence[Ended] = ()
        #: what bounds how fast it is drained
        self.buckets: tuple[Bucket, ...] = ()
        #: numbers of sources whose entries belong to another wheel by now: of a common wheel, those of
        #: tenants that have their own; of a tenant's own wheel, all of its, when its rate has ended
        self.leaving: frozenset[int] = frozenset()
        #: whether this step has requeued any of its entries in another wheel
        self.requeued = False
        #: most records that the step may hold for its destination, by its rate
        self.most_fired = sys.maxsize
        #: found to be impossible to write in this very step
        self.parked = False
        #: the entry that is being decided on
        self.at: bytes | None = None
        self.position: bytes | None = None
        self.taken = 0
        self.done = False

    def park(self, trouble: Trouble) -> None:
        """The destination cannot be written."""
        self.parked = True
        self.trouble = trouble
        self.suspicious = True


def one_in_trouble(cursors: list[WheelCursor]) -> list[WheelCursor]:
    """The wheels of a step, with at most one wheel of each destination in trouble.

    The number of tried entries is halved until the record at fault is alone. With one entry from each of two
    wheels it would never be alone.
    """
    tried: set[str] = set()
    kept: list[WheelCursor] = []
    for cursor in cursors:
        if cursor.trouble is not None:
            if cursor.topic in tried:
                continue
            tried.add(cursor.topic)
        kept.append(cursor)
    return kept
