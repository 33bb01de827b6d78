"""Places on the partitions of the changelog, as they travel: `partition.offset`, joined by `-`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

Position: TypeAlias = Mapping[int, int]
"""By partition, the offset before which everything is applied."""

MOST_CHARACTERS: Final = 30_000
_DIGITS: Final = 19


class PositionError(ValueError):
    """What is none; the message is a sentence."""


def position_text(position: Position) -> str:
    """As text."""
    return "-".join(f"{partition}.{offset}" for partition, offset in sorted(position.items()))


def parse_position(text: str) -> dict[int, int]:
    """Raises PositionError."""
    found: dict[int, int] = {}
    for place in text[:MOST_CHARACTERS].split("-"):
        partition, dot, offset = place.partition(".")
        numbers = (partition, offset)
        if not dot or not all(n.isascii() and n.isdigit() and len(n) <= _DIGITS for n in numbers):
            raise PositionError(
                f"{text[:60]!r} is not a position; expected one from an answer, such as '0.1207-3.88'."
            )
        found[int(partition)] = int(offset)
    return found
