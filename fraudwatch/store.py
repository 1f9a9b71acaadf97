"""fraudwatch's reads and writes of the result tables; the caller owns the transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from shared import frames
from shared.database import insert_new, staged, upsert
from shared.errors import ConfigurationError
from shared.runs import Run
from shared.tables import Tables

KEY_COLUMNS = ("transaction_id", "customer_id", "counterparty_id")
MOST_KEYS = 500  # of a condition: within any driver's number of parameters
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
    """Published scores of the window: transaction_id, log_likelihood, anomaly_score, in_sample,
    and the priority of those with an alert, None of the others."""
    table, alerts = tables.transaction_scores, tables.fraud_alerts
    names = ("transaction_id", "log_likelihood", "anomaly_score", "in_sample")
    # Of an alert that was drawn or reported the priority is no rank among those that were raised.
    raised = sa.and_(
        alerts.c.transaction_id == table.c.transaction_id, alerts.c.origin == "threshold"
    )
    select = (
        sa.select(*(table.c[name] for name in names), alerts.c.priority)
        .outerjoin(alerts, raised)
        .where(
            table.c.role == "published",
            table.c.occurred_at >= frames.moment(since),
            table.c.occurred_at < frames.moment(until),
        )
    )
    return _frame(connection, select)


def surprises(
    connection: Connection, tables: Tables, model_version_id: str, ids: pd.Series
) -> np.ndarray:
    """(n,) what a model stored for the transactions; NaN where it has not scored them."""
    if ids.empty:
        return np.empty(0)
    table = tables.transaction_scores
    column = table.c.transaction_id
    with staged(connection, [column], ids.to_frame("transaction_id")) as stage:
        joined = stage.join(table, column == stage.c.transaction_id)
        select = sa.select(column, table.c.surprise).select_from(joined)
        rows = connection.execute(select.where(table.c.model_version_id == model_version_id))
        known = {row[0]: row[1] for row in rows}
    return np.array([known.get(key, np.nan) for key in ids.tolist()], dtype=np.float64)


def segment_periods(connection: Connection, tables: Tables) -> pd.DataFrame:
    """Periods of customers in segments: customer_id, segment_id, valid_from, valid_to
    (microseconds; null where current). A segment's id is never used twice, so that it tells whose
    segment it is whichever version opened the period."""
    table = tables.customer_segments
    columns = [table.c[name] for name in ("customer_id", "segment_id", "valid_from", "valid_to")]
    frame = _frame(connection, sa.select(*columns).where(table.c.segment_id.is_not(None)))
    for name in ("valid_from", "valid_to"):
        values = [None if pd.isna(v) else frames.micros(v) for v in frame[name]]
        frame[name] = pd.array(values, dtype="Int64")
    return frame


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
        ["transaction_id", "customer_id", "occurred_at", "day", "log_likelihood", "surprise",
         "anomaly_score", "p_value", "in_sample", "model_version_id"]
    ].assign(role=role, run_id=run.run_id, scored_at=pd.Timestamp(run.clock))  # fmt: skip
    return insert_new(connection, run.tables.transaction_scores, frame)


def earlier_alerts(connection: Connection, tables: Tables, near: pd.DataFrame) -> pd.DataFrame:
    """Alerts already raised for the customers, or counterparties, of the new ones.

    What was drawn to be explored raised nothing: each is a case of its own.
    """
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
        for some in _batches(keys):
            select = sa.select(*columns).where(column.in_(some), table.c.origin != "exploration")
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
    table = run.tables.fraud_verdicts
    column, verdicts = table.c.verdict_id, verdicts.drop_duplicates("verdict_id")
    said: list[str] = []
    for some in _batches(verdicts.verdict_id.tolist()):
        said += connection.execute(sa.select(column).where(column.in_(some))).scalars()
    # The table refuses an id that it has, so that none replaces what was said.
    new = verdicts[~verdicts.verdict_id.isin(said)]
    return insert_new(connection, table, new)


def verdicts(connection: Connection, tables: Tables, before: int | None = None) -> pd.DataFrame:
    """What was said of transactions, in order, decided before a moment where one is given.

    Columns: transaction_id, verdict, decided_at, recorded_at (both in microseconds).
    """
    table = tables.fraud_verdicts
    columns = [table.c[name] for name in ("transaction_id", "verdict", "decided_at", "recorded_at")]
    select = sa.select(*columns).order_by(
        table.c.decided_at, table.c.recorded_at, table.c.verdict_id
    )
    if before is not None:
        select = select.where(table.c.decided_at < frames.moment(before))
    frame = _frame(connection, select)
    for name in ("decided_at", "recorded_at"):
        frame[name] = np.array([frames.micros(value) for value in frame[name]], dtype=np.int64)
    return frame


# --- the close of a day -------------------------------------------------------------------------


def oldest_scored(connection: Connection, tables: Tables, since: int) -> int | None:
    """The oldest moment from `since` on that has a published score, in microseconds."""
    table = tables.transaction_scores
    select = sa.select(sa.func.min(table.c.occurred_at)).where(
        table.c.role == "published", table.c.occurred_at >= frames.moment(since)
    )
    value: datetime | None = connection.execute(select).scalar()
    return None if value is None else frames.micros(value)


def days_to_close(connection: Connection, tables: Tables, first: date, last: date) -> list[date]:
    """The days from first to last that are not closed yet, in order."""
    table = tables.closed_days
    known = sa.select(table.c.day).where(table.c.day >= first, table.c.day <= last)
    closed = {row.day for row in connection.execute(known)}
    days = (first + timedelta(days=at) for at in range((last - first).days + 1))
    return [day for day in days if day not in closed]


def is_closed(connection: Connection, tables: Tables, day: date) -> bool:
    table = tables.closed_days
    found = connection.execute(sa.select(table.c.day).where(table.c.day == day)).first()
    return found is not None


def _of_the_day(scores: sa.Table, day: date, window: tuple[int, int]) -> sa.ColumnElement[bool]:
    """Published scores of a day; its window lets the index by moment find them."""
    return sa.and_(
        scores.c.role == "published",
        scores.c.day == day,
        scores.c.occurred_at >= frames.moment(window[0]),
        scores.c.occurred_at < frames.moment(window[1]),
    )


def day_p_values(
    connection: Connection, tables: Tables, day: date, window: tuple[int, int]
) -> pd.DataFrame:
    """The p-values of a day's published scores, counted in the database.

    Columns: p_value, model_version_id, in_sample, count. A conformal p-value is one of as many as
    there are calibration rows, so that millions of scores are few lines.
    """
    scores = tables.transaction_scores
    columns = [scores.c.p_value, scores.c.model_version_id, scores.c.in_sample]
    select = (
        sa.select(*columns, sa.func.count().label("count"))
        .where(_of_the_day(scores, day, window))
        .group_by(*columns)
    )
    return _frame(connection, select)


def write_closed_day(connection: Connection, run: Run, closed: dict[str, Any]) -> None:
    connection.execute(
        sa.insert(run.tables.closed_days).values(closed_at=run.clock, run_id=run.run_id, **closed)
    )


def alerts_on(connection: Connection, tables: Tables, day: date) -> pd.DataFrame:
    """Alerts of a day that have a p-value: alert_id, p_value."""
    table = tables.fraud_alerts
    select = sa.select(table.c.alert_id, table.c.p_value)
    return _frame(connection, select.where(table.c.day == day, table.c.p_value.is_not(None)))


def write_q_values(connection: Connection, tables: Tables, alerts: pd.DataFrame) -> None:
    """Sets q_value of alerts; alerts: alert_id, q_value."""
    table = tables.fraud_alerts
    statement = (
        sa.update(table)
        .where(table.c.alert_id == sa.bindparam("alert"))
        .values(q_value=sa.bindparam("q"))
    )
    pairs = zip(alerts.alert_id.tolist(), alerts.q_value.tolist(), strict=True)
    values = [{"alert": alert, "q": q_value} for alert, q_value in pairs]
    if values:
        connection.execute(statement, values)


def closed_steps(
    connection: Connection, tables: Tables, days: Iterable[date]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of the days that are closed: (day, cut, false_discovery_rate), and their alerts' steps
    (day, p_value, q_value)."""
    closed, alerts = tables.closed_days, tables.fraud_alerts
    wanted = sorted(set(days))
    parts: list[tuple[pd.DataFrame, pd.DataFrame]] = []
    for some in _batches(wanted) or [[]]:
        cuts = sa.select(closed.c.day, closed.c.cut, closed.c.false_discovery_rate)
        steps = sa.select(alerts.c.day, alerts.c.p_value, alerts.c.q_value)
        parts.append(
            (
                _frame(connection, cuts.where(closed.c.day.in_(some))),
                _frame(
                    connection, steps.where(alerts.c.day.in_(some), alerts.c.q_value.is_not(None))
                ),
            )
        )
    cuts_, steps_ = zip(*parts, strict=True)
    return pd.concat(cuts_, ignore_index=True), pd.concat(steps_, ignore_index=True)


