"""Events as rows, and as sums: pure."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from delaystream.codec.event import Event, EventType
from delaystream.console.history.schema import WITHIN_MS

SPANS_S: Final = (60, 3_600, 86_400)

EventRow = tuple[Any, ...]
"""What the table of events holds of one, in the order of its columns."""

_LONGEST: Final = 512
"""Characters of a text by which events are found: an index of PostgreSQL takes 2,704 bytes of a row."""

_LARGEST: Final = 1 << 62
_NEVER_TEXT: Final = "\0"
_decode: Final = msgspec.json.Decoder(Event).decode
_RUNS: Final = (EventType.MISSED, EventType.SKIPPED)


class Unread(msgspec.Struct, frozen=True):
    """A record of the events' topic that is no event of this version."""

    offset: int
    problem: str


class Rows(msgspec.Struct, frozen=True):
    """What a batch of records comes to."""

    events: Sequence[EventRow]
    #: in the order of their table's columns
    rollups: Sequence[tuple[Any, ...]]
    unread: Sequence[Unread]


class _Sum:
    """What happened in a span of time, of one kind."""

    __slots__ = ("count", "lateness_max_ms", "lateness_ms", "within")

    def __init__(self) -> None:
        self.count = 0
        self.lateness_ms = 0
        self.lateness_max_ms = 0
        self.within = [0] * len(WITHIN_MS)

    def add(self, count: int, lateness_ms: int | None) -> None:
        self.count += count
        if lateness_ms is None:
            return
        self.lateness_ms += lateness_ms
        self.lateness_max_ms = max(self.lateness_max_ms, lateness_ms)
        for place, bound_ms in enumerate(WITHIN_MS):
            if lateness_ms <= bound_ms:
                self.within[place] += 1

    def take(self, other: _Sum) -> None:
        self.count += other.count
        self.lateness_ms += other.lateness_ms
        self.lateness_max_ms = max(self.lateness_max_ms, other.lateness_max_ms)
        self.within = [mine + theirs for mine, theirs in zip(self.within, other.within, strict=True)]


_Kind = tuple[int, str, str, str]
"""Start of the span, request topic, destination, type."""


def rows_of(partition: int, records: Iterable[tuple[int, bytes, bytes | None]]) -> Rows:
    """The rows of records (offset, key, value) of one partition, and what they add up to.

    A record that is no event, or one that no table can hold, is told as unread: nothing that somebody wrote
    to the topic stops the history.
    """
    events: list[EventRow] = []
    unread: list[Unread] = []
    minutes: dict[_Kind, _Sum] = {}
    for offset, _, value in records:
        body = value or b""
        try:
            event = _decode(body)
            events.append(_row(partition, offset, event, body))
        except (ValueError, RecursionError) as error:
            unread.append(Unread(offset, str(error)))
            continue
        row = events[-1]
        kind = (event.at_ms - event.at_ms % 60_000, row[4] or "", row[7] or "", row[3])
        added = minutes.get(kind)
        if added is None:
            added = minutes[kind] = _Sum()
        count = event.count or 1 if event.type in _RUNS else 1
        added.add(count, row[11])
    return Rows(events, _rollups(minutes), unread)


def _row(partition: int, offset: int, event: Event, body: bytes) -> EventRow:
    """Raises ValueError where a table cannot hold it."""
    lateness_ms = event.lateness_ms if event.type is EventType.FIRED else None
    destination = event.destination
    if destination is None and event.definition is not None:
        destination = event.definition.destination
    for number in (event.at_ms, event.due_at_ms, lateness_ms, event.count):
        if number is not None and not -_LARGEST < number < _LARGEST:
            raise ValueError(f"{number} is no time and no count")
    return (
        partition,
        offset,
        event.at_ms,
        event.type.value,
        stored_text(event.request_topic),
        stored_text(event.schedule_id),
        stored_text(event.source),
        stored_text(destination),
        _key(event),
        stored_text(event.fire_id),
        event.due_at_ms,
        lateness_ms,
        stored_text(event.actor),
        stored_text(event.code),
        body.decode(),
        stored_text(event.correlation_id),
        stored_text(event.request_id),
        event.count if event.type in _RUNS else None,
    )


def stored_text(text: str | None) -> str | None:
    """A text as it stands in its column, and as it is asked for: cut, and without what PostgreSQL refuses."""
    if text is None:
        return None
    if len(text) > _LONGEST:
        text = text[:_LONGEST]
    return text.replace(_NEVER_TEXT, "\ufffd") if _NEVER_TEXT in text else text


def stored_key(key: bytes) -> bytes:
    """A key as it stands in its column, and as it is asked for."""
    return key[:_LONGEST]


def _key(event: Event) -> bytes | None:
    if event.key is not None:
        return stored_key(event.key.encode())
    if event.key_base64 is None:
        return None
    try:
        return stored_key(b64decode(event.key_base64))
    except ValueError:
        return None


def _rollups(minutes: dict[_Kind, _Sum]) -> list[tuple[Any, ...]]:
    """Sums of all spans: hours and days are made of their minutes."""
    rows = []
    for seconds in SPANS_S:
        spans: dict[_Kind, _Sum] = {}
        for (start_ms, *what), added in minutes.items():
            request_topic, destination, type = what
            kind = (start_ms - start_ms % (seconds * 1_000), request_topic, destination, type)
            spans.setdefault(kind, _Sum()).take(added)
        rows += [_rollup(seconds, kind, spans[kind]) for kind in sorted(spans)]
    return rows


def _rollup(seconds: int, kind: _Kind, added: _Sum) -> tuple[Any, ...]:
    return (seconds, *kind, added.count, added.lateness_ms, added.lateness_max_ms, *added.within)
