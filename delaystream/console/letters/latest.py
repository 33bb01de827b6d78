"""The latest dead letters, in memory: the topic itself keeps them, so nothing is lost with a console.

A console reads the last `KEPT` of them when it starts, which takes a second, and follows from there. Of a
letter it keeps what tells why and of what, not the value: `delaystream.console.letters.originals` reads that.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from enum import StrEnum
from functools import partial
from heapq import merge
from itertools import islice
from typing import Final, Protocol, TypeAlias

import msgspec
from msgspec.structs import replace

from delaystream.codec.correlation import correlation_ids
from delaystream.codec.outgoing import (
    ERROR,
    ERROR_DETAIL,
    ERROR_OFFSET,
    ERROR_PARTITION,
    ERROR_TIMESTAMP,
    ERROR_TOPIC,
    OUTGOING_HEADERS,
    SCHEDULE_ID,
    SOURCE,
)
from delaystream.codec.requests.names import PREFIX
from delaystream.console.access.caller import Caller
from delaystream.console.partitions import kept_open
from delaystream.core.identity import schedule_id, split_schedule_id
from delaystream.core.instants import LATEST_MS
from delaystream.core.rejection import Code
from delaystream.engine.ports import LogBounds, TopicBatch, TopicRecord

logger = logging.getLogger(__name__)

KEPT: Final = 10_000
"""So many letters are kept, of all partitions together."""
HEADER_BYTES: Final = 2_048
"""Of a letter's headers, so many bytes are kept."""
KEY_BYTES: Final = 256
"""Of its key."""
CORRELATION_BYTES: Final = 256
"""Of each of its correlation ids."""

_SHOWN: Final = 10
_CORRELATED: Final = 4
_ID: Final = "delaystream-id"
_DESTINATION: Final = "delaystream-destination"
_GIVEN_UP: Final = frozenset({Code.ATTEMPTS_EXHAUSTED, Code.GIVEN_UP})
BATCHES: Final = frozenset({Code.BATCH_TOO_LARGE, Code.UNREADABLE_BATCH})
"""Codes of letters that stand for a whole batch."""
_LEFT_OUT: Final = " bytes are left out: the topic takes "


class Kind(StrEnum):
    """What a letter is of, and so the way in which it comes back."""

    REQUEST = "request"
    """A request that was refused."""
    FIRE = "fire"
    """A fire that proved impossible: its control headers were taken out on arrival."""
    DELIVERY = "delivery"
    """What a consumer gave up, after its last attempt or at once."""
    OTHER = "other"
    """Nothing that could be sent again: a whole batch, what a worker had stored, or not from delaystream."""


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter, without its value."""

    partition: int
    offset: int
    #: when it was written, ms
    at_ms: int
    kind: Kind = Kind.REQUEST
    #: of the contract; empty for a record that no worker wrote
    code: str
    detail: str
    #: of the record that was refused, or of the request whose fire was impossible or given up
    request_topic: str | None
    source: str | None
    source_at_ms: int | None
    #: where a delivery stood that was given up, `topic/partition/offset`
    delivery: str | None = None
    #: key, value and headers were too large for the topic
    left_out: bool = False
    id: str | None
    destination: str | None
    #: the beginning of it
    key: bytes | None
    value_bytes: int | None
    headers: Sequence[tuple[str, bytes | None]]
    headers_cut: bool
    #: some are left out because they are not to be seen
    headers_hidden: bool = False
    #: what its headers correlate it with, the first of them, up to `CORRELATION_BYTES` of each
    correlation_ids: Sequence[bytes] = ()

    @property
    def place(self) -> tuple[int, int, int]:
        """Where it stands in a list, the latest last."""
        return self.at_ms, self.partition, self.offset

    @property
    def name(self) -> str:
        """Where it stands on its topic, `partition.offset`."""
        return f"{self.partition}.{self.offset}"


class LetterFilter(msgspec.Struct, frozen=True):
    """Which letters are meant; None: any."""

    tenants: frozenset[str] | None = None
    code: str | None = None
    destination: str | None = None
    id: str | None = None
    #: from, and up to without that, ms
    from_ms: int | None = None
    to_ms: int | None = None

    def fits(self, letter: Letter) -> bool:
        """Whether a letter is meant."""
        return (
            (self.tenants is None or letter.request_topic in self.tenants)
            and self.code in (None, letter.code)
            and self.destination in (None, letter.destination)
            and self.id in (None, letter.id)
            and (self.from_ms is None or letter.at_ms >= self.from_ms)
            and (self.to_ms is None or letter.at_ms < self.to_ms)
        )


Also: TypeAlias = Callable[[Letter], bool]


class LetterPage(msgspec.Struct, frozen=True):
    """Some letters, the latest first."""

    items: Sequence[Letter]
    #: the place that the next page begins behind; None: there is none
    next: tuple[int, int, int] | None


class LetterStatus(msgspec.Struct, frozen=True):
    """How far one partition of the dead letters' topic is read."""

    partition: int
    position: int = 0
    end: int = 0
    #: letters before this offset are not kept here
    kept_from: int = 0
    #: offsets behind that which are in batches that cannot be read
    skipped: int = 0
    #: wall clock, ms, at which nothing was missing; None: not since the console started
    as_of_ms: int | None = None
    problem: str | None = None


