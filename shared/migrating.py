"""Brings the result tables to the newest version, under a lock, in one transaction.

The revisions travel in the installed package as `shared/migrations`; in a checkout they stand
beside it. Key columns follow the source: their kinds are recorded in `settings` between the first
revision, which makes it, and the others, which read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from shared import tables
from shared.errors import SchemaError

if TYPE_CHECKING:
    from alembic.config import Config

RECORDS = "0001"  # the revision that makes `settings`
LOCK = 0x70656572  # "peer": one migration at a time on PostgreSQL
MARK = "peerwatch_version"


@dataclass(frozen=True)
class Target:
    """Where the tables go, and the kinds of their keys."""

    schema: str | None
    prefix: str
    kinds: Mapping[str, str] = field(default_factory=dict)


def directory() -> Path:
    """Where the revisions are: inside the installed package, or beside it in a checkout."""
    inside = Path(__file__).parent / "migrations"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "migrations"


def _config(connection: Connection, target: Target) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(directory()).replace("%", "%%"))
    config.attributes.update(connection=connection, target=target)
    return config


def head() -> str:
    """The newest revision of this installation."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(directory())).get_current_head() or ""


def current(connection: Connection, target: Target) -> str | None:
    """The revision of the tables; None where there are none of ours."""
    name = f"{target.prefix}{MARK}"
    if not sa.inspect(connection).has_table(name, schema=target.schema):
        return None
    mark = sa.table(name, sa.column("version_num"), schema=target.schema)
    return connection.execute(sa.select(mark.c.version_num)).scalar()


def require_newest(connection: Connection, target: Target) -> None:
    """Stops other commands on tables that are missing, older or newer."""
    found, expected = current(connection, target), head()
    if found == expected:
        return
    if found is None:
        raise SchemaError("There are no result tables yet. Make them: peerwatch init --url URL")
    if found < expected:
        raise SchemaError(
            f"The result tables are at version {found}, this installation needs {expected}. "
            "Bring them up: peerwatch migrate"
        )
    raise _newer(found, expected)


def _newer(found: str, expected: str) -> SchemaError:
    return SchemaError(
        f"The result tables are at version {found}, newer than this installation's {expected}. "
        "Install the newer peerwatch."
    )


def upgrade(connection: Connection, target: Target, revision: str = "head") -> None:
    """Runs what is missing up to `revision`; safe when several start together."""
    from alembic import command

    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
    found = current(connection, target)
    if found is not None and found > head():
        raise _newer(found, head())
    if target.schema is not None and not sa.inspect(connection).has_schema(target.schema):
        connection.execute(sa.schema.CreateSchema(target.schema))
    _refuse_foreign(connection, target)
    config = _config(connection, target)
    if found is None:
        command.upgrade(config, RECORDS)
        _record_kinds(connection, target)
    command.upgrade(config, revision)


def downgrade(connection: Connection, target: Target, revision: str) -> None:
    """Undoes revisions down to `revision`."""
    from alembic import command

    command.downgrade(_config(connection, target), revision)


def _refuse_foreign(connection: Connection, target: Target) -> None:
    """A table of the same name that is not ours stops everything, before anything is made."""
    if current(connection, target) is not None:
        return
    ours = tables.tables(target.kinds, target.schema, target.prefix).metadata.tables.values()
    names = {table.name for table in ours} | {target.prefix + view for view in tables.VIEWS}
    inspector = sa.inspect(connection)
    there = inspector.get_table_names(target.schema) + inspector.get_view_names(target.schema)
    taken = sorted(names & set(there))
    if taken:
        remedy = "[results] schema" if target.schema else "[results] prefix"
        raise SchemaError(
            f"The database already has {', '.join(taken)}, not made by peerwatch. Nothing was "
            f"written. Set {remedy} to another name, or [results] url to another database."
        )


def _record_kinds(connection: Connection, target: Target) -> None:
    settings = tables.tables(target.kinds, target.schema, target.prefix).settings
    rows: list[dict[str, Any]] = [
        {"key": f"kind.{key}", "value": target.kinds.get(key, "text")} for key in tables.KEYS
    ]
    connection.execute(sa.insert(settings), rows)


def recorded_kinds(connection: Connection, target: Target) -> dict[str, str]:
    """The kinds that the key columns were made with."""
    settings = tables.tables(None, target.schema, target.prefix).settings
    rows = connection.execute(
        sa.select(settings.c.key, settings.c.value).where(settings.c.key.like("kind.%"))
    )
    return {str(key).removeprefix("kind."): str(value) for key, value in rows}
