"""What the numbered revisions share: where their tables go, and how one of them is made there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import context, op

from shared.migrating import Target


def target() -> Target:
    """Schema, prefix and kinds of keys, as the caller of the migration gave them."""
    found: Target = context.config.attributes["target"]
    return found


def name(table: str) -> str:
    """The name of a table, view, index or function of ours, without its schema."""
    return f"{target().prefix}{table}"


def qualified(table: str) -> str:
    """The same as text for a statement, quoted, with its schema."""
    schema = f'"{target().schema}".' if target().schema else ""
    return f'{schema}"{name(table)}"'


def create_table(table: str, *items: Any) -> sa.Table:
    return op.create_table(name(table), *items, schema=target().schema)


def drop_tables(tables: Sequence[str]) -> None:
    """Drops them, the last one first."""
    for table in reversed(tables):
        op.drop_table(name(table), schema=target().schema)


def add_column(table: str, column: sa.Column[Any]) -> None:
    op.add_column(name(table), column, schema=target().schema)


def drop_column(table: str, column: str) -> None:
    op.drop_column(name(table), column, schema=target().schema)


def create_index(
    index: str, table: str, columns: list[str], *, unique: bool = False, where: str | None = None
) -> None:
    """An index; `where` makes it a partial one."""
    only = None if where is None else sa.text(where)
    op.create_index(
        name(index),
        name(table),
        columns,
        unique=unique,
        schema=target().schema,
        sqlite_where=only,
        postgresql_where=only,
    )


def drop_index(index: str, table: str) -> None:
    op.drop_index(name(index), name(table), schema=target().schema)


def create_views(texts: Mapping[str, str], standing_for: Mapping[str, str]) -> None:
    """Creates views in order, each placeholder of their texts filled in."""
    for view, text in texts.items():
        op.execute(f"CREATE VIEW {qualified(view)} AS {text.format(**standing_for)}")


def drop_views(views: Sequence[str]) -> None:
    """Drops them, the last one first: it may read another."""
    for view in reversed(views):
        op.execute(f"DROP VIEW {qualified(view)}")
