"""What was done about dead letters."""

import sqlalchemy as sa
from alembic import op

revision = "1.5"
down_revision = "1.4"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables of what was done about dead letters, one by one and together."""
    op.create_table(
        "letter_acts",
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("act", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("note", sa.Text),
        sa.Column("asked_ms", sa.BigInteger, nullable=False),
        sa.Column("run", sa.Text),
        sa.Column("key", sa.Text),
        sa.Column("request_id", sa.Text),
        sa.Column("request_topic", sa.Text),
        sa.Column("about", sa.Text),
        sa.Column("fingerprint", sa.Text),
        sa.Column("changed", sa.Text),
        sa.Column("stage", sa.Text),
        sa.Column("source", sa.Text),
        sa.Column("outcome", sa.Text),
        sa.Column("code", sa.Text),
        sa.Column("detail", sa.Text),
        sa.Column("letter", sa.Text),
        sa.PrimaryKeyConstraint("partition", "offset", "at_ms", "number"),
    )
    op.create_index("letter_acts_of_run", "letter_acts", ["run"])
    op.create_index("letter_acts_by_stage", "letter_acts", ["stage"])
    op.create_table(
        "letter_runs",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("note", sa.Text),
        sa.Column("asked_ms", sa.BigInteger, nullable=False),
        sa.Column("told_ms", sa.BigInteger, nullable=False),
        sa.Column("request_topics", sa.Text, nullable=False),
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("refused", sa.Text, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
    )
