"""What people look at: the report, the figures, one transaction, and what they say of it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fraudwatch import evaluation, explanations, features, report, store
from fraudwatch.scope import (
    KIND,
    require_champion,
    scope_day,
    transaction_key,
    with_all_columns,
)
from shared import accounts, frames, registry, reports
from shared.accounts import days_before, local_day, until_or_newest
from shared.errors import ConfigurationError, DataQualityError
from shared.jobs import Outcome, Request
from shared.runs import Run

DENSITY = "peerwatch (anomaly_score)"
PRIORITY = "peerwatch (priority)"  # where a ranker has set one
AMOUNT = "rule: amount"
BASELINE = "baseline_score"
TOGETHER = "peerwatch and baseline_score"
PRACTICE_REVIEWS = 100  # a day: beside the user's own budget, as the handbook's figures are told
SEED = 0  # of the days that are drawn anew


def write_report(run: Run, request: Request) -> Outcome:
    """The HTML report of the newest days."""
    zone = run.source.settings.timezone
    with run.results.transaction() as connection:
        newest = store.watermark(connection, run.tables)
        if newest is None:
            raise ConfigurationError(
                "fraudwatch report found no scores. Score first: peerwatch fraudwatch score"
            )
        day = local_day(newest, zone) - np.timedelta64(27, "D")
        found = store.report_frames(connection, run.tables, day.astype(object))
        champion = registry.champion(connection, run.tables, KIND)
    found |= _report_extras(run, found["alerts"], champion)
    path = Path(str(request.options.get("out") or "fraudwatch_report.html"))
    html = reports.render(
        "Fraud alerts",
        f"{run.source.mapping.table}, the last four weeks to {local_day(newest, zone)}",
        report.sections(found),
        generated_at=run.clock,
    )
    if not request.dry_run:
        path.write_text(html, encoding="utf-8")
    verb = "would have written" if request.dry_run else "wrote"
    return Outcome(f"{verb} {path}", {"path": str(path), "alerts": len(found["alerts"])})


def _report_extras(
    run: Run, alerts: pd.DataFrame, champion: registry.Stored | None
) -> dict[str, Any]:
    """Level, identity, and the recent amounts of the customers with alerts."""
    extras: dict[str, Any] = {"run": pd.DataFrame([{"run_id": run.run_id, "at": run.clock}])}
    if champion is not None:
        from fraudwatch.detector import Detector

        detector = Detector.from_arrays(champion.header, champion.arrays)
        level = detector.calibration.entry_level(run.settings(KIND).reviews_per_day)
        extras["level"] = pd.DataFrame([{"level": level}])
        extras["model"] = pd.DataFrame(
            [
                {
                    "model_version_id": champion.model_version_id,
                    "trained_from": champion.trained_from,
                    "trained_to": champion.trained_to,
                    **champion.metrics,
                }
            ]
        )
    extras["history"] = _history(run, alerts)
    return extras


def _history(run: Run, alerts: pd.DataFrame, most: int = 60) -> pd.DataFrame:
    """The last amounts of the customers of the newest alerts, up to each alert."""
    empty = pd.DataFrame({"transaction_id": [], "occurred_at": [], "amount": []})
    named = alerts[alerts.customer_id.notna()]
    named = named.sort_values(["day", "priority"], ascending=False).head(most)
    if named.empty or run.source.mapping.amount is None:
        return empty
    until = frames.micros(max(named.occurred_at)) + 1
    since = frames.micros(min(named.occurred_at)) - 30 * frames.MICROSECONDS_PER_DAY
    rows = run.source.read(since, until, frames.micros(run.clock)).rows
    rows = rows[rows.customer_id.isin(named.customer_id)]
    parts = []
    for alert in named.itertuples():
        own = rows[(rows.customer_id == alert.customer_id)]
        own = own[own.occurred_at <= frames.micros(alert.occurred_at)].tail(30)
        parts.append(own[["occurred_at", "amount"]].assign(transaction_id=alert.transaction_id))
    history = pd.concat(parts, ignore_index=True)
    return history.assign(occurred_at=[frames.moment(value) for value in history.occurred_at])


def evaluate(run: Run, request: Request) -> Outcome:
    """Quality against labels, beside what the user has and one-line rules, at equal reviews."""
    column = request.options.get("label") or run.source.mapping.label
    if column is None:
        raise ConfigurationError(
            "fraudwatch evaluate needs labels. Name their column: --label COLUMN, or map "
            "[source.transactions] label."
        )
    run.source.require_label(str(column))
    champion = require_champion(run)
    with run.results.transaction() as connection:
        scope = scope_day(connection, run)
    zone = run.source.settings.timezone
    since = frames.micros(request.since) if request.since else frames.day_start(scope, zone)
    since = max(since, frames.micros(champion.trained_to)) if request.since is None else since
    until = until_or_newest(run, request.until)
    rows, counts = _labelled_rows(run, str(column), since, until, champion)
    return _evaluated(run, rows, counts, str(column), (since, until))


def _labelled_rows(
    run: Run, column: str, since: int, until: int, champion: registry.Stored
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Published scores of the window, in order of time, with their labels and the rules' inputs;
    and how many rows the source has there, and how many of them were refused."""
    from fraudwatch.detector import Detector

    detector = Detector.from_arrays(champion.header, champion.arrays)
    settings, zone = run.settings(KIND), run.source.settings.timezone
    inspection = accounts.inspect(run, since, until)
    history = settings.history_days * frames.MICROSECONDS_PER_DAY
    parts = []
    for rows, own, _batch in accounts.stream(run, inspection.slices, history, label=column):
        built = features.build(rows, own, detector.reference, zone, settings.history_days)
        picked = with_all_columns(rows.iloc[own]).reset_index(drop=True)
        mean = (
            built["mean_amount_30d"]
            if "mean_amount_30d" in built
            else pd.Series(np.nan, built.index)
        )
        parts.append(picked.assign(own_mean=mean))
    if not parts:
        raise DataQualityError(
            f"fraudwatch evaluate found no transactions from {frames.moment(since):%Y-%m-%d %H:%M} "
            f"(UTC) on; {champion.model_version_id} was trained on those before. Wait for later "
            "ones, or fit on an earlier window: peerwatch fraudwatch fit --until T."
        )
    labelled = pd.concat(parts, ignore_index=True)
    with run.results.transaction() as connection:
        scores = store.scores_between(connection, run.tables, since, until)
    if scores.empty:
        raise DataQualityError(
            "fraudwatch evaluate found no scores from "
            f"{frames.moment(since):%Y-%m-%d} to {frames.moment(until):%Y-%m-%d}. Score first: "
            "peerwatch fraudwatch score, or choose another window: --from, --to."
        )
    joined = labelled.merge(scores, on="transaction_id", how="inner")
    counts = {
        "quarantined": int(inspection.rows_refused),
        "unscored": len(labelled) - len(joined),
    }
    return joined.sort_values(["occurred_at", "transaction_id"], ignore_index=True), counts


