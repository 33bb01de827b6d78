"""Local state in RocksDB: one database with one column family for each partition.

The write-ahead log is off. A crash loses the last writes, in the order of writing, and the changelog still
has them. So every batch carries a marker that says how far the changelog was applied.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec
from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)

from delaystream.adapters.storage.data_directory import DataDirectory
from delaystream.codec.envelope import UNREADABLE
from delaystream.engine.failures import StoreFailed, StoreUntrusted
from delaystream.engine.ports import (
    STORE_FORMAT,
    Change,
    Marker,
    StateStore,
    StateStores,
)
from delaystream.query.rows import is_cut, taken

_log = logging.getLogger(__name__)

#: sorts before every key of the engine
_MARKER_KEY: Final = b"\0marker"
_KEYS_CHUNK: Final = 10_000

_encode_marker = msgspec.msgpack.Encoder().encode
_decode_marker = msgspec.msgpack.Decoder(Marker).decode

# rocksdict raises a bare Exception whose text is RocksDB's status, or the operating system's. These texts are
# about the machine. Every other error is about the files, whose content the changelog has.
_MACHINE_FAULTS: Final = ("Permission denied", "Read-only file system", "File exists", "Not a directory")
_IO_ERROR: Final = "IO error"
_FILE_MISSING: Final = "No such file"


class RocksDbSettings(msgspec.Struct, frozen=True):
    """Bounds of a worker's stores; sizes in bytes, for all stores together unless stated otherwise."""

    block_cache_bytes: int = 64 * 1024 * 1024
    #: memory for writes not yet on disk: at most this much is replayed after a crash
    write_buffers_bytes: int = 96 * 1024 * 1024
    #: size of one memtable of one store
    write_buffer_bytes: int = 32 * 1024 * 1024
    block_bytes: int = 8 * 1024
    #: most open files of one store
    max_open_files: int = 512
    max_background_jobs: int = 2
    #: a store with new writes is flushed this often, so that little is replayed after a crash
    flush_interval_ms: int = 60_000
    #: a range is dropped from one key on only after this time and this many deletions, because each dropped
    #: range makes later scans a little slower
    drop_interval_ms: int = 1_000
    drop_min_deletions: int = 5_000


class RocksDbStores(StateStores):
    """The stores in a data directory; they share a block cache and a budget for write buffers."""

    def __init__(self, directory: DataDirectory, settings: RocksDbSettings | None = None) -> None:
        self._directory = directory.path
        self._settings = settings or RocksDbSettings()
        self._cache = Cache(self._settings.block_cache_bytes)
        self._write_buffers = WriteBufferManager(self._settings.write_buffers_bytes, False)

    def open(self, partition: int) -> RocksDbStore:
        """Open or create. Raises StoreUntrusted (corrupt, of another format) or StoreFailed."""
        path = self._path(partition)
        if not self._directory.is_dir():
            raise StoreFailed(f"The data directory {self._directory} is gone.")
        try:
            database = Rdict(str(path), options=self._options())
        except Exception as error:
            raise _failure(path, error) from error
        store = RocksDbStore(database, path, self._settings)
        try:
            store.check_format()
        except BaseException:
            database.close()
            raise
        return store

    def destroy(self, partition: int) -> None:
        """Delete a store. It is moved away first, so that a half-deleted one is never taken for a store."""
        path = self._path(partition)
        discarded = path.with_name(f"{path.name}.discarded")
        try:
            if discarded.exists():
                shutil.rmtree(discarded)
            if path.exists():
                os.replace(path, discarded)
                shutil.rmtree(discarded)
        except OSError as error:
            raise StoreFailed(f"{path} cannot be deleted: {error.strerror}") from error

    def _path(self, partition: int) -> Path:
        return self._directory / str(partition)

    def _options(self) -> Options:
        settings = self._settings
        table = BlockBasedOptions()
        table.set_block_cache(self._cache)
        table.set_block_size(settings.block_bytes)
        # Indexes and filters grow with the state. Inside the cache they are bounded.
        table.set_cache_index_and_filter_blocks(True)
        table.set_pin_l0_filter_and_index_blocks_in_cache(True)
        # Every new named schedule looks up an id that does not exist yet.
        table.set_bloom_filter(10, False)
        table.set_format_version(5)
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_block_based_table_factory(table)
        options.set_compression_type(DBCompressionType.lz4())
        options.set_write_buffer_manager(self._write_buffers)
        options.set_write_buffer_size(settings.write_buffer_bytes)
        options.set_max_write_buffer_number(3)
        options.set_level_compaction_dynamic_level_bytes(True)
        # Due times arrive in any order. Fewer and larger compactions made a write cheaper by a fifth.
        options.set_level_zero_file_num_compaction_trigger(8)
        options.set_max_bytes_for_level_base(512 * 1024 * 1024)
        options.set_max_background_jobs(settings.max_background_jobs)
        options.set_max_open_files(settings.max_open_files)
        # A drained wheel is all tombstones: compact files soon when half of their entries are tombstones.
        options.add_compact_on_deletion_collector_factory(10_000, 5_000, 0.5)
        options.set_keep_log_file_num(2)
        options.set_max_log_file_size(1024 * 1024)
        options.set_stats_dump_period_sec(0)
        return options


