"""fraudwatch's reads and writes of the result tables; the caller owns the transaction."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from shared import frames
from shared.database import insert_new, staged
from shared.errors import ConfigurationError
from shared.runs import Run
from shared.tables import Tables

KEY_COLUMNS = ("transaction_id", "customer_id", "counterparty_id")
ALERT_COLUMNS = ("alert_id", "transaction_id", "case_id", "customer_id", "counterparty_id")


def published(connection: Connection, tables: Tables, since: int, until: int) -> np.ndarray:
    """Ids of the transactions of the window that have a published score."""
    table = tables.transaction_scores
    select = sa.select(table.c.transaction_id).where(
        table.c.role == "published",
        table.c.occurred_at >= frames.moment(since),
        table.c.occurred_at < frames.moment(until),
    )
    return np.array([row[0] for row in connection.execute(select)], dtype=object)


def unscored(
    connection: Connection, tables: Tables, ids: pd.Series, model_version_id: str | None = None
) -> np.ndarray:
    """(n,) whether each transaction has no published score yet, whenever it occurred.

    With a model: whether it has no score of that model.
    """
    if ids.empty:
        return np.zeros(0, dtype=bool)
    table = tables.transaction_scores
    column = table.c.transaction_id
    with staged(connection, [column], ids.to_frame("transaction_id")) as stage:
        joined = stage.join(table, column == stage.c.transaction_id)
        wanted = (
            table.c.role == "published"
            if model_version_id is None
            else table.c.model_version_id == model_version_id
        )
        found = connection.execute(sa.select(column).select_from(joined).where(wanted))
        there = {row[0] for row in found}
    return np.array([value not in there for value in ids.tolist()], dtype=bool)


def watermark(connection: Connection, tables: Tables) -> int | None:
    """The newest moment that has a published score, in microseconds; None where none has."""
    table = tables.transaction_scores
    newest = sa.select(sa.func.max(table.c.occurred_at)).where(table.c.role == "published")
    value: datetime | None = connection.execute(newest).scalar()
    return None if value is None else frames.micros(value)


def scores_between(connection: Connection, tables: Tables, since: int, until: int) -> pd.DataFrame:
    """Published scores of the window: transaction_id, log_likelihood, anomaly_score."""
    table = tables.transaction_scores
    select = sa.select(table.c.transaction_id, table.c.log_likelihood, table.c.anomaly_score).where(
        table.c.role == "published",
        table.c.occurred_at >= frames.moment(since),
        table.c.occurred_at < frames.moment(until),
    )
    return _frame(connection, select)


def first_training_end(connection: Connection, tables: Tables) -> int | None:
    """Where the first champion's training window ended, in microseconds.

    The first fit is champion at once; a roll-back renews `promoted_at`, so it is no guide.
    """
    table = tables.model_versions
    select = (
        sa.select(table.c.trained_to)
        .where(table.c.kind == "fraudwatch", table.c.promoted_at.is_not(None))
        .order_by(table.c.created_at, table.c.trained_to)
    )
    value: datetime | None = connection.execute(select).scalar()
    return None if value is None else frames.micros(value)


def write_scores(connection: Connection, run: Run, scores: pd.DataFrame, role: str) -> int:
    """Inserts scores; scores: as `jobs` makes them, moments in microseconds."""
    frame = scores[
        ["transaction_id", "customer_id", "occurred_at", "day", "log_likelihood", "anomaly_score",
         "p_value", "in_sample", "model_version_id"]
    ].assign(role=role, run_id=run.run_id, scored_at=pd.Timestamp(run.clock))  # fmt: skip
    return insert_new(connection, run.tables.transaction_scores, frame)


def earlier_alerts(connection: Connection, tables: Tables, near: pd.DataFrame) -> pd.DataFrame:
    """Alerts already raised for the customers, or counterparties, of the new ones."""
    table = tables.fraud_alerts
    columns = [table.c[name] for name in (*ALERT_COLUMNS, "occurred_at")]
    customers = near.customer_id.dropna().unique().tolist()
    alone = near.customer_id.isna()
    counterparties = near.counterparty_id[alone].dropna().unique().tolist()
    parts: list[pd.DataFrame] = []
    for column, keys in (
        (table.c.customer_id, customers),
        (table.c.counterparty_id, counterparties),
    ):
        for start in range(0, len(keys), 500):  # within any driver's number of parameters
            select = sa.select(*columns).where(column.in_(keys[start : start + 500]))
            parts.append(_frame(connection, select))
    if not parts:
        return pd.DataFrame(columns=[column.name for column in columns])
    frame = pd.concat(parts, ignore_index=True)
    frame["occurred_at"] = [frames.micros(value) for value in frame.occurred_at]
    return frame.sort_values(["occurred_at", "alert_id"], ignore_index=True)


def segments_then(connection: Connection, run: Run, alerts: pd.DataFrame) -> list[Any]:
    """The segment of each alert's customer as of its moment; None where none was known."""
    scores, periods = run.tables.transaction_scores, run.tables.customer_segments
    keys = [scores.c.transaction_id, scores.c.customer_id, scores.c.occurred_at]
    frame = alerts[[key.name for key in keys]]
    with staged(connection, keys, frame) as stage:
        then = sa.and_(
            periods.c.customer_id == stage.c.customer_id,
            periods.c.valid_from <= stage.c.occurred_at,
            sa.or_(periods.c.valid_to.is_(None), periods.c.valid_to > stage.c.occurred_at),
        )
        joined = stage.join(periods, then)
        select = sa.select(stage.c.transaction_id, periods.c.segment_id).select_from(joined)
        known = {row.transaction_id: row.segment_id for row in connection.execute(select)}
    return [known.get(key) for key in alerts.transaction_id.tolist()]


