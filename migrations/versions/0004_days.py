"""Days that close: their cut and their promise, drift, a run's note; the views that show them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import context, op

from shared.revising import (
    add_column,
    create_index,
    create_table,
    create_views,
    drop_column,
    drop_index,
    drop_tables,
    drop_views,
    qualified,
)
from shared.tables import Moment

revision = "0004"
down_revision = "0003"

TABLES = ("drift_metrics", "closed_days")
DATE_OF = {"sqlite": "date({0})", "postgresql": "CAST({0} AT TIME ZONE 'UTC' AS date)"}

VIEWS = {
    # one row per alert that is not closed
    "open_fraud_alerts": """
WITH {last_verdict},
-- one row per alert: its first three reasons side by side
reasons AS (
    SELECT alert_id,
        max(CASE WHEN rank = 1 THEN text END) AS reason_1,
        max(CASE WHEN rank = 2 THEN text END) AS reason_2,
        max(CASE WHEN rank = 3 THEN text END) AS reason_3
    FROM {fraud_alert_reasons} WHERE rank <= 3 GROUP BY alert_id
)
SELECT a.alert_id, a.transaction_id, a.case_id, a.customer_id, a.counterparty_id, a.occurred_at,
    a.day, a.amount, a.currency, a.anomaly_score, a.p_value, a.q_value, a.priority,
    a.expected_loss, a.origin, a.summary, r.reason_1, r.reason_2, r.reason_3, s.status,
    s.verdict AS last_verdict, s.actor, s.decided_at
FROM {fraud_alerts} a
JOIN alert_status s ON s.alert_id = a.alert_id
LEFT JOIN reasons r ON r.alert_id = a.alert_id
WHERE s.status <> 'closed'
""",
    # one row per day and case: the first reviews_per_day cases of each day, of a day that was
    # closed under a false-discovery rate only those under it; then what was drawn to be explored
    "alert_queue": """
WITH shown AS (
    SELECT a.day, a.case_id, a.priority, a.origin
    FROM {fraud_alerts} a LEFT JOIN {closed_days} c ON c.day = a.day
    WHERE a.origin = 'exploration' OR (a.origin = 'threshold'
        AND (c.false_discovery_rate IS NULL OR a.q_value <= c.false_discovery_rate))
),
day_cases AS (
    SELECT day, case_id, origin, max(priority) AS priority, count(*) AS alerts
    FROM shown GROUP BY day, case_id, origin
),
placed AS (
    SELECT day, case_id, origin, priority, alerts,
        row_number() OVER (PARTITION BY day, origin ORDER BY priority DESC, case_id) AS place
    FROM day_cases
)
SELECT day,
    row_number() OVER (
        PARTITION BY day ORDER BY CASE WHEN origin = 'threshold' THEN 0 ELSE 1 END, place
    ) AS rank,
    case_id, priority, alerts, origin
FROM placed
WHERE origin = 'exploration'
    OR place <= (SELECT CAST(value AS integer) FROM {settings} WHERE key = 'reviews_per_day')
""",
    # one row per alert: what became of it, and the rank of its case in the queue
    "alert_outcomes": """
WITH {last_verdict}
SELECT a.alert_id, a.transaction_id, a.case_id, a.day, a.amount, a.currency, a.p_value, a.q_value,
    a.priority, q.rank, a.origin, a.model_version_id, s.status, s.verdict, s.fraud_type,
    l.duplicate_of, s.actor, s.decided_at
FROM {fraud_alerts} a
JOIN alert_status s ON s.alert_id = a.alert_id
LEFT JOIN last_verdict l ON l.transaction_id = a.transaction_id
LEFT JOIN {alert_queue} q ON q.day = a.day AND q.case_id = a.case_id
""",
    # one row per week, model and leading reason; missed frauds under '(no alert)'. What is said to
    # be a duplicate counts with the one it repeats, what was drawn to be explored nowhere, and
    # what lies in the training window of its model not in the rates.
    "alert_quality": """
