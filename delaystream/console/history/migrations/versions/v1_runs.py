"""Runs of dead letters know what was asked for."""

import sqlalchemy as sa
from alembic import op

revision = "1.7"
down_revision = "1.6"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what is new; a console of tables 1.6 goes on without it."""
    op.add_column("letter_runs", sa.Column("fingerprint", sa.Text))
