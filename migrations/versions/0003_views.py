"""The analysts' views: tables of ours alone, one named step per common table expression."""

from __future__ import annotations

from alembic import op

from shared.revising import create_views, drop_views, qualified

revision = "0003"
down_revision = "0002"

# Where the two dialects differ.
WORDS = {
    "sqlite": {
        "month": "substr({0}, 1, 7)",
        "utc": "{0}",
        "week": "date({0}, '-6 days', 'weekday 1')",
        "minutes": "(julianday({0}) - julianday({1})) * 1440",
    },
    "postgresql": {
        "month": "to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM')",
        "utc": "({0} AT TIME ZONE 'UTC')",
        "week": "CAST(date_trunc('week', CAST({0} AS timestamp)) AS date)",
        "minutes": "EXTRACT(EPOCH FROM {0} - {1}) / 60",
    },
}

# One row per transaction with a verdict: the last word said of it. Used by several views.
LAST_VERDICT = """
ranked_verdicts AS (
    SELECT v.*, row_number() OVER (
        PARTITION BY transaction_id ORDER BY decided_at DESC, recorded_at DESC, verdict_id DESC
    ) AS recency
    FROM {fraud_verdicts} v
),
last_verdict AS (
    SELECT * FROM ranked_verdicts WHERE recency = 1
),
-- one row per alert: where it stands
alert_status AS (
    SELECT a.alert_id, l.verdict, l.actor, l.decided_at, l.fraud_type,
        CASE WHEN l.verdict IS NULL OR l.verdict = 'reopened' THEN 'open'
             WHEN l.verdict = 'in_review' THEN 'in_review'
             ELSE 'closed' END AS status
    FROM {fraud_alerts} a LEFT JOIN last_verdict l ON l.transaction_id = a.transaction_id
)"""

