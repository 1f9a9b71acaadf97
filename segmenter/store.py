"""segmenter's reads and writes of the result tables; the caller owns the transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from segmenter.features import FEATURES, RESERVED
from shared import frames
from shared.database import COUNTED, insert_new, staged, upsert
from shared.runs import Run
from shared.tables import Tables

PERIOD = ("customer_id", "state", "segment_id", "probability", "log_likelihood")
MODEL, CONFIGURATION = "model", "configuration"  # who named a segment, if no person did
# What the columns of features mean, as comments of the database.
MEANINGS = {feature.name: feature.description for feature in FEATURES}
MAPPED = "of what is mapped; the model's card describes it"


# --- segments -----------------------------------------------------------------------------------


def next_segment_id(connection: Connection, tables: Tables) -> int:
    """One more than the largest id ever given, published or not."""
    largest = connection.execute(sa.select(sa.func.max(tables.segments.c.segment_id))).scalar()
    return 1 if largest is None else int(largest) + 1


def segments(connection: Connection, tables: Tables, model_version_id: str) -> pd.DataFrame:
    """The segments of a model as they were published."""
    table = tables.segments
    select = sa.select(table).where(table.c.model_version_id == model_version_id)
    return _frame(connection, select.order_by(table.c.segment_id))


def write_segments(
    connection: Connection, run: Run, segments: pd.DataFrame, profiles: pd.DataFrame
) -> None:
    """The segments of a new model with their profiles."""
    insert_new(connection, run.tables.segment_profiles, profiles)
    insert_new(connection, run.tables.segments, segments)


def write_lineage(
    connection: Connection, run: Run, links: pd.DataFrame, champion: str, model: str
) -> None:
    """What became of the champion's segments in a new model, as `lineage.linked` tells it."""
    rows = links.assign(from_model_version_id=champion, to_model_version_id=model)
    insert_new(connection, run.tables.segment_lineage, rows)


def rename(
    connection: Connection, tables: Tables, model_version_id: str, names: Mapping[int, str]
) -> None:
    """Gives segments the names that the configuration has for them."""
    table = tables.segments
    for segment_id, name in sorted(names.items()):
        connection.execute(
            sa.update(table)
            .where(table.c.model_version_id == model_version_id, table.c.segment_id == segment_id)
            .values(name=name, named_by=CONFIGURATION)
        )


def rename_segment(
    connection: Connection, tables: Tables, segment_id: int, name: str, by: str
) -> int:
    """Gives a segment a person's name in every model that has it, so that a roll-back keeps it;
    returns in how many."""
    table = tables.segments
    renamed = sa.update(table).where(table.c.segment_id == segment_id)
    return connection.execute(renamed.values(name=name, named_by=by)).rowcount


# --- periods ------------------------------------------------------------------------------------


def newest_as_of(connection: Connection, tables: Tables) -> datetime | None:
    """The newest moment as of which customers were scored."""
    newest = sa.func.max(tables.customer_segments.c.last_scored_at)
    found: datetime | None = connection.execute(sa.select(newest)).scalar()
    return found


def current_segments(connection: Connection, tables: Tables, as_of: datetime) -> pd.Series:
    """Segment id by customer_id of who had one just before the moment.

    What was scored as of the moment itself is not looked at, so that scoring it again finds what
    the first time found.
    """
    table = tables.customer_segments
    before = sa.and_(
        table.c.valid_from < as_of, sa.or_(table.c.valid_to.is_(None), table.c.valid_to >= as_of)
    )
    select = sa.select(table.c.customer_id, table.c.segment_id)
    found = _frame(connection, select.where(before, table.c.segment_id.is_not(None)))
    return found.set_index("customer_id").segment_id.astype("Int64")


def write_periods(
    connection: Connection, run: Run, decided: pd.DataFrame, as_of: datetime, model: str
) -> int:
    """Brings the periods to `as_of`, which is not before the newest; returns how many opened.

    decided: the columns of PERIOD, one row per customer. A customer of whom nothing is known any
    more is inactive. What an earlier scoring of the same moment opened is taken back where it
    differs, so that the moment has one answer.
    """
    periods = run.tables.customer_segments
    with staged(connection, [periods.c[name] for name in PERIOD], decided[list(PERIOD)]) as stage:
        sa.Index(f"by_customer_{stage.name}", stage.c.customer_id).create(connection)
        _add_absent(connection, periods, stage)
        _take_back(connection, periods, stage, as_of)
        _close(connection, periods, stage, as_of)
        _renew(connection, periods, stage, as_of)
        return _open(connection, run, stage, as_of, model)