def write_alerts(
    connection: Connection, run: Run, alerts: pd.DataFrame, reasons: pd.DataFrame
) -> int:
    """Inserts alerts with their reasons; a transaction has at most one alert, ever."""
    written = insert_new(
        connection,
        run.tables.fraud_alerts,
        alerts.assign(run_id=run.run_id, created_at=pd.Timestamp(run.clock)),
    )
    insert_new(connection, run.tables.fraud_alert_reasons, reasons)
    return written


def alert_of(
    connection: Connection, tables: Tables, alert_id: str
) -> tuple[str, Any, float | None]:
    """(alert, transaction, amount) of an alert."""
    table = tables.fraud_alerts
    row = connection.execute(
        sa.select(table.c.alert_id, table.c.transaction_id, table.c.amount).where(
            table.c.alert_id == alert_id
        )
    ).first()
    if row is None:
        raise ConfigurationError(
            f"There is no alert {alert_id}. See them in the view open_fraud_alerts; for a "
            "transaction without an alert use --transaction."
        )
    return row.alert_id, row.transaction_id, row.amount


def alert_of_transaction(
    connection: Connection, tables: Tables, transaction_id: Any
) -> tuple[str, Any, float | None] | None:
    """(alert, transaction, amount) of a transaction's alert; None where it raised none."""
    table = tables.fraud_alerts
    row = connection.execute(
        sa.select(table.c.alert_id).where(table.c.transaction_id == transaction_id)
    ).first()
    return None if row is None else alert_of(connection, tables, row.alert_id)


def write_verdicts(connection: Connection, run: Run, verdicts: pd.DataFrame) -> int:
    """Inserts verdicts; one said twice at one moment by one person is one."""
    return insert_new(connection, run.tables.fraud_verdicts, verdicts)


def report_frames(connection: Connection, tables: Tables, since_day: Any) -> dict[str, Any]:
    """The frames of the report, one SELECT each; days from `since_day` on."""
    t = tables
    alerts = t.fraud_alerts
    status = sa.select(sa.text("alert_id, status")).select_from(t.view("alert_outcomes"))
    frames_ = {
        "alerts": _frame(connection, sa.select(alerts).where(alerts.c.day >= since_day)),
        "reasons": _frame(
            connection,
            sa.select(t.fraud_alert_reasons)
            .join(alerts, alerts.c.alert_id == t.fraud_alert_reasons.c.alert_id)
            .where(alerts.c.day >= since_day, t.fraud_alert_reasons.c.rank <= 3),
        ),
        "queue": _view(connection, t, "alert_queue", since_day)[["day", "rank", "case_id"]],
        "coverage": _view(connection, t, "coverage", since_day),
        "days": _frame(connection, _days(t, since_day)),
        "scores": _frame(connection, _histogram(t, since_day)),
        "settings": _frame(connection, sa.select(t.settings)),
    }
    known = _frame(connection, status)
    frames_["alerts"] = frames_["alerts"].merge(known, on="alert_id", how="left")
    return frames_


def _view(connection: Connection, tables: Tables, name: str, since_day: Any) -> pd.DataFrame:
    day = sa.column("day", sa.Date)
    select = sa.select(sa.text("*")).select_from(tables.view(name)).where(day >= since_day)
    return _frame(connection, select)


def _days(tables: Tables, since_day: Any) -> sa.Select[Any]:
    """Scored rows, alerts and cases of each day."""
    scores, alerts = tables.transaction_scores, tables.fraud_alerts
    scored = (
        sa.select(scores.c.day, sa.func.count().label("scored"))
        .where(scores.c.role == "published", scores.c.day >= since_day)
        .group_by(scores.c.day)
        .subquery()
    )
    raised = (
        sa.select(
            alerts.c.day,
            sa.func.count().label("alerts"),
            sa.func.count(alerts.c.case_id.distinct()).label("cases"),
        )
        .where(alerts.c.origin != "reported")
        .group_by(alerts.c.day)
        .subquery()
    )
    zero = sa.literal(0)
    return (
        sa.select(
            scored.c.day,
            scored.c.scored,
            sa.func.coalesce(raised.c.alerts, zero).label("alerts"),
            sa.func.coalesce(raised.c.cases, zero).label("cases"),
        )
        .select_from(scored.outerjoin(raised, raised.c.day == scored.c.day))
        .order_by(scored.c.day)
    )


def _histogram(tables: Tables, since_day: Any, width: float = 0.25) -> sa.Select[Any]:
    """Published scores by bins of their anomaly score, counted in the database."""
    scores = tables.transaction_scores
    at = sa.cast(sa.func.floor(scores.c.anomaly_score / width), sa.Integer)
    counted = (
        sa.select(at.label("at"), sa.func.count().label("count"))
        .where(scores.c.role == "published", scores.c.day >= since_day)
        .group_by(at)
        .subquery()
    )
    return sa.select(
        (counted.c.at * width).label("low"),
        ((counted.c.at + 1) * width).label("high"),
        counted.c.count,
    ).order_by(counted.c.at)


def _frame(connection: Connection, select: sa.Select[Any]) -> pd.DataFrame:
    """The rows as a frame; keys stay as they are, for beside a null a number would become 1.0."""
    result = connection.execute(select)
    names = list(result.keys())
    rows = result.fetchall()
    frame = pd.DataFrame(rows, columns=names)
    for name in KEY_COLUMNS:
        if name in names:
            at = names.index(name)
            frame[name] = pd.Series([row[at] for row in rows], dtype="object")
    return frame