VIEWS = {
    # one row per customer
    "current_customer_segments": """
WITH champion AS (
    SELECT model_version_id FROM {model_versions} WHERE kind = 'segmenter' AND status = 'champion'
)
SELECT c.customer_id, c.state, c.segment_id, s.name AS segment_name, c.probability,
    c.log_likelihood, c.valid_from, c.last_scored_at, c.model_version_id
FROM {customer_segments} c
LEFT JOIN {segments} s ON s.segment_id = c.segment_id
    AND s.model_version_id = (SELECT model_version_id FROM champion)
WHERE c.valid_to IS NULL
""",
    # one row per scored transaction
    "current_transaction_scores": """
SELECT transaction_id, customer_id, occurred_at, day, log_likelihood, anomaly_score, p_value,
    in_sample, model_version_id, run_id, scored_at
FROM {transaction_scores} WHERE role = 'published'
""",
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
    a.day, a.amount, a.currency, a.anomaly_score, a.p_value, a.priority, a.summary,
    r.reason_1, r.reason_2, r.reason_3, s.status, s.verdict AS last_verdict, s.actor, s.decided_at
FROM {fraud_alerts} a
JOIN alert_status s ON s.alert_id = a.alert_id
LEFT JOIN reasons r ON r.alert_id = a.alert_id
WHERE s.status <> 'closed'
""",
    # one row per day and case: the first reviews_per_day cases of each day
    "alert_queue": """
WITH day_cases AS (
    SELECT day, case_id, max(priority) AS priority, count(*) AS alerts
    FROM {fraud_alerts} WHERE origin <> 'reported' GROUP BY day, case_id
),
ranked AS (
    SELECT day, case_id, priority, alerts,
        row_number() OVER (PARTITION BY day ORDER BY priority DESC, case_id) AS rank
    FROM day_cases
)
SELECT day, rank, case_id, priority, alerts FROM ranked
WHERE rank <= (SELECT CAST(value AS integer) FROM {settings} WHERE key = 'reviews_per_day')
""",
    # one row per alert: what became of it
    "alert_outcomes": """
WITH {last_verdict}
SELECT a.alert_id, a.transaction_id, a.case_id, a.day, a.amount, a.currency, a.priority,
    a.origin, a.model_version_id, s.status, s.verdict, s.fraud_type, s.actor, s.decided_at
FROM {fraud_alerts} a JOIN alert_status s ON s.alert_id = a.alert_id
""",
    # one row per published segment of the champion
    "segment_summary": """
WITH members AS (
    SELECT segment_id, count(*) AS customers, avg(probability) AS mean_probability
    FROM {customer_segments} WHERE valid_to IS NULL AND state = 'assigned' GROUP BY segment_id
)
SELECT s.segment_id, s.name, s.named_by, s.description, s.customer_count AS customers_at_fit,
    s.share AS share_at_fit, COALESCE(m.customers, 0) AS customers, m.mean_probability,
    s.model_version_id
FROM {segments} s
JOIN {model_versions} v ON v.model_version_id = s.model_version_id AND v.status = 'champion'
LEFT JOIN members m ON m.segment_id = s.segment_id
""",
    # one row per pair of segments and month in which customers moved
    "segment_migration": """
WITH steps AS (
    SELECT customer_id, valid_from, segment_id AS to_segment_id,
        lag(segment_id) OVER (PARTITION BY customer_id ORDER BY valid_from) AS from_segment_id,
        row_number() OVER (PARTITION BY customer_id ORDER BY valid_from) AS period
    FROM {customer_segments}
)
SELECT from_segment_id, to_segment_id, {month_of_valid_from} AS month, count(*) AS customers
FROM steps WHERE period > 1
GROUP BY from_segment_id, to_segment_id, {month_of_valid_from}
""",
    # one row per week, model and leading reason; missed frauds under '(no alert)'
    "alert_quality": """
WITH {last_verdict},
judged AS (
    SELECT {week_of_day} AS week, COALESCE(a.model_version_id, '') AS model_version_id,
        r.feature AS leading_reason, s.verdict, a.amount,
        {minutes_to_verdict} AS minutes,
        CASE WHEN s.verdict = 'confirmed_fraud' THEN 1 ELSE 0 END AS confirmed,
        CASE WHEN s.verdict IN ('false_positive', 'genuine_unusual') THEN 1 ELSE 0 END AS false_one
    FROM {fraud_alerts} a
    JOIN alert_status s ON s.alert_id = a.alert_id AND s.status = 'closed'
    JOIN {fraud_alert_reasons} r ON r.alert_id = a.alert_id AND r.rank = 1
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
        sum(confirmed) AS confirmed, sum(false_one) AS false_ones,
        sum(CASE WHEN confirmed = 1 THEN amount ELSE 0 END) AS value_confirmed,
        avg(CASE WHEN place IN ((places + 1) / 2, (places + 2) / 2) THEN minutes END)
            AS median_minutes_to_verdict
    FROM ordered GROUP BY week, model_version_id, leading_reason
),
-- Wilson's interval at 95 %: n judged cases, p their precision
rated AS (
    SELECT c.*, NULLIF(confirmed + false_ones, 0) AS n,  -- null where all are inconclusive
        CASE WHEN confirmed + false_ones > 0
             THEN confirmed * 1.0 / (confirmed + false_ones) END AS p
    FROM counted c
),
missed AS (
    SELECT {week_of_decided} AS week, count(*) AS missed_frauds, sum(l.amount) AS missed_value
    FROM last_verdict l
    WHERE l.verdict = 'confirmed_fraud' AND NOT EXISTS (
        SELECT 1 FROM {fraud_alerts} a WHERE a.transaction_id = l.transaction_id
    )
    GROUP BY {week_of_decided}
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
SELECT week, '', '(no alert)', 0, 0, NULL, NULL, NULL, NULL, 0.0, missed_frauds, missed_value, NULL
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
    t.runs, t.failed, o.error AS last_error
FROM totals t JOIN ordered o ON o.job = t.job AND o.place = 1
""",
    # one row per day of the source; rows without a valid time stand under day null.
    # source_rows = before_scope + scored + quarantined + pending - gone_from_source
    "coverage": """
WITH refused_rows AS (
    SELECT source_table, row_key, day, max(source_rows) AS source_rows
    FROM {quarantined_rows} WHERE resolved_at IS NULL GROUP BY source_table, row_key, day
),
refused AS (
    SELECT day, sum(source_rows) AS quarantined FROM refused_rows GROUP BY day
),
published AS (
    SELECT day, count(*) AS scored FROM {transaction_scores} WHERE role = 'published' GROUP BY day
),
days AS (
    SELECT d.day, d.source_rows, COALESCE(p.scored, 0) AS scored,
        -- what a backfill has scored before the scope stands under scored
        CASE WHEN d.before_scope > COALESCE(p.scored, 0)
             THEN d.before_scope - COALESCE(p.scored, 0) ELSE 0 END AS before_scope,
        -- refused rows before the scope are counted with the scope
        CASE WHEN d.day IS NOT NULL AND d.before_scope > 0 THEN 0
             ELSE COALESCE(r.quarantined, 0) END AS quarantined
    FROM {source_days} d
    LEFT JOIN published p ON p.day = d.day
    LEFT JOIN refused r ON r.day = d.day OR (r.day IS NULL AND d.day IS NULL)
),
balance AS (
    SELECT days.*, source_rows - before_scope - scored - quarantined AS rest FROM days
)
SELECT day, source_rows, before_scope, scored, quarantined,
    CASE WHEN rest > 0 THEN rest ELSE 0 END AS pending,
    CASE WHEN rest > 0 AND day < {look_back} THEN rest ELSE 0 END AS too_late,
    CASE WHEN rest < 0 THEN -rest ELSE 0 END AS gone_from_source
FROM balance
""",
}
READ = (
    *("settings", "model_versions", "pipeline_runs", "segments", "customer_segments"),
    *("transaction_scores", "fraud_alerts", "fraud_alert_reasons", "fraud_verdicts"),
    *("quarantined_rows", "source_days"),
)
LOOK_BACK = "(SELECT CAST(value AS {0}) FROM {{settings}} WHERE key = 'look_back_from')"


def standing_for(dialect: str) -> dict[str, str]:
    """What stands for each placeholder: qualified names, and the dialect's own functions."""
    names = {table: qualified(table) for table in READ}
    words = WORDS[dialect]
    date = "date" if dialect == "postgresql" else "text"
    return {
        **names,
        "last_verdict": LAST_VERDICT.strip().format(**names),
        "look_back": LOOK_BACK.format(date).format(**names),
        "month_of_valid_from": words["month"].format("valid_from"),
        "week_of_day": words["week"].format("a.day"),
        "week_of_decided": words["week"].format(words["utc"].format("l.decided_at")),
        "minutes_to_verdict": words["minutes"].format("s.decided_at", "a.created_at"),
    }


def upgrade() -> None:
    create_views(VIEWS, standing_for(op.get_context().dialect.name))


def downgrade() -> None:
    drop_views(list(VIEWS))
