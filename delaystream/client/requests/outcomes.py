"""Outcomes of a request: acknowledged, carried out, refused, or not known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Self

import msgspec

from delaystream.client.requests.records import Sent
from delaystream.client.requests.timing import aware
from delaystream.core.request import Coordinates


class ClientError(Exception):
    """Base of all errors of the client; the message is a sentence."""


class RejectedError(ClientError):
    """A request is refused: before it was sent, as a worker would, or by a worker's receipt.

    `code` is stable and in docs/headers.md, `detail` is one sentence. `receipt` is what the worker said, None
    where the request was not sent.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.code, self.detail, self.receipt), self.__dict__

    def __init__(self, code: str, detail: str, receipt: Receipt | None = None) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.receipt = receipt


class UnavailableError(ClientError):
    """Kafka did not answer, or refused."""


class MissingTopicError(UnavailableError):
    """A topic does not exist; `topic` names it."""

    def __init__(self, topic: str, sentence: str | None = None) -> None:
        super().__init__(sentence or f"Topic {topic} cannot be used: it does not exist.")
        self.topic = topic

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.topic, str(self)), self.__dict__


class MissingPartitionError(ClientError):
    """A request names a partition that its topic does not have; it was not sent."""


class UnknownIdError(ClientError):
    """No schedule has the id that was to be changed."""


class ReceiptTimeout(ClientError, TimeoutError):
    """No receipt came in time: nobody knows what became of the request, which may be carried out yet.

    `source` is where it stands, `reply_to` the topic on which the receipt was waited for, `wait_s` how long.
    """

    def __init__(self, source: Coordinates, reply_to: str, wait_s: float) -> None:
        super().__init__(
            f"No receipt on {reply_to} within {wait_s:g} s. The request stands at {source.text} and may have "
            f"been "
            "carried out, or may still be. Is a worker running that reads the topic, may it write to "
            f"{reply_to}, and are the bootstrap servers those of its cluster? Its event, and its dead letter "
            f"if "
            "it was refused, say what became of it."
        )
        self.source = source
        self.reply_to = reply_to
        self.wait_s = wait_s

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.source, self.reply_to, self.wait_s), self.__dict__


@dataclass(frozen=True)
class Receipt:
    """The outcome of a request: the value of a record on its `reply-to` topic."""

    json: str
    """As the worker wrote it."""
    body: Mapping[str, Any] = field(repr=False)
    """The same as an object; docs/headers.md says what it may hold."""

    @classmethod
    def parse(cls, value: bytes) -> Self:
        """Raises ValueError for what is no JSON object, RecursionError for one that is nested too deeply."""
        return cls(value.decode(), msgspec.json.decode(value, type=dict[str, Any]))

    def _text(self, name: str) -> str | None:
        value = self.body.get(name)
        return value if isinstance(value, str) else None

    def _number(self, name: str) -> int | None:
        value = self.body.get(name)
        return value if isinstance(value, int) else None

    @property
    def outcome(self) -> str:
        """`scheduled`, `cancelled`, `rejected`, ..."""
        return self._text("outcome") or ""

    @property
    def schedule_id(self) -> str:
        """The id, or the request's coordinates."""
        return self._text("schedule_id") or ""

    @property
    def source(self) -> str:
        """`topic/partition/offset` of the request."""
        return self._text("source") or ""

    @property
    def code(self) -> str | None:
        """Why it was rejected."""
        return self._text("code")

    @property
    def detail(self) -> str | None:
        """The same in a sentence."""
        return self._text("detail")

    @property
    def fire_id(self) -> str | None:
        """The fire that came before a cancel."""
        return self._text("fire_id")

    @property
    def status(self) -> str | None:
        """Where the schedule stands after this: `pending`, `paused`, `fired`, `cancelled`."""
        return self._text("status")

    @property
    def version(self) -> int | None:
        """Which version of the schedule that is."""
        return self._number("version")

    @property
    def due_at(self) -> tuple[datetime, ...]:
        """The due times that the receipt tells of: of a recurring schedule the first."""
        fires = self.body.get("fires")
        found = (
            [fire.get("due_at_ms") for fire in fires if isinstance(fire, dict)]
            if isinstance(fires, list)
            else []
        )
        return tuple(aware(due_ms) for due_ms in found if isinstance(due_ms, int))

    @property
    def until(self) -> datetime | None:
        """When a pause ends by itself."""
        until_ms = self._number("until_ms")
        return None if until_ms is None else aware(until_ms)

    @property
    def count(self) -> int | None:
        """Of a bulk command: how many schedules it has changed; of one by coordinates: how many fires."""
        return self._number("count")

    @property
    def anonymous(self) -> int | None:
        """Of a bulk command: how many fires without an id it has changed."""
        return self._number("anonymous")


def _known(due_at: tuple[datetime, ...], _timestamp_ms: int) -> tuple[datetime, ...]:
    """Due times that were worked out before."""
    return due_at


@dataclass(frozen=True, slots=True)
class Accepted:
    """A request that stands on its topic, acknowledged by all in-sync replicas.

    Where its receipt was waited for, `receipt` has it, and `outcome` and `version` are told.
    """

    sent: Sent
    id: str | None = None
    """The id that it named; None where only its coordinates do."""
    receipt: Receipt | None = None
    due_times: Callable[[int], tuple[datetime, ...]] = field(
        default=partial(_known, ()), repr=False, compare=False
    )
    """Its due times by the timestamp that it has on its topic, ms."""

    def __reduce__(self) -> tuple[Any, ...]:
        # What works due times out has a parser, which stays in its process: the times themselves go along.
        due_at = self.due_times(self.sent.timestamp_ms)
        return type(self), (self.sent, self.id, self.receipt, partial(_known, due_at))

    @property
    def source(self) -> Coordinates:
        """Where the request stands."""
        return self.sent.source

    @property
    def timestamp(self) -> datetime:
        """The request's timestamp on its topic, which a delay counts from."""
        return aware(self.sent.timestamp_ms)

    @property
    def due_at(self) -> tuple[datetime, ...]:
        """When it is due, if it is carried out: of a recurring schedule the first time."""
        if self.receipt is not None and (told := self.receipt.due_at):
            return told
        return self.due_times(self.sent.timestamp_ms)

    @property
    def schedule_id(self) -> str:
        """The id, or the request's coordinates: what its deliveries have as their schedule id."""
        if self.receipt is not None and self.receipt.schedule_id:
            return self.receipt.schedule_id
        return self.sent.source.text if self.id is None else self.id

    @property
    def outcome(self) -> str | None:
        """The outcome by its receipt: docs/headers.md lists the outcomes. None: nobody waited."""
        return None if self.receipt is None else self.receipt.outcome

    @property
    def version(self) -> int | None:
        """The schedule's version after it, by its receipt."""
        return None if self.receipt is None else self.receipt.version