def _current(periods: sa.Table, stage: sa.Table) -> Any:
    """The clause of a customer's current period."""
    return sa.and_(periods.c.customer_id == stage.c.customer_id, periods.c.valid_to.is_(None))


def _same(periods: sa.Table, stage: sa.Table) -> Any:
    """The clause of a period that goes on."""
    return sa.and_(
        periods.c.state == stage.c.state,
        periods.c.segment_id.is_not_distinct_from(stage.c.segment_id),
    )


def _differs(periods: sa.Table, stage: sa.Table) -> Any:
    """The clause of a current period that the staged row ends."""
    other = sa.select(stage.c.customer_id).where(
        stage.c.customer_id == periods.c.customer_id, sa.not_(_same(periods, stage))
    )
    return sa.and_(periods.c.valid_to.is_(None), other.exists())


def _add_absent(connection: Connection, periods: sa.Table, stage: sa.Table) -> None:
    here = sa.select(stage.c.customer_id).where(stage.c.customer_id == periods.c.customer_id)
    absent = sa.select(periods.c.customer_id, sa.literal("inactive")).where(
        periods.c.valid_to.is_(None), ~here.exists()
    )
    connection.execute(sa.insert(stage).from_select(["customer_id", "state"], absent))


def _take_back(connection: Connection, periods: sa.Table, stage: sa.Table, as_of: datetime) -> None:
    connection.execute(
        sa.delete(periods).where(periods.c.valid_from == as_of, _differs(periods, stage))
    )
    later = periods.alias("later")
    followed = sa.select(later.c.customer_id).where(
        later.c.customer_id == periods.c.customer_id, later.c.valid_from == as_of
    )
    connection.execute(
        sa.update(periods)
        .where(periods.c.valid_to == as_of, ~followed.exists())
        .values(valid_to=None)
    )


def _close(connection: Connection, periods: sa.Table, stage: sa.Table, as_of: datetime) -> None:
    connection.execute(sa.update(periods).where(_differs(periods, stage)).values(valid_to=as_of))


def _renew(connection: Connection, periods: sa.Table, stage: sa.Table, as_of: datetime) -> None:
    connection.execute(
        sa.update(periods)
        .where(_current(periods, stage), _same(periods, stage))
        .values(
            probability=stage.c.probability,
            log_likelihood=stage.c.log_likelihood,
            last_scored_at=as_of,
        )
    )


def _open(connection: Connection, run: Run, stage: sa.Table, as_of: datetime, model: str) -> int:
    periods = run.tables.customer_segments
    there = sa.select(periods.c.customer_id).where(_current(periods, stage))
    moment = sa.literal(as_of, periods.c.valid_from.type)
    new = sa.select(
        *(stage.c[name] for name in PERIOD), moment, moment, sa.literal(model),
        sa.literal(run.run_id),
    ).where(~there.correlate(stage).exists())  # fmt: skip
    names = [*PERIOD, "valid_from", "last_scored_at", "model_version_id", "run_id"]
    statement = sa.insert(periods).from_select(names, new)
    return connection.execute(statement, execution_options=COUNTED).rowcount


# --- history ------------------------------------------------------------------------------------


def first_periods(connection: Connection, tables: Tables) -> pd.DataFrame:
    """Each customer's first period: customer_id, valid_from (microseconds), state, segment_id."""
    table = tables.customer_segments
    earliest = (
        sa.select(table.c.customer_id, sa.func.min(table.c.valid_from).label("valid_from"))
        .group_by(table.c.customer_id)
        .subquery()
    )
    select = sa.select(
        table.c.customer_id, table.c.valid_from, table.c.state, table.c.segment_id
    ).join(
        earliest,
        sa.and_(
            earliest.c.customer_id == table.c.customer_id,
            earliest.c.valid_from == table.c.valid_from,
        ),
    )
    found = _frame(connection, select)
    return found.assign(
        valid_from=pd.Series([frames.micros(v) for v in found.valid_from], dtype="int64"),
        segment_id=found.segment_id.astype("Int64"),
    )


