"""Which models there are and which one is champion; the models themselves are in the database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from shared import artifacts
from shared.database import lock
from shared.errors import ConfigurationError, PeerwatchError
from shared.tables import Tables

DOMAIN_OF = {"ranker": "fraudwatch"}  # other kinds have the name of their domain
AUTOMATIC = "gate"  # who promoted a model that passed by itself
NAMED = 10  # signs of the SHA-256 in a model's id


@dataclass(frozen=True)
class Stored:
    """A model version as read back: what it is called, when it learned, and what it holds."""

    model_version_id: str
    kind: str
    status: str
    trained_from: datetime
    trained_to: datetime
    metrics: Mapping[str, Any]
    header: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    parent_id: str | None = None  # the model that this one is a recalibration of


def champion(connection: Connection, tables: Tables, kind: str) -> Stored | None:
    """The champion of a kind with its arrays, its hash checked; None where there is none."""
    table = tables.model_versions
    row = connection.execute(
        sa.select(table).where(table.c.kind == kind, table.c.status == "champion")
    ).first()
    return None if row is None else _stored(row)


def champion_id(connection: Connection, tables: Tables, kind: str) -> str | None:
    """The id of the champion of a kind, without its arrays."""
    table = tables.model_versions
    return connection.execute(
        sa.select(table.c.model_version_id).where(
            table.c.kind == kind, table.c.status == "champion"
        )
    ).scalar()


def load(connection: Connection, tables: Tables, model_version_id: str) -> Stored:
    """A model version by its id."""
    return _stored(_row(connection, tables, model_version_id, tables.model_versions.c))


def _row(
    connection: Connection,
    tables: Tables,
    model_version_id: str,
    columns: Iterable[sa.Column[Any]],
) -> sa.Row[Any]:
    """What is stored of a model in these columns; refuses an id that is not there."""
    table = tables.model_versions
    row = connection.execute(
        sa.select(*columns).where(table.c.model_version_id == model_version_id)
    ).first()
    if row is None:
        raise ConfigurationError(
            f"There is no model {model_version_id}. See those there are: peerwatch models list"
        )
    return row


def unpacked(row: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(header, arrays) of a stored model; refuses one that is not what its hash and id say."""
    if not row.model_version_id.endswith(f"-{row.sha256[:NAMED]}"):
        raise PeerwatchError(
            f"{row.model_version_id} holds another model than the one it is named after; it was "
            "not read. Roll back to another: peerwatch models rollback KIND --by NAME"
        )
    return artifacts.unpack(row.artifact, row.sha256)


def _stored(row: sa.Row[Any]) -> Stored:
    header, arrays = unpacked(row)
    return Stored(
        row.model_version_id, row.kind, row.status, row.trained_from, row.trained_to,
        row.metrics, header, arrays, row.parent_id,
    )  # fmt: skip


def store(
    connection: Connection,
    tables: Tables,
    kind: str,
    header: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    *,
    now: datetime,
    window: tuple[datetime, datetime],
    rows: int,
    metrics: Mapping[str, Any],
    card: Mapping[str, Any],
    parent_id: str | None = None,
) -> tuple[str, bool]:
    """Stores a candidate; returns its id and whether it is new.

    The id is a function of what the model is, so that the same fit twice is one model.
    parent_id: the model that this one is a recalibration of.
    """
    data = artifacts.pack(header, arrays)
    sha256 = artifacts.digest(data)
    model_version_id = f"{kind}-{window[1]:%Y%m%d}-{sha256[:NAMED]}"
    table = tables.model_versions
    there = sa.select(table.c.status).where(table.c.model_version_id == model_version_id)
    if connection.execute(there).first() is not None:
        return model_version_id, False
    connection.execute(
        sa.insert(table).values(
            model_version_id=model_version_id,
            kind=kind,
            parent_id=parent_id,
            status="candidate",
            created_at=now,
            trained_from=window[0],
            trained_to=window[1],
            rows=rows,
            metrics=dict(metrics),
            card=dict(card),
            gate={},
            sha256=sha256,
            artifact=data,
        )
    )
    return model_version_id, True


def promote(
    connection: Connection, tables: Tables, model_version_id: str, *, by: str, now: datetime
) -> str:
    """Makes a model the champion of its kind and retires the one before; returns the kind. Of the
    champion itself nothing changes.

    Waits for the writers of the domain, and for other promotions, until the transaction ends.
    """
    table = tables.model_versions
    row = _row(connection, tables, model_version_id, [table.c.kind, table.c.status])
    kind = str(row.kind)
    if row.status == "champion":
        return kind
    lock(connection, tables.lock(DOMAIN_OF.get(kind, kind)))
    connection.execute(
        sa.update(table)
        .where(table.c.kind == kind, table.c.status == "champion")
        .values(status="retired")
    )
    connection.execute(
        sa.update(table)
        .where(table.c.model_version_id == model_version_id)
        .values(status="champion", promoted_at=now, promoted_by=by)
    )
    return kind


def record_gate(
    connection: Connection, tables: Tables, model_version_id: str, gate: Mapping[str, Any]
) -> None:
    """Keeps why a model passed its gate or not."""
    table = tables.model_versions
    connection.execute(
        sa.update(table).where(table.c.model_version_id == model_version_id).values(gate=dict(gate))
    )


def earlier_champion(connection: Connection, tables: Tables, kind: str) -> str:
    """The id of the champion before the present one."""
    table = tables.model_versions
    before = connection.execute(
        sa.select(table.c.model_version_id)
        .where(table.c.kind == kind, table.c.status == "retired", table.c.promoted_at.is_not(None))
        .order_by(table.c.promoted_at.desc())
    ).scalar()
    if before is None:
        raise PeerwatchError(f"There is no earlier champion of {kind} to go back to.")
    return str(before)


def listed(connection: Connection, tables: Tables) -> list[dict[str, Any]]:
    """All models, newest first, without their arrays."""
    table = tables.model_versions
    columns = [column for column in table.c if column.name not in ("artifact", "card")]
    rows = connection.execute(sa.select(*columns).order_by(table.c.created_at.desc()))
    return [dict(row._mapping) for row in rows]


def card(connection: Connection, tables: Tables, model_version_id: str) -> dict[str, Any]:
    """The model card and what the registry knows beside it."""
    columns = [column for column in tables.model_versions.c if column.name != "artifact"]
    return dict(_row(connection, tables, model_version_id, columns)._mapping)
