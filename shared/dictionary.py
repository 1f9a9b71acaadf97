"""The data dictionary: what a row of each table and view is, and what each column means.

PostgreSQL holds these texts as comments; a test holds them equal to the manual's. Plain text,
without marks; "as in x" stands for what the column of that name means in the table x.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Meaning:
    """Of a table or view: one row of it, and its columns in their order."""

    row: str
    columns: Mapping[str, str]


TABLES = {
    "settings": Meaning(
        (
            "One row per key: kinds of the keys and types of the columns as mapped, and what the "
            "last run used."
        ),
        {
            "key": (
                "kind.transaction, column.<table>.<column>, reviews_per_day, false_discovery_rate,"
                " score_from, look_back.at (the last whole look-back), look_back.arrived.<column>"
                " (the newest arrival seen), schedule.<job> (its rule, and the first slot that"
                " counts), …"
            ),
            "value": "text",
        },
    ),
    "model_versions": Meaning(
        "One row per fitted model.",
        {
            "model_version_id": "kind, end of the window, beginning of the SHA-256",
            "kind": "segmenter, fraudwatch or ranker",
            "parent_id": "the model that this one is a recalibration of; else null",
            "status": "candidate, champion or retired",
            "created_at": "when it was made",
            "trained_from": "start of the window",
            "trained_to": "end of the window",
            "rows": "customers or transactions of the fit",
            "metrics": "figures of the fit",
            "card": "the model card",
            "gate": "each check and whether it passed",
            "promoted_at": "null if it never was champion",
            "promoted_by": "a name, or gate",
            "sha256": "of the artifact, checked before it is read",
            "artifact": "arrays (safetensors) and a JSON header; of a ranker LightGBM's text",
        },
    ),
    "pipeline_runs": Meaning(
        "One row per run.",
        {
            "run_id": "job, moment, random end",
            "job": "fraudwatch.score, …",
            "trigger": "manual or schedule",
            "status": (
                "running, succeeded, failed, abandoned (it was stopped, or its process is gone), "
                "missed or skipped (nothing was run for a slot)"
            ),
            "slot_at": "the moment of the schedule that it is for; null of a run started by hand",
            "started_at": (
                "when it began; of a slot for which nothing was run, when that was noted"
            ),
            "finished_at": "null while it runs",
            "window_from": "start of what was read",
            "window_to": "end of what was read",
            "rows_read": "source rows",
            "rows_written": "rows written",
            "rows_quarantined": "rows refused",
            "rows_late": "scored rows that are older than the newest one scored before",
            "rows_too_late": "rows that wait for backfill",
            "model_version_id": "the model it made or used",
            "error": "the message of a failure",
            "note": (
                "fraudwatch score: why no rate is promised for the newest closed day, where one is"
                " asked; segmenter score: what has drifted"
            ),
        },
    ),
    "job_leases": Meaning(
        "One row per job: who runs it now. See Running it.",
        {
            "job": "fraudwatch.score, …",
            "token": "one more at each change of hands; a writer with an older one writes nothing",
            "holder": "machine, process and its start",
            "run_id": "the run",
            "unit": "the last unit of work that was committed; asked where a commit got no answer",
            "taken_at": "when it was taken, by the database's clock",
            "expires_at": "until when it holds without a sign of life; null is given back",
        },
    ),
    "drift_metrics": Meaning(
        (
            "One row per run and feature that was watched: by fraudwatch score the p-values of the"
            " newest day that the run closed, by segmenter score each feature that forms segments,"
            " and log_likelihood."
        ),
        {
            "run_id": "the run",
            "feature": "p_value, a feature's name, or log_likelihood",
            "statistic": "what was measured, and for p_value of which day",
            "value": (
                "its value: of p_value in standard deviations of one day, of a feature its "
                "population stability index, of log_likelihood its fall in nats"
            ),
            "threshold": "from where on it is drift",
            "drifted": "whether it is",
        },
    ),
    "run_batches": Meaning(
        "One row per batch of a run, written together with its results.",
        {
            "run_id": "the run",
            "batch": "0, 1, …",
            "window_from": "start of what was read",
            "window_to": "end of what was read",
            "rows_read": "source rows",
            "rows_written": "rows written",
            "rows_quarantined": "rows newly refused",
            "committed_at": "the run's clock",
        },
    ),
    "segments": Meaning(
        "One row per published segment and model.",
        {
            "segment_id": "stays with the segment over refits, never used twice",
            "model_version_id": "the model",
            "name": "name; yours or ours",
            "named_by": "model, configuration, or the person who renamed it",
            "description": "one sentence: what its customers are like",
            "customer_count": "customers at the fit",
            "share": "their share of the assigned customers, 0 to 1",
        },
    ),
    "segment_profiles": Meaning(
        "One row per segment, model and feature, and three for the RFM scores.",
        {
            "segment_id": "the segment",
            "model_version_id": "the model",
            "feature": "name of the feature",
            "unit": "its unit",
            "mean": "mean of the segment",
            "median": "median of the segment",
            "p10": "tenth percentile",
            "p90": "ninetieth percentile",
            "population_median": "median of all customers with a purchase",
            "effect_size": "(segment mean − population mean) / population standard deviation",
            "index_100": (
                "100 × segment mean / population mean; null where the latter is not positive"
            ),
        },
    ),
    "segment_lineage": Meaning(
        (
            "One row per link between the segments of a model and those of the champion at its "
            "fit. A pair is linked where the id is the same, or where at least 0.3 of the "
            "posterior mass of one of the two is common to both."
        ),
        {
            "from_segment_id": "the champion's segment; null where kind is new",
            "to_segment_id": "the new model's segment; null where kind is retired",
            "from_model_version_id": "the champion at the fit",
            "to_model_version_id": "the new model",
            "kind": (
                "kept: the id goes on. split: the new segment is a part of the old one. merged: "
                "the old segment went into a larger one. new, retired: no link on the other side"
            ),
            "overlap": (
                "share of the old segment's posterior mass that went to the new one, 0 to 1; null "
                "where an end is"
            ),
        },
    ),
    "customer_segments": Meaning(
        (
            "One row per customer and period, [valid_from, valid_to). A period opens only when "
            "state or segment changes; every customer has exactly one current row."
        ),
        {
            "customer_id": "as in your tables",
            "state": "assigned, outlier, too_new, inactive",
            "segment_id": "null unless assigned",
            "probability": "of the segment, 0 to 1; null unless assigned",
            "log_likelihood": "log density of the customer, nats; null without a purchase",
            "valid_from": "start of the period",
            "valid_to": "null is current",
            "last_scored_at": "the newest as-of that confirmed it",
            "model_version_id": "the model that opened it",
            "run_id": "the run that opened it",
        },
    ),
    "customer_features": Meaning(
        (
            "One row per customer, as of the newest scoring. Beside these columns, one per "
            "feature, in real units (features)."
        ),
        {
            "customer_id": "as in your tables",
            "as_of": "the moment it describes",
            "rfm_recency": "1 to 5, 5 bought last",
            "rfm_frequency": "1 to 5, 5 has most purchase days",
            "rfm_monetary": "1 to 5, 5 has the highest net amount",
        },
    ),
    "transaction_scores": Meaning(
        "One row per transaction and model.",
        {
            "transaction_id": "as in your table",
            "model_version_id": "the model",
            "role": "published (at most one per transaction) or backfill (of --model)",
            "customer_id": "as in your tables",
            "occurred_at": "when the transaction happened",
            "day": "its calendar day",
            "log_likelihood": "nats, higher is more usual",
            "anomaly_score": "nats, higher is more anomalous",
            "p_value": "(0, 1]",
            "in_sample": "true where the row lies before the end of the model's window",
            "run_id": "the run",
            "scored_at": "when the run began",
            "surprise": "of the density alone, calibrated, nats",
        },
    ),
    "fraud_alerts": Meaning(
        "One row per alerted transaction.",
        {
            "alert_id": "a function of the transaction's id",
            "transaction_id": "unique",
            "case_id": "alerts that belong together",
            "customer_id": "as in your tables",
            "counterparty_id": "as in your table",
            "occurred_at": "when the transaction happened",
            "day": "its calendar day",
            "amount": "as in the source",
            "currency": "as in the source",
            "log_likelihood": "nats",
            "anomaly_score": "nats",
            "p_value": "(0, 1]",
            "q_value": "null until the day closes",
            "priority": "higher first",
            "expected_loss": "amount × probability of fraud; null where nothing taught one",
            "origin": "threshold, or exploration: drawn for review",
            "summary": "one sentence",
            "segment_id": "the customer's segment at that moment; null where none was known",
            "model_version_id": "the model",
            "ranker_version_id": "the ranker that set the priority; null where none did",
            "run_id": "the run",
            "created_at": "when it was made",
        },
    ),
    "fraud_alert_reasons": Meaning(
        "One row per alert and reason.",
        {
            "alert_id": "the alert",
            "rank": "1 is the most telling",
            "feature": "name of the feature, latent, evidence.… or ranker.… (reasons)",
            "value": "text ready to read",
            "expected": "text ready to read",
            "value_number": "the value; null where not numeric",
            "expected_low": "5 % quantile given the context",
            "expected_high": "95 % quantile given the context",
            "unit": "unit of the three",
            "contribution": "nats; features and latent sum to −log_likelihood",
            "baseline": "its median over the calibration rows, nats; 0 for evidence.… and ranker.…",
            "share": "its share of all that speaks for the alert, 0 to 1",
            "text": "one phrase",
        },
    ),
    "fraud_verdicts": Meaning(
        (
            "One row per thing a person said; insert only: the database refuses to change or "
            "delete one."
        ),
        {
            "verdict_id": "any text of its own",
            "transaction_id": "as in your table",
            "alert_id": "null: fraud found elsewhere",
            "verdict": "see Verdicts",
            "fraud_type": "free text",
            "duplicate_of": (
                "another verdict's id, where this one repeats it: alert_quality counts it once"
            ),
            "actor": "who said it",
            "note": "free text",
            "amount": "of the transaction",
            "decided_at": "the decision",
            "recorded_at": "the entry",
            "source": "cli, csv or sql",
        },
    ),
    "closed_days": Meaning(
        "One row per closed day.",
        {
            "day": "the day",
            "closed_at": "when it was closed",
            "scored": "published scores at the close",
            "cut": (
                "largest p-value under the asked rate; null where none is under it or none is asked"
            ),
            "false_discovery_rate": "the rate asked at the close; null where none",
            "promised": "whether it is promised",
            "reason": "why not; null where it is",
            "drift": "the day's drift; null where it cannot be told",
            "drifted": "whether it passed its limit",
            "model_version_id": "the model that scored most of the day",
            "run_id": "the run",
        },
    ),
    "quarantined_rows": Meaning(
        "One row per refused source row and code.",
        {
            "source_table": "your table",
            "row_key": "the row's id as text; (null) where it has none",
            "code": "see The mapping",
            "first_run_id": "the run that met it first",
            "column_name": "the column at fault",
            "masked_value": "the shape of its value",
            "day": "null without a valid time",
            "source_rows": "rows that share the id on that day",
            "seen_at": "when it was first refused",
            "resolved_at": "null is open",
        },
    ),
    "source_days": Meaning(
        "One row per day of the source, renewed by each scoring run.",
        {
            "day": "null for rows without a valid time",
            "source_rows": "rows of the source",
            "before_scope": "of them before the first day in scope",
            "counted_at": "when it was counted",
        },
    ),
}
VIEWS = {
    "current_customer_segments": Meaning(
        "One row per customer.",
        {
            "customer_id": "as in customer_segments",
            "state": "as in customer_segments",
            "segment_id": "as in customer_segments",
            "segment_name": "name of the segment in the present champion",
            "probability": "as in customer_segments",
            "log_likelihood": "as in customer_segments",
            "valid_from": "as in customer_segments",
            "last_scored_at": "as in customer_segments",
            "model_version_id": "as in customer_segments",
        },
    ),
    "current_transaction_scores": Meaning(
        "One row per scored transaction, published scores alone.",
        {
            "transaction_id": "as in transaction_scores",
            "customer_id": "as in transaction_scores",
            "occurred_at": "as in transaction_scores",
            "day": "as in transaction_scores",
            "log_likelihood": "as in transaction_scores",
            "anomaly_score": "as in transaction_scores",
            "p_value": "as in transaction_scores",
            "in_sample": "as in transaction_scores",
            "model_version_id": "as in transaction_scores",
            "run_id": "as in transaction_scores",
            "scored_at": "as in transaction_scores",
        },
    ),
    "open_fraud_alerts": Meaning(
        "One row per alert that is not closed.",
        {
            "alert_id": "as in fraud_alerts",
            "transaction_id": "as in fraud_alerts",
            "case_id": "as in fraud_alerts",
            "customer_id": "as in fraud_alerts",
            "counterparty_id": "as in fraud_alerts",
            "occurred_at": "as in fraud_alerts",
            "day": "as in fraud_alerts",
            "amount": "as in fraud_alerts",
            "currency": "as in fraud_alerts",
            "anomaly_score": "as in fraud_alerts",
            "p_value": "as in fraud_alerts",
            "q_value": "as in fraud_alerts",
            "priority": "as in fraud_alerts",
            "expected_loss": "as in fraud_alerts",
            "origin": "as in fraud_alerts",
            "summary": "as in fraud_alerts",
            "reason_1": "the first reason as text",
            "reason_2": "the second",
            "reason_3": "the third",
            "status": "open or in_review",
            "last_verdict": "the last verdict; null without one",
            "actor": "who gave it",
            "decided_at": "when",
        },
    ),
    "alert_queue": Meaning(
        (
            "One row per day and case: the first reviews_per_day cases of each day, and after them"
            " what was drawn to be explored. Of days that were closed under a false_discovery_rate"
            " only alerts whose q-value is at most that."
        ),
        {
            "day": "as in fraud_alerts",
            "rank": "1 is to be looked at first",
            "case_id": "as in fraud_alerts",
            "priority": "of the case's foremost alert of the day",
            "alerts": "alerts of the case on that day that are shown",
            "origin": "as in fraud_alerts",
        },
    ),
    "alert_outcomes": Meaning(
        "One row per alert: what became of it.",
        {
            "alert_id": "as in fraud_alerts",
            "transaction_id": "as in fraud_alerts",
            "case_id": "as in fraud_alerts",
            "day": "as in fraud_alerts",
            "amount": "as in fraud_alerts",
            "currency": "as in fraud_alerts",
            "p_value": "as in fraud_alerts",
            "q_value": "as in fraud_alerts",
            "priority": "as in fraud_alerts",
            "rank": "its case's in alert_queue that day; null where it is not there",
            "origin": "as in fraud_alerts",
            "model_version_id": "as in fraud_alerts",
            "status": "open, in_review or closed",
            "verdict": "the last verdict; null without one",
            "fraud_type": "of that verdict",
            "duplicate_of": "of that verdict",
            "actor": "who gave it",
            "decided_at": "when",
        },
    ),
    "segment_summary": Meaning(
        "One row per segment of the champion.",
        {
            "segment_id": "as in segments",
            "name": "as in segments",
            "named_by": "as in segments",
            "description": "as in segments",
            "customers_at_fit": "customers at the fit",
            "share_at_fit": "their share",
            "customers": "customers now",
            "mean_probability": "mean probability of those",
            "model_version_id": "as in segments",
        },
    ),
    "segment_migration": Meaning(
        "One row per pair of segments and month in which customers moved.",
        {
            "from_segment_id": "null: from no segment",
            "to_segment_id": "null: to no segment; never both null",
            "month": "YYYY-MM, UTC",
            "customers": "how many moved",
        },
    ),
    "alert_quality": Meaning(
        (
            "One row per week, model and leading reason, over closed alerts that were raised by "
            "their score; frauds that raised no alert stand under (no alert). A duplicate counts "
            "with the verdict it repeats. What was drawn to be explored is left out, and alerts in"
            " sample have no part in the ratios."
        ),
        {
            "week": "its Monday",
            "model_version_id": "as in fraud_alerts",
            "leading_reason": "feature of the first reason",
            "reviewed": "closed alerts",
            "confirmed": "of them confirmed frauds",
            "false_positive_ratio": "false discoveries / (confirmed + false discoveries)",
            "precision": "confirmed / (confirmed + false discoveries)",
            "precision_low": "lower end of its 95 % interval (Wilson)",
            "precision_high": "upper end",
            "value_confirmed": "sum of the confirmed amounts",
            "missed_frauds": "confirmed frauds without an alert, by week of the verdict",
            "missed_value": "sum of their amounts",
            "median_minutes_to_verdict": "from alert to verdict",
        },
    ),
    "run_health": Meaning(
        "One row per job.",
        {
            "job": "as in pipeline_runs",
            "last_status": "of the newest run",
            "last_started_at": "when the newest run began",
            "last_succeeded_at": "end of the newest success",
            "runs": "runs so far, with the slots for which nothing was run",
            "failed": "of them failed",
            "last_error": "message of the newest run, if it failed",
            "last_note": "its note",
        },
    ),
    "coverage": Meaning(
        (
            "One row per day of the source; rows without a valid time stand under day null. "
            "source_rows = before_scope + scored + quarantined + pending − gone_from_source."
        ),
        {
            "day": "as in source_days",
            "source_rows": "rows of the source",
            "before_scope": "before the first day in scope, and not scored",
            "scored": "with a published score",
            "quarantined": "refused",
            "pending": "waiting for the next run, or too late",
            "too_late": "of the pending, behind the look-back: backfill",
            "gone_from_source": "scored, but no longer in the source",
        },
    ),
}


def columns(name: str) -> dict[str, str]:
    """What the columns of a table or view mean; "as in x" is said as there."""
    return {
        column: TABLES[text.removeprefix("as in ")].columns[column]
        if text.removeprefix("as in ") in TABLES
        else text
        for column, text in (TABLES | VIEWS)[name].columns.items()
    }
