"""The comparison with a rebuild is worth something: followers that are wrong in one way each fail it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from msgspec.structs import replace

from delaystream.codec.envelope import Schedule
from delaystream.console.replica import index as index_module
from delaystream.console.replica.follower import Follower
from delaystream.console.replica.index import Index, _Altered
from delaystream.engine.lifecycle.replica import Replica, advanced
from delaystream.engine.ports import Change, ChangelogBatch, Marker, StateStore
from tests.unit.console.test_follower import SEEDS, live

Breakage = Callable[[], AbstractContextManager[Any]]


def an_index_row_stays() -> AbstractContextManager[Any]:
    """What a schedule or an entry was found by before finds it still."""

    class Kept(dict[bytes, bytes | None]):
        def __setitem__(self, row: bytes, value: bytes | None) -> None:
            if value is not None:
                super().__setitem__(row, value)

    original = _Altered.__init__

    def begin(self: _Altered) -> None:
        original(self)
        self.rows = Kept()

    return patch.object(_Altered, "__init__", begin)


def rows_that_move_stay() -> AbstractContextManager[Any]:
    """A schedule that fires stays in the lists at the time that has passed."""
    original = _Altered.schedule

    def schedule(self: _Altered, key: bytes, old: Schedule | None, new: Schedule | None) -> None:
        fires = old is not None and new is not None and _same(old) == _same(new)
        original(self, key, None if fires and old is not None and old.fire_count else old, new)

    def _same(schedule: Schedule) -> tuple[object, ...]:
        return index_module._told_by(schedule) + index_module._stays(schedule)

    return patch.object(_Altered, "schedule", schedule)


def a_tag_is_not_removed() -> AbstractContextManager[Any]:
    """A schedule that lost its tags is found by them."""
    original = _Altered._standing

    def standing(
        self: _Altered, key: bytes, schedule: Schedule, prefixes: Sequence[bytes], value: bytes | None
    ) -> None:
        if value is None:
            prefixes = [prefix for prefix in prefixes if prefix[:1] != b"T"]
        original(self, key, schedule, prefixes, value)

    return patch.object(_Altered, "_standing", standing)


def a_counter_only_grows() -> AbstractContextManager[Any]:
    """What is gone is counted."""
    original = _Altered._count

    def count(self: _Altered, counter: bytes, value: bytes | None) -> None:
        if value is not None:
            original(self, counter, value)

    return patch.object(_Altered, "_count", count)


def a_rebuild_leaves_entries_out() -> AbstractContextManager[Any]:
    """Events without an id that were there at the rebuild are in no index."""

    async def whole(self: Index, store: StateStore) -> AsyncIterator[list[Change]]:
        index = _Altered()
        for key, value in store.scan(b"s", b"t", 1_000_000):
            index.schedule(key, None, index_module._schedule(value))
        yield index.altered(store)

    # Both are wrong alike where both were just rebuilt: what then comes tells.
    return patch.object(Index, "whole", whole)


def touched_rows_are_forgotten() -> AbstractContextManager[Any]:
    """Whoever asks what was touched is told of nothing."""
    return patch.object(Follower, "_touch", lambda self, row_keys: None)


def touched_rows_are_told_of_once_too_few() -> AbstractContextManager[Any]:
    """Of each batch the last row is left out."""
    original = Follower._touch
    return patch.object(Follower, "_touch", lambda self, row_keys: original(self, list(row_keys)[:-1]))


def _applied(
    self: Replica, marker: Marker, batch: ChangelogBatch
) -> tuple[list[Change], list[Change], Marker]:
    assert self.store is not None
    changes: list[Change] = [(key, value) for _, key, value in batch.records]
    local = [] if marker.rebuilding else self._derived.by(self.store, changes)
    last = batch.records[-1] if batch.records else None
    return changes, local, advanced(marker, batch.next_position, last)


def the_position_is_ahead_of_the_rows() -> AbstractContextManager[Any]:
    """What is stored says that 20 more were applied: whoever goes on from there misses them."""

    def apply(self: Replica, marker: Marker, batch: ChangelogBatch) -> Marker:
        changes, local, marker = _applied(self, marker, batch)
        assert self.store is not None
        self.store.write(changes, local, replace(marker, position=marker.position + 20))
        return marker

    return patch.object(Replica, "apply", apply)


def the_position_comes_first() -> AbstractContextManager[Any]:
    """Position and rows are two batches: an end between them leaves rows out."""

    def apply(self: Replica, marker: Marker, batch: ChangelogBatch) -> Marker:
        changes, local, marker = _applied(self, marker, batch)
        assert self.store is not None
        self.store.write((), (), marker)
        self.store.write(changes, local, marker)
        return marker

    return patch.object(Replica, "apply", apply)


def rows_and_index_are_two_batches() -> AbstractContextManager[Any]:
    """An end between them leaves rows without their index."""

    def apply(self: Replica, marker: Marker, batch: ChangelogBatch) -> Marker:
        changes, local, marker = _applied(self, marker, batch)
        assert self.store is not None
        self.store.write(changes, (), marker)
        self.store.write((), local, marker)
        return marker

    return patch.object(Replica, "apply", apply)


def the_index_is_derived_too_late() -> AbstractContextManager[Any]:
    """By then the rows are the new ones, and nobody knows what the old ones were found by."""

    def apply(self: Replica, marker: Marker, batch: ChangelogBatch) -> Marker:
        assert self.store is not None
        changes: list[Change] = [(key, value) for _, key, value in batch.records]
        last = batch.records[-1] if batch.records else None
        after = advanced(marker, batch.next_position, last)
        self.store.write(changes, (), after)
        self.store.write((), [] if marker.rebuilding else self._derived.by(self.store, changes), after)
        return after

    return patch.object(Replica, "apply", apply)


@contextmanager
def _both(*breakages: AbstractContextManager[Any]) -> Any:
    with ExitStack() as stack:
        for breakage in breakages:
            stack.enter_context(breakage)
        yield


def an_interrupted_rebuild_is_trusted() -> AbstractContextManager[Any]:
    """A store in which the index was being made counts as one that has it."""
    original = Replica.trusted

    async def trusted(self: Replica, *arguments: Any) -> Marker | None:
        store = self._stores.open(self._partition) if self.store is None else self.store
        self.store = store
        marker = store.marker()
        if marker is not None and marker.deriving:
            store.write((), (), replace(marker, deriving=False, rebuilding=False))
        return await original(self, *arguments)

    return _both(patch.object(index_module, "_AT_ONCE", 1), patch.object(Replica, "trusted", trusted))


BROKEN: Sequence[Breakage] = (
    an_index_row_stays,
    rows_that_move_stay,
    a_tag_is_not_removed,
    a_counter_only_grows,
    a_rebuild_leaves_entries_out,
    touched_rows_are_forgotten,
    touched_rows_are_told_of_once_too_few,
    the_position_is_ahead_of_the_rows,
    the_position_comes_first,
    rows_and_index_are_two_batches,
    the_index_is_derived_too_late,
    an_interrupted_rebuild_is_trusted,
)


@pytest.mark.parametrize("breakage", BROKEN)
def test_a_broken_follower_is_found_out(breakage: Breakage) -> None:
    with breakage():
        for seed in SEEDS:
            try:
                live(seed)
            except (AssertionError, KeyError, TimeoutError):
                return
    pytest.fail(f"nothing tells it from a sound one: {breakage.__doc__}")
