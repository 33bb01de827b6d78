"""What alembic runs: the migrations, on the connection that it is given."""

from alembic import context

from delaystream.console.history.schema import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table="delaystream_version",
    # SQLite's, too: the connection begins its transactions itself.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
