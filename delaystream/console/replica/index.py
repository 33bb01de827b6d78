"""What a list, a search and a count need beside the rows: derived from them, and written in their batch."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from typing import Final

from delaystream.codec import keys
from delaystream.codec.correlation import correlation_ids
from delaystream.codec.envelope import (
    UNREADABLE,
    Envelope,
    Schedule,
    Status,
    decode_entry,
    decode_schedule,
    kept_key,
)
from delaystream.codec.event import next_at_ms
from delaystream.console.replica import index_keys
from delaystream.engine.lifecycle.replica import Derived
from delaystream.engine.ports import Change, StateStore
from delaystream.query.rows import everything

MOST_WORDS: Final = 16
"""So many different words of a schedule are found."""
MOST_CHARACTERS: Final = 40
"""Of a word, so many are kept."""

_AT_ONCE: Final = 2_000
_PENDING: Final = index_keys.code(Status.PENDING)
_word: Final = re.compile(r"[^\W_]+")
_FIRST_WHEEL: Final = keys.wheel_bound(keys.HOUSEKEEPING + 1)


def words(*texts: str | None) -> list[str]:
    """What texts are found by: runs of letters and digits, case-folded, each once."""
    text = " ".join([text for text in texts if text is not None]).casefold()
    found = dict.fromkeys([word[:MOST_CHARACTERS] for word in _word.findall(text)])
    return list(found)[:MOST_WORDS]


class Index(Derived):
    """The index over one partition's rows.

    A row that cannot be decoded is not in it: a newer release may have written it. Whoever reads it is told.
    """

    def by(self, store: StateStore, changes: Sequence[Change]) -> list[Change]:
        """What applying rows changes of it; asked before they are written."""
        schedules: dict[bytes, bytes | None] = {}
        entries: dict[bytes, bytes | None] = {}
        for key, value in changes:
            if key[:1] == b"s":
                schedules[key] = value
            elif key[:1] == b"w" and key >= _FIRST_WHEEL:
                entries[key] = value
        index = _Altered()
        if schedules:
            for (key, new), old in zip(schedules.items(), store.get_many(list(schedules)), strict=True):
                index.schedule(key, _schedule(old), _schedule(new))
        if entries:
            for (key, new), old in zip(entries.items(), store.get_many(list(entries)), strict=True):
                index.entry(key, old, new)
        return index.altered(store)

    async def whole(self, store: StateStore) -> AsyncIterator[list[Change]]:
        """All of it, some at a time; the counters last."""
        index = _Altered()
        for key, value in everything(store, b"s", b"t"):
            index.schedule(key, None, _schedule(value))
            if len(index.rows) >= _AT_ONCE:
                yield index.taken()
        for key, value in everything(store, _FIRST_WHEEL, keys.WHEEL_END):
            index.entry(key, None, value)
            if len(index.rows) >= _AT_ONCE:
                yield index.taken()
        yield index.altered(store)


class _Altered:
    """Index rows that are new or gone, and by how much the counters differ."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes | None] = {}
        self._counts: dict[bytes, int] = {}

    def taken(self) -> list[Change]:
        """The rows so far; the counters wait for the end."""
        rows, self.rows = self.rows, {}
        return sorted(rows.items())

    def altered(self, store: StateStore) -> list[Change]:
        """The rows, and the counters as they are then."""
        differing = [counter for counter, difference in self._counts.items() if difference]
        counts: list[Change] = []
        for counter, stored in zip(differing, store.get_many(differing), strict=True):
            count = self._counts[counter] + (index_keys.count_of(stored) if stored is not None else 0)
            counts.append((counter, index_keys.count_bytes(count) if count else None))
        # In order: the store finds the place of a row faster next to the one before.
        return [*sorted(self.rows.items()), *counts]

    def schedule(self, key: bytes, old: Schedule | None, new: Schedule | None) -> None:
        """What becomes of a named schedule's rows."""
        same = old is not None and new is not None and _told_by(old) == _told_by(new)
        if same and old is not None and new is not None and _stays(old) == _stays(new):
            # A fire: it moves in time and stays what it is.
            self._set(_times(key, old), None)
            self._set(_times(key, new), b"")
            return
        prefixes: list[bytes] = []
        if old is not None:
            prefixes = _prefixes(key, old)
            self._set(_times(key, old), None)
            self._standing(key, old, prefixes, None)
        if new is not None:
            # What stays is written again: telling costs more than writing, for what is replaced seldom.
            self._set(_times(key, new), b"")
            self._standing(key, new, prefixes if same else _prefixes(key, new), b"")

    def entry(self, key: bytes, old: bytes | None, new: bytes | None) -> None:
        """What becomes of the rows of a pending event without an id."""
        if old is not None:
            self._of_entry(key, old, None)
        if new is not None:
            self._of_entry(key, new, b"")

    def _standing(
        self, key: bytes, schedule: Schedule, prefixes: Sequence[bytes], value: bytes | None
    ) -> None:
        """Rows that stay while a schedule fires; it is counted, too."""
        tenant, id = keys.split_schedule_key(key)
        status, destination = schedule.status, schedule.destination
        self._count(index_keys.named_counter(tenant, destination, status), value)
        rows, reference = self.rows, index_keys.code(status) + key
        rows[index_keys.by_created(status, schedule.created_ms, index_keys.sign(destination), key)] = value
        rows[index_keys.by_id(status, tenant, id)] = value
        for prefix in prefixes:
            rows[prefix + reference] = value
        for one in correlated(schedule):
            rows[index_keys.correlation_prefix(one) + reference] = value

    def _of_entry(self, key: bytes, stored: bytes, value: bytes | None) -> None:
        try:
            entry = decode_entry(stored)
        except UNREADABLE:
            return
        if not isinstance(entry, Envelope):
            return
        self._count(index_keys.entry_counter(key), value)
        rows, reference = self.rows, _PENDING + key
        rows[index_keys.by_place(key)] = value
        if (delivered := entry.delivered_key) is not None:
            rows[index_keys.key_prefix(kept_key(delivered) or b"") + reference] = value
        if entry.headers:
            for one in correlation_ids(entry.headers):
                rows[index_keys.correlation_prefix(one) + reference] = value
        for tag in entry.tags:
            rows[index_keys.tag_prefix(tag) + reference] = value

    def _set(self, some: Sequence[bytes], value: bytes | None) -> None:
        rows = self.rows
        for row in some:
            rows[row] = value

    def _count(self, counter: bytes, value: bytes | None) -> None:
        counts = self._counts
        counts[counter] = counts.get(counter, 0) + (-1 if value is None else 1)


