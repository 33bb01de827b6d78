"""The local store on real RocksDB, and the data directory that holds it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from delaystream.adapters.storage import data_directory, rocksdb_store
from delaystream.adapters.storage.data_directory import DataDirectory
from delaystream.adapters.storage.rocksdb_store import RocksDbSettings, RocksDbStore, RocksDbStores
from delaystream.engine.failures import StoreFailed, StoreUntrusted
from delaystream.engine.ports import Marker, StateStore, StateStores

MARKER = Marker(topic_id="A" * 22, position=7, last_offset=5, fingerprint=b"\x00\xff")


def marker(position: int) -> Marker:
    return Marker(topic_id="A" * 22, position=position, last_offset=position, fingerprint=b"")


def key(number: int) -> bytes:
    return b"w%08d" % number


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[DataDirectory]:
    found = DataDirectory.acquire(tmp_path, "app")
    yield found
    found.release()


@pytest.fixture
def stores(directory: DataDirectory) -> RocksDbStores:
    return RocksDbStores(directory)


@pytest.fixture
def store(stores: RocksDbStores) -> Iterator[RocksDbStore]:
    found = stores.open(3)
    yield found
    found.close()


def run_script(script: str, argument: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(argument)],
        check=False,
        timeout=100,
        capture_output=True,
        text=True,
    )


def damage(directory: DataDirectory, partition: int, kind: str, change: Callable[[Path], None]) -> None:
    for path in (directory.path / str(partition)).glob(kind):
        change(path)


def test_the_adapter_is_what_the_port_says(stores: RocksDbStores, store: RocksDbStore) -> None:
    """For the type checker."""
    as_ports: tuple[StateStores, StateStore] = (stores, store)
    assert as_ports


def test_a_write_is_read_back_with_its_marker(store: RocksDbStore) -> None:
    assert store.marker() is None
    assert store.get(b"a") is None
    store.write([(b"a", b"1"), (b"b", b""), (b"c", b"3")], [(b"lx", b"local")], MARKER)
    assert [store.get(name) for name in (b"a", b"b", b"c", b"lx")] == [b"1", b"", b"3", b"local"]
    store.write([(b"a", None), (b"gone", None)], [(b"lx", None)], MARKER)
    assert [store.get(name) for name in (b"a", b"lx")] == [None, None]
    assert store.marker() == MARKER


def test_scans_are_ordered_bounded_and_half_open(store: RocksDbStore) -> None:
    store.write([(key(n), b"%d" % n) for n in range(9, -1, -1)], [], MARKER)
    assert store.scan(key(2), key(5), 10) == [(key(n), b"%d" % n) for n in (2, 3, 4)]
    assert store.scan(key(2), key(9), 2) == [(key(n), b"%d" % n) for n in (2, 3)]
    assert store.scan(b"w", b"x", 100) == [(key(n), b"%d" % n) for n in range(10)]
    assert store.scan(b"x", b"y", 100) == []
    assert store.scan(key(5), key(5), 100) == []
    assert list(store.keys(b"w", key(3))) == [key(0), key(1), key(2)]


def test_keys_go_on_over_chunks_while_the_store_changes(store: RocksDbStore) -> None:
    """And no iterator is left that would hold the lock."""
    store.write([(key(n), b"") for n in range(25_000)], [], MARKER)
    keys = iter(store.keys(b"w", b"x"))
    assert next(keys) == key(0)
    store.write([(key(0), None)], [], MARKER)
    assert sum(1 for _ in keys) == 24_999


def test_a_closed_store_is_opened_as_it_was(stores: RocksDbStores) -> None:
    """Even with a reader that was given up half way; closing twice is no error."""
    store = stores.open(0)
    store.write([(key(n), b"v") for n in range(20_000)], [], MARKER)
    assert next(iter(store.keys(b"w", b"x"))) == key(0)
    store.close()
    store.close()
    again = stores.open(0)
    assert again.marker() == MARKER
    assert len(again.scan(b"w", b"x", 100_000)) == 20_000
    again.close()


def test_a_crash_loses_the_latest_writes_and_keeps_the_order(tmp_path: Path) -> None:
    """Whatever is there after a kill, the marker says exactly how much that is."""
    writer = """
        from pathlib import Path
        from delaystream.adapters.storage.data_directory import DataDirectory
        from delaystream.adapters.storage.rocksdb_store import RocksDbSettings, RocksDbStores
        from delaystream.engine.ports import Marker
        import os, sys
        stores = RocksDbStores(
            DataDirectory.acquire(Path(sys.argv[1]), "app"), RocksDbSettings(write_buffer_bytes=200_000)
        )
        store = stores.open(0)
        for n in range(3_000):
            marker = Marker(topic_id="", position=n, last_offset=n, fingerprint=b"")
            store.write([(b"w%08d" % n, b"v" * 300)], [(b"l", b"%d" % n)], marker)
        os._exit(9)
    """
    assert run_script(writer, tmp_path).returncode == 9
    # The lock went with the process.
    directory = DataDirectory.acquire(tmp_path, "app")
    store = RocksDbStores(directory).open(0)
    found = store.marker()
    assert found is not None
    assert 0 < found.position <= 2_999
    assert [name for name, _ in store.scan(b"w", b"x", 5_000)] == [key(n) for n in range(found.position + 1)]
    assert store.get(b"l") == b"%d" % found.position
    store.close()
    directory.release()


def test_a_store_is_flushed_now_and_then(directory: DataDirectory) -> None:
    """So that a store with few writes has little to replay after a crash, and no marker of days ago."""
    store = RocksDbStores(directory, RocksDbSettings(flush_interval_ms=0)).open(0)
    for number in range(3):
        store.write([(key(number), b"v")], [], marker(number))
    assert list((directory.path / "0").glob("*.sst"))
    store.close()


def test_dropped_ranges_are_gone_and_the_rest_is_not(directory: DataDirectory) -> None:
    store = RocksDbStores(directory, RocksDbSettings(drop_min_deletions=0)).open(0)
    store.write([(key(n), b"v") for n in range(100)], [], MARKER)
    store.drop_range(key(0), key(40))
    assert [name for name, _ in store.scan(b"w", b"x", 1_000)] == [key(n) for n in range(40, 100)]
    store.write([(key(7), b"new")], [], MARKER)
    assert store.scan(b"w", b"x", 1) == [(key(7), b"new")]
    store.close()


def test_hints_that_come_too_fast_are_left_out(directory: DataDirectory) -> None:
    """From one beginning on, or with little to gain; nobody may rely on a hint."""
    store = RocksDbStores(directory, RocksDbSettings(drop_min_deletions=2)).open(0)
    store.write([(key(n), b"v") for n in range(10)], [], MARKER)
    store.drop_range(key(0), key(2))
    assert len(store.scan(b"w", b"x", 100)) == 10
    store.write([(b"a", None), (b"b", None)], [], MARKER)
    store.drop_range(key(0), key(2))
    store.write([(b"a", None), (b"b", None)], [], MARKER)
    store.drop_range(key(0), key(5))
    store.drop_range(key(8), key(9))
    assert [name for name, _ in store.scan(b"w", b"x", 100)] == [key(n) for n in (2, 3, 4, 5, 6, 7, 9)]
    store.close()


def test_destroy_leaves_nothing_and_is_no_error_without_a_store(stores: RocksDbStores) -> None:
    stores.destroy(5)
    store = stores.open(5)
    store.write([(b"a", b"1")], [], MARKER)
    store.close()
    stores.destroy(5)
    again = stores.open(5)
    assert (again.marker(), again.get(b"a")) == (None, None)
    again.close()
    stores.destroy(5)


@pytest.mark.parametrize("kind", ["CURRENT", "MANIFEST-*", "*.sst"])
@pytest.mark.parametrize("how", ["garbage", "empty", "missing"])
def test_a_damaged_store_is_never_read_as_a_good_one(
    stores: RocksDbStores, directory: DataDirectory, kind: str, how: str
) -> None:
    """It is not trusted, or it is found empty; after destroy() it works again."""
    store = stores.open(0)
    store.write([(key(n), os.urandom(100)) for n in range(5_000)], [], MARKER)
    store.close()
    changes: dict[str, Callable[[Path], object]] = {
        "garbage": lambda path: path.write_bytes(os.urandom(path.stat().st_size)),
        "empty": lambda path: path.write_bytes(b""),
        "missing": lambda path: path.unlink(),
    }
    damage(directory, 0, kind, lambda path: (changes[how](path), None)[1])
    try:
        damaged = stores.open(0)
    except StoreUntrusted:
        pass
    else:
        assert damaged.marker() is None
        assert damaged.scan(b"w", b"x", 10) == []
        damaged.close()
    stores.destroy(0)
    store = stores.open(0)
    store.write([(b"a", b"1")], [], MARKER)
    store.close()


def test_a_damaged_block_is_found_by_whoever_reads_it(
    stores: RocksDbStores, directory: DataDirectory
) -> None:
    """rocksdict's iterators end there without a word: the rest would be taken for not there."""
    store = stores.open(0)
    store.write([(key(n), os.urandom(100)) for n in range(20_000)], [], MARKER)
    store.close()

    def spoil(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2)
            file.write(b"\xff" * 64)

    damage(directory, 0, "*.sst", spoil)
    store = stores.open(0)
    with pytest.raises(StoreUntrusted, match="checksum"):
        store.scan(b"w", b"x", 100_000)
    with pytest.raises(StoreUntrusted, match="checksum"):
        list(store.keys(b"w", b"x"))
    store.close()


