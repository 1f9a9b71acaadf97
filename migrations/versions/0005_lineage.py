"""What became of each segment in the next model; the migration view counts moves alone."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import context, op

from shared.revising import create_index, create_table, create_views, drop_tables, drop_views

revision = "0005"
down_revision = "0004"

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
    drop_views([MIGRATION])
    create_views({MIGRATION: text}, _views().standing_for(op.get_context().dialect.name))


def upgrade() -> None:
    create_table(
        "segment_lineage",
        sa.Column("from_segment_id", sa.Integer()),
        sa.Column("to_segment_id", sa.Integer()),
        sa.Column("from_model_version_id", sa.Text(), nullable=False),
        sa.Column("to_model_version_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("overlap", sa.Double()),
    )
    ends = ["from_segment_id", "to_segment_id"]
    create_index("one_link", "segment_lineage", ["to_model_version_id", *ends], unique=True)
    _replace_view(MOVES)


def downgrade() -> None:
    _replace_view(_views().VIEWS[MIGRATION])
    drop_tables(["segment_lineage"])
