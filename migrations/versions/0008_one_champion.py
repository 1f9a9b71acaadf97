"""One champion of a kind, kept so by the database."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from shared.revising import create_index, drop_index, name, target

revision = "0008"
down_revision = "0007"

NAMES = ("model_version_id", "kind", "status", "promoted_at", "created_at")


def _retire_earlier() -> None:
    """Of several champions of a kind, which two promotions at once could make, the last promoted
    one goes on; down again nothing is undone."""
    columns = [sa.column(column, sa.Text()) for column in NAMES]
    models = sa.table(name("model_versions"), *columns, schema=target().schema)
    last = models.alias("last")
    order = [
        sa.tuple_(sa.func.coalesce(one.c.promoted_at, one.c.created_at), one.c.model_version_id)
        for one in (models, last)
    ]
    beside = (last.c.kind == models.c.kind, last.c.status == "champion", order[0] < order[1])
    op.execute(
        sa.update(models)
        .where(models.c.status == "champion", sa.exists().where(*beside))
        .values(status="retired")
    )


def upgrade() -> None:
    _retire_earlier()
    leads = "status = 'champion'"
    create_index("one_champion", "model_versions", ["kind"], unique=True, where=leads)


def downgrade() -> None:
    drop_index("one_champion", "model_versions")
