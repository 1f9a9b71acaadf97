"""What became of each segment in the next model; the migration view counts moves alone."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import context, op

revision = "0005"
down_revision = "0004"


def _target() -> Any:
    """Schema, prefix and kinds of keys, as the caller gave them."""
    return context.config.attributes["target"]


MIGRATION = "segment_migration"
# one row per pair of segments and month in which customers moved; from one state without a segment
# to another is no move
MOVES = """
WITH steps AS (
    SELECT customer_id, valid_from, segment_id AS to_segment_id,
        lag(segment_id) OVER (PARTITION BY customer_id ORDER BY valid_from) AS from_segment_id,
        row_number() OVER (PARTITION BY customer_id ORDER BY valid_from) AS period
    FROM {customer_segments}
)
SELECT from_segment_id, to_segment_id, {month_of_valid_from} AS month, count(*) AS customers
FROM steps
WHERE period > 1 AND (from_segment_id IS NOT NULL OR to_segment_id IS NOT NULL)
GROUP BY from_segment_id, to_segment_id, {month_of_valid_from}
"""


def _views() -> Any:
    """The revision whose view is replaced here: its text, and what stands in it."""
    return context.script.get_revision("0003").module


def _replace_view(text: str) -> None:
    schema = f'"{_target().schema}".' if _target().schema else ""
    name = f'{schema}"{_target().prefix}{MIGRATION}"'
    op.execute(f"DROP VIEW {name}")
    names = _views()._names(op.get_context().dialect.name)
    op.execute(f"CREATE VIEW {name} AS {text.format(**names)}")


def upgrade() -> None:
    target = _target()
    table = f"{target.prefix}segment_lineage"
    op.create_table(
        table,
        sa.Column("from_segment_id", sa.Integer()),
        sa.Column("to_segment_id", sa.Integer()),
        sa.Column("from_model_version_id", sa.Text(), nullable=False),
        sa.Column("to_model_version_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("overlap", sa.Double()),
        schema=target.schema,
    )
    op.create_index(
        f"{target.prefix}one_link",
        table,
        ["to_model_version_id", "from_segment_id", "to_segment_id"],
        unique=True,
        schema=target.schema,
    )
    _replace_view(MOVES)


def downgrade() -> None:
    target = _target()
    _replace_view(_views().VIEWS[MIGRATION])
    op.drop_table(f"{target.prefix}segment_lineage", schema=target.schema)
