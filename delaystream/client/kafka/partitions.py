"""How many partitions topics have, remembered for a while."""

from __future__ import annotations

import time
from typing import Final

from delaystream.client.requests.outcomes import MissingPartitionError
from delaystream.client.requests.records import RequestRecord

LONGEST_S: Final = 60.0
"""After which it is asked anew. A topic that has grown meanwhile is served all the same: its workers pass a
request on to the partition that owns its id."""


class PartitionCounts:
    """The last known metadata of the topics that are sent to; any thread may use it."""

    def __init__(self, longest_s: float = LONGEST_S) -> None:
        self._longest_s = longest_s
        self._heard: dict[str, tuple[int, float]] = {}

    def known(self, topic: str) -> int | None:
        """The number, unless it is not known, or no longer."""
        heard = self._heard.get(topic)
        if heard is None or time.monotonic() > heard[1]:
            return None
        return heard[0]

    def heard(self, topic: str, partitions: int) -> int:
        """It has just been asked."""
        self._heard[topic] = (partitions, time.monotonic() + self._longest_s)
        return partitions

    def doubt(self, topic: str) -> None:
        """Sending has failed: it is asked anew before the next time."""
        self._heard.pop(topic, None)


def placed(record: RequestRecord, partitions: int) -> RequestRecord:
    """The record for the partition that owns its id, of so many. Raises MissingPartitionError."""
    if record.partition is None:
        return record.at_owner(partitions)
    if not 0 <= record.partition < partitions:
        raise MissingPartitionError(
            f"{record.topic} has no partition {record.partition}: it has {partitions}, from 0 to "
            f"{partitions - 1}. Nothing was sent."
        )
    return record
