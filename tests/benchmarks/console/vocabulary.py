"""What the schedules of the scenario are called: of each kind one thing that many have, one that few have."""

from __future__ import annotations

from typing import Final

from tests.benchmarks.records import Header

DESTINATIONS: Final = 20
"""Topics that the events are for."""
CUSTOMERS: Final = 100_000
TEAMS: Final = 50
REGIONS: Final = 100

BATCH: Final = b"nightly-batch"
"""The key that one in a hundred has: a hot one."""
INVOICE: Final = "invoice"
"""The tag that one in ten without an id has: a hot one."""
WORD: Final = "report"
"""A word that every name has."""

#: Prime, so that neighbours in the log are not neighbours in the index.
_STRIDE: Final = 7_919


def destination(prefix: str, sequence: int) -> str:
    """The topic that an event is for."""
    return f"{prefix}{sequence % DESTINATIONS}"


def customer(sequence: int) -> bytes:
    """The key of an event."""
    return b"customer-%05d" % (sequence * _STRIDE % CUSTOMERS)


def id_of(sequence: int) -> str:
    """The id of a named schedule."""
    return f"job/{sequence:07d}"


def order(sequence: int) -> bytes:
    """The correlation id of a named schedule, and of one in ten events without an id."""
    return b"order-%08d" % sequence


def region(sequence: int) -> str:
    """A word that one name in a hundred has."""
    return f"region{sequence % REGIONS}"


def team(sequence: int) -> str:
    """The tag of a named schedule."""
    return f"team-{sequence % TEAMS}"


def unnamed(prefix: str, sequence: int, due_ms: int) -> tuple[bytes, list[Header]]:
    """Key and headers of a request without an id."""
    key = BATCH if sequence % 100 == 0 else customer(sequence)
    headers: list[Header] = [
        ("delaystream-destination", destination(prefix, sequence)),
        ("delaystream-at", b"%d" % due_ms),
    ]
    if sequence % 10 == 1:
        headers.append(("delaystream-tags", INVOICE))
    if sequence % 10 == 2:
        headers.append(("correlation-id", order(sequence)))
    return key, headers


def named(prefix: str, sequence: int, due_ms: int) -> tuple[bytes, list[Header]]:
    """Key and headers of a request with an id; every other one recurs daily."""
    when = ("delaystream-every", b"1d") if sequence % 2 else ("delaystream-at", b"%d" % due_ms)
    return customer(sequence), [
        ("delaystream-destination", destination(prefix, sequence)),
        when,
        ("delaystream-id", id_of(sequence)),
        ("delaystream-name", f"Daily {WORD} of {region(sequence)}"),
        ("delaystream-tags", team(sequence)),
        ("correlation-id", order(sequence)),
    ]
