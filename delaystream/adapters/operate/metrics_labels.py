"""Labels whose values come from requests, and are therefore bounded."""

from __future__ import annotations

from typing import Final

#: The label of all destinations that have no label of their own.
OTHERS: Final = "other"


class DestinationLabels:
    """Gives the first ``most`` destinations labels of their own, and counts further ones together.

    Destinations come from requests: without a bound anyone could create any number of series.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._known: set[str] = set()

    def of(self, destination: str) -> str:
        """The label of a destination."""
        if destination in self._known:
            return destination
        if len(self._known) >= self.most:
            return OTHERS
        self._known.add(destination)
        return destination
