"""Brings the result tables to the newest version, under a lock, in one transaction.

The revisions travel in the installed package as `shared/migrations`; in a checkout they stand
beside it. Key columns follow the source: the first revision records their kinds in `settings`, and
the others read them there. For those who may not create, the same statements are printed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from shared import dictionary, tables
from shared.database import lock, locking
from shared.errors import SchemaError

if TYPE_CHECKING:
    from alembic.config import Config

LOCK = "migration"  # one at a time
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


def _config(target: Target, output: StringIO | None = None, **attributes: Any) -> Config:
    from alembic.config import Config

    config = Config(output_buffer=output)
    config.set_main_option("script_location", str(directory()).replace("%", "%%"))
    config.attributes.update(target=target, **attributes)
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

    lock(connection, LOCK)
    _require_ours(connection, target)
    if _lacks_schema(connection, target):
        connection.execute(sa.schema.CreateSchema(str(target.schema)))
    command.upgrade(_config(target, connection=connection), revision)


def downgrade(connection: Connection, target: Target, revision: str) -> None:
    """Undoes revisions down to `revision`."""
    from alembic import command

    lock(connection, LOCK)
    command.downgrade(_config(target, connection=connection), revision)


def script(connection: Connection, target: Target, after: Sequence[sa.Executable] = ()) -> str:
    """Every statement that `upgrade` would run, as text for another to run; "" where none is due.

    after: what is to follow in the same transaction.
    """
    from alembic import command

    _require_ours(connection, target)
    found = current(connection, target)
    if found == head() and not after:
        return ""
    if found is not None:
        target = replace(target, kinds=recorded_kinds(connection, target))
    before: list[sa.Executable] = list(locking(connection.dialect, LOCK))
    if _lacks_schema(connection, target):
        before.append(sa.schema.CreateSchema(str(target.schema)))
    printed = StringIO()
    attributes = {"dialect": connection.dialect.name, "before": before, "after": after}
    command.upgrade(_config(target, printed, **attributes), f"{found or 'base'}:head", sql=True)
    return printed.getvalue()


def _require_ours(connection: Connection, target: Target) -> None:
    """Stops before anything is made where the tables are newer, or somebody else's."""
    found = current(connection, target)
    if found is not None and found > head():
        raise _newer(found, head())
    _refuse_foreign(connection, target)


def _lacks_schema(connection: Connection, target: Target) -> bool:
    return target.schema is not None and not sa.inspect(connection).has_schema(target.schema)


def comments(target: Target) -> Iterator[str]:
    """COMMENT ON every table, view and column of ours, for PostgreSQL."""
    for kind, meanings in (("TABLE", dictionary.TABLES), ("VIEW", dictionary.VIEWS)):
        for name, meaning in meanings.items():
            parts = (target.schema, f"{target.prefix}{name}")
            where = ".".join(f'"{part}"' for part in parts if part)
            yield f"COMMENT ON {kind} {where} IS {_literal(meaning.row)}"
            for column, text in dictionary.columns(name).items():
                yield f'COMMENT ON COLUMN {where}."{column}" IS {_literal(text)}'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


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


def recorded_kinds(connection: Connection, target: Target) -> dict[str, str]:
    """The kinds that the key columns were made with."""
    settings = tables.tables(None, target.schema, target.prefix).settings
    rows = connection.execute(
        sa.select(settings.c.key, settings.c.value).where(settings.c.key.like("kind.%"))
    )
    return {str(key).removeprefix("kind."): str(value) for key, value in rows}
