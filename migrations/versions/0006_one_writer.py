"""Who holds a job, and one run for each slot of the schedule."""

from __future__ import annotations

import sqlalchemy as sa

from shared.revising import create_index, create_table, drop_index, drop_tables
from shared.tables import Moment

revision = "0006"
down_revision = "0005"

# A run that failed or was abandoned leaves its slot to another.
TAKEN = "slot_at IS NOT NULL AND status IN ('running', 'succeeded', 'skipped', 'missed')"


def upgrade() -> None:
    create_table(
        "job_leases",
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text()),
        sa.Column("taken_at", Moment(), nullable=False),
        sa.Column("expires_at", Moment()),
        sa.PrimaryKeyConstraint("job"),
    )
    create_index("one_run_per_slot", "pipeline_runs", ["job", "slot_at"], unique=True, where=TAKEN)


def downgrade() -> None:
    drop_index("one_run_per_slot", "pipeline_runs")
    drop_tables(["job_leases"])