def test_another_format_is_not_trusted(stores: RocksDbStores) -> None:
    for stored in (b"\xc1nonsense", rocksdb_store._encode_marker(Marker("", 0, 0, b"", format=99))):
        store = stores.open(0)
        store._database.put(rocksdb_store._MARKER_KEY, stored)
        store.close()
        with pytest.raises(StoreUntrusted):
            stores.open(0)
        stores.destroy(0)


def test_a_store_that_is_open_elsewhere_is_a_failure_and_not_damage(stores: RocksDbStores) -> None:
    store = stores.open(0)
    with pytest.raises(StoreFailed, match="lock"):
        stores.open(0)
    store.close()


def test_a_use_after_close_is_a_bug_and_no_reason_to_discard_the_store(stores: RocksDbStores) -> None:
    store = stores.open(0)
    store.close()
    with pytest.raises(Exception, match="closed") as caught:
        store.get(b"a")
    assert not isinstance(caught.value, StoreUntrusted | StoreFailed)


def test_a_data_directory_that_disappears_is_a_failure(tmp_path: Path) -> None:
    directory = DataDirectory.acquire(tmp_path, "app")
    stores = RocksDbStores(directory)
    (directory.path / "worker.lock").unlink()
    directory.path.rmdir()
    with pytest.raises(StoreFailed, match="gone"):
        stores.open(0)
    directory.release()


