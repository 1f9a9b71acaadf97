"""Runs the numbered revisions on a connection that the caller holds, in the caller's transaction.

`config.attributes` carries the connection and `target`: schema, prefix and the kinds of keys.
"""

from __future__ import annotations

from alembic import context

attributes = context.config.attributes
target = attributes["target"]
context.configure(
    connection=attributes["connection"],
    version_table=f"{target.prefix}peerwatch_version",
    version_table_schema=target.schema,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
