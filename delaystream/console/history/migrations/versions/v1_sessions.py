"""People who have signed in, or are about to."""

import sqlalchemy as sa
from alembic import op

revision = "1.4"
down_revision = "1.3"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables of sessions and of sign-ins."""
    op.create_table(
        "sessions",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("issuer", sa.Text),
        sa.Column("roles", sa.Text, nullable=False),
        sa.Column("began_ms", sa.BigInteger, nullable=False),
        sa.Column("seen_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "sign_ins",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("began_ms", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("nonce", sa.Text, nullable=False),
        sa.Column("verifier", sa.Text, nullable=False),
        sa.Column("to", sa.Text, nullable=False),
    )
    op.create_index("sign_ins_by_age", "sign_ins", ["began_ms"])
