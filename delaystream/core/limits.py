"""The bounds on one request, and on the topics that it goes through."""

import msgspec

LEAST_MARKER_AGE_MS = 10_000
"""Smallest safe `message.timestamp.before.max.ms` of a topic that transactions write to.

A broker creates the marker that ends a transaction, and appends it a moment later. It refuses the marker if
it is too old by then, and the coordinator does not try again. A broker that stands still for longer than this
has lost its leadership."""

_DAY_MS = 24 * 60 * 60 * 1000


class Limits(msgspec.Struct, frozen=True):
    """Bounds of one request, all inclusive.

    The records that a worker writes to its own topics for one request grow with all of them.
    `delaystream.config.Settings.max_message_bytes` computes their size, with 48 KiB for the key.
    """

    max_delay_ms: int = 3650 * _DAY_MS
    """Longest time from the present to a due time."""
    max_value_bytes: int = 1024 * 1024
    max_headers: int = 100
    """Most headers of the request, control headers included."""
    max_header_bytes: int = 32 * 1024
    """Bytes of all names, in UTF-8, and of all values."""
    max_list: int = 100
    """Due times in one request."""
    max_id_bytes: int = 256
    """UTF-8 bytes."""
    max_key_bytes: int = 32 * 1024
    max_cron_characters: int = 256
    min_interval_ms: int = 1000
    """Shortest time between two fires of one recurring schedule, anywhere in its pattern."""
