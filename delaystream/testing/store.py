"""The local stores of the engine's ports, in memory: what they hold outlives the process."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

from delaystream.engine.failures import StoreFailed, StoreUntrusted
from delaystream.engine.ports import Change, Marker
from delaystream.query.rows import taken
from delaystream.testing.interruption import Calm, Interruptions


class Disk:
    """The content of one store on disk. Writes are atomic; the last of them may be lost in a crash.

    One that never crashes (``lasting``) need not remember how to undo them.
    """

    def __init__(self, *, lasting: bool = False) -> None:
        self.lasting = lasting
        self.values: dict[bytes, bytes] = {}
        self.order: list[bytes] = []
        self.marker: Marker | None = None
        self.corrupt = False
        #: the open store that holds the lock
        self.holder: MemoryStore | None = None
        #: for each write that is not flushed: what it replaced
        self.unflushed: list[tuple[list[Change], Marker | None]] = []

    def put(self, key: bytes, value: bytes | None) -> Change:
        """Change one key; returns the change that undoes it."""
        old = self.values.get(key)
        if value is None:
            if old is not None:
                del self.values[key]
                del self.order[bisect_left(self.order, key)]
        else:
            if old is None:
                insort(self.order, key)
            self.values[key] = value
        return key, old

    def get(self, key: bytes) -> bytes | None:
        """The value stored under a key."""
        return self.values.get(key)

    def scan(
        self, start: bytes, stop: bytes, limit: int, most_bytes: int | None = None
    ) -> list[tuple[bytes, bytes]]:
        """See the port."""
        values, order = self.values, self.order
        first = bisect_left(order, start)
        last = min(bisect_left(order, stop, first), first + limit)
        return taken(((key, values[key]) for key in order[first:last]), limit, most_bytes)

    def lose(self, writes: int) -> None:
        """Undo the last so many writes that were not flushed: a crash without a write-ahead log."""
        for _ in range(min(writes, len(self.unflushed))):
            changes, self.marker = self.unflushed.pop()
            for key, value in reversed(changes):
                self.put(key, value)

    def copy(self) -> Disk:
        """A backup, or the disk of a machine that goes away for a while."""
        other = Disk()
        other.values = dict(self.values)
        other.order = list(self.order)
        other.marker = self.marker
        return other


class MemoryStore:
    """A :class:`~delaystream.engine.ports.StateStore`."""

    def __init__(self, disk: Disk, partition: int, interruptions: Interruptions) -> None:
        self._disk = disk
        self._name = str(partition)
        self._interruptions = interruptions
        disk.holder = self

    @property
    def _open(self) -> Disk:
        assert self._disk.holder is self, "the store was closed, or its process is dead"
        return self._disk

    def get(self, key: bytes) -> bytes | None:
        """See the port."""
        return self._open.values.get(key)

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """See the port."""
        return [self._open.values.get(key) for key in keys]

    def scan(
        self, start: bytes, stop: bytes, limit: int, most_bytes: int | None = None
    ) -> list[tuple[bytes, bytes]]:
        """See the port."""
        disk = self._open
        self._interruptions.at_once("look", self._name)
        return disk.scan(start, stop, limit, most_bytes)

    def keys(self, start: bytes, stop: bytes) -> Iterable[bytes]:
        """See the port."""
        disk = self._open
        return disk.order[bisect_left(disk.order, start) : bisect_left(disk.order, stop)]

    def write(self, changes: Iterable[Change], local: Iterable[Change], marker: Marker) -> None:
        """See the port."""
        disk = self._open
        if disk.lasting:
            for key, value in changes:
                disk.put(key, value)
            for key, value in local:
                disk.put(key, value)
            disk.marker = marker
            return
        self._interruptions.at_once("store", self._name)
        undo = [disk.put(key, value) for key, value in changes]
        undo += [disk.put(key, value) for key, value in local]
        disk.unflushed.append((undo, disk.marker))
        disk.marker = marker
        self._interruptions.at_once("stored", self._name)

    def drop_range(self, start: bytes, stop: bytes) -> None:
        """See the port; a key that is still there is lost, as it would be."""
        disk = self._open
        undo = [disk.put(key, None) for key in self.keys(start, stop)]
        if undo and not disk.lasting:
            disk.unflushed.append((undo, disk.marker))

    def marker(self) -> Marker | None:
        """See the port."""
        return self._open.marker

    def close(self) -> None:
        """See the port."""
        if self._disk.holder is self:
            self._disk.unflushed.clear()
            self._disk.holder = None


class MemoryStateStores:
    """A :class:`~delaystream.engine.ports.StateStores`: a data directory.

    It outlives the processes that use it: :meth:`crash` is what the death of one does to it.
    """

    def __init__(self, *, interruptions: Interruptions | None = None, lasting: bool = False) -> None:
        self.disks: dict[int, Disk] = {}
        self._lasting = lasting
        self._interruptions = interruptions or Calm()

    def open(self, partition: int) -> MemoryStore:
        """See the port."""
        self._interruptions.at_once("open-store", str(partition))
        disk = self.disks.setdefault(partition, Disk(lasting=self._lasting))
        if disk.holder is not None:
            raise StoreFailed(f"the store of partition {partition} is locked by another process")
        if disk.corrupt:
            raise StoreUntrusted(f"the store of partition {partition} is corrupt")
        return MemoryStore(disk, partition, self._interruptions)

    def destroy(self, partition: int) -> None:
        """See the port."""
        disk = self.disks.get(partition)
        if disk is not None and disk.holder is not None:
            raise StoreFailed(f"the store of partition {partition} is in use")
        self.disks.pop(partition, None)

    def crash(self, lost_writes: int = 0) -> None:
        """The process died: its locks are gone, and of each store up to so many unflushed writes."""
        for disk in self.disks.values():
            disk.lose(lost_writes)
            disk.unflushed.clear()
            disk.holder = None