def first_drift(
    connection: Connection, tables: Tables, models: Sequence[str], before: date
) -> date | None:
    """The first closed day before another on which one of the models' p-values had drifted."""
    table = tables.closed_days
    select = sa.select(sa.func.min(table.c.day)).where(
        table.c.drifted, table.c.model_version_id.in_(models), table.c.day < before
    )
    return connection.execute(select).scalar()


def write_drift(connection: Connection, run: Run, drift: dict[str, Any]) -> None:
    """One row per run and feature: of the newest day that the run closed."""
    upsert(connection, run.tables.drift_metrics, pd.DataFrame([{"run_id": run.run_id, **drift}]))


def last_closed(connection: Connection, tables: Tables) -> Any:
    """The newest closed day (day, false_discovery_rate, promised, reason); None where none is."""
    table = tables.closed_days
    columns = (table.c.day, table.c.false_discovery_rate, table.c.promised, table.c.reason)
    return connection.execute(sa.select(*columns).order_by(table.c.day.desc()).limit(1)).first()


def unalerted(
    connection: Connection, tables: Tables, day: date, window: tuple[int, int]
) -> pd.DataFrame:
    """The published scores of a day that have no alert, as the alert of one would carry them."""
    scores, alerts = tables.transaction_scores, tables.fraud_alerts
    names = ("transaction_id", "log_likelihood", "anomaly_score", "p_value", "model_version_id")
    select = (
        sa.select(*(scores.c[name] for name in names))
        .outerjoin(alerts, alerts.c.transaction_id == scores.c.transaction_id)
        .where(_of_the_day(scores, day, window), alerts.c.alert_id.is_(None))
    )
    return _frame(connection, select)