def _schedule(stored: bytes | None) -> Schedule | None:
    if stored is None:
        return None
    try:
        return decode_schedule(stored)
    except UNREADABLE:
        return None


def _told_by(schedule: Schedule) -> tuple[object, ...]:
    """What is told of a schedule, by which it is found, for as long as it is defined like that."""
    return (schedule.destination, schedule.key, schedule.tags, schedule.name, schedule.description)


def _stays(schedule: Schedule) -> tuple[object, ...]:
    """What else its rows that stay are made of."""
    return (schedule.status, schedule.created_ms, schedule.payload, schedule.answered)


def _prefixes(key: bytes, schedule: Schedule) -> list[bytes]:
    """What the rows begin with by which it is found."""
    _, id = keys.split_schedule_key(key)
    found = [index_keys.destination_prefix(schedule.destination)]
    if schedule.key is not None:
        found.append(index_keys.key_prefix(schedule.key))
    found += [index_keys.tag_prefix(tag) for tag in schedule.tags]
    found += [index_keys.word_prefix(word) for word in words(id, schedule.name, schedule.description)]
    return found


def correlated(schedule: Schedule) -> list[bytes]:
    """What a named schedule is correlated with: its last request ids, and headers of what is in its row.

    A payload above `INLINE_BYTES` has a row of its own: what that is correlated with is not known here.
    """
    found = [answered.request_id.encode() for answered in schedule.answered]
    if schedule.payload is not None:
        try:
            payload = decode_entry(schedule.payload)
        except UNREADABLE:
            return found
        if isinstance(payload, Envelope):
            found += correlation_ids(payload.headers)
    return found


def _times(key: bytes, schedule: Schedule) -> list[bytes]:
    """Rows that a fire moves."""
    status, sign, pending = schedule.status, index_keys.sign(schedule.destination), schedule.pending
    rows = [
        index_keys.by_next(status, next_at_ms(schedule), sign, key),
        index_keys.by_last(status, schedule.last_fired_ms, sign, key),
    ]
    if len(pending) > 1:
        times = sorted(keys.due_of(entry) for entry in pending)
        rows += [index_keys.by_due(time_ms, sign, key) for time_ms in times[1:]]
    return rows
