"""Receipts, each handed to the one request that it is about, however many are in flight."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Final, TypeAlias

import msgspec

from delaystream.client.kafka.deliveries import Delivery
from delaystream.client.requests.outcomes import Receipt, UnavailableError
from delaystream.codec.outgoing import RECEIPT
from delaystream.core.request import Coordinates

EARLY_RECEIPTS: Final = 10_000
"""Most receipts that are kept for requests without an acknowledgement yet; the oldest go first."""
EARLY_BYTES: Final = 64 * 1024 * 1024
"""The values of these together, at most: one may be as large as its topic takes."""

Told: TypeAlias = Callable[[Receipt | UnavailableError], None]


class _About(msgspec.Struct):
    """The subject of a receipt, read without the rest."""

    source: str


_read: Final = msgspec.json.Decoder(_About).decode


class Receipts:
    """The receipts of one topic, matched to requests by the coordinates of these; any thread may use it.

    A worker may have decided before a producer hears where its record stands. So whoever means to wait says
    so before it sends (`announce`), and says afterwards what for (`expect`) or that it does not (`retract`).
    """

    def __init__(self, early: int = EARLY_RECEIPTS, early_bytes: int = EARLY_BYTES) -> None:
        self._most_early = early
        self._most_early_bytes = early_bytes
        self._lock = Lock()
        self._announced: set[object] = set()
        self._early: OrderedDict[str, bytes] = OrderedDict()
        self._early_bytes = 0
        self._waiting: dict[str, Told] = {}
        self._failure: UnavailableError | None = None

    @property
    def failed(self) -> bool:
        """Whether the topic cannot be read any more."""
        return self._failure is not None

    def announce(self, request: object) -> None:
        """A request is about to be sent whose receipt will be waited for; any object stands for it."""
        with self._lock:
            self._announced.add(request)

    def retract(self, request: object) -> None:
        """It was not sent after all."""
        with self._lock:
            self._sent(request)

    def expect(self, request: object, source: Coordinates, told: Told) -> None:
        """It stands at `source`: `told` has its receipt, now or once it comes; unless it is forgotten
        before."""
        about = source.text
        with self._lock:
            value = self._early.pop(about, None)
            self._early_bytes -= len(value or b"")
            failure = self._failure
            if value is None and failure is None:
                self._waiting[about] = told
            self._sent(request)
        if value is not None:
            self._tell(told, value)
        elif failure is not None:
            told(failure)

    def forget(self, source: Coordinates) -> None:
        """Nobody waits for the receipt of this request any longer."""
        with self._lock:
            self._waiting.pop(source.text, None)

    def take(self, record: Delivery) -> None:
        """A record of the topic; whoever may write there may write anything."""
        value = record.value
        if value is None or not any(name == RECEIPT for name, _ in record.headers):
            return
        try:
            about = _read(value).source
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        with self._lock:
            told = self._waiting.pop(about, None)
            if told is None and self._announced:
                self._keep(about, value)
        if told is not None:
            self._tell(told, value)

    def fail(self, failure: UnavailableError) -> None:
        """The topic cannot be read any more: whoever waits is told."""
        with self._lock:
            self._failure = failure
            waiting, self._waiting = self._waiting, {}
        for told in waiting.values():
            told(failure)

    def _keep(self, about: str, value: bytes) -> None:
        self._early_bytes += len(value) - len(self._early.pop(about, b""))
        self._early[about] = value
        while len(self._early) > self._most_early or self._early_bytes > self._most_early_bytes:
            self._early_bytes -= len(self._early.popitem(last=False)[1])

    def _sent(self, request: object) -> None:
        self._announced.discard(request)
        if not self._announced:
            self._early.clear()
            self._early_bytes = 0

    def _tell(self, told: Told, value: bytes) -> None:
        try:
            receipt = Receipt.parse(value)
        except (ValueError, RecursionError):
            told(UnavailableError(f"The record at the receipt's place is not a receipt: {value[:200]!r}."))
        else:
            told(receipt)
