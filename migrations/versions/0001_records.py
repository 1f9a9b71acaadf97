"""The records: settings, model versions, runs and their batches."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from shared.revising import create_table, drop_tables, target
from shared.tables import KEYS, Json, Moment

revision = "0001"
down_revision = None

TABLES = ("settings", "model_versions", "pipeline_runs", "run_batches")


def _create_settings() -> None:
    """The first table, and in it the kinds of keys, which the later revisions follow."""
    settings = create_table(
        "settings",
        sa.Column("key", sa.Text()),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    kinds = {key: target().kinds.get(key, "text") for key in KEYS}
    rows = [{"key": f"kind.{key}", "value": kind} for key, kind in kinds.items()]
    op.bulk_insert(settings, rows)


def upgrade() -> None:
    _create_settings()
    create_table(
        "model_versions",
        sa.Column("model_version_id", sa.Text()),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("parent_id", sa.Text()),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("trained_from", Moment(), nullable=False),
        sa.Column("trained_to", Moment(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("metrics", Json(), nullable=False),
        sa.Column("card", Json(), nullable=False),
        sa.Column("gate", Json(), nullable=False),
        sa.Column("promoted_at", Moment()),
        sa.Column("promoted_by", sa.Text()),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("artifact", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("model_version_id"),
    )
    create_table(
        "pipeline_runs",
        sa.Column("run_id", sa.Text()),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("trigger", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("slot_at", Moment()),
        sa.Column("started_at", Moment(), nullable=False),
        sa.Column("finished_at", Moment()),
        sa.Column("window_from", Moment()),
        sa.Column("window_to", Moment()),
        sa.Column("rows_read", sa.BigInteger(), nullable=False),
        sa.Column("rows_written", sa.BigInteger(), nullable=False),
        sa.Column("rows_quarantined", sa.BigInteger(), nullable=False),
        sa.Column("rows_late", sa.BigInteger(), nullable=False),
        sa.Column("rows_too_late", sa.BigInteger(), nullable=False),
        sa.Column("model_version_id", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("run_id"),
    )
    create_table(
        "run_batches",
        sa.Column("run_id", sa.Text()),
        sa.Column("batch", sa.Integer(), autoincrement=False),
        sa.Column("window_from", Moment(), nullable=False),
        sa.Column("window_to", Moment(), nullable=False),
        sa.Column("rows_read", sa.BigInteger(), nullable=False),
        sa.Column("rows_written", sa.BigInteger(), nullable=False),
        sa.Column("rows_quarantined", sa.BigInteger(), nullable=False),
        sa.Column("committed_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "batch"),
    )


def downgrade() -> None:
    drop_tables(TABLES)
