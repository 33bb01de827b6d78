"""The dialects by name."""

from typing import Final

from delaystream.core.request import Header
from delaystream.dialects.activemq import ActiveMq
from delaystream.dialects.etf1 import Etf1
from delaystream.dialects.karafka import Karafka
from delaystream.dialects.kaspr import Kaspr
from delaystream.dialects.nats import Nats
from delaystream.dialects.translation import TO_FILL, Dialect

_DIALECTS: Final[dict[str, Dialect]] = {
    dialect.name: dialect for dialect in (Kaspr(), Etf1(), Nats(), Karafka(), ActiveMq())
}

NAMES: Final = tuple(_DIALECTS)
"""The names that a setting may have."""


_FILLS: Final = {name: fill for dialect in _DIALECTS.values() for name, fill in dialect.fills.items()}


def filled(headers: list[Header], scheduled_ms: int, next_ms: int | None) -> list[Header]:
    """The headers of a recurring schedule's delivery, completed with values that only the fire knows.

    `next_ms` is the scheduled time after this one; None after the last. Returns the same list if there is
    nothing to fill.
    """
    for name, value in headers:
        if value == TO_FILL and name in _FILLS:
            break
    else:
        return headers
    return [
        (name, _FILLS[name](scheduled_ms, next_ms) if value == TO_FILL and name in _FILLS else value)
        for name, value in headers
    ]


def by_name(name: str) -> Dialect:
    """The dialect of that name; ValueError, with a sentence that lists the names, when there is none."""
    try:
        return _DIALECTS[name]
    except KeyError:
        raise ValueError(f"{name!r} is not a dialect; expected one of {', '.join(NAMES)}") from None
