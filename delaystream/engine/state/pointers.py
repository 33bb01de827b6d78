"""Wheel entries that follow from a partition's rows, in the local store alone.

The row of a named schedule holds the keys of its entries, that of a bulk command the key of its sweep, and
that of a hold the key of its end, where it ends by itself. So the changelog has one row for each, and the
entries (*pointers*) are made from it: by a step when it decides, by a recovery from the rows that it applies.
Only requests without an id are rows of the changelog's wheels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final

from delaystream.codec.envelope import (
    UNREADABLE,
    Forget,
    HoldEnd,
    Pointer,
    Sweep,
    Trigger,
    Triggered,
    Wake,
    decode_bulk,
    decode_ended,
    decode_hold,
    decode_schedule,
    encode,
)
from delaystream.codec.keys import HOUSEKEEPING, offset_of, split_schedule_key, wheel_key
from delaystream.engine.ports import Change, StateStore
from delaystream.query.rows import everything

_AT_ONCE: Final = 2_000
#: the kinds of rows that have entries: bulk commands, holds, and named schedules
_KINDS: Final = (b"b", b"e", b"h", b"s")


def pointers(key: bytes, stored: bytes) -> dict[bytes, bytes]:
    """The wheel entries of a row, by their keys."""
    if key[:1] == b"b":
        return {decode_bulk(stored).entry: encode(Sweep(key))}
    if key[:1] == b"e":
        return {decode_ended(stored).entry: encode(HoldEnd(key))}
    if key[:1] == b"h":
        until_key = decode_hold(stored).until_key
        return {} if until_key is None else {until_key: encode(HoldEnd(key))}
    tenant, id = split_schedule_key(key)
    try:
        schedule = decode_schedule(stored)
    except UNREADABLE:
        # It cannot be said when it is due: whoever takes this up finds it at fault, and buries it.
        digest = hashlib.blake2b(key, digest_size=8).digest()
        at_once = wheel_key(HOUSEKEEPING, 0, 0, int.from_bytes(digest), 0)
        return {at_once: encode(Pointer(tenant, id, 0))}
    pointer = encode(Pointer(tenant, id, schedule.revision))
    entries = dict.fromkeys(schedule.pending, pointer)
    for waiting in schedule.triggers:
        entries[waiting.key] = encode(trigger_of(tenant, id, waiting))
    if schedule.until_key is not None:
        entries[schedule.until_key] = encode(Wake(tenant, id))
    if schedule.forget_key is not None:
        entries[schedule.forget_key] = encode(Forget(tenant, id, schedule.revision))
    return entries


def trigger_of(tenant: str, id: str, waiting: Triggered) -> Trigger:
    """The entry of a triggered fire."""
    return Trigger(
        tenant,
        id,
        waiting.revision,
        waiting.partition,
        offset_of(waiting.key),
        waiting.origin,
        waiting.revision_origin,
    )


def repointed(store: StateStore, changes: Sequence[Change]) -> list[Change]:
    """The changes of pointers that follow from replaying ``changes`` on the store.

    Must be asked before the changes are written.
    """
    rows = {key: value for key, value in changes if key[:1] in _KINDS}
    if not rows:
        return []
    local: dict[bytes, bytes | None] = {}
    for key, old in zip(rows, store.get_many(list(rows)), strict=True):
        if old is not None:
            local.update(dict.fromkeys(pointers(key, old)))
    for key, new in rows.items():
        if new is not None:
            local.update(pointers(key, new))
    return list(local.items())


def all_pointers(store: StateStore) -> Iterator[list[Change]]:
    """Every pointer that the rows of a store stand for, some at a time: after a rebuild."""
    for kind in _KINDS:
        for rows in _chunks(everything(store, kind, bytes([kind[0] + 1]))):
            yield [entry for key, value in rows for entry in pointers(key, value).items()]


def _chunks(rows: Iterator[tuple[bytes, bytes]]) -> Iterator[list[tuple[bytes, bytes]]]:
    chunk: list[tuple[bytes, bytes]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == _AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