class LetterLog(Protocol):
    """One partition of the topic."""

    async def bounds(self) -> LogBounds:
        """Raises LogUnavailable."""
        ...

    async def read_records(self, position: int) -> TopicBatch:
        """Raises LogUnavailable; a batch that cannot be read is passed over, and counted."""
        ...

    async def close(self) -> None:
        """Let go of every connection."""
        ...


class DeadLetters:
    """The latest letters of every partition."""

    def __init__(
        self, partitions: int, open_log: Callable[[int], Awaitable[LetterLog]], now_ms: Callable[[], int]
    ) -> None:
        self._open_log = open_log
        self._now_ms = now_ms
        self._most = max(1, KEPT // max(1, partitions))
        self._kept: list[deque[Letter]] = [deque(maxlen=self._most) for _ in range(partitions)]
        self.statuses = [LetterStatus(partition) for partition in range(partitions)]

    async def run(self) -> None:
        """Follow until cancelled; what goes wrong is told in the statuses, and tried again."""
        async with asyncio.TaskGroup() as group:
            for status in self.statuses:
                group.create_task(self._follow(status.partition), name=f"letters {status.partition}")

    def latest_first(self) -> Iterator[Letter]:
        """Every letter that is kept."""
        ways = [sorted(kept, key=lambda letter: letter.place, reverse=True) for kept in self._kept]
        return merge(*ways, key=lambda letter: letter.place, reverse=True)

    def __iter__(self) -> Iterator[Letter]:
        """Every letter that is kept, the latest of each partition first."""
        for kept in self._kept:
            yield from reversed(kept)

    def of_source(self, source: str) -> Letter | None:
        """The latest letter of a request, by its coordinates."""
        return next((letter for letter in self if letter.source == source), None)

    @property
    def kept_from(self) -> dict[int, int]:
        """By partition, the offset of the first letter that is kept."""
        return {number: kept[0].offset for number, kept in enumerate(self._kept) if kept}

    async def _follow(self, partition: int) -> None:
        def complain(problem: Exception) -> None:
            self._tell(partition, problem=str(problem))
            logger.warning("dead letters, partition %d: %s", partition, problem)

        await kept_open(partition, self._open_log, partial(self._read, partition), complain)

    async def _read(self, partition: int, log: LetterLog) -> None:
        bounds = await log.bounds()
        kept = self._kept[partition]
        kept.clear()
        # Each transaction has a marker, which takes an offset, too.
        position = max(bounds.start, bounds.stable - 2 * self._most)
        self._tell(
            partition, position=position, end=bounds.stable, kept_from=position, skipped=0, problem=None
        )
        while True:
            batch = await log.read_records(position)
            if batch.skipped:
                skipped = self.statuses[partition].skipped + batch.skipped
                self._tell(partition, skipped=skipped)
                logger.warning(
                    "dead letters, partition %d: %d offsets from %d on are in a batch that cannot be read",
                    partition,
                    batch.skipped,
                    position,
                )
            position = batch.next_position
            for record in batch.records:
                kept.append(letter_of(partition, record))
            if len(kept) == self._most:
                self._tell(partition, kept_from=kept[0].offset)
            self._tell(partition, position=position, end=max(batch.stable, position))
            if position >= batch.stable:
                self._tell(partition, as_of_ms=self._now_ms())
            await asyncio.sleep(0)

    def _tell(self, partition: int, **changed: object) -> None:
        self.statuses[partition] = replace(self.statuses[partition], **changed)


class Letters:
    """The letters that a caller sees: those of no request topic only who sees every one.

    Without the right to payloads the headers are those of delaystream's own.
    """

    def __init__(self, letters: DeadLetters, caller: Caller) -> None:
        self._letters = letters
        self._caller = caller
        self.statuses = letters.statuses

    def fitting(self, wanted: LetterFilter, also: Also | None = None) -> Iterator[Letter]:
        """The letters that are meant, whole as they are kept, the latest first; for nobody's eyes."""
        return (
            letter
            for letter in self._letters.latest_first()
            if self._caller.sees(letter.request_topic)
            and wanted.fits(letter)
            and (also is None or also(letter))
        )

    def page(
        self,
        wanted: LetterFilter,
        limit: int,
        after: tuple[int, int, int] | None = None,
        also: Also | None = None,
    ) -> LetterPage:
        """Up to ``limit`` letters, the latest first; ``also`` is one more condition."""
        behind = (letter for letter in self.fitting(wanted, also) if after is None or letter.place < after)
        items = list(islice(behind, limit + 1))
        more = len(items) > limit
        items = items[:limit]
        return LetterPage([self.shown(letter) for letter in items], items[-1].place if more else None)

    def of(self, word: str) -> list[Letter]:
        """Letters of the coordinates of a request, of an id, or of a correlation id.

        The latter are found by who may see headers.
        """
        correlated = word.encode()[:CORRELATION_BYTES]
        found = (
            self.shown(letter)
            for letter in self._letters
            if self._caller.sees(letter.request_topic)
            and (
                word in (letter.source, letter.id)
                or (correlated in letter.correlation_ids and self._caller.reads_payload(letter.request_topic))
            )
        )
        return list(islice(found, _SHOWN))

    @property
    def kept_from(self) -> dict[int, int]:
        """By partition, the offset of the first letter that is kept."""
        return self._letters.kept_from

    def counts(self, tenants: frozenset[str] | None = None, also: Also | None = None) -> dict[str, int]:
        """How many are kept, by code; ``tenants``: of these request topics alone."""
        counted: dict[str, int] = {}
        for letter in self._letters:
            topic = letter.request_topic
            if (
                self._caller.sees(topic)
                and (tenants is None or topic in tenants)
                and (also is None or also(letter))
            ):
                counted[letter.code] = counted.get(letter.code, 0) + 1
        return counted

    def shown(self, letter: Letter) -> Letter:
        """As the caller sees it."""
        topic = letter.request_topic
        if not self._caller.reads_key(topic):
            letter = replace(letter, key=None)
        if not self._caller.reads_payload(topic):
            own = [header for header in letter.headers if header[0].lower().startswith(PREFIX)]
            letter = replace(letter, headers=own, headers_hidden=len(own) < len(letter.headers))
        return letter


def letter_of(partition: int, record: TopicRecord) -> Letter:
    """What is kept of a record; the last set of a header counts: a record may be refused twice."""
    told = {name.lower(): content for name, content in record.headers if content is not None}
    topic = _text(told.get(ERROR_TOPIC))
    where = _number(told.get(ERROR_PARTITION)), _number(told.get(ERROR_OFFSET))
    stood = None
    if topic is not None and where[0] is not None and where[1] is not None:
        stood = schedule_id(topic, where[0], where[1])
    code, detail = _text(told.get(ERROR)) or "", _text(told.get(ERROR_DETAIL)) or ""
    kind = _kind(code, stood, record, timed=_number(told.get(ERROR_TIMESTAMP)) is not None)
    source, delivery, destination = stood, None, _text(told.get(_DESTINATION))
    id = _text(told.get(_ID))
    if kind is Kind.DELIVERY:
        source, delivery, destination = _text(told.get(SOURCE)), stood, topic
        if source is None or split_schedule_id(source) is None:
            source = None
        topic = None if source is None else source.partition("/")[0].partition("@")[0]
    if id is None and kind in (Kind.FIRE, Kind.DELIVERY):
        named = _text(told.get(SCHEDULE_ID))
        id = None if named == source else named
    headers: list[tuple[str, bytes | None]] = []
    left = HEADER_BYTES
    for name, content in record.headers:
        left -= len(name) + len(content or b"")
        if left < 0:
            break
        headers.append((name, content))
    return Letter(
        partition=partition,
        offset=record.offset,
        at_ms=min(max(0, record.timestamp_ms), LATEST_MS),
        kind=kind,
        code=code,
        detail=detail,
        request_topic=topic,
        source=source,
        source_at_ms=_number(told.get(ERROR_TIMESTAMP)),
        delivery=delivery,
        left_out=record.value is None and _LEFT_OUT in detail,
        id=id,
        destination=destination,
        key=None if record.key is None else record.key[:KEY_BYTES],
        value_bytes=None if record.value is None else len(record.value),
        headers=headers,
        headers_cut=left < 0,
        correlation_ids=[one[:CORRELATION_BYTES] for one in correlation_ids(record.headers)[:_CORRELATED]],
    )


def _kind(code: str, stood: str | None, record: TopicRecord, *, timed: bool) -> Kind:
    if not code or stood is None or code in BATCHES:
        return Kind.OTHER
    if code in _GIVEN_UP:
        return Kind.DELIVERY
    if code == Code.QUARANTINED:
        return Kind.FIRE
    # A record without a time and without headers of its own is a row of a worker's store.
    own = any(name.lower() not in OUTGOING_HEADERS for name, _ in record.headers)
    return Kind.REQUEST if timed or own else Kind.OTHER


def _text(content: bytes | None) -> str | None:
    return None if content is None else content[:HEADER_BYTES].decode("utf-8", "backslashreplace")


def _number(content: bytes | None) -> int | None:
    digits = content is not None and content.isdigit() and len(content) <= 18
    return int(content) if digits and content is not None else None
