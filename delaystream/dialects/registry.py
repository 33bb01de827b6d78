"""The dialects by name."""

from typing import Final

from delaystream.dialects.activemq import ActiveMq
from delaystream.dialects.etf1 import Etf1
from delaystream.dialects.karafka import Karafka
from delaystream.dialects.kaspr import Kaspr
from delaystream.dialects.nats import Nats
from delaystream.dialects.translation import Dialect

_DIALECTS: Final[dict[str, Dialect]] = {
    dialect.name: dialect for dialect in (Kaspr(), Etf1(), Nats(), Karafka(), ActiveMq())
}

NAMES: Final = tuple(_DIALECTS)
"""What a setting may name."""


def by_name(name: str) -> Dialect:
    """The dialect of that name; ValueError, with a sentence that lists the names, when there is none."""
    try:
        return _DIALECTS[name]
    except KeyError:
        raise ValueError(f"{name!r} is not a dialect; expected one of {', '.join(NAMES)}") from None
