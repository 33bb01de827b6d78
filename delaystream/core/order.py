"""The order of requests: which of two was made first. Everything follows this order."""

from typing import NamedTuple


class Moment(NamedTuple):
    """When a request was made, as far as Kafka can tell."""

    source: tuple[str, int, str]
    """The request partition: topic, number, and the topic's origin, as in coordinates."""
    offset: int
    timestamp_ms: int
    """The record's timestamp."""


def newer(one: Moment, other: Moment) -> bool:
    """Whether this moment is later than another; two equal moments have no order.

    Within one request partition the order is that of the offsets. Across partitions, and across two topics of
    one name, only the records' timestamps can tell.
    """
    if one.source == other.source:
        return one.offset > other.offset
    return one.timestamp_ms > other.timestamp_ms
