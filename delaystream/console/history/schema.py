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
    text,
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
    Column("correlation_id", Text),
    # As the request named itself.
    Column("request_id", Text),
    # How many due times a run of missed or skipped ones has.
    Column("times", BigInteger),
    PrimaryKeyConstraint("partition", "offset"),
    Index("events_of_schedule", "request_topic", "schedule_id", "at_ms"),
    Index("events_of_source", "source"),
    Index("events_of_key", "key"),
    # Few have them: the others cost nothing.
    Index(
        "events_of_correlation_id",
        "correlation_id",
        "at_ms",
        sqlite_where=text("correlation_id IS NOT NULL"),
        postgresql_where=text("correlation_id IS NOT NULL"),
    ),
    Index(
        "events_of_request_id",
        "request_id",
        "at_ms",
        sqlite_where=text("request_id IS NOT NULL"),
        postgresql_where=text("request_id IS NOT NULL"),
    ),
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

audit = Table(
    "audit",
    metadata,
    # In the order in which entries were begun.
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    # Who: the name for people and of events, and what tells them from others of that name.
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    # None: the console itself.
    Column("issuer", Text),
    Column("address", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("request_topic", Text),
    # The id or the coordinates.
    Column("about", Text),
    Column("note", Text),
    Column("request_id", Text),
    Column("outcome", Text, nullable=False),
    Column("code", Text),
    # Where the record stands that was written for it, as the source of its events has it.
    Column("source", Text),
    Index("audit_by_age", "at_ms"),
    Index("audit_of_name", "name", "number"),
    Index("audit_of_about", "about", "number"),
    Index("audit_of_outcome", "outcome", "number"),
    Index("audit_of_source", "source"),
    # A number is never given again: a page goes on behind one.
    sqlite_autoincrement=True,
)
"""Who did what with the consoles."""

sessions = Table(
    "sessions",
    metadata,
    # SHA-256 of the secret in the cookie.
    Column("digest", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    # Within the issuer's; of a token its hash.
    Column("subject", Text, nullable=False),
    Column("issuer", Text),
    # What the provider said of roles, as JSON.
    Column("roles", Text, nullable=False),
    Column("began_ms", BigInteger, nullable=False),
    # Within a minute.
    Column("seen_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
)
"""People who have signed in."""

sign_ins = Table(
    "sign_ins",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("began_ms", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("nonce", Text, nullable=False),
    Column("verifier", Text, nullable=False),
    Column("to", Text, nullable=False),
    Index("sign_ins_by_age", "began_ms"),
)
"""People who are at the provider of identities."""

letter_acts = Table(
    "letter_acts",
    metadata,
    # The letter: of another topic of the same name there may be another one at its place.
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    # From 1 on, in the order in which they were done: the last one says how the letter stands.
    Column("number", Integer, nullable=False),
    # `redrive`, `discard` or `reopen`.
    Column("act", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("note", Text),
    Column("asked_ms", BigInteger, nullable=False),
    # Of those that were asked for together.
    Column("run", Text),
    # The idempotency key.
    Column("key", Text),
    # Of a redrive: where it goes, what was repaired, and what came of it.
    Column("request_id", Text),
    Column("request_topic", Text),
    Column("about", Text),
    Column("fingerprint", Text),
    Column("changed", Text),
    Column("stage", Text),
    Column("source", Text),
    Column("outcome", Text),
    Column("code", Text),
    Column("detail", Text),
    # Where the new letter stands, if it was refused again.
    Column("letter", Text),
    PrimaryKeyConstraint("partition", "offset", "at_ms", "number"),
    Index("letter_acts_of_run", "run"),
    Index("letter_acts_by_stage", "stage"),
)
"""What was done about dead letters, and by whom."""

letter_runs = Table(
    "letter_runs",
    metadata,
    Column("run", Text, primary_key=True),
    Column("actor", Text, nullable=False),
    Column("note", Text),
    Column("asked_ms", BigInteger, nullable=False),
    # When its console last told how far it is.
    Column("told_ms", BigInteger, nullable=False),
    Column("request_topics", Text, nullable=False),
    Column("total", Integer, nullable=False),
    # Those that could not be sent, by code.
    Column("refused", Text, nullable=False),
    Column("stage", Text, nullable=False),
    # Of what was asked for.
    Column("fingerprint", Text),
)
"""Dead letters that were sent again together."""

operations = Table(
    "operations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("stage", Text, nullable=False),
    Column("made_ms", BigInteger, nullable=False),
    Column("made_by", Text, nullable=False),
    # What was asked for and what was found, as JSON; and whoever started it, with their rights.
    Column("frozen", Text, nullable=False),
    Column("caller", Text),
    Column("started_ms", BigInteger),
    Column("ended_ms", BigInteger),
    Column("rate", Integer),
    Column("problem", Text),
    Column("undo_of", Text),
    Column("undone_by", Text),
    # 1: its items may have something that an undo has to know.
    Column("keeps", SmallInteger, nullable=False),
    # The console that carries it out, and until when nobody else may.
    Column("runner", Text),
    Column("runner_until_ms", BigInteger),
    Index("operations_by_age", "made_ms"),
)
"""Operations on many schedules."""

operation_items = Table(
    "operation_items",
    metadata,
    Column("operation_id", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("request_topic", Text, nullable=False),
    # An id or coordinates, as UTF-8: an id may hold what a text of PostgreSQL does not.
    Column("about", LargeBinary, nullable=False),
    # 1: about is an id.
    Column("named", SmallInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("stage", Text, nullable=False),
    Column("outcome", Text),
    Column("detail", Text),
    # Where its command stands.
    Column("source", Text),
    Column("sent_ms", BigInteger),
    Column("decided_ms", BigInteger),
    # What has to be known to undo it, for as long as it can be.
    Column("kept", LargeBinary),
    # The number of its command in the audit log.
    Column("entry", BigInteger),
    PrimaryKeyConstraint("operation_id", "number"),
    Index("operation_items_by_stage", "operation_id", "stage", "outcome", "number"),
    sqlite_with_rowid=False,
)
"""What each operation is about, one by one."""

schedule_rows = Table(
    "schedule_rows",
    metadata,
    Column("partition", Integer, nullable=False),
    # A digest of the row's key: an id may be longer than what an index takes.
    Column("place", LargeBinary, nullable=False),
    Column("row_key", LargeBinary, nullable=False),
    # Of the row as the changelog has it: what is the same is not written again.
    Column("row_digest", LargeBinary, nullable=False),
    Column("request_topic", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("name", Text),
    Column("tags", Text, nullable=False),
    Column("cron", Text),
    Column("every_ms", BigInteger),
    Column("timezone", Text),
    Column("next_at_ms", BigInteger),
    Column("last_fired_at_ms", BigInteger),
    Column("fired", BigInteger, nullable=False),
    Column("missed", BigInteger, nullable=False),
    Column("created_at_ms", BigInteger),
    Column("created_by", Text),
    Column("updated_at_ms", BigInteger),
    Column("updated_by", Text),
    Column("version", BigInteger),
    Column("note", Text),
    PrimaryKeyConstraint("partition", "place"),
    sqlite_with_rowid=False,
)
"""Each named schedule that is known, as it stands."""

schedule_partitions = Table(
    "schedule_partitions",
    metadata,
    Column("partition", Integer, primary_key=True, autoincrement=False),
    # Wall clock of the console, ms, at which nothing was missing of the partition's rows.
    Column("as_of_ms", BigInteger, nullable=False),
)
"""The partitions of which every schedule is there."""

VIEWS: Final = {
    "fires": "SELECT at_ms AS fired_at_ms, due_at_ms, lateness_ms, request_topic, schedule_id, source, "
    "destination, fire_id, body FROM events WHERE type = 'fired'",
    "schedules": "SELECT r.request_topic, r.id, r.status, r.destination, r.name, r.tags, r.cron, "
    "r.every_ms, r.timezone, r.next_at_ms, r.last_fired_at_ms, r.fired, r.missed, r.created_at_ms, "
    "r.created_by, r.updated_at_ms, r.updated_by, r.version, r.note, p.as_of_ms "
    'FROM schedule_rows r JOIN schedule_partitions p ON p."partition" = r."partition"',
}
"""Views for whoever reads from outside, by name."""
