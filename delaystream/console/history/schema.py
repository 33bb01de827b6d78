"""The tables of the history. `migrations/` makes them; a test holds the two together.

Whoever reads them from outside takes the views, which keep their columns within a major version.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
)

MAJOR: Final = "1"
"""Of the tables: what stands before the dot in their version. Within it nothing is taken away."""

metadata = MetaData()

events = Table(
    "events",
    metadata,
    # Where the event stands on its topic: an event that is read twice is stored once.
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("type", Text, nullable=False),
    Column("request_topic", Text),
    Column("schedule_id", Text),
    Column("source", Text),
    Column("destination", Text),
    Column("key", LargeBinary),
    Column("fire_id", Text),
    Column("due_at_ms", BigInteger),
    Column("lateness_ms", BigInteger),
    Column("actor", Text),
    Column("code", Text),
    # The event as it was written.
    Column("body", Text, nullable=False),
    PrimaryKeyConstraint("partition", "offset"),
    Index("events_of_schedule", "request_topic", "schedule_id", "at_ms"),
    Index("events_of_source", "source"),
    Index("events_of_key", "key"),
    sqlite_with_rowid=False,
)
"""Each event, for as long as the retention keeps it."""

WITHIN_MS: Final = (100, 1_000, 10_000, 60_000)
"""Lateness up to which fires are counted apart."""

rollups = Table(
    "rollups",
    metadata,
    # Seconds that one row adds up: 60, 3,600 or 86,400; the latter are days of UTC.
    Column("seconds", Integer, nullable=False),
    Column("start_ms", BigInteger, nullable=False),
    Column("request_topic", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("lateness_ms", BigInteger, nullable=False),
    Column("lateness_max_ms", BigInteger, nullable=False),
    *[Column(f"within_{bound}_ms", BigInteger, nullable=False) for bound in WITHIN_MS],
    PrimaryKeyConstraint("seconds", "start_ms", "request_topic", "destination", "type"),
    sqlite_with_rowid=False,
)
"""What happened in a span of time; empty texts for what an event does not name."""

positions = Table(
    "positions",
    metadata,
    Column("partition", Integer, primary_key=True),
    # Of another topic of the same name nothing follows on from here.
    Column("topic_id", Text, nullable=False),
    Column("next_offset", BigInteger, nullable=False),
    # Events that the topic's retention took before they were read.
    Column("lost", BigInteger, nullable=False),
    # Wall clock of the console, ms, at which nothing was missing.
    Column("as_of_ms", BigInteger, nullable=False),
)
"""Up to where each partition of the events' topic is stored."""

totals = Table(
    "totals",
    metadata,
    Column("id", SmallInteger, primary_key=True),
    Column("events", BigInteger, nullable=False),
)
"""How many events are stored, in its one row."""

requests = Table(
    "requests",
    metadata,
    # What a console wrote to Kafka for a caller: the name that its record has as `request-id`.
    Column("request_id", Text, primary_key=True),
    Column("request_topic", Text, nullable=False),
    Column("action", Text, nullable=False),
    # The id or the coordinates; empty where it is about several.
    Column("about", Text, nullable=False),
    # Of what it asks for: the same name comes with the same.
    Column("fingerprint", Text, nullable=False),
    Column("asked_ms", BigInteger, nullable=False),
    Column("stage", Text, nullable=False),
    Column("source", Text),
    # As the worker wrote it.
    Column("receipt", Text),
    Column("position", Text),
    Column("problem", Text),
    Index("requests_by_age", "asked_ms"),
)
"""What was asked of the consoles, for a day."""

VIEWS: Final = {
    "fires": "SELECT at_ms AS fired_at_ms, due_at_ms, lateness_ms, request_topic, schedule_id, source, "
    "destination, fire_id, body FROM events WHERE type = 'fired'",
}
"""Views for whoever reads from outside, by name."""