def write_history(connection: Connection, run: Run, history: pd.DataFrame, model: str) -> None:
    """Periods before each customer's first, as `decisions.history` makes them.

    One that goes on in the first period is not a period of its own: the first begins earlier.
    """
    table = run.tables.customer_segments
    columns = [table.c[name] for name in ("customer_id", "valid_from", "valid_to")]
    with staged(connection, columns, history[history.goes_on]) as stage:
        connection.execute(
            sa.update(table)
            .where(
                table.c.customer_id == stage.c.customer_id,
                table.c.valid_from == stage.c.valid_to,
            )
            .values(valid_from=stage.c.valid_from)
        )
    apart = history[~history.goes_on].drop(columns="goes_on")
    rows = apart.assign(model_version_id=model, run_id=run.run_id)
    insert_new(connection, table, rows)


# --- features -----------------------------------------------------------------------------------


def write_features(connection: Connection, run: Run, frame: pd.DataFrame, as_of: datetime) -> None:
    """One wide row per customer of the frame; customers who are no longer there are removed.

    Columns that the table lacks are added first; those that the frame lacks become null.
    """
    texts = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
    table = _wide_table(connection, run, [name for name in frame if name not in RESERVED], texts)
    dated = frame.assign(as_of=pd.Timestamp(as_of))
    lacking = {column.name: None for column in table.columns if column.name not in dated}
    upsert(connection, table, dated.assign(**lacking))
    connection.execute(sa.delete(table).where(table.c.as_of != as_of))


def _wide_table(
    connection: Connection, run: Run, names: Sequence[str], texts: Sequence[str]
) -> sa.Table:
    """customer_features as it is in the database, with a column for each name."""
    table = feature_table(connection, run.tables)
    for name in names:
        if name not in table.c:
            _add_feature(connection, table, name, is_text=name in texts)
    return feature_table(connection, run.tables)


def _add_feature(connection: Connection, table: sa.Table, name: str, *, is_text: bool) -> None:
    """A further column, which on PostgreSQL a writer who does not own the table may add as well."""
    if connection.dialect.name == "postgresql":
        add = getattr(sa.func, sa.quoted_name(str(table.schema), True)).add_customer_feature
        connection.execute(sa.select(add(name, is_text, MEANINGS.get(name, MAPPED))))
        return
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext

    column: sa.Column[Any] = sa.Column(name, sa.Text() if is_text else sa.Double())
    change = Operations(MigrationContext.configure(connection))
    change.add_column(table.name, column, schema=table.schema)


def feature_table(connection: Connection, tables: Tables) -> sa.Table:
    """customer_features with its feature columns, which depend on the mapping."""
    declared = tables.customer_features
    found = sa.inspect(connection).get_columns(declared.name, schema=declared.schema)
    fixed = [column._copy() for column in declared.columns]
    wide = [sa.Column(c["name"], c["type"]) for c in found if c["name"] not in declared.c]
    return sa.Table(declared.name, sa.MetaData(), *fixed, *wide, schema=declared.schema)


# --- drift --------------------------------------------------------------------------------------


def write_drift(connection: Connection, run: Run, metrics: pd.DataFrame) -> None:
    """How far the customers of a scoring are from those of the fit, one row per feature."""
    upsert(connection, run.tables.drift_metrics, metrics.assign(run_id=run.run_id))


def drift_of(connection: Connection, tables: Tables, run_id: str | None) -> pd.DataFrame:
    """What a run found of drift, as it stands in drift_metrics."""
    table = tables.drift_metrics
    return _frame(connection, sa.select(table).where(table.c.run_id == run_id))


def newest_fit(connection: Connection, tables: Tables, kind: str) -> datetime:
    """The end of the newest training window of a kind, whether the model leads or not."""
    table = tables.model_versions
    newest = sa.func.max(table.c.trained_to)
    found: datetime = connection.execute(sa.select(newest).where(table.c.kind == kind)).scalar_one()
    return found


# --- report -------------------------------------------------------------------------------------


def report_frames(connection: Connection, tables: Tables, model_version_id: str) -> dict[str, Any]:
    """The frames of the report that are rows of the result tables; see `report.sections`."""
    profiles = tables.segment_profiles
    own = profiles.c.model_version_id == model_version_id
    return {
        "segments": _frame(connection, _published(tables, model_version_id)),
        "profiles": _frame(connection, sa.select(profiles).where(own)),
        "states": _frame(connection, _states(tables)),
        "movements": _frame(connection, _movements(tables)),
        "rfm": _frame(connection, _rfm(tables)),
    }


