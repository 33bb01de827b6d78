"""Events, sums, positions."""

import sqlalchemy as sa
from alembic import op

revision = "1.0"
down_revision = None
branch_labels = None
depends_on = None

_WITHIN_MS = (100, 1_000, 10_000, 60_000)


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        "events",
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("request_topic", sa.Text),
        sa.Column("schedule_id", sa.Text),
        sa.Column("source", sa.Text),
        sa.Column("destination", sa.Text),
        sa.Column("key", sa.LargeBinary),
        sa.Column("fire_id", sa.Text),
        sa.Column("due_at_ms", sa.BigInteger),
        sa.Column("lateness_ms", sa.BigInteger),
        sa.Column("actor", sa.Text),
        sa.Column("code", sa.Text),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("partition", "offset"),
        sqlite_with_rowid=False,
    )
    op.create_index("events_of_schedule", "events", ["request_topic", "schedule_id", "at_ms"])
    op.create_index("events_of_source", "events", ["source"])
    op.create_index("events_of_key", "events", ["key"])
    op.create_table(
        "rollups",
        sa.Column("seconds", sa.Integer, nullable=False),
        sa.Column("start_ms", sa.BigInteger, nullable=False),
        sa.Column("request_topic", sa.Text, nullable=False),
        sa.Column("destination", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("lateness_ms", sa.BigInteger, nullable=False),
        sa.Column("lateness_max_ms", sa.BigInteger, nullable=False),
        *[sa.Column(f"within_{bound}_ms", sa.BigInteger, nullable=False) for bound in _WITHIN_MS],
        sa.PrimaryKeyConstraint("seconds", "start_ms", "request_topic", "destination", "type"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "positions",
        sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("topic_id", sa.Text, nullable=False),
        sa.Column("next_offset", sa.BigInteger, nullable=False),
        sa.Column("lost", sa.BigInteger, nullable=False),
        sa.Column("as_of_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "totals",
        sa.Column("id", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("events", sa.BigInteger, nullable=False),
    )
    op.execute("INSERT INTO totals (id, events) VALUES (1, 0)")
    op.execute(
        "CREATE VIEW fires AS SELECT at_ms AS fired_at_ms, due_at_ms, lateness_ms, request_topic, "
        "schedule_id, source, destination, fire_id, body FROM events WHERE type = 'fired'"
    )
