"""Records as text: for people, and as JSON without loss."""

import base64
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from delaystream.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from delaystream.client import Delivery

_SHOWN_CHARACTERS = 200
_CONTROL_PREFIX = "delaystream-"
_ERROR = f"{_CONTROL_PREFIX}error"
"""Of dead letters: the code."""


def rendered(content: bytes | None) -> str:
    """Bytes on one line: printable UTF-8 as text, other bytes escaped; cut after 200 characters."""
    if content is None:
        return "(null)"
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = repr(content)[2:-1]
    text = printable(text)
    if len(text) > _SHOWN_CHARACTERS:
        text = f"{text[:_SHOWN_CHARACTERS]}... ({len(content)} bytes)"
    return text


def number_of(count: int, thing: str) -> str:
    """`1 fire`, `2 fires`."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def lateness(lateness_ms: int | None) -> str:
    """`+12 ms`, `+3.2 s`; `-` for a record that is no delivery."""
    if lateness_ms is None:
        return "-"
    if abs(lateness_ms) < 10_000:
        return f"{lateness_ms:+d} ms"
    return f"{lateness_ms / 1000:+.1f} s"


def instants(times_ms: "Sequence[int]") -> str:
    """RFC 3339 in UTC, with commas."""
    from delaystream.core.instants import format_instant

    return ", ".join(format_instant(time_ms) for time_ms in times_ms)


def delivery_line(record: "Delivery") -> str:
    """One line: local time of the fire, lateness, partition and offset, key, value, headers.

    A delivery shows only its foreign headers; any other record (a dead letter, a receipt) shows all. A dead
    letter may have the due time of the fire that was impossible.
    """
    whole = record.due_ms is None or any(name == _ERROR for name, _ in record.headers)
    shown = [
        f"{printable(name)}={rendered(value)}"
        for name, value in record.headers
        if whole or not name.startswith(_CONTROL_PREFIX)
    ]
    key = "" if record.key is None else f"{rendered(record.key)}: "
    headers = f"  [{', '.join(shown)}]" if shown else ""
    place = f"{record.topic}/{record.partition}/{record.offset}"
    late = lateness(record.lateness_ms)
    return f"{clock_time(record.timestamp_ms)}  {late:>9}  {place}  {key}{rendered(record.value)}{headers}"


def clock_time(timestamp_ms: int) -> str:
    """The local date and time with the zone's offset (RFC 3339); the number itself if it is no valid time."""
    try:
        at = datetime.fromtimestamp(timestamp_ms / 1000, UTC).astimezone()
    except (OverflowError, ValueError, OSError):
        return str(timestamp_ms)
    return at.isoformat(" ", "milliseconds")


def delivery_fields(record: "Delivery") -> dict[str, Any]:
    """For JSON: bytes that are not UTF-8 become `{"base64": ...}`. Headers are a list: names may repeat."""
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        "due_at_ms": record.due_ms,
        "fired_at_ms": record.fired_ms,
        "lateness_ms": record.lateness_ms,
        "schedule_id": record.schedule_id,
        "fire_id": record.fire_id,
        "key": lossless(record.key),
        "value": lossless(record.value),
        "headers": [[name, lossless(value)] for name, value in record.headers],
    }


def lossless(content: bytes | None) -> Any:
    """For JSON: text, or `{"base64": ...}` of bytes that are not UTF-8."""
    if content is None:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}