def _published(tables: Tables, model_version_id: str) -> sa.Select[Any]:
    """The model's segments with their customers now; with those at the fit before any score."""
    table, periods = tables.segments, tables.customer_segments
    now = (
        sa.select(periods.c.segment_id, sa.func.count().label("customers"))
        .where(periods.c.valid_to.is_(None), periods.c.segment_id.is_not(None))
        .group_by(periods.c.segment_id)
        .subquery()
    )
    scored = sa.select(sa.func.sum(now.c.customers)).scalar_subquery()
    count = sa.case(
        (scored.is_(None), table.c.customer_count), else_=sa.func.coalesce(now.c.customers, 0)
    )
    share = sa.case((scored.is_(None), table.c.share), else_=1.0 * count / scored)
    return (
        sa.select(
            table.c.segment_id, table.c.name, table.c.description, count.label("customer_count"),
            share.label("share"),
        )
        .select_from(table.outerjoin(now, now.c.segment_id == table.c.segment_id))
        .where(table.c.model_version_id == model_version_id)
    )  # fmt: skip


def _states(tables: Tables) -> sa.Select[Any]:
    periods = tables.customer_segments
    return (
        sa.select(periods.c.state, sa.func.count().label("customers"))
        .where(periods.c.valid_to.is_(None))
        .group_by(periods.c.state)
        .order_by(periods.c.state)
    )


def _movements(tables: Tables) -> sa.Select[Any]:
    """Customers by segment before the newest as-of moment and at it; empty at the first."""
    periods = tables.customer_segments
    before = periods.alias("before")
    newest = sa.select(sa.func.max(periods.c.last_scored_at)).scalar_subquery()
    opened = periods.c.valid_from == newest
    ended = sa.and_(
        opened, before.c.customer_id == periods.c.customer_id, before.c.valid_to == newest
    )
    joined = periods.outerjoin(before, ended)
    source = sa.case((opened, before.c.segment_id), else_=periods.c.segment_id)
    return (
        sa.select(
            source.label("from_segment_id"),
            periods.c.segment_id.label("to_segment_id"),
            sa.func.count().label("customers"),
        )
        .select_from(joined)
        .where(periods.c.valid_to.is_(None), sa.or_(~opened, before.c.customer_id.is_not(None)))
        .group_by(source, periods.c.segment_id)
    )


def _rfm(tables: Tables) -> sa.Select[Any]:
    """Mean quintiles of each segment's customers."""
    features, periods = tables.customer_features, tables.customer_segments
    scores = (features.c.rfm_recency, features.c.rfm_frequency, features.c.rfm_monetary)
    return (
        sa.select(
            periods.c.segment_id,
            *(sa.func.avg(1.0 * column).label(column.name) for column in scores),
        )
        .join(features, features.c.customer_id == periods.c.customer_id)
        .where(periods.c.valid_to.is_(None), periods.c.segment_id.is_not(None))
        .group_by(periods.c.segment_id)
    )


def scoring_run(connection: Connection, tables: Tables, as_of: datetime | None) -> pd.DataFrame:
    """The last run that scored as of the moment; no row where there is none."""
    table = tables.pipeline_runs
    scored = (
        table.c.job == "segmenter.score", table.c.status == "succeeded", table.c.window_to == as_of
    )  # fmt: skip
    select = sa.select(table).where(*scored).order_by(table.c.started_at.desc()).limit(1)
    return _frame(connection, select)


def sampled_features(
    connection: Connection, tables: Tables, names: Sequence[str], most: int
) -> pd.DataFrame:
    """The features of at most so many customers with purchases, every k-th by key, and their
    segments: the same customers in every run over the same tables."""
    table, periods = feature_table(connection, tables), tables.customer_segments
    total = connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
    known = [name for name in names if name in table.c]
    ranked = (
        sa.select(
            periods.c.segment_id,
            *(table.c[name] for name in known),
            sa.func.row_number().over(order_by=table.c.customer_id).label("place"),
        )
        .join(periods, periods.c.customer_id == table.c.customer_id)
        .where(periods.c.valid_to.is_(None), periods.c.log_likelihood.is_not(None))
        .subquery()
    )
    every = max(1, -(-int(total) // most))
    found = _frame(connection, sa.select(ranked).where(ranked.c.place % every == 0))
    return found.drop(columns="place").assign(segment_id=found.segment_id.astype("Int64"))


def _frame(connection: Connection, select: sa.Select[Any]) -> pd.DataFrame:
    result = connection.execute(select)
    return pd.DataFrame(result.fetchall(), columns=list(result.keys()))