class RocksDbStore(StateStore):
    """One partition's state."""

    def __init__(self, database: Rdict, path: Path, settings: RocksDbSettings) -> None:
        self._database = database
        self._path = path
        self._flush_interval_s = settings.flush_interval_ms / 1000
        self._drop_interval_s = settings.drop_interval_ms / 1000
        self._flushed_s = time.monotonic()
        self._dropped_s: dict[bytes, float] = {}
        self._drop_min_deletions = settings.drop_min_deletions
        self._deletions = 0
        self._closed = False
        self._without_log = WriteOptions()
        # This is a property, although the package's stub calls it a method.
        self._without_log.disable_wal = True  # type: ignore[method-assign, assignment]

    def check_format(self) -> None:
        """Raise StoreUntrusted for a store that another version of this program wrote."""
        marker = self.marker()
        if marker is not None and marker.format != STORE_FORMAT:
            raise StoreUntrusted(f"{self._path} has format {marker.format}, not {STORE_FORMAT}")

    def get(self, key: bytes) -> bytes | None:
        """The value stored under a key. Raises StoreUntrusted."""
        try:
            value: bytes | None = self._database.get(key)
        except Exception as error:
            raise _failure(self._path, error) from error
        return value

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """The values stored under keys, in their order. Raises StoreUntrusted."""
        wanted: Any = keys
        try:
            found: Any = self._database.get(wanted)
        except Exception as error:
            raise _failure(self._path, error) from error
        values: list[bytes | None] = found
        return values

    def scan(
        self, start: bytes, stop: bytes, limit: int, most_bytes: int | None = None
    ) -> list[tuple[bytes, bytes]]:
        """Up to ``limit`` entries in key order, or ``most_bytes`` of values. Raises StoreUntrusted."""
        try:
            items: Any = self._database.items(from_key=start, read_opt=_up_to(stop))
            entries = taken(iter(items), limit, most_bytes)
            if len(entries) < limit and not is_cut(entries, most_bytes):
                self._check_end(entries[-1][0] + b"\0" if entries else start, stop)
        except Exception as error:
            raise _failure(self._path, error) from error
        return entries

    def keys(self, start: bytes, stop: bytes) -> Iterable[bytes]:
        """All keys in order. Raises StoreUntrusted.

        It reads in chunks: an open iterator would hold the database's lock while the caller pauses.
        """
        while chunk := self._keys(start, stop):
            yield from chunk
            start = chunk[-1] + b"\0"

    def _keys(self, start: bytes, stop: bytes) -> list[bytes]:
        try:
            keys: Any = self._database.keys(from_key=start, read_opt=_up_to(stop))
            chunk: list[bytes] = list(islice(keys, _KEYS_CHUNK))
            if not chunk:
                self._check_end(start, stop)
        except Exception as error:
            raise _failure(self._path, error) from error
        return chunk

    def _check_end(self, start: bytes, stop: bytes) -> None:
        """Raise if an iteration ended at an unreadable block: rocksdict ends it silently."""
        iterator = self._database.iter(_up_to(stop))
        iterator.seek(start)
        iterator.status()

    def write(self, changes: Iterable[Change], local: Iterable[Change], marker: Marker) -> None:
        """One atomic batch. Raises StoreFailed."""
        batch = WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, value in changes:
            if value is None:
                delete(key)
                self._deletions += 1
            else:
                put(key, value)
        for key, value in local:
            if value is None:
                delete(key)
                self._deletions += 1
            else:
                put(key, value)
        put(_MARKER_KEY, _encode_marker(marker))
        now_s = time.monotonic()
        try:
            self._database.write(batch, self._without_log)
            if now_s - self._flushed_s >= self._flush_interval_s:
                self._flushed_s = now_s
                self._database.flush(False)
        except Exception as error:
            raise _failure(self._path, error) from error

    def drop_range(self, start: bytes, stop: bytes) -> None:
        """Drop a range. A hint: skipped after few deletions, or soon after the last one from ``start`` on.

        So pass a wheel's beginning each time. Otherwise a scan from there reads every tombstone that is not
        compacted yet: half a second for half a million.
        """
        if self._deletions < self._drop_min_deletions:
            return
        now_s = time.monotonic()
        if now_s - self._dropped_s.get(start, -math.inf) >= self._drop_interval_s:
            self._dropped_s[start] = now_s
            self._deletions = 0
            batch = WriteBatch(raw_mode=True)
            batch.delete_range(start, stop)
            try:
                self._database.write(batch, self._without_log)
            except Exception as error:
                raise _failure(self._path, error) from error

    def marker(self) -> Marker | None:
        """The marker of the last write. Raises StoreUntrusted when it is not one of ours."""
        stored = self.get(_MARKER_KEY)
        if stored is None:
            return None
        try:
            return _decode_marker(stored)
        except UNREADABLE as error:
            raise StoreUntrusted(f"{self._path} has a marker that cannot be read: {error}") from error

    def close(self) -> None:
        """Flush, and release the lock; a second call does nothing.

        Raises nothing: what is not on disk is in the changelog.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._database.flush(True)
        except Exception as error:  # noqa: BLE001
            _log.warning("The last writes to %s are not on disk: %s", self._path, error)
        # It flushes once more, releases the lock in any case, and then raises what the flush failed on.
        with suppress(Exception):
            self._database.close()


def _up_to(stop: bytes) -> ReadOptions:
    options = ReadOptions()
    options.set_iterate_upper_bound(stop)
    return options


def _failure(path: Path, error: Exception) -> Exception:
    """Translates RocksDB's exception into the port's; returns other exceptions unchanged."""
    if type(error) is not Exception:
        return error
    text = str(error)
    if any(fault in text for fault in _MACHINE_FAULTS) or (
        text.startswith(_IO_ERROR) and _FILE_MISSING not in text
    ):
        return StoreFailed(f"The local state in {path} cannot be used: {text}")
    return StoreUntrusted(f"The local state in {path} cannot be trusted: {text}")
