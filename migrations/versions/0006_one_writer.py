"""Who holds a job, and one run for each slot of the schedule."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import context, op

from shared.tables import Moment

revision = "0006"
down_revision = "0005"


def _target() -> Any:
    """Schema, prefix and kinds of keys, as the caller gave them."""
    return context.config.attributes["target"]


# A run that failed or was abandoned leaves its slot to another.
TAKEN = "slot_at IS NOT NULL AND status IN ('running', 'succeeded', 'skipped', 'missed')"


def upgrade() -> None:
    target = _target()
    op.create_table(
        f"{target.prefix}job_leases",
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text()),
        sa.Column("taken_at", Moment(), nullable=False),
        sa.Column("expires_at", Moment()),
        sa.PrimaryKeyConstraint("job"),
        schema=target.schema,
    )
    op.create_index(
        f"{target.prefix}one_run_per_slot",
        f"{target.prefix}pipeline_runs",
        ["job", "slot_at"],
        unique=True,
        schema=target.schema,
        sqlite_where=sa.text(TAKEN),
        postgresql_where=sa.text(TAKEN),
    )


def downgrade() -> None:
    target = _target()
    op.drop_index(
        f"{target.prefix}one_run_per_slot",
        f"{target.prefix}pipeline_runs",
        schema=target.schema,
    )
    op.drop_table(f"{target.prefix}job_leases", schema=target.schema)