def _evaluated(
    run: Run,
    rows: pd.DataFrame,
    counts: Mapping[str, int],
    column: str,
    window: tuple[int, int],
) -> Outcome:
    settings = run.settings(KIND)
    ripe = days_before(frames.micros(run.clock), settings.label_delay_days)
    fresh = rows[~rows.in_sample.astype(bool)]
    # A zero that is younger than a chargeback may still become a fraud: it is unknown.
    known = fresh[(fresh.label > 0) | (fresh.label.notna() & (fresh.occurred_at <= ripe))]
    _require_labels(known, len(fresh), len(rows) - len(fresh), column)
    counts = {
        "rows": len(known),
        "frauds": int((known.label > 0).sum()),
        "unlabelled": len(fresh) - len(known),
        "in_sample": len(rows) - len(fresh),
        **counts,
    }
    days = frames.local_days(known.occurred_at.to_numpy(), run.source.settings.timezone)
    scores = _scores(known)
    budgets = sorted({PRACTICE_REVIEWS, settings.reviews_per_day})
    table = _table(known, days, scores, budgets)
    beside = _beside(known, days, scores, budgets)
    shown = pd.DataFrame(table).set_index("score").T.to_string()
    data = {**counts, "scores": table, "beside": beside}
    lines = [_head(counts, window), shown, *_beside_lines(beside)]
    return Outcome("\n".join(lines), data)


