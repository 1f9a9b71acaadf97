"""The published results, their keys typed as the source's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import context, op

from shared.migrating import recorded_kinds
from shared.revising import create_index, create_table, drop_tables, target
from shared.tables import KEYS, Moment, key_type

revision = "0002"
down_revision = "0001"

Keys = Mapping[str, Any]  # types of key columns by the key's name
TABLES = (
    "segments",
    "segment_profiles",
    "customer_segments",
    "customer_features",
    "transaction_scores",
    "fraud_alerts",
    "fraud_alert_reasons",
    "fraud_verdicts",
    "quarantined_rows",
    "source_days",
)


def _keys() -> Keys:
    """The types of the key columns, from the kinds that the first revision recorded."""
    offline = context.is_offline_mode()
    kinds = target().kinds if offline else recorded_kinds(op.get_bind(), target())
    return {key: key_type(kinds.get(key, "text")) for key in KEYS}


def upgrade() -> None:
    keys = _keys()
    _create_segments(keys)
    _create_scores(keys)
    _create_alerts(keys)
    _create_verdicts(keys)
    _create_books()


def _create_segments(keys: Keys) -> None:
    create_table(
        "segments",
        sa.Column("segment_id", sa.Integer(), autoincrement=False),
        sa.Column("model_version_id", sa.Text()),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("named_by", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("customer_count", sa.BigInteger(), nullable=False),
        sa.Column("share", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("segment_id", "model_version_id"),
    )
    create_table(
        "segment_profiles",
        sa.Column("segment_id", sa.Integer(), autoincrement=False),
        sa.Column("model_version_id", sa.Text()),
        sa.Column("feature", sa.Text()),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("mean", sa.Double()),
        sa.Column("median", sa.Double()),
        sa.Column("p10", sa.Double()),
        sa.Column("p90", sa.Double()),
        sa.Column("population_median", sa.Double()),
        sa.Column("effect_size", sa.Double()),
        sa.Column("index_100", sa.Double()),
        sa.PrimaryKeyConstraint("segment_id", "model_version_id", "feature"),
    )
    create_table(
        "customer_segments",
        sa.Column("customer_id", keys["customer"], autoincrement=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("segment_id", sa.Integer()),
        sa.Column("probability", sa.Double()),
        sa.Column("log_likelihood", sa.Double()),
        sa.Column("valid_from", Moment()),
        sa.Column("valid_to", Moment()),
        sa.Column("last_scored_at", Moment(), nullable=False),
        sa.Column("model_version_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("customer_id", "valid_from"),
    )
    create_index(
        "one_current_segment",
        "customer_segments",
        ["customer_id"],
        where="valid_to IS NULL",
        unique=True,
    )
    create_table(
        "customer_features",
        sa.Column("customer_id", keys["customer"], autoincrement=False),
        sa.Column("as_of", Moment(), nullable=False),
        sa.Column("rfm_recency", sa.Integer()),
        sa.Column("rfm_frequency", sa.Integer()),
        sa.Column("rfm_monetary", sa.Integer()),
        sa.PrimaryKeyConstraint("customer_id"),
    )


def _create_scores(keys: Keys) -> None:
    create_table(
        "transaction_scores",
        sa.Column("transaction_id", keys["transaction"], autoincrement=False),
        sa.Column("model_version_id", sa.Text()),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("customer_id", keys["customer"]),
        sa.Column("occurred_at", Moment(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("log_likelihood", sa.Double(), nullable=False),
        sa.Column("anomaly_score", sa.Double(), nullable=False),
        sa.Column("p_value", sa.Double(), nullable=False),
        sa.Column("in_sample", sa.Boolean(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("scored_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("transaction_id", "model_version_id"),
    )
    create_index(
        "one_published_score",
        "transaction_scores",
        ["transaction_id"],
        where="role = 'published'",
        unique=True,
    )
    create_index("scores_by_moment", "transaction_scores", ["occurred_at"])


def _create_alerts(keys: Keys) -> None:
    create_table(
        "fraud_alerts",
        sa.Column("alert_id", sa.Text()),
        sa.Column("transaction_id", keys["transaction"], nullable=False),
        sa.Column("case_id", sa.Text(), nullable=False),
        sa.Column("customer_id", keys["customer"]),
        sa.Column("counterparty_id", keys["counterparty"]),
        sa.Column("occurred_at", Moment(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("amount", sa.Double()),
        sa.Column("currency", sa.Text()),
        sa.Column("log_likelihood", sa.Double()),
        sa.Column("anomaly_score", sa.Double()),
        sa.Column("p_value", sa.Double()),
        sa.Column("q_value", sa.Double()),
        sa.Column("priority", sa.Double()),
        sa.Column("expected_loss", sa.Double()),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("segment_id", sa.Integer()),
        sa.Column("model_version_id", sa.Text()),
        sa.Column("ranker_version_id", sa.Text()),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("alert_id"),
        sa.UniqueConstraint("transaction_id"),
    )
    create_index("alerts_by_customer", "fraud_alerts", ["customer_id", "occurred_at"])
    create_table(
        "fraud_alert_reasons",
        sa.Column("alert_id", sa.Text()),
        sa.Column("rank", sa.Integer(), autoincrement=False),
        sa.Column("feature", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("expected", sa.Text(), nullable=False),
        sa.Column("value_number", sa.Double()),
        sa.Column("expected_low", sa.Double()),
        sa.Column("expected_high", sa.Double()),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("contribution", sa.Double()),
        sa.Column("baseline", sa.Double()),
        sa.Column("share", sa.Double()),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("alert_id", "rank"),
    )


def _create_verdicts(keys: Keys) -> None:
    create_table(
        "fraud_verdicts",
        sa.Column("verdict_id", sa.Text()),
        sa.Column("transaction_id", keys["transaction"], nullable=False),
        sa.Column("alert_id", sa.Text()),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("fraud_type", sa.Text()),
        sa.Column("duplicate_of", sa.Text()),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("note", sa.Text()),
        sa.Column("amount", sa.Double()),
        sa.Column("decided_at", Moment(), nullable=False),
        sa.Column("recorded_at", Moment(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("verdict_id"),
    )
    create_index("verdicts_by_transaction", "fraud_verdicts", ["transaction_id"])


def _create_books() -> None:
    create_table(
        "quarantined_rows",
        sa.Column("source_table", sa.Text(), nullable=False),
        sa.Column("row_key", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("first_run_id", sa.Text(), nullable=False),
        sa.Column("column_name", sa.Text(), nullable=False),
        sa.Column("masked_value", sa.Text(), nullable=False),
        sa.Column("day", sa.Date()),
        sa.Column("source_rows", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", Moment(), nullable=False),
        sa.Column("resolved_at", Moment()),
    )
    create_index(
        "one_open_refusal",
        "quarantined_rows",
        ["source_table", "row_key", "code", "day"],
        where="resolved_at IS NULL",
        unique=True,
    )
    create_table(
        "source_days",
        sa.Column("day", sa.Date()),
        sa.Column("source_rows", sa.BigInteger(), nullable=False),
        sa.Column("before_scope", sa.BigInteger(), nullable=False),
        sa.Column("counted_at", Moment(), nullable=False),
        sa.UniqueConstraint("day"),
    )


def downgrade() -> None:
    drop_tables(TABLES)
