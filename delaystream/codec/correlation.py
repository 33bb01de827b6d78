"""Correlation ids of records, by their headers; for events and for searches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from delaystream.codec.envelope import kept_key

CORRELATING: Final = frozenset(
    {
        "correlation-id",
        "correlationid",
        "x-correlation-id",
        "kafka-correlationid",
        "request-id",
        "x-request-id",
    }
)
"""Headers of requests whose values are correlation ids: in lower case, with `-` for `_`."""


@lru_cache(maxsize=1_024)
def _correlates(name: str) -> bool:
    return name.lower().replace("_", "-") in CORRELATING


def correlation_ids(headers: Sequence[tuple[str, bytes | None]]) -> list[bytes]:
    """The correlation ids in a record's headers, in their order, uncut."""
    return [value for name, value in headers if value and _correlates(name)]


def correlation_id(headers: Sequence[tuple[str, bytes | None]]) -> str | None:
    """The first of these that is UTF-8, 256 bytes at most, cut between characters; None where none is."""
    for found in correlation_ids(headers):
        try:
            return (kept_key(found) or b"").decode()
        except UnicodeDecodeError:
            continue
    return None
