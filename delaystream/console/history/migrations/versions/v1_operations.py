"""Operations on many schedules, and what each is about."""

import sqlalchemy as sa
from alembic import op

revision = "1.6"
down_revision = "1.5"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables of operations."""
    op.create_table(
        "operations",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("made_ms", sa.BigInteger, nullable=False),
        sa.Column("made_by", sa.Text, nullable=False),
        sa.Column("frozen", sa.Text, nullable=False),
        sa.Column("caller", sa.Text),
        sa.Column("started_ms", sa.BigInteger),
        sa.Column("ended_ms", sa.BigInteger),
        sa.Column("rate", sa.Integer),
        sa.Column("problem", sa.Text),
        sa.Column("undo_of", sa.Text),
        sa.Column("undone_by", sa.Text),
        sa.Column("keeps", sa.SmallInteger, nullable=False),
        sa.Column("runner", sa.Text),
        sa.Column("runner_until_ms", sa.BigInteger),
    )
    op.create_index("operations_by_age", "operations", ["made_ms"])
    op.create_table(
        "operation_items",
        sa.Column("operation_id", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("request_topic", sa.Text, nullable=False),
        sa.Column("about", sa.LargeBinary, nullable=False),
        sa.Column("named", sa.SmallInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text),
        sa.Column("detail", sa.Text),
        sa.Column("source", sa.Text),
        sa.Column("sent_ms", sa.BigInteger),
        sa.Column("decided_ms", sa.BigInteger),
        sa.Column("kept", sa.LargeBinary),
        sa.Column("entry", sa.BigInteger),
        sa.PrimaryKeyConstraint("operation_id", "number"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "operation_items_by_stage", "operation_items", ["operation_id", "stage", "outcome", "number"]
    )
