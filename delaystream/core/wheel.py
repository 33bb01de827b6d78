"""The heads of the wheels: which destinations have something due, and when the next one will.

Each destination has a wheel of its own (a range of ordered keys in the store); this module holds only one
number for each, a lower bound of its earliest due time, in a heap. A tick therefore costs nothing for a
wheel with nothing due, and the top of the heap is the next wake-up.

A worked example, with wheels 1 (entries due at 5 and 9) and 2 (due at 7)::

    heads {1: 5, 2: 7}   next_due() -> 5
    due(6)  -> [1]        the caller drains wheel 1 up to 6 and finds 9 left behind
    set(1, 9)             heads {1: 9, 2: 7}, next_due() -> 7
    add(2, 3)             an entry due at 3 comes in: heads {1: 9, 2: 3}

An entry that is taken out (cancelled) leaves the bound where it is: it then is too low, which costs one
look at the wheel and loses nothing.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Final

#: Outdated items of the heap that are put up with, beside as many as there are wheels.
_OUTDATED: Final = 256


class WheelHeads:
    """Lower bounds of the earliest due time of each wheel; times in ms, wheels by destination number."""

    def __init__(self) -> None:
        self._heads: dict[int, int] = {}
        self._heap: list[tuple[int, int]] = []

    def head(self, wheel: int) -> int | None:
        """A lower bound of the wheel's earliest due time; None for an empty wheel."""
        return self._heads.get(wheel)

    def add(self, wheel: int, due_ms: int) -> None:
        """An entry has come in."""
        head = self._heads.get(wheel)
        if head is None or due_ms < head:
            self._heads[wheel] = due_ms
            self._push(due_ms, wheel)

    def set(self, wheel: int, due_ms: int | None) -> None:
        """The wheel was looked at: its earliest entry is due at ``due_ms``, or it is empty (None)."""
        if due_ms is None:
            self._heads.pop(wheel, None)
        elif self._heads.get(wheel) != due_ms:
            self._heads[wheel] = due_ms
            self._push(due_ms, wheel)

    def _push(self, due_ms: int, wheel: int) -> None:
        # A head that goes to and fro between now and next year leaves an item for next year each time.
        if len(self._heap) > 2 * len(self._heads) + _OUTDATED:
            self._heap = [(due_ms, wheel) for wheel, due_ms in self._heads.items()]
            heapify(self._heap)
        else:
            heappush(self._heap, (due_ms, wheel))

    def due(self, now_ms: int) -> list[int]:
        """Wheels whose head is due at ``now_ms`` or earlier, earliest first; they stay where they are."""
        due: list[tuple[int, int]] = []
        heap = self._heap
        while heap and heap[0][0] <= now_ms:
            item = heappop(heap)
            if self._heads.get(item[1]) == item[0] and (not due or due[-1] != item):
                due.append(item)
        for item in due:
            heappush(heap, item)
        return [wheel for _, wheel in due]

    def next_due(self, excluded: frozenset[int] = frozenset()) -> int | None:
        """Due time of the earliest head outside ``excluded``; None when there is none."""
        heap = self._heap
        while heap and self._heads.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        if not heap:
            return None
        if heap[0][1] not in excluded:
            return heap[0][0]
        return min((due for wheel, due in self._heads.items() if wheel not in excluded), default=None)
