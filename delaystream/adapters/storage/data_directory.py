"""The directory of an application's local state on this machine; one process at a time holds it."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import Final

from delaystream.engine.failures import StoreFailed

_LOCK_FILE: Final = "worker.lock"
_DEFAULT_MIN_FREE_BYTES: Final = 256 * 1024 * 1024


class DataDirectory:
    """``<data-dir>/<app>/``, locked (flock) until :meth:`release`; the lock ends with the process."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock: int | None = lock

    @classmethod
    def acquire(
        cls, data_dir: Path, app_id: str, *, min_free_bytes: int = _DEFAULT_MIN_FREE_BYTES
    ) -> DataDirectory:
        """Create and lock the directory, and check that it can be written.

        Raises StoreFailed with a sentence for people: not writable, full, or in use by another process.
        """
        path = data_dir / app_id
        lock_file = path / _LOCK_FILE
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreFailed(f"The data directory {path} cannot be used: {error.strerror}.") from error
        try:
            _lock(path, lock)
            _write_pid(path, lock)
            _check_space(path, min_free_bytes)
        except StoreFailed:
            os.close(lock)
            raise
        return cls(path, lock)

    def release(self) -> None:
        """HoldEnd the lock; a second call does nothing."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def _lock(path: Path, lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
        raise StoreFailed(
            f"The data directory {path} is in use by process {holder}: "
            "two workers cannot share one; give each its own --data-dir."
        ) from error
    except OSError as error:
        raise StoreFailed(f"The data directory {path} cannot be locked: {error.strerror}.") from error


def _write_pid(path: Path, lock: int) -> None:
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        os.fsync(lock)
    except OSError as error:
        raise StoreFailed(f"The data directory {path} cannot be written: {error.strerror}.") from error


def _check_space(path: Path, min_free_bytes: int) -> None:
    free_bytes = shutil.disk_usage(path).free
    if free_bytes < min_free_bytes:
        raise StoreFailed(
            f"The data directory {path} has {free_bytes // 2**20} MiB left, "
            f"and {min_free_bytes // 2**20} MiB are needed to start."
        )