def _head(counts: Mapping[str, int], window: tuple[int, int]) -> str:
    since, until = (frames.moment(value) for value in window)
    return (
        f"{counts['rows']} labelled transactions, {counts['frauds']} frauds, "
        f"{since:%Y-%m-%d} to {until:%Y-%m-%d}; left out: {counts['unlabelled']} without a known "
        f"label, {counts['in_sample']} in sample, {counts['quarantined']} quarantined, "
        f"{counts['unscored']} not scored"
    )


def _scores(known: pd.DataFrame) -> dict[str, np.ndarray]:
    """What ranks the transactions, by name: higher first."""
    scores = {
        DENSITY: known.anomaly_score.to_numpy(),
        "peerwatch (log_likelihood)": -known.log_likelihood.to_numpy(),
    }
    if known.amount.notna().any():
        amount = known.amount.fillna(0.0).to_numpy()
        scores[AMOUNT] = np.abs(amount)
        # Who has no payments yet is compared with a typical amount, which is 100 %.
        own_mean = known.own_mean.replace(0, np.nan).fillna(100).to_numpy()
        scores["rule: amount over own mean"] = amount / own_mean
    priority = _priority(known)
    if priority is not None:
        scores[PRIORITY] = priority
    if "baseline" in known and known.baseline.notna().any():
        # What the user has may know some transactions only: the others come after all of those.
        last = np.nextafter(known.baseline.min(), -np.inf)
        scores[BASELINE] = known.baseline.fillna(last).to_numpy(np.float64)
    return scores


def _priority(known: pd.DataFrame) -> np.ndarray | None:
    """The priority of alerts, all of them before what raised none; None where none was set."""
    priority = known.priority.to_numpy(np.float64, na_value=np.nan)
    score, alerted = known.anomaly_score.to_numpy(np.float64), ~np.isnan(priority)
    if not alerted.any() or np.array_equal(priority[alerted], score[alerted]):
        return None
    lift = score.max() - priority[alerted].min() + 1
    return np.where(alerted, priority + lift, score)


def _table(
    known: pd.DataFrame,
    days: np.ndarray,
    scores: Mapping[str, np.ndarray],
    budgets: Collection[int],
) -> list[dict[str, Any]]:
    """The figures of each score."""
    customer = known.customer_id.astype("object").where(
        known.customer_id.notna(), known.transaction_id
    )
    fraud, amount = known.label.to_numpy() > 0, known.amount.fillna(0.0).to_numpy()
    kinds = known.label_kind.to_numpy() if "label_kind" in known else None
    return [
        {
            "score": name,
            **_figures(fraud, values, days, customer.to_numpy(), amount, budgets, kinds),
        }
        for name, values in scores.items()
    ]


def _beside(
    known: pd.DataFrame,
    days: np.ndarray,
    scores: Mapping[str, np.ndarray],
    budgets: Collection[int],
) -> list[dict[str, Any]]:
    """Peerwatch beside what the user has and the amount rule, each with the same reviews a day."""
    fraud, amount = known.label.to_numpy() > 0, known.amount.fillna(0.0).to_numpy()
    other = next((name for name in (BASELINE, AMOUNT) if name in scores), DENSITY)
    table = []
    for k in budgets:
        names = [name for name in (DENSITY, PRIORITY, BASELINE, AMOUNT) if name in scores]
        lists = {name: evaluation.reviewed(days, scores[name], k) for name in names}
        if BASELINE in scores:
            ours = scores.get(PRIORITY, scores[DENSITY])
            lists[TOGETHER] = evaluation.reviewed_together(days, ours, scores[BASELINE], k)
        against = {name: other if name == DENSITY else DENSITY for name in lists}
        rows = evaluation.side_by_side(days, amount, fraud, lists, against, SEED)
        table += [{"reviews_per_day": k, **row} for row in rows]
    return table


