"""Runs the numbered revisions, one migration at a time, in one transaction.

`config.attributes` carries `target` (schema, prefix and kinds of keys) and either the connection,
whose transaction is the caller's, or `dialect`, where the statements are printed instead of run.
Started by hand, as `alembic upgrade head`, it takes the tables that the configuration names.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from alembic import context
from alembic.util import CommandError

from shared import config, migrating, runs
from shared.database import lock
from shared.errors import PeerwatchError, SchemaError


def _explain(ctx: Any, step: Any, heads: set[str], run_args: Any) -> None:
    """Comments for those who look at the database itself, once the tables are the newest."""
    if not step.is_upgrade or heads != {migrating.head()} or ctx.dialect.name != "postgresql":
        return
    said = ";\n".join(migrating.comments(target))
    if ctx.as_sql:
        ctx.impl.static_output(f"{said};\n")
    else:  # at once: a driver that is given no parameters takes several statements
        ctx.connection.exec_driver_sql(said, execution_options={"no_parameters": True})


def _by_hand(held: ExitStack) -> None:
    """The connection and the target of somebody who started alembic itself."""
    if context.is_offline_mode():
        raise CommandError("The statements follow the source. Print them: peerwatch migrate --sql")
    path = Path(os.environ.get("PEERWATCH_CONFIG") or "peerwatch.toml")
    try:
        results = runs.results_of(config.load(path, os.environ))
        connection = held.enter_context(results.transaction())
        lock(connection, migrating.LOCK)
        if migrating.current(connection, results.target) is None:
            raise SchemaError("There are no result tables yet. Make them: peerwatch init --url URL")
    except PeerwatchError as error:
        raise CommandError(str(error)) from error
    context.config.attributes.update(connection=connection, target=results.target)


with ExitStack() as held:
    attributes = context.config.attributes
    if not attributes:
        _by_hand(held)
    target = attributes["target"]
    where: dict[str, Any] = {"connection": attributes.get("connection")}
    if context.is_offline_mode():
        # Named parameters leave the per cent signs of literals as they are.
        where = {"dialect_name": attributes["dialect"], "dialect_opts": {"paramstyle": "named"}}
        where["literal_binds"] = True
    context.configure(
        **where,
        version_table=f"{target.prefix}{migrating.MARK}",
        version_table_schema=target.schema,
        transactional_ddl=True,
        on_version_apply=_explain,
    )
    with context.begin_transaction():
        for statement in attributes.get("before", ()):
            context.execute(statement)
        context.run_migrations()
        for statement in attributes.get("after", ()):
            context.execute(statement)
