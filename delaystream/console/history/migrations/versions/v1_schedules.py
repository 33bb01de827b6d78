"""Correlation ids and request ids of events; the schedules that there are, and the view of them."""

import sqlalchemy as sa
from alembic import op

revision = "1.1"
down_revision = "1.0"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what is new; a console of tables 1.0 goes on without it."""
    for name in ("correlation_id", "request_id"):
        op.add_column("events", sa.Column(name, sa.Text))
        there = sa.text(f"{name} IS NOT NULL")
        op.create_index(
            f"events_of_{name}", "events", [name, "at_ms"], sqlite_where=there, postgresql_where=there
        )
    op.add_column("events", sa.Column("times", sa.BigInteger))
    op.create_table(
        "schedule_rows",
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("place", sa.LargeBinary, nullable=False),
        sa.Column("row_key", sa.LargeBinary, nullable=False),
        sa.Column("row_digest", sa.LargeBinary, nullable=False),
        sa.Column("request_topic", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("destination", sa.Text, nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("tags", sa.Text, nullable=False),
        sa.Column("cron", sa.Text),
        sa.Column("every_ms", sa.BigInteger),
        sa.Column("timezone", sa.Text),
        sa.Column("next_at_ms", sa.BigInteger),
        sa.Column("last_fired_at_ms", sa.BigInteger),
        sa.Column("fired", sa.BigInteger, nullable=False),
        sa.Column("missed", sa.BigInteger, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger),
        sa.Column("created_by", sa.Text),
        sa.Column("updated_at_ms", sa.BigInteger),
        sa.Column("updated_by", sa.Text),
        sa.Column("version", sa.BigInteger),
        sa.Column("note", sa.Text),
        sa.PrimaryKeyConstraint("partition", "place"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "schedule_partitions",
        sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("as_of_ms", sa.BigInteger, nullable=False),
    )
    op.execute(
        "CREATE VIEW schedules AS SELECT r.request_topic, r.id, r.status, r.destination, r.name, r.tags, "
        "r.cron, r.every_ms, r.timezone, r.next_at_ms, r.last_fired_at_ms, r.fired, r.missed, "
        "r.created_at_ms, r.created_by, r.updated_at_ms, r.updated_by, r.version, r.note, p.as_of_ms "
        'FROM schedule_rows r JOIN schedule_partitions p ON p."partition" = r."partition"'
    )
