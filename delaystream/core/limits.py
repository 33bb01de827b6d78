"""The bounds on one request, and on the topics that it goes through."""

import msgspec

LEAST_MARKER_AGE_MS = 10_000
"""Least `message.timestamp.before.max.ms` of a topic that is written to in transactions.

A broker makes the marker that ends a transaction, and appends it, with its clock's time in between; what is
too old by then it refuses, and its coordinator does not try again. One that stands still for longer than this
is no leader any more."""

_DAY_MS = 24 * 60 * 60 * 1000


class Limits(msgspec.Struct, frozen=True):
    """What one request may hold; all bounds are inclusive.

    What a worker writes to its own topics for one request grows with all of them;
    `delaystream.config.Settings.max_message_bytes` counts it, with 48 KiB for the key.
    """

    max_delay_ms: int = 3650 * _DAY_MS
    """How far ahead of the present a due time may lie."""
    max_value_bytes: int = 1024 * 1024
    max_headers: int = 100
    """All headers of the request, control headers included."""
    max_header_bytes: int = 32 * 1024
    """Of all names, in UTF-8, and all values."""
    max_list: int = 100
    """Due times in one request."""
    max_id_bytes: int = 256
    """UTF-8 bytes."""
    max_key_bytes: int = 32 * 1024
    max_cron_characters: int = 256
    min_interval_ms: int = 1000
    """Least time between two fires of one recurring schedule, anywhere in its pattern."""
