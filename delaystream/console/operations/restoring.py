"""What is kept of something before it is cancelled, and the request that brings it back. Pure.

What comes back is what was there: destination, key, value and headers, the times that are ahead, labels, a
pause with its end. What does not: version and revision, and with them the ids of later fires; the counters of
fires and misses, which begin anew, while `max_fires` goes on from where it was; triggered fires that waited;
times of a recurring schedule between cancel and undo. A request without an id comes back with one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec

from delaystream.codec.envelope import (
    UNREADABLE,
    Envelope,
    Past,
    Schedule,
    Status,
    decode_envelope,
    decode_schedule,
    encode,
)
from delaystream.codec.event import definition_of
from delaystream.core.durations import format_duration
from delaystream.core.request import ON_LATE_FIRE, Header
from delaystream.query.partition import StoredSchedule
from delaystream.query.view import PendingFire

RESTORED: Final = "restored/"
"""What the id of something begins with that had none; its coordinates follow."""
_ENCODER: Final = msgspec.msgpack.Encoder()


class NothingLeft(Exception):
    """There is nothing to bring back; the message is a sentence."""


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of one."""

    #: of a named schedule
    row: bytes | None
    payload: bytes
    #: of a request without an id: where to, and its times, ms
    destination: str = ""
    due_ms: list[int] = []


class Restored(msgspec.Struct, frozen=True):
    """A request that brings something back."""

    id: str
    key: bytes | None
    value: bytes | None
    headers: list[Header]
    #: as the client's functions take them
    options: Mapping[str, Any]
    #: of a pause that ends by itself, ms
    until_ms: int | None = None


def kept_of(found: StoredSchedule) -> bytes | None:
    """What is kept of a named schedule; None where nothing of it is left to deliver."""
    if found.payload is None:
        return None
    return _ENCODER.encode(Kept(encode(found.row), encode(found.payload)))


def kept_of_unnamed(fires: list[tuple[PendingFire, Envelope]]) -> bytes | None:
    """What is kept of a request without an id."""
    if not fires:
        return None
    first, envelope = fires[0]
    due_ms = [fire.due_at_ms for fire, _ in fires]
    return _ENCODER.encode(Kept(None, encode(envelope), first.destination, due_ms))


def is_ahead(kept: bytes, now_ms: int) -> bool:
    """Whether what is kept of a request without an id has a time that has not come. Raises NothingLeft."""
    return any(due_ms > now_ms for due_ms in _read(kept)[0].due_ms)


def restored(
    about: str, kept: bytes, now: Schedule | None, standing: Collection[str], now_ms: int
) -> Restored:
    """The request that brings back what is known by its id; `now` is what is left of that.

    `standing` are the names of holds that stand. Raises NothingLeft.
    """
    told, payload = _read(kept)
    if told.row is None:
        raise NothingLeft("It was kept without a schedule.")
    row = decode_schedule(told.row)
    definition = definition_of(row)
    options: dict[str, Any] = {"destination": definition.destination}
    if row.recurrence is None:
        options["at"] = _instants(_times_left(row, now))
        if payload.grace_ms >= 0:
            options["grace"] = format_duration(payload.grace_ms)
    else:
        options |= _recurring(row, now)
    options |= {
        "name": row.name,
        "description": row.description,
        "tags": list(row.tags) or None,
        "declared_by": row.declared_by,
        "deploy": row.deploy if row.declared_by is not None and row.deploy >= 0 else None,
        "note": row.note,
    }
    until_ms = row.until_ms
    if _stays_paused(row, standing, now_ms):
        options["status"] = Status.PAUSED.value
    else:
        until_ms = None
    return _request(about, payload, options, until_ms)


def restored_unnamed(about: str, kept: bytes, sent_ms: int, decided_ms: int) -> Restored:
    """The request that brings back what had no id.

    A time that came due between the look at it and the cancel may have been delivered: it is left out.
    Raises NothingLeft.
    """
    told, payload = _read(kept)
    times = [due_ms for due_ms in told.due_ms if not sent_ms <= due_ms <= decided_ms]
    if not times:
        raise NothingLeft("Its time came in the moment in which it was cancelled.")
    options: dict[str, Any] = {
        "destination": told.destination,
        "at": _instants(times),
        "tags": payload.tags or None,
    }
    if payload.grace_ms >= 0:
        options["grace"] = format_duration(payload.grace_ms)
    return _request(f"{RESTORED}{about}", payload, options)


def _read(kept: bytes) -> tuple[Kept, Envelope]:
    try:
        told = msgspec.msgpack.decode(kept, type=Kept)
        return told, decode_envelope(told.payload)
    except UNREADABLE:
        raise NothingLeft("What was kept of it cannot be read by this release.") from None


def _request(id: str, payload: Envelope, options: dict[str, Any], until_ms: int | None = None) -> Restored:
    if payload.on_late != ON_LATE_FIRE:
        options["on_late"] = payload.on_late
    if payload.destination_partition >= 0:
        options["destination_partition"] = payload.destination_partition
    if payload.has_destination_key:
        options["destination_key"] = payload.destination_key
    said = {name: value for name, value in options.items() if value is not None}
    return Restored(id, payload.key, payload.value, list(payload.headers), said, until_ms)


def _instants(times_ms: list[int]) -> str:
    return ",".join(map(str, times_ms))


def _times_left(row: Schedule, now: Schedule | None) -> list[int]:
    """The times that were ahead, without what was delivered before the cancel was decided."""
    delivered = {
        fire.due_ms
        for fire in (() if now is None else now.history)
        if fire.kind is Past.FIRED and fire.revision == row.revision
    }
    times = [due_ms for due_ms, _ in row.ahead if due_ms not in delivered]
    if not times:
        raise NothingLeft("Its last time came before it was cancelled.")
    return times


def _recurring(row: Schedule, now: Schedule | None) -> dict[str, Any]:
    definition = definition_of(row)
    max_fires: int | None = None
    if definition.max_fires:
        # Fires before the cancel was decided count, too.
        same = now is not None and now.revision == row.revision
        counted = now.run_count if now is not None and same else row.run_count
        max_fires = definition.max_fires - counted
        if max_fires <= 0:
            raise NothingLeft("Its last fire came before it was cancelled.")
    return {
        "cron": definition.cron,
        "every": format_duration(definition.every_ms) if definition.every_ms else None,
        "timezone": definition.timezone,
        "dst_gap": definition.dst_gap,
        "dst_overlap": definition.dst_overlap,
        "start": str(definition.start_at_ms) if definition.start_at_ms else None,
        "end": None if definition.end_at_ms is None else str(definition.end_at_ms),
        "max_fires": max_fires,
        "jitter": format_duration(definition.jitter_ms) if definition.jitter_ms else None,
        "catch_up": definition.catch_up,
        "grace": None if definition.grace_ms is None else format_duration(definition.grace_ms),
    }


def _stays_paused(row: Schedule, standing: Collection[str], now_ms: int) -> bool:
    if row.status is not Status.PAUSED:
        return False
    if row.held_by:
        # With its hold it would have ended.
        return row.held_by in standing
    return row.until_ms is None or row.until_ms > now_ms