def _beside_lines(beside: list[dict[str, Any]]) -> list[str]:
    """A table for each number of reviews, with intervals as people read them."""
    table = pd.DataFrame(beside)
    lines = []
    for k, rows in table.groupby("reviews_per_day"):
        shown = {
            row["score"]: {
                "frauds found": _with_interval(row, "share_found", f"{row['frauds_found']}"),
                "value found": _with_interval(row, "value_share", f"{row['value_found']:,.0f}"),
                "false per fraud found": _ratio_text(row),
                "set against": row["against"],
                "found by it alone": f"{row['found_only_by_it']}",
                "found by the other alone": f"{row['found_only_by_the_other']}",
                "found by neither": f"{row['found_by_neither']}",
            }
            for row in rows.to_dict("records")
        }
        lines.append(f"\n{k} reviews a day each, with intervals of 95 %:")
        lines.append(pd.DataFrame(shown).to_string())
    return lines


def _with_interval(row: Mapping[str, Any], share: str, found: str) -> str:
    low, high = row[f"{share}_interval"]
    if math.isnan(row[share]):
        return "–"
    return f"{found}, {row[share]:.1%} ({low:.1%} to {high:.1%})"


def _ratio_text(row: Mapping[str, Any]) -> str:
    low, high = row["false_positive_ratio_interval"]
    return f"{row['false_positive_ratio']:.2f} ({low:.2f} to {high:.2f})"


def _figures(
    fraud: np.ndarray,
    score: np.ndarray,
    day: np.ndarray,
    customer: np.ndarray,
    amount: np.ndarray,
    budgets: Collection[int],
    kinds: np.ndarray | None,
) -> dict[str, float]:
    """The figures of one score, over all frauds and per kind.

    Of a kind, Card Precision and value found say how much of the same reviews goes to that kind.
    """
    found = {
        "AUC": evaluation.auc(fraud, score),
        "AP": evaluation.average_precision(fraud, score),
    }
    reviewed = {"": fraud}
    if kinds is not None:
        for row in evaluation.per_kind(fraud, kinds, score).itertuples():
            found[f"AUC kind {row.kind}"] = row.auc
            found[f"AP kind {row.kind}"] = row.average_precision
            reviewed[f" kind {row.kind}"] = fraud & (kinds == row.kind)
    for k in budgets:
        for name, hits in reviewed.items():
            precision = evaluation.card_precision(day, customer, score, hits, k)
            found[f"Card Precision@{k}{name}"] = precision
            found[f"value found@{k}{name}"] = evaluation.value_found(day, amount, score, hits, k)
    return {name: round(float(value), 4) for name, value in found.items()}


def _require_labels(known: pd.DataFrame, total: int, in_sample: int, column: str) -> None:
    if not total and in_sample:
        raise DataQualityError(
            f"fraudwatch evaluate found {in_sample} scored rows in the window, all of them in "
            "sample: their model was trained on these days. Wait for later ones, or fit on an "
            "earlier window: peerwatch fraudwatch fit --until T."
        )
    if known.empty:
        raise DataQualityError(
            f"fraudwatch evaluate found no label: {column} is null in all {total} scored rows of "
            "the window. Choose a window whose labels are known: --from, --to."
        )
    frauds = int((known.label > 0).sum())
    if frauds in (0, len(known)):
        raise DataQualityError(
            f"fraudwatch evaluate found {frauds} frauds among {len(known)} rows with a known "
            f"{column} (above 0 is fraud). It needs frauds and genuine ones: --from, --to."
        )


