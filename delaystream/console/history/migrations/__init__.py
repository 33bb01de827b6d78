"""The history's tables, version by version (alembic). A newer version adds, and takes nothing away."""
