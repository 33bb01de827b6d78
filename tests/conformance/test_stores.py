"""What the engine relies on in RocksDB; the store in memory is held to the same.

Keys of the state begin with a letter; what lies below is the store's own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from delaystream.adapters.storage.data_directory import DataDirectory
from delaystream.adapters.storage.rocksdb_store import RocksDbSettings, RocksDbStores
from delaystream.engine.failures import StoreFailed
from delaystream.engine.ports import (
    Change,
    Marker,
    StateStore,
    StateStores,
)
from delaystream.query.rows import PIECE, is_cut
from delaystream.testing import MemoryStateStores
from tests.examples import examples

Stores = Callable[[], AbstractContextManager[StateStores]]


def marker(position: int = 1) -> Marker:
    return Marker("topic-id", position, position - 1, b"\x01\xff", 1_700_000_000_000)


@contextmanager
def memory() -> Iterator[StateStores]:
    yield MemoryStateStores()


@contextmanager
def lasting() -> Iterator[StateStores]:
    yield MemoryStateStores(lasting=True)


@contextmanager
def rocksdb() -> Iterator[StateStores]:
    with ExitStack() as cleanup:
        path = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
        directory = DataDirectory.acquire(path, "conformance", min_free_bytes=0)
        cleanup.callback(directory.release)
        # Every hint is taken, as the store in memory takes it.
        yield RocksDbStores(directory, RocksDbSettings(drop_interval_ms=0, drop_min_deletions=0))


@pytest.fixture(params=[memory, lasting, rocksdb], ids=["memory", "lasting", "rocksdb"])
def stores(request: pytest.FixtureRequest) -> Iterator[StateStores]:
    with request.param() as made:
        yield made


def write(store: StateStore, *changes: Change, position: int = 1) -> None:
    store.write(changes, (), marker(position))


def test_a_new_store_is_empty_and_has_no_marker(stores: StateStores) -> None:
    store = stores.open(0)
    assert store.marker() is None
    assert store.get(b"k") is None
    assert store.scan(b"a", b"z", 10) == []
    assert list(store.keys(b"a", b"z")) == []
    store.close()


def test_a_write_is_seen_at_once_and_after_reopening(stores: StateStores) -> None:
    """Changes, local changes and the marker; every field of it."""
    store = stores.open(3)
    store.write([(b"a", b"1"), (b"b", b""), (b"c", b"\x00\xff")], [(b"l", b"local")], marker(7))
    for _ in range(2):
        assert [store.get(key) for key in (b"a", b"b", b"c", b"l")] == [b"1", b"", b"\x00\xff", b"local"]
        assert store.marker() == marker(7)
        store.close()
        store = stores.open(3)
    store.close()


def test_a_tombstone_removes_a_key_and_may_name_one_that_is_not_there(stores: StateStores) -> None:
    store = stores.open(0)
    write(store, (b"a", b"1"), (b"b", b"2"))
    write(store, (b"a", None), (b"x", None), position=2)
    assert store.get(b"a") is None
    assert store.scan(b"a", b"z", 10) == [(b"b", b"2")]
    assert store.marker() == marker(2)
    store.close()


def test_the_last_change_of_a_key_in_a_batch_counts(stores: StateStores) -> None:
    store = stores.open(0)
    write(store, (b"a", b"1"), (b"a", None), (b"a", b"2"), (b"b", b"1"), (b"b", None))
    assert store.scan(b"a", b"z", 10) == [(b"a", b"2")]
    store.close()


def test_a_scan_is_in_byte_order_from_start_up_to_but_not_stop(stores: StateStores) -> None:
    store = stores.open(0)
    keys = [b"w", b"w\x00", b"w\x00\x01", b"w\x7f", b"w\x80", b"w\xff", b"x"]
    write(store, *((key, key[::-1]) for key in reversed(keys)))
    assert [key for key, _ in store.scan(b"a", b"y", 100)] == keys
    assert store.scan(b"w\x00", b"w\xff", 2) == [(b"w\x00", b"\x00w"), (b"w\x00\x01", b"\x01\x00w")]
    assert list(store.keys(b"w\x00", b"w\xff")) == keys[1:5]
    assert store.scan(b"w\x01", b"w\x02", 5) == []
    assert store.scan(b"w", b"w", 5) == []
    store.close()


def test_a_scan_ends_soon_after_so_many_bytes(stores: StateStores) -> None:
    """By a piece at most; and it says that there may be more."""
    store = stores.open(0)
    rows = [(b"w%03d" % number, b"v" * 1_000) for number in range(200)]
    write(store, *rows)
    for most, found in ((1, PIECE), (1_000 * PIECE, PIECE), (1_000 * PIECE + 1, 2 * PIECE), (199_999, 200)):
        some = store.scan(b"w", b"x", 1_000, most)
        assert some == rows[:found]
        assert is_cut(some, most)
    assert store.scan(b"w", b"x", 5, 1) == rows[:5]
    everything = store.scan(b"w", b"x", 1_000, 200_001)
    assert everything == rows
    assert not is_cut(everything, 200_001)
    store.close()


def test_a_dropped_range_leaves_the_rest_alone(stores: StateStores) -> None:
    store = stores.open(0)
    write(store, *((b"w%d" % number, b"v") for number in range(6)))
    write(store, *((b"w%d" % number, None) for number in range(3)), position=2)
    store.drop_range(b"w0", b"w3")
    assert list(store.keys(b"a", b"z")) == [b"w3", b"w4", b"w5"]
    write(store, (b"w1", b"again"), position=3)
    assert store.get(b"w1") == b"again"
    store.close()


def test_partitions_do_not_share_anything(stores: StateStores) -> None:
    one, other = stores.open(1), stores.open(2)
    write(one, (b"k", b"1"))
    assert other.get(b"k") is None
    assert other.marker() is None
    one.close()
    other.close()


def test_an_open_store_is_locked(stores: StateStores) -> None:
    store = stores.open(0)
    with pytest.raises(StoreFailed):
        stores.open(0)
    store.close()
    stores.open(0).close()


def test_a_destroyed_store_is_gone(stores: StateStores) -> None:
    stores.destroy(0)
    store = stores.open(0)
    write(store, (b"k", b"v"))
    store.close()
    stores.destroy(0)
    store = stores.open(0)
    assert (store.get(b"k"), store.marker()) == (None, None)
    store.close()


def test_close_may_be_called_twice(stores: StateStores) -> None:
    store = stores.open(0)
    store.close()
    store.close()


KEYS = st.binary(min_size=1, max_size=3).map(lambda key: b"w" + key)
BATCHES = st.lists(st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=3)), max_size=8), max_size=8)


@pytest.mark.parametrize("kind", [memory, rocksdb], ids=["memory", "rocksdb"])
@settings(examples(25), suppress_health_check=[HealthCheck.too_slow])
@given(batches=BATCHES, start=KEYS, stop=KEYS, limit=st.integers(1, 10))
def test_a_store_is_an_ordered_map(
    kind: Stores, batches: list[list[Change]], start: bytes, stop: bytes, limit: int
) -> None:
    """Whatever is written, reopened in between."""
    model: dict[bytes, bytes] = {}
    with kind() as stores:
        for position, batch in enumerate(batches):
            store = stores.open(0)
            store.write(batch, (), marker(position))
            for key, value in batch:
                if value is None:
                    model.pop(key, None)
                else:
                    model[key] = value
            expected = sorted((k, v) for k, v in model.items() if start <= k < stop)
            assert store.scan(start, stop, limit) == expected[:limit]
            assert store.scan(start, stop, limit, 1_000) == expected[:limit]
            assert list(store.keys(b"w", b"x")) == sorted(model)
            assert store.get_many([stop, start, stop]) == [model.get(key) for key in (stop, start, stop)]
            assert store.get_many([]) == []
            assert store.marker() == marker(position)
            store.close()
