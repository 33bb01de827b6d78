"""Requests read as a worker reads them, before they are sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from threading import local
from typing import TYPE_CHECKING, Final, cast

from delaystream.client.requests.outcomes import RejectedError
from delaystream.client.requests.records import RequestRecord
from delaystream.client.requests.timing import aware
from delaystream.core.record import Record
from delaystream.core.rejection import Rejection
from delaystream.core.request import Coordinates

if TYPE_CHECKING:
    from delaystream.codec.requests.headers import RequestParser
    from delaystream.config import Settings
    from delaystream.core.request import Request

REQUEST_TOPIC: Final = "delay-requests"
RECEIPTS_TOPIC: Final = "delay-receipts"


def wall_ms() -> int:
    """Milliseconds since the epoch, by this machine's clock."""
    return time.time_ns() // 1_000_000


class Checker:
    """Parses requests of one topic as a worker with these settings would; for use by any thread.

    What only the workers know is not looked at: their allow-list, whether the destination is there and has
    the partition, what has the id by now, how much may be pending.
    """

    def __init__(self, make_parser: Callable[[], RequestParser], now_ms: Callable[[], int] = wall_ms) -> None:
        self._make_parser = make_parser
        self._now_ms = now_ms
        #: where a request stands as far as its check is concerned, of the topic that was sent to last
        self._source = Coordinates("", 0, 0)
        # A parser is for one thread. A lock instead might be held by another thread while the process forks.
        self._of_thread = local()

    @classmethod
    def of(cls, topic: str, settings: Settings | None = None, now_ms: Callable[[], int] = wall_ms) -> Checker:
        """For the requests of `topic`; without settings with the limits and names that are the defaults.

        Times are held against the clock `now_ms`.
        """
        return cls(partial(_parser, topic, settings), now_ms)

    def check(self, record: RequestRecord, timestamp_ms: int | None = None) -> Request:
        """The parsed request, by the timestamp that it has on its topic, or as if it were sent now.

        Raises RejectedError with the code that a worker would refuse it with.
        """
        now_ms = self._now_ms()
        if timestamp_ms is None:
            timestamp_ms = now_ms
        source = self._source
        if source.topic != record.topic:
            self._source = source = Coordinates(record.topic, 0, 0)
        received = Record(source, timestamp_ms, record.key, record.value, record.headers)
        parsed = self._parser.parse(received, now_ms)
        if isinstance(parsed, Rejection):
            raise RejectedError(parsed.code.value, parsed.detail)
        return parsed

    def due_at(self, record: RequestRecord, timestamp_ms: int) -> tuple[datetime, ...]:
        """When the record is due that has this timestamp on its topic; of what recurs the first time."""
        from delaystream.core.recurrence import next_after

        try:
            parsed = self.check(record, timestamp_ms)
        except RejectedError:
            return ()  # a broker's clock that is far off: what the worker makes of it, its receipt says
        if parsed.recurrence is None:
            return tuple(map(aware, parsed.due_ms))
        first_ms = next_after(parsed.recurrence, timestamp_ms)
        return () if first_ms is None else (aware(first_ms),)

    @property
    def _parser(self) -> RequestParser:
        try:
            return cast("RequestParser", self._of_thread.parser)
        except AttributeError:
            self._of_thread.parser = parser = self._make_parser()
            return parser


def _parser(topic: str, settings: Settings | None) -> RequestParser:
    from delaystream.codec.requests.headers import RequestParser
    from delaystream.core.destinations import DestinationFilter
    from delaystream.core.limits import Limits
    from delaystream.engine.settings import EngineSettings

    if settings is None:
        names = EngineSettings()
        own = (names.commands_topic, names.changelog_topic, names.events_topic, names.dead_letters_topic)
        return RequestParser(DestinationFilter(["*"], [topic, *own], RECEIPTS_TOPIC), Limits())
    requests = settings.requests(topic)
    return RequestParser(
        # This side does not know what the workers allow; it knows what no worker can allow.
        DestinationFilter(["*"], settings.own_topics, settings.receipts_topic),
        requests.limits(),
        requests.default_destination,
        requests.default_timezone,
    )


def check(record: RequestRecord) -> tuple[datetime, ...]:
    """When a request would be due if it were sent now: what a worker with default limits makes of it.

    Raises RejectedError where a worker would refuse it.
    """
    checker = Checker.of(record.topic)
    checker.check(record)
    return checker.due_at(record, wall_ms())