def explain(run: Run, request: Request) -> Outcome:
    """The likelihood, its parts and the reasons of one transaction, alert or not."""
    from fraudwatch.assessing import Assessor

    key = _key(run, str(request.options["transaction_id"]))
    champion = require_champion(run)
    assessor = Assessor(run, champion)
    found = run.source.moment_of(key, frames.micros(run.clock))
    rows = assessor.read(found, found + 1)
    assessed = assessor.assess(rows, np.flatnonzero(rows.transaction_id == key))
    said, reasons = assessor.raised(assessed)
    judged, amount = assessed.judged, assessed.rows.get("amount")
    least, most = assessor.turning_points(assessed)[0].tolist()
    size = math.nan if amount is None else abs(float(amount.iloc[0]))
    data = {
        "transaction_id": key,
        "model_version_id": champion.model_version_id,
        "log_likelihood": float(judged.scored.log_likelihood[0]),
        "anomaly_score": float(judged.anomaly_score[0]),
        "p_value": float(judged.p_value[0]),
        "priority": float(said.priority[0]),
        "entry_level": assessor.level,
        "summary": said.summary[0],
        "not_raised_from": None if math.isnan(least * size) else least * size,
        "not_raised_below": None if math.isnan(most * size) else most * size,
        "reasons": reasons.drop(columns="row")
        .astype(object)
        .where(reasons.notna(), None)
        .to_dict("records"),
        "evidence": _evidence(judged.frame, rows.columns),
    }
    return Outcome(_explanation(data, reasons), data)


def _key(run: Run, text: str) -> Any:
    """A transaction's id as its table has it, given as text, or as the id of its alert."""
    if text.startswith("alert-"):
        with suppress(ConfigurationError), run.results.transaction() as connection:
            return store.alert_of(connection, run.tables, text)[1]
    return transaction_key(run, text)


def _explanation(data: Mapping[str, Any], reasons: pd.DataFrame) -> str:
    """The likelihood as the sum of its lines, and apart from it what else moved the score."""
    outside = reasons.feature.str.startswith((explanations.EVIDENCE, explanations.RANKER))
    parts, others = reasons[~outside], reasons[outside]
    raised = "reaches" if data["anomaly_score"] >= data["entry_level"] else "is under"
    lines = [
        data["summary"],
        f"anomaly_score {data['anomaly_score']:.2f} {raised} the level of alerts, "
        f"{data['entry_level']:.2f}; p_value {data['p_value']:.2g}",
        "",
        parts[["feature", "value", "expected", "contribution", "baseline"]].to_string(index=False),
        f"sum of contributions {parts.contribution.sum():.3f} nats = -log_likelihood "
        f"{-data['log_likelihood']:.3f}",
    ]
    if len(others):
        told = others[["feature", "contribution", "text"]].to_string(index=False)
        lines += ["", "outside the sum:", told]
    return "\n".join(lines)


def _evidence(frame: pd.DataFrame, columns: Collection[str]) -> dict[str, float]:
    """What stands beside the density: shown, not part of the score."""
    beside = [f.name for f in features.declared(columns) if f.role == "evidence"]
    return {name: float(frame[name].iloc[0]) for name in beside if pd.notna(frame[name].iloc[0])}


def sample(run: Run, request: Request) -> Outcome:
    """Synthetic transactions from the champion's density, as a CSV file."""
    from fraudwatch.detector import Detector

    champion = require_champion(run)
    detector = Detector.from_arrays(champion.header, champion.arrays)
    drawn = detector.sample(int(request.options["size"]), int(request.options["seed"]))
    path = Path(str(request.options.get("out") or "fraudwatch_sample.csv"))
    if not request.dry_run:
        frames.write_csv(drawn, path)
    verb = "would have written" if request.dry_run else "wrote"
    return Outcome(
        f"{verb} {len(drawn)} synthetic transactions to {path}",
        {"path": str(path), "rows": len(drawn)},
    )
