"""Destinations that cannot be written to, told in the terminal of `delaystream dev`: the worker's log has
them, too, but a typing error is made here."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

import msgspec

from delaystream.client import Delivery
from delaystream.codec.event import EventType

#: For how long the events are polled: what is there is taken, and nothing is waited for.
_POLL_S: Final = 0.01
#: A poll may take 0.2 s, in which deliveries are not shown.
_EVERY_S: Final = 1.0


class Records(Protocol):
    """A topic that is read."""

    def read(self, seconds: float) -> Iterator[Delivery]:
        """What comes within so long."""
        ...


class ParkedDestinations:
    """Follows the events topic. A destination is parked by each partition that has something for it."""

    def __init__(self, events: Records) -> None:
        self._events = events
        self._next_s = 0.0
        self._parked: dict[str, set[int]] = {}

    def look(self) -> Iterator[str]:
        """A sentence for each destination that is parked, or not parked any more; a look a second at most."""
        if time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + _EVERY_S
        for record in self._events.read(_POLL_S):
            told = self._told(_event(record))
            if told is not None:
                yield told

    def _told(self, event: Mapping[str, Any]) -> str | None:
        kind, destination, partition = (event.get(name) for name in ("type", "destination", "partition"))
        if not isinstance(destination, str) or not isinstance(partition, int):
            return None
        if kind == EventType.PARKED:
            known = destination in self._parked
            self._parked.setdefault(destination, set()).add(partition)
            reason = event.get("reason")
            sentence = f"parked: {destination} cannot be written to ({reason}); what is due waits for it"
            return None if known else sentence
        if kind == EventType.RELEASED:
            left = self._parked.get(destination, set())
            left.discard(partition)
            if not left:
                self._parked.pop(destination, None)
                return f"no longer parked: {destination} is written to again"
        return None


def _event(record: Delivery) -> Mapping[str, Any]:
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.json.decode(record.value or b"", type=dict[str, Any])
    return {}
