"""Who did what with the consoles."""

import sqlalchemy as sa
from alembic import op

revision = "1.3"
down_revision = "1.2"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the audit log."""
    op.create_table(
        "audit",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("issuer", sa.Text),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("request_topic", sa.Text),
        sa.Column("about", sa.Text),
        sa.Column("note", sa.Text),
        sa.Column("request_id", sa.Text),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("code", sa.Text),
        sa.Column("source", sa.Text),
        sqlite_autoincrement=True,
    )
    op.create_index("audit_by_age", "audit", ["at_ms"])
    op.create_index("audit_of_name", "audit", ["name", "number"])
    op.create_index("audit_of_about", "audit", ["about", "number"])
    op.create_index("audit_of_outcome", "audit", ["outcome", "number"])
    op.create_index("audit_of_source", "audit", ["source"])
