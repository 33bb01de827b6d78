"""How far one wheel has been drained in one step."""

from __future__ import annotations

from delaystream.engine.rates import Bucket
from delaystream.engine.tenants import Denial
from delaystream.engine.trouble import Trouble


class Drain:
    """One wheel in one step."""

    __slots__ = (
        "buckets", "cursor", "denial", "denied", "done", "limit",
        "parked", "taken", "topic", "trouble", "wheel",
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
        self.parked = False
        self.cursor: bytes | None = None
        self.taken = 0
        self.done = False
