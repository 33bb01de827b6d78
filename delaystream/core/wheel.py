"""The heads of the wheels: which destinations have due entries, and when the next entry will be due.

Each destination has a wheel of its own (a range of ordered keys in the store); this module has only one
number for each wheel, a lower bound of its earliest due time, in a heap. So a tick costs nothing for a wheel
without due entries, and the top of the heap is the next wake-up.

A worked example, with wheels 1 (entries due at 5 and 9) and 2 (due at 7)::

    heads {1: 5, 2: 7}   next_due() -> 5
    due(6)  -> [1]        the caller drains wheel 1 up to 6 and finds 9 left behind
    set(1, 9)             heads {1: 9, 2: 7}, next_due() -> 7
    add(2, 3)             an entry due at 3 comes in: heads {1: 9, 2: 3}

A removed (cancelled) entry leaves the bound unchanged. The bound is then too low, which costs one look at the
wheel and loses nothing.

A wheel that must not be drained for a while (its destination is parked, its rate is used up) is *closed*. It
keeps its head. Closed wheels cost nothing until they are opened again, however many there are::

    close(2)              heads {1: 9, 2: 3}, next_due() -> 9, oldest() -> 3
    open(2)               next_due() -> 3

Nobody waits for a *withheld* wheel. next_due() and oldest() ignore it until it is released, even if it is
closed or opened meanwhile.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from heapq import heapify, heappop, heappush
from typing import Final

#: The wheel of housekeeping. Its entries are not delivered, and it is never closed.
HOUSEKEEPING: Final = 0
#: Tolerated number of outdated items in a heap, in addition to the number of wheels.
_OUTDATED: Final = 256


class WheelHeads:
    """Lower bounds of the earliest due time of each wheel; times in ms, wheels by destination number."""

    def __init__(self) -> None:
        self._heads: dict[int, int] = {}
        self._closed: set[int] = set()
        self._withheld: set[int] = set()
        #: (due_ms, wheel) of the open wheels, and of the closed ones; housekeeping and withheld wheels are in
        #: neither
        self._open_heap: list[tuple[int, int]] = []
        self._closed_heap: list[tuple[int, int]] = []

    def head(self, wheel: int) -> int | None:
        """A lower bound of the wheel's earliest due time; None for an empty wheel."""
        return self._heads.get(wheel)

    def add(self, wheel: int, due_ms: int) -> None:
        """Count in a new entry."""
        head = self._heads.get(wheel)
        if head is None or due_ms < head:
            self._heads[wheel] = due_ms
            self._push(due_ms, wheel)

    def set(self, wheel: int, due_ms: int | None) -> None:
        """Set the head after a look at the wheel: the earliest entry is due at ``due_ms``; None: no entry."""
        if due_ms is None:
            self._heads.pop(wheel, None)
        elif self._heads.get(wheel) != due_ms:
            self._heads[wheel] = due_ms
            self._push(due_ms, wheel)

    def close(self, wheel: int) -> None:
        """Leave the wheel out of the due ones until it is opened."""
        if wheel in self._withheld:
            return
        self._closed.add(wheel)
        if (due_ms := self._heads.get(wheel)) is not None:
            self._push(due_ms, wheel)

    def open(self, wheel: int) -> None:
        """Let the wheel be drained again."""
        if wheel in self._closed:
            self._closed.discard(wheel)
            if (due_ms := self._heads.get(wheel)) is not None:
                self._push(due_ms, wheel)

    def withhold(self, wheel: int) -> None:
        """Leave the wheel out of everything until it is released."""
        self._closed.discard(wheel)
        self._withheld.add(wheel)

    def release(self, wheel: int) -> None:
        """Make a withheld wheel an ordinary one again."""
        if wheel in self._withheld:
            self._withheld.discard(wheel)
            if (due_ms := self._heads.get(wheel)) is not None:
                self._push(due_ms, wheel)

    def is_withheld(self, wheel: int) -> bool:
        """Whether the wheel is left out of everything."""
        return wheel in self._withheld

    def _push(self, due_ms: int, wheel: int) -> None:
        if wheel == HOUSEKEEPING or wheel in self._withheld:
            return
        closed = wheel in self._closed
        heap = self._closed_heap if closed else self._open_heap
        # A head that alternates between now and next year leaves an item for next year each time.
        if len(heap) > 2 * len(self._heads) + _OUTDATED:
            heap[:] = [
                (due_ms, wheel)
                for wheel, due_ms in self._heads.items()
                if wheel != HOUSEKEEPING and wheel not in self._withheld and (wheel in self._closed) is closed
            ]
            heapify(heap)
        else:
            heappush(heap, (due_ms, wheel))

    def due(self, now_ms: int) -> Generator[int]:
        """Open wheels whose head is due at ``now_ms`` or earlier, earliest first; housekeeping before all.

        The wheels stay in the heap. The caller may close the current wheel, and must close the iterator.
        """
        if (housekeeping := self._heads.get(HOUSEKEEPING)) is not None and housekeeping <= now_ms:
            yield HOUSEKEEPING
        heap = self._open_heap
        seen: list[tuple[int, int]] = []
        try:
            while heap and heap[0][0] <= now_ms:
                item = heappop(heap)
                if self._stands(item, closed=False) and (not seen or seen[-1] != item):
                    seen.append(item)
                    yield item[1]
        finally:
            for item in seen:
                if self._stands(item, closed=False):
                    heappush(heap, item)

    def first(self) -> tuple[int, int] | None:
        """(due time, wheel) of the earliest head of the open wheels; None when there is none."""
        first = self._top(self._open_heap, closed=False)
        housekeeping = self._heads.get(HOUSEKEEPING)
        if housekeeping is not None and (first is None or housekeeping < first[0]):
            return housekeeping, HOUSEKEEPING
        return first

    def next_due(self) -> int | None:
        """Due time of the earliest head of the open wheels; None when there is none."""
        first = self.first()
        return None if first is None else first[0]

    def all(self) -> Iterator[tuple[int, int]]:
        """(wheel, due time) of all wheels without housekeeping, closed and withheld ones too; in no order."""
        for wheel, due_ms in self._heads.items():
            if wheel != HOUSEKEEPING:
                yield wheel, due_ms

    def oldest(self) -> int | None:
        """Due time of the earliest head of all wheels, with closed ones, without housekeeping."""
        tops = (self._top(self._open_heap, closed=False), self._top(self._closed_heap, closed=True))
        return min([top[0] for top in tops if top is not None], default=None)

    def _top(self, heap: list[tuple[int, int]], *, closed: bool) -> tuple[int, int] | None:
        while heap and not self._stands(heap[0], closed=closed):
            heappop(heap)
        return heap[0] if heap else None

    def _stands(self, item: tuple[int, int], *, closed: bool) -> bool:
        """Whether an item of a heap is current."""
        due_ms, wheel = item
        return (
            self._heads.get(wheel) == due_ms
            and (wheel in self._closed) is closed
            and wheel not in self._withheld
        )
