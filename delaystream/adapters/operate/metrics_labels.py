"""Labels whose values come from requests, and are therefore bounded."""

from __future__ import annotations

from typing import Final

#: The label of all destinations that have none of their own.
OTHERS: Final = "other"


class DestinationLabels:
    """The first ``most`` destinations have labels of their own, further ones are counted together.

    Destinations come from requests: without a bound anyone could make series without end.
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