WITH {last_verdict},
judged AS (
    SELECT {week_of_day} AS week, COALESCE(a.model_version_id, '') AS model_version_id,
        r.feature AS leading_reason, s.verdict, a.amount,
        {minutes_to_verdict} AS minutes,
        CASE WHEN s.verdict = 'confirmed_fraud' THEN 1 ELSE 0 END AS confirmed,
        CASE WHEN s.verdict IN ('false_positive', 'genuine_unusual') THEN 1 ELSE 0 END AS false_one,
        CASE WHEN t.in_sample THEN 0 ELSE 1 END AS out_of_sample
    FROM {fraud_alerts} a
    JOIN alert_status s ON s.alert_id = a.alert_id AND s.status = 'closed'
    JOIN last_verdict l ON l.transaction_id = a.transaction_id AND l.duplicate_of IS NULL
    JOIN {fraud_alert_reasons} r ON r.alert_id = a.alert_id AND r.rank = 1
    LEFT JOIN {transaction_scores} t ON t.transaction_id = a.transaction_id AND t.role = 'published'
    WHERE a.origin = 'threshold'
),
ordered AS (
    SELECT j.*,
        row_number() OVER (PARTITION BY week, model_version_id, leading_reason ORDER BY minutes)
            AS place,
        count(*) OVER (PARTITION BY week, model_version_id, leading_reason) AS places
    FROM judged j
),
counted AS (
    SELECT week, model_version_id, leading_reason, count(*) AS reviewed,
        sum(confirmed) AS confirmed,
        sum(confirmed * out_of_sample) AS hits,
        sum((confirmed + false_one) * out_of_sample) AS told,
        sum(CASE WHEN confirmed = 1 THEN amount ELSE 0 END) AS value_confirmed,
        avg(CASE WHEN place IN ((places + 1) / 2, (places + 2) / 2) THEN minutes END)
            AS median_minutes_to_verdict
    FROM ordered GROUP BY week, model_version_id, leading_reason
),
-- Wilson's interval at 95 %: n judged alerts, p their precision
rated AS (
    SELECT c.*, NULLIF(told, 0) AS n,  -- null where all are inconclusive
        CASE WHEN told > 0 THEN hits * 1.0 / told END AS p
    FROM counted c
),
missed AS (
    SELECT {week_of_missed} AS week, COALESCE(t.model_version_id, '') AS model_version_id,
        count(*) AS missed_frauds, sum(l.amount) AS missed_value
    FROM last_verdict l
    LEFT JOIN {transaction_scores} t ON t.transaction_id = l.transaction_id AND t.role = 'published'
    WHERE l.verdict = 'confirmed_fraud' AND l.duplicate_of IS NULL AND NOT EXISTS (
        SELECT 1 FROM {fraud_alerts} a WHERE a.transaction_id = l.transaction_id
    )
    GROUP BY {week_of_missed}, COALESCE(t.model_version_id, '')
)
SELECT week, model_version_id, leading_reason, reviewed, confirmed,
    1 - p AS false_positive_ratio, p AS precision,
    (p + 1.9208 / n - 1.96 * sqrt(p * (1 - p) / n + 0.9604 / n / n)) / (1 + 3.8416 / n)
        AS precision_low,
    (p + 1.9208 / n + 1.96 * sqrt(p * (1 - p) / n + 0.9604 / n / n)) / (1 + 3.8416 / n)
        AS precision_high,
    value_confirmed, 0 AS missed_frauds, 0.0 AS missed_value, median_minutes_to_verdict
FROM rated
UNION ALL
SELECT week, model_version_id, '(no alert)', 0, 0, NULL, NULL, NULL, NULL, 0.0, missed_frauds,
    missed_value, NULL
FROM missed
""",
    # one row per job
    "run_health": """
WITH ordered AS (
    SELECT r.*, row_number() OVER (PARTITION BY job ORDER BY started_at DESC, run_id DESC) AS place
    FROM {pipeline_runs} r
),
totals AS (
    SELECT job, count(*) AS runs, sum(CASE WHEN status = 'failed' THEN 1 ELSE 0 END) AS failed,
        max(CASE WHEN status = 'succeeded' THEN finished_at END) AS last_succeeded_at
    FROM {pipeline_runs} GROUP BY job
)
SELECT t.job, o.status AS last_status, o.started_at AS last_started_at, t.last_succeeded_at,
    t.runs, t.failed, o.error AS last_error, o.note AS last_note
FROM totals t JOIN ordered o ON o.job = t.job AND o.place = 1
""",
}


def _earlier() -> Any:
    """The revision whose views are replaced here: its texts, and what stands in them."""
    return context.script.get_revision(down_revision).module


def _standing_for(dialect: str) -> dict[str, str]:
    """What stands for each placeholder: qualified names, and the dialect's own functions."""
    earlier = _earlier()
    day_of_missed = f"COALESCE(t.day, {DATE_OF[dialect].format('l.decided_at')})"
    return {
        **earlier.standing_for(dialect),
        "closed_days": qualified("closed_days"),
        "alert_queue": qualified("alert_queue"),
        "week_of_missed": earlier.WORDS[dialect]["week"].format(day_of_missed),
    }


def upgrade() -> None:
    drop_views(list(VIEWS))
    add_column("pipeline_runs", sa.Column("note", sa.Text()))
    add_column("transaction_scores", sa.Column("surprise", sa.Double()))
    create_table(
        "drift_metrics",
        sa.Column("run_id", sa.Text()),
        sa.Column("feature", sa.Text()),
        sa.Column("statistic", sa.Text(), nullable=False),
        sa.Column("value", sa.Double()),
        sa.Column("threshold", sa.Double()),
        sa.Column("drifted", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "feature"),
    )
    create_table(
        "closed_days",
        sa.Column("day", sa.Date()),
        sa.Column("closed_at", Moment(), nullable=False),
        sa.Column("scored", sa.BigInteger(), nullable=False),
        sa.Column("cut", sa.Double()),
        sa.Column("false_discovery_rate", sa.Double()),
        sa.Column("promised", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("drift", sa.Double()),
        sa.Column("drifted", sa.Boolean(), nullable=False),
        sa.Column("model_version_id", sa.Text()),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("day"),
    )
    create_index("alerts_by_day", "fraud_alerts", ["day"])
    create_views(VIEWS, _standing_for(op.get_context().dialect.name))


def downgrade() -> None:
    drop_views(list(VIEWS))
    drop_index("alerts_by_day", "fraud_alerts")
    drop_tables(TABLES)
    drop_column("pipeline_runs", "note")
    drop_column("transaction_scores", "surprise")
    earlier = _earlier()
    before = {view: earlier.VIEWS[view] for view in VIEWS}
    create_views(before, earlier.standing_for(op.get_context().dialect.name))
