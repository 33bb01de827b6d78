"""A record of a request topic as it came in: what a request is read from."""

from collections.abc import Sequence

import msgspec

from delaystream.core.request import Coordinates, Header


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record, untouched; it travels with what its headers say until it is decided on."""

    source: Coordinates
    """Where it was read; of a re-routed one that is looked at as it was produced, where that was."""
    timestamp_ms: int
    """Negative: it has none."""
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]
    """In order, repeats and nulls included."""

    @property
    def has_value(self) -> bool:
        """Whether its value is anything but Kafka's null."""
        return self.value is not None