def test_a_full_disk_is_a_failure_with_a_reason(stores: RocksDbStores) -> None:
    """A limit on file size stands in for a full disk: RocksDB's next write after the failed flush says so."""
    script = """
        import os, resource, signal, sys
        from pathlib import Path
        from delaystream.adapters.storage.data_directory import DataDirectory
        from delaystream.adapters.storage.rocksdb_store import RocksDbSettings, RocksDbStores
        from delaystream.engine.failures import StoreFailed
        from delaystream.engine.ports import Marker
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        directory = DataDirectory.acquire(Path(sys.argv[1]), "app")
        store = RocksDbStores(directory, RocksDbSettings(write_buffer_bytes=200_000)).open(0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        marker = Marker(topic_id="", position=0, last_offset=0, fingerprint=b"")
        try:
            for n in range(200_000):
                store.write([(b"w%08d" % n, os.urandom(300))], [], marker)
        except StoreFailed as error:
            print(error)
            store.close()
            sys.exit(7)
    """
    finished = run_script(script, stores._directory / "full")
    assert finished.returncode == 7, finished.stderr
    assert "File too large" in finished.stdout
    assert "are not on disk" in finished.stderr


def test_two_workers_on_one_data_directory_are_told_so(tmp_path: Path) -> None:
    """With the process id of the one that holds it; another application's directory is another."""
    first = DataDirectory.acquire(tmp_path, "app")
    with pytest.raises(StoreFailed, match=f"in use by process {os.getpid()}"):
        DataDirectory.acquire(tmp_path, "app")
    DataDirectory.acquire(tmp_path, "other").release()
    first.release()
    first.release()
    DataDirectory.acquire(tmp_path, "app").release()


def test_a_data_directory_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreFailed, match="cannot be used: Not a directory"):
        DataDirectory.acquire(tmp_path / "file", "app")


def test_a_read_only_data_directory_is_a_sentence(tmp_path: Path) -> None:
    script = """
        import os, sys
        from pathlib import Path
        from delaystream.adapters.storage.data_directory import DataDirectory
        from delaystream.engine.failures import StoreFailed
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            DataDirectory.acquire(Path(sys.argv[1]), "app")
        except StoreFailed as error:
            print(error)
            sys.exit(7)
    """
    tmp_path.chmod(0o500)
    finished = run_script(script, tmp_path)
    assert finished.returncode == 7, finished.stderr
    assert "cannot be used: Permission denied" in finished.stdout


def test_too_little_space_is_a_sentence_and_leaves_no_lock(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match="MiB left"):
        DataDirectory.acquire(tmp_path, "app", min_free_bytes=2**62)
    assert data_directory.DataDirectory.acquire(tmp_path, "app").path == tmp_path / "app"
