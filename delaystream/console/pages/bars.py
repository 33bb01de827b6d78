"""Bars as values: where each one stands in a drawing, for a template that writes SVG. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10
from typing import Final

WIDTH: Final = 8
"""Of one bar with its gap, in the drawing's units."""
GAP: Final = 2
HEIGHT: Final = 64
_LEAST: Final = 3
"""A bar that stands for anything is that high."""
_SLOWEST_MS: Final = 3_600_000


@dataclass(frozen=True)
class Bar:
    """One bar, or a part of one, from the top left corner on."""

    x: int
    y: float
    height: float
    #: of the style sheet
    kind: str
    title: str


@dataclass(frozen=True)
class Bars:
    """A drawing."""

    bars: Sequence[Bar]
    width: int
    #: what the highest bar stands for
    most: int

    @property
    def height(self) -> int:
        """Of the drawing."""
        return HEIGHT


def stacked(columns: Sequence[tuple[str, Mapping[str, int]]], most: int | None = None) -> Bars:
    """Columns of (title, number by kind), the first kind at the bottom."""
    highest = most or max((sum(parts.values()) for _, parts in columns), default=0)
    bars: list[Bar] = []
    for place, (title, parts) in enumerate(columns):
        top = float(HEIGHT)
        for kind, number in parts.items():
            if not number or not highest:
                continue
            height = round(max(_LEAST, HEIGHT * number / highest), 1)
            # Least heights must not push a column over the edge.
            height = min(height, top)
            top = round(top - height, 1)
            bars.append(Bar(place * WIDTH, top, height, kind, title))
    return Bars(bars, max(1, len(columns)) * WIDTH, highest)


def by_lateness(outcomes: Sequence[tuple[str, int | None, str]], columns: int) -> Bars:
    """Bars of (kind, lateness in ms, title), by the logarithm of the lateness: 1 ms is low, 1 h is the top.

    There is room for so many columns; fewer bars stand on the right, where the latest is.
    """
    bars = []
    for place, (kind, lateness_ms, title) in enumerate(outcomes, start=max(0, columns - len(outcomes))):
        share = 1.0 if lateness_ms is None else log10(max(1, lateness_ms) + 9) - 1
        height = round(min(HEIGHT, max(_LEAST, HEIGHT * share / (log10(_SLOWEST_MS) - 1))), 1)
        bars.append(Bar(place * WIDTH, round(HEIGHT - height, 1), height, kind, title))
    return Bars(bars, max(columns, len(outcomes)) * WIDTH, 0)
