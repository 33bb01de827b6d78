"""Events as rows, and as sums: pure."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from delaystream.codec.event import Event, EventType
from delaystream.console.history.schema import WITHIN_MS

SPANS_S: Final = (60, 3_600, 86_400)

Row = dict[str, Any]

_decode: Final = msgspec.json.Decoder(Event).decode


class Unread(msgspec.Struct, frozen=True):
    """A record of the events' topic that is no event of this version."""

    offset: int
    problem: str


class Rows(msgspec.Struct, frozen=True):
    """What a batch of records comes to."""

    events: Sequence[Row]
    rollups: Sequence[Row]
    unread: Sequence[Unread]


def rows_of(partition: int, records: Iterable[tuple[int, bytes, bytes | None]]) -> Rows:
    """The rows of records (offset, key, value) of one partition, and what they add up to."""
    events: list[Row] = []
    unread: list[Unread] = []
    sums: dict[tuple[int, int, str, str, str], list[int]] = {}
    for offset, _, value in records:
        try:
            event = _decode(value or b"")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            unread.append(Unread(offset, str(error)))
            continue
        lateness_ms = event.lateness_ms if event.type is EventType.FIRED else None
        destination = event.destination or (event.definition.destination if event.definition else None)
        events.append(
            {
                "partition": partition,
                "offset": offset,
                "at_ms": event.at_ms,
                "type": event.type.value,
                "request_topic": event.request_topic,
                "schedule_id": event.schedule_id,
                "source": event.source,
                "destination": destination,
                "key": _key(event),
                "fire_id": event.fire_id,
                "due_at_ms": event.due_at_ms,
                "lateness_ms": lateness_ms,
                "actor": event.actor,
                "code": event.code,
                "body": (value or b"").decode(),
            }
        )
        what = (event.request_topic or "", destination or "", event.type.value)
        for seconds in SPANS_S:
            span_ms = seconds * 1_000
            start_ms = event.at_ms - event.at_ms % span_ms
            added = sums.setdefault((seconds, start_ms, *what), [0] * (3 + len(WITHIN_MS)))
            added[0] += _count(event)
            if lateness_ms is not None:
                added[1] += lateness_ms
                added[2] = max(added[2], lateness_ms)
                for place, bound_ms in enumerate(WITHIN_MS, 3):
                    added[place] += lateness_ms <= bound_ms
    return Rows(events, [_rollup(span, added) for span, added in sums.items()], unread)


def _count(event: Event) -> int:
    """How many things it tells of: a run of missed times is one event."""
    runs = (EventType.MISSED, EventType.SKIPPED)
    return event.count or 1 if event.type in runs else 1


def _key(event: Event) -> bytes | None:
    if event.key is not None:
        return event.key.encode()
    if event.key_base64 is None:
        return None
    try:
        return b64decode(event.key_base64)
    except Error:
        return None


def _rollup(span: tuple[int, int, str, str, str], added: list[int]) -> Row:
    seconds, start_ms, request_topic, destination, type = span
    row = {
        "seconds": seconds,
        "start_ms": start_ms,
        "request_topic": request_topic,
        "destination": destination,
        "type": type,
        "count": added[0],
        "lateness_ms": added[1],
        "lateness_max_ms": added[2],
    }
    for bound_ms, count in zip(WITHIN_MS, added[3:], strict=True):
        row[f"within_{bound_ms}_ms"] = count
    return row