def alerted_counterparties(
    connection: Connection, tables: Tables, since: date, until: date
) -> set[Any]:
    """Counterparties with an alert on the days from since to until."""
    table = tables.fraud_alerts
    here = (table.c.day >= since, table.c.day <= until, table.c.counterparty_id.is_not(None))
    select = sa.select(table.c.counterparty_id).distinct().where(*here)
    return {row[0] for row in connection.execute(select)}


# --- the report ---------------------------------------------------------------------------------


def report_frames(connection: Connection, tables: Tables, since_day: Any) -> dict[str, Any]:
    """The frames of the report, one SELECT each; days from `since_day` on."""
    t = tables
    alerts, scores = t.fraud_alerts, t.transaction_scores
    status = sa.select(sa.text("alert_id, status, verdict")).select_from(t.view("alert_outcomes"))
    marked = (
        sa.select(alerts.c.alert_id, scores.c.in_sample)
        .join(scores, scores.c.transaction_id == alerts.c.transaction_id)
        .where(scores.c.role == "published", alerts.c.day >= since_day)
    )
    frames_ = {
        "alerts": _frame(connection, sa.select(alerts).where(alerts.c.day >= since_day)),
        "reasons": _frame(
            connection,
            sa.select(t.fraud_alert_reasons)
            .join(alerts, alerts.c.alert_id == t.fraud_alert_reasons.c.alert_id)
            .where(
                alerts.c.day >= since_day,
                sa.or_(
                    t.fraud_alert_reasons.c.rank == 1,
                    t.fraud_alert_reasons.c.share > 0,
                ),
            ),
        ),
        "queue": _view(connection, t, "alert_queue", since_day)[["day", "rank", "case_id"]],
        "coverage": _view(connection, t, "coverage", since_day),
        "days": _frame(connection, _days(t, since_day)),
        "closed_days": _frame(
            connection, sa.select(t.closed_days).where(t.closed_days.c.day >= since_day)
        ),
        "drift": _frame(connection, _newest_drift(t)),
        "scores": _frame(connection, _histogram(t, since_day)),
        "settings": _frame(connection, sa.select(t.settings)),
    }
    for beside in (status, marked):
        known = _frame(connection, beside)
        frames_["alerts"] = frames_["alerts"].merge(known, on="alert_id", how="left")
    return frames_


def _newest_drift(tables: Tables) -> sa.Select[Any]:
    """What the newest scoring that looked at drift found; customers' drift is segmenter's."""
    drift, runs = tables.drift_metrics, tables.pipeline_runs
    newest = (
        sa.select(drift.c.run_id)
        .join(runs, runs.c.run_id == drift.c.run_id)
        .where(runs.c.job == "fraudwatch.score")
        .order_by(runs.c.started_at.desc(), drift.c.run_id.desc())
        .limit(1)
        .scalar_subquery()
    )
    return sa.select(drift).where(drift.c.run_id == newest)


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
        .where(alerts.c.origin == "threshold")
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


def _batches(keys: list[Any]) -> list[list[Any]]:
    return [keys[start : start + MOST_KEYS] for start in range(0, len(keys), MOST_KEYS)]


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
