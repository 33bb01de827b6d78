"""How far one wheel has been drained in one step."""

from __future__ import annotations

from delaystream.engine.trouble import Trouble


class Drain:
    """One wheel in one step."""

    __slots__ = ("cursor", "denied", "done", "limit", "parked", "taken", "topic", "trouble", "wheel")

    def __init__(self, wheel: int, topic: str, trouble: Trouble | None) -> None:
        self.wheel = wheel
        self.topic = topic
        self.trouble = trouble
        self.limit = trouble.limit if trouble is not None else None
        self.denied = False
        self.parked = False
        self.cursor: bytes | None = None
        self.taken = 0
        self.done = False
