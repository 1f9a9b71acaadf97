"""All tables of ours: the records of runs and models, and the published results.

Keys of transactions, customers and counterparties have the kind of the source's own, so the
tables are built by `tables(kinds, …)` once the kinds are known. Migrations create them; a test
holds that both say the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from shared import dictionary

KINDS = ("integer", "text", "uuid")
KEYS = ("transaction", "customer", "counterparty")
VIEWS = (
    "current_customer_segments",
    "current_transaction_scores",
    "open_fraud_alerts",
    "alert_queue",
    "alert_outcomes",
    "segment_summary",
    "segment_migration",
    "alert_quality",
    "run_health",
    "coverage",
)
TAKING = ("running", "succeeded", "skipped", "missed")  # a run's status that takes its slot
MOMENT_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"  # of SQLite, where moments are text


class Moment(TypeDecorator[datetime]):
    """A moment in UTC: timestamptz, in SQLite text as `YYYY-MM-DDTHH:MM:SS.ffffffZ`."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(sa.String(27))
        return dialect.type_descriptor(sa.DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).strftime(MOMENT_FORMAT)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if isinstance(value, str):
            return datetime.strptime(value, MOMENT_FORMAT).replace(tzinfo=UTC)
        return None if value is None else value.astimezone(UTC)


class Json(TypeDecorator[Any]):
    """JSON as text, the same in every database; keys sorted, so equal values are equal texts."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        import json

        return None if value is None else json.dumps(value, sort_keys=True, allow_nan=False)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        import json

        return None if value is None else json.loads(value)


def key_type(kind: str) -> TypeEngine[Any]:
    """The column type of a key of this kind; one of `KINDS`."""
    if kind == "integer":
        return sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    uuid = sa.Uuid(as_uuid=False).with_variant(sa.Text(), "sqlite")  # joins without a cast
    return uuid if kind == "uuid" else sa.Text()


@dataclass(frozen=True)
class Tables:
    """The tables by name, in one schema or behind one prefix; `tables.fraud_alerts` is a table."""

    metadata: sa.MetaData
    schema: str | None
    prefix: str

    def name(self, name: str) -> str:
        return f"{self.prefix}{name}"

    def lock(self, name: str) -> str:
        """The name of a lock that those share who write into these tables."""
        return f"{self.schema}/{self.prefix}{name}"

    def __getattr__(self, name: str) -> sa.Table:
        key = f"{self.schema}.{self.prefix}{name}" if self.schema else f"{self.prefix}{name}"
        try:
            return self.metadata.tables[key]
        except KeyError:
            raise AttributeError(name) from None

    def view(self, name: str) -> sa.TableClause:
        """A view of ours, to select from with `sa.text` or named columns."""
        return sa.table(self.name(name), schema=self.schema)


def tables(
    kinds: Mapping[str, str] | None = None, schema: str | None = None, prefix: str = ""
) -> Tables:
    """All tables; `kinds` maps the names in `KEYS` to one of `KINDS` (text where not said)."""
    result = Tables(sa.MetaData(schema=schema), schema, prefix)
    keys = {key: key_type((kinds or {}).get(key, "text")) for key in KEYS}
    _models(result)
    _runs(result)
    _segments(result)
    _customers(result, keys)
    _scores(result, keys)
    _alerts(result, keys)
    _verdicts(result, keys)
    _days(result)
    _accounts(result)
    return result


def _table(tables: Tables, name: str, *items: Any) -> sa.Table:
    table = sa.Table(tables.name(name), tables.metadata, *items)
    if meaning := dictionary.TABLES.get(name):
        table.comment = meaning.row
        for column in table.columns:
            column.comment = meaning.columns.get(column.name)
    return table


def _text(name: str, **options: Any) -> sa.Column[str]:
    return sa.Column(name, sa.Text, **options)


def _number(name: str, **options: Any) -> sa.Column[float]:
    return sa.Column(name, sa.Double, **options)


def _count(name: str, **options: Any) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, **options)


def _moment(name: str, **options: Any) -> sa.Column[datetime]:
    return sa.Column(name, Moment, **options)


def _unique(
    tables: Tables,
    name: str,
    *columns: Any,
    where: sa.ColumnElement[bool] | sa.TextClause | None = None,
) -> None:
    """One row for each value of the columns, or of those rows that `where` holds for."""
    sa.Index(tables.name(name), *columns, unique=True, sqlite_where=where, postgresql_where=where)


def _models(tables: Tables) -> None:
    _table(tables, "settings", _text("key", primary_key=True), _text("value", nullable=False))
    models = _table(
        tables,
        "model_versions",
        _text("model_version_id", primary_key=True),
        _text("kind", nullable=False),
        _text("parent_id"),
        _text("status", nullable=False),
        _moment("created_at", nullable=False),
        _moment("trained_from", nullable=False),
        _moment("trained_to", nullable=False),
        _count("rows", nullable=False),
        sa.Column("metrics", Json, nullable=False),
        sa.Column("card", Json, nullable=False),
        sa.Column("gate", Json, nullable=False),
        _moment("promoted_at"),
        _text("promoted_by"),
        _text("sha256", nullable=False),
        sa.Column("artifact", sa.LargeBinary, nullable=False),
    )
    leads = models.c.status == sa.literal_column("'champion'")
    _unique(tables, "one_champion", models.c.kind, where=leads)


def _runs(tables: Tables) -> None:
    runs = _table(
        tables,
        "pipeline_runs",
        _text("run_id", primary_key=True),
        _text("job", nullable=False),
        _text("trigger", nullable=False),
        _text("status", nullable=False),
        _moment("slot_at"),
        _moment("started_at", nullable=False),
        _moment("finished_at"),
        _moment("window_from"),
        _moment("window_to"),
        _count("rows_read", nullable=False),
        _count("rows_written", nullable=False),
        _count("rows_quarantined", nullable=False),
        _count("rows_late", nullable=False),
        _count("rows_too_late", nullable=False),
        _text("model_version_id"),
        _text("error"),
        _text("note"),
    )
    taken = sa.text("slot_at IS NOT NULL AND status IN " + str(TAKING))
    _unique(tables, "one_run_per_slot", runs.c.job, runs.c.slot_at, where=taken)
    _table(
        tables,
        "job_leases",
        _text("job", primary_key=True),
        _count("token", nullable=False),
        _text("holder", nullable=False),
        _text("run_id", nullable=False),
        _text("unit"),
        _moment("taken_at", nullable=False),
        _moment("expires_at"),
    )
    _table(
        tables,
        "drift_metrics",
        _text("run_id", primary_key=True),
        _text("feature", primary_key=True),
        _text("statistic", nullable=False),
        _number("value"),
        _number("threshold"),
        sa.Column("drifted", sa.Boolean, nullable=False),
    )
    _table(
        tables,
        "run_batches",
        _text("run_id", primary_key=True),
        sa.Column("batch", sa.Integer, primary_key=True),
        _moment("window_from", nullable=False),
        _moment("window_to", nullable=False),
        _count("rows_read", nullable=False),
        _count("rows_written", nullable=False),
        _count("rows_quarantined", nullable=False),
        _moment("committed_at", nullable=False),
    )


def _segments(tables: Tables) -> None:
    _table(
        tables,
        "segments",
        sa.Column("segment_id", sa.Integer, primary_key=True, autoincrement=False),
        _text("model_version_id", primary_key=True),
        _text("name", nullable=False),
        _text("named_by", nullable=False),
        _text("description", nullable=False),
        _count("customer_count", nullable=False),
        _number("share", nullable=False),
    )
    _table(
        tables,
        "segment_profiles",
        sa.Column("segment_id", sa.Integer, primary_key=True, autoincrement=False),
        _text("model_version_id", primary_key=True),
        _text("feature", primary_key=True),
        _text("unit", nullable=False),
        *(_number(name) for name in ("mean", "median", "p10", "p90", "population_median")),
        _number("effect_size"),
        _number("index_100"),
    )
    lineage = _table(
        tables,
        "segment_lineage",
        sa.Column("from_segment_id", sa.Integer),  # null: a segment that no other went into
        sa.Column("to_segment_id", sa.Integer),  # null: a segment that went into no other
        _text("from_model_version_id", nullable=False),
        _text("to_model_version_id", nullable=False),
        _text("kind", nullable=False),
        _number("overlap"),
    )
    ends = (lineage.c.from_segment_id, lineage.c.to_segment_id)
    _unique(tables, "one_link", lineage.c.to_model_version_id, *ends)


def _customers(tables: Tables, keys: Mapping[str, TypeEngine[Any]]) -> None:
    customer = keys["customer"]
    segments = _table(
        tables,
        "customer_segments",
        sa.Column("customer_id", customer, primary_key=True, autoincrement=False),
        _text("state", nullable=False),
        sa.Column("segment_id", sa.Integer),
        _number("probability"),
        _number("log_likelihood"),
        _moment("valid_from", primary_key=True),
        _moment("valid_to"),
        _moment("last_scored_at", nullable=False),
        _text("model_version_id", nullable=False),
        _text("run_id", nullable=False),
    )
    current = segments.c.valid_to.is_(None)
    _unique(tables, "one_current_segment", segments.c.customer_id, where=current)
    _table(
        tables,
        "customer_features",
        sa.Column("customer_id", customer, primary_key=True, autoincrement=False),
        _moment("as_of", nullable=False),
        *(sa.Column(f"rfm_{name}", sa.Integer) for name in ("recency", "frequency", "monetary")),
        # One column per feature beside these: they depend on the mapping (segmenter/store.py).
    )


def _scores(tables: Tables, keys: Mapping[str, TypeEngine[Any]]) -> None:
    scores = _table(
        tables,
        "transaction_scores",
        sa.Column("transaction_id", keys["transaction"], primary_key=True, autoincrement=False),
        _text("model_version_id", primary_key=True),
        _text("role", nullable=False),
        sa.Column("customer_id", keys["customer"]),
        _moment("occurred_at", nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        _number("log_likelihood", nullable=False),
        _number("anomaly_score", nullable=False),
        _number("p_value", nullable=False),
        sa.Column("in_sample", sa.Boolean, nullable=False),
        _text("run_id", nullable=False),
        _moment("scored_at", nullable=False),
        _number("surprise"),
    )
    published = scores.c.role == sa.literal_column("'published'")
    _unique(tables, "one_published_score", scores.c.transaction_id, where=published)
    sa.Index(tables.name("scores_by_moment"), scores.c.occurred_at)


def _alerts(tables: Tables, keys: Mapping[str, TypeEngine[Any]]) -> None:
    alerts = _table(
        tables,
        "fraud_alerts",
        _text("alert_id", primary_key=True),
        sa.Column("transaction_id", keys["transaction"], nullable=False, unique=True),
        _text("case_id", nullable=False),
        sa.Column("customer_id", keys["customer"]),
        sa.Column("counterparty_id", keys["counterparty"]),
        _moment("occurred_at", nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        _number("amount"),
        _text("currency"),
        _number("log_likelihood"),
        _number("anomaly_score"),
        _number("p_value"),
        _number("q_value"),
        _number("priority"),
        _number("expected_loss"),
        _text("origin", nullable=False),
        _text("summary", nullable=False),
        sa.Column("segment_id", sa.Integer),
        _text("model_version_id"),
        _text("ranker_version_id"),
        _text("run_id", nullable=False),
        _moment("created_at", nullable=False),
    )
    sa.Index(tables.name("alerts_by_customer"), alerts.c.customer_id, alerts.c.occurred_at)
    sa.Index(tables.name("alerts_by_day"), alerts.c.day)
    _table(
        tables,
        "fraud_alert_reasons",
        _text("alert_id", primary_key=True),
        sa.Column("rank", sa.Integer, primary_key=True),
        _text("feature", nullable=False),
        _text("value", nullable=False),
        _text("expected", nullable=False),
        *(_number(name) for name in ("value_number", "expected_low", "expected_high")),
        _text("unit", nullable=False),
        *(_number(name) for name in ("contribution", "baseline", "share")),
        _text("text", nullable=False),
    )


def _verdicts(tables: Tables, keys: Mapping[str, TypeEngine[Any]]) -> None:
    verdicts = _table(
        tables,
        "fraud_verdicts",
        _text("verdict_id", primary_key=True),
        sa.Column("transaction_id", keys["transaction"], nullable=False),
        _text("alert_id"),
        _text("verdict", nullable=False),
        _text("fraud_type"),
        _text("duplicate_of"),
        _text("actor", nullable=False),
        _text("note"),
        _number("amount"),
        _moment("decided_at", nullable=False),
        _moment("recorded_at", nullable=False),
        _text("source", nullable=False),
    )
    sa.Index(tables.name("verdicts_by_transaction"), verdicts.c.transaction_id)


def _days(tables: Tables) -> None:
    _table(
        tables,
        "closed_days",
        sa.Column("day", sa.Date, primary_key=True),
        _moment("closed_at", nullable=False),
        _count("scored", nullable=False),
        _number("cut"),
        _number("false_discovery_rate"),
        sa.Column("promised", sa.Boolean, nullable=False),
        _text("reason"),
        _number("drift"),
        sa.Column("drifted", sa.Boolean, nullable=False),
        _text("model_version_id"),
        _text("run_id", nullable=False),
    )


def _accounts(tables: Tables) -> None:
    """The books: which source rows were refused, and how many there are a day."""
    quarantine = _table(
        tables,
        "quarantined_rows",
        _text("source_table", nullable=False),
        _text("row_key", nullable=False),
        _text("code", nullable=False),
        _text("first_run_id", nullable=False),
        _text("column_name", nullable=False),
        _text("masked_value", nullable=False),
        sa.Column("day", sa.Date),
        _count("source_rows", nullable=False),
        _moment("seen_at", nullable=False),
        _moment("resolved_at"),
    )
    # Rows that share an id, or have none, are counted by day.
    refusal = [quarantine.c[name] for name in ("source_table", "row_key", "code", "day")]
    still_open = quarantine.c.resolved_at.is_(None)
    _unique(tables, "one_open_refusal", *refusal, where=still_open)
    _table(
        tables,
        "source_days",
        sa.Column("day", sa.Date, unique=True),
        _count("source_rows", nullable=False),
        _count("before_scope", nullable=False),
        _moment("counted_at", nullable=False),
    )
