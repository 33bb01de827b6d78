"""How far one wheel has been drained in one step."""

from __future__ import annotations

import sys

from delaystream.engine.rates import Bucket
from delaystream.engine.tenants import Denial
from delaystream.engine.trouble import Trouble


class Drain:
    """One wheel in one step."""

    __slots__ = (
        "buckets", "cursor", "denial", "denied", "done", "limit",
        "most_fired", "parked", "taken", "topic", "trouble", "wheel",
    )  # fmt: skip

    def __init__(self, wheel: int, topic: str, trouble: Trouble | None, denial: Denial) -> None:
        self.wheel = wheel
        self.topic = topic
        self.trouble = trouble
        self.limit = trouble.limit if trouble is not None else None
        self.denial = denial
        #: no tenant's entries may go there any more
        self.denied = denial.everyone
        #: what bounds how fast it is drained
        self.buckets: tuple[Bucket, ...] = ()
        #: most records that the step may hold for its destination, by its rate
        self.most_fired = sys.maxsize
        self.parked = False
        self.cursor: bytes | None = None
        self.taken = 0
        self.done = False


def one_in_trouble(drains: list[Drain]) -> list[Drain]:
    """The wheels of a step, but of a destination in trouble one at a time.

    How much of it is tried is halved until the record at fault is alone, which it never would be while each
    of two wheels gave one.
    """
    tried: set[str] = set()
    kept: list[Drain] = []
    for drain in drains:
        if drain.trouble is not None:
            if drain.topic in tried:
                continue
            tried.add(drain.topic)
        kept.append(drain)
    return kept
